// RegionMemory without programs: rights, frames, and pins taken by hand in the place of fault workers.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <deque>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/mapping/fault_table.h"
#include "engine/mapping/frame_files.h"
#include "engine/mapping/frame_windows.h"
#include "engine/mapping/poisoned_pages.h"
#include "engine/mapping/region_memory.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr PageId kFirst{absl::uint128(1) << 20};
constexpr PageRange kPages{kFirst, 64};
constexpr uint64_t kMostFrames = 600;

class RegionMemoryTest : public testing::Test {
 protected:
  RegionMemoryTest() {
    auto memory = RegionMemory::Create([this](absl::AnyInvocable<void()> task) { posted_.push_back(std::move(task)); },
                                       kMostFrames);
    CHECK(memory.ok());
    memory_ = *std::move(memory);
    CHECK(memory_->AddRegion(kPages).ok());
    region_ = memory_->FindRegion(kFirst);
  }

  void RunPosted() {
    while (!posted_.empty()) {
      auto task = std::move(posted_.front());
      posted_.pop_front();
      task();
    }
  }
  void Install(PageId page, uint8_t fill, Rights rights) {
    PageBytes content;
    content.bytes.fill(std::byte{fill});
    memory_->Install(page, content.bytes.data(), rights);
  }
  uint8_t State(PageId page) { return region_->StateOf(page).load(); }
  // As the worker of a program does before it changes the page's mapping.
  PinOutcome Pin(PageId page, Rights wanted, bool may_map_writable = true) {
    Rights granted;
    return region_->Pin(page, wanted, may_map_writable, &granted);
  }
  uint64_t FramesInUse() {
    struct stat file {};
    CHECK(fstat(region_->frames_fd(), &file) == 0);
    return static_cast<uint64_t>(file.st_blocks) * 512 / kPageBytes;
  }

  std::deque<absl::AnyInvocable<void()>> posted_;
  std::unique_ptr<RegionMemory> memory_;
  std::shared_ptr<RegionFrames> region_;
};

TEST_F(RegionMemoryTest, InstalledPageHasItsContentAndRight) {
  Install(kFirst + 1, 9, Rights::kRead);
  memory_->Install(kFirst + 2, nullptr, Rights::kWrite);
  EXPECT_EQ(memory_->RightsOf(kFirst), Rights::kNone);
  EXPECT_EQ(memory_->RightsOf(kFirst + 1), Rights::kRead);
  EXPECT_EQ(memory_->RightsOf(kFirst + 2), Rights::kWrite);
  EXPECT_THAT(memory_->Copy(kFirst + 1)->bytes, testing::Each(std::byte{9}));
  EXPECT_THAT(memory_->Copy(kFirst + 2)->bytes, testing::Each(std::byte{0}));
  EXPECT_EQ(FramesInUse(), 2u);
}

TEST_F(RegionMemoryTest, LoadAndStoreReachAnyBytesOfThePage) {
  memory_->Install(kFirst, nullptr, Rights::kWrite);
  const char text[] = "mangrove";
  memory_->Store(kFirst, kPageBytes - 8, std::as_bytes(std::span(text, 8)));
  std::byte read[8];
  memory_->Load(kFirst, kPageBytes - 8, read);
  EXPECT_EQ(std::memcmp(read, text, 8), 0);
}

TEST_F(RegionMemoryTest, ExpectedPageHasAFrameAndNoRight) {
  memory_->Expect(kFirst);
  memory_->Expect(kFirst + 1);
  EXPECT_EQ(FramesInUse(), 2u);
  EXPECT_EQ(State(kFirst), 0);
  EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kInsufficient);
  Install(kFirst, 5, Rights::kRead);
  EXPECT_THAT(memory_->Copy(kFirst)->bytes, testing::Each(std::byte{5}));
  memory_->Unexpect(kFirst + 1);
  EXPECT_EQ(FramesInUse(), 1u);
}

