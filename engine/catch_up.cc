#include "engine/catch_up.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr DurationNs kPause = 20 * kMillisecond;
constexpr DurationNs kMostPause = kSecond;  // After failures one after the other.
constexpr DurationNs kAnswerIn = 2 * kSecond;
constexpr uint64_t kLooksAtOnce = 1024;  // At extents; then others run.
// Of copies that are limited in their rate: for how long more may come together.
constexpr DurationNs kBurst = 100 * kMillisecond;

// What is left of the ranges without `taken`.
void Subtract(PageRange taken, std::vector<PageRange>& ranges) {
  std::vector<PageRange> left;
  for (const PageRange& range : ranges) {
    if (!range.Overlaps(taken)) {
      left.push_back(range);
      continue;
    }
    if (range.first < taken.first) left.push_back({range.first, taken.first - range.first});
    if (taken.end() < range.end()) left.push_back({taken.end(), range.end() - taken.end()});
  }
  ranges = std::move(left);
}

}  // namespace

CatchUp::CatchUp(PageEngine* engine) : engine_(engine), copies_(engine->options_.repair_bytes_per_second, kBurst) {}

void CatchUp::Open(bool blank) {
  blank_ = blank;
  Say();
}

void CatchUp::Say() {
  if (sink_) sink_({.blank = blank_, .caught_up = caught_up_, .moved = moved_});
}

bool CatchUp::IsBehind() const { return engine_->view_.behind.contains(engine_->options_.self.node); }

CatchUp::Goal CatchUp::GoalNow() const {
  const View& view = engine_->view_;
  const NodeId self = engine_->options_.self.node;
  Goal goal{.behind = IsBehind(), .move = {}, .all = false};
  if (view.next_disks.contains(self) && !view.moved.contains(self)) goal.move = view.move;
  goal.all = !goal.empty() && engine_->disks_.LearnsAll(self);
  return goal;
}

void CatchUp::OnView() {
  if (pause_) pause_->Set(true);
  if (!engine_->view_.Has(engine_->options_.self)) return;
  NoteWhatIsHad();
  SetGoal(GoalNow());
  NoteOrder();
  TrimIfDue();
  if (goal_.empty()) return;
  const bool has_said = has_all_ || (goal_.behind && caught_up_);
  if (has_said && NextSource(pages_of_)) {
    // Somebody is current by now, and may have told others of what this disk has otherwise.
    has_all_ = false;
    if (goal_.behind) caught_up_ = false;
    moved_ = Epoch();
    rate_.Clear();
    Say();
  }
  if (running_ || has_all_) return;
  running_ = true;
  Spawn<absl::Status>(Run(), [this, alive = engine_->alive_](const absl::Status& status) {
    if (!*alive) return;
    running_ = false;
    if (!status.ok()) LogDebug("learning from other disks has ended: ", status.message());
  });
}

// U6
void CatchUp::SetGoal(const Goal& goal) {
  if (goal == goal_) return;
  // The view says in two steps what was said in one.
  const bool is_rest = has_all_ && goal_.behind && !goal.behind && goal.move == goal_.move;
  const Goal before = std::exchange(goal_, goal);
  if (is_rest && !goal.empty()) return engine_->core_.EndDoubt();
  ++round_;
  has_all_ = false;
  extents_of_.clear();
  one_copy_of_.clear();
  compared_with_.clear();
  pages_of_.clear();
  learned_there_.clear();
  unreadable_.clear();
  uncovered_.clear();
  failed_ = NodeId();
  rate_.Clear();
  if (goal.empty()) return engine_->core_.EndDoubt();
  if (goal.behind) caught_up_ = false;
  moved_ = Epoch();
  Say();
  CoreHolder::PagesInDoubt pages;
  if (!goal.all) {
    pages = [this](PageId page, const Extent& extent) {
      return !extent.is_volatile && engine_->disks_.Gains(engine_->options_.self.node, page, extent.replicas);
    };
  }
  engine_->core_.BeginDoubt(std::move(pages));
  if (goal.behind && !before.behind) LogInfo("this node's disk is behind: it catches up with the others");
  if (goal.move.value != 0 && goal.move != before.move) LogInfo("pages move: this node's disk gets some");
}

void CatchUp::Stop() {
  engine_->clock_->Cancel(std::exchange(timer_, 0));
  if (pause_) pause_->Set(false);
  for (auto& [number, end] : std::exchange(waits_, {})) end(engine_->stopped_status_);
}

bool CatchUp::KnowsExtents() const {
  if (has_all_ || !goal_.all) return true;
  return WaitsFor().empty() &&
         std::all_of(engine_->view_.members.begin(), engine_->view_.members.end(), [this](const auto& member) {
           return member.first == engine_->options_.self.node || !engine_->disks_.IsCurrent(member.first) ||
                  extents_of_.contains(member.first);
         });
}

