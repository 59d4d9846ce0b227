// The operation behind every access: which pages lack the right, ask for all of them at once, wait.

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

// Of pages that nobody waits for.
constexpr DurationNs kAheadTimeout = kSecond;
constexpr size_t kPagesOfATurn = 64;
// An exchange takes much less, also where the page is held for its minimum time.
constexpr DurationNs kMigratoryPatience = 20 * kMillisecond;

}  // namespace

Rights PageEngine::RightsOf(PageId page) const {
  if (Serves()) return RightsHere(page);
  const bool is_read = fenced_ && !stopped_ && stale_reads_.Serve(page);  // V5
  const Rights most = options_.bugs->write_without_quorum ? Rights::kWrite : Rights::kRead;
  return is_read ? std::min(RightsHere(page), most) : Rights::kNone;
}

// Those that it has when this node has a lease.
Rights PageEngine::RightsHere(PageId page) const {
  const CachedPage* cached = FindCached(page);
  if (cached == nullptr || cached->carrying) return Rights::kNone;
  return cached->entry.HasWrite() ? Rights::kWrite : cached->entry.HasRead() ? Rights::kRead : Rights::kNone;
}

bool PageEngine::HasRights(PageId page, Rights rights) const { return RightsOf(page) >= rights; }

bool PageEngine::HasRights(PageRange block, Rights rights) const {
  uint64_t here = 0;
  while (here < block.count && HasRights(block.first + here, rights)) ++here;
  return here == block.count;
}

void PageEngine::Load(PageId page, size_t offset, std::span<std::byte> out) {
  CHECK(RightsHere(page) >= Rights::kRead);
  FindCached(page)->referenced = true;
  MemoryOf(page)->Load(page, offset, out);
}

void PageEngine::Store(PageId page, size_t offset, std::span<const std::byte> bytes) {
  // Locked and flushed meanwhile: the next version begins.
  if (RightsHere(page) < Rights::kWrite && FindCached(page)->entry.state == CacheState::kExclusive) {
    LocalEvent(page, CacheEvent::kWantWrite);
  }
  CHECK(RightsHere(page) >= Rights::kWrite);
  MemoryOf(page)->Store(page, offset, bytes);
}

void BlockWait::Set(PageId page, const absl::Status& status) {
  if (!status.ok()) failed.emplace_back(page, status);
  const bool ends = !status.ok() && !absl::IsAborted(status) && ends_at_error;
  if (--left == 0 || ends) over.Set(true);
}

// What `wait` gets is OK when the page has had `rights`, Aborted when it must be asked for again: it came with less, or a
// request was refused that was older than this wish, and the reason may be over.
void PageEngine::Want(PageRange range, Rights rights, TimeNs deadline, const std::shared_ptr<BlockWait>& wait) {
  for (uint64_t i = 0; i < range.count; ++i) {
    const PageId page = range.first + i;
    CachedPage& cached = Cached(page);
    cached.referenced = true;
    ++wait->left;
    WorkOf(cached).waiters.push_back({wait, page, deadline, rights, cached.entry.IsWaiting()});
    if (cached.carrying) LookAt(page, cached, deadline);
  }
  LocalEvents(range, rights == Rights::kWrite ? CacheEvent::kWantWrite : CacheEvent::kWantRead);
}

// In one turn, and neighbours at once. `again` gets those for which there is no room.
void PageEngine::WantSome(std::span<const PageId> pages, const Wish& wish, PageList& asked, PageList& again) {
  Turn turn(this);
  PageRange run;
  uint64_t uncharged = 0;  // Of the run.
  bool migrates = false;
  const auto want = [&] {
    const TimeNs deadline = migrates ? std::min(wish.deadline, wish.migrate_until) : wish.deadline;
    uncharged = 0;
    Want(std::exchange(run, {}), migrates ? Rights::kWrite : wish.rights, deadline, wish.wait);
  };
  for (const PageId page : pages) {
    const CachedPage* cached = FindCached(page);
    const bool charged = cached != nullptr && cached->charged;
    if (!charged && !HasRoom(uncharged)) {
      again.push_back(page);
      continue;
    }
    const bool page_migrates = wish.may_migrate && migratory_.Contains(page);
    if (run.count > 0 && (page != run.end() || page_migrates != migrates)) want();
    if (run.count == 0) run.first = page;
    migrates = page_migrates;
    ++run.count;
    uncharged += charged ? 0 : 1;
    asked.push_back(page);
  }
  want();
}

