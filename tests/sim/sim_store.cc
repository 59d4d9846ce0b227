#include "tests/sim/sim_store.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::sim {

namespace {
constexpr uint64_t kDiskPages = 1 << 20;
constexpr size_t kMostBefore = 16;  // Batches that are durable, and may not be in a list yet.
}  // namespace

void SimDisk::Wipe() {
  durable_.clear();
  records_.clear();
  full_ = false;
}

std::optional<PageId> SimDisk::CorruptOne(absl::FunctionRef<bool(const StoredPage&)> may, bool* is_header_hit) {
  std::vector<DiskPage*> candidates;
  for (auto& [id, page] : durable_) {
    if (may(page.page)) candidates.push_back(&page);
  }
  if (candidates.empty()) return std::nullopt;
  DiskPage* hit = candidates[random_.Below(candidates.size())];
  hit->corrupt_data = true;
  hit->corrupt_header = hit->corrupt_header || random_.PerMille(300);
  if (is_header_hit != nullptr) *is_header_hit = hit->corrupt_header;
  return hit->page.page;
}

std::optional<Version> SimDisk::DurableVersion(PageId page) const {
  const DiskPage* found = Find(page);
  if (found == nullptr) return std::nullopt;
  return found->page.version;
}

const StoredPage* SimDisk::Durable(PageId page) const {
  const DiskPage* found = Find(page);
  return found == nullptr ? nullptr : &found->page;
}

bool SimDisk::IsDamaged(PageId page) const {
  const DiskPage* found = Find(page);
  return found != nullptr && (found->corrupt_data || found->corrupt_header);
}

const SimDisk::DiskPage* SimDisk::Find(PageId page) const {
  const auto it = durable_.find(page);
  return it == durable_.end() ? nullptr : &it->second;
}

void SimDisk::Apply(const StoreBatch& batch) {
  for (const PageRange& range : batch.delete_pages) {
    durable_.erase(durable_.lower_bound(range.first), durable_.lower_bound(range.end()));
  }
  for (const StoredPage& page : batch.put_pages) durable_.insert_or_assign(page.page, DiskPage{page});
  for (const StoreBatch::Record& record : batch.records) {
    if (record.value) {
      records_[record.key] = *record.value;
    } else {
      records_.erase(record.key);
    }
  }
}

SimStore::SimStore(SimWorld* world, int node, uint64_t life, const SimStoreOptions& options, SimDisk* disk,
                   absl::AnyInvocable<void()> on_poisoned)
    : world_(world),
      node_(node),
      options_(options),
      disk_(disk),
      on_poisoned_(std::move(on_poisoned)),
      random_(world->Fork("store", life * kMaxNodes + static_cast<uint64_t>(node))) {}

void SimStore::Commit(StoreBatch batch, CommitDone done) {
  if (dead_) return;
  for (StoredPage& page : batch.put_pages) {
    CHECK(page.data != nullptr);
    // A copy of this moment: whoever changed a shared page later would be seen.
    page.data = std::make_shared<const PageBytes>(*page.data);
  }
  if (!poison_.ok()) return Refuse(poison_, std::move(done));
  if (disk_->fail_next_) {
    disk_->fail_next_ = false;
    poison_ = absl::InternalError(absl::StrCat("simulated write error on node ", node_ + 1));
    if (on_poisoned_) on_poisoned_();
    return Refuse(poison_, std::move(done));
  }
  if (disk_->full_) {
    return Refuse(absl::ResourceExhaustedError(absl::StrCat("simulated full disk on node ", node_ + 1)),
                  std::move(done));
  }
  pending_.push_back({std::move(batch), std::move(done)});
  ++committed_;
  if (!syncing_) StartSync();
}

void SimStore::Refuse(absl::Status status, CommitDone done) {
  world_->After(random_.Spread(options_.min_read, options_.max_read), node_, EventKind::kStore,
                [status = std::move(status), done = std::move(done)]() mutable { done(std::move(status)); });
}

