#include "directory/responsible_machine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mangrove {
namespace {

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

HomeContext Context(TimeNs now = 1000) {
  return {.self = kSelf, .page = kPage, .now = now, .resend_after = 10, .grant_epoch = Epoch(3), .next_txn = Txn(100)};
}

NodeInstance Reborn(NodeInstance node) { return {node.node, Incarnation(node.incarnation.value + 1)}; }

Message About(K kind, Txn txn = kTxn) {
  Message m;
  m.kind = kind;
  m.page = kPage;
  m.txn = txn;
  return m;
}

Message Request(Access access, uint64_t number = 5, bool have = false) {
  Message m = About(K::kRequest, {});
  m.request = RequestId(number);
  m.access = access;
  m.have = have;
  return m;
}

std::string Text(const std::vector<HomeEffect>& effects) {
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

  HomeContext Next() {
    HomeContext context = Context();
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
    Message m = About(kind, e.txn ? e.txn->id : Txn(1));
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
    StepHomeLoaded(e, e.txn->id, page, Next(), effects);
    did = Text(effects);
  }
  void LoadFails(const absl::Status& status) {
    StepHomeLoadFailed(e, e.txn->id, status, Next(), effects);
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

// --- The table --------------------------------------------------------------------------------------------------------

HomeEntry EntryIn(S state) {
  HomeEntry e;
  e.state = state;
  const bool owned = state == S::kOwned || state == S::kGranting || state == S::kEvicting || state == S::kDiscarding ||
                     state == S::kResolving;
  if (owned) e.owner = kOwner;
  if (state != S::kLost && state != S::kReporting) e.sharers = {kSharer};
  if (state == S::kUnowned || state == S::kOwned || state == S::kLost) return e;
  e.txn = std::make_unique<HomeTransaction>();
  HomeTransaction& t = *e.txn;
  t.id = kTxn;
  t.request = {.kind = HomeRequest::Kind::kAccess, .from = kAsker, .request = RequestId(4), .access = Access::kWrite};
  switch (state) {
    case S::kLoading: t.request.access = Access::kRead; break;
    case S::kGranting:
      t.source = kOwner;
      t.waiting = {kSharer};
      break;
    case S::kEvicting:
      t.request = {.kind = HomeRequest::Kind::kEvict, .from = kOwner, .request = {}};
      t.waiting = {kOwner};
      break;
    case S::kDiscarding:
      t.request = {.kind = HomeRequest::Kind::kDiscard, .from = kSelf, .request = RequestId(4)};
      t.waiting = {kOwner, kSharer};
      break;
    default:
      t.request = {.kind = HomeRequest::Kind::kEvict, .from = {}, .request = {}};
      t.waiting = {kOwner, kSharer};
      if (state == S::kResolving) {
        t.reports = {{.node = kOwner, .holding = Holding::kOwner, .version = {}},
                     {.node = kSharer, .holding = Holding::kShared, .version = {}}};
      }
  }
  return e;
}

// Who sends the message of the column, such that rule H1 lets it pass if any sender can.
NodeInstance SenderOf(S state, E event) {
  switch (event) {
    case E::kInvalidateAck: return kSharer;
    case E::kGrantAck:
    case E::kGrantRefused:
    case E::kRequest:
    case E::kCancel:
    case E::kFlush: return kAsker;
    case E::kReported:
    case E::kResolveAck: return state == S::kGranting ? kSharer : kOwner;
    case E::kEvictAck: return state == S::kGranting ? kSharer : kOwner;
    default: return kOwner;
  }
}

std::optional<K> KindOf(E event) {
  switch (event) {
    case E::kRequest: return K::kRequest;
    case E::kCancel: return K::kCancel;
    case E::kFlush: return K::kFlush;
    case E::kEvictRequest: return K::kEvictRequest;
    case E::kInvalidateAck: return K::kInvalidateAck;
    case E::kGrantAck: return K::kGrantAck;
    case E::kGrantRefused: return K::kGrantRefused;
    case E::kNotHeld: return K::kNotHeld;
    case E::kStillRetained: return K::kStillRetained;
    case E::kEvictAck: return K::kEvictAck;
    case E::kReported: return K::kReported;
    case E::kResolveAck: return K::kResolveAck;
    default: return std::nullopt;
  }
}

struct Outcome {
  S state;
  std::string effects;
};

Outcome ExpectedOfServe(S s, E event) {
  const bool owned = s == S::kOwned;
  switch (event) {
    case E::kRequest:
      return owned ? Outcome{S::kGranting, "Arm, Forward->2"} : Outcome{S::kLoading, "Arm, LoadRecover"};
    case E::kFlush: return owned ? Outcome{s, "Flush->2"} : Outcome{S::kLoading, "Arm, LoadRecover"};
    case E::kEvictRequest: return {S::kEvicting, "Arm, EvictGrant->2"};
    default: return {S::kDiscarding, owned ? "Arm, Invalidate->3, Invalidate->2" : "Arm, Invalidate->3"};
  }
}

Outcome ExpectedOfSendAgain(S s) {
  switch (s) {
    case S::kGranting: return {s, "Arm, Invalidate->3, Forward->2"};
    case S::kEvicting: return {s, "Arm, EvictGrant->2"};
    case S::kDiscarding: return {s, "Arm, Invalidate->2, Invalidate->3"};
    case S::kReporting: return {s, "Arm, Report->2, Report->3"};
    case S::kResolving: return {s, "Arm, Resolve->2, Resolve->3"};
    default: return {s, "Arm"};
  }
}

Outcome Expected(A action, S s, E event) {
  switch (action) {
    case A::kIgnore:
    case A::kEnqueue:
    case A::kUnqueue:
    case A::kForgetPeer:  // Of a node that has nothing to do with the page.
    case A::kAdopt:       // Of nothing.
    case A::kCountReport:
    case A::kCountResolve: return {s, ""};
    case A::kServe: return ExpectedOfServe(s, event);
    case A::kRefuseLost:
      return event == E::kRequest ? Outcome{s, "RequestFailed->4"}
             : event == E::kFlush ? Outcome{s, "Flushed->4"}
                                  : Outcome{S::kUnowned, "Arm, Discarded"};
    case A::kLoaded: return {S::kGranting, "Grant->4"};
    case A::kLoadFailed: return {S::kUnowned, "RequestFailed->4"};
    case A::kCountAck: return {s, s == S::kGranting ? "Activate->4" : ""};
    case A::kComplete: return {S::kOwned, "TransferDone->2"};
    case A::kAbort: return {S::kOwned, "TransferAborted->2"};
    case A::kRecover:
      return {S::kReporting, s == S::kGranting ? "Arm, Report->2, Report->3, Report->4" : "Arm, Report->2, Report->3"};
    case A::kAnswerRetained: {
      if (s == S::kReporting || s == S::kResolving) return {s, ""};
      return {s, s == S::kUnowned || s == S::kLoading || s == S::kLost ? "TransferDone->2" : "TransferAborted->2"};
    }
    case A::kEvicted: return {S::kUnowned, ""};
    case A::kSendAgain: return ExpectedOfSendAgain(s);
    default: ADD_FAILURE() << "no expectation for action " << static_cast<int>(action); return {s, ""};
  }
}

void FeedLocal(Home& h, E event) {
  switch (event) {
    case E::kDiscard: StepHomeDiscard(h.e, RequestId(9), h.Next(), h.effects); break;
    case E::kLoaded:
      StepHomeLoaded(h.e, kTxn, {.version = {}, .config = {}, .replicas = 2, .data = nullptr}, h.Next(), h.effects);
      break;
    case E::kLoadFailed: StepHomeLoadFailed(h.e, kTxn, absl::UnavailableError("away"), h.Next(), h.effects); break;
    case E::kPeerLost: StepHomePeerLost(h.e, kFarOff, h.Next(), h.effects); break;
    case E::kResend: StepHomeResend(h.e, h.Next(), h.effects); break;
    default: StepHomeReady(h.e, h.Next(), h.effects); break;
  }
}

TEST(ResponsibleNode, EveryCellOfTheTableDoesWhatItSays) {
  for (int s = 0; s < kHomeStates; ++s) {
    for (int v = 0; v < kHomeEvents; ++v) {
      const auto state = static_cast<S>(s);
      const auto event = static_cast<E>(v);
      SCOPED_TRACE(std::string(Name(event)) + " in " + Name(state));
      const A action = kHomeTable[s][v];
      Home h{.e = EntryIn(state)};
      ASSERT_TRUE(Consistent(h.e));
      const NodeInstance sender = SenderOf(state, event);
      if (action == A::kUnqueue) h.e.queue.push_back({.from = kAsker, .request = RequestId(5)});
      const size_t queued = h.e.queue.size();
      if (event == E::kReady && h.e.txn != nullptr) continue;  // Nothing is begun before every member has registered.
      if (const std::optional<K> kind = KindOf(event)) {
        Message m = About(*kind, event == E::kStillRetained ? Txn(40) : kTxn);
        m.request = RequestId(5);
        const bool stranger = event == E::kEvictRequest && h.e.owner != sender;
        h.event = StepHomeMessage(h.e, m, sender, h.Next(), h.effects);
        if (action == A::kImpossible || stranger) {
          EXPECT_FALSE(h.event.has_value());
          EXPECT_EQ(h.e.state, state);
          EXPECT_EQ(Text(h.effects), "");
          continue;
        }
        if (action == A::kIgnore && !h.event) continue;  // H1 was first.
        EXPECT_EQ(h.event, event);
      } else {
        FeedLocal(h, event);
        if (action == A::kImpossible) {
          EXPECT_EQ(h.e.state, state);
          EXPECT_EQ(Text(h.effects), "");
          continue;
        }
      }
      EXPECT_TRUE(Consistent(h.e));
      const Outcome expected = Expected(action, state, event);
      EXPECT_EQ(std::string(Name(h.e.state)), Name(expected.state));
      EXPECT_EQ(Text(h.effects), expected.effects);
      EXPECT_EQ(h.e.queue.size(), queued + (action == A::kEnqueue ? 1 : 0) - (action == A::kUnqueue ? 1 : 0));
    }
  }
}

// --- Rules and races --------------------------------------------------------------------------------------------------

Home Owned() {
  Home h;
  h.e.state = S::kOwned;
  h.e.owner = kOwner;
  return h;
}

TEST(ResponsibleNode, SecondWriterWaitsForEveryInvalidateAck) {
  Home h = Owned();
  constexpr NodeInstance kAnother{NodeId(5), Incarnation(1)};
  h.e.sharers = {kSharer, kAnother};
  h.Hear(Request(Access::kWrite), kAsker);
  EXPECT_EQ(h.did, "Arm, Invalidate->3, Invalidate->5, Forward->2");
  EXPECT_FALSE(h.effects.back().message.active);
  h.Answer(K::kInvalidateAck, kSharer);
  EXPECT_EQ(h.did, "");
  h.Answer(K::kInvalidateAck, kSharer);  // Doubled.
  EXPECT_FALSE(h.event.has_value());
  h.Answer(K::kInvalidateAck, kAnother);
  EXPECT_EQ(h.did, "Activate->4");
  h.Answer(K::kGrantAck, kAsker);
  EXPECT_EQ(h.did, "TransferDone->2, TransferDone->5");
  EXPECT_EQ(h.e.owner, kAsker);
  EXPECT_TRUE(h.e.sharers.empty());
}

TEST(ResponsibleNode, UpgradeWaitsForTheOwnerToo) {
  Home h = Owned();
  h.e.sharers = {kSharer, kAsker};
  h.Hear(Request(Access::kWrite, 5, true), kAsker);
  EXPECT_EQ(h.did, "Arm, Invalidate->3, Invalidate->2");
  EXPECT_TRUE(h.effects.back().message.retain);
  h.Answer(K::kInvalidateAck, kOwner);
  EXPECT_EQ(h.did, "");
  h.Answer(K::kInvalidateAck, kSharer);
  EXPECT_EQ(h.did, "Grant->4");
  EXPECT_EQ(h.effects.back().message.data, nullptr);
}

TEST(ResponsibleNode, UpgradeOfWhomThisNodeDoesNotKnowAsASharerGetsThePage) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite, 5, true), kAsker);
  EXPECT_EQ(h.did, "Arm, Forward->2");
}