// Some of them ready, some spare, some of another region.
TEST_F(RegionMemoryTest, PagesSideBySideAreInstalledTogether) {
  constexpr uint64_t kReady = 3;
  constexpr PageRange kLower{kFirst + 1000, 8};
  constexpr PageRange kUpper{kLower.end(), 8};
  constexpr PageRange kBoth{kLower.first + 2, 10};
  ASSERT_TRUE(memory_->AddRegion(kLower).ok());
  ASSERT_TRUE(memory_->AddRegion(kUpper).ok());
  Install(kLower.first + 6, 1, Rights::kRead);
  memory_->Take(kLower.first + 6, /*keep=*/false, [](PageBuffer) {});
  for (uint64_t i = 0; i < kReady; ++i) memory_->Expect(kBoth.first + i);
  memory_->Expect(kUpper.first);
  std::vector<PageBytes> contents(kBoth.count);
  for (uint64_t i = 0; i < kBoth.count; ++i) contents[i].bytes.fill(static_cast<std::byte>(i + 10));
  memory_->InstallAll(kBoth, contents.front().bytes.data(), Rights::kWrite);
  for (uint64_t i = 0; i < kBoth.count; ++i) {
    EXPECT_EQ(memory_->RightsOf(kBoth.first + i), Rights::kWrite);
    EXPECT_THAT(memory_->Copy(kBoth.first + i)->bytes, testing::Each(static_cast<std::byte>(i + 10)));
  }
  EXPECT_EQ(memory_->RightsOf(kLower.first + 1), Rights::kNone);
  EXPECT_EQ(memory_->RightsOf(kBoth.end()), Rights::kNone);
  for (uint64_t i = 0; i < kBoth.count; ++i) memory_->Take(kBoth.first + i, /*keep=*/false, [](PageBuffer) {});
  memory_->InstallAll(kBoth, nullptr, Rights::kRead);
  for (uint64_t i = 0; i < kBoth.count; ++i) {
    EXPECT_THAT(memory_->Copy(kBoth.first + i)->bytes, testing::Each(std::byte{0}));
  }
}

// By the descriptor at first, and as it is mapped when it has been used more often.
TEST_F(RegionMemoryTest, AFrameIsTheSameHoweverItIsReached) {
  Install(kFirst, 1, Rights::kWrite);
  for (uint8_t i = 0; i < 40; ++i) {
    memory_->Store(kFirst, i, std::array{std::byte{i}});
    std::array<std::byte, 2> found;
    memory_->Load(kFirst, i, found);
    EXPECT_THAT(found, testing::ElementsAre(std::byte{i}, std::byte{1}));
    std::array<std::byte, 2> pinned;
    ASSERT_TRUE(region_->ReadPage(kFirst, i, pinned));
    EXPECT_EQ(pinned, found);
    ASSERT_TRUE(region_->WritePage(kFirst, 100 + i, std::array{std::byte{i}}));
    EXPECT_EQ(memory_->Copy(kFirst)->bytes[100 + i], std::byte{i});
    if (i % 13 == 12) {
      PageBuffer content;
      memory_->Take(kFirst, /*keep=*/true, [&](PageBuffer taken) { content = std::move(taken); });
      EXPECT_EQ(content->bytes[i], std::byte{i});
      memory_->Install(kFirst, content->bytes.data(), Rights::kWrite);
    }
  }
}

// Windows end within a run of pages; each frame is used often enough to be mapped.
TEST_F(RegionMemoryTest, PagesOfTwoWindowsAreInstalledTogether) {
  constexpr uint64_t kWindow = FrameWindows::kBytes / kPageBytes;
  const PageRange large{kFirst + 4096, 2 * kWindow};
  ASSERT_TRUE(memory_->AddRegion(large).ok());
  const PageRange run{large.first + (kWindow - 2), 4};
  std::vector<PageBytes> contents(run.count);
  std::vector<PageBytes> found(run.count);
  for (uint8_t round = 0; round < 20; ++round) {
    for (uint64_t i = 0; i < run.count; ++i) contents[i].bytes.fill(static_cast<std::byte>(round * 4 + i));
    if (round % 3 == 1) memory_->Expect(run.first + 1);
    memory_->InstallAll(run, contents.front().bytes.data(), Rights::kWrite);
    memory_->CopyAll(run, found.front().bytes.data());
    for (uint64_t i = 0; i < run.count; ++i) {
      ASSERT_EQ(found[i].bytes, contents[i].bytes) << static_cast<int>(round) << ' ' << i;
      if (round >= i * 5) memory_->Store(run.first + i, 7, std::array{std::byte{round}});
      std::array<std::byte, 1> byte;
      memory_->Load(run.first + i, 7, byte);
      ASSERT_EQ(byte[0], round >= i * 5 ? std::byte{round} : contents[i].bytes[7]);
      memory_->Take(run.first + i, /*keep=*/round % 2 == 0, [](PageBuffer) {});
    }
  }
}

