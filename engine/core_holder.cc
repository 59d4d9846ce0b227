#include "engine/core_holder.h"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
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

// The answer to `message` if all went well.
Message AnswerTo(const Message& message, MessageKind kind) {
  Message answer;
  answer.kind = kind;
  answer.page = message.page;
  answer.count = message.count;
  answer.request = message.request;
  return answer;
}

void SendStatus(const Message& message, MessageKind kind, const absl::Status& status, CoreHolder::Reply& reply) {
  Message answer = AnswerTo(message, kind);
  answer.SetStatus(status);
  reply(std::move(answer));
}

void SendStored(const Message& message, Version version, CoreHolder::Reply& reply) {
  Message answer = AnswerTo(message, MessageKind::kStored);
  answer.version = version;
  reply(std::move(answer));
}

template <typename... Parts>
absl::Status Precondition(const Parts&... parts) {
  return absl::FailedPreconditionError(absl::StrCat(parts...));
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
    done(records.ok() ? LoadExtents(*records) : records.status());
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
  for (auto& [first, extent] : extents_) extent.fresh = false;
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

void CoreHolder::Handle(const Message& message, Reply reply) {
  switch (message.kind) {
    case MessageKind::kStore: return HandleStore(message, std::move(reply));
    case MessageKind::kQueryStored: return HandleQuery(message, std::move(reply));
    case MessageKind::kPutExtent:
    case MessageKind::kDropExtent: return HandleChange(message, std::move(reply));
    default: CHECK(false && "not a message for a core holder");
  }
}

// --- Stores -----------------------------------------------------------------------------------------------------------

absl::Status CoreHolder::CheckStore(const Message& message) const {
  const Extent* const extent = Find(message.page);
  if (extent == nullptr) return Precondition("page ", ToString(message.page), " is in no extent of this core holder");
  if (extent->config != message.config) {
    return Precondition("page ", ToString(message.page), " has configuration ", extent->config.value,
                        ", and the store is of configuration ", message.config.value);
  }
  const Epoch seal = SealOf(message.page);
  if (message.version.epoch < seal && !message.complete) {
    return absl::AbortedError(absl::StrCat("version ", ToString(message.version), " of page ", ToString(message.page),
                                           " is older than epoch ", seal.value, ", which the page is sealed at"));
  }
  if (message.data == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("a store of page ", ToString(message.page), " without its content"));
  }
  return absl::OkStatus();
}

Epoch CoreHolder::SealOf(PageId page) const {
  Epoch seal;
  for (const auto* seals : {&seals_, &old_seals_}) {
    if (const auto it = seals->find(page); it != seals->end()) seal = std::max(seal, it->second);
  }
  return seal;
}

void CoreHolder::ForgetOldSeals() { old_seals_ = std::exchange(seals_, {}); }

std::optional<Version> CoreHolder::KnownVersion(PageId page) const {
  const auto it = versions_.find(page);
  if (it != versions_.end()) return it->second;
  if (corrupt_.contains(page) || Find(page)->all_known) return Version{};
  return std::nullopt;
}

// A record that is left of another extent is as bad as a corrupt one.
absl::StatusOr<StoredPage> CoreHolder::OfThisExtent(PageId page, absl::StatusOr<StoredPage> read) const {
  const Extent* const extent = Find(page);
  CHECK(extent != nullptr);
  if (!read.ok() || read->config == extent->config) return read;
  return absl::DataLossError(absl::StrCat("the record of page ", ToString(page), " is of configuration ",
                                          read->config.value, " in an extent of ", extent->config.value));
}

void CoreHolder::HandleStore(const Message& message, Reply reply) {
  if (const absl::Status s = CheckStore(message); !s.ok()) return SendStatus(message, MessageKind::kStored, s, reply);
  if (const auto queue = reading_.find(message.page); queue != reading_.end()) {
    queue->second.push_back({message, std::move(reply)});
    return;
  }
  const std::optional<Version> known = KnownVersion(message.page);
  if (!known) return ReadVersionThenStore(message, std::move(reply));
  if (message.version <= *known) return AcknowledgeOlder(message, *known, std::move(reply));
  WritePage(message, std::move(reply));
}

void CoreHolder::ReadVersionThenStore(const Message& message, Reply reply) {
  const PageId page = message.page;
  reading_[page].push_back({message, std::move(reply)});
  store_->ReadPage(page, /*with_data=*/false,
                   [this, alive = alive(), page, generation = generation_](absl::StatusOr<StoredPage> read) {
                     if (!alive.expired()) OnVersionRead(page, generation, std::move(read));
                   });
}

// What was learned counts only if no extent changed meanwhile: the record may be of one that is gone.
void CoreHolder::OnVersionRead(PageId page, uint64_t generation, absl::StatusOr<StoredPage> read) {
  std::vector<Waiting> queue = std::move(reading_.at(page));
  reading_.erase(page);
  absl::Status failure;
  if (generation == generation_) {
    read = OfThisExtent(page, std::move(read));
    ForgetVersionsIfMany();
    if (read.ok()) {
      versions_[page] = read->version;
    } else if (absl::IsNotFound(read.status())) {
      versions_[page] = Version{};
    } else if (absl::IsDataLoss(read.status())) {
      NoteCorrupt(page, read.status());
    } else {
      failure = read.status();
    }
  }
  for (Waiting& waiting : queue) {
    if (!failure.ok()) {
      SendStatus(waiting.message, MessageKind::kStored, failure, waiting.reply);
    } else {
      HandleStore(waiting.message, std::move(waiting.reply));
    }
  }
}

