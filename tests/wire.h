// A wire between two nodes of one host, that shows what goes over it, and changes it.

#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace mangrove {

inline sockaddr_in LoopbackAddress(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A connection to a port of this host; -1 if there is none.
inline int ConnectTo(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in to = LoopbackAddress(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) {
    close(fd);
    return -1;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

// What a connector has sent over several connections, one after the other, cut where the next one begins.
inline std::vector<std::string> SplitAtHellos(const std::string& recorded, uint16_t protocol_version) {
  // With the version, since "MH" alone may stand anywhere.
  const std::string hello{'M', 'H', static_cast<char>(protocol_version & 0xFF),
                          static_cast<char>(protocol_version >> 8)};
  const size_t head = recorded.find(hello);
  std::vector<std::string> connections;
  for (size_t at = head; at != std::string::npos;) {
    const size_t next = recorded.find(hello, at + 1);
    connections.push_back(recorded.substr(at - head, next == std::string::npos ? next : next - at));
    at = next;
  }
  return connections;
}

// Listens on a port of this host and hands every connection's bytes on to another, both ways.
class Wire {
 public:
  // Sees bytes as they come, and may change them; `from` 0: from who has connected. False: the connection is cut behind them.
  // Called on a thread of the wire.
  using Alter = std::function<bool(int from, std::string& bytes)>;
  Wire(int to_port, Alter alter) : to_port_(to_port), alter_(std::move(alter)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at = LoopbackAddress(0);
    socklen_t length = sizeof(at);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&at), length) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &length) != 0) {
      throw std::runtime_error("no port for a wire");
    }
    port_ = ntohs(at.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;
  ~Wire() {
    ending_ = true;
    thread_.join();
    close(listener_);
    for (const Pair& pair : pairs_) {
      close(pair.ends[0]);
      close(pair.ends[1]);
    }
  }
  int port() const { return port_; }

 private:
  struct Pair {
    int ends[2];
  };
  void Run() {
    while (!ending_) {
      std::vector<pollfd> fds{{listener_, POLLIN, 0}};
      for (const Pair& pair : pairs_) {
        for (const int fd : pair.ends) fds.push_back({fd, POLLIN, 0});
      }
      if (poll(fds.data(), fds.size(), 50) <= 0) continue;
      for (size_t i = pairs_.size(); i-- > 0;) {
        bool open = true;
        for (const int from : {0, 1}) {
          if (open && fds[1 + 2 * i + static_cast<size_t>(from)].revents != 0) open = Forward(pairs_[i], from);
        }
        if (open) continue;
        for (const int fd : pairs_[i].ends) close(fd);
        pairs_.erase(pairs_.begin() + static_cast<std::ptrdiff_t>(i));
      }
      if (fds[0].revents != 0) Accept();
    }
  }
  void Accept() {
    const int from = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (from < 0) return;
    const int to = ConnectTo(to_port_);
    if (to < 0) {
      close(from);
      return;
    }
    pairs_.push_back({{from, to}});
  }
  // False: the connection has ended.
  bool Forward(const Pair& pair, int from) {
    std::string bytes(size_t{64} << 10, '\0');
    const ssize_t got = recv(pair.ends[from], bytes.data(), bytes.size(), 0);
    if (got <= 0) return false;
    bytes.resize(static_cast<size_t>(got));
    const bool go_on = alter_(from, bytes);
    for (size_t sent = 0; sent < bytes.size();) {
      const ssize_t n = send(pair.ends[1 - from], bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return go_on;
  }

  const int to_port_;
  const Alter alter_;
  int port_ = 0;
  int listener_ = -1;
  std::vector<Pair> pairs_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

}  // namespace mangrove
