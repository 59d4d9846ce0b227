// Who is responsible for a segment: what this node has heard, what the directory says, and what this node is responsible for
// itself. Whoever touches a segment first becomes responsible for it; when that node is gone, whoever needs it next.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr DurationNs kTryAgain = 20 * kMillisecond;
// Of a walk that no operation waits for.
constexpr DurationNs kWalkTimeout = 2 * kSecond;
// Messages that wait until it is known whether this node is responsible.
constexpr size_t kMaxUnsure = 1024;
// Locations of segments: as many as there may be with pages here, within these.
constexpr uint64_t kFewLocations = uint64_t{1} << 10;
constexpr uint64_t kMostLocations = uint64_t{1} << 16;

}  // namespace

// Those that are named by the view, or by the page itself.
bool PageEngine::IsFixed(PageId page) { return page < PageId(kSegmentPages) || kFirstDirectoryPage <= page; }

bool PageEngine::IsMember(NodeId node) const {
  // Who has just come may be in the view before this node has heard who it is.
  return members_.contains(node) || view_.members.contains(node);
}

NodeId PageEngine::ResponsibleFor(PageId page) const {
  if (IsFixed(page)) return FixedResponsible(view_, page);
  const auto it = locations_.find(SegmentStart(page));
  return it == locations_.end() ? NodeId{} : it->second.node;
}

bool PageEngine::IsResponsibleFor(PageId page) const {
  return IsFixed(page) ? ResponsibleFor(page) == options_.self.node : own_.Find(page) != nullptr;
}

bool PageEngine::IsLocated(PageId page) const {
  if (IsFixed(page)) return view_.root.value != 0;
  const auto it = locations_.find(SegmentStart(page));
  return it != locations_.end() && it->second.node.value != 0 && !it->second.stale;
}

void PageEngine::NoteLocation(PageId page, NodeId node, uint32_t term) {
  // At once, for all that there may be: to grow with thousands would be a step of 10 ms and more, most of it for fresh memory.
  const size_t most = std::clamp(options_.cache_pages, kFewLocations, kMostLocations);
  if (locations_.capacity() < most) locations_.reserve(most);
  if (locations_.size() >= most) {  // Those of segments that have no page here are found again.
    absl::erase_if(locations_, [](const auto& location) { return location.second.pages == 0; });
  }
  Location& location = locations_[SegmentStart(page)];
  // What was heard may be from before this node became responsible.
  const OwnSegments::Run* own = own_.Find(page);
  location.node = own == nullptr ? node : options_.self.node;
  location.term = own == nullptr ? term : own->term;
  location.stale = !IsHere(location.node);
}

// This node is responsible for the segments, and what is here of them knows it.
void PageEngine::Own(const OwnSegments::Run& run) {
  own_.Add(run);
  const auto note = [&](Location* location) {
    location->node = options_.self.node;
    location->term = run.term;
    location->stale = false;
  };
  if (run.range.count / kSegmentPages < locations_.size()) {
    for (PageId first = run.range.first; first < run.range.end(); first = first + kSegmentPages) {
      const auto it = locations_.find(first);
      if (it != locations_.end()) note(&it->second);
    }
    return;
  }
  for (auto& [first, location] : locations_) {
    if (run.range.Contains(first)) note(&location);
  }
}

// Whoever speaks of a newer transaction of the page is responsible for it by now, unless a newer one of the segment was heard of.
void PageEngine::NoteSpeaker(const CachedPage& cached, const Message& message, NodeId from) {
  if (IsFixed(message.page) || message.kind == MessageKind::kGrant || message.txn <= cached.entry.txn) return;
  Location& location = locations_[SegmentStart(message.page)];
  if (message.txn <= location.txn) return;
  location.txn = message.txn;
  if (location.node != from && own_.Find(message.page) == nullptr) NoteLocation(message.page, from, 0);
}

