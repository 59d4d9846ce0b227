// Who can be reached, and what a new disk learns: when this node starts with an empty one, every other member tells which extents
// it should keep.

#include <algorithm>
#include <utility>

#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

// Written when this disk knows every range that it is to keep.
constexpr char kCompleteKey[] = "engine/complete";
// Extents travel in parts, so that they fit whatever bounds a connection has.
constexpr uint64_t kExtentsAtOnce = 256;

}  // namespace

void PageEngine::Open(absl::AnyInvocable<void(absl::Status)> done) {
  auto with_records = [this, done = std::move(done), alive = alive_](auto records) mutable {
    if (!*alive) return;
    if (!records.ok()) return done(records.status());
    disk_incomplete_ = records->empty();
    core_.Open([this, done = std::move(done), alive](absl::Status opened) mutable {
      if (!*alive) return;
      if (!opened.ok()) return done(opened);
      for (NodeId node : options_.members) {
        if (disk_incomplete_ && node != options_.self.node) learning_[node] = {};
      }
      if (learning_.empty()) NoteComplete();
      ArmTick();
      done(absl::OkStatus());
    });
  };
  store_->ReadRecords(kCompleteKey, std::move(with_records));
}

// Versions granted from now on beat every earlier one of a page, also those that this node has never heard of.
void PageEngine::BumpGrantEpoch() { ++grant_epoch_.value; }

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
  connected_[peer.node] = peer.incarnation;
  if (!view_.Has(peer)) return;
  Turn turn(this);
  PeerIsUp(peer);
}

// A member of the view can be reached.
void PageEngine::PeerIsUp(NodeInstance peer) {
  up_.insert(peer.node);
  peer_eviction_.OnPeerUp(peer.node);
  ArmTick();
  if (const auto learning = learning_.find(peer.node); learning != learning_.end()) {
    learning->second.first.ask_at = 0;
  }
  for (PageId first : joining_) {
    const auto joining = segments_.at(first)->joining.find(peer.node);
    if (joining != segments_.at(first)->joining.end()) joining->second = {};
  }
  TellKeepers(peer);
}

