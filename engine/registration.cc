// What a node knows when it starts, and who can be reached.

#include <algorithm>
#include <utility>

#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

// Written when this disk has had all that it is to keep.
constexpr char kCompleteKey[] = "engine/complete";

}  // namespace

void PageEngine::Open(absl::AnyInvocable<void(absl::Status)> done) {
  auto with_records = [this, done = std::move(done), alive = alive_](auto records) mutable {
    if (!*alive) return;
    if (!records.ok()) return done(records.status());
    core_.Open([this, done = std::move(done), is_blank = records->empty(), alive](absl::Status opened) mutable {
      if (!*alive) return;
      if (opened.ok()) catch_up_.Open(is_blank);
      done(opened);
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
  for (PageId first : joining_) {
    for (const auto& [node, registration] : segments_.at(first)->joining) {
      if (node != options_.self.node) nodes.insert(node);
    }
  }
  return {nodes.begin(), nodes.end()};
}

// With the batch, in one commit.
void PageEngine::NoteComplete(StoreBatch batch, PageStore::CommitDone done) {
  batch.records.push_back({kCompleteKey, std::to_string(options_.self.incarnation.value)});
  store_->Commit(std::move(batch), std::move(done));
}

}  // namespace mangrove
