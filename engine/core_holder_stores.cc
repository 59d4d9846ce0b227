// A core holder's stores: pages in newer versions, one by one or as runs (directory/page_run.h).

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/page_run.h"
#include "directory/planted_bugs.h"
#include "engine/core_holder.h"
#include "net/check.h"

namespace mangrove {
namespace {

template <typename... Parts>
absl::Status Precondition(const Parts&... parts) {
  return absl::FailedPreconditionError(absl::StrCat(parts...));
}

}  // namespace

void CoreHolder::SendStored(const Message& message, Version version, Reply& reply) {
  Message answer = AnswerTo(message, MessageKind::kStored);
  answer.version = version;
  reply(std::move(answer));
}

absl::Status CoreHolder::CheckStore(const Message& message) const {
  const Extent* const extent = Find(message.page);
  if (extent == nullptr) return Precondition("page ", ToString(message.page), " is in no extent of this core holder");
  if (extent->config != message.config && !bugs_->old_configuration) {
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
  for (const auto& seals : seals_) {
    if (const Epoch* const set = seals.find(page)->second) seal = std::max(seal, *set);
  }
  return seal;
}

void CoreHolder::ForgetOldSeals() {
  seals_[1].clear();
  std::swap(seals_[0], seals_[1]);
}

std::optional<Version> CoreHolder::KnownVersion(PageId page) const {
  if (const Version* const known = versions_.find(page)->second) return *known;
  if (corrupt_.contains(page)) return Version{};
  if (const Version* const since = stored_since_.find(page)->second) return *since;
  if (Find(page)->all_known || IsInDoubt(page)) return Version{};
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

// Neighbours to which the same happens are handled together.
void CoreHolder::HandleStores(const Message& run, const Reply& reply) {
  for (uint64_t done = 0; done < run.repeat;) {
    Message part = PartOf(run, done, 1);
    const Extent* const extent = Find(part.page);
    const Fate fate = FateOf(part, part.page, extent);
    const auto* const reading = reading_.find(part.page)->second;
    const auto is_alike = [&](PageId page) {
      if (fate == Fate::kOther || FateOf(part, page, extent) != fate) return false;
      return fate != Fate::kWaits || *reading_.find(page)->second == *reading;
    };
    while (done + part.repeat < run.repeat && is_alike(part.page + part.repeat)) ++part.repeat;
    done += part.repeat;
    switch (fate) {
      case Fate::kNewer: WritePages(part, reply); break;
      case Fate::kUnknown: ReadVersionsThenStore(part, reply); break;
      case Fate::kWaits: (*reading)->waiting.push_back({part, reply}); break;
      case Fate::kOther: HandleStore(part, reply); break;
    }
  }
}

// Of a page of the run, or the page itself. `extent`: of the run's first page.
CoreHolder::Fate CoreHolder::FateOf(const Message& run, PageId page, const Extent* extent) const {
  const bool fits =
      extent != nullptr && extent->range.Contains(page) && (extent->config == run.config || bugs_->old_configuration);
  if (!fits || run.data == nullptr || (!run.complete && run.version.epoch < SealOf(page))) return Fate::kOther;
  if (reading_.find(page)->second != nullptr) return Fate::kWaits;
  if (corrupt_.contains(page)) return Fate::kOther;
  const Version* const known = versions_.find(page)->second;
  if (known == nullptr && !extent->all_known && !IsInDoubt(page)) return Fate::kUnknown;
  return (known != nullptr ? *known : *KnownVersion(page)) < run.version ? Fate::kNewer : Fate::kOther;
}

// REQUIRES: its version is known, or it is refused.
void CoreHolder::HandleStore(const Message& message, Reply reply) {
  if (const absl::Status s = CheckStore(message); !s.ok()) return SendStatus(message, MessageKind::kStored, s, reply);
  const std::optional<Version> known = KnownVersion(message.page);
  CHECK(known.has_value());
  if (message.version <= *known) return AcknowledgeOlder(message, *known, std::move(reply));
  WritePages(message, std::move(reply));
}

void CoreHolder::ReadVersionsThenStore(const Message& run, Reply reply) {
  auto reading = std::make_shared<Reading>();
  reading->pages = {run.page, run.repeat};
  reading->waiting.push_back({run, std::move(reply)});
  for (uint64_t i = 0; i < run.repeat; ++i) reading_[run.page + i] = reading;
  store_->ReadPages(reading->pages, /*with_data=*/false,
                    [this, alive = alive(), reading, generation = generation_](auto read) {
                      if (!alive.expired()) OnVersionsRead(*reading, generation, std::move(read));
                    });
}

// What was learned counts only if no extent changed meanwhile: the records may be of one that is gone.
void CoreHolder::OnVersionsRead(Reading& reading, uint64_t generation, std::vector<absl::StatusOr<StoredPage>> read) {
  CHECK(read.size() == reading.pages.count);
  for (uint64_t i = 0; i < reading.pages.count; ++i) reading_.erase(reading.pages.first + i);
  absl::Status failure;
  if (generation == generation_) {
    ForgetVersionsIfMany();
    for (uint64_t i = 0; i < reading.pages.count; ++i) {
      const PageId page = reading.pages.first + i;
      const absl::StatusOr<StoredPage> found = OfThisExtent(page, std::move(read[i]));
      if (found.ok()) {
        versions_[page] = found->version;
      } else if (absl::IsNotFound(found.status())) {
        versions_[page] = Version{};
      } else if (absl::IsDataLoss(found.status())) {
        NoteCorrupt(page, found.status());
      } else if (failure.ok()) {
        failure = found.status();
      }
    }
  }
  for (Waiting& waiting : reading.waiting) {
    if (!failure.ok()) {
      SendStatus(waiting.message, MessageKind::kStored, failure, waiting.reply);
    } else {
      HandleStores(waiting.message, waiting.reply);
    }
  }
}

// K2. The version that it has may still be on its way (K1).
void CoreHolder::AcknowledgeOlder(const Message& message, Version known, Reply reply) {
  const auto* const writes = writes_.find(message.page)->second;
  if (writes == nullptr) return SendStored(message, known, reply);
  Message about = AnswerTo(message, MessageKind::kStored);
  writes->back()->after.push_back(
      [about = std::move(about), known, reply = std::move(reply)](const absl::Status& s) mutable {
        s.ok() ? SendStored(about, known, reply) : SendStatus(about, MessageKind::kStored, s, reply);
      });
}

// REQUIRES: the version is newer than that of each page of the run.
void CoreHolder::WritePages(const Message& run, Reply reply) {
  ForgetVersionsIfMany();
  auto write = std::make_shared<Write>();
  write->pages = {run.page, run.repeat};
  write->version = run.version;
  write->config = run.config;
  write->mends = corrupt_.erase(run.page) > 0;
  if (write->mends && stored_since_.find(run.page)->second != nullptr) stored_since_.erase(run.page);
  StoreBatch batch;
  batch.put_pages.reserve(run.repeat);
  for (uint64_t i = 0; i < run.repeat; ++i) {
    const PageId page = run.page + i;
    versions_[page] = run.version;
    writes_[page].push_back(write);
    batch.put_pages.push_back(
        {.page = page, .version = run.version, .config = run.config, .handle = {}, .data = DataOf(run, i)});
    if (lost_.contains(page)) batch.records.push_back({LostKey(page), std::nullopt});
  }
  Message about = AnswerTo(run, MessageKind::kStored);
  if (bugs_->acknowledge_before_sync) {
    SendStored(about, run.version, reply);
    reply = [](const Message&) {};
  }
  write->after.push_back(
      [about = std::move(about), version = run.version, reply = std::move(reply)](const absl::Status& s) mutable {
        s.ok() ? SendStored(about, version, reply) : SendStatus(about, MessageKind::kStored, s, reply);
      });
  store_->Commit(std::move(batch), [this, alive = alive(), write](const absl::Status& status) {
    if (!alive.expired()) OnWritten(write, status);
  });
}

void CoreHolder::OnWritten(const std::shared_ptr<Write>& write, const absl::Status& status) {
  if (!status.ok()) ++generation_;  // A read may have seen it.
  for (PageId page = write->pages.first; page < write->pages.end(); page = page + 1) {
    auto& writes = *writes_.find(page)->second;
    const auto place = std::find(writes.begin(), writes.end(), write);
    CHECK(place != writes.end());
    const bool newest = std::next(place) == writes.end();
    writes.erase(place);
    if (status.ok()) NoteDurable(page, write->version);
    if (newest && !status.ok()) OnNewestWriteFailed(page, *write);
    if (writes.empty()) writes_.erase(page);
  }
  std::vector<absl::AnyInvocable<void(absl::Status)>> after = std::move(write->after);
  for (auto& call : after) call(status);
}

void CoreHolder::NoteDurable(PageId page, Version version) {
  lost_.erase(page);
  if (IsInDoubt(page)) stored_since_[page] = std::max(stored_since_[page], version);
}

// The version before it counts: that of an earlier write to the same extent, or whatever is on disk.
void CoreHolder::OnNewestWriteFailed(PageId page, const Write& write) {
  const auto& earlier = *writes_.find(page)->second;
  if (!earlier.empty() && earlier.back()->config == write.config) {
    versions_[page] = earlier.back()->version;
    return;
  }
  ForgetVersion(page);
  // A mark may have been taken out by a write before this one, which failed as well.
  if (write.mends || lost_.contains(page)) corrupt_.insert(page);
  const auto after = extents_.upper_bound(page.value);
  if (after != extents_.begin()) std::prev(after)->second.all_known = false;
}

// After versions were forgotten. What is on its way is under K2.
void CoreHolder::RememberWrites() {
  for (const auto [page, writes] : writes_) versions_[page] = writes->back()->version;
}

void CoreHolder::ForgetVersion(PageId page) {
  if (versions_.find(page)->second != nullptr) versions_.erase(page);
}

// Not those that are on their way to the disk.
void CoreHolder::ForgetVersionsIfMany() {
  if (versions_.size() < kMaxVersions) return;
  for (size_t i = 0; i < kMaxVersions / 8; ++i) {
    const PageId page = versions_.Next().first;
    if (writes_.find(page)->second == nullptr) versions_.erase(page);
  }
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

}  // namespace mangrove
