#include "tests/sim/accounts.h"
#include "tests/sim/sim_cluster.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::sim {
namespace {

constexpr size_t kAccountBytes = 32;
constexpr uint64_t kFirstBalance = 1000;
constexpr DurationNs kTransferPause = 5 * kMillisecond;

std::string Encode(const Account& account) {
  std::string bytes(kAccountBytes, '\0');
  std::memcpy(bytes.data(), &account, sizeof(Account));
  return bytes;
}

Account Decode(const std::string& bytes) {
  Account account;
  std::memcpy(&account, bytes.data(), sizeof(Account));
  return account;
}

}  // namespace

class AccountsWork::Attempt {
 public:
  explicit Attempt(AccountsOracle* oracle)
      : oracle_(oracle), number_(oracle->NextTransfer()), newest_(oracle->Newest()) {}
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  ~Attempt() {
    if (!ended_) oracle_->End(number_, absl::UnavailableError("the node died"));
  }
  uint64_t number() const { return number_; }
  const std::vector<uint64_t>* newest() const { return &newest_; }
  void Intend(size_t account, const Account& written) { oracle_->Intend(number_, account, written); }
  void BeginCommit() { oracle_->BeginCommit(number_); }
  void End(const absl::Status& status) {
    ended_ = true;
    oracle_->End(number_, status);
  }

 private:
  AccountsOracle* const oracle_;
  const uint64_t number_;
  const std::vector<uint64_t> newest_;
  bool ended_ = false;
};

AccountsWork::AccountsWork(SimCluster* cluster, const AccountsOptions& options)
    : cluster_(cluster),
      world_(&cluster->world()),
      options_(options),
      accounts_(static_cast<size_t>(options.pages * options.accounts_per_page)),
      oracle_(world_, accounts_) {
  SimRandom random = world_->Fork("accounts");
  const uint64_t apart = random.PerMille(500) ? 1 : kSegmentPages;
  for (uint64_t i = 0; i < static_cast<uint64_t>(options.pages); ++i) {
    pages_.push_back(kFirstReservablePage + 100 + i * apart);
  }
}

AccountsWork::ClientPtr AccountsWork::NewClient(SimHost& host, const char* purpose) {
  const uint64_t id = ++next_client_;
  return std::make_shared<Client>(Client{&host, id, world_->Fork(purpose, id)});
}

Transactions& AccountsWork::On(const Client& client) {
  Transactions* const transactions = client.host->node->transactions();
  CHECK(transactions != nullptr);
  return *transactions;
}

GlobalAddress AccountsWork::AddressOf(size_t account) const {
  const auto per_page = static_cast<size_t>(options_.accounts_per_page);
  return mangrove::AddressOf(pages_[account / per_page]) + account % per_page * kAccountBytes;
}

void AccountsWork::OnReady(SimHost& host) {
  if (stopped_ || !prepared_) return;
  for (int i = 0; i < options_.clients_per_node; ++i) host.applets.Run(RunClient(NewClient(host, "client")));
}

// --- One client -------------------------------------------------------------------------------------------------------

Task<bool> AccountsWork::RunClient(ClientPtr client) {
  const Counted counted(&clients_running_);
  Clock* clock = client->host->clock.get();
  while (!stopped_) {
    co_await SleepUntil(clock, clock->Now() + client->random.Spread(options_.min_think, options_.max_think));
    if (stopped_) break;
    OperationKind kind = OperationKind::kLoad;
    const bool ok = co_await RunOperation(client, &kind);
    ++counters_.ended;
    if (!ok) continue;
    ++counters_.succeeded;
    ++counters_.by_kind[static_cast<size_t>(kind)];
  }
  On(*client).EndClient(client->id);
  co_return true;
}

