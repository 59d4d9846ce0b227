#include "fs/check.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "fs/checker.h"
#include "fs/fileset_page.h"
#include "fs/quota.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

// Others have their turn after so many edits, or after so long.
constexpr uint64_t kEditsAtOnce = 64;
constexpr int64_t kTimeAtOnceNs = 1'000'000;
constexpr int kMostSweeps = 12;

void List(std::string sentence, std::vector<std::string>* list, uint64_t* unlisted) {
  if (list->size() < CheckReport::kMostProblems) {
    list->push_back(std::move(sentence));
  } else {
    ++*unlisted;
  }
}

}  // namespace

void Checker::Report() {
  for (Finding& finding : found_) {
    if (finding.repair.empty()) {
      List(std::move(finding.problem), &report_.problems, &report_.unlisted_problems);
    } else {
      changed_ = true;
      List(absl::StrCat(finding.problem, ": ", finding.repair), &report_.repairs, &report_.unlisted_repairs);
    }
  }
  found_.clear();
}

Task<absl::Status> Checker::Pace() {
  if (options_.progress != nullptr && options_.progress->is_cancelled) {
    co_return absl::CancelledError("the check was called off");
  }
  const int64_t now = pages_->NowNs();
  if (++edits_ % kEditsAtOnce != 0 && now - paced_ns_ < kTimeAtOnceNs) co_return absl::OkStatus();
  const absl::Status status = co_await pages_->BackOff(1);
  paced_ns_ = pages_->NowNs();
  co_return status;
}

void Checker::Doing(const char* what, uint64_t total) {
  if (options_.progress == nullptr) return;
  options_.progress->doing = what;
  options_.progress->done = 0;
  options_.progress->total = total;
}

// Groups that there are now. They become more, never fewer.
Task<absl::Status> Checker::ReadCounts(Edit* edit) {
  const absl::StatusOr<EditPage*> page = co_await edit->Get(kFilesetPage, PageKind::kFileset, Intent::kRead);
  if (!page.ok()) co_return page.status();
  for (const Zone zone : {Zone::kMetadata, Zone::kData, Zone::kSingleCopy}) {
    const uint64_t count = GetLittle<uint32_t>((*page)->bytes(), GroupCountAt(zone));
    if (count > PagesOf(zone).count / kGroupPages) {
      co_return PosixError(EIO, absl::StrCat("page ", kFilesetPage, " counts ", count, " groups of zone ",
                                             static_cast<int>(zone), ", more than there can be"));
    }
    counts_[static_cast<size_t>(zone)] = count;
  }
  root_ = GetLittle<uint64_t>((*page)->bytes(), kRootDirectoryAt);
  co_return absl::OkStatus();
}

// False: nothing can be said of the rest.
Task<absl::StatusOr<bool>> Checker::CheckHead() {
  bool is_sound = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::Status status = co_await ReadCounts(&edit);
    is_sound = status.ok();
    if (!IsDamage(status)) co_return status;
    Found(absl::StrCat("the fileset: ", status.message()));
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await Look(body);
  if (!status.ok()) co_return status;
  if (!is_sound) co_return false;
  auto look = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> root = co_await Inode::Get(&edit, InodeNumber{root_}, Intent::kRead);
    if (!root.ok() && !IsDamage(root.status())) co_return root.status();
    if (root.ok() && root->IsDirectory()) co_return absl::OkStatus();
    is_sound = false;
    Found(absl::StrCat("page ", kFilesetPage, " says that the root is inode ", root_, ", which is no directory",
                       root.ok() ? "" : absl::StrCat(": ", root.status().message())));
    co_return absl::OkStatus();
  };
  if (!HasGroup(root_, false)) root_ = 0;
  const absl::Status looked = co_await Look(look);
  if (!looked.ok()) co_return looked;
  co_return is_sound;
}

// Pages by groups, then names by inodes.
Task<absl::Status> Checker::SweepWindows() {
  is_first_window_ = true;
  for (uint64_t i = 0; i < Groups();) {
    bits_.clear();
    doubles_.clear();
    const uint64_t begin = i;
    // Those that are added while the sweep goes on have no page that was there before it.
    const uint64_t end = std::min(Groups(), begin + options_.most_groups);
    Doing("reads groups", end - begin);
    std::vector<Group> window;
    for (; i < end; ++i) window.push_back(GroupAt(i));
    for (const Group& group : window) {
      const absl::Status status = co_await BeginGroup(group);
      if (!status.ok()) co_return status;
    }
    absl::Status status = co_await SweepInodes();
    if (status.ok()) status = co_await SweepPlaces(false);
    if (status.ok()) status = co_await CheckDoubles();
    if (!status.ok()) co_return status;
    Doing("looks for lost pages", window.size());
    for (const Group& group : window) {
      status = co_await CheckLeaks(group);
      if (!status.ok()) co_return status;
    }
    is_first_window_ = false;
  }
  bits_.clear();
  co_return co_await CheckNames();
}

Task<absl::Status> Checker::Sweep() {
  is_lossy_ = hides_pages_ = changed_ = false;
  const absl::StatusOr<bool> has_head = co_await CheckHead();
  if (!has_head.ok() || !*has_head) co_return has_head.status();
  co_return co_await SweepWindows();
}

// What repairs have taken and freed, no quota has counted.
Task<absl::Status> Checker::CheckLimits() {
  absl::StatusOr<std::vector<std::string>> wrong = co_await CheckQuota(pages_);
  if (!wrong.ok()) co_return wrong.status();
  if (!wrong->empty() && options_.repair) {
    const absl::Status status = co_await CountQuotaAnew(pages_);
    if (!status.ok()) co_return status;
  }
  for (std::string& problem : *wrong) Found(std::move(problem), options_.repair ? "it is counted anew" : "");
  Report();
  co_return absl::OkStatus();
}

// What a repair brings to light is repaired by the next sweep. Pages are freed when all that may have them is in order. K10
Task<absl::StatusOr<CheckReport>> Checker::Run() {
  for (int sweep = 0;; ++sweep) {
    CheckReport begun;
    begun.repairs = std::move(report_.repairs);
    begun.unlisted_repairs = report_.unlisted_repairs;
    report_ = std::move(begun);
    const absl::Status status = co_await Sweep();
    if (!status.ok()) co_return status;
    if (sweep == kMostSweeps || (!changed_ && (frees_ || !options_.repair))) break;
    frees_ = !changed_ || frees_;
  }
  absl::Status status;
  if (report_.IsSound() || !report_.repairs.empty()) status = co_await CheckLimits();
  if (status.ok() && options_.repair) status = co_await pages_->SyncTransactions();
  if (!status.ok()) co_return status;
  co_return std::move(report_);
}

Task<absl::StatusOr<CheckReport>> CheckFileset(Pages* pages, CheckOptions options) {
  Checker checker(pages, options);
  co_return co_await checker.Run();
}

}  // namespace mangrove::fs
