// The filesets of the space. The super root, page kSuperRootPage, names the region that lists them: its first page, and then one page for each
// fileset, with what is the same for all of it. Each fileset is a region of its own.
//
// The super root:       0 "MGSUPER1"   8 address of the list's region, low half 8, high half 8
// The list's first page: 16 number of the next fileset 8   24 pages that were ever used for entries 4
// An entry: 16 state 4   20 replicas 4   24 number of the fileset 8   32 when it was made 8   40 length of its name 1   41 name
//           512 roles (fs/roles.h)
//
//   P1  A fileset is in state kMaking until it is whole, and in state kDeleting from before its first page goes until its region has
//       gone: so whoever asks next goes on with what was interrupted, or does it again.
//   P2  Region "fileset-N" is of the fileset with number N alone. Numbers are never used again.
//   P3  The super root is empty, or names the list. If it says anything else, or is lost, no fileset is listed, made or opened: every call
//       fails with EIO and names it. A check with repair writes one anew that was overwritten; where the list is, the table of regions says too.
//   P4  A fileset is repaired by the node that has its role kRepair, by one repair at a time; it stays offline that long, and is not deleted.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/check.h"
#include "fs/engine_pages.h"
#include "fs/instance.h"
#include "fs/quota.h"
#include "fs/roles.h"
#include "fs/upkeep.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

enum class FilesetState : uint32_t { kFree = 0, kMaking = 1, kOnline = 2, kOffline = 3, kDeleting = 4 };
std::string ToString(FilesetState state);

struct FilesetInfo {
  std::string name;
  FilesetState state = FilesetState::kFree;
  uint32_t replicas = 0;  // 0: as the cluster does.
  uint64_t number = 0;
  int64_t made_ns = 0;
  std::optional<RoleHolder> repair;  // Registered for it; its node may have gone.
};

// What has a value changes.
struct FilesetChange {
  std::optional<uint32_t> replicas;  // Of storage that it takes from now on.
  QuotaChange quota;
};

// An instance on this node, with its pages. What it does ends before it is destroyed, its upkeep by Stop.
struct OpenFileset {
  FilesetInfo info;
  std::unique_ptr<EnginePages> pages;
  std::unique_ptr<Instance> instance;
  std::unique_ptr<Upkeep> upkeep;       // Of what was removed,
  std::unique_ptr<Upkeep> lock_upkeep;  // and of locks.

  // `clock` outlives it.
  void BeginUpkeep(Clock* clock);
  // From when it returns none is at work. Once.
  Task<bool> EndUpkeep();
};

inline constexpr char kDefaultFileset[] = "default";

class SuperRoot {
 public:
  // `operations`, of the same node, outlives it. `clients`: gives numbers of clients of the engine that are nobody else's.
  SuperRoot(EnginePagesNode node, NodeOperations* operations, std::function<ClientId()> clients)
      : node_(std::move(node)), operations_(operations), clients_(std::move(clients)) {}

  // What these change is durable when they say OK. After EAGAIN and ETIMEDOUT it may have happened.
  // In the order of their names. The default one is there from the first call on, of any of these.
  Task<absl::StatusOr<std::vector<FilesetInfo>>> List();
  // ENOENT: there is none of that name.
  Task<absl::StatusOr<FilesetInfo>> Find(std::string name);
  // EEXIST: there is one. EINVAL: no name.
  Task<absl::StatusOr<FilesetInfo>> Create(std::string name, FilesetOptions options);
  Task<absl::Status> SetOnline(std::string name, bool online);
  Task<absl::Status> Change(std::string name, FilesetChange change);
  Task<absl::StatusOr<Usage>> GetUsage(std::string name);
  // Everything in it is gone. EBUSY: it is online.
  Task<absl::Status> Delete(std::string name);
  // First the super root (P3). If that was mended, and the fileset is not offline, nothing else is.
  // EBUSY, of a repair: it is not offline, it is in use, or somebody repairs it.
  Task<absl::StatusOr<CheckReport>> Check(std::string name, CheckOptions options);
  // Who repairs it, as far as this node knows.
  std::optional<NodeId> RepairedBy(const FilesetInfo& info) const;
  // ENOENT; ENODEV: it is not online.
  Task<absl::StatusOr<std::unique_ptr<OpenFileset>>> Open(std::string name);

 private:
  struct Entry {
    uint64_t page = 0;  // In the list.
    FilesetInfo info;
  };

  // `mended`, where P3 is to be made true: whether it was not.
  Task<absl::Status> Ready(bool* mended = nullptr);
  Task<absl::Status> OpenList(bool* mended);
  Task<absl::Status> NameList(PageId first, bool* mended);
  Task<absl::StatusOr<PageRange>> OpenRegion(std::string name, bool make, uint64_t pages);
  Task<absl::StatusOr<std::vector<Entry>>> Entries(Edit* edit, Intent intent);
  Task<absl::StatusOr<Entry>> Get(std::string name);
  Task<absl::StatusOr<Entry>> Register(std::string name, FilesetOptions options);
  Task<absl::StatusOr<std::unique_ptr<EnginePages>>> OpenPagesOf(std::string name);
  Task<absl::StatusOr<PageRange>> OpenRegionOf(Entry entry);
  Task<absl::Status> SetReplicas(Entry entry, uint32_t replicas);
  Task<absl::Status> ChangeInfo(Entry entry, std::function<absl::Status(FilesetInfo&)> change);
  Task<absl::Status> SetState(Entry entry, FilesetState state);
  Task<absl::StatusOr<FilesetInfo>> MakeFileset(std::string name, FilesetOptions options);
  Task<absl::Status> CheckUnused(PageRange region, std::string name);
  absl::Status CheckPlace() const;
  static absl::StatusOr<FilesetInfo> InfoOf(const Entry& entry, const EditPage& page);
  absl::Status NotBeingRepaired(const FilesetInfo& info) const;
  Task<absl::StatusOr<RoleHolder>> BeginRepair(Entry entry);
  Task<absl::Status> EndRepair(Entry entry, RoleHolder holder);
  Task<absl::StatusOr<CheckReport>> Repair(Entry entry, PageRange region, CheckOptions options);
  Task<absl::Status> DropPages(PageRange region);

  const EnginePagesNode node_;
  NodeOperations* const operations_;
  const std::function<ClientId()> clients_;
  std::unique_ptr<EnginePages> list_;
  PageId list_first_;
  bool has_default_ = false;
  std::set<uint64_t> repairing_;  // Numbers of filesets, by this node.
};

}  // namespace mangrove::fs