// K2. The version that it has may still be on its way (K1).
void CoreHolder::AcknowledgeOlder(const Message& message, Version known, Reply reply) {
  const auto write = writes_.find(message.page);
  if (write == writes_.end()) return SendStored(message, known, reply);
  Message about = AnswerTo(message, MessageKind::kStored);
  write->second.back()->after.push_back(
      [about = std::move(about), known, reply = std::move(reply)](const absl::Status& s) mutable {
        s.ok() ? SendStored(about, known, reply) : SendStatus(about, MessageKind::kStored, s, reply);
      });
}

void CoreHolder::WritePage(const Message& message, Reply reply) {
  const PageId page = message.page;
  ForgetVersionsIfMany();
  auto write = std::make_shared<Write>();
  write->version = message.version;
  write->config = message.config;
  write->mends = corrupt_.erase(page) > 0;
  versions_[page] = message.version;
  writes_[page].push_back(write);

  StoreBatch batch;
  batch.put_pages.push_back({.page = page, .version = message.version, .config = message.config, .data = message.data});
  Message about = AnswerTo(message, MessageKind::kStored);
  if (bugs_->acknowledge_before_sync) {
    SendStored(about, message.version, reply);
    reply = [](const Message&) {};
  }
  write->after.push_back(
      [about = std::move(about), version = message.version, reply = std::move(reply)](const absl::Status& s) mutable {
        s.ok() ? SendStored(about, version, reply) : SendStatus(about, MessageKind::kStored, s, reply);
      });
  store_->Commit(std::move(batch), [this, alive = alive(), page, write](const absl::Status& status) {
    if (!alive.expired()) OnWritten(page, write, status);
  });
}

void CoreHolder::OnWritten(PageId page, const std::shared_ptr<Write>& write, const absl::Status& status) {
  auto& writes = writes_.at(page);
  const bool newest = writes.back() == write;
  CHECK(std::erase(writes, write) == 1);
  if (!status.ok()) ++generation_;  // A read may have seen it.
  if (newest && !status.ok()) OnNewestWriteFailed(page, *write);
  if (writes.empty()) writes_.erase(page);
  std::vector<absl::AnyInvocable<void(absl::Status)>> after = std::move(write->after);
  for (auto& call : after) call(status);
}

// The version before it counts: that of an earlier write to the same extent, or whatever is on disk.
void CoreHolder::OnNewestWriteFailed(PageId page, const Write& write) {
  const auto& earlier = writes_.at(page);
  if (!earlier.empty() && earlier.back()->config == write.config) {
    versions_[page] = earlier.back()->version;
    return;
  }
  versions_.erase(page);
  if (write.mends) corrupt_.insert(page);
  const auto after = extents_.upper_bound(page.value);
  if (after != extents_.begin()) std::prev(after)->second.all_known = false;
}

void CoreHolder::ForgetVersionsIfMany() {
  if (versions_.size() < kMaxVersions) return;
  absl::flat_hash_map<PageId, Version> kept;
  for (const auto& [page, writes] : writes_) {
    if (const auto it = versions_.find(page); it != versions_.end()) kept.insert(*it);
  }
  versions_ = std::move(kept);
  for (auto& [first, extent] : extents_) extent.all_known = false;
  ++generation_;
}

// An operator has to hear of it, also where another core holder's copy hides it from everybody else.
void CoreHolder::NoteCorrupt(PageId page, const absl::Status& why) {
  if (!corrupt_.insert(page).second) return;
  ++corrupt_pages_found_;
  said_corrupt_.Log(LogLevel::kWarning, ToString(page),
                    absl::StrCat(why.message(), "; another core holder's copy has to replace it"));
}

// --- Queries ----------------------------------------------------------------------------------------------------------

void CoreHolder::HandleQuery(const Message& message, Reply reply) {
  if (message.seal && !bugs_->skip_seal) {
    seals_[message.page] = std::max(SealOf(message.page), message.grant_epoch);
  }
  const PageId page = message.page;
  const Extent* const extent = Find(page);
  if (extent == nullptr) {
    const absl::Status none =
        absl::NotFoundError(absl::StrCat("page ", ToString(page), " is in no extent of this core holder"));
    return SendStatus(message, MessageKind::kStoredInfo, none, reply);
  }
  const auto known = versions_.find(page);
  if (extent->all_known && known == versions_.end() && !corrupt_.contains(page)) {
    return AnswerQuery(message, std::move(reply), absl::NotFoundError("never stored"));
  }
  std::optional<Version> known_before;
  if (known != versions_.end()) known_before = known->second;
  store_->ReadPage(page, message.with_data,
                   [this, alive = alive(), message, reply = std::move(reply), generation = generation_,
                    known_before](absl::StatusOr<StoredPage> read) mutable {
                     if (alive.expired()) return;
                     OnQueryRead(message, std::move(reply), generation, known_before, std::move(read));
                   });
}

