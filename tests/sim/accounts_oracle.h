// What must hold of accounts that transactions move money between.
//
// Each account has a balance, a version that goes up by one with each transfer, and the number of the transfer that changed it last.
//
//  A1  What is read of an account is what the transfer that it names wrote, and the commit of that one had begun and was not
//      answered as having failed.
//  A2  A version of an account is of one transfer, and a transfer that somebody has seen has all its versions.
//  A3  Who begins after a transfer was acknowledged reads its version, or a newer one.
//  A4  Who reads in one transaction what a transfer wrote to one account reads of its other accounts that, or something newer.
//  A5  The balances that one transaction reads have the sum that they had at the beginning.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/sim/sim_world.h"

namespace mangrove::sim {

struct Account {
  uint64_t balance = 0;
  uint64_t version = 0;
  uint64_t transfer = 0;  // The last one.
  friend bool operator==(const Account&, const Account&) = default;
};

class AccountsOracle {
 public:
  AccountsOracle(SimWorld* world, size_t accounts) : world_(world), newest_(accounts, 0), versions_(accounts) {}

  // The number of a transfer that is going to be tried once.
  uint64_t NextTransfer();
  // What it would write.
  void Intend(uint64_t transfer, size_t account, const Account& written);
  void BeginCommit(uint64_t transfer);
  // OK: it is there for good. Unavailable: it may be. Otherwise, or without a commit: it is not.
  void End(uint64_t transfer, const absl::Status& status);

  // The versions that were acknowledged by now.
  std::vector<uint64_t> Newest() const { return newest_; }
  // A1 to A3, for a transaction that began when `newest` was.
  void OnRead(const std::vector<uint64_t>& newest, size_t account, const Account& read);
  // A4 and A5, of all accounts in their order. The first call says what the sum is.
  void OnSnapshot(const std::vector<Account>& accounts);

  uint64_t committed() const { return committed_; }

 private:
  enum class State : uint8_t { kIntended, kCommitting, kCommitted, kFailed, kUnknown };
  struct Transfer {
    State state = State::kIntended;
    std::map<size_t, Account> writes;
  };

  void Own(size_t account, uint64_t version, uint64_t transfer);

  SimWorld* const world_;
  std::vector<uint64_t> newest_;
  std::vector<std::map<uint64_t, uint64_t>>
      versions_;  // By account: whose each version is, as far as somebody has seen.
  std::map<uint64_t, Transfer> transfers_;
  uint64_t next_ = 0;
  uint64_t sum_ = 0;
  uint64_t committed_ = 0;
};

}  // namespace mangrove::sim