TEST(ResponsibleNode, RequestsAreServedOneAfterTheOther) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite, 5), kAsker);
  h.Hear(Request(Access::kRead, 6), kSharer);
  EXPECT_EQ(h.did, "");
  h.Hear(Request(Access::kRead, 6), kSharer);
  EXPECT_EQ(h.did, "Delayed->3");
  EXPECT_EQ(h.effects[0].message.peer, kOwner);
  h.Answer(K::kGrantAck, kAsker);
  EXPECT_EQ(h.did, "TransferDone->2, Arm, Forward->4");
}

TEST(ResponsibleNode, AnswerOfAnEarlierTransactionIsIgnored) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  h.Hear(About(K::kGrantAck, Txn(1)), kAsker);
  EXPECT_FALSE(h.event.has_value());
  h.Hear(About(K::kGrantAck, h.e.txn->id), kSharer);
  EXPECT_FALSE(h.event.has_value());
  EXPECT_EQ(h.e.state, S::kGranting);
}

TEST(ResponsibleNode, RefusedGrantGivesThePageBackToItsOwner) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  h.Answer(K::kGrantRefused, kAsker);
  EXPECT_EQ(h.did, "TransferAborted->2");
  EXPECT_EQ(h.e.owner, kOwner);
}

TEST(ResponsibleNode, SecondKeeperIsASharerAgainAfterAnAbort) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kWrite), kAsker);
  EXPECT_TRUE(h.effects[1].message.retain);
  h.Answer(K::kInvalidateAck, kSharer);
  h.Answer(K::kGrantRefused, kAsker);
  EXPECT_EQ(h.did, "TransferAborted->2, TransferAborted->3");
  EXPECT_TRUE(h.Shares(kSharer));
}

