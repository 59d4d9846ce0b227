// Programs on three nodes move money between accounts in transactions, while the nodes are killed one after the other: the sum
// never changes, and what was acknowledged stays.
//
// Covers: G15

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <random>
#include <thread>

#include "engine/transaction.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

constexpr uint64_t kAccounts = 8;
constexpr int kBanks = 3;
constexpr uint64_t kBankPages = kAccounts + kBanks;  // Behind the accounts: how often each program has moved money.

// Between a program and the test.
struct Progress {
  std::atomic<uint64_t> acknowledged[kBanks];
  std::atomic<uint64_t> begun[kBanks];
};

absl::Status Get(Transaction& transaction, Region& region, uint64_t page, AccessMode intent, int64_t* value) {
  return transaction.Read(region, page * kPageBytes, std::as_writable_bytes(std::span(value, 1)), intent);
}

absl::Status Put(Transaction& transaction, Region& region, uint64_t page, int64_t value) {
  return transaction.Write(region, page * kPageBytes, std::as_bytes(std::span(&value, 1)));
}

// Moves money, and counts it on the program's own page.
absl::Status Move(Transaction& transaction, Region& region, int worker, uint64_t from, uint64_t to, int64_t* count) {
  int64_t payer = 0;
  int64_t payee = 0;
  const uint64_t own = kAccounts + static_cast<uint64_t>(worker);
  absl::Status status = Get(transaction, region, from, AccessMode::kWrite, &payer);
  if (status.ok()) status = Get(transaction, region, to, AccessMode::kWrite, &payee);
  if (status.ok()) status = Get(transaction, region, own, AccessMode::kWrite, count);
  ++*count;
  if (status.ok()) status = Put(transaction, region, from, payer - 7);
  if (status.ok()) status = Put(transaction, region, to, payee + 7);
  if (status.ok()) status = Put(transaction, region, own, *count);
  return status;
}

absl::Status SumUp(const std::shared_ptr<Session>& session, Region& region, int64_t* sum) {
  const auto add = [&](Transaction& transaction) {
    absl::Status status;
    *sum = 0;
    for (uint64_t account = 0; account < kAccounts && status.ok(); ++account) {
      int64_t balance = 0;
      status = Get(transaction, region, account, AccessMode::kRead, &balance);
      *sum += balance;
    }
    return status;
  };
  return RunTransaction(session, {.most_tries = 100}, add);
}

// Until its session ends. False: the sum was wrong.
bool WorkWithSession(const std::shared_ptr<Session>& session, Region& region, int worker, Progress& progress) {
  std::minstd_rand random(std::random_device{}());
  for (;;) {
    const uint64_t from = random() % kAccounts;
    const uint64_t to = (from + 1 + random() % (kAccounts - 1)) % kAccounts;
    int64_t count = 0;
    const auto move = [&](Transaction& transaction) { return Move(transaction, region, worker, from, to, &count); };
    progress.begun[worker].fetch_add(1);
    const absl::Status status = RunTransaction(session, {}, move);
    if (status.ok()) progress.acknowledged[worker].store(static_cast<uint64_t>(count));
    if (!status.ok() && !absl::IsAborted(status)) return true;
    int64_t sum = 0;
    if (random() % 20 == 0 && SumUp(session, region, &sum).ok() && sum != 0) return false;
  }
}

