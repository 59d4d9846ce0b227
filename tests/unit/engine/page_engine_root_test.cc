// The view's root leaves, or a node that has made pages of the RAM directory: the directory goes on, and what every cluster has
// from its start is served by another node.
//
// Covers: C05, C09, B02

#include "tests/unit/engine/page_engine_views.h"

namespace mangrove {
namespace {

constexpr uint64_t kFirstRoot = 1;  // As long as it stays.

constexpr PageId RootSegment(uint64_t n) { return kFirstReservablePage + n * kSegmentPages; }

class PageEngineRoot : public PageEngineViewsTest {
 protected:
  static constexpr uint64_t kNodes = 4;
  static constexpr uint64_t kSegments = 60;

  // Pages of the directory have room for few entries.
  static void SmallPages(PageEngineOptions& options) { options.directory_limits = {.runs = 4, .children = 4}; }

  PageEngineRoot() : cluster_(kNodes, SmallPages) {}

  static void Touch(EngineCluster& cluster, uint64_t node, PageId page) {
    const absl::Status located = cluster.Wait(cluster.engine(node).Locate(page, cluster.In(2 * kSecond)));
    ASSERT_TRUE(located.ok()) << located << " at node " << node << " of " << ToString(page);
  }
  // By turns, but not so that the same node splits every page.
  static uint64_t Owner(uint64_t i) { return 1 + (i + i / 5) % kNodes; }
  // By turns, so that each has made pages of the directory, in which there are runs of all.
  static void TouchByTurns(EngineCluster& cluster) {
    for (uint64_t i = 0; i < kSegments; ++i) Touch(cluster, Owner(i), RootSegment(i));
  }
  // Before it leaves, who was responsible for each segment; afterwards those of others are where they were.
  static void ExpectOthersStay(EngineCluster& cluster, const std::set<uint64_t>& gone) {
    for (uint64_t i = 0; i < kSegments; ++i) {
      const uint64_t was = Owner(i);
      if (gone.contains(was)) continue;
      for (const uint64_t node : cluster.running()) {
        EXPECT_EQ(cluster.engine(node).ResponsibleFor(RootSegment(i)), NodeId(was)) << i << " at node " << node;
      }
    }
  }
  static void ExpectOneForEach(EngineCluster& cluster) {
    for (uint64_t i = 0; i < kSegments; ++i) {
      ExpectOneResponsible(cluster, RootSegment(i));
      if (testing::Test::HasFailure()) return;
    }
  }
  // Of nodes that have not looked yet, and read the directory.
  static void ForgetWhatWasHeard(EngineCluster& cluster, uint64_t node) {
    const Incarnation next(cluster.host(node).self.incarnation.value + 1);
    cluster.Start({NodeId(node), next});
  }
  static bool HasMade(EngineCluster& cluster, uint64_t node) {
    bool has = false;
    auto see = [&](const std::vector<DirectoryTree::PathStep>& path, const std::vector<DirectoryEntry>&) {
      for (const auto& step : path) has = has || step.ref.responsible == NodeId(node);
      return true;
    };
    const uint64_t other = node == 1 ? 2 : 1;
    CHECK(cluster.Wait(cluster.engine(other).directory().Visit(kWholeSpace, see, cluster.In(5 * kSecond))).ok());
    return has;
  }

