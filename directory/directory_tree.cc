#include "directory/directory_tree.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/directory_edit.h"
#include "directory/run_collector.h"
#include "net/check.h"

namespace mangrove {

namespace {

// The ways that other nodes' changes can send one operation back to the root before it gives up.
constexpr int kMaxRestarts = 100;
// A lookup that never waits follows so many links.
constexpr int kMaxPeeks = 32;

// Where a walk is, by the link that it has just followed.
struct Cursor {
  PageRef ref;
  PageId start;    // Where the page begins.
  int level = -1;  // -1: the root's, which is not known before.
  bool by_right_link = false;
};

enum class Turn { kArrived, kRight, kDown, kMisfit };

// Looks at the page under the cursor, and moves the cursor on (T1, T3).
Turn Advance(const DirectoryPageView& page, PageId key, int level, const PlantedBugs& bugs, Cursor* at) {
  const PageInterval keys = page.keys();
  if ((at->level >= 0 && page.level() != at->level) || page.level() < level) return Turn::kMisfit;
  if (keys.empty() || keys.first != at->start) return Turn::kMisfit;
  const bool unchecked = bugs.follow_right_unchecked && at->by_right_link;
  if (keys.end <= key && !unchecked) {
    const PageRef right = page.right();
    if (at->level < 0 || right.page == PageId(0)) return Turn::kMisfit;
    *at = {.ref = right, .start = keys.end, .level = at->level, .by_right_link = true};
    return Turn::kRight;
  }
  if (page.level() == level) return Turn::kArrived;
  const size_t children = page.CountUpTo(key);
  if (children == 0) return Turn::kMisfit;
  const DirectoryChild child = page.child(children - 1);
  *at = {.ref = child.ref, .start = child.start, .level = page.level() - 1};
  return Turn::kDown;
}

DirectoryTree::Found FoundIn(const DirectoryPageView& leaf, PageId page) {
  DirectoryTree::Found found{.gap = leaf.keys(), .order = leaf.order()};
  const size_t up_to = leaf.CountUpTo(page);
  if (up_to > 0) {
    const DirectoryEntry run = leaf.run(up_to - 1);
    if (run.range.Contains(page)) {
      found.entry = run;
      found.gap = {};
      return found;
    }
    found.gap.first = run.range.end();
  }
  if (up_to < leaf.size()) found.gap.end = leaf.run(up_to).range.first;
  return found;
}

absl::Status CheckKey(PageId page) {
  if (page < kSpaceEnd) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("page ", ToString(page), " is behind the end of the space, ", ToString(kSpaceEnd)));
}

}  // namespace

absl::Status DirectoryTree::CheckInSpace(PageInterval interval) {
  if (interval.first < interval.end && interval.end <= kSpaceEnd) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(ToString(interval), " is no interval of the space"));
}

DirectoryTree::DirectoryTree(PageRef root, PageAccess* access, ClaimSource* claims, Clock* clock,
                             const PlantedBugs* bugs, DirectoryLimits limits)
    : root_(root), access_(access), claims_(claims), clock_(clock), bugs_(bugs), limits_(limits) {
  CHECK(limits.runs >= 4 && limits.runs <= kMaxDirectoryRuns);
  CHECK(limits.children >= 4 && limits.children <= kMaxDirectoryChildren);
}

std::optional<DirectoryTree::Found> DirectoryTree::Peek(PageId page) const {
  Cursor at{.ref = root_};
  int depth = 1;
  for (int peeks = 0; peeks < kMaxPeeks; ++peeks) {
    const PageBuffer content = access_->Peek(at.ref);
    const auto view = content ? DirectoryPageView::Of(*content) : std::nullopt;
    if (!view) return std::nullopt;
    switch (Advance(*view, page, 0, *bugs_, &at)) {
      case Turn::kArrived: {
        Found found = FoundIn(*view, page);
        found.depth = depth;
        return found;
      }
      case Turn::kRight: break;
      case Turn::kDown: ++depth; break;
      case Turn::kMisfit: return std::nullopt;
    }
  }
  return std::nullopt;
}

