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
#include <string_view>
#include <utility>
#include <vector>

#include "fs/directory.h"
#include "fs/mount/answer.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

// "." and ".." are listed first; entries of the filesystem have cookies behind these.
constexpr off_t kBehindDot = 1;
constexpr off_t kBehindDotDot = 2;
// What an entry takes in the kernel's buffer at least, and how many are asked for at most.
constexpr size_t kLeastEntryBytes = 32;
constexpr size_t kLeastEntryPlusBytes = 160;
constexpr size_t kMostEntries = 512;

int64_t NsOf(const timespec& time) { return time.tv_sec * int64_t{kSecond} + time.tv_nsec; }
int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return NsOf(now);
}

void ReplyEntry(fuse_req_t request, State* state, fuse_entry_param entry, DurationNs attributes, DurationNs name) {
  entry.attr_timeout = SecondsOf(attributes);
  entry.entry_timeout = SecondsOf(name);
  if (fuse_reply_entry(request, &entry) != 0) ForgetEntry(state, entry.ino);
}

// A file that was made or linked: the kernel takes its attributes in whatever it knows by then, so it does not keep them.
void AnswerMade(fuse_req_t request, Task<absl::StatusOr<Attributes>> task) {
  Answer<Attributes>(request, std::move(task), [request](State* state, const Attributes& attributes) {
    ReplyEntry(request, state, EntryOf(state, attributes), 0, 0);
  });
}

// `tell`: the kernel sees to it that no older answer comes behind it.
void AnswerAttributes(fuse_req_t request, fuse_ino_t number, bool tell, Task<absl::StatusOr<Attributes>> task) {
  const KernelCache::Mark mark = StateOf(request)->cache.Now();
  Answer<Attributes>(request, std::move(task), [=](State* state, const Attributes& attributes) {
    const struct stat s = StatOf(state, attributes);
    const DurationNs time = tell ? state->cache.TellAttributes(number, !attributes.is_of_streams, mark) : 0;
    fuse_reply_attr(request, &s, SecondsOf(time));
  });
}

// --- Names ------------------------------------------------------------------------------------------------------------

void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  auto state = StateOf(request)->shared_from_this();
  const KernelCache::Mark mark = state->cache.Now();
  const bool is_of_streams = std::string_view(name).starts_with(kStreamsPrefix);
  ++state->under_way;
  Spawn<absl::StatusOr<Attributes>>(
      state->filesystem->Lookup(FileOf(state.get(), parent), name), [=](const absl::StatusOr<Attributes>& found) {
        --state->under_way;
        const bool has_name = found.ok() && !found->is_of_streams;
        const bool has_none = ErrnoOf(found.status()) == ENOENT && !is_of_streams;
        const DurationNs time = has_name || has_none ? state->cache.TellNames(parent, mark) : 0;
        if (found.ok()) {
          const fuse_entry_param entry = EntryOf(state.get(), *found);
          ReplyEntry(request, state.get(), entry, state->cache.TellAttributes(entry.ino, !found->is_of_streams, mark),
                     time);
        } else if (time > 0) {
          fuse_entry_param none{};
          none.entry_timeout = SecondsOf(time);
          fuse_reply_entry(request, &none);
        } else {
          ReplyError(request, found.status());
        }
      });
}

void MakeNode(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  const State* const state = StateOf(request);
  AnswerMade(request, state->filesystem->MakeNode(CallerOf(request), FileOf(state, parent), name, mode, device));
}

void MakeDirectory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  const State* const state = StateOf(request);
  AnswerMade(request, state->filesystem->MakeDirectory(CallerOf(request), FileOf(state, parent), name, mode));
}

void MakeSymlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  AnswerMade(request, state->filesystem->MakeSymlink(CallerOf(request), FileOf(state, parent), name, target));
}

void Link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  AnswerMade(request, state->filesystem->Link(FileOf(state, inode), FileOf(state, parent), name));
}

void Unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->Unlink(FileOf(state, parent), name));
}

void RemoveDirectory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->RemoveDirectory(FileOf(state, parent), name));
}

Task<absl::Status> RenameAndNote(State* state, fuse_ino_t from, std::string name, fuse_ino_t to, std::string new_name,
                                 unsigned flags) {
  state->cache.BeginMove(from, to);
  const absl::Status status = co_await state->filesystem->Rename(FileOf(state, from), std::move(name),
                                                                 FileOf(state, to), std::move(new_name), flags);
  state->cache.EndMove();
  co_return status;
}

void Rename(fuse_req_t request, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
            unsigned flags) {
  Answer(request, RenameAndNote(StateOf(request), from, name, to, new_name, flags));
}

