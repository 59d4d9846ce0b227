// The core holder's part of a node: which ranges it keeps on its disk, and the rules by which it takes and gives pages.
// Real code above the PageStore door, the same in the simulator.
//
// Invariants:
//  K1  What it acknowledged is durable: the answer is given from the commit's callback.
//  K2  The stored version of a page never decreases while its extent lives. A store of an older or equal version is
//      acknowledged with the version that it has, without writing.
//  K3  A store is refused (FailedPrecondition) when its page is in no extent here, or its configuration number is not the
//      extent's; (Aborted) when its version's epoch is older than the page's seal, unless it is a completion (`complete`).
//  K4  "No record" means zeros, version {0, 0}, exactly for a page in an extent here.
//  K5  Extents do not overlap. Putting one with a newer configuration number removes what it overlaps, pages included, in
//      the same commit; putting the same one again changes nothing; an older one is refused (FailedPrecondition).
//      Dropping a range removes extents of at most the given number, splitting those that reach beyond it.
//
// Owned by the loop.

#pragma once

#include <map>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "directory/messages.h"
#include "engine/page_store.h"

namespace mangrove {

// A range that was allocated by one call (or what is left of it).
struct Extent {
  PageRange range;
  ConfigNumber config;
  uint32_t replicas = 0;
  bool is_volatile = false;
  bool fresh = false;  // In RAM only: allocated since this start of the node, so nothing of it was lost with an earlier one.
};

// Planted bugs, for the tests of the checkers. All off in production.
struct PlantedBugs;

class CoreHolder {
 public:
  using Reply = absl::AnyInvocable<void(Message)>;

  CoreHolder(PageStore* store, const PlantedBugs* bugs);

  // Reads the extents from the store. Nothing else is called before `done(OK)` has run.
  void Open(absl::AnyInvocable<void(absl::Status)> done);

  // Handles kStore, kQueryStored, kPutExtent, kDropExtent; `reply` is called once, possibly before this returns, with
  // kStored, kStoredInfo, kDone, kDone, echoing page, count and request.
  void Handle(const Message& message, Reply reply);

  // The extent that holds `page`, if any.
  const Extent* Find(PageId page) const;
  // The first page of `range` that is in no extent, if any.
  std::optional<PageId> FirstUnallocated(PageRange range) const;
  // Extents in the order of their addresses.
  const std::map<absl::uint128, Extent>& extents() const { return extents_; }

 private:
  void HandleStore(const Message& message, Reply reply);
  void HandleQuery(const Message& message, Reply reply);
  void HandlePutExtent(const Message& message, Reply reply);
  void HandleDropExtent(const Message& message, Reply reply);
  // Takes [range) out of extents_ and adds the changes of their records to `batch`.
  void Cut(PageRange range, ConfigNumber at_most, StoreBatch& batch);

  PageStore* const store_;
  const PlantedBugs* const bugs_;
  std::map<absl::uint128, Extent> extents_;  // By first page.
  // Newest version known to be stored or on its way there, of pages that were stored or read since the start.
  absl::flat_hash_map<PageId, Version> versions_;
  absl::flat_hash_map<PageId, Epoch> seals_;
};

}  // namespace mangrove
