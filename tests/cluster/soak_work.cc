#include "tests/cluster/soak_work.h"

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/transaction.h"

namespace mangrove::cluster_test {
namespace {

constexpr int64_t kCallTimeoutMs = 10'000;
constexpr int64_t kLockTimeoutMs = 5'000;
constexpr size_t kWords = kPageBytes / sizeof(uint64_t);

using Content = std::array<uint64_t, kWords>;

// Word 0 is the version, word 1 the page; each of the others follows from these and its place.
Content MakeContent(uint64_t page, uint64_t version) {
  Content content{version, page};
  for (size_t i = 2; i < kWords; ++i) content[i] = (version * kWords + i) * 0x9e3779b97f4a7c15 ^ page;
  return content;
}

void Note(SoakShared::Program& program, const absl::Status& status) {
  if (status.ok()) {
    program.done.fetch_add(1);
  } else {
    program.errors[static_cast<size_t>(status.code()) % kSoakCodes].fetch_add(1);
  }
}

// Those after which the same session may go on.
bool IsPassing(const absl::Status& status) {
  return status.ok() || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status) ||
         absl::IsAborted(status);
}

absl::Status WritePage(Region& region, uint64_t page, bool with_flush, SoakShared& shared) {
  auto lock = region.Lock(page * kPageBytes, kPageBytes, LockMode::kExclusive, kLockTimeoutMs);
  if (!lock.ok()) return lock.status();
  const uint64_t version = shared.pages[page].begun.fetch_add(1) + 1;
  const Content content = MakeContent(page, version);
  absl::Status status = region.Write(page * kPageBytes, std::as_bytes(std::span(content)));
  if (status.ok()) shared.writes.fetch_add(1);
  if (status.ok() && with_flush) {
    status = region.Flush(page * kPageBytes, kPageBytes);
    if (status.ok()) {
      shared.pages[page].flushed.store(version);
      shared.flushes.fetch_add(1);
    }
  }
  const absl::Status released = lock->Release();
  return status.ok() ? released : status;
}

absl::Status ReadPage(Region& region, uint64_t page, Content& content) {
  auto lock = region.Lock(page * kPageBytes, kPageBytes, LockMode::kShared, kLockTimeoutMs);
  if (!lock.ok()) return lock.status();
  absl::Status status = region.Read(page * kPageBytes, std::as_writable_bytes(std::span(content)));
  const absl::Status released = lock->Release();
  return status.ok() ? released : status;
}

// What is wrong with the content, or "".
std::string WhatIsWrong(uint64_t page, const Content& content, uint64_t least, uint64_t most) {
  const uint64_t version = content[0];
  const std::string seen = absl::StrCat("page ", page, " holds version ", version, " of page ", content[1]);
  if (content[1] != page) return absl::StrCat(seen, ", expected of page ", page);
  if (version < least) return absl::StrCat(seen, ", expected at least ", least, ", whose flush was acknowledged");
  if (version > most) return absl::StrCat(seen, ", expected at most ", most, ", which was written last");
  const Content expected = MakeContent(page, version);
  for (size_t i = 2; i < kWords; ++i) {
    if (content[i] != expected[i]) return absl::StrCat(seen, ", but is torn from word ", i, " on");
  }
  return "";
}

absl::Status Get(Transaction& transaction, Region& region, uint64_t page, AccessMode intent, int64_t* value) {
  return transaction.Read(region, page * kPageBytes, std::as_writable_bytes(std::span(value, 1)), intent);
}

absl::Status Put(Transaction& transaction, Region& region, uint64_t page, int64_t value) {
  return transaction.Write(region, page * kPageBytes, std::as_bytes(std::span(&value, 1)));
}

// Moves money, and counts it on the program's own page.
absl::Status Move(Transaction& transaction, Region& region, int program, uint64_t from, uint64_t to, int64_t* count) {
  int64_t payer = 0;
  int64_t payee = 0;
  const uint64_t own = kSoakAccounts + static_cast<uint64_t>(program);
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
  return RunTransaction(session, {.most_tries = 100}, [&](Transaction& transaction) {
    absl::Status status;
    *sum = 0;
    for (uint64_t account = 0; account < kSoakAccounts && status.ok(); ++account) {
      int64_t balance = 0;
      status = Get(transaction, region, account, AccessMode::kRead, &balance);
      *sum += balance;
    }
    return status;
  });
}

// One program's work on the pages; what it has seen outlives its sessions.
class Checker {
 public:
  Checker(int program, int nodes, uint64_t seed, SoakShared& shared)
      : first_(static_cast<uint64_t>(program) * kSoakPagesOfNode),
        pages_(static_cast<uint64_t>(nodes) * kSoakPagesOfNode),
        name_(absl::StrCat("the checker on node-", program + 1)),
        random_(seed),
        mine_(shared.checkers[program]),
        shared_(shared) {}

