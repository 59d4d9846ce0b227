#include "engine/mapping/region_frames.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/mapping/userfaultfd.h"
#include "net/check.h"

namespace mangrove {
namespace {

absl::Status Errno(int error, const std::string& what) { return absl::ErrnoToStatus(error, what); }

// A memfd that nobody but this user may reopen, and whose size is fixed.
absl::StatusOr<UniqueFd> MakeFile(const char* name, uint64_t size_bytes) {
  UniqueFd file(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.ok()) return Errno(errno, absl::StrCat("memfd_create ", name));
  if (fchmod(file.get(), 0600) != 0) return Errno(errno, absl::StrCat("fchmod of memfd ", name));
  if (ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0) {
    return Errno(errno, absl::StrCat("ftruncate of memfd ", name, " to ", size_bytes, " bytes"));
  }
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return Errno(errno, absl::StrCat("sealing memfd ", name));
  }
  return file;
}

absl::StatusOr<UniqueFd> ReopenReadOnly(int fd) {
  UniqueFd reopened(open(absl::StrCat("/proc/self/fd/", fd).c_str(), O_RDONLY | O_CLOEXEC));
  if (!reopened.ok()) return Errno(errno, "reopening a memfd through /proc/self/fd");
  return reopened;
}

}  // namespace

absl::StatusOr<std::shared_ptr<RegionFrames>> RegionFrames::Create(PageRange pages, FrameRequests requests) {
  CHECK(pages.count > 0);
  std::shared_ptr<RegionFrames> region(new RegionFrames());
  region->pages_ = pages;
  region->requests_ = std::move(requests);
  auto frames = MakeFile("mangrove-frames", region->size_bytes());
  if (!frames.ok()) return frames.status();
  region->frames_ = *std::move(frames);
  if (fcntl(region->frames_.get(), F_ADD_SEALS, F_SEAL_SEAL) != 0) return Errno(errno, "sealing memfd");

  auto states = MakeFile("mangrove-states", pages.count);
  if (!states.ok()) return states.status();
  void* mapped = mmap(nullptr, pages.count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, states->get(), 0);
  if (mapped == MAP_FAILED) return Errno(errno, absl::StrCat("mapping the states of ", pages.count, " pages"));
  region->states_ = static_cast<std::atomic<uint8_t>*>(mapped);
  region->states_fd_ = *std::move(states);
  // From now on this mapping is the only way to write them.
  if (fcntl(region->states_fd_.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0) {
    return Errno(errno, "sealing the memfd of page states");
  }
  return region;
}

RegionFrames::~RegionFrames() {
  if (states_ != nullptr) munmap(states_, pages_.count);
}

absl::StatusOr<UniqueFd> RegionFrames::OpenFrames() const {
  UniqueFd copy(fcntl(frames_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.ok()) return Errno(errno, "duplicating a memfd's descriptor");
  return copy;
}

absl::StatusOr<UniqueFd> RegionFrames::OpenFramesReadOnly() const { return ReopenReadOnly(frames_.get()); }

absl::StatusOr<UniqueFd> RegionFrames::OpenStates() const { return ReopenReadOnly(states_fd_.get()); }

PinOutcome RegionFrames::Pin(PageId page, Rights wanted, bool may_map_writable, Rights* granted) {
  CHECK(pages_.Contains(page));
  return TryPin(StateOf(page), wanted, may_map_writable, granted);
}

void RegionFrames::Unpin(PageId page) {
  CHECK(page_state::IsPinned(StateOf(page).load(std::memory_order_relaxed)));
  if (mangrove::Unpin(StateOf(page))) requests_.on_last_unpin(page);
}

void RegionFrames::AddMapping(int userfaultfd, uint64_t base, bool own_process, bool writable) {
  std::lock_guard lock(mappings_mutex_);
  if (own_process) {
    if (writable) own_mappings_.push_back({userfaultfd, base});
  } else {
    foreign_mappings_ = true;  // For good: a program may keep its mapping when it no longer serves faults for it.
  }
}

void RegionFrames::RemoveMapping(int userfaultfd) {
  std::lock_guard lock(mappings_mutex_);
  std::erase_if(own_mappings_, [userfaultfd](const OwnMapping& own) { return own.userfaultfd == userfaultfd; });
}

bool RegionFrames::HasForeignMappings() {
  std::lock_guard lock(mappings_mutex_);
  return foreign_mappings_;
}

bool RegionFrames::WriteProtect(PageId page) {
  std::lock_guard lock(mappings_mutex_);
  if (foreign_mappings_) return false;
  return std::all_of(own_mappings_.begin(), own_mappings_.end(), [&](const OwnMapping& own) {
    const FaultCall done = ForbidStores(own.userfaultfd, own.base + OffsetOf(page), kPageBytes);
    return done == FaultCall::kDone || done == FaultCall::kNotMapped;
  });
}

}  // namespace mangrove
