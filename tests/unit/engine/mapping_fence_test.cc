// Memory that is fenced: programs of this process wait, everything else stays and goes on.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/check.h"
#include "tests/unit/engine/attach_harness.h"
#include "tests/unit/engine/mapping_harness.h"

namespace mangrove::mapping_test {
namespace {

constexpr uint64_t kPageCount = 64;
using Word = std::atomic<uint64_t>;

uint64_t Filled(uint8_t fill) {
  uint64_t word = 0;
  std::memset(&word, fill, sizeof(word));
  return word;
}

// A mapping of this process, as an embedded node's program has it.
class OwnProgram {
 public:
  OwnProgram(Node& node, bool read_only) : node_(node) {
    auto frames = read_only ? node.region().OpenFramesReadOnly() : node.region().OpenFrames();
    CHECK(frames.ok());
    mapping_ = *LocalMapping::Create(frames->get(), node.region().size_bytes(), read_only);
    MappedClientOptions options;
    options.userfaultfd = mapping_->ReleaseUserfaultfd();
    options.base = Base();
    options.region = node.shared_region();
    options.read_only = read_only;
    options.own_process = true;
    id_ = *node.clients().Add(std::move(options));
    node.region().SetMapped(Base(), true);
  }
  ~OwnProgram() {
    node_.region().SetMapped(Base(), false);
    mapping_.reset();
    node_.clients().Remove(id_);
  }
  uint64_t Base() const { return reinterpret_cast<uint64_t>(mapping_->base()); }
  std::byte* At(uint64_t page) const { return mapping_->base() + page * kPageBytes; }
  Word& WordAt(uint64_t page, uint64_t index = 0) const { return reinterpret_cast<Word*>(At(page))[index]; }
  // Whether an access needs no fault.
  bool HasEntry(uint64_t page) const {
    std::array<uint64_t, 1> entry;
    UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    const uint64_t number = Base() / kPageBytes + page;
    CHECK(pread(pagemap.get(), entry.data(), 8, static_cast<off_t>(number * 8)) == 8);
    return (entry[0] >> 63) != 0;
  }

 private:
  Node& node_;
  std::unique_ptr<LocalMapping> mapping_;
  MappingId id_ = 0;
};

class MappedFence : public testing::Test {
 protected:
  bool ReadPage(uint64_t page) {
    std::array<std::byte, 8> bytes;
    return node_.region().ReadPage(kFirst + page, 0, bytes);
  }
  bool WritePage(uint64_t page, uint64_t value) {
    return node_.region().WritePage(kFirst + page, 0, std::as_bytes(std::span(&value, 1)));
  }
  uint64_t FirstWord(uint64_t page) {
    uint64_t word = 0;
    std::memcpy(&word, node_.Content(page).data(), sizeof(word));
    return word;
  }

