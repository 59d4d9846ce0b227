// Messages go. What happens to one, by its size:
//
//   without pages, up to the provider's inject size:  one operation, copied by libfabric, no completion
//   up to kMaxInlinePages pages that fit:             one operation that gathers head and pages, mostly no completion
//   more pages:                                       writes into the peer's slots, each of up to iov_limit_ pieces of pages
//                                                     that lie side by side; then one operation for the head, whose
//                                                     completion stands for all of them
//
// What finds no slots or no queue entries waits in the connection's queue; everything behind it waits too (T3).

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"
#include "net/fabric_error.h"

namespace mangrove {
namespace {

constexpr size_t kMaxInjectBytes = 256;
constexpr size_t kSpareMessages = 64;
constexpr size_t kSpareMessageBytes = 4096;
// Kept out of reach of messages, so that credits always find a place: two nodes that fill each other's slots must not
// wait for each other.
constexpr uint32_t kOpsForCredits = 8;

bool FitsInline(size_t message_bytes, size_t pages) {
  return pages <= kMaxInlinePages && InlinePagesOffset(message_bytes) + pages * kPageBytes <= kMaxWireBytes;
}

}  // namespace

void FabricCore::Send(NodeId to, Channel channel, std::span<const std::byte> message,
                      std::span<const PageBuffer> pages) {
  CHECK(message.size() <= kMaxMessageBytes && pages.size() <= kMaxMessagePages);
  CHECK(to != config_.self.node);
  const Peer* peer = FindReceiver(to, channel);
  Connection* connection = peer == nullptr ? nullptr : peer->up;
  if (connection == nullptr || connection->state != ConnectionState::kUp) {
    ++counters_.messages_dropped;
    return;
  }
  Connection& c = *connection;
  if (pages.empty() && c.queue.empty() && kEnvelopeBytes + message.size() <= std::min(inject_bytes_, kMaxInjectBytes)) {
    if (SendSmall(c, EnvelopeKind::kMessage, channel, message) != Outcome::kBlocked) return;
  }
  std::unique_ptr<OutMessage> out = NewMessage(channel, message, pages);
  if (!c.queue.empty() || Submit(c, out) == Outcome::kBlocked) Enqueue(c, std::move(out));
}

// --- What every message gets ------------------------------------------------------------------------------------------

bool FabricCore::HasRoom(const Connection& c, uint32_t ops, uint32_t slots) const {
  return c.outstanding_ops + ops + kOpsForCredits <= max_ops_ && c.slots_taken - c.slots_freed + slots <= kPageSlots;
}

Envelope FabricCore::NextEnvelope(const Connection& c, EnvelopeKind kind, Channel channel, size_t message_bytes) const {
  Envelope envelope;
  envelope.kind = kind;
  envelope.channel = channel;
  envelope.epoch = epoch_;
  envelope.number = static_cast<uint32_t>(c.next_send_sequence);
  envelope.message_bytes = static_cast<uint32_t>(message_bytes);
  envelope.slots_returned = c.slots_received;
  return envelope;
}

void FabricCore::CountSent(Connection& c, const Envelope& envelope) {
  CHECK(envelope.number == static_cast<uint32_t>(c.next_send_sequence));
  ++c.next_send_sequence;
  c.slots_announced = envelope.slots_returned;
  if (envelope.kind != EnvelopeKind::kMessage) return;
  ++c.messages_sent;
  ++counters_.messages_sent;
  counters_.pages_sent += envelope.page_count;
}

// What an operation's posting has come to; anything but success and a full queue ends the connection.
FabricCore::Outcome FabricCore::OutcomeOf(Connection& c, ssize_t result, const char* what) {
  if (result == 0) return Outcome::kDone;
  if (result == -FI_EAGAIN) return Outcome::kBlocked;
  Fail(c, FabricError(static_cast<int>(result), what));
  return Outcome::kFailed;
}

// --- Small ones -------------------------------------------------------------------------------------------------------

FabricCore::Outcome FabricCore::SendSmall(Connection& c, EnvelopeKind kind, Channel channel,
                                          std::span<const std::byte> message) {
  const uint32_t reserve = kind == EnvelopeKind::kMessage ? kOpsForCredits : 0;
  if (c.outstanding_ops + 1 + reserve > max_ops_) return Outcome::kBlocked;
  std::array<std::byte, kMaxInjectBytes> buffer;
  const std::span<std::byte> head = std::span(buffer).first(kEnvelopeBytes + message.size());
  if (!message.empty()) std::memcpy(head.data() + kEnvelopeBytes, message.data(), message.size());
  const Envelope envelope = NextEnvelope(c, kind, channel, message.size());
  EncodeEnvelope(envelope, head.first<kEnvelopeBytes>());
  SealMessage(c.session->seal_messages, c.next_send_sequence, head);
  // Credits are also what asks after small messages that nothing followed, see Tick.
  const bool tell = c.silent_ops + 1 >= kOpsPerCompletion || kind != EnvelopeKind::kMessage;
  ssize_t result = 0;
  if (tell) {
    iovec iov{head.data(), head.size()};
    fi_msg msg{};
    msg.msg_iov = &iov;
    msg.iov_count = 1;
    msg.context = MakeContext(c.serial, 0);
    result = fi_sendmsg(c.endpoint.get(), &msg, FI_INJECT | FI_COMPLETION);
  } else {
    result = fi_inject(c.endpoint.get(), head.data(), head.size(), 0);
  }
  const Outcome outcome = OutcomeOf(c, result, "a message cannot be sent");
  if (outcome != Outcome::kDone) return outcome;
  NoteSent(c, tell);
  CountSent(c, envelope);
  return Outcome::kDone;
}

// One more operation is out. `told`: its completion was asked for, and stands for those before it too.
void FabricCore::NoteSent(Connection& c, bool told) {
  ++c.outstanding_ops;
  if (++c.silent_ops == 1) c.silent_since = loop_->Now();
  unseen_ = true;
  if (!told) return;
  c.in_flight.push_back({std::exchange(c.silent_messages, {}), std::exchange(c.silent_ops, 0), loop_->Now()});
  c.silent_pages = 0;
}

FabricCore::Outcome FabricCore::SendBare(Connection& c, EnvelopeKind kind) {
  return SendSmall(c, kind, Channel::kPages, {});
}

// Tells the peer which slots are free again, where no message of ours has done it: when half of them are. If the queue is
// full just now, the next completion or tick tries again.
void FabricCore::ReturnSlots(Connection& c) {
  const bool half = c.slots_received - c.slots_announced >= kPageSlots / 2;
  if (half && c.state == ConnectionState::kUp) SendCredit(c);
}

// --- Larger ones ------------------------------------------------------------------------------------------------------

std::unique_ptr<OutMessage> FabricCore::NewMessage(Channel channel, std::span<const std::byte> message,
                                                   std::span<const PageBuffer> pages) {
  std::unique_ptr<OutMessage> out;
  if (spare_messages_.empty()) {
    out = std::make_unique<OutMessage>();
  } else {
    out = std::move(spare_messages_.back());
    spare_messages_.pop_back();
  }
  out->channel = channel;
  out->epoch = epoch_;
  out->message_bytes = static_cast<uint32_t>(message.size());
  out->inline_pages = !pages.empty() && FitsInline(message.size(), pages.size());
  const Envelope form{.inline_pages = out->inline_pages,
                      .message_bytes = out->message_bytes,
                      .page_count = static_cast<uint16_t>(pages.size())};
  out->head.resize(HeadBytes(form));
  if (!message.empty()) std::memcpy(out->head.data() + kEnvelopeBytes, message.data(), message.size());
  std::fill(out->head.begin() + static_cast<ptrdiff_t>(kEnvelopeBytes + message.size()), out->head.end(), std::byte{0});
  out->pages.assign(pages.begin(), pages.end());
  for (const PageBuffer& page : out->pages) CHECK(page != nullptr);
  out->pages_written = 0;
  out->slots_sealed = false;
  out->since = loop_->Now();
  return out;
}

void FabricCore::Recycle(std::unique_ptr<OutMessage> message) {
  if (message == nullptr) return;
  message->pages.clear();
  message->registrations.clear();
  message->sealed_pages.reset();
  if (spare_messages_.size() >= kSpareMessages || message->head.capacity() > kSpareMessageBytes ||
      message->sealed_head.capacity() > kMaxWireBytes) {
    return;
  }
  spare_messages_.push_back(std::move(message));
}

// The descriptor of local memory for libfabric: null where the provider asks for none, or after a failure (which the
// operation that needs it then reports).
void* FabricCore::Register(OutMessage& message, const void* data, size_t bytes) {
  if (!local_registration_) return nullptr;
  fid_mr* made = nullptr;
  if (fi_mr_reg(domain_.get(), data, bytes, FI_SEND | FI_WRITE, 0, entropy_->Next(), 0, &made, nullptr) != 0) {
    return nullptr;
  }
  message.registrations.emplace_back(made);
  return fi_mr_desc(made);
}

// Takes the message if it returns kDone. After kBlocked it can be tried again, and goes on where it stopped.
FabricCore::Outcome FabricCore::Submit(Connection& c, std::unique_ptr<OutMessage>& message) {
  OutMessage& m = *message;
  const auto pages = static_cast<uint32_t>(m.pages.size());
  if (pages > 0 && !m.inline_pages) {
    const Outcome outcome = WritePages(c, m);
    if (outcome != Outcome::kDone) return outcome;
  } else if (!HasRoom(c, 1, 0)) {
    return Outcome::kBlocked;
  }
  // One that waited in the queue is asked after, so that what waits behind it goes on.
  const bool tell = (pages > 0 && !m.inline_pages) || !c.queue.empty() || c.silent_ops + 1 >= kOpsPerCompletion ||
                    c.silent_pages + pages > kPagesPerCompletion;
  const Outcome outcome = SendHead(c, m, tell);
  if (outcome != Outcome::kDone) return outcome;
  c.silent_messages.push_back(std::move(message));
  c.silent_pages += pages;
  NoteSent(c, tell);
  return Outcome::kDone;
}

// Once, when it is clear that they go next: pages for slots have numbers of their own, in the order in which they go.
void FabricCore::SealPages(Connection& c, OutMessage& m) {
  Sealer& sealer = c.session->seal_pages;
  const bool encrypts = c.own.security == Security::kEncrypted;
  if (encrypts) m.sealed_pages = std::make_unique_for_overwrite<std::byte[]>(m.pages.size() * kPageBytes);
  sealer.Begin(c.next_slots_sealed++, {});
  for (size_t i = 0; i < m.pages.size(); ++i) {
    sealer.Pass(m.pages[i]->bytes, encrypts ? &m.sealed_pages[i * kPageBytes] : nullptr);
  }
  const Tag tag = sealer.Finish();
  std::copy(tag.begin(), tag.end(), m.head.end() - kTagBytes);
  m.slots_sealed = true;
}

FabricCore::Outcome FabricCore::WritePages(Connection& c, OutMessage& m) {
  const auto pages = static_cast<uint32_t>(m.pages.size());
  // One more where the ring's end parts a run, and one for the head.
  const uint32_t ops = (pages + static_cast<uint32_t>(iov_limit_) - 1) / static_cast<uint32_t>(iov_limit_) + 2;
  if (m.pages_written == 0 && !HasRoom(c, ops, pages)) return Outcome::kBlocked;
  if (!m.slots_sealed) SealPages(c, m);
  while (m.pages_written < pages) {
    const uint32_t slot = (c.slots_taken + m.pages_written) % kPageSlots;
    const uint32_t most = std::min(pages - m.pages_written, kPageSlots - slot);
    std::array<iovec, kMaxWriteParts> iov;
    size_t parts = 0;
    uint32_t run = 0;
    for (; run < most; ++run) {
      const uint32_t page = m.pages_written + run;
      // Only read.
      auto* const from =
          m.sealed_pages ? &m.sealed_pages[page * kPageBytes] : const_cast<std::byte*>(m.pages[page]->bytes.data());
      iovec* const last = parts > 0 ? &iov[parts - 1] : nullptr;
      if (last != nullptr && static_cast<std::byte*>(last->iov_base) + last->iov_len == from) {
        last->iov_len += kPageBytes;  // They lie side by side.
      } else if (parts < iov_limit_) {
        iov[parts++] = {from, kPageBytes};
      } else {
        break;
      }
    }
    std::array<void*, kMaxWriteParts> descriptors{};
    for (size_t i = 0; i < parts; ++i) descriptors[i] = Register(m, iov[i].iov_base, iov[i].iov_len);
    fi_rma_iov target{c.theirs.pool.base + slot * kPageBytes, run * kPageBytes, c.theirs.pool.key};
    fi_msg_rma msg{};
    msg.msg_iov = iov.data();
    msg.desc = local_registration_ ? descriptors.data() : nullptr;
    msg.iov_count = parts;
    msg.rma_iov = &target;
    msg.rma_iov_count = 1;
    msg.context = MakeContext(c.serial, 0);
    const Outcome outcome = OutcomeOf(c, fi_writemsg(c.endpoint.get(), &msg, 0), "pages cannot be written");
    if (outcome != Outcome::kDone) return outcome;
    ++c.outstanding_ops;
    ++c.silent_ops;
    unseen_ = true;
    m.pages_written += run;
  }
  return Outcome::kDone;
}

// Encrypted, what goes out is a copy: the message may have to be sealed again, see S2.
void FabricCore::SealHead(Connection& c, OutMessage& m, const Envelope& envelope) {
  const std::span<std::byte> head(m.head);
  EncodeEnvelope(envelope, head.first<kEnvelopeBytes>());
  const bool encrypts = c.own.security == Security::kEncrypted;
  const size_t inline_count = m.inline_pages ? m.pages.size() : 0;
  if (encrypts) {
    m.sealed_head.resize(head.size() + inline_count * kPageBytes);
    std::copy_n(head.begin(), kTagAt, m.sealed_head.begin());
  }
  std::byte* const out = encrypts ? m.sealed_head.data() : head.data();
  Sealer& sealer = c.session->seal_messages;
  sealer.Begin(c.next_send_sequence, head.first(kTagAt));
  sealer.Pass(head.subspan(kEnvelopeBytes), out + kEnvelopeBytes);
  for (size_t i = 0; i < inline_count; ++i) {
    sealer.Pass(m.pages[i]->bytes, encrypts ? out + head.size() + i * kPageBytes : nullptr);
  }
  const Tag tag = sealer.Finish();
  std::copy(tag.begin(), tag.end(), out + kTagAt);
}

FabricCore::Outcome FabricCore::SendHead(Connection& c, OutMessage& m, bool tell) {
  Envelope envelope = NextEnvelope(c, EnvelopeKind::kMessage, m.channel, m.message_bytes);
  envelope.epoch = m.epoch;
  envelope.page_count = static_cast<uint16_t>(m.pages.size());
  envelope.inline_pages = m.inline_pages;
  const bool in_slots = envelope.pages_in_slots();
  envelope.first_slot = in_slots ? static_cast<uint16_t>(c.slots_taken % kPageSlots) : 0;
  SealHead(c, m, envelope);
  std::array<iovec, 1 + kMaxInlinePages> iov;
  std::array<void*, 1 + kMaxInlinePages> descriptors{};
  size_t parts = 0;
  const bool encrypted = c.own.security == Security::kEncrypted;
  iov[parts++] = encrypted ? iovec{m.sealed_head.data(), m.sealed_head.size()} : iovec{m.head.data(), m.head.size()};
  if (m.inline_pages && !encrypted) {
    for (const PageBuffer& page : m.pages) iov[parts++] = {const_cast<std::byte*>(page->bytes.data()), kPageBytes};
  }
  for (size_t i = 0; i < parts; ++i) descriptors[i] = Register(m, iov[i].iov_base, iov[i].iov_len);
  fi_msg msg{};
  msg.msg_iov = iov.data();
  msg.desc = local_registration_ ? descriptors.data() : nullptr;
  msg.iov_count = parts;
  msg.context = MakeContext(c.serial, 0);
  const Outcome outcome =
      OutcomeOf(c, fi_sendmsg(c.endpoint.get(), &msg, tell ? FI_COMPLETION : 0), "a message cannot be sent");
  if (outcome != Outcome::kDone) return outcome;
  if (in_slots) c.slots_taken += envelope.page_count;
  CHECK(c.slots_taken - c.slots_freed <= kPageSlots);
  CountSent(c, envelope);
  return Outcome::kDone;
}

// --- Waiting ----------------------------------------------------------------------------------------------------------

void FabricCore::Enqueue(Connection& c, std::unique_ptr<OutMessage> message) {
  const size_t bytes = message->head.size();
  const size_t pages = message->pages.size();
  if (c.queue.size() >= kMaxQueuedMessages || c.queued_bytes + bytes > kMaxQueuedBytes ||
      c.queued_pages + pages > kMaxQueuedPages) {
    // What has been written in part stays first in the queue and is never dropped alone.
    CHECK(message->pages_written == 0);
    ++counters_.messages_dropped;
    Recycle(std::move(message));
    return;
  }
  c.queued_bytes += bytes;
  c.queued_pages += pages;
  c.queue.push_back(std::move(message));
}

void FabricCore::Drain(Connection& c) {
  while (!c.queue.empty() && c.state == ConnectionState::kUp) {
    const size_t bytes = c.queue.front()->head.size();
    const size_t pages = c.queue.front()->pages.size();
    if (Submit(c, c.queue.front()) != Outcome::kDone) return;
    c.queue.pop_front();
    c.queued_bytes -= bytes;
    c.queued_pages -= pages;
  }
}

void FabricCore::OnSendCompleted(Connection& c) {
  // The handshake's message asked for no completion.
  CHECK(!c.in_flight.empty());
  InFlight done = std::move(c.in_flight.front());
  c.in_flight.pop_front();
  CHECK(c.outstanding_ops >= done.ops);
  c.outstanding_ops -= done.ops;
  for (std::unique_ptr<OutMessage>& message : done.messages) Recycle(std::move(message));
  if (!c.queue.empty()) Drain(c);
  ReturnSlots(c);
}

}  // namespace mangrove
