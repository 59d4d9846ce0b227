// The responsible node's side of a page's coherence: it knows who has the page, and orders the requests for it.
//
// Pure, as the cache's side (directory/cache_machine.h). One transaction of a page at a time; what comes meanwhile
// waits in the entry's queue, in order.
//
// States:
//   Unowned     nobody owns a copy; there may be sharers. The page is on its core holders' disks, or was never written.
//   Owned       `owner` answers for the page, `sharers` may have read copies.
//   Loading     a request waits for the page to be read from disk.
//   Granting    a request is being granted: forwards and invalidations are out, or the grant.
//   Evicting    the owner was told to drop its copy.
//   Discarding  every copy is being dropped, since the page is unallocated.
//   Reporting   a node was lost: those who may hold the page were asked what they hold.
//   Resolving   they were told what they are from now on. Or, of a page that nobody owns, a sharer was told to be the owner,
//               so that the page comes from its RAM and not from a disk.
//   Lost        no disk has it, and no node that can be reached. Requests fail until one has, or the page is allocated anew.
//
// Rules before the table (kHomeTable):
//   H1 An answer (ack, refusal, report …) of another transaction than the current one is ignored, as is one of a node
//      that none is awaited from.
//   H2 Nothing is served before every member of the view has registered what it holds (HomeContext::ready); requests queue.
//   H3 A request that is queued or being served already is not queued again: kDelayed says whom it waits for.
//
// Invariants:
//   I1 A transaction is there <=> state is Loading, Granting, Evicting, Discarding, Reporting or Resolving.
//   I2 Owned => owner.node != 0. Unowned, Lost => owner.node == 0.
//   I3 sharers are sorted, do not contain the owner, and contain every other node that has a read copy.
//   I4 A write grant counts only when every sharer but the requester has acknowledged its invalidation, or is known to
//      be gone for ever; and the old owner has given up its copy.
//   I5 Between two transactions the owner and its successor cannot both be ignorant of it: the old owner keeps the
//      frame until the new one has acknowledged. While the page is on its way from an owner that may die, one of the
//      sharers whose copies are dropped keeps its frame as well.
//   I6 After the loss of a node a surviving copy that is not a living owner's counts only if no disk holds a newer
//      version: its successor may have been granted the page, and flushed it, without this node having heard of it.
//   I7 keepers contains every node that may keep a frame from a transfer that is done, until it has said that it dropped
//      it, or has the page again. When the new owner dies at once, that frame is the newest version; and it must not come
//      back after the page was opened at an older one.
//   I8 Between two steps `work` is there <=> it holds something.
//   I9 Unowned with sharers => clean: an owner lets go only of what the disks have (I4 of directory/cache_machine.h), and what a lost
//      owner had is recovered, or without sharers. So what a sharer has is never newer than what the disks give.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "directory/messages.h"
#include "directory/planted_bugs.h"
#include "directory/sharers.h"
#include "net/boxed.h"
#include "net/runtime/clock.h"

