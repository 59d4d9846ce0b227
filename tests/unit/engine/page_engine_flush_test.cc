// Flushes of several callers at once: what they share.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineFlush : public testing::Test {
 protected:
  PageEngineFlush() { SetLogLevel(LogLevel::kOff); }
};

TEST_F(PageEngineFlush, WhatOneCommitMakesDurableIsAnsweredInOneMessage) {
  constexpr uint64_t kCallers = 8;
  EngineCluster cluster(2);
  const PageId first = cluster.SegmentOf(1);
  cluster.Allocate({first, kCallers});
  for (uint64_t i = 0; i < kCallers; ++i) ASSERT_TRUE(cluster.Write(1, first + i, 1).ok());
  cluster.sent.clear();
  cluster.packets.clear();
  uint64_t done = 0;
  for (uint64_t i = 0; i < kCallers; ++i) {
    Spawn<absl::Status>(cluster.engine(1).Flush({first + i, 1}, cluster.In(kSecond)), [&](absl::Status s) {
      EXPECT_TRUE(s.ok()) << s;
      ++done;
    });
  }
  cluster.RunFor(kSecond);
  EXPECT_EQ(done, kCallers);
  EXPECT_EQ(cluster.sent[MessageKind::kStored], static_cast<int>(kCallers));
  EXPECT_EQ(cluster.packets[MessageKind::kStored], 1);
  EXPECT_EQ(cluster.host(1).store.durable.pages.size(), kCallers);
  EXPECT_EQ(cluster.host(2).store.durable.pages.size(), kCallers);
}

// Node 1 flushes a page, and its stores are lost; node 2 takes the page, and is lost with it.
class PageEngineLostFlush : public PageEngineFlush {
 protected:
  PageEngineLostFlush() {
    while (Holders()[0].value < 3 || Holders()[1].value < 3) page_ = page_ + kSegmentPages;
    EXPECT_TRUE(cluster_.IsResponsible(1, page_));
    cluster_.Allocate({page_, 1});
    EXPECT_TRUE(cluster_.Write(1, page_, 1).ok());
    EXPECT_TRUE(Flush().ok());
    EXPECT_TRUE(cluster_.Write(1, page_, 2).ok());
    cluster_.cut = {NodeId(3), NodeId(4)};
    Spawn<absl::Status>(cluster_.engine(1).Flush({page_, 1}, cluster_.In(5 * kSecond)),
                        [this](absl::Status s) { flushed_ = std::move(s); });
    cluster_.RunFor(kMillisecond);
    cluster_.cut.clear();
    EXPECT_TRUE(cluster_.Write(2, page_, 3).ok());
    cluster_.RunFor(10 * kMillisecond);  // Node 1 keeps nothing of it.
    cluster_.Start({NodeId(2), Incarnation(2)});
  }
  std::vector<NodeId> Holders() const { return cluster_.locator().CoreHolders(page_, 2); }
  absl::Status Flush() { return cluster_.Wait(cluster_.engine(1).Flush({page_, 1}, cluster_.In(kSecond))); }

  std::optional<absl::Status> flushed_;
  EngineCluster cluster_{4};
  PageId page_ = kBase;
};

// There is nothing left to flush, and what node 1 had written is gone.
TEST_F(PageEngineLostFlush, IsNotSaidToBeDurable) {
  cluster_.RunFor(6 * kSecond);
  ASSERT_TRUE(flushed_.has_value());
  EXPECT_TRUE(absl::IsDataLoss(*flushed_)) << *flushed_;
  EXPECT_EQ(*cluster_.Read(1, page_), 1);
  EXPECT_TRUE(Flush().ok()) << "it was said once";
}

// So are the seals of the core holders. What everybody was told to be lost must not come back by node 1's sending its stores again.
TEST_F(PageEngineLostFlush, IsNotPressedOnAPageThatWasReopenedSince) {
  ASSERT_EQ(*cluster_.Read(1, page_), 1);
  ASSERT_TRUE(cluster_.Write(1, page_, 4).ok());
  for (const NodeId holder : Holders()) cluster_.Start({holder, Incarnation(2)});
  ASSERT_FALSE(flushed_.has_value());
  cluster_.RunFor(kSecond);
  cluster_.Start({NodeId(1), Incarnation(2)});
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(flushed_.has_value());  // What the page holds by now is on the disks, what it held is gone.
  EXPECT_TRUE(absl::IsDataLoss(*flushed_)) << *flushed_;
  EXPECT_EQ(*cluster_.Read(2, page_), 4);
}

// Sixteen pages of a segment, written by node 1.
class PageEngineFlushRuns : public PageEngineFlush {
 protected:
  static constexpr uint64_t kPages = 16;
  PageEngineFlushRuns() {
    cluster_.Allocate({first_, kPages});
    WriteAll();
    cluster_.RunFor(kSecond);
    cluster_.sent.clear();
    cluster_.packets.clear();
  }
  void WriteAll() {
    for (uint64_t i = 0; i < kPages; ++i) ASSERT_TRUE(cluster_.Write(1, first_ + i, 1).ok());
  }
  absl::Status Flush() { return cluster_.Wait(cluster_.engine(1).Flush({first_, kPages}, cluster_.In(5 * kSecond))); }
  uint64_t Flushed() { return cluster_.engine(1).counters().pages_flushed; }
  size_t StoredAt(uint64_t node) { return cluster_.host(node).store.durable.pages.size(); }

