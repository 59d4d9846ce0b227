#include "engine/catch_up.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr DurationNs kPause = 20 * kMillisecond;
constexpr DurationNs kMostPause = kSecond;  // After failures one after the other.
constexpr DurationNs kAnswerIn = 2 * kSecond;
// Pages that are on their way here at a time, and written together.
constexpr size_t kCopiesAtOnce = 256;
constexpr size_t kVersionsAtOnce = 1024;
constexpr uint64_t kLooksAtOnce = 1024;  // At segments; then others run.

// What is left of the ranges without `taken`.
void Subtract(PageRange taken, std::vector<PageRange>& ranges) {
  std::vector<PageRange> left;
  for (const PageRange& range : ranges) {
    if (!range.Overlaps(taken)) {
      left.push_back(range);
      continue;
    }
    if (range.first < taken.first) left.push_back({range.first, taken.first - range.first});
    if (taken.end() < range.end()) left.push_back({taken.end(), range.end() - taken.end()});
  }
  ranges = std::move(left);
}

}  // namespace

void CatchUp::Open(bool blank) {
  blank_ = blank;
  if (sink_) sink_(blank_, caught_up_);
}

bool CatchUp::IsBehind() const { return engine_->view_.behind.contains(engine_->options_.self.node); }

void CatchUp::OnView() {
  if (pause_) pause_->Set(true);
  if (!engine_->view_.Has(engine_->options_.self)) return;
  if (!IsBehind()) return engine_->core_.EndDoubt();
  if (caught_up_ && NextSource(pages_of_)) {
    // Somebody is current by now, and may have told others of what this disk has otherwise.
    caught_up_ = false;
    if (sink_) sink_(blank_, false);
  }
  if (running_ || caught_up_) return;
  running_ = true;
  if (!std::exchange(in_doubt_, true)) {
    engine_->core_.BeginDoubt();
    LogInfo("this node's disk is behind: it catches up with the others");
  }
  Spawn<absl::Status>(Run(), [this, alive = engine_->alive_](const absl::Status& status) {
    if (!*alive) return;
    running_ = false;
    if (!status.ok()) LogDebug("catching up has ended: ", status.message());
  });
}

void CatchUp::Stop() {
  engine_->clock_->Cancel(std::exchange(timer_, 0));
  if (pause_) pause_->Set(false);
  for (auto& [number, end] : std::exchange(waits_, {})) end(engine_->stopped_status_);
}

bool CatchUp::KnowsExtents() const {
  if (caught_up_ || !IsBehind()) return true;
  return WaitsFor().empty() &&
         std::all_of(engine_->view_.members.begin(), engine_->view_.members.end(), [this](const auto& member) {
           return member.first == engine_->options_.self.node || !engine_->IsCurrentDisk(member.first) ||
                  extents_of_.contains(member.first);
         });
}

void CatchUp::NoteDrop(PageRange range, ConfigNumber config) {
  if (!IsBehind()) return;
  const TimeNs now = engine_->clock_->Now();
  std::erase_if(drops_, [now](const Drop& drop) { return drop.until <= now; });
  drops_.push_back({range, config, now + PageEngine::kMessageLifetime});
}

CatchUpProgress CatchUp::Progress() const {
  CatchUpProgress progress = progress_;
  progress.is_behind = IsBehind();
  if (running_) progress.waits_for = WaitsFor();
  return progress;
}

// A current disk in the view that has not been learned from; if there is another one, not that with which it has just failed.
std::optional<NodeId> CatchUp::NextSource(const std::set<NodeId>& done) const {
  std::optional<NodeId> next;
  for (const auto& [node, incarnation] : engine_->view_.members) {
    if (node == engine_->options_.self.node || !engine_->IsCurrentDisk(node) || done.contains(node)) continue;
    next = node;
    if (node != failed_) break;
  }
  return next;
}

