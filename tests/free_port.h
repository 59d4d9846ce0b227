// Ports of this host for nodes that a test or a benchmark starts.

#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace mangrove {

// Whether this process may have the port of `type` (SOCK_STREAM, SOCK_DGRAM) on loopback. `keep`: holds it as long as it lives.
inline bool BindsPort(int type, uint16_t port, bool keep) {
  const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  if (!bound || !keep) close(fd);
  return bound;
}

// A TCP port on which nobody listens, and that no other caller gets while this process lives: the UDP port of the same number
// says that it is taken. It lies outside of the range from which outgoing connections take theirs.
inline uint16_t FreePort() {
  std::random_device entropy;
  std::uniform_int_distribution<int> any(20'000, 31'999);
  for (int tries = 0; tries < 10'000; ++tries) {
    const auto port = static_cast<uint16_t>(any(entropy));
    if (BindsPort(SOCK_DGRAM, port, true) && BindsPort(SOCK_STREAM, port, false)) return port;
  }
  std::fprintf(stderr, "no port between 20000 and 31999 is free\n");
  std::abort();
}

}  // namespace mangrove
