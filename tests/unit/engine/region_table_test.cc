#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "engine/region_table.h"
#include "tests/unit/engine/region_table_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;

// --- Reserve, Open, List, Free ----------------------------------------------------------------------------------------

TEST_F(RegionTableTest, ReservedRegionIsFoundByNameAndByPageOnEveryNode) {
  const auto reserved = Reserve("table", 1000);
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  EXPECT_EQ(reserved->pages, (PageRange{kFirstReservablePage, 1000}));
  EXPECT_TRUE(reserved->may_write);
  EXPECT_TRUE(reserved->is_owner);
  for (int node = 0; node < 2; ++node) {
    const auto opened = Open("table", kAlice, AccessMode::kWrite);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->info.name, "table");
    EXPECT_EQ(opened->info.address, AddressOf(kFirstReservablePage));
    EXPECT_EQ(opened->info.size_bytes, 1000 * kPageBytes);
    EXPECT_EQ(opened->info.allocated_bytes, 0u);
    EXPECT_EQ(opened->info.owner, 1001u);
    EXPECT_EQ(opened->info.group, 101u);
    EXPECT_EQ(opened->info.mode, 0600);
    const auto found = Run(table_->LookupByPage(kBob, kFirstReservablePage + 999, kLater));
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->info.name, "table");
    EXPECT_FALSE(found->may_write);
    EXPECT_FALSE(found->is_owner);
    Restart();
  }
  ExpectError(Run(table_->LookupByPage(kBob, kFirstReservablePage + 1000, kLater)).status(), StatusCode::kNotFound,
              "no region at 0x");
  ExpectError(Open("none").status(), StatusCode::kNotFound, "no region \"none\"");
}

TEST_F(RegionTableTest, NamesAreUnique) {
  ASSERT_TRUE(Reserve("table").ok());
  ExpectError(Reserve("table").status(), StatusCode::kAlreadyExists, "region \"table\" exists");
  ExpectError(Reserve("table", 1, kBob).status(), StatusCode::kAlreadyExists, "region \"table\" exists");
  EXPECT_EQ(List().regions.size(), 1u);
}

TEST_F(RegionTableTest, BadNamesAreRefused) {
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string("a\0b", 3), std::string(256, 'x'), std::string("\xff"),
        std::string("a\xc3"), std::string("\xc0\xaf"), std::string("\xed\xa0\x80"), std::string("\xf4\x90\x80\x80")}) {
    ExpectError(Reserve(name).status(), StatusCode::kInvalidArgument, "bad region name");
    ExpectError(Open(name).status(), StatusCode::kInvalidArgument, "bad region name");
    ExpectError(Free(name), StatusCode::kInvalidArgument, "bad region name");
  }
  for (const std::string& name : {std::string(255, 'x'), std::string("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\xb3")}) {
    EXPECT_TRUE(Reserve(name).ok());
    EXPECT_TRUE(Open(name).ok());
  }
}

TEST_F(RegionTableTest, BadSizesAndModesAreRefused) {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{4095}, uint64_t{4097}, (uint64_t{1} << 46) + 4096, UINT64_MAX}) {
    RegionOptions options;
    options.name = "r";
    options.size_bytes = bytes;
    ExpectError(Run(table_->Reserve(kAlice, options, kLater)).status(), StatusCode::kInvalidArgument,
                "size_bytes of region \"r\" is " + std::to_string(bytes));
  }
  ExpectError(Reserve("r", 1, kAlice, 0700).status(), StatusCode::kInvalidArgument, "expected bits of 0666");
  EXPECT_TRUE(Reserve("r", kMaxRegionPages).ok());
}

TEST_F(RegionTableTest, OnlyRootReservesForOthers) {
  RegionOptions options;
  options.name = "r";
  options.size_bytes = kPageBytes;
  options.owner = 1002;
  ExpectError(Run(table_->Reserve(kAlice, options, kLater)).status(), StatusCode::kPermissionDenied, "owner 1002");
  options.owner = 1001;
  options.group = 102;
  ExpectError(Run(table_->Reserve(kAlice, options, kLater)).status(), StatusCode::kPermissionDenied, "group 102");
  options.group = 200;
  EXPECT_TRUE(Run(table_->Reserve(kAlice, options, kLater)).ok());
  options.name = "s";
  options.owner = 1002;
  options.group = 102;
  const auto region = Run(table_->Reserve(kRoot, options, kLater));
  ASSERT_TRUE(region.ok());
  EXPECT_EQ(region->info.owner, 1002u);
  EXPECT_EQ(region->info.group, 102u);
}

