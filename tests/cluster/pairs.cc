#include "tests/cluster/pairs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace mangrove::cluster_test {
namespace {

constexpr size_t kMostFiles = 40;
constexpr size_t kMostDirectories = 8;
constexpr size_t kMostBytes = 40'000;
constexpr size_t kPage = 4096;

std::string ParentOf(const std::string& path) { return path.substr(0, path.rfind('/')); }
std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

Pairs::Pairs(std::vector<std::string> roots, uint64_t seed) : roots_(std::move(roots)), seed_(seed), random_(seed) {}

Pairs::~Pairs() {
  for (const auto& [path, file] : files_) {
    for (int& fd : file->opened) {
      if (fd >= 0) close(std::exchange(fd, -1));
    }
  }
}

void Pairs::Require(bool is_so, const std::string& what) const {
  if (is_so) return;
  throw std::runtime_error(absl::StrCat("seed ", seed_, ", pair ", pair_, ": after ", change_, ": ", what));
}

void Pairs::Done(int64_t result, const std::string& call) const {
  if (result == -1) Require(false, absl::StrCat(call, " fails: ", strerror(errno)));
}

std::string Pairs::SomeBytes(size_t most) {
  std::string bytes(1 + Below(most), '\0');
  for (char& byte : bytes) byte = static_cast<char>('a' + Below(26));
  return bytes;
}

std::string Pairs::SomeName() {
  auto directory = directories_.begin();
  std::advance(directory, Below(directories_.size()));
  return absl::StrCat(*directory, "/n", Below(12));
}

std::string Pairs::SomeFile() {
  auto file = files_.begin();
  std::advance(file, Below(files_.size()));
  return file->first;
}

int Pairs::Opened(size_t mount, const std::string& path) {
  int& fd = files_.at(path)->opened[mount];
  if (fd < 0) {
    fd = open(PathAt(mount, path).c_str(), O_RDWR | O_CLOEXEC);
    Done(fd, absl::StrCat("open of ", PathAt(mount, path)));
  }
  return fd;
}

void Pairs::DropName(const std::string& path) {
  --files_.at(path)->names;
  files_.erase(path);
}

// --- Changes ----------------------------------------------------------------------------------------------------------

Pairs::Touched Pairs::MakeFile(size_t mount) {
  const std::string path = SomeName();
  if (files_.contains(path) || directories_.contains(path)) return Write(mount, true);
  auto file = std::make_shared<File>();
  file->opened.assign(roots_.size(), -1);
  change_ = absl::StrCat("a creation of ", PathAt(mount, path));
  const int fd = open(PathAt(mount, path).c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
  Done(fd, change_);
  file->opened[mount] = fd;
  files_[path] = file;
  return {path, "", file};
}

Pairs::Touched Pairs::MakeDirectory(size_t mount) {
  const std::string path = SomeName();
  if (directories_.size() >= kMostDirectories || files_.contains(path) || directories_.contains(path)) {
    return RemoveDirectory(mount);
  }
  change_ = absl::StrCat("mkdir of ", PathAt(mount, path));
  Done(mkdir(PathAt(mount, path).c_str(), 0755), change_);
  directories_.insert(path);
  return {path, "", nullptr};
}

Pairs::Touched Pairs::RemoveDirectory(size_t mount) {
  auto directory = directories_.begin();
  std::advance(directory, Below(directories_.size()));
  const std::string path = *directory;
  if (path.empty()) return ChangeMode(mount);
  const auto is_below = [&](const std::string& other) { return other.compare(0, path.size() + 1, path + "/") == 0; };
  const bool is_empty = std::none_of(files_.begin(), files_.end(), [&](const auto& f) { return is_below(f.first); }) &&
                        std::none_of(directories_.begin(), directories_.end(), is_below);
  change_ = absl::StrCat("rmdir of ", PathAt(mount, path));
  const int result = rmdir(PathAt(mount, path).c_str());
  if (is_empty) {
    Done(result, change_);
    directories_.erase(directory);
  } else {
    Require(result == -1 && errno == ENOTEMPTY, "the directory was not empty");
  }
  return {path, "", nullptr};
}

Pairs::Touched Pairs::Rename(size_t mount) {
  const std::string from = SomeFile();
  const std::string to = SomeName();
  if (directories_.contains(to)) return Unlink(mount);
  const FilePtr file = files_.at(from);
  change_ = absl::StrCat("a rename of ", PathAt(mount, from), " to ", to);
  Done(rename(PathAt(mount, from).c_str(), PathAt(mount, to).c_str()), change_);
  // Of two names of one file both stay.
  if (files_.contains(to) && files_.at(to) == file) return {to, from, file};
  const FilePtr replaced = files_.contains(to) ? files_.at(to) : nullptr;
  if (replaced) DropName(to);
  files_[to] = file;
  files_.erase(from);
  if (replaced && replaced->names == 0 && Chance(50)) return {to, from, replaced};
  return {to, from, file};
}

Pairs::Touched Pairs::Link(size_t mount) {
  const std::string from = SomeFile();
  const std::string to = SomeName();
  if (files_.contains(to) || directories_.contains(to)) return Rename(mount);
  const FilePtr file = files_.at(from);
  change_ = absl::StrCat("a link to ", PathAt(mount, from), " as ", to);
  Done(link(PathAt(mount, from).c_str(), PathAt(mount, to).c_str()), change_);
  files_[to] = file;
  ++file->names;
  return {to, from, file};
}

Pairs::Touched Pairs::Unlink(size_t mount) {
  const std::string path = SomeFile();
  const FilePtr file = files_.at(path);
  change_ = absl::StrCat("an unlink of ", PathAt(mount, path));
  Done(unlink(PathAt(mount, path).c_str()), change_);
  DropName(path);
  return {path, "", file};
}

Pairs::Touched Pairs::ChangeMode(size_t mount) {
  const std::string path = SomeFile();
  const FilePtr file = files_.at(path);
  const mode_t mode = 0400 | static_cast<mode_t>(Below(512));
  change_ = absl::StrCat("chmod of ", PathAt(mount, path));
  Done(chmod(PathAt(mount, path).c_str(), mode), change_);
  file->mode = mode;
  return {path, "", file};
}

Pairs::Touched Pairs::Write(size_t mount, bool appends) {
  const std::string path = SomeFile();
  const FilePtr file = files_.at(path);
  std::string& bytes = file->bytes;
  const std::string more = SomeBytes(Chance(50) ? 100 : 10'000);
  appends = appends && bytes.size() + more.size() <= kMostBytes;
  const size_t at = appends ? bytes.size() : Below(std::min(bytes.size() + 6'000, kMostBytes - 10'000));
  change_ = absl::StrCat(appends ? "an append of " : "a write of ", more.size(), " bytes at ", at, " to ",
                         PathAt(mount, path));
  ssize_t written = -1;
  if (appends || Chance(30)) {
    const int fd = open(PathAt(mount, path).c_str(), O_WRONLY | O_CLOEXEC | (appends ? O_APPEND : 0));
    Done(fd, change_);
    written = pwrite(fd, more.data(), more.size(), appends ? 0 : static_cast<off_t>(at));
    if (Chance(20)) Done(fsync(fd), "fsync");
    close(fd);
  } else {
    written = pwrite(Opened(mount, path), more.data(), more.size(), static_cast<off_t>(at));
  }
  Done(written, change_);
  Require(written == static_cast<ssize_t>(more.size()), absl::StrCat(written, " bytes were written"));
  if (bytes.size() < at + more.size()) bytes.resize(at + more.size());
  bytes.replace(at, more.size(), more);
  return {path, "", file};
}

Pairs::Touched Pairs::Truncate(size_t mount) {
  const std::string path = SomeFile();
  const FilePtr file = files_.at(path);
  const size_t size = Below(std::min(file->bytes.size() + 9'000, kMostBytes - 10'000));
  change_ = absl::StrCat("a truncation of ", PathAt(mount, path), " to ", size, " bytes");
  const int result = Chance(50) ? truncate(PathAt(mount, path).c_str(), static_cast<off_t>(size))
                                : ftruncate(Opened(mount, path), static_cast<off_t>(size));
  Done(result, change_);
  file->bytes.resize(size);
  return {path, "", file};
}

Pairs::Touched Pairs::ChangeAttribute(size_t mount) {
  const std::string path = SomeFile();
  const FilePtr file = files_.at(path);
  const std::string name = absl::StrCat("user.a", Below(3));
  if (file->attributes.contains(name) && Chance(30)) {
    change_ = absl::StrCat("a removal of ", name, " of ", PathAt(mount, path));
    Done(removexattr(PathAt(mount, path).c_str(), name.c_str()), change_);
    file->attributes.erase(name);
  } else {
    const std::string value = SomeBytes(200);
    change_ = absl::StrCat("a change of ", name, " of ", PathAt(mount, path));
    Done(setxattr(PathAt(mount, path).c_str(), name.c_str(), value.data(), value.size(), 0), change_);
    file->attributes[name] = value;
  }
  return {path, "", file};
}

// By a mapping. Its length is asked for first, as whoever maps a file has to.
Pairs::Touched Pairs::Store(size_t mount) {
  const std::string path = SomeFile();
  const FilePtr file = files_.at(path);
  if (file->bytes.empty()) return Write(mount, false);
  const size_t at = Below(file->bytes.size());
  std::string more = SomeBytes(5'000);
  more.resize(std::min(more.size(), file->bytes.size() - at));
  change_ = absl::StrCat("a store of ", more.size(), " bytes at ", at, " to a mapping of ", PathAt(mount, path));
  const int fd = Opened(mount, path);
  struct stat s {};
  Done(fstat(fd, &s), "fstat");
  Require(static_cast<size_t>(s.st_size) == file->bytes.size(), absl::StrCat("the size was ", s.st_size));
  const size_t first = at / kPage * kPage;
  const size_t length = at + more.size() - first;
  void* const mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(first));
  Done(mapped == MAP_FAILED ? -1 : 0, "mmap");
  std::memcpy(static_cast<char*>(mapped) + (at - first), more.data(), more.size());
  Done(msync(mapped, length, MS_SYNC), "msync");
  Done(munmap(mapped, length), "munmap");
  file->bytes.replace(at, more.size(), more);
  return {path, "", file};
}

Pairs::Touched Pairs::Change(size_t mount) {
  if (files_.size() < 4) return MakeFile(mount);
  const size_t choice = Below(100);
  if (choice < 8) return files_.size() < kMostFiles ? MakeFile(mount) : Unlink(mount);
  if (choice < 14) return MakeDirectory(mount);
  if (choice < 18) return RemoveDirectory(mount);
  if (choice < 32) return Rename(mount);
  if (choice < 38) return Link(mount);
  if (choice < 44) return Unlink(mount);
  if (choice < 52) return ChangeMode(mount);
  if (choice < 64) return Write(mount, false);
  if (choice < 74) return Write(mount, true);
  if (choice < 83) return Truncate(mount);
  if (choice < 91) return ChangeAttribute(mount);
  return Store(mount);
}

// --- What is seen -----------------------------------------------------------------------------------------------------

void Pairs::CompareBytes(const std::string& what, const std::string& seen, const std::string& expected) {
  if (seen == expected) return;
  const auto differ = std::mismatch(seen.begin(), seen.end(), expected.begin(), expected.end());
  Require(false, absl::StrCat(what, " gives ", seen.size(), " bytes of ", expected.size(), ", the first other one at ",
                              differ.first - seen.begin()));
}

void Pairs::LookAtStatus(size_t mount, const std::string& path) {
  const std::string full = PathAt(mount, path);
  struct stat s {};
  const int error = lstat(full.c_str(), &s) == 0 ? 0 : errno;
  const bool is_directory = directories_.contains(path);
  if (!is_directory && !files_.contains(path)) {
    Require(error == ENOENT, absl::StrCat("stat of ", full, " gives ", error, " where nothing is"));
    return;
  }
  Require(error == 0, absl::StrCat("stat of ", full, " fails: ", strerror(error)));
  Require(S_ISDIR(s.st_mode) == is_directory, absl::StrCat(full, " is of another type"));
  if (is_directory) return;
  const File& file = *files_.at(path);
  Require((s.st_mode & 07777) == file.mode, absl::StrCat(full, " has mode ", s.st_mode & 07777, ", not ", file.mode));
  Require(s.st_nlink == file.names, absl::StrCat(full, " has ", s.st_nlink, " names, not ", file.names));
  Require(static_cast<size_t>(s.st_size) == file.bytes.size(),
          absl::StrCat(full, " has ", s.st_size, " bytes, not ", file.bytes.size()));
}

void Pairs::LookAtListing(size_t mount, const std::string& directory) {
  const std::string full = PathAt(mount, directory);
  std::set<std::string> expected{".", ".."};
  for (const auto& [path, file] : files_) {
    if (ParentOf(path) == directory) expected.insert(NameOf(path));
  }
  for (const std::string& path : directories_) {
    if (!path.empty() && ParentOf(path) == directory) expected.insert(NameOf(path));
  }
  DIR* const opened = opendir(full.c_str());
  if (!directories_.contains(directory)) {
    Require(opened == nullptr, absl::StrCat(full, " can be listed and has gone"));
    return;
  }
  Done(opened == nullptr ? -1 : 0, absl::StrCat("a listing of ", full));
  std::multiset<std::string> seen;
  while (const dirent* entry = readdir(opened)) seen.insert(entry->d_name);
  closedir(opened);
  std::string difference;
  for (const std::string& name : seen) {
    if (!expected.contains(name) || seen.count(name) != 1) absl::StrAppend(&difference, " +", name);
  }
  for (const std::string& name : expected) {
    if (!seen.contains(name)) absl::StrAppend(&difference, " -", name);
  }
  Require(difference.empty(), absl::StrCat("the listing of ", full, " differs:", difference));
}

void Pairs::LookAtAttributes(size_t mount, const std::string& path) {
  const std::string full = PathAt(mount, path);
  std::string list(1000, '\0');
  const ssize_t length = listxattr(full.c_str(), list.data(), list.size());
  if (!files_.contains(path)) {
    if (!directories_.contains(path)) Require(length == -1 && errno == ENOENT, absl::StrCat(full, " has attributes"));
    return;
  }
  Done(length, absl::StrCat("listxattr of ", full));
  std::map<std::string, std::string> seen;
  for (size_t at = 0; at < static_cast<size_t>(length); at += std::strlen(list.data() + at) + 1) {
    const char* const name = list.data() + at;
    std::string value(1000, '\0');
    const ssize_t bytes = getxattr(full.c_str(), name, value.data(), value.size());
    Done(bytes, absl::StrCat("getxattr of ", name, " of ", full));
    seen[name] = value.substr(0, static_cast<size_t>(bytes));
  }
  Require(seen == files_.at(path)->attributes, absl::StrCat(full, " has other attributes"));
}

void Pairs::LookAtBytes(size_t mount, const std::string& path, bool mapped) {
  const std::string full = PathAt(mount, path);
  const int fd = open(full.c_str(), O_RDONLY | O_CLOEXEC);
  if (!files_.contains(path)) {
    Require(fd == -1 ? errno == ENOENT : directories_.contains(path), absl::StrCat(full, " can be opened"));
    if (fd >= 0) close(fd);
    return;
  }
  Done(fd, absl::StrCat("open of ", full));
  const std::string& expected = files_.at(path)->bytes;
  std::string seen(kMostBytes + 1, '\0');
  struct stat s {};
  if (!mapped) {
    const ssize_t bytes = pread(fd, seen.data(), seen.size(), 0);
    Done(bytes, absl::StrCat("pread of ", full));
    seen.resize(static_cast<size_t>(bytes));
  } else {
    Done(fstat(fd, &s), "fstat");
    const auto size = static_cast<size_t>(s.st_size);
    seen.clear();
    if (size > 0) {
      void* const memory = mmap(nullptr, size, PROT_READ, Chance(50) ? MAP_SHARED : MAP_PRIVATE, fd, 0);
      Done(memory == MAP_FAILED ? -1 : 0, "mmap");
      seen.assign(static_cast<const char*>(memory), size);
      munmap(memory, size);
    }
  }
  close(fd);
  CompareBytes(absl::StrCat(mapped ? "a mapping of " : "pread of ", full), seen, expected);
}

void Pairs::LookAtOpened(size_t mount, const File& file) {
  const int fd = file.opened[mount];
  const std::string what = absl::StrCat("what is open in ", roots_[mount]);
  struct stat s {};
  Done(fstat(fd, &s), absl::StrCat("fstat of ", what));
  Require(s.st_nlink == file.names && static_cast<size_t>(s.st_size) == file.bytes.size(),
          absl::StrCat(what, " has ", s.st_nlink, " names and ", s.st_size, " bytes, not ", file.names, " and ",
                       file.bytes.size()));
  std::string seen(kMostBytes + 1, '\0');
  const ssize_t bytes = pread(fd, seen.data(), seen.size(), 0);
  Done(bytes, absl::StrCat("pread of ", what));
  CompareBytes(absl::StrCat("pread of ", what), seen.substr(0, static_cast<size_t>(bytes)), file.bytes);
}

void Pairs::LookAtPath(size_t mount, const std::string& path) {
  switch (Below(5)) {
    case 0: return LookAtStatus(mount, path);
    case 1: return LookAtListing(mount, ParentOf(path));
    case 2: return LookAtAttributes(mount, path);
    case 3: return LookAtBytes(mount, path, true);
    default: return LookAtBytes(mount, path, false);
  }
}

void Pairs::Look(size_t mount, const Touched& touched) {
  if (touched.file && touched.file->opened[mount] >= 0 && Chance(40)) return LookAtOpened(mount, *touched.file);
  LookAtPath(mount, !touched.other.empty() && Chance(50) ? touched.other : touched.path);
}

void Pairs::Step() {
  ++pair_;
  change_ = "the last pair";
  const size_t changing = Below(roots_.size());
  const size_t looking = (changing + 1 + Below(roots_.size() - 1)) % roots_.size();
  if (!files_.empty() && Chance(50)) {
    const std::string path = SomeFile();
    LookAtPath(looking, path);
    Opened(looking, path);
  }
  const Touched touched = Change(changing);
  Look(looking, touched);
  if (touched.file && touched.file->names == 0) {
    for (int& fd : touched.file->opened) {
      if (fd >= 0) close(std::exchange(fd, -1));
    }
  }
}

void Pairs::CheckAll() {
  change_ = "all pairs";
  for (size_t mount = 0; mount < roots_.size(); ++mount) {
    for (const std::string& directory : directories_) LookAtListing(mount, directory);
    for (const auto& [path, file] : files_) {
      LookAtStatus(mount, path);
      LookAtAttributes(mount, path);
      LookAtBytes(mount, path, false);
      if (file->opened[mount] >= 0) LookAtOpened(mount, *file);
    }
  }
}

}  // namespace mangrove::cluster_test
