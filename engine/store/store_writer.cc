#include "engine/store/store_writer.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

// One write is bounded, so that the first of many commits is not kept waiting for the last.
constexpr uint64_t kGroupBytes = uint64_t{4} << 20;
// While the cleaner is far behind: an eighth of what it then moves at once.
constexpr uint64_t kSmallGroupBytes = uint64_t{256} << 10;
// Of the log, what is applied at once; a group more at most.
constexpr uint64_t kHeldBytes = uint64_t{1} << 20;
// The write of such a group takes longer than to wake another thread for it: what is held is applied meanwhile. For that it
// waits for the next group, up to a bound.
constexpr uint64_t kLargeGroupBytes = uint64_t{512} << 10;
constexpr uint64_t kMostHeldBytes = uint64_t{8} << 20;
// How often the log is looked after: so many times while as much is written as may be replayed.
constexpr uint64_t kTrims = 8;
// A larger store has larger segments, so that they do not become too many.
constexpr uint64_t kSegmentsOfStore = 256;
constexpr uint64_t kMostSegmentBytes = uint64_t{1} << 30;

// Where few pages are written again and again, tables are small, and what is garbage is better seen early: of so many pages
// their tables are an eighth of what they would be at most.
uint64_t FewPages(const WriterOptions& options) { return options.log_bytes / kTrims / kPageBytes / 8; }

}  // namespace

void Poison::Set(absl::Status status) {
  {
    const std::lock_guard lock(mutex_);
    status_ = std::move(status);
  }
  is_set_ = true;
}

absl::Status Poison::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

StoreWriter::StoreWriter(WriterOptions options, RocksDb* db, CommitLog* log, Cleaner* cleaner, Poison* poison)
    : options_(std::move(options)),
      db_(db),
      log_(log),
      cleaner_(cleaner),
      poison_(poison),
      commits_(options_.spin_ns, options_.gather_ns),
      space_(options_.path, options_.reserve_bytes) {
  if (log_->bytes() > 0) unapplied_.emplace_back(log_->position().number, log_->bytes());
}

absl::Status StoreWriter::Move(PageMove move) {
  PendingMove pending{.move = std::move(move), .outcome = std::nullopt};
  {
    const std::lock_guard lock(move_mutex_);
    CHECK(move_ == nullptr);
    move_ = &pending;
    move_changed_.notify_all();
  }
  commits_.Push(nullptr);  // The writer may be waiting for a commit.
  std::unique_lock lock(move_mutex_);
  move_changed_.wait(lock, [&] { return pending.outcome.has_value(); });
  return *std::move(pending.outcome);
}

void StoreWriter::NoteCaughtUp() {
  const std::lock_guard lock(move_mutex_);
  move_changed_.notify_all();
}

void StoreWriter::Run() {
  size_t expected = 1;
  while (true) {
    // The loop's and this thread's: outcomes are told before the changes are applied.
    auto group = std::make_shared<CommitGroup>();
    uint64_t bytes = 0;
    const uint64_t most_bytes = cleaner_->IsFarBehind() ? kSmallGroupBytes : kGroupBytes;
    const auto take = [&](const std::unique_ptr<PendingCommit>& next) {
      bytes += group->back() == nullptr ? 0 : group->back()->bytes;
      return next == nullptr || bytes + next->bytes <= most_bytes;
    };
    if (!commits_.Pop(*group, expected, take, [this] { Apply(); })) return Apply();
    std::erase(*group, nullptr);
    const uint64_t before = log_->bytes();
    WriteGroup(*group);
    // Who has one outcome often asks for the next commit.
    expected = std::max<size_t>(1, group->size() + commits_.size());
    if (!group->empty()) {
      held_.last_commit = group->back()->number;
      options_.finish(std::move(group));
    }
    const bool was_large = log_->bytes() - before >= kLargeGroupBytes;
    const bool may_wait = was_large && commits_.size() > 0 && held_.log_bytes < kMostHeldBytes;
    if (apply_wanted_ || (held_.log_bytes >= kHeldBytes && !may_wait)) Apply();
    WriteMovesOwed();
  }
}

// Nothing else, while the cleaner owes some.
void StoreWriter::WriteMovesOwed() {
  const auto is_one_owed = [this] {
    std::unique_lock lock(move_mutex_);
    move_changed_.wait(lock, [this] { return move_ != nullptr || !cleaner_->Owes(); });
    return move_ != nullptr && cleaner_->Owes();
  };
  while (is_one_owed()) {
    CommitGroup none;
    WriteGroup(none);
    if (apply_wanted_) Apply();
  }
}