TEST_F(RegionTableTest, RegionsBeginAtASegmentAndNeverShareOne) {
  ASSERT_TRUE(Reserve("a", 1).ok());
  ASSERT_TRUE(Reserve("b", kSegmentPages).ok());
  const auto c = Reserve("c", kSegmentPages + 1);
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(c->pages.first, kFirstReservablePage + 2 * kSegmentPages);
  EXPECT_EQ(Header().next_free, kFirstReservablePage + 4 * kSegmentPages);
}

TEST_F(RegionTableTest, T2AddressesAreNeverReused) {
  const auto first = Reserve("r", 10);
  ASSERT_TRUE(Free("r").ok());
  const auto second = Reserve("r", 10);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->pages.first, first->pages.first + kSegmentPages);
  EXPECT_EQ(Header().slots, 1u);  // The slot is.
}

TEST_F(RegionTableTest, FullSpaceNamesWhatIsLeft) {
  const RegionTableHeader header{.slots = 0, .next_free = PageId(kReservableEnd - 3 * kSegmentPages + 1)};
  EncodeRegionHeader(header, pages_.ram[kRegionHeaderPage.value]);
  ExpectError(Reserve("r", 2 * kSegmentPages + 1).status(), StatusCode::kResourceExhausted,
              "needs 1025 pages of addresses, and 1024 are left");
  ASSERT_TRUE(Reserve("r", 2 * kSegmentPages).ok());
  ExpectError(Reserve("s", 1).status(), StatusCode::kResourceExhausted, "and 0 are left in the address space");
  EXPECT_TRUE(Check({PageId(kReservableEnd - 1), 1}).code() == StatusCode::kFailedPrecondition);
}

TEST_F(RegionTableTest, FullTableNamesItsSlots) {
  for (uint32_t i = 0; i < kRegionSlots; ++i) {
    RegionDescriptor region;
    region.used = true;
    region.name = "region " + std::to_string(i);
    region.pages = {kFirstReservablePage + uint64_t{i} * kSegmentPages, 1};
    EncodeRegionDescriptor(i, region, pages_.ram[RegionSlotPage(i).value]);
  }
  const PageId next = kFirstReservablePage + uint64_t{kRegionSlots} * kSegmentPages;
  EncodeRegionHeader({.slots = kRegionSlots, .next_free = next}, pages_.ram[kRegionHeaderPage.value]);
  ExpectError(Reserve("r", 1).status(), StatusCode::kResourceExhausted, "all 4095 slots of the region table are taken");
  EXPECT_EQ(List().regions.size(), kRegionSlots);
  ASSERT_TRUE(Free("region 77", kRoot).ok());
  ASSERT_TRUE(Reserve("r", 1).ok());
  EXPECT_EQ(Slot(77).name, "r");
}

TEST_F(RegionTableTest, ModeDecidesWhoMayOpen) {
  struct Case {
    uint16_t mode;
    const Credentials& who;
    bool read;
    bool write;
  };
  const Credentials carol{.uid = 1003, .gid = 103, .groups = {101}};  // In Alice's group.
  const std::vector<Case> cases = {
      {0600, kAlice, true, true},   {0600, kBob, false, false},  {0600, carol, false, false},
      {0600, kRoot, true, true},    {0400, kAlice, true, false}, {0640, carol, true, false},
      {0640, kBob, false, false},   {0660, carol, true, true},   {0604, kBob, true, false},
      {0604, carol, false, false},  {0606, kBob, true, true},    {0066, kAlice, false, false},
      {0200, kAlice, false, false}, {0000, kRoot, true, true}};
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string name = "region " + std::to_string(i);
    ASSERT_TRUE(Reserve(name, 1, kAlice, cases[i].mode).ok());
    const auto read = Open(name, cases[i].who, AccessMode::kRead);
    const auto write = Open(name, cases[i].who, AccessMode::kWrite);
    EXPECT_EQ(read.ok(), cases[i].read) << name;
    EXPECT_EQ(write.ok(), cases[i].write) << name;
    if (read.ok()) {
      EXPECT_EQ(read->may_write, cases[i].write) << name;
    }
  }
  ExpectError(Open("region 1", kBob, AccessMode::kWrite).status(), StatusCode::kPermissionDenied,
              "region \"region 1\" has mode 0600, owner 1001 and group 101; uid 1002 (gid 102) may not write it");
}

