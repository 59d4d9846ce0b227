#include "engine/transactions/transaction_pages.h"

#include <algorithm>
#include <deque>
#include <span>

#include "engine/page_engine.h"
#include "engine/transactions/transaction_options.h"
#include "net/log.h"

namespace mangrove {
namespace {

constexpr size_t kFlushesAtOnce = 16;

std::span<const std::byte> BytesOf(const std::string& text) { return std::as_bytes(std::span(text)); }

// Pages side by side, as far as one flush goes.
std::vector<PageRange> RangesOf(std::vector<PageId> pages) {
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  std::vector<PageRange> ranges;
  for (const PageId page : pages) {
    if (!ranges.empty() && ranges.back().end() == page && ranges.back().count < PageEngine::kBlockPages) {
      ++ranges.back().count;
    } else {
      ranges.push_back({page, 1});
    }
  }
  return ranges;
}

bool HasNothing(const absl::Status& status) { return absl::IsFailedPrecondition(status) || absl::IsDataLoss(status); }

}  // namespace

HeldPages::HeldPages(TransactionPages* pages, uint64_t lock) : pages_(pages), lock_(lock), open_(pages->open_) {}

void HeldPages::Release() {
  TransactionPages* const pages = std::exchange(pages_, nullptr);
  if (pages != nullptr && *open_) pages->Unlock(lock_);
}

TransactionPages::Allocation TransactionPages::AllocationOf(PageId page) const {
  const PageSummary summary = engine_->Describe(page);
  return {.config = summary.config, .is_volatile = summary.replicas == 0};
}

absl::Status TransactionPages::CheckMayLock(uint64_t pages) const { return engine_->CheckMayLock(pages); }

Task<absl::StatusOr<HeldPages>> TransactionPages::Lock(PageRange range, LockMode mode, TimeNs deadline) {
  const absl::StatusOr<uint64_t> lock = co_await engine_->Lock(kTransactionsClient, range, mode, deadline);
  if (!lock.ok()) co_return lock.status();
  co_return HeldPages(this, *lock);
}

void TransactionPages::Unlock(uint64_t lock) {
  engine_->Unlock(kTransactionsClient, lock).IgnoreError();  // It ends with the node at the latest.
}

bool TransactionPages::IsLockAwaited(PageId page) const { return engine_->IsLockAwaited(page); }

Task<absl::Status> TransactionPages::Fetch(PageRange range, TimeNs deadline) {
  return engine_->Acquire(range, Rights::kRead, deadline);
}

Task<absl::StatusOr<TransactionPages::Content>> TransactionPages::Load(PageId page, TimeNs deadline) {
  while (engine_->RightsOf(page) == Rights::kNone) {
    const absl::Status status = co_await engine_->Acquire({page, 1}, Rights::kRead, deadline);
    if (!status.ok()) co_return status;
  }
  Content content = NewPage();
  engine_->Load(page, 0, content->bytes);
  co_return content;
}

bool TransactionPages::Serves() const { return engine_->Serves(); }

std::optional<std::string> TransactionPages::LoadNow(PageId page, size_t offset, size_t length) const {
  if (engine_->RightsOf(page) == Rights::kNone) return std::nullopt;
  std::string bytes(length, '\0');
  engine_->Load(page, offset, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

Task<absl::Status> TransactionPages::Store(PageId page, Content content, TimeNs deadline) {
  while (engine_->RightsOf(page) != Rights::kWrite) {
    const absl::Status status = co_await engine_->Acquire({page, 1}, Rights::kWrite, deadline);
    if (!status.ok()) co_return status;
  }
  engine_->Store(page, 0, content->bytes);
  co_return absl::OkStatus();
}

Task<absl::Status> TransactionPages::Apply(const PageChange* change, TimeNs deadline) {
  while (engine_->RightsOf(change->page) != Rights::kWrite) {
    const absl::Status status = co_await engine_->Acquire({change->page, 1}, Rights::kWrite, deadline);
    if (!status.ok()) co_return status;
  }
  for (const ByteChange& bytes : change->changes) engine_->Store(change->page, bytes.offset, BytesOf(bytes.bytes));
  engine_->Store(change->page, kTransactionBytes, BytesOf(EncodeTrailer(change->sequence)));
  co_return absl::OkStatus();
}

// What transactions of this node had changed, and another node lost, is in the logs and replayed. Of plain stores the program's own
// flush says it.
Task<absl::Status> TransactionPages::Flush(PageRange range, TimeNs deadline) {
  return engine_->Flush(range, deadline, SayLost::kNo);
}

// One page of the range may be the reason why nothing can be flushed.
Task<absl::Status> TransactionPages::FlushWhatIsThere(PageRange range, TimeNs deadline) {
  absl::Status status = co_await Flush(range, deadline);
  if (!HasNothing(status)) co_return status;
  absl::Status first;
  for (uint64_t i = 0; i < range.count; ++i) {
    status = co_await Flush({range.first + i, 1}, deadline);
    if (absl::IsDataLoss(status)) LogError("a page that a transaction changed is lost: ", status.message());
    if (first.ok() && !HasNothing(status)) first = status;
  }
  co_return first;
}

Task<absl::Status> TransactionPages::FlushAll(std::vector<PageId> pages, TimeNs deadline) {
  std::deque<Outcome<absl::Status>> under_way;
  absl::Status first;
  for (const PageRange& range : RangesOf(std::move(pages))) {
    if (under_way.size() == kFlushesAtOnce) {
      const absl::Status status = co_await under_way.front().Get();
      under_way.pop_front();
      if (first.ok()) first = status;
    }
    Outcome<absl::Status>& flushed = under_way.emplace_back(clock_);
    Spawn<absl::Status>(FlushWhatIsThere(range, deadline),
                        [flushed](absl::Status status) mutable { flushed.Set(std::move(status)); });
  }
  for (Outcome<absl::Status>& flushed : under_way) {
    const absl::Status status = co_await flushed.Get();
    if (first.ok()) first = status;
  }
  co_return first;
}

}  // namespace mangrove
