// A node's page operations: what local programs ask of the global memory, and the node's part in every page's protocol.
//
// The data flow of a miss, each step in a file of its own:
//   engine/acquire.cc        the operation: which rights are missing, ask for them, wait
//   engine/page_driver.cc    carries the cache machine's effects out: memory, messages, wake-ups
//   engine/page_run.cc       the same for neighbours that are alike, at once
//   engine/dispatch.cc       what comes in and what goes out
//   engine/home_driver.cc    the same for the pages that this node is responsible for
//   engine/disk_open.cc      reads a page from its core holders, and completes it on them
//   engine/flush.cc          freezes pages and stores them on every core holder
//   engine/extents.cc        allocates ranges and takes them away
//   engine/evict.cc, peer_eviction.h  keep the RAM cache within its size; by means of other nodes' RAM
//   engine/lock.cc           page locks of local programs
//   engine/follow_view.cc    what a new view changes, and what a node without a lease does not do
//   engine/disks.h           which disks keep a page, and which of them count
//   engine/catch_up.h        a disk that is behind, or is to keep more, learns from the others
//   engine/locate.cc, move_segment.cc  which node that is; makes it the one that asks most
//   engine/claims.cc         what this node claims where a part of the directory is lost
//   engine/home_segment.cc   what a responsible node learns of a segment before it serves it
//   engine/calls.cc, store_calls.cc  requests that are asked again until they are answered; those of a flush, of many pages
//
// Real code over the four doors, the same in the simulator. Owned by the loop. Operations are applets: they end by
// their deadline, with Unavailable naming the node that did not answer.

#pragma once

#include <bitset>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "directory/cache_machine.h"
#include "directory/claims.h"
#include "directory/directory_tree.h"
#include "directory/responsible_machine.h"
#include "engine/cached_page.h"
#include "engine/catch_up.h"
#include "engine/core_holder.h"
#include "engine/directory_memory.h"
#include "engine/directory_pages.h"
#include "engine/disks.h"
#include "engine/given_away.h"
#include "engine/home_segment.h"
#include "engine/members_claims.h"
#include "engine/node_operations.h"
#include "engine/own_segments.h"
#include "engine/page_engine_options.h"
#include "engine/page_engine_parts.h"
#include "engine/page_map.h"
#include "engine/page_memory.h"
#include "engine/page_store.h"
#include "engine/page_watches.h"
#include "engine/peer_eviction.h"
#include "engine/range_set.h"
#include "engine/read_ahead.h"
#include "engine/segment_state.h"
#include "engine/stale_reads.h"
#include "engine/store_call.h"
#include "engine/tick_queue.h"
#include "net/log.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"
#include "net/runtime/task.h"
#include "net/transport.h"
#include "recovery/view.h"

namespace mangrove {

class PageEngine final : public TransportEvents {
 public:
  // Operations on ranges have so many pages in hand at a time, and let others run in between.
  static constexpr uint64_t kBlockPages = 256;

  PageEngine(const PageEngineOptions& options, Clock* clock, Transport* transport, PageStore* store, PageMemory* memory,
             Entropy* entropy);
  ~PageEngine() override;

  // Told whether this node's disk had nothing when it started, and when it has caught up with the others. Before Open.
  void SetDiskSink(CatchUp::Sink sink) { catch_up_.SetSink(std::move(sink)); }
  // Reads what the node keeps of itself. `transport` is started by the owner after `done(OK)`.
  void Open(absl::AnyInvocable<void(absl::Status)> done);
  // Every operation that waits ends with `why`, and so do later ones; nothing is served any more. Only the first call counts.
  void Shutdown(absl::Status why = absl::UnavailableError("this node is shutting down"));

