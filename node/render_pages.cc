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
  const char* kind = !IsSet(page, "allocated") ? "is not allocated"
                     : IsSet(page, "volatile") ? "is volatile"
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
  table.AddRow(
      {"in this node's cache", absl::StrCat(Text(page, "cache_state"), IsSet(page, "dirty") ? ", dirty" : "")});
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
  if (IsSet(log, "is_given_up")) {
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

}  // namespace

absl::StatusOr<std::string> RenderRegions(const std::string& document) { return RenderDocument(document, Regions); }
absl::StatusOr<std::string> RenderPage(const std::string& document) { return RenderDocument(document, Page); }
absl::StatusOr<std::string> RenderDirectory(const std::string& document) { return RenderDocument(document, Directory); }
absl::StatusOr<std::string> RenderLog(const std::string& document) { return RenderDocument(document, Log); }
absl::StatusOr<std::string> RenderGiveUpLog(const std::string& document) { return RenderDocument(document, GiveUpLog); }

}  // namespace mangrove
