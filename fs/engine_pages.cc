#include "fs/engine_pages.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/page_engine.h"
#include "engine/transactions/transactions.h"
#include "fs/space.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr DurationNs kTimeout = 10 * kSecond;
constexpr DurationNs kTransactionTime = 8 * kSecond;
// Fewer than a client of the engine may have.
constexpr int kMostTransactions = 96;
constexpr int kMostAttempts = 60;

}  // namespace

EnginePages::EnginePages(const EnginePagesNode& node, PageRange region, ClientId client)
    : node_(node),
      region_(region),
      client_(client),
      table_(node.engine, node.clock, region, node.self),
      locks_(node.engine, node.clock, region, node.self, *node.bugs),
      renewed_in_(node.engine->view().epoch) {}

// --- Copies -----------------------------------------------------------------------------------------------------------

EnginePages::Copies::Copies(EnginePages* pages) : pages_(pages), watches_(pages->node_.engine->watches()) {}

DurationNs EnginePages::Copies::UsableFor() const {
  const PageEngine* const engine = pages_->node_.engine;
  if (!engine->Serves()) return 0;
  return std::max<DurationNs>(engine->lease_until() - pages_->node_.clock->ExactNow(), 0);
}

// Of metadata. What is on other pages changes with them.
void EnginePages::Copies::OnFirst() {
  const PageId first = pages_->region_.first;
  constexpr PageSpan kMetadata = PagesOf(Zone::kMetadata);
  const PageRange range{first, std::min(pages_->region_.count, kMetadata.first + kMetadata.count)};
  guard_ = watches_->AddGuard(
      range, [this, first](PageId page, std::function<void()> go) { Leave(page - first, std::move(go)); });
}

void EnginePages::Copies::NoteEnd(uint64_t transaction, bool happened) {
  const auto it = written_.find(transaction);
  if (it == written_.end()) return;
  const std::set<uint64_t> pages = std::move(it->second);
  written_.erase(it);
  for (const uint64_t page : pages) {
    if (happened) Change(page);
  }
}

void EnginePages::Copies::OnNone() {
  if (guard_ != 0) watches_->Remove(std::exchange(guard_, 0));
}

TimeNs EnginePages::Deadline() const { return node_.clock->Now() + kTimeout; }

// --- Transactions -----------------------------------------------------------------------------------------------------

Task<absl::StatusOr<uint64_t>> EnginePages::Begin() {
  while (open_ >= kMostTransactions) {
    Outcome<bool> turn(node_.clock);
    waiting_.push_back(turn);
    co_await turn.Get();
  }
  ++open_;
  absl::StatusOr<uint64_t> transaction =
      co_await node_.transactions->Begin(client_, node_.clock->Now() + kTransactionTime);
  if (!transaction.ok()) LetIn();
  co_return transaction;
}

// Each transaction that began comes here once, at its Commit or its Abort: an edit ends it also when the engine has ended it before.
void EnginePages::LetIn() {
  --open_;
  if (waiting_.empty()) return;
  waiting_.front().Set(true);
  waiting_.pop_front();
}

Task<absl::StatusOr<std::string>> EnginePages::Read(uint64_t transaction, uint64_t page, Intent intent) {
  return node_.transactions->Read(client_, transaction, PlaceOf(page), kMetadataBytes,
                                  intent == Intent::kWrite ? AccessMode::kWrite : AccessMode::kRead);
}

std::optional<std::string> EnginePages::Glance(uint64_t page) {
  return node_.transactions->Glance(PlaceOf(page), kMetadataBytes);
}

Task<absl::Status> EnginePages::Write(uint64_t transaction, uint64_t page, uint32_t offset, std::string bytes) {
  copies_.NoteWrite(transaction, page);
  return node_.transactions->Write(client_, transaction, PlaceOf(page) + offset, std::move(bytes));
}

std::vector<PageRange> EnginePages::RangesAround(std::vector<uint64_t> pages, bool and_around) const {
  // What lies between two pages costs less than a message of its own; and whoever wants many is likely to want it too.
  constexpr uint64_t kGap = 8;
  constexpr uint64_t kAround = 64;  // Divides a group.
  const auto is_here = [this](uint64_t page) { return node_.engine->RightsOf(region_.first + page) != Rights::kNone; };
  std::erase_if(pages, is_here);
  std::sort(pages.begin(), pages.end());
  const uint64_t count = and_around ? kAround : 1;
  std::vector<PageRange> ranges;
  for (const uint64_t page : pages) {
    const PageId first = region_.first + (page - page % count);
    const PageId begin = ranges.empty() ? first : ranges.back().first;
    if (!ranges.empty() && first < ranges.back().end() + kGap && first + count - begin <= PageEngine::kBlockPages) {
      ranges.back().count = std::max(ranges.back().count, first + count - begin);
    } else {
      ranges.push_back({first, count});
    }
  }
  return ranges;
}