void CoreHolder::OnQueryRead(const Message& message, Reply reply, uint64_t generation,
                             std::optional<Version> known_before, absl::StatusOr<StoredPage> read) {
  const PageId page = message.page;
  // What was read is of an extent that may be gone: read again.
  if (generation != generation_) return HandleQuery(message, std::move(reply));
  read = OfThisExtent(page, std::move(read));
  // What was read may not be durable yet (K1): wait for all that was written before.
  if (const auto write = writes_.find(page); write != writes_.end()) {
    write->second.back()->after.push_back([this, alive = alive(), message, reply = std::move(reply), generation,
                                           read = std::move(read)](const absl::Status& written) mutable {
      if (alive.expired()) return;
      const bool counts = written.ok() && generation == generation_ && !absl::IsDataLoss(read.status());
      counts ? AnswerQuery(message, std::move(reply), read) : HandleQuery(message, std::move(reply));
    });
    return;
  }
  const auto it = versions_.find(page);
  const bool written_meanwhile =
      (it != versions_.end()) != known_before.has_value() || (it != versions_.end() && it->second != *known_before);
  if (absl::IsDataLoss(read.status())) {
    // A write since the read began may have mended it.
    if (written_meanwhile) return HandleQuery(message, std::move(reply));
    versions_.erase(page);
    NoteCorrupt(page, read.status());
  } else if (!known_before && !written_meanwhile && !corrupt_.contains(page) &&
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
  if (same != nullptr && same->range == range && same->config == message.config) return change;
  for (PageId page = range.first; page < range.end();) {
    auto it = extents_.upper_bound(page.value);
    if (it != extents_.begin() && std::prev(it)->second.range.Contains(page)) --it;
    if (it == extents_.end() || range.end() <= it->second.range.first) break;
    const Extent& extent = it->second;
    if (message.config <= extent.config) {
      return Precondition("configuration ", message.config.value, " of ", ToString(range), " is not newer than ",
                          extent.config.value, " of ", ToString(extent.range));
    }
    page = extent.range.end();
  }
  PlanCut(range, message.config, change);
  change.added = Extent{.range = range,
                        .config = message.config,
                        .replicas = message.replicas,
                        .is_volatile = message.is_volatile,
                        .learned = message.complete,
                        .fresh = !message.complete,
                        .all_known = true};
  change.batch.records.push_back({ExtentKey(range.first), EncodeExtent(*change.added)});
  return change;
}

absl::StatusOr<CoreHolder::Change> CoreHolder::PlanDrop(const Message& message) const {
  if (const absl::Status s = CheckRange(message); !s.ok()) return s;
  Change change;
  PlanCut({message.page, message.count}, message.config, change);
  return change;
}

void CoreHolder::PlanCut(PageRange range, ConfigNumber at_most, Change& change) const {
  auto it = extents_.upper_bound(range.first.value);
  if (it != extents_.begin() && std::prev(it)->second.range.Overlaps(range)) --it;
  for (; it != extents_.end() && it->second.range.first < range.end(); ++it) {
    const Extent& extent = it->second;
    if (extent.config > at_most) continue;
    const PageId first = std::max(extent.range.first, range.first);
    const PageId end = std::min(extent.range.end(), range.end());
    change.removed.push_back(extent);
    change.batch.records.push_back({ExtentKey(extent.range.first), std::nullopt});
    change.batch.delete_pages.push_back({first, end - first});
    if (extent.range.first < first) change.left_over.push_back(Part(extent, extent.range.first, first));
    if (end < extent.range.end()) change.left_over.push_back(Part(extent, end, extent.range.end()));
  }
  for (const Extent& extent : change.left_over) {
    change.batch.records.push_back({ExtentKey(extent.range.first), EncodeExtent(extent)});
  }
}

// K6: from here on the removed pages are in no extent, so that no store of them comes after their deletion.
void CoreHolder::Begin(const Change& change) {
  for (const Extent& extent : change.removed) CHECK(extents_.erase(extent.range.first.value) == 1);
  for (const Extent& extent : change.left_over) extents_[extent.range.first.value] = extent;
  for (const PageRange range : change.batch.delete_pages) ForgetRange(range);
  ++generation_;
}

void CoreHolder::End(Change change, const absl::Status& status) {
  CHECK(changing_);
  changing_ = false;
  ++generation_;
  if (status.ok()) {
    if (change.added) extents_[change.added->range.first.value] = *change.added;
    return;
  }
  for (const Extent& extent : change.left_over) CHECK(extents_.erase(extent.range.first.value) == 1);
  for (Extent& extent : change.removed) {
    extent.all_known = false;
    extents_[extent.range.first.value] = extent;
  }
}

void CoreHolder::ForgetRange(PageRange range) {
  absl::erase_if(versions_, [range](const auto& entry) { return range.Contains(entry.first); });
  absl::erase_if(corrupt_, [range](PageId page) { return range.Contains(page); });
}

}  // namespace mangrove
