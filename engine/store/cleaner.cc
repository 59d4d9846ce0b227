#include "engine/store/cleaner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/store/group_reader.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

// Of one move: commits that come meanwhile wait as long as it takes to write so much.
constexpr size_t kMovePages = 64;
// Where there is far too much garbage, what is moved matters more.
constexpr size_t kManyMovePages = 512;

// What the pages of a segment take when they are appended again: a group's first block has entries for so many.
uint64_t BytesWhenMoved(uint64_t pages) { return (pages + (pages + kMovePages - 1) / kMovePages) * kBlockBytes; }

}  // namespace

// One segment being emptied.
class Cleaner::Pass {
 public:
  Pass(Cleaner* cleaner, uint64_t segment, LogSegment file, size_t move_pages)
      : cleaner_(cleaner),
        file_(std::move(file)),
        reader_(&file_, segment, cleaner->options_.salt),
        move_pages_(move_pages) {}

  // True: nothing that the segment's first `blocks` hold is needed any more.
  absl::StatusOr<bool> Run(uint64_t blocks) {
    bool whole = true;
    uint64_t credited = 0;
    for (uint64_t block = 0; block < blocks;) {
      const auto group = reader_.At(block);
      if (!group.ok() || !group->has_value() || !(*group)->changes.has_value()) {
        spdlog::warn("store: {} is damaged at {}: what is behind stays there", file_.file(), block * kBlockBytes);
        const auto moved = MoveLive();
        return moved.ok() ? false : moved;
      }
      for (const IndexChange& change : *(*group)->changes) {
        for (const PageEntry& entry : change.put_pages) whole &= Consider(entry);
      }
      block += (*group)->header.blocks();
      if (live_.size() < move_pages_ && block < blocks) continue;
      const uint64_t live = live_.size();
      const auto moved = MoveLive();
      if (!moved.ok()) return moved;
      whole &= *moved;
      cleaner_->Credit((block - credited - std::min(live, block - credited)) * kBlockBytes);
      credited = block;
    }
    return whole;
  }

 private:
  using Entry = std::vector<PageEntry>::const_iterator;

  // False: whether it is needed is not to be known.
  bool Consider(const PageEntry& entry) {
    auto found = cleaner_->db_->Find(entry.page);
    if (found.ok() && found->place == entry.place) live_.push_back(*std::move(found));
    return found.ok() || absl::IsNotFound(found.status());
  }

  // False: some cannot be read.
  absl::StatusOr<bool> MoveLive() {
    bool whole = true;
    for (Entry begin = live_.cbegin(); begin != live_.cend();) {
      PageMove move;
      const Entry end = begin + std::min<ptrdiff_t>(live_.cend() - begin, static_cast<ptrdiff_t>(move_pages_));
      for (; begin != end; begin = ReadRun(begin, end, move)) {
      }
      whole &= skipped_ == 0;
      if (move.from.empty()) continue;
      if (absl::Status status = cleaner_->Move(std::move(move)); !status.ok()) return status;
    }
    live_.clear();
    return whole;
  }

  // Adds the pages from `begin` on that stand one behind the other, in one read; returns the first that does not.
  Entry ReadRun(Entry begin, Entry end, PageMove& move) {
    Entry next = begin;
    while (next != end && next->place.block == begin->place.block + static_cast<uint64_t>(next - begin)) ++next;
    const std::span<char> bytes = buffer_.Reserve(static_cast<size_t>(next - begin) * kBlockBytes);
    const absl::Status read = file_.Read(begin->place.block * kBlockBytes, bytes);
    for (Entry entry = begin; entry != next; ++entry) {
      const char* data = bytes.data() + static_cast<size_t>(entry - begin) * kBlockBytes;
      if (!read.ok() || DataSum(data) != entry->data_sum) {
        ++skipped_;
        continue;
      }
      auto copy = NewPage();
      std::memcpy(copy->bytes.data(), data, kPageBytes);
      StoredPage page = HeaderOf(*entry);
      page.data = std::move(copy);
      move.batch.put_pages.push_back(std::move(page));
      move.from.push_back(entry->place);
    }
    return next;
  }

