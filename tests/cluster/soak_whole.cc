#include "tests/cluster/soak_whole.h"

#include "absl/strings/str_cat.h"

namespace mangrove::cluster_test {
namespace {

using nlohmann::json;

std::string NameOf(size_t index) { return absl::StrCat("node-", index + 1); }

// "", or what an anchor says is wrong with its part of the log.
std::string WhatLacksAnAnchor(const json& anchor, size_t anchors) {
  if (!anchor.is_object() || !anchor.at("has_log").get<bool>()) return "has no log of the anchors";
  const json& votes = anchor.at("votes");
  bool are_there = votes.size() == anchors;
  for (size_t i = 0; i < anchors; ++i) are_there = are_there && votes.value(NameOf(i), 0) == 1;
  if (!are_there) return absl::StrCat("has other votes in its log than one of each anchor: ", votes.dump());
  if (!anchor.at("votes_settled").get<bool>()) return "says that votes are about to change";
  if (anchor.at("standing") != "full")
    return absl::StrCat("is an anchor that ", anchor.at("standing").get<std::string>());
  return "";
}

// "", or what the node says is not as it is to be.
std::string WhatLacks(const json& status, size_t nodes) {
  if (status.empty()) return "does not answer";
  const json& membership = status.at("membership");
  if (!status.at("ready").get<bool>()) return "is not ready";
  if (!membership.at("is_in_view").get<bool>()) return "is not in the view that it knows";
  if (!membership.at("has_lease").get<bool>()) return "has no lease";
  for (const char* what :
       {"missing", "joining", "behind", "unreachable", "next_disks", "draining", "lost", "awaited_anchors"}) {
    if (!membership.at(what).empty()) return absl::StrCat("says ", what, ": ", membership.at(what).dump());
  }
  for (const char* what : {"members", "disks"}) {
    if (membership.at(what).size() != nodes) {
      return absl::StrCat("says ", what, ": ", membership.at(what).dump(), ", expected ", nodes);
    }
  }
  return "";
}

}  // namespace

WholeLook LookAtStatuses(const std::vector<json>& statuses, int anchors) {
  WholeLook look;
  for (size_t i = 0; i < statuses.size(); ++i) {
    const auto count = static_cast<size_t>(anchors);
    std::string lacks = WhatLacks(statuses[i], statuses.size());
    if (lacks.empty() && i < count) lacks = WhatLacksAnAnchor(statuses[i].at("membership").at("anchor"), count);
    if (!lacks.empty()) return {.lacks = absl::StrCat(NameOf(i), " ", lacks)};
    const auto view = statuses[i].at("membership").at("view").get<uint64_t>();
    if (i > 0 && view != look.view) {
      return {.lacks = absl::StrCat(NameOf(i), " is in view ", view, ", and node-1 in ", look.view)};
    }
    look.view = view;
  }
  return look;
}

bool WholeWatch::Add(double now_s, const WholeLook& look) {
  if (!look.lacks.empty()) {
    since_s_ = -1;
    return false;
  }
  if (since_s_ < 0 || look.view != view_) since_s_ = now_s;
  view_ = look.view;
  return now_s - since_s_ >= stands_s_;
}

}  // namespace mangrove::cluster_test
