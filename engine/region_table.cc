#include "engine/region_table.h"

#include <algorithm>
#include <utility>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/region_table_held.h"
#include "engine/region_table_runs.h"
#include "net/check.h"

namespace mangrove {

namespace {

constexpr uint16_t kMayRead = 4;
constexpr uint16_t kMayWrite = 2;

// A RegionDescriptor, or a RegionInfo.
template <typename Region>
bool Owns(const Credentials& who, const Region& region) {
  return who.uid == 0 || who.uid == region.owner;
}

// As of files: the owner's bits for the owner, else the group's for its members, else those of the others.
template <typename Region>
bool May(const Credentials& who, const Region& region, uint16_t right) {
  if (who.uid == 0) return true;
  const bool in_group =
      who.gid == region.group || std::find(who.groups.begin(), who.groups.end(), region.group) != who.groups.end();
  const int shift = who.uid == region.owner ? 6 : in_group ? 3 : 0;
  return (region.mode >> shift & right) == right;
}

template <typename Region>
absl::Status Denied(const Credentials& who, const Region& region, const std::string& what) {
  return absl::PermissionDeniedError(
      absl::StrFormat("region \"%s\" has mode %04o, owner %d and group %d; uid %d (gid %d) may not %s it", region.name,
                      region.mode, region.owner, region.group, who.uid, who.gid, what));
}

template <typename Region>
absl::Status CheckMayOpen(const Credentials& who, const Region& region, AccessMode mode) {
  const bool write = mode == AccessMode::kWrite;
  if (May(who, region, write ? kMayRead | kMayWrite : kMayRead)) return absl::OkStatus();
  return Denied(who, region, write ? "write" : "read");
}

absl::Status CheckOwns(const Credentials& who, const RegionDescriptor& region, const std::string& what) {
  return Owns(who, region) ? absl::OkStatus() : Denied(who, region, what);
}

// Does the range, whose first page is in the region, end in it?
absl::Status CheckInside(const RegionDescriptor& region, PageRange range) {
  CHECK(region.pages.Contains(range.first));
  const uint64_t left = region.pages.end() - range.first;
  if (range.count > 0 && range.count <= left) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the range ", ToString(range), " is not within region \"", region.name,
                                                 "\", ", ToString(region.pages)));
}

uint64_t OffsetIn(const RegionDescriptor& region, PageId page) { return page - region.pages.first; }

absl::Status CheckAllAllocated(const RegionDescriptor& region, PageRange range) {
  const std::optional<uint64_t> hole = FirstHole(region.runs, OffsetIn(region, range.first), range.count);
  if (!hole) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("page ", ToString(region.pages.first + *hole), " of region \"", region.name, "\" is not allocated"));
}

absl::Status CheckRunsFit(const RegionDescriptor& region) {
  if (region.runs.size() <= kMaxRegionRuns) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("region \"", region.name, "\" would consist of ", region.runs.size(),
                                                   " runs of pages with equal attributes, and its descriptor holds ",
                                                   kMaxRegionRuns,
                                                   "; allocate larger ranges, or give neighbours the same attributes"));
}

ConfigNumber NewestConfig(const RegionDescriptor& region) { return ConfigNumber(region.next_config.value - 1); }

RegionInfo InfoOf(const RegionDescriptor& region) {
  return {.name = region.name,
          .address = AddressOf(region.pages.first),
          .size_bytes = region.pages.count * kPageBytes,
          .allocated_bytes = PagesOf(region.runs) * kPageBytes,
          .owner = region.owner,
          .group = region.group,
          .mode = region.mode,
          .without_quorum = region.without_quorum};
}

OpenedRegion OpenedBy(const Credentials& who, const RegionDescriptor& region) {
  OpenedRegion opened{.info = InfoOf(region),
                      .pages = region.pages,
                      .may_write = May(who, region, kMayRead | kMayWrite),
                      .is_owner = Owns(who, region),
                      .kept_in_ram = {},
                      .migratory = {}};
  for (const RegionRun& run : region.runs) {
    const PageRange pages{region.pages.first + run.offset, run.count};
    if (run.keep_in_ram) opened.kept_in_ram.push_back(pages);
    if (run.protocol == CoherenceProtocol::kMigratory) opened.migratory.push_back(pages);
  }
  return opened;
}

