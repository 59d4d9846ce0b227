// The cache's side of a page's coherence: one page at one node.
//
// Pure: an event in, effects out, the state a plain struct. The driver (engine/page_driver.h) carries effects out in
// their order, and hands in no further event of the page before they are carried out.
//
// States. "Owner" means that the responsible node sends requests for the page here.
//
//   Invalid     no copy.                      WaitRead    no copy, a read or move request is out.
//   Shared      a read copy.                  WaitWrite   no copy, a write request is out.
//   Owned       the owner's copy, read right; SharedWait  a read copy, a write or move request is out.
//               others may have read copies.  OwnedWait   the owner's copy, read right, a write request is out.
//   Exclusive   the owner's copy, the only    Evicting    the owner's copy, CanDrop, read right; the responsible node
//               one; read right, or write                 has been asked to let it go.
//               right when `open`.
//
// What was given up in a transfer is kept, inaccessible, as `retained` until the responsible node says that the
// transfer is done or aborted; this is beside the state, which is then Invalid, WaitRead or WaitWrite.
//
// The table of what happens (kCacheTable) is below, total: a test visits every cell. Before it come three rules:
//   R1 Stale: a revocation (forward, invalidation, evict grant, report, resolve) with a transaction older than the last
//      that was applied is ignored.
//   R2 Blocked: a revocation that meets a pin or the minimum hold time is deferred, and handed in again when that ends.
//      A newer one replaces it.
//   R3 A grant or activation that answers no outstanding request is not installed: answered kGrantAck if it is what was
//      installed last, else kGrantRefused.
//
// Invariants:
//   I1 Write right in memory <=> open; open => Exclusive. Read right <=> Shared, Owned, Exclusive, SharedWait,
//      OwnedWait, Evicting. No right otherwise.
//   I2 A request is outstanding (request != 0) <=> WaitRead, WaitWrite, SharedWait, OwnedWait.
//   I3 retained => Invalid, WaitRead or WaitWrite.
//   I4 The owner's version is dirty <=> version != flushed: a flush stores it, and nothing else makes it clean. What is dirty is not
//      dropped: Evicting => CanDrop. So of a page whose owner has let it go the disks have the newest version, whatever disk is lost
//      then: each current one has it (engine/disks.h, D2), and one that is behind takes it over before it counts.
//   I5 Versions: opening takes the next version of the grant's epoch; a copy that was sent or stored is never changed
//      under its number.
//   I6 pins => read right; an exclusive pin => Exclusive.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "directory/messages.h"
#include "directory/planted_bugs.h"
#include "net/boxed.h"
#include "net/runtime/clock.h"