// Who attaches has the frames' descriptor, and may set its flags.
TEST_F(RegionMemoryTest, WhatAProgramSetsOfItsDescriptorIsItsOwn) {
  const auto given = region_->OpenFrames();
  ASSERT_TRUE(given.ok());
  ASSERT_EQ(fcntl(given->get(), F_SETFL, O_APPEND), 0);
  Install(kFirst, 3, Rights::kWrite);
  memory_->Store(kFirst, 100, std::array{std::byte{4}});
  EXPECT_EQ(memory_->Copy(kFirst)->bytes[100], std::byte{4});
  EXPECT_EQ(memory_->Copy(kFirst)->bytes[101], std::byte{3});
}

TEST_F(RegionMemoryTest, FramesOfPagesThatWereTakenAreUsedAgain) {
  Install(kFirst, 5, Rights::kWrite);
  memory_->Take(kFirst, /*keep=*/false, [](PageBuffer) {});
  EXPECT_EQ(FramesInUse(), 1u);
  memory_->Install(kFirst, nullptr, Rights::kRead);
  EXPECT_EQ(FramesInUse(), 1u);
  EXPECT_THAT(memory_->Copy(kFirst)->bytes, testing::Each(std::byte{0}));
}

// Of a thousand pages that are here, some at a time.
TEST_F(RegionMemoryTest, FramesOutlastTheirPagesAsFarAsTheCacheHasRoom) {
  constexpr uint64_t kTaken = 1000;
  constexpr PageRange kMany{kFirst + 1000, kTaken};
  ASSERT_TRUE(memory_->AddRegion(kMany).ok());
  region_ = memory_->FindRegion(kMany.first);
  for (uint64_t i = 0; i < kTaken; ++i) {
    Install(kMany.first + i, 5, Rights::kRead);
    memory_->Take(kMany.first + i, /*keep=*/false, [](PageBuffer) {});
  }
  RunPosted();
  EXPECT_EQ(FramesInUse(), kMostFrames);
  for (uint64_t i = 0; i < kMostFrames; ++i) Install(kMany.first + i, 5, Rights::kRead);
  RunPosted();
  EXPECT_LE(FramesInUse(), kMostFrames + 256);
  EXPECT_THAT(memory_->Copy(kMany.first)->bytes, testing::Each(std::byte{5}));
}

TEST_F(RegionMemoryTest, FramesThatAreUsedAgainAreNoLongerSpare) {
  constexpr PageRange kMany{kFirst + 1000, 1000};
  ASSERT_TRUE(memory_->AddRegion(kMany).ok());
  region_ = memory_->FindRegion(kMany.first);
  for (int round = 0; round < 10; ++round) {
    for (uint64_t i = 0; i < 200; ++i) Install(kMany.first + i, 5, Rights::kRead);
    EXPECT_EQ(FramesInUse(), 200u);
    for (uint64_t i = 0; i < 200; ++i) memory_->Take(kMany.first + i, /*keep=*/false, [](PageBuffer) {});
    RunPosted();
    EXPECT_EQ(FramesInUse(), 200u);
  }
}

TEST_F(RegionMemoryTest, APageThatComesAndGoesKeepsItsFrame) {
  for (int i = 0; i < 1000; ++i) {
    Install(kFirst, 5, Rights::kRead);
    memory_->Take(kFirst, /*keep=*/false, [](PageBuffer) {});
    RunPosted();
    ASSERT_EQ(FramesInUse(), 1u);
  }
}

TEST_F(RegionMemoryTest, ReadyFramesGoWhenAnotherProcessMapsTheRegion) {
  memory_->Expect(kFirst);
  Install(kFirst + 1, 5, Rights::kRead);
  memory_->Take(kFirst + 1, /*keep=*/false, [](PageBuffer) {});
  Install(kFirst + 2, 5, Rights::kRead);
  EXPECT_EQ(FramesInUse(), 3u);
  region_->AddMapping(/*userfaultfd=*/-1, /*base=*/0, /*own_process=*/false, /*writable=*/false);
  EXPECT_EQ(FramesInUse(), 1u);
  memory_->Take(kFirst + 2, /*keep=*/false, [](PageBuffer) {});
  EXPECT_EQ(FramesInUse(), 0u);
  Install(kFirst, 6, Rights::kRead);
  EXPECT_THAT(memory_->Copy(kFirst)->bytes, testing::Each(std::byte{6}));
}

