#include "node/stream_commands.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fs/directory.h"
#include "fs/extended.h"

namespace mangrove {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

absl::Status Failed(const std::string& what, int error) {
  return absl::UnknownError(absl::StrCat(what, ": ", std::strerror(error)));
}

class File {
 public:
  File(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC)), error_(errno) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }
  int error() const { return fd_ >= 0 ? 0 : error_; }

 private:
  const int fd_;
  const int error_;
};

// The mount's type, by the numbers of its device.
std::string TypeOfMount(dev_t device) {
  const std::string wanted = absl::StrCat(major(device), ":", minor(device));
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream words(line);
    std::string word;
    std::string number;
    words >> word >> word >> number;
    if (number != wanted) continue;
    while (words >> word && word != "-") {
    }
    words >> word;
    return word;
  }
  return "";
}

struct Owner {
  std::string path;     // As the kernel has it.
  std::string streams;  // The directory of its streams.
};

absl::StatusOr<Owner> FindOwner(const std::string& path) {
  std::error_code error;
  const std::filesystem::path name = std::filesystem::canonical(path, error);
  if (error) return Failed(path, error.value());
  struct stat s {};
  if (stat(name.c_str(), &s) != 0) return Failed(path, errno);
  if (!S_ISREG(s.st_mode) && !S_ISDIR(s.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is neither a regular file nor a directory"));
  }
  const std::string type = TypeOfMount(s.st_dev);
  if (type != "fuse.mangrove") {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is in a mount of type ", type.empty() ? "(unknown)" : type, ", expected fuse.mangrove"));
  }
  const std::string prefix(fs::kStreamsPrefix);
  if (S_ISDIR(s.st_mode)) return Owner{name, (name / prefix).string()};
  return Owner{name, (name.parent_path() / (prefix + name.filename().string())).string()};
}

absl::Status CheckStreamName(const std::string& name) {
  if (absl::Status s = fs::CheckName(name); !s.ok()) return absl::InvalidArgumentError(s.message());
  return absl::OkStatus();
}

absl::Status NoStream(const std::string& path, const std::string& name, int error) {
  if (error != ENOENT) return Failed(absl::StrCat("stream \"", name, "\" of ", path), error);
  return absl::NotFoundError(absl::StrCat(path, " has no stream \"", name, "\""));
}

// --- Commands ---------------------------------------------------------------------------------------------------------

absl::Status List(const std::string& path, std::ostream& out) {
  const absl::StatusOr<Owner> owner = FindOwner(path);
  if (!owner.ok()) return owner.status();
  const std::unique_ptr<DIR, int (*)(DIR*)> opened(opendir(owner->streams.c_str()), closedir);
  if (opened == nullptr) return errno == ENOENT ? absl::OkStatus() : Failed(path, errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(opened.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  if (errno != 0) return Failed(absl::StrCat("the streams of ", path), errno);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    struct stat s {};
    if (fstatat(dirfd(opened.get()), name.c_str(), &s, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // It went meanwhile.
      return NoStream(path, name, errno);
    }
    const std::string size = absl::StrCat(s.st_size);
    out << std::string(size.size() < 12 ? 12 - size.size() : 0, ' ') << size << "  " << name << "\n";
  }
  return absl::OkStatus();
}

absl::Status WriteAll(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed("writing", errno);
    bytes += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

// From where both are to the end of `from`.
absl::Status CopyRest(int from, int to) {
  std::vector<char> buffer(kBufferBytes);
  for (;;) {
    const ssize_t bytes = read(from, buffer.data(), buffer.size());
    if (bytes == 0) return absl::OkStatus();
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return Failed("reading", errno);
    if (absl::Status s = WriteAll(to, buffer.data(), static_cast<size_t>(bytes)); !s.ok()) return s;
  }
}

// A regular file's holes stay holes.
absl::Status CopyWithHoles(int from, int to, off_t at, off_t size) {
  std::vector<char> buffer(kBufferBytes);
  const off_t begin = at;
  while (at < size) {
    off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return Failed("looking for data", errno);
    const off_t hole = lseek(from, data, SEEK_HOLE);
    if (hole < 0) return Failed("looking for a hole", errno);
    while (data < std::min(hole, size)) {
      const auto wanted = static_cast<size_t>(std::min<off_t>(kBufferBytes, std::min(hole, size) - data));
      const ssize_t bytes = pread(from, buffer.data(), wanted, data);
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes < 0) return Failed("reading", errno);
      if (bytes == 0) break;
      if (lseek(to, data - begin, SEEK_SET) < 0) return Failed("writing", errno);
      if (absl::Status s = WriteAll(to, buffer.data(), static_cast<size_t>(bytes)); !s.ok()) return s;
      data += bytes;
    }
    at = hole;
  }
  return ftruncate(to, size - begin) == 0 ? absl::OkStatus() : Failed("writing", errno);
}

absl::Status CopyIn(int from, int to) {
  struct stat s {};
  if (fstat(from, &s) != 0) return Failed("standard input", errno);
  const off_t at = S_ISREG(s.st_mode) ? lseek(from, 0, SEEK_CUR) : -1;
  const bool has_holes = at >= 0 && at < s.st_size && (lseek(from, at, SEEK_DATA) >= 0 || errno == ENXIO);
  absl::Status status =
      has_holes && lseek(from, at, SEEK_SET) == at ? CopyWithHoles(from, to, at, s.st_size) : CopyRest(from, to);
  if (status.ok() && fsync(to) != 0) status = Failed("making it durable", errno);
  return status;
}

absl::Status Cat(const std::string& path, const std::string& name) {
  const absl::StatusOr<Owner> owner = FindOwner(path);
  if (!owner.ok()) return owner.status();
  const File stream(absl::StrCat(owner->streams, "/", name), O_RDONLY);
  if (stream.fd() < 0) return NoStream(path, name, stream.error());
  return CopyRest(stream.fd(), STDOUT_FILENO);
}

// Under a name of its own first: at every moment, and after every crash, the stream is as it was before or as it is to be.
absl::Status Put(const std::string& path, const std::string& name) {
  const absl::StatusOr<Owner> owner = FindOwner(path);
  if (!owner.ok()) return owner.status();
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  const std::string unfinished = absl::StrCat(".put-", getpid(), "-", now);
  const std::string attribute = absl::StrCat(std::string(fs::kStreamXattrPrefix), unfinished);
  // This makes the directory of streams too where there is none; the kernel sees to it that the caller may write to the file.
  if (setxattr(owner->path.c_str(), attribute.c_str(), "", 0, XATTR_CREATE) != 0) {
    return Failed(absl::StrCat("a stream of ", path), errno);
  }
  const std::string made = absl::StrCat(owner->streams, "/", unfinished);
  const File stream(made, O_WRONLY);
  absl::Status status =
      stream.fd() < 0 ? Failed(absl::StrCat("a stream of ", path), stream.error()) : CopyIn(STDIN_FILENO, stream.fd());
  if (status.ok() && std::rename(made.c_str(), absl::StrCat(owner->streams, "/", name).c_str()) != 0) {
    status = NoStream(path, name, errno);
  }
  if (!status.ok()) {
    unlink(made.c_str());
    return status;
  }
  return fsync(stream.fd()) == 0 ? absl::OkStatus() : Failed("making it durable", errno);
}

absl::Status Remove(const std::string& path, const std::string& name) {
  const absl::StatusOr<Owner> owner = FindOwner(path);
  if (!owner.ok()) return owner.status();
  return unlink(absl::StrCat(owner->streams, "/", name).c_str()) == 0 ? absl::OkStatus() : NoStream(path, name, errno);
}

int FailUsage(const CommandEnvironment& environment, const std::string& what) {
  environment.err << "mangrove: " << what << "; see mangrove stream --help\n";
  return kExitUsage;
}

}  // namespace

std::string StreamHelp() {
  return "usage: mangrove stream list PATH\n"
         "       mangrove stream cat PATH NAME      to standard output\n"
         "       mangrove stream put PATH NAME      from standard input; in the place of one of that name\n"
         "       mangrove stream remove PATH NAME\n\n"
         "PATH is a file or a directory of a mounted fileset. Besides its bytes it can have named streams, of any "
         "size. Who may read it\n"
         "may read them, who may write to it may change them. They go where it goes, and are removed with it. Those of "
         "up to 64 KiB\n"
         "are extended attributes as well: user.stream.NAME.\n\n"
         "\"put\" has a name of its own, .put-..., until it is complete; one that was interrupted leaves it, to be "
         "removed.\n";
}

int RunStreamCommand(std::span<const std::string> words, const CommandEnvironment& environment) {
  if (!words.empty() && (words.back() == "--help" || words.back() == "-h")) {
    environment.out << StreamHelp();
    return kExitDone;
  }
  if (words.empty()) return FailUsage(environment, "\"stream\" needs list, cat, put or remove");
  const std::string& verb = words[0];
  const bool lists = verb == "list";
  if (!lists && verb != "cat" && verb != "put" && verb != "remove") {
    return FailUsage(environment, absl::StrCat("unknown command \"stream ", verb, "\""));
  }
  const size_t wanted = lists ? 2 : 3;
  if (words.size() < wanted) {
    return FailUsage(environment, absl::StrCat("\"stream ", verb, "\" needs PATH", lists ? "" : " and NAME"));
  }
  if (words.size() > wanted) return FailUsage(environment, absl::StrCat("unexpected argument \"", words[wanted], "\""));
  const std::string& path = words[1];
  absl::Status status = lists ? List(path, environment.out) : CheckStreamName(words[2]);
  if (status.ok() && verb == "cat") status = Cat(path, words[2]);
  if (status.ok() && verb == "put") status = Put(path, words[2]);
  if (status.ok() && verb == "remove") status = Remove(path, words[2]);
  if (status.ok()) return kExitDone;
  environment.err << "mangrove: " << status.message() << "\n";
  return kExitFailed;
}

}  // namespace mangrove
