// Requests and replies over one socket, for many threads.
//
// Nobody waits on another thread who needs not: a thread that waits for its reply reads the socket itself when no other
// does (the *reader*), and hands out the replies of others that it meets. When it has its own it leaves, and tells one of
// those that still wait to read on. So a single caller pays for its own sleep and nothing else; it polls for a short
// while before it sleeps.
//
// Invariants:
//  C1  While a thread waits for a reply, one thread reads, or one of the waiting has been told to.
//  C2  Every call ends by its deadline, whatever the daemon does.
//  C3  After a failure every call ends with its status, also those under way.
//  C4  Fail alone hangs up: to the daemon that says that nothing is mapped here any more (attach_server.h, S4).
//
// Thread-safe.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/attach/attach_messages.h"
#include "engine/attach/packet_socket.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

class CallChannel {
 public:
  using Call = decltype(AttachRequest::call);
  struct Answer {
    AttachReply reply;  // Its status is OK. Lists and texts are whole.
    std::vector<UniqueFd> descriptors;
  };

  // `socket`: LetReceiveWait. `path`: for messages. `gone`: what calls get when the daemon has hung up. `on_failure` is called, once at
  // most and by any thread, when the connection cannot be used any more and nobody has called Fail: whoever is to seal what is
  // mapped does so, and calls Fail. It must not do so in that call.
  CallChannel(UniqueFd socket, std::string path, absl::Status gone, std::function<void()> on_failure);

  // Sends the call and waits for its reply: the daemon's status, or Unavailable `kGraceMs` after `timeout_ms`.
  absl::StatusOr<Answer> Ask(Call call, int64_t timeout_ms, std::span<const int> descriptors = {});

  // Ends the connection and all calls. REQUIRES: nothing is mapped any more. The first status counts.
  void Fail(const absl::Status& status);

  // The daemon's own answer about a timeout says more; it gets this long to come.
  static constexpr int64_t kGraceMs = 1000;

 private:
  struct Waiting {
    bool waits = false;  // Its thread has sent, and is here.
    bool done = false;
    absl::Status failure;
    Answer answer;
    std::condition_variable changed;
  };

  absl::StatusOr<Answer> Exchange(AttachRequest request, std::span<const int> descriptors, int64_t deadline_ns,
                                  Waiting& waiting);
  absl::Status Send(const AttachRequest& request, std::span<const int> descriptors, int64_t deadline_ns);
  void Wait(Waiting& waiting, int64_t deadline_ns, std::unique_lock<std::mutex>& lock);
  // One packet, or none by the deadline. The lock is not held while waiting.
  void Read(int64_t deadline_ns, std::unique_lock<std::mutex>& lock);
  PacketResult Receive(ReceivedPacket& packet, int64_t deadline_ns);
  int64_t SpinNs();
  void OnPacket(ReceivedPacket& packet);
  void OnReply(AttachReply reply, std::vector<UniqueFd> descriptors);
  void OnLateReply(const AttachReply& reply);
  void LetAnotherRead();
  void FailLocked(const absl::Status& status);
  void EndCallsLocked(const absl::Status& status);
  absl::Status TimedOut(int64_t timeout_ms) const;

  const UniqueFd socket_;
  const std::string path_;
  const absl::Status gone_;
  const std::function<void()> on_failure_;

  std::mutex mutex_;
  absl::Status failed_;
  uint64_t next_id_ = 1;
  bool reading_ = false;
  // Of the reader.
  int vain_spins_ = 0;     // In a row.
  int reads_no_spin_ = 0;  // The next reads, which sleep at once.
  std::map<uint64_t, Waiting*> waiting_;
  // Calls for locks that nobody waits for any more: what comes is given back.
  std::set<uint64_t> abandoned_locks_;
};

}  // namespace mangrove