absl::Status CheckOptions(const Credentials& who, const RegionOptions& options) {
  if (const absl::Status s = CheckRegionName(options.name); !s.ok()) return s;
  const uint64_t bytes = options.size_bytes;
  if (bytes == 0 || bytes % kPageBytes != 0 || bytes / kPageBytes > kMaxRegionPages) {
    return absl::InvalidArgumentError(absl::StrCat("size_bytes of region \"", options.name, "\" is ", bytes,
                                                   ", expected a multiple of ", kPageBytes, " from ", kPageBytes,
                                                   " to 2^46"));
  }
  if ((options.mode & ~kRegionModeBits) != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("mode of region \"%s\" is %#o, expected bits of 0666", options.name, options.mode));
  }
  if (who.uid == 0) return absl::OkStatus();
  if (options.owner && *options.owner != who.uid) {
    return absl::PermissionDeniedError(absl::StrCat("only root may reserve a region for another owner: uid ", who.uid,
                                                    " asks for owner ", *options.owner));
  }
  const bool own_group = !options.group || *options.group == who.gid ||
                         std::find(who.groups.begin(), who.groups.end(), *options.group) != who.groups.end();
  if (own_group) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("only root may reserve a region for a group that it is not in: uid ",
                                                  who.uid, " asks for group ", *options.group));
}

// Takes addresses for the region. They begin and end with a segment, so that no segment has pages of two regions.
absl::StatusOr<PageRange> TakeAddresses(RegionTableHeader& header, const std::string& name, uint64_t count) {
  const absl::uint128 segment = kSegmentPages;
  const absl::uint128 first = (header.next_free.value + segment - 1) / segment * segment;
  if (first > kReservableEnd || count > kReservableEnd - first) {
    const absl::uint128 left = first > kReservableEnd ? 0 : kReservableEnd - first;
    return absl::ResourceExhaustedError(absl::StrCat("region \"", name, "\" needs ", count, " pages of addresses, and ",
                                                     absl::StrFormat("%d", left), " are left in the address space"));
  }
  header.next_free = PageId(std::min(kReservableEnd, (first + count + segment - 1) / segment * segment));
  return PageRange{PageId(first), count};
}

absl::StatusOr<uint32_t> TakeSlot(RegionTableHeader& header, const std::vector<uint32_t>& free) {
  if (!free.empty()) return free.front();
  if (header.slots < kRegionSlots) return header.slots++;
  return absl::ResourceExhaustedError(
      absl::StrCat("all ", kRegionSlots, " slots of the region table are taken; 0 are left until a region is freed"));
}

}  // namespace

RegionTable::RegionTable(TablePages* pages, const RegionTableOptions& options) : pages_(pages), options_(options) {
  CHECK(pages != nullptr && options_.members);
}

// --- Regions ----------------------------------------------------------------------------------------------------------