// The part of `range` from its page `done` on that an operation has in hand at a time. It lies in one segment.
PageRange PageEngine::BlockOf(PageRange range, uint64_t done) {
  static_assert(kSegmentPages % kBlockPages == 0);
  const PageId first = range.first + done;
  const uint64_t into_block = absl::Uint128Low64(first.value) % kBlockPages;
  return {first, std::min(range.count - done, kBlockPages - into_block)};
}

// Between two blocks: may the operation, which has done so much of its range, go on?
absl::Status PageEngine::CheckGoesOn(const char* what, PageRange range, uint64_t done, TimeNs deadline) const {
  if (stopped_) return stopped_status_;
  if (clock_->Now() < deadline) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(done, " of the ", range.count, " pages from ", ToString(range.first),
                                                  " on were ", what,
                                                  " in the given time; take smaller ranges, or give it more time"));
}

absl::Status PageEngine::CheckFits(PageRange range) const {
  if (range.count <= options_.cache_pages) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("a range of ", range.count,
                                                   " pages does not fit into the RAM cache of ", options_.cache_pages,
                                                   " pages; take smaller ranges, or give the node a larger cache"));
}

Task<absl::Status> PageEngine::Acquire(PageRange range, Rights rights, TimeNs deadline) {
  const bool is_block = BlockOf(range, 0).count == range.count && CheckFits(range).ok();
  return is_block ? AcquireBlock(range, rights, Purpose::kAccess, deadline) : AcquireBlocks(range, rights, deadline);
}

Task<absl::Status> PageEngine::AcquireBlocks(PageRange range, Rights rights, TimeNs deadline) {
  absl::Status status = CheckFits(range);
  for (uint64_t done = 0; status.ok() && done < range.count;) {
    const PageRange block = BlockOf(range, done);
    status = co_await AcquireBlock(block, rights, Purpose::kAccess, deadline);
    done += block.count;
    if (!status.ok() || done == range.count) break;
    co_await YieldTo(clock_);
    // What is here already takes no time.
    status = CheckGoesOn("brought here", range, done, HasRights(BlockOf(range, done), rights) ? kForever : deadline);
  }
  co_return status;
}

Task<absl::Status> PageEngine::AcquireBlock(PageRange block, Rights rights, Purpose purpose, TimeNs deadline) {
  PageList missing;
  for (uint64_t i = 0; i < block.count; ++i) {
    const PageId page = block.first + i;
    if (!HasRights(page, rights)) {
      missing.push_back(page);
    } else {
      FindCached(page)->referenced = true;
    }
  }
  // Once, and not for long: a lock somewhere, or a node that is away, may keep the right to store from being had, but not a
  // copy.
  bool may_migrate = purpose == Purpose::kAccess && rights == Rights::kRead;
  const TimeNs migrate_until = clock_->Now() + kMigratoryPatience;
  bool first_try = true;
  while (!missing.empty()) {
    if (stopped_) co_return stopped_status_;
    if (fenced_ || !HasLeaseNow()) {
      const absl::Status status = co_await WaitForLeaseOn(block.first, deadline);
      if (!status.ok()) co_return status;
    }
    if (!IsLocated(block.first)) {
      const absl::Status status = co_await Locate(block.first, deadline);
      if (!status.ok()) co_return status;
    }
    PageList again;
    PageList asked;
    const auto wait = std::make_shared<BlockWait>(Outcome<bool>(clock_));
    wait->ends_at_error = !may_migrate;
    // In some turns, so that others are at work while this node goes on to ask.
    for (size_t begin = 0; begin < missing.size(); begin += kPagesOfATurn) {
      const auto some = std::span(missing).subspan(begin, std::min(kPagesOfATurn, missing.size() - begin));
      WantSome(some, {rights, may_migrate, migrate_until, deadline, wait}, asked, again);
    }
    // Now that the requests are out.
    if (asked.size() == 1) Expect(asked.front());  // Of several the frames are filled faster than made.
    const bool goes_ahead = purpose != Purpose::kAhead && !IsRamDirectoryPage(block.first) &&
                            (purpose == Purpose::kLock || rights == Rights::kRead);
    if (std::exchange(first_try, false) && goes_ahead) BringAhead(block, rights);
    if (--wait->left > 0) co_await wait->over.Get();
    const bool in_time = clock_->Now() < deadline;
    for (const auto& [page, status] : wait->failed) {
      if (!absl::IsAborted(status) && !(in_time && may_migrate && migratory_.Contains(page))) co_return status;
      again.push_back(page);
    }
    may_migrate = false;
    if (asked.empty()) {
      const absl::Status status = co_await WaitForRoom(deadline);
      if (!status.ok()) co_return status;
    }
    if (!again.empty() && clock_->Now() >= deadline) {
      co_return absl::UnavailableError(
          absl::StrCat("page ", ToString(again.front()), " did not stay long enough to be used; try again"));
    }
    missing = std::move(again);
  }
  co_return absl::OkStatus();
}

