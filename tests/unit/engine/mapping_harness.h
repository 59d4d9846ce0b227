// For the tests of mapped memory: a loop in a thread, a node that hands pages out, and a program in a process of its own.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "engine/mapping/local_mapping.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/mapping/region_memory.h"

namespace mangrove::mapping_test {

constexpr PageId kFirst{absl::uint128(1) << 20};

// Something that happens once. (Abseil's own, in Debian's library, is unknown to the thread sanitizer.)
class Event {
 public:
  void Happen();
  void Wait();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool happened_ = false;
};

// Runs tasks one at a time in a thread.
class TaskThread {
 public:
  TaskThread();
  ~TaskThread();
  void Post(absl::AnyInvocable<void()> task);
  // Runs `task` there and waits until it has returned.
  void Run(std::function<void()> task);

 private:
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<absl::AnyInvocable<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

// A node alone in its cluster: a page that is not here comes from what was taken, or is zeros.
class Node final : public FaultService {
 public:
  explicit Node(uint64_t page_count);
  ~Node() override;

  absl::Status AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) override;

  RegionFrames& region() { return *region_; }
  std::shared_ptr<RegionFrames> shared_region() { return region_; }
  MappedClients& clients() { return *clients_; }
  TaskThread& loop() { return loop_; }
  RegionMemory& memory() { return *memory_; }  // On the loop.

  // From any thread; each returns when it is done. A page that has not the right for it is left alone.
  void Install(uint64_t page, uint8_t fill, Rights rights);
  void Raise(uint64_t page);
  void Protect(uint64_t page);
  void Take(uint64_t page);
  // The page's content, here or taken.
  std::vector<std::byte> Content(uint64_t page);
  Rights RightsOf(uint64_t page);

  // Acquiring these pages for more than `up_to` fails.
  void Refuse(uint64_t page, Rights up_to);
  void Admit(uint64_t page);
  // Acquiring these waits until Admit.
  void Block(uint64_t page);
  // Of the memory. While it is, acquiring waits, unless it fails. Whether no pin outlasted it.
  bool Fence();
  void Unfence();
  void StayReadable(bool stays);
  int Acquisitions() const { return acquisitions_.load(); }

 private:
  // Runs `operation(finish)` on the loop when no other is under way for `page`, and waits until it calls `finish`.
  void Exclusively(PageId page, std::function<void(std::function<void()>)> operation);
  void Give(PageId page, Rights rights);

  TaskThread loop_;
  std::unique_ptr<RegionMemory> memory_;
  std::shared_ptr<RegionFrames> region_;
  std::map<PageId, PageBuffer> taken_;  // On the loop.
  std::atomic<int> acquisitions_{0};
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::set<PageId> busy_;
  std::map<PageId, Rights> refused_;
  std::set<PageId> blocked_;
  bool fenced_ = false;
  std::unique_ptr<MappedClients> clients_;
};

// What a program does, on request. Every answer is a number.
enum class Op : uint32_t {
  kLoad,        // The 64-bit word at `offset`, or kBusError.
  kStore,       // `value` to it; 0 or kBusError.
  kReadCall,    // read(2) of `value` bytes of 'r' into the mapping: bytes, or -errno.
  kWriteCall,   // write(2) of `value` bytes of the mapping into a pipe: the sum of the bytes, or -errno.
  kHammer,      // Starts `value` threads; each increments its own words of `pages` pages from `offset` on, in turn.
  kStopHammer,  // Ends them: the number of increments.
  kTouchBoth,   // Two threads load the words at `offset` and `value`, the answer comes when the second has returned.
  kState,       // The state byte of the page at `offset`.
  kHeal,        // LocalMapping::Heal of `value` bytes.
  kTryWrite,    // Every way a read-only program might get at the frames: a bit for each that worked.
  kForkLoad,    // A child of fork loads the word: its wait status.
  kSeal,
};
constexpr int64_t kBusError = INT64_MIN;
constexpr int64_t kNoAnswer = INT64_MIN + 1;

struct Request {
  Op op;
  uint32_t pages = 0;
  uint64_t offset = 0;
  uint64_t value = 0;
};

// A process that maps the node's region. It is forked at once, while this process has one thread.
class Program {
 public:
  enum class User { kSame, kNobody };
  explicit Program(bool read_only = false, User user = User::kSame);
  ~Program();  // Kills it.

  // Gives it the descriptors, and has its faults served.
  void Attach(Node& node, MappedClientOptions options = {});
  void Attach(MappedClients& clients, std::shared_ptr<RegionFrames> region, MappedClientOptions options = {});
  int64_t Call(const Request& request) const;
  // The two halves of Call.
  void Send(const Request& request) const;
  int64_t Receive() const;
  int64_t Load(uint64_t offset) const { return Call({.op = Op::kLoad, .offset = offset}); }
  int64_t Store(uint64_t offset, uint64_t value) const {
    return Call({.op = Op::kStore, .offset = offset, .value = value});
  }

  void Kill();
  MappingId id() const { return id_; }

 private:
  const bool read_only_;
  pid_t pid_ = -1;
  int socket_ = -1;
  MappingId id_ = 0;
};

// Waits until `condition` holds, at most ten seconds.
bool Eventually(const std::function<bool()>& condition);

}  // namespace mangrove::mapping_test
