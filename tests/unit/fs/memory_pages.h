// Pages of a fileset in memory, for tests: what is committed is durable, data is when it is flushed. It can lose its power, and have
// transactions aborted.
//
// Nothing waits in it but BackOff, for its next turn in Do: so an operation ends in the call that begins it.

#pragma once

#include <coroutine>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "fs/pages.h"
#include "net/check.h"
#include "tests/unit/fs/memory_locks.h"

namespace mangrove::fs {

// Who waits for a turn, in the Do that is under way. A loop over awaits that end at once would take stack each time.
struct Turns {
  static inline thread_local int pumped = 0;
  static inline thread_local std::deque<std::coroutine_handle<>> waiting;

  bool await_ready() const noexcept { return pumped == 0; }
  void await_suspend(std::coroutine_handle<> waiter) { waiting.push_back(waiter); }
  void await_resume() const noexcept {}
};

// Copies of pages in memory: they are here until a test takes them.
class MemoryCopies final : public PageCopies {
 public:
  // 0, as at first: nothing may be kept of them.
  void SetUsableFor(DurationNs time) { usable_for_ = time; }
  // As if another node changed the page: it leaves, and is back at once. `gone`, once nothing is kept of it.
  void Take(uint64_t page, std::function<void()> gone) { Leave(page, std::move(gone)); }

  void NoteChange(uint64_t page) { Change(page); }

  bool Has(uint64_t) const override { return true; }
  DurationNs UsableFor() const override { return usable_for_; }

 private:
  DurationNs usable_for_ = 0;
};

class MemoryPages final : public Pages {
 public:
  // --- For the test
  MemoryCopies& memory_copies() { return copies_; }
  // The power goes: what is not durable is lost, open transactions too. Then it is back.
  void LosePower() {
    data_ = durable_data_;
    open_.clear();
    opened_elsewhere_.clear();
    calls_until_end_.reset();
    ++incarnation_;
  }
  // From the `calls`th change of what is durable on, and for all calls after it, Unavailable: the node is dying.
  void EndAfter(uint64_t calls) { calls_until_end_ = calls; }
  // From then on nothing is found here without a transaction, or is again.
  void SetGlances(bool glances) { glances_ = glances; }
  void StayOn() { calls_until_end_.reset(); }
  uint64_t changes() const { return changes_; }  // Commits with writes, flushes, allocations.
  bool HasEnded() const { return calls_until_end_ == 0; }
  // Each so many-th call of a transaction is answered with Aborted. 0: none is.
  void AbortEach(uint64_t calls) { abort_each_ = calls; }
  void SetOpenElsewhere(InodeNumber inode, bool open) {
    open ? (void)opened_elsewhere_.insert(inode.value) : (void)opened_elsewhere_.erase(inode.value);
  }
  // RenewOpens says so, once.
  void NodesHaveChanged() { nodes_have_changed_ = true; }
  void SetMostPages(uint64_t pages) { most_pages_ = pages; }
  // The disks have no room for more, or have it again.
  void SetFull(bool full) { is_full_ = full; }
  // Of the pages whose storage begins here.
  uint32_t replicas(uint64_t first) const { return replicas_.at(first); }
  void SetNow(int64_t ns) { now_ns_ = ns; }
  // Bytes of a metadata page, to damage them.
  std::string& metadata(uint64_t page) { return metadata_[page]; }
  size_t open_transactions() const { return open_.size(); }
  // Of data, now or on the disk.
  std::set<uint64_t> PagesThatAreNotZeros() const {
    std::set<uint64_t> pages;
    for (const auto* content : {&data_, &durable_data_}) {
      for (const auto& [page, bytes] : *content) {
        if (bytes.find_first_not_of('\0') != bytes.npos) pages.insert(page);
      }
    }
    return pages;
  }

