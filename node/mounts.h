// The filesets of the cluster as this node's operators handle them, and the mounts of this host that the daemon serves.
//
// Answers are JSON documents (NodeOperations::Operate, words that begin with "fs "):
//   fileset list, fileset show NAME, fileset create {"name", "replicas"}, fileset set {"name", "copies", "quota_bytes", "quota_inodes"},
//   fileset online NAME, fileset offline NAME, fileset delete NAME,
//   fileset check (node/file_checks.h),
//   mount {"fileset", "directory", "options"}, unmount {"directory", "force"}, mounts
//
// Owned by the loop, but for the constructor and the destructor.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/node.h"
#include "fs/mount/mount.h"
#include "fs/super_root.h"
#include "net/runtime/system_entropy.h"
#include "net/runtime/task.h"
#include "node/file_checks.h"

namespace mangrove {

class Mounts {
 public:
  // `node` outlives it. Not on the loop.
  explicit Mounts(Node* node);
  // Blocks, at most as long as operations take: every mount of this node goes, whoever uses it. Not on the loop.
  ~Mounts();

  struct Wanted {
    std::string fileset;
    std::string directory;
    std::vector<std::string> options = {};  // fs::IsMountOption.
  };
  // Mounts them; what cannot be mounted yet is in the log, and is tried again. Once at most; not on the loop.
  void Keep(std::vector<Wanted> wanted);
  // What is mounted, or is to be. Not on the loop.
  std::vector<Wanted> Kept() const;

 private:
  struct Entry;
  using Answer = absl::StatusOr<std::string>;

  Task<Answer> Operate(Credentials who, std::string what, std::string argument);
  Task<Answer> OfFileset(std::string what, std::string argument, bool is_operator);
  Task<Answer> Mount(std::string argument);
  Task<Answer> MountAt(Wanted wanted);
  Task<bool> HasLease();
  Task<bool> KeepMounted(Wanted wanted);
  Task<Answer> Unmount(std::string argument);
  std::string List() const;
  Task<absl::StatusOr<std::shared_ptr<fs::OpenFileset>>> OpenFileset(std::string name);
  Task<absl::StatusOr<std::shared_ptr<fs::OpenFileset>>> FindOrOpen(std::string name);
  Task<bool> EndUse(std::shared_ptr<fs::OpenFileset> fileset);
  void EndAllUse(const std::vector<std::shared_ptr<Entry>>& mounts);
  Task<absl::StatusOr<std::unique_ptr<fs::Mount>>> Create(fs::MountOptions options);
  void Detach(const Entry* entry);
  void OnEnded(const Entry* entry);
  // Runs `call` on a thread of its own.
  template <typename T>
  Outcome<T> OnThread(std::function<T()> call);

  Node* const node_;
  SystemEntropy entropy_;
  ClientId next_client_;
  std::unique_ptr<fs::SuperRoot> super_root_;
  std::unique_ptr<FileChecks> checks_;
  std::map<std::string, std::shared_ptr<Entry>> mounts_;     // By their directories.
  std::vector<std::shared_ptr<Entry>> detached_;             // Unmounted, and still used.
  std::vector<Wanted> awaited_;                              // Of Keep, not mounted yet.
  std::map<uint64_t, std::weak_ptr<fs::OpenFileset>> open_;  // By their numbers: those that some mount has.
  std::set<std::string> at_work_;                            // Filesets that are being opened or given up.
  int under_way_ = 0;                                        // Of Operate, and of threads.
  bool ending_ = false;
};

}  // namespace mangrove