namespace mangrove {

enum class HomeState : uint8_t {
  kUnowned = 0,
  kOwned,
  kLoading,
  kGranting,
  kEvicting,
  kDiscarding,
  kReporting,
  kResolving,
  kLost,
};
constexpr int kHomeStates = 9;

enum class HomeEvent : uint8_t {
  kRequest = 0,
  kCancel,
  kFlush,
  kEvictRequest,  // Of the owner.
  kDiscard,
  kLoaded,      // Local: the page was read from disk …
  kLoadFailed,  // … or not.
  kInvalidateAck,
  kGrantAck,
  kGrantRefused,
  kNotHeld,
  kStillRetained,
  kTransferDropped,
  kEvictAck,
  kReported,
  kResolveAck,
  kPeerLost,  // Local: an incarnation is gone for ever.
  kResend,    // Local: the transaction made no progress for a while.
  kReady,     // Local: every member has registered.
};
constexpr int kHomeEvents = 19;

enum class HomeAction : uint8_t {
  kImpossible = 0,
  kIgnore,
  kServe,  // Queue it and serve the queue.
  kEnqueue,
  kUnqueue,
  kLoaded,
  kLoadFailed,
  kCountAck,
  kComplete,
  kAbort,
  kRecover,  // Ask everybody who may hold the page.
  kAnswerRetained,
  kForgetKeeper,
  kEvicted,
  kCountReport,
  kCountResolve,
  kForgetPeer,
  kSendAgain,
  kAdopt,  // Make of what was registered an owner and sharers.
};

extern const std::array<std::array<HomeAction, kHomeEvents>, kHomeStates> kHomeTable;

// What a node said that it holds.
struct HolderReport {
  NodeInstance node;
  Holding holding = Holding::kNone;
  Version version;
  ConfigNumber config;
};

// Something that waits for its turn.
struct HomeRequest {
  enum class Kind : uint8_t { kAccess, kEvict, kFlush, kDiscard } kind = Kind::kAccess;
  NodeInstance from;
  RequestId request;
  Access access = Access::kRead;
  bool have = false;
  ConfigNumber at_most{UINT64_MAX};  // Of a discard: pages that were allocated since are not meant.
};

struct HomeTransaction {
  Txn id;
  HomeRequest request;
  NodeInstance source;   // The owner that sends or retains the page; node 0 if there is none.
  NodeInstance backup;   // The sharer that keeps its frame too, lest the last copy die with the source.
  bool upgrade = false;  // The requester's own copy is current: no data moves.
  bool from_disk = false;
  bool active = false;    // Every invalidation is acknowledged.
  bool was_lost = false;  // Loading, Reporting: the page was taken for lost before.
  bool lost = false;      // It recovers from the loss of a node that may have written the page.
  bool appoints = false;  // Resolving: no recovery, but a sharer of a page without an owner is to be it.
  absl::InlinedVector<NodeInstance, 4> waiting;  // Acknowledgements that are out.
  Boxed<Message> grant;                          // What was sent to the requester by this node, for sending again.
  std::vector<HolderReport> reports;  // Reporting: those in. Loading: the disks' version is being compared with them.
  TimeNs resend_at = 0;
  int resends = 0;
};

// A node that may still keep the frame that it gave up in a transfer that is done.
struct Keeper {
  NodeInstance node;
  Txn txn;
};

// What there is of a page only while something happens to it.
struct HomeWork {
  std::optional<HomeTransaction> txn;
  absl::InlinedVector<HomeRequest, 1> queue;
  absl::InlinedVector<Keeper, 2> keepers;  // I7
  std::vector<HolderReport> registered;    // Before `ready`.

  bool IsOver() const { return !txn && queue.empty() && keepers.empty() && registered.empty(); }
};

struct HomeEntry {
  HomeState state = HomeState::kUnowned;
  bool clean = false;      // Unowned: every core holder is known to have the newest version.
  bool reverting = false;  // Unowned: an owner was lost with what may have been newer than the disks.
  NodeInstance owner;
  Sharers sharers;       // I3
  Boxed<HomeWork> work;  // I8

