#include "engine/transactions/log_replay.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/log.h"

namespace mangrove {
namespace {

// One step of a round: a log, a page, a flush. A round has as many as it needs; one that ends with an error begins anew.
constexpr DurationNs kStepTimeout = 10 * kSecond;
constexpr DurationNs kSayAfter = 5 * kSecond;
constexpr size_t kPagesAhead = 32;
constexpr size_t kPagesPerFlush = 1024;
constexpr DurationNs kTryAgain = 10 * kMillisecond;
constexpr DurationNs kTrySeldom = 200 * kMillisecond;

}  // namespace

struct LogReplay::Round {
  Epoch view;
  std::vector<NodeId> logs;
  struct Changes {
    std::map<std::pair<ConfigNumber, uint64_t>, PageChange> by_sequence;
    std::vector<PageChange> in_order;  // As they were read, for a planted bug.
    bool flush = false;
  };
  std::map<PageId, Changes> pages;
  std::map<NodeId, LogHeader> gone;  // The logs of those that are not in the view.
};

LogReplay::LogReplay(const TransactionsOptions& options, PageEngine* engine, TransactionPages* pages, Clock* clock,
                     Entropy* entropy)
    : options_(options), engine_(engine), pages_(pages), clock_(clock), entropy_(entropy), waiters_(clock) {}

LogReplay::~LogReplay() { *alive_ = false; }

void LogReplay::Shutdown() {
  stopped_ = true;
  waiters_.WakeAll();
}

TimeNs LogReplay::StepDeadline() const { return clock_->Now() + kStepTimeout; }

void LogReplay::Follow() {
  const View& view = engine_->view();
  if (view.epoch == seen_.epoch) return;
  const bool is_lost = std::any_of(seen_.members.begin(), seen_.members.end(), [&view](const auto& member) {
    return !view.Has({member.first, member.second});
  });
  if (is_lost || seen_.epoch.value + 1 != view.epoch.value) required_ = view.epoch;  // Y2
  seen_ = view;
}

Epoch LogReplay::required() {
  Follow();
  return required_;
}

bool LogReplay::IsDone() {
  Follow();
  return required_ <= done_ || options_.bugs->skip_replay;
}

void LogReplay::OnView() {
  if (!IsDone()) Start();
}

void LogReplay::Start() {
  if (stopped_ || std::exchange(running_, true)) return;
  Spawn<bool>(Run(), [](bool) {});
}

Task<absl::Status> LogReplay::Wait(TimeNs deadline) {
  while (!IsDone()) {
    if (stopped_) co_return absl::UnavailableError("this node is shutting down");
    Start();
    const bool woken = co_await waiters_.Wait(deadline);
    if (!woken) {
      co_return absl::UnavailableError(
          absl::StrCat("a node was lost, and what its transactions wrote is not there again yet",
                       trouble_.ok() ? "" : ": ", std::string(trouble_.message()), "; try again later"));
    }
  }
  co_return absl::OkStatus();
}

Task<bool> LogReplay::Run() {
  const auto alive = alive_;
  // Mostly one node is enough: the others come when it is done.
  DurationNs pause = kTryAgain;
  while (*alive && !stopped_ && !IsDone()) {
    absl::Status tried = co_await Try();
    if (!*alive || stopped_) co_return false;
    trouble_ = std::move(tried);
    if (trouble_.ok()) continue;
    pause = std::min(2 * pause, kTrySeldom);
    co_await SleepUntil(clock_, clock_->Now() + pause / 2 + static_cast<DurationNs>(entropy_->Next() % (pause / 2)));
  }
  if (!*alive) co_return false;
  running_ = false;
  waiters_.WakeAll();
  co_return true;
}

// REQUIRES: the replay page is locked; exclusively, to write it.
Task<absl::StatusOr<ReplayState>> LogReplay::ReadState(TimeNs deadline) {
  const auto page = co_await pages_->Load(kReplayPage, deadline);
  if (!page.ok()) co_return page.status();
  absl::StatusOr<ReplayState> state = DecodeReplayState(**page);
  if (!state.ok()) co_return state;
  if (*state == ReplayState{} && !options_.bugs->forget_lost_names) {
    absl::StatusOr<std::vector<NodeId>> found = co_await FindLogs(deadline);
    if (!found.ok()) co_return found.status();
    state->logs = *std::move(found);
  }
  done_ = std::max(done_, state->done);
  co_return state;
}

// Y5
Task<absl::StatusOr<std::vector<NodeId>>> LogReplay::FindLogs(TimeNs deadline) {
  const View& view = engine_->view();
  // Who has been in a view, and is not, is behind; or was removed, and its log may not have been replayed before that.
  std::set<NodeId> nodes = engine_->members();
  for (const auto& [node, incarnation] : view.members) nodes.insert(node);
  for (const auto& [node, since] : view.behind) nodes.insert(node);
  std::vector<NodeId> found;
  for (const NodeId node : nodes) {
    const absl::StatusOr<bool> may_have = co_await MayHaveLog(node, deadline);
    if (!may_have.ok()) co_return may_have.status();
    if (*may_have) found.push_back(node);
  }
  if (found.size() > kMostLogs) {
    co_return absl::ResourceExhaustedError(
        absl::StrCat(found.size(), " nodes have logs of transactions; expected at most ", kMostLogs));
  }
  if (!found.empty()) {
    LogWarning("the page that names the logs of transactions is lost; of ", nodes.size(), " nodes, ", found.size(),
               " have logs");
  }
  co_return found;
}

// A header that cannot be read may be one.
Task<absl::StatusOr<bool>> LogReplay::MayHaveLog(NodeId node, TimeNs deadline) {
  const PageId page = LogOf(node).first;
  const absl::StatusOr<bool> allocated = co_await engine_->IsAllocated(page);
  if (!allocated.ok() || !*allocated) co_return allocated;
  const auto content = co_await pages_->Load(page, deadline);
  if (absl::IsDataLoss(content.status())) co_return true;
  if (absl::IsFailedPrecondition(content.status())) co_return false;  // Its making got only as far as that.
  if (!content.ok()) co_return content.status();
  const absl::StatusOr<LogHeader> header = DecodeLogHeader(**content);
  co_return !header.ok() || header->generation > 0;
}

Task<absl::Status> LogReplay::WriteState(ReplayState state, TimeNs deadline) {
  TransactionPages::Content content = NewPage();
  EncodeReplayState(state, *content);
  absl::Status status = co_await pages_->Store(kReplayPage, content, deadline);
  if (status.ok()) status = co_await pages_->Flush({kReplayPage, 1}, deadline);
  co_return status;
}

Task<absl::StatusOr<std::vector<NodeId>>> LogReplay::Logs(TimeNs deadline) {
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock({kReplayPage, 1}, LockMode::kShared, deadline);
  if (absl::IsFailedPrecondition(held.status())) co_return std::vector<NodeId>();  // Nobody has had a transaction.
  if (!held.ok()) co_return held.status();
  absl::StatusOr<ReplayState> state = co_await ReadState(deadline);
  if (!state.ok()) co_return state.status();
  co_return std::move(state->logs);
}

Task<absl::Status> LogReplay::Put(TimeNs deadline) {
  return engine_->PutExtent({kReplayPage, 1}, kLogConfig, options_.replicas, /*is_volatile=*/false, deadline);
}

Task<absl::Status> LogReplay::StayRegistered(TimeNs deadline) {
  const absl::StatusOr<std::vector<NodeId>> logs = co_await Logs(deadline);
  if (!logs.ok()) co_return logs.status();
  if (std::find(logs->begin(), logs->end(), options_.self.node) != logs->end()) co_return absl::OkStatus();
  const absl::Status status = co_await Register(deadline);
  co_return status;
}

Task<absl::Status> LogReplay::Register(TimeNs deadline) {
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock({kReplayPage, 1}, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  absl::StatusOr<ReplayState> state = co_await ReadState(deadline);
  if (!state.ok()) co_return state.status();
  const NodeId self = options_.self.node;
  if (std::find(state->logs.begin(), state->logs.end(), self) == state->logs.end()) {
    if (state->logs.size() == kMostLogs) {
      co_return absl::ResourceExhaustedError(
          absl::StrCat(kMostLogs, " nodes have logs of transactions already, which is as many as there can be"));
    }
    state->logs.push_back(self);
  }
  // Also if it is named: this node may have been too late to flush that.
  const absl::Status status = co_await WriteState(*state, deadline);
  co_return status;
}

Task<absl::Status> LogReplay::Try() {
  const TimeNs deadline = StepDeadline();
  const Epoch view = engine_->view().epoch;
  bool is_lost = false;
  {
    const absl::StatusOr<HeldPages> held = co_await pages_->Lock({kReplayPage, 1}, LockMode::kShared, deadline);
    if (absl::IsFailedPrecondition(held.status())) {
      done_ = std::max(done_, view);  // It is not allocated: nobody has had a transaction before that.
      co_return absl::OkStatus();
    }
    is_lost = absl::IsDataLoss(held.status());
    if (!held.ok() && !is_lost) co_return held.status();
    if (held.ok()) {
      const absl::StatusOr<ReplayState> state = co_await ReadState(deadline);
      if (!state.ok()) co_return state.status();
    }
  }
  if (is_lost) {  // Where each disk that had it is, it is zeros then; what is corrupt stays so. Y5
    const absl::Status put = co_await Put(deadline);
    if (!put.ok()) co_return put;
  }
  if (IsDone()) co_return absl::OkStatus();
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock({kReplayPage, 1}, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  const absl::StatusOr<ReplayState> state = co_await ReadState(deadline);
  if (!state.ok()) co_return state.status();
  if (IsDone()) co_return absl::OkStatus();  // Another node was quicker.
  const absl::Status status = co_await ReplayAll(*state);
  co_return status;
}

// REQUIRES: the replay page is exclusively locked, and says `before`.
Task<absl::Status> LogReplay::ReplayAll(ReplayState before) {
  Round round;
  round.view = engine_->view().epoch;
  round.logs = before.logs;
  absl::Status status = co_await Scan(&round);
  if (status.ok()) status = co_await ApplyAll(&round);
  // Y4
  const auto is_still_right = [this, &round] { return required() <= round.view; };
  if (status.ok() && !is_still_right()) status = absl::AbortedError("another node was lost meanwhile");
  if (status.ok()) status = co_await GiveUp(&round);
  if (status.ok() && !is_still_right()) status = absl::AbortedError("another node was lost meanwhile");
  before.done = round.view;
  if (status.ok()) status = co_await WriteState(before, StepDeadline());
  if (!status.ok()) co_return status;
  done_ = std::max(done_, round.view);
  ++counters_.rounds;
  if (!round.pages.empty()) {
    LogInfo("replayed the transactions of those that are gone, as of view ", round.view.value, ": ", round.pages.size(),
            " pages looked at");
  }
  co_return absl::OkStatus();
}

Task<absl::Status> LogReplay::Scan(Round* round) {
  for (const NodeId node : round->logs) {
    absl::StatusOr<LogContent> content = co_await ReadLog(pages_, node, StepDeadline());
    if (!content.ok()) co_return content.status();
    Note(*round, node, *std::move(content));
  }
  co_return absl::OkStatus();
}

void LogReplay::Note(Round& round, NodeId node, LogContent content) {
  if (content.header.owner.node.value == 0) return;
  const bool is_gone = !engine_->view().Has(content.header.owner);
  if (is_gone) round.gone[node] = content.header;
  counters_.records += content.records.size();
  for (LogRecord& record : content.records) {
    for (PageChange& change : record.pages) {
      Round::Changes& changes = round.pages[change.page];
      changes.flush = changes.flush || is_gone;
      changes.in_order.push_back(change);
      const std::pair key(change.config, change.sequence);
      const auto [it, is_first] = changes.by_sequence.emplace(key, change);
      if (is_first || it->second == change) continue;
      ++counters_.conflicts;
      LogError("two logs have different changes ", change.sequence, " of page ", ToString(change.page));
    }
  }
}

Task<absl::Status> LogReplay::ApplyAll(Round* round) {
  std::deque<Outcome<absl::Status>> ahead;  // Of pages that are on their way here.
  auto fetch = round->pages.begin();
  TimeNs say_at = clock_->Now() + kSayAfter;
  size_t looked_at = 0;
  for (const auto& [page, changes] : round->pages) {
    for (; ahead.size() < kPagesAhead && fetch != round->pages.end(); ++fetch) {
      Outcome<absl::Status>& fetched = ahead.emplace_back(clock_);
      Spawn<absl::Status>(pages_->Fetch({fetch->first, 1}, StepDeadline()),
                          [fetched](absl::Status status) mutable { fetched.Set(std::move(status)); });
    }
    const absl::Status here = co_await ahead.front().Get();
    ahead.pop_front();
    if (!here.ok()) LogDebug("replaying page ", ToString(page), ": ", here.message());
    const absl::Status status = co_await ApplyTo(round, page, StepDeadline());
    if (clock_->Now() >= say_at) {
      LogInfo("replaying transactions: ", looked_at, " of ", round->pages.size(), " pages looked at");
      say_at = clock_->Now() + kSayAfter;
    }
    ++looked_at;
    if (absl::IsDataLoss(status)) LogError("cannot replay transactions: ", status.message());
    const bool has_nothing = absl::IsFailedPrecondition(status) || absl::IsDataLoss(status);
    if (!status.ok() && !has_nothing) co_return status;
    if (required() > round->view) co_return absl::AbortedError("another node was lost meanwhile");
  }
  std::vector<PageId> flush;
  for (auto it = round->pages.begin(); it != round->pages.end();) {
    if (it->second.flush) flush.push_back(it->first);
    if (++it != round->pages.end() && flush.size() < kPagesPerFlush) continue;
    const absl::Status status = co_await pages_->FlushAll(std::exchange(flush, {}), StepDeadline());
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// Y3: what the page lacks, in order. With a gap, nothing behind it.
absl::StatusOr<std::vector<const PageChange*>> LogReplay::Lacking(const Round& round, PageId page,
                                                                  const PageBytes& content) {
  const Round::Changes& changes = round.pages.at(page);
  std::vector<const PageChange*> lacking;
  if (options_.bugs->replay_ignores_sequences) {
    for (const PageChange& change : changes.in_order) lacking.push_back(&change);
    return lacking;
  }
  absl::StatusOr<uint64_t> sequence = SequenceOf(page, content);
  if (!sequence.ok()) return sequence.status();
  const ConfigNumber config = pages_->AllocationOf(page).config;
  for (auto it = changes.by_sequence.upper_bound({config, *sequence});
       it != changes.by_sequence.end() && it->first.first == config; ++it) {
    if (it->first.second != *sequence + 1) {
      ++counters_.gaps;
      LogError("change ", *sequence + 1, " of page ", ToString(page), " is in no log, but change ", it->first.second,
               " is");
      break;
    }
    lacking.push_back(&it->second);
    ++*sequence;
  }
  return lacking;
}

// FailedPrecondition: it is not allocated any more.
Task<absl::Status> LogReplay::ApplyTo(Round* round, PageId page, TimeNs deadline) {
  const auto before = co_await pages_->Load(page, deadline);
  if (!before.ok()) co_return before.status();
  const auto lacks = Lacking(*round, page, **before);
  if (!lacks.ok()) co_return lacks.status();
  if (lacks->empty()) co_return absl::OkStatus();  // Once it has something, it lacks that no more, in this view.
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock({page, 1}, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  // Whoever had it locked may be gone, and what was read of its log be older than it is.
  if (required() > round->view) co_return absl::AbortedError("another node was lost meanwhile");
  const auto content = co_await pages_->Load(page, deadline);
  if (!content.ok()) co_return content.status();
  const auto lacking = Lacking(*round, page, **content);
  if (!lacking.ok()) co_return lacking.status();
  for (const PageChange* change : *lacking) {
    const absl::Status applied = co_await pages_->Apply(change, deadline);
    if (!applied.ok()) co_return applied;
    ++counters_.applied;
  }
  round->pages.at(page).flush = true;
  co_return absl::OkStatus();
}

// What the logs of those that are gone say is in their pages, and these are flushed.
Task<absl::Status> LogReplay::GiveUp(Round* round) {
  for (const auto& [node, header] : round->gone) {
    const TimeNs deadline = StepDeadline();
    const PageRange page{LogOf(node).first, 1};
    const absl::StatusOr<HeldPages> held = co_await pages_->Lock(page, LockMode::kExclusive, deadline);
    if (!held.ok()) co_return held.status();
    const auto content = co_await pages_->Load(page.first, deadline);
    if (!content.ok()) co_return content.status();
    const absl::StatusOr<LogHeader> now = DecodeLogHeader(**content);
    if (!now.ok()) co_return now.status();
    if (now->generation != header.generation || now->owner != header.owner) continue;
    LogHeader given_up = header;
    given_up.owner = {};
    EncodeLogHeader(given_up, **content);
    absl::Status status = co_await pages_->Store(page.first, *content, deadline);
    if (status.ok()) status = co_await pages_->Flush(page, deadline);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove
