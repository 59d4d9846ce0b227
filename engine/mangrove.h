// Mangrove's public interface: one memory on many machines.
//
//   auto session = mangrove::Session::Attach({.socket_path = "var/node-1/mangroved.sock"});
//   auto region = (*session)->Reserve({.name = "table", .size_bytes = 64 << 20});
//   (*region)->Allocate(0, 64 << 20, {.persistent = true, .replicas = 2});
//   auto base = (*region)->Map(0, 64 << 20);          // std::byte*, shared by every node that maps it
//   std::atomic_ref(*reinterpret_cast<uint64_t*>(*base)).fetch_add(1);
//   (*region)->Flush(0, 64 << 20);                    // on the disks of every core holder when it returns OK
//
// Offsets and lengths are in bytes. Those of Allocate, Unallocate, Map, Access, Lock, SetAttributes and Flush are
// multiples of kPageBytes (4096); those of Read and Write are free.
//
// Memory model: loads and stores on mapped pages are sequentially consistent page by page. What a page held when its
// node died without a flush may go back to the newest version that a survivor holds, or to the last flushed one; the
// region's event callback tells (see RegionEvent).
//
// Errors, everywhere:
//   InvalidArgument     an argument is wrong; the message names it, its value and what was expected. Nothing changed.
//   NotFound            no region of that name, or no reservation at that address.
//   AlreadyExists       a region of that name exists, or a part of the range is allocated already.
//   PermissionDenied    the caller's credentials do not allow it, or the attachment is read-only.
//   FailedPrecondition  the range is not allocated, or the region is in use in a way that forbids it.
//   ResourceExhausted   the space, a disk or the RAM cache (everything pinned) is full. Trying later may help, but not
//                       to lock more pages than three quarters of the cache; the message names both numbers.
//   Unavailable         a node that is needed does not answer; the message names it. Or this one has no lease on its
//                       place in the cluster. Trying later may help. After a write, flush or allocation it may or may
//                       not have happened.
//   DeadlineExceeded    a lock is held by someone else for longer than the given time, or the range is too large for
//                       it; then the message says how far the call came.
//   DataLoss            every copy of the page is lost or corrupt.
// A call on more than 256 pages changes nothing unless all of them are allocated.
// A mapped access that cannot be served ends with SIGBUS at the accessed address, within the node's fault_timeout_ms.
// After the cause is gone, Region::Heal makes the page accessible again. When the daemon is gone, or has lost its lease, calls end
// with Unavailable, not with a signal, also those that are copying; accesses to what Map or Access gave end with SIGBUS. A call of an
// attached program gets SIGBUS only where a page was taken away while it copied, and cannot be had again within fault_timeout_ms.
// A store into a region that is only read, for want of quorum, ends so at once; or with SIGSEGV, in a program that is attached.
//
// Thread-safety: all classes here are thread-safe, except that moving or destroying an object needs exclusive access.

#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"

namespace mangrove {

struct NodeConfig;  // engine/node_config.h
class Region;
class Transaction;  // engine/transaction.h

// Bounds of waiting, the same for all calls of a session.
struct Limits {
  int64_t call_timeout_ms = 10'000;  // Every call but Lock and Access, which take their own.
};

struct AttachOptions {
  std::string socket_path;  // Of the local daemon, mangroved.
  Limits limits;
};

// What a node does with a region when too few anchors answer, so that others may be writing its pages elsewhere.
enum class WithoutQuorum : uint8_t {
  kRefuse = 0,  // Nothing: mapped pages are taken away, and calls wait.
  kRead =
      1,  // The pages that it has are read, as they were last, by calls and in mappings; all else is refused at once.
};

struct RegionOptions {
  std::string name;         // 1 to 255 bytes, no '/' and no NUL. Unique in the cluster.
  uint64_t size_bytes = 0;  // A multiple of kPageBytes, at most 2^46.
  // Owner and group are the caller's unless given; only root gives others. Mode bits as of files: 0400 and 0200 of the
  // owner, group and others; the owner alone may allocate, unallocate, free and change attributes.
  std::optional<uid_t> owner;
  std::optional<gid_t> group;
  uint16_t mode = 0600;
  WithoutQuorum without_quorum = WithoutQuorum::kRefuse;
};

struct TransactionOptions {
  int64_t timeout_ms = 5'000;  // From its begin; by then it has ended, or its commit has begun.
};

// What a committed transaction wrote, as the log of a node has it.
struct LoggedWrite {
  uint64_t transaction = 0;  // Counted by the node, from 1 on in each of its lives.
  uint64_t offset_bytes = 0;
  std::string bytes;
  uint64_t page_sequence = 0;  // How many transactions have changed the page by then, this one included.
};

struct RegionInfo {
  std::string name;
  GlobalAddress address;
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;
  uid_t owner = 0;
  gid_t group = 0;
  uint16_t mode = 0;
  // `mangrove region set` changes it, for who opens the region from then on.
  WithoutQuorum without_quorum = WithoutQuorum::kRefuse;
};

struct AllocateOptions {
  bool persistent = true;  // False: pages live in RAM only and are lost with the node that holds them.
  uint32_t replicas = 0;   // Core holders of each page; 0 is the cluster's default. At most the number of nodes.
};

// What happens when a page is read that is not here. Both are sequentially consistent.
enum class CoherenceProtocol : uint8_t {
  kInvalidate = 0,  // A copy comes, and others keep theirs. The first store takes these away: a second exchange.
  kMigratory =
      1,  // The page comes with the right to store, in one exchange, unless a lock or a node that is away keeps
          // that right elsewhere: for what is read, changed and passed on.
};

struct PageAttributes {
  // In force at the node that set it, and at every node where a program opens the region from then on; elsewhere pages
  // are read as before.
  CoherenceProtocol protocol = CoherenceProtocol::kInvalidate;
  bool persistent = true;
  uint32_t replicas = 0;
  // Not evicted while there is another page to evict: at the node that set it, and at every node where a program opens
  // the region from then on. Other nodes go on as before.
  bool keep_in_ram = false;
  std::array<std::byte, 16> user{};
};

// Which of a page's attributes SetAttributes changes: those that have a value. Persistence cannot change.
struct PageAttributesChange {
  std::optional<CoherenceProtocol> protocol;
  std::optional<uint32_t> replicas;  // As the pages were allocated with: InvalidArgument otherwise.
  std::optional<bool> keep_in_ram;
  std::optional<std::array<std::byte, 16>> user;
};

enum class AccessMode : uint8_t { kRead, kWrite };
enum class LockMode : uint8_t { kShared, kExclusive };

// Pages that are held locked, and where they are in this process. Move-only; Release or the destructor gives them back.
class PageView {
 public:
  PageView() = default;
  PageView(PageView&&) noexcept;
  PageView& operator=(PageView&&) noexcept;
  ~PageView();

  std::span<const std::byte> bytes() const { return bytes_; }
  // REQUIRES: obtained with AccessMode::kWrite.
  std::span<std::byte> mutable_bytes();
  absl::Status Release();

 private:
  friend class Region;
  std::shared_ptr<Region> region_;
  std::span<std::byte> bytes_;
  uint64_t lock_id_ = 0;  // 0: none is held.
  bool writable_ = false;
};

// A lock on pages, without a view. Move-only; Release or the destructor unlocks; so does the death of the process.
class PageLock {
 public:
  PageLock() = default;
  PageLock(PageLock&&) noexcept;
  PageLock& operator=(PageLock&&) noexcept;
  ~PageLock();
  absl::Status Release();

 private:
  friend class Region;
  std::shared_ptr<Region> region_;
  uint64_t lock_id_ = 0;
};

struct RegionEvent {
  enum class Kind : uint8_t {
    kReverted,       // The pages went back to an older version: the newest died with a node, unflushed.
    kMaybeReverted,  // A node is gone that may have had newer ones; what was unflushed on it is lost.
    kLost,           // No copy is left; accesses fail until the pages are allocated anew.
    kFenced,         // This process was cut off from its node; every mapping of it ends with SIGBUS.
  };
  Kind kind;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
};

struct RegionCounters {
  uint64_t read_faults = 0;  // Mapped accesses of this process that waited for a page.
  uint64_t write_faults = 0;
  uint64_t pages_fetched = 0;  // Pages that came to this node from others or from disk, for any of its processes.
  uint64_t reverts = 0;        // Pages reverted since the region was opened; see RegionEvent.
};

// A named range of the global address space. Obtained from a Session, which it keeps alive.
class Region : public std::enable_shared_from_this<Region> {
 public:
  virtual ~Region() = default;

  virtual const RegionInfo& info() const = 0;  // As of opening.

  // Gives pages of the reservation storage, filled with zeros. AlreadyExists if a page is allocated, unless it is lost.
  virtual absl::Status Allocate(uint64_t offset, uint64_t length, const AllocateOptions& options) = 0;
  // Takes storage and content away from the pages, keeps the addresses. FailedPrecondition if a page is not allocated.
  virtual absl::Status Unallocate(uint64_t offset, uint64_t length) = 0;

  // Makes allocated pages accessible by loads and, unless the region was opened read-only, stores. The address is the
  // same for every call in this process, plus `offset`. Children of fork do not inherit it.
  virtual absl::StatusOr<std::byte*> Map(uint64_t offset, uint64_t length) = 0;
  // Undoes one Map of the same range.
  virtual absl::Status Unmap(uint64_t offset, uint64_t length) = 0;

