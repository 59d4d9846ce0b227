// What a node's log of transactions looks like, and what a transaction leaves in a page. docs/TRANSACTIONS.md draws it.
//
// A log is a ring of pages. Its first page is the header: whose log it is, and from where on it counts. The other pages are one
// stream of bytes, in which records follow each other and go from page to page. Each start of an owner is a generation of its own;
// the pages of a generation are numbered from 0 on, and page n lies at place n modulo the ring's size.
//
//  L1  A page of another generation, or with another number than its place asks for, is not of this log: the log ends before it.
//  L2  Only a page that is full goes on in the next one. A record whose bytes are not all there is not part of the log: the log ends
//      before it. What is there, and does not fit its checksum, is no end, since committed records may lie behind it: it is damage.
//  L3  The last kTrailerBytes of a page that transactions write are theirs: how many of them have changed it, and a checksum.
//      All zeros: none has.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/version.h"
#include "net/ids.h"
#include "net/page_buffer.h"

namespace mangrove {

constexpr size_t kTrailerBytes = 16;
constexpr size_t kTransactionBytes = kPageBytes - kTrailerBytes;  // Of a page, for the application.

// --- Where ------------------------------------------------------------------------------------------------------------

// Says which logs there are, and up to which view all that was lost has been replayed. Below node 1's log.
constexpr PageId kReplayPage = kFirstTransactionPage;
constexpr uint64_t kMostLogPages =
    4096;  // With the header. All of them are allocated; those that are not used cost nothing.
constexpr uint64_t kLeastLogPages = 4;
// Of every page of a log, and of the replay page.
constexpr ConfigNumber kLogConfig{1};

constexpr PageRange LogOf(NodeId node) {
  return {PageId(kFirstTransactionPage.value + (absl::uint128(node.value) << 20)), kMostLogPages};
}

// --- The pages --------------------------------------------------------------------------------------------------------

struct LogHeader {
  NodeInstance owner;       // Nobody: what was in it is in its pages.
  uint64_t generation = 0;  // 0: never used.
  uint32_t ring_pages = 0;  // Without the header.
  uint64_t tail = 0;        // The first page that counts.
  friend bool operator==(const LogHeader&, const LogHeader&) = default;
};

// A page of zeros is a header that was never used. DataLoss: it is not one.
void EncodeLogHeader(const LogHeader& header, PageBytes& page);
absl::StatusOr<LogHeader> DecodeLogHeader(const PageBytes& page);

struct ReplayState {
  Epoch done;  // All that was lost up to this view has been replayed.
  std::vector<NodeId>
      logs;  // The nodes that have a log. Of pages that are not allocated not every disk can say that they are not.
  friend bool operator==(const ReplayState&, const ReplayState&) = default;
};
constexpr size_t kMostLogs = 500;

void EncodeReplayState(const ReplayState& state, PageBytes& page);
absl::StatusOr<ReplayState> DecodeReplayState(const PageBytes& page);

// A page of the stream.
constexpr size_t kLogPageHeaderBytes = 32;
constexpr size_t kLogPayloadBytes = kPageBytes - kLogPageHeaderBytes;
constexpr uint16_t kNoRecord = UINT16_MAX;

struct LogPage {
  uint64_t generation = 0;
  uint64_t number = 0;
  uint16_t first_record = kNoRecord;  // Where in the payload the first one begins.
  std::string payload;                // At most kLogPayloadBytes.
};

void EncodeLogPage(const LogPage& log_page, PageBytes& page);
// Nothing: not a page of a log, or damaged.
std::optional<LogPage> DecodeLogPage(const PageBytes& page);

// The page `number` of the ring.
inline PageId LogPageAt(NodeId node, uint32_t ring_pages, uint64_t number) {
  return LogOf(node).first + (1 + number % ring_pages);
}

// --- Records ----------------------------------------------------------------------------------------------------------

struct ByteChange {
  uint16_t offset = 0;
  std::string bytes;
  friend bool operator==(const ByteChange&, const ByteChange&) = default;
};

struct PageChange {
  PageId page;
  ConfigNumber config;              // Of the page's allocation.
  uint64_t sequence = 0;            // Of the page, with this change.
  std::vector<ByteChange> changes;  // A later one wins.
  friend bool operator==(const PageChange&, const PageChange&) = default;
};

// One committed transaction.
struct LogRecord {
  NodeInstance owner;
  uint64_t transaction = 0;
  std::vector<PageChange> pages;
  friend bool operator==(const LogRecord&, const LogRecord&) = default;
};

// With length and checksum.
std::string EncodeRecord(const LogRecord& record);
// Takes the record at the beginning of `bytes` off them. Nothing: it is not all there, or damaged.
std::optional<LogRecord> TakeRecord(std::string_view& bytes);

// Puts the pages of a log together: its records, as far as they are whole.
class LogStream {
 public:
  // From the header's tail on.
  explicit LogStream(const LogHeader& header) : header_(header), next_(header.tail) {}

  // The number of the page that Add wants next, until it has said false: the log ends. DataLoss: it is damaged.
  uint64_t next() const { return next_; }
  absl::StatusOr<bool> Add(const PageBytes& page);
  const std::vector<LogRecord>& records() const { return records_; }

 private:
  const LogHeader header_;
  uint64_t next_;
  bool aligned_ = false;  // The begin of a record has been found.
  std::string bytes_;
  std::vector<LogRecord> records_;
};

// --- In a page that transactions change -------------------------------------------------------------------------------

// The page's sequence. DataLoss: something else was written over its trailer.
absl::StatusOr<uint64_t> SequenceOf(PageId page, const PageBytes& content);
std::string EncodeTrailer(uint64_t sequence);

}  // namespace mangrove