void SimStore::StartSync() {
  syncing_ = true;
  const DurationNs delay = random_.PerMille(options_.slow_per_mille)
                               ? random_.Spread(options_.max_sync, options_.slow_sync)
                               : random_.Spread(options_.min_sync, options_.max_sync);
  // One sync covers all that wait when it begins.
  world_->After(delay, node_, EventKind::kStore, [this, batches = pending_.size()] { OnSynced(batches); });
}

void SimStore::OnSynced(size_t batches) {
  CHECK(syncing_ && batches <= pending_.size());
  syncing_ = false;
  std::vector<CommitDone> done;
  for (size_t i = 0; i < batches; ++i) {
    NoteBefore(pending_.front().batch);
    disk_->Apply(pending_.front().batch);
    done.push_back(std::move(pending_.front().done));
    pending_.pop_front();
  }
  if (!pending_.empty()) StartSync();
  for (CommitDone& call : done) call(absl::OkStatus());
}

void SimStore::NoteBefore(const StoreBatch& batch) {
  Before& before = before_.emplace_back();
  const auto note = [&](PageId page) {
    const SimDisk::DiskPage* const found = disk_->Find(page);
    before.emplace_back(page, found == nullptr ? std::nullopt : std::optional(found->page));
    if (found != nullptr) before.back().second->data = nullptr;
  };
  for (const StoredPage& put : batch.put_pages) note(put.page);
  for (const PageRange& range : batch.delete_pages) {
    const auto& durable = disk_->durable_;
    for (auto it = durable.lower_bound(range.first); it != durable.end() && it->first < range.end(); ++it) {
      note(it->first);
    }
  }
  if (before_.size() > kMostBefore) before_.pop_front();
}

void SimStore::Crash() {
  if (dead_) return;
  dead_ = true;
  const size_t survive = random_.Below(pending_.size() + 1);
  for (size_t i = 0; i < survive; ++i) disk_->Apply(pending_[i].batch);
  world_->Note(survive, pending_.size());
  pending_.clear();
}

SimStore::Found SimStore::FindPage(PageId page, bool with_data) const {
  for (auto it = pending_.rbegin(); it != pending_.rend(); ++it) {
    const StoreBatch& batch = it->batch;
    for (auto put = batch.put_pages.rbegin(); put != batch.put_pages.rend(); ++put) {
      if (put->page == page) return {&*put, false};
    }
    for (const PageRange& range : batch.delete_pages) {
      if (range.Contains(page)) return {};
    }
  }
  const SimDisk::DiskPage* found = disk_->Find(page);
  if (found == nullptr) return {};
  return {&found->page, found->corrupt_header || (with_data && found->corrupt_data)};
}

absl::StatusOr<StoredPage> SimStore::ReadNow(PageId page, bool with_data) const {
  if (!poison_.ok()) return poison_;
  const Found found = FindPage(page, with_data);
  if (found.page == nullptr) return absl::NotFoundError(absl::StrCat("no record of page ", ToString(page)));
  if (found.corrupt) return absl::DataLossError(absl::StrCat("page ", ToString(page), ": wrong checksum"));
  StoredPage result = *found.page;
  if (!with_data) result.data = nullptr;
  return result;
}

DurationNs SimStore::ReadDelay() { return random_.Spread(options_.min_read, options_.max_read); }

std::vector<absl::StatusOr<StoredPage>> SimStore::ReadNow(PageRange range, bool with_data) const {
  std::vector<absl::StatusOr<StoredPage>> read;
  for (uint64_t i = 0; i < range.count; ++i) read.push_back(ReadNow(range.first + i, with_data));
  return read;
}

void SimStore::ReadPages(PageRange range, bool with_data, PagesDone done) {
  if (dead_) return;
  const DurationNs delay = ReadDelay();
  if (random_.PerMille(500)) {  // S3: the state of the call, or a later one.
    world_->After(delay, node_, EventKind::kStore,
                  [result = ReadNow(range, with_data), done = std::move(done)]() mutable { done(std::move(result)); });
    return;
  }
  world_->After(delay, node_, EventKind::kStore,
                [this, range, with_data, done = std::move(done)]() mutable { done(ReadNow(range, with_data)); });
}

