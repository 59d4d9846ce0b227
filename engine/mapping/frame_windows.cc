#include "engine/mapping/frame_windows.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/log.h"

namespace mangrove {

FrameWindows::FrameWindows(int frames, uint64_t size_bytes)
    : frames_(frames), size_bytes_(size_bytes), windows_(new std::atomic<std::byte*>[count()]()) {}

FrameWindows::~FrameWindows() {
  for (uint64_t window = 0; window < count(); ++window) {
    if (std::byte* const base = windows_[window].load()) munmap(base, BytesOf(window));
  }
}

absl::StatusOr<std::unique_ptr<FrameWindows>> FrameWindows::Create(int frames, uint64_t size_bytes) {
  CHECK(size_bytes > 0);
  std::unique_ptr<FrameWindows> made(new FrameWindows(frames, size_bytes));
  const absl::StatusOr<std::byte*> first = made->Map(0);
  if (!first.ok()) return first.status();
  made->windows_[0].store(*first);
  return made;
}

uint64_t FrameWindows::BytesOf(uint64_t window) const { return std::min(kBytes, size_bytes_ - (window << kShift)); }

// Children of fork do not get it, and a frame never becomes a part of a huge page. Nothing may touch all of it, which would
// make frames: neither a core dump nor a process that locks its memory.
absl::StatusOr<std::byte*> FrameWindows::Map(uint64_t window) const {
  const uint64_t bytes = BytesOf(window);
  void* const base =
      mmap(nullptr, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, frames_, static_cast<off_t>(window << kShift));
  if (base == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("mapping the frames of ", bytes, " bytes"));
  const bool made = munlock(base, bytes) == 0 && mprotect(base, bytes, PROT_READ | PROT_WRITE) == 0 &&
                    madvise(base, bytes, MADV_DONTFORK) == 0 && madvise(base, bytes, MADV_DONTDUMP) == 0;
  if (!made) {
    const int error = errno;
    munmap(base, bytes);
    return absl::ErrnoToStatus(error, absl::StrCat("setting up the mapping of the frames of ", bytes, " bytes"));
  }
  madvise(base, bytes, MADV_NOHUGEPAGE);  // Fails where the kernel has none.
  return static_cast<std::byte*>(base);
}

std::byte* FrameWindows::Open(uint64_t window) {
  const absl::StatusOr<std::byte*> mapped = Map(window);
  if (!mapped.ok()) {
    static std::atomic<bool> said = false;
    if (!said.exchange(true))
      LogWarning("frames are read and written by their descriptor: ", mapped.status().message());
    return nullptr;
  }
  std::byte* before = nullptr;
  if (windows_[window].compare_exchange_strong(before, *mapped)) return *mapped;
  munmap(*mapped, BytesOf(window));
  return before;
}

}  // namespace mangrove
