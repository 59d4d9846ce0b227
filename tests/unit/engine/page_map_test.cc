#include "engine/page_map.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <vector>

namespace mangrove {
namespace {

TEST(PageMap, HoldsWhatAnOrdinaryMapHolds) {
  const PageId base(absl::MakeUint128(1, 5));
  PageMap<int> pages;
  std::map<PageId, int> model;
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    const PageId page = base + random() % 200;
    if (random() % 2 == 0) {
      const int& made = pages.FindOrMake(page, [&](int& entry) { entry = i; });
      model.try_emplace(page, i);
      ASSERT_EQ(made, model.at(page));
    } else if (model.contains(page)) {
      const auto found = pages.find(page);
      ASSERT_FALSE(found == pages.end());
      EXPECT_EQ(found->first, page);
      pages.erase(found);
      model.erase(page);
    }
    const PageId other = base + random() % 200;
    const auto found = pages.find(other);
    ASSERT_EQ(found == pages.end(), !model.contains(other));
    if (model.contains(other)) {
      ASSERT_EQ(*found->second, model.at(other));
    }
    ASSERT_EQ(pages.size(), model.size());
    if (i % 100 != 0) continue;
    std::map<PageId, int> all;
    for (const auto& [at, value] : pages) ASSERT_TRUE(all.emplace(at, *value).second);
    ASSERT_EQ(all, model);
  }
}

TEST(PageMap, GoesRoundInTheOrderInWhichPiecesWereMade) {
  PageMap<int> pages;
  const auto next = [&pages](int count) {
    std::vector<uint64_t> seen;
    for (int i = 0; i < count; ++i) seen.push_back(absl::Uint128Low64(pages.Next().first.value));
    return seen;
  };
  using Seen = std::vector<uint64_t>;
  for (uint64_t i : {40, 35, 200, 1}) pages.FindOrMake(PageId(i), [](int&) {});
  EXPECT_EQ(next(5), (Seen{35, 40, 200, 1, 35}));
  pages.FindOrMake(PageId(500), [](int&) {});  // Comes last, seen from here.
  EXPECT_EQ(next(6), (Seen{40, 200, 1, 500, 35, 40}));
  pages.erase(PageId(200));
  pages.FindOrMake(PageId(5), [](int&) {});
  EXPECT_EQ(next(3), (Seen{1, 5, 500}));
  pages.erase(PageId(35));  // Where the round goes on.
  pages.erase(PageId(40));
  EXPECT_EQ(next(3), (Seen{1, 5, 500}));
  for (uint64_t i : {1, 5, 500}) pages.erase(PageId(i));
  EXPECT_TRUE(pages.begin() == pages.end());
  pages.FindOrMake(PageId(9), [](int&) {});
  EXPECT_EQ(next(2), (Seen{9, 9}));
}

TEST(PageMap, EndsTheLifeOfItsEntries) {
  const auto shared = std::make_shared<int>(1);
  {
    PageMap<std::shared_ptr<int>> pages;
    for (uint64_t i = 0; i < 50; ++i) pages.FindOrMake(PageId(i), [&](auto& entry) { entry = shared; });
    EXPECT_EQ(shared.use_count(), 51);
    for (uint64_t i = 10; i < 30; ++i) pages.erase(PageId(i));
    EXPECT_EQ(shared.use_count(), 31);
  }
  EXPECT_EQ(shared.use_count(), 1);
}

TEST(PageMap, EntriesStayWhereTheyAre) {
  PageMap<int> pages;
  int* const first = &pages.FindOrMake(PageId(7), [](int& entry) { entry = 1; });
  for (uint64_t i = 100; i < 10000; ++i) pages.FindOrMake(PageId(i), [](int& entry) { entry = 2; });
  EXPECT_EQ(pages.find(PageId(7))->second, first);
}

}  // namespace
}  // namespace mangrove
