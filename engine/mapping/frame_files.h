// The system calls on a region's memfd of frames. Offsets are in bytes, of whole pages unless it says
// otherwise.
//
// A failure here has no remedy (the memory of the host is exhausted beyond the cache's bound, or a descriptor is wrong):
// it ends the process.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/unique_fd.h"
#include "net/page_buffer.h"

namespace mangrove {

// `data` holds kPageBytes; null: zeros.
void WriteFrame(int frames, uint64_t offset, const std::byte* data);
void ReadFrame(int frames, uint64_t offset, std::byte* out);
// Any bytes.
void ReadFrameBytes(int frames, uint64_t offset, std::span<std::byte> out);
void WriteFrameBytes(int frames, uint64_t offset, std::span<const std::byte> bytes);
// Removes the page from the file and from every mapping of it.
void PunchFrame(int frames, uint64_t offset);
// Gives a page that somebody else has punched zeros; does nothing to a page that is there.
void RefillFrame(int frames, uint64_t offset);

// Removes frames that somebody may be storing to. Owned by one thread at a time.
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

  UniqueFd pipe_out_;
  UniqueFd pipe_in_;
};

}  // namespace mangrove
