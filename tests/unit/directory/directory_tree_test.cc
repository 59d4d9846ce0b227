// One node's operations on the directory, with pages that answer at once.
//
// Covers: G06

#include "directory/directory_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/unit/directory/directory_fake.h"

namespace mangrove {
namespace {

using directory_test::FakeAccess;
using directory_test::FakeClock;
using directory_test::FakeSpace;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr PageId SegmentAt(uint64_t n) { return kFirstReservablePage + n * kSegmentPages; }
constexpr PageRange Segments(uint64_t n, uint64_t count) { return {SegmentAt(n), count * kSegmentPages}; }
constexpr PageInterval Interval(uint64_t from, uint64_t to) { return {SegmentAt(from), SegmentAt(to)}; }

DirectoryEntry EntryOf(uint64_t segment, uint64_t count, uint64_t node, uint32_t term = 1) {
  return {.range = Segments(segment, count), .responsible = NodeId(node), .term = term};
}

class FixedClaims final : public ClaimSource {
 public:
  uint64_t Rounds() const override { return rounds; }
  Task<absl::StatusOr<Claims>> Collect(PageInterval interval, TimeNs /*deadline*/) override {
    rounds += 1 + others;
    asked.push_back(interval);
    if (!refusal.ok()) co_return refusal;
    co_return claims;
  }
  bool IsGone(NodeId node) const override { return node == gone; }

  NodeId gone;
  uint64_t rounds = 0;
  uint64_t others = 0;  // That come with each round.
  Claims claims;
  absl::Status refusal;
  std::vector<PageInterval> asked;
};

class DirectoryTreeTest : public ::testing::Test {
 protected:
  DirectoryTreeTest() { MakeRoot({}); }
  ~DirectoryTreeTest() override {
    EXPECT_THAT(space_.locked, IsEmpty());
    EXPECT_LE(access_.most_locks(), 1u);
  }

  template <typename T>
  T Do(Task<T> task) {
    std::optional<T> result;
    Spawn<T>(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
    while (!result && clock_.Step()) {
    }
    CHECK(result.has_value());
    return *std::move(result);
  }
  void MakeRoot(const Claims& claims) {
    const auto root = Do(tree_.BuildRoot(claims, kForever));
    ASSERT_TRUE(root.ok()) << root.status();
    space_.pages[FakeSpace::kRoot.page.value] = {.content = *root, .last_writer = NodeId(1)};
  }
  DirectoryTree::OnWritten Written() {
    return [this](const DirectoryEntry& entry, const DirectoryOrder& order) {
      written_.push_back(entry);
      order_ = order;
    };
  }
  absl::StatusOr<std::vector<DirectoryEntry>> Appoint(uint64_t segment, uint64_t count, uint64_t node) {
    return Do(tree_.Appoint(Segments(segment, count), NodeId(node), Written(), kForever));
  }
  absl::Status Move(uint64_t segment, uint64_t from, uint64_t to, const absl::Status& handed_over = absl::OkStatus()) {
    return Do(tree_.Move(
        SegmentAt(segment), NodeId(from), NodeId(to),
        [this, handed_over]() -> Task<absl::Status> {
          ++handed_over_;
          co_return handed_over;
        },
        Written(), kForever));
  }
  DirectoryTree::Found Find(PageId page) {
    const auto found = Do(tree_.Find(page, kForever));
    EXPECT_TRUE(found.ok()) << found.status();
    const auto peeked = tree_.Peek(page);
    EXPECT_TRUE(peeked.has_value());
    EXPECT_EQ(peeked->entry, found->entry);
    return *found;
  }
  std::vector<DirectoryEntry> List(PageInterval interval = kWholeSpace) {
    const auto list = Do(tree_.List(interval, SIZE_MAX, kForever));
    EXPECT_TRUE(list.ok()) << list.status();
    return *list;
  }
  void ClaimWhatIsListed() {
    const std::vector<DirectoryEntry> list = List();
    claims_.claims.entries.assign(list.begin(), list.end());
  }
  std::vector<DirectoryTree::PathStep> Walk(uint64_t segment) {
    const auto path = Do(tree_.Walk(SegmentAt(segment), kForever));
    EXPECT_TRUE(path.ok()) << path.status();
    return *path;
  }
  // Two owners by turns, so that every segment is a run of its own.
  void AppointByTurns(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) ASSERT_TRUE(Appoint(i, 1, i % 2 + 1).ok());
  }
  void Lose(PageRef ref) { space_.pages.erase(ref.page.value); }