TEST_F(RegionTableTest, ListIsSortedByNameAndCountsWhatIsAllocated) {
  ASSERT_TRUE(Reserve("b", 64).ok());
  ASSERT_TRUE(Reserve("a", 64).ok());
  ASSERT_TRUE(Allocate({kFirstReservablePage, 5}).ok());
  EXPECT_THAT(Names(), ElementsAre("a", "b"));
  EXPECT_EQ(List().regions[1].allocated_bytes, 5 * kPageBytes);
  EXPECT_TRUE(List().damaged.empty());
}

TEST_F(RegionTableTest, FreeTakesTheOwnerOrRootAndAnEmptyRegion) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Reserve("s", 1, kAlice, 0666).ok());
  ExpectError(Free("s", kBob), StatusCode::kPermissionDenied, "may not free it");
  EXPECT_TRUE(Free("s", kRoot).ok());
  ASSERT_TRUE(Allocate({first + 7, 2}).ok());
  ExpectError(Free("r"), StatusCode::kFailedPrecondition, "has 2 allocated pages, the first at " + ToString(first + 7));
  ASSERT_TRUE(Unallocate({first + 7, 2}).ok());
  EXPECT_TRUE(Free("r").ok());
  ExpectError(Free("r"), StatusCode::kNotFound, "no region \"r\"");
  ExpectError(Open("r").status(), StatusCode::kNotFound, "no region \"r\"");
  EXPECT_TRUE(Names().empty());
}

// Covers: C07
TEST_F(RegionTableTest, TheOwnerOrRootSaysWhatIsDoneWithARegionWithoutQuorum) {
  ReserveSmall();
  ASSERT_TRUE(Reserve("s", 1, kAlice, 0666).ok());
  EXPECT_EQ(Open("s")->info.without_quorum, WithoutQuorum::kRefuse);
  const auto set = [&](const std::string& name, const Credentials& who, WithoutQuorum without_quorum) {
    return Run(table_->SetWithoutQuorum(who, name, without_quorum, kLater));
  };
  ExpectError(set("s", kBob, WithoutQuorum::kRead).status(), StatusCode::kPermissionDenied, "may not change it");
  ExpectError(set("t", kRoot, WithoutQuorum::kRead).status(), StatusCode::kNotFound, "no region \"t\"");
  EXPECT_EQ(set("s", kAlice, WithoutQuorum::kRead)->info.without_quorum, WithoutQuorum::kRead);
  EXPECT_EQ(Open("s")->info.without_quorum, WithoutQuorum::kRead);
  EXPECT_EQ(Open("r")->info.without_quorum, WithoutQuorum::kRefuse);
  EXPECT_TRUE(set("s", kRoot, WithoutQuorum::kRefuse).ok());
  EXPECT_EQ(Open("s")->info.without_quorum, WithoutQuorum::kRefuse);
}

TEST_F(RegionTableTest, WhoOpensARegionAgainNeedsTheSameRights) {
  ASSERT_TRUE(Reserve("s", 1, kAlice, 0640).ok());
  const OpenedRegion opened = *Open("s", kAlice, AccessMode::kWrite);
  EXPECT_TRUE(opened.may_write);
  const auto again = RegionTable::OpenAgain(kRoot, opened, AccessMode::kRead);
  EXPECT_EQ(again->pages, opened.pages);
  ExpectError(RegionTable::OpenAgain(kBob, opened, AccessMode::kRead).status(), StatusCode::kPermissionDenied,
              "may not read it");
}

TEST_F(RegionTableTest, ManyRegionsAreFoundWithoutHints) {
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(Reserve("region " + std::to_string(i), 1).ok());
  Restart();
  for (const int i : {199, 0, 100}) {
    const auto opened = Open("region " + std::to_string(i));
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->pages.first, kFirstReservablePage + static_cast<uint64_t>(i) * kSegmentPages);
  }
}

