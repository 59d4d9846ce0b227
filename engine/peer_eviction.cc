#include "engine/peer_eviction.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/disk_watch.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

// From the offer to the page's leaving: longer than any exchange takes where nobody is in trouble.
constexpr DurationNs kOfferTime = 40 * kMillisecond;
// A page that no peer took goes to disk; if it is used again first, it may be offered again.
constexpr DurationNs kOfferAgain = kSecond;
// Since it was used last. See P2.
constexpr uint32_t kMaxMoves = 2;

// What changes is told with the next message to each neighbour, or after the first; it is told again after the second.
constexpr DurationNs kTellAfter = 20 * kMillisecond;
// Who has just joined may not have its lease yet, and then hears nothing.
constexpr DurationNs kTellNewcomer = 300 * kMillisecond;
constexpr DurationNs kTellAgain = PeerRoom::kExpires / 3;
// That its disk is full, or has room again, all are told so soon: they refuse, or try, what would need it.
constexpr DurationNs kLookAtDisk = 200 * kMillisecond;
// So many who are no neighbours are told each time, so that what it costs a node does not grow with the cluster.
constexpr size_t kOthersAtOnce = kGroupNodes;

}  // namespace

// --- What nodes tell each other ----------------------------------------------------------------------------------------

NodeResources PeerEviction::Own() const {
  const uint64_t cache = engine_->options_.cache_pages;
  const uint64_t reserve = std::max<uint64_t>(1, cache / 16);
  const uint64_t used = engine_->charged_ + accepted_ + EvictionMargin(cache) + reserve;
  const StoreUsage usage = engine_->store_->Usage();
  const PageEngineOptions& options = engine_->options_;
  const uint64_t kept = options.keep_headroom ? HeadroomBytes(usage, engine_->view_.disks.size(), options.replicas) : 0;
  NodeResources own{.free_bytes = usage.free_bytes - std::min(usage.free_bytes, kept), .load = load_};
  if (IsOn() && !takes_none_ && used < cache) own.free_pages = cache - used;
  return own;
}

bool PeerEviction::HasDiskRoom(NodeId disk) const {
  const std::optional<NodeResources> its = disk == engine_->options_.self.node ? Own() : Of(disk);
  return !its || its->free_bytes >= engine_->options_.least_free_bytes;
}

std::optional<NodeResources> PeerEviction::Of(NodeId peer) const { return room_.Find(peer, engine_->clock_->Now()); }

void PeerEviction::OnCharge() {
  if (!IsOn()) return;
  const uint64_t worth_telling = std::max<uint64_t>(4, engine_->options_.cache_pages / 16);
  const uint64_t charged = engine_->charged_;
  const uint64_t change = charged > told_charged_ ? charged - told_charged_ : told_charged_ - charged;
  if (change < worth_telling) return;
  told_charged_ = charged;
  untold_.merge(Neighbours());
  TellAt(engine_->clock_->Now() + kTellAfter);
}

void PeerEviction::OnPeerUp(NodeId peer) {
  room_.Forget(peer);
  untold_.insert(peer);
  tell_again_at_ = engine_->clock_->Now() + kTellNewcomer;
  TellAt(engine_->clock_->Now() + kTellAfter);
}

void PeerEviction::OnPeerDown(NodeId peer) {
  room_.Forget(peer);
  untold_.erase(peer);
}

void PeerEviction::Stop() { engine_->clock_->Cancel(std::exchange(timer_, 0)); }

Task<absl::Status> PeerEviction::StopTaking(TimeNs deadline) {
  const std::shared_ptr<bool> alive = engine_->alive_;
  takes_none_ = true;
  untold_ = engine_->up_;
  TellAt(engine_->clock_->Now());
  const auto is_asked_for = [this](PageId page) {
    const CacheEntry& e = engine_->FindCached(page)->entry;
    return e.IsWaiting() && e.wanted == Access::kMove;
  };
  // A program may wait for one longer than the offer.
  while (takes_ + taking_.size() > 0 || !engine_->SortedPages(is_asked_for).empty()) {
    if (engine_->stopped_ || engine_->clock_->Now() >= deadline) break;
    co_await SleepUntil(engine_->clock_, engine_->clock_->Now() + kMillisecond);
    if (!*alive) co_return absl::UnavailableError("shutting down");  // Nobody ends this pause.
  }
  co_return absl::OkStatus();
}

