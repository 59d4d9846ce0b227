#include "engine/attach/socket_backend.h"

#include <poll.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach_codec.h"
#include "engine/attach/packet_socket.h"
#include "net/check.h"
#include "net/runtime/clock.h"

namespace mangrove {
namespace {

// A call that stores into a mapping has so much time before stores are forbidden.
constexpr int64_t kStoreTimeNs = 20'000'000;

absl::Status AtPath(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), absl::StrCat("the node's daemon at ", path, ": ", status.message()));
}

// Says hello and waits for the welcome, whose descriptors stay in `packet`.
absl::Status SayHello(int socket, const AttachOptions& options, ReceivedPacket& packet) {
  const std::string& path = options.socket_path;
  const int64_t deadline_ns = MonotonicNowNs() + options.limits.call_timeout_ms * kMillisecond;
  // Fails when the daemon refused at once; it has said why.
  SendPacket(socket, EncodeHello({}));
  if (!WaitForSocket(socket, POLLIN, deadline_ns)) {
    return absl::UnavailableError(
        absl::StrCat("the node's daemon at ", path, " did not answer within ", options.limits.call_timeout_ms, " ms"));
  }
  if (ReceivePacket(socket, packet) != PacketResult::kDone) {
    return absl::UnavailableError(absl::StrCat("the node's daemon at ", path, " has hung up"));
  }
  const auto welcome = DecodeWelcome(packet.bytes());
  if (!welcome.ok()) return AtPath(welcome.status(), path);
  if (welcome->magic != kAttachMagic) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not the socket of a Mangrove daemon"));
  }
  if (!welcome->status.ok()) return AtPath(welcome->status, path);
  if (welcome->version != kAttachVersion || packet.descriptors.size() != 2) {
    return absl::FailedPreconditionError(absl::StrCat("the node's daemon at ", path, " speaks version ",
                                                      welcome->version, " of the attach protocol; expected ",
                                                      kAttachVersion));
  }
  return absl::OkStatus();
}

}  // namespace

SocketBackend::SocketBackend(AttachOptions options, const Liveness* liveness)
    : options_(std::move(options)), liveness_(liveness) {}

absl::StatusOr<std::unique_ptr<SocketBackend>> SocketBackend::Connect(const AttachOptions& options,
                                                                      SessionParts* parts) {
  if (options.limits.call_timeout_ms <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("call_timeout_ms is ", options.limits.call_timeout_ms, "; expected 1 or more"));
  }
  auto socket = ConnectPacketSocket(options.socket_path);
  if (!socket.ok()) return socket.status();
  ReceivedPacket packet;
  if (absl::Status s = SayHello(socket->get(), options, packet); !s.ok()) return s;
  if (absl::Status s = LetReceiveWait(socket->get()); !s.ok()) return s;
  auto deadline = DeadlineView::Create(packet.descriptors[0]);
  if (!deadline.ok()) return deadline.status();
  std::unique_ptr<SocketBackend> backend(new SocketBackend(options, parts->liveness.get()));
  backend->Begin(*std::move(socket), std::move(packet.descriptors[1]), *std::move(deadline), parts);
  return backend;
}

void SocketBackend::Begin(UniqueFd socket, UniqueFd events_socket, DeadlineView deadline, SessionParts* parts) {
  // By a call, so not before there is a watchdog.
  channel_ = std::make_unique<CallChannel>(std::move(socket), options_.socket_path, Gone(),
                                           [this] { watchdog_->CutOffSoon(); });
  Watchdog::Actions actions;
  actions.cut_off = [this, liveness = parts->liveness.get(), mappings = parts->mappings.get(),
                     events = parts->events.get()] {
    liveness->End();
    mappings->SealAll();
    channel_->Fail(Gone());
    events->PostFenced();
  };
  actions.on_event = [events = parts->events.get()](const AttachEvent& event) { events->Post(event); };
  actions.end_lease = [mappings = parts->mappings.get()] { return mappings->EndLease(); };
  actions.begin_lease = [mappings = parts->mappings.get()] { return mappings->BeginLease(); };
  watchdog_ = std::make_unique<Watchdog>(std::move(events_socket), std::move(deadline), std::move(actions));
}

SocketBackend::~SocketBackend() {
  if (!liveness_->IsOwnProcess()) {
    // The sockets are the parent's too, and the thread is not here: both are left alone.
    static_cast<void>(watchdog_.release());
    static_cast<void>(channel_.release());
    return;
  }
  watchdog_.reset();
  // Ends the connection also where a child of fork has the socket.
  channel_->Fail(Gone());
}

absl::Status SocketBackend::Gone() const {
  return absl::UnavailableError(absl::StrCat("the node's daemon at ", options_.socket_path, " is gone; attach again"));
}

absl::Status SocketBackend::Unexpected() const {
  return absl::InternalError(
      absl::StrCat("the node's daemon at ", options_.socket_path, " gave an answer of the wrong kind"));
}

template <typename T>
absl::StatusOr<T> SocketBackend::Ask(CallChannel::Call call) {
  auto answer = channel_->Ask(std::move(call), options_.limits.call_timeout_ms);
  if (!answer.ok()) return answer.status();
  T* const result = std::get_if<T>(&answer->reply.result);
  if (result == nullptr) return Unexpected();
  return std::move(*result);
}

absl::Status SocketBackend::Tell(CallChannel::Call call) {
  return channel_->Ask(std::move(call), options_.limits.call_timeout_ms).status();
}

