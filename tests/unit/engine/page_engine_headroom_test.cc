// A disk says that it has no room for more pages when it would not have any for what comes if another disk is lost.
// Covers: G13

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kLeast = 80 * kMiB;
constexpr DurationNs kAllTold = 300 * kMillisecond;

class PageEngineHeadroom : public testing::Test {
 protected:
  explicit PageEngineHeadroom(bool keeps = true)
      : cluster_(3, [keeps](PageEngineOptions& options) {
          options.least_free_bytes = kLeast;
          options.keep_headroom = keeps;
        }) {
    SetLogLevel(LogLevel::kOff);
    for (uint64_t node = 1; node <= 3; ++node) SetUsage(node, {.used_bytes = 200 * kMiB, .free_bytes = 500 * kMiB});
    cluster_.RunFor(kAllTold);
  }

  void SetUsage(uint64_t node, const StoreUsage& usage) { cluster_.host(node).store.usage = usage; }
  // By its own node, and by the others when they have heard.
  void ExpectRoom(uint64_t disk, bool has) {
    cluster_.RunFor(kAllTold);
    for (const uint64_t node : cluster_.running()) {
      EXPECT_EQ(cluster_.engine(node).peer_eviction().HasDiskRoom(NodeId(disk)), has)
          << "as node " << node << " sees it";
    }
  }

  EngineCluster cluster_;
};

TEST_F(PageEngineHeadroom, ADiskHasRoomWhileWhatALostOneBringsFits) {
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = 100 * kMiB + kLeast});
  ExpectRoom(2, true);
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = 100 * kMiB + kLeast - 1});
  ExpectRoom(2, false);
  ExpectRoom(1, true);
}

TEST_F(PageEngineHeadroom, ItIsNotGivenAwayWhileWhatALostOneBringsIsOnItsWay) {
  cluster_.slow = {NodeId(1), NodeId(2)};  // The move does not end.
  cluster_.Leave(3);
  cluster_.Place({1, 2});
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = 90 * kMiB + kLeast});
  ExpectRoom(2, false);
  ASSERT_EQ(cluster_.view().disks.size(), 3u);
}

TEST_F(PageEngineHeadroom, WhereEachDiskHasEverythingNothingComes) {
  cluster_.Leave(3);
  cluster_.Remove(3);
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = kLeast});
  ExpectRoom(2, true);
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = kLeast - 1});
  ExpectRoom(2, false);
}

class PageEngineNoHeadroom : public PageEngineHeadroom {
 protected:
  PageEngineNoHeadroom() : PageEngineHeadroom(false) {}
};

TEST_F(PageEngineNoHeadroom, OnlyTheReserveIsKept) {
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = kLeast});
  ExpectRoom(2, true);
}

}  // namespace
}  // namespace mangrove
