#include "bench/floors/pass_through.h"

#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/worker.h"

namespace mangrove::bench {
namespace {

constexpr size_t kMostBytes = 1 << 20;
// Of files that the kernel knows: fewer than a process may have.
constexpr size_t kMostDescriptors = 8192;

// A file that the kernel knows; its address is the kernel's number for it.
struct File {
  int fd = -1;         // O_PATH, or none.
  std::string handle;  // Of the local filesystem's: another file with the same inode has another one.
  uint64_t lookups = 0;
};

struct Tree {
  File root;
  int mount = -1;  // The root, where files are opened by their handles.
  std::map<std::string, File*> files;
  std::deque<std::string> opened;  // Those that have descriptors, and some that are gone.
  std::vector<char> buffer = std::vector<char>(kMostBytes);
};

Tree& tree() {
  static Tree tree;
  return tree;
}

File* FileOf(fuse_ino_t number) {
  return number == FUSE_ROOT_ID ? &tree().root : reinterpret_cast<File*>(number);  // NOLINT(performance-no-int-to-ptr)
}

std::string NameOfDescriptor(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

// Room for a file_handle of any length.
struct HandleRoom {
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> bytes{};
  file_handle* get() { return reinterpret_cast<file_handle*>(bytes.data()); }
};

// Empty: there is none, and errno says why.
std::string HandleOf(int fd) {
  HandleRoom room;
  room.get()->handle_bytes = MAX_HANDLE_SZ;
  int mount_id = 0;
  if (name_to_handle_at(fd, "", room.get(), &mount_id, AT_EMPTY_PATH) != 0) return {};
  return {room.bytes.data(), sizeof(file_handle) + room.get()->handle_bytes};
}

// Where there are many files, those that were opened first are known by their handles alone.
void NoteOpened(const std::string& handle) {
  tree().opened.push_back(handle);
  while (tree().opened.size() > kMostDescriptors) {
    const auto found = tree().files.find(tree().opened.front());
    tree().opened.pop_front();
    if (found != tree().files.end() && found->second->fd >= 0) close(std::exchange(found->second->fd, -1));
  }
}

int FdOf(fuse_ino_t number) {
  File* const file = FileOf(number);
  if (file->fd >= 0) return file->fd;
  HandleRoom room;
  std::copy(file->handle.begin(), file->handle.end(), room.bytes.begin());
  file->fd = open_by_handle_at(tree().mount, room.get(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  NoteOpened(file->handle);
  return file->fd;
}

std::string PathOf(fuse_ino_t number) { return NameOfDescriptor(FdOf(number)); }

void AnswerError(fuse_req_t request, int result) { fuse_reply_err(request, result == 0 ? 0 : errno); }

// The file of that name, as one that the kernel knows once more. 0, or an error number.
int FindFile(int directory, const char* name, fuse_entry_param* entry) {
  *entry = {};
  const int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  if (fstatat(fd, "", &entry->attr, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
    const int error = errno;
    close(fd);
    return error;
  }
  std::string handle = HandleOf(fd);
  if (handle.empty()) {
    const int error = errno;
    close(fd);
    return error;
  }
  const auto [it, is_new] = tree().files.try_emplace(std::move(handle), nullptr);
  if (is_new || it->second->fd < 0) {
    if (is_new) it->second = new File{.fd = -1, .handle = it->first};
    it->second->fd = fd;
    NoteOpened(it->first);
  } else {
    close(fd);
  }
  ++it->second->lookups;
  entry->ino = reinterpret_cast<fuse_ino_t>(it->second);
  return 0;
}

void Forget(fuse_ino_t number, uint64_t lookups) {
  File* const file = FileOf(number);
  if (file == &tree().root || (file->lookups -= lookups) > 0) return;
  if (file->fd >= 0) close(file->fd);
  tree().files.erase(file->handle);
  delete file;
}

void AnswerEntry(fuse_req_t request, fuse_ino_t parent, const char* name, int result) {
  if (result < 0) return AnswerError(request, result);
  fuse_entry_param entry;
  const int error = FindFile(FdOf(parent), name, &entry);
  error == 0 ? fuse_reply_entry(request, &entry) : fuse_reply_err(request, error);
}

void AnswerAttributes(fuse_req_t request, fuse_ino_t number) {
  struct stat s;
  if (fstatat(FdOf(number), "", &s, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return AnswerError(request, -1);
  fuse_reply_attr(request, &s, 0);
}

// --- Names ------------------------------------------------------------------------------------------------------------

void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) { AnswerEntry(request, parent, name, 0); }
void ForgetOne(fuse_req_t request, fuse_ino_t number, uint64_t lookups) {
  Forget(number, lookups);
  fuse_reply_none(request);
}
void ForgetMany(fuse_req_t request, size_t count, fuse_forget_data* forgets) {
  for (size_t i = 0; i < count; ++i) Forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(request);
}
void MakeNode(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  AnswerEntry(request, parent, name, mknodat(FdOf(parent), name, mode, device));
}
void MakeDirectory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  AnswerEntry(request, parent, name, mkdirat(FdOf(parent), name, mode));
}
void MakeSymlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  AnswerEntry(request, parent, name, symlinkat(target, FdOf(parent), name));
}
void Link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char* name) {
  AnswerEntry(request, parent, name, linkat(AT_FDCWD, PathOf(number).c_str(), FdOf(parent), name, AT_SYMLINK_FOLLOW));
}
void Unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  AnswerError(request, unlinkat(FdOf(parent), name, 0));
}
void RemoveDirectory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  AnswerError(request, unlinkat(FdOf(parent), name, AT_REMOVEDIR));
}
void Rename(fuse_req_t request, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
            unsigned flags) {
  AnswerError(request, renameat2(FdOf(from), name, FdOf(to), new_name, flags));
}
void ReadLink(fuse_req_t request, fuse_ino_t number) {
  std::array<char, 4096> target;
  const ssize_t length = readlinkat(FdOf(number), "", target.data(), target.size() - 1);
  if (length < 0) return AnswerError(request, -1);
  target[static_cast<size_t>(length)] = '\0';
  fuse_reply_readlink(request, target.data());
}

// --- Listings ---------------------------------------------------------------------------------------------------------

DIR* DirectoryOf(const fuse_file_info* info) {
  return reinterpret_cast<DIR*>(info->fh);  // NOLINT(performance-no-int-to-ptr)
}

void OpenDirectory(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  const int fd = openat(FdOf(number), ".", O_RDONLY | O_CLOEXEC);
  DIR* const directory = fd < 0 ? nullptr : fdopendir(fd);
  if (directory == nullptr) return AnswerError(request, -1);
  info->fh = reinterpret_cast<uint64_t>(directory);
  fuse_reply_open(request, info);
}
void CloseDirectory(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  AnswerError(request, closedir(DirectoryOf(info)));
}

void AnswerListing(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info* info,
                   bool with_attributes) {
  DIR* const directory = DirectoryOf(info);
  if (telldir(directory) != offset) seekdir(directory, offset);
  char* const buffer = tree().buffer.data();
  size_t used = 0;
  for (;;) {
    const off_t before = telldir(directory);
    const dirent* const found = readdir(directory);
    if (found == nullptr) break;
    const std::string name = found->d_name;
    fuse_entry_param entry{};
    entry.attr.st_ino = found->d_ino;
    entry.attr.st_mode = DTTOIF(found->d_type);
    const bool is_looked_up = with_attributes && name != "." && name != "..";
    if (is_looked_up && FindFile(FdOf(number), name.c_str(), &entry) != 0) continue;
    const size_t more =
        with_attributes
            ? fuse_add_direntry_plus(request, buffer + used, size - used, name.c_str(), &entry, found->d_off)
            : fuse_add_direntry(request, buffer + used, size - used, name.c_str(), &entry.attr, found->d_off);
    if (more > size - used) {
      if (is_looked_up) Forget(entry.ino, 1);
      seekdir(directory, before);
      break;
    }
    used += more;
  }
  fuse_reply_buf(request, buffer, used);
}
void ReadDirectory(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info* info) {
  AnswerListing(request, number, size, offset, info, false);
}
void ReadDirectoryPlus(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info* info) {
  AnswerListing(request, number, size, offset, info, true);
}

// --- Attributes -------------------------------------------------------------------------------------------------------

void GetAttributes(fuse_req_t request, fuse_ino_t number, fuse_file_info*) { AnswerAttributes(request, number); }

timespec TimeOf(int what, int flag, int flag_now, timespec wanted) {
  if ((what & flag_now) != 0) return {.tv_sec = 0, .tv_nsec = UTIME_NOW};
  if ((what & flag) != 0) return wanted;
  return {.tv_sec = 0, .tv_nsec = UTIME_OMIT};
}

void SetAttributes(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int what, fuse_file_info*) {
  const std::string path = PathOf(number);
  int result = 0;
  if ((what & FUSE_SET_ATTR_MODE) != 0) result = chmod(path.c_str(), wanted->st_mode);
  if (result == 0 && (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0) {
    result = fchownat(FdOf(number), "", (what & FUSE_SET_ATTR_UID) != 0 ? wanted->st_uid : ~uid_t{0},
                      (what & FUSE_SET_ATTR_GID) != 0 ? wanted->st_gid : ~gid_t{0}, AT_EMPTY_PATH);
  }
  if (result == 0 && (what & FUSE_SET_ATTR_SIZE) != 0) result = truncate(path.c_str(), wanted->st_size);
  if (result == 0 && (what & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) != 0) {
    const timespec times[] = {TimeOf(what, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, wanted->st_atim),
                              TimeOf(what, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, wanted->st_mtim)};
    result = utimensat(AT_FDCWD, path.c_str(), times, 0);
  }
  if (result != 0) return AnswerError(request, result);
  AnswerAttributes(request, number);
}

void GetXattr(fuse_req_t request, fuse_ino_t number, const char* name, size_t size) {
  const ssize_t length = getxattr(PathOf(number).c_str(), name, tree().buffer.data(), size);
  if (length < 0) return AnswerError(request, -1);
  if (size == 0) {
    fuse_reply_xattr(request, static_cast<size_t>(length));
  } else {
    fuse_reply_buf(request, tree().buffer.data(), static_cast<size_t>(length));
  }
}

void GetSpace(fuse_req_t request, fuse_ino_t number) {
  struct statvfs s;
  if (fstatvfs(FdOf(number), &s) != 0) return AnswerError(request, -1);
  fuse_reply_statfs(request, &s);
}

// --- Data -------------------------------------------------------------------------------------------------------------

void AnswerOpen(fuse_req_t request, const fuse_entry_param* made, fuse_file_info* info, int fd) {
  info->fh = static_cast<uint64_t>(fd);
  info->direct_io = 1;
  made != nullptr ? fuse_reply_create(request, made, info) : fuse_reply_open(request, info);
}

void Open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  const int fd = open(PathOf(number).c_str(), (info->flags & ~O_NOFOLLOW) | O_CLOEXEC);
  if (fd < 0) return AnswerError(request, fd);
  AnswerOpen(request, nullptr, info, fd);
}

void Create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  const int fd = openat(FdOf(parent), name, info->flags | O_CREAT | O_CLOEXEC, mode);
  if (fd < 0) return AnswerError(request, fd);
  fuse_entry_param entry;
  const int error = FindFile(FdOf(parent), name, &entry);
  if (error == 0) return AnswerOpen(request, &entry, info, fd);
  close(fd);
  fuse_reply_err(request, error);
}

void Release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  AnswerError(request, close(static_cast<int>(info->fh)));
}

