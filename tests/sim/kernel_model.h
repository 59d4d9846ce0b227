// A node's kernel as far as it keeps what a mount told it: attributes and bytes of files, and the names of one directory.
//
// It goes on while the daemon stands still, and takes answers in when it pleases, as Linux does: an answer that was asked for before the
// attributes were dropped is not taken in, unless the file was not known then.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "fs/mount/kernel_cache.h"
#include "tests/sim/sim_world.h"

namespace mangrove::sim {

class KernelModel final : public fs::KernelCache::Kernel {
 public:
  // It knows the root from the start.
  KernelModel(SimWorld* world, int slot) : world_(world), slot_(slot), files_{{fs::KnownFiles::kRoot, {}}} {}

  // When something is asked for.
  uint64_t version() const { return version_; }

  // What it has, if it need not ask.
  std::optional<uint64_t> Attributes(uint64_t number) const;
  std::optional<uint64_t> Bytes(uint64_t number) const;
  std::optional<uint64_t> Names() const;

  // Answers are taken in.
  void TakeAttributes(uint64_t number, uint64_t asked_in, uint64_t value, DurationNs time);
  void TakeNames(uint64_t value, DurationNs time);
  // The bytes are locked between these two. Nothing: they could not be read.
  void BeginRead(uint64_t number) { ++files_[number].reads; }
  void EndRead(uint64_t number, std::optional<uint64_t> value);
  // It has changed the file itself, with a mark that what was asked for before is older, or names in the directory, without: of these it knows.
  void Wrote(uint64_t number);
  void ChangedNames(uint64_t directory, std::optional<uint64_t> value);
  // Who opens a file without keeping its bytes drops them.
  void OpenWithoutKeeping(uint64_t number);
  void Forget(uint64_t number) { files_.erase(number); }

  // fs::KernelCache::Kernel
  bool DropAttributes(uint64_t number) override;
  void DropBytes(uint64_t number) override;
  void DropBytesBesideReads(uint64_t number, std::function<void(bool)> done) override;

 private:
  struct Told {
    uint64_t value = 0;
    TimeNs until = 0;
  };
  struct File {
    uint64_t version = 0;
    Told attributes;
    std::optional<uint64_t> bytes;
    int reads = 0;
    std::vector<std::function<void()>> drops;
  };

  void EndDrops(File* file);

  SimWorld* const world_;
  const int slot_;
  uint64_t version_ = 1;
  Told names_;
  uint64_t own_names_ = 0;  // That it knows from changing them itself.
  std::map<uint64_t, File> files_;
};

}  // namespace mangrove::sim
