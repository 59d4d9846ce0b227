#include "engine/core_holder.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <utility>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
#include "directory/page_run.h"
#include "directory/planted_bugs.h"
#include "engine/store/little_endian.h"
#include "net/check.h"

namespace mangrove {

namespace {

// --- Records of extents -----------------------------------------------------------------------------------------------
//
//   bytes  0      format, 1
//          1..16  first page, low half first      17..24  pages
//         25..32  configuration number            33..36  replicas
//         37      flags: 1 volatile, 2 learned            All integers are little-endian.

constexpr char kKeyPrefix[] = "extent/";
constexpr uint8_t kRecordFormat = 1;
constexpr size_t kRecordBytes = 38;
constexpr uint8_t kVolatileFlag = 1;
constexpr uint8_t kLearnedFlag = 2;

using store::GetLittleEndian;
using store::PutLittleEndian;

// Is it a range of the space, and not empty?
bool IsRange(PageRange range) {
  return range.count > 0 && range.first.value > 0 && range.first.value < kSpacePages &&
         range.count <= kSpacePages - range.first.value;
}

// Pages 1 to 3: the super root and the roots of the directories.
constexpr PageRange kRootPages{kSuperRootPage, kDiskDirectoryRootPage - kSuperRootPage + 1};
constexpr ConfigNumber kSystemConfig{1};

// The part of `range` from `first` to before `end`. REQUIRES: it lies in it.
Extent Part(const Extent& extent, PageId first, PageId end) {
  CHECK(extent.range.first <= first && first < end && end <= extent.range.end());
  Extent part = extent;
  part.range = {first, end - first};
  return part;
}

}  // namespace

std::string ExtentKey(PageId first) {
  char hex[33];
  std::snprintf(hex, sizeof(hex), "%016llx%016llx",
                static_cast<unsigned long long>(absl::Uint128High64(first.value)),  // NOLINT(runtime/int)
                static_cast<unsigned long long>(absl::Uint128Low64(first.value)));  // NOLINT(runtime/int)
  return absl::StrCat(kKeyPrefix, hex);
}

std::string EncodeExtent(const Extent& extent) {
  std::string value(kRecordBytes, '\0');
  char* const out = value.data();
  PutLittleEndian(kRecordFormat, out);
  PutLittleEndian(absl::Uint128Low64(extent.range.first.value), out + 1);
  PutLittleEndian(absl::Uint128High64(extent.range.first.value), out + 9);
  PutLittleEndian(extent.range.count, out + 17);
  PutLittleEndian(extent.config.value, out + 25);
  PutLittleEndian(extent.replicas, out + 33);
  PutLittleEndian(static_cast<uint8_t>((extent.is_volatile ? kVolatileFlag : 0) | (extent.learned ? kLearnedFlag : 0)),
                  out + 37);
  return value;
}

absl::StatusOr<Extent> DecodeExtent(const std::string& key, std::string_view value) {
  const auto bad = [&key](const auto&... parts) {
    return absl::DataLossError(absl::StrCat("record ", key, ": ", parts...));
  };
  if (value.empty() || value.size() != kRecordBytes || GetLittleEndian<uint8_t>(value.data()) != kRecordFormat) {
    return bad(value.size(), " bytes of format ", value.empty() ? 0 : int{static_cast<uint8_t>(value[0])},
               ", expected ", kRecordBytes, " bytes of format ", int{kRecordFormat});
  }
  const char* const in = value.data();
  Extent extent;
  extent.range.first = PageId(absl::MakeUint128(GetLittleEndian<uint64_t>(in + 9), GetLittleEndian<uint64_t>(in + 1)));
  extent.range.count = GetLittleEndian<uint64_t>(in + 17);
  extent.config = ConfigNumber(GetLittleEndian<uint64_t>(in + 25));
  extent.replicas = GetLittleEndian<uint32_t>(in + 33);
  const auto flags = GetLittleEndian<uint8_t>(in + 37);
  extent.is_volatile = (flags & kVolatileFlag) != 0;
  extent.learned = (flags & kLearnedFlag) != 0;
  if (!IsRange(extent.range) || TouchesSystemPages(extent.range)) {
    return bad("the extent ", ToString(extent.range), " is none");
  }
  if (ExtentKey(extent.range.first) != key) return bad("is about another extent, ", ToString(extent.range));
  if (extent.config.value == 0) return bad("configuration number 0");
  if (flags > (kVolatileFlag | kLearnedFlag)) return bad("unknown flags ", int{flags});
  return extent;
}

Message CompletionOf(PageId page, const Message& stored) {
  Message store;
  store.kind = MessageKind::kStore;
  store.page = page;
  store.version = stored.version;
  store.config = stored.config;
  store.replicas = stored.replicas;
  store.complete = true;
  store.data = stored.data != nullptr ? stored.data : std::make_shared<PageBytes>();
  return store;
}

bool TouchesSystemPages(PageRange range) { return range.Overlaps(kRootPages) || range.Overlaps(kRegionTablePages); }

// --- The extents ------------------------------------------------------------------------------------------------------

CoreHolder::CoreHolder(PageStore* store, const PlantedBugs* bugs, uint32_t system_replicas)
    : store_(store), bugs_(bugs) {
  CHECK(store != nullptr && bugs != nullptr);
  for (const PageRange range : {kRootPages, kRegionTablePages}) {
    extents_[range.first.value] =
        Extent{.range = range, .config = kSystemConfig, .replicas = system_replicas, .learned = true};
  }
}

void CoreHolder::Open(absl::AnyInvocable<void(absl::Status)> done) {
  store_->ReadRecords(kKeyPrefix, [this, alive = alive(), done = std::move(done)](auto records) mutable {
    if (alive.expired()) return;
    const absl::Status loaded = records.ok() ? LoadExtents(*records) : records.status();
    if (!loaded.ok()) return done(loaded);
    store_->ReadRecords(kLostPrefix, [this, alive, done = std::move(done)](auto lost) mutable {
      if (!alive.expired()) done(lost.ok() ? LoadLost(*lost) : lost.status());
    });
  });
}

absl::Status CoreHolder::LoadExtents(const std::vector<std::pair<std::string, std::string>>& records) {
  for (const auto& [key, value] : records) {
    const absl::StatusOr<Extent> extent = DecodeExtent(key, value);
    if (!extent.ok()) return extent.status();
    const auto next = extents_.lower_bound(extent->range.first.value);
    const bool hits_next = next != extents_.end() && next->second.range.Overlaps(extent->range);
    const Extent* const before = Find(extent->range.first);
    if (hits_next || before != nullptr) {
      const Extent& other = before != nullptr ? *before : next->second;
      return absl::DataLossError(absl::StrCat("record ", key, ": the extent ", ToString(extent->range), " overlaps ",
                                              ToString(other.range), " of ", ExtentKey(other.range.first)));
    }
    extents_[extent->range.first.value] = *extent;
  }
  return absl::OkStatus();
}

void CoreHolder::ForgetFresh() {
  for (auto& [first, extent] : extents_) extent.fresh = extent.fresh && extent.is_volatile;
}

const Extent* CoreHolder::Find(PageId page) const {
  const auto after = extents_.upper_bound(page.value);
  if (after == extents_.begin()) return nullptr;
  const Extent& extent = std::prev(after)->second;
  return extent.range.Contains(page) ? &extent : nullptr;
}

std::optional<PageId> CoreHolder::FirstUnallocated(PageRange range) const {
  PageId page = range.first;
  while (page < range.end()) {
    const Extent* const extent = Find(page);
    if (extent == nullptr) return page;
    page = extent->range.end();
  }
  return std::nullopt;
}

Message CoreHolder::AnswerTo(const Message& message, MessageKind kind) {
  Message answer;
  answer.kind = kind;
  answer.page = message.page;
  answer.repeat = message.repeat;
  answer.count = message.count;
  answer.request = message.request;
  return answer;
}

// An error is of each page.
void CoreHolder::SendStatus(const Message& message, MessageKind kind, const absl::Status& status, const Reply& reply) {
  for (uint64_t i = 0; i < (status.ok() ? 1 : message.repeat); ++i) {
    Message answer = AnswerTo(status.ok() ? message : PartOf(message, i, 1), kind);
    answer.SetStatus(status);
    reply(std::move(answer));
  }
}

void CoreHolder::Handle(const Message& message, Reply reply) {
  switch (message.kind) {
    case MessageKind::kStore: return HandleStores(message, reply);
    case MessageKind::kQueryStored: return HandleQueries(message, reply);
    case MessageKind::kPutExtent:
    case MessageKind::kDropExtent: return HandleChange(message, std::move(reply));
    default: CHECK(false && "not a message for a core holder");
  }
}

// --- Queries ----------------------------------------------------------------------------------------------------------

void CoreHolder::HandleQueries(const Message& run, const Reply& reply) {
  for (uint64_t done = 0; done < run.repeat;) {
    uint64_t count = 0;  // Neighbours that have to be read.
    while (done + count < run.repeat && !AnswerUnread(PartOf(run, done + count, 1), reply)) ++count;
    if (count > 0) ReadAndAnswer(PartOf(run, done, count), reply);
    done += count + 1;
  }
}

// False: the disk has to be asked.
bool CoreHolder::AnswerUnread(const Message& message, const Reply& reply) {
  if (message.seal && !bugs_->skip_seal) {
    seals_[0][message.page] = std::max(SealOf(message.page), message.grant_epoch);
  }
  const PageId page = message.page;
  const Extent* const extent = Find(page);
  if (extent == nullptr) {
    const absl::Status none =
        absl::NotFoundError(absl::StrCat("page ", ToString(page), " is in no extent of this core holder"));
    SendStatus(message, MessageKind::kStoredInfo, none, reply);
    return true;
  }
  const bool is_being_stored = writes_.find(page)->second != nullptr;
  const bool is_new = extent->since_start || WasStoredSince(page) || is_being_stored;
  if (!is_new && IsInDoubt(page)) {
    Message nothing = AnswerTo(message, MessageKind::kStoredInfo);
    nothing.config = extent->config;
    nothing.replicas = extent->replicas;
    nothing.is_volatile = extent->is_volatile;
    reply(std::move(nothing));
    return true;
  }
  if (lost_.contains(page) && !is_being_stored) {
    SendStatus(message, MessageKind::kStoredInfo, LostStatus(page), reply);
    return true;
  }
  if (!extent->all_known || versions_.find(page)->second != nullptr || corrupt_.contains(page)) return false;
  AnswerQuery(message, reply, absl::NotFoundError("never stored"));
  return true;
}

void CoreHolder::ReadAndAnswer(const Message& run, const Reply& reply) {
  std::vector<std::optional<Version>> known_before(run.repeat);
  for (uint64_t i = 0; i < run.repeat; ++i) {
    if (const Version* const known = versions_.find(run.page + i)->second) known_before[i] = *known;
  }
  store_->ReadPages({run.page, run.repeat}, run.with_data,
                    [this, alive = alive(), run, reply, generation = generation_,
                     known_before = std::move(known_before)](std::vector<absl::StatusOr<StoredPage>> read) {
                      for (uint64_t i = 0; i < run.repeat && !alive.expired(); ++i) {
                        OnQueryRead(PartOf(run, i, 1), reply, generation, known_before[i], std::move(read[i]));
                      }
                    });
}

void CoreHolder::OnQueryRead(const Message& message, Reply reply, uint64_t generation,
                             std::optional<Version> known_before, absl::StatusOr<StoredPage> read) {
  const PageId page = message.page;
  // What was read is of an extent that may be gone: read again.
  if (generation != generation_) return HandleQueries(message, reply);
  read = OfThisExtent(page, std::move(read));
  // What was read may not be durable yet (K1): wait for all that was written before.
  if (const auto* const writes = writes_.find(page)->second; writes != nullptr) {
    writes->back()->after.push_back([this, alive = alive(), message, reply = std::move(reply), generation,
                                     read = std::move(read)](const absl::Status& written) mutable {
      if (alive.expired()) return;
      const bool counts = written.ok() && generation == generation_ && !absl::IsDataLoss(read.status());
      counts ? AnswerQuery(message, std::move(reply), read) : HandleQueries(message, reply);
    });
    return;
  }
  const Version* const known = versions_.find(page)->second;
  const bool written_meanwhile = (known != nullptr) != known_before.has_value() || (known && *known != *known_before);
  if (absl::IsDataLoss(read.status())) {
    // A write since the read began may have mended it.
    if (written_meanwhile) return HandleQueries(message, reply);
    ForgetVersion(page);
    NoteCorrupt(page, read.status());
  } else if (!IsInDoubt(page) && !known_before && !written_meanwhile && !corrupt_.contains(page) &&
             (read.ok() || absl::IsNotFound(read.status()))) {
    ForgetVersionsIfMany();
    versions_[page] = read.ok() ? read->version : Version{};
  }
  AnswerQuery(message, std::move(reply), read);
}

void CoreHolder::AnswerQuery(const Message& message, Reply reply, const absl::StatusOr<StoredPage>& read) const {
  const Extent* const extent = Find(message.page);
  CHECK(extent != nullptr);
  Message answer = AnswerTo(message, MessageKind::kStoredInfo);
  answer.config = extent->config;
  answer.replicas = extent->replicas;
  answer.is_volatile = extent->is_volatile;
  answer.complete = read.ok() || extent->is_volatile || !extent->learned;
  if (read.ok()) {
    answer.have = true;
    answer.version = read->version;
    if (message.with_data) answer.data = read->data;
  } else if (!absl::IsNotFound(read.status())) {
    answer.SetStatus(read.status());
  }
  reply(std::move(answer));
}

// --- Changes of extents -----------------------------------------------------------------------------------------------

void CoreHolder::HandleChange(const Message& message, Reply reply) {
  changes_.push_back({message, std::move(reply)});
  if (!changing_) StartNextChange();
}

void CoreHolder::StartNextChange() {
  while (!changing_ && !changes_.empty()) {
    Waiting next = std::move(changes_.front());
    changes_.pop_front();
    const bool put = next.message.kind == MessageKind::kPutExtent;
    absl::StatusOr<Change> change = put ? PlanPut(next.message) : PlanDrop(next.message);
    if (!change.ok()) {
      SendStatus(next.message, MessageKind::kDone, change.status(), next.reply);
      continue;
    }
    changing_ = true;
    // It is put again, in this view: no list that was made before can say that it is not there.
    if (put && !next.message.complete && !change->added) extents_.at(next.message.page.value).doubtful = false;
    Begin(*change);
    // Also of a change that changes nothing: an earlier one of the same may still be on its way (K1, S1).
    StoreBatch batch = std::move(change->batch);
    store_->Commit(std::move(batch), [this, alive = alive(), change = *std::move(change),
                                      next = std::move(next)](const absl::Status& status) mutable {
      if (alive.expired()) return;
      End(std::move(change), status);
      SendStatus(next.message, MessageKind::kDone, status, next.reply);
      StartNextChange();
    });
  }
}

namespace {

absl::Status CheckRange(const Message& message) {
  const PageRange range{message.page, message.count};
  if (!IsRange(range)) return absl::InvalidArgumentError(absl::StrCat("not a range of pages: ", ToString(range)));
  if (TouchesSystemPages(range)) {
    return absl::InvalidArgumentError(absl::StrCat("the system's pages are not allocated: ", ToString(range)));
  }
  if (message.config.value == 0) return absl::InvalidArgumentError("configuration number 0 is none");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CoreHolder::Change> CoreHolder::PlanPut(const Message& message) const {
  if (const absl::Status s = CheckRange(message); !s.ok()) return s;
  const PageRange range{message.page, message.count};
  Change change;
  const Extent* const same = Find(range.first);
  if (same != nullptr && same->range == range && same->config == message.config) {
    if (message.complete || !same->learned) return change;
    // Whoever allocates it goes on, while this disk has heard of it from others: none of its pages counts elsewhere alone.
    change.added = *same;
    change.added->learned = change.added->doubtful = change.added->all_known = false;
    change.batch.records.push_back({ExtentKey(range.first), EncodeExtent(*change.added)});
    return change;
  }
  for (PageId page = range.first; page < range.end();) {
    auto it = extents_.upper_bound(page.value);
    if (it != extents_.begin() && std::prev(it)->second.range.Contains(page)) --it;
    if (it == extents_.end() || range.end() <= it->second.range.first) break;
    const Extent& extent = it->second;
    if (message.config <= extent.config) {
      return absl::FailedPreconditionError(absl::StrCat("configuration ", message.config.value, " of ", ToString(range),
                                                        " is not newer than ", extent.config.value, " of ",
                                                        ToString(extent.range)));
    }
    page = extent.range.end();
  }
  PlanCut(range, message.config, /*doubtful=*/false, change);
  change.added = Extent{.range = range,
                        .config = message.config,
                        .replicas = message.replicas,
                        .is_volatile = message.is_volatile,
                        .learned = message.complete,
                        .since_start = !message.complete,
                        .fresh = !message.complete,
                        .all_known = true};
  change.batch.records.push_back({ExtentKey(range.first), EncodeExtent(*change.added)});
  return change;
}

absl::StatusOr<CoreHolder::Change> CoreHolder::PlanDrop(const Message& message) const {
  if (const absl::Status s = CheckRange(message); !s.ok()) return s;
  Change change;
  PlanCut({message.page, message.count}, message.config, message.complete, change);
  return change;
}

void CoreHolder::PlanCut(PageRange range, ConfigNumber at_most, bool doubtful, Change& change) const {
  auto it = extents_.upper_bound(range.first.value);
  if (it != extents_.begin() && std::prev(it)->second.range.Overlaps(range)) --it;
  for (; it != extents_.end() && it->second.range.first < range.end(); ++it) {
    const Extent& extent = it->second;
    if (extent.config > at_most || (doubtful && !extent.doubtful)) continue;
    const PageId first = std::max(extent.range.first, range.first);
    const PageId end = std::min(extent.range.end(), range.end());
    change.removed.push_back(extent);
    change.batch.records.push_back({ExtentKey(extent.range.first), std::nullopt});
    change.batch.delete_pages.push_back({first, end - first});
    change.pages.push_back({first, end - first});
    for (auto lost = lost_.lower_bound(first); lost != lost_.end() && lost->first < end; ++lost) {
      change.batch.records.push_back({LostKey(lost->first), std::nullopt});
    }
    if (extent.range.first < first) change.left_over.push_back(Part(extent, extent.range.first, first));
    if (end < extent.range.end()) change.left_over.push_back(Part(extent, end, extent.range.end()));
  }
  for (const Extent& extent : change.left_over) {
    change.batch.records.push_back({ExtentKey(extent.range.first), EncodeExtent(extent)});
  }
}

// K6: from here on the removed pages are in no extent, so that no store of them comes after their deletion.
// What else is known of them counts again if the change fails.
void CoreHolder::Begin(Change& change) {
  change.doubt = doubts_;
  for (const Extent& extent : change.removed) CHECK(extents_.erase(extent.range.first.value) == 1);
  for (const Extent& extent : change.left_over) {
    extents_[extent.range.first.value] = extent;
    left_over_.insert(extent.range.first);
  }
  for (const PageRange range : change.pages) ForgetVersions(range);
  ++generation_;
}

void CoreHolder::End(Change change, const absl::Status& status) {
  CHECK(changing_);
  changing_ = false;
  left_over_.clear();
  ++generation_;
  if (status.ok()) {
    for (const PageRange range : change.pages) ForgetRange(range);
    if (change.added) {
      // A doubt that began meanwhile is about it as well.
      if (doubts_ != change.doubt) PutInDoubt(*change.added);
      extents_[change.added->range.first.value] = *change.added;
    }
    KeepLearned(change);
    return;
  }
  for (const Extent& extent : change.left_over) CHECK(extents_.erase(extent.range.first.value) == 1);
  for (Extent& extent : change.removed) {
    extent.all_known = false;
    if (doubts_ != change.doubt) PutInDoubt(extent);
    extents_[extent.range.first.value] = extent;
  }
  RememberWrites();
}

// Learning may have ended meanwhile (EndLearning).
void CoreHolder::KeepLearned(const Change& change) {
  StoreBatch batch;
  for (const Extent& before : change.left_over) {
    const Extent& extent = extents_.at(before.range.first.value);
    if (extent.learned != before.learned) {
      batch.records.push_back({ExtentKey(extent.range.first), EncodeExtent(extent)});
    }
  }
  if (!batch.records.empty()) store_->Commit(std::move(batch), [](const absl::Status&) {});
}

namespace {

// Those of the range that are in the map, at the cost of the fewer.
std::vector<PageId> PagesIn(const PageMap<Version>& map, PageRange range) {
  std::vector<PageId> pages;
  if (range.count <= map.size()) {
    for (PageId page = range.first; page < range.end(); page = page + 1) {
      if (map.find(page)->second != nullptr) pages.push_back(page);
    }
  } else {
    for (const auto [page, version] : map) {
      if (range.Contains(page)) pages.push_back(page);
    }
  }
  return pages;
}

}  // namespace

void CoreHolder::ForgetVersions(PageRange range) {
  for (const PageId page : PagesIn(versions_, range)) versions_.erase(page);
}

void CoreHolder::ForgetRange(PageRange range) {
  ForgetVersions(range);
  for (const PageId page : PagesIn(stored_since_, range)) stored_since_.erase(page);
  absl::erase_if(corrupt_, [range](PageId page) { return range.Contains(page); });
  lost_.erase(lost_.lower_bound(range.first), lost_.lower_bound(range.end()));
}

}  // namespace mangrove
