// What the status of a node says of the whole cluster's disks: which pages are lost, and how far repair is. Each node with a disk is
// asked at once; who does not answer soon is named.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/inspect_json.h"
#include "engine/local_operations.h"

namespace mangrove {
namespace {

using nlohmann::json;

constexpr DurationNs kAnswerIn = 500 * kMillisecond;
constexpr size_t kMostRanges = 256;  // Of lost pages, in the document.

// Nothing plus nothing known is nothing known.
void AddTo(std::optional<uint64_t>& sum, const std::optional<uint64_t>& value) {
  if (value) sum = sum.value_or(0) + *value;
}

}  // namespace

Task<absl::StatusOr<bool>> LocalOperations::IsLearnedAt(NodeId node, PageId page) {
  const absl::StatusOr<PeerReport> report = co_await AskPeer(node, page, clock_->Now() + kAnswerIn);
  if (!report.ok()) co_return report.status();
  co_return report->is_learned || !report->allocated;
}

// Of the view's members, those whose disks keep pages, or are to.
Task<std::vector<LocalOperations::Told>> LocalOperations::AskDisks(TimeNs deadline) {
  std::vector<Told> told;
  if (membership_->LeaseLeft() <= 0) co_return told;
  const View& view = engine_->view();
  for (const auto& [node, incarnation] : view.members) {
    if (view.disks.contains(node) || view.next_disks.contains(node)) told.push_back({.node = node, .report = {}});
  }
  const TimeNs until = std::min(deadline, clock_->Now() + kAnswerIn);
  std::vector<Outcome<absl::StatusOr<PeerReport>>> outcomes;
  for (const Told& one : told) {
    Outcome<absl::StatusOr<PeerReport>> outcome(clock_);
    Spawn<absl::StatusOr<PeerReport>>(
        AskPeer(one.node, kSuperRootPage, until),
        [outcome](absl::StatusOr<PeerReport> report) mutable { outcome.Set(std::move(report)); });
    outcomes.push_back(outcome);
  }
  for (size_t i = 0; i < told.size(); ++i) {
    absl::StatusOr<PeerReport> report = co_await outcomes[i].Get();
    if (report.ok()) told[i].report = *std::move(report);
  }
  co_return told;
}

// Null: this node has no lease, and hears of nobody.
json LocalOperations::LossesOf(const std::vector<Told>& told) const {
  if (told.empty()) return nullptr;
  RangeSummary lost(kMostRanges);
  json silent = json::array();
  std::vector<PageRange> ranges;
  uint64_t unnamed = 0;
  for (const Told& one : told) {
    // A disk that is behind has nothing to say, and is named as one that is.
    if (engine_->view().behind.contains(one.node) || !engine_->view().disks.contains(one.node)) continue;
    if (!one.report || !one.report->lost) {
      silent.push_back(NameOf(one.node));
      continue;
    }
    ranges.insert(ranges.end(), one.report->lost->first().begin(), one.report->lost->first().end());
    unnamed += one.report->lost->unnamed();
  }
  std::sort(ranges.begin(), ranges.end(), [](const PageRange& a, const PageRange& b) { return a.first < b.first; });
  for (const PageRange& range : ranges) lost.Add(range);
  lost.AddUnnamed(unnamed);
  return {{"pages", lost.pages()}, {"ranges", RangesOf(lost)}, {"pages_not_named", lost.unnamed()}, {"silent", silent}};
}

// Null: the same; or no disk lacks anything.
json LocalOperations::RepairOf(const std::vector<Told>& told) const {
  const View& view = engine_->view();
  json disks = json::array();
  json silent = json::array();
  DiskRepair sum;
  bool is_time_known = true;
  uint64_t seconds_left = 0;
  for (const auto& [node, report] : told) {
    const bool is_to_get = view.next_disks.contains(node) && !view.moved.contains(node);
    if (!view.behind.contains(node) && !is_to_get) continue;
    if (!report || !report->repair) {
      silent.push_back(NameOf(node));
      continue;
    }
    const DiskRepair& repair = *report->repair;
    json disk = DocumentOf(repair);
    disk["name"] = NameOf(node);
    disks.push_back(std::move(disk));
    if (repair.done_percent == 100) continue;
    sum.pages_copied += repair.pages_copied;
    AddTo(sum.pages_left, repair.pages_left);
    AddTo(sum.compared_pages_per_second, repair.compared_pages_per_second);
    AddTo(sum.copied_bytes_per_second, repair.copied_bytes_per_second);
    is_time_known = is_time_known && repair.seconds_left.has_value();
    seconds_left = std::max(seconds_left, repair.seconds_left.value_or(0));
  }
  if (disks.empty() && silent.empty()) return nullptr;
  is_time_known = is_time_known && silent.empty();
  json document{{"disks", disks}, {"silent", silent}, {"pages_copied", sum.pages_copied}};
  if (sum.pages_left) document["pages_left"] = *sum.pages_left;
  if (sum.compared_pages_per_second) document["compared_pages_per_second"] = *sum.compared_pages_per_second;
  if (sum.copied_bytes_per_second) document["copied_bytes_per_second"] = *sum.copied_bytes_per_second;
  if (is_time_known) document["seconds_left"] = seconds_left;
  return document;
}

}  // namespace mangrove