// With one node, again whenever it is back.
int Work(const std::string& socket, int worker, Progress& progress) {
  for (;;) {
    const auto session = Session::Attach({.socket_path = socket, .limits = {.call_timeout_ms = 10'000}});
    if (session.ok()) {
      const auto region = (*session)->Open("accounts", AccessMode::kWrite);
      if (region.ok() && !WorkWithSession(*session, **region, worker, progress)) return 1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

class TransactionsOfPrograms : public testing::Test {
 protected:
  TransactionsOfPrograms()
      : progress_(*new (mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
                      Progress()) {}
  ~TransactionsOfPrograms() override { munmap(&progress_, sizeof(Progress)); }

  uint64_t Acknowledged(int worker) const { return progress_.acknowledged[worker].load(); }
  bool GetsOn(int worker, uint64_t by) {
    const uint64_t before = Acknowledged(worker);
    return Eventually([&] { return Acknowledged(worker) >= before + by; }, 60);
  }
  // Seen from every node.
  void ExpectSums() {
    for (int node = 1; node <= kBanks; ++node) {
      const auto session = cluster_.Attach(node, 20'000);
      const auto region = Take(session->Open("accounts", AccessMode::kRead));
      int64_t sum = -1;
      const absl::Status status = SumUp(session, *region, &sum);
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_EQ(sum, 0) << "node-" << node;
      for (int worker = 0; worker < kBanks; ++worker) {
        int64_t count = 0;
        const absl::Status read = RunTransaction(session, {.most_tries = 100}, [&](Transaction& transaction) {
          return Get(transaction, *region, kAccounts + static_cast<uint64_t>(worker), AccessMode::kRead, &count);
        });
        EXPECT_TRUE(read.ok()) << read;
        EXPECT_GE(static_cast<uint64_t>(count), Acknowledged(worker)) << "node-" << node << ", of node-" << worker + 1;
        EXPECT_LE(static_cast<uint64_t>(count), progress_.begun[worker].load());
      }
    }
  }

  Progress& progress_;
  Cluster cluster_;
};

TEST_F(TransactionsOfPrograms, KeepTheSumWhileTheNodesAreKilledOneAfterTheOther) {
  cluster_.StartAll();
  {
    const auto session = cluster_.Attach(1);
    MakeRegion(*session, "accounts", kBankPages * kPageBytes);
  }
  std::vector<std::unique_ptr<Child>> children;
  for (int worker = 0; worker < kBanks; ++worker) {
    children.push_back(std::make_unique<Child>(
        [this, worker](const Child::Tell&) { return Work(cluster_.socket(worker + 1), worker, progress_); }));
  }
  for (int worker = 0; worker < kBanks; ++worker) ASSERT_TRUE(GetsOn(worker, 20)) << worker;
  for (int node = 1; node <= kBanks; ++node) {
    cluster_.Kill(node);
    ASSERT_TRUE(GetsOn(node % kBanks, 20)) << "without node-" << node;
    cluster_.Start(node);
    cluster_.AwaitConnected();
    ASSERT_TRUE(GetsOn(node - 1, 20)) << "node-" << node << " again";
  }
  cluster_.KillAll();
  children.clear();
  cluster_.StartAll();
  cluster_.AwaitConnected();
  ExpectSums();
  std::printf("acknowledged: %lu, %lu, %lu\n", Acknowledged(0), Acknowledged(1), Acknowledged(2));
}

TEST_F(TransactionsOfPrograms, AreInTheLogThatAnyNodeShows) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "accounts", kBankPages * kPageBytes);
  const auto put = [&](Transaction& transaction) {
    const absl::Status status = Put(transaction, *region, 2, 77);
    return status.ok() ? Put(transaction, *region, 3, 78) : status;
  };
  ASSERT_TRUE(RunTransaction(session, {}, put).ok());
  {
    auto aborted = Take(Transaction::Begin(session));
    ASSERT_TRUE(Put(aborted, *region, 2, 79).ok());
  }
  const auto log = cluster_.Ask(2, {"log", "show", "node-1"});
  ASSERT_EQ(log["records"].size(), 1u);
  ASSERT_EQ(log["records"][0]["pages"].size(), 2u);
  EXPECT_EQ(log["records"][0]["pages"][0]["address"], ToString(region->info().address + 2 * kPageBytes));
  const auto other = cluster_.Attach(3);
  const auto writes = Take(Take(other->Open("accounts", AccessMode::kRead))->ReadLog(1));
  ASSERT_EQ(writes.size(), 2u);
  EXPECT_EQ(writes[1].offset_bytes, 3 * kPageBytes);
  EXPECT_EQ(writes[1].page_sequence, 1u);
  EXPECT_EQ(writes[1].bytes, std::string("\x4e\0\0\0\0\0\0\0", 8));
  const Output text = RunProgram({"mangrove", "--socket", cluster_.socket(3), "log", "show", "1"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("1 transaction in the log of node-1"));
  const Output none = RunProgram({"mangrove", "--socket", cluster_.socket(3), "log", "show", "3"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("has never had a transaction"));
}

}  // namespace
}  // namespace mangrove::cluster_test
