// Which keys have changes that were asked for and that the index may not have yet: those on their way to the disk, and those that
// are there and not applied. A read of such a key waits for them; others wait for nothing.
//
// Invariants:
//  U1  An entry names the last batch that changes its key; batches have ascending numbers.
//  U2  An entry is there from Add of its batch until Remove of that batch.

#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "directory/address.h"
#include "engine/page_store.h"

namespace mangrove::store {

// Owned by the loop.
class UnappliedIndex {
 public:
  // REQUIRES: `number` is larger than every one before, and not 0.
  void Add(uint64_t number, const StoreBatch& batch);
  // Batches leave in the order in which they came.
  void Remove(uint64_t number, const StoreBatch& batch);

  // The number of the last batch that changes the page, or a record with the prefix; 0 if there is none.
  uint64_t LastChangeOf(PageId page) const;
  // Of the last batch that changes any page.
  uint64_t LastChangeOfAnyPage() const { return last_of_pages_; }
  uint64_t LastChangeOfRecords(std::string_view prefix) const;

 private:
  struct DeletedRange {
    uint64_t number;
    PageRange range;
  };

  absl::flat_hash_map<PageId, uint64_t> pages_;
  uint64_t last_of_pages_ = 0;
  std::deque<DeletedRange> deleted_;
  absl::btree_map<std::string, uint64_t> records_;
};

}  // namespace mangrove::store