absl::StatusOr<Backend::Opened> SocketBackend::AskToOpen(CallChannel::Call call) {
  auto answer = channel_->Ask(std::move(call), options_.limits.call_timeout_ms);
  if (!answer.ok()) return answer.status();
  auto* const reply = std::get_if<OpenedReply>(&answer->reply.result);
  if (reply == nullptr || answer->descriptors.size() != 2) return Unexpected();
  return Opened{.region = reply->region,
                .info = std::move(reply->info),
                .may_write = reply->may_write,
                .memory = std::move(answer->descriptors[0]),
                .states = std::move(answer->descriptors[1]),
                .frames = nullptr};
}

absl::StatusOr<Backend::Opened> SocketBackend::Reserve(const RegionOptions& options) {
  return AskToOpen(ReserveCall{options});
}
absl::StatusOr<Backend::Opened> SocketBackend::Open(const std::string& name, AccessMode mode) {
  return AskToOpen(OpenCall{name, mode});
}
void SocketBackend::Close(RegionHandle region) {
  // What goes wrong here goes with the connection.
  Tell(CloseCall{region}).IgnoreError();
}
absl::Status SocketBackend::Map(RegionHandle region, uint64_t base, const UniqueFd& userfaultfd, MappingUse use) {
  const int descriptor = userfaultfd.get();
  return channel_->Ask(MapCall{region, base, use}, options_.limits.call_timeout_ms, {&descriptor, 1}).status();
}
absl::Status SocketBackend::Free(const std::string& name) { return Tell(FreeCall{name}); }

absl::StatusOr<std::vector<RegionInfo>> SocketBackend::ListRegions() {
  auto list = Ask<RegionListReply>(ListCall{});
  if (!list.ok()) return list.status();
  return std::move(list->regions);
}
absl::StatusOr<SpaceTotals> SocketBackend::Space() { return Ask<SpaceTotals>(SpaceCall{}); }

absl::Status SocketBackend::Allocate(const RegionPages& pages, const AllocateOptions& options) {
  return Tell(AllocateCall{pages, options});
}
absl::Status SocketBackend::Unallocate(const RegionPages& pages) { return Tell(UnallocateCall{pages}); }
absl::StatusOr<PageAttributes> SocketBackend::GetAttributes(RegionHandle region, uint64_t page) {
  return Ask<PageAttributes>(GetAttributesCall{region, page});
}
absl::Status SocketBackend::SetAttributes(const RegionPages& pages, const PageAttributesChange& change) {
  return Tell(SetAttributesCall{pages, change});
}
absl::Status SocketBackend::CheckAllocated(const RegionPages& pages) { return Tell(CheckAllocatedCall{pages}); }
absl::Status SocketBackend::Acquire(const RegionPages& pages, AccessMode mode) {
  return Tell(AcquireCall{pages, mode});
}

absl::StatusOr<uint64_t> SocketBackend::Lock(const RegionPages& pages, LockMode mode, int64_t timeout_ms) {
  auto answer = channel_->Ask(LockCall{pages, mode}, timeout_ms);
  if (!answer.ok()) return answer.status();
  const auto* const locked = std::get_if<LockedReply>(&answer->reply.result);
  if (locked == nullptr) return Unexpected();
  return locked->lock_id;
}
absl::Status SocketBackend::Unlock(uint64_t lock_id) { return Tell(UnlockCall{lock_id}); }
absl::Status SocketBackend::Flush(const RegionPages& pages) { return Tell(FlushCall{pages}); }
absl::Status SocketBackend::Heal(const RegionPages& pages) { return Tell(HealCall{pages}); }
absl::StatusOr<std::string> SocketBackend::Inspect(const std::string& what, const std::string& argument) {
  auto text = Ask<TextReply>(InspectCall{what, argument});
  if (!text.ok()) return text.status();
  return std::move(text->text);
}
absl::StatusOr<uint64_t> SocketBackend::BeginTransaction(int64_t timeout_ms) {
  auto answer = channel_->Ask(BeginCall{}, timeout_ms);
  if (!answer.ok()) return answer.status();
  const auto* const begun = std::get_if<BegunReply>(&answer->reply.result);
  if (begun == nullptr) return Unexpected();
  return begun->transaction;
}
absl::StatusOr<std::string> SocketBackend::ReadIn(uint64_t transaction, const BytesOfPage& bytes, AccessMode intent) {
  auto text = Ask<TextReply>(ReadInCall{transaction, bytes, intent});
  if (!text.ok()) return text.status();
  return std::move(text->text);
}
absl::Status SocketBackend::WriteIn(uint64_t transaction, const BytesOfPage& bytes, const std::string& content) {
  return Tell(WriteInCall{transaction, bytes, content});
}
absl::Status SocketBackend::EndTransaction(uint64_t transaction, bool commit) {
  return Tell(EndTransactionCall{transaction, commit});
}
absl::StatusOr<std::string> SocketBackend::ReadLog(RegionHandle region, uint64_t node) {
  auto text = Ask<TextReply>(ReadLogCall{region, node});
  if (!text.ok()) return text.status();
  return std::move(text->text);
}
bool SocketBackend::MayStore() const { return MonotonicNowNs() + kStoreTimeNs < watchdog_->lease_ns(); }
absl::StatusOr<RegionCounters> SocketBackend::Counters(RegionHandle region) {
  return Ask<RegionCounters>(CountersCall{region});
}

}  // namespace mangrove