  Node node_{kPageCount};
};

TEST_F(MappedFence, LoadsAndStoresWaitUntilItEnds) {
  const OwnProgram program(node_, false);
  const OwnProgram reader(node_, true);
  for (const uint64_t page : {0, 1, 2}) node_.Install(page, 7, page == 1 ? Rights::kRead : Rights::kWrite);
  for (const uint64_t page : {0, 1, 2}) ASSERT_EQ(program.WordAt(page).load(), Filled(7));
  ASSERT_EQ(reader.WordAt(0).load(), Filled(7));
  program.WordAt(2) = 3;
  std::atomic<uint8_t>& state = node_.region().StateOf(kFirst + 2);
  ASSERT_TRUE(Eventually([&] { return !page_state::IsPinned(state); }));
  const uint8_t before = state;
  node_.Fence();
  EXPECT_EQ(state, before);
  std::atomic<int> ended{0};
  std::array<uint64_t, 3> loaded{};
  std::vector<std::thread> threads;
  threads.emplace_back([&] { loaded[0] = program.WordAt(0).load(), ++ended; });
  threads.emplace_back([&] { loaded[1] = program.WordAt(1).load(), ++ended; });
  threads.emplace_back([&] { loaded[2] = reader.WordAt(0).load(), ++ended; });
  threads.emplace_back([&] { program.WordAt(2).store(4), ++ended; });
  EXPECT_TRUE(Eventually([&] { return node_.Acquisitions() >= 4; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(ended, 0);
  EXPECT_EQ(node_.Acquisitions(), 4);
  EXPECT_EQ(FirstWord(2), 3u);
  node_.Unfence();
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(loaded, testing::Each(Filled(7)));
  EXPECT_EQ(FirstWord(2), 4u);
  EXPECT_EQ(FirstWord(0), Filled(7));
  EXPECT_EQ(node_.RightsOf(1), Rights::kRead);
}

TEST_F(MappedFence, CallsFindNoPage) {
  node_.Install(0, 7, Rights::kWrite);
  EXPECT_TRUE(ReadPage(0));
  EXPECT_TRUE(WritePage(0, 1));
  EXPECT_TRUE(node_.Fence());
  EXPECT_FALSE(ReadPage(0));
  EXPECT_FALSE(WritePage(0, 2));
  // The node itself does.
  node_.loop().Run([&] {
    std::array<std::byte, 8> bytes;
    node_.memory().Load(kFirst, 0, bytes);
    EXPECT_EQ(bytes[0], std::byte{1});
    bytes.fill(std::byte{9});
    node_.memory().Store(kFirst, 0, bytes);
  });
  node_.Unfence();
  EXPECT_EQ(FirstWord(0), Filled(9));
  EXPECT_TRUE(ReadPage(0));
  EXPECT_TRUE(WritePage(0, 3));
}

TEST_F(MappedFence, CallsForSeveralPagesCopyThoseUpToTheFirstThatIsNotThere) {
  std::vector<std::byte> room(8 * kPageBytes + 1);
  const std::span<std::byte> out = std::span(room).subspan(1);  // Anywhere.
  const auto read = [&](uint64_t first, uint64_t count) {
    std::fill(out.begin(), out.end(), std::byte{0xFF});
    return node_.region().ReadPages({kFirst + first, count}, out);
  };
  const auto is_filled = [&](uint64_t page, uint8_t fill) {
    const std::span<const std::byte> bytes = out.subspan(page * kPageBytes, kPageBytes);
    return std::all_of(bytes.begin(), bytes.end(), [fill](std::byte b) { return b == std::byte{fill}; });
  };
  EXPECT_EQ(read(0, 8), 0u);
  for (const uint64_t page : {0, 1, 2, 3, 4, 6, 7}) {
    node_.Install(page, static_cast<uint8_t>(page + 1), page % 2 == 0 ? Rights::kRead : Rights::kWrite);
  }
  // By the descriptor at first, then one that is reached through the mapping between others, then all of them.
  for (int time = 0; time < 20; ++time) {
    if (time == 2) {
      EXPECT_TRUE(WritePage(3, Filled(4)));
    }
    EXPECT_EQ(read(0, 8), 5u) << time;
    for (uint64_t page = 0; page < 5; ++page) EXPECT_TRUE(is_filled(page, static_cast<uint8_t>(page + 1))) << page;
    EXPECT_TRUE(is_filled(5, 0xFF));
    EXPECT_EQ(read(6, 2), 2u);
    EXPECT_TRUE(is_filled(1, 8));
  }
  node_.Fence();
  EXPECT_EQ(read(0, 8), 0u);
  node_.Unfence();
  EXPECT_EQ(read(0, 8), 5u);
  // A copier that has a pin of its own stands in nobody's way, as many as can be do.
  Rights granted;
  int pins = 0;
  while (node_.region().Pin(kFirst + 1, Rights::kRead, false, &granted) == PinOutcome::kPinned) ++pins;
  EXPECT_EQ(read(0, 8), 1u);
  EXPECT_EQ(read(1, 8), 0u);
  while (pins-- > 0) node_.region().Unpin(kFirst + 1);
  EXPECT_EQ(read(0, 8), 5u);
}

TEST_F(MappedFence, CallsForManyPagesPinSomeAtATime) {
  for (uint64_t page = 0; page < kPageCount; ++page) node_.Install(page, static_cast<uint8_t>(page), Rights::kRead);
  std::vector<std::byte> out(kPageCount * kPageBytes);
  uint64_t copied = 0;
  while (copied < kPageCount) {
    const PageRange rest{kFirst + copied, kPageCount - copied};
    const uint64_t more = node_.region().ReadPages(rest, std::span(out).subspan(copied * kPageBytes));
    ASSERT_GT(more, 0u);
    ASSERT_LT(more, kPageCount);
    copied += more;
  }
  for (uint64_t page = 0; page < kPageCount; ++page) EXPECT_EQ(out[page * kPageBytes + 17], std::byte(page)) << page;
}

TEST_F(MappedFence, RightsChangeMeanwhile) {
  const OwnProgram program(node_, false);
  node_.Install(0, 1, Rights::kWrite);
  for (const uint64_t page : {1, 2}) node_.Install(page, 1, Rights::kRead);
  for (const uint64_t page : {0, 1, 2}) ASSERT_EQ(program.WordAt(page).load(), Filled(1));
  program.WordAt(0) = 5;
  node_.Fence();
  node_.Protect(0);
  node_.Raise(1);
  node_.Take(2);
  node_.Install(2, 2, Rights::kRead);
  node_.Install(3, 3, Rights::kWrite);
  node_.Unfence();
  EXPECT_EQ(program.WordAt(0).load(), 5u);
  EXPECT_EQ(program.WordAt(1).load(), Filled(1));
  EXPECT_EQ(program.WordAt(2).load(), Filled(2));
  EXPECT_EQ(program.WordAt(3).load(), Filled(3));
  program.WordAt(1) = 6;
  program.WordAt(3) = 6;
  EXPECT_EQ(node_.Acquisitions(), 0);
  // What is here to be read is mapped so.
  program.WordAt(0) = 6;
  program.WordAt(2) = 6;
  EXPECT_EQ(node_.Acquisitions(), 2);
  for (const uint64_t page : {0, 1, 2, 3}) EXPECT_EQ(FirstWord(page), 6u);
}

TEST_F(MappedFence, ReadOnlyEntriesStaySoAfterwards) {
  const OwnProgram program(node_, false);
  node_.Install(0, 1, Rights::kRead);
  ASSERT_EQ(program.WordAt(0).load(), Filled(1));
  node_.Fence();
  node_.Unfence();
  EXPECT_EQ(program.WordAt(0).load(), Filled(1));
  EXPECT_EQ(node_.Acquisitions(), 0);
  program.WordAt(0) = 2;
  EXPECT_EQ(node_.Acquisitions(), 1);
}

TEST_F(MappedFence, MemoryThatTheProgramHasLockedIsFencedToo) {
  const OwnProgram program(node_, false);
  node_.Install(0, 1, Rights::kWrite);
  program.WordAt(0) = 1;
  ASSERT_EQ(mlock(program.At(0), kPageBytes), 0);
  ASSERT_TRUE(program.HasEntry(0));
  node_.Fence();
  EXPECT_FALSE(program.HasEntry(0));
  node_.Unfence();
  EXPECT_EQ(program.WordAt(0).load(), 1u);
}

TEST_F(MappedFence, RegionsThatComeMeanwhileAreFenced) {
  constexpr PageRange kLater{kFirst + 1000, 4};
  node_.Fence();
  std::shared_ptr<RegionFrames> later;
  node_.loop().Run([&] {
    ASSERT_TRUE(node_.memory().AddRegion(kLater).ok());
    later = node_.memory().FindRegion(kLater.first);
    node_.memory().Install(kLater.first, nullptr, Rights::kRead);
  });
  std::array<std::byte, 8> bytes;
  EXPECT_FALSE(later->ReadPage(kLater.first, 0, bytes));
  node_.Unfence();
  EXPECT_TRUE(later->ReadPage(kLater.first, 0, bytes));
  node_.loop().Run([&] { node_.memory().RemoveRegion(kLater); });
}

TEST_F(MappedFence, PinsFromBeforeAreWaitedFor) {
  Rights granted;
  node_.Install(kPageCount - 1, 1, Rights::kRead);
  for (int round = 0; round < 20; ++round) {
    ASSERT_EQ(node_.region().Pin(kFirst + (kPageCount - 1), Rights::kRead, false, &granted), PinOutcome::kPinned);
    std::atomic<bool> unpinned{false};
    std::thread resolver([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      unpinned = true;
      node_.region().Unpin(kFirst + (kPageCount - 1));
    });
    const auto start = std::chrono::steady_clock::now();
    node_.Fence();
    // The thread may have no processor for longer than it is waited for.
    EXPECT_TRUE(unpinned || std::chrono::steady_clock::now() - start > std::chrono::milliseconds(5));
    resolver.join();
    EXPECT_EQ(node_.region().Pin(kFirst, Rights::kRead, false, &granted), PinOutcome::kInsufficient);
    node_.Unfence();
  }
}

TEST_F(MappedFence, APinThatStaysIsNotWaitedForForEver) {
  Rights granted;
  node_.Install(0, 1, Rights::kRead);
  ASSERT_EQ(node_.region().Pin(kFirst, Rights::kRead, false, &granted), PinOutcome::kPinned);
  EXPECT_FALSE(node_.Fence());
  EXPECT_EQ(node_.region().Pin(kFirst, Rights::kRead, false, &granted), PinOutcome::kInsufficient);
  node_.region().Unpin(kFirst);
  EXPECT_EQ(node_.region().StateOf(kFirst), static_cast<uint8_t>(Rights::kRead));
}

// A page that is mapped for reading leaves a mark when it is dropped.
TEST_F(MappedFence, WhoseTimeIsOverGetsABusError) {
  const OwnProgram program(node_, false);
  node_.Install(0, 1, Rights::kRead);
  ASSERT_EQ(attach_test::TryLoad(program.At(0)), 0);
  node_.Refuse(0, Rights::kNone);
  node_.Fence();
  EXPECT_EQ(attach_test::TryLoad(program.At(0)), SIGBUS);
  node_.Unfence();
}

// Covers: C07
TEST_F(MappedFence, ARegionThatStaysReadableCanBeLoadedFromAndNotStoredTo) {
  const OwnProgram program(node_, false);
  const OwnProgram reader(node_, true);
  for (const uint64_t page : {0, 1, 2}) node_.Install(page, 7, page == 1 ? Rights::kRead : Rights::kWrite);
  program.WordAt(0) = 5;
  program.WordAt(2) = 5;
  node_.StayReadable(true);
  node_.Fence();
  for (const uint64_t page : {0, 1}) node_.Refuse(page, Rights::kRead);
  EXPECT_EQ(program.WordAt(0).load(), 5u);
  EXPECT_EQ(reader.WordAt(0).load(), 5u);
  EXPECT_EQ(program.WordAt(1).load(), Filled(7));
  EXPECT_EQ(program.WordAt(2).load(), 5u);
  EXPECT_TRUE(ReadPage(0));
  EXPECT_FALSE(WritePage(0, 6));
  EXPECT_EQ(node_.Acquisitions(), 0);
  // Also where it is mapped for loads; then neither can be done, until it is healed.
  for (const uint64_t page : {0, 1}) EXPECT_EQ(attach_test::TryStore(program.At(page), 6), SIGBUS) << page;
  EXPECT_EQ(attach_test::TryLoad(program.At(0)), SIGBUS);
  EXPECT_EQ(reader.WordAt(0).load(), 5u);
  EXPECT_EQ(FirstWord(0), 5u);
  EXPECT_EQ(node_.RightsOf(0), Rights::kWrite);
  node_.Unfence();
  for (const uint64_t page : {0, 1}) node_.Admit(page);
  program.WordAt(2) = 6;
  EXPECT_EQ(FirstWord(2), 6u);
  EXPECT_TRUE(WritePage(0, 6));
  EXPECT_EQ(reader.WordAt(0).load(), 6u);
}

TEST_F(MappedFence, WhatStaysReadableIsFencedForGoodWhenItCountsNoMore) {
  const OwnProgram program(node_, false);
  node_.Install(0, 7, Rights::kWrite);
  node_.StayReadable(true);
  node_.Fence();
  ASSERT_EQ(program.WordAt(0).load(), Filled(7));
  node_.loop().Run([&] { node_.memory().FenceForGood(); });
  node_.Refuse(0, Rights::kNone);
  EXPECT_FALSE(ReadPage(0));
  EXPECT_FALSE(program.HasEntry(0));
  EXPECT_EQ(attach_test::TryLoad(program.At(0)), SIGBUS);
}

// Threads that store, through the mapping and by calls, each to words of its own.
TEST_F(MappedFence, NoStoreReachesAFrameOnceItHasReturned) {
  constexpr uint64_t kPages = 6;
  constexpr int kRounds = 200;
  const OwnProgram program(node_, false);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  std::array<uint64_t, 4> stores{};
  for (uint64_t page = 0; page < kPages; ++page) node_.Install(page, 0, Rights::kWrite);
  for (uint64_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (; !stop; ++stores[t]) program.WordAt(stores[t] % kPages, t).store(stores[t] + 1, std::memory_order_relaxed);
    });
    threads.emplace_back([&, t = t + 2] {
      for (uint64_t value = 1; !stop;) {
        const bool done =
            node_.region().WritePage(kFirst + stores[t] % kPages, 8 * t, std::as_bytes(std::span(&value, 1)));
        if (done) value = ++stores[t] + 1;
      }
    });
  }
  const auto contents = [&] {
    std::vector<std::vector<std::byte>> all;
    for (uint64_t page = 0; page < kPages; ++page) all.push_back(node_.Content(page));
    return all;
  };
  const auto last = [&] {
    uint64_t highest = 0;
    for (uint64_t page = 0; page < kPages; ++page) highest = std::max(highest, program.WordAt(page).load());
    return highest;
  };
  uint64_t before = 0;
  int rounds = 0;
  int overtaken = 0;
  while (rounds < kRounds) {
    // Every other time faults are still being resolved.
    if (rounds % 2 == 0) {
      if (!Eventually([&] { return last() > before; })) break;
      before = last();
    }
    // At another moment of the program's run each time.
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(rounds % 100);
    while (std::chrono::steady_clock::now() < until) {
    }
    // A thread that had no processor for as long as Fence waits is still to come.
    if (node_.Fence()) {
      ++rounds;
      const auto first = contents();
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      if (first != contents()) ++overtaken;
    }
    node_.Unfence();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(rounds, kRounds);
  EXPECT_EQ(overtaken, 0);
  for (uint64_t t = 0; t < 2; ++t) {
    EXPECT_EQ(program.WordAt((stores[t] - 1) % kPages, t).load(), stores[t]);
  }
}

}  // namespace
}  // namespace mangrove::mapping_test
