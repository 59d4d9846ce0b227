// RocksDB as the store uses it: the index of pages, and records; blocking calls, our types, our errors.
//
// Three column families: "default" holds the stamp, how far the log is applied and which segments of it there are,
// "pages" the index (page_entry.h), "records" the small records (sealed_value.h). What is applied is in memory, and durable
// later, in the order of the groups and over all families at once: its log is ours (commit_log.h), not RocksDB's.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/page_store.h"
#include "engine/store/commit_log.h"
#include "engine/store/live_pages.h"
#include "engine/store/log_group.h"

namespace mangrove::store {

// The defaults are measured, see docs/STORE.md.
struct RocksTuning {
  size_t block_cache_bytes = size_t{8} << 20;
  // Of index entries not yet in a table; there are up to two such buffers.
  size_t write_buffer_bytes = size_t{8} << 20;
  // Of the log: so much is replayed after a crash, more only while tables cannot be written as fast as the log. Tables are
  // written and merged for each half of it, or an eighth where these are small.
  size_t log_bytes = size_t{256} << 20;
  // Of the log, what may be garbage beside a share of what is not. A segment is half of it.
  size_t slack_bytes = size_t{32} << 20;
};

// What one call of Apply changes, and what the log was up to then.
struct IndexUpdate {
  LogPosition position;
  std::vector<const IndexChange*> changes;  // In their order.
  std::vector<SealedSegment> sealed;
  std::vector<uint64_t> emptied;  // Segments to which nothing refers any more.
};

struct RocksSizes {
  uint64_t pages = 0;  // An estimate: a page written again counts twice until the store has merged the two.
  uint64_t bytes = 0;
  uint64_t memory_bytes = 0;  // Of these, what is not in files yet.
};

// Thread-safe.
class RocksDb {
 public:
  using Records = std::vector<std::pair<std::string, std::string>>;

  // Creates the database if there is none. FailedPrecondition: another process has it open, or it is no store of ours.
  // DataLoss: it is corrupt, so that not everything that was committed can be there.
  // `on_tables`: called on any thread when tables were written or merged, until the database is destroyed.
  static absl::StatusOr<std::unique_ptr<RocksDb>> Open(const std::string& path, const RocksTuning& tuning,
                                                       std::function<void()> on_tables);
  ~RocksDb();

  // One atomic change.
  absl::Status Apply(const IndexUpdate& update);

  // Up to where the log is applied durably.
  absl::StatusOr<LogPosition> DurablePosition() const;
  // The sealed segments that are not emptied.
  absl::StatusOr<std::vector<SealedSegment>> Segments() const;
  // True: it is not sealed, or durably emptied.
  absl::StatusOr<bool> IsDurablyGone(uint64_t segment) const;
  // INTERNAL: tables could not be written, and will not be.
  absl::Status CheckBackground() const;
  // Begins to make durable what is applied, unless that is going on. Does not wait.
  absl::Status StartFlush();
  // Is something applied that no flush was begun for?
  bool HasUnflushed() const;
  // Makes durable what is applied.
  absl::Status Flush();

  // NotFound; DataLoss names the page's address.
  absl::StatusOr<PageEntry> Find(PageId page) const;
  // Of each page of the range.
  std::vector<absl::StatusOr<PageEntry>> FindAll(PageRange range) const;
  // As PageStore::ListPages.
  absl::StatusOr<PageList> ListPages(PageRange range, size_t most) const;
  absl::StatusOr<Records> ReadRecords(std::string_view prefix) const;
  RocksSizes Sizes() const;
  // Of what is durable.
  const LivePages& live_pages() const;

  // Empty: there is none.
  absl::StatusOr<std::optional<std::string>> ReadStamp() const;
  // Durable when it returns OK.
  absl::Status WriteStamp(std::string_view stamp);
  // True if there are neither pages nor records.
  absl::StatusOr<bool> Empty() const;

 private:
  struct Handles;
  explicit RocksDb(std::unique_ptr<Handles> handles);

  std::unique_ptr<Handles> handles_;
};

}  // namespace mangrove::store
