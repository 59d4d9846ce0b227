// Compares this disk's pages with those of another one, and takes over what is not the same (U2, U5).

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/catch_up.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr DurationNs kAnswerIn = 2 * kSecond;
constexpr size_t kVersionsAtOnce = 1024;

// Of a page that comes to `self` with a move: disks that keep it now, and are away or behind. What they have goes with the move's end.
std::vector<NodeId> OthersThatMayHave(const Disks& disks, const View& view, NodeId self, PageId page,
                                      uint32_t replicas) {
  if (!disks.Gains(self, page, replicas)) return {};
  std::vector<NodeId> nodes = disks.Holders(page, replicas);
  std::erase_if(nodes, [&](NodeId node) { return disks.IsCurrent(node) || view.lost.contains(node); });
  return nodes;
}

}  // namespace

Message CatchUp::AskOf(PageId page) {
  Message query;
  query.kind = MessageKind::kQueryStored;
  query.page = page;
  query.with_data = true;
  return query;
}

// `part`: of which `listed` says all.
Task<absl::Status> CatchUp::TakePages(NodeId source, Pass pass, std::vector<StoredVersion> listed, PageInterval part) {
  const uint64_t round = round_;
  const PageIntervals now = co_await ToCompare(source, pass, part);
  if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
  std::erase_if(listed, [&](const StoredVersion& stored) { return !now.Contains(stored.page); });
  progress_.pages_compared += listed.size();
  NoteRate();
  auto next = listed.begin();
  while (part.first < part.end) {
    absl::StatusOr<Part> here = co_await VersionsHere(part, WhatToWaitFor());
    if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
    if (!here.ok()) co_return here.status();
    std::erase_if(here->versions, [&](const auto& own) { return !now.Contains(own.first); });
    std::vector<StoredVersion> of_part;
    while (next != listed.end() && next->page < here->end) of_part.push_back(*next++);
    absl::Status taken = co_await TakeDiffering(source, of_part, here->versions);
    if (taken.ok()) taken = CheckGoesOn(round);
    if (!taken.ok()) co_return taken;
    part.first = here->end;
  }
  // What it has not need not have been dropped here then.
  if (!engine_->disks_.IsCurrent(source)) {
    co_return absl::AbortedError(absl::StrCat(ToString(source), "'s disk does not count any more"));
  }
  for (const PageInterval& compared : now.All()) compared_with_[source].Add(compared);
  co_return absl::OkStatus();
}

Task<absl::Status> CatchUp::TakeDiffering(NodeId source, const std::vector<StoredVersion>& listed,
                                          const Versions& here) {
  const uint64_t round = round_;
  const std::vector<StoredVersion> wanted = Differing(listed, here);
  for (size_t begin = 0; begin < wanted.size(); begin += CopiesAtOnce()) {
    const size_t end = std::min(begin + CopiesAtOnce(), wanted.size());
    std::vector<StoredVersion> some(wanted.begin() + static_cast<ptrdiff_t>(begin),
                                    wanted.begin() + static_cast<ptrdiff_t>(end));
    absl::Status status = co_await WaitForTurn(some.size());
    if (status.ok()) status = CheckGoesOn(round);
    if (!status.ok()) co_return status;
    status = co_await Copy(source, std::move(some));
    NoteRate();
    if (status.ok()) status = CheckGoesOn(round);
    if (!status.ok()) co_return status;
  }
  const absl::Status dropped = co_await DropPages(source, listed, here);
  co_return dropped;
}

// Those that are to be copied; of the others that are not as they are here nobody can be asked but at the end.
std::vector<StoredVersion> CatchUp::Differing(const std::vector<StoredVersion>& listed, const Versions& here) {
  std::vector<StoredVersion> wanted;
  for (const StoredVersion& stored : listed) {
    const auto own = here.find(stored.page);
    if (engine_->core_.WasStoredSince(stored.page)) continue;
    if (own != here.end() && stored.version == own->second && own->second != kUnknownVersion) continue;
    if (engine_->options_.bugs->trust_old_disk && own != here.end() && stored.version < own->second) continue;
    if (stored.is_unreadable) {
      unreadable_.emplace(stored.page, stored.version);
    } else {
      wanted.push_back(stored);
    }
  }
  return wanted;
}