Task<bool> EnginePages::BringNear(std::vector<uint64_t> pages, bool and_around) {
  constexpr size_t kAtOnce = 32;
  constexpr DurationNs kPatience = 100 * kMillisecond;
  const std::vector<PageRange> ranges = RangesAround(std::move(pages), and_around);
  // Not for long where somebody has one of them locked: he may wait for what the caller has.
  const TimeNs deadline = node_.clock->Now() + kPatience;
  std::deque<Outcome<absl::Status>> under_way;
  for (const PageRange& range : ranges) {
    if (under_way.size() == kAtOnce) {
      (co_await under_way.front().Get()).IgnoreError();
      under_way.pop_front();
    }
    Outcome<absl::Status>& brought = under_way.emplace_back(node_.clock);
    Spawn<absl::Status>(node_.engine->Acquire(range, Rights::kRead, deadline),
                        [brought](absl::Status status) mutable { brought.Set(std::move(status)); });
  }
  for (Outcome<absl::Status>& brought : under_way) (co_await brought.Get()).IgnoreError();
  co_return true;
}

Task<absl::Status> EnginePages::Commit(uint64_t transaction) {
  absl::Status status = co_await node_.transactions->CommitLazily(client_, transaction);
  LetIn();
  // The log has no room yet: nothing has happened.
  if (absl::IsResourceExhausted(status)) status = absl::AbortedError(status.message());
  copies_.NoteEnd(transaction, !absl::IsAborted(status));
  co_return status;
}

Task<absl::Status> EnginePages::SyncTransactions() { return node_.transactions->Sync(Deadline()); }

void EnginePages::Abort(uint64_t transaction) {
  node_.transactions->Abort(client_, transaction).IgnoreError();  // It may have ended by itself.
  copies_.NoteEnd(transaction, false);
  LetIn();
}

Task<absl::Status> EnginePages::BackOff(int attempt) {
  if (attempt >= kMostAttempts) {
    co_return absl::UnavailableError("others were in the way of an operation again and again; try it again");
  }
  constexpr DurationNs kMost = 100 * kMillisecond;
  const DurationNs range = std::min(kMost, kMillisecond << std::min(attempt, 16));
  const auto wait = static_cast<DurationNs>(Random() % static_cast<uint64_t>(range));
  co_await SleepUntil(node_.clock, node_.clock->Now() + wait);
  co_return absl::OkStatus();
}

// --- Data -------------------------------------------------------------------------------------------------------------

Task<absl::Status> EnginePages::ReadData(uint64_t offset, std::span<std::byte> out) {
  const TimeNs deadline = Deadline();
  while (!out.empty()) {
    const PageId first = region_.first + offset / kPageSize;
    const uint64_t count = std::min((offset % kPageSize + out.size() - 1) / kPageSize + 1, PageEngine::kBlockPages);
    absl::Status status = co_await node_.engine->Acquire({first, count}, Rights::kRead, deadline);
    if (!status.ok()) co_return status;
    for (uint64_t i = 0; i < count; ++i) {
      while (node_.engine->RightsOf(first + i) == Rights::kNone) {
        status = co_await node_.engine->Acquire({first + i, 1}, Rights::kRead, deadline);
        if (!status.ok()) co_return status;
      }
      const uint64_t within = offset % kPageSize;
      const size_t more = std::min(out.size(), size_t{kPageSize - within});
      node_.engine->Load(first + i, within, out.first(more));
      out = out.subspan(more);
      offset += more;
    }
  }
  co_return absl::OkStatus();
}