// A program that may look at frames without a pin must not find one of a page that has no right.
TEST_F(RegionMemoryTest, NoFrameIsMadeReadyWhereAnotherProcessMapsTheRegion) {
  region_->AddMapping(/*userfaultfd=*/-1, /*base=*/0, /*own_process=*/false, /*writable=*/false);
  memory_->Expect(kFirst);
  EXPECT_EQ(FramesInUse(), 0u);
  memory_->Unexpect(kFirst);
}

TEST_F(RegionMemoryTest, TakeGivesTheContent) {
  for (Rights rights : {Rights::kRead, Rights::kWrite}) {
    Install(kFirst, 5, rights);
    PageBuffer taken;
    memory_->Take(kFirst, /*keep=*/true, [&](PageBuffer content) { taken = std::move(content); });
    ASSERT_NE(taken, nullptr);
    EXPECT_THAT(taken->bytes, testing::Each(std::byte{5}));
    EXPECT_EQ(State(kFirst), 0);
    EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kInsufficient);
  }
  Install(kFirst, 5, Rights::kWrite);
  bool done = false;
  memory_->Take(kFirst, /*keep=*/false, [&](PageBuffer content) { done = content == nullptr; });
  EXPECT_TRUE(done);
}

TEST_F(RegionMemoryTest, ProtectOfAPageThatNobodyMappedEndsAtOnce) {
  Install(kFirst, 5, Rights::kWrite);
  bool done = false;
  memory_->Protect(kFirst, [&] { done = true; });
  EXPECT_TRUE(done);
  EXPECT_EQ(State(kFirst), static_cast<uint8_t>(Rights::kRead));
  EXPECT_TRUE(posted_.empty());
}

// A call of this process that writes has no more than a pin (I7).
TEST_F(RegionMemoryTest, ProtectWaitsForACallThatIsCopying) {
  Install(kFirst, 5, Rights::kWrite);
  ASSERT_EQ(Pin(kFirst, Rights::kWrite, /*may_map_writable=*/false), PinOutcome::kPinned);
  bool done = false;
  memory_->Protect(kFirst, [&] { done = true; });
  EXPECT_FALSE(done);
  region_->Unpin(kFirst);
  RunPosted();
  EXPECT_TRUE(done);
  EXPECT_EQ(State(kFirst), static_cast<uint8_t>(Rights::kRead));
}

TEST_F(RegionMemoryTest, CallsCopyUnderTheRightAndLeaveNothingMappedWritable) {
  std::array<std::byte, 8> bytes;
  bytes.fill(std::byte{7});
  EXPECT_FALSE(region_->ReadPage(kFirst, 0, bytes));
  EXPECT_FALSE(region_->WritePage(kFirst, 0, bytes));
  Install(kFirst, 5, Rights::kRead);
  EXPECT_FALSE(region_->WritePage(kFirst, 0, bytes));
  ASSERT_TRUE(region_->ReadPage(kFirst, kPageBytes - 8, bytes));
  EXPECT_THAT(bytes, testing::Each(std::byte{5}));
  memory_->Raise(kFirst);
  bytes.fill(std::byte{7});
  ASSERT_TRUE(region_->WritePage(kFirst, kPageBytes - 8, bytes));
  EXPECT_EQ(State(kFirst), static_cast<uint8_t>(Rights::kWrite));
  memory_->Protect(kFirst, [] {});
  const PageBuffer copy = memory_->Copy(kFirst);
  EXPECT_EQ(copy->bytes[kPageBytes - 9], std::byte{5});
  EXPECT_EQ(copy->bytes[kPageBytes - 8], std::byte{7});
}