  FakeClock clock_;
  FakeSpace space_{&clock_, 1};
  FakeAccess access_{&space_, NodeId(1)};
  FixedClaims claims_;
  DirectoryTree tree_{FakeSpace::kRoot, &access_, &claims_, &clock_, &kNoPlantedBugs, {.runs = 4, .children = 4}};
  std::vector<DirectoryEntry> written_;
  DirectoryOrder order_;
  int handed_over_ = 0;
};

TEST_F(DirectoryTreeTest, AVisitComesToEachLeafOnceInOrderUntilItIsEnded) {
  AppointByTurns(40);
  std::vector<DirectoryEntry> seen;
  PageId expected = SegmentAt(3);
  size_t leaves = 0;
  const auto see = [&](const std::vector<DirectoryTree::PathStep>& path, const std::vector<DirectoryEntry>& runs) {
    EXPECT_EQ(path.front().ref, FakeSpace::kRoot);
    EXPECT_EQ(path.back().level, 0);
    EXPECT_TRUE(path.back().keys.Contains(expected));
    expected = path.back().keys.end;
    seen.insert(seen.end(), runs.begin(), runs.end());
    return ++leaves < 5;
  };
  EXPECT_TRUE(Do(tree_.Visit(Interval(3, 6), see, kForever)).ok());
  EXPECT_EQ(seen, List(Interval(3, 6)));
  seen.clear();
  leaves = 0;
  expected = PageId(0);
  EXPECT_TRUE(Do(tree_.Visit(kWholeSpace, see, kForever)).ok());
  EXPECT_EQ(leaves, 5u);
  EXPECT_EQ(seen, List({PageId(0), expected}));
}

TEST_F(DirectoryTreeTest, NobodyIsResponsibleAtFirst) {
  const auto found = Find(SegmentAt(3));
  EXPECT_EQ(found.entry, std::nullopt);
  EXPECT_EQ(found.gap, kWholeSpace);
  EXPECT_EQ(found.depth, 1);
  EXPECT_THAT(List(), IsEmpty());
}

TEST_F(DirectoryTreeTest, AppointsForWhatIsNobodysOnly) {
  EXPECT_THAT(*Appoint(10, 2, 1), ElementsAre(EntryOf(10, 2, 1)));
  EXPECT_THAT(*Appoint(8, 6, 2), ElementsAre(EntryOf(8, 2, 2), EntryOf(10, 2, 1), EntryOf(12, 2, 2)));
  EXPECT_THAT(written_, ElementsAre(EntryOf(10, 2, 1), EntryOf(8, 2, 2), EntryOf(12, 2, 2)));
  EXPECT_EQ(Find(SegmentAt(11) + 511).entry, EntryOf(10, 2, 1));
  const auto gap = Find(SegmentAt(14));
  EXPECT_EQ(gap.entry, std::nullopt);
  EXPECT_EQ(gap.gap, (PageInterval{SegmentAt(14), kSpaceEnd}));
  written_.clear();
  EXPECT_THAT(*Appoint(9, 3, 3), ElementsAre(EntryOf(9, 1, 2), EntryOf(10, 2, 1)));
  EXPECT_THAT(written_, IsEmpty());
}

// Covers: C05
TEST_F(DirectoryTreeTest, AppointsForWhatIsOfOneThatIsGone) {
  ASSERT_TRUE(Appoint(0, 4, 2).ok());
  ASSERT_TRUE(Appoint(4, 2, 3).ok());
  claims_.gone = NodeId(2);
  written_.clear();
  EXPECT_THAT(*Appoint(2, 6, 1), ElementsAre(EntryOf(2, 2, 1, 2), EntryOf(4, 2, 3), EntryOf(6, 2, 1)));
  EXPECT_THAT(written_, ::testing::UnorderedElementsAre(EntryOf(2, 2, 1, 2), EntryOf(6, 2, 1)));
  EXPECT_THAT(List(), ElementsAre(EntryOf(0, 2, 2), EntryOf(2, 2, 1, 2), EntryOf(4, 2, 3), EntryOf(6, 2, 1)));
  // Looking for it names it still: whether it is gone is the caller's matter.
  EXPECT_EQ(Find(SegmentAt(1)).entry, EntryOf(0, 2, 2));
  // A second time nothing is written.
  written_.clear();
  EXPECT_THAT(*Appoint(2, 6, 1), ElementsAre(EntryOf(2, 2, 1, 2), EntryOf(4, 2, 3), EntryOf(6, 2, 1)));
  EXPECT_THAT(written_, IsEmpty());
}

TEST_F(DirectoryTreeTest, NothingIsTakenFromOneThatIsNotGone) {
  ASSERT_TRUE(Appoint(0, 4, 2).ok());
  claims_.gone = NodeId(3);
  written_.clear();
  const uint64_t stores = space_.stores;
  EXPECT_THAT(*Appoint(1, 2, 1), ElementsAre(EntryOf(1, 2, 2)));
  EXPECT_THAT(written_, IsEmpty());
  EXPECT_EQ(space_.stores, stores);
}

// Each part of a run in a full leaf needs a split first.
TEST_F(DirectoryTreeTest, ASegmentInAFullLeafIsTakenFromOneThatIsGone) {
  AppointByTurns(3);
  ASSERT_TRUE(Appoint(3, 9, 2).ok());
  claims_.gone = NodeId(2);
  written_.clear();
  EXPECT_THAT(*Appoint(5, 1, 1), ElementsAre(EntryOf(5, 1, 1, 2)));
  EXPECT_THAT(written_, ElementsAre(EntryOf(5, 1, 1, 2)));
  EXPECT_THAT(List(Interval(3, 12)), ElementsAre(EntryOf(3, 2, 2), EntryOf(5, 1, 1, 2), EntryOf(6, 6, 2)));
}

TEST_F(DirectoryTreeTest, ARangeOverManyLeavesIsTakenFromOneThatIsGone) {
  AppointByTurns(60);
  claims_.gone = NodeId(2);
  written_.clear();
  const auto all = Appoint(1, 79, 3);
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->size(), 60u);
  for (uint64_t i = 1; i < 60; ++i) EXPECT_EQ((*all)[i - 1], i % 2 == 0 ? EntryOf(i, 1, 1) : EntryOf(i, 1, 3, 2));
  EXPECT_EQ(all->back(), EntryOf(60, 20, 3));
  EXPECT_EQ(List(Interval(1, 80)), *all);
  uint64_t pages = 0;
  for (const DirectoryEntry& run : written_) pages += run.range.count;
  EXPECT_EQ(pages, (30 + 20) * kSegmentPages);  // Each once.
}

TEST_F(DirectoryTreeTest, GrowsByLevelsAndFindsEverySegment) {
  AppointByTurns(300);
  EXPECT_GE(Walk(7).size(), 4u);
  EXPECT_EQ(List().size(), 300u);
  for (uint64_t i = 0; i < 300; ++i) ASSERT_EQ(Find(SegmentAt(i)).entry, EntryOf(i, 1, i % 2 + 1));
  EXPECT_EQ(Find(SegmentAt(300)).entry, std::nullopt);
  EXPECT_EQ(Walk(0)[0].ref, FakeSpace::kRoot);
}

TEST_F(DirectoryTreeTest, AppointmentsInOrderLeaveFullPages) {
  AppointByTurns(40);
  EXPECT_EQ(Walk(0).back().entries, 4u);
  EXPECT_EQ(Walk(20).back().entries, 4u);
}

TEST_F(DirectoryTreeTest, AppointmentsInAnyOrderFindTheirPlace) {
  for (uint64_t i = 0; i < 300; ++i) ASSERT_TRUE(Appoint(i * 77 % 300, 1, i * 77 % 300 % 2 + 1).ok());
  EXPECT_EQ(List().size(), 300u);
  for (uint64_t i = 0; i < 300; ++i) ASSERT_EQ(Find(SegmentAt(i)).entry, EntryOf(i, 1, i % 2 + 1));
}

TEST_F(DirectoryTreeTest, ARangeOverManyLeavesIsFilledUp) {
  AppointByTurns(1);
  for (uint64_t i = 2; i < 60; i += 2) ASSERT_TRUE(Appoint(i, 1, 1).ok());
  const auto all = Appoint(0, 100, 2);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->size(), 60u);
  EXPECT_EQ(all->back(), EntryOf(59, 41, 2));
  EXPECT_EQ(List(Interval(58, 200)), (std::vector{EntryOf(58, 1, 1), EntryOf(59, 41, 2)}));
}

