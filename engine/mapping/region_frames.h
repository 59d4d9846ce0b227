// One region's frames on this node: a sparse memfd whose offsets are those of the region, and the pages' state bytes.
//
// Thread-safe. Shared by the loop (RegionMemory), the fault workers and the server of attached programs; it lives as
// long as anybody holds it, also after the region was removed.

#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/mapping/frame_windows.h"
#include "engine/mapping/page_state.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

// What resolvers ask of the loop. Thread-safe; neither blocks.
struct FrameRequests {
  // The last pin of a page that the loop waits for is gone.
  std::function<void(PageId)> on_last_unpin;
  // Removes the page from every mapping, without changing its right or content, unless it may be stored to or is
  // pinned; then calls `done` on the loop. True: no mapping has the page now, and none will unless a resolver maps it.
  // If the loop has ended, `done` is destroyed uncalled.
  std::function<void(PageId, absl::AnyInvocable<void(bool)> done)> unmap;
};

enum class FrameFence : uint8_t {
  kOpen,
  kLoadsOnly,
  kClosed,
};

class RegionFrames {
 public:
  // `all_spares` counts the spare frames of every region of the node.
  static absl::StatusOr<std::shared_ptr<RegionFrames>> Create(PageRange pages, FrameRequests requests,
                                                              std::shared_ptr<std::atomic<uint64_t>> all_spares);
  ~RegionFrames();
  RegionFrames(const RegionFrames&) = delete;
  RegionFrames& operator=(const RegionFrames&) = delete;

  const PageRange& pages() const { return pages_; }
  uint64_t size_bytes() const { return pages_.count << kPageShift; }
  uint64_t OffsetOf(PageId page) const { return (page - pages_.first) << kPageShift; }
  std::atomic<uint8_t>& StateOf(PageId page) { return states_[page - pages_.first]; }

  // Descriptors to hand out, each a new one that the caller owns. The frames, for a program that may write:
  absl::StatusOr<UniqueFd> OpenFrames() const;
  // ... for one that may only read: cannot be mapped shared-writable, nor reopened for writing by another user id.
  absl::StatusOr<UniqueFd> OpenFramesReadOnly() const;
  // The state bytes, one per page, for everybody: read-only.
  absl::StatusOr<UniqueFd> OpenStates() const;

  // The daemon's own, valid as long as this object. Offsets in bytes of the region.
  int frames_fd() const { return frames_.get(); }

  // Content of frames: the loop's, while the pages have a right or are getting one, and nobody else's but through ReadPage, ReadPages and WritePage.
  // `from` null: zeros.
  void Fill(PageRange pages, const std::byte* from);
  void CopyOut(PageRange pages, std::byte* out);
  // Within the page.
  void ReadFrame(PageId page, size_t offset, std::span<std::byte> out);
  void WriteFrame(PageId page, size_t offset, std::span<const std::byte> bytes);
  // The frame was punched, or is another one.
  void ForgetUses(PageId page) { UsesOf(page).store(0, std::memory_order_relaxed); }

  // Copies from (to) the page, for a call of this process (page_state.h, I7). False: the page has not the right for it, or
  // the region is fenced. Any thread but the loop's driver. REQUIRES: the page is in the region, the bytes in the page.
  bool ReadPage(PageId page, size_t offset, std::span<std::byte> out);
  // The same of whole pages, kMostPinned at most of them, with one system call or none. How many were copied: those behind it may be
  // there as well. REQUIRES: `out` has room for them.
  uint64_t ReadPages(PageRange pages, std::span<std::byte> out);
  bool WritePage(PageId page, size_t offset, std::span<const std::byte> bytes);

  // Pins `page` for a resolver, see page_state.h; kInsufficient for what the fence forbids. REQUIRES: the page is in the region.
  PinOutcome Pin(PageId page, Rights wanted, bool may_map_writable, Rights* granted);
  void Unpin(PageId page);

  // A mapping of the region: `userfaultfd` serves it, the region's first byte is at `base` there. Before it can map a page,
  // and after it no longer can. Of another process: on the loop.
  void AddMapping(int userfaultfd, uint64_t base, bool own_process, bool writable);
  void RemoveMapping(int userfaultfd);
  // Whether what is at `base` in this process is such a mapping, until this says otherwise: whoever unmaps it says so before.
  void SetMapped(uint64_t base, bool mapped);

  // The steps of RegionMemory::Fence, in this order; page_state.h, I8 and I9.
  void SetFence(FrameFence fence) { fence_.store(fence, std::memory_order_seq_cst); }
  FrameFence fence() const { return fence_.load(std::memory_order_seq_cst); }
  bool fenced() const { return fence() != FrameFence::kOpen; }
  static bool Admits(FrameFence fence, Rights wanted) {
    return fence == FrameFence::kOpen || (fence == FrameFence::kLoadsOnly && wanted == Rights::kRead);
  }
  // From the next fence on it is one for all but loads. The loop's own.
  void SetStaysReadable(bool stays) { stays_readable_ = stays; }
  bool stays_readable() const { return stays_readable_; }
  // Removes every frame, whatever is mapped where. REQUIRES: nobody is to use the pages any more.
  void PunchAll();
  // Returns when no page is pinned, or at `patience_ends`.
  void AwaitPins(std::chrono::steady_clock::time_point patience_ends) const;
  // Drops the pages' entries in every mapping of this process. What they map stays.
  void DropEntries(PageRange pages);

