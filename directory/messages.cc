#include "directory/messages.h"

#include "net/check.h"

namespace mangrove {

namespace {

// In the order of MessageKind.
constexpr const char* kNames[] = {
    "Request",         "Cancel",        "RequestFailed",   "Delayed",      "Forward",         "Invalidate",
    "InvalidateAck",   "Grant",         "Activate",        "GrantAck",     "GrantRefused",    "TransferDone",
    "TransferAborted", "StillRetained", "NotHeld",         "EvictRequest", "EvictGrant",      "EvictAck",
    "Report",          "Reported",      "Resolve",         "ResolveAck",   "RegisterRequest", "Register",
    "RegisterEnd",     "Flush",         "Flushed",         "Store",        "Stored",          "QueryStored",
    "StoredInfo",      "PutExtent",     "DropExtent",      "Done",         "Reverted",        "Lost",
    "Inspect",         "Inspected",     "TransferDropped", "QueryExtent",  "ExtentInfo",      "DropCopies",
    "NotResponsible",  "ClaimRequest",  "Claims",          "Retire",       "MoveOffer",       "HandOver",
    "HandedOver",      "Moved",         "Resources",       "Offer",        "Declined",        "ListStored",
    "StoredList",      "WentBack"};
static_assert(std::size(kNames) == kMessageKinds);

}  // namespace

const char* Name(MessageKind kind) {
  CHECK(static_cast<int>(kind) < kMessageKinds);
  return kNames[static_cast<int>(kind)];
}

}  // namespace mangrove
