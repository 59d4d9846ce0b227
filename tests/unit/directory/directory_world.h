// Some nodes that use one directory at once, under a seed: they appoint, move, remove and find, die and start again, and
// pages are lost with them. What each believes to be responsible for is what on_written told it.
//
// Checked: no two nodes ever believe to be responsible for one segment; the directory says what they believe, wherever it
// is not lost; its pages are a tree as T1 says; lookups find whoever was responsible all the time; orders never fall.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/claims.h"
#include "directory/directory_page.h"
#include "directory/directory_tree.h"
#include "directory/planted_bugs.h"
#include "tests/unit/directory/directory_fake.h"

namespace mangrove::directory_test {

class World;

struct Belief {
  uint32_t term = 0;
  uint64_t handed_to = 0;  // The move that it was handed to: no longer acted upon, still claimed.
  bool moved = false;      // That move has come to its good end.
  bool confirmed = true;   // The node that it came from knows that it is gone.
};

// One life of a node.
class Life final : public ClaimSource {
 public:
  Life(World* world, NodeId node);

  uint64_t Rounds() const override { return rounds_.rounds(); }
  uint64_t RoundsAbout(PageId page, uint64_t since) const override { return rounds_.About(page, since); }
  Task<absl::StatusOr<Claims>> Collect(PageInterval interval, TimeNs deadline) override;

  World* const world;
  const NodeId node;
  bool alive = true;
  bool clean = false;  // No entry of an earlier life is left.
  int under_way = 0;
  int moves_under_way = 0;
  bool removing = false;
  std::map<PageId, Belief> beliefs;
  FakeAccess access;
  DirectoryTree tree;

 private:
  void Answer(PageInterval interval, std::map<PageId, DirectoryEntry>* claims, PageId* in_conflict);
  ClaimRounds rounds_;
};

struct WorldCounts {
  uint64_t steps = 0;
  uint64_t appointed = 0;
  uint64_t moved = 0;
  uint64_t removed = 0;
  uint64_t found = 0;
  uint64_t failed = 0;
  uint64_t deaths = 0;
  uint64_t lost = 0;
  uint64_t rounds = 0;        // About a part of the space.
  uint64_t whole_rounds = 0;  // For a root.
  uint64_t roots = 0;
  uint64_t stores = 0;
};

class World {
 public:
  World(uint64_t seed, const PlantedBugs* bugs);

  // What went wrong; empty if nothing did.
  std::string Run();
  const WorldCounts& counts() const { return counts_; }

 private:
  friend class Life;

  // What the pages say, from the root down.
  struct Content {
    std::map<PageId, DirectoryEntry> segments;
    std::vector<PageInterval> lost;
    size_t pages = 0;
  };

  Life* LifeOf(NodeId node);  // Null: it is down.
  void Fail(const std::string& what);
  auto Wait() { return SleepUntil(&clock_, clock_.Now() + space_.Delay()); }
  void After(DurationNs delay, absl::AnyInvocable<void()> what) {
    clock_.CallAt(clock_.Now() + delay, std::move(what));
  }

  // Of beliefs.
  void SetActive(PageId segment, Life* life);  // Null: nobody.
  void OnAppointed(Life* life, const DirectoryEntry& run, const DirectoryOrder& order);
  void OnMoved(Life* life, uint64_t move, const DirectoryEntry& run);
  void OnRemoved(Life* life, const DirectoryEntry& run, const DirectoryOrder& order);
  Task<absl::Status> HandOver(NodeId from, PageId segment, uint64_t move);
  void EndMove(PageId segment, uint64_t move);
  void Told(PageId segment, uint64_t move);

  // Of nodes.
  void Start(NodeId node);
  void Kill(Life* life);
  void Clean(Life* life);
  void Tick(Life* life);
  void StartOperation(Life* life);
  void StartAppoint(Life* life);
  void StartMove(Life* life);
  void StartRemove(Life* life);
  void StartFind(Life* life);
  void CheckFound(const Life* before, PageId segment, const DirectoryTree::Found& found);
  void MakeRoot();
  Task<absl::Status> TryMakeRoot(Life* life);
  bool Ended(const absl::Status& status, Life* life);

  // Of pages.
  bool IsAtRest();
  void CheckTree();
  void CheckFinally();
  bool Look(PageRef child, PageInterval interval, int level, Content* content);
  bool LookInto(const DirectoryPage& page, Content* content);

  PageId SegmentAt(uint64_t n) const { return kFirstReservablePage + n * kSegmentPages; }

  const PlantedBugs* const bugs_;
  FakeClock clock_;
  FakeSpace space_;
  sim::SimRandom random_;
  uint64_t nodes_ = 0;
  uint64_t segments_ = 0;
  uint64_t deaths_left_ = 0;
  int operations_left_ = 0;
  DurationNs longest_pause_ = 0;
  uint64_t root_losses_per_mille_ = 0;
  bool making_root_ = false;
  std::vector<std::unique_ptr<Life>> lives_;
  std::map<NodeId, Life*> now_;
  std::map<PageId, Life*> active_;
  std::map<PageId, uint64_t> changes_;  // Of active_.
  std::map<PageId, DirectoryOrder> floors_;
  std::map<uint64_t, Life*> moves_;  // Who moves something.
  DirectoryOrder order_{.txn = 1, .epoch = 1};
  uint64_t checked_ = 0;
  std::string failure_;
  WorldCounts counts_;
};

}  // namespace mangrove::directory_test