TEST_F(DirectoryTreeTest, HugeRangesAreFewRuns) {
  const PageRange huge{SegmentAt(0), 9 * kMaxRunPages + kSegmentPages};
  const auto runs = Do(tree_.Appoint(huge, NodeId(1), Written(), kForever));
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_EQ(runs->size(), 10u);
  EXPECT_EQ(List(), *runs);
  EXPECT_EQ(runs->back().range.end(), huge.end());
}

TEST_F(DirectoryTreeTest, AMoveHandsOverFirstAndRaisesTheTerm) {
  ASSERT_TRUE(Appoint(0, 3, 1).ok());
  written_.clear();
  EXPECT_TRUE(Move(1, 1, 2).ok());
  EXPECT_EQ(handed_over_, 1);
  EXPECT_THAT(written_, ElementsAre(EntryOf(1, 1, 2, 2)));
  EXPECT_THAT(List(), ElementsAre(EntryOf(0, 1, 1), EntryOf(1, 1, 2, 2), EntryOf(2, 1, 1)));
  EXPECT_TRUE(Move(1, 2, 1).ok());
  EXPECT_THAT(List(), ElementsAre(EntryOf(0, 1, 1), EntryOf(1, 1, 1, 3), EntryOf(2, 1, 1)));
}

TEST_F(DirectoryTreeTest, AMoveThatFailsLeavesEverythingAsItWas) {
  ASSERT_TRUE(Appoint(0, 3, 1).ok());
  EXPECT_EQ(Move(1, 1, 2, absl::UnavailableError("busy")), absl::UnavailableError("busy"));
  EXPECT_EQ(Move(1, 1, 2, absl::AbortedError("busy")), absl::AbortedError("busy"));
  EXPECT_EQ(handed_over_, 2);
  EXPECT_THAT(List(), ElementsAre(EntryOf(0, 3, 1)));
  const absl::Status not_from = Move(1, 3, 2);
  EXPECT_EQ(not_from.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(not_from.message()), HasSubstr("is node 1's, not node 3's"));
  EXPECT_THAT(std::string(Move(9, 3, 2).message()), HasSubstr("is nobody's, not node 3's"));
  EXPECT_EQ(handed_over_, 2);
  EXPECT_EQ(Move(1, 1, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(space_.locked, IsEmpty());
}

TEST_F(DirectoryTreeTest, AMoveInAFullLeafSplitsItBeforeTheHandOver) {
  AppointByTurns(3);
  ASSERT_TRUE(Appoint(3, 9, 2).ok());
  ASSERT_TRUE(Move(5, 2, 3).ok());
  EXPECT_EQ(handed_over_, 1);
  EXPECT_EQ(Find(SegmentAt(5)).entry, EntryOf(5, 1, 3, 2));
  EXPECT_EQ(Find(SegmentAt(6)).entry, EntryOf(6, 6, 2));
}

TEST_F(DirectoryTreeTest, RemovingRaisesTheOrderOfItsLeaves) {
  AppointByTurns(12);
  written_.clear();
  const DirectoryOrder order{.txn = 7, .epoch = 3};
  ASSERT_TRUE(Do(tree_.Remove(Interval(2, 9), NodeId(1), order, Written(), kForever)).ok());
  EXPECT_THAT(written_, ElementsAre(EntryOf(2, 1, 1), EntryOf(4, 1, 1), EntryOf(6, 1, 1), EntryOf(8, 1, 1)));
  EXPECT_EQ(Find(SegmentAt(4)).order, order);
  EXPECT_EQ(Find(SegmentAt(4)).entry, std::nullopt);
  EXPECT_EQ(Find(SegmentAt(5)).entry, EntryOf(5, 1, 2));
  // Splits copy it, a lower one changes nothing.
  ASSERT_TRUE(Do(tree_.Remove(Interval(3, 4), NodeId(2), {.txn = 9, .epoch = 1}, Written(), kForever)).ok());
  const DirectoryOrder highest{.txn = 9, .epoch = 3};
  EXPECT_EQ(order_, highest);
  for (uint64_t i = 2; i < 5; ++i) ASSERT_TRUE(Appoint(i, 1, i + 10).ok());
  EXPECT_EQ(Find(SegmentAt(2)).order, highest);
  EXPECT_EQ(Find(SegmentAt(3)).order, highest);
}

TEST_F(DirectoryTreeTest, RemovingTheMiddleOfARunInAFullLeafSplitsIt) {
  AppointByTurns(3);
  ASSERT_TRUE(Appoint(3, 9, 2).ok());
  ASSERT_TRUE(Do(tree_.Remove(Interval(5, 6), NodeId(2), {}, Written(), kForever)).ok());
  EXPECT_EQ(Find(SegmentAt(5)).entry, std::nullopt);
  EXPECT_EQ(Find(SegmentAt(4)).entry, EntryOf(3, 2, 2));
  EXPECT_EQ(Find(SegmentAt(6)).entry, EntryOf(6, 6, 2));
}

TEST_F(DirectoryTreeTest, ALostLeafIsMadeOfTheClaimsOfItsInterval) {
  AppointByTurns(40);
  const auto path = Walk(20);
  Lose(path.back().ref);
  claims_.claims = {.entries = {EntryOf(18, 3, 5), EntryOf(21, 100, 6)}, .order = {.txn = 1, .epoch = 2}};
  const auto found = Find(SegmentAt(20));
  ASSERT_TRUE(found.entry.has_value());
  EXPECT_EQ(found.entry->responsible, NodeId(5));
  EXPECT_EQ(found.order, claims_.claims.order);
  EXPECT_THAT(claims_.asked, ElementsAre(path.back().keys));
  EXPECT_EQ(Find(SegmentAt(30)).entry, EntryOf(30, 1, 1));
  EXPECT_EQ(Find(SegmentAt(0)).entry, EntryOf(0, 1, 1));
  EXPECT_THAT(space_.locked, IsEmpty());
}

TEST_F(DirectoryTreeTest, ALostInteriorPageIsMadeWithAllBeneath) {
  AppointByTurns(200);
  ClaimWhatIsListed();
  const auto path = Walk(50);
  ASSERT_GE(path.size(), 4u);
  const size_t before = space_.pages.size();
  Lose(path[1].ref);
  Lose(path[3].ref);
  EXPECT_EQ(Find(SegmentAt(50)).entry, EntryOf(50, 1, 1));
  EXPECT_THAT(claims_.asked, ElementsAre(path[1].keys));
  EXPECT_THAT(List(), ElementsAreArray(claims_.claims.entries));
  EXPECT_GT(space_.pages.size(), before);
}

// A root that is full, and a leaf in it that became two: the second one is named by the first alone.
class DirectoryTreeUnpostedTest : public DirectoryTreeTest {
 protected:
  DirectoryTreeUnpostedTest() {
    AppointByTurns(16);
    CHECK(Walk(4).size() == 2 && Walk(4)[0].entries == 4 && Walk(4)[1].keys == Interval(4, 8));
    for (uint64_t i = 4; i < 8; ++i) claims_.claims.entries.push_back(EntryOf(i, 1, i % 2 + 3));
    Lose(Walk(4)[1].ref);
    CHECK(Find(SegmentAt(4)).entry == claims_.claims.entries[0]);
    claims_.asked.clear();
    first_ = Walk(4).back();
    second_ = Walk(7).back();
  }
  DirectoryTree::PathStep first_;
  DirectoryTree::PathStep second_;
};

TEST_F(DirectoryTreeUnpostedTest, MoreThanTheParentHasRoomForIsFoundByRightLinks) {
  EXPECT_EQ(Walk(7)[0].entries, 4u);
  EXPECT_EQ(first_.right, second_.ref);
  EXPECT_EQ(first_.keys.end, second_.keys.first);
  for (uint64_t i = 4; i < 8; ++i) EXPECT_EQ(Find(SegmentAt(i)).entry, claims_.claims.entries[i - 4]);
  EXPECT_EQ(Find(SegmentAt(8)).entry, EntryOf(8, 1, 1));
}

TEST_F(DirectoryTreeUnpostedTest, WhoChangesSomethingPostsFirst) {
  ASSERT_TRUE(Move(7, 4, 5).ok());
  EXPECT_EQ(Walk(7).size(), 3u);  // The root had no room.
  EXPECT_EQ(Find(SegmentAt(7)).entry, EntryOf(7, 1, 5, 2));
  EXPECT_EQ(Find(SegmentAt(15)).entry, EntryOf(15, 1, 2));
  // Without the first one the second is still found.
  claims_.claims.entries.clear();
  Lose(first_.ref);
  EXPECT_EQ(Find(SegmentAt(7)).entry, EntryOf(7, 1, 5, 2));
  EXPECT_THAT(claims_.asked, IsEmpty());
}

TEST_F(DirectoryTreeUnpostedTest, ALostOneIsPostedAndThenMadeAnew) {
  Lose(second_.ref);
  EXPECT_EQ(Find(SegmentAt(7)).entry, claims_.claims.entries[3]);
  EXPECT_THAT(claims_.asked, ElementsAre(second_.keys));
  EXPECT_EQ(Walk(4).back().ref, first_.ref);
}

TEST_F(DirectoryTreeTest, ADamagedPageIsTreatedAsLost) {
  AppointByTurns(40);
  ClaimWhatIsListed();
  const auto path = Walk(20);
  space_.pages.at(path.back().ref.page.value).content = std::make_shared<PageBytes>();
  EXPECT_EQ(Find(SegmentAt(20)).entry, EntryOf(20, 1, 1));
  EXPECT_EQ(claims_.asked.size(), 1u);
}

TEST_F(DirectoryTreeTest, WhoDoesNotAnswerIsNamed) {
  AppointByTurns(40);
  Lose(Walk(20).back().ref);
  claims_.refusal = absl::UnavailableError("node 3 does not answer");
  EXPECT_EQ(Do(tree_.Find(SegmentAt(20), kForever)).status(), claims_.refusal);
  EXPECT_EQ(Appoint(20, 1, 1).status(), claims_.refusal);
  EXPECT_TRUE(Do(tree_.Find(SegmentAt(30), kForever)).ok());
  EXPECT_THAT(space_.locked, IsEmpty());
}

TEST_F(DirectoryTreeTest, ARebuildAmongOtherRoundsIsNotWritten) {
  AppointByTurns(40);
  Lose(Walk(20).back().ref);
  const uint64_t stores = space_.stores;
  claims_.others = 1;
  const auto found = Do(tree_.Find(SegmentAt(20), kForever));
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnavailable) << found.status();
  EXPECT_EQ(space_.stores, stores);
  EXPECT_THAT(space_.locked, IsEmpty());
}

TEST_F(DirectoryTreeTest, ClaimsThatAreNotSortedAreRefused) {
  AppointByTurns(40);
  Lose(Walk(20).back().ref);
  claims_.claims.entries = {EntryOf(18, 3, 5), EntryOf(20, 2, 6)};
  const auto found = Do(tree_.Find(SegmentAt(20), kForever));
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInternal) << found.status();
}

