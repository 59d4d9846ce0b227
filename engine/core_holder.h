// The core holder's part of a node: which ranges it keeps on its disk, and the rules by which it takes and gives pages.
// Real code above the PageStore door, the same in the simulator.
//
// Invariants:
//  K1  What it acknowledged is durable: the answer is given from the commit's callback. That holds for kStored,
//      kStoredInfo and kDone alike; a version or an extent that is still on its way to the disk is not told of.
//  K2  The stored version of a page never decreases while its extent lives. A store of an older or equal version is
//      acknowledged with the version that it has, without writing. A corrupt record counts as version {0, 0}, so that
//      the next store mends it.
//  K3  A store is refused (FailedPrecondition) when its page is in no extent here, or its configuration number is not the
//      extent's; (Aborted) when its version's epoch is older than the page's seal, unless it is a completion (`complete`).
//  K4  "No record" means zeros, version {0, 0}, exactly for a page in an extent that is here since its allocation.
//      kStoredInfo says in `have` whether there is a record, in `complete` whether its absence means zeros. An extent that
//      was put with `complete` is learned: the page may have been stored elsewhere before. So are the built-in extents of
//      the system pages, which have no record of their own.
//  K5  Extents do not overlap. Putting one with a newer configuration number removes what it overlaps (of an extent that
//      reaches beyond it, only the part inside), pages included, in the same commit; putting the same one again changes
//      nothing, but that one that was learned is no longer so if it is put without `complete`; an older one is refused (FailedPrecondition). Dropping a range removes extents of at most the given
//      number, splitting those that reach beyond it. The built-in extents can be neither put nor dropped.
//  K6  Extents change one after the other. From the call on, the pages that a change removes are in no extent; those that
//      it adds are in one once it is durable. A change that fails for a full disk leaves what was there before.
//  K7  A page that is marked as lost (MarkLost) is DataLoss, whatever record there is of it, until it is stored again or its
//      extent is dropped.
//  K8  In doubt (while its node is behind, or is to keep pages that it does not keep, engine/catch_up.h) what was stored before of
//      these pages counts for nothing, whatever its version: the next store replaces it, and a query is answered as if there were
//      no record, nor knowledge of any. What has been stored since is under K2.
//
// Owned by the loop.

#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/messages.h"
#include "engine/page_map.h"
#include "engine/page_store.h"
#include "net/log.h"

namespace mangrove {

// A range that was allocated by one call (or what is left of it).
struct Extent {
  PageRange range;
  ConfigNumber config;
  uint32_t replicas = 0;
  bool is_volatile = false;
  bool learned = false;   // From another core holder, by a disk that was lost or away: there may be more than it has.
  bool doubtful = false;  // In RAM only: from before this node was away, and not put since.
  bool since_start = false;  // In RAM only: allocated since this node's start, or since a doubt began.
  bool fresh = false;        // In RAM only: the same, and no node has left the view since, that may have been told so.
  bool all_known = false;    // In RAM only: a page of it whose version is not remembered was never stored.
};

// The key of an extent's record, and its value; the store keeps a checksum with it (S4). DataLoss names the key.
std::string ExtentKey(PageId first);
std::string EncodeExtent(const Extent& extent);
absl::StatusOr<Extent> DecodeExtent(const std::string& key, std::string_view value);

// The record of a page that is marked as lost, in the version that was.
inline constexpr char kLostPrefix[] = "lost/";
std::string LostKey(PageId page);
std::string EncodeLost(PageId page, Version version);
absl::StatusOr<std::pair<PageId, Version>> DecodeLost(const std::string& key, std::string_view value);

// The store of what another core holder has said that it has (kStoredInfo), whatever this one has been told before.
Message CompletionOf(PageId page, const Message& stored);

// Is a page of `range` in a built-in extent?
bool TouchesSystemPages(PageRange range);

// Planted bugs, for the tests of the checkers. All off in production.
struct PlantedBugs;

class CoreHolder {
 public:
  using Reply = std::function<void(Message)>;

  // At most so many pages' versions are remembered; past it an eighth is forgotten, and read again when it is needed.
  static constexpr size_t kMaxVersions = size_t{1} << 19;

  // `system_replicas`: how many core holders the system pages have.
  CoreHolder(PageStore* store, const PlantedBugs* bugs, uint32_t system_replicas);