  bool IsBusy() const { return txn() != nullptr; }
  const HomeTransaction* txn() const { return work && work->txn ? &*work->txn : nullptr; }
  const HomeWork& Work() const;  // One that is over, if there is none.
  HomeWork& MakeWork();
};
// There is one for each page that somebody has.
static_assert(sizeof(HomeEntry) == 40);

// What the pages of a loop share, and hand on: sets of sharers, and boxes for work, of which as many are kept as a message
// may ask for pages.
struct HomePool {
  static constexpr size_t kSpare = 256;
  SharerTable sharers;
  std::vector<Boxed<HomeWork>> spare;  // Of works that are over.
};

// A page as it was read from disk, complete on every core holder.
struct LoadedPage {
  Version version;
  ConfigNumber config;
  uint32_t replicas = 0;
  PageBuffer data;  // Null: zeros; or only the version was asked for.
};

struct HomeEffect {
  enum class Kind : uint8_t {
    kSend,       // `message` to `to`.
    kLoad,       // Read the page from disk for transaction message.txn. `recover`: ask every core holder, and seal;
                 // unless `version_only`, complete the newest version on all of them. Then every node is told that
                 // has given the page away (`reverting`: everybody) what is found, or the surviving copy that
                 // message.version and config name, whichever is newer.
    kArmResend,  // Hand in kResend at txn->resend_at.
    kDiscarded,  // The discard that `request` numbers is done.
    kReverted,   // Tell everybody.
    kLost,       // The same.
  };
  Kind kind;
  NodeId to;
  Message message;
  bool recover = false;
  bool version_only = false;
  bool reverting = false;
  RequestId request;
};

struct HomeContext {
  NodeInstance self;
  PageId page;
  TimeNs now = 0;
  DurationNs resend_after = 20 * kMillisecond;  // Doubles up to 16 times as much.
  Epoch grant_epoch;  // For grants of this step; newer than every loss that this node has seen.
  Txn next_txn;  // The first of the transactions that this step may begin, at most kTxnsPerStep: one for each kArmResend.
  bool ready = true;
  ConfigNumber config;                   // Of the page's extent, as far as it is known.
  bool never_older = false;              // A copy that may be older than what was lost is none: the page is lost then.
  HomePool* pool = nullptr;              // None: this page shares nothing.
  const std::set<NodeId>* up = nullptr;  // Nodes that are not away, beside this one. None: all.
  const PlantedBugs* bugs = nullptr;
};
constexpr uint64_t kTxnsPerStep = 64;

// Hands in a message from `from`. Returns the event that it was; nothing if H1 ignored it. REQUIRES: IsForHome(kind).
std::optional<HomeEvent> StepHomeMessage(HomeEntry& entry, const Message& message, NodeInstance from,
                                         const HomeContext& context, std::vector<HomeEffect>& effects);

void StepHomeLoaded(HomeEntry& entry, Txn txn, const LoadedPage& page, const HomeContext& context,
                    std::vector<HomeEffect>& effects);
// DataLoss makes the page Lost.
void StepHomeLoadFailed(HomeEntry& entry, Txn txn, const absl::Status& status, const HomeContext& context,
                        std::vector<HomeEffect>& effects);
// `request` numbers the discard of what was allocated under `at_most` or before; kCallIn is given up when a copy is not dropped at once, its sharer staying one.
// REQUIRES of kCallIn: Unowned, clean, not reverting; `ready`.
constexpr RequestId kCallIn{};
void StepHomeDiscard(HomeEntry& entry, RequestId request, ConfigNumber at_most, const HomeContext& context,
                     std::vector<HomeEffect>& effects);
constexpr ConfigNumber kAnyConfig{UINT64_MAX};
// Every incarnation of `node` before `alive` is gone for ever.
void StepHomePeerLost(HomeEntry& entry, NodeInstance alive, const HomeContext& context,
                      std::vector<HomeEffect>& effects);
void StepHomeResend(HomeEntry& entry, const HomeContext& context, std::vector<HomeEffect>& effects);
void StepHomeReady(HomeEntry& entry, const HomeContext& context, std::vector<HomeEffect>& effects);

// Before `ready`: `report.node` holds the page. A later report of a node replaces the one before.
void Register(HomeEntry& entry, const HolderReport& report);

// The nodes whom the page's transaction waits for; empty if it is idle.
std::vector<NodeInstance> WaitsFor(const HomeEntry& entry);

bool IsForHome(MessageKind kind);
// I1 to I3, I8; false is a bug.
bool Consistent(const HomeEntry& entry);
const char* Name(HomeState state);
const char* Name(HomeEvent event);

}  // namespace mangrove
