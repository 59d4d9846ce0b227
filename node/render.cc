#include "node/render.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "net/ids.h"
#include "node/group_path.h"
#include "node/render_parts.h"
#include "node/text.h"

namespace mangrove {
namespace {

using nlohmann::json;

std::string NodeStateText(const json& node) {
  const std::string state = Text(node, "state");
  return IsSet(node, "draining") ? state + ", draining" : state;
}

std::string Nodes(const json& nodes) {
  size_t connected = 0;
  for (const json& node : nodes) connected += IsSet(node, "connected") ? 1 : 0;
  TextTable table({Align::kLeft, Align::kRight, Align::kRight, Align::kLeft, Align::kLeft, Align::kRight, Align::kLeft,
                   Align::kRight});
  table.AddRow({"node", "id", "group", "address", "state", "votes", "connected", "incarnation"});
  for (const json& node : nodes) {
    table.AddRow({Text(node, "name"), std::to_string(Number(node, "id")), GroupPath(Number(node, "group")),
                  Text(node, "address"), NodeStateText(node), std::to_string(Number(node, "votes")),
                  IsSet(node, "connected") ? "yes" : "no", IncarnationText(node)});
  }
  return absl::StrCat(connected, " of ", CountText(nodes.size(), "node"), " connected\n\n", table.ToString());
}

std::string Groups(const json& nodes) {
  std::map<uint64_t, std::vector<const json*>> groups;
  for (const json& node : nodes) groups[Number(node, "group")].push_back(&node);
  TextTable table({Align::kRight, Align::kRight, Align::kRight, Align::kLeft});
  table.AddRow({"group", "nodes", "anchors", "names"});
  for (const auto& [group, members] : groups) {
    std::vector<std::string> names;
    for (const json* node : members) names.push_back(Text(*node, "name"));
    const auto anchors =
        std::count_if(members.begin(), members.end(), [](const json* node) { return Number(*node, "votes") > 0; });
    table.AddRow(
        {GroupPath(group), std::to_string(members.size()), std::to_string(anchors), absl::StrJoin(names, ", ")});
  }
  return table.ToString();
}

std::string Tokens(const json& tokens) {
  if (tokens.empty()) return "this node has no tokens\n";
  TextTable table({Align::kLeft, Align::kLeft, Align::kRight, Align::kLeft, Align::kLeft});
  table.AddRow({"token", "state", "time left", "node", "address"});
  for (const json& token : tokens) {
    table.AddRow({Text(token, "id"), Text(token, "state"), TimeLeftText(Number(token, "seconds_left")),
                  Text(token, "name"), Text(token, "address")});
  }
  return table.ToString();
}

// Of a disk that keeps less than others for its size. A daemon of an earlier version does not say it.
std::string WeightText(const json& node) {
  const uint64_t weight = node.contains("disk_weight") ? Number(node, "disk_weight") : 0;
  return weight == 0 || weight == kFullWeight ? "" : absl::StrCat(", disk weight ", weight);
}

// A group, and the groups within it.
struct GroupTree {
  std::map<uint64_t, GroupTree> groups;  // By their number in this one.
  std::vector<const json*> nodes;
  size_t all = 0;
  size_t here = 0;

  void Add(const json& node, uint64_t group, int level) {
    ++all;
    if (Text(node, "state") == "here") ++here;
    if (level == 0) return nodes.push_back(&node);
    groups[group >> ((level - 1) * kGroupBits) & (kGroupNodes - 1)].Add(node, group, level - 1);
  }