  // Frames of pages without a right, ready for what comes next: of pages that are on their way, and spare ones, of others
  // that were taken away. There are none where another process maps the region: it makes entries without a pin
  // (engine/attach/region_mapping.h), and must not find a frame of a page without a right.
  void MakeReady(PageId page);
  void NotReady(PageId page);      // Removes the frame.
  void UseReady(PageRange pages);  // From now on they have a right, whether a frame was ready or not.
  // Frames of pages with a right: the loop's own count.
  uint64_t in_use() const { return in_use_; }
  void CountInUse(int64_t change) { in_use_ += static_cast<uint64_t>(change); }
  // Removes the page from every mapping and leaves its frame ready. False: it is to be punched. REQUIRES: settled.
  bool TakeAway(PageId page);
  // Removes up to `count` spare frames, the oldest first; returns how many.
  uint64_t DropSpares(uint64_t count);

  // Takes the write right from every mapping, in place. False: there is, or was, one of another process, whose lock the
  // loop does not wait for, or it cannot be done now. REQUIRES: settled.
  bool WriteProtect(PageId page);
  void Unmap(PageId page, absl::AnyInvocable<void(bool)> done) const { requests_.unmap(page, std::move(done)); }

 private:
  RegionFrames() = default;
  static constexpr uint64_t kMostPinned = 16;  // At a time, by one thread: who takes one waits for all.
  // Copies frames of pages that are pinned to where this thread's program wants them.
  void CopyToProgram(PageRange pages, std::byte* out);
  // Calls copy() under a pin.
  template <typename Copy>
  bool CopyPinned(PageId page, Rights rights, Copy copy);
  void Punch(PageRange pages);
  void PunchReady();

  // A frame is reached by its descriptor at first, and when it is used again and again as this process has it mapped for itself, beside the
  // mappings that programs use: its first use there takes a fault, which costs what some system calls do, or what a dozen do where a
  // host has page tables of its own. What programs' threads write goes through the mapping, and everything where another process maps the
  // region: a write to a file takes its lock, and who has the descriptor may keep that while he waits for the loop. Otherwise for speed
  // alone: what is mapped is what the descriptor has.
  static constexpr uint8_t kFewUses = 4;
  static constexpr uint8_t kMapped = 255;
  std::atomic<uint8_t>& UsesOf(PageId page) { return uses_[page - pages_.first]; }
  bool CountUse(PageId page, size_t bytes);
  // Calls each(part, is_mapped) for the pages, those of one kind and one window together.
  template <typename Each>
  void ForEachKind(PageRange pages, Each each);
  // Null: it cannot be mapped.
  std::byte* FrameOf(PageId page) { return windows_->At(OffsetOf(page)); }

  PageRange pages_;
  UniqueFd frames_;
  std::unique_ptr<FrameWindows> windows_;
  UniqueFd states_fd_;
  std::atomic<uint8_t>* states_ = nullptr;
  std::atomic<uint8_t>* uses_ = nullptr;
  FrameRequests requests_;
  std::atomic<FrameFence> fence_{FrameFence::kOpen};
  bool stays_readable_ = false;
  uint64_t in_use_ = 0;

  struct Spare {
    PageId page;
    uint64_t number;
  };
  static constexpr uint64_t kNotReady = 0;
  static constexpr uint64_t kOnItsWay = 1;
  uint64_t& ReadyOf(PageId page) { return ready_[page - pages_.first]; }
  bool IsSpare(const Spare& spare) { return ReadyOf(spare.page) == spare.number; }
  void ForgetReady(PageId page);
  void CountSpares(int64_t change);

  struct OwnMapping {
    int userfaultfd;
    uint64_t base;
    bool writable;
    bool mapped;
  };
  std::mutex mappings_mutex_;  // Guards what follows.
  std::vector<OwnMapping> own_mappings_;
  std::atomic<bool> foreign_mappings_ = false;  // Changed under the mutex.
  // Of each page: kNotReady, kOnItsWay, or the number of the spare frame that it has. Memory as far as it is used.
  uint64_t* ready_ = nullptr;
  std::deque<Spare> spares_;  // The oldest first. Those of other numbers than in ready_ are over.
  uint64_t last_spare_ = kOnItsWay;
  uint64_t spare_count_ = 0;
  std::shared_ptr<std::atomic<uint64_t>> all_spares_;
};

}  // namespace mangrove
