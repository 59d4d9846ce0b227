// Opens a page from its core holders' disks.
//
// A page whose last owner let go of what every core holder has: one copy will do, this node's own if it is a core holder.
// Otherwise (this node has become responsible for it, or the owner was lost) the holders may differ: every one is asked, and sealed against
// late stores of the lost owner; the newest version is completed on all that answer, and only then handed out. Where a
// holder is absent, what it has may be newer still, though never acknowledged: so the page is written again under a
// version that beats it.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

absl::Status NotAllocated(PageId page) {
  return absl::FailedPreconditionError(absl::StrCat("page ", ToString(page), " is not allocated"));
}

// What a page's core holders said.
struct Answers {
  std::optional<Message> newest;
  absl::Status absent;  // Of one that did not answer, and may have anything.
  NodeId absent_node;
  absl::Status corrupt;    // Of one whose record is.
  bool unknowing = false;  // One has no record, and that means nothing.
  bool is_free = false;    // One keeps no such page: its unallocation got as far as that.
};

bool IsAbsent(const Message& answer) {
  const absl::Status status = answer.status();
  return !status.ok() && !absl::IsNotFound(status) && !absl::IsDataLoss(status);
}

void Count(const Message& answer, NodeId holder, Answers& all) {
  const absl::Status status = answer.status();
  if (absl::IsDataLoss(status)) {
    all.corrupt = status;
  } else if (IsAbsent(answer)) {
    all.absent = status;
    all.absent_node = holder;
  } else if (absl::IsNotFound(status)) {
    all.is_free = true;
  } else if (status.ok() && !answer.complete) {
    all.unknowing = true;
  } else if (status.ok()) {
    const bool newer = !all.newest || all.newest->version < answer.version || (!all.newest->have && answer.have);
    if (newer) all.newest = answer;
  }
}

// Nothing waits for what was to be read: while it does the segment stays.
absl::Status NotResponsibleAnyMore(PageId page) {
  return absl::UnavailableError(absl::StrCat("another node is responsible for page ", ToString(page), " by now"));
}

absl::Status LostWithDisks(PageId page) {
  return absl::DataLossError(
      absl::StrCat("page ", ToString(page), " is lost: each of its core holders has lost its disk since"));
}

// The answer that has it, or why none has. Zeros are a version, too.
absl::StatusOr<Message> NewestOf(PageId page, const std::vector<Message>& answers, const Answers& all) {
  std::optional<Message> newest = all.newest;
  // Whatever was handed out while others were absent is on the primary's disk: without it, what they have may be older.
  if (IsAbsent(answers.front())) return absl::UnavailableError(answers.front().text);
  if (!newest && !all.absent.ok()) return absl::UnavailableError(all.absent.message());
  if (!newest && !all.corrupt.ok()) return all.corrupt;
  // No core holder was there from the start: they all lost their disks, or it is a system page of a new cluster.
  if (!newest && all.unknowing && !all.is_free) {
    if (!TouchesSystemPages({page, 1})) return LostWithDisks(page);
    newest = *std::find_if(answers.begin(), answers.end(), [](const Message& m) { return m.status().ok(); });
  }
  if (!newest) return NotAllocated(page);
  if (newest->is_volatile) {
    return absl::DataLossError(
        absl::StrCat("page ", ToString(page), " is volatile, and the node that held it is gone"));
  }
  return *std::move(newest);
}

}  // namespace

