// One step of the responsible node's machine in progress. Private to responsible_*.cc: what a request does is in
// responsible_access.cc, what the loss of a node does in responsible_recovery.cc, the table in responsible_table.cc.

#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "directory/responsible_machine.h"

namespace mangrove::home {

using A = HomeAction;
using E = HomeEvent;
using K = MessageKind;
using S = HomeState;

template <typename C>
bool Has(const C& nodes, NodeInstance node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

template <typename C>
bool Erase(C& nodes, NodeInstance node) {
  const auto it = std::find(nodes.begin(), nodes.end(), node);
  if (it == nodes.end()) return false;
  nodes.erase(it);
  return true;
}

template <typename C, typename P>
size_t EraseIf(C& all, P wanted) {
  const auto end = std::remove_if(all.begin(), all.end(), wanted);
  const auto erased = static_cast<size_t>(all.end() - end);
  all.erase(end, all.end());
  return erased;
}

inline bool IsGone(NodeInstance node, NodeInstance alive) {
  return node.node == alive.node && node.incarnation < alive.incarnation;
}

// One step in progress.
class Step {
 public:
  Step(HomeEntry& entry, const HomeContext& context, std::vector<HomeEffect>& effects)
      : e_(entry), w_(TakeWork(entry, context)), context_(context), effects_(effects) {}

  void Run(HomeEvent event);
  void PutWorkAway();  // Last of all.
  // Of a sharer, which takes itself for the owner: its appointment was given up, since it was away.
  void TakeFromSharer();

  // Inputs of the event, as far as it has them.
  const Message* message = nullptr;
  NodeInstance from;  // Sender, or the incarnation that is alive.
  RequestId discard;
  ConfigNumber discard_at_most;
  const LoadedPage* loaded = nullptr;
  absl::Status load_status;

 private:
  void RunAnswer(HomeAction action);
  HomeRequest Incoming(HomeEvent event) const;
  void Enqueue(HomeEvent event);
  void Unqueue();
  void Serve();
  void Start(HomeRequest request);
  void StartAccess(HomeRequest request);
  void FindAgain(const HomeRequest& request);
  bool Appoint(const HomeRequest& request);
  void StartFlush(const HomeRequest& request);
  void StartEvict(const HomeRequest& request);
  void StartDiscard(const HomeRequest& request);
  void Load();
  void Loaded();
  void LoadFailed();
  void Invalidate(bool retain_at_source);
  void Progress();
  void CountAck();
  void Complete();
  void Abort();
  void Evicted();
  void NotHeld();
  void Recover(bool lost);
  void CountReport();
  const HolderReport& Best() const;
  bool MayBeOld(const HolderReport& best) const;
  void Decide();
  void Resolve(const LoadedPage* rival);
  void CountResolve();
  void ForgetPeer();
  void ForgetPeerOfGrant();
  void AnswerRetained();
  void ForgetKeeper(NodeInstance node, Txn txn);
  void SendAgain();
  void Adopt();
  void OwnerIsGone();

  void Begin(HomeState state, const HomeRequest& request);
  void End();
  void FinishDiscard();
  void Send(NodeId to, Message m) {
    effects_.push_back({.kind = HomeEffect::Kind::kSend, .to = to, .message = std::move(m), .request = {}});
  }
  void Effect(HomeEffect::Kind kind, RequestId request = {}) {
    Message m;
    m.page = context_.page;
    effects_.push_back({.kind = kind, .to = {}, .message = std::move(m), .request = request});
  }
  Message Make(K kind) const;
  void SendForward();
  void SendInvalidate(NodeInstance to);
  void SendGrant();
  void SendReport(NodeInstance to);
  void SendResolve(const HolderReport& report);
  void Fail(const HomeRequest& request, const absl::Status& status);
  std::vector<NodeInstance> Candidates() const;
  HomeTransaction& t() { return *w_.txn; }
  bool IsUp(NodeInstance node) const {
    return context_.up == nullptr || node.node == context_.self.node || context_.up->contains(node.node);
  }
  void AddSharer(NodeInstance node);
  void DropSharer(NodeInstance node);
  static HomeWork& TakeWork(HomeEntry& entry, const HomeContext& context);

  HomeEntry& e_;
  HomeWork& w_;  // Of e_.
  const HomeContext& context_;
  std::vector<HomeEffect>& effects_;
  uint64_t begun_ = 0;
};

// The event that a message of this kind is, if the responsible node receives it.
std::optional<HomeEvent> EventOf(MessageKind kind);

}  // namespace mangrove::home
