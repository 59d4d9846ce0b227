// The daemon's side of attached programs: accepts them at a Unix socket, and does for them what the node offers.
//
//   program → socket → AttachedClient (attached_client.h): one per connection → an applet per request → NodeOperations
//                                                                                           reply by request id ←
//
// Invariants:
//  S1  Nothing that a program sends, and nothing that it does not read, harms the node or another program: a malformed
//      packet ends that connection with an error; requests, regions and bytes of one program are limited.
//  S2  A program that is gone (its socket hangs up, or its process ends), or is refused, has its mappings removed and then
//      NodeOperations::EndClient called, once, in the same turn of the loop.
//  S3  While programs are attached the deadline page is stamped from the loop, so a loop that does not turn is noticed
//      by them within `deadline` (watchdog.h), and the end of the node's lease at once, by those that have something
//      mapped. Who is welcomed finds it stamped.
//  S4  A program that is cut off or refused hangs up when it has sealed what it had mapped (socket_backend.cc), and not before. Until
//      then, or until its process ends, it may use that, and counts as there: it may stand still, and go on later.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "engine/attach/deadline_page.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/mapping/unique_fd.h"
#include "engine/node_operations.h"
#include "net/log.h"
#include "net/runtime/loop.h"

namespace mangrove {

class AttachedClient;

// The ClientIds of attached programs begin here; below are those of the node's own process.
constexpr ClientId kFirstAttachedClient = ClientId{1} << 32;

struct AttachServerOptions {
  std::string socket_path;
  std::string node_name;
  // How far ahead the deadline page is stamped, and how often.
  DurationNs deadline = 2 * kSecond;
  DurationNs stamp_interval = 200 * kMillisecond;
  // By the loop's clock: the node has a lease on its place in the cluster until then. The deadline page says so, at the next
  // stamp: it must not go back to less. Without one nothing is mapped. Optional: for ever.
  std::function<TimeNs()> serves_until;
  // A program that connects has to say hello within this.
  DurationNs hello_timeout = 5 * kSecond;
  // No request waits longer, whatever it asks for.
  DurationNs max_request_timeout = 3600 * kSecond;

  size_t max_clients = 1024;
  size_t max_clients_per_user = 256;           // But root.
  size_t max_requests = 1024;                  // Outstanding, of one program; further ones get ResourceExhausted.
  size_t max_regions = 256;                    // Open, of one program.
  size_t max_queued_bytes = size_t{16} << 20;  // Replies that a program does not read; then it is closed.

  // Of the fault workers, see MappedClientOptions.
  int max_workers = 4;
  DurationNs spin_ns = 0;
  // For RegionCounters::pages_fetched. Optional.
  std::function<uint64_t(PageRange)> pages_fetched;
};

class AttachServer {
 public:
  // Finds the frames of an open region by one of its pages (RegionMemory::FindRegion); null when it is not here.
  using FindRegion = std::function<std::shared_ptr<RegionFrames>(PageId)>;

  // All outlive this object.
  AttachServer(Loop* loop, NodeOperations* operations, MappedClients* mapped_clients, FindRegion find_region,
               AttachServerOptions options);
  // REQUIRES: stopped, or never started.
  ~AttachServer();

  // Before the loop starts, or on the loop. Takes the place of a dead daemon's socket; FailedPrecondition names the path
  // when a living one has it.
  absl::Status Start();
  // On the loop, or after it has stopped. Ends every connection. Requests under way end in nothing.
  void Stop();

  // On the loop, before Stop. Nobody connects any more, every program is to give up what it has mapped, and is closed when it
  // has. `done`: whether all have; false when some have not within `patience`: they do at the latest when what the deadline page said
  // last has passed. It runs once, on the loop, also in this call; after Stop not at all.
  void CutOff(DurationNs patience, absl::AnyInvocable<void(bool all_have)> done);
  // The lease has changed: programs see it now, and not at the next stamp.
  void OnLease();

  size_t clients() const { return clients_.size(); }

 private:
  friend class AttachedClient;

  absl::Status TakeSocketPath();
  void OnConnections();
  void PauseAccepting();
  void StopAccepting();
  void Accept(UniqueFd socket);
  absl::Status Admit(uid_t uid) const;
  absl::Status CheckLease() const;
  void Stamp();
  void SetDeadline();
  void OnRegionEvent(const NodeOperations::Event& event);
  // From the client: nothing is mapped there any more, or this server stops.
  void Forget(ClientId client);
  void EndCutOff(bool all_have);
  // Once per kind of complaint and user.
  void Complain(uid_t uid, const absl::Status& status);

  Loop* const loop_;
  NodeOperations* const operations_;
  MappedClients* const mapped_clients_;
  const FindRegion find_region_;
  const AttachServerOptions options_;

  bool started_ = false;
  UniqueFd lock_file_;
  UniqueFd listening_;
  std::optional<DeadlineStamp> deadline_;
  Clock::TimerId stamp_timer_ = 0;
  Clock::TimerId accept_timer_ = 0;
  uint64_t event_sink_ = 0;
  bool is_cut_off_ = false;
  absl::AnyInvocable<void(bool)> cut_off_done_;
  Clock::TimerId cut_off_timer_ = 0;
  ClientId next_client_ = kFirstAttachedClient;
  std::map<ClientId, std::shared_ptr<AttachedClient>> clients_;
  absl::flat_hash_map<uid_t, size_t> clients_of_user_;
  LogOnce log_once_;
};

}  // namespace mangrove