Task<absl::StatusOr<PageBuffer>> DirectoryTree::Fetch(Search* search, PageRef ref) {
  if (PageBuffer here = access_->Peek(ref)) co_return here;
  ++search->fetched;
  absl::StatusOr<PageBuffer> content = co_await access_->Read(ref, search->deadline);
  if (!content.ok()) co_return content.status();
  const absl::StatusOr<DirectoryPage> page = ParseDirectoryPage(**content);
  if (!page.ok()) co_return page.status();
  co_return content;
}

absl::Status DirectoryTree::LostError(Search* search, const Lost& lost) const {
  if (lost.ref == root_) {
    return absl::UnavailableError(absl::StrCat("the directory's root, ", ToString(root_), ", is no directory page"));
  }
  search->lost = lost;
  return absl::DataLossError(absl::StrCat("the directory's ", ToString(lost.ref), " is lost"));
}

Task<absl::Status> DirectoryTree::Descend(Search* search, int level) {
  search->rounds = claims_->Rounds();
  search->path.clear();
  search->unposted.clear();
  search->lost.reset();
  Cursor at{.ref = root_};
  while (true) {
    const Cursor here = at;
    const absl::StatusOr<PageBuffer> content = co_await Fetch(search, here.ref);
    const auto view = content.ok() ? DirectoryPageView::Of(**content) : std::nullopt;
    if (absl::IsDataLoss(content.status()) || (content.ok() && !view)) {
      co_return LostError(search, {here.level, here.start, here.ref, here.by_right_link});
    }
    if (!content.ok()) co_return content.status();
    const Turn turn = Advance(*view, search->key, level, *bugs_, &at);
    if (turn == Turn::kMisfit) {
      co_return absl::AbortedError(absl::StrCat(ToString(here.ref), " is not what a link says"));
    }
    if (turn == Turn::kRight) {
      search->unposted.push_back({here.level, at.start, at.ref});
      continue;
    }
    search->path.push_back({here.ref, *content, here.start, here.by_right_link});
    if (turn == Turn::kArrived) co_return absl::OkStatus();
  }
}

Task<absl::Status> DirectoryTree::Reach(Search* search, int level) {
  absl::Status reached = co_await Descend(search, level);
  if (!reached.ok() || search->unposted.empty()) co_return reached;
  for (const Unposted& unposted : search->unposted) {
    absl::Status posted = co_await Post(unposted, search->rounds, search->deadline);
    if (!posted.ok()) co_return posted;
  }
  co_return absl::AbortedError("a page was not named by its parent");
}

Task<absl::StatusOr<DirectoryTree::LockedPage>> DirectoryTree::LockPage(Search* search, int level) {
  absl::Status reached = co_await Reach(search, level);
  if (!reached.ok()) co_return reached;
  absl::StatusOr<LockedPage> locked = co_await LockReached(search, level);
  co_return locked;
}

Task<absl::StatusOr<DirectoryTree::LockedPage>> DirectoryTree::LockReached(Search* search, int level) {
  const Step& at = search->path.back();
  const Lost as_lost{level, at.start, at.ref, at.by_right_link};
  const absl::StatusOr<uint64_t> lock = co_await access_->Lock(at.ref, search->deadline);
  if (absl::IsDataLoss(lock.status())) co_return LostError(search, as_lost);
  if (!lock.ok()) co_return lock.status();
  Held held(access_, *lock);
  absl::StatusOr<DirectoryPage> page = ParseDirectoryPage(*held.Load());
  if (!page.ok()) co_return LostError(search, as_lost);
  if (page->level != level || page->keys.first != at.start || !page->keys.Contains(search->key)) {
    co_return absl::AbortedError(absl::StrCat(ToString(at.ref), " has changed before it was locked"));
  }
  if (IsVoid(*search)) co_return absl::AbortedError("claims were asked for meanwhile");
  co_return LockedPage{.ref = at.ref, .page = *std::move(page), .held = std::move(held)};
}

