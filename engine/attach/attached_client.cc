#include "engine/attach/attached_client.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach_server.h"
#include "net/check.h"

// Debian 12's header lacks it.
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace mangrove {
namespace {

// Of one program in one turn of the loop, so that the others get theirs.
constexpr int kMaxPacketsPerTurn = 16;
constexpr uint32_t kHangUp = EPOLLHUP | EPOLLRDHUP | EPOLLERR;

UniqueFd OpenProcess(int socket, pid_t pid) {
  int fd = -1;
  socklen_t size = sizeof(fd);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) return UniqueFd(fd);
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

// The smallest range that has both.
PageRange Join(PageRange a, PageRange b) {
  const PageId first = std::min(a.first, b.first);
  return {first, std::max(a.end() - first, b.end() - first)};
}

}  // namespace

AttachedClient::AttachedClient(AttachServer* server, ClientId id, Peer peer, UniqueFd socket)
    : server_(server), id_(id), peer_(std::move(peer)), socket_(std::move(socket)) {}

AttachedClient::~AttachedClient() { CHECK(is_forgotten_); }

void AttachedClient::Start() {
  watched_events_ = WantedEvents();
  server_->loop_->AddFd(socket_.get(), watched_events_, [self = shared_from_this()](uint32_t e) { self->OnSocket(e); });
  hello_timer_ =
      server_->loop_->CallAt(server_->loop_->Now() + server_->options_.hello_timeout, [self = shared_from_this()] {
        self->hello_timer_ = 0;
        self->End(absl::DeadlineExceededError("no hello"));
      });
  WatchProcess();
}

void AttachedClient::WatchProcess() {
  process_ = OpenProcess(socket_.get(), peer_.pid);
  // Without it the socket's hang-up has to do.
  if (!process_.ok()) return;
  server_->loop_->AddFd(process_.get(), EPOLLIN, [self = shared_from_this()](uint32_t) {
    self->Close(absl::CancelledError("the process has ended"));
  });
}

void AttachedClient::Close(const absl::Status& why) {
  const auto self = shared_from_this();
  End(why);
  Forget();
}

bool AttachedClient::HasMapped() const {
  return std::any_of(regions_.begin(), regions_.end(), [](const auto& region) {
    const auto& mappings = region.second.mappings;
    return std::any_of(mappings.begin(), mappings.end(), [](const auto& mapping) { return mapping.has_value(); });
  });
}

void AttachedClient::End(const absl::Status& why) {
  if (ended_) return;
  ended_ = true;
  const auto self = shared_from_this();
  const bool has_mapped = HasMapped();
  server_->loop_->Cancel(std::exchange(hello_timer_, 0));
  if (std::exchange(waiting_for_events_socket_, false)) server_->loop_->RemoveFd(events_socket_.get());
  if (serving_) {
    SendPacket(socket_.get(), EncodeReply({.id = 0, .status = why}));
  } else {
    SendPacket(socket_.get(), EncodeWelcome({.status = why, .node_name = server_->options_.node_name}));
  }
  // The program reads to the end, and its watchdog seals what it has mapped. That it hangs up can be seen only while this side of the
  // connection is not shut down too.
  shutdown(socket_.get(), SHUT_WR);
  if (events_socket_.ok()) shutdown(events_socket_.get(), SHUT_RDWR);
  for (const auto& [handle, region] : regions_) StopServing(region);
  regions_.clear();
  outgoing_.clear();
  waiting_events_.clear();
  server_->operations_->EndClient(id_);
  if (!has_mapped) return Forget();
  watched_events_ = EPOLLRDHUP;
  server_->loop_->ModifyFd(socket_.get(), watched_events_);
}

void AttachedClient::Forget() {
  if (std::exchange(is_forgotten_, true)) return;
  server_->loop_->RemoveFd(socket_.get());
  if (process_.ok()) server_->loop_->RemoveFd(process_.get());
  // A child of the program may have a copy of the socket; this ends it for everybody.
  shutdown(socket_.get(), SHUT_RDWR);
  server_->Forget(id_);
}

// Its watchdog finds the events' socket closed. What it does then: S4.
void AttachedClient::CutOff() {
  if (ended_) return;
  if (!HasMapped()) return End(absl::UnavailableError("the daemon stops"));
  is_cut_off_ = true;
  if (std::exchange(waiting_for_events_socket_, false)) server_->loop_->RemoveFd(events_socket_.get());
  waiting_events_.clear();
  shutdown(events_socket_.get(), SHUT_RDWR);
}

void AttachedClient::Refuse(const absl::Status& why) {
  server_->Complain(peer_.credentials.uid, why);
  End(why);
}

// --- Reading ----------------------------------------------------------------------------------------------------------

uint32_t AttachedClient::WantedEvents() const {
  // While the program does not read its replies, its requests wait.
  return EPOLLRDHUP | (outgoing_.empty() ? EPOLLIN : EPOLLOUT);
}

void AttachedClient::OnSocket(uint32_t events) {
  const auto self = shared_from_this();
  if (is_forgotten_) return;
  if ((events & kHangUp) != 0) return Close(absl::CancelledError("the program has hung up"));
  if (ended_) return;
  if ((events & EPOLLOUT) != 0) Flush();
  if ((events & EPOLLIN) != 0) ReadPackets();
}

void AttachedClient::ReadPackets() {
  for (int i = 0; i < kMaxPacketsPerTurn && !ended_ && outgoing_.empty(); ++i) {
    ReceivedPacket packet;
    switch (ReceivePacket(socket_.get(), packet)) {
      case PacketResult::kDone:
        if (serving_) {
          OnRequest(packet);
        } else {
          OnHello(packet);
        }
        break;
      case PacketResult::kNotNow: return;
      case PacketResult::kClosed: return Close(absl::CancelledError("the program has hung up"));
      case PacketResult::kMalformed:
        return Refuse(absl::InvalidArgumentError(absl::StrCat("a packet has more than ", kMaxAttachMessageBytes,
                                                              " bytes or ", kMaxAttachDescriptors, " descriptors")));
    }
  }
}

void AttachedClient::OnHello(const ReceivedPacket& packet) {
  const auto hello = DecodeHello(packet.bytes());
  if (!hello.ok()) return Refuse(hello.status());
  if (hello->magic != kAttachMagic || !packet.descriptors.empty()) {
    return Refuse(absl::InvalidArgumentError("the first packet is not the hello of a Mangrove program"));
  }
  if (hello->version != kAttachVersion) {
    return Refuse(absl::FailedPreconditionError(
        absl::StrCat("the program speaks version ", hello->version, " of the attach protocol, the daemon version ",
                     kAttachVersion, "; build the program with the daemon's release of Mangrove")));
  }
  if (absl::Status s = Welcome(); !s.ok()) Refuse(s);
}

absl::Status AttachedClient::Welcome() {
  // What it said so far may have passed, while the lease was away.
  server_->SetDeadline();
  auto deadline = server_->deadline_->OpenReadOnly();
  if (!deadline.ok()) return deadline.status();
  auto events = PacketSocketPair();
  if (!events.ok()) return events.status();
  events_socket_ = std::move(events->first);
  Outgoing welcome;
  welcome.bytes = EncodeWelcome({.status = absl::OkStatus(), .node_name = server_->options_.node_name});
  welcome.descriptors.push_back(*std::move(deadline));
  welcome.descriptors.push_back(std::move(events->second));
  // Nothing was sent to it before: there is room.
  if (SendNow(welcome) != PacketResult::kDone) return absl::UnavailableError("the welcome could not be sent");
  server_->loop_->Cancel(std::exchange(hello_timer_, 0));
  serving_ = true;
  return absl::OkStatus();
}

void AttachedClient::OnRequest(ReceivedPacket& packet) {
  auto request = DecodeRequest(packet.bytes());
  if (!request.ok()) return Refuse(request.status());
  const size_t expected = std::holds_alternative<MapCall>(request->call) ? 1 : 0;
  if (packet.descriptors.size() != expected) {
    return Refuse(absl::InvalidArgumentError(
        absl::StrCat("a request has ", packet.descriptors.size(), " descriptors; expected ", expected)));
  }
  ++requests_;
  // Giving back needs no room: whoever waits for a lock may be waiting for just that.
  const bool gives_back =
      std::holds_alternative<UnlockCall>(request->call) || std::holds_alternative<CloseCall>(request->call);
  if (requests_ > server_->options_.max_requests && !gives_back) {
    return Finish(request->id, absl::ResourceExhaustedError(absl::StrCat("the program has ", requests_ - 1,
                                                                         " requests under way, which is the limit")));
  }
  Dispatch(*std::move(request), std::move(packet.descriptors));
}

// --- Writing ----------------------------------------------------------------------------------------------------------

PacketResult AttachedClient::SendNow(const Outgoing& packet) {
  int descriptors[kMaxAttachDescriptors];
  for (size_t i = 0; i < packet.descriptors.size(); ++i) descriptors[i] = packet.descriptors[i].get();
  return SendPacket(socket_.get(), packet.bytes, {descriptors, packet.descriptors.size()});
}

void AttachedClient::Send(const AttachReply& reply, Descriptors descriptors) {
  if (ended_) return;
  Outgoing packet{EncodeReply(reply), std::move(descriptors)};
  if (outgoing_.empty()) {
    const PacketResult result = SendNow(packet);
    if (result == PacketResult::kDone) return;
    if (result == PacketResult::kClosed) return End(absl::CancelledError("the program does not read"));
  }
  queued_bytes_ += packet.bytes.size();
  outgoing_.push_back(std::move(packet));
  if (queued_bytes_ > server_->options_.max_queued_bytes) {
    return Refuse(absl::ResourceExhaustedError(
        absl::StrCat("the program does not read its replies; ", queued_bytes_, " bytes wait")));
  }
  Flush();
}

void AttachedClient::Flush() {
  while (!outgoing_.empty()) {
    const PacketResult result = SendNow(outgoing_.front());
    if (result == PacketResult::kNotNow) break;
    if (result != PacketResult::kDone) return End(absl::CancelledError("the program does not read"));
    queued_bytes_ -= outgoing_.front().bytes.size();
    outgoing_.pop_front();
  }
  if (const uint32_t wanted = WantedEvents(); wanted != watched_events_) {
    watched_events_ = wanted;
    server_->loop_->ModifyFd(socket_.get(), wanted);
  }
}

// --- Events -----------------------------------------------------------------------------------------------------------

void AttachedClient::OnRegionEvent(const NodeOperations::Event& event) {
  if (!serving_ || is_cut_off_) return;
  for (const auto& [handle, region] : regions_) {
    const PageRange& pages = region.opened.pages;
    if (!pages.Overlaps(event.range)) continue;
    const PageId first = std::max(pages.first, event.range.first);
    const PageRange part{first, std::min(pages.end(), event.range.end()) - first};
    const auto [waiting, added] = waiting_events_.try_emplace({handle, event.kind}, part);
    if (!added) waiting->second = Join(waiting->second, part);
  }
  FlushEvents();
}

void AttachedClient::FlushEvents() {
  while (!waiting_events_.empty() && !ended_) {
    const auto it = waiting_events_.begin();
    const auto& [handle, kind] = it->first;
    const auto region = regions_.find(handle);
    PacketResult result = PacketResult::kDone;
    if (region != regions_.end()) {
      const uint64_t first = it->second.first - region->second.opened.pages.first;
      result = SendPacket(events_socket_.get(), EncodeEvent({kind, {handle, first, it->second.count}}));
    }
    if (result == PacketResult::kClosed) return End(absl::CancelledError("the program does not read its events"));
    if (result == PacketResult::kNotNow) break;
    waiting_events_.erase(it);
  }
  const bool wait = !waiting_events_.empty();
  if (wait == waiting_for_events_socket_) return;
  waiting_for_events_socket_ = wait;
  if (wait) {
    server_->loop_->AddFd(events_socket_.get(), EPOLLOUT,
                          [self = shared_from_this()](uint32_t e) { self->OnEventsSocket(e); });
  } else {
    server_->loop_->RemoveFd(events_socket_.get());
  }
}

void AttachedClient::OnEventsSocket(uint32_t events) {
  const auto self = shared_from_this();
  if (ended_) return;
  if ((events & kHangUp) != 0) return End(absl::CancelledError("the program does not read its events"));
  FlushEvents();
}

}  // namespace mangrove
