// A region's frames mapped into this process and registered with a userfaultfd: what an attached program does with the
// descriptors that its daemon passed, and an embedded node for its own process.
//
// For whoever serves and whoever attaches:
//   - A program maps a region once. It sends the userfaultfd and `base()` to its node (MappedClients::Add), and accesses
//     the mapping only after the node has answered; it closes its own copy of the descriptor (ReleaseUserfaultfd), so
//     that the end of the daemon ends the registration. Holes then read as zeros: the watchdog must have sealed the
//     mapping (mprotect PROT_NONE) before.
//   - The mapping is not inherited by children of fork (MADV_DONTFORK): they would not be registered.
//   - Before it ends the mapping, a program that lives on destroys this object first, then tells its node.
//   - Poisoned pages: the program asks its node to Heal a range; the node forgets the pages that it had poisoned there
//     and answers which; then the program calls Heal for these, in this order. Faults in between are poisoned still.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

class LocalMapping {
 public:
  // `frames`: of RegionFrames::OpenFrames, or OpenFramesReadOnly when `read_only`. May be closed afterwards.
  static absl::StatusOr<std::unique_ptr<LocalMapping>> Create(int frames, uint64_t size_bytes, bool read_only);
  ~LocalMapping();  // Unmaps.
  LocalMapping(const LocalMapping&) = delete;
  LocalMapping& operator=(const LocalMapping&) = delete;

  // May an access to these bytes of this process fault in such a mapping, or where one has been? Thread-safe.
  static bool MayReach(const std::byte* first, size_t count);

  std::byte* base() const { return base_; }
  uint64_t size_bytes() const { return size_bytes_; }
  bool read_only() const { return read_only_; }
  // The descriptor, to be passed on; then not ours any more.
  UniqueFd ReleaseUserfaultfd() { return std::move(userfaultfd_); }

  // Makes poisoned pages fault again. Offsets in bytes, multiples of kPageBytes.
  absl::Status Heal(uint64_t offset, uint64_t length);
  // Takes every access away for good: later ones get SIGSEGV. Async-signal-safe.
  void Seal();

 private:
  LocalMapping() = default;

  std::byte* base_ = nullptr;
  uint64_t size_bytes_ = 0;
  bool read_only_ = false;
  UniqueFd userfaultfd_;
};

}  // namespace mangrove
