#include "fs/tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {
namespace {

// Pages from 1 on, all of them there.
class Counted final : public MetadataPages {
 public:
  Task<absl::StatusOr<uint64_t>> Take(Edit*) override {
    if (!free_.empty()) {
      const uint64_t page = *free_.begin();
      free_.erase(free_.begin());
      co_return page;
    }
    co_return ++last_;
  }
  Task<absl::Status> GiveBack(Edit*, uint64_t page) override {
    EXPECT_TRUE(free_.insert(page).second) << page;
    co_return absl::OkStatus();
  }
  uint64_t used() const { return last_ - free_.size(); }

 private:
  std::set<uint64_t> free_;
  uint64_t last_ = 0;
};

class TreeTest : public testing::Test {
 protected:
  static constexpr size_t kRootBytes = 400;
  TreeTest() {
    EXPECT_TRUE(Do(pages_.Allocate({0, 100'000}, 0)).ok());
    auto make = [&](Edit& edit) -> Task<absl::Status> {
      const auto page = co_await edit.Make(0, PageKind::kPlace);
      NodeEditor(TreeRoot{*page, 100, kRootBytes}.mutable_bytes()).Clear(0);
      co_return absl::OkStatus();
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, make)).ok());
  }
  // One step in an edit of its own.
  template <typename Step>
  void In(Step step) {
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const auto page = co_await edit.Get(0, PageKind::kPlace, Intent::kWrite);
      if (!page.ok()) co_return page.status();
      Tree tree(&edit, &counted_, {*page, 100, kRootBytes});
      co_return co_await step(tree);
    };
    const absl::Status status = Do(RunEdit(&pages_, body));
    EXPECT_TRUE(status.ok()) << status;
  }
  void Put(uint64_t key, const std::string& value) {
    In([&](Tree& tree) -> Task<absl::Status> { return tree.Put(key, value); });
    expected_[key] = value;
  }
  void Erase(uint64_t key) {
    In([&](Tree& tree) -> Task<absl::Status> { return tree.Erase(key); });
    expected_.erase(key);
  }
  void ExpectAll() {
    In([&](Tree& tree) -> Task<absl::Status> {
      const auto all = co_await tree.Scan(0, ~uint64_t{0}, ~size_t{0});
      if (!all.ok()) co_return all.status();
      std::map<uint64_t, std::string> found;
      for (const TreeRecord& record : *all) found[record.key] = record.value;
      EXPECT_EQ(found.size(), all->size());
      EXPECT_TRUE(found == expected_);
      EXPECT_EQ(tree.IsEmpty(), expected_.empty());
      co_return absl::OkStatus();
    });
  }
  void ExpectFloor(uint64_t key) {
    In([&](Tree& tree) -> Task<absl::Status> {
      const auto found = co_await tree.Floor(key);
      if (!found.ok()) co_return found.status();
      auto after = expected_.upper_bound(key);
      EXPECT_EQ(found->has_value(), after != expected_.begin()) << key;
      if (found->has_value() && after != expected_.begin()) {
        EXPECT_EQ((*found)->key, std::prev(after)->first) << key;
        EXPECT_EQ((*found)->value, std::prev(after)->second);
      }
      const auto exact = co_await tree.Get(key);
      if (!exact.ok()) co_return exact.status();
      EXPECT_EQ(exact->has_value(), expected_.contains(key)) << key;
      co_return absl::OkStatus();
    });
  }

  MemoryPages pages_;
  Counted counted_;
  std::map<uint64_t, std::string> expected_;
};

TEST_F(TreeTest, RecordsInTheirOrderFillPages) {
  for (uint64_t i = 1; i <= 3'000; ++i) Put(i * 10, std::string(16, 'x'));
  ExpectAll();
  // A page holds 140 of them.
  EXPECT_LE(counted_.used(), 24u);
}

TEST_F(TreeTest, WhatIsEmptyHasNoPages) {
  for (uint64_t i = 0; i < 2'000; ++i) Put(i * 7919 % 100'003, std::string(i % 300, 'x'));
  while (!expected_.empty()) Erase(expected_.begin()->first);
  ExpectAll();
  EXPECT_EQ(counted_.used(), 0u);
}

// Against a plain map.
TEST_F(TreeTest, HoldsWhatWasPutWhateverTheOrder) {
  for (const uint32_t seed : {1, 2, 3, 4}) {
    std::mt19937_64 random(seed);
    const auto key = [&] { return random() % 2 == 0 ? random() % 500 : random(); };
    for (int i = 0; i < 3'000; ++i) {
      const bool erases = random() % 10 < (i < 2'000 ? 3 : 7);
      if (erases && !expected_.empty()) {
        auto victim = expected_.lower_bound(key());
        if (victim == expected_.end()) victim = expected_.begin();
        Erase(victim->first);
      } else {
        Put(key(), std::string(random() % 20 == 0 ? random() % (Tree::kMostValueBytes + 1) : random() % 60, 'v'));
      }
      if (i % 50 == 0) ExpectFloor(key());
      if (i % 500 == 0) ExpectAll();
    }
    ExpectAll();
  }
}

}  // namespace
}  // namespace mangrove::fs