Task<bool> AccountsWork::RunOperation(ClientPtr client, OperationKind* kind) {
  const TimeNs deadline = client->host->clock->Now() + client->random.Spread(200 * kMillisecond, 8 * kSecond);
  const uint64_t choice = client->random.Below(100);
  absl::Status status;
  if (choice < 55) {
    *kind = OperationKind::kReadModifyWrite;
    status = co_await Transfer(client, /*gives_up=*/false, deadline);
  } else if (choice < 60) {
    *kind = OperationKind::kStore;
    status = co_await Transfer(client, /*gives_up=*/true, deadline);
  } else if (choice < 75) {
    *kind = OperationKind::kScan;
    status = co_await Sum(client, deadline);
  } else if (choice < 88) {
    *kind = OperationKind::kLoad;
    const Rights rights = client->random.PerMille(700) ? Rights::kWrite : Rights::kRead;
    status = co_await client->host->node->Acquire({PickPage(*client), 1}, rights, deadline);
  } else {
    *kind = OperationKind::kFlush;
    status = co_await client->host->node->Flush({PickPage(*client), 1}, deadline);
  }
  world_->Trace("node ", client->host->slot + 1, " client ", client->id, ": ", Name(*kind), " ends: ", status);
  co_return status.ok();
}

Task<absl::StatusOr<Account>> AccountsWork::ReadAccount(ClientPtr client, uint64_t id, size_t account, AccessMode mode,
                                                        const std::vector<uint64_t>* newest) {
  const absl::StatusOr<std::string> bytes =
      co_await On(*client).Read(client->id, id, AddressOf(account), kAccountBytes, mode);
  if (!bytes.ok()) co_return bytes.status();
  // What this node alone sees as yet may go with it.
  const absl::Status synced = co_await On(*client).Sync(client->host->clock->Now() + kSecond);
  if (!synced.ok()) co_return synced;
  const Account read = Decode(*bytes);
  oracle_.OnRead(*newest, account, read);
  co_return read;
}

Task<absl::Status> AccountsWork::WriteAccount(ClientPtr client, uint64_t id, size_t account, Account written) {
  return On(*client).Write(client->id, id, AddressOf(account), Encode(written));
}

Task<absl::Status> AccountsWork::MoveMoney(ClientPtr client, uint64_t id, Attempt* attempt) {
  const size_t from = client->random.Below(accounts_);
  const size_t to = (from + 1 + client->random.Below(accounts_ - 1)) % accounts_;
  const uint64_t luck = client->random.Below(3);
  const AccessMode mode = luck == 0 ? AccessMode::kRead : AccessMode::kWrite;
  absl::StatusOr<Account> payer = co_await ReadAccount(client, id, from, mode, attempt->newest());
  if (!payer.ok()) co_return payer.status();
  absl::StatusOr<Account> payee = co_await ReadAccount(client, id, to, mode, attempt->newest());
  if (!payee.ok()) co_return payee.status();
  if (client->random.PerMille(200)) {
    Clock* clock = client->host->clock.get();
    co_await SleepUntil(clock, clock->Now() + client->random.Spread(kMillisecond, 100 * kMillisecond));
  }
  const uint64_t amount = client->random.Below(payer->balance + 1);
  payer->balance -= amount;
  payee->balance += amount;
  for (Account* account : {&*payer, &*payee}) {
    ++account->version;
    account->transfer = attempt->number();
  }
  attempt->Intend(from, *payer);
  attempt->Intend(to, *payee);
  absl::Status status = co_await WriteAccount(client, id, from, *payer);
  if (status.ok()) status = co_await WriteAccount(client, id, to, *payee);
  co_return status;
}

Task<absl::Status> AccountsWork::Transfer(ClientPtr client, bool gives_up, TimeNs deadline) {
  Transactions& transactions = On(*client);
  const absl::StatusOr<uint64_t> id = co_await transactions.Begin(client->id, deadline);
  if (!id.ok()) co_return id.status();
  Attempt attempt(&oracle_);
  absl::Status status = co_await MoveMoney(client, *id, &attempt);
  if (status.ok() && !gives_up) {
    attempt.BeginCommit();
    world_->Trace("node ", client->host->slot + 1, " client ", client->id, ": commits transfer ", attempt.number());
    // Either way it is to be durable before anybody is told.
    const bool lazily = client->random.Below(2) == 0;
    if (lazily) {
      status = co_await transactions.CommitLazily(client->id, *id);
    } else {
      status = co_await transactions.Commit(client->id, *id);
    }
    if (lazily && status.ok()) status = co_await transactions.Sync(deadline);
  } else {
    const absl::Status aborted = transactions.Abort(client->id, *id);
    if (!aborted.ok()) world_->Fail(absl::StrCat("Abort: ", aborted.ToString()));
  }
  attempt.End(status);
  co_return status;
}