std::set<NodeId> PeerEviction::Neighbours() const {
  const std::set<NodeId>& up = engine_->up_;
  if (up.size() < kGroupNodes) return up;
  const uint64_t group = GroupOf(engine_->options_.self.node);
  return {up.lower_bound(NodeId(group << kGroupBits)), up.lower_bound(NodeId((group + 1) << kGroupBits))};
}

std::set<NodeId> PeerEviction::NextToTell() {
  std::set<NodeId> next = Neighbours();
  const std::set<NodeId>& up = engine_->up_;
  const size_t most = std::min(next.size() + kOthersAtOnce, up.size());
  for (auto it = up.upper_bound(told_up_to_); next.size() < most; ++it) {
    if (it == up.end()) it = up.begin();
    next.insert(*it);
    told_up_to_ = *it;
  }
  return next;
}

void PeerEviction::TellAt(TimeNs at) {
  if (engine_->stopped_ || (timer_ != 0 && timer_at_ <= at)) return;
  engine_->clock_->Cancel(timer_);
  timer_at_ = at;
  timer_ = engine_->clock_->CallAt(at, [this, alive = engine_->alive_] {
    if (!*alive) return;
    timer_ = 0;
    Tell();
  });
}

void PeerEviction::Tell() {
  const TimeNs now = engine_->clock_->Now();
  if (HasDiskRoom(engine_->options_.self.node) != told_disk_room_) {
    told_disk_room_ = !told_disk_room_;
    untold_ = engine_->up_;
  }
  if (now >= tell_again_at_) {
    tell_again_at_ = now + kTellAgain;
    untold_.merge(NextToTell());
    const PageEngineCounters& c = engine_->counters_;
    const uint64_t count = c.read_requests + c.write_requests + c.pages_given;
    const uint64_t ms = static_cast<uint64_t>(std::max<DurationNs>((now - counted_at_) / kMillisecond, 1));
    load_ = static_cast<uint32_t>(std::min<uint64_t>((count - counted_) * 1000 / ms, UINT32_MAX));
    counted_ = count;
    counted_at_ = now;
  }
  PageEngine::Turn turn(engine_);
  while (!untold_.empty()) {
    const NodeId peer = *untold_.begin();
    engine_->Post(peer, NewsFor(peer));
  }
  if (!engine_->up_.empty()) TellAt(std::min(tell_again_at_, now + kLookAtDisk));
}

Message PeerEviction::NewsFor(NodeId peer) {
  untold_.erase(peer);
  const NodeResources own = Own();
  Message news;
  news.kind = MessageKind::kResources;
  news.count = own.free_pages;
  news.version.counter = own.free_bytes;
  news.replicas = own.load;
  return news;
}

void PeerEviction::HearResources(const Message& message, NodeInstance from) {
  if (!engine_->IsCurrent(from) || from == engine_->options_.self) return;
  // Who is no neighbour speaks once in so many rounds.
  const bool is_near = engine_->up_.size() < kGroupNodes || GroupOf(from.node) == GroupOf(engine_->options_.self.node);
  const auto rounds = static_cast<DurationNs>(is_near ? 1 : 1 + engine_->up_.size() / kOthersAtOnce);
  room_.Note(from.node, {.free_pages = message.count, .free_bytes = message.version.counter, .load = message.replicas},
             engine_->clock_->Now(), rounds * PeerRoom::kExpires);
}

// --- As the owner of what does not fit -----------------------------------------------------------------------------------

bool PeerEviction::IsOn() const { return engine_->options_.evict_to_peers && engine_->members_.size() > 1; }

bool PeerEviction::HasRoomyPeer() const {
  return IsOn() && room_.MostRoomNear(engine_->options_.self.node, engine_->clock_->Now()).value != 0;
}

bool PeerEviction::CanOffer(PageId page, const CacheEntry& entry) const {
  if (!entry.IsOwner() || IsRamDirectoryPage(page) || !HasRoomyPeer()) return false;
  if (MovesOf(page) >= kMaxMoves && entry.replicas > 0) return false;
  const auto it = offers_.find(page);
  return it == offers_.end() || it->second.again_at <= engine_->clock_->Now();
}

bool PeerEviction::IsOffered(PageId page) const {
  const auto it = offers_.find(page);
  return it != offers_.end() && it->second.until > engine_->clock_->Now();
}

size_t PeerEviction::Outstanding() {
  const TimeNs now = engine_->clock_->Now();
  size_t outstanding = 0;
  absl::erase_if(offers_, [&](auto& item) {
    auto& [page, offer] = item;
    const CachedPage* cached = engine_->FindCached(page);
    const bool ours = cached != nullptr && cached->entry.IsOwner();
    if (ours && offer.until > now) ++outstanding;
    if (ours && offer.until != 0 && offer.until <= now) {
      room_.Distrust(offer.to, now);
      offer.until = 0;
    }
    return !ours || offer.again_at <= now;
  });
  return outstanding;
}

