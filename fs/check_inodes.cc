#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/checker.h"
#include "fs/extended.h"
#include "fs/group_page.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr int kMostTries = 4;

std::string InodeName(uint64_t number) { return absl::StrCat("inode ", number); }

}  // namespace

bool Checker::IsType(mode_t type) {
  return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO || type == S_IFSOCK ||
         type == S_IFCHR || type == S_IFBLK;
}

Task<absl::Status> Checker::SweepInodes() {
  const uint64_t groups = counts_[static_cast<size_t>(Zone::kMetadata)];
  Doing("reads inodes", groups);
  for (uint64_t i = 0; i < groups; ++i) {
    const absl::StatusOr<std::vector<uint64_t>> numbers = co_await MarkedInodes(GroupAt(i));
    if (!numbers.ok()) co_return numbers.status();
    for (const uint64_t number : *numbers) {
      const absl::Status status = co_await SweepInode(number);
      if (!status.ok()) co_return status;
    }
    if (options_.progress != nullptr) options_.progress->done = i + 1;
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<bool>> Checker::IsMarked(Edit* edit, uint64_t number) {
  const absl::StatusOr<EditPage*> group = co_await edit->Get(FirstOf(number), PageKind::kGroup, Intent::kRead);
  if (IsDamage(group.status())) co_return false;
  if (!group.ok()) co_return group.status();
  const auto i = static_cast<uint32_t>(number % kGroupPages);
  co_return GroupView(*group).IsMarked(i) && GroupView(*group).IsUsed(i);
}

// Its entries are removed first; then it is freed (check_names.cc).
void Checker::NoteDamagedInode(uint64_t number, const absl::Status& wrong) {
  hides_pages_ = true;
  is_lossy_ = is_lossy_ || absl::IsDataLoss(wrong);
  if (is_first_window_ && !collects_owners_) Found(absl::StrCat("inode ", number, ": ", wrong.message()));
}

// Pages of the stream from `from` on. What the last step has seen may be in one extent with what comes next.
Task<absl::Status> Checker::ReadExtents(Edit* edit, Inode inode, uint64_t from, Part* part) {
  const std::string whose = InodeName(inode.number().value);
  const std::function<bool(uint64_t)> may_be_node = [this](uint64_t page) { return HasGroup(page, false); };
  Tree tree(edit, &space_, inode.main_root());
  uint64_t first = from;
  if (from > 0) {
    const absl::StatusOr<std::optional<TreeRecord>> before = co_await tree.Floor(from);
    if (!before.ok() && !IsDamage(before.status())) co_return before.status();
    if (before.ok() && before->has_value()) first = (*before)->key;
  }
  CheckedTree checked(edit, inode.main_root(), &whose, &may_be_node);
  const absl::Status status = co_await checked.Step(first, options_.records_at_once + 1, &part->main);
  if (!status.ok()) co_return status;
  uint64_t end = from;
  for (const TreeRecord& record : part->main.records) {
    const absl::StatusOr<Extent> extent = DecodeExtent(record);
    std::string problem;
    if (!extent.ok()) {
      problem = absl::StrCat(whose, ": ", extent.status().message());
    } else if (const uint64_t last = extent->page + extent->count - 1;
               !HasGroup(extent->page, true) || FirstOf(last) != FirstOf(extent->page)) {
      problem = absl::StrCat(whose, " has page ", HasGroup(extent->page, true) ? FirstOf(last) : extent->page,
                             ", which is in no group of data");
    } else if (extent->stream_page < end && record.key >= from) {
      problem =
          absl::StrCat(whose, " has two pages for its page ", extent->stream_page, ", one is page ", extent->page);
    }
    if (!problem.empty()) {
      part->main.problems.push_back(std::move(problem));
      continue;
    }
    const uint64_t skipped = extent->stream_page < end ? end - extent->stream_page : 0;
    if (skipped >= extent->count) continue;
    part->extents.push_back({extent->stream_page + skipped, extent->page + skipped, extent->count - skipped});
    end = extent->end();
  }
  part->main.next = std::max(end, part->main.next);
  co_return absl::OkStatus();
}

Task<absl::Status> Checker::ReadPart(Edit* edit, uint64_t number, uint64_t from, bool is_first, Part* part) {
  *part = {};
  absl::Status status = co_await ReadCounts(edit);
  if (!status.ok()) co_return status;
  absl::StatusOr<Inode> inode = co_await Inode::Get(edit, InodeNumber{number}, Intent::kRead);
  if (!inode.ok() && !IsDamage(inode.status())) co_return inode.status();
  if (inode.ok() && !IsType(inode->mode() & S_IFMT)) {
    inode = PosixError(EIO, absl::StrCat("it has mode ", absl::Hex(inode->mode()), ", which is no file's"));
  }
  if (!inode.ok()) {
    const absl::StatusOr<bool> is_marked = co_await IsMarked(edit, number);
    if (is_marked.ok() && *is_marked) NoteDamagedInode(number, inode.status());
    co_return is_marked.status();
  }
  part->is_inode = true;
  part->type = inode->mode() & S_IFMT;
  part->pages = inode->pages();
  part->size = inode->size();
  const absl::StatusOr<EditPage*> page = co_await edit->Get(number, PageKind::kInode, Intent::kRead);
  if (!page.ok()) co_return page.status();
  part->state = StateOf((*page)->bytes());
  const std::string whose = InodeName(number);
  const std::function<bool(uint64_t)> may_be_node = [this](uint64_t child) { return HasGroup(child, false); };
  if (is_first) {
    CheckedTree xattrs(edit, inode->xattr_root(), &whose, &may_be_node);
    status = co_await xattrs.Step(0, ~size_t{0}, &part->xattrs);
    if (!status.ok()) co_return status;
  }
  if (part->type == S_IFREG) co_return co_await ReadExtents(edit, *inode, from, part);
  CheckedTree main(edit, inode->main_root(), &whose, &may_be_node);
  co_return co_await main.Step(from, options_.records_at_once, &part->main);
}

Task<absl::Status> Checker::ClaimAll(uint64_t number, const Part* part) {
  const std::string whose = InodeName(number);
  absl::Status status;
  for (const auto* nodes : {&part->main.nodes, &part->xattrs.nodes}) {
    for (const uint64_t node : *nodes) {
      if (status.ok() && !collects_owners_) status = co_await ClaimNode(node, &whose);
    }
  }
  std::vector<Doubt> doubts;
  for (const Extent& extent : part->extents) ClaimExtent(number, extent, &doubts);
  for (const Doubt& doubt : doubts) {
    if (status.ok() && doubt.claimed == Claimed::kFree) status = co_await CheckIsUsed(doubt.page, doubt.owner);
    if (status.ok() && doubt.claimed == Claimed::kTwice) status = co_await NoteDouble(doubt.page);
  }
  co_return status;
}

// What is wrong with a tree was seen in one edit; what is to be added up is of one state of the inode, or is added up again.
Task<absl::Status> Checker::SweepInode(uint64_t number) {
  const std::string whose = InodeName(number);
  if (!collects_owners_) Claim(number, false);
  for (int attempt = 1;; ++attempt) {
    Sum sum;
    Part part;
    std::vector<std::string> problems;
    std::vector<std::string> of_xattrs;
    uint64_t from = 0;
    bool is_first = true;
    do {
      auto body = [&](Edit& edit) -> Task<absl::Status> { return ReadPart(&edit, number, from, is_first, &part); };
      absl::Status status = co_await Look(body);
      if (!status.ok() || !part.is_inode) co_return status;
      if (is_first) sum.first_state = part.state;
      sum.is_steady = sum.is_steady && part.state == sum.first_state;
      // Again only to add up.
      if (attempt == 1) status = co_await ClaimAll(number, &part);
      if (!status.ok()) co_return status;
      for (const Extent& extent : part.extents) sum.pages += extent.count;
      for (const TreeRecord& record : part.main.records) sum.bytes += record.value.size();
      is_lossy_ = is_lossy_ || part.main.is_lossy || part.xattrs.is_lossy;
      problems.insert(problems.end(), part.main.problems.begin(), part.main.problems.end());
      if (is_first) {
        of_xattrs = part.xattrs.problems;
        const absl::Status wrong = fs::CheckXattrs(part.xattrs.records);
        if (!wrong.ok() && of_xattrs.empty()) of_xattrs.push_back(absl::StrCat(whose, ": ", wrong.message()));
      }
      from = part.main.next;
      is_first = false;
    } while (!part.main.is_last);
    sum.is_whole = problems.empty();
    hides_pages_ = hides_pages_ || !problems.empty() || !of_xattrs.empty();
    if (!is_first_window_ || collects_owners_) co_return absl::OkStatus();
    absl::Status status;
    if (!problems.empty()) status = co_await RepairTree(number, Which::kMain, std::move(problems));
    if (status.ok() && !of_xattrs.empty()) status = co_await RepairTree(number, Which::kXattrs, std::move(of_xattrs));
    if (!status.ok() || !sum.is_whole) co_return status;
    if (sum.is_steady) status = co_await JudgeContent(number, part.type, &sum);
    if (!status.ok() || sum.is_steady) co_return status;
    if (attempt == kMostTries) break;
  }
  ++report_.unjudged;
  co_return absl::OkStatus();
}

// K5, and how long a symbolic link's target is. Others have nothing.
Task<absl::Status> Checker::JudgeContent(uint64_t number, mode_t type, Sum* sum) {
  if (type == S_IFDIR) co_return absl::OkStatus();
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{number}, intent());
    if (IsDamage(inode.status())) co_return absl::OkStatus();
    if (!inode.ok()) co_return inode.status();
    const absl::StatusOr<EditPage*> page = co_await edit.Get(number, PageKind::kInode, Intent::kRead);
    if (!page.ok()) co_return page.status();
    sum->is_steady = StateOf((*page)->bytes()) == sum->first_state;
    if (!sum->is_steady) co_return absl::OkStatus();
    if (type == S_IFREG && inode->pages() != sum->pages) {
      Found(absl::StrCat("inode ", number, " counts ", inode->pages(), " pages, and has ", sum->pages),
            options_.repair ? "it counts them now" : "");
      if (options_.repair) inode->set_pages(sum->pages);
    }
    if (type != S_IFREG && inode->size() != (type == S_IFLNK ? sum->bytes : inode->size())) {
      Found(absl::StrCat("inode ", number, " has ", sum->bytes, " bytes in its tree, and says that they are ",
                         inode->size()),
            options_.repair ? "it says so now" : "");
      if (options_.repair) inode->set_size(sum->bytes);
    }
    co_return absl::OkStatus();
  };
  co_return co_await Look(body);
}

