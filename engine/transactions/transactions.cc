#include "engine/transactions/transactions.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"

namespace mangrove {
namespace {

// Each may hold half a log of writes.
constexpr ptrdiff_t kMostOfClient = 128;

}  // namespace

// A page that a transaction has locked.
struct Transactions::Page {
  HeldPages lock;
  bool is_locked = false;
  bool is_local = false;  // In LocalPages, which has its lock.
  LockMode mode = LockMode::kShared;
  ConfigNumber config;
  uint64_t sequence = 0;
  std::vector<ByteChange> writes;
  TransactionPages::Content content;  // As it was when it was locked, for the call that did; for its lazy commit.
};

struct Transactions::Open {
  uint64_t id = 0;
  ClientId client = 0;
  TimeNs deadline = 0;
  Clock::TimerId timer = 0;
  bool busy = false;        // A call of it is under way.
  bool committing = false;  // And cannot be aborted any more.
  bool ended = false;
  size_t bytes = 0;  // Of its writes.
  std::map<PageId, Page> pages;

  bool HasWrites() const {
    return std::any_of(pages.begin(), pages.end(), [](const auto& page) { return !page.second.writes.empty(); });
  }
  bool HasLocalPages() const {
    return std::any_of(pages.begin(), pages.end(),
                       [](const auto& page) { return page.second.is_local && !page.second.writes.empty(); });
  }
};

namespace {

void Apply(const std::vector<ByteChange>& writes, PageBytes* page) {
  for (const ByteChange& write : writes) {
    std::memcpy(page->bytes.data() + write.offset, write.bytes.data(), write.bytes.size());
  }
}

std::string WithWrites(const PageBytes& page, const std::vector<ByteChange>& writes, uint64_t offset, uint64_t length) {
  if (writes.empty()) return std::string(reinterpret_cast<const char*>(page.bytes.data()) + offset, length);
  PageBytes changed = page;
  Apply(writes, &changed);
  return std::string(reinterpret_cast<const char*>(changed.bytes.data()) + offset, length);
}

}  // namespace

Transactions::Transactions(const TransactionsOptions& options, PageEngine* engine, Clock* clock, Entropy* entropy)
    : options_(options),
      clock_(clock),
      pages_(engine, clock),
      replay_(options, engine, &pages_, clock, entropy),
      log_(options, engine, &pages_, &replay_, clock),
      local_(&pages_, clock),
      sync_waiters_(clock) {}

Transactions::~Transactions() { *alive_ = false; }

void Transactions::Shutdown() {
  stopped_ = true;
  replay_.Shutdown();
  log_.Shutdown();
  std::vector<uint64_t> ids;
  for (const auto& [id, transaction] : open_) {
    if (!transaction->committing) ids.push_back(id);
  }
  for (const uint64_t id : ids) End(id);
  pages_.Shutdown();
  local_.Clear();
  sync_waiters_.WakeAll();
}

// --- Beginning and ending ---------------------------------------------------------------------------------------------

Task<absl::StatusOr<uint64_t>> Transactions::Begin(ClientId client, TimeNs deadline) {
  absl::Status status = co_await log_.Open(deadline);
  if (status.ok()) status = co_await replay_.Wait(deadline);
  if (status.ok() && stopped_) status = absl::UnavailableError("this node is shutting down");
  const auto is_its = [client](const auto& open) { return open.second->client == client; };
  if (status.ok() && std::count_if(open_.begin(), open_.end(), is_its) >= kMostOfClient) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("the program has ", kMostOfClient, " transactions open, which is the limit"));
  }
  if (!status.ok()) co_return status;
  auto transaction = std::make_shared<Open>();
  transaction->id = next_++;
  transaction->client = client;
  transaction->deadline = deadline;
  transaction->timer = clock_->CallAt(deadline, [this, alive = alive_, id = transaction->id] {
    if (*alive) EndOverdue(id);
  });
  open_[transaction->id] = transaction;
  co_return transaction->id;
}

