// Logs are found again when every disk that kept the replay page is lost.
//
// Covers: G15

#include <set>

#include "tests/unit/engine/transactions_harness.h"

namespace mangrove {
namespace {

class ReplayPageTest : public TransactionsTest {
 protected:
  static constexpr uint64_t kNodes = 6;

  ReplayPageTest() : TransactionsTest(kNodes) {
    keepers_ = KeepersOf(kReplayPage);
    for (uint64_t node = 1; node <= kNodes; ++node) {
      const bool has_its_log_elsewhere = KeepersOf(LogOf(NodeId(node)).first) != keepers_;
      if (!keepers_.contains(node) && has_its_log_elsewhere) others_.push_back(node);
    }
    CHECK(others_.size() >= 3);
    while (KeepersOf(kPage + page_) == keepers_) page_ += kSegmentPages;
    cluster_.Allocate({kPage + page_, 16}, 2);
  }

  std::set<uint64_t> KeepersOf(PageId page) const {
    std::set<uint64_t> keepers;
    for (const NodeId node : cluster_.locator().CoreHolders(page, 2)) keepers.insert(node.value);
    return keepers;
  }
  GlobalAddress There(uint64_t page = 0) const { return At(page_ + page); }

  // It does no transactions, and replays nothing.
  void Detach(uint64_t node) {
    const auto found = transactions_.find(node);
    if (found == transactions_.end()) return;
    found->second->Shutdown();
    ended_.push_back(std::move(found->second));
    transactions_.erase(found);
  }

  // From RAM, and with the disks.
  void LoseTheReplayPage() {
    PageEngine& engine = cluster_.engine(*keepers_.begin());
    const absl::Status taken = cluster_.Wait(engine.Acquire({kReplayPage, 1}, Rights::kWrite, cluster_.In(kSecond)));
    ASSERT_TRUE(taken.ok()) << taken;
    cluster_.RunFor(kSecond);  // And whoever had it has given it up.
    for (const uint64_t node : keepers_) {
      Detach(node);
      cluster_.Stop(NodeId(node));
    }
    for (const uint64_t node : keepers_) cluster_.Leave(node);
    TellAll();
  }
  void ReplaceTheDisks() {
    for (const uint64_t node : keepers_) cluster_.StartWithAnEmptyDisk({NodeId(node), Incarnation(++lives_)});
    TellAll();
    cluster_.RunFor(2 * kSecond);
    for (const uint64_t node : keepers_) ASSERT_FALSE(cluster_.view().behind.contains(NodeId(node))) << node;
  }

  std::set<uint64_t> keepers_;    // Of the replay page.
  std::vector<uint64_t> others_;  // Of which neither disk nor log is lost with it.
  uint64_t page_ = 0;             // Nor is this one.
};

TEST_F(ReplayPageTest, WhoMakesALogAfterItsLossFindsThoseThatAreOpen) {
  ASSERT_TRUE(Put(others_[0], There(), "hello").ok());
  LoseTheReplayPage();
  ReplaceTheDisks();
  ASSERT_TRUE(Put(others_[1], There(1), "world").ok());
  Lose(others_[0]);
  EXPECT_EQ(*Get(others_[1], There(), 5), "hello");
  EXPECT_EQ(*Get(others_[1], There(1), 5), "world");
}

// Its node has died before anybody could see that the page is lost.
TEST_F(ReplayPageTest, TheLogOfAnIncarnationThatIsGoneIsFound) {
  ASSERT_TRUE(Put(others_[0], There(), "hello").ok());
  LoseTheReplayPage();
  Lose(others_[0]);
  Back(others_[0]);
  ReplaceTheDisks();
  EXPECT_EQ(*Get(others_[1], There(), 5), "hello");
}

TEST_F(ReplayPageTest, WithoutANodeThatMakesItsLogTheReplayMakesThePage) {
  ASSERT_TRUE(Put(others_[0], There(), "hello").ok());
  ASSERT_TRUE(Put(others_[1], There(1), "world").ok());
  LoseTheReplayPage();
  ReplaceTheDisks();
  Lose(others_[0]);
  EXPECT_EQ(*Get(others_[1], There(), 5), "hello");
}

// Nobody could read the page that named it, or have it made anew, before its node was out of the cluster.
TEST_F(ReplayPageTest, TheLogOfANodeThatWasRemovedIsFound) {
  const uint64_t gone = others_[0];
  const uint64_t reader = others_[1];
  ASSERT_TRUE(Put(gone, There(), "hello").ok());
  for (uint64_t node = 1; node <= kNodes; ++node) Detach(node);
  LoseTheReplayPage();
  ReplaceTheDisks();
  cluster_.Leave(gone);
  cluster_.Remove(gone);
  Attach(reader);
  EXPECT_EQ(*Get(reader, There(), 5), "hello");
}

// The log is named, and its header not written, when the page is lost; and is not, when another node looks for logs.
TEST_F(ReplayPageTest, ALogThatIsBeingMadeMeanwhileIsNamedAgain) {
  const uint64_t maker = others_[0];
  const uint64_t finder = others_[1];
  const PageId header = LogOf(NodeId(maker)).first;
  ASSERT_TRUE(Put(finder, There(1), "warm").ok());
  for (uint64_t node = 1; node <= kNodes; ++node) {
    if (node != maker && node != finder) Detach(node);
  }
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(finder).Locate(header, cluster_.In(kSecond))).ok());
  cluster_.lost = [header](const Message& m) { return m.kind == MessageKind::kRequest && m.page == header; };
  std::optional<absl::StatusOr<uint64_t>> begun;
  Spawn<absl::StatusOr<uint64_t>>(On(maker).Begin(kClient, cluster_.In(60 * kSecond)),
                                  [&begun](absl::StatusOr<uint64_t> id) { begun = std::move(id); });
  cluster_.RunFor(kSecond);
  const auto log_of_maker = [&] {
    return cluster_.Wait(On(finder).ReadLogOf(NodeId(maker), cluster_.In(kSecond))).status();
  };
  EXPECT_TRUE(log_of_maker().ok());
  auto making = transactions_.extract(maker);  // It hears of the views when it has its log.
  LoseTheReplayPage();
  ReplaceTheDisks();
  EXPECT_TRUE(absl::IsNotFound(log_of_maker()));
  ASSERT_FALSE(begun);
  cluster_.lost = nullptr;
  transactions_.insert(std::move(making));
  const TimeNs limit = cluster_.In(60 * kSecond);
  while (!begun) ASSERT_TRUE(cluster_.Step(limit));
  ASSERT_TRUE(begun->ok()) << begun->status();
  ASSERT_TRUE(Write(maker, **begun, There(), "hello").ok());
  ASSERT_TRUE(Commit(maker, **begun).ok());
  Lose(maker);
  EXPECT_EQ(*Get(finder, There(), 5), "hello");
}

// Of a page that is not allocated its first disk alone says so to who opens it: here that one is away.
TEST_F(ReplayPageTest, TheFirstTransactionOfAllDoesNotWaitForADiskThatIsAway) {
  const uint64_t away = cluster_.locator().Primary(LogOf(NodeId(others_[1])).first).value;
  const uint64_t first = others_[0] != away ? others_[0] : others_[2];
  Lose(away);
  const TimeNs begin = cluster_.clock.Now();
  EXPECT_TRUE(Put(first, There(), "hello").ok());
  EXPECT_LT(cluster_.clock.Now() - begin, kSecond);
}

}  // namespace
}  // namespace mangrove