Task<absl::StatusOr<OpenedRegion>> RegionTable::Reserve(Credentials who, RegionOptions options, TimeNs deadline) {
  if (const absl::Status s = CheckOptions(who, options); !s.ok()) co_return s;
  // Keeps other Reserves away, so nobody else makes a slot used.
  const absl::StatusOr<HeldPages> held = co_await Hold({kRegionHeaderPage, 1}, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  absl::StatusOr<RegionTableHeader> header = LoadHeader();
  if (!header.ok()) co_return header.status();
  const absl::StatusOr<Scan> scan = co_await ScanSlots(header->slots, deadline);
  if (!scan.ok()) co_return scan.status();
  for (const auto& [slot, region] : scan->regions) {
    if (region.name != options.name) continue;
    co_return absl::AlreadyExistsError(
        absl::StrCat("region \"", options.name, "\" exists, at ", ToString(region.pages)));
  }

  const absl::StatusOr<uint32_t> slot = TakeSlot(*header, scan->free);
  if (!slot.ok()) co_return slot.status();
  const absl::StatusOr<PageRange> range = TakeAddresses(*header, options.name, options.size_bytes / kPageBytes);
  if (!range.ok()) co_return range.status();
  const absl::Status written = co_await WriteHeader(*header, deadline);
  if (!written.ok()) co_return written;

  RegionDescriptor region;
  region.used = true;
  region.name = options.name;
  region.pages = *range;
  region.owner = options.owner.value_or(who.uid);
  region.group = options.group.value_or(who.gid);
  region.mode = options.mode;
  region.without_quorum = options.without_quorum;
  absl::StatusOr<OpenedRegion> reserved = co_await ReserveIn(*slot, &region, &who, deadline);
  co_return reserved;
}

Task<absl::StatusOr<OpenedRegion>> RegionTable::ReserveIn(uint32_t slot, const RegionDescriptor* region,
                                                          const Credentials* who, TimeNs deadline) {
  const absl::StatusOr<HeldRegion> held = co_await HoldSlot(slot, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  if (held->region.used) {  // A crash of its former owner brought back what was not flushed to the end.
    co_return absl::UnavailableError(
        absl::StrCat("the region table changed while \"", region->name, "\" was reserved"));
  }
  const absl::Status written = co_await WriteSlot(slot, region, deadline);
  if (!written.ok()) co_return written;
  Remember(slot, *region);
  co_return OpenedBy(*who, *region);
}

Task<absl::StatusOr<OpenedRegion>> RegionTable::Open(Credentials who, std::string name, AccessMode mode,
                                                     TimeNs deadline) {
  if (const absl::Status s = CheckRegionName(name); !s.ok()) co_return s;
  const Wanted wanted{.name = name};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kShared, deadline);
  if (!held.ok()) co_return held.status();
  if (const absl::Status s = CheckMayOpen(who, held->region, mode); !s.ok()) co_return s;
  co_return OpenedBy(who, held->region);
}

absl::StatusOr<OpenedRegion> RegionTable::OpenAgain(const Credentials& who, const OpenedRegion& region,
                                                    AccessMode mode) {
  if (const absl::Status s = CheckMayOpen(who, region.info, mode); !s.ok()) return s;
  OpenedRegion opened = region;
  opened.may_write = May(who, region.info, kMayRead | kMayWrite);
  opened.is_owner = Owns(who, region.info);
  return opened;
}

Task<absl::StatusOr<OpenedRegion>> RegionTable::LookupByPage(Credentials who, PageId page, TimeNs deadline) {
  const Wanted wanted{.page = page};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kShared, deadline);
  if (!held.ok()) co_return held.status();
  co_return OpenedBy(who, held->region);
}

Task<absl::StatusOr<RegionList>> RegionTable::List(TimeNs deadline) {
  const absl::StatusOr<RegionTableHeader> header = co_await ReadHeader(deadline);
  if (!header.ok()) co_return header.status();
  absl::StatusOr<Scan> scan = co_await ScanSlots(header->slots, deadline);
  if (!scan.ok()) co_return scan.status();
  RegionList list;
  list.damaged = std::move(scan->damaged);
  for (const auto& [slot, region] : scan->regions) list.regions.push_back(InfoOf(region));
  std::sort(list.regions.begin(), list.regions.end(),
            [](const RegionInfo& a, const RegionInfo& b) { return a.name < b.name; });
  co_return list;
}

Task<absl::StatusOr<OpenedRegion>> RegionTable::SetWithoutQuorum(Credentials who, std::string name,
                                                                 WithoutQuorum without_quorum, TimeNs deadline) {
  if (const absl::Status s = CheckRegionName(name); !s.ok()) co_return s;
  const Wanted wanted{.name = name};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  RegionDescriptor after = held->region;
  if (const absl::Status s = CheckOwns(who, after, "change"); !s.ok()) co_return s;
  if (after.without_quorum != without_quorum) {
    after.without_quorum = without_quorum;
    const absl::Status written = co_await WriteSlot(held->slot, &after, deadline);
    if (!written.ok()) co_return written;
  }
  co_return OpenedBy(who, after);
}

