// Whether a cluster is whole, by what its nodes say of themselves. No node is asked here, and no clock.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace mangrove::cluster_test {

// One look at all nodes.
struct WholeLook {
  std::string lacks;  // "": nothing.
  uint64_t view = 0;  // Of all nodes, where nothing lacks.
};

// `statuses`: of node-1, node-2 and so on, the documents of `status`; an object without members of one that did not answer. All of
// them are to be in one view, with a lease and with connections to each other, and nothing left to be done: no disk is behind, no
// page is on its way to another disk. The first `anchors` of them have the votes.
WholeLook LookAtStatuses(const std::vector<nlohmann::json>& statuses, int anchors);

// Looks, one after the other: only what stays so for longer than a lease is no moment between two changes.
class WholeWatch {
 public:
  explicit WholeWatch(double stands_s) : stands_s_(stands_s) {}
  // `now_s`: when the look was over. Whether all looks of the last `stands_s` found everything whole, and in the same view.
  bool Add(double now_s, const WholeLook& look);
  // When the first of them was over.
  double since_s() const { return since_s_; }

 private:
  const double stands_s_;
  double since_s_ = -1;  // It lacks something.
  uint64_t view_ = 0;
};

}  // namespace mangrove::cluster_test
