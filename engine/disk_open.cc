// Opens a page from the disks that keep it (engine/disks.h).
//
// A page whose last owner let go of what every disk has: one copy will do, this node's own if it is current.
// Otherwise (this node has become responsible for it, or the owner was lost) the disks may differ: every one in the view is asked, and
// sealed against late stores of the lost owner; the newest version is completed on all of them, and only then handed out. What a
// holder has that is not in the view is void (D3).
//
// A record that is corrupt where a current disk has none was never acknowledged, and gives way to one of zeros on all of them as soon
// as the page is opened: whoever catches up with the corrupt one alone could not tell, and would hold the page lost.

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

absl::Status NotAllocated(PageId page) {
  return absl::FailedPreconditionError(absl::StrCat("page ", ToString(page), " is not allocated"));
}

// Zeros that disks have a record of: newer than none, and older than all that is ever written.
constexpr Version kRecordedZeros{.epoch = Epoch(0), .counter = 1};

// How long a page that waits for a disk is waited for: longer than a node that has died stays in the view.
constexpr DurationNs kPatience = 4 * kSecond;
constexpr DurationNs kTryAgain = 20 * kMillisecond;

// What those said that keep the page on disk.
struct Answers {
  std::optional<Message> newest;
  absl::Status silent;        // Of one that did not answer, and may have anything.
  absl::Status corrupt;       // Of one whose record is.
  bool from_current = false;  // A disk that is current was among those that can read it.
  bool unknowing = false;     // One has no record, and that means nothing.
  bool is_free =
      false;  // A current one keeps no such page: it is not allocated, or its unallocation got as far as that.
};

void Count(const Message& answer, bool is_current, Answers& all) {
  const absl::Status status = answer.status();
  if (absl::IsDataLoss(status)) {
    all.corrupt = status;
  } else if (absl::IsNotFound(status)) {
    all.is_free = all.is_free || is_current;
  } else if (!status.ok()) {
    all.silent = status;
  } else if (!answer.complete) {
    all.unknowing = all.unknowing || is_current;  // One that is behind, and has not been told of the page, says so too.
  } else {
    all.from_current = all.from_current || is_current;
    const bool newer = !all.newest || all.newest->version < answer.version || (!all.newest->have && answer.have);
    if (newer) all.newest = answer;
  }
}

// Nothing waits for what was to be read: while it does the segment stays.
absl::Status NotResponsibleAnyMore(PageId page) {
  return absl::UnavailableError(absl::StrCat("another node is responsible for page ", ToString(page), " by now"));
}

absl::Status VolatileLost(PageId page) {
  return absl::DataLossError(absl::StrCat("page ", ToString(page), " is volatile, and the node that held it is gone"));
}

absl::Status LostWithDisks(PageId page) {
  return absl::DataLossError(
      absl::StrCat("page ", ToString(page), " is lost: each of its core holders has lost its disk since"));
}

// The answer that has it, or why none has. Zeros are a version, too. `all_there`: no holder is away or behind.
absl::StatusOr<Message> NewestOf(PageId page, const std::vector<Message>& answers, const Answers& all, bool all_there) {
  if (!all.silent.ok()) return absl::UnavailableError(all.silent.message());
  std::optional<Message> newest = all.newest;
  if (!all.from_current && !all.corrupt.ok()) {
    if (all_there) return all.corrupt;
    return absl::UnavailableError(absl::StrCat(all.corrupt.message(), "; another disk that may have it is not there"));
  }
  // No core holder was there from the start: they all lost their disks, or it is a system page of a new cluster.
  if (!all.from_current && all.unknowing && !all.is_free) {
    if (!TouchesSystemPages({page, 1})) return LostWithDisks(page);
    if (!newest)
      newest = *std::find_if(answers.begin(), answers.end(), [](const Message& m) { return m.status().ok(); });
  } else if (!all.from_current) {
    return NotAllocated(page);
  }
  if (newest->is_volatile) return VolatileLost(page);
  return *std::move(newest);
}

}  // namespace

void PageEngine::StartLoad(const HomeEffect& effect) {
  const PageId page = effect.message.page;
  const Txn txn = effect.message.txn;
  auto done = [this, page, txn, alive = alive_](absl::StatusOr<LoadedPage> loaded) {
    if (!*alive || !IsResponsibleFor(page)) return;
    Turn turn(this);
    std::vector<HomeEffect> effects;
    HomeEntry& entry = Home(page);
    if (loaded.ok()) {
      StepHomeLoaded(entry, txn, *loaded, HomeContextOf(page), effects);
    } else {
      StepHomeLoadFailed(entry, txn, loaded.status(), HomeContextOf(page), effects);
    }
    CarryHome(page, effects);
  };
  // Not from inside the step that asked for it.
  clock_->CallSoon([this, effect, done = std::move(done), alive = alive_]() mutable {
    if (!*alive) return;
    Spawn<absl::StatusOr<LoadedPage>>(OpenAndTell(std::move(effect)), std::move(done));
  });
}

