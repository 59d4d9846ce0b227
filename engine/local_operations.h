// What the node does for local programs (NodeOperations), over the page engine and the table of regions.

#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/disk_watch.h"
#include "engine/inspect_json.h"
#include "engine/join/join_door.h"
#include "engine/lost_pages.h"
#include "engine/mapping/region_memory.h"
#include "engine/membership.h"
#include "engine/node_config.h"
#include "engine/node_operations.h"
#include "engine/page_engine.h"
#include "engine/region_table.h"
#include "net/ids.h"
#include "net/runtime/loop.h"
#include "net/transport.h"

namespace mangrove {

// Owned by the loop.
class LocalOperations final : public NodeOperations {
 public:
  // All outlive this object. `membership` may be null where nobody asks for the node's status, nor changes the cluster: then it is as
  // the configuration says.
  LocalOperations(const NodeConfig* config, Clock* clock, PageEngine* engine, Membership* membership,
                  Transport* transport, PageStore* store, RegionMemory* memory, Incarnation incarnation);
  ~LocalOperations() override;
  // Outlives this object; before anybody asks for it. Without it there are none.
  void SetTransactions(Transactions* transactions) { transactions_ = transactions; }
  // The same: without it the node makes no tokens.
  void SetJoinDoor(JoinDoor* door) { join_door_ = door; }
  // What operators ask for in words that begin with "fs ": of the filesystem, which this layer does not know.
  using FilesystemOperations =
      absl::AnyInvocable<Task<absl::StatusOr<std::string>>(Credentials who, std::string what, std::string argument)>;
  void SetFilesystemOperations(FilesystemOperations operations) { filesystem_ = std::move(operations); }
  // The same: without it the status says nothing of the disk's room.
  void SetDiskWatch(DiskWatch* watch) { disk_watch_ = watch; }
  // The same: without it the node says nothing of lost pages.
  void SetLostPages(LostPages* lost) { lost_pages_ = lost; }
  // LostPages::AskLearned.
  Task<absl::StatusOr<bool>> IsLearnedAt(NodeId node, PageId page);
  // JoinDoor::Admit, of a machine that is to have the cluster's `keys`.
  Task<absl::StatusOr<JoinAnswer>> Admit(JoinRequest request, std::vector<ClusterKey> keys);