absl::StatusOr<PageList> SimStore::ListNow(PageRange range, size_t most, Listed what) {
  if (!poison_.ok()) return poison_;
  absl::btree_map<PageId, StoredPage> found;
  const auto& durable = disk_->durable_;
  for (auto it = durable.lower_bound(range.first); it != durable.end() && it->first < range.end(); ++it) {
    found.emplace(it->first, it->second.corrupt_header ? StoredPage{.page = it->first} : it->second.page);
  }
  // As of some moment since the last list that knew of all: so many batches had been applied.
  const uint64_t durable_batches = committed_ - pending_.size();
  const uint64_t first = std::max(known_, durable_batches - before_.size());
  const uint64_t moment = what == Listed::kAll ? committed_ : first + random_.Below(committed_ - first + 1);
  if (what == Listed::kAll) known_ = committed_;
  for (size_t i = before_.size(); i > 0 && durable_batches - before_.size() + i > moment; --i) {
    for (const auto& [page, then] : before_[i - 1]) {
      if (!range.Contains(page)) continue;
      found.erase(page);
      if (then) found.emplace(page, *then);
    }
  }
  for (size_t i = 0; durable_batches + i < moment; ++i) {
    const StoreBatch& batch = pending_[i].batch;
    for (const PageRange& deleted : batch.delete_pages) {
      found.erase(found.lower_bound(deleted.first), found.lower_bound(deleted.end()));
    }
    for (const StoredPage& put : batch.put_pages) {
      if (range.Contains(put.page)) found.insert_or_assign(put.page, put);
    }
  }
  PageList list;
  for (auto& [id, page] : found) {
    if (list.pages.size() == most) {
      list.next = id;
      break;
    }
    page.data = nullptr;
    list.pages.push_back(std::move(page));
  }
  return list;
}

void SimStore::ListPages(PageRange range, size_t most, Listed what, ListDone done) {
  CHECK(range.first.value <= kSpacePages && range.count <= kSpacePages - range.first.value);
  CHECK(most > 0);
  if (dead_) return;
  const auto list = [this, range, most, what] { return ListNow(range, most, what); };
  const DurationNs delay = ReadDelay();
  if (random_.PerMille(500)) {  // As above.
    world_->After(delay, node_, EventKind::kStore,
                  [result = list(), done = std::move(done)]() mutable { done(std::move(result)); });
    return;
  }
  world_->After(delay, node_, EventKind::kStore, [list, done = std::move(done)]() mutable { done(list()); });
}

std::vector<std::pair<std::string, std::string>> SimStore::RecordsNow(const std::string& prefix) const {
  std::map<std::string, std::string> found;
  for (auto it = disk_->records_.lower_bound(prefix); it != disk_->records_.end(); ++it) {
    if (it->first.compare(0, prefix.size(), prefix) != 0) break;
    found.insert(*it);
  }
  for (const Pending& pending : pending_) {
    for (const StoreBatch::Record& record : pending.batch.records) {
      if (record.key.compare(0, prefix.size(), prefix) != 0) continue;
      if (record.value) {
        found[record.key] = *record.value;
      } else {
        found.erase(record.key);
      }
    }
  }
  return {found.begin(), found.end()};
}

void SimStore::ReadRecords(std::string prefix, RecordsDone done) {
  if (dead_) return;
  world_->After(ReadDelay(), node_, EventKind::kStore,
                [this, prefix = std::move(prefix), done = std::move(done)]() mutable {
                  if (!poison_.ok()) return done(poison_);
                  done(RecordsNow(prefix));
                });
}

StoreUsage SimStore::Usage() const {
  const uint64_t pages = disk_->durable_.size();
  const uint64_t free_pages = disk_->full_ || pages >= kDiskPages ? 0 : kDiskPages - pages;
  return {pages, pages * kPageBytes, free_pages * kPageBytes};
}

}  // namespace mangrove::sim