// What the source would have to have, and has not: what is here was never acknowledged.
Task<absl::Status> CatchUp::DropPages(NodeId source, const std::vector<StoredVersion>& listed, const Versions& here) {
  std::vector<PageId> pages;
  auto next = listed.begin();
  for (const auto& [page, version] : here) {
    while (next != listed.end() && next->page < page) ++next;
    const Extent* const extent = engine_->core_.Find(page);
    const bool is_listed = next != listed.end() && next->page == page;
    if (is_listed || extent == nullptr || extent->is_volatile) continue;
    const Disks& disks = engine_->disks_;
    const bool is_known = disks.IsCurrent(source) && disks.Keeps(source, page, extent->replicas);
    if (!is_known || !disks.Learns(engine_->options_.self.node, page, extent->replicas)) continue;
    pages.push_back(page);
  }
  if (pages.empty()) co_return absl::OkStatus();
  auto [outcome, done] = Await<absl::Status>();
  engine_->core_.DeletePages(pages, std::move(done));
  const absl::Status deleted = co_await outcome.Get();
  co_return deleted;
}

// U8
PageStore::Listed CatchUp::WhatToWaitFor() const {
  return saw_all_in_ == round_ ? PageStore::Listed::kNoWait : PageStore::Listed::kAll;
}

// One look into the store, from the part's first page on that is in an extent.
Task<absl::StatusOr<CatchUp::Part>> CatchUp::VersionsHere(PageInterval part, PageStore::Listed what) {
  const PageId first = FirstKept(part.first);
  if (first == PageId{} || part.end <= first) co_return Part{.end = part.end, .versions = {}};
  const absl::uint128 count = part.end.value - first.value;
  const PageRange range{first, static_cast<uint64_t>(std::min<absl::uint128>(count, UINT64_MAX))};
  auto [outcome, done] = Await<absl::StatusOr<PageList>>();
  const uint64_t round = round_;
  engine_->store_->ListPages(range, kVersionsAtOnce, what, std::move(done));
  const absl::StatusOr<PageList> list = co_await outcome.Get();
  if (!list.ok()) co_return list.status();
  if (what == PageStore::Listed::kAll) saw_all_in_ = round;
  Part here{.end = list->next == PageId{} ? range.end() : list->next, .versions = {}};
  for (const StoredPage& stored : list->pages) {
    const Extent* const extent = engine_->core_.Find(stored.page);
    const bool counts = extent != nullptr && extent->config == stored.config && stored.version != Version{} &&
                        !engine_->core_.IsUnreadable(stored.page) && !engine_->core_.IsBeingStored(stored.page);
    here.versions[stored.page] = counts ? stored.version : kUnknownVersion;
  }
  co_return here;
}

