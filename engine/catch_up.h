// Brings a disk that is behind up to those that are not, and one that is to keep pages which it does not keep to these.
//
//  U1  From a view on, this disk stores all that is stored of the pages that it lacks (D1 of engine/disks.h): that of its joining,
//      of a disk that is behind; that in which the move began, of pages that come with it. What was stored before, every disk has that
//      is current and keeps it. A disk that is behind, or kept nothing, lacks everything (Disks::LearnsAll); another only pages.
//  U2  First the extents of every current disk of the view, then each page that is not as it is there: with what is there, be it
//      older; what nobody else has, nobody was told of. What has been stored here since that view stays.
//  U3  Of a disk that lacks everything: what was here in that view, and a current disk has not, is not allocated any more: it is
//      dropped. What was allocated or dropped since is as it is, whatever a list says that was made before.
//  U4  A disk that is behind waits for every one that fell behind later, since that one may have what no other has; and, having
//      nothing, for every one that was never heard of. One that is to keep more waits for a current one of each page's. Nobody waits for
//      what is lost. Then it has all, and says so; a later view makes it current, or ends the move.
//  U5  A page that no current disk can read, and that is not here in the same version, is marked as lost: it is not answered for
//      with what may be older. So are pages whose disks are all lost: what is not here does not mean zeros. Of a page that comes with a
//      move every disk that keeps it, and is not lost, has to be current first: at the move's end what it has goes.
//  U6  When the view is another one, with another goal, it begins anew; what it was about to write of before is not written.
//  U7  Of pages that this disk neither keeps nor is to keep what it has is deleted, sooner or later.
//  U8  The first look at a disk's pages waits for what was on its way there: that may be older than the round, or the view. What
//      comes later is under U1, and the looks that follow do not wait.
//  U9  A disk that is behind has caught up when it has what it lacks of the pages that it keeps. It does not wait for pages that
//      are to come with a move, whose disks may all be behind, and wait for this one.
//  U10 Pages come in two passes: first those that one current disk has and no other, of every source; then the others. Which they are
//      the current disks say: when these change the first pass is made again, of what was not compared yet. What was compared with a disk
//      is not compared with it again before the next beginning, and counts as learned, whatever becomes of that disk.
//  U11 No more of pages is copied here than `repair_bytes_per_second` allows, but for a tenth of a second's (B1 of
//      engine/token_bucket.h). Nothing else waits for that; and what waits comes to its turn.
//
// Owned by the loop; part of the page engine.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/directory_page.h"
#include "directory/messages.h"
#include "engine/core_holder.h"
#include "engine/disks.h"
#include "engine/page_intervals.h"
#include "engine/page_store.h"
#include "engine/progress_rate.h"
#include "engine/stored_list.h"
#include "engine/token_bucket.h"
#include "net/ids.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"
#include "recovery/member.h"
#include "recovery/view.h"

namespace mangrove {

class PageEngine;

struct CatchUpProgress {
  bool is_behind = false;
  bool is_moving = false;  // It lacks pages that it is to keep after a move.
  int done_percent = 0;  // Of what it lacks, as far as that can be told: of the allocated pages, those that it is past.
  uint64_t pages_compared = 0;
  uint64_t pages_copied = 0;
  uint64_t pages_lost = 0;                     // U5
  uint64_t pages_trimmed = 0;                  // U7
  std::vector<NodeId> waits_for;               // U4
  std::optional<ProgressRate::Estimate> rate;  // Nothing: not known yet, or there is nothing to do.
  std::string trouble;                         // Why the last step failed; empty: it did not.
  uint64_t limit_bytes_per_second = 0;         // U11; 0: there is none.
  bool is_held_by_limit = false;               // It would be faster without.
};

class CatchUp {
 public:
  using Sink = absl::AnyInvocable<void(const DiskState&)>;

  explicit CatchUp(PageEngine* engine);

  void SetSink(Sink sink) { sink_ = std::move(sink); }
  // `blank`: when the node started its disk had nothing that counts.
  void Open(bool blank);
  void OnView();
  void Stop();