absl::StatusOr<Transactions::OpenPtr> Transactions::Find(ClientId client, uint64_t id) {
  const auto it = open_.find(id);
  if (it == open_.end() || it->second->client != client) {
    return absl::AbortedError(absl::StrCat("transaction ", id, " has ended; try it again from its beginning"));
  }
  if (it->second->busy || it->second->committing) {
    return absl::FailedPreconditionError(absl::StrCat("another call of transaction ", id, " is under way"));
  }
  return it->second;
}

bool Transactions::IsOpen(ClientId client, uint64_t id) const {
  const auto it = open_.find(id);
  return it != open_.end() && it->second->client == client;
}

absl::Status Transactions::Ended(const Open& transaction) const {
  return absl::AbortedError(absl::StrCat("transaction ", transaction.id, " has ended meanwhile; try it again"));
}

void Transactions::End(uint64_t id) {
  const auto it = open_.find(id);
  if (it == open_.end()) return;
  const OpenPtr transaction = it->second;
  open_.erase(it);
  transaction->ended = true;
  clock_->Cancel(std::exchange(transaction->timer, 0));
  if (!transaction->busy) LeavePages(transaction.get());  // Otherwise the call does, when it comes back.
}

void Transactions::EndOverdue(uint64_t id) {
  const auto it = open_.find(id);
  if (it == open_.end() || it->second->committing) return;
  ++counters_.aborted;
  End(id);
}

// A call of it is over. T3
void Transactions::Leave(const OpenPtr& transaction, const absl::Status& status) {
  transaction->busy = false;
  if (transaction->ended) {
    LeavePages(transaction.get());
  } else if (absl::IsAborted(status)) {
    ++counters_.aborted;
    End(transaction->id);
  }
}

absl::Status Transactions::Abort(ClientId client, uint64_t id) {
  const auto it = open_.find(id);
  if (it == open_.end() || it->second->client != client) return absl::OkStatus();  // It has ended by itself.
  if (it->second->committing) {
    return absl::FailedPreconditionError(absl::StrCat("the commit of transaction ", id, " has begun"));
  }
  ++counters_.aborted;
  End(id);
  return absl::OkStatus();
}

void Transactions::EndClient(ClientId client) {
  std::vector<uint64_t> ids;
  for (const auto& [id, transaction] : open_) {
    if (transaction->client == client && !transaction->committing) ids.push_back(id);
  }
  for (const uint64_t id : ids) End(id);
  counters_.aborted += ids.size();
}

// --- Pages ------------------------------------------------------------------------------------------------------------

absl::Status Transactions::CheckRange(GlobalAddress at, uint64_t length) {
  const uint64_t offset = absl::Uint128Low64(at.value) % kPageBytes;
  if (length > 0 && length <= kTransactionBytes && offset <= kTransactionBytes - length) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(length, " bytes from byte ", offset, " of a page on; expected 1 to ",
                                                 kTransactionBytes, " bytes within the first ", kTransactionBytes,
                                                 " of one page"));
}

Task<absl::StatusOr<Transactions::Page*>> Transactions::Hold(OpenPtr transaction, PageId page, LockMode mode) {
  Page& held = transaction->pages[page];
  if (held.is_locked && (held.mode == mode || held.mode == LockMode::kExclusive)) co_return &held;
  const absl::Status status = co_await LockPage(transaction, page, mode, &held);
  if (!status.ok()) {
    // It may have been locked for reading before, and is not any more.
    const bool was_locked = std::exchange(held.is_locked, false);
    if (held.is_local) local_.Leave(page, transaction->id);
    transaction->pages.erase(page);
    if (was_locked) co_return absl::AbortedError(status.message());
    co_return status;
  }
  co_return &held;
}

