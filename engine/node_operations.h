// What a node does for local programs: the operations behind the public interface, asynchronous, on the loop.
//
// Implemented by the node (engine/node.cc); called by embedded sessions, by the server of attached programs
// (engine/attach/) and by fault workers (engine/mapping/).

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mangrove.h"
#include "engine/page_memory.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class Transactions;  // engine/transactions/transactions.h

// Who asks. Of an attached program: what the kernel says of its socket's other end.
struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // Supplementary.
};

// One local program (a process that is attached, or the embedding one). What it holds is given back when it ends.
using ClientId = uint64_t;

// A region as the table has it, and what the caller may do.
struct OpenedRegion {
  RegionInfo info;
  PageRange pages;
  bool may_write = false;
  bool is_owner = false;
  std::vector<PageRange> kept_in_ram;  // Of its pages, as PageAttributes says,
  std::vector<PageRange> migratory;    // and these.
};

// `deadline` everywhere: on the loop's clock; past it the operation ends with Unavailable or DeadlineExceeded.
// Ranges are of one region. All errors as engine/mangrove.h says.
class NodeOperations {
 public:
  virtual ~NodeOperations() = default;

  virtual Task<absl::StatusOr<OpenedRegion>> Reserve(Credentials who, RegionOptions options, TimeNs deadline) = 0;
  virtual Task<absl::StatusOr<OpenedRegion>> Open(Credentials who, std::string name, AccessMode mode,
                                                  TimeNs deadline) = 0;
  virtual Task<absl::Status> Free(Credentials who, std::string name, TimeNs deadline) = 0;
  virtual Task<absl::StatusOr<std::vector<RegionInfo>>> ListRegions(TimeNs deadline) = 0;
  virtual Task<absl::StatusOr<SpaceTotals>> Space(TimeNs deadline) = 0;

  virtual Task<absl::Status> Allocate(Credentials who, PageRange range, AllocateOptions options, TimeNs deadline) = 0;
  // For who uses pages only where PeerEviction::HasDiskRoom, or to free others: it is not refused for want of room.
  virtual Task<absl::Status> AllocateAhead(Credentials who, PageRange range, AllocateOptions options,
                                           TimeNs deadline) = 0;
  virtual Task<absl::Status> Unallocate(Credentials who, PageRange range, TimeNs deadline) = 0;
  virtual Task<absl::StatusOr<PageAttributes>> GetAttributes(PageId page, TimeNs deadline) = 0;
  virtual Task<absl::Status> SetAttributes(Credentials who, PageRange range, PageAttributesChange change,
                                           TimeNs deadline) = 0;
  // Below, a range of more than PageEngine::kBlockPages pages is refused so too.
  // OK when all of `range` is allocated; FailedPrecondition names the first page that is not.
  virtual Task<absl::Status> CheckAllocated(PageRange range, TimeNs deadline) = 0;

  // Brings the pages here with at least `rights`, in few messages. When it returns OK every page had them at some
  // moment since the call, which may have passed.
  virtual Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline) = 0;
  // The same, and holds them until Unlock or EndClient. DeadlineExceeded when a lock of someone else is in the way.
  virtual Task<absl::StatusOr<uint64_t>> Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) = 0;
  virtual absl::Status Unlock(ClientId client, uint64_t lock_id) = 0;
  virtual Task<absl::Status> Flush(PageRange range, TimeNs deadline) = 0;

  // What the node says of itself, for operators and their programs: a JSON document. `what` is "status", "nodes",
  // "regions" or "page" with the address as `argument`. InvalidArgument for anything else.
  virtual Task<absl::StatusOr<std::string>> Inspect(std::string what, std::string argument, TimeNs deadline) = 0;

  // Has the cluster do something with the node that `argument` names: "drain", "undrain" (it is to leave for good, or not any more),
  // "give up node" (it never comes back, if " confirmed" is behind its name; otherwise the answer is what would be lost), or "set": `argument`
  // is {"node": name, "votes": number, "address": text} then, the last two only if they change. OK with this node's status when the cluster has taken it up.
  // PermissionDenied: only root and the daemon's user may. FailedPrecondition says why it cannot be.
  // Or "set region": `argument` is {"region": name, "without_quorum": "refuse" or "read"}; OK with the document of the regions.
  // PermissionDenied: only the region's owner and root may.
  virtual Task<absl::StatusOr<std::string>> Operate(Credentials who, std::string what, std::string argument,
                                                    TimeNs deadline) = 0;
  static bool IsOperation(const std::string& what);

  // Of this node. Null: it has none.
  virtual Transactions* transactions() { return nullptr; }

  // `client` is gone: everything it held is given back.
  virtual void EndClient(ClientId client) = 0;

  // Regions' events (reverted, lost pages) of ranges that somebody here has open, in global addresses.
  struct Event {
    RegionEvent::Kind kind;
    PageRange range;
  };
  using EventSink = absl::AnyInvocable<void(const Event&)>;
  virtual uint64_t AddEventSink(EventSink sink) = 0;
  virtual void RemoveEventSink(uint64_t sink_id) = 0;
};

}  // namespace mangrove
