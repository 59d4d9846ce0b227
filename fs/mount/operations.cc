// What the kernel asks for, translated into operations of the filesystem and back. Nothing is decided here.

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "fs/mount/answer.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;
// "." and ".." are listed first; entries of the filesystem have cookies behind these.
constexpr off_t kBehindDot = 1;
constexpr off_t kBehindDotDot = 2;
// What an entry takes in the kernel's buffer at least, and how many are asked for at most.
constexpr size_t kLeastEntryBytes = 32;
constexpr size_t kLeastEntryPlusBytes = 160;
constexpr size_t kMostEntries = 512;

// As programs see it.
ino_t InodeOf(const State* state, InodeNumber inode) {
  return inode == state->filesystem->root() ? FUSE_ROOT_ID : inode.value;
}

Caller CallerOf(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  return {.uid = context->uid, .gid = context->gid, .umask = context->umask};
}

timespec TimeOf(int64_t ns) {
  int64_t seconds = ns / static_cast<int64_t>(kNsPerSecond);
  int64_t rest = ns % static_cast<int64_t>(kNsPerSecond);
  if (rest < 0) {
    --seconds;
    rest += kNsPerSecond;
  }
  return {.tv_sec = seconds, .tv_nsec = rest};
}
int64_t NsOf(const timespec& time) { return time.tv_sec * static_cast<int64_t>(kNsPerSecond) + time.tv_nsec; }
int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return NsOf(now);
}

struct stat StatOf(const State* state, const Attributes& a) {
  constexpr uint64_t kBlocksOfPage = 8;
  struct stat s {};
  s.st_ino = InodeOf(state, a.inode);
  s.st_mode = a.mode;
  s.st_nlink = a.links;
  s.st_uid = a.uid;
  s.st_gid = a.gid;
  s.st_rdev = a.device;
  s.st_size = static_cast<off_t>(a.size_bytes);
  s.st_blocks = static_cast<blkcnt_t>(((S_ISDIR(a.mode) ? 1 : 0) + a.pages) * kBlocksOfPage);
  s.st_blksize = 4096;
  s.st_atim = TimeOf(a.accessed_ns);
  s.st_mtim = TimeOf(a.modified_ns);
  s.st_ctim = TimeOf(a.changed_ns);
  return s;
}

// The kernel is told of the file by it: M3. Who could not hand it over has it forgotten.
fuse_entry_param EntryOf(State* state, const Attributes& a) {
  fuse_entry_param entry{};
  entry.ino = state->known.Tell(a.id());
  entry.generation = a.generation;
  entry.attr = StatOf(state, a);
  return entry;
}

void AnswerEntry(fuse_req_t request, Task<absl::StatusOr<Attributes>> task) {
  Answer<Attributes>(request, std::move(task), [request](State* state, const Attributes& attributes) {
    const fuse_entry_param entry = EntryOf(state, attributes);
    if (fuse_reply_entry(request, &entry) != 0) state->known.Forget(entry.ino, 1);
  });
}

void AnswerAttributes(fuse_req_t request, Task<absl::StatusOr<Attributes>> task) {
  Answer<Attributes>(request, std::move(task), [request](State* state, const Attributes& attributes) {
    const struct stat s = StatOf(state, attributes);
    fuse_reply_attr(request, &s, 0);
  });
}

// --- Names ------------------------------------------------------------------------------------------------------------

void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  AnswerEntry(request, state->filesystem->Lookup(FileOf(state, parent), name));
}

void MakeNode(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  const State* const state = StateOf(request);
  AnswerEntry(request, state->filesystem->MakeNode(CallerOf(request), FileOf(state, parent), name, mode, device));
}

void MakeDirectory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  const State* const state = StateOf(request);
  AnswerEntry(request, state->filesystem->MakeDirectory(CallerOf(request), FileOf(state, parent), name, mode));
}

void MakeSymlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  AnswerEntry(request, state->filesystem->MakeSymlink(CallerOf(request), FileOf(state, parent), name, target));
}

