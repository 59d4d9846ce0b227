// What tests of views share: operations in the background, and who takes itself for responsible.

#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/directory_pages.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {

class PageEngineViewsTest : public testing::Test {
 protected:
  PageEngineViewsTest() { SetLogLevel(LogLevel::kOff); }

  // An operation that goes on while the test does other things.
  using Pending = std::shared_ptr<std::optional<absl::Status>>;
  static Pending Begin(Task<absl::Status> task) {
    auto pending = std::make_shared<std::optional<absl::Status>>();
    Spawn<absl::Status>(std::move(task), [pending](absl::Status s) { *pending = std::move(s); });
    return pending;
  }
  static Pending BeginLock(Task<absl::StatusOr<uint64_t>> task) {
    auto pending = std::make_shared<std::optional<absl::Status>>();
    Spawn<absl::StatusOr<uint64_t>>(std::move(task),
                                    [pending](absl::StatusOr<uint64_t> lock) { *pending = lock.status(); });
    return pending;
  }
  static bool IsOk(const Pending& pending) { return pending->has_value() && (*pending)->ok(); }
  static std::string Show(const Pending& pending) {
    return pending->has_value() ? (*pending)->ToString() : "still waiting";
  }

  // The first segment from `from` on that `node` is responsible for, and that has no core holder in `not_on`.
  static PageId SegmentOf(EngineCluster& cluster, uint64_t node, const std::vector<uint64_t>& not_on,
                          PageId from = kBase) {
    PageId page = SegmentStart(from + (kSegmentPages - 1));
    const auto is_kept_on = [&](uint64_t other) {
      const std::vector<NodeId> holders = cluster.locator().CoreHolders(page, 2);
      return std::find(holders.begin(), holders.end(), NodeId(other)) != holders.end();
    };
    while (std::any_of(not_on.begin(), not_on.end(), is_kept_on) || !cluster.IsResponsible(node, page)) {
      page = page + kSegmentPages;
    }
    return page;
  }

  static int ByteHere(EngineCluster& cluster, uint64_t node, PageId page) {
    std::byte value{};
    cluster.engine(node).Load(page, 0, {&value, 1});
    return static_cast<int>(value);
  }
  static absl::Status Flush(EngineCluster& cluster, uint64_t node, PageId page) {
    return cluster.Wait(cluster.engine(node).Flush({page, 1}, cluster.In(5 * kSecond)));
  }

  // The running nodes of the view that say that they are responsible for the segment, as each answers when it is asked.
  static std::vector<NodeId> Claimers(EngineCluster& cluster, PageId page) {
    constexpr RequestId kAsked{uint64_t{1} << 50};
    const PageId first = SegmentStart(page);
    std::vector<NodeId> claimers;
    auto lost = std::exchange(cluster.lost, [&](const Message& m) {
      if (m.kind != MessageKind::kClaims || m.request != kAsked) return false;
      const auto claims = DecodeClaims(*m.data, m.count);
      CHECK(claims.ok());
      for (const Claim& claim : *claims) {
        if (!claim.holds && claim.entry.range.Contains(first)) claimers.push_back(claim.entry.responsible);
      }
      return true;
    });
    const std::vector<uint64_t> nodes = cluster.running();
    for (const uint64_t node : nodes) {
      Message ask;
      ask.kind = MessageKind::kClaimRequest;
      ask.request = kAsked;
      ask.data = EncodeInterval({first, first + kSegmentPages});
      cluster.Inject(node, node == nodes.front() ? nodes.back() : nodes.front(), ask);
    }
    cluster.lost = std::move(lost);
    return claimers;
  }

  // All running nodes agree on who is responsible for the segment.
  static void ExpectAgreement(EngineCluster& cluster, PageId page) {
    std::vector<NodeId> named;
    for (const uint64_t node : cluster.running()) {
      const absl::Status located = cluster.Wait(cluster.engine(node).Locate(page, cluster.In(2 * kSecond)));
      ASSERT_TRUE(located.ok()) << located << " at node " << node;
      named.push_back(cluster.engine(node).ResponsibleFor(page));
    }
    for (const NodeId node : named) EXPECT_EQ(node, named.front()) << ToString(page);
    EXPECT_TRUE(cluster.view().members.contains(named.front())) << ToString(named.front());
  }
  // At most that node takes itself for it: one that has started anew hears of it when it is asked.
  static void ExpectOneResponsible(EngineCluster& cluster, PageId page) {
    ExpectAgreement(cluster, page);
    const NodeId named = cluster.engine(cluster.running().front()).ResponsibleFor(page);
    const std::vector<NodeId> claimers = Claimers(cluster, page);
    EXPECT_LE(claimers.size(), 1u) << ToString(page);
    for (const NodeId claimer : claimers) EXPECT_EQ(claimer, named) << ToString(page);
  }
};

}  // namespace mangrove
