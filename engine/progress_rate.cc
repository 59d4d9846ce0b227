#include "engine/progress_rate.h"

#include <cmath>

namespace mangrove {
namespace {

constexpr double kMostSecondsLeft = 1e9;  // More says nothing to anybody.

// What is counted may have begun anew.
double PerSecond(uint64_t before, uint64_t now, double seconds) {
  return now < before ? 0 : static_cast<double>(now - before) / seconds;
}

}  // namespace

void ProgressRate::Note(TimeNs now, const Done& done) {
  if (!IsDue(now)) return;
  if (count_ == kSamples) {
    first_ = (first_ + 1) % kSamples;
    --count_;
  }
  samples_[(first_ + count_) % kSamples] = {now, done};
  ++count_;
}

std::optional<ProgressRate::Estimate> ProgressRate::Now(TimeNs now, const Done& done) const {
  if (count_ == 0) return std::nullopt;
  size_t base = 0;
  while (base + 1 < count_ && now - At(base + 1).at >= kWindow) ++base;
  const Sample& then = At(base);
  if (now - then.at < kLeastSeen) return std::nullopt;
  const double seconds = static_cast<double>(now - then.at) / static_cast<double>(kSecond);
  Estimate estimate{.compared_per_second = PerSecond(then.done.pages_compared, done.pages_compared, seconds),
                    .copied_per_second = PerSecond(then.done.pages_copied, done.pages_copied, seconds),
                    .seconds_left = std::nullopt};
  const double grown = done.share - then.done.share;
  if (grown <= 0 || done.share >= 1) return estimate;
  const double left = std::ceil((1 - done.share) * seconds / grown);
  if (left < kMostSecondsLeft) estimate.seconds_left = static_cast<uint64_t>(left);
  return estimate;
}

}  // namespace mangrove