// U4. Those that were learned from have told all that they had when everything was stored here, too.
std::vector<NodeId> CatchUp::WaitsFor() const {
  const auto& behind = engine_->view_.behind;
  const auto own = behind.find(engine_->options_.self.node);
  std::vector<NodeId> nodes;
  if (own == behind.end()) return nodes;
  for (NodeId node : engine_->options_.members) {
    if (node == engine_->options_.self.node || engine_->IsCurrentDisk(node) || pages_of_.contains(node)) continue;
    const auto other = behind.find(node);
    const bool may_have_more = other == behind.end() ? own->second == kBlankDisk : own->second < other->second;
    if (may_have_more) nodes.push_back(node);
  }
  return nodes;
}

// Until the next view, for `duration` at most. False: this node stops.
Task<bool> CatchUp::Pause(DurationNs duration) {
  if (engine_->stopped_) co_return false;
  Outcome<bool> pause(engine_->clock_);
  pause_ = pause;
  timer_ = engine_->clock_->CallAt(engine_->clock_->Now() + duration, [pause]() mutable { pause.Set(true); });
  const bool goes_on = co_await pause.Get();
  pause_.reset();
  engine_->clock_->Cancel(std::exchange(timer_, 0));
  co_return goes_on && !engine_->stopped_;
}

// What this node's disk is to answer: an outcome, and what sets it. Stop ends it, since the disk may not answer any more.
template <typename T>
std::pair<Outcome<T>, absl::AnyInvocable<void(T)>> CatchUp::Await() {
  Outcome<T> outcome(engine_->clock_);
  const uint64_t number = ++next_wait_;
  waits_[number] = [outcome](const absl::Status& status) mutable {
    if constexpr (std::is_same_v<T, Message>) {
      Message answer;
      answer.SetStatus(status);
      outcome.Set(std::move(answer));
    } else {
      outcome.Set(status);
    }
  };
  auto done = [this, number, outcome, alive = engine_->alive_](T value) mutable {
    if (!*alive || waits_.erase(number) == 0) return;
    outcome.Set(std::move(value));
  };
  if (engine_->stopped_) Stop();  // What was under way when it stopped comes to this as well.
  return {outcome, std::move(done)};
}

// What this node's own disk answers.
Outcome<Message> CatchUp::Here(const Message& message) {
  auto [outcome, done] = Await<Message>();
  auto shared = std::make_shared<absl::AnyInvocable<void(Message)>>(std::move(done));
  engine_->core_.Handle(message, [shared](Message answer) { (*shared)(std::move(answer)); });
  return outcome;
}

Message CatchUp::AskOf(PageId page) {
  Message query;
  query.kind = MessageKind::kQueryStored;
  query.page = page;
  query.with_data = true;
  return query;
}

