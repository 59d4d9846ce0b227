// Fault workers that drive the real loop, beside another thread that takes the pages away.

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/runtime/loop.h"
#include "tests/unit/engine/mapping_harness.h"

namespace mangrove::mapping_test {
namespace {

// As a node's is: what is asked for runs on the loop, driven by the thread that asks.
class LoopService final : public FaultService {
 public:
  LoopService(Loop* loop, RegionMemory* memory) : loop_(loop), memory_(memory) {}

  absl::Status AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) override {
    Completion done(before_long_wait);
    loop_->RunUntil(
        [&] {
          Give(page, rights);
          done.Set();
        },
        done);
    return absl::OkStatus();
  }

  // False: another one is under way.
  bool Take(PageId page) {
    Completion done;
    bool began = false;
    loop_->RunUntil(
        [&] {
          began = !taking_ && memory_->RightsOf(page) != Rights::kNone;
          if (!began) return done.Set();
          taking_ = true;
          memory_->Take(page, true, [&](PageBuffer content) {
            taking_ = false;
            taken_ = std::move(content);
            done.Set();
          });
        },
        done);
    return began;
  }
  PageBuffer taken() const { return taken_; }

 private:
  void Give(PageId page, Rights rights) {
    if (taking_) return;  // The worker asks again.
    const Rights has = memory_->RightsOf(page);
    if (has >= rights) return;
    if (has == Rights::kRead) return memory_->Raise(page);
    memory_->Install(page, taken_ ? taken_->bytes.data() : nullptr, rights);
  }

  Loop* const loop_;
  RegionMemory* const memory_;
  bool taking_ = false;
  PageBuffer taken_;
};

TEST(MappedFaultOnLoop, NoStoreIsLostWhenThePageIsTaken) {
  Program program;
  Loop loop({});
  ASSERT_TRUE(loop.Start().ok());
  auto memory = RegionMemory::Create([&](absl::AnyInvocable<void()> task) { loop.Post(std::move(task)); }, 0);
  ASSERT_TRUE(memory.ok()) << memory.status();
  LoopService service(&loop, memory->get());
  std::shared_ptr<RegionFrames> region;
  Completion added;
  loop.RunUntil(
      [&] {
        EXPECT_TRUE((*memory)->AddRegion({kFirst, 1}).ok());
        region = (*memory)->FindRegion(kFirst);
        added.Set();
      },
      added);
  {
    MappedClients clients(&service);
    program.Attach(clients, region);
    ASSERT_EQ(program.Call({.op = Op::kHammer, .pages = 1, .offset = 0, .value = 2}), 0);
    for (int round = 0; round < 300; ++round) {
      const std::atomic<uint8_t>& state = region->StateOf(kFirst);
      ASSERT_TRUE(Eventually([&] { return (state.load() & page_state::kMappedWritable) != 0; }));
      EXPECT_TRUE(service.Take(kFirst));
    }
    const int64_t increments = program.Call({.op = Op::kStopHammer});
    service.Take(kFirst);
    std::array<int64_t, 2> counts;
    std::memcpy(counts.data(), service.taken()->bytes.data(), sizeof(counts));
    EXPECT_EQ(counts[0] + counts[1], increments);
  }
  loop.Stop();
}

}  // namespace
}  // namespace mangrove::mapping_test