  // Until then this disk cannot say that a page is not allocated.
  bool KnowsExtents() const;
  // The range is being unallocated, also here.
  void NoteDrop(PageRange range, ConfigNumber config);
  CatchUpProgress Progress() const;

  // As the one that is asked.
  void AnswerList(const Message& message, NodeInstance from);

 private:
  struct Drop {
    PageRange range;
    ConfigNumber config;
    TimeNs until = 0;  // Longer than any list that was made before it can be on its way.
  };
  // Of the records that are here; of those that cannot be read, or are of another extent, kUnknownVersion.
  using Versions = std::map<PageId, Version>;
  struct Part {
    PageId end;  // It is said of all before.
    Versions versions;
  };

  // What it learns for.
  struct Goal {
    bool behind = false;
    Epoch move;        // 0: no pages come with a move.
    bool all = false;  // It lacks everything.
    bool empty() const { return !behind && move.value == 0; }
    friend bool operator==(const Goal&, const Goal&) = default;
  };

  bool IsBehind() const;
  Goal GoalNow() const;
  void SetGoal(const Goal& goal);
  void Say();
  std::optional<NodeId> NextSource(const std::set<NodeId>& done) const;
  std::vector<NodeId> WaitsFor() const;
  double DoneShare() const;
  ProgressRate::Done Done() const;
  void NoteRate();
  Task<bool> Pause(DurationNs duration);
  template <typename T>
  std::pair<Outcome<T>, absl::AnyInvocable<void(T)>> Await();
  Outcome<Message> Here(const Message& message);
  static Message AskOf(PageId page);

  Task<absl::Status> Run();
  enum class Pass : uint8_t {
    kExtents,
    kOneCopy,  // U10: pages that no other current disk has.
    kRest,
  };
  struct Step {
    Pass pass;
    NodeId source;
  };
  std::optional<Step> NextStep() const;
  Task<absl::Status> LearnNext();
  absl::Status CheckGoesOn(uint64_t round) const;
  Task<absl::StatusOr<Message>> AskForList(NodeId source, PageId from, bool pages);
  Task<absl::Status> LearnExtents(NodeId source);
  Task<absl::Status> TakeExtents(NodeId source, std::vector<StoredExtent> listed, PageInterval part);
  Task<std::vector<Drop>> NotListed(const std::vector<StoredExtent>& listed, PageInterval part) const;
  const Extent* NextInDoubt(PageId page, PageId end) const;
  static void AddDrop(PageRange range, ConfigNumber config, std::vector<Drop>& drops);
  std::vector<PageRange> MissingOf(const StoredExtent& extent) const;
  Task<absl::Status> TakePages(NodeId source, Pass pass, std::vector<StoredVersion> listed, PageInterval part);
  Task<absl::Status> TakeDiffering(NodeId source, const std::vector<StoredVersion>& listed, const Versions& here);
  Task<absl::StatusOr<Part>> VersionsHere(PageInterval part, PageStore::Listed what = PageStore::Listed::kAll);
  PageStore::Listed WhatToWaitFor() const;
  std::vector<StoredVersion> Differing(const std::vector<StoredVersion>& listed, const Versions& here);
  Task<absl::Status> DropPages(NodeId source, const std::vector<StoredVersion>& listed, const Versions& here);
  Task<absl::Status> Copy(NodeId source, std::vector<StoredVersion> pages);
  Task<absl::Status> Settle();
  Task<absl::StatusOr<bool>> CopyFromAny(PageId page);

  // catch_up_order.cc
  // How pages come, of a part.
  struct Order {
    PageId one_copy = kSpaceEnd;     // The first that comes in the first pass.
    std::vector<PageInterval> rest;  // What comes in the second one, and may have between it what need not come.
  };
  void NoteOrder();
  const PageIntervals& ComparedWith(NodeId source) const;
  Task<Order> OrderOf(NodeId source, PageInterval part, bool up_to_one_copy) const;
  Task<PageId> NextToAsk(NodeId source, Pass pass, PageId from) const;
  Task<PageIntervals> ToCompare(NodeId source, Pass pass, PageInterval part) const;
  Task<absl::Status> LearnPages(NodeId source, Pass pass);
  size_t CopiesAtOnce() const;
  Task<absl::Status> WaitForTurn(size_t pages);
  bool WasComparedWith(NodeId source, PageRange range) const;