  // Reads the extents from the store. Nothing else is called before `done(OK)` has run.
  void Open(absl::AnyInvocable<void(absl::Status)> done);

  // Handles kStore, kQueryStored, kPutExtent, kDropExtent; `reply` is called once, possibly before this returns, with
  // kStored, kStoredInfo, kDone, kDone, echoing page, count and request. Not at all if this object ends before. For a run
  // (directory/page_run.h) it is called until each page has its answer: of kStore runs of kStored, or an error for each page; of
  // kQueryStored one for each page.
  void Handle(const Message& message, Reply reply);

  // Forgets the seals that were set before the last call. Called no more often than a message's life lasts.
  void ForgetOldSeals();
  size_t seals() const { return seals_[0].size() + seals_[1].size(); }

  // Nothing is fresh any more but what is volatile.
  void ForgetFresh();

  // core_holder_catch_up.cc
  // From now on these pages are in doubt (K8), and no others; nothing: all are, and of extents those that are not put since.
  using PagesInDoubt = std::function<bool(PageId, const Extent&)>;
  void BeginDoubt(PagesInDoubt pages);
  bool WasStoredSince(PageId page) const;
  // On its way to the disk, where it may fail to arrive.
  bool IsBeingStored(PageId page) const { return writes_.find(page)->second != nullptr; }
  // Deletes the records of those pages that have not been stored since. Aborted: of all but some that are being stored.
  void DeletePages(const std::vector<PageId>& pages, PageStore::CommitDone done);
  // In extents that are covered "no record" means zeros from now on (K4). The batch makes that durable.
  StoreBatch EndLearning(absl::FunctionRef<bool(const Extent&)> is_covered);
  // That batch has failed.
  void UndoEndLearning();
  // Nor does it mean zeros in this one.
  void MarkLearned(const Extent& extent, absl::AnyInvocable<void(absl::Status)> done);
  void EndDoubt();
  // K7. Aborted: the page is being stored, or in no extent.
  void MarkLost(PageId page, Version version, absl::AnyInvocable<void(absl::Status)> done);
  // Marked as lost, or known to be corrupt.
  bool IsUnreadable(PageId page) const { return corrupt_.contains(page); }
  const std::map<PageId, Version>& lost() const { return lost_; }

  // The extent that holds `page`, if any.
  const Extent* Find(PageId page) const;
  // The first page of `range` that is in no extent, if any.
  std::optional<PageId> FirstUnallocated(PageRange range) const;
  // Extents in the order of their addresses, the built-in ones included.
  const std::map<absl::uint128, Extent>& extents() const { return extents_; }
  // Pages whose record was found to be corrupt, since the start; one that was stored again may count again.
  uint64_t corrupt_pages_found() const { return corrupt_pages_found_; }

 private:
  // A version of a page, or of pages side by side, on its way to the disk. `after` runs when it is there, or failed.
  struct Write {
    PageRange pages;
    Version version;
    ConfigNumber config;
    bool mends = false;  // The record that it replaces, of one page, is corrupt.
    std::vector<absl::AnyInvocable<void(absl::Status)>> after;
  };
  struct Waiting {
    Message message;
    Reply reply;
  };
  // Pages whose versions are being read, and the stores that wait for that, in their order.
  struct Reading {
    PageRange pages;
    std::vector<Waiting> waiting;
  };
  // What happens to a page that is to be stored.
  enum class Fate : uint8_t {
    kNewer,    // It is written.
    kUnknown,  // What there is has to be read first.
    kWaits,    // That is being read.
    kOther,    // It is refused, or there already; or what there is is corrupt.
  };
  // One change of extents_.
  struct Change {
    std::vector<Extent> removed;
    std::vector<Extent> left_over;  // Of the removed ones, what reaches beyond the range.
    std::optional<Extent> added;
    std::vector<PageRange> pages;  // Of the removed ones, the rest.
    uint64_t doubt = 0;            // When it began.
    StoreBatch batch;
  };

  absl::Status LoadExtents(const std::vector<std::pair<std::string, std::string>>& records);
  absl::Status LoadLost(const std::vector<std::pair<std::string, std::string>>& records);
  static absl::Status LostStatus(PageId page);
  void OnDeleted(const std::vector<PageId>& pages, const absl::Status& status);

