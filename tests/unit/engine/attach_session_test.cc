// Attached programs against a daemon in this process: what the public interface promises.
// Covers: G03, G04, G05

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "engine/attach/inspect.h"
#include "tests/unit/engine/attach_harness.h"

namespace mangrove::attach_test {
namespace {

constexpr uint64_t kRegionBytes = 64 * kPageBytes;

bool Mentions(const absl::Status& status, const std::string& text) {
  return status.message().find(text) != absl::string_view::npos;
}

class AttachSession : public testing::Test {
 protected:
  AttachSession() : path_(NewSocketPath()), daemon_(path_) { EXPECT_TRUE(daemon_.started().ok()) << daemon_.started(); }

  std::shared_ptr<Session> Attach(int64_t timeout_ms = 10'000) {
    auto session = Session::Attach({.socket_path = path_, .limits = {timeout_ms}});
    EXPECT_TRUE(session.ok()) << session.status();
    return *session;
  }
  // A region of which everything is allocated.
  std::shared_ptr<Region> NewRegion(const std::shared_ptr<Session>& session, const std::string& name = "table") {
    auto region = session->Reserve({.name = name, .size_bytes = kRegionBytes});
    EXPECT_TRUE(region.ok()) << region.status();
    EXPECT_TRUE((*region)->Allocate(0, kRegionBytes, {}).ok());
    return *region;
  }
  TestNode& node() { return daemon_.node(); }

