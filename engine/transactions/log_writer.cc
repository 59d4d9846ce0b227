#include "engine/transactions/log_writer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "net/check.h"
#include "net/log.h"

namespace mangrove {
namespace {

// One try of what is tried again.
constexpr DurationNs kTryTimeout = 5 * kSecond;
constexpr DurationNs kTryAgain = 5 * kMillisecond;
// Of one group: what it writes is in this node's memory twice meanwhile.
constexpr uint64_t kMostGroupPages = 128;

absl::Status StoppedStatus() {
  return absl::UnavailableError("this node is shutting down; the transaction may or may not have been committed");
}

}  // namespace

LogWriter::LogWriter(const TransactionsOptions& options, PageEngine* engine, TransactionPages* pages, LogReplay* replay,
                     Clock* clock)
    : options_(options),
      engine_(engine),
      pages_(pages),
      replay_(replay),
      clock_(clock),
      ring_pages_(static_cast<uint32_t>(options.log_pages - 1)),
      open_waiters_(clock),
      room_waiters_(clock) {
  CHECK(kLeastLogPages <= options.log_pages && options.log_pages <= kMostLogPages);
}

LogWriter::~LogWriter() { *alive_ = false; }

void LogWriter::Shutdown() {
  stopped_ = true;
  open_waiters_.WakeAll();
  room_waiters_.WakeAll();
  for (const CommitPtr& commit : std::exchange(queue_, {})) {
    commit->outcome.Set(absl::AbortedError("this node is shutting down; the transaction was not committed"));
  }
}

// --- Opening ----------------------------------------------------------------------------------------------------------

Task<absl::Status> LogWriter::Open(TimeNs deadline) {
  while (!open_) {
    if (stopped_) co_return absl::UnavailableError("this node is shutting down");
    if (opening_) {
      const bool woken = co_await open_waiters_.Wait(deadline);
      if (!woken) co_return absl::UnavailableError("the log of this node's transactions could not be opened in time");
      continue;
    }
    opening_ = true;
    const absl::Status status = co_await TakeOver(deadline);
    opening_ = false;
    open_ = status.ok();
    open_waiters_.WakeAll();
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

LogHeader LogWriter::HeaderAt(uint64_t tail) const {
  return {.owner = options_.self, .generation = generation_, .ring_pages = ring_pages_, .tail = tail};
}

// W4
Task<absl::Status> LogWriter::TakeOver(TimeNs deadline) {
  absl::Status status = co_await replay_->Put(deadline);
  if (status.ok()) status = co_await AllocateOnce(deadline);
  if (status.ok()) status = co_await replay_->Register(deadline);
  // Only now is what was there before given up.
  if (status.ok()) status = co_await replay_->Wait(deadline);
  if (status.ok()) status = co_await BeginGeneration(deadline);
  // The page that names it may have been lost meanwhile, and found again without a header of this log (Y5).
  if (status.ok()) status = co_await replay_->StayRegistered(deadline);
  co_return status;
}

Task<absl::Status> LogWriter::BeginGeneration(TimeNs deadline) {
  const PageRange log = LogOf(options_.self.node);
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock({log.first, 1}, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  const auto content = co_await pages_->Load(log.first, deadline);
  if (!content.ok()) co_return content.status();
  const absl::StatusOr<LogHeader> before = DecodeLogHeader(**content);
  if (!before.ok()) co_return before.status();
  const bool is_free = before->owner.node.value == 0 || before->owner == options_.self;
  if (!is_free && !options_.bugs->skip_replay) {
    co_return absl::UnavailableError(
        absl::StrCat("the log of this node's transactions is still ", ToString(before->owner), "'s"));
  }
  generation_ = before->generation + 1;
  tail_ = 0;
  current_ = {.generation = generation_, .number = 0};
  const absl::Status status = co_await WriteHeader(HeaderAt(0), deadline);
  co_return status;
}

// By segments: as such disks that were away learn what is allocated, and what is put again has to be what they have learned.
Task<absl::Status> LogWriter::AllocateOnce(TimeNs deadline) {
  const absl::StatusOr<std::vector<NodeId>> logs = co_await replay_->Logs(deadline);
  if (!logs.ok()) co_return logs.status();
  if (std::find(logs->begin(), logs->end(), options_.self.node) != logs->end()) co_return absl::OkStatus();
  const PageRange log = LogOf(options_.self.node);
  absl::Status status;
  for (PageId first = log.first; status.ok() && first < log.end(); first = first + kSegmentPages) {
    status = co_await engine_->PutExtent({first, kSegmentPages}, kLogConfig, options_.replicas, /*is_volatile=*/false,
                                         deadline);
  }
  co_return status;
}

// REQUIRES: it is exclusively locked.
Task<absl::Status> LogWriter::WriteHeader(LogHeader header, TimeNs deadline) {
  const PageId page = LogOf(options_.self.node).first;
  TransactionPages::Content content = NewPage();
  EncodeLogHeader(header, *content);
  absl::Status status = co_await pages_->Store(page, content, deadline);
  if (status.ok()) status = co_await pages_->Flush({page, 1}, deadline);
  co_return status;
}

// --- Commits ----------------------------------------------------------------------------------------------------------

// So that the largest one fits while the one before it is being given up.
uint64_t LogWriter::most_record_bytes() const {
  return std::max<uint64_t>(ring_pages_ / 2, 1) * kLogPayloadBytes - kLogPayloadBytes / 2;
}

Outcome<absl::Status> LogWriter::Append(LogRecord record, TimeNs deadline) {
  CHECK(open_);
  std::string bytes = EncodeRecord(record);
  Outcome<absl::Status> outcome(clock_);
  if (stopped_) {
    outcome.Set(absl::AbortedError("this node is shutting down; the transaction was not committed"));
    return outcome;
  }
  queued_bytes_ += bytes.size();
  queue_.push_back(std::make_shared<Commit>(Commit{std::move(record), std::move(bytes), deadline, outcome}));
  if (!std::exchange(running_, true)) {
    Spawn<bool>(Run(), [](bool) {});
  }
  return outcome;
}

bool LogWriter::HasRoomFor(size_t bytes) {
  const size_t all = current_.payload.size() + queued_bytes_ + bytes;
  if (all / kLogPayloadBytes + 1 <= PagesLeft()) return true;
  if (!making_room_ && !stopped_) {
    Spawn<absl::Status>(MakeRoom(clock_->Now() + kTryTimeout), [](const absl::Status&) {});
  }
  return false;
}

// While a group is on its way to the disks, the next one comes together.
Task<bool> LogWriter::Run() {
  const auto alive = alive_;
  while (!queue_.empty() && !stopped_) {
    const Group group = NextGroup();
    if (group.commits.empty()) {
      const absl::Status made = co_await MakeRoom(clock_->Now() + kTryTimeout);
      if (!*alive) co_return false;
      DropOverdue(made);
      if (!made.ok()) co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
      if (!*alive) co_return false;
      continue;
    }
    bool done = true;
    if (options_.bugs->commit_before_flush || options_.bugs->apply_before_flush) done = co_await ApplyGroup(&group);
    if (options_.bugs->commit_before_flush) EndGroup(group, absl::OkStatus());
    if (done) done = co_await WriteGroup(&group);
    if (done) done = co_await ApplyGroup(&group);  // W1
    if (!*alive) co_return false;
    if (done) NoteApplied(group);
    EndGroup(group, done ? absl::OkStatus() : StoppedStatus());
    MakeRoomSoon();
  }
  running_ = false;
  co_return true;
}

// As many as there is room for, in their order.
LogWriter::Group LogWriter::NextGroup() {
  Group group;
  group.first_record = records_;
  group.pages.push_back(current_);
  while (!queue_.empty()) {
    const CommitPtr& commit = queue_.front();
    const uint64_t pages = (commit->bytes.size() + group.pages.back().payload.size()) / kLogPayloadBytes;
    const uint64_t more = group.pages.size() - 1 + pages;
    if (more > PagesLeft() || (more > kMostGroupPages && !group.commits.empty())) break;
    Covered& covered = covered_.emplace_back();
    covered.page = AppendBytes(commit->bytes, group);
    for (const PageChange& change : commit->record.pages) covered.pages.push_back(change.page);
    group.commits.push_back(commit);
    queued_bytes_ -= commit->bytes.size();
    queue_.pop_front();
  }
  records_ += group.commits.size();
  current_ = group.pages.back();
  return group;
}

// The number of the page where they begin.
uint64_t LogWriter::AppendBytes(const std::string& bytes, Group& group) const {
  size_t done = 0;
  uint64_t begin = 0;
  while (done < bytes.size()) {
    if (group.pages.back().payload.size() == kLogPayloadBytes) {
      group.pages.push_back({.generation = generation_, .number = group.pages.back().number + 1});
    }
    LogPage& page = group.pages.back();
    if (done == 0) {
      begin = page.number;
      if (page.first_record == kNoRecord) page.first_record = static_cast<uint16_t>(page.payload.size());
    }
    const size_t count = std::min(bytes.size() - done, kLogPayloadBytes - page.payload.size());
    page.payload.append(bytes, done, count);
    done += count;
  }
  return begin;
}

// Whether it is durable: false when the node ends first.
Task<bool> LogWriter::WriteGroup(const Group* group) {
  size_t begin = 0;
  while (begin < group->pages.size()) {
    // Up to where the ring begins anew.
    const uint64_t place = group->pages[begin].number % ring_pages_;
    const size_t end = std::min<uint64_t>(group->pages.size(), begin + (ring_pages_ - place));
    const bool written = co_await WritePages(group, begin, end);
    if (!written) co_return false;
    begin = end;
  }
  said_once_.Forget("write");
  ++counters_.groups;
  counters_.pages += group->pages.size();
  co_return true;
}

// W3: who reads the log for a replay sees nothing that is not durable, however often that has to be tried.
Task<bool> LogWriter::WritePages(const Group* group, size_t begin, size_t end) {
  const auto alive = alive_;
  const PageRange range{LogPageAt(options_.self.node, ring_pages_, group->pages[begin].number), end - begin};
  std::optional<HeldPages> held;
  absl::Status status;
  do {
    const TimeNs deadline = clock_->Now() + kTryTimeout;
    if (!held) {
      absl::StatusOr<HeldPages> locked = co_await pages_->Lock(range, LockMode::kExclusive, deadline);
      status = locked.status();
      if (status.ok()) held = *std::move(locked);
    }
    if (status.ok()) status = co_await StorePages(group, begin, range, deadline);
    if (status.ok()) status = co_await pages_->Flush(range, deadline);
    if (!*alive || stopped_) co_return false;
    if (status.ok()) break;
    said_once_.Log(LogLevel::kWarning, "write",
                   absl::StrCat("the log of this node's transactions cannot be written; commits wait: ",
                                std::string(status.message())));
    co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
    if (!*alive || stopped_) co_return false;
    status = absl::OkStatus();
  } while (true);
  co_return true;
}

Task<absl::Status> LogWriter::StorePages(const Group* group, size_t begin, PageRange range, TimeNs deadline) {
  for (uint64_t i = 0; i < range.count; ++i) {
    TransactionPages::Content content = NewPage();
    EncodeLogPage(group->pages[begin + i], *content);
    const absl::Status status = co_await pages_->Store(range.first + i, content, deadline);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// Whether all of it is in its pages: false when the node ends first.
Task<bool> LogWriter::ApplyGroup(const Group* group) {
  const auto alive = alive_;
  for (const CommitPtr& commit : group->commits) {
    for (const PageChange& change : commit->record.pages) {
      absl::Status status;
      do {
        status = co_await pages_->Apply(&change, clock_->Now() + kTryTimeout);
        if (!*alive || stopped_) co_return false;
        if (!status.ok()) co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
        if (!*alive || stopped_) co_return false;
      } while (!status.ok());
    }
  }
  co_return true;
}

void LogWriter::NoteApplied(const Group& group) {
  const uint64_t first = records_ - covered_.size();
  for (size_t i = 0; i < group.commits.size(); ++i) covered_[group.first_record + i - first].applied = true;
  counters_.commits += group.commits.size();
}

void LogWriter::EndGroup(const Group& group, const absl::Status& status) {
  for (const CommitPtr& commit : group.commits) commit->outcome.Set(status);
}

// --- Room -------------------------------------------------------------------------------------------------------------

void LogWriter::DropOverdue(const absl::Status& why) {
  const TimeNs now = clock_->Now();
  std::erase_if(queue_, [&](const CommitPtr& commit) {
    if (commit->deadline > now) return false;
    queued_bytes_ -= commit->bytes.size();
    commit->outcome.Set(absl::ResourceExhaustedError(
        absl::StrCat("the log of this node's transactions had no room in time (", ring_pages_, " pages",
                     why.ok() ? "" : "; ", std::string(why.message()), "); nothing of it was committed; try again")));
    return true;
  });
}

// Before commits wait for it.
void LogWriter::MakeRoomSoon() {
  if (making_room_ || stopped_ || used_pages() * 2 <= ring_pages_) return;
  Spawn<absl::Status>(MakeRoom(clock_->Now() + kTryTimeout), [](const absl::Status&) {});
}

Task<absl::Status> LogWriter::MakeRoom(TimeNs deadline) {
  const auto alive = alive_;
  if (making_room_) {
    const bool woken = co_await room_waiters_.Wait(deadline);
    co_return woken ? absl::OkStatus() : absl::DeadlineExceededError("its oldest part is still being given up");
  }
  making_room_ = true;
  const absl::Status status = co_await MoveTail(deadline);
  if (!*alive) co_return status;
  making_room_ = false;
  room_waiters_.WakeAll();
  co_return status;
}

// W2
Task<absl::Status> LogWriter::MoveTail(TimeNs deadline) {
  if (!replay_->IsDone()) co_return absl::UnavailableError("a node was lost, and its log is being replayed");
  const Epoch required = replay_->required();
  uint64_t tail = std::min(current_.number, tail_ + std::max<uint64_t>(used_pages() / 2, 1));
  std::vector<PageId> pages;
  for (const Covered& covered : covered_) {
    if (!covered.applied) tail = std::min(tail, covered.page);
    if (covered.page >= tail) break;
    pages.insert(pages.end(), covered.pages.begin(), covered.pages.end());
  }
  if (tail <= tail_) co_return absl::UnavailableError("what is in it is not in its pages yet");
  absl::Status status = co_await pages_->FlushAll(std::move(pages), deadline);
  if (!status.ok()) co_return status;
  if (!replay_->IsDone() || replay_->required() != required) {
    co_return absl::UnavailableError("a node was lost meanwhile");
  }
  const PageRange header{LogOf(options_.self.node).first, 1};
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock(header, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  status = co_await WriteHeader(HeaderAt(tail), deadline);
  if (!status.ok()) co_return status;
  tail_ = tail;
  while (!covered_.empty() && covered_.front().page < tail) covered_.pop_front();
  ++counters_.truncations;
  co_return absl::OkStatus();
}

}  // namespace mangrove
