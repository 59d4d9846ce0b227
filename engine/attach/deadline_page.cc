#include "engine/attach/deadline_page.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "net/page_buffer.h"

namespace mangrove {

static_assert(std::atomic<int64_t>::is_always_lock_free);

absl::StatusOr<DeadlineStamp> DeadlineStamp::Create() {
  DeadlineStamp stamp;
  stamp.memory_ = UniqueFd(memfd_create("mangrove deadline", MFD_CLOEXEC));
  if (!stamp.memory_.ok()) return absl::ErrnoToStatus(errno, "memfd_create of the deadline page");
  // Its mode keeps other users from opening it for writing through /proc.
  if (ftruncate(stamp.memory_.get(), kPageBytes) != 0 || fchmod(stamp.memory_.get(), 0600) != 0) {
    return absl::ErrnoToStatus(errno, "setting up the deadline page");
  }
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, stamp.memory_.get(), 0);
  if (page == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of the deadline page");
  stamp.page_ = static_cast<std::atomic<int64_t>*>(page);
  return stamp;
}

DeadlineStamp::DeadlineStamp(DeadlineStamp&& other) noexcept
    : memory_(std::move(other.memory_)), page_(std::exchange(other.page_, nullptr)) {}

DeadlineStamp::~DeadlineStamp() {
  if (page_ != nullptr) munmap(page_, kPageBytes);
}

absl::StatusOr<UniqueFd> DeadlineStamp::OpenReadOnly() const {
  UniqueFd fd(open(absl::StrCat("/proc/self/fd/", memory_.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.ok()) return absl::ErrnoToStatus(errno, "reopening the deadline page");
  return fd;
}

absl::StatusOr<DeadlineView> DeadlineView::Create(const UniqueFd& memory) {
  struct stat info;
  if (fstat(memory.get(), &info) != 0 || info.st_size < static_cast<off_t>(kPageBytes)) {
    return absl::InternalError("the daemon's deadline page is no page");
  }
  void* page = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, memory.get(), 0);
  if (page == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of the deadline page");
  DeadlineView view;
  view.page_ = static_cast<const std::atomic<int64_t>*>(page);
  return view;
}

DeadlineView::DeadlineView(DeadlineView&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}

DeadlineView::~DeadlineView() {
  if (page_ != nullptr) munmap(const_cast<std::atomic<int64_t>*>(page_), kPageBytes);
}

}  // namespace mangrove