  // catch_up_end.cc
  struct Coverage {
    std::set<NodeId> waits;       // Whose disks keep what is to come here, and are not there.
    std::vector<PageRange> lost;  // Is to come here, and all of its disks are lost.
    std::vector<Extent> covered;  // kWhole, all of it.
    std::vector<Extent> unknown;  // kNone, some of it.
  };
  // Where what this disk lacks of a range was learned.
  enum class Cover : uint8_t {
    kWhole,  // From one that has all of it.
    kOwn,    // Not so; but this disk kept it.
    kNone,   // Nowhere, and it is to come here.
  };
  Cover CoverOf(const Extent& extent, PageRange part, Coverage& all) const;
  Task<absl::StatusOr<Coverage>> LookAtAll();
  Task<absl::Status> Forget(PageRange lost);
  Task<absl::Status> NoteLost(const Coverage& all);
  void SayWhatIsOlder() const;
  void NoteWhatIsHad();
  Task<absl::Status> Finish();

  // catch_up_trim.cc
  void TrimIfDue();
  Task<absl::Status> Trim();
  Task<absl::Status> TrimFrom(PageId from, PageId* next);

  // catch_up_lists.cc
  void AnswerExtents(const Message& message, Message answer, NodeId to);
  void AnswerVersions(const Message& message, Message answer, NodeId to);
  PageId FirstKept(PageId from) const;
  PageBuffer VersionsFor(NodeId to, PageId from, const PageList& list, PageId* next) const;

  PageEngine* const engine_;
  Sink sink_;
  bool blank_ = false;
  bool running_ = false;
  bool caught_up_ = false;
  Epoch moved_;  // See DiskState.
  Goal goal_;
  bool has_all_ = false;     // Of the goal.
  uint64_t round_ = 0;       // Goals that there were.
  uint64_t saw_all_in_ = 0;  // U8: the last one in which what was on its way before it had arrived.
  // While pages move: those of the move before, if this disk had all that it was to keep by it, and has been told of everything since.
  std::optional<Disks> had_all_of_;
  View view_before_;                   // The last one, if this disk is to get pages by it.
  std::optional<Disks> disks_before_;  // Its disks.
  Epoch listed_all_in_;                // The same, of the views in which this disk told another one what it has.
  bool trim_due_ = true;               // There may be something to delete.
  std::set<NodeId> disks_then_;        // These two of the view before.
  DiskWeights weights_then_;
  bool trimming_ = false;
  bool trim_again_ = false;
  NodeId failed_;                                            // The source of the last step, if that failed.
  std::set<NodeId> extents_of_;                              // Whose are known.
  std::set<NodeId> one_copy_of_;                             // U10: who has gone through the first pass in this order.
  uint64_t order_ = 0;                                       // Orders that there were.
  std::set<NodeId> current_;                                 // From which the order follows.
  std::set<NodeId> ordered_by_;                              // The same: the view's disks.
  std::map<NodeId, PageIntervals> compared_with_;            // Of those who are not in pages_of_.
  std::set<NodeId> pages_of_;                                // Whose are known.
  std::vector<Drop> drops_;                                  // Since this node joined.
  std::vector<std::pair<NodeId, PageRange>> learned_there_;  // Extents that a source has learned itself.
  // That a current disk could not read, in the version that it had.
  std::map<PageId, Version> unreadable_;
  std::set<NodeId> uncovered_;  // U4: whom the last look waited for.
  std::optional<Outcome<bool>> pause_;
  Clock::TimerId timer_ = 0;
  uint64_t next_wait_ = 0;
  std::map<uint64_t, absl::AnyInvocable<void(absl::Status)>> waits_;  // For this node's own disk; what ends each.
  CatchUpProgress progress_;
  ProgressRate rate_;
  TokenBucket copies_;  // U11, in bytes.
};

}  // namespace mangrove