  Cleaner* const cleaner_;
  const LogSegment file_;
  GroupReader reader_;
  const size_t move_pages_;
  LogBuffer buffer_;
  std::vector<PageEntry> live_;
  uint64_t skipped_ = 0;
};

Cleaner::Cleaner(CleanerOptions options, RocksDb* db, SegmentFiles* files)
    : options_(std::move(options)), db_(db), files_(files) {}

absl::Status Cleaner::Open(const LogPosition& end) {
  const auto sealed = db_->Segments();
  if (!sealed.ok()) return sealed.status();
  const auto there = files_->List();
  if (!there.ok()) return there.status();
  const std::lock_guard lock(mutex_);
  for (const SealedSegment& segment : *sealed) {
    const uint64_t bytes = files_->BytesOf(segment.segment);
    const bool is_whole = bytes >= segment.blocks * kBlockBytes;
    if (!is_whole) {
      spdlog::error("store: {} is missing or cut off, and page data that was in it cannot be read",
                    files_->NameOf(segment.segment));
    }
    const auto gone = db_->IsDurablyGone(segment.segment);
    if (!gone.ok()) return gone.status();
    segments_[segment.segment] = {.blocks = segment.blocks,
                                  .bytes = bytes,
                                  .last_group = *gone ? end.number : 0,
                                  .state = is_whole ? State::kSealed : State::kKept};
  }
  // It was durable that nothing refers to these.
  for (const uint64_t segment : *there) {
    if (segment >= end.end.segment || segments_.contains(segment)) continue;
    if (absl::Status released = files_->Release(segment, /*keep=*/false); !released.ok()) return released;
  }
  return absl::OkStatus();
}

void Cleaner::Run() {
  while (Await()) {
    const absl::Status status = CleanWhatIsDue();
    // Without space, it is tried again when there may be some. After any other error the store is poisoned by the writer.
    const bool expected = status.ok() || absl::IsResourceExhausted(status) || absl::IsCancelled(status);
    if (!expected) spdlog::warn("store: cleaning: {}", status.ToString());
  }
}

absl::Status Cleaner::CleanWhatIsDue() {
  while (true) {
    const bool tight = options_.tight();
    const auto durable = db_->DurablePosition();
    if (!durable.ok()) return durable.status();
    if (absl::Status status = ReleaseApplied(tight); !status.ok()) return status;
    const auto choice = Choose(tight, durable->number);
    if (choice.has_value()) {
      const absl::Status cleaned = Clean(*choice);
      if (cleaned.ok()) continue;
      // What was emptied or deleted before needs no space to be given away.
      if (!tight || !absl::IsResourceExhausted(cleaned)) return cleaned;
    } else if (!tight) {
      return absl::OkStatus();
    }
    // What a full disk needs is not to wait for further commits.
    if (absl::Status status = Move({}); !status.ok()) return status;
    return db_->HasUnflushed() ? db_->StartFlush() : absl::OkStatus();
  }
}

bool Cleaner::Await() {
  SetFarBehind(false);
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return rung_ || stopped_; });
  rung_ = false;
  return !stopped_;
}

void Cleaner::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    wake_.notify_all();
  }
  SetFarBehind(false);
}

void Cleaner::Ring() {
  const std::lock_guard lock(mutex_);
  rung_ = true;
  wake_.notify_all();
}

void Cleaner::Seal(const SealedSegment& sealed, uint64_t last_group) {
  const std::lock_guard lock(mutex_);
  segments_[sealed.segment] = {
      .blocks = sealed.blocks, .bytes = files_->BytesOf(sealed.segment), .last_group = last_group};
}

std::vector<uint64_t> Cleaner::TakeEmptied() {
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> emptied;
  for (auto& [number, segment] : segments_) {
    if (segment.state != State::kEmptied) continue;
    segment.state = State::kApplied;
    emptied.push_back(number);
  }
  return emptied;
}

void Cleaner::SetFarBehind(bool far_behind) {
  {
    const std::lock_guard lock(mutex_);
    far_behind_ = far_behind && !stopped_;
    if (!far_behind_) owed_bytes_ = 0;
  }
  options_.caught_up();
}

