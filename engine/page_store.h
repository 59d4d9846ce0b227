// The door to stable storage: pages and small records of one node, in atomic, synced batches.
//
// The store knows nothing of the protocol. What it promises:
//  S1  When `done(OK)` of a commit runs, everything in its batch, and in every batch committed before it, survives a
//      crash of the process and of the machine.
//  S2  A batch is applied whole or not at all, and batches take effect in the order of their Commit calls.
//  S3  A read sees every batch whose Commit was called before it, or a later state. (So a store that has been asked to
//      keep something never answers with what was there before.)
//  S4  What is read back is what was written, or an error: DataLoss names the key whose checksum is wrong.
//  S5  After a failed write the store is poisoned: that commit and every later call fail with the first error. The
//      owner of the process ends it; the one exception is ResourceExhausted for a full disk, which fails the batch
//      before anything of it was applied and leaves the store working.
//
// Owned by the loop: every call and callback happens on it; no callback runs inside the call that takes it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/version.h"
#include "net/page_buffer.h"

namespace mangrove {

// 16 bytes that the user of a page may keep with it (a filesystem: which inode it belongs to).
struct RecoveryHandle {
  uint64_t high = 0;
  uint64_t low = 0;
  friend constexpr bool operator==(const RecoveryHandle&, const RecoveryHandle&) = default;
};

// A page as one core holder keeps it.
struct StoredPage {
  PageId page;
  Version version;
  ConfigNumber config;
  RecoveryHandle handle;
  PageBuffer data;  // Null where only the header was asked for.
};

// What one commit changes. Later entries win over earlier ones of the same key.
struct StoreBatch {
  struct Record {
    std::string key;
    std::optional<std::string> value;  // Empty: delete.
  };
  std::vector<StoredPage> put_pages;    // REQUIRES: data is there.
  std::vector<PageRange> delete_pages;  // Applied before put_pages.
  std::vector<Record> records;
};

// A part of what a store has, in the order of the pages' addresses.
struct PageList {
  // Without data. A page whose record is corrupt has version {0, 0}, as no record that is sound has, and says nothing else.
  std::vector<StoredPage> pages;
  // Where the rest begins, whether there is a record of that page or not; 0: there is no rest.
  PageId next;
};

struct StoreUsage {
  uint64_t pages = 0;
  uint64_t used_bytes = 0;
  uint64_t free_bytes = 0;
};

class PageStore {
 public:
  // Which changes a list has to know of.
  enum class Listed : uint8_t {
    kAll,     // S3: it waits for those on their way.
    kNoWait,  // All that the last list with kAll knew of; of what was asked for since it may have some.
  };
  using CommitDone = absl::AnyInvocable<void(absl::Status)>;
  // NotFound when there is no record of the page; DataLoss when it is corrupt.
  using ReadDone = absl::AnyInvocable<void(absl::StatusOr<StoredPage>)>;
  using PagesDone = absl::AnyInvocable<void(std::vector<absl::StatusOr<StoredPage>>)>;
  using ListDone = absl::AnyInvocable<void(absl::StatusOr<PageList>)>;
  using RecordsDone = absl::AnyInvocable<void(absl::StatusOr<std::vector<std::pair<std::string, std::string>>>)>;

  virtual ~PageStore() = default;

  // Applies `batch` durably (S1, S2). All commits that wait are synced together (group commit).
  virtual void Commit(StoreBatch batch, CommitDone done) = 0;

  // Of each page of `range`, in their order, as they are at one time. `with_data` false: only headers are read, and `data` stays null.
  virtual void ReadPages(PageRange range, bool with_data, PagesDone done) = 0;
  void ReadPage(PageId page, bool with_data, ReadDone done) {
    ReadPages({page, 1}, with_data, [done = std::move(done)](auto read) mutable { done(std::move(read.front())); });
  }

  // The pages of `range` that there are records of, `most` of them at most, from its first one on; of fewer there may be a
  // rest too. The cost is that of the records found, however long the range is. S3 holds for each call by itself, if it is to. DataLoss
  // names the first page of `range`, from which on records cannot be read: what is before the damage was listed by earlier
  // calls, what is behind it is by a range that begins there. REQUIRES: `range` is in the space, and `most` is not 0.
  virtual void ListPages(PageRange range, size_t most, Listed what, ListDone done) = 0;

  // All records whose key begins with `prefix`, in the order of their keys.
  virtual void ReadRecords(std::string prefix, RecordsDone done) = 0;

  // Of the disk and the store, refreshed at most every few seconds.
  virtual StoreUsage Usage() const = 0;
};

}  // namespace mangrove
