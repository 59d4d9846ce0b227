// Waits that end: each by its deadline, with an error that says what was waited for, leaving nothing behind.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

using testing::HasSubstr;
using testing::Not;

class PageEngineWaits : public testing::Test {
 protected:
  PageEngineWaits() { SetLogLevel(LogLevel::kOff); }
};

TEST_F(PageEngineWaits, ALockThatLacksARightSaysSo) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 2});
  PageEngine& engine = cluster.engine(1);
  const auto in_the_way = cluster.Wait(engine.Lock(8, {page, 1}, LockMode::kExclusive, cluster.In(kSecond)));
  ASSERT_TRUE(in_the_way.ok());
  std::optional<absl::StatusOr<uint64_t>> lock;
  Spawn<absl::StatusOr<uint64_t>>(engine.Lock(9, {page, 2}, LockMode::kExclusive, cluster.In(kSecond)),
                                  [&](absl::StatusOr<uint64_t> got) { lock = std::move(got); });
  cluster.RunFor(500 * kMillisecond);
  ASSERT_TRUE(cluster.Write(2, page + 1, 1).ok());  // The second page goes while the first is waited for.
  ASSERT_TRUE(engine.Unlock(8, *in_the_way).ok());
  cluster.clock.AdvanceTo(cluster.In(kSecond));
  cluster.RunFor(kSecond);
  ASSERT_TRUE(lock.has_value());
  EXPECT_THAT(lock->status().message(), HasSubstr("write access to page " + ToString(page + 1)));
  EXPECT_THAT(lock->status().message(), Not(HasSubstr("another program")));
}

// The page has left its old owner, and the new one is away before it has said that it came.
TEST_F(PageEngineWaits, ATransferToANodeThatIsAwayNamesThatNode) {
  EngineCluster cluster(3);
  const PageId page = cluster.SegmentOf(3);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(2, page, 1).ok());
  ASSERT_TRUE(cluster.Write(1, page, 2).ok());
  cluster.Stop(NodeId(1));
  const absl::StatusOr<int> read = cluster.Read(2, page);
  EXPECT_EQ(read.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(read.status().message(), HasSubstr("needs " + ToString(NodeId(1))));
}

TEST_F(PageEngineWaits, ALockedPageSaysThatItIsLocked) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 1});
  PageEngine& engine = cluster.engine(1);
  ASSERT_TRUE(cluster.Wait(engine.Lock(8, {page, 1}, LockMode::kExclusive, cluster.In(kSecond))).ok());
  const auto lock = cluster.Wait(engine.Lock(9, {page, 1}, LockMode::kShared, cluster.In(kSecond)));
  EXPECT_EQ(lock.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(lock.status().message(), HasSubstr("locked by another program of this node"));
}

TEST_F(PageEngineWaits, WhoWaitsForAFrameNoLongerIsForgotten) {
  EngineCluster cluster(2, [](PageEngineOptions& options) { options.cache_pages = 256; });
  const PageId there = cluster.SegmentOf(2);
  const PageId here = cluster.SegmentOf(1);
  cluster.Allocate({there, 256});
  cluster.Allocate({here, 1}, 2);
  cluster.cut = {NodeId(2)};
  bool filled = false;
  Spawn<absl::Status>(cluster.engine(1).Acquire({there, 256}, Rights::kRead, cluster.In(60 * kSecond)),
                      [&](const absl::Status&) { filled = true; });
  for (int i = 0; i < 5; ++i) {
    const absl::Status status =
        cluster.Wait(cluster.engine(1).Acquire({here, 1}, Rights::kRead, cluster.In(20 * kMillisecond)));
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  }
  EXPECT_FALSE(filled);
  EXPECT_EQ(cluster.engine(1).waiting_for_frames(), 0u);
}

TEST_F(PageEngineWaits, AProgramThatDoesNotLetGoDoesNotKeepAFlushForEver) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 1).ok());
  MapMemory& memory = cluster.host(1).memory;
  memory.hold_protects = true;
  const absl::Status status = cluster.Wait(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond)));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(status.message(), HasSubstr(ToString(page)));
  memory.hold_protects = false;
  while (!memory.held.empty()) {
    auto done = std::move(memory.held.front());
    memory.held.pop_front();
    done();
  }
  EXPECT_TRUE(cluster.Wait(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond))).ok());
}