void CatchUp::NoteDrop(PageRange range, ConfigNumber config) {
  if (!goal_.all) return;
  const TimeNs now = engine_->clock_->Now();
  std::erase_if(drops_, [now](const Drop& drop) { return drop.until <= now; });
  drops_.push_back({range, config, now + PageEngine::kMessageLifetime});
}

CatchUpProgress CatchUp::Progress() const {
  CatchUpProgress progress = progress_;
  progress.is_behind = IsBehind();
  progress.is_moving = goal_.move.value != 0 && !has_all_;
  const bool is_done = goal_.empty() || has_all_;
  progress.limit_bytes_per_second = copies_.per_second();
  progress.is_held_by_limit = !is_done && copies_.IsEmpty(engine_->clock_->Now());
  const ProgressRate::Done done = Done();
  progress.done_percent = is_done ? 100 : std::min(99, static_cast<int>(100 * done.share));
  if (!is_done) progress.rate = rate_.Now(engine_->clock_->Now(), done);
  if (running_) progress.waits_for = WaitsFor();
  if (running_ && progress.waits_for.empty()) progress.waits_for.assign(uncovered_.begin(), uncovered_.end());
  return progress;
}

ProgressRate::Done CatchUp::Done() const {
  return {.pages_compared = progress_.pages_compared, .pages_copied = progress_.pages_copied, .share = DoneShare()};
}

void CatchUp::NoteRate() {
  const TimeNs now = engine_->clock_->Now();
  if (rate_.IsDue(now)) rate_.Note(now, Done());
}

double CatchUp::DoneShare() const {
  if (goal_.empty() || has_all_) return 1;
  double sources = 0;
  double done = static_cast<double>(pages_of_.size());
  for (const auto& [node, incarnation] : engine_->view_.members) {
    if (node != engine_->options_.self.node && engine_->disks_.IsCurrent(node)) ++sources;
  }
  for (const auto& [source, compared] : compared_with_) {
    double all = 1;
    double past = 0;
    for (const auto& [first, extent] : engine_->core_.extents()) {
      all += static_cast<double>(extent.range.count);
      past += static_cast<double>(compared.CountIn(extent.range));
    }
    done += past / all;
  }
  return sources == 0 ? 0 : done / sources;
}

// A current disk in the view that has not been learned from; if there is another one, not that with which it has just failed.
std::optional<NodeId> CatchUp::NextSource(const std::set<NodeId>& done) const {
  std::optional<NodeId> next;
  for (const auto& [node, incarnation] : engine_->view_.members) {
    if (node == engine_->options_.self.node || !engine_->disks_.IsCurrent(node) || done.contains(node)) continue;
    next = node;
    if (node != failed_) break;
  }
  return next;
}

// U4. Those that were learned from have told all that they had when everything was stored here, too.
std::vector<NodeId> CatchUp::WaitsFor() const {
  const auto& behind = engine_->view_.behind;
  const auto own = behind.find(engine_->options_.self.node);
  std::vector<NodeId> nodes;
  // A disk that keeps nothing yet gets all that it is to keep (catch_up_end.cc).
  if (own == behind.end() || !engine_->view_.disks.contains(own->first)) return nodes;
  for (NodeId node : engine_->view_.disks) {
    if (node == engine_->options_.self.node || engine_->disks_.IsCurrent(node) || pages_of_.contains(node)) continue;
    if (engine_->view_.lost.contains(node)) continue;
    const auto other = behind.find(node);
    const bool may_have_more = other == behind.end() ? own->second == kBlankDisk : own->second < other->second;
    if (may_have_more) nodes.push_back(node);
  }
  return nodes;
}

// Until the next view, for `duration` at most. False: this node stops.
Task<bool> CatchUp::Pause(DurationNs duration) {
  if (engine_->stopped_) co_return false;
  Outcome<bool> pause(engine_->clock_);
  pause_ = pause;
  timer_ = engine_->clock_->CallAt(engine_->clock_->Now() + duration, [pause]() mutable { pause.Set(true); });
  const bool goes_on = co_await pause.Get();
  pause_.reset();
  engine_->clock_->Cancel(std::exchange(timer_, 0));
  co_return goes_on && !engine_->stopped_;
}

// What this node's disk is to answer: an outcome, and what sets it. Stop ends it, since the disk may not answer any more.
template <typename T>
std::pair<Outcome<T>, absl::AnyInvocable<void(T)>> CatchUp::Await() {
  Outcome<T> outcome(engine_->clock_);
  const uint64_t number = ++next_wait_;
  waits_[number] = [outcome](const absl::Status& status) mutable {
    if constexpr (std::is_same_v<T, Message>) {
      Message answer;
      answer.SetStatus(status);
      outcome.Set(std::move(answer));
    } else {
      outcome.Set(status);
    }
  };
  auto done = [this, number, outcome, alive = engine_->alive_](T value) mutable {
    if (!*alive || waits_.erase(number) == 0) return;
    outcome.Set(std::move(value));
  };
  if (engine_->stopped_) Stop();  // What was under way when it stopped comes to this as well.
  return {outcome, std::move(done)};
}

