// A core holder whose disk is behind, or is to keep more, and learns: engine/catch_up.h.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core_holder.h"
#include "engine/store/little_endian.h"
#include "net/check.h"

namespace mangrove {
namespace {

//   bytes  0..15  page, low half first      16..23  epoch      24..31  counter       All integers are little-endian.
constexpr size_t kLostBytes = 32;

}  // namespace

std::string LostKey(PageId page) {
  return absl::StrCat(kLostPrefix, absl::Hex(absl::Uint128High64(page.value), absl::kZeroPad16),
                      absl::Hex(absl::Uint128Low64(page.value), absl::kZeroPad16));
}

std::string EncodeLost(PageId page, Version version) {
  std::string value(kLostBytes, '\0');
  store::PutLittleEndian(absl::Uint128Low64(page.value), value.data());
  store::PutLittleEndian(absl::Uint128High64(page.value), value.data() + 8);
  store::PutLittleEndian(version.epoch.value, value.data() + 16);
  store::PutLittleEndian(version.counter, value.data() + 24);
  return value;
}

absl::StatusOr<std::pair<PageId, Version>> DecodeLost(const std::string& key, std::string_view value) {
  if (value.size() != kLostBytes) {
    return absl::DataLossError(absl::StrCat("record ", key, ": ", value.size(), " bytes, expected ", kLostBytes));
  }
  const char* const in = value.data();
  const PageId page(absl::MakeUint128(store::GetLittleEndian<uint64_t>(in + 8), store::GetLittleEndian<uint64_t>(in)));
  if (page.value == 0 || page.value >= kSpacePages) {
    return absl::DataLossError(absl::StrCat("record ", key, ": is about no page, ", ToString(page)));
  }
  if (LostKey(page) != key) {
    return absl::DataLossError(absl::StrCat("record ", key, ": is about another page, ", ToString(page)));
  }
  return std::pair(
      page, Version{Epoch(store::GetLittleEndian<uint64_t>(in + 16)), store::GetLittleEndian<uint64_t>(in + 24)});
}

absl::Status CoreHolder::LoadLost(const std::vector<std::pair<std::string, std::string>>& records) {
  for (const auto& [key, value] : records) {
    const auto lost = DecodeLost(key, value);
    if (!lost.ok()) return lost.status();
    lost_.insert(*lost);
    corrupt_.insert(lost->first);
  }
  return absl::OkStatus();
}

void CoreHolder::BeginDoubt(PagesInDoubt pages) {
  in_doubt_ = true;
  pages_in_doubt_ = std::move(pages);
  ++doubts_;
  stored_since_.clear();
  for (auto& [first, extent] : extents_) PutInDoubt(extent);
  versions_.clear();
  RememberWrites();  // They will have been stored since.
  ++generation_;
}

void CoreHolder::PutInDoubt(Extent& extent) const {
  extent.doubtful = in_doubt_ && pages_in_doubt_ == nullptr && !TouchesSystemPages(extent.range);
  extent.since_start = false;
  extent.fresh = extent.fresh && extent.is_volatile && pages_in_doubt_ != nullptr;
  extent.all_known = false;
}

bool CoreHolder::IsInDoubt(PageId page) const {
  if (!in_doubt_ || pages_in_doubt_ == nullptr) return in_doubt_;
  const Extent* const extent = Find(page);
  return extent != nullptr && pages_in_doubt_(page, *extent);
}

void CoreHolder::MarkLearned(const Extent& extent, absl::AnyInvocable<void(absl::Status)> done) {
  const auto it = extents_.find(extent.range.first.value);
  if (it == extents_.end() || it->second.range != extent.range || left_over_.contains(extent.range.first)) {
    return done(absl::AbortedError(absl::StrCat(ToString(extent.range), " changes")));
  }
  it->second.learned = true;
  StoreBatch batch;
  batch.records.push_back({ExtentKey(extent.range.first), EncodeExtent(it->second)});
  store_->Commit(std::move(batch), std::move(done));
}

void CoreHolder::EndDoubt() {
  in_doubt_ = false;
  pages_in_doubt_ = nullptr;
  stored_since_.clear();
}

bool CoreHolder::WasStoredSince(PageId page) const { return stored_since_.find(page)->second != nullptr; }

void CoreHolder::DeletePages(const std::vector<PageId>& pages, PageStore::CommitDone done) {
  StoreBatch batch;
  std::vector<PageId> deleted;
  absl::Status left;
  for (const PageId page : pages) {
    if (WasStoredSince(page)) continue;
    if (writes_.find(page)->second != nullptr) {
      left = absl::AbortedError(absl::StrCat("page ", ToString(page), " is being stored"));
      continue;
    }
    deleted.push_back(page);
    batch.delete_pages.push_back({page, 1});
    if (lost_.contains(page)) batch.records.push_back({LostKey(page), std::nullopt});
  }
  store_->Commit(std::move(batch), [this, alive = alive(), deleted = std::move(deleted), left = std::move(left),
                                    done = std::move(done)](const absl::Status& status) mutable {
    if (!alive.expired()) OnDeleted(deleted, status);
    done(status.ok() ? left : status);
  });
}

void CoreHolder::OnDeleted(const std::vector<PageId>& pages, const absl::Status& status) {
  if (!status.ok()) ++generation_;  // A read may have found nothing.
  for (const PageId page : pages) {
    if (status.ok()) {
      lost_.erase(page);
      corrupt_.erase(page);
    } else if (writes_.find(page)->second == nullptr) {
      ForgetVersion(page);
    }
  }
}

StoreBatch CoreHolder::EndLearning(absl::FunctionRef<bool(const Extent&)> is_covered) {
  StoreBatch batch;
  ending_.clear();
  for (auto& [first, extent] : extents_) {
    if (!extent.learned || TouchesSystemPages(extent.range) || !is_covered(extent)) continue;
    extent.learned = false;
    if (left_over_.contains(extent.range.first)) continue;  // KeepLearned does it; the change may fail.
    ending_.emplace_back(extent.range.first, extent.config);
    batch.records.push_back({ExtentKey(extent.range.first), EncodeExtent(extent)});
  }
  return batch;
}

void CoreHolder::UndoEndLearning() {
  for (const auto& [first, config] : std::exchange(ending_, {})) {
    const auto it = extents_.find(first.value);
    if (it != extents_.end() && it->second.config == config) it->second.learned = true;
  }
}

void CoreHolder::MarkLost(PageId page, Version version, absl::AnyInvocable<void(absl::Status)> done) {
  if (Find(page) == nullptr || writes_.find(page)->second != nullptr) {
    return done(absl::AbortedError(absl::StrCat("page ", ToString(page), " changes")));
  }
  lost_[page] = version;
  ForgetVersion(page);
  corrupt_.insert(page);
  ++generation_;
  ++corrupt_pages_found_;
  LogWarning("page ", ToString(page), " is lost: no disk that has its newest version can read it");
  StoreBatch batch;
  batch.records.push_back({LostKey(page), EncodeLost(page, version)});
  store_->Commit(std::move(batch), std::move(done));
}

absl::Status CoreHolder::LostStatus(PageId page) {
  return absl::DataLossError(
      absl::StrCat("page ", ToString(page), " is lost: no disk that had its newest version could read it"));
}

}  // namespace mangrove
