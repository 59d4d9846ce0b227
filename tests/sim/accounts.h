// Programs that move money between accounts, in transactions, on every node; some sum all accounts up. Others take the pages to
// their node, or flush them, so that what transactions wrote is anywhere when nodes die.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/transactions/transactions.h"
#include "net/runtime/task.h"
#include "tests/sim/accounts_oracle.h"
#include "tests/sim/work.h"

namespace mangrove::sim {

struct AccountsOptions {
  int clients_per_node = 2;
  int pages = 4;
  int accounts_per_page = 4;
  DurationNs min_think = 100 * kMicrosecond;
  DurationNs max_think = 10 * kMillisecond;
};

class AccountsWork final : public Work {
 public:
  AccountsWork(SimCluster* cluster, const AccountsOptions& options);

  void OnReady(SimHost& host) override;
  void Prepare() override;
  bool prepared() const override { return prepared_; }
  void StopClients() override { stopped_ = true; }
  bool AllClientsEnded() const override { return clients_running_ == 0; }
  void StartProgressCheck(DurationNs bound) override;
  bool ProgressCheckEnded() const override { return checks_running_ == 0; }
  void StartReadAll(int slot, DurationNs bound) override;
  std::vector<PageId> pages() const override { return pages_; }
  const WorkloadCounters& counters() const override { return counters_; }

 private:
  struct Client {
    SimHost* host;
    uint64_t id;
    SimRandom random;
  };
  using ClientPtr = std::shared_ptr<Client>;
  class Attempt;  // A transfer that is being tried. Its destructor ends it when its node crashes.

  ClientPtr NewClient(SimHost& host, const char* purpose);
  static Transactions& On(const Client& client);
  GlobalAddress AddressOf(size_t account) const;
  PageId PickPage(Client& client) const { return pages_[client.random.Below(pages_.size())]; }

  Task<bool> RunClient(ClientPtr client);
  Task<bool> RunOperation(ClientPtr client, OperationKind* kind);
  // One try. `gives_up`: it is aborted by the program at its end.
  Task<absl::Status> Transfer(ClientPtr client, bool gives_up, TimeNs deadline);
  Task<absl::Status> MoveMoney(ClientPtr client, uint64_t id, Attempt* attempt);
  Task<absl::Status> Sum(ClientPtr client, TimeNs deadline);
  Task<absl::StatusOr<Account>> ReadAccount(ClientPtr client, uint64_t id, size_t account, AccessMode mode,
                                            const std::vector<uint64_t>* newest);
  Task<absl::Status> WriteAccount(ClientPtr client, uint64_t id, size_t account, Account written);
  Task<bool> PrepareAll(ClientPtr client);
  Task<absl::Status> FillAccounts(ClientPtr client, TimeNs deadline);
  Task<bool> CheckProgress(ClientPtr client, bool transfers, DurationNs bound);

  SimCluster* const cluster_;
  SimWorld* const world_;
  const AccountsOptions options_;
  const size_t accounts_;
  AccountsOracle oracle_;
  std::vector<PageId> pages_;
  uint64_t next_client_ = 0;
  int clients_running_ = 0;
  int checks_running_ = 0;
  bool prepared_ = false;
  bool stopped_ = false;
  WorkloadCounters counters_;
};

}  // namespace mangrove::sim
