// Claims that come in parts come to the same as all of them at once.
//
// Covers: G06

#include "engine/claim_merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "directory/directory_edit.h"
#include "engine/own_segments.h"

namespace mangrove {
namespace {

constexpr PageId MergedSegment(uint64_t n) { return PageId(n * kSegmentPages); }

Claim ClaimOf(uint64_t segment, uint64_t count, uint64_t node, uint32_t term = 1, bool holds = false) {
  return {
      .entry = {.range = {MergedSegment(segment), count * kSegmentPages}, .responsible = NodeId(node), .term = term},
      .holds = holds};
}

// A source's answer about `rest`: at most `most` claims.
std::vector<Claim> PartOf(const std::vector<Claim>& claims, PageInterval rest, size_t most, PageId* next) {
  std::vector<Claim> part;
  *next = PageId{};
  for (const Claim& claim : claims) {
    if (Intersect(IntervalOf(claim.entry.range), rest).empty()) continue;
    const PageId first = std::max(claim.entry.range.first, rest.first);
    const bool begins_anew = part.empty() || std::max(part.back().entry.range.first, rest.first) < first;
    if (part.size() >= most && begins_anew) {
      *next = first;
      break;
    }
    part.push_back(claim);
  }
  return part;
}

std::vector<DirectoryEntry> MergeInParts(const std::vector<std::vector<Claim>>& sources, PageInterval interval,
                                         size_t most) {
  ClaimMerge merge(interval, sources.size());
  std::vector<DirectoryEntry> all;
  while (!merge.done()) {
    for (size_t source : merge.Missing()) {
      PageId next;
      const std::vector<Claim> part = PartOf(sources[source], merge.Rest(source), most, &next);
      const absl::Status added = merge.Add(source, part, next);
      EXPECT_TRUE(added.ok()) << added;
    }
    for (const DirectoryEntry& entry : merge.Take()) AppendRun(&all, entry);
  }
  return all;
}

std::vector<DirectoryEntry> AtOnce(const std::vector<std::vector<Claim>>& sources, PageInterval interval) {
  std::vector<Claim> all;
  for (const auto& source : sources) {
    for (Claim claim : source) {
      const PageInterval part = Intersect(IntervalOf(claim.entry.range), interval);
      if (part.empty()) continue;
      claim.entry.range = {part.first, part.end - part.first};
      all.push_back(claim);
    }
  }
  return ResolveClaims(std::move(all));
}

TEST(ClaimMerge, PartsComeToTheSameAsAllAtOnce) {
  std::mt19937_64 random(7);
  const auto below = [&](uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random); };
  for (int round = 0; round < 300; ++round) {
    std::vector<std::vector<Claim>> sources(1 + below(5));
    for (size_t i = 0; i < sources.size(); ++i) {
      for (const bool holds : {false, true}) {
        for (uint64_t at = below(20); at < 300; at += below(12)) {
          const uint64_t count = 1 + below(8);
          const uint64_t node = holds ? 1 + below(6) : i + 1;
          sources[i].push_back(ClaimOf(at, count, node, 1 + static_cast<uint32_t>(below(3)), holds));
          at += count;
        }
      }
      std::stable_sort(sources[i].begin(), sources[i].end(),
                       [](const Claim& a, const Claim& b) { return a.entry.range.first < b.entry.range.first; });
    }
    const uint64_t first = below(100);
    for (const PageInterval& interval :
         {kWholeSpace, PageInterval{MergedSegment(first), MergedSegment(first + 1 + below(200))}}) {
      EXPECT_EQ(MergeInParts(sources, interval, 1 + below(20)), AtOnce(sources, interval));
    }
  }
}

TEST(ClaimMerge, MoreThanFitAtOnceAreTakenInPieces) {
  constexpr uint64_t kSources = 100;
  std::vector<std::vector<Claim>> sources(kSources);
  for (uint64_t i = 0; i < kSources; ++i) {
    for (uint64_t n = 0; n < 100; ++n) sources[i].push_back(ClaimOf(n * kSources + i, 1, i + 1));
  }
  ClaimMerge merge(kWholeSpace, kSources);
  for (uint64_t i = 0; i < kSources; ++i) ASSERT_TRUE(merge.Add(i, sources[i], PageId{}).ok());
  size_t entries = 0;
  while (!merge.done()) {
    EXPECT_TRUE(merge.Missing().empty());
    const size_t piece = merge.Take().size();
    EXPECT_LE(piece, 2000u);
    entries += piece;
  }
  EXPECT_EQ(entries, 100 * kSources);
}

TEST(ClaimMerge, AnswersThatLeadNowhereAreRefused) {
  const PageInterval interval{MergedSegment(10), MergedSegment(20)};
  ClaimMerge merge(interval, 1);
  for (PageId next : {MergedSegment(10), MergedSegment(9), MergedSegment(21)}) {
    EXPECT_EQ(merge.Add(0, {}, next).code(), absl::StatusCode::kInternal) << ToString(next);
  }
  EXPECT_EQ(merge.Add(0, {ClaimOf(15, 1, 1), ClaimOf(12, 1, 1)}, PageId{}).code(), absl::StatusCode::kInternal);
  ClaimMerge other(interval, 1);
  EXPECT_TRUE(other.Add(0, {ClaimOf(1, 30, 1)}, MergedSegment(15)).ok());  // More than was asked for.
  EXPECT_EQ(other.Take(), (std::vector<DirectoryEntry>{ClaimOf(10, 5, 1).entry}));
  EXPECT_FALSE(other.done());
}

// The terms of a segment that nobody claimed have begun at 1 again; who did not hear of it remembers a later one.
TEST(ClaimMerge, WhoIsResponsibleCountsBeforeWhatOthersSayOfAThirdNode) {
  const Claim own = ClaimOf(10, 1, 3, 1);
  const Claim remembered = ClaimOf(9, 3, 2, 2, true);
  const std::vector<DirectoryEntry> resolved{ClaimOf(9, 1, 2, 2).entry, own.entry, ClaimOf(11, 1, 2, 2).entry};
  EXPECT_EQ(ResolveClaims({own, remembered}), resolved);
  EXPECT_EQ(ResolveClaims({remembered, own}), resolved);
}

TEST(ClaimMerge, OfTwoOfOneKindTheLaterTermIsRight) {
  for (const bool holds : {false, true}) {
    const Claim earlier = ClaimOf(10, 1, 2, 1, holds);
    const Claim later = ClaimOf(10, 1, 3, 2, holds);
    EXPECT_EQ(ResolveClaims({earlier, later}), std::vector{later.entry}) << holds;
    EXPECT_EQ(ResolveClaims({later, earlier}), std::vector{later.entry}) << holds;
  }
}

TEST(OwnSegments, TheFirstRunFromAPageOnMayHaveBegunBefore) {
  OwnSegments own;
  own.Add({.range = {MergedSegment(10), 2 * kSegmentPages}, .term = 1});
  own.Add({.range = {MergedSegment(20), kSegmentPages}, .term = 1});
  EXPECT_EQ(own.FirstFrom(MergedSegment(0))->range.first, MergedSegment(10));
  EXPECT_EQ(own.FirstFrom(MergedSegment(11))->range.first, MergedSegment(10));
  EXPECT_EQ(own.FirstFrom(MergedSegment(12))->range.first, MergedSegment(20));
  EXPECT_EQ(own.FirstFrom(MergedSegment(21)), nullptr);
}

}  // namespace
}  // namespace mangrove
