#include "engine/mapping/frame_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "net/check.h"

namespace mangrove {
namespace {

constexpr auto kFrame = static_cast<ssize_t>(kPageBytes);
alignas(kPageBytes) constexpr std::array<std::byte, kPageBytes> kZeros{};

// Repeats `call` while a signal interrupts it.
template <typename Call>
auto Retry(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

void ReadFrame(int frames, uint64_t offset, std::byte* out) { CHECK(ReadBytes(frames, offset, {out, kPageBytes})); }

}  // namespace

void WriteFrame(int frames, uint64_t offset, const std::byte* data) { WriteFrames(frames, offset, data, 1); }

void WriteFrames(int frames, uint64_t offset, const std::byte* data, uint64_t count) {
  if (data != nullptr) return WriteBytes(frames, offset, {data, count * kPageBytes});
  for (uint64_t i = 0; i < count; ++i) WriteBytes(frames, offset + i * kPageBytes, kZeros);
}

void WriteBytes(int frames, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = Retry([&] { return pwrite(frames, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    CHECK(done > 0);
    offset += static_cast<uint64_t>(done);
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
}

bool ReadBytes(int frames, uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t done = Retry([&] { return pread(frames, out.data(), out.size(), static_cast<off_t>(offset)); });
    if (done < 0 && errno == EFAULT) return false;
    CHECK(done > 0);
    offset += static_cast<uint64_t>(done);
    out = out.subspan(static_cast<size_t>(done));
  }
  return true;
}

void PunchFrame(int frames, uint64_t offset) { PunchFrames(frames, offset, 1); }

void PunchFrames(int frames, uint64_t offset, uint64_t count) {
  CHECK(Retry([&] {
          return fallocate(frames, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(count * kPageBytes));
        }) == 0);
}

void RefillFrame(int frames, uint64_t offset) {
  CHECK(Retry([&] { return fallocate(frames, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), kFrame); }) == 0);
}

absl::StatusOr<FrameDetacher> FrameDetacher::Create() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  FrameDetacher detacher;
  detacher.pipe_out_.Reset(ends[0]);
  detacher.pipe_in_.Reset(ends[1]);
  if (absl::Status probed = detacher.Probe(); !probed.ok()) return probed;
  return detacher;
}

void FrameDetacher::Detach(int frames, uint64_t offset, std::byte* out) {
  ReadFrame(frames, offset, out);
  PassThroughPipe(frames, offset);
  if (LostInHugePage(frames, offset)) {
    PunchFrame(frames, offset);  // Again, now that the pipe does not keep the kernel from splitting it.
  } else {
    std::memcpy(out, content_->bytes.data(), kPageBytes);
  }
}

void FrameDetacher::PassThroughPipe(int frames, uint64_t offset) {
  auto from = static_cast<loff_t>(offset);
  CHECK(Retry([&] { return splice(frames, &from, pipe_in_.get(), nullptr, kPageBytes, 0); }) == kFrame);
  PunchFrame(frames, offset);
  CHECK(Retry([&] { return read(pipe_out_.get(), content_->bytes.data(), kPageBytes); }) == kFrame);
}

bool FrameDetacher::LostInHugePage(int frames, uint64_t offset) const {
  if (std::memcmp(content_->bytes.data(), kZeros.data(), kPageBytes) != 0) return false;
  // A page of its own is no longer in the file.
  return lseek(frames, static_cast<off_t>(offset), SEEK_DATA) == static_cast<off_t>(offset);
}

absl::Status FrameDetacher::Probe() {
  constexpr size_t kBytes = 4 << 20;  // So that a huge page fits,
  constexpr uint64_t kRun = 64;       // or one of what is written together.
  UniqueFd file(memfd_create("mangrove-probe", MFD_CLOEXEC));
  if (!file.ok()) return absl::ErrnoToStatus(errno, "memfd_create");
  if (ftruncate(file.get(), kBytes) != 0) return absl::ErrnoToStatus(errno, "ftruncate");
  WriteBytes(file.get(), 0, std::vector<std::byte>(kRun * kPageBytes));
  void* mapped = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap");
  auto* byte = static_cast<volatile unsigned char*>(mapped);
  byte[0] = 1;
  loff_t from = 0;
  bool whole = splice(file.get(), &from, pipe_in_.get(), nullptr, kPageBytes, 0) == kFrame;
  byte[1] = 2;
  PunchFrame(file.get(), 0);
  const std::span<std::byte> content(content_->bytes);
  whole = whole && read(pipe_out_.get(), content.data(), kPageBytes) == kFrame && content[0] == std::byte{1} &&
          content[1] == std::byte{2};
  munmap(mapped, kPageBytes);
  if (whole) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "a memfd's page that was spliced into a pipe loses stores made before it was punched out; if "
      "/sys/kernel/mm/transparent_hugepage/shmem_enabled is always, within_size or force, set it to never or advise");
}

}  // namespace mangrove
