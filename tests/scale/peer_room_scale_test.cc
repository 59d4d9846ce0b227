// What room nodes have is told by each, at a cost that does not grow with their number.
// Covers: G10, G13, B11

#include "engine/peer_eviction.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

constexpr uint64_t kNodes = 150;

// Those of its group, and 64 of the others each time, in turn.
TEST(PeerRoomScale, EachIsToldByAllAndNobodyTellsAllAtOnce) {
  SetLogLevel(LogLevel::kOff);
  EngineCluster cluster(kNodes, [](PageEngineOptions& options) { options.cache_pages = 256; });
  cluster.RunFor(30 * kSecond);
  const int before = cluster.sent[MessageKind::kResources];
  for (int round = 0; round < 5; ++round) {
    cluster.RunFor(6 * kSecond);
    for (uint64_t node = 2; node <= kNodes; ++node) {
      EXPECT_TRUE(cluster.engine(1).peer_eviction().Of(NodeId(node)).has_value()) << node;
      EXPECT_TRUE(cluster.engine(node).peer_eviction().Of(NodeId(1)).has_value()) << node;
    }
  }
  const double in_a_second = (cluster.sent[MessageKind::kResources] - before) / 30.0 / static_cast<double>(kNodes);
  EXPECT_LT(in_a_second, (kGroupNodes + 64) / 4.0 + 1);
  EXPECT_GT(in_a_second, (kGroupNodes + 64) / 8.0);
}

}  // namespace
}  // namespace mangrove
