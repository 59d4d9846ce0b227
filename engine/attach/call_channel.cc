#include "engine/attach/call_channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach_codec.h"
#include "net/check.h"
#include "net/runtime/clock.h"

namespace mangrove {
namespace {

// Longer than an exchange with a daemon that is awake, shorter than a sleep and a wake-up on another core.
constexpr int64_t kSpinNs = 50 * kMicrosecond;
// Where spinning is in vain (the daemon needs this very processor, or is slow), it is tried seldom.
constexpr int kVainSpins = 2;
constexpr int kReadsWithoutSpin = 62;
// A day; longer ones would overflow.
constexpr int64_t kMaxTimeoutMs = 86'400'000;

std::chrono::steady_clock::time_point ToTimePoint(int64_t monotonic_ns) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(monotonic_ns));
}

// Another part of a reply. One of another kind than the first is left out: the caller misses it.
void Append(AttachReply& reply, AttachReply part) {
  reply.more = part.more;
  auto* const regions = std::get_if<RegionListReply>(&reply.result);
  auto* const more_regions = std::get_if<RegionListReply>(&part.result);
  if (regions != nullptr && more_regions != nullptr) {
    regions->regions.insert(regions->regions.end(), std::make_move_iterator(more_regions->regions.begin()),
                            std::make_move_iterator(more_regions->regions.end()));
  }
  auto* const text = std::get_if<TextReply>(&reply.result);
  const auto* const more_text = std::get_if<TextReply>(&part.result);
  if (text != nullptr && more_text != nullptr) text->text += more_text->text;
}

}  // namespace

CallChannel::CallChannel(UniqueFd socket, std::string path, absl::Status gone, std::function<void()> on_failure)
    : socket_(std::move(socket)), path_(std::move(path)), gone_(std::move(gone)), on_failure_(std::move(on_failure)) {}

absl::Status CallChannel::TimedOut(int64_t timeout_ms) const {
  return absl::UnavailableError(
      absl::StrCat("the node's daemon at ", path_, " did not answer within ", timeout_ms + kGraceMs, " ms"));
}

absl::StatusOr<CallChannel::Answer> CallChannel::Ask(Call call, int64_t timeout_ms, std::span<const int> descriptors) {
  timeout_ms = std::clamp<int64_t>(timeout_ms, 0, kMaxTimeoutMs);
  const int64_t deadline_ns = MonotonicNowNs() + (timeout_ms + kGraceMs) * kMillisecond;
  Waiting waiting;
  AttachRequest request{.timeout_ms = static_cast<uint64_t>(timeout_ms), .call = std::move(call)};
  {
    const std::lock_guard lock(mutex_);
    if (!failed_.ok()) return failed_;
    request.id = next_id_++;
    waiting_.emplace(request.id, &waiting);
  }
  const bool is_lock = std::holds_alternative<LockCall>(request.call);
  const absl::Status sent = Send(request, descriptors, deadline_ns);

  std::unique_lock lock(mutex_);
  if (sent.ok()) Wait(waiting, deadline_ns, lock);
  waiting_.erase(request.id);
  LetAnotherRead();
  if (waiting.done) {
    if (!waiting.failure.ok()) return std::move(waiting.failure);
    return std::move(waiting.answer);
  }
  if (!failed_.ok()) return failed_;
  if (is_lock && sent.ok()) abandoned_locks_.insert(request.id);
  return TimedOut(timeout_ms);
}

absl::Status CallChannel::Send(const AttachRequest& request, std::span<const int> descriptors, int64_t deadline_ns) {
  const AttachBytes bytes = EncodeRequest(request);
  for (;;) {
    switch (SendPacket(socket_.get(), bytes, descriptors)) {
      case PacketResult::kDone: return absl::OkStatus();
      case PacketResult::kNotNow:
        if (WaitForSocket(socket_.get(), POLLOUT, deadline_ns)) continue;
        return absl::DeadlineExceededError("not sent");
      default: {
        const std::lock_guard lock(mutex_);
        FailLocked(gone_);
        return gone_;
      }
    }
  }
}

void CallChannel::Wait(Waiting& waiting, int64_t deadline_ns, std::unique_lock<std::mutex>& lock) {
  waiting.waits = true;
  while (!waiting.done && failed_.ok() && MonotonicNowNs() < deadline_ns) {
    if (reading_) {
      waiting.changed.wait_until(lock, ToTimePoint(deadline_ns));
      continue;
    }
    reading_ = true;
    while (!waiting.done && failed_.ok() && MonotonicNowNs() < deadline_ns) Read(deadline_ns, lock);
    reading_ = false;
  }
}