  absl::Status Step(Region& region) {
    const bool writes = random_() % 3 == 0;
    const uint64_t page = writes ? first_ + random_() % kSoakPagesOfNode : random_() % pages_;
    const absl::Status status = writes ? WritePage(region, page, random_() % 2 == 0, shared_) : Verify(region, page);
    Note(mine_, status);
    if (absl::IsDataLoss(status)) shared_.Fail(absl::StrCat(name_, ": page ", page, ": ", status.ToString()));
    return status;
  }

 private:
  struct Seen {
    uint64_t version = 0;
    uint64_t epoch = 0;
  };

  absl::Status Verify(Region& region, uint64_t page) {
    const uint64_t epoch = shared_.epoch.load();
    const uint64_t least = shared_.pages[page].flushed.load();
    Content content{};
    const absl::Status status = ReadPage(region, page, content);
    if (!status.ok()) return status;
    std::string wrong = WhatIsWrong(page, content, least, shared_.pages[page].begun.load());
    const bool quiet = epoch % 2 == 0 && shared_.epoch.load() == epoch;
    Seen& seen = seen_[page];
    if (wrong.empty() && quiet && seen.epoch == epoch && content[0] < seen.version) {
      wrong =
          absl::StrCat("page ", page, " went back from version ", seen.version, " to ", content[0], " with no fault");
    }
    if (!wrong.empty()) shared_.Fail(absl::StrCat(name_, ": ", wrong));
    if (quiet) seen = {.version = content[0], .epoch = epoch};
    shared_.reads.fetch_add(1);
    return absl::OkStatus();
  }

