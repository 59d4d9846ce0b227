#include "engine/page_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

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
      const int& made = pages.FindOrMake(page, [&] { return std::make_unique<int>(i); });
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

TEST(PageMap, EntriesStayWhereTheyAre) {
  PageMap<int> pages;
  int* const first = &pages.FindOrMake(PageId(7), [] { return std::make_unique<int>(1); });
  for (uint64_t i = 100; i < 10000; ++i) pages.FindOrMake(PageId(i), [] { return std::make_unique<int>(2); });
  EXPECT_EQ(pages.find(PageId(7))->second, first);
}

}  // namespace
}  // namespace mangrove
