#include "recovery/disk_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "directory/address.h"
#include "directory/locator.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr std::array<uint8_t, 8> kSteps = {1, 2, 3, 4, 6, 8, 12, kFullDiskWeight};

// More than rounding to a step costs, so that nothing goes to and fro.
constexpr uint64_t kMarkedPercent = 125;

// That is nearest to `part / whole` of the full weight, by their ratio.
uint8_t StepFor(uint64_t part, uint64_t whole) {
  const double wanted = kFullDiskWeight * static_cast<double>(part) / static_cast<double>(whole);
  const auto miss = [wanted](uint8_t step) { return std::max(wanted / step, step / wanted); };
  return *std::min_element(kSteps.begin(), kSteps.end(), [&](uint8_t a, uint8_t b) { return miss(a) < miss(b); });
}

uint8_t WeightOf(const DiskWeights& weights, NodeId node) {
  const auto found = weights.find(node);
  return found == weights.end() ? kFullDiskWeight : found->second;
}

struct Sums {
  uint64_t room = 0;
  uint64_t weight = 0;
};
Sums SumsOf(const DiskRooms& rooms, const DiskWeights& weights) {
  Sums sums;
  for (const auto& [node, room] : rooms) {
    CHECK(room > 0);
    sums.room += room;
    sums.weight += WeightOf(weights, node);
  }
  return sums;
}

// How many of some segments each disk keeps by the locator, and how many come to it, of one copy, of two and so on: how many pages have is
// not known, and where disks are of several groups what comes to one may come from all of them, or from its own group alone.
constexpr size_t kMostCopies = 8;
struct Kept {
  std::array<uint32_t, kMostCopies> now{};
  std::array<uint32_t, kMostCopies> then{};
  std::array<uint32_t, kMostCopies> comes{};
};
struct Sample {
  uint64_t segments = 0;
  size_t most_copies = 0;
  std::map<NodeId, Kept> kept;
};
Sample SampleOf(const DiskRooms& rooms, const DiskWeights& now, const DiskWeights& then) {
  constexpr uint64_t kDraws = 65'536;  // Of a disk for a segment: 10 ms at most.
  constexpr uint64_t kMostSegments = 4'096;
  std::set<NodeId> disks;
  Sample sample;
  for (const auto& [node, room] : rooms) {
    disks.insert(node);
    sample.kept[node] = {};
  }
  if (disks.empty()) return sample;
  const Locator before(disks, now);
  const Locator after(disks, then);
  sample.segments = std::min(kDraws / disks.size() + 1, kMostSegments);
  sample.most_copies = std::min(kMostCopies, disks.size());
  for (uint64_t i = 0; i < sample.segments; ++i) {
    const PageId page(i * kSegmentPages);
    const std::vector<NodeId> had = before.CoreHolders(page, kMostCopies);
    const std::vector<NodeId> has = after.CoreHolders(page, kMostCopies);
    for (size_t at = 0; at < sample.most_copies; ++at) {
      // The first of so many copies, and of all that are more.
      const auto had_at = static_cast<size_t>(std::find(had.begin(), had.end(), has[at]) - had.begin());
      Kept& kept = sample.kept.at(has[at]);
      for (size_t copies = at; copies < sample.most_copies; ++copies) {
        ++sample.kept.at(had[at]).now[copies];
        ++kept.then[copies];
        if (copies < had_at) ++kept.comes[copies];
      }
    }
  }
  return sample;
}

}  // namespace

DiskWeights WeightsFor(const DiskRooms& rooms) {
  uint32_t largest = 0;
  for (const auto& [node, room] : rooms) largest = std::max(largest, room);
  DiskWeights weights;
  for (const auto& [node, room] : rooms) {
    const uint8_t weight = StepFor(room, largest);
    if (weight != kFullDiskWeight) weights[node] = weight;
  }
  return weights;
}

uint8_t WeightBeside(const DiskRooms& rooms, const DiskWeights& weights, uint32_t room_mib) {
  const Sums sums = SumsOf(rooms, weights);
  if (sums.room == 0) return kFullDiskWeight;
  return StepFor(uint64_t{room_mib} * sums.weight, sums.room * kFullDiskWeight);
}

// Sums of 4096 disks of 4 PiB fit.
uint64_t MostAskedOf(const DiskRooms& rooms, const DiskWeights& weights) {
  const Sums sums = SumsOf(rooms, weights);
  uint64_t most = 0;
  for (const auto& [node, room] : rooms) {
    most = std::max(most, 1000 * WeightOf(weights, node) * sums.room / (sums.weight * room));
  }
  return most;
}

bool Fit(const DiskRooms& rooms, const DiskRooms& used, const DiskWeights& now, const DiskWeights& then) {
  constexpr double kSpare = 1.25;
  constexpr double kDeviations = 3;  // What chance makes of a sample.
  constexpr double kMayBeFull = 15.0 / 16;
  double all_used = 0;
  for (const auto& [node, room] : rooms) all_used += used.at(node);
  const Sample sample = SampleOf(rooms, now, then);
  return std::all_of(sample.kept.begin(), sample.kept.end(), [&](const auto& disk) {
    const auto& [node, kept] = disk;
    double most = 0;
    for (size_t i = 0; i < sample.most_copies; ++i) {
      const double count = kept.comes[i];
      const double share = (count + kDeviations * std::sqrt(count)) / static_cast<double>(sample.segments * (i + 1));
      most = std::max(most, kSpare * share * all_used);
    }
    return most == 0 || used.at(node) + most <= kMayBeFull * rooms.at(node);
  });
}

bool AreWorthAMove(const DiskRooms& rooms, const DiskWeights& now, const DiskWeights& then) {
  constexpr double kByChance = 1.1;
  if (now == then || 100 * MostAskedOf(rooms, now) < kMarkedPercent * MostAskedOf(rooms, then)) return false;
  // Where disks are of several groups, of which each keeps a copy, less may fit of more copies: then it stays as it is.
  const Sample sample = SampleOf(rooms, now, then);
  for (size_t i = 0; i < sample.most_copies; ++i) {
    double most_now = 0;
    double most_then = 0;
    for (const auto& [node, kept] : sample.kept) {
      most_now = std::max(most_now, kept.now[i] / static_cast<double>(rooms.at(node)));
      most_then = std::max(most_then, kept.then[i] / static_cast<double>(rooms.at(node)));
    }
    if (most_then > kByChance * most_now) return false;
  }
  return true;
}

}  // namespace mangrove
