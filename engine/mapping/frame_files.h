// The system calls on a region's memfd of frames. Offsets are in bytes, of whole pages where nothing else is said.
//
// A failure here has no remedy (the memory of the host is exhausted beyond the cache's bound, or a descriptor is wrong):
// it ends the process.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/unique_fd.h"
#include "net/page_buffer.h"

namespace mangrove {

// `data` holds kPageBytes; null: zeros.
void WriteFrame(int frames, uint64_t offset, const std::byte* data);
// The same of `count` pages, one behind the other in `data`.
void WriteFrames(int frames, uint64_t offset, const std::byte* data, uint64_t count);
// Any bytes, at any place.
void WriteBytes(int frames, uint64_t offset, std::span<const std::byte> bytes);
// False: `out` cannot be written to.
bool ReadBytes(int frames, uint64_t offset, std::span<std::byte> out);
// Removes the page from the file and from every mapping of it.
void PunchFrame(int frames, uint64_t offset);
// The same of `count` pages.
void PunchFrames(int frames, uint64_t offset, uint64_t count);
// Gives a page that somebody else has punched zeros; does nothing to a page that is there.
void RefillFrame(int frames, uint64_t offset);

// Removes frames that somebody may be storing to. Owned by one thread at a time.
//
// The page is put into a pipe, which holds it by reference, then punched, then read from the pipe: so the content has
// every store. That is not so if the page is part of a huge one, whose punched part the kernel fills with zeros: then the
// content is that of just before the punch, and stores of that microsecond are lost. Memfds have huge pages when the
// administrator says so (Create refuses), or when a program, even one that may only read, asks for them with
// MADV_COLLAPSE; "deny" in /sys/kernel/mm/transparent_hugepage/shmem_enabled forbids that too.
class FrameDetacher {
 public:
  // FailedPrecondition if a page removed through a pipe lacks stores made after the splice, as it does when the kernel
  // gives memfds huge pages.
  static absl::StatusOr<FrameDetacher> Create();

  // As PunchFrame; `out` gets the page's last content, every store that any mapping made included.
  void Detach(int frames, uint64_t offset, std::byte* out);

 private:
  FrameDetacher() = default;
  absl::Status Probe();
  // Puts the page into the pipe, punches it, and reads the pipe into `content_`.
  void PassThroughPipe(int frames, uint64_t offset);
  bool LostInHugePage(int frames, uint64_t offset) const;

  UniqueFd pipe_out_;
  UniqueFd pipe_in_;
  std::unique_ptr<PageBytes> content_ = std::make_unique<PageBytes>();
};

}  // namespace mangrove
