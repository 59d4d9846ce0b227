// Who goes through memory in order waits seldom; who does not, brings nothing.
// Covers: B04

#include "engine/read_ahead.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace mangrove {
namespace {

constexpr PageId kFirst{absl::MakeUint128(1, 0)};

// A user who asks only for what is not here.
class User {
 public:
  explicit User(uint64_t max_pages) : ahead_(max_pages) {}

  void Use(uint64_t page, uint64_t count = 1) {
    bool here = true;
    for (uint64_t i = page; i < page + count; ++i) here &= brought_.contains(i);
    if (here) return;
    ++waits;
    for (uint64_t i = page; i < page + count; ++i) brought_.insert(i);
    for (const PageRange& range : ahead_.OnAccess({kFirst + page, count}, UINT64_MAX)) {
      for (uint64_t i = 0; i < range.count; ++i) {
        const uint64_t brought = absl::Uint128Low64(range.first.value - kFirst.value) + i;
        EXPECT_TRUE(brought_.insert(brought).second) << brought << " is asked for twice";
        farthest = std::max(farthest, brought > page ? brought - page : page - brought);
        ++ahead;
      }
    }
  }

  int waits = 0;
  uint64_t ahead = 0;
  uint64_t farthest = 0;

 private:
  ReadAhead ahead_;
  std::set<uint64_t> brought_;
};

TEST(ReadAhead, WhoReadsInOrderSeldomWaits) {
  User user(512);
  for (uint64_t page = 0; page < 10'000; ++page) user.Use(page);
  EXPECT_LT(user.waits, 40);
  EXPECT_LE(user.farthest, 512u);
  EXPECT_GE(user.farthest, 256u);
}

TEST(ReadAhead, LargeReadsInOrderToo) {
  User user(1024);
  for (uint64_t page = 0; page < 100 * 256; page += 256) user.Use(page, 256);
  EXPECT_LT(user.waits, 40);
  EXPECT_LE(user.farthest, 1024u + 256);
}

TEST(ReadAhead, StridesAreRecognised) {
  User user(512);
  for (uint64_t step = 0; step < 1'000; ++step) user.Use(7 * step);
  EXPECT_LT(user.waits, 80);
  EXPECT_LE(user.ahead, 1'100u) << "nothing between the strides is brought";
}

TEST(ReadAhead, SeveralStreamsAtATime) {
  User user(512);
  for (uint64_t page = 0; page < 4'000; ++page) {
    for (uint64_t stream = 0; stream < 4; ++stream) user.Use(stream * 1'000'000 + page);
  }
  EXPECT_LT(user.waits, 200);
}

TEST(ReadAhead, TwoAccessesAreNoOrder) {
  ReadAhead ahead(512);
  EXPECT_TRUE(ahead.OnAccess({kFirst, 1}, 512).empty());
  EXPECT_TRUE(ahead.OnAccess({kFirst + 1, 1}, 512).empty());
  EXPECT_EQ(ahead.OnAccess({kFirst + 2, 1}, 512), (std::vector<PageRange>{{kFirst + 3, 16}}));
  EXPECT_TRUE(ahead.OnAccess({kFirst + 3, 1}, 512).empty()) << "enough is on its way";
}

TEST(ReadAhead, RandomAccessesBringNextToNothing) {
  User user(512);
  std::mt19937_64 random(1);
  for (int i = 0; i < 20'000; ++i) user.Use(random() % 1'000'000);
  EXPECT_LT(user.ahead, 400u);
}

TEST(ReadAhead, WhatDoesNotFitIsAskedForLater) {
  ReadAhead ahead(512);
  EXPECT_TRUE(ahead.OnAccess({kFirst, 1}, 512).empty());
  EXPECT_TRUE(ahead.OnAccess({kFirst + 1, 1}, 512).empty());
  EXPECT_EQ(ahead.OnAccess({kFirst + 2, 1}, 5), (std::vector<PageRange>{{kFirst + 3, 5}}));
  EXPECT_TRUE(ahead.OnAccess({kFirst + 3, 1}, 0).empty());
  EXPECT_TRUE(ahead.OnAccess({kFirst + 4, 1}, 3).empty()) << "too few to be worth a message";
  EXPECT_EQ(ahead.OnAccess({kFirst + 5, 1}, 512).front().first, kFirst + 8);
}

TEST(ReadAhead, NoMoreThanTheBound) {
  ReadAhead ahead(32);
  for (uint64_t page = 0; page < 100 * 256; page += 256) {
    EXPECT_TRUE(ahead.OnAccess({kFirst + page, 256}, 512).empty()) << "one step is more than that";
  }
}

TEST(ReadAhead, APageThatComesAndGoesIsNoStream) {
  ReadAhead ahead(512);
  std::vector<PageRange> last;
  for (uint64_t page = 0; page < 10; ++page) {
    for (int again = 0; again < 20; ++again) EXPECT_TRUE(ahead.OnAccess({kFirst + 1'000'000, 1}, 512).empty());
    last = ahead.OnAccess({kFirst + page, 1}, 512);
    if (!last.empty()) return;
  }
  FAIL() << "the row beside it was forgotten";
}

TEST(ReadAhead, BackwardsToo) {
  User user(512);
  for (uint64_t page = 20'000; page > 10'000; --page) user.Use(page);
  EXPECT_LT(user.waits, 40);
  User large(1024);
  for (uint64_t page = 100 * 256; page > 0; page -= 256) large.Use(page, 256);
  EXPECT_LT(large.waits, 40);
}

TEST(ReadAhead, NothingIsBeforeTheFirstPage) {
  ReadAhead ahead(512);
  for (uint64_t page = 6; page > 4; --page) EXPECT_TRUE(ahead.OnAccess({PageId(page), 1}, 512).empty());
  EXPECT_EQ(ahead.OnAccess({PageId(4), 1}, 512), (std::vector<PageRange>{{PageId(0), 4}}));
  EXPECT_TRUE(ahead.OnAccess({PageId(0), 1}, 512).empty());
}

}  // namespace
}  // namespace mangrove
