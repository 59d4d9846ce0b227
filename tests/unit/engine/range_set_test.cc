#include "engine/range_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

namespace mangrove {
namespace {

TEST(RangeSet, OverlappingChangesAreThoseOfTheirPages) {
  const PageId base(absl::MakeUint128(1, 0));
  constexpr size_t kPages = 40;
  RangeSet set;
  std::array<bool, kPages> model{};
  std::mt19937 random(1);
  for (int i = 0; i < 5000; ++i) {
    const uint64_t first = random() % kPages;
    const uint64_t count = 1 + random() % std::min<uint64_t>(kPages - first, 12);
    const bool in = random() % 2 == 0;
    set.Set({base + first, count}, in);
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(first), count, in);
    for (size_t page = 0; page < kPages; ++page) ASSERT_EQ(set.Contains(base + page), model[page]) << i;
  }
}

}  // namespace
}  // namespace mangrove
