// The table of the responsible node's machine, and the names of its rows and columns.

#include "directory/responsible_step.h"

namespace mangrove {

using home::A;

namespace {

constexpr A X = A::kImpossible;
constexpr A Ign = A::kIgnore;

}  // namespace

// clang-format off
const std::array<std::array<HomeAction, kHomeEvents>, kHomeStates> kHomeTable = {{
    // Request, Cancel, Flush, EvictRequest, Discard, Loaded, LoadFailed,
    //   InvalidateAck, GrantAck, GrantRefused, NotHeld, StillRetained, TransferDropped, EvictAck, Reported, ResolveAck,
    //   PeerLost, Resend, Ready
    /* Unowned    */ {A::kServe, A::kUnqueue, A::kServe, Ign, A::kServe, X, X,
                      X, X, X, X, A::kAnswerRetained, A::kForgetKeeper, X, X, X,
                      A::kForgetPeer, X, A::kAdopt},
    /* Owned      */ {A::kServe, A::kUnqueue, A::kServe, A::kServe, A::kServe, X, X,
                      X, X, X, X, A::kAnswerRetained, A::kForgetKeeper, X, X, X,
                      A::kForgetPeer, X, A::kAdopt},
    /* Loading    */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, A::kLoaded, A::kLoadFailed,
                      X, X, X, X, A::kAnswerRetained, A::kForgetKeeper, X, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Granting   */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, A::kEnqueue, A::kEnqueue, X, X,
                      A::kCountAck, A::kComplete, A::kAbort, A::kRecover, A::kAnswerRetained, A::kForgetKeeper, X, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Evicting   */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      X, X, X, A::kRecover, A::kAnswerRetained, A::kForgetKeeper, A::kEvicted, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Discarding */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      A::kCountAck, X, X, Ign, A::kAnswerRetained, A::kForgetKeeper, X, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Reporting  */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      X, X, X, Ign, A::kAnswerRetained, A::kForgetKeeper, X, A::kCountReport, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Resolving  */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      X, X, X, A::kRecover, A::kAnswerRetained, A::kForgetKeeper, X, X, A::kCountResolve,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Lost       */ {A::kServe, Ign, A::kServe, Ign, A::kServe, X, X,
                      X, X, X, X, A::kAnswerRetained, A::kForgetKeeper, X, X, X,
                      A::kForgetPeer, X, A::kAdopt},
}};
// clang-format on

const char* Name(HomeState state) {
  constexpr const char* kNames[kHomeStates] = {"Unowned",    "Owned",     "Loading",   "Granting", "Evicting",
                                               "Discarding", "Reporting", "Resolving", "Lost"};
  return kNames[static_cast<size_t>(state)];
}

const char* Name(HomeEvent event) {
  constexpr const char* kNames[kHomeEvents] = {
      "Request",       "Cancel",     "Flush",        "EvictRequest", "Discard",       "Loaded",          "LoadFailed",
      "InvalidateAck", "GrantAck",   "GrantRefused", "NotHeld",      "StillRetained", "TransferDropped", "EvictAck",
      "Reported",      "ResolveAck", "PeerLost",     "Resend",       "Ready"};
  return kNames[static_cast<size_t>(event)];
}

}  // namespace mangrove