void Link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  AnswerEntry(request, state->filesystem->Link(FileOf(state, inode), FileOf(state, parent), name));
}

void Unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->Unlink(FileOf(state, parent), name));
}

void RemoveDirectory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->RemoveDirectory(FileOf(state, parent), name));
}

void Rename(fuse_req_t request, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
            unsigned flags) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->Rename(FileOf(state, from), name, FileOf(state, to), new_name, flags));
}

void Forget(fuse_req_t request, fuse_ino_t inode, uint64_t times) {
  StateOf(request)->known.Forget(inode, times);
  fuse_reply_none(request);
}

void ReadLink(fuse_req_t request, fuse_ino_t inode) {
  const State* const state = StateOf(request);
  Answer<std::string>(request, state->filesystem->ReadLink(FileOf(state, inode)),
                      [request](State*, const std::string& target) { fuse_reply_readlink(request, target.c_str()); });
}

// --- Listings ---------------------------------------------------------------------------------------------------------

struct Listing {
  Attributes self;
  InodeNumber parent;
  std::vector<DirectoryEntry> entries;
};

Task<absl::StatusOr<Listing>> List(Filesystem* filesystem, FoundFile directory, off_t offset, size_t most) {
  Listing listing;
  if (offset < kBehindDotDot) {
    absl::StatusOr<Attributes> self = co_await filesystem->GetAttributes(directory);
    if (!self.ok()) co_return self.status();
    listing.self = *self;
    const absl::StatusOr<InodeNumber> parent = co_await filesystem->Parent(directory);
    listing.parent = parent.ok() ? *parent : directory.inode;  // It may have been removed.
  }
  const uint64_t cookie = offset <= kBehindDotDot ? 0 : static_cast<uint64_t>(offset);
  absl::StatusOr<std::vector<DirectoryEntry>> entries = co_await filesystem->ReadDirectory(directory, cookie, most);
  if (!entries.ok()) co_return entries.status();
  listing.entries = *std::move(entries);
  co_return listing;
}

// Entries of a listing in the kernel's form, as many as go into `size` bytes.
class ListingBuffer {
 public:
  ListingBuffer(fuse_req_t request, size_t size, bool with_attributes)
      : request_(request), bytes_(size, '\0'), with_attributes_(with_attributes) {}

  bool Add(State* state, const DirectoryEntry& entry) {
    // Of a number 0 the kernel takes the name and the type alone.
    fuse_entry_param answer{};
    answer.attr = StatOf(state, entry.attributes);
    const bool is_told = with_attributes_ && entry.is_readable;
    if (is_told) answer = EntryOf(state, entry.attributes);
    const bool fits = Add(entry.name.c_str(), answer, static_cast<off_t>(entry.cookie));
    if (is_told && fits) told_.push_back(answer.ino);
    if (is_told && !fits) state->known.Forget(answer.ino, 1);
    return fits;
  }
  bool Add(const char* name, const fuse_entry_param& entry, off_t next) {
    char* const at = bytes_.data() + used_;
    const size_t room = bytes_.size() - used_;
    const size_t more = with_attributes_ ? fuse_add_direntry_plus(request_, at, room, name, &entry, next)
                                         : fuse_add_direntry(request_, at, room, name, &entry.attr, next);
    if (more > room) return false;
    used_ += more;
    return true;
  }
  void Reply(State* state) {
    if (fuse_reply_buf(request_, bytes_.data(), used_) == 0) return;
    for (const fuse_ino_t number : told_) state->known.Forget(number, 1);
  }

 private:
  fuse_req_t request_;
  std::string bytes_;
  size_t used_ = 0;
  bool with_attributes_;
  std::vector<fuse_ino_t> told_;
};

