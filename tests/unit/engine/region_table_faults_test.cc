// Each operation of the table of regions, hit by a fault at each of its steps.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "engine/region_table.h"
#include "tests/unit/engine/region_table_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;

using Effect = FakeTablePages::Effect;

// --- A fault at every step --------------------------------------------------------------------------------------------

// A life of a region; any one of its operations is hit by a fault, repeated, and the rest follows.
class RegionTableFaults : public RegionTableTest {
 protected:
  struct Operation {
    const char* name;
    std::function<absl::Status(PageId first)> run;
    // What the repetition says if it had happened.
    StatusCode happened;
  };
  enum class Kind { kCrash, kFailure, kFailureThenCrash };

  std::vector<Operation> Life() {
    return {
        {"Reserve", [this](PageId) { return Reserve("r", 64).status(); }, StatusCode::kAlreadyExists},
        {"Allocate",
         [this](PageId first) {
           return Allocate({first, 16});
         },
         StatusCode::kAlreadyExists},
        {"Allocate more",
         [this](PageId first) {
           return Allocate({first + 20, 8}, {.persistent = false});
         },
         StatusCode::kAlreadyExists},
        {"SetAttributes",
         [this](PageId first) {
           return Change({first + 4, 4}, KeepInRam());
         },
         StatusCode::kOk},
        {"Unallocate",
         [this](PageId first) {
           return Unallocate({first + 6, 10});
         },
         StatusCode::kFailedPrecondition},
        {"Allocate again",
         [this](PageId first) {
           return Allocate({first + 8, 4});
         },
         StatusCode::kAlreadyExists},
        {"Unallocate the first",
         [this](PageId first) {
           return Unallocate({first, 6});
         },
         StatusCode::kFailedPrecondition},
        {"Unallocate the second",
         [this](PageId first) {
           return Unallocate({first + 8, 4});
         },
         StatusCode::kFailedPrecondition},
        {"Unallocate the third",
         [this](PageId first) {
           return Unallocate({first + 20, 8});
         },
         StatusCode::kFailedPrecondition},
        {"Free", [this](PageId) { return Free("r"); }, StatusCode::kNotFound},
    };
  }
  // Looked up each time: after a crash, Reserve's repetition may have other addresses.
  PageId First() {
    const auto opened = Open("r");
    return opened.ok() ? opened->pages.first : PageId(1);
  }

  void Clear() {
    pages_.Reboot();
    pages_.ram.clear();
    pages_.durable.clear();
    pages_.was_durable.clear();
    for (auto& holder : pages_.holders) holder.clear();
    Restart();
  }
  void Crash() {
    pages_.Reboot();
    Restart();
  }

  // T1, T4, T5.
  void CheckInvariants(bool after_unallocate_ended) {
    EXPECT_TRUE(pages_.SaysOnlyWhatWasFlushed());
    EXPECT_EQ(pages_.locks(), 0u);
    const RegionDescriptor region = Slot(0);
    for (const auto& holder : pages_.holders) {
      size_t in_runs = 0;
      for (const auto& [page, config] : holder) {
        EXPECT_TRUE(region.used);
        EXPECT_LT(config, region.next_config.value);
        if (FindOffset(region, PageId(page))) ++in_runs;
      }
      uint64_t allocated = 0;
      for (const RegionRun& run : region.runs) allocated += run.count;
      if (after_unallocate_ended) {
        EXPECT_EQ(in_runs, allocated);
      }
      if (!region.unclean) {
        EXPECT_EQ(in_runs, holder.size());
      }
    }
  }
  static bool FindOffset(const RegionDescriptor& region, PageId page) {
    const uint64_t offset = page - region.pages.first;
    return std::any_of(region.runs.begin(), region.runs.end(),
                       [&](const RegionRun& run) { return run.offset <= offset && offset < run.end(); });
  }