TEST(ResponsibleNode, RequesterLostAfterAnActiveGrantLeadsToRecovery) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  ASSERT_TRUE(h.e.txn->active);
  h.Lose(kAsker);
  EXPECT_EQ(h.did, "Arm, Report->2");
  h.Answer(K::kReported, kOwner, Holding::kRetained, {Epoch(3), 5});
  EXPECT_EQ(h.did, "LoadVersion");
}

TEST(ResponsibleNode, RequesterLostBeforeItsGrantCountedIsForgotten) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kWrite), kAsker);
  ASSERT_FALSE(h.e.txn->active);
  h.Lose(kAsker);
  EXPECT_EQ(h.did, "TransferAborted->2, TransferAborted->3");
  EXPECT_EQ(h.e.owner, kOwner);
  EXPECT_TRUE(h.Shares(kSharer));
}

TEST(ResponsibleNode, SharerLostIsNotWaitedFor) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kWrite), kAsker);
  h.Lose(kSharer);
  EXPECT_EQ(h.did, "Activate->4");
}

// A recovery that asks owner, sharer and whoever asked, after the loss of the owner.
Home Recovering(Version of_sharer, Holding holding = Holding::kShared) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Lose(kOwner);
  EXPECT_EQ(h.did, "Arm, Report->3");
  h.Answer(K::kReported, kSharer, holding, of_sharer);
  return h;
}