void AnswerListing(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, bool with_attributes) {
  const State* const state = StateOf(request);
  const size_t least_bytes = with_attributes ? kLeastEntryPlusBytes : kLeastEntryBytes;
  const size_t most = std::clamp<size_t>(size / least_bytes, 1, kMostEntries);
  Answer<Listing>(request, List(state->filesystem, FileOf(state, inode), offset, most),
                  [=](State* mount, const Listing& listing) {
                    ListingBuffer buffer(request, size, with_attributes);
                    // No inode is looked up by these two: they have numbers of their own kind in the answer.
                    fuse_entry_param dot{};
                    dot.attr.st_mode = S_IFDIR;
                    bool fits = true;
                    if (offset < kBehindDot) {
                      dot.attr.st_ino = InodeOf(mount, listing.self.inode);
                      fits = buffer.Add(".", dot, kBehindDot);
                    }
                    if (fits && offset < kBehindDotDot) {
                      dot.attr.st_ino = InodeOf(mount, listing.parent);
                      fits = buffer.Add("..", dot, kBehindDotDot);
                    }
                    for (const DirectoryEntry& entry : listing.entries) {
                      if (!fits) break;
                      fits = buffer.Add(mount, entry);
                    }
                    buffer.Reply(mount);
                  });
}

void ReadDirectory(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  AnswerListing(request, inode, size, offset, false);
}
void ReadDirectoryPlus(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  AnswerListing(request, inode, size, offset, true);
}

// --- Attributes -------------------------------------------------------------------------------------------------------

void GetAttributes(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  const State* const state = StateOf(request);
  AnswerAttributes(request, state->filesystem->GetAttributes(FileOf(state, inode)));
}

void SetAttributes(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int what, fuse_file_info*) {
  const State* const state = StateOf(request);
  AttributesChange change;
  if ((what & FUSE_SET_ATTR_MODE) != 0) change.mode = wanted->st_mode & 07777;
  if ((what & FUSE_SET_ATTR_UID) != 0) change.uid = wanted->st_uid;
  if ((what & FUSE_SET_ATTR_GID) != 0) change.gid = wanted->st_gid;
  if ((what & FUSE_SET_ATTR_SIZE) != 0) change.size_bytes = static_cast<uint64_t>(wanted->st_size);
  if ((what & FUSE_SET_ATTR_ATIME) != 0) change.accessed_ns = NsOf(wanted->st_atim);
  if ((what & FUSE_SET_ATTR_MTIME) != 0) change.modified_ns = NsOf(wanted->st_mtim);
  if ((what & FUSE_SET_ATTR_ATIME_NOW) != 0) change.accessed_ns = NowNs();
  if ((what & FUSE_SET_ATTR_MTIME_NOW) != 0) change.modified_ns = NowNs();
  AnswerAttributes(request, state->filesystem->SetAttributes(FileOf(state, inode), change));
}

void SetXattr(fuse_req_t request, fuse_ino_t inode, const char* name, const char* value, size_t size, int flags) {
  const State* const state = StateOf(request);
  constexpr int kCreate = 1;   // XATTR_CREATE,
  constexpr int kReplace = 2;  // XATTR_REPLACE.
  const XattrMode mode = (flags & kCreate) != 0    ? XattrMode::kCreate
                         : (flags & kReplace) != 0 ? XattrMode::kReplace
                                                   : XattrMode::kAny;
  Answer(request, state->filesystem->SetXattr(FileOf(state, inode), name, std::string(value, size),
                                              {mode, state->clears_set_gid}));
}

// With size 0 the kernel asks how long the answer is.
void ReplySized(fuse_req_t request, const std::string& bytes, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(request, bytes.size());
  } else if (bytes.size() > size) {
    fuse_reply_err(request, ERANGE);
  } else {
    fuse_reply_buf(request, bytes.data(), bytes.size());
  }
}

void GetXattr(fuse_req_t request, fuse_ino_t inode, const char* name, size_t size) {
  const State* const state = StateOf(request);
  Answer<std::string>(request, state->filesystem->GetXattr(FileOf(state, inode), name),
                      [request, size](State*, const std::string& value) { ReplySized(request, value, size); });
}