void Forget(fuse_req_t request, fuse_ino_t inode, uint64_t times) {
  ForgetEntry(StateOf(request), inode, times);
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
  // `mark`: of when they were looked for; `names`: for how long the kernel may keep them.
  ListingBuffer(fuse_req_t request, size_t size, bool with_attributes, KernelCache::Mark mark, DurationNs names)
      : request_(request), bytes_(size, '\0'), with_attributes_(with_attributes), mark_(mark), names_(names) {}

  bool Add(State* state, const DirectoryEntry& entry) {
    // Of a number 0 the kernel takes the name and the type alone.
    fuse_entry_param answer{};
    answer.attr = StatOf(state, entry.attributes);
    const bool is_told = with_attributes_ && entry.is_readable;
    if (is_told) {
      answer = EntryOf(state, entry.attributes);
      const bool is_alone = !entry.attributes.is_of_streams;
      answer.attr_timeout = SecondsOf(state->cache.TellAttributes(answer.ino, is_alone, mark_));
      answer.entry_timeout = SecondsOf(is_alone ? names_ : 0);
    }
    const bool fits = Add(entry.name.c_str(), answer, static_cast<off_t>(entry.cookie));
    if (is_told && fits) told_.push_back(answer.ino);
    if (is_told && !fits) ForgetEntry(state, answer.ino);
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
    for (const fuse_ino_t number : told_) ForgetEntry(state, number);
  }

 private:
  fuse_req_t request_;
  std::string bytes_;
  size_t used_ = 0;
  bool with_attributes_;
  KernelCache::Mark mark_;
  DurationNs names_;
  std::vector<fuse_ino_t> told_;
};

void AnswerListing(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, bool with_attributes) {
  const State* const state = StateOf(request);
  const size_t least_bytes = with_attributes ? kLeastEntryPlusBytes : kLeastEntryBytes;
  const size_t most = std::clamp<size_t>(size / least_bytes, 1, kMostEntries);
  Answer<Listing>(request, List(state->filesystem, FileOf(state, inode), offset, most),
                  [=, mark = state->cache.Now()](State* mount, const Listing& listing) {
                    const DurationNs names = with_attributes ? mount->cache.TellNames(inode, mark) : 0;
                    ListingBuffer buffer(request, size, with_attributes, mark, names);
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

// With a file that is open the kernel asks whether the bytes that it has are right still.
void GetAttributes(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  auto state = StateOf(request)->shared_from_this();
  const auto answer = [state, request, inode] {
    AnswerAttributes(request, inode, true, state->filesystem->GetAttributes(FileOf(state.get(), inode)));
  };
  if (info == nullptr) return answer();
  ++state->under_way;
  state->cache.WhenBytesAreRight(inode, [state, answer] {
    answer();
    --state->under_way;
  });
}

// With new times the next read is one that this filesystem is to hear of.
Task<absl::StatusOr<Attributes>> SetAndNote(State* state, fuse_ino_t inode, AttributesChange change) {
  absl::StatusOr<Attributes> changed = co_await state->filesystem->SetAttributes(FileOf(state, inode), change);
  if (change.accessed_ns || change.modified_ns) state->cache.Wrote(inode);
  co_return changed;
}

void SetAttributes(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int what, fuse_file_info*) {
  State* const state = StateOf(request);
  AttributesChange change;
  if ((what & FUSE_SET_ATTR_MODE) != 0) change.mode = wanted->st_mode & 07777;
  if ((what & FUSE_SET_ATTR_UID) != 0) change.uid = wanted->st_uid;
  if ((what & FUSE_SET_ATTR_GID) != 0) change.gid = wanted->st_gid;
  if ((what & FUSE_SET_ATTR_SIZE) != 0) change.size_bytes = static_cast<uint64_t>(wanted->st_size);
  if ((what & FUSE_SET_ATTR_ATIME) != 0) change.accessed_ns = NsOf(wanted->st_atim);
  if ((what & FUSE_SET_ATTR_MTIME) != 0) change.modified_ns = NsOf(wanted->st_mtim);
  if ((what & FUSE_SET_ATTR_ATIME_NOW) != 0) change.accessed_ns = NowNs();
  if ((what & FUSE_SET_ATTR_MTIME_NOW) != 0) change.modified_ns = NowNs();
  AnswerAttributes(request, inode, false, SetAndNote(state, inode, change));
}

void SetXattr(fuse_req_t request, fuse_ino_t inode, const char* name, const char* value, size_t size, int flags) {
  State* const state = StateOf(request);
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
  State* const state = StateOf(request);
  if (std::string_view(name).starts_with("system.posix_acl_")) state->cache.TellAcl(inode);
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
  State* const state = StateOf(request);
  Answer(request, state->filesystem->RemoveXattr(FileOf(state, inode), name));
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

void Begin(void* user, fuse_conn_info* connection) {
  // Linux 6.14. Before it, an answer about a file that the kernel has forgotten meanwhile is taken in as if it were new.
  constexpr unsigned kMarksForgotten = 42;
  if (connection->proto_minor < kMarksForgotten) static_cast<State*>(user)->cache.KeepNothing();
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
    all.readdir = ReadDirectory;
    all.readdirplus = ReadDirectoryPlus;
    all.statfs = GetSpace;
    all.setxattr = SetXattr;
    all.getxattr = GetXattr;
    all.listxattr = ListXattr;
    all.removexattr = RemoveXattr;
    AddDataOperations(&all);
    AddLockOperations(&all);
    return all;
  }();
  return operations;
}

}  // namespace mangrove::fs
