// A region's mapping in this process: made once, when first needed, and the same for every call of the session. What
// else it takes to use it: the pages' state bytes, filling in page table entries without a fault, sealing.
//
//  M1  The process keeps a copy of the userfaultfd for as long as the mapping is there. So the end of the daemon does not
//      end the registration, after which holes would read as zeros: faults wait, until the watchdog seals.
//  M2  Sealing replaces the mapping by another one, in one step; then it wakes who waited in a fault. It touches none of the
//      mapped memory. No call of this process unseals.
//  M3  Every access to a sealed mapping of the program's gets SIGBUS. One of the calls' becomes memory of this process: a call
//      that is copying goes on, and sees afterwards that the session has ended, which comes before the seal (L2).
//  M4  While the node has no lease, stores into the mappings of regions that are read without one get SIGSEGV, by the mapping's
//      protection: so whatever entries the node makes, or made just before, are for loads. What else is mapped is sealed.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/attach/backend.h"
#include "engine/attach/liveness.h"
#include "engine/mapping/local_mapping.h"
#include "engine/mapping/page_state.h"
#include "engine/mapping/unique_fd.h"
#include "engine/mapping/userfaultfd.h"

namespace mangrove {

class RegionMapping;

// The mappings of a session that end together. Thread-safe.
class MappingTable {
 public:
  static absl::StatusOr<std::unique_ptr<MappingTable>> Create();

  // From now on `mapping` is sealed with the others. Unavailable when that has happened already, or there is no lease, and
  // stores into it cannot be forbidden.
  absl::Status Add(const RegionMapping* mapping);
  // When it returns nobody seals `mapping` any more.
  void Remove(const RegionMapping* mapping);
  // There is no lease any more. True: what is mapped may be read until there is one, and cannot be stored to (M3). False:
  // something may not be read, or not be protected.
  bool EndLease();
  // Stores work again. False: they cannot be made to.
  bool BeginLease();
  bool lease_has_ended() const { return lease_has_ended_.load(std::memory_order_acquire); }
  // Seals every mapping, and those to come. What cannot be sealed must not go on being read: the process aborts.
  void SealAll();

 private:
  MappingTable() = default;
  UniqueFd nothing_;  // A file without a byte: mapped anywhere, its accesses get SIGBUS.
  mutable std::mutex mutex_;
  bool sealed_ = false;
  std::atomic<bool> lease_has_ended_{false};
  std::set<const RegionMapping*> mappings_;
};

// The state bytes of a region, as a program sees them.
class StatesView {
 public:
  static absl::StatusOr<StatesView> Create(const UniqueFd& states, uint64_t pages);
  StatesView(StatesView&& other) noexcept;
  ~StatesView();

  bool HaveRights(uint64_t first_page, uint64_t last_page, Rights rights) const {
    for (uint64_t page = first_page; page <= last_page; ++page) {
      if (!HasRights(states_[page], rights)) return false;
    }
    return true;
  }

 private:
  StatesView() = default;
  const std::atomic<uint8_t>* states_ = nullptr;
  uint64_t pages_ = 0;
};

class RegionMapping {
 public:
  // `opened`: as the backend gave it.
  static absl::StatusOr<std::unique_ptr<RegionMapping>> Create(const Backend::Opened& opened, const Liveness* liveness,
                                                               MappingTable* table, MappingUse use);
  ~RegionMapping();
  RegionMapping(const RegionMapping&) = delete;
  RegionMapping& operator=(const RegionMapping&) = delete;

  std::byte* base() const { return local_->base(); }
  const UniqueFd& userfaultfd() const { return userfaultfd_; }

  // Fills in this process's entries for loads of the pages that are here. Only saves faults: pages that it leaves out fault
  // later. Offsets in bytes, of whole pages.
  void Prefault(uint64_t offset, uint64_t length, const StatesView& states) const;
  // The node serves it: a node of this process takes pages away from it by itself.
  void SetServed();
  // Until then it is none of the lease's: nothing can be got at by it, and the node may still refuse it.
  bool is_served() const { return is_served_.load(); }
  absl::Status Heal(uint64_t offset, uint64_t length) { return local_->Heal(offset, length); }
  // `nothing`: a file without a byte. False: could not.
  bool Seal(int nothing) const;
  bool is_read_without_lease() const { return is_read_without_lease_; }
  bool SetStores(bool allowed) const;

 private:
  explicit RegionMapping(MappingUse use) : use_(use) {}
  void FillWithoutPins(uint64_t offset, uint64_t length, const StatesView& states) const;

  const MappingUse use_;
  std::unique_ptr<LocalMapping> local_;
  bool is_read_without_lease_ = false;
  std::atomic<bool> is_served_{false};
  UniqueFd userfaultfd_;
  std::shared_ptr<RegionFrames> frames_;  // Only when the node is in this process.
  const Liveness* liveness_ = nullptr;
  MappingTable* table_ = nullptr;
};

}  // namespace mangrove