// OK: ResponsibleFor says who it is.
Task<absl::Status> PageEngine::Locate(PageId page, TimeNs deadline) {
  const PageId first = SegmentStart(page);
  absl::Status why;  // It could not be found out the last time, as far as a node is to blame.
  while (!IsLocated(page)) {
    absl::StatusOr<DirectoryEntry> entry = NoLeaseStatus();
    const absl::Status lease = co_await WaitForLease(deadline);
    if (lease.ok()) entry = co_await EntryOf(first, deadline);
    if (entry.ok() && !IsMember(entry->responsible)) {
      entry = absl::DataLossError(absl::StrCat("the directory says that ", ToString(entry->responsible),
                                               ", which is no member, is responsible for ", ToString(first)));
    }
    if (stopped_) co_return stopped_status_;
    if (entry.ok() && !IsHere(entry->responsible)) entry = absl::UnavailableError("the cluster has changed; try again");
    if (entry.ok()) {
      NoteLocation(first, entry->responsible, entry->term);
      continue;
    }
    if (absl::IsUnavailable(entry.status())) why = entry.status();
    const bool is_late = clock_->Now() + kTryAgain >= deadline;
    if (is_late && absl::IsDeadlineExceeded(entry.status()) && !why.ok()) co_return why;
    if (is_late || !absl::IsUnavailable(entry.status())) co_return entry.status();
    co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
  }
  co_return absl::OkStatus();
}

// As Locate, but that this node does not become responsible: 0 if nobody is.
Task<absl::StatusOr<NodeId>> PageEngine::FindResponsible(PageId page, TimeNs deadline) {
  if (IsLocated(page)) co_return ResponsibleFor(page);
  const absl::StatusOr<DirectoryTree::Found> found = co_await tree_.Find(SegmentStart(page), deadline);
  if (!found.ok()) co_return found.status();
  co_return found->entry&& IsHere(found->entry->responsible) ? found->entry->responsible : NodeId{};
}

// What the directory says of the segment; if nothing, this node becomes responsible.
Task<absl::StatusOr<DirectoryEntry>> PageEngine::EntryOf(PageId first, TimeNs deadline) {
  if (const OwnSegments::Run* own = own_.Find(first)) {
    co_return DirectoryEntry{.range = {first, kSegmentPages}, .responsible = options_.self.node, .term = own->term};
  }
  const std::optional<DirectoryTree::Found> here = tree_.Peek(first);
  if (here && here->entry && IsHere(here->entry->responsible)) co_return *here->entry;
  const absl::StatusOr<DirectoryTree::Found> found = co_await tree_.Find(first, deadline);
  if (!found.ok()) co_return found.status();
  if (found->entry && IsHere(found->entry->responsible)) co_return *found->entry;
  const absl::StatusOr<std::vector<DirectoryEntry>> entries = co_await AppointSelf({first, kSegmentPages}, deadline);
  if (!entries.ok()) co_return entries.status();
  if (entries->empty()) co_return absl::UnavailableError("the directory changes too fast; try again");
  co_return entries->front();
}

// Makes this node responsible for the segments of `range` that nobody is responsible for, or a node that is gone. Returns who is
// for which.
Task<absl::StatusOr<std::vector<DirectoryEntry>>> PageEngine::AppointSelf(PageRange range, TimeNs deadline) {
  auto written = [this](const DirectoryEntry& entry, const DirectoryOrder& order) {
    // Behind the first term others may hold pages.
    Own({.range = entry.range, .term = entry.term, .virgin = entry.term == 1 || options_.bugs->take_over_unasked});
    next_txn_ = std::max(next_txn_, order.txn);
    grant_epoch_ = std::max(grant_epoch_, Epoch(order.epoch));
  };
  co_return co_await tree_.Appoint(range, options_.self.node, std::move(written), deadline);
}

// --- What this node is asked --------------------------------------------------------------------------------------------

// A message for a responsible node, which this node does not know to be.
void PageEngine::Unsure(const Message& message, NodeInstance from) {
  const PageId first = SegmentStart(message.page);
  auto& waiting = unsure_[first];
  if (waiting.size() < kMaxUnsure) waiting.emplace_back(message, from);
  if (waiting.size() > 1) return;
  Spawn<absl::Status>(Confirm(first), [this, first, alive = alive_](const absl::Status& status) {
    if (!*alive) return;
    Turn turn(this);
    const std::vector<std::pair<Message, NodeInstance>> messages = std::move(unsure_[first]);
    unsure_.erase(first);
    if (!status.ok()) return;  // They come again.
    for (const auto& [asked, asker] : messages) {
      IsResponsibleFor(first) ? Dispatch(asked, asker) : AnswerNotResponsible(asked, asker);
    }
  });
}

