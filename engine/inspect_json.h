// What nodes tell each other about a page and themselves when an operator asks, and how documents become text. Pure.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "net/ids.h"

namespace mangrove {

// What a node knows as a page's responsible node, and of its own disk.
struct PeerReport {
  uint64_t disk_used_bytes = 0;
  uint64_t disk_free_bytes = 0;
  // As the responsible node.
  bool home_known = false;
  std::string home_state;
  NodeId owner;  // 0: nobody.
  std::vector<NodeId> sharers;
  // As a core holder.
  bool allocated = false;
  bool is_volatile = false;
  uint32_t replicas = 0;
};

std::string EncodePeerReport(const PeerReport& report);
// Total: Internal says that `from` sent something else. What is missing, as from a node that knows less, has its default.
absl::StatusOr<PeerReport> DecodePeerReport(const std::string& from, const std::string& text);

// As text. Bytes that are no UTF-8, as an error's text may have, are replaced.
std::string DumpJson(const nlohmann::json& document);

}  // namespace mangrove