namespace mangrove {

enum class CacheState : uint8_t {
  kInvalid = 0,
  kShared,
  kOwned,
  kExclusive,
  kWaitRead,
  kWaitWrite,
  kSharedWait,
  kOwnedWait,
  kEvicting,
};
constexpr int kCacheStates = 9;

// Events, after the rules R1 to R3.
enum class CacheEvent : uint8_t {
  kWantRead = 0,      // A local access needs the read right.
  kWantWrite,         // A local access needs the write right.
  kWantMove,          // The owner, which has no room for the page, has offered it.
  kWantEvict,         // The frame is wanted for another page. REQUIRES: unpinned, CanDrop.
  kForwardRead,       // Send a read copy to another node.
  kForwardWrite,      // Send the page away, keep the frame.
  kForwardMove,       // The same, if the page is not wanted here any more.
  kInvalidate,        // Drop the copy.
  kInvalidateRetain,  // The owner's copy is given up, the requester has its own; keep the frame.
  kBlocked,           // R2
  kResend,            // A forward or invalidation of the transfer that `retained` belongs to, or of a later one.
  kGrantRead,         // Answers the request, with data or not.
  kGrantMove,         // The same.
  kGrantWrite,        // Answers the request, with data or not, and counts.
  kGrantPending,      // Answers the request with data, but does not count before kActivate.
  kActivate,          // The grant counts.
  kGrantOther,        // R3
  kFailed,            // The request is refused.
  kCancel,            // Nobody waits for the request any more.
  kTransferDone,      // Of `retained`.
  kDoneBefore,        // kTransferDone of what is not retained any more.
  kTransferAborted,   // Of `retained`.
  kEvictGrant,
  kReport,
  kResolveOwner,
  kResolveShared,
  kResolveNone,
};
constexpr int kCacheEvents = 27;

// What a cell does. Impossible cells are unreachable whatever other nodes send: this node itself rules them out (R1 to
// R3, I1 to I6); reaching one is a bug and ends the process. Refused ones are unreachable however messages are lost,
// doubled and delayed, as long as the responsible node keeps to the protocol: one that is confused must not end this
// process.
enum class CacheAction : uint8_t {
  kImpossible = 0,
  kRefuse,        // Nothing changes; kRefused tells the driver.
  kIgnore,        // Counted.
  kDefer,         // R2
  kWake,          // The right is there already.
  kRequestRead,   // → WaitRead
  kRequestWrite,  // → WaitWrite, SharedWait, OwnedWait
  kRequestMove,   // → WaitRead, SharedWait
  kOpen,          // Exclusive takes the write right without asking.
  kDropSilently,  // Shared → Invalid
  kAskEvict,      // → Evicting
  kSendCopy,      // Owner: freeze, send, keep a read copy.
  kSendAway,      // Owner: take the frame away, send it, retain it.
  kMoveAway,      // The same, unless it is used here, or was kept already in this transaction.
  kGiveUp,        // Take the copy away, acknowledge.
  kGiveUpRetain,  // Take the frame away, retain it, acknowledge.
  kAckInvalid,    // Nothing here: acknowledge.
  kNotHeld,       // Nothing to forward.
  kResendRetained,
  kInstallRead,
  kInstallMove,
  kInstallWrite,
  kKeepPending,
  kActivatePending,
  kAnswerOther,  // R3
  kFailWaiters,
  kForgetRequest,
  kDropRetained,  // Say so.
  kSayDropped,    // It was dropped before; the answer was lost.
  kTakeBack,      // The retained frame is a copy again, the owner's or a reader's, as it was.
  kEvict,         // Unless it was pinned meanwhile.
  kRefuseEvict,
  kAckEvicted,  // Unless it is retained here.
  kAnswerReport,
  kBecomeOwner,
  kStayShared,
  kDropAll,
};

extern const std::array<std::array<CacheAction, kCacheEvents>, kCacheStates> kCacheTable;

struct CacheEntry {
  CacheState state = CacheState::kInvalid;
  bool open = false;
  bool reported = false;  // A report of this copy is out, and what it is to be is not in: it must not be dropped.
  Access wanted = Access::kRead;  // By `request`.
  uint8_t exclusive_pins = 0;
  uint32_t shared_pins = 0;
  uint32_t replicas = 0;  // 0: volatile.
  Version version;        // Of the copy here; while open: the one being written.
  Version flushed;        // Of an owner: the newest that every core holder is known to have.
  Epoch grant_epoch;      // Under which the next version will be opened.
  ConfigNumber config;
  Txn txn;            // The last that was applied here.
  RequestId request;  // I2
  NodeId delayed_by;  // Whom the responsible node waits for, as far as it said.
  TimeNs hold_until = 0;

  // A grant with data that does not count yet, or the news that a grant counts whose data is still under way.
  struct Pending {
    Message grant;  // kind kGrant when the data is there.
    bool have_grant = false;
    bool activated = false;
    Txn txn;
  };
  Boxed<Pending> pending;

  struct Retained {
    Txn txn;
    Version version;
    Version flushed;
    Epoch grant_epoch;
    NodeInstance requester;
    RequestId request;
    bool owner = false;  // What the copy was; else a read copy.
    PageBuffer data;     // Set by the driver when the frame has been taken away.
    TimeNs since = 0;
    bool reported = false;  // As CacheEntry::reported: only what recovery says of it counts.
    Message answer;         // What was sent, for sending again: kGrant or kInvalidateAck.
  };
  Boxed<Retained> retained;

