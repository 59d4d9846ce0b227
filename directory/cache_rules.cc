#include "directory/cache_rules.h"

#include "net/check.h"

namespace mangrove {
namespace {

using E = CacheEvent;

bool IsRevocation(MessageKind kind) {
  switch (kind) {
    case MessageKind::kForward:
    case MessageKind::kInvalidate:
    case MessageKind::kEvictGrant:
    case MessageKind::kReport:
    case MessageKind::kResolve: return true;
    default: return false;
  }
}

CacheEvent ClassifyGrant(const CacheEntry& e, const Message& m) {
  if (!e.IsWaiting() || m.request != e.request) return E::kGrantOther;
  if (m.kind == MessageKind::kActivate) return e.wanted == Access::kWrite ? E::kActivate : E::kGrantOther;
  if (m.access != e.wanted) return E::kGrantOther;
  if (!CarriesContent(m) && !e.HasRead() && !e.retained) return E::kGrantOther;
  if (m.access == Access::kRead) return E::kGrantRead;
  if (m.access == Access::kMove) return E::kGrantMove;
  return m.active ? E::kGrantWrite : E::kGrantPending;
}

CacheEvent ClassifyResolve(const Message& m) {
  if (m.holding == Holding::kOwner) return E::kResolveOwner;
  return m.holding == Holding::kShared ? E::kResolveShared : E::kResolveNone;
}

}  // namespace

bool CarriesContent(const Message& grant) { return grant.data != nullptr || grant.owner; }

bool IsBlocked(const CacheEntry& e, const Message& m, TimeNs now) {
  if (m.kind == MessageKind::kResolve) return ClassifyResolve(m) == E::kResolveNone && e.IsPinned();
  const bool read_forward = m.kind == MessageKind::kForward && m.access == Access::kRead;
  const bool revokes = m.kind == MessageKind::kForward || m.kind == MessageKind::kInvalidate;
  if (!revokes || !e.HasRead()) return false;
  if (m.kind == MessageKind::kForward && m.access == Access::kMove) return false;  // Refused instead.
  if (e.exclusive_pins > 0) return true;
  if (read_forward) return e.open && now < e.hold_until;
  return e.shared_pins > 0 || now < e.hold_until;
}

std::optional<CacheEvent> Classify(const CacheEntry& e, const Message& m, NodeId from, const CacheContext& context) {
  if (IsRevocation(m.kind)) {
    if (from != context.responsible || m.txn < e.txn) return std::nullopt;
    if (IsBlocked(e, m, context.now)) return E::kBlocked;
  }
  const bool of_retained = e.retained && m.txn >= e.retained->txn;
  switch (m.kind) {
    case MessageKind::kForward:
      if (of_retained) return E::kResend;
      if (m.access == Access::kMove) return E::kForwardMove;
      return m.access == Access::kRead ? E::kForwardRead : E::kForwardWrite;
    case MessageKind::kInvalidate:
      if (of_retained) return E::kResend;
      return m.retain ? E::kInvalidateRetain : E::kInvalidate;
    case MessageKind::kGrant:
    case MessageKind::kActivate: return ClassifyGrant(e, m);
    case MessageKind::kRequestFailed:
      if (from != context.responsible || !e.IsWaiting() || m.request != e.request) return std::nullopt;
      return E::kFailed;
    case MessageKind::kTransferDone:
    case MessageKind::kTransferAborted:
      if (from != context.responsible) return std::nullopt;
      // Told again since the answer was lost.
      if (m.kind == MessageKind::kTransferDone && (!e.retained || e.retained->txn > m.txn)) return E::kDoneBefore;
      if (!e.retained || m.txn != e.retained->txn || e.retained->reported) return std::nullopt;
      return m.kind == MessageKind::kTransferDone ? E::kTransferDone : E::kTransferAborted;
    case MessageKind::kEvictGrant: return E::kEvictGrant;
    case MessageKind::kReport: return E::kReport;
    case MessageKind::kResolve: return ClassifyResolve(m);
    default: CheckFailed(__FILE__, __LINE__, "not for a cache");
  }
}

}  // namespace mangrove
