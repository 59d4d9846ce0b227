// Messages between nodes about pages. directory/messages.capnp is the document of the wire form; directory/codec.h is
// the only place that knows it.
//
// Roles: R requester (its cache), H the page's responsible node, O its owner, S a sharer, F who flushes, C a core
// holder, A who allocates. Several messages for one node travel together in one transport message.
//
// Every message may be lost, doubled and delayed past later ones. What makes that harmless:
//   - `txn`: the responsible node numbers its transactions; a page has one at a time. Numbers grow, also over restarts and
//     from one responsible node to the next, so a cache can tell what is stale.
//   - `request`: the requester's number of one request, new for each; an answer that matches none outstanding is refused.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "directory/address.h"
#include "directory/version.h"
#include "net/ids.h"
#include "net/page_buffer.h"

namespace mangrove {

// Number of a transaction of a responsible node: the view's epoch in the upper 24 bits, a count in the lower 40.
using Txn = StrongId<struct TxnTag>;
// Number of a request of one incarnation of a requester. 0 is none.
using RequestId = StrongId<struct RequestIdTag>;

enum class Access : uint8_t {
  kRead = 0,
  kWrite = 1,
  kMove = 2,  // The owner's copy as it is, which its owner has no room for: no version begins.
};

// What a cache holds of a page, as it reports it to the responsible node.
enum class Holding : uint8_t {
  kNone = 0,
  kShared = 1,    // A read copy.
  kOwner = 2,     // The owner's copy.
  kRetained = 3,  // What it gave up in a transfer that it does not know to be complete.
};

enum class MessageKind : uint8_t {
  // A page's transaction. Fields beside page and txn:
  kRequest = 0,      // R→H  request, access, count, have (holds a read copy). No txn.
  kCancel,           // R→H  request: nobody waits any more. No txn.
  kRequestFailed,    // H→R  request, status. No txn.
  kDelayed,          // H→R  request, peer: whom the responsible node waits for. No txn.
  kForward,          // H→O  request, access, peer = R, active, grant_epoch: send the page to R. The read: keep a read
                     //      copy; the write, the move: keep the frame, inaccessible, until kTransferDone. Of a move
                     //      exclusive: nobody else has a copy.
  kInvalidate,       // H→S,O  retain: keep the frame as above.
  kInvalidateAck,    // S,O→H
  kGrant,            // O,H→R  request, access, version, flushed, grant_epoch, config, replicas, active, exclusive,
                     //      owner, data (none: R's own copy is current).
  kActivate,         // H→R  request: every other copy is gone, the grant counts.
  kGrantAck,         // R→H  Installed.
  kGrantRefused,     // R→H  Not installed, and never will be. O→H, of a move: not given away.
  kTransferDone,     // H→O  Drop what was retained.
  kTransferAborted,  // H→O  It is yours again.
  kStillRetained,    // O→H  Is this transfer over?
  kNotHeld,          // O→H  Nothing to forward here.
  kEvictRequest,  // O→H  No txn. The owner wants to drop its copy, which can be read again. S→H  So does a sharer,
                  //      whose copy may be the last.
  kEvictGrant,    // H→O
  kEvictAck,      // O→H  kept: it did not drop it.
  // Recovery of a page after the loss of a node.
  kReport,      // H→*  Say what you hold; forget every earlier transaction of the page.
  kReported,    // *→H  holding, version, flushed
  kResolve,     // H→*  holding: what it is from now on; grant_epoch. complete: every core holder has it.
  kResolveAck,  // *→H
  // A node that becomes responsible for a segment, and is not the first, learns what is cached of it. request: number of
  // the round.
  kRegisterRequest,  // H→*  page: of the segment.
  kRegister,         // *→H  holding, version, config
  kRegisterEnd,  // *→H  count: of kRegister messages in the round; txn, grant_epoch: the highest that it has seen. kept:
                 //      it has given pages of the segment away that may not be on the disks.
  // Flush.
  kFlush,    // F→H, H→O  request, peer = F; F→H  count: is there anything to flush at all?
  kFlushed,  // O,H→F  request, status. Aborted: the owner has changed, ask again; of several pages: ask for each.
  // Core holders.
  kStore,        // O,H→C  request, version, config, data, complete (written by recovery)
  kStored,       // C→O,H  request, version: what it has now, status
  kQueryStored,  // H→C  request, grant_epoch: refuse stores of older epochs from now on, if seal; with_data
  kStoredInfo,   // C→H  request, status (NotFound: no such extent here; DataLoss: corrupt), version, config,
                 //      replicas, is_volatile, have (a record), complete (no record means zeros), data
  kPutExtent,    // A,H→C  request, count, config, replicas, is_volatile: the range is allocated, all zeros;
                 //        complete: it was so before.
  kDropExtent,  // A→C  request, count, config: the range is not allocated any more. complete: what of it is in doubt.
  kDone,        // →    request, status. Answers the two before, kDropCopies, kMoved and kWentBack.
  // News for everybody.
  kReverted,  // H→*  count
  kLost,      // H→*  count
  // For operators: what a node knows of a page and of itself.
  kInspect,    // any→any  request
  kInspected,  // any→any  request, data: a JSON document, padded with zeros.
  // A page's transaction again.
  kTransferDropped,  // O→H  Answers kTransferDone: nothing of the transfer is kept here any more. Not urgent.
  // Ranges.
  kQueryExtent,  // H→C  request, grant_epoch: since when H serves the segment. Which extent is the page in?
  kExtentInfo,   // C→H  request, status (NotFound: in none), page, count: the extent; config, replicas, is_volatile;
                 //      complete: nothing of it was ever stored, and none but H, since then, was told so.
  kDropCopies,  // A→H  request, count, config: the range is being unallocated; drop every copy in RAM, and never open it
                //      from disk again. Before kDropExtent.
  // The directory.
  kNotResponsible,  // any→R  page: of the segment. Ask the directory who is.
  kClaimRequest,    // any→any  request, data: an interval. What do you claim of it? No page.
  kClaims,  // any→any  request, count, data: claims; txn, grant_epoch: the highest that it has seen. page: where the
            //          rest begins, 0: there is none.
  kRetire,  // any→H  page: of the directory, and no part of it any more.
  // Responsibility for a segment moves, see engine/move_segment.cc. No txn of a page. page: the segment's first.
  kMoveOffer,  // H→R  You ask for it more than anybody else: take it.
  kHandOver,  // R→H  request, count: which part, from 1 on; config: number of the hand-over, of parts after the first. Serve
              //      nothing of the segment any more, and say what you know of it.
  kHandedOver,  // H→R  request, status, data: the part, count: of so many; config: number of the hand-over; txn, grant_epoch: the
                //      highest that it has seen; kept: some node has given pages of it away, as above.
  kMoved,  // R→H  request, config, status: it is mine now, or it stays yours.
  // Eviction to another node's RAM.
  kResources,  // any→any  count: frames with room for other nodes' pages; version.counter: free bytes of its disk;
               //          replicas: its load, pages in a second. No page.
  kOffer,  // O→H, H→any  O has no room for the page: peer has, or a sharer. Then, kept: take it, if there is still room;
           //             peer = O. replicas: how often it has moved so since it was used. A hint.
  kDeclined,  // any→O  There is no room for the page that was offered.
  // A disk that is behind catches up (engine/catch_up.h).
  kListStored,  // C→C  request, page: from there on, maybe 0. What do you have of the ranges that both keep? with_data:
                //      which pages, in which versions; otherwise which extents.
  kStoredList,  // C→C  request, data: a part of it (engine/stored_list.h); page: where the next begins, 0: there is none.
  // Level 2.
  kWentBack,  // H→*  request, version, config: nothing newer was found of the page; grant_epoch: of the grants that follow.
};
constexpr int kMessageKinds = static_cast<int>(MessageKind::kWentBack) + 1;

// One message, or a run of them: the union of the fields above. What a kind does not name has its default.
struct Message {
  MessageKind kind = MessageKind::kRequest;
  PageId page;
  uint32_t repeat =
      1;  // More than one: a run, see directory/page_run.h; data is that of all pages, one behind the other.
  uint64_t count = 1;
  Txn txn;
  RequestId request;
  NodeInstance peer;
  Access access = Access::kRead;
  Holding holding = Holding::kNone;
  Version version;
  Version flushed;
  Epoch grant_epoch;
  ConfigNumber config;
  uint32_t replicas = 0;
  bool active = false;
  bool have = false;
  bool exclusive = false;
  bool owner = false;
  bool retain = false;
  bool kept = false;
  bool seal = false;
  bool complete = false;
  bool with_data = false;
  bool is_volatile = false;
  bool hurry = false;  // Of kForward and kGrant: others wait for the page.
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string text;  // Of the error.
  PageBuffer data;

  absl::Status status() const { return absl::Status(code, text); }
  void SetStatus(const absl::Status& s) {
    code = s.code();
    text = std::string(s.message());
  }
};

const char* Name(MessageKind kind);

}  // namespace mangrove