// What it was told on a connection that broke, or what it answered, may be lost.
void PageEngine::TellKeepers(NodeInstance peer) {
  std::vector<std::pair<PageId, Txn>> done;
  for (const auto& [page, entry] : homes_) {
    for (const Keeper& keeper : entry->Work().keepers) {
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
  if (const auto it = connected_.find(peer.node); it != connected_.end() && it->second == peer.incarnation) {
    connected_.erase(it);
  }
  if (IsCurrent(peer) && up_.erase(peer.node) > 0) peer_eviction_.OnPeerDown(peer.node);
  LogDebug(ToString(peer), " is away: ", reason.message());
}

std::vector<NodeId> PageEngine::Unregistered() const {
  std::set<NodeId> nodes;
  for (const auto& [node, registration] : learning_) nodes.insert(node);
  if (!nodes.empty()) return {nodes.begin(), nodes.end()};  // Nobody else was asked yet.
  for (PageId first : joining_) {
    for (const auto& [node, registration] : segments_.at(first)->joining) {
      if (node != options_.self.node) nodes.insert(node);
    }
  }
  return {nodes.begin(), nodes.end()};
}

// Asks each member for the next part of the extents that this disk should keep, again if it has not come.
void PageEngine::AskForExtents() {
  const TimeNs now = clock_->Now();
  for (auto& [node, learning] : learning_) {
    auto& [registration, next] = learning;
    if (!up_.contains(node) || registration.ask_at > now) continue;
    registration.wait = std::min(std::max<DurationNs>(2 * registration.wait, 5 * options_.resend_after), 2 * kSecond);
    registration.ask_at = now + registration.wait;
    registration.round = NextRequest();
    registration.parts.clear();
    Message ask;
    ask.kind = MessageKind::kRegisterRequest;
    ask.request = registration.round;
    ask.page = next;
    ask.with_data = true;
    Post(node, std::move(ask));
  }
}

// A core holder has lost its disk, or it is new: what was known to be on every disk may not be on that one. Whatever was
// on its way meanwhile, and says so, is not believed for as long as a message can be on its way.
void PageEngine::ForgetDisk(NodeId node) {
  ++disk_losses_;
  lost_disk_ = node;
  distrust_until_ = clock_->Now() + kMessageLifetime;
  core_.ForgetFresh();
  for (auto& [first, segment] : segments_) {
    segment->settled.reset();
    segment->fresh.reset();
  }
  for (const auto& [page, entry] : homes_) entry->clean = false;
  for (const auto& [page, cached] : cache_) {
    CacheEntry& e = cached->entry;
    const std::vector<NodeId> holders = CoreHoldersOf(page, e.replicas);
    if (std::find(holders.begin(), holders.end(), node) != holders.end()) ForgetFlushed(e);
  }
}

// The extents of which the asking node is a core holder.
void PageEngine::SendExtents(const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;
  Message end;
  end.kind = MessageKind::kRegisterEnd;
  end.request = message.request;
  end.count = 0;
  for (const auto& [first, extent] : core_.extents()) {
    if (extent.range.first < message.page || TouchesSystemPages(extent.range)) continue;
    const std::vector<NodeId> holders = locator_->CoreHolders(extent.range, std::max<uint32_t>(extent.replicas, 1));
    if (std::find(holders.begin(), holders.end(), from.node) == holders.end()) continue;
    if (end.count == kExtentsAtOnce) {
      end.page = extent.range.first;
      break;
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
  // Also where no extent of that node is kept: pages that are here, or come, may be said to be on its disk. At the first
  // start of all there is nothing to forget.
  lost_disks_[from.node] = from.incarnation;
  const bool may_matter =
      end.count > 0 || !cache_.empty() || !homes_.empty() || !segments_.empty() || returned_.contains(from.node);
  if (may_matter && message.page == PageId{}) ForgetDisk(from.node);
  Post(from.node, std::move(end));
}

void PageEngine::CountExtents(const Message& message, NodeInstance from) {
  const auto it = learning_.find(from.node);
  if (it == learning_.end() || it->second.first.round != message.request || !IsCurrent(from)) return;
  Registration& registration = it->second.first;
  if (message.kind == MessageKind::kRegister) {
    if (registration.parts.size() == kExtentsAtOnce && !registration.parts.contains(message.page)) {
      return RefuseMessage(message, from.node);
    }
    registration.parts[message.page] = message;
    return;
  }
  if (registration.parts.size() != message.count) return;  // Some are late or lost: asked again.
  LearnExtents(message, from);
}

// This disk was lost, or is new: it keeps what the other core holders say that it should.
void PageEngine::LearnExtents(const Message& end, NodeInstance from) {
  Registration& registration = learning_.at(from.node).first;
  auto left = std::make_shared<size_t>(registration.parts.size() + 1);
  auto kept = [this, left, from, round = registration.round, next = end.page, alive = alive_](const Message& answer) {
    const bool kept_or_known =
        answer.code == absl::StatusCode::kOk || answer.code == absl::StatusCode::kFailedPrecondition;
    if (!*alive || !kept_or_known || --*left > 0) return;  // Otherwise it is asked for again.
    const auto it = learning_.find(from.node);
    if (it == learning_.end() || it->second.first.round != round) return;
    Turn turn(this);
    NextExtents(from.node, next);
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

void PageEngine::NextExtents(NodeId node, PageId next) {
  if (next != PageId{}) {
    learning_[node] = {{}, next};
  } else {
    learning_.erase(node);
  }
  if (learning_.empty()) NoteComplete();
  AskForExtents();
  AskForHoldings();
}

void PageEngine::NoteComplete() {
  if (!disk_incomplete_) return;
  StoreBatch batch;
  batch.records.push_back({kCompleteKey, std::to_string(options_.self.incarnation.value)});
  store_->Commit(std::move(batch), [](absl::Status) {});  // If it fails, the next start asks again.
  disk_incomplete_ = false;
}

}  // namespace mangrove
