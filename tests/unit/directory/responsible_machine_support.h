// What the tests of the responsible node's machine share: a page's entry, who is who, and effects as text.

#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "directory/responsible_machine.h"

namespace mangrove::home_test {

using A = HomeAction;
using E = HomeEvent;
using S = HomeState;
using K = MessageKind;

constexpr PageId kPage{7};
constexpr NodeInstance kSelf{NodeId(1), Incarnation(1)};
constexpr NodeInstance kOwner{NodeId(2), Incarnation(1)};
constexpr NodeInstance kSharer{NodeId(3), Incarnation(1)};
constexpr NodeInstance kAsker{NodeId(4), Incarnation(1)};
constexpr NodeInstance kFarOff{NodeId(9), Incarnation(2)};
constexpr Txn kTxn{50};

inline HomeContext Context(TimeNs now = 1000) {
  return {.self = kSelf, .page = kPage, .now = now, .resend_after = 10, .grant_epoch = Epoch(3), .next_txn = Txn(100)};
}

inline NodeInstance Reborn(NodeInstance node) { return {node.node, Incarnation(node.incarnation.value + 1)}; }

inline Message About(K kind, Txn txn = kTxn) {
  Message m;
  m.kind = kind;
  m.page = kPage;
  m.txn = txn;
  return m;
}

inline Message Request(Access access, uint64_t number = 5, bool have = false) {
  Message m = About(K::kRequest, {});
  m.request = RequestId(number);
  m.access = access;
  m.have = have;
  return m;
}

inline std::string Text(const std::vector<HomeEffect>& effects) {
  std::string text;
  for (const HomeEffect& e : effects) {
    if (!text.empty()) text += ", ";
    switch (e.kind) {
      case HomeEffect::Kind::kSend:
        text += std::string(Name(e.message.kind)) + "->" + std::to_string(e.to.value);
        break;
      case HomeEffect::Kind::kLoad: text += e.version_only ? "LoadVersion" : e.recover ? "LoadRecover" : "Load"; break;
      case HomeEffect::Kind::kArmResend: text += "Arm"; break;
      case HomeEffect::Kind::kDiscarded: text += "Discarded"; break;
      case HomeEffect::Kind::kReverted: text += "Reverted"; break;
      case HomeEffect::Kind::kLost: text += "Lost"; break;
    }
  }
  return text;
}

// A home, and what its last step did.
struct Home {
  HomeEntry e;
  std::string did;
  std::optional<E> event;
  std::vector<HomeEffect> effects;
  uint64_t next_txn = 100;
  Epoch epoch{3};
  HomePool pool;
  std::set<NodeId> up;  // Empty: all are.

  HomeContext Next() {
    HomeContext context = Context();
    context.pool = &pool;
    context.up = up.empty() ? nullptr : &up;
    context.next_txn = Txn(next_txn);
    context.grant_epoch = epoch;
    next_txn += kTxnsPerStep;
    effects.clear();
    return context;
  }
  void Hear(const Message& m, NodeInstance from) {
    event = StepHomeMessage(e, m, from, Next(), effects);
    did = Text(effects);
  }
  // An answer of the current transaction.
  void Answer(K kind, NodeInstance from, Holding holding = Holding::kNone, Version version = {}) {
    Message m = About(kind, e.txn() ? e.txn()->id : Txn(1));
    m.holding = holding;
    m.version = version;
    m.config = ConfigNumber(1);
    Hear(m, from);
  }
  void Lose(NodeInstance node) {
    ++epoch.value;
    StepHomePeerLost(e, Reborn(node), Next(), effects);
    did = Text(effects);
  }
  void Load(Version version) {
    LoadedPage page{.version = version, .config = ConfigNumber(1), .replicas = 2, .data = nullptr};
    StepHomeLoaded(e, e.txn()->id, page, Next(), effects);
    did = Text(effects);
  }
  void LoadFails(const absl::Status& status) {
    StepHomeLoadFailed(e, e.txn()->id, status, Next(), effects);
    did = Text(effects);
  }
  void Resend() {
    HomeContext context = Next();
    context.now = 1000000;
    StepHomeResend(e, context, effects);
    did = Text(effects);
  }
  bool Shares(NodeInstance node) const {
    return std::find(e.sharers.begin(), e.sharers.end(), node) != e.sharers.end();
  }
};

}  // namespace mangrove::home_test