TEST_F(RegionTableTest, WhatAnotherNodeChangedIsSeenInSpiteOfHints) {
  ASSERT_TRUE(Reserve("r", 64).ok());
  ASSERT_TRUE(Reserve("s", 64).ok());
  RegionTable other(&pages_, {.members = [] { return 3u; }, .default_replicas = 2});
  ASSERT_TRUE(Run(other.Free(kAlice, "r", kLater)).ok());
  ExpectError(Open("r").status(), StatusCode::kNotFound, "no region");
  ASSERT_TRUE(Run(other.Free(kAlice, "s", kLater)).ok());
  RegionOptions options;
  options.size_bytes = kPageBytes;
  options.name = "t";
  ASSERT_TRUE(Run(other.Reserve(kAlice, options, kLater)).ok());
  options.name = "r";
  const auto moved = Run(other.Reserve(kAlice, options, kLater));
  ASSERT_TRUE(moved.ok());
  EXPECT_EQ(Open("r")->pages, moved->pages);
  ExpectError(Open("s").status(), StatusCode::kNotFound, "no region");
}

// --- Allocate, Unallocate, attributes ---------------------------------------------------------------------------------

TEST_F(RegionTableTest, AllocatedPagesAreInExtentsOfEveryHolder) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first + 2, 10}).ok());
  EXPECT_TRUE(Check({first + 2, 10}).ok());
  for (const auto& holder : pages_.holders) EXPECT_EQ(holder.size(), 10u);
  EXPECT_EQ(Slot(0).next_config, ConfigNumber(2));
  EXPECT_FALSE(Slot(0).unclean);
  ExpectError(Check({first + 2, 11}), StatusCode::kFailedPrecondition,
              "page " + ToString(first + 12) + " of region \"r\" is not allocated");
  ExpectError(Check({first, 3}), StatusCode::kFailedPrecondition, ToString(first));
}

TEST_F(RegionTableTest, AllocatedPageIsNotAllocatedAgain) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first + 2, 10}).ok());
  ExpectError(Allocate({first + 2, 10}), StatusCode::kAlreadyExists, ToString(first + 2));
  ExpectError(Allocate({first, 4}), StatusCode::kAlreadyExists, ToString(first + 2));
  ExpectError(Allocate({first + 11, 4}), StatusCode::kAlreadyExists, ToString(first + 11));
  EXPECT_EQ(pages_.puts, 1);
  EXPECT_TRUE(Allocate({first + 12, 1}).ok());
}

TEST_F(RegionTableTest, LostPagesMayBeAllocatedAnew) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first, 10}).ok());
  for (uint64_t i = 2; i < 5; ++i) pages_.lost.insert((first + i).value);
  ExpectError(Allocate({first + 2, 4}), StatusCode::kAlreadyExists, ToString(first + 2));
  EXPECT_TRUE(Allocate({first + 2, 3}).ok());
  EXPECT_TRUE(Check({first, 10}).ok());
  EXPECT_EQ(pages_.holders[0].at((first + 2).value), 2u);
}

TEST_F(RegionTableTest, RangesOutsideOfRegionsAreRefused) {
  const PageId first = ReserveSmall();
  for (const PageRange& range :
       {PageRange{first + 60, 5}, PageRange{first, 65}, PageRange{first, 0}, PageRange{first, UINT64_MAX}}) {
    const std::string text = "is not within region \"r\"";
    ExpectError(Allocate(range), StatusCode::kInvalidArgument, text);
    ExpectError(Unallocate(range), StatusCode::kInvalidArgument, text);
    ExpectError(Check(range), StatusCode::kInvalidArgument, text);
    ExpectError(Change(range, KeepInRam()), StatusCode::kInvalidArgument, text);
  }
  for (const PageId page : {PageId(first.value - 1), first + 64, PageId(0)}) {
    ExpectError(Allocate({page, 1}), StatusCode::kNotFound, "no region at");
    ExpectError(Unallocate({page, 1}), StatusCode::kNotFound, "no region at");
    ExpectError(Check({page, 1}), StatusCode::kNotFound, "no region at");
    ExpectError(Attributes(page).status(), StatusCode::kNotFound, "no region at");
  }
}