void PeerEviction::Offer(std::vector<PageId> pages) {
  const TimeNs now = engine_->clock_->Now();
  std::sort(pages.begin(), pages.end());
  PageEngine::Turn turn(engine_);
  NodeId to;
  for (PageId page : pages) {
    const std::optional<NodeResources> its = room_.Find(to, now);
    if (!its || its->free_pages == 0) to = room_.MostRoomNear(engine_->options_.self.node, now);
    if (to.value == 0) return;  // They are evicted in another way, when their turn comes again.
    room_.Promise(to);
    offers_[page] = {.to = to, .until = now + kOfferTime, .again_at = now + kOfferTime + kOfferAgain};
    ++engine_->counters_.pages_offered;
    const NodeId responsible = engine_->ResponsibleFor(page);
    if (responsible.value != 0) {
      Post(responsible, page, {to, {}}, MovesOf(page), false);
    } else {
      Post(to, page, engine_->options_.self, MovesOf(page), true);
    }
  }
}

void PeerEviction::Post(NodeId to, PageId page, NodeInstance peer, uint32_t moves, bool routed) {
  Message offer;
  offer.kind = MessageKind::kOffer;
  offer.page = page;
  offer.peer = peer;
  offer.replicas = moves;
  offer.kept = routed;
  engine_->Post(to, std::move(offer));
}

void PeerEviction::OnForwarded(PageId page, bool moved) {
  const auto it = offers_.find(page);
  if (moved) {
    if (it != offers_.end()) {
      room_.Trust(it->second.to);
      offers_.erase(it);
    }
    ForgetGuest(page);
    ++engine_->counters_.pages_moved_out;
  } else if (it != offers_.end()) {
    it->second.until = 0;  // It was taken, and is used here again.
  }
}

void PeerEviction::HearDeclined(const Message& message, NodeInstance from) {
  const auto it = offers_.find(message.page);
  if (it == offers_.end() || it->second.until <= engine_->clock_->Now()) return;
  if (from.node != it->second.to) {  // A sharer, which has dropped its copy.
    Post(it->second.to, message.page, engine_->options_.self, MovesOf(message.page), true);
  } else {
    it->second.until = 0;
  }
}

// --- As the one with room, or as the page's responsible node -------------------------------------------------------------

void PeerEviction::HearOffer(const Message& message, NodeInstance from) {
  if (!engine_->IsCurrent(from) || IsRamDirectoryPage(message.page)) return;
  if (!message.kept) {
    const NodeId to = RouteOf(message.page, from.node, message.peer.node);
    Post(to, message.page, from, message.replicas, true);
    return;
  }
  const CachedPage* cached = engine_->FindCached(message.page);
  const bool is_under_way = cached != nullptr && (cached->entry.IsOwner() || cached->entry.IsWaiting());
  const bool is_here = cached != nullptr && cached->entry.HasRead();
  if (!IsOn() || takes_none_ || is_under_way || (!is_here && Own().free_pages == 0)) {
    Decline(message.page, message.peer.node);
    if (engine_->up_.contains(message.peer.node)) untold_.insert(message.peer.node);  // It goes along.
    return;
  }
  ++accepted_;
  taking_.push_back({.page = message.page,
                     .owner = message.peer.node,
                     .moves = message.replicas == UINT32_MAX ? message.replicas : message.replicas + 1});
  if (taking_.size() > 1) return;
  engine_->clock_->CallSoon([this, alive = engine_->alive_] {
    if (*alive) TakeAll();
  });
}

void PeerEviction::Decline(PageId page, NodeId owner) {
  Message declined;
  declined.kind = MessageKind::kDeclined;
  declined.page = page;
  engine_->Post(owner, std::move(declined));
}

NodeId PeerEviction::RouteOf(PageId page, NodeId offerer, NodeId chosen) const {
  const auto home = engine_->homes_.find(page);
  if (home == engine_->homes_.end()) return chosen;  // Or another node is responsible by now.
  for (const NodeInstance& sharer : home->second->sharers) {
    const bool is_up = sharer.node == engine_->options_.self.node || engine_->up_.contains(sharer.node);
    if (is_up && sharer.node != offerer) return sharer.node;
  }
  return chosen;
}

