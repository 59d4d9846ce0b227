#include "engine/attach/packet_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/runtime/clock.h"

namespace mangrove {
namespace {

constexpr int kPacketType = SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC;
// Of a user's supplementary groups, NGROUPS_MAX.
constexpr size_t kMaxGroups = 65536;

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("the socket path '", path, "' has ", path.size(),
                                                   " bytes; expected 1 to ", sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(socket(AF_UNIX, kPacketType, 0));
  if (!fd.ok()) return SocketError(errno, "socket");
  return fd;
}

PacketResult ResultOf(int error) {
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM: return PacketResult::kNotNow;
    default: return PacketResult::kClosed;
  }
}

void TakeDescriptors(const msghdr& header, std::vector<UniqueFd>& out) {
  for (const cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr;
       c = CMSG_NXTHDR(const_cast<msghdr*>(&header), const_cast<cmsghdr*>(c))) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      out.emplace_back(fd);
    }
  }
}

}  // namespace

absl::Status SocketError(int error, const std::string& what) { return absl::ErrnoToStatus(error, what); }

int64_t MonotonicNowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * kSecond + now.tv_nsec;
}

PacketResult SendPacket(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors) {
  CHECK(!bytes.empty() && bytes.size() <= kMaxAttachMessageBytes);
  CHECK(descriptors.size() <= kMaxAttachDescriptors);
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxAttachDescriptors)] = {};
  if (!descriptors.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(c), descriptors.data(), descriptors.size_bytes());
  }
  while (sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno != EINTR) return ResultOf(errno);
  }
  return PacketResult::kDone;
}

namespace {

PacketResult Receive(int socket, ReceivedPacket& packet, int flags) {
  packet.size = 0;
  packet.descriptors.clear();
  iovec part{packet.buffer, sizeof(packet.buffer)};
  // Room for more descriptors than allowed, so that too many are seen, and closed, instead of lost.
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * (kMaxAttachDescriptors + 1))];
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t size;
  bool reset = false;
  while ((size = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | flags)) < 0) {
    // A side that closes without having read everything resets the connection; what it sent before is still to be had.
    const bool again = errno == ECONNRESET ? !std::exchange(reset, true) : errno == EINTR && flags == MSG_DONTWAIT;
    if (again) continue;
    // Who waits looks at its deadline first.
    return errno == EINTR ? PacketResult::kNotNow : ResultOf(errno);
  }
  TakeDescriptors(header, packet.descriptors);
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || packet.descriptors.size() > kMaxAttachDescriptors) {
    packet.descriptors.clear();
    return PacketResult::kMalformed;
  }
  // No packet of ours is empty: this is the end of the connection.
  if (size == 0) return PacketResult::kClosed;
  packet.size = static_cast<size_t>(size);
  return PacketResult::kDone;
}

}  // namespace

PacketResult ReceivePacket(int socket, ReceivedPacket& packet) { return Receive(socket, packet, MSG_DONTWAIT); }

PacketResult AwaitPacket(int socket, ReceivedPacket& packet) { return Receive(socket, packet, 0); }

absl::Status LetReceiveWait(int socket) {
  const timeval timeout{.tv_sec = 0, .tv_usec = kReceiveWaitNs / kMicrosecond};
  const int flags = fcntl(socket, F_GETFL);
  if (flags >= 0 && fcntl(socket, F_SETFL, flags & ~O_NONBLOCK) == 0 &&
      setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0) {
    return absl::OkStatus();
  }
  return SocketError(errno, "a socket that waits");
}

bool WaitForSocket(int socket, short events, int64_t deadline_ns) {
  pollfd wait{socket, events, 0};
  for (;;) {
    const int64_t left_ns = deadline_ns - MonotonicNowNs();
    if (left_ns <= 0) return false;
    const timespec timeout{static_cast<time_t>(left_ns / kSecond), static_cast<long>(left_ns % kSecond)};
    const int ready = ppoll(&wait, 1, &timeout, nullptr);
    if (ready > 0) return true;
    CHECK(ready == 0 || errno == EINTR || errno == ENOMEM);
  }
}

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> PacketSocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, kPacketType, 0, ends) != 0) return SocketError(errno, "socketpair");
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

absl::StatusOr<UniqueFd> ConnectPacketSocket(const std::string& path) {
  auto address = AddressOf(path);
  if (!address.ok()) return address.status();
  auto fd = NewSocket();
  if (!fd.ok()) return fd.status();
  if (connect(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) == 0) return fd;
  const int error = errno;
  switch (error) {
    case ENOENT:
    case ECONNREFUSED:
    case EAGAIN:  // Its queue of connections is full: it does not accept.
      return absl::UnavailableError(absl::StrCat("no daemon serves ", path, ": ", std::strerror(error)));
    case EPROTOTYPE:
      return absl::FailedPreconditionError(
          absl::StrCat(path, " is a socket of another kind, not that of a Mangrove daemon"));
    default: return SocketError(error, absl::StrCat("connect to ", path));
  }
}

absl::StatusOr<UniqueFd> ListenPacketSocket(const std::string& path, int backlog) {
  auto address = AddressOf(path);
  if (!address.ok()) return address.status();
  auto fd = NewSocket();
  if (!fd.ok()) return fd.status();
  if (bind(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0) {
    return SocketError(errno, absl::StrCat("bind to ", path));
  }
  // What a program may do, the regions' modes say.
  if (chmod(path.c_str(), 0666) != 0) return SocketError(errno, absl::StrCat("chmod of ", path));
  if (listen(fd->get(), backlog) != 0) return SocketError(errno, absl::StrCat("listen at ", path));
  return fd;
}

bool IsServed(const std::string& path) {
  auto address = AddressOf(path);
  auto fd = NewSocket();
  if (!address.ok() || !fd.ok()) return false;
  if (connect(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) == 0) return true;
  return errno != ENOENT && errno != ECONNREFUSED;
}

absl::StatusOr<Peer> PeerOf(int socket) {
  ucred who{};
  socklen_t size = sizeof(who);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return SocketError(errno, "SO_PEERCRED");
  Peer peer{who.pid, {who.uid, who.gid, {}}};
  std::vector<gid_t>& groups = peer.credentials.groups;
  for (groups.resize(32);; groups.resize(size / sizeof(gid_t))) {
    size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0) break;
    // The size that is needed comes back with the error.
    if (errno != ERANGE || size > kMaxGroups * sizeof(gid_t)) return SocketError(errno, "SO_PEERGROUPS");
  }
  groups.resize(size / sizeof(gid_t));
  return peer;
}

}  // namespace mangrove
