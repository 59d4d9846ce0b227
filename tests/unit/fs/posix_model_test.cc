// Random histories of operations, each compared with what POSIX says. A failure prints the seed and the last operations.

#include "tests/unit/fs/posix_model.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "fs/quota.h"
#include "tests/sanitizers.h"
#include "tests/unit/fs/ballast.h"
#include "tests/unit/fs/history.h"
#include "tests/unit/fs/random_ops.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kSeeds = Histories(200);
constexpr uint64_t kFullSeeds = Histories(60);
constexpr int kOps = 500;

// `before_each(history, ops)` may arrange something before an operation.
template <typename BeforeEach>
void RunHistory(uint64_t seed, size_t instances, BeforeEach before_each) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  History history(instances);
  RandomOps ops(seed);
  for (int i = 1; i <= kOps && !testing::Test::HasFailure(); ++i) {
    before_each(history, ops);
    history.Do(ops.Next(history));
    if (i % 100 == 0) history.ExpectSame();
    if (i % 250 == 0) history.ExpectSound();
  }
  if (testing::Test::HasFailure()) return;
  history.pages().AbortEach(0);
  history.CloseAll();
  history.ExpectSame();
  history.ExpectSound();
}

constexpr Counted kKinds[] = {Counted::kPages, Counted::kInodes};

// What is used is within the limits, or has not become more.
void ExpectWithin(const Usage& now, const Usage& before) {
  for (const Counted kind : kKinds) {
    if (now.limit(kind) == 0 || now.count(kind) <= now.limit(kind)) continue;
    EXPECT_LE(now.count(kind), before.count(kind)) << "of a limit of " << now.limit(kind);
  }
}

// It would not have had room.
void ExpectTooMuch(const Op& op, const Usage& now) {
  uint64_t bytes = 0;
  if (op.kind == OpKind::kWrite) bytes = op.bytes.size();
  if (op.kind == OpKind::kAllocate) bytes = op.length;
  const Counted kind = bytes > 0 ? Counted::kPages : Counted::kInodes;
  const uint64_t most = bytes > 0 ? (bytes + 2 * kPageSize - 2) / kPageSize : 1;
  EXPECT_NE(now.limit(kind), 0u) << ToString(op);
  EXPECT_GT(now.count(kind) + most, now.limit(kind)) << ToString(op);
}

TEST(PosixModel, RandomHistoriesAreAsPosixHasThem) {
  for (uint64_t seed = 1; seed <= kSeeds && !HasFailure(); ++seed) RunHistory(seed, 1, [](History&, RandomOps&) {});
}

TEST(PosixModel, PeersThatTakeTurnsSeeOneTree) {
  for (uint64_t seed = 1; seed <= kSeeds && !HasFailure(); ++seed) RunHistory(seed, 2, [](History&, RandomOps&) {});
}

TEST(PosixModel, TransactionsThatAreAbortedLeaveNoTrace) {
  const auto abort_some = [](History& history, RandomOps& ops) {
    history.pages().AbortEach(ops.Below(2) == 0 ? 0 : 100 + ops.Below(200));
    history.pages().SetGlances(ops.Below(2) == 0);
  };
  for (uint64_t seed = 1; seed <= kSeeds && !HasFailure(); ++seed) RunHistory(seed, 1 + seed % 2, abort_some);
}

TEST(PosixModel, FullSpaceLeavesEverythingAsItWas) {
  for (uint64_t seed = 1; seed <= kFullSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    History history(1 + seed % 2);
    RandomOps ops(seed);
    int full = 0;
    for (int i = 0; i < 100; ++i) history.Do(ops.Next(history));
    Ballast ballast(&history.pages());
    history.AllowFull(true);
    for (int round = 0; round < 8 && !HasFailure(); ++round) {
      ballast.Take(Zone::kMetadata, ops.Below(2) * ops.Below(20));
      ballast.Take(Zone::kData, ops.Below(30));
      for (int i = 0; i < kOps / 10; ++i) full += history.Do(ops.Next(history)).error == ENOSPC ? 1 : 0;
      ballast.Drop();
      history.ExpectSound();
    }
    EXPECT_GT(full, 0);
    if (HasFailure()) return;
    history.CloseAll();
    history.ExpectSame();
    history.ExpectSound();
  }
}

// Covers: B07
TEST(PosixModel, AQuotaRefusesExactlyWhatIsTooMuchAndLeavesEverythingAsItWas) {
  for (uint64_t seed = 1; seed <= kFullSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    History history(1 + seed % 2);
    RandomOps ops(seed);
    int refused = 0;
    history.AllowFull(true);
    for (int round = 0; round < 10 && !HasFailure(); ++round) {
      const Usage before = Do(GetUsage(&history.pages())).value();
      const QuotaChange change{.pages = ops.Below(4) * before.count(Counted::kPages) / 2,
                               .inodes = ops.Below(4) * before.count(Counted::kInodes) / 2};
      EXPECT_TRUE(Do(SetQuota(&history.pages(), change)).ok());
      Usage last = Do(GetUsage(&history.pages())).value();
      EXPECT_EQ(last.used, before.used);
      for (int i = 0; i < kOps / 10 && !HasFailure(); ++i) {
        if (ops.Below(3) == 0) history.pages().AbortEach(ops.Below(2) * (100 + ops.Below(200)));
        const Op op = ops.Next(history);
        const Answer answer = history.Do(op);
        const Usage now = Do(GetUsage(&history.pages())).value();
        ExpectWithin(now, last);
        if (answer.error == EDQUOT) ExpectTooMuch(op, now);
        refused += answer.error == EDQUOT ? 1 : 0;
        last = now;
      }
      history.pages().AbortEach(0);
      history.ExpectSound();
    }
    EXPECT_GT(refused, 0);
    if (HasFailure()) return;
    history.CloseAll();
    history.ExpectSame();
    history.ExpectSound();
  }
}

}  // namespace
}  // namespace mangrove::fs