  // Which nodes the cluster has from now on, this one included. Those that it had stay known.
  void SetMembers(const std::vector<NodeId>& members) { members_.insert(members.begin(), members.end()); }
  // Also those that it does not have any more, as far as this node has heard of them.
  const std::set<NodeId>& members() const { return members_; }
  // What Membership says; a node begins without either. The cluster goes on as `view`: an incarnation that is not in it is gone.
  void OnView(const View& view);
  // Until then, by its own clock, this node acts for others, and its programs use what is here; 0: they do not.
  void OnLease(TimeNs until);
  // Its end; and until when what is mapped may be used: by as much sooner as it takes to take mappings away.
  TimeNs lease_until() const { return view_.Has(options_.self) ? lease_until_ : 0; }
  TimeNs mapped_until() const { return view_.Has(options_.self) ? lease_until_ - FenceTime() : 0; }
  const View& view() const { return view_; }
  // Its programs are let in: not in the last moments of a lease either.
  bool Serves() const { return !fenced_ && HasLease(); }
  bool HasLease() const { return clock_->Now() < lease_until_ && view_.Has(options_.self); }
  // Regions that are read without one too (V5). The memory is told by the caller.
  StaleReads& stale_reads() { return stale_reads_; }
  // Unavailable: this node has no lease, and the page's region is not one that waits for it.
  absl::Status CheckQuorum(PageId page) const;

  // TransportEvents. Only of Channel::kPages.
  void OnDelivery(const Delivery& delivery) override;
  void OnPeerUp(NodeInstance peer) override;
  void OnPeerDown(NodeInstance peer, const absl::Status& reason) override;

