// What nodes tell each other about a page and themselves when an operator asks, and how documents become text. Pure.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "engine/range_summary.h"
#include "net/ids.h"

namespace mangrove {

// How far a disk is that gets what it lacks.
struct DiskRepair {
  bool is_behind = false;
  bool is_moving = false;
  int done_percent = 100;
  uint64_t pages_copied = 0;  // Since its node's start.
  std::optional<uint64_t> pages_left;
  std::optional<uint64_t> compared_pages_per_second;
  std::optional<uint64_t> copied_bytes_per_second;
  std::optional<uint64_t> seconds_left;
  friend bool operator==(const DiskRepair&, const DiskRepair&) = default;
};

// What a node knows as a page's responsible node, and of its own disk.
struct PeerReport {
  uint64_t disk_used_bytes = 0;
  uint64_t disk_free_bytes = 0;
  uint64_t disk_kept_bytes = 0;  // Of these, for repair.
  // As the responsible node.
  bool home_known = false;
  std::string home_state;
  NodeId owner;  // 0: nobody.
  std::vector<NodeId> sharers;
  // As a core holder.
  bool allocated = false;
  bool is_volatile = false;
  uint32_t replicas = 0;
  bool is_learned = false;  // It has the extent, and does not know what of it was never written.
  // Of its disk, where it is asked about the super root: who is asked about another page, or is of an earlier version, says nothing.
  std::optional<RangeSummary> lost;  // LostPages::found
  std::optional<DiskRepair> repair;
};

std::string EncodePeerReport(const PeerReport& report);
// Total: Internal says that `from` sent something else. What is missing, as from a node that knows less, has its default.
absl::StatusOr<PeerReport> DecodePeerReport(const std::string& from, const std::string& text);

nlohmann::json DocumentOf(const DiskRepair& repair);
// [{"address", "pages"}]
nlohmann::json RangesOf(const RangeSummary& summary);

// As text. Bytes that are no UTF-8, as an error's text may have, are replaced.
std::string DumpJson(const nlohmann::json& document);

}  // namespace mangrove