// Nor whoever wants the page meanwhile.
TEST_F(PageEngineWaits, WhoWantsAPageThatIsBeingTakenIsToldAtItsDeadline) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 1).ok());
  cluster.host(1).memory.hold_protects = true;
  Task<absl::Status> flush = cluster.engine(1).Flush({page, 1}, cluster.In(10 * kSecond));
  Spawn<absl::Status>(std::move(flush), [](const absl::Status&) {});
  const TimeNs deadline = cluster.In(100 * kMillisecond);
  const absl::Status status = cluster.Wait(cluster.engine(1).Acquire({page, 1}, Rights::kWrite, deadline));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_LT(cluster.clock.Now(), deadline + 50 * kMillisecond);
}

TEST_F(PageEngineWaits, PagesThatWereGivenUpAreForgotten) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 3});
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Locate(page, cluster.In(kSecond))).ok());
  const size_t before = cluster.engine(1).remembered_pages();  // Of the directory.
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(cluster.Write(1, page + i, 1).ok());
    ASSERT_TRUE(cluster.Write(2, page + i, 2).ok());
  }
  EXPECT_EQ(cluster.engine(1).remembered_pages(), before + 3);
  cluster.RunFor(kSecond);
  EXPECT_EQ(cluster.engine(1).remembered_pages(), before);
  EXPECT_EQ(*cluster.Read(1, page), 2);
}

TEST_F(PageEngineWaits, FlushAllIsNotOkWhileAHolderRefusesADirtyPage) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 1).ok());
  Message seal;
  seal.kind = MessageKind::kQueryStored;
  seal.page = page;
  seal.seal = true;
  seal.grant_epoch = Epoch(UINT64_MAX);
  cluster.Inject(2, 1, seal);
  const absl::Status status = cluster.Wait(cluster.engine(1).FlushAll(cluster.In(kSecond)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(status.message(), HasSubstr(ToString(page)));
}

TEST_F(PageEngineWaits, FlushAllIsNotOkWhileAPageIsOnItsWay) {
  EngineCluster cluster(3);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 1).ok());
  ASSERT_TRUE(cluster.Wait(cluster.engine(3).Locate(page, cluster.In(kSecond))).ok());
  cluster.RunFor(kSecond);
  cluster.sent.clear();
  std::optional<absl::Status> wanted;
  Spawn<absl::Status>(cluster.engine(3).Acquire({page, 1}, Rights::kWrite, cluster.In(10 * kSecond)),
                      [&](absl::Status s) { wanted = std::move(s); });
  while (cluster.sent[MessageKind::kForward] == 0) ASSERT_TRUE(cluster.Step(cluster.In(kSecond)));
  cluster.cut = {NodeId(3)};
  cluster.RunFor(kMillisecond);
  ASSERT_EQ(cluster.engine(1).RightsOf(page), Rights::kNone);
  EXPECT_EQ(cluster.Wait(cluster.engine(1).FlushAll(cluster.In(kSecond))).code(), absl::StatusCode::kUnavailable);
  cluster.cut.clear();
  EXPECT_TRUE(cluster.Wait(cluster.engine(1).FlushAll(cluster.In(5 * kSecond))).ok());
  ASSERT_TRUE(wanted.has_value());
  EXPECT_TRUE(wanted->ok()) << *wanted;
}

TEST_F(PageEngineWaits, UnallocatingWaitsForARegistrationAndNamesWhoIsMissing) {
  EngineCluster cluster(3);
  const PageRange range{cluster.SegmentOf(2), 4};
  cluster.Allocate(range);
  cluster.cut = {NodeId(3)};
  cluster.Start({NodeId(2), Incarnation(2)});
  cluster.engine(1).OnPeerDown({NodeId(3), Incarnation(1)}, absl::UnavailableError("cut"));
  cluster.engine(2).OnPeerDown({NodeId(3), Incarnation(1)}, absl::UnavailableError("cut"));
  cluster.RunFor(kSecond);
  const absl::Status status =
      cluster.Wait(cluster.engine(1).DropExtent(range, ConfigNumber(1), 2, cluster.In(kSecond)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(ToString(NodeId(3))));
  std::optional<absl::Status> dropped;
  Spawn<absl::Status>(cluster.engine(1).DropExtent(range, ConfigNumber(1), 2, cluster.In(10 * kSecond)),
                      [&](absl::Status s) { dropped = std::move(s); });
  cluster.RunFor(kSecond);
  EXPECT_FALSE(dropped.has_value());
  cluster.cut.clear();
  for (const uint64_t node : {1, 2}) cluster.engine(node).OnPeerUp({NodeId(3), Incarnation(1)});
  cluster.RunFor(5 * kSecond);
  ASSERT_TRUE(dropped.has_value());
  EXPECT_TRUE(dropped->ok()) << *dropped;
}

}  // namespace
}  // namespace mangrove
