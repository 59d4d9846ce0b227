// The table of regions: which ranges of the address space have a name and an owner, and which pages of them are allocated.
//
// It is kept in pages of the space itself (kRegionTablePages), so it is coherent and durable as all else is: page 0 is the
// header, page 1 + i is slot i, the descriptor of one region (docs/REGION_TABLE.md). Each node has an object of this class
// over the same pages.
//
// Invariants:
//  T1  What a page of the table says while nobody has it locked exclusively has been flushed. So nobody builds on what a
//      crash can undo. (Where a flush fails, what was there before is put back before the lock is given back.)
//  T2  Addresses below the header's next_free page were handed out, or skipped; none above were. It only grows, and is
//      flushed before a descriptor names the addresses.
//  T3  A region's configuration numbers below its next_config were used, or skipped; none above were. It only grows, and is
//      flushed before an extent is put under the number.
//  T4  The pages of a run are in extents of each of their core holders, put under numbers below next_config. (While an
//      Unallocate that did not end has not been repeated, some may be missing.)
//  T5  An extent in no run is in a region whose descriptor is `unclean`; Free drops such extents before the region ends.
//  T6  Locks are taken in the order of the pages: the header, then one slot (or, shared, some slots) at a time.
//
// A crash at any step leaves a table with which the operation can be repeated. Each operation is a sequence of steps, each
// of them one page flushed, or one PutExtent or DropExtent, which may be repeated (P4). A page that was being flushed at
// the crash is found as before or as after the step (P2). So:
//   Reserve     1 header: next_free, slots   2 slot: the descriptor
//               After 1: addresses are skipped, and the slot is still free; the next Reserve takes both anew. After 2:
//               it has happened, and repeating it says AlreadyExists.
//   Allocate    1 slot: next_config, unclean   2 PutExtent   3 slot: the run, unclean as it was
//               After 1: a number is skipped. After a part of 2: there are extents in no run (T5); repeating it puts
//               extents of a newer number in their place, empty ones, at every core holder. After 3: it has happened.
//   Unallocate  1 DropExtent   2 slot: without the run
//               After a part of 1: the pages are still in a run, their content is undefined; repeating it drops the rest.
//   Free        1 (if unclean) DropExtent of the whole region   2 slot: free
//               After a part of 1: as before, no run is touched. After 2: it has happened, and repeating it says NotFound.
//   SetAttributes  1 slot: the runs.   SetWithoutQuorum  1 slot: the flag.
// "It has happened" is told only after the last step; whoever crashed before being told learns it from the repetition.
// Reserve's descriptor may come back by a crash after its flush failed and the caller was told so. If the same name was
// reserved again meanwhile, that is in this slot, which wipes it out, or in a lower one (Reserve takes the lowest free
// slot); the lowest slot of a name counts.
//
// Owned by the loop. Operations may run at the same time; those on one region, and Reserves, wait for each other.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mangrove.h"
#include "engine/node_operations.h"
#include "engine/region_table_format.h"
#include "engine/region_table_pages.h"
#include "net/runtime/task.h"

namespace mangrove {

struct RegionTableOptions {
  std::function<uint32_t()> members;  // How many the cluster has now, at least 1.
  uint32_t default_replicas = 1;      // Of allocations that do not say.
};

struct RegionList {
  std::vector<RegionInfo> regions;    // By name.
  std::vector<absl::Status> damaged;  // DataLoss: slots that cannot be read.
};

class RegionTable {
 public:
  RegionTable(TablePages* pages, const RegionTableOptions& options);

  // All operations: errors of TablePages (P5) are passed on, with what was being done. A corrupt page is DataLoss, naming
  // slot and address; the other slots keep working. What is not found may then have been there: DataLoss, too.

  // InvalidArgument: name, size or mode. AlreadyExists: the name. PermissionDenied: another's owner or group, unless by
  // root. ResourceExhausted: the table or the address space, naming what is left.
  Task<absl::StatusOr<OpenedRegion>> Reserve(Credentials who, RegionOptions options, TimeNs deadline);

  // NotFound; PermissionDenied names region, mode and who asked. kWrite needs the right to read, too.
  Task<absl::StatusOr<OpenedRegion>> Open(Credentials who, std::string name, AccessMode mode, TimeNs deadline);

  // The same of a region as it was opened before, by whomever.
  static absl::StatusOr<OpenedRegion> OpenAgain(const Credentials& who, const OpenedRegion& region, AccessMode mode);

  // The region that `page` is reserved in, whatever `who` may do with it. NotFound.
  Task<absl::StatusOr<OpenedRegion>> LookupByPage(Credentials who, PageId page, TimeNs deadline);

