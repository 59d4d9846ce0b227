#include "engine/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {
namespace {

absl::Status WriteDurably(const std::string& path, mode_t mode, std::string_view text) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT)
    return FileError(errno, "remove", path);  // Of a run that was cut short.
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!file.ok()) return FileError(errno, "write", path);
  while (!text.empty()) {
    const ssize_t wrote = write(file.get(), text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return FileError(errno, "write", path);
    text.remove_prefix(static_cast<size_t>(wrote));
  }
  if (fsync(file.get()) != 0) return FileError(errno, "sync", path);
  return absl::OkStatus();
}

absl::Status SyncDirectoryOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string directory = parent.empty() ? "." : parent.string();
  const UniqueFd file(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.ok() || fsync(file.get()) != 0) return FileError(errno, "sync", directory);
  return absl::OkStatus();
}

}  // namespace

absl::Status FileError(int error, const std::string& what, const std::string& path) {
  const std::string text = absl::StrCat("cannot ", what, " ", path, ": ", strerror(error));
  if (error == EEXIST) return absl::AlreadyExistsError(text);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(text);
  return error == ENOENT ? absl::NotFoundError(text) : absl::UnavailableError(text);
}

absl::Status WriteWholeFile(const std::string& path, mode_t mode, std::string_view text, IfThere if_there) {
  const std::string fresh = path + ".new";
  absl::Status status = WriteDurably(fresh, mode, text);
  if (status.ok()) {
    // Unlike a rename, a link does not replace what is there.
    const int put =
        if_there == IfThere::kReplace ? rename(fresh.c_str(), path.c_str()) : link(fresh.c_str(), path.c_str());
    if (put != 0) status = FileError(errno, "make", path);
  }
  if (!status.ok() || if_there == IfThere::kRefuse) unlink(fresh.c_str());
  return status.ok() ? SyncDirectoryOf(path) : status;
}

}  // namespace mangrove