// W1 (engine/given_away.h).
Task<absl::StatusOr<LoadedPage>> PageEngine::OpenAndTell(HomeEffect effect) {
  const PageId page = effect.message.page;
  absl::StatusOr<LoadedPage> loaded = co_await OpenFromDisk(page, effect.recover, effect.version_only);
  if (!effect.recover || IsRamDirectoryPage(page) || !MayOpen(page)) co_return std::move(loaded);
  // No disk has it: the surviving copy is what there is, if there is one.
  const bool is_lost = absl::IsDataLoss(loaded.status());
  if (!loaded.ok() && !(is_lost && effect.version_only)) co_return std::move(loaded);
  Message news = std::move(effect.message);
  news.kind = MessageKind::kWentBack;
  if (!is_lost) {
    std::tie(news.config, news.version) =
        std::max(std::tie(news.config, news.version), std::tie(loaded->config, loaded->version));
  }
  const absl::Status told = co_await TellWentBack(std::move(news), effect.reverting);
  if (!told.ok()) co_return told;
  co_return std::move(loaded);
}

Task<absl::Status> PageEngine::TellWentBack(Message news, bool everybody) {
  const PageId page = news.page;
  std::set<NodeId> left = Segment(page).givers;
  for (const auto& [node, incarnation] : view_.members) {
    if (everybody) left.insert(node);
  }
  if (options_.bugs->tell_nobody) left.clear();
  const TimeNs patience = clock_->Now() + kPatience;
  news.grant_epoch = grant_epoch_;
  while (true) {
    std::erase_if(left, [this](NodeId node) {
      if (!view_.members.contains(node)) return true;
      return up_.contains(node) && transport_->LevelOf(node, Subsystem::kPages) < 2;
    });
    if (left.empty()) co_return absl::OkStatus();
    if (!MayOpen(page)) co_return NotResponsibleAnyMore(page);
    if (stopped_ || clock_->Now() >= patience) {
      co_return absl::UnavailableError(
          absl::StrCat("page ", ToString(page), " was lost with a node, as far as the disks do not have it, and ",
                       ToString(*left.begin()), " has not answered that it knows of that; try again"));
    }
    std::vector<NodeId> asked;  // The level of one that is away is not known.
    for (NodeId node : left) {
      if (node == options_.self.node || up_.contains(node)) asked.push_back(node);
    }
    if (asked.empty()) co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
    std::vector<Outcome<Message>> outcomes = AskHolders(asked, news);
    for (size_t i = 0; i < asked.size(); ++i) {
      const Message answer = co_await outcomes[i].Get();
      if (answer.status().ok()) left.erase(asked[i]);
    }
  }
}

void PageEngine::HearWentBack(const Message& message, NodeInstance from) {
  given_away_.WentBack(message.page, message.config, message.version, message.grant_epoch);
  Message answer;
  answer.kind = MessageKind::kDone;
  answer.page = message.page;
  answer.request = message.request;
  Post(from.node, std::move(answer));
}

std::vector<Outcome<Message>> PageEngine::AskHolders(const std::vector<NodeId>& holders, const Message& query) {
  std::vector<Outcome<Message>> outcomes;
  Turn turn(this);
  const TimeNs deadline = clock_->Now() + options_.holder_timeout;
  for (NodeId holder : holders) outcomes.push_back(StartCall(holder, query, deadline, options_.resend_after));
  return outcomes;
}

// What is said in one view holds in the next one as well; what was not to be had in one may be in the next.
Task<absl::StatusOr<LoadedPage>> PageEngine::OpenFromDisk(PageId page, bool recover, bool version_only) {
  if (IsRamDirectoryPage(page)) co_return co_await OpenDirectoryPage(page, version_only);
  const TimeNs patience = clock_->Now() + kPatience;
  while (true) {
    const Epoch view = view_.epoch;
    absl::StatusOr<LoadedPage> loaded = co_await OpenInThisView(page, recover, version_only);
    const absl::Status& status = loaded.status();
    const bool may_change = absl::IsUnavailable(status) || absl::IsAborted(status);
    if (!may_change || stopped_ || !MayOpen(page) || clock_->Now() >= patience) {
      co_return absl::IsAborted(status) ? absl::UnavailableError(status.message()) : std::move(loaded);
    }
    if (view == view_.epoch) co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
  }
}

