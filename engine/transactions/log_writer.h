// This node's log: commits go into it in groups, each with one write and one flush; then their changes go into the pages.
//
//  W1  A record is durable before a byte of it is in its pages, and in its pages before its commit is acknowledged. Its pages
//      are exclusively locked all the while: so nothing of them leaves the node, or reaches a disk, before the record is durable.
//  W2  The tail moves past a record when its changes are in their pages and these are flushed, and nobody was lost meanwhile that
//      might have had them. It moves durably, before a page of the log that lies behind it is written again.
//  W3  The pages of a group stay locked from their writing until they are durable, however long that takes. So frames that are not
//      do not go to another node, which may be lost; and no replay reads, and applies a part of, what may be lost with this node.
//  W4  A log belongs to one incarnation, in a generation of its own, which is durable, and named (Y5), before its first record.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/transactions/log_format.h"
#include "engine/transactions/log_replay.h"
#include "engine/transactions/transaction_options.h"
#include "engine/transactions/transaction_pages.h"
#include "engine/transactions/waiters.h"
#include "net/log.h"

namespace mangrove {

class LogWriter {
 public:
  LogWriter(const TransactionsOptions& options, PageEngine* engine, TransactionPages* pages, LogReplay* replay,
            Clock* clock);
  ~LogWriter();
  void Shutdown();

  // Makes the log this incarnation's, if it is not. REQUIRES: no page is locked by who waits for it.
  Task<absl::Status> Open(TimeNs deadline);
  uint64_t most_record_bytes() const;
  // REQUIRES: open; the record's pages are exclusively locked by the caller, and stay so until the outcome. ResourceExhausted: there
  // was no room by the deadline, and nothing has happened. Unavailable: the node ends, and it may have happened. A write that
  // fails is done again for as long as the node lives.
  Outcome<absl::Status> Append(LogRecord record, TimeNs deadline);

  // Whether a record of so many bytes can be appended behind those that wait, and none of them will wait for room. If not, room is made, soon.
  bool HasRoomFor(size_t bytes);

  struct Counters {
    uint64_t commits = 0;
    uint64_t groups = 0;  // Each is one write and one flush.
    uint64_t pages = 0;   // Written.
    uint64_t truncations = 0;
  };
  const Counters& counters() const { return counters_; }
  uint64_t used_pages() const { return current_.number + 1 - tail_; }

 private:
  struct Commit {
    LogRecord record;
    std::string bytes;
    TimeNs deadline;
    Outcome<absl::Status> outcome;
  };
  using CommitPtr = std::shared_ptr<Commit>;
  // A record that is in the log.
  struct Covered {
    uint64_t page = 0;  // Where it begins.
    bool applied = false;
    std::vector<PageId> pages;
  };
  struct Group {
    std::vector<CommitPtr> commits;
    std::vector<LogPage> pages;
    uint64_t first_record = 0;  // In the count of all.
  };

  Task<absl::Status> TakeOver(TimeNs deadline);
  Task<absl::Status> AllocateOnce(TimeNs deadline);
  Task<absl::Status> BeginGeneration(TimeNs deadline);
  Task<absl::Status> WriteHeader(LogHeader header, TimeNs deadline);
  LogHeader HeaderAt(uint64_t tail) const;
  Task<bool> Run();
  Group NextGroup();
  uint64_t AppendBytes(const std::string& bytes, Group& group) const;
  Task<bool> WriteGroup(const Group* group);
  Task<bool> WritePages(const Group* group, size_t begin, size_t end);
  Task<absl::Status> StorePages(const Group* group, size_t begin, PageRange range, TimeNs deadline);
  Task<bool> ApplyGroup(const Group* group);
  void NoteApplied(const Group& group);
  void EndGroup(const Group& group, const absl::Status& status);
  void DropOverdue(const absl::Status& why);
  uint64_t PagesLeft() const { return ring_pages_ - used_pages(); }
  void MakeRoomSoon();
  Task<absl::Status> MakeRoom(TimeNs deadline);
  Task<absl::Status> MoveTail(TimeNs deadline);

  const TransactionsOptions options_;
  PageEngine* const engine_;
  TransactionPages* const pages_;
  LogReplay* const replay_;
  Clock* const clock_;
  const uint32_t ring_pages_;
  bool open_ = false;
  bool opening_ = false;
  Waiters open_waiters_;
  uint64_t generation_ = 0;
  uint64_t tail_ = 0;
  LogPage current_;              // The last one, as far as it is full.
  uint64_t records_ = 0;         // Ever, in this generation.
  std::deque<Covered> covered_;  // The last ones of them.
  std::deque<CommitPtr> queue_;
  size_t queued_bytes_ = 0;
  bool running_ = false;
  bool making_room_ = false;
  Waiters room_waiters_;
  bool stopped_ = false;
  Counters counters_;
  LogOnce said_once_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace mangrove