// Gives each commit of the group its outcome, and the move that waits, which comes first: it is of what was there before.
void StoreWriter::WriteGroup(CommitGroup& group) {
  PendingMove* move;
  {
    const std::lock_guard lock(move_mutex_);
    move = move_;
  }
  // So that what has changed since is seen (C1).
  if (move != nullptr) Apply();
  if (*poison_) {
    for (auto& commit : group) commit->outcome = poison_->status();
    counters_.failed += group.size();
    if (move != nullptr) FinishMove(poison_->status());
    return;
  }
  std::vector<const StoreBatch*> batches;
  absl::Status moved;
  if (move != nullptr) {
    moved = AdmitMove(move->move);
    if (moved.ok() && !move->move.batch.put_pages.empty()) batches.push_back(&move->move.batch);
  }
  const std::vector<const StoreBatch*> admitted = Admit(group);
  batches.insert(batches.end(), admitted.begin(), admitted.end());
  const bool written = AppendToLog(batches);
  for (auto& commit : group) {
    if (!written && commit->outcome.ok()) commit->outcome = poison_->status();
  }
  if (move != nullptr) FinishMove(written ? moved : poison_->status());
  (written ? counters_.committed : counters_.failed) += admitted.size();
  if (!written) return;
  uint64_t bytes = 0;
  for (const StoreBatch* batch : admitted) {
    counters_.pages_written += batch->put_pages.size();
    bytes += EncodedGroupBlocks({&batch, 1}) * kBlockBytes;
  }
  cleaner_->NoteWritten(bytes);
}

void StoreWriter::FinishMove(absl::Status status) {
  const std::lock_guard lock(move_mutex_);
  std::exchange(move_, nullptr)->outcome = std::move(status);
  move_changed_.notify_all();
}

// False: the store is poisoned now.
bool StoreWriter::AppendToLog(const std::vector<const StoreBatch*>& batches) {
  if (batches.empty()) return true;
  const uint64_t before = log_->bytes();
  const bool is_large = EncodedGroupBlocks(batches) * kBlockBytes >= kLargeGroupBytes;
  absl::StatusOr<LoggedGroup> logged = log_->Append(batches, [&](CommitLog::Write write) {
    if (!is_large || held_.log_bytes < kHeldBytes) return write();
    absl::Status status;
    helper_.Do([&] { status = write(); }, [this] { Apply(); });
    return status;
  });
  if (!logged.ok()) {
    Fail(logged.status());
    return false;
  }
  if (logged->sealed.has_value()) {
    cleaner_->Seal(*logged->sealed, logged->position.number - 1);
    const uint64_t share = cleaner_->used_bytes() / kSegmentsOfStore;
    // Emptying one takes as much again before it gives anything back, on a full disk out of the reserve.
    const uint64_t most = std::min(kMostSegmentBytes, options_.reserve_bytes / 8);
    log_->set_segment_bytes(std::max(options_.segment_bytes, std::min(share, most)));
  }
  held_.log_bytes += log_->bytes() - before;
  held_.groups.push_back(*std::move(logged));
  counters_.synced_writes += 1;
  return true;
}

// Leaves what is still where it was read (C1). Everything that is in the log is applied.
absl::Status StoreWriter::AdmitMove(PageMove& move) {
  std::vector<StoredPage> still_there;
  for (size_t i = 0; i < move.from.size(); ++i) {
    StoredPage& page = move.batch.put_pages[i];
    const auto found = db_->Find(page.page);
    if (!found.ok() && !absl::IsNotFound(found.status())) return found.status();
    if (found.ok() && found->place == move.from[i]) still_there.push_back(std::move(page));
  }
  move.batch.put_pages = std::move(still_there);
  if (move.batch.put_pages.empty()) return absl::OkStatus();
  const StoreBatch* const batch = &move.batch;
  space_.RefreshIfOld();
  return space_.Admit(EncodedGroupBlocks({&batch, 1}) * kBlockBytes, SpaceUse::kCleaning);
}

// The batches of the group for which there is space; the others have their outcome.
std::vector<const StoreBatch*> StoreWriter::Admit(CommitGroup& group) {
  const bool fresh = space_.RefreshIfOld();
  std::vector<const StoreBatch*> admitted = AdmitBySpace(group);
  if (admitted.size() < group.size() && !fresh) {
    space_.Refresh();
    admitted = AdmitBySpace(group);
  }
  counters_.refused += group.size() - admitted.size();
  if (admitted.size() < group.size()) cleaner_->Ring();
  return admitted;
}

