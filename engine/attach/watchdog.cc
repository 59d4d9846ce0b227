#include "engine/attach/watchdog.h"

#include <poll.h>
#include <sys/socket.h>

#include <utility>

#include "engine/attach/attach_codec.h"
#include "engine/attach/library_thread.h"
#include "engine/attach/packet_socket.h"

namespace mangrove {

Watchdog::Watchdog(UniqueFd events_socket, DeadlineView deadline, Actions actions)
    : events_socket_(std::move(events_socket)), deadline_(std::move(deadline)), actions_(std::move(actions)) {
  thread_ = StartLibraryThread([this] { Run(); });
}

Watchdog::~Watchdog() {
  ending_.store(true);
  shutdown(events_socket_.get(), SHUT_RDWR);
  thread_.join();
}

void Watchdog::Run() {
  for (;;) {
    const int64_t deadline_ns = deadline_.Get();
    const bool alive = MonotonicNowNs() < deadline_ns;
    const bool readable = alive && WaitForSocket(events_socket_.get(), POLLIN, deadline_ns);
    if (ending_.load()) return;
    if (!alive || (readable && !ReadEvents())) return actions_.cut_off();
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
    if (MonotonicNowNs() >= deadline_.Get()) return true;
  }
}

}  // namespace mangrove
