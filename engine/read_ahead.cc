#include "engine/read_ahead.h"

#include <algorithm>
#include <cstdlib>

namespace mangrove {
namespace {

// From `from` to `to`; 0 if that is farther than any row of accesses.
int64_t Distance(PageId from, PageId to) {
  constexpr absl::uint128 kFar = absl::uint128(1) << 40;
  const bool forward = from < to;
  const absl::uint128 distance = forward ? to.value - from.value : from.value - to.value;
  if (distance > kFar) return 0;
  return (forward ? 1 : -1) * static_cast<int64_t>(absl::Uint128Low64(distance));
}

}  // namespace

std::vector<PageRange> ReadAhead::OnAccess(PageRange range, uint64_t budget) {
  ++accesses_;
  Stream* oldest = &streams_.front();
  for (Stream& stream : streams_) {
    if (stream.used != 0 && stream.last == range) {  // It went away and is back.
      stream.used = accesses_;
      return {};
    }
    if (stream.used != 0 && Continue(stream, range)) {
      stream.used = accesses_;
      return stream.hits >= 2 ? Extend(stream, budget) : std::vector<PageRange>{};
    }
    if (stream.used < oldest->used) oldest = &stream;
  }
  *oldest = Stream{.last = range, .used = accesses_};
  return {};
}

bool ReadAhead::Continue(Stream& stream, PageRange range) {
  const int64_t distance = Distance(stream.last.first, range.first);
  if (distance == 0 || range.count != stream.last.count) return false;
  if (stream.stride == 0) {
    // The second access says what the stride is.
    if (std::abs(distance) > kMaxStride) return false;
    stream.stride = distance;
  } else if (distance % stream.stride != 0) {
    return false;
  }
  const int64_t steps = distance / stream.stride;
  if (steps < 0 || static_cast<uint64_t>(steps) > stream.ahead + 1) return false;
  stream.ahead -= std::min(stream.ahead, static_cast<uint64_t>(steps));
  stream.last = range;
  ++stream.hits;
  return true;
}

std::vector<PageRange> ReadAhead::Extend(Stream& stream, uint64_t budget) const {
  const uint64_t count = stream.last.count;
  const auto stride = static_cast<uint64_t>(std::abs(stream.stride));
  const bool in_order = stride == count;
  uint64_t most = max_pages_ / std::max(stride, count);
  if (!in_order) most = std::min(most, kMaxRanges);
  if (most == 0) return {};
  if (stream.window == 0) stream.window = std::clamp<uint64_t>(8 / count, 1, most);
  // Half of it is still to come.
  if (stream.ahead > stream.window / 2) return {};
  const uint64_t window = std::min(2 * stream.window, most);
  // Little at a time would be many messages, and would leave room for little the next time.
  if (budget / count < std::max<uint64_t>(window / 4, 1)) return {};
  stream.window = window;
  std::vector<PageRange> ranges;
  for (; stream.ahead < stream.window && count <= budget; ++stream.ahead, budget -= count) {
    const absl::uint128 distance = absl::uint128(stream.ahead + 1) * stride;
    const PageId here = stream.last.first;
    if (stream.stride < 0 && here.value < distance) break;
    ranges.push_back({stream.stride < 0 ? PageId(here.value - distance) : PageId(here.value + distance), count});
  }
  if (!in_order || ranges.empty()) return ranges;
  // They lie side by side.
  const PageId first = stream.stride < 0 ? ranges.back().first : ranges.front().first;
  return {{first, ranges.size() * count}};
}

}  // namespace mangrove