Message CatchUp::StoreOf(PageId page, const Message& stored) {
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

Task<absl::Status> CatchUp::Run() {
  DurationNs pause = kPause;
  while (!engine_->stopped_ && IsBehind()) {
    const absl::Status status = co_await LearnNext();
    progress_.trouble = std::string(status.message());
    if (status.ok() && caught_up_) co_return status;
    if (status.ok()) {
      pause = kPause;
      continue;
    }
    if (!absl::IsUnavailable(status) && !absl::IsAborted(status)) {
      engine_->said_once_.Log(LogLevel::kWarning, "catch up",
                              absl::StrCat("this node's disk cannot catch up yet: ", status.message()));
    }
    const bool goes_on = co_await Pause(pause);
    if (!goes_on) break;
    pause = std::min(2 * pause, kMostPause);
  }
  co_return engine_->stopped_status_;
}

// A log that was founded anew may take this disk for current.
absl::Status CatchUp::CheckGoesOn() const {
  if (engine_->stopped_) return engine_->stopped_status_;
  return IsBehind() ? absl::OkStatus() : absl::AbortedError("this disk counts as current");
}

// One step: all of one source's extents, or pages; or the end.
Task<absl::Status> CatchUp::LearnNext() {
  if (absl::Status status = CheckGoesOn(); !status.ok()) co_return status;
  const bool pages = !NextSource(extents_of_);
  std::set<NodeId>& done = pages ? pages_of_ : extents_of_;
  if (const std::optional<NodeId> source = NextSource(done)) {
    absl::Status status;
    if (!pages || !engine_->options_.bugs->catch_up_without_pages) status = co_await Learn(*source, pages);
    failed_ = status.ok() ? NodeId{} : *source;
    if (status.ok()) done.insert(*source);
    co_return status;
  }
  if (!WaitsFor().empty()) co_return absl::UnavailableError("other disks may have more");
  const absl::Status finished = co_await Finish();
  co_return finished;
}

// The extents, or the pages, that `source` and this node are both to keep.
Task<absl::Status> CatchUp::Learn(NodeId source, bool pages) {
  // Of pages it goes on where it was.
  PageId from = pages ? std::exchange(pages_from_[source], {}) : PageId{};
  do {
    if (pages) pages_from_[source] = from;
    Message ask;
    ask.kind = MessageKind::kListStored;
    ask.page = from;
    ask.with_data = pages;
    const TimeNs deadline = engine_->clock_->Now() + kAnswerIn;
    Outcome<Message> outcome = engine_->StartCall(source, std::move(ask), deadline, 5 * engine_->options_.resend_after);
    const Message answer = co_await outcome.Get();
    if (!answer.status().ok()) co_return answer.status();
    if (answer.data == nullptr || (answer.page != PageId{} && answer.page <= from)) {
      co_return absl::InternalError(absl::StrCat(ToString(source), " sent a list that is none"));
    }
    const PageInterval part{from, answer.page == PageId{} ? kSpaceEnd : answer.page};
    absl::Status taken;
    if (pages) {
      absl::StatusOr<std::vector<StoredVersion>> listed = DecodeVersionList(*answer.data, from);
      if (!listed.ok()) co_return listed.status();
      taken = co_await TakePages(source, *std::move(listed), part);
    } else {
      absl::StatusOr<std::vector<StoredExtent>> listed = DecodeExtentList(*answer.data, from);
      if (!listed.ok()) co_return listed.status();
      taken = co_await TakeExtents(source, *std::move(listed), part);
    }
    if (!taken.ok()) co_return taken;
    from = answer.page;
  } while (from != PageId{});
  pages_from_.erase(source);
  co_return absl::OkStatus();
}

// --- Extents ----------------------------------------------------------------------------------------------------------

// U3. `part`: of which `listed` says all.
Task<absl::Status> CatchUp::TakeExtents(NodeId source, std::vector<StoredExtent> listed, PageInterval part) {
  std::vector<Outcome<Message>> outcomes;
  const std::vector<Drop> drops = co_await NotListed(source, listed, part);
  if (absl::Status status = CheckGoesOn(); !status.ok()) co_return status;
  for (const Drop& drop : drops) {
    Message message;
    message.kind = MessageKind::kDropExtent;
    message.page = drop.range.first;
    message.count = drop.range.count;
    message.config = drop.config;
    message.complete = true;  // Only what is still in doubt when its turn comes.
    outcomes.push_back(Here(message));
  }
  for (const StoredExtent& extent : listed) {
    if (extent.is_learned) learned_there_.emplace_back(source, extent.range);
    for (const PageRange& range : MissingOf(extent)) {
      Message put;
      put.kind = MessageKind::kPutExtent;
      put.page = range.first;
      put.count = range.count;
      put.config = extent.config;
      put.replicas = extent.replicas;
      put.is_volatile = extent.is_volatile;
      put.complete = true;
      outcomes.push_back(Here(put));
    }
  }
  absl::Status status;
  for (Outcome<Message>& outcome : outcomes) {
    const Message answer = co_await outcome.Get();
    // What is here by now is newer.
    if (status.ok() && answer.code != absl::StatusCode::kFailedPrecondition) status = answer.status();
  }
  if (!status.ok()) co_return status;
  co_return absl::OkStatus();
}

// What of the extents in doubt the source would have to keep, and does not list; the other pieces of them are for others to say.
Task<std::vector<CatchUp::Drop>> CatchUp::NotListed(NodeId source, const std::vector<StoredExtent>& listed,
                                                    PageInterval part) const {
  std::vector<Drop> drops;
  uint64_t looks = 0;
  for (PageId page = part.first; page < part.end;) {
    const Extent* const extent = NextInDoubt(page, part.end);
    if (extent == nullptr) break;
    page = std::max(page, extent->range.first);
    const PageId end = std::min({extent->range.end(), SegmentStart(page) + kSegmentPages, part.end});
    if (Keeps(source, {page, 1}, extent->replicas, extent->is_volatile)) {
      std::vector<PageRange> left{{page, end - page}};
      auto it = std::upper_bound(listed.begin(), listed.end(), page,
                                 [](PageId at, const StoredExtent& other) { return at < other.range.end(); });
      for (; it != listed.end() && it->range.first < end; ++it) {
        if (it->config == extent->config) Subtract(it->range, left);
      }
      for (const PageRange& range : left) AddDrop(range, extent->config, drops);
    }
    page = end;
    if (++looks % kLooksAtOnce == 0) co_await YieldTo(engine_->clock_);
  }
  co_return drops;
}

const Extent* CatchUp::NextInDoubt(PageId page, PageId end) const {
  const auto& extents = engine_->core_.extents();
  auto it = extents.upper_bound(page.value);
  if (it != extents.begin() && page < std::prev(it)->second.range.end()) --it;
  while (it != extents.end() && it->second.range.first < end && !it->second.doubtful) ++it;
  return it == extents.end() || end <= it->second.range.first ? nullptr : &it->second;
}

// Joined with the last one, if it goes on.
void CatchUp::AddDrop(PageRange range, ConfigNumber config, std::vector<Drop>& drops) {
  if (!drops.empty() && drops.back().config == config && drops.back().range.end() == range.first) {
    drops.back().range.count += range.count;
  } else {
    drops.push_back({.range = range, .config = config});
  }
}

// What of it is neither here, or newer here, nor was dropped since this node joined.
std::vector<PageRange> CatchUp::MissingOf(const StoredExtent& extent) const {
  std::vector<PageRange> missing{extent.range};
  for (const Drop& drop : drops_) {
    if (extent.config <= drop.config) Subtract(drop.range, missing);
  }
  const auto& extents = engine_->core_.extents();
  auto it = extents.upper_bound(extent.range.first.value);
  if (it != extents.begin()) --it;
  for (; it != extents.end() && it->second.range.first < extent.range.end(); ++it) {
    if (extent.config <= it->second.config) Subtract(it->second.range, missing);
  }
  return missing;
}

// --- Pages ------------------------------------------------------------------------------------------------------------

// `part`: of which `listed` says all.
Task<absl::Status> CatchUp::TakePages(NodeId source, std::vector<StoredVersion> listed, PageInterval part) {
  progress_.pages_compared += listed.size();
  auto next = listed.begin();
  while (part.first < part.end) {
    const absl::StatusOr<Part> here = co_await VersionsHere(part);
    if (!here.ok()) co_return here.status();
    std::vector<StoredVersion> of_part;
    while (next != listed.end() && next->page < here->end) of_part.push_back(*next++);
    const std::vector<StoredVersion> wanted = Differing(of_part, here->versions);
    for (size_t begin = 0; begin < wanted.size(); begin += kCopiesAtOnce) {
      const size_t end = std::min(begin + kCopiesAtOnce, wanted.size());
      std::vector<StoredVersion> some(wanted.begin() + static_cast<ptrdiff_t>(begin),
                                      wanted.begin() + static_cast<ptrdiff_t>(end));
      const absl::Status status = co_await Copy(source, std::move(some));
      if (!status.ok()) co_return status;
    }
    const absl::Status dropped = co_await DropPages(source, of_part, here->versions);
    if (!dropped.ok()) co_return dropped;
    part.first = here->end;
  }
  co_return absl::OkStatus();
}

// Those that are to be copied; of the others that are not as they are here nobody can be asked but at the end.
std::vector<StoredVersion> CatchUp::Differing(const std::vector<StoredVersion>& listed, const Versions& here) {
  std::vector<StoredVersion> wanted;
  for (const StoredVersion& stored : listed) {
    const auto own = here.find(stored.page);
    if (engine_->core_.WasStoredSince(stored.page)) continue;
    if (own != here.end() && stored.version == own->second && own->second != kUnknownVersion) continue;
    if (engine_->options_.bugs->trust_old_disk && own != here.end() && stored.version < own->second) continue;
    if (stored.is_unreadable) {
      unreadable_.emplace(stored.page, stored.version);
    } else {
      wanted.push_back(stored);
    }
  }
  return wanted;
}

// What the source would have to have, and has not: what is here was never acknowledged.
Task<absl::Status> CatchUp::DropPages(NodeId source, const std::vector<StoredVersion>& listed, const Versions& here) {
  std::vector<PageId> pages;
  auto next = listed.begin();
  for (const auto& [page, version] : here) {
    while (next != listed.end() && next->page < page) ++next;
    const Extent* const extent = engine_->core_.Find(page);
    const bool is_listed = next != listed.end() && next->page == page;
    if (is_listed || extent == nullptr || !Keeps(source, {page, 1}, extent->replicas, extent->is_volatile)) continue;
    pages.push_back(page);
  }
  if (pages.empty()) co_return absl::OkStatus();
  if (absl::Status status = CheckGoesOn(); !status.ok()) co_return status;
  auto [outcome, done] = Await<absl::Status>();
  engine_->core_.DeletePages(pages, std::move(done));
  const absl::Status deleted = co_await outcome.Get();
  co_return deleted;
}

// One look into the store, from the part's first page on that is in an extent.
Task<absl::StatusOr<CatchUp::Part>> CatchUp::VersionsHere(PageInterval part) {
  const PageId first = FirstKept(part.first);
  if (first == PageId{} || part.end <= first) co_return Part{.end = part.end, .versions = {}};
  const absl::uint128 count = part.end.value - first.value;
  const PageRange range{first, static_cast<uint64_t>(std::min<absl::uint128>(count, UINT64_MAX))};
  auto [outcome, done] = Await<absl::StatusOr<PageList>>();
  engine_->store_->ListPages(range, kVersionsAtOnce, std::move(done));
  const absl::StatusOr<PageList> list = co_await outcome.Get();
  if (!list.ok()) co_return list.status();
  Part here{.end = list->next == PageId{} ? range.end() : list->next, .versions = {}};
  for (const StoredPage& stored : list->pages) {
    const Extent* const extent = engine_->core_.Find(stored.page);
    const bool counts = extent != nullptr && extent->config == stored.config && stored.version != Version{} &&
                        !engine_->core_.IsUnreadable(stored.page);
    here.versions[stored.page] = counts ? stored.version : kUnknownVersion;
  }
  co_return here;
}

Task<absl::Status> CatchUp::Copy(NodeId source, std::vector<StoredVersion> pages) {
  std::vector<Outcome<Message>> asked;
  {
    PageEngine::Turn turn(engine_);
    const TimeNs deadline = engine_->clock_->Now() + kAnswerIn;
    for (const StoredVersion& page : pages) {
      asked.push_back(engine_->StartCall(source, AskOf(page.page), deadline, 10 * engine_->options_.resend_after));
    }
  }
  absl::Status status;
  std::vector<Outcome<Message>> stores;
  for (size_t i = 0; i < asked.size(); ++i) {
    const Message answer = co_await asked[i].Get();
    if (absl::IsDataLoss(answer.status())) {
      unreadable_.emplace(pages[i].page, pages[i].version);
    } else if (absl::IsNotFound(answer.status())) {
      continue;  // Dropped meanwhile.
    } else if (!answer.status().ok()) {
      if (status.ok()) status = answer.status();
    } else if (!answer.complete) {
      if (status.ok()) status = absl::AbortedError("the other disk is in doubt itself");
    } else if (answer.have) {
      stores.push_back(Here(StoreOf(pages[i].page, answer)));
    }
  }
  for (Outcome<Message>& store : stores) {
    const Message stored = co_await store.Get();
    if (stored.code == absl::StatusCode::kFailedPrecondition) continue;  // Dropped meanwhile.
    if (!stored.status().ok() && status.ok()) status = stored.status();
    if (stored.status().ok()) ++progress_.pages_copied;
  }
  co_return status;
}

// U5. Another disk may be able to read what one could not.
Task<absl::Status> CatchUp::Settle() {
  while (!unreadable_.empty()) {
    const auto [page, version] = *unreadable_.begin();
    const absl::StatusOr<bool> copied = co_await CopyFromAny(page);
    if (!copied.ok()) co_return copied.status();
    if (!*copied) {
      const absl::StatusOr<Part> here = co_await VersionsHere({page, page + 1});
      if (!here.ok()) co_return here.status();
      const auto own = here->versions.find(page);
      const bool is_here = own != here->versions.end() && own->second == version && version != kUnknownVersion;
      if (!is_here && engine_->core_.Find(page) != nullptr && !engine_->core_.WasStoredSince(page)) {
        if (absl::Status status = CheckGoesOn(); !status.ok()) co_return status;
        auto [marked, done] = Await<absl::Status>();
        engine_->core_.MarkLost(page, version, std::move(done));
        const absl::Status status = co_await marked.Get();
        if (!status.ok()) co_return status;
        ++progress_.pages_lost;
      }
    }
    unreadable_.erase(page);
  }
  co_return absl::OkStatus();
}

// From any current disk but this one. False: none can read it.
Task<absl::StatusOr<bool>> CatchUp::CopyFromAny(PageId page) {
  const Extent* const extent = engine_->core_.Find(page);
  if (extent == nullptr) co_return true;  // Dropped meanwhile.
  for (NodeId node : engine_->CurrentHolders(page, extent->replicas)) {
    const TimeNs deadline = engine_->clock_->Now() + kAnswerIn;
    Outcome<Message> outcome = engine_->StartCall(node, AskOf(page), deadline, engine_->options_.resend_after);
    const Message answer = co_await outcome.Get();
    if (absl::IsDataLoss(answer.status())) continue;
    if (!answer.status().ok() && !absl::IsNotFound(answer.status())) co_return answer.status();
    if (!answer.status().ok() || !answer.have) continue;
    Outcome<Message> store = Here(StoreOf(page, answer));
    const Message stored = co_await store.Get();
    if (!stored.status().ok() && stored.code != absl::StatusCode::kFailedPrecondition) co_return stored.status();
    co_return true;
  }
  co_return false;
}

// Whether each page of it that this disk is to keep is kept by one that was learned from, and that knows of all of its pages.
bool CatchUp::IsCovered(const Extent& extent) const {
  const NodeId self = engine_->options_.self.node;
  const auto knows = [&](NodeId node) {
    return std::none_of(learned_there_.begin(), learned_there_.end(), [&](const auto& learned) {
      return learned.first == node && learned.second.Overlaps(extent.range);
    });
  };
  return engine_->EachKindOfSegment(extent.range, [&](PageId page) {
    const auto keeps = [&](NodeId node) { return Keeps(node, {page, 1}, extent.replicas, extent.is_volatile); };
    return !keeps(self) ||
           std::any_of(pages_of_.begin(), pages_of_.end(), [&](NodeId node) { return keeps(node) && knows(node); });
  });
}

// What was learned from disks that have all of it is not in doubt any more.
Task<absl::Status> CatchUp::Finish() {
  const absl::Status settled = co_await Settle();
  if (!settled.ok()) co_return settled;
  // In the meantime a view may have brought somebody to learn from.
  if (NextSource(pages_of_) || !WaitsFor().empty()) co_return absl::AbortedError("there is more to learn");
  const auto is_covered = [this](const Extent& extent) { return IsCovered(extent); };
  auto [outcome, done] = Await<absl::Status>();
  engine_->NoteComplete(engine_->core_.EndLearning(is_covered), std::move(done));
  const absl::Status durable = co_await outcome.Get();
  if (!durable.ok()) {
    engine_->core_.UndoEndLearning();
    co_return durable;
  }
  if (NextSource(pages_of_)) co_return absl::AbortedError("there is more to learn");
  caught_up_ = true;
  LogInfo("this node's disk has caught up: ", progress_.pages_compared, " pages compared, ", progress_.pages_copied,
          " copied, ", progress_.pages_lost, " lost");
  if (sink_) sink_(blank_, true);
  co_return absl::OkStatus();
}

}  // namespace mangrove
