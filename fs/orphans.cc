// Files without names, and those that are being made shorter, as long as there is something to be freed of them. Each is in the tree of
// orphans of the node that has made it one, and says so. It is freed step by step: by that node, by who closes it last, or, where one of
// these is gone or has met an error, by TakeCare of any node that uses the fileset.

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

// In calls of TakeCare.
constexpr uint32_t kMostWait = 64;
constexpr uint32_t kSweepSoon = 5;     // After nodes have come or gone: not all at once.
constexpr uint32_t kSweepAgain = 600;  // Otherwise.
constexpr size_t kMostTries = 64;

}  // namespace

// A step for an orphan, which that place names, if it was found there.
Task<absl::StatusOr<Instance::Removal>> Instance::FinishSome(Edit* edit, InodeNumber number,
                                                             std::optional<uint64_t> place) {
  const absl::StatusOr<Inode> inode = co_await Inode::Get(edit, number, Intent::kWrite);
  const bool is_gone = ErrnoOf(inode.status()) == ESTALE;
  if (!inode.ok() && !is_gone) co_return inode.status();
  if (place && (is_gone || inode->orphan_place() != place)) {  // It is named there by mistake.
    const absl::Status status = co_await NameOrphan(edit, *place, number, false);
    if (!status.ok()) co_return status;
    co_return Removal::kDone;
  }
  if (is_gone) co_return Removal::kDone;
  absl::StatusOr<bool> is_done = true;
  if (inode->links() > 0) {
    is_done = co_await Shrink(edit, *inode);
  } else {
    absl::StatusOr<bool> in_use = IsOpen(number);
    if (!*in_use && (inode->IsRegular() || inode->IsDirectory())) in_use = co_await pages_->IsOpenElsewhere(number);
    if (!in_use.ok()) co_return in_use.status();
    if (*in_use) {  // Who has it open may have made it shorter.
      is_done = co_await Shrink(edit, *inode);
      if (!is_done.ok()) co_return is_done.status();
      co_return *is_done ? Removal::kInUse : Removal::kHasMore;
    }
    is_done = co_await FreeSome(edit, *inode);
  }
  if (!is_done.ok()) co_return is_done.status();
  if (!*is_done) co_return Removal::kHasMore;
  const absl::Status status = co_await EndOrphan(edit, *inode);
  if (!status.ok()) co_return status;
  co_return Removal::kDone;
}

Task<absl::StatusOr<Instance::Removal>> Instance::Finish(InodeNumber number, std::optional<uint64_t> place) {
  Removal removal = Removal::kHasMore;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Removal> after = co_await FinishSome(&edit, number, place);
    if (after.ok()) removal = *after;
    co_return after.status();
  };
  while (removal == Removal::kHasMore) {
    const absl::Status status = co_await RunEdit(pages_, body);
    if (!status.ok()) co_return status;
  }
  co_return removal;
}

// Of an inode that may be an orphan. What cannot be freed now is not forgotten.
Task<absl::Status> Instance::FinishRemoval(InodeNumber number) {
  const absl::StatusOr<Removal> removal = co_await Finish(number, std::nullopt);
  // Who has it open here frees it at the end.
  if (!removal.ok() || (*removal == Removal::kInUse && !IsOpen(number))) NoteLeftover(number);
  co_return removal.status();
}

Task<absl::Status> Instance::FinishRemovalsOf(uint64_t place) {
  std::vector<TreeRecord> orphans;
  auto list = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> page = co_await edit.Get(kFirstPlacePage + place, PageKind::kPlace, Intent::kRead);
    if (!page.ok()) co_return page.status();
    Tree tree(&edit, &space_, PlaceRoot(*page));
    absl::StatusOr<std::vector<TreeRecord>> records = co_await tree.Scan(0, ~uint64_t{0}, ~size_t{0});
    if (records.ok()) orphans = *std::move(records);
    co_return records.status();
  };
  absl::Status first = co_await RunEdit(pages_, list);
  for (const TreeRecord& orphan : orphans) {
    if (stops_care_) co_return absl::UnavailableError("this node ends its use of the fileset");
    const InodeNumber number{orphan.key};
    const absl::StatusOr<Removal> removal = co_await Finish(number, place);
    if (!removal.ok() || (*removal == Removal::kInUse && !IsOpen(number))) NoteLeftover(number);
    if (first.ok()) first = removal.status();
  }
  co_return first;
}

Task<absl::Status> Instance::FinishRemovals() {
  absl::Status first;
  for (uint64_t place = 0; place < kNodePlaces && !stops_care_; ++place) {
    const absl::Status status = co_await FinishRemovalsOf(place);
    if (first.ok()) first = status;
  }
  co_return first;
}

// Those that it is time for, the longer after their last time the more often they were tried.
Task<absl::Status> Instance::TryLeftovers() {
  std::vector<InodeNumber> due;
  for (auto& [number, leftover] : leftovers_) {
    if (leftover.tries_in > 1) {
      --leftover.tries_in;
    } else if (due.size() < kMostTries) {
      due.push_back(number);
    }
  }
  absl::Status first;
  for (const InodeNumber number : due) {
    if (stops_care_) co_return absl::OkStatus();
    const absl::StatusOr<Removal> removal = co_await Finish(number, std::nullopt);
    const auto it = leftovers_.find(number);
    if (it == leftovers_.end()) continue;
    if (removal.ok() && (*removal == Removal::kDone || IsOpen(number))) {
      leftovers_.erase(it);
      continue;
    }
    it->second.wait = std::min(2 * it->second.wait, kMostWait);
    it->second.tries_in = it->second.wait;
    if (!removal.ok() && it->second.wait == kMostWait && first.ok()) {
      first = absl::Status(removal.status().code(),
                           absl::StrCat("inode ", number.value, " cannot be freed: ", removal.status().message()));
    }
  }
  co_return first;
}

Task<absl::Status> Instance::TakeCare() {
  const absl::StatusOr<bool> others = co_await pages_->RenewOpens();
  if (!others.ok()) co_return others.status();
  const auto chance = [&](uint32_t most) { return 1 + static_cast<uint32_t>(pages_->Random() % most); };
  if (sweep_in_ == 0) sweep_in_ = kSweepAgain + chance(kSweepAgain);
  if (*others) sweep_in_ = std::min(sweep_in_, chance(kSweepSoon));
  absl::Status swept;
  if (--sweep_in_ == 0) {
    swept = co_await FinishRemovals();
    if (!swept.ok()) sweep_in_ = kMostWait;
  }
  const absl::Status status = co_await TryLeftovers();
  co_return swept.ok() ? status : swept;
}

}  // namespace mangrove::fs
