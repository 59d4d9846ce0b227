// A view, and how it came to it: for those who know an earlier one.

#pragma once

#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "recovery/messages.h"
#include "recovery/view.h"

namespace mangrove {

// Of a view, all that a ViewPart may name, in the order of the nodes; and back.
std::vector<ViewPart::Node> NodesOf(const View& view);
void AddNodes(const std::vector<ViewPart::Node>& nodes, View& view);

class ViewHistory {
 public:
  static constexpr size_t kMostChanges = 16;  // That are remembered.

  const View& view() const { return view_; }
  // REQUIRES: view().IsNext(change.epoch).
  void Apply(const ViewChange& change);
  void Reset(View view);
  // What brings somebody who knows the view of `known` to this one, in the order in which it is to be sent: the changes since, or,
  // if they are not remembered, the whole view in parts. Nothing, if that one is not older.
  std::vector<RecoveryMessage> Since(Epoch known) const;

 private:
  std::vector<RecoveryMessage> Parts() const;

  View view_;
  std::deque<ViewChange> changes_;  // The last ones, up to view_.
};

}  // namespace mangrove