  // As NodeOperations' operations of the same names; whether all of a large range is allocated is checked there.
  // ResourceExhausted: to be brought here or locked, the range is larger than the cache.
  Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline);
  Task<absl::StatusOr<uint64_t>> Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline);
  absl::Status Unlock(ClientId client, uint64_t lock_id);
  absl::Status CheckMayLock(uint64_t pages) const;  // ResourceExhausted: the rest of the cache is for everybody else.
  bool IsLockAwaited(PageId page) const;  // Another node, or a program of this one, waits for a lock of it to go.
  Task<absl::Status> Flush(PageRange range, TimeNs deadline, SayLost say = SayLost::kYes);
  // Every dirty page that is here and not volatile. OK: each is durable, or has arrived elsewhere. Takes in no evicted pages any more.
  Task<absl::Status> FlushAll(TimeNs deadline);
  void EndClient(ClientId client);

  // Makes `range` allocated pages, all zeros, under `config`, newer than every earlier number of any of its pages.
  // Repeating it with the same number changes nothing.
  Task<absl::Status> PutExtent(PageRange range, ConfigNumber config, uint32_t replicas, bool is_volatile,
                               TimeNs deadline);
  // Takes content and storage from `range`, of extents numbered at most `config`, on `replicas` disks or more each. Repeatable.
  Task<absl::Status> DropExtent(PageRange range, ConfigNumber config, uint32_t replicas, TimeNs deadline);
  // Whether somebody was told that it is, and not that it is not any more. Any disk that counts can say so.
  Task<absl::StatusOr<bool>> IsAllocated(PageId page);

  // Finds out who is responsible for the page; where nobody is, this node becomes it. Then ResponsibleFor says so.
  Task<absl::Status> Locate(PageId page, TimeNs deadline);
  Task<absl::StatusOr<NodeId>> FindResponsible(PageId page, TimeNs deadline);
  NodeId ResponsibleFor(PageId page) const;  // As far as this node has heard; 0: it has not.
  // Named by the membership, or by the page's own address, not by the directory.
  static bool IsFixed(PageId page);
  bool IsMember(NodeId node) const;
  DirectoryTree& directory() { return tree_; }

  // What the cache has now, for an access in the same step of the loop.
  Rights RightsOf(PageId page) const;
  void Load(PageId page, size_t offset, std::span<std::byte> out);           // REQUIRES: kRead or kWrite.
  void Store(PageId page, size_t offset, std::span<const std::byte> bytes);  // REQUIRES: kWrite, or exclusively locked.
  // Pages of extents that are kept in the cache while there is another page to evict.
  void SetKeepInRam(PageRange range, bool keep) { keep_in_ram_.Set(range, keep); }
  bool IsKeptInRam(PageId page) const { return keep_in_ram_.Contains(page); }
  // Pages that are read to be changed: Acquire brings them with the right to store where that can be had at once, for speed alone.
  void SetMigratory(PageRange range, bool migratory) { migratory_.Set(range, migratory); }
  const std::shared_ptr<PageWatches>& watches() { return watches_; }
  // Called with each region event (reverted, lost) that this node hears of.
  void SetEventSink(absl::AnyInvocable<void(const NodeOperations::Event&)> sink) { event_sink_ = std::move(sink); }

  // What this node tells others of a page and of itself, as a JSON document of less than kPageBytes.
  void SetInspector(absl::AnyInvocable<std::string(PageId)> inspector) { inspector_ = std::move(inspector); }
  // The document of another node. Unavailable: it does not answer.
  Task<absl::StatusOr<std::string>> InspectAt(NodeId node, PageId page, TimeNs deadline);

  // Counts the pages of `range`, a region, that come here, from now on; and reads ahead in it.
  // Its memory has to know it.
  void CountFetched(PageRange range);
  uint64_t Fetched(PageId page) const;  // Of the counted range that holds `page`.

  std::vector<NodeId> Unregistered() const;  // Members whose holdings are not known yet: pages here wait for them.
  PageSummary Describe(PageId page) const;
  const Disks& disks() const { return disks_; }
  CatchUpProgress catch_up() const { return catch_up_.Progress(); }
  const PageEngineCounters& counters() const { return counters_; }
  const CoreHolder& core_holder() const { return core_; }
  const PeerEviction& peer_eviction() const { return peer_eviction_; }
  uint64_t cached_pages() const { return charged_; }
  size_t remembered_pages() const { return cache_.size(); }  // With those that were given up of late.
  uint64_t home_entries() const { return homes_.size(); }
  size_t waiting_for_frames() const { return frame_waiters_.size(); }
  uint64_t cache_pages() const { return options_.cache_pages; }

 private:
  friend class OldPages;  // tests/sim/old_pages.h
  struct Frozen;          // flush.cc
  struct Freezes;         // flush.cc
  struct Storing;         // flush.cc

  class Turn;
  friend class CatchUp;
  friend class DirectoryPages;
  friend class MembersClaims;
  friend class PeerEviction;

  static constexpr DurationNs kTick = 10 * kMillisecond;
  // Longer than any message is on its way: a connection that does not carry one within seconds is closed.
  static constexpr DurationNs kMessageLifetime = 60 * kSecond;

  // page_driver.cc
  CachedPage& Cached(PageId page);
  CachedPage* FindCached(PageId page) const;
  CacheContext ContextOf(PageId page);
  template <typename Event>
  void WithPage(PageId page, Event event);
  void OnCacheMessage(CachedPage& cached, const Message& message, NodeInstance from);
  void LocalEvent(PageId page, CacheEvent event);
  void CacheMessage(const Message& message, NodeInstance from);
  PageWork& WorkOf(CachedPage& cached);
  void DropWorkIfOver(CachedPage& cached);
  void LendRoom(CachedPage& cached);
  void ReturnRoom(std::vector<CacheEffect> effects);
  void Carry(PageId page, CachedPage& cached);
  bool CarryOne(PageId page, CachedPage& cached, CacheEffect& effect);
  void NoteGivenAway(PageId page, const CacheEntry& entry);
  void CountHeld(PageId page, bool is_more);
  void RefuseMessage(const Message& message, NodeId from);

  // page_run.cc
  using Alike = absl::InlinedVector<CachedPage*, 64>;
  void CacheRun(const Message& run, NodeInstance from);
  bool MayTakeRun(const Message& run, NodeInstance from) const;
  void StepAlike(const Message& run, NodeInstance from, const Alike& alike);
  Alike AlikeFrom(PageRange range, const Message* message) const;
  void LocalEvents(PageRange range, CacheEvent event);
  void StepAlike(PageId page, CacheEvent event, const Alike& alike);
  std::vector<bool> CarryAlike(PageId page, const Alike& alike);
  void CarryOnAll(PageId page, const Alike& alike, std::vector<bool>& left, std::vector<CacheEffect>& effects,
                  size_t at);
  PageBuffer CopyOf(PageRange range);
  void HomeRun(const Message& run, NodeInstance from);
  uint64_t CountAlikeHomes(const Message& run);
  void StepAlikeHomes(const Message& run, NodeInstance from);
  void CarryAlikeHomes(PageRange range, std::vector<HomeEffect>& effects);

  PageMemory* MemoryOf(PageId page);
  void AfterEffects(PageId page, CachedPage& cached);
  void WakeWaiters(CachedPage& cached);
  void RefuseWaiters(CachedPage& cached, const absl::Status& status);
  void FailWaiters(CachedPage& cached, const absl::Status& status);
  void NoteFetched(PageRange range);
  void Unblock(PageId page);
  static Watch WatchOf(const CachedPage& cached);
  TimeNs NextLook(const CachedPage& cached) const;
  void LookAt(PageId page, CachedPage& cached, TimeNs at);
  void TickCache();
  void EndOverdueWaits(PageId page, CachedPage& cached);
  void TickPage(PageId page, CachedPage& cached);
  void ArmTick();
  void ArmSealTimer();
  void Tick();
  RequestId NextRequest();

  // dispatch.cc
  void Post(NodeId to, Message message);
  void PostLate(NodeId to, Message message);
  void Broadcast(Message message);
  void Pump();
  void FlushOutboxes();
  void SendOutbox(NodeId to, Outbox& outbox);
  absl::Status CheckSense(const Message& message) const;
  void RefuseMessage(NodeInstance from, const absl::Status& why);
  void Dispatch(const Message& message, NodeInstance from);
  void DispatchRun(const Message& run, NodeInstance from);
  void DispatchHome(const Message& message, NodeInstance from);
  void NoteAllocated(PageRange range, ConfigNumber config);
  void AskCoreHolder(const Message& message, NodeInstance from);
  void AskOwnDisk(const Message& message, CoreHolder::Reply reply);
  void TakeWhatIsKnown(const Message& run, const CoreHolder::Reply& reply);
  void PostAnswer(NodeId to, Message answer);
  void AnswerInspect(const Message& message, NodeInstance from);
  bool IsCurrent(NodeInstance node) const;
  void RaiseEvent(const Message& message, NodeInstance from);

  // acquire.cc
  Rights RightsHere(PageId page) const;
  bool HasRights(PageId page, Rights rights) const;
  bool HasRights(PageRange block, Rights rights) const;
  static PageRange BlockOf(PageRange range, uint64_t done);
  absl::Status CheckGoesOn(const char* what, PageRange range, uint64_t done, TimeNs deadline) const;
  absl::Status CheckFits(PageRange range) const;
  Task<absl::Status> AcquireBlocks(PageRange range, Rights rights, TimeNs deadline);
  // What a block is brought here for. Pages ahead of an access for reading, or of a lock, follow if there is an order.
  enum class Purpose : uint8_t { kAccess, kAhead, kLock };
  Task<absl::Status> AcquireBlock(PageRange block, Rights rights, Purpose purpose, TimeNs deadline);
  void BringAhead(PageRange accessed, Rights rights);
  std::vector<PageRange> BlocksAhead(PageId accessed);
  bool IsMostlyHere(PageRange block) const;
  PageRange KnownRange(PageId page) const;
  void Expect(PageId page);
  using PageList = absl::InlinedVector<PageId, 2>;
  struct Wish {
    Rights rights;
    bool may_migrate;  // Migratory pages come with the right to store, if they do so by migrate_until.
    TimeNs migrate_until;
    TimeNs deadline;
    const std::shared_ptr<BlockWait>& wait;
  };
  void WantSome(std::span<const PageId> pages, const Wish& wish, PageList& asked, PageList& again);
  void Want(PageRange range, Rights rights, TimeNs deadline, const std::shared_ptr<BlockWait>& wait);
  absl::Status TimeoutStatus(PageId page, NodeId delayed_by, Rights rights) const;

  // evict.cc
  void Charge(CachedPage& cached);
  bool HasRoom(uint64_t besides = 0) const;  // For one page more.
  Task<absl::Status> WaitForRoom(TimeNs deadline);
  void StartEvicting();
  Task<absl::Status> EvictSome();
  bool PickVictims(size_t most, const absl::flat_hash_set<PageId>& stuck, Victims& victims);
  bool AreAllStuck(const std::vector<PageId>& pages) const;
  absl::Status CannotFlush(const absl::Status& why) const;
  size_t HowManyVictims();
  bool MayBeLast(const CacheEntry& entry) const;
  Task<absl::Status> AskToDrop(PageId page);
  void WakeFrameWaiters(const absl::Status& status);

  // lock.cc
  bool TryPin(PageId page, LockMode mode);
  Task<absl::Status> WaitToPin(PageId page, LockMode mode, TimeNs deadline);
  void Unpin(PageId page, LockMode mode);

  // flush.cc
  Task<absl::Status> FlushOwned(std::vector<PageId> pages, TimeNs deadline);
  Outcome<Frozen> Freeze(PageId page);
  uint64_t FreezeAlike(PageRange range, Freezes& freezes);
  Freezes FreezeAll(const std::vector<PageId>& pages);
  Clock::TimerId LimitFreezes(const Freezes& freezes, TimeNs deadline);
  std::vector<Storing> StoreAll(std::vector<Frozen> runs, TimeNs deadline);
  absl::Status NoteStored(const Storing& run, const RowMask& failed, Epoch view);
  bool OwnsSome(PageRange block) const;
  Task<absl::Status> FlushOthers(PageRange block, TimeNs deadline);
  Task<absl::Status> FlushPages(PageRange block, TimeNs deadline);
  Task<absl::Status> FlushUnlessGone(std::vector<PageId> pages, TimeNs deadline);
  Outcome<Message> AskToFlush(PageRange block, TimeNs deadline);
  bool HoldsUnflushed(PageId page) const;
  void FlushForOther(const Message& message);

  // store_calls.cc
  Outcome<Stored> StartStore(NodeId to, Message run, TimeNs deadline);
  void StoresAnswered(const Message& run);
  bool IsOutdatedStore(PageId page, const Version& stored) const;
  bool StoreAgain(StoreCall& call);
  void TickStoreCalls();

  // disk_open.cc
  void StartLoad(const HomeEffect& effect);
  Task<absl::StatusOr<LoadedPage>> OpenAndTell(HomeEffect effect);
  Task<absl::Status> TellWentBack(Message news, bool everybody);
  void HearWentBack(const Message& message, NodeInstance from);
  bool MayOpen(PageId page) const { return IsResponsibleFor(page) && !IsGiven(page); }
  Task<absl::StatusOr<LoadedPage>> OpenFromDisk(PageId page, bool recover, bool version_only);
  Task<absl::StatusOr<LoadedPage>> OpenInThisView(PageId page, bool recover, bool version_only);
  Task<absl::StatusOr<LoadedPage>> OpenEveryCopy(PageId page, const HomeExtent& extent, bool recover,
                                                 bool version_only);
  std::vector<Outcome<Message>> AskHolders(const std::vector<NodeId>& holders, const Message& query);
  Task<absl::StatusOr<LoadedPage>> OpenOneCopy(PageId page, uint32_t replicas);
  Task<absl::Status> Complete(PageId page, const Message& newest, std::vector<NodeId> holders,
                              const std::vector<Message>& answers);

  // extents.cc
  Task<absl::Status> ChangeExtents(Message change, uint32_t replicas, TimeNs deadline);
  Task<absl::Status> DropAllCopies(PageRange range, ConfigNumber config, TimeNs deadline);

  // locate.cc
  bool IsResponsibleFor(PageId page) const;
  bool IsLocated(PageId page) const;
  void NoteLocation(PageId page, NodeId node, uint32_t term);
  void Own(const OwnSegments::Run& run);
  void NoteSpeaker(const CachedPage& cached, const Message& message, NodeId from);
  Task<absl::StatusOr<DirectoryEntry>> EntryOf(PageId first, TimeNs deadline);
  Task<absl::StatusOr<std::vector<DirectoryEntry>>> AppointSelf(PageRange range, TimeNs deadline);
  void Unsure(const Message& message, NodeInstance from);
  Task<absl::Status> Confirm(PageId first);
  Task<absl::Status> ConfirmRange(PageRange range);
  void AnswerNotResponsible(const Message& message, NodeInstance from);
  void NotResponsible(const Message& message, NodeInstance from);
  void AskAgain(PageId first);

  // move_segment.cc
  struct HandedOver;
  void CountUse(PageId page, NodeId user);
  absl::Status CheckMayLeave(PageId first) const;
  static bool IsAtRest(const HomeEntry& entry);
  SegmentState StateOf(PageId first);
  void HandOver(const Message& message, NodeInstance from);
  void AnswerHandOver(RequestId request, NodeId to, PageId first, uint64_t part, const absl::Status& status);
  void NoteLeaving(PageId page);
  void GiveIfAtRest(PageId first);
  bool IsGiven(PageId page) const;
  void Resume(PageId first);
  void ForgetTheLost(PageId first);
  void EmptySegment(PageId first);
  void DropSegment(PageId first, NodeId to);
  void JoinAnew(PageId first, uint32_t term);
  void Moved(const Message& message, NodeInstance from);
  void NoteTaken(PageId first, NodeInstance from);
  void TickMoves();
  Task<absl::Status> LookWhetherMoved(PageId first);
  void OfferedSegment(const Message& message, NodeInstance from);
  Task<absl::Status> TakeSegment(PageId first, NodeId from);
  Task<absl::Status> AskForSegment(PageId first, NodeId from, HandedOver* handed);
  absl::StatusOr<SegmentState> CheckState(PageId first, SegmentState state) const;
  void Install(const DirectoryEntry& entry, const DirectoryOrder& order, const SegmentState& state);

  // claims.cc
  std::vector<Claim> OwnClaims(const PageInterval& interval, PageId* next) const;
  void AnswerClaims(const Message& message, NodeInstance from);
  absl::Status CheckClaimsCanBeHad() const;
  Task<absl::StatusOr<Claims>> CollectClaims(PageInterval interval, TimeNs deadline);
  Task<absl::StatusOr<LoadedPage>> OpenDirectoryPage(PageId page, bool version_only);
  PageId NewDirectoryPage();
  absl::Status CheckDirectoryPage(PageRef ref) const;
  void RetireDirectoryPage(PageRef ref);
  void Retire(const Message& message);

  // follow_view.cc
  static Epoch ViewOf(Txn txn);
  static Epoch ViewOf(Epoch grant_epoch);
  bool IsHere(NodeId node) const { return view_.members.contains(node); }
  static NodeId FixedResponsible(const View& view, PageId page);
  void FollowLosses(const View& before);
  void EndStores();
  void EndCallsToTheGone(const std::set<NodeId>& gone);
  void ForgetOwners(const std::vector<NodeInstance>& gone);
  void ForgetResponsibles(const View& before, const std::set<NodeId>& gone);
  void SearchAgain(PageId first);
  void PeerIsUp(NodeInstance peer);
  void Fence();
  DurationNs FenceTime() const;
  bool HasLeaseNow() const { return clock_->ExactNow() < lease_until_ && view_.Has(options_.self); }
  Task<absl::Status> WaitForLease(TimeNs deadline);
  Task<absl::Status> WaitForLeaseOn(PageId page, TimeNs deadline);
  absl::Status NoLeaseStatus() const;
  static absl::Status IsAwayStatus(NodeId node);

  // home_segment.cc
  HomeSegment& Segment(PageId page);
  bool IsServed(PageId page) const;
  void StartJoining(PageId first);
  void SendHoldings(const Message& message, NodeInstance from);
  void CountHoldings(const Message& message, NodeInstance from);
  void AskForHoldings();
  void Joined(PageId first);
  void RaiseOrder(const Message& message);
  Task<Message> AskForExtent(NodeId node, PageId page, Epoch since);
  Task<absl::StatusOr<HomeExtent>> ExtentOf(PageId page);
  absl::StatusOr<HomeExtent> NoteExtent(PageId page, const Message& answer, Epoch since);
  Message DescribeExtent(PageId page, NodeInstance asker, Epoch since);
  bool TellFresh(PageRange range, NodeInstance asker, Epoch since);
  Task<absl::StatusOr<bool>> IsFreshVolatile(PageId page, Epoch since, bool first_says, NodeId first);
  void AnswerExtent(const Message& message, NodeInstance from);
  const HomeExtent* FindHomeExtent(PageId page) const;
  void ForgetExtents(PageRange range, ConfigNumber config);

  // home_driver.cc
  HomeEntry& Home(PageId page);
  void ForgetIfIdle(PageId page);
  bool IsOnlyShared(const HomeEntry& entry) const;
  void CallInCopies();
  HomeContext HomeContextOf(PageId page);
  NodeId Culprit(PageId page, const Message& delayed);
  NodeId WhoKeepsFromServing(PageId page) const;
  void CarryHome(PageId page, std::vector<HomeEffect>& effects);
  void HomeMessage(const Message& message, NodeInstance from);
  bool HasNothingToFlush(PageId page) const;
  void AnswerFlushOfRange(const Message& message, NodeInstance from);
  Task<absl::Status> KnowExtents(PageRange block);
  void TickHome();
  void DropCopies(const Message& message, NodeInstance from);
  static constexpr int kJoinsAtOnce = 256;  // Of an unallocation, in segments.
  bool DropCopiesHere(PageRange range, ConfigNumber config, absl::AnyInvocable<void()> done);
  void DiscardCopies(PageRange range, ConfigNumber config, absl::AnyInvocable<void()> done);
  void NoteDiscarded(PageRange range, ConfigNumber config);
  bool IsDiscarded(PageId page) const;
  bool IsDiscarded(PageRange range, ConfigNumber config) const;

  // registration.cc
  void TellKeepers(NodeInstance peer);
  void NoteComplete(StoreBatch batch, PageStore::CommitDone done);
  void BumpGrantEpoch();
  std::vector<PageId> SortedPages(absl::FunctionRef<bool(PageId)> wanted) const;

  // calls.cc
  Outcome<Message> StartCall(NodeId to, Message message, TimeNs deadline, DurationNs resend_after);
  Task<absl::Status> CallAll(std::vector<NodeId> nodes, Message message, TimeNs deadline);
  void Answer(const Message& message);
  void EndCall(const Message& answer);
  void TickCalls();

  const PageEngineOptions options_;
  std::set<NodeId> members_;  // Of the cluster, here or not.
  Clock* const clock_;
  Transport* const transport_;
  PageStore* const store_;
  PageMemory* const memory_;
  DirectoryMemory directory_memory_;
  Entropy* const entropy_;
  CoreHolder core_;

  static constexpr uint64_t kIncarnationMask = (uint64_t{1} << 24) - 1;
  DirectoryPages pages_;
  MembersClaims claims_;
  DirectoryTree tree_;
  ClaimRounds rounds_of_claims_;  // That this node has answered.
  uint64_t directory_pages_ = 0;  // Made by this node.
  absl::flat_hash_set<PageId> making_;
  absl::flat_hash_map<PageId, Location> locations_;  // By the segment's first page.
  absl::btree_set<PageId> held_;                     // Segments with pages in cache_.
  OwnSegments own_;
  std::map<PageId, std::vector<std::pair<Message, NodeInstance>>> unsure_;  // By segment.

  PageMap<CachedPage> cache_;
  HomePool home_pool_;
  PageMap<HomeEntry> homes_;
  absl::flat_hash_map<PageId, std::unique_ptr<HomeSegment>> segments_;  // By first page.
  bool joins_soon_ = false;                                             // AskForHoldings is called in a moment.
  std::set<PageId> joining_;                                            // Segments that are not served yet.
  std::map<RequestId, PageId> rounds_;                                  // Of their registrations.
  std::set<PageId> leaving_;  // Segments, as moving_ and telling_: engine/move_segment.cc.
  std::set<PageId> moving_;
  std::set<PageId> telling_;
  size_t moves_ = 0;  // Towards this node, that are not written yet.
  uint64_t hand_overs_ = 0;
  uint64_t segments_dropped_ = 0;
  std::map<absl::uint128, ToldFresh> told_fresh_;  // By first page.
  std::vector<PageId> call_in_;                    // Pages whose read copies are about to be called in.
  TimeNs next_call_in_ = 0;
  std::vector<std::unique_ptr<PageWork>> spare_works_;   // Over.
  std::vector<std::vector<CacheEffect>> spare_effects_;  // Empty, with room.
  std::vector<HomeEffect> spare_home_effects_;           // The same.
  PageRow row_;                                          // For what CopyOf copies.
  TickQueue looks_{kTick};         // Pages with something that TickPage looks after; other ticks than look_at are over.
  TickQueue home_resends_{kTick};  // Pages with a transaction.
  std::map<NodeId, Outbox> outboxes_;
  Clock::TimerId late_send_ = 0;
  std::deque<Message> local_;                        // To this node itself.
  std::vector<std::pair<NodeId, Message>> answers_;  // Of this disk, given in the same turn of the loop.
  int depth_ = 0;                                    // Of Turn.
  uint64_t turns_ = 0;
  std::map<RequestId, Call> calls_;
  std::map<RequestId, StoreCall> store_calls_;  // By the first request of each.
  GivenAway given_away_{[this](PageId page, bool is_there) { CountHeld(page, is_there); }};
  uint64_t next_request_ = 1;
  // Both with the epoch of the view in their upper bits (engine/follow_view.cc).
  uint64_t next_txn_ = 0;
  Epoch grant_epoch_;
  Epoch lost_in_;  // The newest view in which a node was lost, or may have been.
  Clock::TimerId tick_ = 0;
  Clock::TimerId seal_timer_ = 0;
  bool stopped_ = false;
  absl::Status stopped_status_;

  View view_;
  Disks disks_;  // In that view.
  TimeNs lease_until_ = 0;
  bool fenced_ = true;  // Programs cannot use what is here.
  StaleReads stale_reads_;
  Clock::TimerId lease_timer_ = 0;
  std::vector<Outcome<absl::Status>> lease_waiters_;
  // Every incarnation of a node before that is gone for ever: that of the view, or the one after the one that has left it.
  std::map<NodeId, Incarnation> alive_from_;
  std::map<NodeId, Incarnation> connected_;
  std::set<NodeId> up_;  // Of the view, those that are connected.

  std::vector<Discarded> discarded_;
  std::map<RequestId, Discard> discards_;
  RangeSet keep_in_ram_;
  RangeSet migratory_;
  ReadAhead read_ahead_;
  ReadAhead read_ahead_blocks_;
  PageRange last_block_;      // In which something was missing, of accesses of less than a block.
  uint64_t ahead_pages_ = 0;  // On their way.

  uint64_t charged_ = 0;  // Of the cache.
  bool evicting_ = false;
  absl::flat_hash_map<PageId, TimeNs> asked_to_drop_;  // Until when that is waited for.
  std::vector<Outcome<absl::Status>> frame_waiters_;
  PeerEviction peer_eviction_{this};
  CatchUp catch_up_{this};

  PageLocks locks_;
  std::shared_ptr<PageWatches> watches_ = std::make_shared<PageWatches>();

  absl::AnyInvocable<void(const NodeOperations::Event&)> event_sink_;
  absl::AnyInvocable<std::string(PageId)> inspector_;
  PageEngineCounters counters_;
  std::map<absl::uint128, std::pair<PageRange, uint64_t>> fetched_;  // By first page; they do not overlap.
  LogOnce said_once_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // False once this object is gone, for callbacks.
};

}  // namespace mangrove