Task<absl::Status> Transactions::LockPage(OpenPtr transaction, PageId page, LockMode mode, Page* held) {
  held->lock.Release();  // A lock for reading would be in the way.
  const absl::StatusOr<bool> is_local = co_await TakeLocal(transaction, page, mode, held);
  if (!is_local.ok()) co_return is_local.status();
  if (*is_local) co_return absl::OkStatus();
  if (const absl::Status room = pages_.CheckMayLock(1); !room.ok()) {
    // Those of lazy commits are given up soon (P3).
    co_return local_.IsEmpty() ? room : absl::AbortedError(room.message());
  }
  const TimeNs deadline = std::min(transaction->deadline, clock_->Now() + options_.lock_timeout);
  absl::StatusOr<HeldPages> lock = co_await pages_.Lock({page, 1}, mode, deadline);
  if (transaction->ended) co_return Ended(*transaction);
  if (absl::IsDeadlineExceeded(lock.status()) || absl::IsUnavailable(lock.status())) {
    co_return absl::AbortedError(absl::StrCat(lock.status().message(), "; the transaction has ended; try it again"));
  }
  if (!lock.ok()) co_return lock.status();
  if (!replay_.IsDone()) {  // T2
    co_return absl::AbortedError(
        "a node was lost, and what its transactions wrote is not there again yet; try it again");
  }
  const auto content = co_await pages_.Load(page, transaction->deadline);
  if (transaction->ended) co_return Ended(*transaction);
  if (!content.ok()) co_return absl::AbortedError(content.status().message());
  const absl::StatusOr<uint64_t> sequence = SequenceOf(page, **content);
  if (!sequence.ok()) co_return sequence.status();
  const TransactionPages::Allocation allocation = pages_.AllocationOf(page);
  if (allocation.is_volatile) {
    co_return absl::FailedPreconditionError(
        absl::StrCat("page ", ToString(page), " is volatile; transactions are of persistent pages"));
  }
  if (held->is_locked && (held->sequence != *sequence || held->config != allocation.config)) {
    co_return absl::AbortedError(
        absl::StrCat("page ", ToString(page), " was changed between its reading and its writing; try it again"));
  }
  held->lock = *std::move(lock);
  held->is_locked = true;
  held->mode = mode;
  held->sequence = *sequence;
  held->config = allocation.config;
  held->content = *content;
  co_return absl::OkStatus();
}

// False: the page is not one of those.
Task<absl::StatusOr<bool>> Transactions::TakeLocal(OpenPtr transaction, PageId page, LockMode mode, Page* held) {
  const TimeNs deadline = std::min(transaction->deadline, clock_->Now() + options_.lock_timeout);
  while (local_.Find(page) != nullptr && !local_.Take(page, transaction->id, mode)) {
    if (std::exchange(held->is_local, false)) {
      local_.Leave(page, transaction->id);
      continue;
    }
    const bool woken = co_await local_.Wait(page, deadline);
    if (transaction->ended) co_return Ended(*transaction);
    if (!woken) {
      co_return absl::AbortedError(
          absl::StrCat("page ", ToString(page), " is held by other transactions; try it again"));
    }
  }
  const LocalPages::Page* const local = local_.Find(page);
  held->is_local = local != nullptr;
  if (local == nullptr) co_return false;
  if (held->is_locked && (held->sequence != local->sequence || held->config != local->config)) {
    co_return absl::AbortedError(
        absl::StrCat("page ", ToString(page), " was changed between its reading and its writing; try it again"));
  }
  held->is_locked = true;
  held->mode = mode;
  held->sequence = local->sequence;
  held->config = local->config;
  co_return true;
}

void Transactions::LeavePages(Open* transaction) {
  for (const auto& [page, held] : std::exchange(transaction->pages, {})) {
    if (held.is_local) local_.Leave(page, transaction->id);
  }
}

Task<absl::StatusOr<std::string>> Transactions::Read(ClientId client, uint64_t id, GlobalAddress at, uint64_t length,
                                                     AccessMode mode) {
  if (absl::Status s = CheckRange(at, length); !s.ok()) co_return s;
  const absl::StatusOr<OpenPtr> transaction = Find(client, id);
  if (!transaction.ok()) co_return transaction.status();
  (*transaction)->busy = true;
  absl::StatusOr<std::string> bytes = co_await ReadHeld(
      *transaction, at, length, mode == AccessMode::kWrite ? LockMode::kExclusive : LockMode::kShared);
  Leave(*transaction, bytes.status());
  co_return bytes;
}

