// What happens when a node starts anew.
//
// When this node starts, every other member tells what it holds of the pages that this node is responsible for; nothing
// of them is served before all have. When another node starts anew, its predecessor is gone for ever: what it held and
// asked for is forgotten, what it owned is recovered; and what it was responsible for is registered with it.

#include <algorithm>
#include <utility>

#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

// Written when this disk knows every range that it is to keep.
constexpr char kCompleteKey[] = "engine/complete";
// A registration travels in parts, so that it fits whatever bounds a connection has.
constexpr uint64_t kRegistersAtOnce = 256;
// Grant epochs of one incarnation: one is used up with each loss of a node, and with each page that is completed while a core
// holder of it is away.
constexpr int kGrantEpochBits = 32;

}  // namespace

void PageEngine::Open(absl::AnyInvocable<void(absl::Status)> done) {
  grant_epoch_ = Epoch(options_.self.incarnation.value << kGrantEpochBits);
  last_loss_ = grant_epoch_;
  auto with_records = [this, done = std::move(done), alive = alive_](auto records) mutable {
    if (!*alive) return;
    if (!records.ok()) return done(records.status());
    disk_incomplete_ = records->empty();
    core_.Open([this, done = std::move(done), alive](absl::Status opened) mutable {
      if (!*alive) return;
      if (!opened.ok()) return done(opened);
      for (auto& [node, registration] : registering_) registration.extents = disk_incomplete_;
      if (registering_.empty()) BecomeReady();
      ArmTick();
      done(opened);
    });
  };
  store_->ReadRecords(kCompleteKey, std::move(with_records));
}

// Versions granted from now on beat every earlier one of a page, also those that this node has never heard of: they are
// in a later epoch, and a later incarnation's are later still.
void PageEngine::BumpGrantEpoch() {
  ++grant_epoch_.value;
  CHECK(grant_epoch_.value >> kGrantEpochBits == options_.self.incarnation.value);
}