TEST(ResponsibleNode, DiskNewerThanTheRetainedCopyWins) {
  Home h = Recovering({Epoch(3), 5}, Holding::kRetained);
  EXPECT_EQ(h.did, "LoadVersion");
  h.Load({Epoch(3), 6});
  EXPECT_EQ(h.did, "Arm, Resolve->3");
  EXPECT_EQ(h.effects.back().message.holding, Holding::kNone);
  h.Answer(K::kResolveAck, kSharer);
  EXPECT_EQ(h.e.state, S::kUnowned);
  EXPECT_FALSE(h.e.clean);
}

TEST(ResponsibleNode, SurvivingCopyAsNewAsTheDiskBecomesTheOwnersUnderANewNumber) {
  Home h = Recovering({Epoch(3), 5});
  h.Load({Epoch(3), 5});
  EXPECT_EQ(h.effects.back().message.holding, Holding::kOwner);
  EXPECT_EQ(h.effects.back().message.version, (Version{Epoch(4), 1}));
  EXPECT_EQ(h.e.owner, kSharer);
}

TEST(ResponsibleNode, CopyFromBeforeThePageWasAllocatedAnewLosesToTheDisk) {
  Home h = Recovering({Epoch(3), 5});
  StepHomeLoaded(h.e, h.e.txn->id, {.version = {}, .config = ConfigNumber(2), .replicas = 2, .data = nullptr}, h.Next(),
                 h.effects);
  EXPECT_EQ(h.effects.back().message.holding, Holding::kNone);
}

TEST(ResponsibleNode, RecoveryWithoutALossDoesNotNumberBackwards) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kRead), kAsker);
  h.Answer(K::kNotHeld, kOwner);
  EXPECT_EQ(h.did, "Arm, Report->2, Report->3, Report->4");
  h.Answer(K::kReported, kOwner);
  h.Answer(K::kReported, kAsker);
  h.Answer(K::kReported, kSharer, Holding::kShared, {Epoch(3), 7});
  h.Load({Epoch(3), 7});
  EXPECT_LT((Version{Epoch(3), 7}), h.effects.back().message.version);
}

TEST(ResponsibleNode, NothingLeftMeansTheDisksAndANewsOfIt) {
  Home h = Recovering({}, Holding::kNone);
  EXPECT_EQ(h.e.state, S::kUnowned);
  h.Hear(Request(Access::kRead), kAsker);
  EXPECT_EQ(h.did, "Arm, LoadRecover");
  h.Load({Epoch(3), 4});
  EXPECT_EQ(h.did, "Reverted, Grant->4");
}

