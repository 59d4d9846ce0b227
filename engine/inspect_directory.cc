// What the RAM directory says, as JSON documents for people. docs/OPERATIONS.md lists the fields.

#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "directory/directory_edit.h"
#include "engine/inspect_json.h"
#include "engine/local_operations.h"

namespace mangrove {
namespace {

using nlohmann::json;

constexpr size_t kMaxRunsNamed = 32;

// Null: the end of the space, which has no address.
json EndText(PageId end) { return end < kSpaceEnd ? json(ToString(end)) : json(nullptr); }

// What is counted while the directory is read, leaf by leaf.
struct Survey {
  struct Share {
    uint64_t segments = 0;
    uint64_t runs = 0;
  };
  std::vector<uint64_t> pages;     // By level.
  std::vector<PageRef> last_path;  // By level.
  std::map<NodeId, Share> nodes;
  std::vector<DirectoryEntry> first_runs;
  std::vector<DirectoryEntry> last_run;  // One at most.
  uint64_t segments = 0;
  uint64_t runs = 0;
  PageId end;  // Counted up to here.
  DirectoryTree::PathStep root;

  void Count(const std::vector<DirectoryTree::PathStep>& path, const std::vector<DirectoryEntry>& runs_of_leaf) {
    root = path.front();
    pages.resize(std::max<size_t>(pages.size(), root.level + 1));
    last_path.resize(pages.size());
    for (const DirectoryTree::PathStep& step : path) {
      if (std::exchange(last_path[step.level], step.ref) != step.ref) ++pages[step.level];
    }
    for (const DirectoryEntry& run : runs_of_leaf) Count(run);
    end = path.back().keys.end;
  }

 private:
  // A run that goes on from the leaf before is one with it.
  void Count(const DirectoryEntry& run) {
    AppendRun(&last_run, run);
    const bool goes_on = runs > 0 && last_run.size() == 1;
    if (last_run.size() > 1) last_run.erase(last_run.begin());
    Share& share = nodes[run.responsible];
    share.segments += run.range.count / kSegmentPages;
    segments += run.range.count / kSegmentPages;
    if (goes_on && runs <= first_runs.size()) first_runs.back() = last_run.front();
    if (goes_on) return;
    ++runs;
    ++share.runs;
    if (first_runs.size() < kMaxRunsNamed) first_runs.push_back(run);
  }
};

}  // namespace

// Reads every leaf, for half of the time that there is at most. What it says is of different times, if others change it.
Task<absl::StatusOr<std::string>> LocalOperations::InspectDirectory(TimeNs deadline) {
  Survey survey;
  const auto count = [&survey](const auto& path, const auto& runs) {
    survey.Count(path, runs);
    return true;
  };
  const TimeNs until = clock_->Now() + (deadline - clock_->Now()) / 2;
  const absl::Status status = co_await engine_->directory().Visit(kWholeSpace, count, until);
  if (!status.ok() && survey.pages.empty()) co_return status;
  const auto run_text = [this](const DirectoryEntry& run) {
    return json{{"address", ToString(run.range.first)},
                {"segments", run.range.count / kSegmentPages},
                {"responsible", NameOf(run.responsible)},
                {"term", run.term}};
  };
  json nodes = json::array();
  for (const auto& [node, share] : survey.nodes) {
    nodes.push_back({{"name", NameOf(node)}, {"segments", share.segments}, {"runs", share.runs}});
  }
  json first_runs = json::array();
  for (const DirectoryEntry& run : survey.first_runs) first_runs.push_back(run_text(run));
  json stopped;
  if (!status.ok()) stopped = {{"address", EndText(survey.end)}, {"why", std::string(status.message())}};
  co_return DumpJson({{"root",
                       {{"address", ToString(survey.root.ref.page)},
                        {"level", survey.root.level},
                        {"entries", survey.root.entries},
                        {"responsible", NameOf(survey.root.ref.responsible)}}},
                      {"pages", survey.pages},
                      {"segments", survey.segments},
                      {"runs", survey.runs},
                      {"nodes", nodes},
                      {"first_runs", first_runs},
                      {"stopped", stopped}});
}

Task<absl::StatusOr<std::string>> LocalOperations::InspectDirectoryAt(PageId page, TimeNs deadline) {
  const absl::StatusOr<std::vector<DirectoryTree::PathStep>> path = co_await engine_->directory().Walk(page, deadline);
  if (!path.ok()) co_return path.status();
  const absl::StatusOr<DirectoryTree::Found> found = co_await engine_->directory().Find(page, deadline);
  if (!found.ok()) co_return found.status();
  json pages = json::array();
  for (const DirectoryTree::PathStep& step : *path) {
    pages.push_back({{"address", ToString(step.ref.page)},
                     {"level", step.level},
                     {"first", ToString(step.keys.first)},
                     {"end", EndText(step.keys.end)},
                     {"entries", step.entries},
                     {"responsible", NameOf(step.ref.responsible)},
                     {"right", step.right.page == PageId{} ? json(nullptr) : json(ToString(step.right.page))}});
  }
  json run;
  json gap;
  if (found->entry) {
    run = {{"address", ToString(found->entry->range.first)},
           {"segments", found->entry->range.count / kSegmentPages},
           {"responsible", NameOf(found->entry->responsible)},
           {"term", found->entry->term}};
  } else {
    gap = {{"first", ToString(found->gap.first)}, {"end", EndText(found->gap.end)}};
  }
  json fixed;
  if (const NodeId node = engine_->ResponsibleFor(page); PageEngine::IsFixed(page) && node.value != 0) {
    fixed = NameOf(node);
  }
  co_return DumpJson({{"address", ToString(page)}, {"path", pages}, {"run", run}, {"gap", gap}, {"fixed", fixed}});
}

}  // namespace mangrove
