// One attached program, as its daemon sees it: its connection, and what it has open. Belongs to AttachServer.
//
// States: awaiting hello → serving → ended → forgotten. In every state before `forgotten` the socket is watched for hang-up, so a
// program's death is seen at once; the process itself is watched too (pidfd), since a child of fork that it left behind
// may hold the socket open. Requests under way at the end run on; their results are dropped, and a lock that is
// granted then is given back.
//
// A program that the daemon ends, and not the other way round, may still have mapped what it had: it is `ended` until it hangs up or
// dies (S4), and forgotten at once if it had nothing mapped.
//
// Owned by the loop.

#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/attach/attach_codec.h"
#include "engine/attach/attach_messages.h"
#include "engine/attach/packet_socket.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/mapping/unique_fd.h"
#include "engine/node_operations.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class AttachServer;

class AttachedClient : public std::enable_shared_from_this<AttachedClient> {
 public:
  AttachedClient(AttachServer* server, ClientId id, Peer peer, UniqueFd socket);
  ~AttachedClient();

  void Start();
  // Ends and forgets it: it has hung up, or is dead, or the server stops.
  void Close(const absl::Status& why);
  // It is to seal what it has mapped, and forgotten when it has hung up; at once if that is nothing.
  void CutOff();
  // The program's regions that have pages of the event are told.
  void OnRegionEvent(const NodeOperations::Event& event);
  const Credentials& credentials() const { return peer_.credentials; }

 private:
  struct OpenRegion {
    OpenedRegion opened;
    std::shared_ptr<RegionFrames> frames;
    std::array<std::optional<MappingId>, kMappingUses> mappings;  // By MappingUse.
  };
  static constexpr size_t kMaxLists = 4;  // At once; their results are held until they are sent.

  struct Outgoing {
    AttachBytes bytes;
    std::vector<UniqueFd> descriptors;
  };
  using Descriptors = std::vector<UniqueFd>;

  // --- The connection (attached_client.cc) ---
  void OnSocket(uint32_t events);
  void OnEventsSocket(uint32_t events);
  void WatchProcess();
  void ReadPackets();
  void OnHello(const ReceivedPacket& packet);
  absl::Status Welcome();
  void OnRequest(ReceivedPacket& packet);
  // Complains, and ends it.
  void Refuse(const absl::Status& why);
  // Nothing is done for it any more, and what it has here is given back; it is told `why` if it still reads.
  void End(const absl::Status& why);
  void Forget();
  bool HasMapped() const;
  void Send(const AttachReply& reply, Descriptors descriptors = {});
  PacketResult SendNow(const Outgoing& packet);
  void Flush();
  void FlushEvents();
  uint32_t WantedEvents() const;

  // --- The requests (attached_requests.cc). Those that wait are applets; the others answer in the call. ---
  void Dispatch(AttachRequest request, Descriptors descriptors);
  template <typename T>
  void Run(uint64_t id, Task<absl::StatusOr<T>> task);
  void Run(uint64_t id, Task<absl::Status> task);
  void RunOpen(uint64_t id, Task<absl::StatusOr<OpenedRegion>> task);
  void RunList(uint64_t id, Task<absl::StatusOr<std::vector<RegionInfo>>> task);
  void RunText(uint64_t id, Task<absl::StatusOr<std::string>> task);
  void RunLock(uint64_t id, Task<absl::StatusOr<uint64_t>> task);
  void Finish(uint64_t id, const absl::Status& status);

  void Do(uint64_t id, TimeNs deadline, ReserveCall call);
  void Do(uint64_t id, TimeNs deadline, OpenCall call);
  void Do(uint64_t id, TimeNs deadline, CloseCall call);
  void Do(uint64_t id, TimeNs deadline, FreeCall call);
  void Do(uint64_t id, TimeNs deadline, ListCall call);
  void Do(uint64_t id, TimeNs deadline, SpaceCall call);
  void Do(uint64_t id, TimeNs deadline, AllocateCall call);
  void Do(uint64_t id, TimeNs deadline, UnallocateCall call);
  void Do(uint64_t id, TimeNs deadline, GetAttributesCall call);
  void Do(uint64_t id, TimeNs deadline, SetAttributesCall call);
  void Do(uint64_t id, TimeNs deadline, CheckAllocatedCall call);
  void Do(uint64_t id, TimeNs deadline, AcquireCall call);
  void Do(uint64_t id, TimeNs deadline, LockCall call);
  void Do(uint64_t id, TimeNs deadline, UnlockCall call);
  void Do(uint64_t id, TimeNs deadline, FlushCall call);
  void Do(uint64_t id, TimeNs deadline, HealCall call);
  void Do(uint64_t id, TimeNs deadline, CountersCall call);
  void Do(uint64_t id, TimeNs deadline, InspectCall call);
  // --- Transactions (attached_transactions.cc) ---
  void Do(uint64_t id, TimeNs deadline, BeginCall call);
  void Do(uint64_t id, TimeNs deadline, ReadInCall call);
  void Do(uint64_t id, TimeNs deadline, WriteInCall call);
  void Do(uint64_t id, TimeNs deadline, EndTransactionCall call);
  void Do(uint64_t id, TimeNs deadline, ReadLogCall call);
  absl::StatusOr<GlobalAddress> AddressOf(const BytesOfPage& bytes, bool for_writing);
  absl::Status DoMap(const MapCall& call, UniqueFd userfaultfd);
  void StopServing(const OpenRegion& region) const;

  absl::StatusOr<OpenRegion*> Find(RegionHandle region);
  // The pages in the global space; `for_writing` needs a region that is open for it.
  absl::StatusOr<PageRange> RangeOf(const RegionPages& pages, bool for_writing = false);
  absl::StatusOr<AttachReply> AdmitRegion(uint64_t id, OpenedRegion opened, Descriptors& descriptors);
  absl::StatusOr<RegionCounters> CountersOf(RegionHandle region);

  AttachServer* const server_;
  const ClientId id_;
  const Peer peer_;
  UniqueFd socket_;
  UniqueFd events_socket_;
  UniqueFd process_;
  Clock::TimerId hello_timer_ = 0;
  bool serving_ = false;
  bool ended_ = false;
  bool is_forgotten_ = false;
  bool is_cut_off_ = false;

  size_t requests_ = 0;
  size_t lists_ = 0;
  std::deque<Outgoing> outgoing_;
  size_t queued_bytes_ = 0;
  uint32_t watched_events_ = 0;

  RegionHandle next_region_ = 1;
  std::map<RegionHandle, OpenRegion> regions_;
  // What the events' socket had no room for, joined to one range for each region and kind.
  std::map<std::pair<RegionHandle, RegionEvent::Kind>, PageRange> waiting_events_;
  bool waiting_for_events_socket_ = false;
};

}  // namespace mangrove
