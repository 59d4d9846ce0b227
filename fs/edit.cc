#include "fs/edit.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "net/check.h"

namespace mangrove::fs {
namespace {

struct Difference {
  uint32_t from = 0;
  uint32_t to = 0;
};

// Where `after` differs, in steps of 8 bytes; what lies close together is one.
std::vector<Difference> DifferencesOf(const std::string& before, const std::string& after) {
  constexpr uint32_t kStep = 8;
  constexpr uint32_t kGap = 48;  // Of equal bytes that cost less than another difference.
  std::vector<Difference> all;
  for (uint32_t at = 0; at < after.size(); at += kStep) {
    if (std::memcmp(before.data() + at, after.data() + at, kStep) == 0) continue;
    if (!all.empty() && at - all.back().to <= kGap) {
      all.back().to = at + kStep;
    } else {
      all.push_back({at, at + kStep});
    }
  }
  return all;
}

}  // namespace

std::span<char> EditPage::mutable_bytes() {
  CHECK(intent_ == Intent::kWrite);
  if (!changed_) before_ = bytes_;
  changed_ = true;
  return {bytes_.data(), bytes_.size()};
}

Edit::~Edit() {
  if (open_) pages_->Abort(transaction_);
}

Task<absl::Status> Edit::Begin() {
  const absl::StatusOr<uint64_t> transaction = co_await pages_->Begin();
  if (!transaction.ok()) co_return transaction.status();
  transaction_ = *transaction;
  open_ = true;
  co_return absl::OkStatus();
}

Task<absl::StatusOr<EditPage*>> Edit::Get(uint64_t page, PageKind kind, Intent intent) {
  const auto held = held_.find(page);
  if (held != held_.end()) {
    if (absl::Status s = CheckKind(held->second.bytes_, page, kind); !s.ok()) co_return s;
    if (intent == Intent::kRead || held->second.intent_ == Intent::kWrite) co_return &held->second;
  }
  absl::StatusOr<std::string> bytes = absl::AbortedError("not every page of it is here");
  if (glances_) {
    CHECK(intent == Intent::kRead);
    if (std::optional<std::string> here = pages_->Glance(page)) bytes = *std::move(here);
  } else {
    bytes = co_await pages_->Read(transaction_, page, intent);
  }
  if (!bytes.ok()) co_return bytes.status();
  if (held != held_.end()) {  // As it was: E1.
    held->second.intent_ = intent;
    co_return &held->second;
  }
  if (absl::Status s = CheckPage(*bytes, page, kind); !s.ok()) co_return s;
  EditPage& mine = held_[page];
  mine.number_ = page;
  mine.intent_ = intent;
  mine.bytes_ = *std::move(bytes);
  co_return &mine;
}

Task<absl::StatusOr<EditPage*>> Edit::Make(uint64_t page, PageKind kind) {
  CHECK(!glances_);
  EditPage& mine = held_[page];
  if (mine.intent_ != Intent::kWrite) {
    absl::StatusOr<std::string> bytes = co_await pages_->Read(transaction_, page, Intent::kWrite);
    if (!bytes.ok()) co_return bytes.status();
    mine.number_ = page;
    mine.intent_ = Intent::kWrite;
    mine.bytes_ = *std::move(bytes);
  }
  InitializePage(mine.mutable_bytes(), kind);
  co_return &mine;
}

Task<absl::StatusOr<std::string>> Edit::GetRaw(uint64_t page) {
  CHECK(!glances_);
  return pages_->Read(transaction_, page, Intent::kWrite);
}

bool Edit::HasChanged(uint64_t page) const {
  const auto held = held_.find(page);
  return held != held_.end() && held->second.changed_;
}

Task<absl::Status> Edit::Commit() {
  for (auto& [number, page] : held_) {
    if (!page.changed_) continue;
    SealChanged({page.bytes_.data(), page.bytes_.size()}, page.before_, number);
    for (const Difference& d : DifferencesOf(page.before_, page.bytes_)) {
      const absl::Status status =
          co_await pages_->Write(transaction_, number, d.from, page.bytes_.substr(d.from, d.to - d.from));
      if (!status.ok()) co_return status;
    }
  }
  open_ = false;
  co_return co_await pages_->Commit(transaction_);
}

}  // namespace mangrove::fs