template std::pair<Outcome<Message>, absl::AnyInvocable<void(Message)>> CatchUp::Await();
template std::pair<Outcome<absl::Status>, absl::AnyInvocable<void(absl::Status)>> CatchUp::Await();
template std::pair<Outcome<absl::StatusOr<PageList>>, absl::AnyInvocable<void(absl::StatusOr<PageList>)>>
CatchUp::Await();

// What this node's own disk answers.
Outcome<Message> CatchUp::Here(const Message& message) {
  auto [outcome, done] = Await<Message>();
  auto shared = std::make_shared<absl::AnyInvocable<void(Message)>>(std::move(done));
  engine_->core_.Handle(message, [shared](Message answer) { (*shared)(std::move(answer)); });
  return outcome;
}

Task<absl::Status> CatchUp::Run() {
  DurationNs pause = kPause;
  while (!engine_->stopped_ && !goal_.empty()) {
    NoteRate();
    const absl::Status status = co_await LearnNext();
    progress_.trouble = std::string(status.message());
    if (has_all_) co_return status;
    if (status.ok()) {
      pause = kPause;
      continue;
    }
    if (!absl::IsUnavailable(status) && !absl::IsAborted(status)) {
      engine_->said_once_.Log(LogLevel::kWarning, "catch up",
                              absl::StrCat("this node's disk cannot get what it lacks yet: ", status.message()));
    }
    const bool goes_on = co_await Pause(pause);
    if (!goes_on) break;
    pause = std::min(2 * pause, kMostPause);
  }
  co_return engine_->stopped_status_;
}

// U6
absl::Status CatchUp::CheckGoesOn(uint64_t round) const {
  if (engine_->stopped_) return engine_->stopped_status_;
  return round == round_ ? absl::OkStatus() : absl::AbortedError("this disk is to have something else by now");
}

// One step: all of one source's extents, or pages of a pass; or the end.
Task<absl::Status> CatchUp::LearnNext() {
  const uint64_t round = round_;
  if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
  if (const std::optional<Step> step = NextStep()) {
    const auto [pass, source] = *step;
    const uint64_t order = order_;
    absl::Status status;
    if (pass == Pass::kExtents) {
      status = co_await LearnExtents(source);
    } else if (!engine_->options_.bugs->catch_up_without_pages) {
      status = co_await LearnPages(source, pass);
    }
    if (round != round_) co_return CheckGoesOn(round);
    failed_ = status.ok() ? NodeId{} : source;
    // Something else may come first by now.
    if (!status.ok() || (pass != Pass::kExtents && order != order_)) co_return status;
    if (pass == Pass::kExtents) extents_of_.insert(source);
    if (pass == Pass::kOneCopy) one_copy_of_.insert(source);
    if (pass == Pass::kRest) {
      pages_of_.insert(source);
      compared_with_.erase(source);
    }
    co_return status;
  }
  if (!WaitsFor().empty()) co_return absl::UnavailableError("other disks may have more");
  const absl::Status finished = co_await Finish();
  co_return finished;
}

// A list that is one, of what is there from that page on.
Task<absl::StatusOr<Message>> CatchUp::AskForList(NodeId source, PageId from, bool pages) {
  const uint64_t round = round_;
  Message ask;
  ask.kind = MessageKind::kListStored;
  ask.page = from;
  ask.with_data = pages;
  const TimeNs deadline = engine_->clock_->Now() + kAnswerIn;
  Outcome<Message> outcome = engine_->StartCall(source, std::move(ask), deadline, 5 * engine_->options_.resend_after);
  Message answer = co_await outcome.Get();
  absl::Status status = CheckGoesOn(round);
  if (status.ok()) status = answer.status();
  if (!status.ok()) co_return status;
  if (answer.data == nullptr || (answer.page != PageId{} && answer.page <= from)) {
    co_return absl::InternalError(absl::StrCat(ToString(source), " sent a list that is none"));
  }
  co_return answer;
}

// --- Extents ----------------------------------------------------------------------------------------------------------

