// The same session over a node in this process (LoopBackend): no socket, and the node's loop is driven by who calls.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine/attach/local_session.h"
#include "engine/attach/loop_backend.h"
#include "tests/unit/engine/attach_harness.h"

namespace mangrove::attach_test {
namespace {

constexpr uint64_t kSize = 64 * kPageBytes;

class AttachEmbedded : public testing::Test {
 protected:
  std::shared_ptr<Session> NewSession(ClientId client, int64_t timeout_ms = 10'000) {
    auto parts = SessionParts::Create();
    EXPECT_TRUE(parts.ok()) << parts.status();
    LoopBackendNode node{.loop = &node_.loop(),
                         .operations = &node_,
                         .mapped_clients = &node_.mapped_clients(),
                         .find_region = node_.find_region()};
    parts->backend = std::make_unique<LoopBackend>(std::move(node), client, Limits{timeout_ms}, parts->events.get());
    return std::make_shared<LocalSession>(*std::move(parts));
  }
  static std::shared_ptr<Region> NewRegion(const std::shared_ptr<Session>& session) {
    auto region = session->Reserve({.name = "table", .size_bytes = kSize});
    EXPECT_TRUE(region.ok()) << region.status();
    EXPECT_TRUE((*region)->Allocate(0, kSize, {}).ok());
    return *region;
  }