Task<absl::Status> RegionTable::Free(Credentials who, std::string name, TimeNs deadline) {
  if (const absl::Status s = CheckRegionName(name); !s.ok()) co_return s;
  const Wanted wanted{.name = name};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  const RegionDescriptor& region = held->region;
  if (const absl::Status s = CheckOwns(who, region, "free"); !s.ok()) co_return s;
  if (!region.runs.empty()) {
    co_return absl::FailedPreconditionError(
        absl::StrCat("region \"", name, "\" has ", PagesOf(region.runs), " allocated pages, the first at ",
                     ToString(region.pages.first + region.runs.front().offset), "; unallocate them first"));
  }
  if (region.unclean) {
    const absl::Status dropped = co_await pages_->DropExtent(region.pages, NewestConfig(region), 1, deadline);
    if (!dropped.ok()) co_return dropped;
  }
  const RegionDescriptor none;
  const absl::Status written = co_await WriteSlot(held->slot, &none, deadline);
  if (written.ok()) ForgetHint(wanted);
  co_return written;
}

// --- Pages ------------------------------------------------------------------------------------------------------------

absl::StatusOr<uint32_t> RegionTable::Replicas(uint32_t asked) const {
  // A cluster of fewer nodes gets there when more have joined.
  if (asked == 0) return options_.default_replicas;
  if (asked <= options_.members()) return asked;
  return absl::InvalidArgumentError(
      absl::StrCat("replicas is ", asked, ", expected at most the number of nodes, ", options_.members()));
}

// REQUIRES: the region's slot is exclusively locked: so nobody allocates lost pages between the question and what follows from it.
Task<absl::Status> RegionTable::CheckFree(const RegionDescriptor* region, PageRange range, TimeNs deadline) {
  for (const RegionRun& run : RunsWithin(region->runs, OffsetIn(*region, range.first), range.count)) {
    const PageRange pages{region->pages.first + run.offset, run.count};
    const absl::StatusOr<bool> lost = co_await pages_->AreLost(pages, deadline);
    if (!lost.ok()) co_return lost.status();
    if (*lost) continue;
    co_return absl::AlreadyExistsError(
        absl::StrCat("page ", ToString(pages.first), " of region \"", region->name, "\" is allocated already"));
  }
  co_return absl::OkStatus();
}

absl::StatusOr<RegionDescriptor> RegionTable::PlanAllocation(const RegionDescriptor& region, PageRange range,
                                                             const AllocateOptions& options, uint32_t replicas) const {
  RegionDescriptor after = region;
  const uint64_t offset = OffsetIn(region, range.first);
  CutRuns(after.runs, offset, range.count);
  after.next_config = ConfigNumber(region.next_config.value + 1);
  const RegionRun run{.offset = offset,
                      .count = range.count,
                      .config = region.next_config,
                      .replicas = replicas,
                      .is_volatile = !options.persistent};
  InsertRun(after.runs, run);
  if (const absl::Status s = CheckRunsFit(after); !s.ok()) return s;
  return after;
}

Task<absl::Status> RegionTable::Allocate(Credentials who, PageRange range, AllocateOptions options, TimeNs deadline) {
  const absl::StatusOr<uint32_t> replicas = Replicas(options.replicas);
  if (!replicas.ok()) co_return replicas.status();
  const Wanted wanted{.page = range.first};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  const RegionDescriptor& before = held->region;
  if (const absl::Status s = CheckOwns(who, before, "allocate pages of"); !s.ok()) co_return s;
  if (const absl::Status s = CheckInside(before, range); !s.ok()) co_return s;
  const absl::Status is_free = co_await CheckFree(&before, range, deadline);
  if (!is_free.ok()) co_return is_free;
  const absl::StatusOr<RegionDescriptor> after = PlanAllocation(before, range, options, *replicas);
  if (!after.ok()) co_return after.status();

  // T3 and T5, before anything is put.
  RegionDescriptor drawn = before;
  drawn.next_config = after->next_config;
  drawn.unclean = true;
  const bool replaces = !RunsWithin(before.runs, OffsetIn(before, range.first), range.count).empty();
  if (replaces) CutRuns(drawn.runs, OffsetIn(before, range.first), range.count);
  absl::Status status = co_await WriteSlot(held->slot, &drawn, deadline);
  if (!status.ok()) co_return status;
  if (replaces) {
    // Pages that are lost: their responsible node forgets that, as it forgets all of what is unallocated.
    const uint32_t on = LeastReplicas(before.runs, OffsetIn(before, range.first), range.count, options_.members());
    status = co_await pages_->DropExtent(range, NewestConfig(before), on, deadline);
    if (!status.ok()) co_return status;
  }
  status = co_await pages_->PutExtent(range, before.next_config, *replicas, !options.persistent, deadline);
  if (!status.ok()) co_return status;
  status = co_await WriteSlot(held->slot, &*after, deadline);
  co_return status;
}