  std::string path_;
  TestDaemon daemon_;
};

TEST_F(AttachSession, MappedMemoryIsSharedWithTheNodesOtherPrograms) {
  auto one = Attach();
  auto region = NewRegion(one);
  auto base = region->Map(0, kRegionBytes);
  ASSERT_TRUE(base.ok()) << base.status();
  std::atomic_ref(*reinterpret_cast<uint64_t*>(*base + 3 * kPageBytes)).fetch_add(42);

  auto two = Attach();
  auto again = two->Open("table", AccessMode::kWrite);
  ASSERT_TRUE(again.ok()) << again.status();
  auto other = (*again)->Map(0, kRegionBytes);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(*other, *base);
  EXPECT_EQ(std::atomic_ref(*reinterpret_cast<uint64_t*>(*other + 3 * kPageBytes)).fetch_add(1), 42u);
  EXPECT_EQ(std::atomic_ref(*reinterpret_cast<uint64_t*>(*base + 3 * kPageBytes)).load(), 43u);
  const RegionCounters counters = region->Counters();
  EXPECT_GE(counters.read_faults + counters.write_faults, 1u);
}

TEST_F(AttachSession, ReadAndWriteCopyAnyBytes) {
  auto region = NewRegion(Attach());
  std::vector<std::byte> written(12 * kPageBytes + 100);
  for (size_t i = 0; i < written.size(); ++i) written[i] = static_cast<std::byte>(i * 7);
  ASSERT_TRUE(region->Write(kPageBytes - 50, written).ok());
  std::vector<std::byte> read(written.size());
  ASSERT_TRUE(region->Read(kPageBytes - 50, read).ok());
  EXPECT_EQ(read, written);
  EXPECT_TRUE(region->Read(kRegionBytes, {}).ok());
  EXPECT_EQ(region->Read(kRegionBytes, {read.data(), 1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(region->Read(UINT64_MAX, {read.data(), 2}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(AttachSession, ACallOnPagesThatAreHereSendsNothing) {
  auto region = NewRegion(Attach());
  std::vector<std::byte> bytes(3 * kPageBytes);
  ASSERT_TRUE(region->Write(0, bytes).ok());
  const int before = node().acquisitions;
  ASSERT_TRUE(region->Read(0, bytes).ok());
  ASSERT_TRUE(region->Write(0, bytes).ok());
  EXPECT_EQ(node().acquisitions, before);
  // Taken away, they are asked for again, in one request.
  for (int i = 0; i < 3; ++i) node().TakeAway(PageOf(region->info().address) + i);
  ASSERT_TRUE(region->Read(0, bytes).ok());
  EXPECT_EQ(node().acquisitions, before + 1);
}

TEST_F(AttachSession, AWriteOfManyPagesChangesNothingUnlessAllAreAllocated) {
  auto session = Attach();
  auto region = *session->Reserve({.name = "large", .size_bytes = 600 * kPageBytes});
  ASSERT_TRUE(region->Allocate(0, 500 * kPageBytes, {}).ok());
  std::vector<std::byte> bytes(600 * kPageBytes, std::byte{7});
  EXPECT_EQ(region->Write(0, bytes).code(), absl::StatusCode::kFailedPrecondition);
  std::vector<std::byte> read(500 * kPageBytes);
  ASSERT_TRUE(region->Read(0, read).ok());
  EXPECT_EQ(read, std::vector<std::byte>(500 * kPageBytes));
  ASSERT_TRUE(region->Write(0, {bytes.data(), read.size()}).ok());
  ASSERT_TRUE(region->Read(0, read).ok());
  EXPECT_EQ(read, std::vector<std::byte>(500 * kPageBytes, std::byte{7}));
}

TEST_F(AttachSession, APageThatCannotBeHadFailsTheCallAndNotTheProgram) {
  auto region = NewRegion(Attach(300));
  std::byte word[8];
  node().MakeFail(5);
  const absl::Status lost = region->Read(5 * kPageBytes, word);
  EXPECT_EQ(lost.code(), absl::StatusCode::kDataLoss) << lost;
  node().MakeHang(5);
  const absl::Status away = region->Write(5 * kPageBytes, word);
  EXPECT_EQ(away.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Mentions(away, "node 7")) << away;
}

TEST_F(AttachSession, AMappedAccessThatFailsGetsSigbusUntilHealed) {
  auto region = NewRegion(Attach());
  auto base = region->Map(0, kRegionBytes);
  ASSERT_TRUE(base.ok());
  node().MakeFail(2);
  EXPECT_EQ(TryLoad(*base + 2 * kPageBytes), SIGBUS);
  EXPECT_EQ(TryStore(*base + 2 * kPageBytes, 1), SIGBUS);
  node().MakeServed(2);
  EXPECT_EQ(TryLoad(*base + 2 * kPageBytes), SIGBUS);
  ASSERT_TRUE(region->Heal(0, kRegionBytes).ok());
  EXPECT_EQ(TryStore(*base + 2 * kPageBytes, 1), 0);
}

TEST_F(AttachSession, ArgumentsAreCheckedByName) {
  auto session = Attach();
  auto region = NewRegion(session);
  EXPECT_TRUE(Mentions(region->Map(100, kPageBytes).status(), "100"));
  EXPECT_TRUE(Mentions(region->Map(0, 0).status(), "at least one page"));
  EXPECT_TRUE(Mentions(region->Flush(0, 2 * kRegionBytes), "table"));
  EXPECT_EQ(region->Unmap(0, kPageBytes).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(region->Lock(0, kPageBytes, LockMode::kShared, -1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(session->Reserve({.name = "table", .size_bytes = kRegionBytes}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(session->Open("nothing", AccessMode::kRead).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(session->Open(std::string(300, 'x'), AccessMode::kRead).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(session->ListRegions().ok());
  EXPECT_EQ(Session::Attach({.socket_path = ""}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Session::Attach({.socket_path = path_, .limits = {0}}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto nobody = Session::Attach({.socket_path = path_ + "x"}).status();
  EXPECT_EQ(nobody.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Mentions(nobody, path_ + "x")) << nobody;
}

TEST_F(AttachSession, MapNeedsAllocatedPagesAndIsCounted) {
  auto region = *Attach()->Reserve({.name = "half", .size_bytes = kRegionBytes});
  ASSERT_TRUE(region->Allocate(0, kPageBytes, {}).ok());
  EXPECT_EQ(region->Map(0, kRegionBytes).status().code(), absl::StatusCode::kFailedPrecondition);
  auto base = region->Map(0, kPageBytes);
  ASSERT_TRUE(base.ok());
  EXPECT_EQ(*region->Map(0, kPageBytes), *base);
  EXPECT_TRUE(region->Unmap(0, kPageBytes).ok());
  EXPECT_TRUE(region->Unmap(0, kPageBytes).ok());
  EXPECT_FALSE(region->Unmap(0, kPageBytes).ok());
}

TEST_F(AttachSession, RequestsReachTheNode) {
  auto session = Attach();
  auto region = NewRegion(session);
  EXPECT_TRUE(region->Flush(0, kRegionBytes).ok());
  EXPECT_EQ(node().flushes, 1);
  ASSERT_TRUE(region->SetAttributes(0, kPageBytes, {.keep_in_ram = true}).ok());
  EXPECT_TRUE(region->GetAttributes(0)->keep_in_ram);
  EXPECT_EQ(session->Space()->free_bytes, 900u);
  EXPECT_EQ(session->Free("table").code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(region->Unallocate(0, kRegionBytes).ok());
  EXPECT_TRUE(session->Free("table").ok());
}

TEST_F(AttachSession, LongListsAndTextsComeWhole) {
  auto session = Attach();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(session->Reserve({.name = "r" + std::to_string(i), .size_bytes = kPageBytes}).ok());
  }
  EXPECT_EQ(session->ListRegions()->size(), 100u);
  EXPECT_EQ(InspectNode({.socket_path = path_}, "long")->size(), 100'000u);
  EXPECT_EQ(*InspectNode({.socket_path = path_}, "status", "x"), "{\"argument\": \"x\"}");
  EXPECT_EQ(InspectNode({.socket_path = path_}, "nonsense").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(AttachSession, LocksExcludeAndViewsGiveThemBack) {
  auto one = NewRegion(Attach());
  auto two = *Attach()->Open("table", AccessMode::kWrite);
  auto view = one->Access(0, 2 * kPageBytes, AccessMode::kWrite, 1000);
  ASSERT_TRUE(view.ok()) << view.status();
  view->mutable_bytes()[5] = std::byte{7};
  EXPECT_EQ(two->Lock(kPageBytes, kPageBytes, LockMode::kShared, 0).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(two->Lock(2 * kPageBytes, kPageBytes, LockMode::kExclusive, 0).ok());
  PageView moved = *std::move(view);
  EXPECT_TRUE(moved.Release().ok());
  EXPECT_TRUE(moved.Release().ok());
  auto shared = two->Access(0, kPageBytes, AccessMode::kRead, 1000);
  ASSERT_TRUE(shared.ok());
  EXPECT_EQ(shared->bytes()[5], std::byte{7});
  EXPECT_TRUE(one->Lock(0, kPageBytes, LockMode::kShared, 0).ok());
  *shared = PageView();
  EXPECT_EQ(node().HeldLocks(), 0u);
}

TEST_F(AttachSession, AWaitingLockIsGrantedWhenItIsGivenBack) {
  auto one = NewRegion(Attach());
  auto two = *Attach()->Open("table", AccessMode::kWrite);
  auto held = one->Lock(0, kPageBytes, LockMode::kExclusive, 1000);
  ASSERT_TRUE(held.ok());
  std::thread waiting([&] { EXPECT_TRUE(two->Lock(0, kPageBytes, LockMode::kExclusive, 10'000).ok()); });
  EXPECT_TRUE(Eventually([&] { return node().waiting_locks == 1; }));
  EXPECT_TRUE(held->Release().ok());
  waiting.join();
}

TEST_F(AttachSession, ReadOnlyGivesNoWayToWrite) {
  auto region = NewRegion(Attach());
  auto reader = *Attach()->Open("table", AccessMode::kRead);
  std::byte word[8] = {};
  EXPECT_EQ(reader->Write(0, word).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(reader->Access(0, kPageBytes, AccessMode::kWrite, 0).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(reader->Lock(0, kPageBytes, LockMode::kExclusive, 0).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(reader->Read(0, word).ok());
  auto base = reader->Map(0, kRegionBytes);
  ASSERT_TRUE(base.ok()) << base.status();
  EXPECT_EQ(TryLoad(*base), 0);
  EXPECT_NE(TryStore(*base, 666), 0);
  // What mprotect allows is a page of its own at most.
  if (mprotect(*base, kRegionBytes, PROT_READ | PROT_WRITE) == 0) TryStore(*base, 666);
  ASSERT_TRUE(region->Read(0, word).ok());
  EXPECT_EQ(word[0], std::byte{0});
}

TEST_F(AttachSession, RegionsOfOneSessionShareTheirMapping) {
  auto session = Attach();
  auto first = NewRegion(session);
  auto base = *first->Map(0, kRegionBytes);
  auto second = *session->Open("table", AccessMode::kWrite);
  EXPECT_EQ(*second->Map(0, kRegionBytes), base);
  EXPECT_EQ(*second->Map(kPageBytes, kPageBytes), base + kPageBytes);
  first.reset();
  EXPECT_EQ(TryStore(base, 5), 0);
  second.reset();
  // Gone with its last user, and can be had again.
  auto third = *session->Open("table", AccessMode::kWrite);
  uint64_t value = 0;
  ASSERT_EQ(TryLoad(*third->Map(0, kRegionBytes), &value), 0);
  EXPECT_EQ(value, 5u);
}

TEST_F(AttachSession, EventsReachTheRegionsThatAreOpen) {
  auto session = Attach();
  auto region = NewRegion(session);
  auto other = NewRegion(session, "other");
  std::atomic<uint64_t> reverted{0};
  std::atomic<int> wrong{0};
  region->SetEventCallback([&](const RegionEvent& event) {
    EXPECT_EQ(event.kind, RegionEvent::Kind::kReverted);
    EXPECT_EQ(event.offset_bytes, 4 * kPageBytes);
    reverted += event.length_bytes;
  });
  other->SetEventCallback([&](const RegionEvent&) { ++wrong; });
  node().Announce({RegionEvent::Kind::kReverted, {PageOf(region->info().address) + 4, 2}});
  EXPECT_TRUE(Eventually([&] { return reverted == 2 * kPageBytes; }));
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(region->Counters().reverts, 2u);
}

TEST_F(AttachSession, ASlowCallbackMissesNothingAndHoldsUpNobody) {
  auto region = NewRegion(Attach());
  std::atomic<bool> go{false};
  std::atomic<uint64_t> first{UINT64_MAX};
  std::atomic<uint64_t> end{0};
  region->SetEventCallback([&](const RegionEvent& event) {
    while (!go) std::this_thread::yield();
    first = std::min(first.load(), event.offset_bytes);
    end = std::max(end.load(), event.offset_bytes + event.length_bytes);
  });
  const PageId page = PageOf(region->info().address);
  for (int i = 0; i < 5000; ++i) node().Announce({RegionEvent::Kind::kLost, {page + i % 64, 1}});
  EXPECT_TRUE(region->Flush(0, kPageBytes).ok());
  go = true;
  EXPECT_TRUE(Eventually([&] { return first == 0 && end == kRegionBytes; }));
}

TEST_F(AttachSession, TheLastReferenceMayGoInTheCallback) {
  auto region = NewRegion(Attach());
  std::atomic<bool> called{false};
  const PageId page = PageOf(region->info().address);
  auto* const last = new std::shared_ptr<Region>(std::move(region));
  (*last)->SetEventCallback([&called, last](const RegionEvent&) {
    delete last;
    called = true;
  });
  node().Announce({RegionEvent::Kind::kLost, {page, 1}});
  EXPECT_TRUE(Eventually([&] { return called && node().ended_clients == 1; }));
}

TEST_F(AttachSession, ManyThreadsCallAtOnce) {
  auto region = NewRegion(Attach());
  auto base = *region->Map(0, kRegionBytes);
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 300; ++i) {
        uint64_t value = t * 1000 + i;
        const uint64_t offset = (t * 8 + i % 8) * kPageBytes;
        auto bytes = std::as_writable_bytes(std::span(&value, 1));
        if (!region->Write(offset, bytes).ok()) ++failures;
        if (i % 3 == 0) node().TakeAway(PageOf(region->info().address) + t * 8 + (i + 1) % 8);
        if (!region->Flush(offset, kPageBytes).ok()) ++failures;
        auto lock = region->Lock(t % 4 * kPageBytes, kPageBytes, LockMode::kExclusive, 10'000);
        if (!lock.ok() || !lock->Release().ok()) ++failures;
        std::atomic_ref(*reinterpret_cast<uint64_t*>(base + offset + 8)).fetch_add(1);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(node().flushes, 8 * 300);
  EXPECT_EQ(node().HeldLocks(), 0u);
}

TEST_F(AttachSession, TheEndOfTheSessionIsTheEndOfTheClient) {
  auto session = Attach();
  auto region = NewRegion(session);
  ASSERT_TRUE(region->Map(0, kRegionBytes).ok());
  auto lock = region->Lock(0, kPageBytes, LockMode::kExclusive, 0);
  session.reset();
  EXPECT_EQ(node().ended_clients, 0);
  lock->Release().IgnoreError();
  region.reset();
  EXPECT_TRUE(Eventually([&] { return node().ended_clients == 1; }));
}

TEST_F(AttachSession, WhenTheDaemonStopsEverythingFailsAndAccessesGetSigbus) {
  auto region = NewRegion(Attach());
  auto base = *region->Map(0, kRegionBytes);
  ASSERT_EQ(TryStore(base, 1), 0);
  std::atomic<bool> fenced{false};
  region->SetEventCallback([&](const RegionEvent& event) { fenced = event.kind == RegionEvent::Kind::kFenced; });
  node().OnLoop([&] { daemon_.server().Stop(); });
  EXPECT_TRUE(Eventually([&] { return fenced.load(); }));
  EXPECT_EQ(TryLoad(base), SIGBUS);
  EXPECT_EQ(TryStore(base, 1), SIGBUS);
  std::byte word[8];
  for (const absl::Status& status : {region->Read(0, word), region->Flush(0, kPageBytes)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(Mentions(status, path_)) << status;
    EXPECT_TRUE(Mentions(status, "attach again")) << status;
  }
}

}  // namespace
}  // namespace mangrove::attach_test