TEST(ResponsibleNode, RetainedFrameIsNotDroppedWhileTheDisksAreCompared) {
  Home h = Recovering({Epoch(3), 5}, Holding::kRetained);
  ASSERT_EQ(h.e.state, S::kLoading);
  h.Hear(About(K::kStillRetained, Txn(40)), kSharer);
  EXPECT_EQ(h.did, "");
}

TEST(ResponsibleNode, DisksThatDoNotAnswerAreAskedAgain) {
  Home h = Recovering({Epoch(3), 5});
  h.LoadFails(absl::UnavailableError("away"));
  EXPECT_EQ(h.e.state, S::kReporting);
  h.Resend();
  EXPECT_EQ(h.did, "Arm, LoadVersion");
}

TEST(ResponsibleNode, ReporterLostWhileTheDisksAreComparedStartsAnew) {
  Home h = Recovering({Epoch(3), 5});
  const Txn before = h.e.txn->id;
  h.Lose(kSharer);
  EXPECT_EQ(h.e.state, S::kUnowned);
  LoadedPage page{.version = {Epoch(3), 5}, .config = {}, .replicas = 2, .data = nullptr};
  StepHomeLoaded(h.e, before, page, h.Next(), h.effects);
  EXPECT_TRUE(h.effects.empty());
}

TEST(ResponsibleNode, LivingOwnerStaysTheOwnerWithoutANewNumber) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  h.Lose(kOwner);
  EXPECT_EQ(h.did, "Arm, Report->4");
  h.Answer(K::kReported, kAsker, Holding::kOwner, {Epoch(3), 9});
  EXPECT_EQ(h.did, "Arm, Resolve->4");
  EXPECT_EQ(h.effects.back().message.version, Version{});
  h.Answer(K::kResolveAck, kAsker);
  EXPECT_EQ(h.e.owner, kAsker);
}

TEST(ResponsibleNode, NothingIsServedBeforeEveryMemberHasRegistered) {
  Home h;
  HomeContext context = h.Next();
  context.ready = false;
  StepHomeMessage(h.e, Request(Access::kRead), kAsker, context, h.effects);
  EXPECT_TRUE(h.effects.empty());
  Register(h.e, {.node = kOwner, .holding = Holding::kOwner, .version = {Epoch(2), 5}});
  Register(h.e, {.node = kSharer, .holding = Holding::kShared, .version = {Epoch(2), 5}});
  StepHomeReady(h.e, h.Next(), h.effects);
  EXPECT_EQ(Text(h.effects), "Arm, Forward->2");
  EXPECT_TRUE(h.Shares(kSharer));
}

TEST(ResponsibleNode, RegisteredTransferIsRecovered) {
  Home h;
  Register(h.e, {.node = kOwner, .holding = Holding::kRetained, .version = {Epoch(2), 5}});
  Register(h.e, {.node = kAsker, .holding = Holding::kOwner, .version = {Epoch(2), 6}});
  StepHomeReady(h.e, h.Next(), h.effects);
  EXPECT_EQ(Text(h.effects), "Arm, Report->2, Report->4");
}

TEST(ResponsibleNode, EvictedPageIsCleanAndAKeptOneStaysOwned) {
  Home h = Owned();
  h.Hear(About(K::kEvictRequest, {}), kOwner);
  Message kept = About(K::kEvictAck, h.e.txn->id);
  kept.kept = true;
  h.Hear(kept, kOwner);
  EXPECT_EQ(h.e.owner, kOwner);
  h.Hear(About(K::kEvictRequest, {}), kOwner);
  h.Answer(K::kEvictAck, kOwner);
  EXPECT_EQ(h.e.state, S::kUnowned);
  h.Hear(Request(Access::kRead), kAsker);
  EXPECT_EQ(h.did, "Arm, Load");
}

TEST(ResponsibleNode, CorruptDisksMakeThePageLostForAllWhoWait) {
  Home h;
  h.Hear(Request(Access::kRead, 5), kAsker);
  h.Hear(Request(Access::kRead, 6), kSharer);
  h.LoadFails(absl::DataLossError("corrupt"));
  EXPECT_EQ(h.did, "RequestFailed->4, RequestFailed->3");
  EXPECT_EQ(h.e.state, S::kLost);
}

}  // namespace
}  // namespace mangrove
