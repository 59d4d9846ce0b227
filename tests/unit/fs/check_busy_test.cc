// A check while others use the fileset: between any two of its edits they change something.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "tests/sanitizers.h"
#include "tests/unit/fs/history.h"
#include "tests/unit/fs/random_ops.h"

namespace mangrove::fs {
namespace {

using testing::IsEmpty;

// What the check says while random operations go on, `most` before each of its edits.
CheckReport CheckWhileBusy(uint64_t seed, uint64_t most, CheckOptions options) {
  History history(2);
  RandomOps ops(seed);
  for (int i = 0; i < 150; ++i) history.Do(ops.Next(history));
  OpenFiles open;
  PeerPages pages(&history.pages(), &open, 40);
  uint64_t edits = 0;
  pages.SetOthers([&] {
    ++edits;
    for (uint64_t left = ops.Below(most + 1); left > 0; --left) history.Do(ops.Next(history));
  });
  const auto report = Do(CheckFileset(&pages, options));
  EXPECT_TRUE(report.ok()) << report.status();
  EXPECT_GT(edits, 100u);
  history.ExpectSound();
  return report.ok() ? *report : CheckReport{};
}

// Covers: F17
TEST(CheckWhileBusy, NamesNothingThatIsOnlyBeingChanged) {
  for (uint64_t seed = 1; seed <= Histories(60) && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    CheckOptions options;
    if (seed % 2 == 0) options = {.most_groups = 1, .most_inodes = 1, .records_at_once = 1 + seed % 3};
    const CheckReport report = CheckWhileBusy(seed, 1 + seed % 4, options);
    EXPECT_THAT(report.problems, IsEmpty());
  }
}

TEST(CheckWhileBusy, RepairsNothingThatIsOnlyBeingChanged) {
  for (uint64_t seed = 101; seed <= 100 + Histories(30) && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const CheckReport report = CheckWhileBusy(seed, 3, {.repair = true, .records_at_once = 2});
    EXPECT_THAT(report.problems, IsEmpty());
    EXPECT_THAT(report.repairs, IsEmpty());
  }
}

// A large directory and a file of many extents are read in steps, between which their trees change their shape.
TEST(CheckWhileBusy, TreesThatGrowAndShrinkMeanwhileAreNoProblem) {
  MemoryPages below;
  ASSERT_TRUE(Do(Instance::Make(&below, {})).ok());
  const auto instance = *Do(Instance::Open(&below));
  const InodeNumber directory = Do(instance->MakeDirectory({}, instance->root(), "d", 0755))->inode;
  const InodeNumber file = Do(instance->MakeNode({}, instance->root(), "f", S_IFREG | 0600, 0))->inode;
  uint64_t random = 1;
  const auto change = [&] {
    random = random * 6364136223846793005 + 1442695040888963407;
    const uint64_t i = random >> 33;
    const std::string name = absl::StrCat("n", i % 1'500);
    if (!Do(instance->Unlink(directory, name)).ok()) {
      ASSERT_TRUE(Do(instance->MakeNode({}, directory, name, i % 5 == 0 ? S_IFIFO : S_IFREG, 0)).ok());
    }
    const uint64_t offset = i % 2'000 * kPageSize;
    if (i % 4 == 0) {
      ASSERT_TRUE(Do(instance->Allocate(file, 3, offset, 3 * kPageSize)).ok());  // A hole.
    } else {
      ASSERT_TRUE(Do(instance->Write(file, offset, "x", {})).ok());
    }
  };
  for (int i = 0; i < 2'000; ++i) change();
  OpenFiles open;
  PeerPages pages(&below, &open, 40);
  for (const size_t at_once : {5, 512}) {
    pages.SetOthers([&] { change(); });
    const auto report = Do(CheckFileset(&pages, {.records_at_once = at_once}));
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_THAT(report->problems, IsEmpty());
    pages.SetOthers(nullptr);
    const auto quiet = Do(CheckFileset(&pages));
    EXPECT_THAT(quiet->problems, IsEmpty());
    EXPECT_EQ(quiet->unjudged, 0u);
  }
}

// Streams come, go, become longer and shorter, and so do those that have them.
class CheckWhileStreamsChange : public testing::TestWithParam<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Seeds, CheckWhileStreamsChange, testing::Range(uint64_t{1}, uint64_t{9}));

TEST_P(CheckWhileStreamsChange, NothingIsAProblem) {
  MemoryPages below;
  ASSERT_TRUE(Do(Instance::Make(&below, {})).ok());
  const auto instance = *Do(Instance::Open(&below));
  uint64_t random = GetParam();
  uint64_t done = 0;
  const auto change = [&] {
    random = random * 6364136223846793005 + 1442695040888963407;
    const uint64_t i = random >> 33;
    const std::string name = absl::StrCat("owner", i % 7);
    const bool is_directory = i % 7 < 3;
    const auto found = Do(instance->Lookup(instance->root(), name));
    if (!found.ok()) {
      const auto made = is_directory ? Do(instance->MakeDirectory({}, instance->root(), name, 0755))
                                     : Do(instance->MakeNode({}, instance->root(), name, S_IFREG | 0600, 0));
      ASSERT_TRUE(made.ok()) << made.status();
      return;
    }
    const std::string stream = absl::StrCat("user.stream.", i / 7 % 40);
    const uint64_t what = i / 300 % 30;
    absl::Status status;
    if (what == 0) {
      status = is_directory ? Do(instance->RemoveDirectory(instance->root(), name))
                            : Do(instance->Unlink(instance->root(), name));
    } else if (what < 8) {
      Do(instance->RemoveXattr(found->inode, stream)).IgnoreError();  // There may be none.
    } else {
      const std::string value(i / 10'000 % 30'000, 's');
      status = Do(instance->SetXattr(found->inode, stream, value, XattrMode::kAny));
    }
    ASSERT_TRUE(status.ok()) << status;
    ++done;
  };
  for (int i = 0; i < 500; ++i) change();
  OpenFiles open;
  PeerPages pages(&below, &open, 40);
  for (const bool repair : {false, true, false, true}) {
    for (const size_t at_once : {3, 512}) {
      pages.SetOthers([&] { change(); });
      const auto report = Do(CheckFileset(&pages, {.repair = repair, .records_at_once = at_once}));
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_THAT(report->problems, IsEmpty());
      EXPECT_THAT(report->repairs, IsEmpty());
      pages.SetOthers(nullptr);
      const auto quiet = Do(CheckFileset(&pages));
      EXPECT_THAT(quiet->problems, IsEmpty());
      EXPECT_EQ(quiet->unjudged, 0u);
      EXPECT_GT(quiet->streams, 5u);
    }
  }
  EXPECT_GT(done, 2'000u);
}

TEST(CheckWhileBusy, TwoChecksAtATimeEndWithAnErrorOrFindNothing) {
  History history(1);
  RandomOps ops(7);
  for (int i = 0; i < 200; ++i) history.Do(ops.Next(history));
  OpenFiles open;
  PeerPages pages(&history.pages(), &open, 40);
  int begun = 0;
  pages.SetOthers([&] {
    if (++begun % 40 == 0) {
      EXPECT_TRUE(Do(CheckFileset(&history.pages()))->IsSound());
    }
  });
  const auto report = Do(CheckFileset(&pages));
  if (report.ok()) {
    EXPECT_THAT(report->problems, IsEmpty());
  } else {
    EXPECT_THAT(std::string(report.status().message()), testing::HasSubstr("another check"));
  }
}

}  // namespace
}  // namespace mangrove::fs
