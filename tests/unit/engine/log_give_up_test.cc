// A log that every disk has lost stops transactions, until an operator gives it up.
//
// Covers: G15

#include <set>

#include "tests/unit/engine/transactions_harness.h"

namespace mangrove {
namespace {

class LogGiveUp : public TransactionsTest {
 protected:
  static constexpr uint64_t kNodes = 12;

  // `maker_` has a log, whose disks have nothing to do with the pages that are written, or with the replay page; `user_` is none of them.
  LogGiveUp() : TransactionsTest(kNodes) {
    for (uint64_t node = 1; node <= kNodes && maker_ == 0; ++node) {
      keepers_ = KeepersOf(LogOf(NodeId(node)).first);
      if (!keepers_.contains(node) && Apart(KeepersOf(kReplayPage))) maker_ = node;
    }
    CHECK(maker_ != 0);
    while (!Apart(KeepersOf(kPage + page_))) page_ += kSegmentPages;
    if (page_ > 0) cluster_.Allocate({kPage + page_, 16}, 2);
    while (keepers_.contains(user_) || user_ == maker_ || KeepersOf(LogOf(NodeId(user_)).first) == keepers_) ++user_;
    CHECK(user_ <= kNodes);
  }
  bool Apart(const std::set<uint64_t>& others) const {
    return std::none_of(others.begin(), others.end(), [this](uint64_t node) { return keepers_.contains(node); });
  }
  std::set<uint64_t> KeepersOf(PageId page) const {
    std::set<uint64_t> keepers;
    for (const NodeId node : cluster_.locator().CoreHolders(page, 2)) keepers.insert(node.value);
    return keepers;
  }
  GlobalAddress There(uint64_t page = 0) const { return At(page_ + page); }
  absl::StatusOr<std::string> GiveUp(bool is_confirmed) {
    return cluster_.Wait(On(user_).GiveUpLog(NodeId(maker_), is_confirmed, cluster_.In(10 * kSecond)));
  }
  absl::Status TryBegin() {
    const auto begun = cluster_.Wait(On(user_).Begin(kClient, cluster_.In(5 * kSecond)));
    if (begun.ok()) On(user_).Abort(kClient, *begun).IgnoreError();
    return begun.status();
  }
  void LoseMakerAndItsDisks() {
    Lose(maker_);
    for (const uint64_t node : keepers_) Kill(node);
    for (const uint64_t node : keepers_) cluster_.Leave(node);
    TellAll();
  }
  // The maker is back meanwhile, since an empty disk waits for each that may have something.
  void ReplaceTheDisks() {
    cluster_.Start({NodeId(maker_), Incarnation(++lives_)});
    for (const uint64_t node : keepers_) cluster_.StartWithAnEmptyDisk({NodeId(node), Incarnation(++lives_)});
    TellAll();
    cluster_.RunFor(5 * kSecond);
    for (const uint64_t node : keepers_) ASSERT_FALSE(cluster_.view().behind.contains(NodeId(node))) << node;
  }
  void StopMaker() {
    cluster_.Stop(NodeId(maker_));
    cluster_.Leave(maker_);
    TellAll();
  }

  std::set<uint64_t> keepers_;  // Of the maker's log.
  uint64_t maker_ = 0;
  uint64_t user_ = 1;
  uint64_t page_ = 0;
};

TEST_F(LogGiveUp, ALogThatEveryDiskHasLostIsGivenUpByAnOperatorsWordAndTransactionsGoOn) {
  ASSERT_TRUE(Put(maker_, There(), "lost").ok());
  ASSERT_TRUE(Put(user_, There(1), "kept").ok());
  // Its log can be read, or its node is here.
  EXPECT_TRUE(absl::IsFailedPrecondition(GiveUp(true).status()));
  // Both at once: else who is left would replay it before.
  cluster_.lost = [](const Message&) { return true; };
  LoseMakerAndItsDisks();
  cluster_.lost = nullptr;
  EXPECT_FALSE(TryBegin().ok());
  EXPECT_FALSE(GiveUp(true).ok());  // Its disks are away, and may come back.
  ReplaceTheDisks();
  EXPECT_TRUE(absl::IsUnavailable(TryBegin())) << TryBegin();
  const absl::Status is_here = GiveUp(true).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(is_here)) << is_here;
  StopMaker();
  // What would be done.
  const auto said = GiveUp(false);
  ASSERT_TRUE(said.ok()) << said.status();
  EXPECT_FALSE(TryBegin().ok());
  const auto done = GiveUp(true);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(TryBegin().ok()) << TryBegin();
  EXPECT_EQ(*Get(user_, There(1), 4), "kept");
  EXPECT_TRUE(Put(user_, There(), "next").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(GiveUp(true).status()));  // There is nothing more to be given up.
  // It has a log again.
  Back(maker_);
  cluster_.RunFor(2 * kSecond);
  ASSERT_TRUE(Put(maker_, There(2), "anew").ok());
  Lose(maker_);
  EXPECT_EQ(*Get(user_, There(2), 4), "anew");
  EXPECT_EQ(*Get(user_, There(), 4), "next");
}

}  // namespace
}  // namespace mangrove
