// The simulated door to RAM: frames in a map, and what the programs of the node do to them.
//
// Taking a right away takes time. Until it has completed the programs go on as before, up to the very last moment: the
// content that `done` gets is that of the completion, not of the call. One per life of a node.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "engine/page_memory.h"
#include "engine/range_set.h"
#include "tests/sim/sim_world.h"
#include "tests/sim/stamp.h"

namespace mangrove::sim {

// Sees every change of a right and every access, in order. Implemented by the oracle.
class MemoryObserver {
 public:
  virtual ~MemoryObserver() = default;
  // `data` as PageMemory::Install.
  virtual void OnInstall(int node, PageId page, const std::byte* data, Rights rights) = 0;
  // Raise: kWrite. Protect has completed: kRead. Take has completed: kNone, and `kept` if the node has the content.
  virtual void OnRights(int node, PageId page, Rights rights, bool kept) = 0;
  virtual void OnLoad(int node, PageId page, const std::byte* data) = 0;
  // While it is suspended, of a page that stays readable.
  virtual void OnStaleLoad(int, PageId, const std::byte*) {}
  virtual void OnStore(int node, PageId page, const Stamp& stamp) = 0;
  // What the node has is no right of its programs until it is resumed. Then OnInstall says what it still has.
  virtual void OnSuspended(int node) = 0;
  virtual void OnResumed(int node) = 0;
};

struct SimMemoryOptions {
  uint32_t inline_per_mille = 300;  // How often `done` runs within the call.
  uint32_t slow_per_mille = 5;      // How often an application holds its mmap lock for long.
  DurationNs min_delay = 5 * kMicrosecond;
  DurationNs max_delay = 300 * kMicrosecond;
  DurationNs slow_delay = 50 * kMillisecond;
};

class SimMemory final : public PageMemory {
 public:
  SimMemory(SimWorld* world, int node, uint64_t life, const SimMemoryOptions& options, MemoryObserver* observer);
  ~SimMemory() override { world_->Cancel(lease_end_); }

  void Install(PageId page, const std::byte* data, Rights rights) override;
  void Raise(PageId page) override;
  void Protect(PageId page, absl::AnyInvocable<void()> done) override;
  void Take(PageId page, bool keep, absl::AnyInvocable<void(PageBuffer)> done) override;
  PageBuffer Copy(PageId page) override;
  void Load(PageId page, size_t offset, std::span<std::byte> out) override;
  void Store(PageId page, size_t offset, std::span<const std::byte> bytes) override;
  void Fence() override;
  void SetStaysReadable(PageRange range, bool stays) override { readable_.Set(range, stays); }
  void Unfence() override;

  // The node has a lease until then, by the world's clock: the programs' mappings go by that to the moment, even while the
  // daemon is paused. Until the first call they go on for ever.
  void ServeUntil(TimeNs until);

  // What a program's thread may do at any moment, without asking the loop.
  bool CanRead(PageId page) const { return (!suspended_ || IsOnlyRead(page)) && RightsOf(page) != Rights::kNone; }
  bool CanWrite(PageId page) const { return !suspended_ && !IsOnlyRead(page) && RightsOf(page) == Rights::kWrite; }
  // It is fenced, and the page's region stays readable.
  bool IsOnlyRead(PageId page) const { return served_.Contains(page); }
  Rights RightsOf(PageId page) const;
  // REQUIRES: CanRead.
  void ApplicationLoad(PageId page);
  // REQUIRES: CanWrite. Fills the page as stamp.h says.
  void ApplicationStore(PageId page, const Stamp& stamp);

  // Called when a right is about to go, its programs still having it.
  void SetLastMoment(absl::AnyInvocable<void(PageId)> hook) { last_moment_ = std::move(hook); }

  size_t frames() const { return frames_.size(); }
  // The life is over: nothing changes any more, and no callback runs.
  void Kill() {
    dead_ = true;
    world_->Cancel(std::exchange(lease_end_, 0));
  }

 private:
  struct Frame {
    Rights rights = Rights::kNone;
    bool pending = false;  // A Protect or Take is under way.
    std::unique_ptr<PageBytes> data;
  };

  // The frame, if the call is allowed; else the world fails.
  Frame* Require(PageId page, Rights at_least, const char* call);
  void Broken(PageId page, const char* call, const char* what);
  // Runs `change` after the delay that the change of a right takes, or now.
  void Complete(PageId page, absl::AnyInvocable<void()> change);

  SimWorld* const world_;
  const int node_;
  const SimMemoryOptions options_;
  MemoryObserver* const observer_;
  SimRandom random_;
  bool dead_ = false;
  bool suspended_ = false;
  bool fenced_ = true;  // As a node begins: without a lease.
  RangeSet readable_;
  RangeSet served_;  // While it is fenced.
  SimWorld::EventId lease_end_ = 0;
  absl::AnyInvocable<void(PageId)> last_moment_;
  absl::flat_hash_map<PageId, Frame> frames_;
};

}  // namespace mangrove::sim
