#include "engine/inspect_json.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

using nlohmann::json;

constexpr size_t kMostReportedRanges = 64;

void ReadHome(const json& home, PeerReport& report) {
  if (home.is_null()) return;
  report.home_known = true;
  report.home_state = home.value("state", "");
  report.owner = NodeId(home.value("owner", uint64_t{0}));
  for (uint64_t sharer : home.value("sharers", std::vector<uint64_t>())) report.sharers.emplace_back(sharer);
}

template <typename T>
void PutIfKnown(json& document, const char* key, const std::optional<T>& value) {
  if (value) document[key] = *value;
}

std::optional<uint64_t> NumberOf(const json& document, const char* key) {
  if (!document.contains(key)) return std::nullopt;
  return document.at(key).get<uint64_t>();
}

std::optional<DiskRepair> RepairOf(const json& document) {
  if (document.is_null()) return std::nullopt;
  return DiskRepair{.is_behind = document.value("is_behind", false),
                    .is_moving = document.value("is_moving", false),
                    .done_percent = document.value("done_percent", 0),
                    .pages_copied = document.value("pages_copied", uint64_t{0}),
                    .pages_left = NumberOf(document, "pages_left"),
                    .compared_pages_per_second = NumberOf(document, "compared_pages_per_second"),
                    .copied_bytes_per_second = NumberOf(document, "copied_bytes_per_second"),
                    .seconds_left = NumberOf(document, "seconds_left")};
}

// An address that is none is left out: its pages are counted all the same.
std::optional<RangeSummary> LostOf(const json& document) {
  if (document.is_null()) return std::nullopt;
  RangeSummary lost(kMostReportedRanges);
  for (const json& range : document.value("ranges", json::array())) {
    const auto address = ParseGlobalAddress(range.value("address", ""));
    const auto pages = range.value("pages", uint64_t{0});
    if (address.ok()) {
      lost.Add({PageOf(*address), pages});
    } else {
      lost.AddUnnamed(pages);
    }
  }
  lost.AddUnnamed(document.value("unnamed", uint64_t{0}));
  return lost;
}

}  // namespace

json DocumentOf(const DiskRepair& repair) {
  json document{{"is_behind", repair.is_behind},
                {"is_moving", repair.is_moving},
                {"done_percent", repair.done_percent},
                {"pages_copied", repair.pages_copied}};
  PutIfKnown(document, "pages_left", repair.pages_left);
  PutIfKnown(document, "compared_pages_per_second", repair.compared_pages_per_second);
  PutIfKnown(document, "copied_bytes_per_second", repair.copied_bytes_per_second);
  PutIfKnown(document, "seconds_left", repair.seconds_left);
  return document;
}

json RangesOf(const RangeSummary& summary) {
  json ranges = json::array();
  for (const PageRange& range : summary.first()) {
    ranges.push_back({{"address", ToString(range.first)}, {"pages", range.count}});
  }
  return ranges;
}

std::string EncodePeerReport(const PeerReport& report) {
  json document{{"disk",
                 {{"used_bytes", report.disk_used_bytes},
                  {"free_bytes", report.disk_free_bytes},
                  {"kept_bytes", report.disk_kept_bytes}}},
                {"home", nullptr},
                {"allocated", report.allocated},
                {"volatile", report.is_volatile},
                {"replicas", report.replicas},
                {"learned", report.is_learned}};
  if (report.lost) document["lost"] = {{"ranges", RangesOf(*report.lost)}, {"unnamed", report.lost->unnamed()}};
  if (report.repair) document["repair"] = DocumentOf(*report.repair);
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
    report.disk_kept_bytes = disk.value("kept_bytes", uint64_t{0});
    ReadHome(document.value("home", json(nullptr)), report);
    report.allocated = document.value("allocated", false);
    report.is_volatile = document.value("volatile", false);
    report.replicas = document.value("replicas", uint32_t{0});
    report.is_learned = document.value("learned", false);
    report.lost = LostOf(document.value("lost", json(nullptr)));
    report.repair = RepairOf(document.value("repair", json(nullptr)));
  } catch (const json::exception& error) {
    return absl::InternalError(absl::StrCat(from, " sent a report that cannot be read: ", error.what()));
  }
  return report;
}

std::string DumpJson(const json& document) { return document.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace mangrove
