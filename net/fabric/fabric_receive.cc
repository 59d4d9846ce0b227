// Messages come: the completion queue, the envelope, the hand-over, and the way back of receive buffers and slots.

#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"
#include "net/fabric_error.h"

namespace mangrove {
namespace {

constexpr size_t kCompletionsPerPoll = 16;

}  // namespace

bool FabricCore::PollCompletions() {
  std::array<fi_cq_msg_entry, kCompletionsPerPoll> entries;
  const ssize_t count = fi_cq_read(completion_queue_.get(), entries.data(), entries.size());
  unseen_ = count != -FI_EAGAIN && count != 0;
  if (!unseen_) return false;
  CHECK(depth_ == 0);
  ++depth_;
  if (count == -FI_EAVAIL) {
    OnCompletionError();
  } else if (count < 0) {
    const absl::Status why = FabricError(static_cast<int>(count), "the completion queue cannot be read");
    log_once_.Log(LogLevel::kError, "completion queue", std::string(why.message()));
  }
  for (ssize_t i = 0; i < count; ++i) {
    const auto context = reinterpret_cast<uintptr_t>(entries[static_cast<size_t>(i)].op_context);
    Connection* connection = FindConnection(context >> 8);
    // A failed one's queues are as they were when it failed.
    if (connection == nullptr || connection->state == ConnectionState::kFailed) continue;
    if ((context & kReceiveContext) != 0) {
      OnReceived(*connection, context & (kReceiveContext - 1), entries[static_cast<size_t>(i)].len);
    } else {
      OnSendCompleted(*connection);
    }
  }
  --depth_;
  if (!failed_.empty()) Reap();
  return true;
}

void FabricCore::OnCompletionError() {
  fi_cq_err_entry error{};
  if (fi_cq_readerr(completion_queue_.get(), &error, 0) < 0) return;
  Connection* connection = FindConnection(reinterpret_cast<uintptr_t>(error.op_context) >> 8);
  // Of an attempt the event queue says why it failed; that its buffers come back may be seen before.
  if (connection == nullptr || connection->state == ConnectionState::kConnecting) return;
  Fail(*connection,
       FabricError(error.err, error.err == FI_ETRUNC ? "a message is longer than may be" : "the connection broke"));
}

void FabricCore::OnReceived(Connection& c, size_t index, size_t bytes) {
  CHECK(index < kReceiveBuffers);
  if (bytes > kMaxWireBytes) return Fail(c, absl::DataLossError("a message is longer than its buffer"));
  const std::span<std::byte> wire(c.receive_buffer(index), bytes);
  absl::Status status;
  if (c.state != ConnectionState::kUp) {
    // Exactly one FirstMessage may come now; it posts again what the rest needs.
    if (c.proved || c.state == ConnectionState::kConnecting) {
      status = absl::PermissionDeniedError("the peer sent messages before the handshake's end");
    } else {
      status = OnFirst(c, wire);
    }
  } else {
    status = OnWire(c, wire);
    if (status.ok() && c.state == ConnectionState::kUp) status = PostReceive(c, index, kMaxWireBytes);
  }
  if (!status.ok()) Fail(c, std::move(status));
}

// A message of a peer that has proved itself.
absl::Status FabricCore::OnWire(Connection& c, std::span<std::byte> wire) {
  if (absl::Status status = OpenMessage(c.session->open_messages, c.next_receive_sequence, wire); !status.ok()) {
    return status;
  }
  ++c.next_receive_sequence;
  c.sent_when_heard = c.messages_sent;
  auto parsed = ParseMessage(wire);
  if (!parsed.ok()) return parsed.status();
  const Envelope& envelope = parsed->envelope;
  const uint32_t freed = envelope.slots_returned - c.slots_freed;
  if (freed > c.slots_taken - c.slots_freed) {
    return absl::DataLossError(
        absl::StrCat("corrupt message: returns ", freed, " slots of ", c.slots_taken - c.slots_freed));
  }
  c.slots_freed += freed;
  if (envelope.kind == EnvelopeKind::kMessage) {
    if (absl::Status status = OnMessage(c, *parsed); !status.ok()) return status;
  }
  if (freed > 0 && !c.queue.empty()) Drain(c);
  // One that finds no room follows what does, and says as much.
  if (envelope.kind == EnvelopeKind::kQuestion && c.state == ConnectionState::kUp) SendCredit(c);
  return absl::OkStatus();
}

// The ring's end may part them.
absl::Status FabricCore::OpenSlots(Connection& c, const ParsedMessage& parsed) {
  const Envelope& envelope = parsed.envelope;
  const uint64_t number = c.next_slots_opened++;
  Sealer& opener = c.session->open_pages;
  opener.Begin(number, {});
  const uint32_t before_end = std::min<uint32_t>(envelope.page_count, kPageSlots - envelope.first_slot);
  const std::span<std::byte> first(c.slots() + envelope.first_slot * kPageBytes, before_end * kPageBytes);
  const std::span<std::byte> second(c.slots(), (envelope.page_count - before_end) * kPageBytes);
  for (const std::span<std::byte> part : {first, second}) opener.Pass(part, part.data());
  if (opener.Verify(parsed.slots_tag.first<kTagBytes>())) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("corrupt pages: the tag does not fit the ", envelope.page_count,
                                          " pages from slot ", envelope.first_slot, ", sealed as number ", number));
}

absl::Status FabricCore::OnMessage(Connection& c, const ParsedMessage& parsed) {
  const Envelope& envelope = parsed.envelope;
  std::array<const std::byte*, kMaxMessagePages> pages;
  const bool is_joining = envelope.channel == Channel::kJoin;
  if (c.of_guest && !is_joining) {
    ++counters_.messages_dropped;
    return absl::InvalidArgumentError(absl::StrCat("a message on channel ", static_cast<int>(envelope.channel),
                                                   " of a guest's connection, which is for channel ",
                                                   static_cast<int>(Channel::kJoin), " alone"));
  }
  const bool in_slots = envelope.pages_in_slots();
  if (in_slots && envelope.first_slot != c.slots_received % kPageSlots) {
    return absl::DataLossError(absl::StrCat("corrupt message: first slot ", envelope.first_slot, ", expected ",
                                            c.slots_received % kPageSlots));
  }
  if (in_slots) {
    if (absl::Status status = OpenSlots(c, parsed); !status.ok()) return status;
  }
  for (uint32_t i = 0; i < envelope.page_count; ++i) {
    pages[i] = in_slots ? c.slots() + (envelope.first_slot + i) % kPageSlots * kPageBytes
                        : parsed.inline_pages.data() + i * kPageBytes;
  }
  Delivery delivery;
  delivery.from = c.peer_instance();
  delivery.epoch = envelope.epoch;
  delivery.channel = envelope.channel;
  delivery.message = parsed.message;
  delivery.pages = std::span(pages).first(envelope.page_count);
  CHECK(FindPeer(c.peer)->up == &c);
  if (is_joining == c.of_guest) {
    ++counters_.messages_received;
    counters_.pages_received += envelope.page_count;
    events_->OnDelivery(delivery);
  } else {
    ++counters_.messages_dropped;  // A member's, on the channel of guests.
  }
  if (in_slots) {
    c.slots_received += envelope.page_count;
    ReturnSlots(c);
  }
  return absl::OkStatus();
}

}  // namespace mangrove
