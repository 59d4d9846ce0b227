// How long the steps of large operations are, and what lookups cost. Processor time, since others share the machine.
//
// Covers: G06

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <deque>
#include <optional>
#include <vector>

#include "directory/directory_tree.h"
#include "net/check.h"
#include "tests/sim/sim_random.h"

namespace mangrove {
namespace {

constexpr int64_t kLongestStepNs = 10 * kMillisecond;
constexpr NodeId kMe{1};

int64_t ProcessorTime() {
  timespec t{};
  CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
  return t.tv_sec * kSecond + t.tv_nsec;
}

class QueueClock final : public Clock {
 public:
  TimeNs Now() const override { return 0; }
  TimerId CallAt(TimeNs, absl::AnyInvocable<void()>) override { CHECK(false && "nobody sleeps here"); }
  void CallSoon(absl::AnyInvocable<void()> callback) override { queue_.push_back(std::move(callback)); }
  void Cancel(TimerId) override {}
  bool Step() {
    if (queue_.empty()) return false;
    auto next = std::move(queue_.front());
    queue_.pop_front();
    next();
    return true;
  }

 private:
  std::deque<absl::AnyInvocable<void()>> queue_;
};

// All pages are here.
class LocalPages final : public PageAccess {
 public:
  static constexpr PageRef kRoot{PageId(1), kMe};
  PageBuffer Peek(PageRef ref) override { return pages_[absl::Uint128Low64(ref.page.value)]; }
  Task<absl::StatusOr<PageBuffer>> Read(PageRef ref, TimeNs) override { co_return Peek(ref); }
  Task<absl::StatusOr<uint64_t>> Lock(PageRef ref, TimeNs) override { co_return absl::Uint128Low64(ref.page.value); }
  PageBuffer LoadLocked(uint64_t lock) override { return pages_[lock]; }
  void StoreLocked(uint64_t lock, const PageBytes& content) override { Put(lock, content); }
  void Unlock(uint64_t) override {}
  Task<absl::StatusOr<PageRef>> Create(const PageBytes& content, TimeNs) override {
    pages_.emplace_back();
    Put(pages_.size() - 1, content);
    co_return PageRef{PageId(pages_.size() - 1), kMe};
  }
  void Retire(PageRef ref) override { pages_[absl::Uint128Low64(ref.page.value)] = nullptr; }
  size_t size() const { return pages_.size(); }

  void Put(uint64_t page, const PageBytes& content) {
    const std::shared_ptr<PageBytes> copy = NewPage();
    *copy = content;
    pages_[page] = copy;
  }

 private:
  std::vector<PageBuffer> pages_{2};
};

class NoClaims final : public ClaimSource {
 public:
  uint64_t Rounds() const override { return 0; }
  Task<absl::StatusOr<Claims>> Collect(PageInterval, TimeNs) override {
    co_return absl::UnimplementedError("nothing is lost here");
  }
};

constexpr PageId Segment(uint64_t n) { return kFirstReservablePage + n * kSegmentPages; }

class DirectoryTreeScale : public ::testing::Test {
 protected:
  template <typename T>
  T Do(Task<T> task) {
    std::optional<T> result;
    longest_step_ns_ = 0;
    const int64_t start = ProcessorTime();
    int64_t step = start;
    const auto end_step = [&] {
      const int64_t now = ProcessorTime();
      longest_step_ns_ = std::max(longest_step_ns_, now - std::exchange(step, now));
    };
    Spawn<T>(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
    end_step();
    while (!result && clock_.Step()) end_step();
    took_ns_ = ProcessorTime() - start;
    CHECK(result.has_value());
    return *std::move(result);
  }
  // `count` segments, every `stride`-th of the space, by turns of two owners where they touch.
  void Build(uint64_t count, uint64_t stride) {
    Claims claims;
    for (uint64_t i = 0; i < count; ++i) {
      claims.entries.push_back({{Segment(i * stride), kSegmentPages}, NodeId(1 + i % (stride == 1 ? 2 : 1)), 1});
    }
    const auto root = Do(tree_.BuildRoot(std::move(claims), kForever));
    ASSERT_TRUE(root.ok()) << root.status();
    pages_.Put(1, **root);
  }
  void Report(const char* what, uint64_t segments) const {
    std::printf("%s: %lu segments, %lu pages, %.1f ms, longest step %.2f ms\n", what, segments, pages_.size(),
                static_cast<double>(took_ns_) / 1e6, static_cast<double>(longest_step_ns_) / 1e6);
  }

  QueueClock clock_;
  LocalPages pages_;
  NoClaims claims_;
  DirectoryTree tree_{LocalPages::kRoot, &pages_, &claims_, &clock_, &kNoPlantedBugs};
  int64_t longest_step_ns_ = 0;
  int64_t took_ns_ = 0;
};

TEST_F(DirectoryTreeScale, AMillionSegmentsOfTwoOwnersAreBuiltInShortSteps) {
  constexpr uint64_t kSegments = 1'000'000;
  Build(kSegments, 1);
  Report("built of claims", kSegments);
  EXPECT_LT(longest_step_ns_, kLongestStepNs);
  const auto found = tree_.Peek(Segment(777'777));
  ASSERT_TRUE(found.has_value() && found->entry.has_value());
  EXPECT_EQ(found->entry->responsible, NodeId(2));
}

TEST_F(DirectoryTreeScale, HalfAMillionGapsAreFilledInShortSteps) {
  constexpr uint64_t kSegments = 1'000'000;
  Build(kSegments / 2, 2);
  uint64_t written = 0;
  const auto runs = Do(tree_.Appoint(
      {Segment(0), kSegments * kSegmentPages}, NodeId(2),
      [&written](const DirectoryEntry&, const DirectoryOrder&) { ++written; }, kForever));
  Report("gaps filled", kSegments);
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_EQ(runs->size(), kSegments);
  EXPECT_EQ(written, kSegments / 2);
  EXPECT_LT(longest_step_ns_, kLongestStepNs);

  written = 0;
  const absl::Status removed = Do(tree_.Remove(
      kWholeSpace, NodeId(1), {}, [&written](const DirectoryEntry&, const DirectoryOrder&) { ++written; }, kForever));
  Report("removed", kSegments / 2);
  EXPECT_TRUE(removed.ok()) << removed;
  EXPECT_EQ(written, kSegments / 2);
  EXPECT_LT(longest_step_ns_, kLongestStepNs);
}

TEST_F(DirectoryTreeScale, LookupsFromPagesThatAreHereTakeLessThanMicroseconds) {
  for (const uint64_t segments : {10, 1'000, 100'000}) {
    Build(segments, 1);
    sim::SimRandom random(segments);
    constexpr int kLookups = 200'000;
    uint64_t right = 0;
    const int64_t start = ProcessorTime();
    for (int i = 0; i < kLookups; ++i) {
      const uint64_t segment = random.Below(segments);
      const auto found = tree_.Peek(Segment(segment));
      right += found && found->entry && found->entry->responsible == NodeId(1 + segment % 2) ? 1 : 0;
    }
    const double ns = static_cast<double>(ProcessorTime() - start) / kLookups;
    EXPECT_EQ(right, static_cast<uint64_t>(kLookups));
    EXPECT_LT(ns, 20'000);  // Sanitizers and all.
    std::printf("%lu segments: %.0f ns for a lookup, %.2f million in a second\n", segments, ns, 1e3 / ns);
  }
}

}  // namespace
}  // namespace mangrove
