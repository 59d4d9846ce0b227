// Unix sockets of packets (SOCK_SEQPACKET) that carry descriptors; the errnos of sockets are translated here.
//
// Packets keep their borders, are sent whole or not at all, by any thread, and a descriptor belongs to its packet.
// Every socket is closed on exec, and non-blocking but for LetReceiveWait.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/attach/attach_messages.h"
#include "engine/mapping/unique_fd.h"
#include "engine/node_operations.h"
#include "net/runtime/clock.h"

namespace mangrove {

enum class PacketResult : uint8_t {
  kDone,
  kNotNow,     // The other side does not read, or has not sent.
  kClosed,     // The other side is gone.
  kMalformed,  // Receiving only: a packet or its descriptors are more than allowed. It has been dropped.
};

struct ReceivedPacket {
  alignas(8) std::byte buffer[kMaxAttachMessageBytes];
  size_t size = 0;
  std::vector<UniqueFd> descriptors;

  std::span<const std::byte> bytes() const { return {buffer, size}; }
};

// `descriptors` stay the caller's. Neither waits.
PacketResult SendPacket(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors = {});
PacketResult ReceivePacket(int socket, ReceivedPacket& packet);
// Waits in the one system call that receives. REQUIRES: LetReceiveWait. kNotNow: nothing came in `kReceiveWaitNs`.
PacketResult AwaitPacket(int socket, ReceivedPacket& packet);
constexpr int64_t kReceiveWaitNs = 100 * kMillisecond;
absl::Status LetReceiveWait(int socket);

// Waits until the socket is ready for `events` (of poll), or hung up, or `deadline_ns` of CLOCK_MONOTONIC has passed.
// False: the deadline.
bool WaitForSocket(int socket, short events, int64_t deadline_ns);
// CLOCK_MONOTONIC, the same for all processes of a host.
int64_t MonotonicNowNs();

// A connected pair.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> PacketSocketPair();
// Unavailable names the path when nobody listens there, PermissionDenied when the path may not be reached.
absl::StatusOr<UniqueFd> ConnectPacketSocket(const std::string& path);
// Listens at `path`; anybody may connect. REQUIRES: nothing is there.
absl::StatusOr<UniqueFd> ListenPacketSocket(const std::string& path, int backlog);
// True if somebody accepts connections there.
bool IsServed(const std::string& path);

struct Peer {
  pid_t pid = 0;
  Credentials credentials;
};
// Who connected, as the kernel has it from the moment of the connection.
absl::StatusOr<Peer> PeerOf(int socket);

// Status for an errno: the canonical code nearest to it, and "what: text of the error".
absl::Status SocketError(int error, const std::string& what);

}  // namespace mangrove