Task<absl::StatusOr<std::string>> Transactions::ReadHeld(OpenPtr transaction, GlobalAddress at, uint64_t length,
                                                         LockMode mode) {
  const PageId page = PageOf(at);
  const uint64_t offset = absl::Uint128Low64(at.value) % kPageBytes;
  const absl::StatusOr<Page*> held = co_await Hold(transaction, page, mode);
  if (!held.ok()) co_return held.status();
  if ((*held)->is_local) {
    const LocalPages::Page* const local = local_.Find(page);
    co_return WithWrites(*local->content, (*held)->writes, offset, length);
  }
  if (const auto locked_now = std::exchange((*held)->content, nullptr); locked_now != nullptr) {
    co_return WithWrites(*locked_now, (*held)->writes, offset, length);
  }
  const auto content = co_await pages_.Load(page, transaction->deadline);
  if (transaction->ended) co_return Ended(*transaction);
  if (!content.ok()) co_return absl::AbortedError(content.status().message());
  co_return WithWrites(**content, (*held)->writes, offset, length);
}

std::optional<std::string> Transactions::Glance(GlobalAddress at, uint64_t length) {
  if (stopped_ || !pages_.Serves() || !replay_.IsDone() || !CheckRange(at, length).ok()) return std::nullopt;  // T2
  const PageId page = PageOf(at);
  const uint64_t offset = absl::Uint128Low64(at.value) % kPageBytes;
  const LocalPages::Page* const local = local_.Find(page);
  if (local != nullptr) return WithWrites(*local->content, {}, offset, length);
  return pages_.LoadNow(page, offset, length);
}

Task<absl::Status> Transactions::Write(ClientId client, uint64_t id, GlobalAddress at, std::string bytes) {
  if (absl::Status s = CheckRange(at, bytes.size()); !s.ok()) co_return s;
  const absl::StatusOr<OpenPtr> transaction = Find(client, id);
  if (!transaction.ok()) co_return transaction.status();
  (*transaction)->busy = true;
  const absl::Status status = co_await WriteHeld(*transaction, at, std::move(bytes));
  Leave(*transaction, status);
  co_return status;
}

Task<absl::Status> Transactions::WriteHeld(OpenPtr transaction, GlobalAddress at, std::string bytes) {
  constexpr size_t kBesides = 64;  // Of a record, for each write: more than its numbers take up.
  const size_t more = bytes.size() + kBesides;
  if (transaction->bytes + more > log_.most_record_bytes()) {
    co_return absl::ResourceExhaustedError(absl::StrCat("the writes of transaction ", transaction->id, " would be ",
                                                        transaction->bytes + more, " bytes; expected at most ",
                                                        log_.most_record_bytes(), ", half of the node's log"));
  }
  const absl::StatusOr<Page*> held = co_await Hold(transaction, PageOf(at), LockMode::kExclusive);
  if (!held.ok()) co_return held.status();
  (*held)->content = nullptr;
  transaction->bytes += more;
  const auto offset = static_cast<uint16_t>(absl::Uint128Low64(at.value) % kPageBytes);
  (*held)->writes.push_back({offset, std::move(bytes)});
  co_return absl::OkStatus();
}

// --- Commit -----------------------------------------------------------------------------------------------------------

LogRecord Transactions::RecordOf(const Open& transaction) const {
  LogRecord record{.owner = options_.self, .transaction = transaction.id, .pages = {}};
  for (const auto& [page, held] : transaction.pages) {
    if (held.writes.empty()) continue;
    record.pages.push_back(
        {.page = page, .config = held.config, .sequence = held.sequence + 1, .changes = held.writes});
  }
  return record;
}

// Also when nobody waits for it any more.
Task<absl::Status> Transactions::AppendAndEnd(OpenPtr transaction) {
  const auto alive = alive_;
  Outcome<absl::Status> appended = log_.Append(RecordOf(*transaction), transaction->deadline);
  absl::Status status = co_await appended.Get();
  if (!*alive) co_return status;
  status.ok() ? ++counters_.committed : ++counters_.aborted;
  End(transaction->id);
  co_return status;
}