Task<absl::Status> CatchUp::Copy(NodeId source, std::vector<StoredVersion> pages) {
  const uint64_t round = round_;
  std::vector<Outcome<Message>> asked;
  {
    PageEngine::Turn turn(engine_);
    const TimeNs deadline = engine_->clock_->Now() + kAnswerIn;
    for (const StoredVersion& page : pages) {
      asked.push_back(engine_->StartCall(source, AskOf(page.page), deadline, 10 * engine_->options_.resend_after));
    }
  }
  absl::Status status;
  std::vector<Outcome<Message>> stores;
  for (size_t i = 0; i < asked.size(); ++i) {
    const Message answer = co_await asked[i].Get();
    if (round != round_) {
      if (status.ok()) status = CheckGoesOn(round);
    } else if (absl::IsDataLoss(answer.status())) {
      unreadable_.emplace(pages[i].page, pages[i].version);
    } else if (absl::IsNotFound(answer.status())) {
      continue;  // Dropped meanwhile.
    } else if (!answer.status().ok()) {
      if (status.ok()) status = answer.status();
    } else if (!answer.complete) {
      if (status.ok()) status = absl::AbortedError("the other disk is in doubt itself");
    } else if (answer.have) {
      stores.push_back(Here(CompletionOf(pages[i].page, answer)));
    }
  }
  for (Outcome<Message>& store : stores) {
    const Message stored = co_await store.Get();
    if (stored.code == absl::StatusCode::kFailedPrecondition) continue;  // Dropped meanwhile.
    if (!stored.status().ok() && status.ok()) status = stored.status();
    if (stored.status().ok()) ++progress_.pages_copied;
  }
  co_return status;
}

// U5. Another disk may be able to read what one could not. Of what stays open `uncovered_` says whose disks have to be current first.
Task<absl::Status> CatchUp::Settle() {
  const uint64_t round = round_;
  uncovered_.clear();
  for (const auto& [page, version] : std::map<PageId, Version>(unreadable_)) {
    const absl::StatusOr<bool> copied = co_await CopyFromAny(page);
    if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
    if (!copied.ok()) co_return copied.status();
    if (!*copied) {
      const absl::StatusOr<Part> here = co_await VersionsHere({page, page + 1});
      if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
      if (!here.ok()) co_return here.status();
      const auto own = here->versions.find(page);
      const bool is_here = own != here->versions.end() && own->second == version && version != kUnknownVersion;
      const Extent* const extent = engine_->core_.Find(page);
      if (!is_here && extent != nullptr && !engine_->core_.WasStoredSince(page)) {
        const std::vector<NodeId> others =
            OthersThatMayHave(engine_->disks_, engine_->view_, engine_->options_.self.node, page, extent->replicas);
        uncovered_.insert(others.begin(), others.end());
        if (!others.empty()) continue;
        auto [marked, done] = Await<absl::Status>();
        engine_->core_.MarkLost(page, version, std::move(done));
        absl::Status status = co_await marked.Get();
        if (status.ok()) status = CheckGoesOn(round);
        if (!status.ok()) co_return status;
        ++progress_.pages_lost;
      }
    }
    unreadable_.erase(page);
  }
  co_return absl::OkStatus();
}

// From any current disk but this one. False: none can read it.
Task<absl::StatusOr<bool>> CatchUp::CopyFromAny(PageId page) {
  const uint64_t round = round_;
  absl::Status turn = co_await WaitForTurn(1);
  if (turn.ok()) turn = CheckGoesOn(round);
  if (!turn.ok()) co_return turn;
  const Extent* const extent = engine_->core_.Find(page);
  if (extent == nullptr) co_return true;  // Dropped meanwhile.
  for (NodeId node : engine_->disks_.Current(page, extent->replicas)) {
    const TimeNs deadline = engine_->clock_->Now() + kAnswerIn;
    Outcome<Message> outcome = engine_->StartCall(node, AskOf(page), deadline, engine_->options_.resend_after);
    const Message answer = co_await outcome.Get();
    if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
    if (absl::IsDataLoss(answer.status())) continue;
    if (!answer.status().ok() && !absl::IsNotFound(answer.status())) co_return answer.status();
    // It has no record, and would have one if there were any (D2): the list was older.
    if (answer.status().ok() && answer.complete && !answer.have) co_return true;
    if (!answer.status().ok() || !answer.have) continue;
    Outcome<Message> store = Here(CompletionOf(page, answer));
    const Message stored = co_await store.Get();
    if (!stored.status().ok() && stored.code != absl::StatusCode::kFailedPrecondition) co_return stored.status();
    co_return true;
  }
  co_return false;
}

}  // namespace mangrove