// --- Places -----------------------------------------------------------------------------------------------------------

Task<absl::Status> Checker::SweepPlaces(bool for_names) {
  for (uint64_t place = 0; place < kNodePlaces; ++place) {
    const std::string whose = absl::StrCat("place ", place);
    TreeStep step;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      step = {};
      const absl::Status counted = co_await ReadCounts(&edit);
      if (!counted.ok()) co_return counted;
      const absl::StatusOr<EditPage*> page =
          co_await edit.Get(kFirstPlacePage + place, PageKind::kPlace, Intent::kRead);
      if (!page.ok() && !IsDamage(page.status())) co_return page.status();
      const std::function<bool(uint64_t)> may_be_node = [this](uint64_t child) { return HasGroup(child, false); };
      if (page.ok()) {
        CheckedTree tree(&edit, PlaceRoot(*page), &whose, &may_be_node);
        const absl::Status status = co_await tree.Step(0, ~size_t{0}, &step);
        if (!status.ok()) co_return status;
      } else {
        step.problems.push_back(absl::StrCat(whose, ": ", page.status().message()));
      }
      hides_pages_ = hides_pages_ || !step.problems.empty();
      if (!for_names && is_first_window_) {
        for (std::string& problem : step.problems) Found(std::move(problem));
      }
      co_return absl::OkStatus();
    };
    absl::Status status = co_await Look(body);
    for (const uint64_t node : step.nodes) {
      if (status.ok() && !for_names) status = co_await ClaimNode(node, &whose);
    }
    for (const TreeRecord& record : step.records) {
      if (status.ok() && for_names) status = co_await OnOrphan(place, record.key);
    }
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// Others may have finished what the place had to: then its number is nobody's, or another file's.
Task<absl::Status> Checker::OnOrphan(uint64_t place, uint64_t number) {
  if (HasGroup(number, false)) {
    Known* const known = Find(number);
    const bool is_orphan = known != nullptr && known->orphan_place == place + 1;
    if (is_orphan && !std::exchange(known->is_orphan, true)) ++report_.orphans;
    if (!is_orphan && number >= low_ && number < high_) ++report_.stale_orphans;
    co_return absl::OkStatus();
  }
  if (low_ != 0) co_return absl::OkStatus();  // Once.
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::Status counted = co_await ReadCounts(&edit);
    if (!counted.ok() || HasGroup(number, false)) co_return counted;
    const absl::StatusOr<EditPage*> page = co_await edit.Get(kFirstPlacePage + place, PageKind::kPlace, intent());
    if (!page.ok()) co_return page.status();
    Tree tree(&edit, &space_, PlaceRoot(*page));
    const absl::StatusOr<std::optional<std::string>> found = co_await tree.Get(number);
    if (!found.ok() || !found->has_value()) co_return found.status();
    Found(absl::StrCat("place ", place, " has an orphan ", number, ", which is no inode's number"),
          options_.repair ? "it is taken out" : "");
    if (!options_.repair) co_return absl::OkStatus();
    co_return co_await tree.Erase(number);
  };
  co_return co_await Look(body);
}

}  // namespace mangrove::fs