std::vector<const StoreBatch*> StoreWriter::AdmitBySpace(CommitGroup& group) {
  std::vector<const StoreBatch*> admitted;
  admitted.reserve(group.size());
  for (auto& commit : group) {
    commit->outcome =
        space_.Admit(commit->bytes, commit->batch.put_pages.empty() ? SpaceUse::kSmall : SpaceUse::kPages);
    if (commit->outcome.ok()) admitted.push_back(&commit->batch);
  }
  return admitted;
}

// What is held is durable, so that nobody waits for this but reads of it. Many at once: what was written again is
// applied once.
void StoreWriter::Apply() {
  apply_wanted_ = false;
  if (!*poison_) {
    absl::Status status = ApplyHeld();
    if (status.ok()) status = Trim();
    if (!status.ok()) Fail(status);
  }
  if (held_.last_commit != applied_commit_) {
    {
      const std::lock_guard guard(applied_mutex_);
      applied_commit_ = held_.last_commit;
    }
    applied_.notify_all();
  }
  held_ = Held{.last_commit = held_.last_commit};
}

absl::Status StoreWriter::ApplyHeld() {
  IndexUpdate update{.position = log_->position(), .emptied = cleaner_->TakeEmptied()};
  bool deletes = false;
  for (const LoggedGroup& group : held_.groups) {
    if (group.sealed.has_value()) update.sealed.push_back(*group.sealed);
    for (const IndexChange& change : group.changes) {
      NoteUnflushed(change);
      update.changes.push_back(&change);
      deletes |= !change.delete_pages.empty();
    }
  }
  if (held_.groups.empty() && update.emptied.empty()) return absl::OkStatus();
  const absl::Status status = db_->Apply(update);
  if (status.ok() && deletes) cleaner_->Ring();
  return status;
}

// Keeps what would have to be replayed from growing without bound where the tables cannot follow.
absl::Status StoreWriter::Trim() {
  if (log_->bytes() - trimmed_at_ < options_.log_bytes / kTrims) return absl::OkStatus();
  trimmed_at_ = log_->bytes();
  unapplied_.emplace_back(log_->position().number, log_->bytes());
  if (absl::Status status = db_->CheckBackground(); !status.ok()) return status;
  if (absl::Status status = NoteDurable(); !status.ok()) return status;
  const uint64_t behind = log_->bytes() - durable_bytes_;
  if (behind >= 2 * options_.log_bytes) {
    const absl::Status status = db_->Flush();
    return status.ok() ? NoteDurable() : status;
  }
  const uint64_t due = unflushed_.size() > FewPages(options_) ? options_.log_bytes / 2 : options_.log_bytes / kTrims;
  if (behind < due) return absl::OkStatus();
  unflushed_.clear();
  return db_->StartFlush();
}

void StoreWriter::NoteUnflushed(const IndexChange& change) {
  for (const PageEntry& page : change.put_pages) {
    if (unflushed_.size() > FewPages(options_)) return;
    unflushed_.insert(page.page);
  }
}

absl::Status StoreWriter::NoteDurable() {
  const auto durable = db_->DurablePosition();
  if (!durable.ok()) return durable.status();
  while (!unapplied_.empty() && unapplied_.front().first <= durable->number) {
    durable_bytes_ = unapplied_.front().second;
    unapplied_.pop_front();
  }
  return absl::OkStatus();
}

void StoreWriter::Fail(const absl::Status& status) {
  if (*poison_) return;  // The first one counts.
  // Never ResourceExhausted, which would promise that nothing was applied.
  const absl::Status why = absl::IsDataLoss(status) ? WithAdvice(status, options_.path) : status;
  poison_->Set(absl::InternalError(absl::StrCat("the store is poisoned by a failed write: ", why.ToString())));
  options_.on_poisoned(poison_->status());
}

// The writer applies it when it is done with the group that it is at, or is idle.
void StoreWriter::AwaitApplied(uint64_t number) {
  if (applied_commit_ >= number) return;
  apply_wanted_ = true;
  std::unique_lock guard(applied_mutex_);
  applied_.wait(guard, [&] { return applied_commit_ >= number; });
}

}  // namespace mangrove::store
