// For the tests of attached programs: a node of one, with the real loop, mapped memory and server, in this process or
// in a child.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine/attach/attach_server.h"
#include "engine/mangrove.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/mapping/region_memory.h"
#include "engine/node_operations.h"
#include "net/runtime/loop.h"

namespace mangrove::attach_test {

// A node alone in its cluster, with the regions' table in memory. Pages that are not here are zeros.
class TestNode final : public NodeOperations, public FaultService {
 public:
  TestNode();
  ~TestNode() override;

  Loop& loop() { return loop_; }
  MappedClients& mapped_clients() { return *mapped_clients_; }
  AttachServer::FindRegion find_region() {
    return [this](PageId page) { return memory_->FindRegion(page); };
  }
  // Runs it on the loop and waits.
  void OnLoop(const std::function<void()>& task);

  // Of any region, by their number in it. From any thread.
  void MakeFail(uint64_t page);    // Acquire: DataLoss.
  void MakeHang(uint64_t page);    // Acquire: nothing until the deadline.
  void MakeServed(uint64_t page);  // Neither.
  void Announce(const Event& event);
  void TakeAway(PageId page);
  // Of the memory. While it is, acquiring waits.
  void Fence();
  void Unfence();

  // What was asked for.
  std::atomic<int> acquisitions{0};
  std::atomic<int> ended_clients{0};
  std::atomic<int> flushes{0};
  std::atomic<int> waiting_locks{0};
  size_t HeldLocks();
  std::atomic<int64_t> fault_timeout_ms{10'000};

  Task<absl::StatusOr<OpenedRegion>> Reserve(Credentials who, RegionOptions options, TimeNs deadline) override;
  Task<absl::StatusOr<OpenedRegion>> Open(Credentials who, std::string name, AccessMode mode, TimeNs deadline) override;
  Task<absl::Status> Free(Credentials who, std::string name, TimeNs deadline) override;
  Task<absl::StatusOr<std::vector<RegionInfo>>> ListRegions(TimeNs deadline) override;
  Task<absl::StatusOr<SpaceTotals>> Space(TimeNs deadline) override;
  Task<absl::Status> Allocate(Credentials who, PageRange range, AllocateOptions options, TimeNs deadline) override;
  Task<absl::Status> AllocateAhead(Credentials who, PageRange range, AllocateOptions options,
                                   TimeNs deadline) override {
    return Allocate(std::move(who), range, options, deadline);
  }
  Task<absl::Status> Unallocate(Credentials who, PageRange range, TimeNs deadline) override;
  Task<absl::StatusOr<PageAttributes>> GetAttributes(PageId page, TimeNs deadline) override;
  Task<absl::Status> SetAttributes(Credentials who, PageRange range, PageAttributesChange change,
                                   TimeNs deadline) override;
  Task<absl::Status> CheckAllocated(PageRange range, TimeNs deadline) override;
  Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline) override;
  Task<absl::StatusOr<uint64_t>> Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) override;
  absl::Status Unlock(ClientId client, uint64_t lock_id) override;
  Task<absl::Status> Flush(PageRange range, TimeNs deadline) override;
  Task<absl::StatusOr<std::string>> Inspect(std::string what, std::string argument, TimeNs deadline) override;
  Task<absl::StatusOr<std::string>> Operate(Credentials who, std::string what, std::string argument,
                                            TimeNs deadline) override;
  void EndClient(ClientId client) override;
  uint64_t AddEventSink(EventSink sink) override;
  void RemoveEventSink(uint64_t sink_id) override;

  absl::Status AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) override;

 private:
  struct TableEntry {
    RegionInfo info;
    PageRange pages;
    std::set<uint64_t> allocated;
    PageAttributes attributes;
  };
  struct HeldLock {
    ClientId client;
    PageRange range;
    LockMode mode;
  };
  enum class Fate { kServed, kFails, kHangs };

  TableEntry* Find(PageId page);
  Fate FateOf(const PageRange& range);
  bool IsFree(const PageRange& range, LockMode mode) const;

  Loop loop_{LoopOptions{}};
  std::unique_ptr<RegionMemory> memory_;
  std::unique_ptr<MappedClients> mapped_clients_;
  std::map<std::string, TableEntry> regions_;
  PageId next_page_ = kFirstReservablePage;
  std::set<PageId> being_taken_;
  std::map<PageId, PageBuffer> taken_;  // Their content; zeros otherwise.
  std::map<uint64_t, HeldLock> locks_;
  std::set<ClientId> ended_;
  uint64_t next_lock_ = 1;
  std::map<uint64_t, EventSink> sinks_;
  uint64_t next_sink_ = 1;
  std::atomic<bool> ending_{false};
  bool fenced_ = false;
  std::atomic<int> hanging_{0};  // Applets that wait.
  std::mutex mutex_;
  std::map<uint64_t, Fate> fates_;
};

// A path for a socket in a directory of its own, that everybody may enter.
std::string NewSocketPath();

// A node that serves attached programs in this process.
class TestDaemon {
 public:
  explicit TestDaemon(const std::string& socket_path, AttachServerOptions options = {});
  ~TestDaemon();
  TestNode& node() { return node_; }
  AttachServer& server() { return server_; }
  const absl::Status& started() const { return started_; }

 private:
  TestNode node_;
  AttachServer server_;
  absl::Status started_;
};

// The same in a child process, which can be killed and stopped. REQUIRES: this process has one thread.
class ChildDaemon {
 public:
  explicit ChildDaemon(const std::string& socket_path, const std::function<void(TestNode&)>& prepare = {},
                       AttachServerOptions options = {});
  ~ChildDaemon();  // Kills it.
  void Signal(int signal) const;
  void KillAndReap();

 private:
  pid_t pid_ = -1;
};

// Runs `body` in a child of fork and returns its result (0 to 100), or 100 + the signal that ended it.
// REQUIRES: this process has one thread.
class ChildProgram {
 public:
  explicit ChildProgram(const std::function<int()>& body);
  ~ChildProgram();
  void Signal(int signal) const;
  int Wait();

 private:
  pid_t pid_ = -1;
};

// A store or load that may get SIGBUS or SIGSEGV: the signal's number, or 0. Installs the handlers.
int TryLoad(const std::byte* place, uint64_t* value = nullptr);
int TryStore(std::byte* place, uint64_t value);

// Waits until `condition` holds, at most ten seconds.
bool Eventually(const std::function<bool()>& condition);

}  // namespace mangrove::attach_test