  TestNode node_;
};

TEST_F(AttachEmbedded, MapsReadsWritesAndLocks) {
  auto session = NewSession(1);
  auto region = NewRegion(session);
  auto base = region->Map(0, kSize);
  ASSERT_TRUE(base.ok()) << base.status();
  std::atomic_ref(*reinterpret_cast<uint64_t*>(*base)).fetch_add(42);
  uint64_t word = 0;
  ASSERT_TRUE(region->Read(0, std::as_writable_bytes(std::span(&word, 1))).ok());
  EXPECT_EQ(word, 42u);
  auto view = region->Access(0, kSize, AccessMode::kWrite, 100);
  ASSERT_TRUE(view.ok()) << view.status();
  auto other = *NewSession(2)->Open("table", AccessMode::kWrite);
  EXPECT_EQ(other->Lock(0, kPageBytes, LockMode::kShared, 5).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(view->Release().ok());
  EXPECT_TRUE(other->Lock(0, kPageBytes, LockMode::kShared, 5).ok());
  EXPECT_TRUE(region->Flush(0, kSize).ok());
  EXPECT_EQ(session->ListRegions()->size(), 1u);
  EXPECT_EQ(session->Space()->total_bytes, 1000u);
}

TEST_F(AttachEmbedded, CallsTakeNoFaultsForWhatTheyFetch) {
  auto region = NewRegion(NewSession(1));
  std::vector<std::byte> bytes(20 * kPageBytes, std::byte{3});
  ASSERT_TRUE(region->Write(0, bytes).ok());
  ASSERT_TRUE(region->Read(20 * kPageBytes, bytes).ok());
  const RegionCounters counters = region->Counters();
  EXPECT_EQ(counters.read_faults, 0u);
  EXPECT_EQ(counters.write_faults, 0u);
  EXPECT_EQ(node_.acquisitions, 2);
}

TEST_F(AttachEmbedded, FailuresAreStatuses) {
  auto region = NewRegion(NewSession(1, 100));
  std::byte word[8];
  node_.MakeFail(3);
  EXPECT_EQ(region->Read(3 * kPageBytes, word).code(), absl::StatusCode::kDataLoss);
  node_.MakeHang(3);
  EXPECT_EQ(region->Write(3 * kPageBytes, word).code(), absl::StatusCode::kUnavailable);
}

TEST_F(AttachEmbedded, EventsReachTheCallback) {
  auto region = NewRegion(NewSession(1));
  std::atomic<uint64_t> lost{0};
  region->SetEventCallback([&](const RegionEvent& event) { lost += event.length_bytes; });
  node_.Announce({RegionEvent::Kind::kLost, {PageOf(region->info().address) + 60, 100}});
  EXPECT_TRUE(Eventually([&] { return lost == 4 * kPageBytes; }));
}

TEST_F(AttachEmbedded, ManyThreadsCallWhilePagesAreTakenAway) {
  auto region = NewRegion(NewSession(1));
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 500; ++i) {
        uint64_t value = t << 32 | i;
        uint64_t read = 0;
        const uint64_t page = t * 8 + i % 8;
        if (!region->Write(page * kPageBytes, std::as_writable_bytes(std::span(&value, 1))).ok()) ++failures;
        if (i % 2 == 0) node_.TakeAway(PageOf(region->info().address) + page);
        if (!region->Read(page * kPageBytes, std::as_writable_bytes(std::span(&read, 1))).ok()) ++failures;
        if (read != value) ++failures;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(AttachEmbedded, CallsAndAccessesWaitWhileTheMemoryIsFenced) {
  auto region = NewRegion(NewSession(1));
  std::byte* const base = *region->Map(0, kSize);
  std::vector<std::byte> bytes(kSize, std::byte{3});
  ASSERT_TRUE(region->Write(0, bytes).ok());
  ASSERT_TRUE(region->Access(0, kSize, AccessMode::kRead, 100).ok());
  ASSERT_EQ(TryLoad(base), 0);
  node_.Fence();
  std::atomic<int> ended{0};
  std::vector<std::thread> threads;
  const auto start = [&](std::function<void()> access) {
    threads.emplace_back([&ended, access] {
      access();
      ++ended;
    });
  };
  const int before = node_.acquisitions;
  uint64_t loaded = 0;
  std::vector<std::byte> read(kSize);
  start([&] { EXPECT_EQ(TryLoad(base, &loaded), 0); });
  start([&] { EXPECT_EQ(TryStore(base + kPageBytes, 5), 0); });
  start([&] { EXPECT_TRUE(region->Read(2 * kPageBytes, std::span(read).first(2 * kPageBytes)).ok()); });
  start([&] { EXPECT_TRUE(region->Write(4 * kPageBytes, std::span(bytes).first(8)).ok()); });
  start([&] { EXPECT_TRUE(region->Access(6 * kPageBytes, kPageBytes, AccessMode::kRead, 10'000).ok()); });
  EXPECT_TRUE(Eventually([&] { return node_.acquisitions >= before + 5; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(ended, 0);
  // None of them asks again and again.
  EXPECT_EQ(node_.acquisitions, before + 5);
  node_.Unfence();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(loaded, 0x0303030303030303u);
  EXPECT_TRUE(std::equal(read.begin(), read.begin() + 2 * kPageBytes, bytes.begin()));
  uint64_t stored = 0;
  EXPECT_EQ(TryLoad(base + kPageBytes, &stored), 0);
  EXPECT_EQ(stored, 5u);
}

TEST_F(AttachEmbedded, MappedStoresAreNotLostWhilePagesAreTakenAway) {
  constexpr uint64_t kThreads = 3;
  constexpr uint64_t kPages = 8;
  constexpr uint64_t kTurns = 40;
  auto region = NewRegion(NewSession(1));
  std::byte* const base = *region->Map(0, kSize);
  const auto word = [&](uint64_t thread, uint64_t page) {
    return std::atomic_ref(reinterpret_cast<uint64_t*>(base + page * kPageBytes)[thread]);
  };
  std::atomic<bool> stop{false};
  std::vector<uint64_t> counts(kThreads, 0);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (; !stop; ++counts[t]) {
        for (uint64_t page = 0; page < kPages; ++page) word(t, page).fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (uint64_t i = 0; i < kTurns * kPages; ++i) node_.TakeAway(PageOf(region->info().address) + i % kPages);
  stop = true;
  for (auto& thread : threads) thread.join();
  for (uint64_t t = 0; t < kThreads; ++t) {
    for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(word(t, page).load(), counts[t]);
  }
}

// Pages that are here, touched in this order: the faults that it takes.
template <typename Order>
uint64_t FaultsOfLoads(Region& region, Order order) {
  const uint64_t pages = region.info().size_bytes / kPageBytes;
  std::vector<std::byte> all(region.info().size_bytes);
  EXPECT_TRUE(region.Read(0, all).ok());
  std::byte* const base = *region.Map(0, region.info().size_bytes);
  const uint64_t before = region.Counters().read_faults;
  for (uint64_t i = 0; i < pages; ++i) {
    static_cast<void>(*const_cast<volatile std::byte*>(base + order(i) * kPageBytes));
  }
  return region.Counters().read_faults - before;
}

// Covers: B04
TEST_F(AttachEmbedded, LoadsInOrderFaultSeldom) {
  const uint64_t pages = kSize / kPageBytes;
  auto region = NewRegion(NewSession(1));
  EXPECT_LE(FaultsOfLoads(*region, [](uint64_t i) { return i; }), 2 + pages / 16 + 1);
  // What was mapped with others is as good: a store waits for the right, and is not lost.
  std::byte* const base = *region->Map(0, kSize);
  for (uint64_t page = 0; page < pages; ++page) base[page * kPageBytes] = std::byte{static_cast<uint8_t>(page)};
  for (uint64_t page = 0; page < pages; ++page) node_.TakeAway(PageOf(region->info().address) + page);
  for (uint64_t page = 0; page < pages; ++page) {
    EXPECT_EQ(base[page * kPageBytes], std::byte{static_cast<uint8_t>(page)});
  }
}

TEST_F(AttachEmbedded, LoadsInOrderBackwardsToo) {
  const uint64_t pages = kSize / kPageBytes;
  auto region = NewRegion(NewSession(1));
  EXPECT_LE(FaultsOfLoads(*region, [&](uint64_t i) { return pages - 1 - i; }), 2 + pages / 16 + 1);
}

TEST_F(AttachEmbedded, LoadsOutOfOrderMapNothingBeside) {
  const uint64_t pages = kSize / kPageBytes;
  auto region = NewRegion(NewSession(1));
  // Every third page is the next.
  ASSERT_NE(pages % 3, 0u);
  EXPECT_EQ(FaultsOfLoads(*region, [&](uint64_t i) { return 3 * i % pages; }), pages);
}

TEST_F(AttachEmbedded, ClosedMappingsAreLeftAlone) {
  auto session = NewSession(1);
  // What the program puts into the place of a closed mapping is its own. Threads that start meanwhile (the session's, with
  // what a sanitizer maps for each) can be there first: then the next mapping's place will do.
  const PageId first = PageOf(NewRegion(session)->info().address);
  void* place = MAP_FAILED;
  for (int attempt = 0; place == MAP_FAILED && attempt < 100; ++attempt) {
    auto region = *session->Open("table", AccessMode::kWrite);
    std::byte* base = *region->Map(0, kSize);
    std::atomic_ref(*reinterpret_cast<uint64_t*>(base)).fetch_add(1);
    region.reset();
    place = mmap(base, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  }
  ASSERT_NE(place, MAP_FAILED);
  auto* const bytes = static_cast<std::byte*>(place);
  bytes[0] = std::byte{42};
  node_.TakeAway(first);
  EXPECT_EQ(bytes[0], std::byte{42});
  munmap(place, kSize);
}

TEST_F(AttachEmbedded, TheEndOfTheSessionIsTheEndOfTheClient) {
  auto region = NewRegion(NewSession(1));
  ASSERT_TRUE(region->Map(0, kSize).ok());
  EXPECT_EQ(node_.ended_clients, 0);
  region.reset();
  EXPECT_EQ(node_.ended_clients, 1);
}

}  // namespace
}  // namespace mangrove::attach_test
