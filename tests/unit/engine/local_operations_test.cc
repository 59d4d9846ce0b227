// What programs ask of a node, where two nodes are asked at once.
//
// Covers: G02

#include "engine/local_operations.h"

#include "engine/mapping/region_memory.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class LocalOperationsTest : public testing::Test {
 protected:
  LocalOperationsTest() {
    SetLogLevel(LogLevel::kOff);
    memory_ = *RegionMemory::Create([](absl::AnyInvocable<void()>) {}, 16);
    config_.replicas = 2;
    for (uint64_t i = 1; i <= 4; ++i) config_.members.push_back({NodeId(i), absl::StrCat("n", i), "h:1"});
    for (uint64_t i = 1; i <= 4; ++i) Serve(i);
  }

  void Serve(uint64_t node) {
    EngineHost& host = cluster_.host(node);
    operations_[node] =
        std::make_unique<LocalOperations>(&config_, &cluster_.clock, host.engine.get(), nullptr, host.transport.get(),
                                          &host.store, memory_.get(), host.self.incarnation);
  }
  LocalOperations& On(uint64_t node) { return *operations_.at(node); }
  Task<absl::Status> Allocating(uint64_t node, PageRange range) {
    return On(node).Allocate(kRoot, range, {.persistent = true, .replicas = 1}, cluster_.In(10 * kSecond));
  }

  static constexpr uint64_t kKeeper = 4;  // Of the page that is lost; nobody asks it.
  const Credentials kRoot{.uid = 0, .gid = 0, .groups = {}};
  std::unique_ptr<RegionMemory> memory_;  // Programs map nothing.
  EngineCluster cluster_{4};
  NodeConfig config_;
  std::map<uint64_t, std::unique_ptr<LocalOperations>> operations_;
};

// Both have heard that the page is lost, and find that it is. The one that comes second must not take away what the first has there.
TEST_F(LocalOperationsTest, OfTwoThatAllocateALostPageAnewOneFindsItAllocated) {
  const auto opened = cluster_.Wait(
      On(1).Reserve(kRoot, {.name = "r", .size_bytes = 64 * kSegmentPages * kPageBytes}, cluster_.In(kSecond)));
  ASSERT_TRUE(opened.ok()) << opened.status();
  PageId page = opened->pages.first;
  while (cluster_.locator().Primary(page) != NodeId(kKeeper)) page = page + kSegmentPages;
  ASSERT_LT(page, opened->pages.end());
  ASSERT_TRUE(cluster_.Wait(Allocating(1, {page, 1})).ok());
  operations_.erase(kKeeper);
  cluster_.StartWithAnEmptyDisk({NodeId(kKeeper), Incarnation(2)});
  cluster_.RunFor(2 * kSecond);
  ASSERT_TRUE(absl::IsDataLoss(cluster_.Read(2, page).status()));
  cluster_.RunFor(kSecond);

  std::map<uint64_t, absl::Status> ended;
  for (const uint64_t node : {1, 2}) {
    Spawn<absl::Status>(Allocating(node, {page, 1}), [&ended, node](absl::Status s) { ended[node] = std::move(s); });
  }
  while (ended.empty()) cluster_.Step(cluster_.In(kSecond));
  const uint64_t first = ended.begin()->first;
  EXPECT_TRUE(ended.begin()->second.ok()) << ended.begin()->second;
  ASSERT_TRUE(cluster_.Write(first, page, 7).ok());
  while (ended.size() < 2) cluster_.Step(cluster_.In(kSecond));
  const absl::Status& second = ended.at(3 - first);
  EXPECT_TRUE(absl::IsAlreadyExists(second)) << second;
  EXPECT_EQ(*cluster_.Read(3, page), 7);
}

}  // namespace
}  // namespace mangrove