  const uint64_t first_;
  const uint64_t pages_;
  const std::string name_;
  std::mt19937_64 random_;
  SoakShared::Program& mine_;
  SoakShared& shared_;
  std::map<uint64_t, Seen> seen_;
};

// Calls `step` with the region for as long as the session is good, and attaches again then.
template <typename Step>
int WorkOn(const std::string& socket, const std::string& name, SoakShared::Program& program, Step step) {
  for (;;) {
    const auto session = Session::Attach({.socket_path = socket, .limits = {.call_timeout_ms = kCallTimeoutMs}});
    if (session.ok()) {
      const auto region = (*session)->Open(name, AccessMode::kWrite);
      if (!region.ok()) Note(program, region.status());
      while (region.ok() && IsPassing(step(*session, **region))) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // Two processors serve all of them.
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace

SoakShared& SoakShared::Make() {
  void* place = mmap(nullptr, sizeof(SoakShared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) std::abort();
  return *new (place) SoakShared();
}

void SoakShared::Fail(const std::string& why) {
  int none = 0;
  if (!failed.compare_exchange_strong(none, 1)) return;
  std::strncpy(reason, why.c_str(), sizeof(reason) - 1);
  failed.store(2);
}

void SetUpSoak(const std::string& socket, int nodes, SoakShared& shared) {
  const auto session = Take(Session::Attach({.socket_path = socket, .limits = {.call_timeout_ms = kCallTimeoutMs}}));
  MakeRegion(*session, "accounts", (kSoakAccounts + static_cast<uint64_t>(nodes)) * kPageBytes);
  const uint64_t pages = static_cast<uint64_t>(nodes) * kSoakPagesOfNode;
  const auto region = MakeRegion(*session, "pages", pages * kPageBytes);
  for (uint64_t page = 0; page < pages; ++page) {
    const absl::Status status = WritePage(*region, page, true, shared);
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }
}

int CheckPages(const std::string& socket, int program, int nodes, uint64_t seed, SoakShared& shared) {
  Checker checker(program, nodes, seed, shared);
  return WorkOn(socket, "pages", shared.checkers[program],
                [&](const std::shared_ptr<Session>&, Region& region) { return checker.Step(region); });
}

int MoveMoney(const std::string& socket, int program, uint64_t seed, SoakShared& shared) {
  std::mt19937_64 random(seed);
  SoakShared::Program& mine = shared.movers[program];
  return WorkOn(socket, "accounts", mine, [&](const std::shared_ptr<Session>& session, Region& region) {
    const uint64_t from = random() % kSoakAccounts;
    const uint64_t to = (from + 1 + random() % (kSoakAccounts - 1)) % kSoakAccounts;
    int64_t count = 0;
    shared.moves_begun[program].fetch_add(1);
    absl::Status status = RunTransaction(
        session, {}, [&](Transaction& transaction) { return Move(transaction, region, program, from, to, &count); });
    if (status.ok()) shared.moves_acknowledged[program].store(count);
    int64_t sum = 0;
    if (status.ok() && random() % 20 == 0) {
      status = SumUp(session, region, &sum);
      if (status.ok()) shared.sums.fetch_add(1);
      if (status.ok() && sum != 0)
        shared.Fail(absl::StrCat("on node-", program + 1, " the sum is ", sum, ", expected 0"));
    }
    if (absl::IsDataLoss(status)) shared.Fail(absl::StrCat("accounts on node-", program + 1, ": ", status.ToString()));
    Note(mine, status);
    return status;
  });
}

absl::Status CheckAtEnd(const std::string& socket, int nodes, SoakShared& shared) {
  const auto session = Take(Session::Attach({.socket_path = socket, .limits = {.call_timeout_ms = 20'000}}));
  const auto region = Take(session->Open("pages", AccessMode::kRead));
  for (uint64_t page = 0; page < static_cast<uint64_t>(nodes) * kSoakPagesOfNode; ++page) {
    Content content{};
    const absl::Status status = ReadPage(*region, page, content);
    if (!status.ok()) return status;
    const std::string wrong = WhatIsWrong(page, content, shared.pages[page].flushed, shared.pages[page].begun);
    if (!wrong.empty()) return absl::InternalError(wrong);
  }
  const auto accounts = Take(session->Open("accounts", AccessMode::kWrite));
  int64_t sum = 0;
  absl::Status status = SumUp(session, *accounts, &sum);
  if (status.ok() && sum != 0) return absl::InternalError(absl::StrCat("the sum is ", sum, ", expected 0"));
  for (int program = 0; program < nodes && status.ok(); ++program) {
    int64_t count = 0;
    status = RunTransaction(session, {.most_tries = 100}, [&](Transaction& transaction) {
      return Get(transaction, *accounts, kSoakAccounts + static_cast<uint64_t>(program), AccessMode::kRead, &count);
    });
    const int64_t least = shared.moves_acknowledged[program];
    const int64_t most = shared.moves_begun[program];
    if (status.ok() && (count < least || count > most)) {
      return absl::InternalError(absl::StrCat("node-", program + 1, " has moved money ", count, " times, expected ",
                                              least, " (acknowledged) to ", most, " (begun)"));
    }
  }
  return status;
}

}  // namespace mangrove::cluster_test