void Read(fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  const ssize_t length =
      pread(static_cast<int>(info->fh), tree().buffer.data(), std::min(size, tree().buffer.size()), offset);
  if (length < 0) return AnswerError(request, -1);
  fuse_reply_buf(request, tree().buffer.data(), static_cast<size_t>(length));
}

void Write(fuse_req_t request, fuse_ino_t, const char* bytes, size_t size, off_t offset, fuse_file_info* info) {
  const ssize_t length = pwrite(static_cast<int>(info->fh), bytes, size, offset);
  if (length < 0) return AnswerError(request, -1);
  fuse_reply_write(request, static_cast<size_t>(length));
}

void Sync(fuse_req_t request, fuse_ino_t, int data_only, fuse_file_info* info) {
  const int fd = static_cast<int>(info->fh);
  AnswerError(request, data_only != 0 ? fdatasync(fd) : fsync(fd));
}

// The kernel asks at each close, where that may give locks back.
void Flush(fuse_req_t request, fuse_ino_t, fuse_file_info*) { fuse_reply_err(request, 0); }

// --- The session ------------------------------------------------------------------------------------------------------

// What fs/mount/operations.cc asks for.
void Begin(void*, fuse_conn_info* connection) {
  const unsigned wanted = FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA |
                          FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                          FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO;
  connection->want = connection->capable & wanted;
  connection->max_write = kMostBytes;
}