  Boxed<Message> deferred;

  bool HasRead() const;                                             // I1
  bool HasWrite() const { return open; }                            // I1
  bool IsOwner() const;                                             // Owned, Exclusive, OwnedWait, Evicting
  bool IsDirty() const { return IsOwner() && version != flushed; }  // I4
  bool IsPinned() const { return shared_pins + exclusive_pins > 0; }
  // I4. A read copy always can.
  bool CanDrop() const { return !IsOwner() || (!open && version == flushed); }
  bool IsWaiting() const { return request.value != 0; }  // I2
};
// There is one for each page of a cache.
static_assert(sizeof(CacheEntry) == 120);

struct CacheEffect {
  enum class Kind : uint8_t {
    kProtect,       // Memory: take the write right away.
    kTake,          // Memory: take the frame away.
    kTakeRetain,    // The same, and put its content into retained->data.
    kInstall,       // Memory: `data` (null: zeros) with the read right, or the write right if `write`.
    kRaise,         // Memory: give the write right.
    kSend,          // `message` to `to`.
    kSendLate,      // The same; it may wait shortly for another message to travel with.
    kSendFrame,     // `message` with a copy of the frame.
    kSendRetained,  // `message` with retained->data.
    kWake,          // Whoever waits for a right looks again.
    kFail,          // Whoever waits for a right fails with message.status().
    kHoldTimer,     // Hand in what was deferred at hold_until.
    kRefused,       // `message` makes no sense here: count it, and say so.
  };
  Kind kind;
  bool write = false;
  NodeId to;
  Message message;
  PageBuffer data;
};

// What a step needs to know beside its entry.
struct CacheContext {
  NodeInstance self;
  NodeId responsible;  // Of the page.
  TimeNs now = 0;
  DurationNs hold = 0;     // The minimum time for which a copy that came stays.
  RequestId next_request;  // For the request that this step may make.
  bool may_move = false;   // The page is offered to another node, and was not used here since.
  const PlantedBugs* bugs = nullptr;
};

// Hands a local event in: kWantRead, kWantWrite, kWantMove, kWantEvict or kCancel.
void StepCacheLocal(CacheEntry& entry, PageId page, CacheEvent event, const CacheContext& context,
                    std::vector<CacheEffect>& effects);

// Hands in a message for the page, from the node `from`. Returns the event that it was, for counting; nothing if R1
// ignored it. REQUIRES: kind is one that a cache receives (IsForCache).
std::optional<CacheEvent> StepCacheMessage(CacheEntry& entry, const Message& message, NodeId from,
                                           const CacheContext& context, std::vector<CacheEffect>& effects);

// Hands in again what was deferred, if nothing blocks it any more.
void StepCacheUnblocked(CacheEntry& entry, const CacheContext& context, std::vector<CacheEffect>& effects);

// Every core holder has `version` of the page as it was allocated under `config`.
void NoteFlushed(CacheEntry& entry, const Version& version, ConfigNumber config);

// The responsible node's incarnation is gone: an outstanding request is a new one, what was begun there is void.
void ForgetResponsible(CacheEntry& entry, const CacheContext& context);

// The message (kRequest) that is outstanding, for sending again. REQUIRES: entry.IsWaiting().
Message OutstandingRequest(const CacheEntry& entry, PageId page);

// What the entry holds, as kReported, kRegister and kResolve say it.
Holding HoldingOf(const CacheEntry& entry);
Version HeldVersion(const CacheEntry& entry);

bool IsForCache(MessageKind kind);

// I1 to I6; false is a bug.
bool Consistent(const CacheEntry& entry);

const char* Name(CacheState state);
const char* Name(CacheEvent event);

}  // namespace mangrove
