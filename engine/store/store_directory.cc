#include "engine/store/store_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace mangrove::store {
namespace {

// Others on the disk write less than a reserve in so long.
constexpr std::chrono::milliseconds kOld{5};
constexpr uint64_t kMuchBytes = uint64_t{1} << 20;

absl::Status SystemError(int error, const std::string& what) { return absl::ErrnoToStatus(error, what); }

// Who holds the lock, as its holder wrote it.
std::string Holder(int fd) {
  char text[32];
  const ssize_t bytes = pread(fd, text, sizeof(text), 0);
  std::string holder(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  absl::StripAsciiWhitespace(&holder);
  return holder.empty() ? "another process" : absl::StrCat("process ", holder);
}

}  // namespace

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError(errno, absl::StrCat("store: open of directory ", path));
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : SystemError(error, absl::StrCat("store: sync of directory ", path));
}

absl::Status MakeStoreDirectory(const std::string& path) {
  struct stat found;
  if (stat(path.c_str(), &found) == 0) {
    if (!S_ISDIR(found.st_mode)) {
      return absl::FailedPreconditionError(absl::StrCat("store ", path, ": expected a directory, or nothing"));
    }
    if (access(path.c_str(), R_OK | W_OK | X_OK) != 0) return SystemError(errno, absl::StrCat("store ", path));
    return absl::OkStatus();
  }
  if (errno != ENOENT) return SystemError(errno, absl::StrCat("store ", path));
  const std::filesystem::path absolute = std::filesystem::absolute(path).lexically_normal();
  const std::string parent = (absolute.has_filename() ? absolute : absolute.parent_path()).parent_path().string();
  if (absl::Status made = MakeStoreDirectory(parent); !made.ok()) return made;
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return SystemError(errno, absl::StrCat("store ", path));
  return SyncDirectory(parent);
}

absl::StatusOr<StoreLock> StoreLock::Acquire(const std::string& path) {
  const std::string file = absl::StrCat(path, "/mangrove.lock");
  const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return SystemError(errno, absl::StrCat("store ", path, ": open of ", file));
  StoreLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return SystemError(errno, absl::StrCat("store ", path, ": lock of ", file));
    return absl::FailedPreconditionError(absl::StrCat("store ", path, " is in use by ", Holder(fd),
                                                      "; stop it first, or give this node a path of its own"));
  }
  const std::string self = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 || pwrite(fd, self.data(), self.size(), 0) != static_cast<ssize_t>(self.size())) {
    return SystemError(errno, absl::StrCat("store ", path, ": write of ", file));
  }
  return lock;
}

StoreLock::StoreLock(StoreLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

StoreLock::~StoreLock() {
  if (fd_ >= 0) close(fd_);
}

absl::Status WithAdvice(const absl::Status& damaged, const std::string& path) {
  return absl::Status(
      damaged.code(),
      absl::StrCat(damaged.message(), "; some of what was committed cannot be read: move the directory ", path,
                   " away, so that this node starts empty and is caught up by the others"));
}

uint64_t FreeDiskBytes(const std::string& path) {
  struct statvfs disk;
  if (statvfs(path.c_str(), &disk) != 0) return UINT64_MAX;
  return uint64_t{disk.f_bavail} * disk.f_frsize;
}

void SpaceGuard::Refresh() {
  free_bytes_ = FreeDiskBytes(path_);
  admitted_bytes_ = 0;
  refreshed_at_ = std::chrono::steady_clock::now();
}

bool SpaceGuard::RefreshIfOld() {
  if (admitted_bytes_ < kMuchBytes && std::chrono::steady_clock::now() - refreshed_at_ < kOld) return false;
  Refresh();
  return true;
}

absl::Status SpaceGuard::Admit(uint64_t bytes, SpaceUse use) {
  uint64_t kept = reserve_bytes_;
  if (use == SpaceUse::kSmall) kept = reserve_bytes_ / 2;
  if (use == SpaceUse::kCleaning) kept = reserve_bytes_ / 4;
  const uint64_t taken = admitted_bytes_ + kept;
  if (free_bytes_ < taken || free_bytes_ - taken < bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("store ", path_, ": disk full: ", bytes, " bytes needed, ",
                                                     free_bytes_, " free, of which ", kept, " are kept in reserve"));
  }
  admitted_bytes_ += bytes;
  return absl::OkStatus();
}

}  // namespace mangrove::store
