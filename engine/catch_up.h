// Brings a disk that is behind up to those that are not.
//
//  U1  From its joining of the view on, a node's disk stores all that is stored (D1 of engine/disks.cc). What it lacks, every disk
//      has that is current.
//  U2  First the extents of every current disk of the view, then each page that is not as it is there: with what is there, be it
//      older; what nobody else has, nobody was told of. What has been stored here since the joining stays.
//  U3  What was here when this node joined, and a current disk that would have to keep it has not, is not allocated any more: it is
//      dropped. What was allocated or dropped since is as it is, whatever a list says that was made before.
//  U4  It waits for every disk that fell behind later, since that one may have what no other has; and, having nothing, for every
//      one that was never heard of. Then it has caught up, and says so; the next view makes it current.
//  U5  A page that no current disk can read, and that is not here in the same version, is marked as lost: it is not answered for
//      with what may be older.
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
#include "engine/page_store.h"
#include "engine/stored_list.h"
#include "net/ids.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class PageEngine;

struct CatchUpProgress {
  bool is_behind = false;
  uint64_t pages_compared = 0;
  uint64_t pages_copied = 0;
  uint64_t pages_lost = 0;        // U5
  std::vector<NodeId> waits_for;  // U4
  std::string trouble;            // Why the last step failed; empty: it did not.
};

class CatchUp {
 public:
  // `blank`: when the node started its disk had nothing that counts. `caught_up`: now it has all.
  using Sink = absl::AnyInvocable<void(bool blank, bool caught_up)>;

  explicit CatchUp(PageEngine* engine) : engine_(engine) {}

  void SetSink(Sink sink) { sink_ = std::move(sink); }
  // `blank`: as above.
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

  bool IsBehind() const;
  std::optional<NodeId> NextSource(const std::set<NodeId>& done) const;
  std::vector<NodeId> WaitsFor() const;
  Task<bool> Pause(DurationNs duration);
  template <typename T>
  std::pair<Outcome<T>, absl::AnyInvocable<void(T)>> Await();
  Outcome<Message> Here(const Message& message);
  static Message AskOf(PageId page);
  static Message StoreOf(PageId page, const Message& stored);

  Task<absl::Status> Run();
  Task<absl::Status> LearnNext();
  absl::Status CheckGoesOn() const;
  Task<absl::Status> Learn(NodeId source, bool pages);
  Task<absl::Status> TakeExtents(NodeId source, std::vector<StoredExtent> listed, PageInterval part);
  Task<std::vector<Drop>> NotListed(NodeId source, const std::vector<StoredExtent>& listed, PageInterval part) const;
  const Extent* NextInDoubt(PageId page, PageId end) const;
  static void AddDrop(PageRange range, ConfigNumber config, std::vector<Drop>& drops);
  std::vector<PageRange> MissingOf(const StoredExtent& extent) const;
  Task<absl::Status> TakePages(NodeId source, std::vector<StoredVersion> listed, PageInterval part);
  Task<absl::StatusOr<Part>> VersionsHere(PageInterval part);
  std::vector<StoredVersion> Differing(const std::vector<StoredVersion>& listed, const Versions& here);
  Task<absl::Status> DropPages(NodeId source, const std::vector<StoredVersion>& listed, const Versions& here);
  Task<absl::Status> Copy(NodeId source, std::vector<StoredVersion> pages);
  Task<absl::Status> Settle();
  Task<absl::StatusOr<bool>> CopyFromAny(PageId page);
  bool IsCovered(const Extent& extent) const;
  Task<absl::Status> Finish();

  // catch_up_lists.cc
  bool Keeps(NodeId node, PageRange range, uint32_t replicas, bool is_volatile) const;
  void AnswerExtents(const Message& message, Message answer, NodeId to);
  void AnswerVersions(const Message& message, Message answer, NodeId to);
  PageId FirstKept(PageId from) const;
  PageBuffer VersionsFor(NodeId to, PageId from, const PageList& list, PageId* next) const;

  PageEngine* const engine_;
  Sink sink_;
  bool blank_ = false;
  bool running_ = false;
  bool caught_up_ = false;
  bool in_doubt_ = false;                                    // It has begun.
  NodeId failed_;                                            // The source of the last step, if that failed.
  std::map<NodeId, PageId> pages_from_;                      // Where each source's pages go on.
  std::set<NodeId> extents_of_;                              // Whose are known.
  std::set<NodeId> pages_of_;                                // The same.
  std::vector<Drop> drops_;                                  // Since this node joined.
  std::vector<std::pair<NodeId, PageRange>> learned_there_;  // Extents that a source has learned itself.
  // That a current disk could not read, in the version that it had.
  std::map<PageId, Version> unreadable_;
  std::optional<Outcome<bool>> pause_;
  Clock::TimerId timer_ = 0;
  uint64_t next_wait_ = 0;
  std::map<uint64_t, absl::AnyInvocable<void(absl::Status)>> waits_;  // For this node's own disk; what ends each.
  CatchUpProgress progress_;
};

}  // namespace mangrove
