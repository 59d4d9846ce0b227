#include "tests/sim/accounts_oracle.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace mangrove::sim {

uint64_t AccountsOracle::NextTransfer() {
  transfers_[++next_] = {};
  return next_;
}

void AccountsOracle::Intend(uint64_t transfer, size_t account, const Account& written) {
  transfers_.at(transfer).writes[account] = written;
}

void AccountsOracle::BeginCommit(uint64_t transfer) { transfers_.at(transfer).state = State::kCommitting; }

// A2
void AccountsOracle::Own(size_t account, uint64_t version, uint64_t transfer) {
  const auto [it, is_first] = versions_[account].emplace(version, transfer);
  if (is_first || it->second == transfer) return;
  world_->Fail(absl::StrCat("version ", version, " of account ", account, " is of transfer ", it->second,
                            " and of transfer ", transfer));
}

void AccountsOracle::End(uint64_t transfer, const absl::Status& status) {
  Transfer& t = transfers_.at(transfer);
  if (t.state == State::kIntended) {
    t.state = State::kFailed;
    return;
  }
  t.state = status.ok() ? State::kCommitted : absl::IsUnavailable(status) ? State::kUnknown : State::kFailed;
  for (const auto& [account, written] : t.writes) {
    if (t.state == State::kCommitted) {
      Own(account, written.version, transfer);
      newest_[account] = std::max(newest_[account], written.version);
    }
    const auto seen = versions_[account].find(written.version);
    if (t.state == State::kFailed && seen != versions_[account].end() && seen->second == transfer) {
      world_->Fail(absl::StrCat("transfer ", transfer, " has failed (", status.ToString(), "), but was seen"));
    }
  }
  if (t.state == State::kCommitted) ++committed_;
}

void AccountsOracle::OnRead(const std::vector<uint64_t>& newest, size_t account, const Account& read) {
  if (read.version < newest[account]) {
    return world_->Fail(absl::StrCat("account ", account, " is read in version ", read.version, ", but version ",
                                     newest[account], " was acknowledged before"));
  }
  if (read.version == 0 && read == Account{}) return;  // Before the first one.
  const auto it = transfers_.find(read.transfer);
  const std::string what =
      absl::StrCat("account ", account, " in version ", read.version, ", of transfer ", read.transfer);
  if (it == transfers_.end() || !it->second.writes.contains(account) || it->second.writes.at(account) != read) {
    return world_->Fail(absl::StrCat(what, ", has a content that nobody wrote"));
  }
  const State state = it->second.state;
  if (state == State::kIntended || state == State::kFailed) {
    return world_->Fail(absl::StrCat(what, ", is read, but it was not committed"));
  }
  for (const auto& [other, written] : it->second.writes) Own(other, written.version, read.transfer);  // A2, A4
}

void AccountsOracle::OnSnapshot(const std::vector<Account>& accounts) {
  uint64_t sum = 0;
  for (const Account& read : accounts) {
    sum += read.balance;
    const auto it = transfers_.find(read.transfer);
    if (it == transfers_.end()) continue;
    for (const auto& [account, written] : it->second.writes) {
      if (accounts[account].version >= written.version) continue;
      world_->Fail(absl::StrCat("transfer ", read.transfer, " is there in part: account ", account,
                                " is read in version ", accounts[account].version, ", not ", written.version));
    }
  }
  if (sum_ == 0) sum_ = sum;
  if (sum != sum_) world_->Fail(absl::StrCat("the sum of all accounts is ", sum, ", not ", sum_));
}

}  // namespace mangrove::sim