  EngineCluster cluster_{2};
  const PageId first_ = cluster_.SegmentOf(1);
};

TEST_F(PageEngineFlushRuns, NeighboursAreStoredByOneMessageAndOneCommit) {
  const int here = cluster_.host(1).store.commit_count;
  const int there = cluster_.host(2).store.commit_count;
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(cluster_.packets[MessageKind::kStore], 1);
  EXPECT_EQ(cluster_.packets[MessageKind::kStored], 1);
  EXPECT_EQ(cluster_.host(1).store.commit_count, here + 1);
  EXPECT_EQ(cluster_.host(2).store.commit_count, there + 1);
  EXPECT_EQ(StoredAt(1), kPages);
  EXPECT_EQ(StoredAt(2), kPages);
  EXPECT_EQ(Flushed(), kPages);
  EXPECT_TRUE(Flush().ok());  // There is nothing any more.
  EXPECT_EQ(cluster_.packets[MessageKind::kStore], 1);
}

TEST_F(PageEngineFlushRuns, ThoseThatAHolderRefusesKeepNoOtherFromBeingFlushed) {
  Message drop;
  drop.kind = MessageKind::kDropExtent;
  drop.page = first_ + 5;
  drop.count = 2;
  drop.config = ConfigNumber(1);
  cluster_.Inject(2, 2, drop);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(absl::IsFailedPrecondition(Flush()));
  EXPECT_EQ(Flushed(), kPages - 2);
  EXPECT_EQ(StoredAt(2), kPages - 2);
  cluster_.sent.clear();
  EXPECT_TRUE(absl::IsFailedPrecondition(Flush()));
  EXPECT_EQ(cluster_.sent[MessageKind::kStore], 2);  // The others are clean.
}

TEST_F(PageEngineFlushRuns, WhatIsNotAnsweredIsAskedAgainByItself) {
  const std::set<PageId> silent{first_ + 3, first_ + 4, first_ + 9};
  cluster_.lost = [&](const Message& m) { return m.kind == MessageKind::kStored && silent.contains(m.page); };
  std::optional<absl::Status> flushed;
  Spawn<absl::Status>(cluster_.engine(1).Flush({first_, kPages}, cluster_.In(20 * kSecond)),
                      [&](absl::Status s) { flushed = std::move(s); });
  while (cluster_.sent[MessageKind::kStore] <= static_cast<int>(kPages))
    ASSERT_TRUE(cluster_.Step(cluster_.In(kSecond)));
  EXPECT_EQ(cluster_.sent[MessageKind::kStore], static_cast<int>(kPages + silent.size()));
  EXPECT_FALSE(flushed.has_value());
  EXPECT_EQ(Flushed(), 0u);
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  ASSERT_TRUE(flushed.has_value());
  EXPECT_TRUE(flushed->ok()) << *flushed;
  EXPECT_EQ(Flushed(), kPages);
}

TEST_F(PageEngineFlushRuns, AHolderThatDoesNotAnswerIsNamedAtTheDeadline) {
  cluster_.cut = {NodeId(2)};
  const absl::Status status = Flush();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("node 2"));
  EXPECT_EQ(Flushed(), 0u);
  cluster_.cut.clear();
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(Flushed(), kPages);
}

// A page whose protection does not end, and one with an event under way, are frozen by themselves.
TEST_F(PageEngineFlushRuns, PagesWhoseProtectionTakesAWhileAreFlushedWithTheRest) {
  cluster_.host(1).memory.hold_protects = true;
  std::optional<absl::Status> flushed;
  Spawn<absl::Status>(cluster_.engine(1).Flush({first_, kPages}, cluster_.In(20 * kSecond)),
                      [&](absl::Status s) { flushed = std::move(s); });
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(flushed.has_value());
  auto& held = cluster_.host(1).memory.held;
  ASSERT_EQ(held.size(), kPages);
  cluster_.host(1).memory.hold_protects = false;
  for (; !held.empty(); held.pop_front()) held.front()();
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(flushed.has_value());
  EXPECT_TRUE(flushed->ok()) << *flushed;
  EXPECT_EQ(Flushed(), kPages);
}

// Answers that nobody asked for, of too many pages, or twice, change nothing.
TEST_F(PageEngineFlushRuns, AnswersThatMakeNoSenseAreIgnored) {
  cluster_.lost = [](const Message& m) { return m.kind == MessageKind::kStored; };
  std::optional<absl::Status> flushed;
  Spawn<absl::Status>(cluster_.engine(1).Flush({first_, kPages}, cluster_.In(20 * kSecond)),
                      [&](absl::Status s) { flushed = std::move(s); });
  cluster_.RunFor(10 * kMillisecond);
  const RequestId last = cluster_.last_request[MessageKind::kStore];
  Message answer;
  answer.kind = MessageKind::kStored;
  answer.page = first_ + 12;
  answer.request = RequestId(last.value - 3);
  answer.repeat = 40;
  cluster_.Inject(1, 2, answer);
  cluster_.Inject(1, 2, answer);
  answer.request = RequestId(last.value + 1000);
  cluster_.Inject(1, 2, answer);
  EXPECT_FALSE(flushed.has_value());
  EXPECT_EQ(Flushed(), 0u);
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  ASSERT_TRUE(flushed.has_value());
  EXPECT_TRUE(flushed->ok()) << *flushed;
}

}  // namespace
}  // namespace mangrove