  Task<absl::StatusOr<OpenedRegion>> Reserve(Credentials who, RegionOptions options, TimeNs deadline) override;
  Task<absl::StatusOr<OpenedRegion>> Open(Credentials who, std::string name, AccessMode mode, TimeNs deadline) override;
  Task<absl::Status> Free(Credentials who, std::string name, TimeNs deadline) override;
  Task<absl::StatusOr<std::vector<RegionInfo>>> ListRegions(TimeNs deadline) override;
  Task<absl::StatusOr<SpaceTotals>> Space(TimeNs deadline) override;
  Task<absl::Status> Allocate(Credentials who, PageRange range, AllocateOptions options, TimeNs deadline) override;
  absl::Status CheckDisksHaveRoom(PageRange range, const AllocateOptions& options) const;
  Task<absl::Status> AllocateAhead(Credentials who, PageRange range, AllocateOptions options, TimeNs deadline) override;
  Task<absl::Status> Unallocate(Credentials who, PageRange range, TimeNs deadline) override;
  Task<absl::StatusOr<PageAttributes>> GetAttributes(PageId page, TimeNs deadline) override;
  Task<absl::Status> SetAttributes(Credentials who, PageRange range, PageAttributesChange change,
                                   TimeNs deadline) override;
  Task<absl::Status> CheckAllocated(PageRange range, TimeNs deadline) override;
  Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline) override;
  Task<absl::StatusOr<uint64_t>> Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) override;
  absl::Status Unlock(ClientId client, uint64_t lock_id) override;
  Task<absl::Status> Flush(PageRange range, TimeNs deadline) override;
  Task<absl::StatusOr<std::string>> Inspect(std::string what, std::string argument, TimeNs deadline) override;
  Task<absl::StatusOr<std::string>> Operate(Credentials who, std::string what, std::string argument,
                                            TimeNs deadline) override;
  void EndClient(ClientId client) override;
  Transactions* transactions() override { return transactions_; }
  uint64_t AddEventSink(EventSink sink) override;
  void RemoveEventSink(uint64_t sink_id) override;

 private:
  static constexpr DurationNs kAskAgain = 100 * kMillisecond;  // The anchors, for what an operator wants.

  class Pages;  // The table's access to its own pages.

  // Makes the region's frames known on this node.
  absl::StatusOr<OpenedRegion> Known(absl::StatusOr<OpenedRegion> opened);
  void SetWithoutQuorum(const OpenedRegion& region);
  Task<absl::StatusOr<std::string>> SetRegion(Credentials who, std::string argument, TimeNs deadline);
  Task<absl::Status> CheckIsHere(PageRange range);
  static bool IsLarge(PageRange range);
  Task<absl::Status> AcquireLarge(PageRange range, Rights rights, TimeNs deadline);
  Task<absl::StatusOr<uint64_t>> LockChecked(ClientId client, PageRange range, LockMode mode, TimeNs deadline);
  Task<absl::Status> FlushLarge(PageRange range, TimeNs deadline);
  void OnEvent(const Event& event);
  // What the page's responsible node says.
  Task<absl::StatusOr<bool>> IsStillLost(PageId page, TimeNs deadline);
  Task<absl::StatusOr<bool>> AreLost(PageRange range, TimeNs deadline);
  const Roster& roster() const { return membership_ != nullptr ? membership_->roster() : configured_; }
  std::string NameOf(NodeId node) const { return roster().NameOf(node); }
  uint32_t MemberCount() const;  // Of the cluster.
  // operate.cc
  absl::StatusOr<NodeId> NodeOf(const std::string& name) const;
  Task<absl::StatusOr<std::string>> GiveUpNode(std::string argument, TimeNs deadline);
  Task<absl::StatusOr<std::string>> GiveUpConfirmed(NodeRequest request, std::string name, std::string confirmation,
                                                    TimeNs deadline);
  Task<absl::StatusOr<nlohmann::json>> PreviewGiveUp(NodeId node);
  absl::Status CheckRequest(const NodeRequest& request, const std::string& name) const;
  absl::Status CheckRecord(const NodeRequest& request) const;
  bool IsDone(const NodeRequest& request) const;
  bool IsNamed(NodeId node) const;
  static absl::Status NotTakenUp(const NodeRequest& request, const std::string& name);
  Task<absl::Status> Ask(NodeRequest request, std::string name, TimeNs deadline);
  absl::StatusOr<NodeRequest> SetRequest(const std::string& argument) const;
  absl::StatusOr<std::string> OperateToken(const std::string& argument);
  std::string ListTokens() const;
  // inspect_cluster.cc
  struct Told {  // By a node; nothing: it did not answer.
    NodeId node;
    std::optional<PeerReport> report;
  };
  Task<std::vector<Told>> AskDisks(TimeNs deadline);
  nlohmann::json LossesOf(const std::vector<Told>& told) const;
  nlohmann::json RepairOf(const std::vector<Told>& told) const;
  // inspect.cc
  Task<absl::StatusOr<std::string>> InspectStatus(TimeNs deadline);
  std::string InspectNodes() const;
  std::string InspectForPeer(PageId page) const;
  Task<absl::StatusOr<PeerReport>> AskPeer(NodeId node, PageId page, TimeNs deadline);
  Task<absl::StatusOr<std::string>> InspectPage(PageId page, TimeNs deadline);
  Task<absl::StatusOr<std::string>> InspectDirectory(TimeNs deadline);
  Task<absl::StatusOr<std::string>> InspectLog(std::string argument, TimeNs deadline);
  Task<absl::StatusOr<std::string>> GiveUpLog(std::string argument, TimeNs deadline);
  absl::StatusOr<NodeId> NodeOfLog(const std::string& argument) const;
  Task<absl::StatusOr<std::string>> InspectDirectoryAt(PageId page, TimeNs deadline);

  const NodeConfig* const config_;
  const Roster configured_;
  Clock* const clock_;
  PageEngine* const engine_;
  Membership* const membership_;
  Transport* const transport_;
  PageStore* const store_;
  RegionMemory* const memory_;
  const Incarnation incarnation_;
  Transactions* transactions_ = nullptr;
  JoinDoor* join_door_ = nullptr;
  FilesystemOperations filesystem_;
  DiskWatch* disk_watch_ = nullptr;
  LostPages* lost_pages_ = nullptr;
  std::unique_ptr<Pages> pages_;
  std::unique_ptr<RegionTable> table_;
  std::map<uint64_t, EventSink> sinks_;
  uint64_t next_sink_ = 1;
  std::vector<PageRange> known_regions_;                // Whose frames this node can hold.
  std::map<PageId, OpenedRegion> read_without_quorum_;  // By first page, as they were opened last.
  std::set<PageId> lost_;  // Pages that were heard to be lost, until they are allocated anew.
};

}  // namespace mangrove
