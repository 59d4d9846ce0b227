// The table of the cache's machine, the names of its rows and columns, and what can be asked of an entry.

#include "directory/cache_machine.h"

namespace mangrove {
namespace {

using A = CacheAction;
using S = CacheState;
constexpr A X = A::kImpossible;
constexpr A Bad = A::kRefuse;
constexpr A Ign = A::kIgnore;

}  // namespace

// clang-format off
const std::array<std::array<CacheAction, kCacheEvents>, kCacheStates> kCacheTable = {{
    // WantRead, WantWrite, WantMove, WantEvict, ForwardRead, ForwardWrite, ForwardMove, Invalidate, InvalidateRetain, Blocked, Resend,
    //   GrantRead, GrantMove, GrantWrite, GrantPending, Activate, GrantOther, Failed, Cancel, TransferDone, DoneBefore, TransferAborted,
    //   EvictGrant, Report, ResolveOwner, ResolveShared, ResolveNone
    /* Invalid    */ {A::kRequestRead, A::kRequestWrite, A::kRequestMove, Ign, A::kNotHeld, A::kNotHeld, A::kNotHeld, A::kAckInvalid, A::kAckInvalid, X, A::kResendRetained,
                      X, X, X, X, X, A::kAnswerOther, X, Ign, A::kDropRetained, A::kSayDropped, A::kTakeBack,
                      A::kAckEvicted, A::kAnswerReport, A::kBecomeOwner, A::kStayShared, A::kDropAll},
    /* Shared     */ {A::kWake, A::kRequestWrite, A::kRequestMove, A::kDropSilently, A::kNotHeld, A::kNotHeld, A::kNotHeld, A::kGiveUp, A::kGiveUpRetain, A::kDefer, X,
                      X, X, X, X, X, A::kAnswerOther, X, Ign, X, A::kSayDropped, X,
                      A::kAckEvicted, A::kAnswerReport, A::kBecomeOwner, A::kStayShared, A::kDropAll},
    /* Owned      */ {A::kWake, A::kRequestWrite, Ign, A::kAskEvict, A::kSendCopy, A::kSendAway, A::kMoveAway, A::kGiveUp, A::kGiveUpRetain, A::kDefer, X,
                      X, X, X, X, X, A::kAnswerOther, X, Ign, X, A::kSayDropped, X,
                      A::kRefuseEvict, A::kAnswerReport, A::kBecomeOwner, Bad, A::kDropAll},
    /* Exclusive  */ {A::kWake, A::kOpen, Ign, A::kAskEvict, A::kSendCopy, A::kSendAway, A::kMoveAway, A::kGiveUp, Bad, A::kDefer, X,
                      X, X, X, X, X, A::kAnswerOther, X, Ign, X, A::kSayDropped, X,
                      A::kRefuseEvict, A::kAnswerReport, A::kBecomeOwner, Bad, A::kDropAll},
    /* WaitRead   */ {Ign, Ign, Ign, Ign, A::kNotHeld, A::kNotHeld, A::kNotHeld, A::kAckInvalid, A::kAckInvalid, X, A::kResendRetained,
                      A::kInstallRead, A::kInstallMove, X, X, X, A::kAnswerOther, A::kFailWaiters, A::kForgetRequest, A::kDropRetained, A::kSayDropped, A::kTakeBack,
                      A::kAckEvicted, A::kAnswerReport, A::kBecomeOwner, A::kStayShared, A::kDropAll},
    /* WaitWrite  */ {Ign, Ign, Ign, Ign, A::kNotHeld, A::kNotHeld, A::kNotHeld, A::kAckInvalid, A::kAckInvalid, X, A::kResendRetained,
                      X, X, A::kInstallWrite, A::kKeepPending, A::kActivatePending, A::kAnswerOther, A::kFailWaiters, A::kForgetRequest, A::kDropRetained, A::kSayDropped, A::kTakeBack,
                      A::kAckEvicted, A::kAnswerReport, A::kBecomeOwner, A::kStayShared, A::kDropAll},
    /* SharedWait */ {A::kWake, Ign, Ign, Ign, A::kNotHeld, A::kNotHeld, A::kNotHeld, A::kGiveUp, A::kGiveUpRetain, A::kDefer, X,
                      X, A::kInstallMove, A::kInstallWrite, A::kKeepPending, A::kActivatePending, A::kAnswerOther, A::kFailWaiters, A::kForgetRequest, X, A::kSayDropped, X,
                      A::kAckEvicted, A::kAnswerReport, A::kBecomeOwner, A::kStayShared, A::kDropAll},
    /* OwnedWait  */ {A::kWake, Ign, Ign, Ign, A::kSendCopy, A::kSendAway, A::kMoveAway, A::kGiveUp, A::kGiveUpRetain, A::kDefer, X,
                      X, A::kInstallMove, A::kInstallWrite, A::kKeepPending, A::kActivatePending, A::kAnswerOther, A::kFailWaiters, A::kForgetRequest, X, A::kSayDropped, X,
                      A::kRefuseEvict, A::kAnswerReport, A::kBecomeOwner, Bad, A::kDropAll},
    /* Evicting   */ {A::kWake, A::kRequestWrite, Ign, Ign, A::kSendCopy, A::kSendAway, A::kMoveAway, A::kGiveUp, A::kGiveUpRetain, A::kDefer, X,
                      X, X, X, X, X, A::kAnswerOther, X, Ign, X, A::kSayDropped, X,
                      A::kEvict, A::kAnswerReport, A::kBecomeOwner, Bad, A::kDropAll},
}};
// clang-format on

const char* Name(CacheState state) {
  constexpr const char* kNames[kCacheStates] = {"Invalid",   "Shared",     "Owned",     "Exclusive", "WaitRead",
                                                "WaitWrite", "SharedWait", "OwnedWait", "Evicting"};
  return kNames[static_cast<size_t>(state)];
}

const char* Name(CacheEvent event) {
  constexpr const char* kNames[kCacheEvents] = {
      "WantRead",     "WantWrite",     "WantMove",         "WantEvict",       "ForwardRead", "ForwardWrite",
      "ForwardMove",  "Invalidate",    "InvalidateRetain", "Blocked",         "Resend",      "GrantRead",
      "GrantMove",    "GrantWrite",    "GrantPending",     "Activate",        "GrantOther",  "Failed",
      "Cancel",       "TransferDone",  "DoneBefore",       "TransferAborted", "EvictGrant",  "Report",
      "ResolveOwner", "ResolveShared", "ResolveNone"};
  return kNames[static_cast<size_t>(event)];
}

Message OutstandingRequest(const CacheEntry& entry, PageId page) {
  Message request;
  request.kind = MessageKind::kRequest;
  request.page = page;
  request.request = entry.request;
  request.access = entry.wanted;
  request.have = entry.HasRead();
  return request;
}

Holding HoldingOf(const CacheEntry& entry) {
  if (entry.IsOwner()) return Holding::kOwner;
  if (entry.HasRead()) return Holding::kShared;
  return entry.retained ? Holding::kRetained : Holding::kNone;
}

Version HeldVersion(const CacheEntry& entry) { return entry.retained ? entry.retained->version : entry.version; }

bool IsForCache(MessageKind kind) {
  switch (kind) {
    case MessageKind::kForward:
    case MessageKind::kInvalidate:
    case MessageKind::kGrant:
    case MessageKind::kActivate:
    case MessageKind::kRequestFailed:
    case MessageKind::kTransferDone:
    case MessageKind::kTransferAborted:
    case MessageKind::kEvictGrant:
    case MessageKind::kReport:
    case MessageKind::kResolve: return true;
    default: return false;
  }
}

bool Consistent(const CacheEntry& e) {
  const bool waits =
      e.state == S::kWaitRead || e.state == S::kWaitWrite || e.state == S::kSharedWait || e.state == S::kOwnedWait;
  if (e.open && e.state != S::kExclusive) return false;       // I1
  if (e.IsWaiting() != waits) return false;                   // I2
  if (e.retained && e.HasRead()) return false;                // I3
  if (e.state == S::kEvicting && !e.CanDrop()) return false;  // I4
  if (e.IsPinned() && !e.HasRead()) return false;             // I6
  return e.exclusive_pins == 0 || e.state == S::kExclusive;   // I6
}

bool CacheEntry::HasRead() const { return state != S::kInvalid && state != S::kWaitRead && state != S::kWaitWrite; }

bool CacheEntry::IsOwner() const {
  return state == S::kOwned || state == S::kExclusive || state == S::kOwnedWait || state == S::kEvicting;
}

void NoteFlushed(CacheEntry& entry, const Version& version, ConfigNumber config) {
  if (entry.config != config) return;  // Allocated anew since: numbers begin again.
  if (entry.IsOwner() && entry.flushed < version && version <= entry.version) entry.flushed = version;
  if (entry.retained && entry.retained->flushed < version && version <= entry.retained->version) {
    entry.retained->flushed = version;
  }
}

}  // namespace mangrove