  Task<absl::StatusOr<RegionList>> List(TimeNs deadline);

  // NotFound; PermissionDenied unless owner or root.
  Task<absl::StatusOr<OpenedRegion>> SetWithoutQuorum(Credentials who, std::string name, WithoutQuorum without_quorum,
                                                      TimeNs deadline);

  // NotFound; PermissionDenied unless owner or root; FailedPrecondition while a page is allocated.
  Task<absl::Status> Free(Credentials who, std::string name, TimeNs deadline);

  // Ranges below are of one region: NotFound if the first page is in none, InvalidArgument if they reach beyond it. Changes
  // are the owner's and root's: PermissionDenied.

  // AlreadyExists names the first page that is allocated (and not lost). InvalidArgument: more replicas than members.
  // ResourceExhausted: the descriptor holds no more runs.
  Task<absl::Status> Allocate(Credentials who, PageRange range, AllocateOptions options, TimeNs deadline);

  // FailedPrecondition names the first page that is not allocated. After another error than those above, what the pages
  // held is undefined, and it is to be repeated.
  Task<absl::Status> Unallocate(Credentials who, PageRange range, TimeNs deadline);

  // FailedPrecondition: the page is not allocated.
  Task<absl::StatusOr<PageAttributes>> GetAttributes(PageId page, TimeNs deadline);

  // As Unallocate and, for the runs, Allocate. InvalidArgument: another number of replicas than the pages have.
  Task<absl::Status> SetAttributes(Credentials who, PageRange range, PageAttributesChange change, TimeNs deadline);

  // FailedPrecondition names the first page that is not allocated.
  Task<absl::Status> CheckAllocated(PageRange range, TimeNs deadline);

 private:
  class HeldPages;
  // A region whose slot is locked.
  struct HeldRegion;
  // A name, or a page.
  struct Wanted;
  struct Scan {
    std::map<uint32_t, RegionDescriptor> regions;  // By slot, those in use.
    std::vector<absl::Status> damaged;
    std::vector<uint32_t> free;
  };

  Task<absl::StatusOr<HeldPages>> Hold(PageRange range, LockMode mode, TimeNs deadline);
  Task<absl::StatusOr<RegionTableHeader>> ReadHeader(TimeNs deadline);
  Task<absl::StatusOr<Scan>> ScanSlots(uint32_t slots, TimeNs deadline);
  Task<absl::Status> ScanSome(uint32_t first, uint32_t count, Scan* scan, TimeNs deadline);
  Task<absl::StatusOr<uint32_t>> Search(const Wanted* wanted, TimeNs deadline);
  Task<absl::StatusOr<HeldRegion>> HoldRegion(Wanted wanted, LockMode mode, TimeNs deadline);
  Task<absl::StatusOr<HeldRegion>> HoldSlot(uint32_t slot, LockMode mode, TimeNs deadline);

  // Write a page that the caller has locked, and put back what was there if it cannot be flushed (T1).
  Task<absl::Status> WriteHeader(RegionTableHeader after, TimeNs deadline);
  Task<absl::Status> WriteSlot(uint32_t slot, const RegionDescriptor* after, TimeNs deadline);
  Task<absl::Status> FlushOrPutBack(PageId page, const PageBytes* before, TimeNs deadline);
  Task<absl::StatusOr<OpenedRegion>> ReserveIn(uint32_t slot, const RegionDescriptor* region, const Credentials* who,
                                               TimeNs deadline);

  // REQUIRES: the page is locked.
  absl::StatusOr<RegionTableHeader> LoadHeader();
  absl::StatusOr<RegionDescriptor> LoadSlot(uint32_t slot);
  // AlreadyExists: a page is allocated, and not lost.
  Task<absl::Status> CheckFree(const RegionDescriptor* region, PageRange range, TimeNs deadline);
  // The region as it is to be after the allocation.
  absl::StatusOr<RegionDescriptor> PlanAllocation(const RegionDescriptor& region, PageRange range,
                                                  const AllocateOptions& options, uint32_t replicas) const;
  absl::StatusOr<uint32_t> Replicas(uint32_t asked) const;

  std::optional<uint32_t> Hint(const Wanted& wanted) const;
  void Remember(uint32_t slot, const RegionDescriptor& region);
  void ForgetHint(const Wanted& wanted);

  TablePages* const pages_;
  const RegionTableOptions options_;
  // Where regions were seen last. What stands in the slot decides.
  std::map<std::string, uint32_t> slot_by_name_;
  std::map<absl::uint128, std::pair<uint64_t, uint32_t>> slot_by_page_;  // First page: pages, slot.
};

}  // namespace mangrove
