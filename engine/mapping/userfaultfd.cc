#include "engine/mapping/userfaultfd.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/mapping/frame_files.h"
#include "net/page_buffer.h"

// What Debian 12's header lacks, with the kernel's values (include/uapi/linux/userfaultfd.h).
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif
#ifndef UFFDIO_POISON
#define _UFFDIO_POISON (0x08)  // NOLINT: the kernel's name.
struct uffdio_poison {         // NOLINT
  struct uffdio_range range;
  __u64 mode;
  __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
#endif

namespace mangrove {
namespace {

constexpr size_t kMaxFaultsPerRead = 16;

struct Feature {
  uint64_t bit;
  const char* name;
  const char* since;
};
constexpr Feature kFeatures[] = {
    {UFFD_FEATURE_PAGEFAULT_FLAG_WP, "PAGEFAULT_FLAG_WP", "5.7"},
    {UFFD_FEATURE_MISSING_SHMEM, "MISSING_SHMEM", "4.11"},
    {UFFD_FEATURE_THREAD_ID, "THREAD_ID", "4.14"},
    {UFFD_FEATURE_MINOR_SHMEM, "MINOR_SHMEM", "5.14"},
    {UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM", "5.19"},
    {UFFD_FEATURE_POISON, "POISON", "6.6"},
};

uint64_t NeededFeatures() {
  uint64_t needed = 0;
  for (const Feature& feature : kFeatures) needed |= feature.bit;
  return needed;
}

// Through the device node, else by the system call.
absl::StatusOr<UniqueFd> OpenUninitialized() {
  UniqueFd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  const int device_error = errno;
  if (device.ok()) {
    UniqueFd fd(ioctl(device.get(), USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
    if (fd.ok()) return fd;
    return absl::ErrnoToStatus(errno, "USERFAULTFD_IOC_NEW on /dev/userfaultfd");
  }
  UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (fd.ok()) return fd;
  return absl::FailedPreconditionError(absl::StrCat(
      "mapped memory needs userfaultfd: opening /dev/userfaultfd failed (", strerror(device_error),
      "; make this user a member of the group that may open it), and so did the system call (", strerror(errno), ")"));
}

// Names the features that this kernel has not.
absl::Status MissingFeatures() {
  auto fd = OpenUninitialized();
  if (!fd.ok()) return fd.status();
  uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
  if (ioctl(fd->get(), UFFDIO_API, &api) != 0) return absl::ErrnoToStatus(errno, "UFFDIO_API");
  std::vector<std::string> missing;
  for (const Feature& feature : kFeatures) {
    if ((api.features & feature.bit) == 0)
      missing.push_back(absl::StrCat(feature.name, " (Linux ", feature.since, ")"));
  }
  return absl::FailedPreconditionError(absl::StrCat("this kernel's userfaultfd lacks ", absl::StrJoin(missing, ", ")));
}

uint64_t PageStart(uint64_t address) { return address & ~uint64_t{kPageBytes - 1}; }

// The errors that all fault-side ioctls share.
FaultCall Translate(int error) {
  switch (error) {
    case EEXIST: return FaultCall::kExists;
    case EFAULT: return FaultCall::kNoFrame;
    case EAGAIN:
    case EINTR: return FaultCall::kBusy;
    case ENOENT:  // No such registered range.
    case EINVAL:  // Outside of the address space, or registered otherwise: nobody waits there.
      return FaultCall::kNotMapped;
    case ESRCH: return FaultCall::kClientGone;
    default:
      // ENOMEM of the program's page tables; it will try again, and so do we.
      return FaultCall::kBusy;
  }
}

template <typename Argument>
FaultCall Call(int userfaultfd, unsigned long request, Argument* argument) {  // NOLINT(google-runtime-int)
  return ioctl(userfaultfd, request, argument) == 0 ? FaultCall::kDone : Translate(errno);
}

}  // namespace

absl::StatusOr<UniqueFd> OpenUserfaultfd() {
  auto fd = OpenUninitialized();
  if (!fd.ok()) return fd;
  uffdio_api api{.api = UFFD_API, .features = NeededFeatures(), .ioctls = 0};
  if (ioctl(fd->get(), UFFDIO_API, &api) == 0) return fd;
  if (errno == EINVAL) return MissingFeatures();
  return absl::ErrnoToStatus(errno, "UFFDIO_API");
}

absl::Status RegisterMapping(int userfaultfd, uint64_t base, uint64_t length, bool read_only) {
  uffdio_register request{};
  request.range = {.start = base, .len = length};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
  uint64_t needed = uint64_t{1} << _UFFDIO_WAKE | uint64_t{1} << _UFFDIO_CONTINUE | uint64_t{1} << _UFFDIO_POISON;
  if (!read_only) {
    request.mode |= UFFDIO_REGISTER_MODE_WP;
    needed |= uint64_t{1} << _UFFDIO_WRITEPROTECT;
  }
  if (ioctl(userfaultfd, UFFDIO_REGISTER, &request) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("UFFDIO_REGISTER of ", length, " bytes"));
  }
  if ((request.ioctls & needed) == needed) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("this kernel's userfaultfd offers calls 0x",
                                                    absl::Hex(request.ioctls), " on shared memory; 0x",
                                                    absl::Hex(needed), " are needed"));
}

bool IsUserfaultfd(int fd) {
  std::array<char, 64> target{};
  const ssize_t length = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), target.data(), target.size());
  return length > 0 && std::string_view(target.data(), static_cast<size_t>(length)) == "anon_inode:[userfaultfd]";
}

int ReadFaults(int userfaultfd, std::span<Fault> out) {
  std::array<uffd_msg, kMaxFaultsPerRead> messages;
  const size_t wanted = std::min(out.size(), messages.size());
  const ssize_t bytes = read(userfaultfd, messages.data(), wanted * sizeof(uffd_msg));
  if (bytes < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
  int count = 0;
  for (size_t i = 0; i < static_cast<size_t>(bytes) / sizeof(uffd_msg); ++i) {
    if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;  // No other event was asked for.
    const auto& fault = messages[i].arg.pagefault;
    out[static_cast<size_t>(count++)] = {.address = fault.address,
                                         .is_store = (fault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0,
                                         .write_protect = (fault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0,
                                         .thread = fault.feat.ptid};
  }
  return count;
}

FaultCall ContinueFault(int userfaultfd, uint64_t address, uint64_t length, bool write_protected) {
  uffdio_continue request{};
  request.range = {.start = PageStart(address), .len = length};
  request.mode = write_protected ? UFFDIO_CONTINUE_MODE_WP : 0;
  return Call(userfaultfd, UFFDIO_CONTINUE, &request);
}

void ContinueRun(int userfaultfd, uint64_t address, uint64_t length, bool write_protected, const Skips& allowed) {
  for (uint64_t skips = 0; length > 0 && skips <= allowed.most;) {
    uffdio_continue request{};
    request.range = {.start = PageStart(address), .len = length};
    request.mode = write_protected ? UFFDIO_CONTINUE_MODE_WP : 0;
    const FaultCall done = Call(userfaultfd, UFFDIO_CONTINUE, &request);
    if (done == FaultCall::kDone) return;
    uint64_t passed = 0;
    if (done == FaultCall::kBusy && request.mapped > 0) passed = static_cast<uint64_t>(request.mapped);
    if (done == FaultCall::kExists) {
      passed = allowed.by_half ? std::max(kPageBytes, PageStart(length / 2)) : kPageBytes;
      ++skips;
    }
    if (passed == 0) return;
    address += passed;
    length -= std::min(length, passed);
  }
}

FaultCall AllowStores(int userfaultfd, uint64_t address, uint64_t length) {
  uffdio_writeprotect request{};
  request.range = {.start = PageStart(address), .len = length};
  request.mode = 0;
  return Call(userfaultfd, UFFDIO_WRITEPROTECT, &request);
}

FaultCall ForbidStores(int userfaultfd, uint64_t address, uint64_t length) {
  uffdio_writeprotect request{};
  request.range = {.start = PageStart(address), .len = length};
  request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  return Call(userfaultfd, UFFDIO_WRITEPROTECT, &request);
}

FaultCall ForgetProtection(int userfaultfd, uint64_t address, uint64_t length) {
  uffdio_writeprotect request{};
  request.range = {.start = PageStart(address), .len = length};
  request.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
  return Call(userfaultfd, UFFDIO_WRITEPROTECT, &request);
}

FaultCall PoisonPage(int userfaultfd, uint64_t address, uint64_t length) {
  uffdio_poison request{};
  request.range = {.start = PageStart(address), .len = length};
  return Call(userfaultfd, UFFDIO_POISON, &request);
}

FaultCall WakeFaults(int userfaultfd, uint64_t address, uint64_t length) {
  uffdio_range request{.start = PageStart(address), .len = length};
  return Call(userfaultfd, UFFDIO_WAKE, &request);
}

absl::Status ProbeUserfaultfd() {
  UniqueFd file(memfd_create("mangrove-probe", MFD_CLOEXEC));
  if (!file.ok()) return absl::ErrnoToStatus(errno, "memfd_create");
  if (ftruncate(file.get(), 2 * kPageBytes) != 0) return absl::ErrnoToStatus(errno, "ftruncate");
  auto userfaultfd = OpenUserfaultfd();
  if (!userfaultfd.ok()) return userfaultfd.status();
  void* mapped = mmap(nullptr, 2 * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap");
  const auto base = reinterpret_cast<uint64_t>(mapped);
  absl::Status status = RegisterMapping(userfaultfd->get(), base, 2 * kPageBytes, false);
  WriteFrame(file.get(), 0, nullptr);
  if (status.ok() && ContinueFault(userfaultfd->get(), base, kPageBytes, true) != FaultCall::kDone) {
    status = absl::FailedPreconditionError("this kernel's userfaultfd lacks UFFDIO_CONTINUE_MODE_WP (Linux 6.4)");
  }
  if (status.ok() && PoisonPage(userfaultfd->get(), base + kPageBytes, kPageBytes) != FaultCall::kDone) {
    status = absl::FailedPreconditionError("this kernel's userfaultfd does not poison shared memory (Linux 6.6)");
  }
  munmap(mapped, 2 * kPageBytes);
  return status;
}

}  // namespace mangrove