  // The answer to `message` if all went well.
  static Message AnswerTo(const Message& message, MessageKind kind);
  static void SendStatus(const Message& message, MessageKind kind, const absl::Status& status, const Reply& reply);

  // core_holder_stores.cc
  static void SendStored(const Message& message, Version version, Reply& reply);
  void HandleStores(const Message& run, const Reply& reply);
  Fate FateOf(const Message& run, PageId page, const Extent* extent) const;
  void HandleStore(const Message& message, Reply reply);
  absl::Status CheckStore(const Message& message) const;
  Epoch SealOf(PageId page) const;
  std::optional<Version> KnownVersion(PageId page) const;
  absl::StatusOr<StoredPage> OfThisExtent(PageId page, absl::StatusOr<StoredPage> read) const;
  void ReadVersionsThenStore(const Message& run, Reply reply);
  void OnVersionsRead(Reading& reading, uint64_t generation, std::vector<absl::StatusOr<StoredPage>> read);
  void AcknowledgeOlder(const Message& message, Version known, Reply reply);
  void WritePages(const Message& run, Reply reply);
  void OnWritten(const std::shared_ptr<Write>& write, const absl::Status& status);
  void NoteDurable(PageId page, Version version);
  void OnNewestWriteFailed(PageId page, const Write& write);
  void RememberWrites();
  void ForgetVersion(PageId page);
  void ForgetVersionsIfMany();
  void NoteCorrupt(PageId page, const absl::Status& why);

  // core_holder.cc
  void HandleQueries(const Message& run, const Reply& reply);
  bool AnswerUnread(const Message& message, const Reply& reply);
  void ReadAndAnswer(const Message& run, const Reply& reply);
  void OnQueryRead(const Message& message, Reply reply, uint64_t generation, std::optional<Version> known_before,
                   absl::StatusOr<StoredPage> read);
  void AnswerQuery(const Message& message, Reply reply, const absl::StatusOr<StoredPage>& read) const;

  void HandleChange(const Message& message, Reply reply);
  void StartNextChange();
  absl::StatusOr<Change> PlanPut(const Message& message) const;
  absl::StatusOr<Change> PlanDrop(const Message& message) const;
  // Takes what of `range` is in extents of at most `at_most` out, pages included; `doubtful`: of those that are so alone.
  void PlanCut(PageRange range, ConfigNumber at_most, bool doubtful, Change& change) const;
  void Begin(Change& change);
  void End(Change change, const absl::Status& status);
  void KeepLearned(const Change& change);
  void ForgetVersions(PageRange range);
  void ForgetRange(PageRange range);
  void PutInDoubt(Extent& extent) const;
  bool IsInDoubt(PageId page) const;

  // Has ended when this object has; what comes back from the store looks first.
  std::weak_ptr<const bool> alive() const { return alive_; }

  PageStore* const store_;
  const PlantedBugs* const bugs_;
  std::map<absl::uint128, Extent> extents_;  // By first page.
  // Counts changes of extents_, failed writes, and the times when versions were forgotten. What was read before such a time is
  // read again.
  uint64_t generation_ = 0;
  // Newest version known to be stored or on its way there, of pages that were stored or read since the start.
  PageMap<Version> versions_;
  bool in_doubt_ = false;
  PagesInDoubt pages_in_doubt_;          // Empty: all are.
  uint64_t doubts_ = 0;                  // That have begun.
  PageMap<Version> stored_since_;        // Of pages in doubt: what is durable.
  absl::flat_hash_set<PageId> corrupt_;  // Those that are marked as lost as well.
  std::map<PageId, Version> lost_;
  uint64_t corrupt_pages_found_ = 0;
  LogOnce said_corrupt_;
  // Set since the last ForgetOldSeals, and between that and the one before.
  std::array<PageMap<Epoch>, 2> seals_;
  // Of each page, in the order of their commits; never empty.
  PageMap<absl::InlinedVector<std::shared_ptr<Write>, 1>> writes_;
  PageMap<std::shared_ptr<Reading>> reading_;
  std::deque<Waiting> changes_;
  bool changing_ = false;
  // First pages of what a change leaves of extents, until it has ended: their records are on its way with it.
  absl::flat_hash_set<PageId> left_over_;
  std::vector<std::pair<PageId, ConfigNumber>> ending_;  // Extents in the batch of EndLearning.
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
};

}  // namespace mangrove
