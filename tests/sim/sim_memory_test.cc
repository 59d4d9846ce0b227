#include "tests/sim/sim_memory.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"

namespace mangrove::sim {
namespace {

constexpr PageId kSimPage{77};

class Nobody : public MemoryObserver {
 public:
  void OnInstall(int, PageId, const std::byte*, Rights) override {}
  void OnRights(int, PageId, Rights rights, bool) override { last = rights; }
  void OnLoad(int, PageId, const std::byte*) override { ++loads; }
  void OnStore(int, PageId, const Stamp&) override { ++stores; }
  void OnSuspended(int) override {}
  void OnResumed(int) override {}
  Rights last = Rights::kNone;
  int loads = 0;
  int stores = 0;
};

class SimMemoryTest : public testing::Test {
 protected:
  explicit SimMemoryTest(uint32_t inline_per_mille = 0) : world_(3) {
    SimMemoryOptions options;
    options.inline_per_mille = inline_per_mille;
    memory_ = std::make_unique<SimMemory>(&world_, 0, 1, options, &observer_);
  }
  void Run() {
    while (world_.Step()) {
    }
  }
  // The world stopped, and says so.
  void ExpectBroken(const std::string& call) {
    EXPECT_NE(world_.failure().find("PageMemory::" + call), std::string::npos) << world_.failure();
  }

  SimWorld world_;
  Nobody observer_;
  std::unique_ptr<SimMemory> memory_;
};

TEST(Stamp, APageOfTwoStoresIsTorn) {
  PageBytes first;
  PageBytes second;
  FillPage(kSimPage, {1, 9}, first.bytes.data());
  FillPage(kSimPage, {2, 9}, second.bytes.data());
  EXPECT_EQ(ParsePage(kSimPage, first.bytes.data()).stamp, (Stamp{1, 9}));
  EXPECT_EQ(ParsePage(PageId(78), first.bytes.data()).content, PageContent::kTorn) << "written elsewhere";
  first.bytes[4000] = second.bytes[4000] ^ std::byte{1};
  EXPECT_EQ(ParsePage(kSimPage, first.bytes.data()).content, PageContent::kTorn);
  PageBytes zeros{};
  EXPECT_EQ(ParsePage(kSimPage, zeros.bytes.data()).content, PageContent::kZeros);
  zeros.bytes[100] = std::byte{1};
  EXPECT_EQ(ParsePage(kSimPage, zeros.bytes.data()).content, PageContent::kTorn);
  EXPECT_EQ(ParsePage(kSimPage, nullptr).content, PageContent::kZeros);
}

TEST_F(SimMemoryTest, RightsFollowTheCalls) {
  memory_->Install(kSimPage, nullptr, Rights::kRead);
  EXPECT_TRUE(memory_->CanRead(kSimPage));
  EXPECT_FALSE(memory_->CanWrite(kSimPage));
  memory_->Raise(kSimPage);
  EXPECT_TRUE(memory_->CanWrite(kSimPage));
  memory_->ApplicationStore(kSimPage, {1, 1});
  memory_->Protect(kSimPage, [] {});
  Run();
  EXPECT_FALSE(memory_->CanWrite(kSimPage));
  EXPECT_EQ(ParsePage(kSimPage, memory_->Copy(kSimPage)->bytes.data()).stamp.op, 1u);
  memory_->Take(kSimPage, /*keep=*/false, [](PageBuffer data) { EXPECT_EQ(data, nullptr); });
  Run();
  EXPECT_FALSE(memory_->CanRead(kSimPage));
  EXPECT_EQ(memory_->frames(), 0u);
  EXPECT_TRUE(world_.failure().empty());
}

TEST_F(SimMemoryTest, ProgramsGoOnUntilATakeHasEnded) {
  memory_->Install(kSimPage, nullptr, Rights::kWrite);
  PageBuffer taken;
  memory_->Take(kSimPage, /*keep=*/true, [&](PageBuffer data) { taken = std::move(data); });
  EXPECT_TRUE(memory_->CanWrite(kSimPage));
  memory_->ApplicationStore(kSimPage, {1, 1});
  memory_->SetLastMoment([&](PageId page) { memory_->ApplicationStore(page, {2, 1}); });
  Run();
  ASSERT_NE(taken, nullptr);
  EXPECT_EQ(ParsePage(kSimPage, taken->bytes.data()).stamp.op, 2u) << "the content of the completion";
}

TEST_F(SimMemoryTest, ADeadMemoryCallsNobody) {
  memory_->Install(kSimPage, nullptr, Rights::kWrite);
  memory_->Take(kSimPage, true, [](PageBuffer) { FAIL(); });
  memory_->Kill();
  world_.DropEventsOf(0);
  Run();
}

TEST_F(SimMemoryTest, InstallOfAPageWithRightsIsBroken) {
  memory_->Install(kSimPage, nullptr, Rights::kRead);
  memory_->Install(kSimPage, nullptr, Rights::kRead);
  ExpectBroken("Install");
}

TEST_F(SimMemoryTest, RaiseWithoutTheReadRightIsBroken) {
  memory_->Raise(kSimPage);
  ExpectBroken("Raise");
}

TEST_F(SimMemoryTest, ProtectOfAReadablePageIsBroken) {
  memory_->Install(kSimPage, nullptr, Rights::kRead);
  memory_->Protect(kSimPage, [] {});
  ExpectBroken("Protect");
}

TEST_F(SimMemoryTest, ASecondCallWhileATakeIsUnderWayIsBroken) {
  memory_->Install(kSimPage, nullptr, Rights::kRead);
  memory_->Take(kSimPage, true, [](PageBuffer) {});
  memory_->Raise(kSimPage);
  ExpectBroken("Raise");
}

TEST_F(SimMemoryTest, ACopyOfAWritablePageIsBroken) {
  memory_->Install(kSimPage, nullptr, Rights::kWrite);
  memory_->Copy(kSimPage);
  ExpectBroken("Copy");
}

class SimMemoryInlineTest : public SimMemoryTest {
 protected:
  SimMemoryInlineTest() : SimMemoryTest(1000) {}
};

TEST_F(SimMemoryInlineTest, DoneMayRunWithinTheCall) {
  memory_->Install(kSimPage, nullptr, Rights::kWrite);
  bool done = false;
  memory_->Protect(kSimPage, [&] { done = true; });
  EXPECT_TRUE(done);
  EXPECT_EQ(observer_.last, Rights::kRead);
}

}  // namespace
}  // namespace mangrove::sim