// Segment by segment, since one node is responsible for each.
void PeerEviction::TakeAll() {
  std::vector<Taking> all = std::exchange(taking_, {});
  std::sort(all.begin(), all.end(), [](const Taking& a, const Taking& b) { return a.page < b.page; });
  for (auto begin = all.begin(); begin != all.end();) {
    const PageId segment = SegmentStart(begin->page);
    const auto end = std::find_if(begin, all.end(), [&](const Taking& t) { return SegmentStart(t.page) != segment; });
    ++takes_;
    // What is not taken its owner keeps.
    Spawn<absl::Status>(Take({begin, end}), [this, alive = engine_->alive_](const absl::Status&) {
      if (*alive) --takes_;
    });
    begin = end;
  }
}

Task<absl::Status> PeerEviction::Take(std::vector<Taking> pages) {
  PageEngine& e = *engine_;
  const TimeNs deadline = e.clock_->Now() + kOfferTime;
  const PageId segment = SegmentStart(pages.front().page);
  absl::Status located;
  if (!e.IsLocated(segment)) {
    // Not by Locate: an offer makes nobody responsible.
    const absl::StatusOr<DirectoryTree::Found> found = co_await e.tree_.Find(segment, deadline);
    if (!found.ok()) {
      located = found.status();
    } else if (!found->entry || !e.IsMember(found->entry->responsible)) {
      located = absl::NotFoundError("nobody is responsible for the segment");
    } else {
      if (!e.IsLocated(segment)) e.NoteLocation(segment, found->entry->responsible, found->entry->term);
    }
  }
  accepted_ -= pages.size();
  if (!located.ok()) co_return located;
  const auto wait = std::make_shared<BlockWait>(Outcome<bool>(e.clock_));
  wait->ends_at_error = false;
  std::vector<Taking> guests;
  {
    PageEngine::Turn turn(engine_);
    for (const Taking& taking : pages) {
      CachedPage* cached = e.FindCached(taking.page);
      if (cached != nullptr && (cached->carrying || cached->entry.IsOwner() || cached->entry.IsWaiting())) {
        Decline(taking.page, taking.owner);
        continue;
      }
      const bool is_here = cached != nullptr && cached->entry.HasRead();
      if (!is_here && !e.HasRoom()) {
        Decline(taking.page, taking.owner);
        continue;
      }
      if (!is_here) guests.push_back(taking);
      ++wait->left;
      e.WorkOf(e.Cached(taking.page)).waiters.push_back({wait, taking.page, deadline, Rights::kRead, false});
      e.LocalEvent(taking.page, CacheEvent::kWantMove);
    }
  }
  if (--wait->left > 0) co_await wait->over.Get();
  for (const Taking& guest : guests) {
    const CachedPage* cached = e.FindCached(guest.page);
    if (cached != nullptr && cached->entry.IsOwner()) AddGuest(guest);
  }
  co_return absl::OkStatus();
}

void PeerEviction::AddGuest(const Taking& taking) {
  ForgetGuest(taking.page);
  ++engine_->counters_.pages_taken_in;
  guests_[taking.page] = {.number = next_guest_, .moves = taking.moves};
  guest_order_[next_guest_++] = taking.page;
  // Those that have left are forgotten when they are met, or else here.
  if (guests_.size() <= 2 * engine_->options_.cache_pages) return;
  for (PageId page : Guests(guests_.size())) {
    const CachedPage* cached = engine_->FindCached(page);
    if (cached == nullptr || !cached->charged) ForgetGuest(page);
  }
}

void PeerEviction::ForgetGuest(PageId page) {
  const auto it = guests_.find(page);
  if (it == guests_.end()) return;
  guest_order_.erase(it->second.number);
  guests_.erase(it);
}

std::vector<PageId> PeerEviction::Guests(size_t most) const {
  std::vector<PageId> pages;
  for (auto it = guest_order_.begin(); it != guest_order_.end() && pages.size() < most; ++it) {
    pages.push_back(it->second);
  }
  return pages;
}

uint32_t PeerEviction::MovesOf(PageId page) const {
  const auto it = guests_.find(page);
  return it == guests_.end() ? 0 : it->second.moves;
}

void PeerEviction::MoveInto(PageRange region, PageMemory* memory) {
  for (PageId page : memory_.PagesIn(region)) {
    const CachedPage* cached = engine_->FindCached(page);
    const Rights rights = cached->entry.HasWrite() ? Rights::kWrite : Rights::kRead;
    memory_.Take(page, true, [&](PageBuffer content) { memory->Install(page, content->bytes.data(), rights); });
  }
}

}  // namespace mangrove