void PageEngine::StartLoad(const HomeEffect& effect) {
  const PageId page = effect.message.page;
  const Txn txn = effect.message.txn;
  auto done = [this, page, txn, losses = disk_losses_, alive = alive_](absl::StatusOr<LoadedPage> loaded) {
    if (!*alive || !IsResponsibleFor(page)) return;
    if (loaded.ok() && losses != disk_losses_) loaded->absent = lost_disk_;  // It may have answered before.
    Turn turn(this);
    std::vector<HomeEffect> effects;
    HomeEntry& entry = Home(page);
    if (loaded.ok()) {
      StepHomeLoaded(entry, txn, *loaded, HomeContextOf(page), effects);
    } else {
      const bool was_lost = entry.state == HomeState::kLost;
      StepHomeLoadFailed(entry, txn, loaded.status(), HomeContextOf(page), effects);
      if (!was_lost && entry.state == HomeState::kLost && !IsRamDirectoryPage(page)) {
        Message news;
        news.kind = MessageKind::kLost;
        news.page = page;
        Broadcast(std::move(news));
      }
    }
    CarryHome(page, effects);
  };
  // Not from inside the step that asked for it.
  clock_->CallSoon([this, page, recover = effect.recover, version_only = effect.version_only, done = std::move(done),
                    alive = alive_]() mutable {
    if (!*alive) return;
    Spawn<absl::StatusOr<LoadedPage>>(OpenFromDisk(page, recover, version_only), std::move(done));
  });
}

std::vector<Outcome<Message>> PageEngine::AskHolders(PageId page, uint32_t replicas, bool seal, bool with_data) {
  Message query;
  query.kind = MessageKind::kQueryStored;
  query.page = page;
  query.grant_epoch = grant_epoch_;
  query.seal = seal;
  query.with_data = with_data;
  std::vector<Outcome<Message>> outcomes;
  Turn turn(this);
  const TimeNs deadline = clock_->Now() + options_.holder_timeout;
  for (NodeId holder : locator_->CoreHolders(page, replicas)) {
    if (IsHere(holder)) {
      outcomes.push_back(StartCall(holder, query, deadline, options_.resend_after));
    } else {
      Message away = query;
      away.SetStatus(IsAwayStatus(holder));
      outcomes.emplace_back(clock_).Set(std::move(away));
    }
  }
  return outcomes;
}

Task<absl::StatusOr<LoadedPage>> PageEngine::OpenFromDisk(PageId page, bool recover, bool version_only) {
  if (IsRamDirectoryPage(page)) co_return co_await OpenDirectoryPage(page, version_only);
  if (!MayOpen(page)) co_return NotResponsibleAnyMore(page);
  if (IsDiscarded(page)) co_return NotAllocated(page);
  const absl::StatusOr<HomeExtent> found = co_await ExtentOf(page);
  if (absl::IsNotFound(found.status())) co_return NotAllocated(page);
  if (!found.ok()) co_return found.status();
  if (!MayOpen(page)) co_return NotResponsibleAnyMore(page);
  HomeSegment& segment = Segment(page);
  const bool fresh = segment.fresh[page - SegmentStart(page)];
  segment.fresh.reset(page - SegmentStart(page));  // It may be stored from now on.
  if (fresh && !version_only) {
    co_return LoadedPage{
        .config = found->config, .replicas = found->is_volatile ? 0 : found->replicas, .data = nullptr};
  }
  if (!recover) {
    if (found->is_volatile) co_return LoadedPage{.config = found->config, .data = nullptr};
    absl::StatusOr<LoadedPage> one = co_await OpenOneCopy(page, found->replicas);
    if (one.ok()) co_return one;
    if (absl::IsDataLoss(one.status())) LogWarning(one.status().message(), "; it is read from another core holder");
  }
  // It may have been unallocated meanwhile.
  if (FindHomeExtent(page) == nullptr || IsDiscarded(page)) co_return NotAllocated(page);
  std::vector<Outcome<Message>> outcomes = AskHolders(page, found->replicas, recover, !version_only);
  const std::vector<NodeId> holders = locator_->CoreHolders(page, static_cast<uint32_t>(outcomes.size()));
  std::vector<Message> answers;
  Answers all;
  for (Outcome<Message>& outcome : outcomes) {
    answers.push_back(co_await outcome.Get());
    Count(answers.back(), holders[answers.size() - 1], all);
  }
  if (!MayOpen(page)) co_return NotResponsibleAnyMore(page);
  absl::StatusOr<Message> newest = NewestOf(page, answers, all);
  if (!newest.ok()) co_return newest.status();
  LoadedPage loaded{
      .version = newest->version, .config = newest->config, .replicas = newest->replicas, .data = newest->data};
  if (version_only) {
    // A copy that survived is compared with what the disks have. What an absent one has may be newer, and would come back
    // when that copy is lost too.
    if (!all.absent.ok()) co_return absl::UnavailableError(all.absent.message());
    co_return loaded;
  }
  const bool skip = options_.bugs && options_.bugs->skip_completion;
  // Completed since the last loss already, and not written since: what an absent one has is older.
  const Epoch complete_since = std::max(last_loss_, Segment(page).since);
  const bool is_completion = newest->version.counter == 0 && newest->version.epoch > complete_since;
  if (!all.absent.ok() && recover && !skip && !is_completion) {
    grant_epoch_ = std::max(grant_epoch_, newest->version.epoch);
    BumpGrantEpoch();  // A number of its own for each attempt: another may have stored other content.
    newest->version = Version{grant_epoch_, 0};
  }
  if (!skip) {
    const absl::Status completed = co_await Complete(page, *newest, answers);
    if (!completed.ok()) co_return completed;
  }
  loaded.version = newest->version;
  if (!skip) loaded.absent = all.absent_node;
  co_return loaded;
}