Task<absl::Status> AccountsWork::Sum(ClientPtr client, TimeNs deadline) {
  const std::vector<uint64_t> newest = oracle_.Newest();
  const absl::StatusOr<uint64_t> id = co_await On(*client).Begin(client->id, deadline);
  if (!id.ok()) co_return id.status();
  std::vector<Account> accounts(accounts_);
  const size_t first = client->random.Below(accounts_);
  for (size_t i = 0; i < accounts_; ++i) {
    const absl::StatusOr<Account> account =
        co_await ReadAccount(client, *id, (first + i) % accounts_, AccessMode::kRead, &newest);
    if (!account.ok()) {
      On(*client).Abort(client->id, *id).IgnoreError();
      co_return account.status();
    }
    accounts[(first + i) % accounts_] = *account;
  }
  oracle_.OnSnapshot(accounts);
  const absl::Status status = co_await On(*client).Commit(client->id, *id);
  co_return status;
}

// --- Before and after -------------------------------------------------------------------------------------------------

void AccountsWork::Prepare() {
  SimHost& host = cluster_->host(0);
  host.applets.Run(PrepareAll(NewClient(host, "prepare")));
}

Task<absl::Status> AccountsWork::FillAccounts(ClientPtr client, TimeNs deadline) {
  const absl::StatusOr<uint64_t> id = co_await On(*client).Begin(client->id, deadline);
  if (!id.ok()) co_return id.status();
  Attempt attempt(&oracle_);
  absl::Status status;
  for (size_t account = 0; account < accounts_ && status.ok(); ++account) {
    const Account first{.balance = kFirstBalance, .version = 1, .transfer = attempt.number()};
    attempt.Intend(account, first);
    status = co_await WriteAccount(client, *id, account, first);
  }
  attempt.BeginCommit();
  if (status.ok()) status = co_await On(*client).Commit(client->id, *id);
  attempt.End(status);
  co_return status;
}

Task<bool> AccountsWork::PrepareAll(ClientPtr client) {
  const TimeNs deadline = client->host->clock->Now() + kPrepareBound;
  absl::Status status;
  for (size_t i = 0; i < pages_.size() && status.ok(); ++i) {
    status = co_await client->host->node->Allocate({pages_[i], 1}, deadline);
  }
  if (status.ok()) status = co_await FillAccounts(client, deadline);
  if (status.ok()) status = co_await Sum(client, deadline);
  if (!status.ok()) {
    world_->Fail(absl::StrCat("a sound cluster cannot make the accounts: ", status.ToString()));
    co_return false;
  }
  prepared_ = true;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (cluster_->host(slot).ready) OnReady(cluster_->host(slot));
  }
  co_return true;
}

void AccountsWork::StartProgressCheck(DurationNs bound) {
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    SimHost& host = cluster_->host(slot);
    if (!host.in_service()) continue;
    ++checks_running_;
    host.applets.Run(CheckProgress(NewClient(host, "progress"), /*transfers=*/true, bound));
  }
}

void AccountsWork::StartReadAll(int slot, DurationNs bound) {
  ++checks_running_;
  SimHost& host = cluster_->host(slot);
  host.applets.Run(CheckProgress(NewClient(host, "read all"), /*transfers=*/false, bound));
}

// As a program does: what is aborted is tried again.
Task<bool> AccountsWork::CheckProgress(ClientPtr client, bool transfers, DurationNs bound) {
  Clock* clock = client->host->clock.get();
  const TimeNs deadline = clock->Now() + bound;
  absl::Status status;
  for (const bool sums : {true, false, true}) {
    if (!sums && !transfers) continue;
    do {
      if (sums) {
        status = co_await Sum(client, deadline);
      } else {
        status = co_await Transfer(client, /*gives_up=*/false, deadline);
      }
      if (!status.ok())
        co_await SleepUntil(clock, clock->Now() + client->random.Spread(kTransferPause, 16 * kTransferPause));
    } while (absl::IsAborted(status) && clock->Now() < deadline);
    if (status.ok()) continue;
    world_->Fail(absl::StrCat("no progress without faults: node ", client->host->slot + 1, " cannot ",
                              sums ? "sum up" : "transfer", ": ", status.ToString()));
    co_return false;
  }
  --checks_running_;
  co_return true;
}

}  // namespace mangrove::sim
