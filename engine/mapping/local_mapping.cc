#include "engine/mapping/local_mapping.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "engine/mapping/userfaultfd.h"
#include "net/page_buffer.h"

namespace mangrove {
namespace {

// Of this kernel, once per process.
const absl::Status& Probed() {
  static const absl::Status probed = ProbeUserfaultfd();
  return probed;
}

// All mappings that this process ever had lie between these.
std::atomic<uintptr_t> lowest{UINTPTR_MAX};
std::atomic<uintptr_t> highest{0};

void Note(uintptr_t base, uint64_t size_bytes) {
  for (uintptr_t seen = lowest; base < seen && !lowest.compare_exchange_weak(seen, base);) {
  }
  const uintptr_t end = base + size_bytes;
  for (uintptr_t seen = highest; end > seen && !highest.compare_exchange_weak(seen, end);) {
  }
}

}  // namespace

bool LocalMapping::MayReach(const std::byte* first, size_t count) {
  const auto begin = reinterpret_cast<uintptr_t>(first);
  return begin < highest.load(std::memory_order_relaxed) && begin + count > lowest.load(std::memory_order_relaxed);
}

absl::StatusOr<std::unique_ptr<LocalMapping>> LocalMapping::Create(int frames, uint64_t size_bytes, bool read_only) {
  if (!Probed().ok()) return Probed();
  auto userfaultfd = OpenUserfaultfd();
  if (!userfaultfd.ok()) return userfaultfd.status();
  const int protection = read_only ? PROT_READ : PROT_READ | PROT_WRITE;
  const int sharing = read_only ? MAP_PRIVATE : MAP_SHARED;
  void* base = mmap(nullptr, size_bytes, protection, sharing | MAP_NORESERVE, frames, 0);
  if (base == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat("mapping a region of ", size_bytes, " bytes"));
  }
  Note(reinterpret_cast<uintptr_t>(base), size_bytes);
  std::unique_ptr<LocalMapping> mapping(new LocalMapping());
  mapping->base_ = static_cast<std::byte*>(base);
  mapping->size_bytes_ = size_bytes;
  mapping->read_only_ = read_only;
  mapping->userfaultfd_ = *std::move(userfaultfd);
  if (madvise(base, size_bytes, MADV_DONTFORK) != 0) return absl::ErrnoToStatus(errno, "MADV_DONTFORK");
  // Fails where the kernel has no huge pages.
  madvise(base, size_bytes, MADV_NOHUGEPAGE);
  absl::Status registered =
      RegisterMapping(mapping->userfaultfd_.get(), reinterpret_cast<uint64_t>(base), size_bytes, read_only);
  if (!registered.ok()) return registered;
  return mapping;
}

LocalMapping::~LocalMapping() { munmap(base_, size_bytes_); }

absl::Status LocalMapping::Heal(uint64_t offset, uint64_t length) {
  if (offset % kPageBytes != 0 || length % kPageBytes != 0 || offset > size_bytes_ || length > size_bytes_ - offset) {
    return absl::InvalidArgumentError(absl::StrCat("heal of ", length, " bytes at offset ", offset,
                                                   ": whole pages of a region of ", size_bytes_,
                                                   " bytes are expected"));
  }
  if (madvise(base_ + offset, length, MADV_DONTNEED) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "MADV_DONTNEED");
}

void LocalMapping::Seal() { mprotect(base_, size_bytes_, PROT_NONE); }

}  // namespace mangrove