Task<absl::Status> Transactions::Commit(ClientId client, uint64_t id) {
  const absl::StatusOr<OpenPtr> found = Find(client, id);
  if (!found.ok()) co_return found.status();
  const OpenPtr transaction = *found;
  if (!transaction->HasWrites()) {
    End(id);
    co_return absl::OkStatus();
  }
  if (transaction->HasLocalPages()) {  // It comes after what is not durable yet.
    const TimeNs deadline = transaction->deadline;
    absl::Status committed = co_await CommitLazily(client, id);
    if (committed.ok()) committed = co_await Sync(deadline);
    co_return committed;
  }
  transaction->committing = true;
  clock_->Cancel(std::exchange(transaction->timer, 0));
  Outcome<absl::Status> answer(clock_);
  Spawn<absl::Status>(AppendAndEnd(transaction),
                      [answer](absl::Status status) mutable { answer.Set(std::move(status)); });
  // What waits for room in the log ends by the deadline by itself; what is on its way to the disks cannot be taken back.
  constexpr DurationNs kSlack = 100 * kMillisecond;
  const Clock::TimerId timer = clock_->CallAt(transaction->deadline + kSlack, [answer]() mutable {
    answer.Set(
        absl::UnavailableError("the log of this node's transactions could not be flushed in time; the transaction may "
                               "or may not be committed"));
  });
  Clock* const clock = clock_;
  absl::Status status = co_await answer.Get();
  clock->Cancel(timer);
  co_return status;
}

// What the pages hold that are not in LocalPages yet.
Task<absl::Status> Transactions::LoadForCommit(OpenPtr transaction) {
  for (auto& [page, held] : transaction->pages) {
    if (held.is_local || held.writes.empty()) continue;
    absl::StatusOr<TransactionPages::Content> content = co_await pages_.Load(page, transaction->deadline);
    if (!content.ok()) co_return absl::AbortedError(content.status().message());
    held.content = *std::move(content);
  }
  co_return absl::OkStatus();
}

// What is acknowledged must not wait for room: others, who may have to make it, might be waiting for its pages. At the latest then.
Task<absl::Status> Transactions::AwaitRoom(OpenPtr transaction) {
  constexpr DurationNs kLookAgain = 2 * kMillisecond;
  constexpr size_t kMostLazyBytes = size_t{512} << 10;
  constexpr size_t kHead = 64;  // Of a record, at most; the writes' bytes are counted with what goes with them.
  const TimeNs deadline = std::min(transaction->deadline, clock_->Now() + options_.lock_timeout);
  while (lazy_bytes_ > kMostLazyBytes || !log_.HasRoomFor(transaction->bytes + kHead)) {
    if (stopped_ || transaction->ended || clock_->Now() >= deadline) {
      co_return absl::AbortedError("the log of this node's transactions has no room; try it again");
    }
    const auto alive = alive_;
    co_await SleepUntil(clock_, clock_->Now() + kLookAgain);
    if (!*alive) co_return absl::AbortedError("this node is shutting down");
  }
  co_return absl::OkStatus();
}

// In one step, so that records are in the log in the order in which transactions see each other.
void Transactions::CommitNow(const OpenPtr& transaction) {
  constexpr TimeNs kWheneverThereIsRoom = std::numeric_limits<TimeNs>::max();
  Outcome<absl::Status> appended = log_.Append(RecordOf(*transaction), kWheneverThereIsRoom);
  std::vector<PageId> pages;
  for (auto& [page, held] : transaction->pages) {
    if (held.writes.empty()) continue;
    LocalPages::Page* local = local_.Find(page);
    if (!std::exchange(held.is_local, true)) {
      local = local_.Add(page, transaction->id, std::move(held.lock));
      local->content = std::move(held.content);
    }
    Apply(held.writes, local->content.get());
    local->sequence = held.sequence + 1;
    local->config = held.config;
    ++local->pending;
    pages.push_back(page);
  }
  ++lazy_commits_;
  lazy_bytes_ += transaction->bytes;
  Spawn<bool>(AwaitApplied(appended, std::move(pages), transaction->bytes), [](bool) {});
  ++counters_.committed;
  End(transaction->id);
}