  // Copies between the pages and `out`/`bytes`; not atomic across pages, nor against concurrent stores.
  virtual absl::Status Read(uint64_t offset, std::span<std::byte> out) = 0;
  virtual absl::Status Write(uint64_t offset, std::span<const std::byte> bytes) = 0;

  // Locks the pages (shared for kRead, exclusive for kWrite), brings them here in few messages, and gives a view of
  // them. No other node has any access to exclusively locked pages, nor stores to share-locked ones. Give back soon.
  // Without quorum a region that is read so gives views for reading that lock nothing, of what is here.
  absl::StatusOr<PageView> Access(uint64_t offset, uint64_t length, AccessMode mode, int64_t timeout_ms);
  absl::StatusOr<PageLock> Lock(uint64_t offset, uint64_t length, LockMode mode, int64_t timeout_ms);

  // Returns OK when everything that any node wrote to the pages before the call is on the disk of every core holder.
  // DataLoss: also when what this node had written went with a page to another node, and was lost with one; said once.
  virtual absl::Status Flush(uint64_t offset, uint64_t length) = 0;

  virtual absl::StatusOr<PageAttributes> GetAttributes(uint64_t offset) = 0;
  virtual absl::Status SetAttributes(uint64_t offset, uint64_t length, const PageAttributesChange& change) = 0;

  // Called from a thread of the library, one event at a time. Replaces the one before.
  virtual void SetEventCallback(std::function<void(const RegionEvent&)> callback) = 0;
  virtual RegionCounters Counters() const = 0;
  // What transactions of the node with this number wrote to this region, in their order, as far as its log still has it: what is in
  // the pages, and these on their disks, is dropped some time. NotFound: the node has no log.
  virtual absl::StatusOr<std::vector<LoggedWrite>> ReadLog(uint64_t node) = 0;
  // Makes pages whose accesses ended with SIGBUS faultable again.
  virtual absl::Status Heal(uint64_t offset, uint64_t length) = 0;

 protected:
  virtual absl::StatusOr<uint64_t> LockPages(uint64_t offset, uint64_t length, LockMode mode, int64_t timeout_ms) = 0;
  virtual absl::Status UnlockPages(uint64_t lock_id) = 0;
  // Where `offset` is in this process, for views.
  virtual absl::StatusOr<std::byte*> ViewAddress(uint64_t offset, uint64_t length) = 0;
  // The same without a lock, where the region is read without quorum, there is none, and all of it is here; else Unavailable.
  virtual absl::StatusOr<std::byte*> StaleViewAddress(uint64_t offset, uint64_t length) = 0;
  // Of a transaction of the same session.
  virtual absl::StatusOr<std::string> ReadIn(uint64_t transaction, uint64_t offset, uint64_t length,
                                             AccessMode intent) = 0;
  virtual absl::Status WriteIn(uint64_t transaction, uint64_t offset, const std::string& bytes) = 0;

 private:
  friend class Transaction;
  friend class PageView;
  friend class PageLock;
};

struct SpaceTotals {
  // Of the cluster's disks, in bytes of distinct data at the default number of replicas.
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
  // Of this node's RAM cache.
  uint64_t cache_bytes = 0;
  uint64_t cache_used_bytes = 0;
};

// A program's connection to one node.
class Session {
 public:
  // Connects to the daemon of this host. Unavailable names the socket when nobody serves it.
  static absl::StatusOr<std::shared_ptr<Session>> Attach(const AttachOptions& options);
  // Runs a node inside this process, until the session and its regions are gone. When the cluster has gone on without it,
  // every call fails from then on (Unavailable says so): end it and embed anew.
  static absl::StatusOr<std::shared_ptr<Session>> Embed(const NodeConfig& config, const Limits& limits = {});

  virtual ~Session() = default;

  // Makes a region: a name and addresses, without storage.
  virtual absl::StatusOr<std::shared_ptr<Region>> Reserve(const RegionOptions& options) = 0;
  virtual absl::StatusOr<std::shared_ptr<Region>> Open(const std::string& name, AccessMode mode) = 0;
  // Gives up a region of which nothing is allocated. Its addresses are never handed out again.
  virtual absl::Status Free(const std::string& name) = 0;
  virtual absl::StatusOr<std::vector<RegionInfo>> ListRegions() = 0;
  virtual absl::StatusOr<SpaceTotals> Space() = 0;

 protected:
  virtual absl::StatusOr<uint64_t> BeginTransaction(const TransactionOptions& options) = 0;
  virtual absl::Status EndTransaction(uint64_t transaction, bool commit) = 0;

 private:
  friend class Transaction;
};

}  // namespace mangrove