TEST_F(DirectoryTreeTest, ARootIsMadeOfClaims) {
  Claims claims{.entries = {}, .order = {.txn = 4, .epoch = 5}};
  for (uint64_t i = 0; i < 500; ++i) claims.entries.push_back(EntryOf(i * 2, 1, i + 1));
  MakeRoot(claims);
  EXPECT_THAT(List(), ElementsAreArray(claims.entries));
  EXPECT_EQ(Find(SegmentAt(77)).order, claims.order);
  EXPECT_GE(Walk(3).size(), 5u);
  ASSERT_TRUE(Appoint(0, 1000, 1).ok());
  for (uint64_t i = 0; i < 500; ++i) EXPECT_TRUE(Find(SegmentAt(i * 2 + 1)).entry.has_value());
}

TEST_F(DirectoryTreeTest, NothingTakesLongerThanItsDeadline) {
  AppointByTurns(40);
  // Of long operations, between two leaves.
  const TimeNs now = clock_.Now();
  EXPECT_EQ(Do(tree_.Appoint(Segments(0, 100), NodeId(1), Written(), now)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Do(tree_.List(kWholeSpace, SIZE_MAX, now)).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Do(tree_.Remove(kWholeSpace, NodeId(3), {}, Written(), now)).code(), absl::StatusCode::kDeadlineExceeded);
  // Of waits for a page that somebody else keeps locked.
  const PageRef leaf = Walk(20).back().ref;
  space_.pages.at(leaf.page.value).lock = 1'000'000;
  const TimeNs deadline = now + 100;
  EXPECT_EQ(Do(tree_.Find(SegmentAt(20), deadline)).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Do(tree_.Appoint(Segments(20, 1), NodeId(1), Written(), deadline)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_LE(clock_.Now(), deadline);
}

// One that stays a misfit whatever is tried: each walk starts again at the root, and the last one gives up.
TEST_F(DirectoryTreeTest, ALinkToAWrongPageEndsAfterSomeTries) {
  AppointByTurns(40);
  const PageRef leaf = Walk(20).back().ref;
  space_.pages.at(leaf.page.value).content = space_.pages.at(Walk(0).back().ref.page.value).content;
  const auto found = Do(tree_.Find(SegmentAt(20), kForever));
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("is not what a link says"));
  EXPECT_FALSE(tree_.Peek(SegmentAt(20)).has_value());
  EXPECT_EQ(Appoint(20, 1, 1).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(DirectoryTreeTest, BadArgumentsAreRefused) {
  const auto appoint = [&](PageRange range) {
    return Do(tree_.Appoint(range, NodeId(1), Written(), kForever)).status().code();
  };
  EXPECT_EQ(appoint({SegmentAt(0) + 1, kSegmentPages}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(appoint({SegmentAt(0), kSegmentPages + 1}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(appoint({SegmentAt(0), 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(appoint({kSpaceEnd, kSegmentPages}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Do(tree_.Find(kSpaceEnd, kForever)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Do(tree_.List({SegmentAt(1), SegmentAt(1)}, 1, kForever)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Do(tree_.Remove({SegmentAt(0), SegmentAt(0) + 1}, NodeId(1), {}, Written(), kForever)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(written_, IsEmpty());
}

TEST(ClaimRounds, CountsThoseAboutAPage) {
  ClaimRounds rounds;
  rounds.Add(Interval(0, 10));
  rounds.Add(Interval(5, 20));
  rounds.Add(Interval(30, 40));
  EXPECT_EQ(rounds.rounds(), 3u);
  EXPECT_EQ(rounds.About(SegmentAt(7), 0), 2u);
  EXPECT_EQ(rounds.About(SegmentAt(7), 1), 1u);
  EXPECT_EQ(rounds.About(SegmentAt(7), 3), 0u);
  for (int i = 0; i < 1000; ++i) rounds.Add(Interval(30, 40));
  EXPECT_EQ(rounds.About(SegmentAt(7), 1000), 0u);
  EXPECT_EQ(rounds.About(SegmentAt(7), 0), 1003u - 256u);
}

}  // namespace
}  // namespace mangrove