fuse_lowlevel_ops Operations() {
  fuse_lowlevel_ops all{};
  all.init = Begin;
  all.lookup = Lookup;
  all.forget = ForgetOne;
  all.forget_multi = ForgetMany;
  all.getattr = GetAttributes;
  all.setattr = SetAttributes;
  all.readlink = ReadLink;
  all.mknod = MakeNode;
  all.mkdir = MakeDirectory;
  all.unlink = Unlink;
  all.rmdir = RemoveDirectory;
  all.symlink = MakeSymlink;
  all.rename = Rename;
  all.link = Link;
  all.open = Open;
  all.create = Create;
  all.flush = Flush;
  all.release = Release;
  all.read = Read;
  all.write = Write;
  all.fsync = Sync;
  all.opendir = OpenDirectory;
  all.releasedir = CloseDirectory;
  all.readdir = ReadDirectory;
  all.readdirplus = ReadDirectoryPlus;
  all.statfs = GetSpace;
  all.getxattr = GetXattr;
  return all;
}

// `ready` is written to when the mount is there. Returns when it has been taken away.
void Serve(const std::string& source, const std::string& mount, int ready) {
  rlimit descriptors{};
  Must(getrlimit(RLIMIT_NOFILE, &descriptors), "getrlimit");
  descriptors.rlim_cur = descriptors.rlim_max;
  Must(setrlimit(RLIMIT_NOFILE, &descriptors), "allowing for many descriptors");
  umask(0);  // Modes come as they are to be.
  tree().mount = tree().root.fd = static_cast<int>(Must(open(source.c_str(), O_RDONLY | O_CLOEXEC), source));
  std::string program = "pass-through";
  std::string flag = "-o";
  std::string words = "default_permissions,allow_other,fsname=pass-through";
  std::array<char*, 3> argv{program.data(), flag.data(), words.data()};
  fuse_args args{.argc = argv.size(), .argv = argv.data(), .allocated = 0};
  const fuse_lowlevel_ops operations = Operations();
  fuse_session* const session = fuse_session_new(&args, &operations, sizeof(operations), nullptr);
  if (session == nullptr) Die("the pass-through's mount options were refused");
  if (fuse_session_mount(session, mount.c_str()) != 0) Die("the pass-through cannot be mounted at " + mount);
  Must(write(ready, "r", 1), "telling that the pass-through is there");
  fuse_session_loop(session);
  fuse_session_destroy(session);
}

}  // namespace

PassThrough::PassThrough(const std::string& source, const std::string& mount) : mount_(mount) {
  int ends[2];
  Must(pipe2(ends, O_CLOEXEC), "pipe");
  pid_ = static_cast<pid_t>(Must(fork(), "fork"));
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    Serve(source, mount, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  char byte = 0;
  if (read(ends[0], &byte, 1) != 1) Die("the pass-through has ended");
  close(ends[0]);
}

PassThrough::~PassThrough() {
  umount2(mount_.c_str(), MNT_DETACH);
  AwaitEnd(pid_);
}

}  // namespace mangrove::bench