Task<absl::Status> CatchUp::LearnExtents(NodeId source) {
  const uint64_t round = round_;
  PageId from;
  do {
    const absl::StatusOr<Message> answer = co_await AskForList(source, from, /*pages=*/false);
    if (!answer.ok()) co_return answer.status();
    absl::StatusOr<std::vector<StoredExtent>> listed = DecodeExtentList(*answer->data, from);
    if (!listed.ok()) co_return listed.status();
    const PageInterval part{from, answer->page == PageId{} ? kSpaceEnd : answer->page};
    absl::Status status = co_await TakeExtents(source, *std::move(listed), part);
    if (status.ok()) status = CheckGoesOn(round);
    if (!status.ok()) co_return status;
    from = answer->page;
  } while (from != PageId{});
  co_return absl::OkStatus();
}

// U3. `part`: of which `listed` says all.
Task<absl::Status> CatchUp::TakeExtents(NodeId source, std::vector<StoredExtent> listed, PageInterval part) {
  const uint64_t round = round_;
  for (const StoredExtent& extent : listed) {
    if (extent.is_learned) learned_there_.emplace_back(source, extent.range);
  }
  // A disk that lacks only pages has been told of each extent; the list may be older.
  if (!goal_.all) co_return absl::OkStatus();
  std::vector<Outcome<Message>> outcomes;
  const std::vector<Drop> drops = co_await NotListed(listed, part);
  if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
  for (const Drop& drop : drops) {
    Message message;
    message.kind = MessageKind::kDropExtent;
    message.page = drop.range.first;
    message.count = drop.range.count;
    message.config = drop.config;
    message.complete = true;  // Only what is still in doubt when its turn comes.
    outcomes.push_back(Here(message));
  }
  for (const StoredExtent& extent : listed) {
    for (const PageRange& range : MissingOf(extent)) {
      Message put;
      put.kind = MessageKind::kPutExtent;
      put.page = range.first;
      put.count = range.count;
      put.config = extent.config;
      put.replicas = extent.replicas;
      put.is_volatile = extent.is_volatile;
      put.complete = true;
      outcomes.push_back(Here(put));
    }
  }
  absl::Status status;
  for (Outcome<Message>& outcome : outcomes) {
    const Message answer = co_await outcome.Get();
    // What is here by now is newer.
    if (status.ok() && answer.code != absl::StatusCode::kFailedPrecondition) status = answer.status();
  }
  if (!status.ok()) co_return status;
  co_return absl::OkStatus();
}

// What of the extents in doubt the source does not list: every disk is told of each.
Task<std::vector<CatchUp::Drop>> CatchUp::NotListed(const std::vector<StoredExtent>& listed, PageInterval part) const {
  std::vector<Drop> drops;
  uint64_t looks = 0;
  for (PageId page = part.first; page < part.end;) {
    const Extent* const extent = NextInDoubt(page, part.end);
    if (extent == nullptr) break;
    page = std::max(page, extent->range.first);
    const PageId end = std::min(extent->range.end(), part.end);
    std::vector<PageRange> left{{page, end - page}};
    auto it = std::upper_bound(listed.begin(), listed.end(), page,
                               [](PageId at, const StoredExtent& other) { return at < other.range.end(); });
    for (; it != listed.end() && it->range.first < end; ++it) {
      if (it->config == extent->config) Subtract(it->range, left);
    }
    for (const PageRange& range : left) AddDrop(range, extent->config, drops);
    page = end;
    if (++looks % kLooksAtOnce == 0) co_await YieldTo(engine_->clock_);
  }
  co_return drops;
}

const Extent* CatchUp::NextInDoubt(PageId page, PageId end) const {
  const auto& extents = engine_->core_.extents();
  auto it = extents.upper_bound(page.value);
  if (it != extents.begin() && page < std::prev(it)->second.range.end()) --it;
  while (it != extents.end() && it->second.range.first < end && !it->second.doubtful) ++it;
  return it == extents.end() || end <= it->second.range.first ? nullptr : &it->second;
}

// Joined with the last one, if it goes on.
void CatchUp::AddDrop(PageRange range, ConfigNumber config, std::vector<Drop>& drops) {
  if (!drops.empty() && drops.back().config == config && drops.back().range.end() == range.first) {
    drops.back().range.count += range.count;
  } else {
    drops.push_back({.range = range, .config = config});
  }
}

// What of it is neither here, or newer here, nor was dropped since this node joined.
std::vector<PageRange> CatchUp::MissingOf(const StoredExtent& extent) const {
  std::vector<PageRange> missing{extent.range};
  for (const Drop& drop : drops_) {
    if (extent.config <= drop.config) Subtract(drop.range, missing);
  }
  const auto& extents = engine_->core_.extents();
  auto it = extents.upper_bound(extent.range.first.value);
  if (it != extents.begin()) --it;
  for (; it != extents.end() && it->second.range.first < extent.range.end(); ++it) {
    if (extent.config <= it->second.config) Subtract(it->second.range, missing);
  }
  return missing;
}

}  // namespace mangrove
