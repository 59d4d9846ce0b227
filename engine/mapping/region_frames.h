// One region's frames on this node: a sparse memfd whose offsets are those of the region, and the pages' state bytes.
//
// Thread-safe. Shared by the loop (RegionMemory), the fault workers and the server of attached programs; it lives as
// long as anybody holds it, also after the region was removed.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/mapping/page_state.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

// What resolvers ask of the loop. Thread-safe; neither blocks.
struct FrameRequests {
  // The last pin of a page that the loop waits for is gone.
  std::function<void(PageId)> on_last_unpin;
  // Removes the page from every mapping, without changing its right or content, unless it may be mapped writable or is
  // pinned; then calls `done` on the loop. True: no mapping has the page now, and none will unless a resolver maps it.
  // If the loop has ended, `done` is destroyed uncalled.
  std::function<void(PageId, absl::AnyInvocable<void(bool)> done)> unmap;
};

class RegionFrames {
 public:
  static absl::StatusOr<std::shared_ptr<RegionFrames>> Create(PageRange pages, FrameRequests requests);
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

  // Pins `page` for a resolver, see page_state.h. REQUIRES: the page is in the region.
  PinOutcome Pin(PageId page, Rights wanted, bool may_map_writable, Rights* granted);
  void Unpin(PageId page);

  // A mapping of the region: `userfaultfd` serves it, the region's first byte is at `base` there. Before it can map a page,
  // and after it no longer can.
  void AddMapping(int userfaultfd, uint64_t base, bool own_process, bool writable);
  void RemoveMapping(int userfaultfd);
  // Is there, or was there, a mapping of another process?
  bool HasForeignMappings();
  // Takes the write right from every mapping, in place. False: there is, or was, one of another process, whose lock the
  // loop does not wait for, or it cannot be done now. REQUIRES: settled.
  bool WriteProtect(PageId page);
  void Unmap(PageId page, absl::AnyInvocable<void(bool)> done) const { requests_.unmap(page, std::move(done)); }

 private:
  RegionFrames() = default;

  PageRange pages_;
  UniqueFd frames_;
  UniqueFd states_fd_;
  std::atomic<uint8_t>* states_ = nullptr;
  FrameRequests requests_;

  struct OwnMapping {
    int userfaultfd;
    uint64_t base;
  };
  std::mutex mappings_mutex_;
  std::vector<OwnMapping> own_mappings_;  // The writable ones.
  bool foreign_mappings_ = false;
};

}  // namespace mangrove