// The region of the page, if it is known here; else no pages.
PageRange PageEngine::KnownRange(PageId page) const {
  const auto next = fetched_.upper_bound(page.value);
  if (next == fetched_.begin()) return {};
  const PageRange range = std::prev(next)->second.first;
  return range.Contains(page) ? range : PageRange{};
}

bool PageEngine::IsMostlyHere(PageRange block) const {
  constexpr uint64_t kEvery = 16;
  for (uint64_t i = kEvery / 2; i < block.count; i += kEvery) {
    if (!HasRights(block.first + i, Rights::kRead)) return false;
  }
  return true;
}

// Who goes through block after block, in whatever order within each, as memmove may: the block that is begun, and those that
// come next.
std::vector<PageRange> PageEngine::BlocksAhead(PageId accessed) {
  const PageRange block{PageId(accessed.value - absl::Uint128Low64(accessed.value) % kBlockPages), kBlockPages};
  if (block == last_block_) return {};
  const PageRange before = std::exchange(last_block_, block);
  const bool whole = before.count > 0 && IsMostlyHere(before);
  std::vector<PageRange> ranges =
      read_ahead_blocks_.OnAccess(block, whole ? read_ahead_blocks_.max_pages() - ahead_pages_ : 0);
  if (!ranges.empty()) ranges.insert(ranges.begin(), block);
  return ranges;
}

// Nobody waits for these: what cannot be had is not. Whoever locks whole blocks in order gets the next with the same right. All
// else comes as a copy: by a guess this node must not become the owner of what others have not flushed, and lose it with itself.
void PageEngine::BringAhead(PageRange accessed, Rights rights) {
  if (accessed.count < kBlockPages) rights = Rights::kRead;
  const PageRange region = KnownRange(accessed.first);
  std::vector<PageRange> ranges;
  if (accessed.count < kBlockPages) ranges = BlocksAhead(accessed.first);
  if (ranges.empty()) ranges = read_ahead_.OnAccess(accessed, read_ahead_.max_pages() - ahead_pages_);
  for (const PageRange& range : ranges) {
    if (!range.Overlaps(region)) continue;
    const PageId first = std::max(range.first, region.first);
    const PageRange inside{first, std::min(range.end(), region.end()) - first};
    std::vector<PageRange> blocks;
    for (uint64_t done = 0; done < inside.count; done += blocks.back().count) blocks.push_back(BlockOf(inside, done));
    if (first < accessed.first) std::reverse(blocks.begin(), blocks.end());
    for (const PageRange& block : blocks) {
      if (ahead_pages_ + block.count > read_ahead_.max_pages()) break;
      ahead_pages_ += block.count;
      Spawn<absl::Status>(AcquireBlock(block, rights, Purpose::kAhead, clock_->Now() + kAheadTimeout),
                          [this, alive = alive_, pages = block.count](const absl::Status&) {
                            if (*alive) ahead_pages_ -= pages;
                          });
    }
  }
}

void PageEngine::Expect(PageId page) {
  CachedPage* cached = FindCached(page);
  if (cached == nullptr || cached->expected || !cached->entry.IsWaiting() || cached->entry.HasRead()) return;
  if (cached->carrying) return;  // Its frame is being taken away.
  cached->expected = true;
  MemoryOf(page)->Expect(page);
}

// `delayed_by`: whom the page waits for, if that is known.
absl::Status PageEngine::TimeoutStatus(PageId page, NodeId delayed_by, Rights rights) const {
  if (const absl::Status status = CheckQuorum(page); !status.ok()) return status;
  if (!Serves()) return NoLeaseStatus();
  const NodeId culprit = delayed_by.value != 0 ? delayed_by : ResponsibleFor(page);
  const std::string what =
      absl::StrCat(rights == Rights::kWrite ? "write" : "read", " access to page ", ToString(page));
  if (culprit == options_.self.node || up_.contains(culprit)) {
    return absl::DeadlineExceededError(
        absl::StrCat(what, ": ", ToString(culprit), " holds it, or a lock on it, for too long"));
  }
  return absl::UnavailableError(
      absl::StrCat(what, " needs ", ToString(culprit), ", which does not answer; start it, or try again later"));
}

}  // namespace mangrove