Task<absl::Status> RegionTable::Unallocate(Credentials who, PageRange range, TimeNs deadline) {
  const Wanted wanted{.page = range.first};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  RegionDescriptor after = held->region;
  if (const absl::Status s = CheckOwns(who, after, "unallocate pages of"); !s.ok()) co_return s;
  if (const absl::Status s = CheckInside(after, range); !s.ok()) co_return s;
  if (const absl::Status s = CheckAllAllocated(after, range); !s.ok()) co_return s;
  const uint64_t offset = OffsetIn(after, range.first);
  const uint32_t on = LeastReplicas(after.runs, offset, range.count, options_.members());
  CutRuns(after.runs, offset, range.count);
  if (const absl::Status s = CheckRunsFit(after); !s.ok()) co_return s;

  const absl::Status dropped = co_await pages_->DropExtent(range, NewestConfig(after), on, deadline);
  if (!dropped.ok()) co_return dropped;
  const absl::Status written = co_await WriteSlot(held->slot, &after, deadline);
  co_return written;
}

Task<absl::StatusOr<PageAttributes>> RegionTable::GetAttributes(PageId page, TimeNs deadline) {
  const Wanted wanted{.page = page};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kShared, deadline);
  if (!held.ok()) co_return held.status();
  if (const absl::Status s = CheckAllAllocated(held->region, {page, 1}); !s.ok()) co_return s;
  const RegionRun* const run = FindRun(held->region.runs, OffsetIn(held->region, page));
  CHECK(run != nullptr);
  co_return PageAttributes{.protocol = run->protocol,
                           .persistent = !run->is_volatile,
                           .replicas = run->replicas,
                           .keep_in_ram = run->keep_in_ram,
                           .user = run->user};
}

Task<absl::Status> RegionTable::SetAttributes(Credentials who, PageRange range, PageAttributesChange change,
                                              TimeNs deadline) {
  const Wanted wanted{.page = range.first};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  RegionDescriptor after = held->region;
  if (const absl::Status s = CheckOwns(who, after, "change attributes of"); !s.ok()) co_return s;
  if (const absl::Status s = CheckInside(after, range); !s.ok()) co_return s;
  if (const absl::Status s = CheckAllAllocated(after, range); !s.ok()) co_return s;
  const uint64_t offset = OffsetIn(after, range.first);
  if (change.replicas) {
    const absl::StatusOr<uint32_t> replicas = Replicas(*change.replicas);
    if (!replicas.ok()) co_return replicas.status();
    for (const RegionRun& run : RunsWithin(after.runs, offset, range.count)) {
      if (run.replicas == *replicas) continue;
      // They stand on other disks then, under another configuration number.
      co_return absl::InvalidArgumentError(absl::StrCat(
          "replicas is ", *replicas, ", and page ", ToString(after.pages.first + run.offset), " was allocated with ",
          run.replicas, ": a page keeps their number; unallocate it and allocate it again with another"));
    }
  }
  ChangeRuns(after.runs, offset, range.count, [&change](RegionRun& run) {
    run.protocol = change.protocol.value_or(run.protocol);
    run.keep_in_ram = change.keep_in_ram.value_or(run.keep_in_ram);
    run.user = change.user.value_or(run.user);
  });
  if (const absl::Status s = CheckRunsFit(after); !s.ok()) co_return s;
  if (after == held->region) co_return absl::OkStatus();
  const absl::Status written = co_await WriteSlot(held->slot, &after, deadline);
  co_return written;
}

Task<absl::Status> RegionTable::CheckAllocated(PageRange range, TimeNs deadline) {
  const Wanted wanted{.page = range.first};
  const absl::StatusOr<HeldRegion> held = co_await HoldRegion(wanted, LockMode::kShared, deadline);
  if (!held.ok()) co_return held.status();
  if (const absl::Status s = CheckInside(held->region, range); !s.ok()) co_return s;
  co_return CheckAllAllocated(held->region, range);
}

}  // namespace mangrove