void Cleaner::Credit(uint64_t garbage_bytes) {
  {
    const std::lock_guard lock(mutex_);
    owed_bytes_ -= std::min(owed_bytes_, garbage_bytes);
  }
  options_.caught_up();
}

bool Cleaner::IsFarBehind() const {
  const std::lock_guard lock(mutex_);
  return far_behind_;
}

void Cleaner::NoteWritten(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (far_behind_) owed_bytes_ += 2 * bytes;
}

bool Cleaner::Owes() const {
  const std::lock_guard lock(mutex_);
  return owed_bytes_ > 0;
}

uint64_t Cleaner::used_bytes() const {
  uint64_t bytes = 0;
  const std::lock_guard lock(mutex_);
  for (const auto& [number, segment] : segments_) bytes += segment.bytes;
  return bytes;
}

CleanerStatistics Cleaner::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

// C2.
absl::Status Cleaner::ReleaseApplied(bool tight) {
  std::vector<uint64_t> applied;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, segment] : segments_) {
      if (segment.state == State::kApplied) applied.push_back(number);
    }
  }
  for (const uint64_t segment : applied) {
    const auto gone = db_->IsDurablyGone(segment);
    if (!gone.ok()) return gone.status();
    if (!*gone) continue;
    if (absl::Status released = files_->Release(segment, !tight); !released.ok()) return released;
    const std::lock_guard lock(mutex_);
    segments_.erase(segment);
  }
  return absl::OkStatus();
}

// A segment to which nothing refers, or that with the smallest share of pages, if there is too much garbage.
std::optional<Cleaner::Choice> Cleaner::Choose(bool tight, uint64_t durable_group) {
  std::optional<Choice> best;
  uint64_t needed = 0;
  uint64_t garbage = 0;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return std::nullopt;
    double best_share = 1;
    for (const auto& [number, segment] : segments_) {
      // Its record is durable with the next segment's first group, and only then can be missed (C2).
      if (segment.last_group >= durable_group || segment.state > State::kKept) continue;
      const uint64_t pages = db_->live_pages().Of(number);
      if (pages == 0) return Choice{.segment = number, .what = segment, .empty = true};
      const uint64_t live = std::min(segment.bytes, BytesWhenMoved(pages));
      needed += live;
      if (segment.state == State::kKept) continue;
      // Only what moving the pages gives back (C4).
      garbage += segment.bytes - live;
      const double share = static_cast<double>(live) / static_cast<double>(segment.bytes);
      if (share >= best_share) continue;
      best_share = share;
      best = Choice{.segment = number, .what = segment, .empty = false};
    }
  }
  const uint64_t allowed = tight ? needed / 16 : needed / 3 + options_.slack_bytes;
  const bool any = best.has_value() && garbage > allowed;
  SetFarBehind(any && garbage > 2 * allowed);
  return any ? best : std::nullopt;
}

absl::Status Cleaner::Clean(const Choice& choice) {
  bool emptied = choice.empty;
  if (emptied) {
    Credit(choice.what.bytes);
  } else {
    const size_t move_pages = IsFarBehind() ? kManyMovePages : kMovePages;
    auto file = files_->Open(choice.segment, choice.what.bytes);
    if (file.ok()) {
      const auto passed = Pass(this, choice.segment, *std::move(file), move_pages).Run(choice.what.blocks);
      if (!passed.ok()) return passed.status();
      emptied = *passed;
    } else if (!absl::IsNotFound(file.status())) {
      return file.status();
    }
  }
  SetState(choice.segment, emptied ? State::kEmptied : State::kKept);
  return absl::OkStatus();
}

void Cleaner::SetState(uint64_t segment, State state) {
  const std::lock_guard lock(mutex_);
  segments_.at(segment).state = state;
  (state == State::kKept ? statistics_.segments_kept : statistics_.segments_emptied) += 1;
}

absl::Status Cleaner::Move(PageMove move) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return absl::CancelledError("the store is closing");
    statistics_.pages_moved += move.batch.put_pages.size();
  }
  return options_.move(std::move(move));
}

}  // namespace mangrove::store