void CallChannel::LetAnotherRead() {
  if (reading_) return;
  for (const auto& [id, waiting] : waiting_) {
    if (waiting->waits && !waiting->done) return waiting->changed.notify_one();
  }
}

int64_t CallChannel::SpinNs() {
  if (reads_no_spin_ > 0) {
    --reads_no_spin_;
    return 0;
  }
  if (vain_spins_ < kVainSpins) return kSpinNs;
  vain_spins_ = kVainSpins - 1;  // One more in vain is enough.
  reads_no_spin_ = kReadsWithoutSpin;
  return 0;
}

PacketResult CallChannel::Receive(ReceivedPacket& packet, int64_t deadline_ns) {
  const int64_t spin_ns = SpinNs();
  const int64_t spin_end_ns = spin_ns > 0 ? MonotonicNowNs() + spin_ns : 0;
  bool slept = false;
  for (;;) {
    // Where it is to sleep anyway, it does so in the call that receives, while there is time for that.
    const bool wait = (spin_ns == 0 || slept) && MonotonicNowNs() + kReceiveWaitNs < deadline_ns;
    const PacketResult result = wait ? AwaitPacket(socket_.get(), packet) : ReceivePacket(socket_.get(), packet);
    if (result != PacketResult::kNotNow) {
      if (spin_ns > 0) vain_spins_ = slept ? vain_spins_ + 1 : 0;
      return result;
    }
    if (MonotonicNowNs() < spin_end_ns) continue;
    slept = true;
    if (wait || MonotonicNowNs() + kReceiveWaitNs < deadline_ns) continue;
    if (!WaitForSocket(socket_.get(), POLLIN, deadline_ns)) return PacketResult::kNotNow;
  }
}

void CallChannel::Read(int64_t deadline_ns, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  ReceivedPacket packet;
  const PacketResult result = Receive(packet, deadline_ns);
  lock.lock();
  switch (result) {
    case PacketResult::kDone: return OnPacket(packet);
    case PacketResult::kNotNow: return;
    case PacketResult::kClosed: return FailLocked(gone_);
    case PacketResult::kMalformed:
      return FailLocked(absl::InternalError(absl::StrCat("the node's daemon at ", path_, " sent a malformed packet")));
  }
}

void CallChannel::OnPacket(ReceivedPacket& packet) {
  auto reply = DecodeReply(packet.bytes());
  if (!reply.ok()) {
    return FailLocked(
        absl::InternalError(absl::StrCat("the node's daemon at ", path_, ": ", reply.status().message())));
  }
  if (reply->id == 0) {
    // It ends the connection, and says why.
    return FailLocked(absl::Status(
        reply->status.code(),
        absl::StrCat("the node's daemon at ", path_, " has ended the connection: ", reply->status.message())));
  }
  OnReply(*std::move(reply), std::move(packet.descriptors));
}

void CallChannel::OnReply(AttachReply reply, std::vector<UniqueFd> descriptors) {
  const auto it = waiting_.find(reply.id);
  if (it == waiting_.end()) return OnLateReply(reply);
  Waiting& waiting = *it->second;
  if (waiting.done) return;
  waiting.failure = reply.status;
  if (waiting.answer.reply.more) {
    Append(waiting.answer.reply, std::move(reply));
  } else {
    waiting.answer = {std::move(reply), std::move(descriptors)};
  }
  if (waiting.answer.reply.more) return;
  waiting.done = true;
  waiting.changed.notify_one();
}

void CallChannel::OnLateReply(const AttachReply& reply) {
  if (abandoned_locks_.erase(reply.id) == 0 || !reply.status.ok()) return;
  const auto* const locked = std::get_if<LockedReply>(&reply.result);
  if (locked == nullptr) return;
  const AttachRequest unlock{.id = next_id_++, .timeout_ms = 0, .call = UnlockCall{locked->lock_id}};
  if (SendPacket(socket_.get(), EncodeRequest(unlock)) == PacketResult::kDone) return;
  // The end of the connection gives it back as well.
  FailLocked(absl::UnavailableError(absl::StrCat("a lock that came late could not be given back at ", path_)));
}

void CallChannel::Fail(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  EndCallsLocked(status);
  // Wakes the reader; the daemon sees the end.
  shutdown(socket_.get(), SHUT_RDWR);
}

// By the reader, or since the daemon has hung up, which the reader sees too: nobody else is to be woken.
void CallChannel::FailLocked(const absl::Status& status) {
  if (!failed_.ok()) return;
  EndCallsLocked(status);
  on_failure_();
}

void CallChannel::EndCallsLocked(const absl::Status& status) {
  CHECK(!status.ok());
  if (!failed_.ok()) return;
  failed_ = status;
  for (const auto& [id, waiting] : waiting_) waiting->changed.notify_one();
}

}  // namespace mangrove
