#include "recovery/disk_weights.h"

#include <algorithm>
#include <array>
#include <utility>

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

// Each disk draws a time for a page, exponential with its weight as the rate, and the first one keeps the page (directory/locator.h). The
// draws are the same before and afterwards, but for their rates; so a disk keeps what it kept if it is first by either, which has the
// probability 1 / sum over all disks of the larger one of their weights, by its own, of either time.
bool Fit(const DiskRooms& rooms, const DiskRooms& used, const DiskWeights& now, const DiskWeights& then) {
  constexpr double kSpare = 1.25;
  constexpr double kMayBeFull = 15.0 / 16;
  const auto weight = [](const DiskWeights& weights, NodeId node) {
    return static_cast<double>(WeightOf(weights, node));
  };
  std::map<std::pair<double, double>, double> alike;  // How many disks go from one weight to another one.
  double all_used = 0;
  for (const auto& [node, room] : rooms) {
    ++alike[{weight(now, node), weight(then, node)}];
    all_used += used.at(node);
  }
  std::map<std::pair<double, double>, double> gains;  // Of all pages, for each of them.
  for (const auto& [own, count] : alike) {
    double afterwards = 0;
    double either = 0;
    for (const auto& [other, others] : alike) {
      afterwards += others * other.second / own.second;
      either += others * std::max(other.first / own.first, other.second / own.second);
    }
    gains[own] = 1 / afterwards - 1 / either;
  }
  return std::all_of(rooms.begin(), rooms.end(), [&](const auto& disk) {
    const auto& [node, room] = disk;
    const double gain = gains.at({weight(now, node), weight(then, node)});
    return gain <= 1e-9 || used.at(node) + kSpare * gain * all_used <= kMayBeFull * room;
  });
}

bool AreWorthAMove(const DiskRooms& rooms, const DiskWeights& now, const DiskWeights& then) {
  return now != then && 100 * MostAskedOf(rooms, now) >= kMarkedPercent * MostAskedOf(rooms, then);
}

}  // namespace mangrove
