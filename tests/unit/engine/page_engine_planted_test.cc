// What three checks of stores keep away: without them something is lost that was acknowledged, or comes back that was lost. What the
// simulator needs luck for is done here step by step, with the planted bug and without it.
//
// Covers: B02, C06

#include "directory/planted_bugs.h"
#include "tests/unit/engine/page_engine_disks.h"

namespace mangrove {
namespace {

struct PlantedHere {
  PlantedBugs bugs_;
};

// Nodes 2 and 3 keep the page, node 1 writes it, node 4 is responsible for it.
class PageEnginePlanted : protected PlantedHere, public DisksTest {
 protected:
  PageEnginePlanted()
      : DisksTest(4, [this](PageEngineOptions& options) { options.bugs = &bugs_; }),
        page_(SegmentOf(cluster_, 4, {1, 4})) {
    cluster_.Allocate({page_, 16});
  }

  // Every store that is sent is kept, and arrives as well.
  void CopyStores() {
    cluster_.lost = [this](const Message& m) {
      if (m.kind == MessageKind::kStore) held_.push_back(m);
      return false;
    };
  }
  // What is on disk when nobody has anything in RAM.
  absl::StatusOr<int> ReadFromDiskOf(uint64_t node) {
    LeaveOnlyTheDiskOf(node, page_);
    return cluster_.Read(cluster_.running().back(), page_);
  }
  absl::StatusOr<int> ReadWhatWasFlushedAcrossAView();
  absl::StatusOr<int> ReadWhatWasFlushedAfterALateStore();
  absl::StatusOr<int> ReadWhatWasLostAfterALateStore();

  PageId page_;
};

// --- A flush that a view comes into the middle of ----------------------------------------------------------------------

// A disk comes back, and learns what the other one has; only then that one gets the store, which was lost at first.
absl::StatusOr<int> PageEnginePlanted::ReadWhatWasFlushedAcrossAView() {
  EXPECT_TRUE(WriteAndFlush(1, page_, 7).ok());
  cluster_.Leave(3);
  EXPECT_TRUE(cluster_.Write(1, page_, 8).ok());
  Hold(MessageKind::kStore);
  const Pending flush = BeginFlush(1, page_);
  StepUntilHeld();
  Back(3);
  StepUntil([this] { return IsCurrent(3); });
  EXPECT_FALSE(flush->has_value());
  cluster_.lost = nullptr;
  StepUntil([&] { return flush->has_value(); });
  EXPECT_TRUE(IsOk(flush)) << Show(flush);
  return ReadFromDiskOf(3);
}

TEST_F(PageEnginePlanted, AcknowledgementsOfAnEarlierViewDoNotMakeAFlush) {
  EXPECT_EQ(*ReadWhatWasFlushedAcrossAView(), 8);
}

TEST_F(PageEnginePlanted, CountingThemLosesWhatWasFlushed) {
  bugs_.acks_across_views = true;
  EXPECT_EQ(*ReadWhatWasFlushedAcrossAView(), 7);
}

// --- A store that is later than its allocation -------------------------------------------------------------------------

// The versions of an allocation begin anew: those of the one before are higher.
absl::StatusOr<int> PageEnginePlanted::ReadWhatWasFlushedAfterALateStore() {
  CopyStores();
  for (const uint8_t value : {1, 2, 3}) EXPECT_TRUE(WriteAndFlush(1, page_, value).ok());
  const Message late = held_.back();
  EXPECT_TRUE(Drop({page_, 16}, 1).ok());
  EXPECT_TRUE(Put({page_, 16}, 2, 2).ok());
  cluster_.Inject(2, 1, late);
  cluster_.RunFor(kMillisecond);
  EXPECT_TRUE(WriteAndFlush(1, page_, 9).ok());
  EXPECT_LT(held_.back().version, late.version);
  return ReadFromDiskOf(2);
}

TEST_F(PageEnginePlanted, AStoreOfAnEarlierAllocationIsRefused) { EXPECT_EQ(*ReadWhatWasFlushedAfterALateStore(), 9); }

TEST_F(PageEnginePlanted, TakingItLosesWhatIsFlushedUnderTheNextOne) {
  bugs_.old_configuration = true;
  const absl::StatusOr<int> read = ReadWhatWasFlushedAfterALateStore();
  EXPECT_THAT(std::string(read.status().message()), testing::HasSubstr("is of configuration 1 in an extent of 2"));
}

// --- A store that is later than the loss of what it stores -------------------------------------------------------------

// Node 1's stores are late; node 4 takes the page, and is lost with it. Everybody is told what the disks have.
absl::StatusOr<int> PageEnginePlanted::ReadWhatWasLostAfterALateStore() {
  EXPECT_TRUE(WriteAndFlush(1, page_, 1).ok());
  EXPECT_TRUE(cluster_.Write(1, page_, 2).ok());
  Hold(MessageKind::kStore);
  const Pending flush = BeginFlush(1, page_);
  StepUntilHeld();
  const Epoch sent_under = cluster_.view().epoch;
  EXPECT_TRUE(cluster_.Write(4, page_, 3).ok());
  cluster_.RunFor(10 * kMillisecond);  // Node 1 keeps nothing of it.
  cluster_.Leave(4);
  EXPECT_EQ(*cluster_.Read(1, page_), 1);
  cluster_.lost = nullptr;
  for (const uint64_t holder : {2, 3}) {
    cluster_.InjectUnder(sent_under, holder, cluster_.host(1).self, held_.front());
  }
  StepUntil([&] { return flush->has_value(); });
  EXPECT_TRUE(flush->has_value() && absl::IsDataLoss(**flush)) << Show(flush);
  return ReadFromDiskOf(2);
}

// The store was sent under a view that is over (V1), and its version is of an epoch that the page is sealed against (K3). Either is
// enough: who loses a page leaves the view. So no test of the whole finds that the seal alone is missing.
TEST_F(PageEnginePlanted, ALateStoreOfWhatWasLostIsKeptAwayByTheSealWithoutTheView) {
  bugs_.mix_views = true;
  EXPECT_EQ(*ReadWhatWasLostAfterALateStore(), 1);
}

TEST_F(PageEnginePlanted, AndByTheViewWithoutTheSeal) {
  bugs_.skip_seal = true;
  EXPECT_EQ(*ReadWhatWasLostAfterALateStore(), 1);
}

TEST_F(PageEnginePlanted, WithNeitherItComesBack) {
  bugs_.mix_views = true;
  bugs_.skip_seal = true;
  EXPECT_EQ(*ReadWhatWasLostAfterALateStore(), 2);
}

}  // namespace
}  // namespace mangrove