// From this node's own disk, or else from the first core holder's.
Task<absl::StatusOr<LoadedPage>> PageEngine::OpenOneCopy(PageId page, uint32_t replicas) {
  Message query;
  query.kind = MessageKind::kQueryStored;
  query.page = page;
  query.with_data = true;
  const std::vector<NodeId> holders = locator_->CoreHolders(page, replicas);
  Outcome<Message> outcome(clock_);
  if (std::find(holders.begin(), holders.end(), options_.self.node) != holders.end()) {
    core_.Handle(query, [outcome](Message answer) mutable { outcome.Set(std::move(answer)); });
  } else {
    const auto there = std::find_if(holders.begin(), holders.end(), [this](NodeId node) { return IsHere(node); });
    if (there == holders.end()) co_return IsAwayStatus(holders.front());
    outcome = StartCall(*there, query, clock_->Now() + options_.holder_timeout, options_.resend_after);
  }
  const Message answer = co_await outcome.Get();
  if (!answer.status().ok()) co_return answer.status();
  if (!answer.complete) co_return absl::UnavailableError("not known there");
  co_return LoadedPage{
      .version = answer.version, .config = answer.config, .replicas = answer.replicas, .data = answer.data};
}

// Writes the newest version to every holder that answered and has an older one, or none, or a corrupt one.
Task<absl::Status> PageEngine::Complete(PageId page, const Message& newest, const std::vector<Message>& answers) {
  if (newest.version == Version{}) co_return absl::OkStatus();  // Zeros everywhere.
  const std::vector<NodeId> holders = locator_->CoreHolders(page, static_cast<uint32_t>(answers.size()));
  std::vector<NodeId> behind;
  std::vector<NodeId> ignorant;
  for (size_t i = 0; i < answers.size(); ++i) {
    const absl::Status status = answers[i].status();
    if (!status.ok() && !absl::IsNotFound(status) && !absl::IsDataLoss(status)) continue;
    if (absl::IsNotFound(status)) ignorant.push_back(holders[i]);
    if (!status.ok() || answers[i].version < newest.version) behind.push_back(holders[i]);
  }
  const TimeNs deadline = clock_->Now() + 2 * kSecond;
  const HomeExtent* extent = FindHomeExtent(page);
  if (!ignorant.empty() && extent != nullptr) {
    Message put;
    put.kind = MessageKind::kPutExtent;
    put.page = extent->range.first;
    put.count = extent->range.count;
    put.config = extent->config;
    put.replicas = extent->replicas;
    put.complete = true;
    const absl::Status status = co_await CallAll(ignorant, put, deadline);
    if (absl::IsUnavailable(status))
      co_return status;  // Otherwise it has learned of it meanwhile: the store will tell.
  }
  if (behind.empty()) co_return absl::OkStatus();
  Message store;
  store.kind = MessageKind::kStore;
  store.page = page;
  store.version = newest.version;
  store.config = newest.config;
  store.replicas = newest.replicas;
  store.complete = true;
  store.data = newest.data ? newest.data : std::make_shared<PageBytes>();
  const absl::Status status = co_await CallAll(behind, store, deadline);
  co_return status;
}

}  // namespace mangrove