TEST_F(RegionMemoryTest, PinNeedsTheRight) {
  EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kInsufficient);
  Install(kFirst, 5, Rights::kRead);
  EXPECT_EQ(Pin(kFirst, Rights::kWrite), PinOutcome::kInsufficient);
  EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kPinned);
  EXPECT_EQ(State(kFirst) & page_state::kMappedWritable, 0);
  region_->Unpin(kFirst);
  memory_->Raise(kFirst);
  EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kPinned);
  EXPECT_NE(State(kFirst) & page_state::kMappedWritable, 0);
  region_->Unpin(kFirst);
}

TEST_F(RegionMemoryTest, PinsHaveAnEnd) {
  Install(kFirst, 5, Rights::kRead);
  int pins = 0;
  while (Pin(kFirst, Rights::kRead) == PinOutcome::kPinned) ++pins;
  EXPECT_EQ(pins, 15);
  EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kCrowded);
  EXPECT_EQ(memory_->RightsOf(kFirst), Rights::kRead);
  while (pins-- > 0) region_->Unpin(kFirst);
  EXPECT_EQ(State(kFirst), static_cast<uint8_t>(Rights::kRead));
}

// The delayed resolver: pinned under kWrite, its ioctl comes late.
TEST_F(RegionMemoryTest, TakeEndsWhenTheLastPinIsGone) {
  Install(kFirst, 5, Rights::kWrite);
  ASSERT_EQ(Pin(kFirst, Rights::kWrite), PinOutcome::kPinned);
  ASSERT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kPinned);
  PageBuffer taken;
  memory_->Take(kFirst, /*keep=*/true, [&](PageBuffer content) { taken = std::move(content); });
  EXPECT_EQ(taken, nullptr);
  EXPECT_EQ(FramesInUse(), 1u);
  EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kInsufficient);
  region_->Unpin(kFirst);
  EXPECT_TRUE(posted_.empty());
  region_->Unpin(kFirst);
  EXPECT_EQ(taken, nullptr);
  RunPosted();
  ASSERT_NE(taken, nullptr);
  EXPECT_THAT(taken->bytes, testing::Each(std::byte{5}));
  EXPECT_EQ(State(kFirst), 0);
  Install(kFirst, 6, Rights::kRead);
  EXPECT_EQ(State(kFirst), static_cast<uint8_t>(Rights::kRead));
}

TEST_F(RegionMemoryTest, ProtectEndsWhenTheLastPinIsGone) {
  Install(kFirst, 5, Rights::kWrite);
  ASSERT_EQ(Pin(kFirst, Rights::kWrite), PinOutcome::kPinned);
  bool done = false;
  memory_->Protect(kFirst, [&] { done = true; });
  EXPECT_FALSE(done);
  EXPECT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kInsufficient);
  region_->Unpin(kFirst);
  RunPosted();
  EXPECT_TRUE(done);
  EXPECT_EQ(State(kFirst), static_cast<uint8_t>(Rights::kRead));
  EXPECT_THAT(memory_->Copy(kFirst)->bytes, testing::Each(std::byte{5}));
}

TEST_F(RegionMemoryTest, UnmapLeavesRightAndContent) {
  const auto unmap = [&](PageId page) {
    bool result = false;
    region_->Unmap(page, [&](bool unmapped) { result = unmapped; });
    RunPosted();
    return result;
  };
  EXPECT_TRUE(unmap(kFirst));
  Install(kFirst, 5, Rights::kRead);
  EXPECT_TRUE(unmap(kFirst));
  EXPECT_THAT(memory_->Copy(kFirst)->bytes, testing::Each(std::byte{5}));
  ASSERT_EQ(Pin(kFirst, Rights::kRead), PinOutcome::kPinned);
  EXPECT_FALSE(unmap(kFirst));
  region_->Unpin(kFirst);
  memory_->Raise(kFirst);
  EXPECT_FALSE(unmap(kFirst));
  EXPECT_EQ(memory_->RightsOf(kFirst), Rights::kWrite);
}

TEST_F(RegionMemoryTest, WhatIsPostedMayOutliveTheMemory) {
  bool called = false;
  region_->Unmap(kFirst, [&](bool) { called = true; });
  memory_.reset();
  RunPosted();
  EXPECT_FALSE(called);
}

