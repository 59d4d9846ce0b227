// Pages of the directory that are lost are made anew of what all nodes claim.

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/directory_edit.h"
#include "directory/directory_tree.h"
#include "net/check.h"

namespace mangrove {

namespace {

// New pages leave some room, so that the next change does not split each of them.
constexpr size_t Filled(size_t most) { return most * 3 / 4; }

absl::Status CheckClaim(const DirectoryEntry& claim, PageId from) {
  const PageRange& range = claim.range;
  if (range.count > 0 && range.count <= kMaxRunPages && range.count % kSegmentPages == 0 && from <= range.first &&
      SegmentStart(range.first) == range.first && range.first < kSpaceEnd && range.end() <= kSpaceEnd &&
      claim.responsible.value != 0 && claim.term != 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("claims that are no sorted runs of segments: ", ToString(claim), " after ", ToString(from)));
}

// Of a leaf of the interval; claims `from` to `to` - 1.
absl::Status TakeClaims(const std::deque<DirectoryEntry>& claims, size_t from, size_t to, PageInterval interval,
                        std::vector<DirectoryEntry>* runs) {
  PageId end = from == 0 ? PageId(0) : claims[from - 1].range.end();
  for (size_t i = from; i < to; ++i) {
    if (absl::Status s = CheckClaim(claims[i], end); !s.ok()) return s;
    end = claims[i].range.end();
    const PageInterval both = Intersect(IntervalOf(claims[i].range), interval);
    if (both.empty()) continue;
    AppendRun(runs, {{both.first, both.end - both.first}, claims[i].responsible, claims[i].term});
  }
  return absl::OkStatus();
}

}  // namespace

Task<absl::Status> DirectoryTree::Repair(Search* search, Lost lost) {
  if (lost.by_right_link) {
    absl::Status posted = co_await Post({lost.level, lost.start, lost.ref}, search->rounds, search->deadline);
    co_return posted;
  }
  Search up{.key = search->key, .deadline = search->deadline};
  while (true) {
    absl::StatusOr<LockedPage> parent = co_await LockPage(&up, lost.level + 1);
    absl::Status tried = parent.status();
    if (parent.ok()) {
      const std::vector<DirectoryChild>& children = parent->page.children;
      size_t index = 0;
      while (index + 1 < children.size() && children[index + 1].start <= up.key) ++index;
      if (children[index].ref != lost.ref) co_return absl::OkStatus();
      tried = co_await Rebuild(&up, &*parent, index, lost.level);
      if (tried.ok()) co_return tried;
      parent->held.Release();
    }
    absl::Status again = co_await Retry(&up, std::move(tried));
    if (!again.ok()) co_return again;
  }
}

Task<absl::Status> DirectoryTree::Rebuild(Search* up, LockedPage* parent, size_t index, int level) {
  std::vector<DirectoryChild>& children = parent->page.children;
  const DirectoryChild lost = children[index];
  const bool last = index + 1 == children.size();
  const PageInterval interval{lost.start, last ? parent->page.keys.end : children[index + 1].start};

  const absl::StatusOr<PageBuffer> left = co_await access_->Read(lost.ref, up->deadline);
  if (!left.ok() && !absl::IsDataLoss(left.status())) co_return left.status();
  if (left.ok()) {
    const absl::StatusOr<DirectoryPage> page = ParseDirectoryPage(**left);
    if (page.ok() && page->level == level && page->keys.first == lost.start) co_return absl::OkStatus();
  }

  absl::StatusOr<Claims> claims = co_await claims_->Collect(interval, up->deadline);
  if (!claims.ok()) co_return claims.status();
  const PageRef right = last ? PageRef{} : children[index + 1].ref;
  Built built;
  absl::Status made = co_await BuildLeaves(&*claims, interval, level == 0 ? right : PageRef{}, up->deadline, &built);
  for (int above = 1; made.ok() && above <= level; ++above) {
    made = co_await BuildAbove(above, interval, above == level ? right : PageRef{}, up->deadline, &built);
  }
  // Nothing but this node's own round, which it has answered as well.
  if (made.ok() && claims_->RoundsAbout(up->key, up->rounds) != 1) {
    made = absl::AbortedError("other claims were asked for during a rebuild");
  }
  if (!made.ok()) {
    Retire(built);
    co_return made;
  }
  // Where not all of them have room, the others are found from the first by their right links.
  const auto at = children.begin() + static_cast<std::ptrdiff_t>(index);
  if (children.size() - 1 + built.top.size() <= limits_.children) {
    children.insert(children.erase(at), built.top.begin(), built.top.end());
  } else {
    *at = built.top.front();
  }
  parent->held.Store(parent->page);
  access_->Retire(lost.ref);
  co_return absl::OkStatus();
}

Task<absl::Status> DirectoryTree::BuildLeaves(Claims* claims, PageInterval interval, PageRef right, TimeNs deadline,
                                              Built* built) {
  std::deque<DirectoryEntry>& all = claims->entries;
  const auto before = std::partition_point(
      all.begin(), all.end(), [&](const DirectoryEntry& claim) { return claim.range.end() <= interval.first; });
  const auto behind = std::partition_point(
      before, all.end(), [&](const DirectoryEntry& claim) { return claim.range.first < interval.end; });
  const auto first = static_cast<size_t>(before - all.begin());
  auto left = static_cast<size_t>(behind - all.begin());
  PageInterval keys{interval.first, interval.end};
  do {
    // The last first, since a page is named by the one before it.
    const size_t from = left - std::min(left - first, Filled(limits_.runs));
    keys.first = from == first ? interval.first : all[from].range.first;
    DirectoryPage leaf{.level = 0, .keys = keys, .right = right, .order = claims->order};
    absl::Status s = TakeClaims(all, from, left, keys, &leaf.runs);
    if (s.ok()) s = co_await CreateFirst(std::move(leaf), deadline, built);
    if (!s.ok()) co_return s;
    right = built->top.back().ref;
    keys.end = keys.first;
    all.resize(from);
    left = from;
  } while (left > first);
  std::reverse(built->top.begin(), built->top.end());
  co_return absl::OkStatus();
}

Task<absl::Status> DirectoryTree::BuildAbove(int level, PageInterval interval, PageRef right, TimeNs deadline,
                                             Built* built) {
  const std::vector<DirectoryChild> below = std::exchange(built->top, {});
  size_t left = below.size();
  PageId end = interval.end;
  while (left > 0) {
    const size_t from = left - std::min(left, Filled(limits_.children));
    DirectoryPage page{.level = static_cast<uint8_t>(level), .keys = {below[from].start, end}, .right = right};
    page.children.assign(below.begin() + static_cast<std::ptrdiff_t>(from),
                         below.begin() + static_cast<std::ptrdiff_t>(left));
    absl::Status s = co_await CreateFirst(std::move(page), deadline, built);
    if (!s.ok()) co_return s;
    right = built->top.back().ref;
    end = below[from].start;
    left = from;
  }
  std::reverse(built->top.begin(), built->top.end());
  co_return absl::OkStatus();
}

// Creates a page before those of its level that stand already.
Task<absl::Status> DirectoryTree::CreateFirst(DirectoryPage page, TimeNs deadline, Built* built) {
  const PageBuffer content = SerializeDirectoryPage(page);
  const absl::StatusOr<PageRef> created = co_await access_->Create(*content, deadline);
  if (!created.ok()) co_return created.status();
  built->top.push_back({page.keys.first, *created});
  built->all.push_back(*created);
  if (built->all.size() % kPagesAtOnce == 0) co_await YieldTo(clock_);
  if (clock_->Now() >= deadline) {
    co_return absl::DeadlineExceededError(
        absl::StrCat("building the directory of claims, down to page ", ToString(page.keys.first)));
  }
  co_return absl::OkStatus();
}

void DirectoryTree::Retire(const Built& built) {
  for (const PageRef& ref : built.all) access_->Retire(ref);
}

Task<absl::StatusOr<PageBuffer>> DirectoryTree::BuildRoot(Claims claims, TimeNs deadline) {
  DirectoryPage root{.keys = kWholeSpace};
  Built built;
  absl::Status made;
  if (claims.entries.size() <= limits_.runs) {
    root.order = claims.order;
    made = TakeClaims(claims.entries, 0, claims.entries.size(), kWholeSpace, &root.runs);
  } else {
    made = co_await BuildLeaves(&claims, kWholeSpace, {}, deadline, &built);
    for (root.level = 1; made.ok() && built.top.size() > limits_.children; ++root.level) {
      made = co_await BuildAbove(root.level, kWholeSpace, {}, deadline, &built);
    }
    root.children = std::move(built.top);
  }
  if (!made.ok()) {
    Retire(built);
    co_return made;
  }
  co_return SerializeDirectoryPage(root);
}

}  // namespace mangrove