TEST_F(RegionTableTest, MoreReplicasThanMembersAreRefused) {
  const PageId first = ReserveSmall();
  ExpectError(Allocate({first, 1}, {.replicas = 4}), StatusCode::kInvalidArgument, "replicas is 4, expected at most");
  ASSERT_TRUE(Allocate({first, 1}, {.replicas = 3}).ok());
  ASSERT_TRUE(Allocate({first + 1, 1}).ok());
  EXPECT_EQ(Attributes(first)->replicas, 3u);
  EXPECT_EQ(Attributes(first + 1)->replicas, 2u);
}

TEST_F(RegionTableTest, OnlyTheOwnerAndRootChangePages) {
  ASSERT_TRUE(Reserve("r", 64, kAlice, 0666).ok());
  const PageRange range{kFirstReservablePage, 4};
  ExpectError(Allocate(range, {}, kBob), StatusCode::kPermissionDenied, "may not allocate pages of it");
  ASSERT_TRUE(Allocate(range, {}, kRoot).ok());
  ExpectError(Unallocate(range, kBob), StatusCode::kPermissionDenied, "may not unallocate pages of it");
  ExpectError(Change(range, KeepInRam(), kBob), StatusCode::kPermissionDenied, "may not change attributes of it");
  EXPECT_TRUE(Change(range, KeepInRam(), kRoot).ok());
  EXPECT_TRUE(Unallocate(range, kRoot).ok());
}

TEST_F(RegionTableTest, UnallocatedPagesHaveNoExtentsAndCanBeAllocatedAgain) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first, 10}).ok());
  ASSERT_TRUE(Unallocate({first + 3, 4}).ok());
  EXPECT_EQ(pages_.holders[1].size(), 6u);
  ExpectError(Check({first, 10}), StatusCode::kFailedPrecondition, ToString(first + 3));
  ExpectError(Unallocate({first, 10}), StatusCode::kFailedPrecondition, ToString(first + 3));
  ExpectError(Unallocate({first + 3, 1}), StatusCode::kFailedPrecondition, ToString(first + 3));
  ASSERT_TRUE(Allocate({first + 3, 4}).ok());
  EXPECT_TRUE(Check({first, 10}).ok());
}

TEST_F(RegionTableTest, AttributesOfPartsSplitRunsAndJoinThemAgain) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first, 10}, {.persistent = false}).ok());
  std::array<std::byte, 16> user{};
  user[3] = std::byte{9};
  ASSERT_TRUE(Change({first + 2, 3}, {.keep_in_ram = true, .user = user}).ok());
  EXPECT_EQ(Slot(0).runs.size(), 3u);
  EXPECT_FALSE(Attributes(first + 1)->keep_in_ram);
  EXPECT_TRUE(Attributes(first + 2)->keep_in_ram);
  EXPECT_EQ(Attributes(first + 4)->user, user);
  EXPECT_FALSE(Attributes(first + 4)->persistent);
  EXPECT_FALSE(Attributes(first + 5)->keep_in_ram);
  ASSERT_TRUE(Change({first, 10}, {.keep_in_ram = true}).ok());
  EXPECT_EQ(Slot(0).runs.size(), 3u);
  ASSERT_TRUE(Change({first, 10}, {.protocol = CoherenceProtocol::kInvalidate, .user = user}).ok());
  EXPECT_EQ(Slot(0).runs.size(), 1u);
}

TEST_F(RegionTableTest, WhoOpensARegionLearnsWhatIsKeptInRam) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first + 5, 20}).ok());
  EXPECT_TRUE(Open("r")->kept_in_ram.empty());
  ASSERT_TRUE(Change({first + 7, 3}, KeepInRam()).ok());
  ASSERT_TRUE(Change({first + 20, 2}, KeepInRam()).ok());
  EXPECT_EQ(Open("r")->kept_in_ram, (std::vector<PageRange>{{first + 7, 3}, {first + 20, 2}}));
}

