#include "recovery/view_history.h"

#include <iterator>

#include "net/check.h"

namespace mangrove {

void ViewHistory::Apply(const ViewChange& change) {
  CHECK(view_.IsNext(change.epoch));
  view_.Apply(change);
  changes_.push_back(change);
  if (changes_.size() > kMostChanges) changes_.pop_front();
}

void ViewHistory::Reset(View view) {
  view_ = std::move(view);
  changes_.clear();
}

std::vector<RecoveryMessage> ViewHistory::Since(Epoch known) const {
  if (known >= view_.epoch) return {};
  // The first view may be of any epoch.
  const bool is_known = known.value != 0 && !changes_.empty() && changes_.front().epoch.value <= known.value + 1;
  if (!is_known) return Parts();
  std::vector<RecoveryMessage> messages;
  for (const ViewChange& change : changes_) {
    if (change.epoch > known) messages.emplace_back(change);
  }
  return messages;
}

std::vector<RecoveryMessage> ViewHistory::Parts() const {
  std::vector<RecoveryMessage> parts;
  ViewPart part;
  part.epoch = view_.epoch;
  part.root = view_.root;
  auto member = view_.members.begin();
  do {
    part.first = static_cast<uint32_t>(std::distance(view_.members.begin(), member));
    part.members.clear();
    for (; member != view_.members.end() && part.members.size() < ViewPart::kMostMembers; ++member) {
      part.members.push_back({member->first, member->second});
    }
    part.is_last = member == view_.members.end();
    parts.emplace_back(part);
  } while (!part.is_last);
  return parts;
}

}  // namespace mangrove