  // Returns whether the fault came about.
  bool TryOne(size_t hit, const FakeTablePages::Fault& fault, Kind kind) {
    Clear();
    const std::vector<Operation> life = Life();
    for (size_t i = 0; i < life.size(); ++i) {
      if (i != hit) {
        const absl::Status status = life[i].run(First());
        EXPECT_TRUE(status.ok()) << life[i].name << ": " << status;
        continue;
      }
      const PageId first = First();  // Leaves a hint, too, so that the operation's own steps are counted.
      pages_.ArmFault(fault);
      const absl::Status status = life[i].run(first);
      const bool happened = pages_.fault_happened();
      pages_.Disarm();
      if (!happened) {
        EXPECT_TRUE(status.ok()) << life[i].name << ": " << status;
        return false;
      }
      EXPECT_EQ(status.code(), StatusCode::kUnavailable) << life[i].name << ": " << status;
      if (kind != Kind::kFailure) Crash();
      CheckInvariants(std::string(life[i].name).find("Unallocate") != 0);
      const absl::Status again = life[i].run(First());
      EXPECT_TRUE(again.ok() || again.code() == life[i].happened) << life[i].name << ": " << again;
      CheckInvariants(true);
    }
    EXPECT_TRUE(List().regions.empty());
    for (const auto& holder : pages_.holders) EXPECT_TRUE(holder.empty());
    return true;
  }

  void TryAll(Kind kind) {
    int tried = 0;
    for (size_t hit = 0; hit < Life().size(); ++hit) {
      for (const Effect effect : {Effect::kNone, Effect::kHalf, Effect::kAll}) {
        for (int step = 1;; ++step) {
          SCOPED_TRACE(testing::Message()
                       << Life()[hit].name << ", step " << step << ", effect " << static_cast<int>(effect));
          if (!TryOne(hit, {.step = step, .effect = effect, .crash = kind == Kind::kCrash}, kind)) break;
          ++tried;
          ASSERT_FALSE(HasFailure());
        }
      }
    }
    EXPECT_GT(tried, 80);
  }
};

TEST_F(RegionTableFaults, AfterACrashAtAnyStepTheOperationCanBeRepeated) { TryAll(Kind::kCrash); }

TEST_F(RegionTableFaults, AfterAFailureAtAnyStepTheOperationCanBeRepeated) { TryAll(Kind::kFailure); }

TEST_F(RegionTableFaults, AfterAFailureAndACrashTheOperationCanBeRepeated) { TryAll(Kind::kFailureThenCrash); }

// Nobody knows that they were lost any more, once they are dropped.
TEST_F(RegionTableFaults, LostPagesAreAllocatedAnewAfterAFailureAtAnyStep) {
  const PageId first = ReserveSmall();
  ASSERT_TRUE(Allocate({first, 10}).ok());
  bool happened = true;
  for (int step = 1; happened; ++step) {
    for (uint64_t i = 2; i < 5; ++i) pages_.lost.insert((first + i).value);
    const int drops = pages_.drops;
    pages_.ArmFault({.step = step, .effect = Effect::kNone});
    absl::Status status = Allocate({first + 2, 3});
    happened = pages_.fault_happened();
    pages_.Disarm();
    if (pages_.drops != drops) pages_.lost.clear();
    if (!status.ok()) status = Allocate({first + 2, 3});
    pages_.lost.clear();
    EXPECT_TRUE(status.ok()) << "step " << step << ": " << status;
    EXPECT_TRUE(Check({first, 10}).ok()) << step;
  }
}

TEST_F(RegionTableFaults, T5ExtentsOfAnAllocationThatDidNotEndAreDroppedWithTheRegion) {
  const PageId first = ReserveSmall();
  (void)Open("r");
  pages_.ArmFault({.step = 3, .effect = Effect::kHalf});
  EXPECT_EQ(Allocate({first, 8}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(pages_.holders[0].size(), 8u);
  pages_.Disarm();
  EXPECT_TRUE(Slot(0).unclean);
  ASSERT_TRUE(Allocate({first + 20, 1}).ok());
  ASSERT_TRUE(Unallocate({first + 20, 1}).ok());
  EXPECT_TRUE(Slot(0).unclean);
  ASSERT_TRUE(Free("r").ok());
  EXPECT_TRUE(pages_.holders[0].empty());
}

}  // namespace
}  // namespace mangrove