  EngineCluster cluster_;
};

TEST_F(PageEngineRoot, ItIsTheFirstNodeAndThenAnotherMember) {
  EXPECT_EQ(cluster_.view().root, NodeId(kFirstRoot));
  cluster_.Leave(kFirstRoot);
  const NodeId next = cluster_.view().root;
  EXPECT_NE(next, NodeId(kFirstRoot));
  for (const uint64_t node : cluster_.running()) {
    for (const PageId page : {kSuperRootPage, kRamDirectoryRootPage, kDiskDirectoryRootPage}) {
      EXPECT_EQ(cluster_.engine(node).ResponsibleFor(page), next);
    }
  }
  cluster_.Start({NodeId(kFirstRoot), Incarnation(2)});
  EXPECT_EQ(cluster_.engine(kFirstRoot).ResponsibleFor(kSuperRootPage), next);
}

TEST_F(PageEngineRoot, WhenItLeavesTheDirectoryGoesOn) {
  TouchByTurns(cluster_);
  cluster_.Leave(kFirstRoot);
  ExpectOneForEach(cluster_);
  ExpectOthersStay(cluster_, {kFirstRoot});
  for (uint64_t i = kSegments; i < kSegments + 20; ++i) Touch(cluster_, 2 + i % 3, RootSegment(i));
  for (uint64_t i = kSegments; i < kSegments + 20; ++i) ExpectOneResponsible(cluster_, RootSegment(i));
}

TEST_F(PageEngineRoot, WhenAMakerOfDirectoryPagesLeavesTheDirectoryGoesOn) {
  TouchByTurns(cluster_);
  ASSERT_TRUE(HasMade(cluster_, 3));
  cluster_.Leave(3);
  ExpectOneForEach(cluster_);
  ExpectOthersStay(cluster_, {3});
}

// Nobody has a copy of what it made, but itself.
TEST_F(PageEngineRoot, WhoStartsAnewFindsWhatTheOthersClaim) {
  for (const uint64_t gone : {uint64_t{3}, kFirstRoot}) {
    SCOPED_TRACE(gone);
    EngineCluster cluster(kNodes, SmallPages);
    TouchByTurns(cluster);
    cluster.Leave(gone);
    ForgetWhatWasHeard(cluster, 2);
    ExpectOneForEach(cluster);
    ExpectOthersStay(cluster, {gone, 2});  // What node 2 had, nobody has claimed.
  }
}

// The root, one after the other.
TEST_F(PageEngineRoot, TheLastOneServesAlone) {
  TouchByTurns(cluster_);
  for (const uint64_t node : {1, 2, 3}) {
    cluster_.Leave(node);
    for (uint64_t i = 0; i < kSegments; i += 7) ExpectOneResponsible(cluster_, RootSegment(i));
  }
  for (uint64_t i = 0; i < kSegments; ++i) Touch(cluster_, 4, RootSegment(i));
  for (uint64_t i = 0; i < kSegments; ++i) EXPECT_EQ(cluster_.engine(4).ResponsibleFor(RootSegment(i)), NodeId(4));
}

// And comes back, again and again.
TEST_F(PageEngineRoot, EachMayStartAnewInTurn) {
  TouchByTurns(cluster_);
  for (uint64_t round = 2; round < 4; ++round) {
    for (uint64_t node = 1; node <= kNodes; ++node) {
      if (round == 3) cluster_.Leave(node);
      cluster_.Start({NodeId(node), Incarnation(round)});
      for (uint64_t i = node; i < kSegments; i += 5) ExpectOneResponsible(cluster_, RootSegment(i));
    }
  }
  ExpectOneForEach(cluster_);
}

// Lookups that are under way when it leaves.
TEST_F(PageEngineRoot, LookupsThatAreUnderWayEndWell) {
  for (int steps = 0; steps < 40; steps += 2) {
    for (const uint64_t gone : {kFirstRoot, uint64_t{3}}) {
      SCOPED_TRACE(testing::Message() << steps << " steps, node " << gone << " leaves");
      EngineCluster cluster(kNodes, SmallPages);
      for (uint64_t i = 0; i < 12; ++i) Touch(cluster, Owner(i), RootSegment(i));
      std::vector<Pending> all;
      for (const uint64_t node : {2, 4}) {
        for (uint64_t i = 0; i < 14; ++i) {
          all.push_back(Begin(cluster.engine(node).Locate(RootSegment(i), cluster.In(5 * kSecond))));
        }
      }
      for (int i = 0; i < steps; ++i) cluster.Step(cluster.In(kMillisecond));
      cluster.Leave(gone);
      cluster.RunFor(kSecond);
      for (size_t i = 0; i < all.size(); ++i) ASSERT_TRUE(IsOk(all[i])) << i << ": " << Show(all[i]);
      for (uint64_t i = 0; i < 14; ++i) ExpectOneResponsible(cluster, RootSegment(i));
      if (HasFailure()) return;
    }
  }
}

// --- System pages -------------------------------------------------------------------------------------------------

// The smallest cluster in which `node` is not the page's primary.
uint64_t NodesWithAnotherPrimary(PageId page, uint64_t node) {
  for (uint64_t nodes = 3;; ++nodes) {
    CHECK(nodes < 100);
    std::set<NodeId> members;
    for (uint64_t i = 1; i <= nodes; ++i) members.insert(NodeId(i));
    if (Locator(members).Primary(page) != NodeId(node)) return nodes;
  }
}

// Node 2 is the root: node 1 always is the first segment's primary, whose disk it takes to open a page.
struct SystemPageCluster {
  explicit SystemPageCluster(PageId page) : cluster(static_cast<int>(NodesWithAnotherPrimary(page, 2))) {
    cluster.Leave(1);
    cluster.Start({NodeId(1), Incarnation(2)});
    cluster.RunFor(kSecond);
    CHECK(cluster.view().root == NodeId(2));
    // Of the table's pages it becomes responsible.
    CHECK(cluster.Wait(cluster.engine(2).Locate(page, cluster.In(kSecond))).ok());
    CHECK(cluster.engine(2).ResponsibleFor(page) == NodeId(2));
  }
  EngineCluster cluster;
};

TEST_F(PageEngineRoot, SystemPagesAreServedByTheNextOne) {
  for (const PageId page : {kSuperRootPage, kRegionTablePages.first, kRegionTablePages.first + 3 * kSegmentPages}) {
    SCOPED_TRACE(ToString(page));
    SystemPageCluster with(page);
    EngineCluster& cluster = with.cluster;
    ASSERT_TRUE(cluster.Write(3, page, 7).ok());
    ASSERT_TRUE(cluster.Write(2, page, 8).ok());
    ASSERT_TRUE(Flush(cluster, 2, page).ok());
    ASSERT_TRUE(cluster.Write(2, page, 9).ok());
    cluster.Leave(2);
    ASSERT_EQ(*cluster.Read(1, page), 8);  // As it was flushed.
    ASSERT_TRUE(cluster.Write(3, page, 10).ok());
    EXPECT_EQ(*cluster.Read(1, page), 10);
  }
}

TEST_F(PageEngineRoot, ADirtySystemPageIsFoundByTheNextOne) {
  for (const PageId page : {kSuperRootPage, kRegionTablePages.first}) {
    SCOPED_TRACE(ToString(page));
    SystemPageCluster with(page);
    EngineCluster& cluster = with.cluster;
    ASSERT_TRUE(cluster.Write(3, page, 7).ok());
    cluster.Stop(NodeId(2));
    const Pending read = Begin(cluster.engine(1).Acquire({page, 1}, Rights::kRead, cluster.In(60 * kSecond)));
    cluster.RunFor(kSecond);
    EXPECT_FALSE(read->has_value());
    cluster.Leave(2);
    cluster.RunFor(300 * kMillisecond);
    ASSERT_TRUE(IsOk(read)) << Show(read);
    EXPECT_EQ(ByteHere(cluster, 1, page), 7);
    // It comes back, and is root no more.
    cluster.Start({NodeId(2), Incarnation(2)});
    EXPECT_EQ(*cluster.Read(2, page), 7);
    ASSERT_TRUE(cluster.Write(2, page, 8).ok());
    EXPECT_EQ(*cluster.Read(1, page), 8);
  }
}

}  // namespace
}  // namespace mangrove
