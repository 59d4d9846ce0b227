#include "node/render.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "directory/address.h"
#include "node/render_parts.h"
#include "node/text.h"

namespace mangrove {
namespace {

using nlohmann::json;

std::string Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? "0 %" : absl::StrCat(static_cast<uint64_t>(100.0 * static_cast<double>(part) / whole), " %");
}

bool Has(const json& names, const json& name) { return std::find(names.begin(), names.end(), name) != names.end(); }

// Who is given up never comes back: nobody waits for it, or is to start it.
json WithoutGivenUp(const json& names, const json& membership) {
  const json given_up = membership.value("lost", json::array());
  json left = json::array();
  for (const json& name : names) {
    if (!Has(given_up, name)) left.push_back(name);
  }
  return left;
}

// More than a copy less: where as many disks as there are copies have nothing to tell, pages may be on none other. Empty: it is not so.
std::string WaitingLine(const json& membership, uint64_t replicas) {
  json silent = json::array();
  for (const json& name : membership.at("disks")) {
    if (Has(membership.at("missing"), name) || Has(membership.at("behind"), name)) silent.push_back(name);
  }
  const json awaited = WithoutGivenUp(silent, membership);
  if (!IsSet(membership, "has_lease") || silent.size() < std::max<uint64_t>(replicas, 1)) return "";
  if (awaited.empty()) {
    return absl::StrCat("PAGES LOST: what only ", Names(silent, ""),
                        " kept, as no fewer are given up than a page has copies; they are counted when the others have "
                        "taken their places\n");
  }
  const std::string given_up = awaited.size() == silent.size() ? "" : ", with those that are given up";
  return absl::StrCat("PAGES WAIT: the disks of ", Names(awaited, ""), " are away or behind", given_up,
                      ", no fewer than a page has copies: ",
                      "what is on these alone is neither read nor flushed until one of them has caught up\n");
}

// The next thing: is what was flushed on as many disks as it should be, and what is being done about it? Empty: it is.
std::string DisksLine(const json& membership) {
  const json& missing = membership.at("missing");
  const json& next_disks = membership.at("next_disks");
  json catching_up = json::array();
  for (const json& name : WithoutGivenUp(membership.at("behind"), membership)) {
    if (!Has(missing, name)) catching_up.push_back(name);
  }
  if (!IsSet(membership, "has_lease") || (missing.empty() && catching_up.empty() && next_disks.empty())) return "";
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
  const bool is_behind = IsSet(disk, "is_behind");
  if (!is_behind && !IsSet(disk, "is_moving")) return "";
  const std::string what = is_behind ? "catches up" : "gets the pages that it is to keep";
  std::string text = absl::StrCat("this node's disk ", what, ": ", Number(disk, "done_percent"), " %, ");
  if (disk.contains("compared_pages_per_second")) {
    absl::StrAppend(&text, CountText(Number(disk, "compared_pages_per_second"), "page"), "/s compared, ",
                    BytesText(Number(disk, "copied_bytes_per_second")), "/s copied, ");
  } else {
    absl::StrAppend(&text, "at a rate that is unknown yet, ");
  }
  if (disk.contains("limit_bytes_per_second")) {
    absl::StrAppend(&text, IsSet(disk, "is_held_by_limit") ? "held at " : "with at most ",
                    BytesText(Number(disk, "limit_bytes_per_second")), "/s by repair_limit_mib_per_s, ");
  }
  const std::string left =
      disk.contains("seconds_left") ? absl::StrCat("about ", TimeLeftText(Number(disk, "seconds_left"))) : "unknown";
  absl::StrAppend(&text, "time left: ", left);
  const std::string trouble = Text(disk, "trouble");
  return absl::StrCat(text, trouble.empty() ? "; let it run" : absl::StrCat("; it tries again: ", trouble), "\n");
}

std::string StatusLine(const json& status, size_t connected) {
  const std::string name = Text(status.at("node"), "name");
  const size_t peers = status.at("peers").size();
  const std::string of_peers =
      peers == 0 ? "alone in its cluster" : absl::StrCat("connected to ", connected, " of ", CountText(peers, "peer"));
  if (IsSet(status, "ready")) return absl::StrCat(name, " is ready, ", of_peers, "\n");
  return absl::StrCat(name, " is not ready, ", of_peers, "; waiting for ", Names(status.at("waiting_for"), "a lease"),
                      "\n");
}

// The anchors' leader answers, and this node has no lease all the same: the others go on without it. Empty: it is not so. (A daemon of an
// earlier version does not say it.)
std::string OutsideLine(const json& membership) {
  const json& leader = membership.at("leader");
  if (IsSet(membership, "has_lease") || !membership.value("hears_leader", false) || leader.is_null()) return "";
  const std::string cluster = absl::StrCat("the cluster has its quorum, led by ", leader.get<std::string>(), "; ");
  const json unreachable = membership.value("unreachable", json::array());
  if (!unreachable.empty()) {
    return absl::StrCat("THIS NODE IS OUTSIDE: ", cluster, "this node does not reach ", Names(unreachable, ""),
                        ", and is let in when it reaches everybody who is here: look at the network between them\n");
  }
  return absl::StrCat("THIS NODE IS OUTSIDE: ", cluster, "this node ",
                      membership.value("is_in_view", false) ? "has no lease just now" : "is about to join",
                      "; if that stays so, look at its log\n");
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
  if (const std::string outside = OutsideLine(membership); !outside.empty()) return outside;
  if (!IsSet(membership, "has_lease")) {
    return absl::StrCat("NO QUORUM as far as this node knows: it reaches no majority of the anchors ",
                        Names(anchors, ""), ", or is about to join; start them, or look at the network\n");
  }
  const std::string who = absl::StrCat("view ", Number(membership, "view"), ", led by ",
                                       leader.is_null() ? "nobody just now" : leader.get<std::string>());
  const json& joining = membership.at("joining");
  const std::string awaited_nodes =
      joining.empty() ? "" : absl::StrCat("; ", Names(joining, ""), " may join: start its daemon");
  const std::string here = absl::StrCat(CountText(present, "node"), present == 1 ? " is here" : " are here");
  // The view follows within a moment, without one of the two.
  const json unreachable = membership.value("unreachable", json::array());
  const std::string cut =
      unreachable.empty() ? "" : absl::StrCat("; this node does not reach ", Names(unreachable, ""));
  const json given_up = membership.value("lost", json::array());
  const std::string gone = given_up.empty() ? "" : absl::StrCat("; given up: ", Names(given_up, ""));
  const std::string rest = absl::StrCat(gone, awaited_nodes, cut, "; ", who, "\n");
  if (missing.empty()) return absl::StrCat(present == 1 ? "" : "all ", here, rest);
  return absl::StrCat(Names(missing, ""), missing.size() == 1 ? " is" : " are", " MISSING; ", here, rest);
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
  const char* const what = IsSet(room, "is_full") ? "DISK FULL" : IsSet(room, "is_low") ? "DISK LOW" : "DISK";
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
                  IsSet(peer, "connected") ? "yes" : "no", peer.at("key").is_null() ? "" : Text(peer, "key"),
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

// What no disk has any more. Empty: nothing, as far as the disks have answered. (A daemon of an earlier version does not say it.)
std::string LossesLine(const json& status) {
  constexpr size_t kShown = 4;
  const json losses = status.value("losses", json(nullptr));
  if (losses.is_null()) return "";
  const uint64_t pages = Number(losses, "pages");
  const json silent = losses.value("silent", json::array());
  if (pages == 0) {
    return silent.empty()
               ? ""
               : absl::StrCat("whether pages are lost is not known yet of the disks of ", Names(silent, ""), "\n");
  }
  return absl::StrCat(
      "PAGES LOST: no disk that is left has ", CountText(pages, "page"), ", ", BytesText(pages * kPageBytes),
      ", that were allocated: ", RangesText(losses.at("ranges"), kShown, Number(losses, "pages_not_named")),
      "; reading them fails, unless a node has them in RAM, until they are written or allocated anew",
      silent.empty() ? "" : absl::StrCat("; not known yet of the disks of ", Names(silent, "")), "\n");
}

// Of all disks that get what they lack, how much that is, and until when. Empty: none does, or none has answered.
std::string RepairLine(const json& status) {
  const json repair = status.value("repair", json(nullptr));
  if (repair.is_null() || repair.at("disks").empty()) return "";
  std::string text = absl::StrCat("of the whole cluster ", CountText(repair.at("disks").size(), "disk"),
                                  repair.at("disks").size() == 1 ? " gets" : " get", " pages: ");
  const auto known = [&](const char* key) { return repair.contains(key); };
  absl::StrAppend(
      &text, known("pages_left") ? "about " + CountText(Number(repair, "pages_left"), "page") : "an unknown number",
      " left to compare, ", Number(repair, "pages_copied"), " copied");
  if (known("compared_pages_per_second")) {
    absl::StrAppend(&text, ", ", CountText(Number(repair, "compared_pages_per_second"), "page"), "/s compared, ",
                    BytesText(Number(repair, "copied_bytes_per_second")), "/s copied");
  }
  absl::StrAppend(&text, ", time left: ",
                  known("seconds_left") ? "about " + TimeLeftText(Number(repair, "seconds_left")) : "unknown");
  const json& silent = repair.at("silent");
  if (!silent.empty()) absl::StrAppend(&text, "; without ", Names(silent, ""), ", which did not answer in time");
  return text + "\n";
}

std::string Places(const json& status) {
  const json& membership = status.at("membership");
  return absl::StrCat(MembershipLine(membership), ReadOnlyLine(status.at("read_only")), LossesLine(status),
                      WaitingLine(membership, Number(status, "replicas")), DisksLine(membership), RepairLine(status),
                      RoomLine(status), DiskRoomLine(status.at("disk_room")), OwnDiskLine(status.at("disk")));
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
  for (const json& peer : status.at("peers")) connected += IsSet(peer, "connected") ? 1 : 0;
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
  if (IsSet(disk, "is_behind") || IsSet(disk, "is_moving")) {
    facts.AddRow(
        {IsSet(disk, "is_behind") ? "catching up" : "getting pages",
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

// What giving a node up would cost; or, when that is done, who is there.
std::string GiveUpNode(const json& preview) {
  if (!preview.contains("is_given_up")) return Places(preview);
  constexpr size_t kShown = 8;
  const std::string name = Text(preview, "name");
  std::string text;
  const auto add = [&](const char* key, const std::string& what) {
    const json& pages = preview.at(key);
    if (Number(pages, "pages") == 0) return;
    absl::StrAppend(&text, what, " ", CountText(Number(pages, "pages"), "page"), ", ",
                    BytesText(Number(pages, "bytes")), ":\n  ",
                    RangesText(pages.at("ranges"), kShown, Number(pages, "pages_not_named")), "\n");
  };
  const auto disks = [&](const char* key) { return Names(preview.at(key).at("disks"), "others"); };
  add("no_other_copy", absl::StrCat("LOST FOR EVER, as no disk that is left has them:"));
  add("older_copies",
      absl::StrCat("BACK TO AN OLDER STATE, as ", disks("older_copies"), " fell behind before ", name, " was away:"));
  if (preview.contains("not_known")) {
    add("not_known", absl::StrCat("NOT KNOWN, as no disk that counts has them, and what that of ", disks("not_known"),
                                  " has is not known: it was not here since the anchors' log began:"));
  }
  add("copies_away", absl::StrCat("kept only by ", disks("copies_away"), ", which have to come back and catch up:"));
  const bool is_complete = IsSet(preview, "is_complete");
  const bool others_know = !is_complete && !preview.at("current_disks").empty();
  if (!is_complete) {
    absl::StrAppend(&text,
                    "THIS NODE DOES NOT KNOW what is allocated, since its disk does not count at present: ask one of ",
                    Names(preview.at("current_disks"), "none, as no disk does"), "\n");
  } else if (text.empty()) {
    text = "as far as is known nothing would be lost: every page has a copy on another disk\n";
  }
  const std::string how = others_know ? ""
                                      : absl::StrCat(" If this is what you want:\n  mangrove node give-up ", name,
                                                     " --confirm ", Text(preview, "confirm"));
  return absl::StrCat("nothing is done yet. The disk of ", name, " keeps ",
                      CountText(Number(preview, "kept_pages"), "page"),
                      " of those that are allocated, whether they were written or not. Without it:\n", text, "\nIf ",
                      name, " or its disk can come back, start it instead.", how, "\n");
}

}  // namespace

absl::StatusOr<std::string> RenderStatus(const std::string& document) { return RenderDocument(document, Status); }
absl::StatusOr<std::string> RenderGiveUpNode(const std::string& document) {
  return RenderDocument(document, GiveUpNode);
}
std::string RefusalOf(const std::string& document) {
  const json answer = json::parse(document, nullptr, /*allow_exceptions=*/false);
  return answer.is_object() ? answer.value("refused", std::string()) : std::string();
}
absl::StatusOr<std::string> RenderMembership(const std::string& document) { return RenderDocument(document, Places); }

}  // namespace mangrove