TEST_F(RegionTableTest, WhoOpensARegionLearnsWhatIsMigratory) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first + 5, 20}).ok());
  EXPECT_TRUE(Open("r")->migratory.empty());
  ASSERT_TRUE(Change({first + 7, 3}, {.protocol = CoherenceProtocol::kMigratory}).ok());
  EXPECT_EQ(Attributes(first + 9)->protocol, CoherenceProtocol::kMigratory);
  EXPECT_EQ(Attributes(first + 10)->protocol, CoherenceProtocol::kInvalidate);
  EXPECT_EQ(Open("r")->migratory, (std::vector<PageRange>{{first + 7, 3}}));
  ASSERT_TRUE(Change({first + 7, 2}, {.protocol = CoherenceProtocol::kInvalidate}).ok());
  EXPECT_EQ(Open("r")->migratory, (std::vector<PageRange>{{first + 9, 1}}));
}

TEST_F(RegionTableTest, AttributesOfUnallocatedPagesAreRefused) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first, 10}).ok());
  ExpectError(Attributes(first + 10).status(), StatusCode::kFailedPrecondition, ToString(first + 10));
  ExpectError(Change({first + 8, 3}, KeepInRam()), StatusCode::kFailedPrecondition, ToString(first + 10));
}

TEST_F(RegionTableTest, NumberOfReplicasDoesNotChange) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first, 10}).ok());
  EXPECT_TRUE(Change({first, 10}, {.replicas = 2}).ok());
  EXPECT_TRUE(Change({first, 10}, {.replicas = 0}).ok());  // The default.
  ExpectError(Change({first, 10}, {.replicas = 3}), StatusCode::kInvalidArgument, "was allocated with 2");
  ExpectError(Change({first, 10}, {.replicas = 4}), StatusCode::kInvalidArgument, "expected at most");
}

TEST_F(RegionTableTest, GrowingARegionPieceByPieceKeepsOneRun) {
  const auto region = Reserve("r", 500);
  for (uint64_t i = 0; i < 500; ++i) ASSERT_TRUE(Allocate({region->pages.first + i, 1}).ok());
  EXPECT_EQ(Slot(0).runs.size(), 1u);
  EXPECT_EQ(Slot(0).runs[0].config, ConfigNumber(500));
}

TEST_F(RegionTableTest, FullDescriptorSaysSoBeforeAnythingIsPut) {
  const auto region = Reserve("r", 500);
  const PageId first = region->pages.first;
  for (uint64_t i = 0; i < kMaxRegionRuns; ++i) ASSERT_TRUE(Allocate({first + 3 * i, 2}).ok()) << i;
  const int puts = pages_.puts;
  ExpectError(Allocate({first + 400, 1}), StatusCode::kResourceExhausted, "would consist of 79 runs");
  ExpectError(Change({first, 1}, KeepInRam()), StatusCode::kResourceExhausted, "its descriptor holds 78");
  EXPECT_EQ(pages_.puts, puts);
  EXPECT_TRUE(Allocate({first + 2, 1}).ok());  // Joins two.
  ExpectError(Unallocate({first + 1, 1}), StatusCode::kOk, "");
  EXPECT_EQ(Slot(0).runs.size(), kMaxRegionRuns);
}

TEST_F(RegionTableTest, UnallocateThatWouldSplitAFullDescriptorIsRefusedBeforeAnythingIsDropped) {
  const auto region = Reserve("r", 500);
  const PageId first = region->pages.first;
  for (uint64_t i = 0; i < kMaxRegionRuns; ++i) ASSERT_TRUE(Allocate({first + 4 * i, 3}).ok()) << i;
  ExpectError(Unallocate({first + 1, 1}), StatusCode::kResourceExhausted, "would consist of 79 runs");
  EXPECT_EQ(pages_.drops, 0);
}

// --- Damage -----------------------------------------------------------------------------------------------------------

