#include "engine/attach/watchdog.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "engine/attach/attach_codec.h"
#include "engine/attach/library_thread.h"
#include "engine/attach/packet_socket.h"

namespace mangrove {
namespace {

constexpr int64_t kLookForLeaseNs = 20'000'000;

}  // namespace

Watchdog::Watchdog(UniqueFd events_socket, DeadlineView deadline, Actions actions)
    : events_socket_(std::move(events_socket)), deadline_(std::move(deadline)), actions_(std::move(actions)) {
  thread_ = StartLibraryThread([this] { Run(); });
}

Watchdog::~Watchdog() {
  ending_.store(true);
  shutdown(events_socket_.get(), SHUT_RDWR);
  thread_.join();
}

int64_t Watchdog::WaitsUntil() const {
  const int64_t now = MonotonicNowNs();
  const int64_t deadline_ns = deadline_.deadline_ns();
  const int64_t lease_ns = deadline_.lease_ns();
  if (now >= deadline_ns) return 0;
  if (now < lease_ns) return actions_.begin_lease() ? std::min(deadline_ns, lease_ns) : 0;
  // It may map something else, or store, as soon as there is a lease again.
  return actions_.end_lease() ? std::min(deadline_ns, now + kLookForLeaseNs) : 0;
}

void Watchdog::Run() {
  for (;;) {
    const int64_t until_ns = WaitsUntil();
    const bool readable = until_ns != 0 && WaitForSocket(events_socket_.get(), POLLIN, until_ns);
    if (ending_.load()) return;
    if (until_ns == 0 || (readable && !ReadEvents())) return actions_.cut_off();
  }
}

bool Watchdog::ReadEvents() {
  for (;;) {
    ReceivedPacket packet;
    switch (ReceivePacket(events_socket_.get(), packet)) {
      case PacketResult::kNotNow: return true;
      case PacketResult::kDone: break;
      default: return ending_.load();
    }
    const auto event = DecodeEvent(packet.bytes());
    if (!event.ok()) return false;
    actions_.on_event(*event);
    // A daemon that floods us is to be looked at as well.
    if (MonotonicNowNs() >= std::min(deadline_.deadline_ns(), deadline_.lease_ns())) return true;
  }
}

}  // namespace mangrove