Task<absl::StatusOr<LoadedPage>> PageEngine::OpenInThisView(PageId page, bool recover, bool version_only) {
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
  if (found->is_volatile) {
    if (recover) co_return VolatileLost(page);
    co_return LoadedPage{.config = found->config, .data = nullptr};
  }
  if (!recover) {
    absl::StatusOr<LoadedPage> one = co_await OpenOneCopy(page, found->replicas);
    if (one.ok()) co_return one;
    if (absl::IsDataLoss(one.status())) LogWarning(one.status().message(), "; it is read from another core holder");
  }
  // It may have been unallocated meanwhile.
  if (FindHomeExtent(page) == nullptr || IsDiscarded(page)) co_return NotAllocated(page);
  co_return co_await OpenEveryCopy(page, *found, recover, version_only);
}

Task<absl::StatusOr<LoadedPage>> PageEngine::OpenEveryCopy(PageId page, const HomeExtent& extent, bool recover,
                                                           bool version_only) {
  const uint32_t replicas = extent.replicas;
  if (absl::Status status = disks_.Check(page, replicas); !status.ok()) co_return status;
  const std::vector<NodeId> holders = disks_.Storing(page, replicas);
  const size_t kept_on = disks_.Holders(page, replicas).size();
  const bool all_there = disks_.Current(page, replicas).size() == kept_on;
  const Epoch view = view_.epoch;
  std::vector<bool> is_current;
  for (NodeId holder : holders) is_current.push_back(disks_.IsCurrent(holder) && disks_.Keeps(holder, page, replicas));
  Message query;
  query.kind = MessageKind::kQueryStored;
  query.page = page;
  query.grant_epoch = grant_epoch_;
  query.seal = recover;
  query.with_data = !version_only;
  std::vector<Outcome<Message>> outcomes = AskHolders(holders, query);
  std::vector<Message> answers;
  Answers all;
  for (Outcome<Message>& outcome : outcomes) {
    answers.push_back(co_await outcome.Get());
    Count(answers.back(), is_current[answers.size() - 1], all);
  }
  if (!MayOpen(page)) co_return NotResponsibleAnyMore(page);
  absl::StatusOr<Message> newest = NewestOf(page, answers, all, all_there);
  if (!newest.ok()) co_return newest.status();
  const bool is_zeros = newest->version == Version{} && !all.corrupt.ok() && !version_only;
  if (is_zeros) newest->version = kRecordedZeros;
  const bool skip = options_.bugs && options_.bugs->skip_completion;
  if (!version_only && !skip) {
    const absl::Status completed = co_await Complete(page, *newest, holders, answers);
    // Zeros are had on a full disk too, and written when it is opened again.
    if (!completed.ok() && !(is_zeros && absl::IsResourceExhausted(completed))) co_return completed;
    if (view != view_.epoch) co_return absl::AbortedError("others keep the page on disk by now");  // D1
  }
  co_return LoadedPage{
      .version = newest->version, .config = newest->config, .replicas = newest->replicas, .data = newest->data};
}

// From this node's own disk, or else from the first that is current.
Task<absl::StatusOr<LoadedPage>> PageEngine::OpenOneCopy(PageId page, uint32_t replicas) {
  Message query;
  query.kind = MessageKind::kQueryStored;
  query.page = page;
  query.with_data = true;
  const std::vector<NodeId> holders = disks_.Current(page, replicas);
  if (holders.empty()) co_return disks_.Check(page, replicas);
  Outcome<Message> outcome(clock_);
  if (std::find(holders.begin(), holders.end(), options_.self.node) != holders.end()) {
    AskOwnDisk(query, [outcome](Message answer) mutable { outcome.Set(std::move(answer)); });
  } else {
    outcome = StartCall(holders.front(), query, clock_->Now() + options_.holder_timeout, options_.resend_after);
  }
  const Message answer = co_await outcome.Get();
  if (!answer.status().ok()) co_return answer.status();
  if (!answer.complete) co_return absl::UnavailableError("not known there");
  co_return LoadedPage{
      .version = answer.version, .config = answer.config, .replicas = answer.replicas, .data = answer.data};
}

// Writes the newest version to every one of the holders that has an older one, or none, or a corrupt one.
Task<absl::Status> PageEngine::Complete(PageId page, const Message& newest, std::vector<NodeId> holders,
                                        const std::vector<Message>& answers) {
  if (newest.version == Version{}) co_return absl::OkStatus();  // Zeros everywhere, or what does not count.
  std::vector<NodeId> behind;
  std::vector<NodeId> ignorant;
  for (size_t i = 0; i < answers.size(); ++i) {
    const absl::Status status = answers[i].status();
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
  const absl::Status status = co_await CallAll(behind, CompletionOf(page, newest), deadline);
  co_return status;
}

}  // namespace mangrove