// A program that may only read can have the kernel put the frames into a huge page (MADV_COLLAPSE).
TEST_F(RegionMemoryTest, HugePageLosesNoContent) {
  constexpr uint64_t kHugeBytes = kSegmentPages * kPageBytes;
  const PageRange pages{PageId(kFirst.value * 2), kSegmentPages};
  ASSERT_TRUE(memory_->AddRegion(pages).ok());
  const auto region = memory_->FindRegion(pages.first);
  for (uint64_t i = 0; i < pages.count; ++i) Install(pages.first + i, static_cast<uint8_t>(i), Rights::kWrite);
  auto frames = region->OpenFramesReadOnly();
  ASSERT_TRUE(frames.ok());
  void* space = mmap(nullptr, 2 * kHugeBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(space, MAP_FAILED);
  auto* aligned = reinterpret_cast<void*>((reinterpret_cast<uint64_t>(space) + kHugeBytes - 1) & ~(kHugeBytes - 1));
  ASSERT_EQ(mmap(aligned, kHugeBytes, PROT_READ, MAP_SHARED | MAP_FIXED, frames->get(), 0), aligned);
  constexpr int kCollapse = 25;  // MADV_COLLAPSE; a kernel may refuse.
  madvise(aligned, kHugeBytes, kCollapse);
  for (uint64_t i = 0; i < pages.count; ++i) {
    const PageId page = pages.first + i;
    Rights granted;
    ASSERT_EQ(region->Pin(page, Rights::kWrite, true, &granted), PinOutcome::kPinned);
    region->Unpin(page);
    PageBuffer taken;
    memory_->Take(page, /*keep=*/true, [&](PageBuffer content) { taken = std::move(content); });
    ASSERT_THAT(taken->bytes, testing::Each(std::byte{static_cast<uint8_t>(i)}));
  }
  munmap(space, 2 * kHugeBytes);
}

TEST_F(RegionMemoryTest, RegionsDoNotOverlap) {
  EXPECT_EQ(memory_->AddRegion({kFirst + 63, 1}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(memory_->AddRegion({PageId(kFirst.value - 1), 2}).code(), absl::StatusCode::kAlreadyExists);
  const PageRange next{kFirst + 64, 1};
  EXPECT_TRUE(memory_->AddRegion(next).ok());
  EXPECT_EQ(memory_->FindRegion(kFirst + 64)->pages(), next);
  EXPECT_EQ(memory_->FindRegion(kFirst + 65), nullptr);
  EXPECT_EQ(memory_->FindRegion(PageId(kFirst.value - 1)), nullptr);
  memory_->RemoveRegion(kPages);
  EXPECT_EQ(memory_->FindRegion(kFirst), nullptr);
  EXPECT_TRUE(memory_->AddRegion(kPages).ok());
  EXPECT_EQ(memory_->RightsOf(kFirst), Rights::kNone);
}

TEST_F(RegionMemoryTest, LargestRegionCostsNothing) {
  const PageRange largest{PageId(kFirst.value * 2), uint64_t{1} << 34};  // 2^46 bytes.
  ASSERT_TRUE(memory_->AddRegion(largest).ok());
  const PageId last = largest.first + (largest.count - 1);
  memory_->Install(last, nullptr, Rights::kRead);
  EXPECT_EQ(memory_->RightsOf(last), Rights::kRead);
}

// As many as filesets that a node mounts one after another. Each is 8 TiB, and used in three places.
TEST_F(RegionMemoryTest, ManyRegionsOfMoreAddressesThanAProcessHas) {
  constexpr uint64_t kLarge = uint64_t{1} << 31;
  constexpr uint64_t kRegions = 300;
  const auto pages_of = [](uint64_t region) { return PageRange{kFirst + (region + 1) * kLarge, kLarge}; };
  const auto places_of = [](PageRange pages) {
    return std::array{pages.first, pages.first + pages.count / 2, pages.first + (pages.count - 1)};
  };
  for (uint64_t region = 0; region < kRegions; ++region) {
    const absl::Status added = memory_->AddRegion(pages_of(region));
    ASSERT_TRUE(added.ok()) << region << ": " << added;
    for (const PageId page : places_of(pages_of(region))) Install(page, static_cast<uint8_t>(region), Rights::kWrite);
  }
  for (uint64_t region = 0; region < kRegions; ++region) {
    for (const PageId page : places_of(pages_of(region))) {
      std::array<std::byte, 2> end;
      memory_->Load(page, kPageBytes - end.size(), end);
      ASSERT_THAT(end, testing::Each(std::byte{static_cast<uint8_t>(region)}));
    }
    memory_->RemoveRegion(pages_of(region));
  }
}

TEST_F(RegionMemoryTest, StatesCannotBeWritten) {
  auto states = region_->OpenStates();
  ASSERT_TRUE(states.ok());
  EXPECT_EQ(mmap(nullptr, 64, PROT_READ | PROT_WRITE, MAP_SHARED, states->get(), 0), MAP_FAILED);
  // Not even by who may reopen the file.
  UniqueFd again(open(("/proc/self/fd/" + std::to_string(states->get())).c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(mmap(nullptr, 64, PROT_READ | PROT_WRITE, MAP_SHARED, again.get(), 0), MAP_FAILED);
  EXPECT_EQ(pwrite(again.get(), "x", 1, 0), -1);
}

TEST(FrameDetacher, ContentHasStoresMadeAfterItWasSpliced) {
  auto detacher = FrameDetacher::Create();
  ASSERT_TRUE(detacher.ok()) << detacher.status();
  UniqueFd file(memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(file.get(), kPageBytes), 0);
  WriteFrame(file.get(), 0, nullptr);
  void* mapped = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  static_cast<volatile char*>(mapped)[7] = 'x';
  PageBytes content;
  detacher->Detach(file.get(), 0, content.bytes.data());
  EXPECT_EQ(content.bytes[7], std::byte{'x'});
  EXPECT_EQ(static_cast<volatile char*>(mapped)[7], 0);
  munmap(mapped, kPageBytes);
}

TEST(FaultTable, PageIsServedOnceAtATime) {
  FaultTable table;
  EXPECT_TRUE(table.Admit({kFirst, Rights::kRead, false}));
  EXPECT_FALSE(table.Admit({kFirst, Rights::kWrite, false}));
  EXPECT_TRUE(table.Admit({kFirst + 1, Rights::kWrite, true}));
  EXPECT_FALSE(table.Admit({kFirst + 1, Rights::kRead, false}));
  const auto first = table.Next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->page, kFirst);
  EXPECT_EQ(first->wanted, Rights::kWrite);
  const auto second = table.Next();
  ASSERT_TRUE(second);
  EXPECT_FALSE(second->write_protect);
  EXPECT_FALSE(table.Next());
  EXPECT_FALSE(table.Finish(kFirst));
  EXPECT_FALSE(table.Finish(kFirst + 1));
}

TEST(FaultTable, FaultThatCameWhileThePageWasServedIsWokenAfterwards) {
  FaultTable table;
  table.Admit({kFirst, Rights::kRead, false});
  ASSERT_TRUE(table.Next());
  EXPECT_FALSE(table.Admit({kFirst, Rights::kWrite, true}));
  EXPECT_FALSE(table.HasQueued());
  EXPECT_TRUE(table.Finish(kFirst));
  EXPECT_TRUE(table.Admit({kFirst, Rights::kWrite, true}));
}

TEST(PoisonedPages, AreListedInRangesAndForgottenOnce) {
  PoisonedPages pages;
  for (uint64_t i : {5, 3, 4, 9}) {
    pages.Begin(kFirst + i);
    pages.End(kFirst + i, /*poisoned=*/i != 9);
  }
  EXPECT_THAT(pages.List(), testing::ElementsAre(PageRange{kFirst + 3, 3}));
  EXPECT_THAT(pages.Forget({kFirst + 4, 10}), testing::ElementsAre(PageRange{kFirst + 4, 2}));
  EXPECT_THAT(pages.Forget({kFirst + 4, 10}), testing::IsEmpty());
  EXPECT_THAT(pages.List(), testing::ElementsAre(PageRange{kFirst + 3, 1}));
}

TEST(PoisonedPages, PageThatIsBeingPoisonedStaysListed) {
  PoisonedPages pages;
  pages.Begin(kFirst);
  EXPECT_THAT(pages.Forget({kFirst, 1}), testing::ElementsAre(PageRange{kFirst, 1}));
  pages.End(kFirst, true);
  EXPECT_THAT(pages.Forget({kFirst, 1}), testing::ElementsAre(PageRange{kFirst, 1}));
  EXPECT_THAT(pages.List(), testing::IsEmpty());
}

}  // namespace
}  // namespace mangrove