void ListXattr(fuse_req_t request, fuse_ino_t inode, size_t size) {
  const State* const state = StateOf(request);
  Answer<std::vector<std::string>>(request, state->filesystem->ListXattr(FileOf(state, inode)),
                                   [request, size](State*, const std::vector<std::string>& names) {
                                     std::string list;
                                     for (const std::string& name : names) list.append(name).push_back('\0');
                                     ReplySized(request, list, size);
                                   });
}

void RemoveXattr(fuse_req_t request, fuse_ino_t inode, const char* name) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->RemoveXattr(FileOf(state, inode), name));
}

// --- Data -------------------------------------------------------------------------------------------------------------

fuse_file_info OpenedFile(State* state, const fuse_file_info* info) {
  fuse_file_info file = *info;
  file.fh = ++state->last_handle;
  file.direct_io = state->has_direct_io ? 1 : 0;
  return file;
}

// The kernel did not take the answer, so it does not have the file open, and will not close it.
void CloseUnheard(State* state, FoundFile file) {
  auto keep = state->shared_from_this();
  ++state->under_way;
  Spawn<absl::Status>(state->filesystem->Close(file), [keep](const absl::Status&) { --keep->under_way; });
}

void AnswerOpen(fuse_req_t request, fuse_ino_t number, fuse_file_info opened) {
  auto state = StateOf(request)->shared_from_this();
  const FoundFile file = FileOf(state.get(), number);
  ++state->under_way;
  Spawn<absl::Status>(state->filesystem->Open(file), [state, request, file, opened](const absl::Status& status) {
    --state->under_way;
    if (!status.ok()) {
      fuse_reply_err(request, ErrnoOf(status));
    } else if (fuse_reply_open(request, &opened) != 0) {
      CloseUnheard(state.get(), file);
    }
  });
}

void Open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  AnswerOpen(request, number, OpenedFile(StateOf(request), info));
}
// libfuse would answer it too, and the directory would go though it is open.
void OpenDirectory(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) { AnswerOpen(request, number, *info); }

// Where a name that the kernel has not found was made meanwhile it has to look again, and to check whether the caller may open what it is:
// of the answer to a creation it checks nothing.
Task<absl::StatusOr<Attributes>> MakeAndOpen(Filesystem* filesystem, Caller caller, FoundFile directory,
                                             std::string name, mode_t mode, int flags) {
  absl::StatusOr<Attributes> file = co_await filesystem->MakeNode(caller, directory, name, S_IFREG | (mode & 07777), 0);
  if (ErrnoOf(file.status()) == EEXIST && (flags & O_EXCL) == 0) {
    co_return PosixError(ESTALE, "the name was made meanwhile");
  }
  if (!file.ok()) co_return file;
  const absl::Status status = co_await filesystem->Open(file->id());
  if (!status.ok()) co_return status;
  co_return file;
}

void Create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  State* const state = StateOf(request);
  Answer<Attributes>(request,
                     MakeAndOpen(state->filesystem, CallerOf(request), FileOf(state, parent), name, mode, info->flags),
                     [request, file = OpenedFile(state, info)](State* mount, const Attributes& attributes) {
                       const fuse_entry_param entry = EntryOf(mount, attributes);
                       if (fuse_reply_create(request, &entry, &file) == 0) return;
                       mount->known.Forget(entry.ino, 1);
                       CloseUnheard(mount, attributes.id());
                     });
}

// With it the locks go that were set by this file and are nobody's: of flock, and of open files.
Task<absl::Status> CloseHandle(Filesystem* filesystem, FoundFile file, uint16_t mount, uint64_t handle) {
  co_await filesystem->locks()->ClearHandle(mount, handle);
  co_return co_await filesystem->Close(file);
}

void Release(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  const State* const state = StateOf(request);
  Answer(request, CloseHandle(state->filesystem, FileOf(state, inode), state->number, info->fh));
}
void ReleaseDirectory(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->Close(FileOf(state, inode)));
}

