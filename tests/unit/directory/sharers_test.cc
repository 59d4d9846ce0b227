#include "directory/sharers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace mangrove {
namespace {

constexpr NodeInstance Node(uint64_t number) { return {NodeId(number), Incarnation(1)}; }

TEST(Sharers, AreSortedAndNamedOnce) {
  const Sharers sharers{Node(3), Node(1), Node(3), Node(2)};
  EXPECT_TRUE(std::is_sorted(sharers.begin(), sharers.end()));
  EXPECT_EQ(sharers.size(), 3u);
  EXPECT_TRUE(sharers.Contains(Node(2)));
  EXPECT_FALSE(sharers.Contains(Node(4)));
  EXPECT_FALSE(sharers.Contains({NodeId(2), Incarnation(2)}));
  EXPECT_TRUE(Sharers{}.empty());
  EXPECT_EQ(Sharers{}, Sharers(std::vector<NodeInstance>{}));
}

TEST(Sharers, ACopyStaysWhenWhatItWasMadeOfGoes) {
  Sharers copy;
  {
    const Sharers sharers{Node(1)};
    copy = sharers;
    EXPECT_TRUE(copy.IsSame(sharers));
    EXPECT_TRUE(copy.IsShared());
  }
  EXPECT_FALSE(copy.IsShared());
  EXPECT_TRUE(copy.Contains(Node(1)));
  const Sharers& itself = copy;
  copy = itself;
  EXPECT_TRUE(copy.Contains(Node(1)));
}

TEST(SharerTable, MakesASetOnce) {
  SharerTable table;
  const Sharers one = table.With({}, Node(1));
  EXPECT_TRUE(one.IsSame(table.With({}, Node(1))));
  const Sharers there = table.With(one, Node(2));
  const Sharers back = table.Without(there, Node(2));
  EXPECT_TRUE(back.IsSame(one));
  EXPECT_TRUE(table.With(one, Node(1)).IsSame(one));
  EXPECT_TRUE(table.Without(one, Node(7)).IsSame(one));
  EXPECT_TRUE(table.Without(one, Node(1)).empty());
  EXPECT_TRUE(table.With(table.With({}, Node(2)), Node(1)).IsSame(there));  // Another way to the same set.
}

TEST(SharerTable, DoesWhatOrdinarySetsDoAndKeepsFewThatAreOfNoUse) {
  SharerTable table;
  std::mt19937 random(1);
  std::map<uint64_t, Sharers> pages;
  std::map<uint64_t, std::set<NodeInstance>> model;
  for (int i = 0; i < 50000; ++i) {
    const uint64_t page = random() % 20;
    const NodeInstance node = Node(1 + random() % 12);
    if (random() % 2 == 0) {
      pages[page] = table.With(pages[page], node);
      model[page].insert(node);
    } else {
      pages[page] = table.Without(pages[page], node);
      model[page].erase(node);
    }
    ASSERT_TRUE(std::equal(pages[page].begin(), pages[page].end(), model[page].begin(), model[page].end()));
  }
  EXPECT_LE(table.size(), 65u);
}

}  // namespace
}  // namespace mangrove