Task<absl::Status> EnginePages::WriteData(uint64_t transaction, uint64_t offset, std::span<const std::byte> bytes) {
  const TimeNs deadline = Deadline();
  while (!bytes.empty()) {
    const PageId first = region_.first + offset / kPageSize;
    const uint64_t count = std::min((offset % kPageSize + bytes.size() - 1) / kPageSize + 1, PageEngine::kBlockPages);
    absl::Status status = co_await node_.engine->Acquire({first, count}, Rights::kWrite, deadline);
    if (!status.ok()) co_return status;
    for (uint64_t i = 0; i < count; ++i) {
      while (node_.engine->RightsOf(first + i) != Rights::kWrite) {
        status = co_await node_.engine->Acquire({first + i, 1}, Rights::kWrite, deadline);
        if (!status.ok()) co_return status;
      }
      const uint64_t within = offset % kPageSize;
      const size_t more = std::min(bytes.size(), size_t{kPageSize - within});
      if (!node_.transactions->IsOpen(client_, transaction)) {
        co_return absl::AbortedError("the transaction has ended while its data was on the way; try it again");
      }
      node_.engine->Store(first + i, within, bytes.first(more));
      bytes = bytes.subspan(more);
      offset += more;
    }
  }
  co_return absl::OkStatus();
}

Task<absl::Status> EnginePages::Flush(PageSpan pages) {
  while (pages.count > 0) {
    const uint64_t count = std::min(pages.count, PageEngine::kBlockPages);
    const absl::Status status = co_await node_.engine->Flush({region_.first + pages.first, count}, Deadline());
    if (!status.ok()) co_return status;
    pages = {pages.first + count, pages.count - count};
  }
  co_return absl::OkStatus();
}

Task<absl::Status> EnginePages::FlushAll(std::vector<PageSpan> pages) {
  absl::Status status;
  for (const PageSpan& span : pages) {
    if (status.ok()) status = co_await Flush(span);
  }
  co_return status;
}

Task<absl::Status> EnginePages::FlushAndSync(std::vector<PageSpan> pages) {
  Outcome<absl::Status> flushed(node_.clock);
  Spawn<absl::Status>(FlushAll(std::move(pages)),
                      [flushed](absl::Status status) mutable { flushed.Set(std::move(status)); });
  const absl::Status synced = co_await SyncTransactions();
  const absl::Status status = co_await flushed.Get();
  co_return status.ok() ? synced : status;
}

Task<absl::Status> EnginePages::Allocate(PageSpan pages, uint32_t replicas) {
  AllocateOptions options;
  options.replicas = replicas;
  return node_.allocate({region_.first + pages.first, pages.count}, options, Deadline());
}

static_assert(kPagesOfDisks == kSegmentPages);  // With which a region begins.

bool EnginePages::HasRoom(uint64_t page) const {
  const PageEngine& engine = *node_.engine;
  const PageId id = region_.first + page;
  const Extent* const extent = engine.core_holder().Find(id);
  for (const NodeId disk : engine.disks().Holders(id, extent == nullptr ? 1 : extent->replicas)) {
    if (!engine.peer_eviction().HasDiskRoom(disk)) return false;
  }
  return true;
}

Task<absl::StatusOr<Space>> EnginePages::GetSpace() {
  const absl::StatusOr<SpaceTotals> totals = co_await node_.space(Deadline());
  if (!totals.ok()) co_return totals.status();
  co_return Space{.total_pages = totals->total_bytes / kPageSize, .free_pages = totals->free_bytes / kPageSize};
}

// --- Who has what open ------------------------------------------------------------------------------------------------

Task<absl::Status> EnginePages::PublishOpen(InodeNumber inode, bool open) { return table_.Publish(inode, open); }

Task<absl::StatusOr<bool>> EnginePages::RenewOpens() {
  const Epoch view = node_.engine->view().epoch;
  const absl::Status status = co_await table_.Renew();
  if (!status.ok()) co_return status;
  co_return std::exchange(renewed_in_, view) != view;
}

Task<absl::Status> EnginePages::EndOpens() {
  absl::Status status = co_await locks_.Retire();
  if (status.ok()) status = co_await table_.Retire();
  co_return status;
}

Task<absl::StatusOr<bool>> EnginePages::IsOpenElsewhere(InodeNumber inode) {
  // The places of the nodes that are there; what the others had open is not open any more.
  std::array<bool, kNodePlaces> places{};
  for (const auto& [node, incarnation] : node_.engine->view().members) places[node.value % kNodePlaces] = true;
  for (uint64_t place = 0; place < kNodePlaces; ++place) {
    if (!places[place] || place == NodePlace()) continue;
    const absl::StatusOr<bool> is_open = co_await table_.IsPublished(place, inode);
    if (!is_open.ok() || *is_open) co_return is_open;
  }
  co_return false;
}

// --- Time and chance --------------------------------------------------------------------------------------------------

uint64_t EnginePages::Random() { return node_.entropy->Next(); }

}  // namespace mangrove::fs
