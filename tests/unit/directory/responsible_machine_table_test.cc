// Every cell of the responsible node's table.

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "tests/unit/directory/responsible_machine_support.h"

namespace mangrove::home_test {
namespace {

HomeEntry EntryIn(S state) {
  HomeEntry e;
  e.state = state;
  const bool owned = state == S::kOwned || state == S::kGranting || state == S::kEvicting || state == S::kDiscarding ||
                     state == S::kResolving;
  if (owned) e.owner = kOwner;
  if (state != S::kLost && state != S::kReporting) e.sharers = {kSharer};
  if (state == S::kUnowned || state == S::kOwned || state == S::kLost) return e;
  HomeTransaction& t = e.MakeWork().txn.emplace();
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
    case E::kTransferDropped: return K::kTransferDropped;
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
    default:
      if (s == S::kLost) return {S::kUnowned, "Arm, Discarded"};
      return {S::kDiscarding, owned ? "Arm, Invalidate->3, Invalidate->2" : "Arm, Invalidate->3"};
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
    case A::kForgetKeeper:
    case A::kCountReport:
    case A::kCountResolve: return {s, ""};
    case A::kServe: return ExpectedOfServe(s, event);
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
    case E::kDiscard: StepHomeDiscard(h.e, RequestId(9), kAnyConfig, h.Next(), h.effects); break;
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
      if (action == A::kUnqueue) h.e.MakeWork().queue.push_back({.from = kAsker, .request = RequestId(5)});
      const size_t queued = h.e.Work().queue.size();
      if (event == E::kReady && h.e.IsBusy()) continue;  // Nothing is begun before every member has registered.
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
      EXPECT_EQ(h.e.Work().queue.size(), queued + (action == A::kEnqueue ? 1 : 0) - (action == A::kUnqueue ? 1 : 0));
    }
  }
}

}  // namespace
}  // namespace mangrove::home_test
