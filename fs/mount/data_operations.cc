// Files and directories are opened; bytes are read and written.

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <utility>

#include "fs/mount/answer.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

bool MayWrite(const fuse_file_info* info) { return (info->flags & O_ACCMODE) != O_RDONLY; }

bool MayKeep(const fuse_file_info& file) { return (file.fh & kKeepsBytes) != 0; }

// In the step that answers it.
fuse_file_info OpenedFile(State* state, fuse_ino_t number, fuse_file_info file) {
  const bool keeps = state->cache.Open(number, MayWrite(&file));
  file.fh = ++state->last_handle | (keeps ? kKeepsBytes : 0);
  file.keep_cache = keeps ? 1 : 0;
  file.direct_io = state->has_direct_io && !keeps ? 1 : 0;
  return file;
}

// The kernel did not take the answer, so it does not have the file open, and will not close it.
void CloseUnheard(State* state, FoundFile file) {
  auto keep = state->shared_from_this();
  ++state->under_way;
  Spawn<absl::Status>(state->filesystem->Close(file), [keep](const absl::Status&) { --keep->under_way; });
}

// For KernelNotices: who opens a file without keeping its bytes has the kernel drop them.
void OpenToDrop(fuse_req_t request, fuse_file_info file) {
  file.fh = kDropsBytes;
  file.keep_cache = 0;
  file.direct_io = 1;
  file.noflush = 1;
  fuse_reply_open(request, &file);
}

void Open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  auto state = StateOf(request)->shared_from_this();
  if (state->notices.IsOwn(fuse_req_ctx(request)->pid)) return OpenToDrop(request, *info);
  const FoundFile file = FileOf(state.get(), number);
  ++state->under_way;
  Spawn<absl::Status>(state->filesystem->Open(file),
                      [state, request, number, file, wanted = *info](const absl::Status& status) {
                        --state->under_way;
                        if (!status.ok()) return ReplyError(request, status);
                        const fuse_file_info opened = OpenedFile(state.get(), number, wanted);
                        if (fuse_reply_open(request, &opened) == 0) return;
                        state->cache.Close(number, MayWrite(&opened), MayKeep(opened));
                        CloseUnheard(state.get(), file);
                      });
}

// libfuse would answer it too, and the directory would go though it is open.
void OpenDirectory(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  auto state = StateOf(request)->shared_from_this();
  const FoundFile file = FileOf(state.get(), number);
  if (state->notices.IsOwn(fuse_req_ctx(request)->pid)) return OpenToDrop(request, *info);
  ++state->under_way;
  Spawn<absl::Status>(state->filesystem->Open(file),
                      [state, request, file, opened = *info](const absl::Status& status) {
                        --state->under_way;
                        if (!status.ok()) {
                          ReplyError(request, status);
                        } else if (fuse_reply_open(request, &opened) != 0) {
                          CloseUnheard(state.get(), file);
                        }
                      });
}

// Where a name that the kernel has not found was made meanwhile it has to look again, and to check whether the caller may open what it is:
// of the answer to a creation it checks nothing.
Task<absl::StatusOr<Attributes>> MakeAndOpen(Filesystem* filesystem, Caller caller, FoundFile directory,
                                             std::string name, mode_t mode, int flags) {
  if ((flags & __O_TMPFILE) != 0) {
    co_return co_await filesystem->MakeUnnamed(caller, directory, mode, (flags & O_EXCL) == 0);
  }
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
  const State* const before = StateOf(request);
  Answer<Attributes>(
      request, MakeAndOpen(before->filesystem, CallerOf(request), FileOf(before, parent), name, mode, info->flags),
      [request, wanted = *info](State* state, const Attributes& attributes) {
        const fuse_entry_param entry = EntryOf(state, attributes);
        const fuse_file_info file = OpenedFile(state, entry.ino, wanted);
        if (fuse_reply_create(request, &entry, &file) == 0) return;
        state->cache.Close(entry.ino, MayWrite(&file), MayKeep(file));
        ForgetEntry(state, entry.ino);
        CloseUnheard(state, attributes.id());
      });
}

// With it the locks go that were set by this file and are nobody's: of flock, and of open files.
Task<absl::Status> CloseHandle(Filesystem* filesystem, FoundFile file, uint16_t mount, uint64_t handle) {
  co_await filesystem->locks()->ClearHandle(mount, handle);
  co_return co_await filesystem->Close(file);
}

void Release(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  State* const state = StateOf(request);
  if (info->fh == kDropsBytes) return static_cast<void>(fuse_reply_err(request, 0));
  state->cache.Close(inode, MayWrite(info), MayKeep(*info));
  Answer(request, CloseHandle(state->filesystem, FileOf(state, inode), state->number, info->fh));
}
void ReleaseDirectory(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  if (info->fh == kDropsBytes) return static_cast<void>(fuse_reply_err(request, 0));
  const State* const state = StateOf(request);
  Answer(request, state->filesystem->Close(FileOf(state, inode)));
}

void Read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info* info) {
  State* const state = StateOf(request);
  state->cache.Read(inode, MayKeep(*info));
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
                      [state, request, size, inode, is_mapped = info->writepage != 0](const absl::Status& status) {
                        --state->under_way;
                        if (!is_mapped) state->cache.Wrote(inode);  // Of a mapping the kernel has what was written.
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

Task<absl::Status> AllocateAndNote(State* state, fuse_ino_t inode, int mode, uint64_t offset, uint64_t length) {
  const absl::Status status = co_await state->filesystem->Allocate(FileOf(state, inode), mode, offset, length);
  state->cache.Wrote(inode);
  co_return status;
}
void Allocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length, fuse_file_info*) {
  Answer(request,
         AllocateAndNote(StateOf(request), inode, mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length)));
}

void Seek(fuse_req_t request, fuse_ino_t inode, off_t offset, int whence, fuse_file_info*) {
  const State* const state = StateOf(request);
  Answer<uint64_t>(request, state->filesystem->Seek(FileOf(state, inode), static_cast<uint64_t>(offset), whence),
                   [request](State*, uint64_t found) { fuse_reply_lseek(request, static_cast<off_t>(found)); });
}

}  // namespace

void AddDataOperations(fuse_lowlevel_ops* operations) {
  operations->open = Open;
  operations->create = Create;
  operations->release = Release;
  operations->opendir = OpenDirectory;
  operations->releasedir = ReleaseDirectory;
  operations->read = Read;
  operations->write = Write;
  operations->fsync = Sync;
  operations->fsyncdir = Sync;
  operations->fallocate = Allocate;
  operations->lseek = Seek;
}

}  // namespace mangrove::fs
