#include "engine/inspect_json.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

using nlohmann::json;

void ReadHome(const json& home, PeerReport& report) {
  if (home.is_null()) return;
  report.home_known = true;
  report.home_state = home.value("state", "");
  report.owner = NodeId(home.value("owner", uint64_t{0}));
  for (uint64_t sharer : home.value("sharers", std::vector<uint64_t>())) report.sharers.emplace_back(sharer);
}

}  // namespace

std::string EncodePeerReport(const PeerReport& report) {
  json document{{"disk", {{"used_bytes", report.disk_used_bytes}, {"free_bytes", report.disk_free_bytes}}},
                {"home", nullptr},
                {"allocated", report.allocated},
                {"volatile", report.is_volatile},
                {"replicas", report.replicas}};
  if (report.home_known) {
    json sharers = json::array();
    for (NodeId sharer : report.sharers) sharers.push_back(sharer.value);
    document["home"] = {{"state", report.home_state}, {"owner", report.owner.value}, {"sharers", sharers}};
  }
  return DumpJson(document);
}

absl::StatusOr<PeerReport> DecodePeerReport(const std::string& from, const std::string& text) {
  PeerReport report;
  // The library throws where a type is not the one that is asked for.
  try {
    const json document = json::parse(text);
    const json disk = document.value("disk", json::object());
    report.disk_used_bytes = disk.value("used_bytes", uint64_t{0});
    report.disk_free_bytes = disk.value("free_bytes", uint64_t{0});
    ReadHome(document.value("home", json(nullptr)), report);
    report.allocated = document.value("allocated", false);
    report.is_volatile = document.value("volatile", false);
    report.replicas = document.value("replicas", uint32_t{0});
  } catch (const json::exception& error) {
    return absl::InternalError(absl::StrCat(from, " sent a report that cannot be read: ", error.what()));
  }
  return report;
}

std::string DumpJson(const json& document) { return document.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace mangrove