Task<bool> Transactions::AwaitApplied(Outcome<absl::Status> appended, std::vector<PageId> pages, size_t bytes) {
  const auto alive = alive_;
  const absl::Status status = co_await appended.Get();
  if (!*alive) co_return false;
  // Otherwise the node ends, with all that it has.
  if (!status.ok()) co_return false;
  for (const PageId page : pages) local_.Applied(page);
  ++lazy_applied_;
  lazy_bytes_ -= bytes;
  sync_waiters_.WakeAll();
  co_return true;
}

Task<absl::Status> Transactions::CommitLazily(ClientId client, uint64_t id) {
  const absl::StatusOr<OpenPtr> found = Find(client, id);
  if (!found.ok()) co_return found.status();
  const OpenPtr transaction = *found;
  if (!transaction->HasWrites()) {
    End(id);
    co_return absl::OkStatus();
  }
  transaction->busy = true;
  absl::Status status = co_await LoadForCommit(transaction);
  if (status.ok()) status = co_await AwaitRoom(transaction);
  if (status.ok() && stopped_) status = absl::AbortedError("this node is shutting down");
  Leave(transaction, status);
  if (status.ok() && transaction->ended) status = Ended(*transaction);
  if (!status.ok()) co_return status;
  transaction->committing = true;
  clock_->Cancel(std::exchange(transaction->timer, 0));
  CommitNow(transaction);
  co_return absl::OkStatus();
}

Task<absl::Status> Transactions::Sync(TimeNs deadline) {
  const uint64_t wanted = lazy_commits_;
  while (lazy_applied_ < wanted) {
    bool woken = false;
    if (!stopped_) woken = co_await sync_waiters_.Wait(deadline);
    if (!woken || stopped_) {
      co_return absl::UnavailableError(
          "the log of this node's transactions could not be flushed in time; what was committed may be lost if the "
          "node "
          "is");
    }
  }
  co_return absl::OkStatus();
}

// --- Reading ----------------------------------------------------------------------------------------------------------

Task<absl::StatusOr<LogContent>> Transactions::ReadLogOf(NodeId node, TimeNs deadline) {
  const absl::StatusOr<std::vector<NodeId>> logs = co_await replay_.Logs(deadline);
  if (!logs.ok()) co_return logs.status();
  if (std::find(logs->begin(), logs->end(), node) == logs->end()) {
    co_return absl::NotFoundError(absl::StrCat(ToString(node), " has never had a transaction"));
  }
  absl::StatusOr<LogContent> content = co_await ReadLog(&pages_, node, deadline);
  co_return content;
}

Task<absl::StatusOr<std::string>> Transactions::GiveUpLog(NodeId node, bool is_confirmed, TimeNs deadline) {
  const absl::StatusOr<std::vector<NodeId>> logs = co_await replay_.Logs(deadline);
  if (!logs.ok()) co_return logs.status();
  if (std::find(logs->begin(), logs->end(), node) == logs->end()) {
    co_return absl::NotFoundError(absl::StrCat(ToString(node), " has never had a transaction"));
  }
  const absl::Status lost = co_await replay_.CheckLost(node, deadline);
  if (lost.ok()) {
    co_return absl::FailedPreconditionError(
        absl::StrCat("the log of ", ToString(node), " can be read; nothing of it is lost, and nothing was changed"));
  }
  if (!absl::IsDataLoss(lost)) co_return lost;
  if (is_confirmed) {
    const absl::Status done = co_await replay_.GiveUpLost(node, deadline);
    if (!done.ok()) co_return done;
  }
  co_return std::string(lost.message());
}

Task<absl::StatusOr<std::string>> ReadLogOfRange(Transactions* transactions, NodeId node, PageRange pages,
                                                 TimeNs deadline) {
  absl::StatusOr<LogContent> content = co_await transactions->ReadLogOf(node, deadline);
  if (!content.ok()) co_return content.status();
  std::string encoded;
  for (const LogRecord& record : OnlyOf(pages, std::move(content->records))) encoded += EncodeRecord(record);
  co_return encoded;
}

}  // namespace mangrove
