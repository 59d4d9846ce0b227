// The door to this node's RAM: the frames of cached pages, and what local programs may do with them.
//
// The cache's machine (directory/cache_machine.h) decides which right a page has here; the memory sees to it that no
// local mapping gives more. It never takes a right away by itself.
//
//   rights  frame   local loads   local stores
//   none    any     fault         fault
//   read    there   work          fault
//   write   there   work          work
//   fenced  as was  fault         fault; of a region that stays readable: loads as before, stores fault
//
// "Work" means: may be made to work without asking the loop. The real implementation (engine/mapping/) keeps frames in
// one sparse memfd per region, mapped by every attached process; the simulator's keeps them in a map.
//
// Owned by the loop, except where it says otherwise. Taking rights away needs locks that an application may hold for
// long, so it ends with a callback, on the loop: `done` runs exactly once, possibly before the call returns. Until it
// has run, no other call for that page is made.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "absl/functional/any_invocable.h"
#include "directory/address.h"
#include "net/page_buffer.h"

namespace mangrove {

enum class Rights : uint8_t { kNone = 0, kRead = 1, kWrite = 2 };

class PageMemory {
 public:
  virtual ~PageMemory() = default;

  // Whether the page's region is known here. Once it is, it stays so.
  virtual bool Knows(PageId) const { return true; }

  // The page is on its way: what Install needs may be made ready while nobody waits for this thread. Until Install, or
  // Unexpect, it has no right. REQUIRES: the page has none, and its region is known here.
  virtual void Expect(PageId) {}
  virtual void Unexpect(PageId) {}

  // Puts a copy of `data` (kPageBytes; null: zeros) into the page's frame and gives `rights` (kRead or kWrite).
  // REQUIRES: the page has none, and its region is known here.
  virtual void Install(PageId page, const std::byte* data, Rights rights) = 0;
  // The same of each of these, of which `data` has one after the other.
  virtual void InstallAll(PageRange pages, const std::byte* data, Rights rights) {
    for (uint64_t i = 0; i < pages.count; ++i) {
      Install(pages.first + i, data == nullptr ? nullptr : data + i * kPageBytes, rights);
    }
  }

  // Gives kWrite to a page that has kRead.
  virtual void Raise(PageId page) = 0;

  // Takes a page with kWrite down to kRead in every local mapping. When `done` runs, no store is under way.
  virtual void Protect(PageId page, absl::AnyInvocable<void()> done) = 0;

  // Takes every right away and removes the frame. When `done` runs, no load or store is under way, and its argument is
  // the page's last content (null unless `keep`). REQUIRES: kRead or kWrite.
  virtual void Take(PageId page, bool keep, absl::AnyInvocable<void(PageBuffer)> done) = 0;

  // A copy of the page's content. REQUIRES: kRead, so that the copy is of one moment.
  virtual PageBuffer Copy(PageId page) = 0;
  // Copies of these, one after the other, to `out`. REQUIRES: kRead for each.
  virtual void CopyAll(PageRange pages, std::byte* out) {
    for (uint64_t i = 0; i < pages.count; ++i) {
      std::memcpy(out + i * kPageBytes, Copy(pages.first + i)->bytes.data(), kPageBytes);
    }
  }

  // Access by this node itself. REQUIRES: kRead or kWrite for reading, kWrite for writing; within the page.
  virtual void Load(PageId page, size_t offset, std::span<std::byte> out) = 0;
  virtual void Store(PageId page, size_t offset, std::span<const std::byte> bytes) = 0;

  // For a node that may not believe its rights for a while, but keeps them. When it returns, no program of this process
  // loads or stores, whatever rights pages have, nor gets at a page by a call of its own thread: they wait, as if the right
  // were missing. Nothing else changes, and all other calls go on working, Load and Store too. Regions that become known
  // meanwhile are fenced as well. Programs of other processes keep what they have mapped, and get nothing more.
  virtual void Fence() = 0;
  // From the next Fence on the region's pages can be loaded while it lasts, with whichever right they have, and not be stored to.
  // Programs of other processes see to the latter themselves, in what they have mapped. REQUIRES: the region is known here.
  virtual void SetStaysReadable(PageRange, bool) {}
  // Ends that: accesses fault once more, then work as before.
  virtual void Unfence() = 0;
};

}  // namespace mangrove