void Read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  const State* const state = StateOf(request);
  const auto place = static_cast<uint64_t>(offset);
  Answer<std::string>(
      request,
      state->keeps_access_times ? state->filesystem->ReadUnnoticed(FileOf(state, inode), place, size)
                                : state->filesystem->Read(FileOf(state, inode), place, size),
      [request](State*, const std::string& bytes) { fuse_reply_buf(request, bytes.data(), bytes.size()); });
}

void Write(fuse_req_t request, fuse_ino_t inode, const char* bytes, size_t size, off_t offset, fuse_file_info* info) {
  auto state = StateOf(request)->shared_from_this();
  ++state->under_way;
  // What the kernel writes back of a mapping has its place.
  const WriteOptions options{.append = (info->flags & O_APPEND) != 0 && info->writepage == 0,
                             .clears_set_id = state->clears_set_id};
  Spawn<absl::Status>(state->filesystem->Write(FileOf(state.get(), inode), static_cast<uint64_t>(offset),
                                               std::string(bytes, size), options),
                      [state, request, size](const absl::Status& status) {
                        --state->under_way;
                        if (status.ok()) {
                          fuse_reply_write(request, size);
                        } else {
                          fuse_reply_err(request, ErrnoOf(status));
                        }
                      });
}

void Sync(fuse_req_t request, fuse_ino_t inode, int, fuse_file_info*) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->Sync(FileOf(state, inode)));
}

void Allocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length, fuse_file_info*) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->Allocate(FileOf(state, inode), mode, static_cast<uint64_t>(offset),
                                              static_cast<uint64_t>(length)));
}

void Seek(fuse_req_t request, fuse_ino_t inode, off_t offset, int whence, fuse_file_info*) {
  const State* const state = StateOf(request);
  Answer<uint64_t>(request, state->filesystem->Seek(FileOf(state, inode), static_cast<uint64_t>(offset), whence),
                   [request](State*, uint64_t found) { fuse_reply_lseek(request, static_cast<off_t>(found)); });
}

void GetSpace(fuse_req_t request, fuse_ino_t) {
  const State* const state = StateOf(request);
  Answer<Space>(request, state->filesystem->GetSpace(), [request](State*, const Space& space) {
    struct statvfs s {};
    s.f_bsize = s.f_frsize = 4096;
    s.f_blocks = space.total_pages;
    s.f_bfree = space.free_pages;
    s.f_bavail = space.available_pages;
    s.f_files = space.inodes + space.free_inodes;
    s.f_ffree = s.f_favail = space.free_inodes;
    s.f_namemax = 255;
    fuse_reply_statfs(request, &s);
  });
}

void Begin(void*, fuse_conn_info* connection) {
  // Without FUSE_CAP_ATOMIC_O_TRUNC: the kernel forgets set-id bits when it leaves the truncation to an open.
  const unsigned wanted = FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK | FUSE_CAP_AUTO_INVAL_DATA |
                          FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                          FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS;
  connection->want = connection->capable & wanted;
  connection->max_write = 1 << 20;
}

}  // namespace

const fuse_lowlevel_ops& FuseOperations() {
  static const fuse_lowlevel_ops operations = [] {
    fuse_lowlevel_ops all{};
    all.init = Begin;
    all.lookup = Lookup;
    all.forget = Forget;
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
    all.release = Release;
    all.opendir = OpenDirectory;
    all.releasedir = ReleaseDirectory;
    all.read = Read;
    all.write = Write;
    all.fsync = Sync;
    all.fsyncdir = Sync;
    all.readdir = ReadDirectory;
    all.readdirplus = ReadDirectoryPlus;
    all.statfs = GetSpace;
    all.setxattr = SetXattr;
    all.getxattr = GetXattr;
    all.listxattr = ListXattr;
    all.removexattr = RemoveXattr;
    all.fallocate = Allocate;
    all.lseek = Seek;
    AddLockOperations(&all);
    return all;
  }();
  return operations;
}

}  // namespace mangrove::fs
