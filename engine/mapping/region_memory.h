// The real PageMemory: every region's frames in a sparse memfd that local programs map.
//
//   Expect    makes the frame
//   Install   one copy of a full page into the frame, then the right
//   Raise     the right; the next store's fault makes the mapping writable
//   Protect   nothing but the right when no mapping is writable; otherwise every mapping is write-protected if all are of
//             this process, or the frame is replaced by a copy
//   Take      the right, then the page is removed from every mapping and its frame left ready for the next content, if all
//             are of this process; otherwise the frame is punched out of the memfd, which does so too
//   Fence     every entry of this process's mappings is dropped, and nobody makes one, or, of a region that stays readable, none
//             for stores; frames and state bytes stay
//
// Frames are reached by their descriptor, and when they are used often through a mapping of this process's own, which no program uses and
// no fault handler serves (RegionFrames::CountUse).
// Nothing takes a lock of another process. A frame that such a one may be storing to is first put into a pipe (splice: by
// reference, no copy), then punched, then read from the pipe: so the copy has the last store, and there is no moment at
// which a store can be lost. That stands in for write-protecting every mapping, which takes each application's mmap
// lock and therefore a thread for each. The price: after Protect the next load faults too.
//
// All calls run on the loop, and `done` runs inside the call, unless a fault of the page is being resolved at that
// moment; then it runs on the loop when that is over (page_state.h, I3). Fence waits for faults that are being resolved, a few
// milliseconds at most: a thread that the kernel keeps from going on for longer takes back what it maps when it goes on.
//
// Owned by the loop. Outlives what was posted. Numbered invariants: page_state.h.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/mapping/region_frames.h"
#include "engine/page_memory.h"

namespace mangrove {

class RegionMemory final : public PageMemory {
 public:
  // Runs a task on the loop, soon. Thread-safe (Loop::Post).
  using Post = std::function<void(absl::AnyInvocable<void()>)>;

  // Frames of pages that were taken stay for their next content as long as all frames are no more than `most_frames`; a
  // few always may. FailedPrecondition names what the kernel lacks (see userfaultfd.h and ProbeFrames).
  static absl::StatusOr<std::unique_ptr<RegionMemory>> Create(Post post, uint64_t most_frames);
  ~RegionMemory() override;

  // Makes the pages of a region known here. AlreadyExists if it overlaps another. Costs nothing per page.
  absl::Status AddRegion(PageRange pages);
  // Forgets the region and every frame of it. REQUIRES: added, no Take or Protect under way, and no program maps it.
  void RemoveRegion(PageRange pages);
  // The region that has `page`, or null. The result may be used by any thread.
  std::shared_ptr<RegionFrames> FindRegion(PageId page) const;

  bool Knows(PageId page) const override;
  // Nothing where another process has the region mapped: it makes entries without a pin (engine/attach/region_mapping.h),
  // and must not find a frame of a page without a right.
  void Expect(PageId page) override;
  void Unexpect(PageId page) override;
  void Install(PageId page, const std::byte* data, Rights rights) override;
  void InstallAll(PageRange pages, const std::byte* data, Rights rights) override;
  void Raise(PageId page) override;
  void Protect(PageId page, absl::AnyInvocable<void()> done) override;
  void Take(PageId page, bool keep, absl::AnyInvocable<void(PageBuffer)> done) override;
  PageBuffer Copy(PageId page) override;
  void CopyAll(PageRange pages, std::byte* out) override;
  void Load(PageId page, size_t offset, std::span<std::byte> out) override;
  void Store(PageId page, size_t offset, std::span<const std::byte> bytes) override;
  void Fence() override;
  void SetStaysReadable(PageRange region, bool stays) override;
  // The same for every region, whatever it was to stay: nothing that is here counts any more.
  void FenceForGood();
  void Unfence() override;

  // What local mappings were given, as the state byte says.
  Rights RightsOf(PageId page) const;

 private:
  struct Implementation;
  explicit RegionMemory(std::shared_ptr<Implementation> implementation);

  std::shared_ptr<Implementation> implementation_;
};

}  // namespace mangrove