Task<absl::Status> DirectoryTree::Retry(Search* search, absl::Status why) {
  if (search->lost) {
    const Lost lost = *search->lost;
    search->lost.reset();
    absl::Status repaired = co_await Repair(search, lost);
    if (!repaired.ok()) why = std::move(repaired);
    if (!why.ok() && !absl::IsAborted(why) && !absl::IsDataLoss(why)) co_return why;
  } else if (!absl::IsAborted(why)) {
    co_return why;
  }
  if (++search->restarts > kMaxRestarts) {
    co_return absl::UnavailableError(absl::StrCat("the directory does not come to rest around page ",
                                                  ToString(search->key), "; at last: ", why.message()));
  }
  if (clock_->Now() >= search->deadline) {
    co_return absl::DeadlineExceededError(
        absl::StrCat("looking for page ", ToString(search->key), " in the directory; at last: ", why.message()));
  }
  co_await YieldTo(clock_);
  co_return absl::OkStatus();
}

Task<absl::Status> DirectoryTree::DescendToLeaf(Search* search) {
  while (true) {
    absl::Status reached = co_await Descend(search, 0);
    if (reached.ok()) co_return reached;
    absl::Status again = co_await Retry(search, std::move(reached));
    if (!again.ok()) co_return again;
  }
}

Task<absl::StatusOr<DirectoryTree::Found>> DirectoryTree::Find(PageId page, TimeNs deadline) {
  if (absl::Status s = CheckKey(page); !s.ok()) co_return s;
  Search search{.key = page, .deadline = deadline};
  if (absl::Status s = co_await DescendToLeaf(&search); !s.ok()) co_return s;
  Found found = FoundIn(*DirectoryPageView::Of(*search.path.back().content), page);
  found.depth = static_cast<int>(search.path.size());
  found.pages_fetched = search.fetched;
  co_return found;
}

Task<absl::StatusOr<std::vector<DirectoryTree::PathStep>>> DirectoryTree::Walk(PageId page, TimeNs deadline) {
  if (absl::Status s = CheckKey(page); !s.ok()) co_return s;
  Search search{.key = page, .deadline = deadline};
  if (absl::Status s = co_await DescendToLeaf(&search); !s.ok()) co_return s;
  co_return PathOf(search);
}

std::vector<DirectoryTree::PathStep> DirectoryTree::PathOf(const Search& search) {
  std::vector<PathStep> path;
  for (const Step& step : search.path) {
    const auto view = DirectoryPageView::Of(*step.content);
    path.push_back({step.ref, view->keys(), view->level(), view->size(), view->right()});
  }
  return path;
}

Task<absl::Status> DirectoryTree::Visit(PageInterval interval, LeafVisitor visit, TimeNs deadline) {
  if (absl::Status s = CheckInSpace(interval); !s.ok()) co_return s;
  Search search{.key = interval.first, .deadline = deadline};
  for (int leaves = 1; search.key < interval.end; ++leaves) {
    absl::Status reached = co_await Descend(&search, 0);
    if (!reached.ok()) {
      absl::Status again = co_await Retry(&search, std::move(reached));
      if (!again.ok()) co_return again;
      continue;
    }
    const auto leaf = DirectoryPageView::Of(*search.path.back().content);
    const PageInterval here = Intersect({search.key, interval.end}, leaf->keys());
    std::vector<DirectoryEntry> runs;
    AppendRunsIn(*leaf, here, &runs);
    if (!visit(PathOf(search), runs)) break;
    search.key = here.end;
    search.restarts = 0;
    if (leaves % kPagesAtOnce == 0) co_await YieldTo(clock_);
    if (clock_->Now() >= deadline) co_return absl::DeadlineExceededError("reading the directory took too long");
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::vector<DirectoryEntry>>> DirectoryTree::List(PageInterval interval, size_t most,
                                                                      TimeNs deadline) {
  RunCollector runs;
  const auto collect = [&runs, most](const std::vector<PathStep>&, const std::vector<DirectoryEntry>& of_leaf) {
    runs.Append(of_leaf);
    return runs.size() < most;
  };
  const absl::Status visited = co_await Visit(interval, collect, deadline);
  if (!visited.ok()) co_return visited;
  std::vector<DirectoryEntry> all = co_await runs.Take(most, clock_);
  co_return all;
}

}  // namespace mangrove