// Whether the directory names this node, which has started since: then it takes over what its predecessor was responsible
// for, a whole run at once.
Task<absl::Status> PageEngine::Confirm(PageId first) {
  const TimeNs deadline = clock_->Now() + kWalkTimeout;
  while (!IsResponsibleFor(first)) {
    const uint64_t rounds = rounds_of_claims_.rounds();
    const uint64_t dropped = segments_dropped_;
    const absl::StatusOr<DirectoryTree::Found> found = co_await tree_.Find(first, deadline);
    if (stopped_) co_return absl::UnavailableError("shutting down");
    if (!found.ok()) co_return found.status();
    // What was read may be of a page that is not part of the directory any more, or from before the segment went away.
    if (rounds_of_claims_.About(first, rounds) != 0 || dropped != segments_dropped_) continue;
    if (!found->entry || found->entry->responsible != options_.self.node) break;
    const DirectoryEntry& entry = *found->entry;
    PageId page = entry.range.first;
    while (page < entry.range.end()) {  // But for what is known already.
      if (const OwnSegments::Run* own = own_.Find(page)) {
        page = own->range.end();
        continue;
      }
      PageId end = entry.range.end();
      own_.ForEach(page, end, [&](const OwnSegments::Run& own) { end = std::min(end, own.range.first); });
      Own({.range = {page, end - page}, .term = entry.term, .virgin = false});
      page = end;
    }
  }
  co_return absl::OkStatus();
}

// Of every segment of the range.
Task<absl::Status> PageEngine::ConfirmRange(PageRange range) {
  PageId page = SegmentStart(range.first);
  while (page < range.end()) {
    const OwnSegments::Run* own = own_.Find(page);
    if (own == nullptr) {
      const absl::Status status = co_await Confirm(page);
      if (!status.ok()) co_return status;
      own = own_.Find(page);
      if (own == nullptr) co_return absl::AbortedError("not responsible");
    }
    page = own->range.end();
  }
  co_return absl::OkStatus();
}

void PageEngine::AnswerNotResponsible(const Message& message, NodeInstance from) {
  const absl::Status not_here = absl::AbortedError(
      absl::StrCat(ToString(options_.self.node), " is not responsible for ", ToString(message.page)));
  Message answer;
  answer.page = message.page;
  answer.count = message.count;
  answer.request = message.request;
  if (message.kind == MessageKind::kFlush || message.kind == MessageKind::kDropCopies) {
    answer.kind = message.kind == MessageKind::kFlush ? MessageKind::kFlushed : MessageKind::kDone;
    answer.SetStatus(not_here);
    Post(from.node, answer);
  }
  Message news;
  news.kind = MessageKind::kNotResponsible;
  news.page = SegmentStart(message.page);
  Post(from.node, std::move(news));
}

// As the one that asked the wrong node: what waits for it is asked for again where it belongs.
void PageEngine::NotResponsible(const Message& message, NodeInstance from) {
  const PageId first = SegmentStart(message.page);
  const auto it = locations_.find(first);
  if (IsFixed(first) || it == locations_.end() || it->second.node != from.node) return;
  it->second.stale = true;
  if (std::exchange(it->second.searched, true)) return;
  Spawn<absl::Status>(Locate(first, clock_->Now() + kWalkTimeout),
                      [this, first, alive = alive_](const absl::Status& s) {
                        if (!*alive) return;
                        const auto location = locations_.find(first);
                        if (location != locations_.end()) location->second.searched = false;
                        if (s.ok()) AskAgain(first);
                      });
}

// Whoever is responsible for the segment now, for what waits for one of its pages.
void PageEngine::AskAgain(PageId first) {
  Turn turn(this);
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    CachedPage* cached = FindCached(first + i);
    if (cached == nullptr || !cached->entry.IsWaiting()) continue;
    cached->sent_at = clock_->Now();
    Post(ResponsibleFor(first), OutstandingRequest(cached->entry, first + i));
  }
}

}  // namespace mangrove