TEST_F(RegionTableTest, CorruptSlotIsNamedAndTheOthersKeepWorking) {
  for (const std::string name : {"a", "b", "c"}) ASSERT_TRUE(Reserve(name, 64).ok());
  for (const bool lost : {false, true}) {
    if (lost) {
      pages_.lost.insert(RegionSlotPage(1).value);
    } else {
      pages_.ram[RegionSlotPage(1).value][60] ^= std::byte{1};
    }
    Restart();
    const std::string text = "slot 1 of the region table (" + ToString(RegionSlotPage(1)) + ")";
    ExpectError(Open("b").status(), StatusCode::kDataLoss, text);
    ExpectError(Check({kFirstReservablePage + kSegmentPages, 1}), StatusCode::kDataLoss, text);
    EXPECT_THAT(Names(), ElementsAre("a", "c"));
    ASSERT_EQ(List().damaged.size(), 1u);
    ExpectError(List().damaged[0], StatusCode::kDataLoss, text);
    EXPECT_TRUE(Open("c").ok());
    EXPECT_TRUE(Allocate({kFirstReservablePage + 2 * kSegmentPages + (lost ? 1 : 0), 1}).ok());
    EXPECT_TRUE(Reserve(lost ? "e" : "d", 1).ok());
    EXPECT_TRUE(Free(lost ? "e" : "d").ok());
  }
}

TEST_F(RegionTableTest, CorruptSlotThatAHintNamesIsNamed) {
  const PageId first = ReserveSmall();
  pages_.ram[RegionSlotPage(0).value][60] ^= std::byte{1};
  ExpectError(Check({first, 1}), StatusCode::kDataLoss, "slot 0 of the region table");
}

TEST_F(RegionTableTest, CorruptHeaderIsNamed) {
  ReserveSmall();
  pages_.ram[kRegionHeaderPage.value][20] ^= std::byte{1};
  const std::string text = "the header of the region table (" + ToString(kRegionHeaderPage) + ") is corrupt";
  ExpectError(Reserve("s").status(), StatusCode::kDataLoss, text);
  ExpectError(Open("s").status(), StatusCode::kDataLoss, text);
  EXPECT_TRUE(Open("r").ok());  // Its slot is known here.
}

// --- Several at a time ------------------------------------------------------------------------------------------------

TEST_F(RegionTableTest, OperationsAtTheSameTimeWaitForEachOther) {
  RegionTable other(&pages_, {.members = [] { return 3u; }, .default_replicas = 2});
  std::vector<absl::StatusOr<OpenedRegion>> reserved;
  const auto reserve = [&](RegionTable& table, const std::string& name) {
    RegionOptions options;
    options.name = name;
    options.size_bytes = 64 * kPageBytes;
    Spawn<absl::StatusOr<OpenedRegion>>(table.Reserve(kAlice, options, kLater),
                                        [&](absl::StatusOr<OpenedRegion> r) { reserved.push_back(std::move(r)); });
  };
  reserve(*table_, "r");
  reserve(other, "r");
  reserve(other, "s");
  clock_.RunAll();
  ASSERT_EQ(reserved.size(), 3u);
  EXPECT_EQ(std::count_if(reserved.begin(), reserved.end(), [](const auto& r) { return r.ok(); }), 2);
  EXPECT_THAT(Names(), ElementsAre("r", "s"));

  std::vector<absl::Status> allocated;
  const auto allocate = [&](RegionTable& table, PageRange range) {
    Spawn<absl::Status>(table.Allocate(kAlice, range, {}, kLater),
                        [&](absl::Status s) { allocated.push_back(std::move(s)); });
  };
  const PageId first = Open("r")->pages.first;
  allocate(*table_, {first, 10});
  allocate(other, {first + 10, 10});
  allocate(other, {first + 5, 10});
  allocate(*table_, {first + 20, 10});
  clock_.RunAll();
  ASSERT_EQ(allocated.size(), 4u);
  EXPECT_EQ(std::count_if(allocated.begin(), allocated.end(), [](const auto& s) { return absl::IsAlreadyExists(s); }),
            1);
  EXPECT_EQ(Slot(0).next_config, ConfigNumber(4));
  EXPECT_EQ(pages_.locks(), 0u);
}

TEST_F(RegionTableTest, LockHeldTooLongEndsTheOperation) {
  const PageId first = ReserveSmall();
  const auto lock = Run(pages_.Lock({RegionSlotPage(0), 1}, LockMode::kExclusive, kLater));
  ExpectError(Run(table_->CheckAllocated({first, 1}, /*deadline=*/0)), StatusCode::kDeadlineExceeded, "slot 0");
  pages_.Unlock(*lock);
  EXPECT_EQ(pages_.locks(), 0u);
}

}  // namespace
}  // namespace mangrove