std::vector<PageId> PageEngine::SortedPages(absl::FunctionRef<bool(PageId)> wanted) const {
  std::vector<PageId> pages;
  for (const auto& [page, cached] : cache_) {
    if (wanted(page)) pages.push_back(page);
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

void PageEngine::OnPeerUp(NodeInstance peer) {
  if (stopped_) return;
  Turn turn(this);
  up_.insert(peer.node);
  ArmTick();
  const auto registering = registering_.find(peer.node);
  if (registering != registering_.end()) registering->second.ask_at = 0;
  Incarnation& known = known_[peer.node];
  const Incarnation before = known;
  if (peer.incarnation == before) TellKeepers(peer);
  if (peer.incarnation <= before) return;
  known = peer.incarnation;
  if (registering != registering_.end()) registering->second = {.extents = disk_incomplete_};
  if (before.value == 0) return;
  returned_.insert(peer.node);
  if (options_.bugs && options_.bugs->forget_incarnation) return;

  BumpGrantEpoch();
  last_loss_ = grant_epoch_;
  std::vector<PageId> homes;
  for (const auto& [page, entry] : homes_) homes.push_back(page);
  std::sort(homes.begin(), homes.end());
  for (PageId page : homes) {
    std::vector<HomeEffect> effects;
    StepHomePeerLost(Home(page), peer, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
  const auto of_peer = [&](PageId page) { return locator_->Responsible(page) == peer.node; };
  for (PageId page : SortedPages(of_peer)) {
    WithPage(page, [this, page](CachedPage& cached) { ForgetResponsible(cached.entry, ContextOf(page)); });
  }
  if (event_sink_) {
    event_sink_({.kind = RegionEvent::Kind::kMaybeReverted, .range = {PageId{}, 0}});
  }
}

// What it was told on a connection that broke, or what it answered, may be lost.
void PageEngine::TellKeepers(NodeInstance peer) {
  std::vector<std::pair<PageId, Txn>> done;
  for (const auto& [page, entry] : homes_) {
    for (const Keeper& keeper : entry->keepers) {
      if (keeper.node == peer) done.emplace_back(page, keeper.txn);
    }
  }
  std::sort(done.begin(), done.end());
  for (const auto& [page, txn] : done) {
    Message message;
    message.kind = MessageKind::kTransferDone;
    message.page = page;
    message.txn = txn;
    Post(peer.node, std::move(message));
  }
}

void PageEngine::OnPeerDown(NodeInstance peer, const absl::Status& reason) {
  if (IsCurrent(peer)) up_.erase(peer.node);
  LogDebug(ToString(peer), " is away: ", reason.message());
}

std::vector<NodeId> PageEngine::Unregistered() const {
  std::vector<NodeId> nodes;
  for (const auto& [node, registration] : registering_) nodes.push_back(node);
  return nodes;
}

// Asks each member for the next part of what it has to register, again if it has not come.
void PageEngine::AskForRegistrations() {
  for (auto& [node, registration] : registering_) {
    if (up_.contains(node) && registration.ask_at <= clock_->Now()) AskForRegistration(node, registration);
  }
}

void PageEngine::AskForRegistration(NodeId node, Registration& registration) {
  registration.wait = std::min(std::max<DurationNs>(2 * registration.wait, 5 * options_.resend_after), 2 * kSecond);
  registration.ask_at = clock_->Now() + registration.wait;
  registration.round = NextRequest();
  registration.parts.clear();
  Message ask;
  ask.kind = MessageKind::kRegisterRequest;
  ask.request = registration.round;
  ask.page = registration.next;
  ask.with_data = registration.extents;
  Post(node, std::move(ask));
}

// As the one that is asked: the pages, or extents, from message.page on.
void PageEngine::SendRegistrations(const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;
  Message end;
  end.kind = MessageKind::kRegisterEnd;
  end.request = message.request;
  end.count = 0;
  if (message.with_data) {
    SendExtents(message, from, end);
    // Also where no extent of that node is kept: pages that are here, or come, may be said to be on its disk. At the first
    // start of all there is nothing to forget.
    const bool may_matter =
        end.count > 0 || !cache_.empty() || !homes_.empty() || !settled_.empty() || returned_.contains(from.node);
    if (may_matter && message.page == PageId{}) ForgetDisk(from.node);
  } else {
    const auto wanted = [&](PageId page) { return message.page <= page && locator_->Responsible(page) == from.node; };
    const std::vector<PageId> pages = SortedPages(wanted);
    // A page whose copy is being taken away is nothing any more for its machine, but may still be read here. Then this
    // is not the moment; the question comes again.
    if (std::any_of(pages.begin(), pages.end(), [&](PageId p) { return FindCached(p)->carrying; })) return;
    for (PageId page : pages) {
      const CacheEntry& entry = Cached(page).entry;
      if (HoldingOf(entry) == Holding::kNone) continue;
      if (end.count == kRegistersAtOnce) {
        end.page = page;
        break;
      }
      Message report;
      report.kind = MessageKind::kRegister;
      report.request = message.request;
      report.page = page;
      report.holding = HoldingOf(entry);
      report.version = HeldVersion(entry);
      report.config = entry.config;
      Post(from.node, std::move(report));
      ++end.count;
    }
  }
  Post(from.node, std::move(end));
}

// A core holder has lost its disk, or it is new: what was known to be on every disk may not be on that one. Whatever was
// on its way meanwhile, and says so, is not believed for as long as a message can be on its way.
void PageEngine::ForgetDisk(NodeId node) {
  ++disk_losses_;
  lost_disk_ = node;
  distrust_until_ = clock_->Now() + kMessageLifetime;
  core_.ForgetFresh();
  settled_.clear();
  for (const auto& [page, entry] : homes_) entry->clean = false;
  for (const auto& [page, cached] : cache_) {
    CacheEntry& e = cached->entry;
    const std::vector<NodeId> holders = CoreHoldersOf(page, e.replicas);
    if (std::find(holders.begin(), holders.end(), node) != holders.end()) ForgetFlushed(e);
  }
}

// The extents of which the asking node is a core holder.
void PageEngine::SendExtents(const Message& message, NodeInstance from, Message& end) {
  for (const auto& [first, extent] : core_.extents()) {
    if (extent.range.first < message.page || TouchesSystemPages(extent.range)) continue;
    const std::vector<NodeId> holders = locator_->CoreHolders(extent.range, std::max<uint32_t>(extent.replicas, 1));
    if (std::find(holders.begin(), holders.end(), from.node) == holders.end()) continue;
    if (end.count == kRegistersAtOnce) {
      end.page = extent.range.first;
      return;
    }
    Message report;
    report.kind = MessageKind::kRegister;
    report.request = message.request;
    report.page = extent.range.first;
    report.count = extent.range.count;
    report.config = extent.config;
    report.replicas = extent.replicas;
    report.is_volatile = extent.is_volatile;
    Post(from.node, std::move(report));
    ++end.count;
  }
}

void PageEngine::Registrations(const Message& message, NodeInstance from) {
  const auto it = registering_.find(from.node);
  if (it == registering_.end() || it->second.round != message.request || !IsCurrent(from)) return;
  Registration& registration = it->second;
  if (message.kind == MessageKind::kRegister) {
    if (registration.parts.size() == kRegistersAtOnce && !registration.parts.contains(message.page)) {
      return RefuseMessage(message, from.node);
    }
    registration.parts[message.page] = message;
    return;
  }
  if (registration.parts.size() != message.count) return;  // Some are late or lost: asked again.
  if (registration.extents) {
    LearnExtents(message, from);
    return;
  }
  for (const auto& [page, part] : registration.parts) {
    if (locator_->Responsible(page) != options_.self.node) continue;
    Register(Home(page), {.node = from, .holding = part.holding, .version = part.version, .config = part.config});
  }
  NextPart(from.node, message.page);
}

// This disk was lost, or is new: it keeps what the other core holders say that it should.
void PageEngine::LearnExtents(const Message& end, NodeInstance from) {
  Registration& registration = registering_.at(from.node);
  auto left = std::make_shared<size_t>(registration.parts.size() + 1);
  auto kept = [this, left, from, round = registration.round, next = end.page, alive = alive_](const Message& answer) {
    const bool kept_or_known =
        answer.code == absl::StatusCode::kOk || answer.code == absl::StatusCode::kFailedPrecondition;
    if (!*alive || !kept_or_known || --*left > 0) return;  // Otherwise it is asked for again.
    const auto it = registering_.find(from.node);
    if (it == registering_.end() || it->second.round != round) return;
    Turn turn(this);
    NextPart(from.node, next);
  };
  const std::map<PageId, Message> parts = std::move(registration.parts);
  registration.parts.clear();
  for (const auto& [page, part] : parts) {
    Message put = part;
    put.kind = MessageKind::kPutExtent;
    put.complete = true;
    core_.Handle(put, kept);
  }
  kept(end);
}

void PageEngine::NextPart(NodeId node, PageId next) {
  Registration& registration = registering_.at(node);
  registration.wait = 0;
  registration.next = next;
  if (next != PageId{} || registration.extents) {
    if (next == PageId{}) registration.extents = false;  // The pages follow.
    AskForRegistration(node, registration);
    return;
  }
  registering_.erase(node);
  if (registering_.empty()) BecomeReady();
}

void PageEngine::BecomeReady() {
  if (disk_incomplete_) {
    StoreBatch batch;
    batch.records.push_back({kCompleteKey, std::to_string(options_.self.incarnation.value)});
    store_->Commit(std::move(batch), [](absl::Status) {});  // If it fails, the next start asks again.
    disk_incomplete_ = false;
  }
  std::vector<PageId> pages;
  for (const auto& [page, entry] : homes_) pages.push_back(page);
  std::sort(pages.begin(), pages.end());
  for (PageId page : pages) {
    std::vector<HomeEffect> effects;
    StepHomeReady(Home(page), HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

}  // namespace mangrove
