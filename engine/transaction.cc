#include "engine/transaction.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

constexpr int64_t kFirstPauseUs = 500;
constexpr int64_t kLongestPauseUs = 200'000;

absl::Status HasEnded() { return absl::AbortedError("the transaction has ended"); }

}  // namespace

absl::StatusOr<Transaction> Transaction::Begin(const std::shared_ptr<Session>& session,
                                               const TransactionOptions& options) {
  const absl::StatusOr<uint64_t> number = session->BeginTransaction(options);
  if (!number.ok()) return number.status();
  return Transaction(session, *number);
}

Transaction& Transaction::operator=(Transaction&& other) noexcept {
  std::swap(session_, other.session_);
  std::swap(number_, other.number_);
  return *this;
}

Transaction::~Transaction() {
  if (session_ != nullptr) Abort().IgnoreError();  // It ends by itself where that cannot be said.
}

absl::Status Transaction::Read(Region& region, uint64_t offset, std::span<std::byte> out, AccessMode intent) {
  if (session_ == nullptr) return HasEnded();
  const absl::StatusOr<std::string> bytes = region.ReadIn(number_, offset, out.size(), intent);
  if (!bytes.ok()) return bytes.status();
  if (bytes->size() != out.size()) {
    return absl::InternalError(absl::StrCat("the node gave ", bytes->size(), " bytes; expected ", out.size()));
  }
  std::memcpy(out.data(), bytes->data(), out.size());
  return absl::OkStatus();
}

absl::Status Transaction::Write(Region& region, uint64_t offset, std::span<const std::byte> bytes) {
  if (session_ == nullptr) return HasEnded();
  return region.WriteIn(number_, offset, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

absl::Status Transaction::Commit() {
  if (session_ == nullptr) return HasEnded();
  return std::exchange(session_, nullptr)->EndTransaction(number_, /*commit=*/true);
}

absl::Status Transaction::Abort() {
  if (session_ == nullptr) return absl::OkStatus();
  return std::exchange(session_, nullptr)->EndTransaction(number_, /*commit=*/false);
}

absl::Status RunTransaction(const std::shared_ptr<Session>& session, const RunTransactionOptions& options,
                            const std::function<absl::Status(Transaction&)>& body) {
  static thread_local std::minstd_rand random(std::random_device{}());
  int64_t pause_us = kFirstPauseUs;
  for (int tries = 1;; ++tries) {
    absl::StatusOr<Transaction> transaction = Transaction::Begin(session, options.transaction);
    if (!transaction.ok()) return transaction.status();
    absl::Status status = body(*transaction);
    if (status.ok()) status = transaction->Commit();
    if (!absl::IsAborted(status) || tries >= options.most_tries) return status;
    transaction->Abort().IgnoreError();
    std::this_thread::sleep_for(std::chrono::microseconds(pause_us / 2 + random() % pause_us));
    pause_us = std::min(2 * pause_us, kLongestPauseUs);
  }
}

}  // namespace mangrove
