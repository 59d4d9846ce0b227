#include "node/render.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "directory/address.h"
#include "net/ids.h"
#include "node/group_path.h"
#include "node/text.h"

namespace mangrove {
namespace {

using nlohmann::json;

// That of a disk of which no other is said (recovery/view.h).
constexpr uint64_t kFullWeight = 16;

std::string Text(const json& object, const char* key) { return object.at(key).get<std::string>(); }
uint64_t Number(const json& object, const char* key) { return object.at(key).get<uint64_t>(); }
bool Flag(const json& object, const char* key) { return object.at(key).get<bool>(); }

std::string Names(const json& names, const char* none) {
  return names.empty() ? none : absl::StrJoin(names.get<std::vector<std::string>>(), ", ");
}

std::string Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? "0 %" : absl::StrCat(static_cast<uint64_t>(100.0 * static_cast<double>(part) / whole), " %");
}

bool Has(const json& names, const json& name) { return std::find(names.begin(), names.end(), name) != names.end(); }

// More than a copy less: where as many disks as there are copies have nothing to tell, pages may be on none other. Empty: it is not so.
std::string WaitingLine(const json& membership, uint64_t replicas) {
  json silent = json::array();
  for (const json& name : membership.at("disks")) {
    if (Has(membership.at("missing"), name) || Has(membership.at("behind"), name)) silent.push_back(name);
  }
  if (!Flag(membership, "has_lease") || silent.size() < std::max<uint64_t>(replicas, 1)) return "";
  return absl::StrCat("PAGES WAIT: the disks of ", Names(silent, ""),
                      " are away or behind, no fewer than a page has copies: ",
                      "what is on these alone is neither read nor flushed until one of them has caught up\n");
}

// The next thing: is what was flushed on as many disks as it should be, and what is being done about it? Empty: it is.
std::string DisksLine(const json& membership) {
  const json& missing = membership.at("missing");
  const json& next_disks = membership.at("next_disks");
  json catching_up = json::array();
  for (const json& name : membership.at("behind")) {
    if (!Has(missing, name)) catching_up.push_back(name);
  }
  if (!Flag(membership, "has_lease") || (missing.empty() && catching_up.empty() && next_disks.empty())) return "";
  std::vector<std::string> parts;
  if (!missing.empty()) {
    parts.push_back(absl::StrCat("what is flushed has a copy less where it would be on ", Names(missing, ""),
                                 ": start it before another one fails"));
  }
  if (!catching_up.empty()) {
    parts.push_back(absl::StrCat("the disk of ", Names(catching_up, ""), " catches up with what it has missed"));
  }
  if (!next_disks.empty()) {
    const size_t ready = membership.at("moved").size();
    const json& draining = membership.at("draining");
    parts.push_back(absl::StrCat("pages move, so that they are kept by ", Names(next_disks, ""), ": ", ready, " of ",
                                 next_disks.size(), " have theirs",
                                 draining.empty() ? "" : absl::StrCat("; ", Names(draining, ""), " may go then")));
  }
  return absl::StrCat("REPAIR: ", absl::StrJoin(parts, "; "), "\n");
}

// Of those disks that have not the full one; for what comes after a move, what changes. Empty: all have, and keep it.
std::string WeightsText(const json& membership) {
  const json none = json::object();
  const json& now = membership.contains("weights") ? membership.at("weights") : none;
  const json& next = membership.contains("next_weights") ? membership.at("next_weights") : none;
  const auto text_of = [](const json& weights) {
    std::vector<std::string> parts;
    for (const auto& [name, weight] : weights.items()) parts.push_back(absl::StrCat(name, " ", weight.get<uint64_t>()));
    parts.push_back(absl::StrCat(weights.empty() ? "all " : "others ", kFullWeight));
    return absl::StrJoin(parts, ", ");
  };
  const bool moves = !membership.at("next_disks").empty();
  if (now.empty() && (next.empty() || !moves)) return "";
  return !moves || now == next ? text_of(now) : absl::StrCat(text_of(now), "; when pages have moved: ", text_of(next));
}

// How fast this node's own disk gets what it lacks, and until when. Empty: it lacks nothing.
std::string OwnDiskLine(const json& disk) {
  const bool is_behind = Flag(disk, "is_behind");
  if (!is_behind && !Flag(disk, "is_moving")) return "";
  const std::string what = is_behind ? "catches up" : "gets the pages that it is to keep";
  std::string text = absl::StrCat("this node's disk ", what, ": ", Number(disk, "done_percent"), " %, ");
  if (disk.contains("compared_pages_per_second")) {
    absl::StrAppend(&text, CountText(Number(disk, "compared_pages_per_second"), "page"), "/s compared, ",
                    BytesText(Number(disk, "copied_bytes_per_second")), "/s copied, ");
  } else {
    absl::StrAppend(&text, "at a rate that is unknown yet, ");
  }
  const std::string left =
      disk.contains("seconds_left") ? absl::StrCat("about ", TimeLeftText(Number(disk, "seconds_left"))) : "unknown";
  absl::StrAppend(&text, "time left: ", left);
  const std::string trouble = Text(disk, "trouble");
  return absl::StrCat(text, trouble.empty() ? "; let it run" : absl::StrCat("; it tries again: ", trouble), "\n");
}

// A peer that was never met has no incarnation.
std::string IncarnationText(const json& node) {
  const uint64_t incarnation = Number(node, "incarnation");
  return incarnation == 0 ? "-" : std::to_string(incarnation);
}

std::string StatusLine(const json& status, size_t connected) {
  const std::string name = Text(status.at("node"), "name");
  const size_t peers = status.at("peers").size();
  const std::string of_peers =
      peers == 0 ? "alone in its cluster" : absl::StrCat("connected to ", connected, " of ", CountText(peers, "peer"));
  if (Flag(status, "ready")) return absl::StrCat(name, " is ready, ", of_peers, "\n");
  return absl::StrCat(name, " is not ready, ", of_peers, "; waiting for ", Names(status.at("waiting_for"), "a lease"),
                      "\n");
}

// What an operator wants to know first: can the cluster agree on anything, and is everybody there?
std::string MembershipLine(const json& membership) {
  const json& anchors = membership.at("anchors");
  const json& awaited = membership.at("awaited_anchors");
  const json& missing = membership.at("missing");
  const json& leader = membership.at("leader");
  const size_t present = membership.at("members").size();
  // Who is made an anchor later awaits the others too, for a moment.
  if (!awaited.empty() && Number(membership, "view") == 0) {
    return absl::StrCat("THE CLUSTER STARTS: its anchors have to be there once, all of them, and ", Names(awaited, ""),
                        " did not answer yet; start it, or look at its log\n");
  }
  if (!Flag(membership, "has_lease")) {
    return absl::StrCat("NO QUORUM as far as this node knows: it reaches no majority of the anchors ",
                        Names(anchors, ""), ", or is about to join; start them, or look at the network\n");
  }
  const std::string who = absl::StrCat("view ", Number(membership, "view"), ", led by ",
                                       leader.is_null() ? "nobody just now" : leader.get<std::string>());
  const json& joining = membership.at("joining");
  const std::string awaited_nodes =
      joining.empty() ? "" : absl::StrCat("; ", Names(joining, ""), " may join: start its daemon");
  const std::string here = absl::StrCat(CountText(present, "node"), present == 1 ? " is here" : " are here");
  if (missing.empty()) return absl::StrCat(present == 1 ? "" : "all ", here, awaited_nodes, "; ", who, "\n");
  return absl::StrCat(Names(missing, ""), missing.size() == 1 ? " is" : " are", " MISSING; ", here, awaited_nodes, "; ",
                      who, "\n");
}

// What a node that reaches too few anchors does all the same. Empty: nothing, or it reaches enough.
std::string ReadOnlyLine(const json& read_only) {
  if (read_only.is_null()) return "";
  const json& regions = read_only.at("regions");
  return absl::StrCat("READING ONLY: of ", regions.size() == 1 ? "region " : "regions ", Names(regions, ""),
                      " this node serves what it has, and no stores; it may be ",
                      TimeLeftText(Number(read_only, "for_ms") / 1000), " old, as others may have newer pages\n");
}

// Too little room on this node's disk. Empty: there is enough.
std::string DiskRoomLine(const json& room) {
  if (room.is_null() || Text(room, "advice").empty()) return "";
  const char* const what = Flag(room, "is_full") ? "DISK FULL" : Flag(room, "is_low") ? "DISK LOW" : "DISK";
  return absl::StrCat(what, ": ", Text(room, "advice"), "\n");
}

// A peer that has not told of its resources lately has none.
std::string ResourceText(const json& peer, const char* key) {
  const json& resources = peer.at("resources");
  if (resources.is_null()) return "-";
  const uint64_t number = Number(resources, key);
  return std::string_view(key).ends_with("_bytes") ? BytesText(number) : std::to_string(number);
}

std::string PeersTable(const json& peers) {
  TextTable table({Align::kLeft, Align::kRight, Align::kLeft, Align::kLeft, Align::kLeft, Align::kRight, Align::kRight,
                   Align::kRight, Align::kRight, Align::kLeft});
  table.AddRow(
      {"peer", "id", "address", "connected", "key", "incarnation", "cache room", "disk free", "pages/s", "last error"});
  for (const json& peer : peers) {
    table.AddRow({Text(peer, "name"), std::to_string(Number(peer, "id")), Text(peer, "address"),
                  Flag(peer, "connected") ? "yes" : "no", peer.at("key").is_null() ? "" : Text(peer, "key"),
                  IncarnationText(peer), ResourceText(peer, "cache_room_bytes"), ResourceText(peer, "disk_free_bytes"),
                  ResourceText(peer, "pages_per_second"), Text(peer, "last_error")});
  }
  return table.ToString();
}

// Fewer disks than each page is to be on. Empty: there are enough.
std::string RoomLine(const json& status) {
  const json& membership = status.at("membership");
  const uint64_t replicas = Number(status, "replicas");
  const json& next = membership.at("next_disks");
  const size_t disks = next.empty() ? membership.at("disks").size() : next.size();
  if (disks == 0 || disks >= replicas) return "";
  return absl::StrCat("TOO FEW NODES: pages are to be on ", replicas, " disks, and ", CountText(disks, "node"),
                      disks == 1 ? " keeps" : " keep", " pages: `mangrove node token` lets another one join\n");
}

std::string Places(const json& status) {
  const json& membership = status.at("membership");
  return absl::StrCat(MembershipLine(membership), ReadOnlyLine(status.at("read_only")),
                      WaitingLine(membership, Number(status, "replicas")), DisksLine(membership), RoomLine(status),
                      DiskRoomLine(status.at("disk_room")), OwnDiskLine(status.at("disk")));
}

// The first key is used.
std::string SecurityText(const json& security) {
  std::string text = Text(security, "mode");
  const char* before = ", with key ";
  for (const json& key : security.at("keys")) {
    absl::StrAppend(&text, before, key.get<std::string>());
    before = ", or ";
  }
  return text;
}

std::string Status(const json& status) {
  const json& node = status.at("node");
  const json& cache = status.at("cache");
  const json& disk = status.at("disk");
  size_t connected = 0;
  for (const json& peer : status.at("peers")) connected += Flag(peer, "connected") ? 1 : 0;
  TextTable facts({Align::kLeft, Align::kLeft});
  facts.AddRow({"cluster", Text(status, "cluster")});
  facts.AddRow({"node", absl::StrCat("id ", Number(node, "id"), ", incarnation ", Number(node, "incarnation"), ", at ",
                                     Text(node, "address"))});
  facts.AddRow({"connections", SecurityText(status.at("security"))});
  const uint64_t used = Number(cache, "used_bytes");
  const uint64_t size = Number(cache, "size_bytes");
  facts.AddRow({"cache", absl::StrCat(BytesText(used), " of ", BytesText(size), ", ", Percent(used, size))});
  facts.AddRow(
      {"disk", absl::StrCat(CountText(Number(disk, "pages"), "page"), ", ", BytesText(Number(disk, "used_bytes")),
                            " used, ", BytesText(Number(disk, "free_bytes")), " free")});
  const std::string weights = WeightsText(status.at("membership"));
  if (!weights.empty()) facts.AddRow({"disk weights", weights});
  if (Flag(disk, "is_behind") || Flag(disk, "is_moving")) {
    facts.AddRow(
        {Flag(disk, "is_behind") ? "catching up" : "getting pages",
         absl::StrCat(Number(disk, "done_percent"), " %, ", CountText(Number(disk, "pages_compared"), "page"),
                      " compared, ", Number(disk, "pages_copied"), " copied, ", Number(disk, "pages_lost"), " lost")});
  }
  TextTable counters({Align::kLeft, Align::kRight});
  for (const auto& [name, value] : status.at("counters").items()) {
    std::string words = name;
    std::replace(words.begin(), words.end(), '_', ' ');
    counters.AddRow({words, value.dump()});
  }
  std::string text = Places(status) + StatusLine(status, connected) + facts.ToString();
  if (!status.at("peers").empty()) absl::StrAppend(&text, "\n", PeersTable(status.at("peers")));
  return absl::StrCat(text, "\nsince its start\n", counters.ToString());
}

std::string NodeStateText(const json& node) {
  const std::string state = Text(node, "state");
  return Flag(node, "draining") ? state + ", draining" : state;
}

std::string Nodes(const json& nodes) {
  size_t connected = 0;
  for (const json& node : nodes) connected += Flag(node, "connected") ? 1 : 0;
  TextTable table({Align::kLeft, Align::kRight, Align::kRight, Align::kLeft, Align::kLeft, Align::kRight, Align::kLeft,
                   Align::kRight});
  table.AddRow({"node", "id", "group", "address", "state", "votes", "connected", "incarnation"});
  for (const json& node : nodes) {
    table.AddRow({Text(node, "name"), std::to_string(Number(node, "id")), GroupPath(Number(node, "group")),
                  Text(node, "address"), NodeStateText(node), std::to_string(Number(node, "votes")),
                  Flag(node, "connected") ? "yes" : "no", IncarnationText(node)});
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

std::string Regions(const json& regions) {
  uint64_t size = 0;
  uint64_t allocated = 0;
  TextTable table({Align::kLeft, Align::kLeft, Align::kRight, Align::kRight, Align::kLeft, Align::kLeft, Align::kLeft,
                   Align::kLeft});
  table.AddRow({"region", "address", "size", "allocated", "owner", "group", "mode", "without quorum"});
  for (const json& region : regions) {
    size += Number(region, "size_bytes");
    allocated += Number(region, "allocated_bytes");
    table.AddRow({Text(region, "name"), Text(region, "address"), BytesText(Number(region, "size_bytes")),
                  BytesText(Number(region, "allocated_bytes")), UserText(static_cast<uid_t>(Number(region, "owner"))),
                  GroupText(static_cast<gid_t>(Number(region, "group"))),
                  ModeText(static_cast<unsigned>(Number(region, "mode"))), Text(region, "without_quorum")});
  }
  if (regions.empty()) return "no regions\n";
  return absl::StrCat(CountText(regions.size(), "region"), ", ", BytesText(size), " reserved, ", BytesText(allocated),
                      " allocated\n\n", table.ToString());
}

std::string Page(const json& page) {
  const std::string address = Text(page, "address");
  const json& responsible = page.at("responsible");
  const char* kind = !Flag(page, "allocated") ? "is not allocated"
                     : Flag(page, "volatile") ? "is volatile"
                                              : "is persistent";
  TextTable table({Align::kLeft, Align::kLeft});
  table.AddRow({"responsible node", responsible.is_null() ? "none yet" : responsible.get<std::string>()});
  table.AddRow({"core holders", Names(page.at("core_holders"), "none")});
  const json& home = page.at("home");
  if (home.is_null()) {
    table.AddRow({"state there", "not in use"});
  } else {
    const json& owner = home.at("owner");
    table.AddRow({"state there", Text(home, "state")});
    table.AddRow({"owner", owner.is_null() ? "none" : owner.get<std::string>()});
    table.AddRow({"sharers", Names(home.at("sharers"), "none")});
  }
  table.AddRow({"in this node's cache", absl::StrCat(Text(page, "cache_state"), Flag(page, "dirty") ? ", dirty" : "")});
  table.AddRow({"version here", Text(page, "version")});
  return absl::StrCat("page ", address, " ", kind, "\n\n", table.ToString());
}

// --- The directory

std::string EndOf(const json& end) { return end.is_null() ? "the end of the space" : end.get<std::string>(); }

std::string SegmentsText(uint64_t segments) {
  return absl::StrCat(CountText(segments, "segment"), ", ", BytesText(segments * kSegmentPages * kPageBytes));
}

std::string DirectoryPath(const json& answer) {
  const std::string address = Text(answer, "address");
  const json& run = answer.at("run");
  const json& fixed = answer.at("fixed");
  std::string text;
  TextTable facts({Align::kLeft, Align::kLeft});
  if (!run.is_null()) {
    text = absl::StrCat(Text(run, "responsible"), " is responsible for ", address, "\n");
    facts.AddRow({"run from", Text(run, "address")});
    facts.AddRow({"length", SegmentsText(Number(run, "segments"))});
    facts.AddRow({"term", std::to_string(Number(run, "term"))});
  } else {
    text = fixed.is_null() ? absl::StrCat("nobody is responsible for ", address, " yet\n")
                           : absl::StrCat(fixed.get<std::string>(), " is responsible for ", address,
                                          ", by its address, without the directory\n");
    facts.AddRow({"nobody from", Text(answer.at("gap"), "first")});
    facts.AddRow({"to", EndOf(answer.at("gap").at("end"))});
  }
  absl::StrAppend(&text, facts.ToString(), "\nfrom the root to the leaf\n");
  TextTable pages({Align::kRight, Align::kLeft, Align::kLeft});
  for (const json& page : answer.at("path")) {
    const json& right = page.at("right");
    pages.AddRow({std::to_string(Number(page, "level")), "page", Text(page, "address")});
    pages.AddRow({"", "of", Text(page, "responsible")});
    pages.AddRow({"", "from", Text(page, "first")});
    pages.AddRow({"", "to", EndOf(page.at("end"))});
    pages.AddRow({"", "entries", std::to_string(Number(page, "entries"))});
    pages.AddRow({"", "right", right.is_null() ? "none" : right.get<std::string>()});
  }
  return text + pages.ToString();
}

std::string WholeDirectory(const json& directory) {
  const json& root = directory.at("root");
  const uint64_t runs = Number(directory, "runs");
  TextTable facts({Align::kLeft, Align::kLeft});
  facts.AddRow({"root", absl::StrCat("page ", Text(root, "address"), " of ", Text(root, "responsible"), ", level ",
                                     Number(root, "level"), ", entries ", Number(root, "entries"))});
  size_t level = directory.at("pages").size();
  for (auto pages = directory.at("pages").rbegin(); pages != directory.at("pages").rend(); ++pages) {
    facts.AddRow({absl::StrCat("level ", --level), CountText(pages->get<uint64_t>(), "page")});
  }
  TextTable nodes({Align::kLeft, Align::kRight, Align::kRight});
  nodes.AddRow({"node", "segments", "runs"});
  for (const json& node : directory.at("nodes")) {
    nodes.AddRow({Text(node, "name"), std::to_string(Number(node, "segments")), std::to_string(Number(node, "runs"))});
  }
  TextTable first({Align::kLeft, Align::kRight, Align::kLeft, Align::kRight});
  first.AddRow({"from", "segments", "responsible", "term"});
  for (const json& run : directory.at("first_runs")) {
    first.AddRow({Text(run, "address"), std::to_string(Number(run, "segments")), Text(run, "responsible"),
                  std::to_string(Number(run, "term"))});
  }
  const json& stopped = directory.at("stopped");
  std::string text = absl::StrCat(SegmentsText(Number(directory, "segments")), ", in ", CountText(runs, "run"), "\n");
  if (!stopped.is_null()) {
    absl::StrAppend(&text, "counted up to ", EndOf(stopped.at("address")), " only: ", Text(stopped, "why"), "\n");
  }
  absl::StrAppend(&text, facts.ToString());
  if (runs == 0) return text;
  absl::StrAppend(&text, "\n", nodes.ToString(), "\n", first.ToString());
  const uint64_t named = directory.at("first_runs").size();
  return runs > named ? absl::StrCat(text, "... ", runs - named, " more\n") : text;
}

std::string Directory(const json& answer) {
  return answer.contains("path") ? DirectoryPath(answer) : WholeDirectory(answer);
}

// A transaction is a row for each page that it wrote.
std::string Log(const json& log) {
  const json& records = log.at("records");
  const std::string name = Text(log, "name");
  if (log.at("incarnation").is_null()) {
    return absl::StrCat("what the transactions of ", name, " wrote is in its pages; its log has been given up\n");
  }
  std::string text = absl::StrCat(CountText(records.size(), "transaction"), " in the log of ", name, ", incarnation ",
                                  Number(log, "incarnation"), "\n");
  if (records.empty()) return text;
  TextTable table({Align::kRight, Align::kLeft, Align::kRight, Align::kRight});
  table.AddRow({"TRANSACTION", "PAGE", "SEQUENCE", "BYTES"});
  for (const json& record : records) {
    for (const json& page : record.at("pages")) {
      uint64_t bytes = 0;
      for (const json& write : page.at("writes")) bytes += Number(write, "bytes");
      table.AddRow({std::to_string(Number(record, "transaction")), Text(page, "address"),
                    std::to_string(Number(page, "sequence")), std::to_string(bytes)});
    }
  }
  return absl::StrCat(text, "\n", table.ToString());
}

std::string GiveUpLog(const json& log) {
  const std::string name = Text(log, "name");
  const std::string lost = Text(log, "lost");
  if (Flag(log, "is_given_up")) {
    return absl::StrCat("what is lost of the log of ", name, " is given up: ", lost, "\ntransactions go on\n");
  }
  return absl::StrCat(
      "of the log of ", name, " this cannot be read, by any disk that counts: ", lost,
      "\n\nWhat may be lost: transactions that were committed, by ", name,
      " or of pages that it had, since these pages were last\nflushed. Some of a transaction's pages may have what it "
      "wrote "
      "and others not. Log records before the\ndamage are used, those behind it are not.\n\nIf a disk that has it can "
      "come back, or can be repaired, start it instead. If this is what you want:\n  mangrove log give-up ",
      name, " --confirm ", name, "\n");
}

absl::StatusOr<std::string> Render(const std::string& document, std::string (*render)(const json&)) {
  try {
    return render(json::parse(document));
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("the daemon's answer is not understood (", error.what(),
                                            "); are mangrove and mangroved of the same version?"));
  }
}

}  // namespace

absl::StatusOr<std::string> RenderStatus(const std::string& document) { return Render(document, Status); }
absl::StatusOr<std::string> RenderMembership(const std::string& document) { return Render(document, Places); }
absl::StatusOr<std::string> RenderNodes(const std::string& document) { return Render(document, Nodes); }
absl::StatusOr<std::string> RenderGroups(const std::string& document) { return Render(document, Groups); }
absl::StatusOr<std::string> RenderGroupTree(const std::string& document) { return Render(document, TreeOfGroups); }
absl::StatusOr<std::string> RenderToken(const std::string& document) { return Render(document, Token); }
absl::StatusOr<std::string> RenderRegions(const std::string& document) { return Render(document, Regions); }
absl::StatusOr<std::string> RenderPage(const std::string& document) { return Render(document, Page); }
absl::StatusOr<std::string> RenderDirectory(const std::string& document) { return Render(document, Directory); }
absl::StatusOr<std::string> RenderFilesets(const std::string& document) { return Render(document, Filesets); }
absl::StatusOr<std::string> RenderCheck(const std::string& document) { return Render(document, Check); }
absl::StatusOr<std::string> RenderMounts(const std::string& document) { return Render(document, MountList); }
absl::StatusOr<std::string> RenderLog(const std::string& document) { return Render(document, Log); }
absl::StatusOr<std::string> RenderGiveUpLog(const std::string& document) { return Render(document, GiveUpLog); }

}  // namespace mangrove