  // --- Pages
  PageCopies* copies() override { return &copies_; }
  Task<absl::StatusOr<uint64_t>> Begin() override {
    if (absl::Status s = Alive(); !s.ok()) co_return s;
    open_[++last_] = {};
    co_return last_;
  }
  Task<absl::StatusOr<std::string>> Read(uint64_t transaction, uint64_t page, Intent) override {
    if (absl::Status s = Check(transaction); !s.ok()) co_return s;
    CHECK(!data_.contains(page));  // S1
    if (!IsAllocated(page)) co_return absl::FailedPreconditionError(absl::StrCat("page ", page, " is not allocated"));
    const auto& writes = open_[transaction];
    const auto mine = writes.find(page);
    if (mine != writes.end()) co_return mine->second;
    co_return Metadata(page);
  }
  std::optional<std::string> Glance(uint64_t page) override {
    if (!Alive().ok() || !glances_ || !IsAllocated(page)) return std::nullopt;
    CHECK(!data_.contains(page));  // S1
    return Metadata(page);
  }
  Task<absl::Status> Write(uint64_t transaction, uint64_t page, uint32_t offset, std::string bytes) override {
    if (absl::Status s = Check(transaction); !s.ok()) co_return s;
    CHECK(offset + bytes.size() <= kMetadataBytes);
    CHECK(IsAllocated(page) && !data_.contains(page));
    auto& writes = open_[transaction];
    const auto [mine, is_first] = writes.try_emplace(page);
    if (is_first) mine->second = Metadata(page);
    mine->second.replace(offset, bytes.size(), bytes);
    co_return absl::OkStatus();
  }
  Task<absl::Status> Commit(uint64_t transaction) override {
    if (absl::Status s = Check(transaction); !s.ok()) co_return s;
    auto writes = std::move(open_[transaction]);
    open_.erase(transaction);
    if (writes.empty()) co_return absl::OkStatus();
    if (absl::Status s = Change(); !s.ok()) co_return s;
    for (auto& [page, bytes] : writes) {
      metadata_[page] = std::move(bytes);
      copies_.NoteChange(page);
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> SyncTransactions() override { co_return Alive(); }
  void Abort(uint64_t transaction) override { open_.erase(transaction); }

  Task<absl::Status> ReadData(uint64_t offset, std::span<std::byte> out) override {
    if (absl::Status s = Alive(); !s.ok()) co_return s;
    for (size_t i = 0; i < out.size();) {
      const uint64_t page = (offset + i) / kPageSize;
      const uint64_t within = (offset + i) % kPageSize;
      const size_t more = std::min(out.size() - i, size_t{kPageSize - within});
      CHECK(IsAllocated(page) && !metadata_.contains(page));  // S1
      const auto it = data_.find(page);
      it == data_.end() ? std::memset(&out[i], 0, more) : std::memcpy(&out[i], it->second.data() + within, more);
      i += more;
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> WriteData(uint64_t transaction, uint64_t offset, std::span<const std::byte> bytes) override {
    if (absl::Status s = Check(transaction); !s.ok()) co_return s;
    for (size_t i = 0; i < bytes.size();) {
      const uint64_t page = (offset + i) / kPageSize;
      const uint64_t within = (offset + i) % kPageSize;
      const size_t more = std::min(bytes.size() - i, size_t{kPageSize - within});
      CHECK(IsAllocated(page) && !metadata_.contains(page));
      std::string& content = data_[page];
      content.resize(kPageSize);
      std::memcpy(content.data() + within, &bytes[i], more);
      i += more;
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Flush(PageSpan pages) override {
    if (absl::Status s = Change(); !s.ok()) co_return s;
    for (auto it = data_.lower_bound(pages.first); it != data_.end() && it->first < pages.first + pages.count; ++it) {
      durable_data_[it->first] = it->second;
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Allocate(PageSpan pages, uint32_t replicas) override {
    if (allocated_.contains(pages.first)) co_return absl::AlreadyExistsError("it is allocated");
    if (allocated_pages_ + pages.count > most_pages_) co_return absl::ResourceExhaustedError("the disks are full");
    if (absl::Status s = Change(); !s.ok()) co_return s;
    allocated_[pages.first] = pages.count;
    replicas_[pages.first] = replicas;
    allocated_pages_ += pages.count;
    co_return absl::OkStatus();
  }
  bool HasRoom(uint64_t) const override { return !is_full_; }
  Task<absl::StatusOr<Space>> GetSpace() override {
    co_return Space{.total_pages = most_pages_, .free_pages = most_pages_ - allocated_pages_};
  }
  Task<absl::Status> PublishOpen(InodeNumber, bool) override { co_return Alive(); }
  Task<absl::StatusOr<bool>> RenewOpens() override { co_return std::exchange(nodes_have_changed_, false); }
  Task<absl::Status> EndOpens() override { co_return Alive(); }
  Task<absl::StatusOr<bool>> IsOpenElsewhere(InodeNumber inode) override {
    co_return opened_elsewhere_.contains(inode.value);
  }
  MemoryLocks* locks() override { return &locks_; }
  Task<absl::Status> BackOff(int attempt) override {
    co_await Turns{};
    co_return attempt < 100 ? Alive() : absl::UnavailableError("aborted 100 times");
  }
  uint64_t NodePlace() const override { return 0; }
  uint64_t Incarnation() const override { return incarnation_; }
  int64_t NowNs() const override { return now_ns_; }
  uint64_t Random() override { return ++random_; }

 private:
  std::string Metadata(uint64_t page) {
    const auto it = metadata_.find(page);
    return it == metadata_.end() ? std::string(kMetadataBytes, '\0') : it->second;
  }
  bool IsAllocated(uint64_t page) const {
    const auto it = allocated_.upper_bound(page);
    return it != allocated_.begin() && page < std::prev(it)->first + std::prev(it)->second;
  }
  absl::Status Alive() const { return HasEnded() ? absl::UnavailableError("the node has ended") : absl::OkStatus(); }
  absl::Status Change() {
    if (absl::Status s = Alive(); !s.ok()) return s;
    if (calls_until_end_ && --*calls_until_end_ == 0) return Alive();
    ++changes_;
    return absl::OkStatus();
  }
  absl::Status Check(uint64_t transaction) {
    if (absl::Status s = Alive(); !s.ok()) return s;
    if (!open_.contains(transaction)) return absl::AbortedError("the transaction has ended");
    if (abort_each_ > 0 && ++calls_ % abort_each_ == 0) {
      open_.erase(transaction);
      return absl::AbortedError("as the test wants it");
    }
    return absl::OkStatus();
  }

  MemoryLocks locks_;
  std::map<uint64_t, std::string> metadata_;
  std::map<uint64_t, std::string> data_;
  std::map<uint64_t, std::string> durable_data_;
  std::map<uint64_t, uint64_t> allocated_;  // First page and count.
  std::map<uint64_t, uint32_t> replicas_;
  std::map<uint64_t, std::map<uint64_t, std::string>> open_;
  std::set<uint64_t> opened_elsewhere_;
  bool nodes_have_changed_ = false;
  std::optional<uint64_t> calls_until_end_;
  uint64_t allocated_pages_ = 0;
  uint64_t most_pages_ = uint64_t{1} << 30;
  bool is_full_ = false;
  bool glances_ = true;
  uint64_t abort_each_ = 0;
  uint64_t calls_ = 0;
  uint64_t changes_ = 0;
  uint64_t last_ = 0;
  uint64_t random_ = 0;
  uint64_t incarnation_ = 1;
  int64_t now_ns_ = 1'000'000'000'000;
  MemoryCopies copies_;
};

// The result of an operation over MemoryPages.
template <typename T>
T Do(Task<T> task) {
  std::optional<T> result;
  ++Turns::pumped;
  Spawn<T>(std::move(task), [&](T value) { result.emplace(std::move(value)); });
  while (!result && !Turns::waiting.empty()) {
    const std::coroutine_handle<> waiter = Turns::waiting.front();
    Turns::waiting.pop_front();
    waiter.resume();
  }
  --Turns::pumped;
  CHECK(result.has_value());
  return *std::move(result);
}

}  // namespace mangrove::fs