  void Show(const std::string& path, size_t depth, std::string& text) const {
    std::vector<std::string> names;
    for (const json* node : nodes) {
      names.push_back(absl::StrCat(Text(*node, "name"), " (", Number(*node, "id"), WeightText(*node), ")"));
    }
    absl::StrAppend(&text, std::string(2 * depth, ' '), "group ", path, ": ", CountText(all, "node"), ", ", here,
                    " here", names.empty() ? "" : ": ", absl::StrJoin(names, ", "), "\n");
    for (const auto& [number, group] : groups) group.Show(absl::StrCat(path, "/", number), depth + 1, text);
  }
};

std::string TreeOfGroups(const json& nodes) {
  int levels = 1;
  for (const json& node : nodes) {
    while (levels * kGroupBits < 64 && Number(node, "group") >> (levels * kGroupBits) > 0) ++levels;
  }
  GroupTree tree;
  for (const json& node : nodes) tree.Add(node, Number(node, "group"), levels);
  std::string text;
  for (const auto& [number, group] : tree.groups) group.Show(std::to_string(number), 0, text);
  return text;
}

// One that was made, those that there are, or those that were withdrawn.
std::string Token(const json& token) {
  if (token.contains("tokens")) return Tokens(token.at("tokens"));
  if (token.contains("withdrawn")) return absl::StrCat("withdrawn: ", Names(token.at("withdrawn"), "none"), "\n");
  return absl::StrCat(Text(token, "token"), "\n\ngood once, for ", TimeLeftText(Number(token, "valid_s")),
                      ", while this node runs; it is a secret. To make it void:\n  mangrove node token --withdraw ",
                      Text(token, "id"),
                      "\nOn the machine that is to join:\n"
                      "  mangrove node join TOKEN --name NAME --address HOST:PORT\n");
}

// "1.5 MiB of 10.0 GiB"; without the second where there is no quota, "-" in a list, which counts nothing.
std::string UsageText(const json& fileset, const char* used, const char* quota, std::string (*text)(uint64_t)) {
  if (!fileset.contains(used)) return "-";
  const uint64_t limit = Number(fileset, quota);
  return absl::StrCat(text(Number(fileset, used)), limit == 0 ? "" : absl::StrCat(" of ", text(limit)));
}

std::string Filesets(const json& document) {
  const json& filesets = document.at("filesets");
  if (filesets.empty()) return "done\n";
  const bool is_counted = filesets[0].contains("used_bytes");
  TextTable table({Align::kLeft, Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  table.AddRow({"fileset", "state", "copies", is_counted ? "data" : "", is_counted ? "inodes" : ""});
  for (const json& fileset : filesets) {
    const uint64_t replicas = Number(fileset, "replicas");
    const uint64_t repairer = fileset.value("repaired_by_node", uint64_t{0});
    const std::string state =
        absl::StrCat(Text(fileset, "state"), repairer == 0 ? "" : absl::StrCat(", being repaired by node ", repairer));
    table.AddRow({Text(fileset, "name"), state, replicas == 0 ? "as pages" : std::to_string(replicas),
                  is_counted ? UsageText(fileset, "used_bytes", "quota_bytes", BytesText) : "",
                  is_counted ? UsageText(fileset, "used_inodes", "quota_inodes",
                                         [](uint64_t count) { return std::to_string(count); })
                             : ""});
  }
  return table.ToString();
}

std::string Check(const json& report) {
  std::string text = absl::StrCat(Text(report, "name"), ": ", CountText(Number(report, "files"), "file"), ", ",
                                  Number(report, "directories"), " directories", ", ", Number(report, "others"),
                                  " others; ", BytesText(Number(report, "data_pages") * 4096), " of data, ",
                                  BytesText(Number(report, "metadata_pages") * 4096), " of metadata\n");
  if (Number(report, "orphans") > 0) {
    absl::StrAppend(&text, Number(report, "orphans"),
                    " without a name, which somebody has open or whose pages are being freed\n");
  }
  const auto list = [&](const char* what, const char* sentences, const char* unlisted) {
    for (const json& one : report.at(sentences)) absl::StrAppend(&text, what, ": ", one.get<std::string>(), "\n");
    const uint64_t more = Number(report, unlisted);
    if (more > 0) absl::StrAppend(&text, "and ", more, " more\n");
  };
  list("repaired", "repairs", "unlisted_repairs");
  list("problem", "problems", "unlisted_problems");
  const uint64_t unjudged = Number(report, "unjudged");
  if (unjudged > 0) absl::StrAppend(&text, unjudged, " were changed all the while: of these nothing is said\n");
  return text + (report.at("problems").empty() ? "it is sound\n" : "");
}

std::string MountList(const json& document) {
  const json& mounts = document.at("mounts");
  if (mounts.empty()) return "this node has mounted nothing\n";
  TextTable table({Align::kLeft, Align::kLeft});
  table.AddRow({"fileset", "directory"});
  for (const json& mount : mounts) table.AddRow({Text(mount, "fileset"), Text(mount, "directory")});
  return table.ToString();
}

}  // namespace

absl::StatusOr<std::string> RenderNodes(const std::string& document) { return RenderDocument(document, Nodes); }
absl::StatusOr<std::string> RenderGroups(const std::string& document) { return RenderDocument(document, Groups); }
absl::StatusOr<std::string> RenderGroupTree(const std::string& document) {
  return RenderDocument(document, TreeOfGroups);
}
absl::StatusOr<std::string> RenderToken(const std::string& document) { return RenderDocument(document, Token); }
absl::StatusOr<std::string> RenderFilesets(const std::string& document) { return RenderDocument(document, Filesets); }
absl::StatusOr<std::string> RenderCheck(const std::string& document) { return RenderDocument(document, Check); }
absl::StatusOr<std::string> RenderMounts(const std::string& document) { return RenderDocument(document, MountList); }

}  // namespace mangrove
