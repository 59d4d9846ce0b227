// Named streams of regular files and directories. Each is an inode; their names are entries of a directory that has no name itself: its
// owner's inode names it, and Lookup finds it where kStreamsPrefix stands before the owner's name. So all that there is for files and their
// names is there for streams: they are opened, read, written and renamed by the same operations, and their directory is listed.
// Whoever may read the owner may read its streams, and see their names; whoever may write to it may write to them, make and remove them.
//
// Small ones are extended attributes too: kStreamXattrPrefix and the stream's name.

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/acl.h"
#include "fs/extended.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr mode_t kReaders = 0444;
constexpr mode_t kWriters = 0222;
constexpr int kSearchersShift = 1;  // From writers' bits,
constexpr int kReadersShift = 2;    // and from readers'.

// As of attributes in the user's namespace: what many may write to, and only owners remove from, is written to by its owner.
bool IsWrittenByOwnerAlone(const Inode& owner) { return owner.IsDirectory() && (owner.mode() & S_ISVTX) != 0; }

mode_t PermissionsOf(const Inode& owner, bool is_directory) {
  constexpr mode_t kOwnersOnly = 0700;
  mode_t mode = owner.mode() & (kReaders | kWriters);
  if (IsWrittenByOwnerAlone(owner)) mode &= kReaders | kOwnersOnly;
  if (is_directory) mode |= (mode & kReaders) >> kReadersShift | (mode & kWriters) >> kSearchersShift;
  return mode;
}

std::string AttributeNameOf(const std::string& stream) { return absl::StrCat(std::string(kStreamXattrPrefix), stream); }

}  // namespace

// --- What others see --------------------------------------------------------------------------------------------------

// `name`: of an entry of the directory, or nothing for itself.
Task<absl::StatusOr<Attributes>> Instance::LookupStreams(FoundFile directory, std::string name) {
  if (absl::Status s = name.empty() ? absl::OkStatus() : CheckName(name); !s.ok()) co_return s;
  Attributes found;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> owner = co_await GetDirectory(&edit, directory, Intent::kRead);
    if (!owner.ok()) co_return owner.status();
    if (!name.empty()) {
      Directory entries(&edit, &space_, *owner);
      const auto entry = co_await entries.Find(name);
      if (!entry.ok()) co_return entry.status();
      if (!entry->has_value()) co_return PosixError(ENOENT, absl::StrCat("there is no \"", name, "\""));
      owner = co_await Inode::Get(&edit, (*entry)->inode, Intent::kRead);
      if (!owner.ok()) co_return owner.status();
    }
    if (owner->streams() == InodeNumber{}) co_return PosixError(ENOENT, absl::StrCat("\"", name, "\" has no streams"));
    const absl::StatusOr<Inode> streams = co_await Inode::Get(&edit, owner->streams(), Intent::kRead);
    if (!streams.ok()) co_return streams.status();
    const absl::StatusOr<Attributes> told = co_await AttributesOf(&edit, *streams);
    if (told.ok()) found = *told;
    co_return told.status();
  };
  const absl::Status status = co_await RunLook(pages_, body);
  if (!status.ok()) co_return status;
  co_return found;
}

// A stream that has left its owner is as it was then.
Task<absl::StatusOr<Attributes>> Instance::AttributesOf(Edit* edit, Inode inode) {
  Attributes attributes = inode.attributes();
  if (!inode.IsOfStreams() || inode.parent() == InodeNumber{}) co_return attributes;
  const absl::StatusOr<Inode> owner = co_await Inode::Get(edit, inode.parent(), Intent::kRead);
  if (!owner.ok()) co_return owner.status();
  const Attributes owners = owner->attributes();
  attributes.mode = (inode.mode() & S_IFMT) | PermissionsOf(*owner, inode.IsDirectory());
  attributes.uid = owners.uid;
  attributes.gid = owners.gid;
  co_return attributes;
}

Task<absl::StatusOr<std::optional<std::string>>> Instance::AclOfStreams(Edit* edit, Inode inode) {
  if (inode.parent() == InodeNumber{}) co_return std::nullopt;
  const absl::StatusOr<Inode> owner = co_await Inode::Get(edit, inode.parent(), Intent::kRead);
  if (!owner.ok()) co_return owner.status();
  const std::string name(kAccessAcl);
  const absl::StatusOr<std::optional<std::string>> acl = co_await FindXattr(edit, *owner, name);
  if (!acl.ok() || !acl->has_value()) co_return acl;
  absl::StatusOr<std::string> changed = OfStreams(**acl, inode.IsDirectory(), IsWrittenByOwnerAlone(*owner));
  if (!changed.ok()) co_return PosixError(EIO, changed.status().message());
  co_return std::optional<std::string>(*std::move(changed));
}

// The names in a directory change. Of streams that is a change of their owner.
Task<absl::Status> Instance::TouchNames(Edit* edit, Inode directory) {
  Touch(&directory);
  if (!directory.Has(Inode::kStreams)) co_return absl::OkStatus();
  absl::StatusOr<Inode> owner = co_await Inode::Get(edit, directory.parent(), Intent::kWrite);
  if (owner.ok()) owner->set_changed(pages_->NowNs());
  co_return owner.status();
}

// --- Names ------------------------------------------------------------------------------------------------------------

Task<absl::StatusOr<std::vector<Directory::Entry>>> Instance::StreamsOf(Edit* edit, Inode owner) {
  if (owner.streams() == InodeNumber{}) co_return std::vector<Directory::Entry>();
  const absl::StatusOr<Inode> streams = co_await Inode::Get(edit, owner.streams(), Intent::kRead);
  if (!streams.ok()) co_return streams.status();
  Directory entries(edit, &space_, *streams);
  co_return co_await entries.List(0, ~size_t{0});
}

Task<absl::StatusOr<std::optional<Inode>>> Instance::FindStream(Edit* edit, Inode owner, std::string name,
                                                                Intent intent) {
  if (owner.streams() == InodeNumber{}) co_return std::nullopt;
  const absl::StatusOr<Inode> streams = co_await Inode::Get(edit, owner.streams(), Intent::kRead);
  if (!streams.ok()) co_return streams.status();
  Directory entries(edit, &space_, *streams);
  const auto entry = co_await entries.Find(name);
  if (!entry.ok()) co_return entry.status();
  if (!entry->has_value()) co_return std::nullopt;
  const absl::StatusOr<Inode> stream = co_await Inode::Get(edit, (*entry)->inode, intent);
  if (!stream.ok()) co_return stream.status();
  co_return std::optional<Inode>(*stream);
}

// REQUIRES: there is none of this name, and the owner was obtained for writing.
Task<absl::StatusOr<Inode>> Instance::MakeStream(Edit* edit, Inode owner, std::string name) {
  const Caller caller{.uid = owner.attributes().uid, .gid = owner.attributes().gid};
  if (owner.streams() == InodeNumber{}) {
    NewFile directory{.caller = caller, .mode = S_IFDIR};
    // Not of the owner, which may be a directory that hands things down.
    const absl::StatusOr<Inode> root = co_await Inode::Get(edit, root_, Intent::kRead);
    if (!root.ok()) co_return root.status();
    absl::StatusOr<Inode> made = co_await MakeInode(edit, *root, std::move(directory));
    if (!made.ok()) co_return made.status();
    made->Set(Inode::kStreams, true);
    made->set_parent(owner.number());
    owner.set_streams(made->number());
  }
  const absl::StatusOr<Inode> streams = co_await Inode::Get(edit, owner.streams(), Intent::kWrite);
  if (!streams.ok()) co_return streams.status();
  NewFile file{.caller = caller, .mode = S_IFREG};
  const absl::StatusOr<Inode> stream = co_await MakeInode(edit, *streams, std::move(file));
  if (!stream.ok()) co_return stream.status();
  Directory entries(edit, &space_, *streams);
  absl::Status status = co_await entries.Add(std::move(name), stream->number(), S_IFREG);
  if (status.ok()) status = co_await TouchNames(edit, *streams);
  if (!status.ok()) co_return status;
  co_return *stream;
}

// --- Whole values -----------------------------------------------------------------------------------------------------

Task<absl::StatusOr<std::optional<std::string>>> Instance::StreamValue(Edit* edit, Inode owner, std::string name) {
  const absl::StatusOr<std::optional<Inode>> stream = co_await FindStream(edit, owner, name, Intent::kRead);
  if (!stream.ok()) co_return stream.status();
  if (!stream->has_value()) co_return std::nullopt;
  if ((*stream)->size() > kMostXattrBytes) {
    co_return PosixError(E2BIG, absl::StrCat("stream \"", name, "\" has ", (*stream)->size(),
                                             " bytes; an attribute at most ", kMostXattrBytes));
  }
  std::string bytes((*stream)->size(), '\0');
  const absl::Status status = co_await ReadBytes(edit, **stream, 0, &bytes);
  if (!status.ok()) co_return status;
  co_return std::optional<std::string>(std::move(bytes));
}

// Pages come in an edit before that which writes to them (S2): what did not exist is empty in between.
Task<absl::Status> Instance::SetStream(FoundFile file, std::string name, std::string value, XattrMode mode) {
  if (absl::Status s = CheckName(name); !s.ok()) co_return s;
  bool was_made = false;
  bool took_pages = false;
  bool is_made = false;
  bool is_done = false;
  InodeNumber unfinished;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    is_made = was_made;
    is_done = false;
    unfinished = {};
    absl::StatusOr<Inode> owner = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!owner.ok()) co_return owner.status();
    if (!owner->MayHaveStreams()) co_return PosixError(EOPNOTSUPP, "only regular files and directories have streams");
    absl::StatusOr<std::optional<Inode>> found = co_await FindStream(&edit, *owner, name, Intent::kWrite);
    if (!found.ok()) co_return found.status();
    if (found->has_value() && mode == XattrMode::kCreate && !was_made) {
      co_return PosixError(EEXIST, absl::StrCat("there is a stream \"", name, "\""));
    }
    if (!found->has_value()) {
      if (mode == XattrMode::kReplace) co_return NoAttribute(AttributeNameOf(name));
      const absl::StatusOr<Inode> made = co_await MakeStream(&edit, *owner, name);
      if (!made.ok()) co_return made.status();
      *found = *made;
      is_made = true;
    }
    Inode stream = **found;
    if (stream.Has(Inode::kShrinking)) {
      unfinished = stream.number();
      co_return absl::OkStatus();
    }
    owner->set_changed(pages_->NowNs());
    if (!value.empty()) {
      const absl::StatusOr<bool> has_room = co_await MakeRoom(&edit, stream, 0, value.size(), &took_pages);
      if (!has_room.ok()) co_return has_room.status();
      if (!*has_room) co_return absl::OkStatus();
      const absl::Status status = co_await WriteBytes(&edit, stream, 0, &value, false);
      if (!status.ok()) co_return status;
    }
    is_done = true;
    const absl::StatusOr<bool> all = co_await Resize(&edit, stream, value.size());
    if (!all.ok()) co_return all.status();
    if (!*all) unfinished = stream.number();
    Touch(&stream);
    co_return absl::OkStatus();
  };
  while (!is_done) {
    absl::Status status = co_await RunEdit(pages_, body);
    if (!status.ok()) co_return status;
    was_made = is_made;
    if (unfinished == InodeNumber{}) continue;
    status = co_await FinishRemoval(unfinished);
    if (!status.ok() && !is_done) co_return status;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Instance::RemoveStream(FoundFile file, std::string name) {
  InodeNumber streams;
  auto find = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> owner = co_await Inode::Get(&edit, file, Intent::kRead);
    if (owner.ok()) streams = owner->streams();
    co_return owner.status();
  };
  absl::Status status = co_await RunEdit(pages_, find);
  if (!status.ok()) co_return status;
  if (streams == InodeNumber{} || !CheckName(name).ok()) co_return NoAttribute(AttributeNameOf(name));
  status = co_await Unlink(streams, name);
  if (ErrnoOf(status) == ENOENT) co_return NoAttribute(AttributeNameOf(name));
  co_return status;
}

// --- Removal ----------------------------------------------------------------------------------------------------------

// It has no name any more; who has it open goes on. I4
Task<absl::Status> Instance::LeaveOwner(Edit* edit, Inode stream) {
  if (stream.parent() == InodeNumber{}) co_return absl::OkStatus();
  const absl::StatusOr<Attributes> last = co_await AttributesOf(edit, stream);
  if (!last.ok()) co_return last.status();
  absl::StatusOr<Inode> owner = co_await Inode::Get(edit, stream.parent(), Intent::kWrite);
  if (!owner.ok()) co_return owner.status();
  owner->set_stream_pages(owner->stream_pages() - stream.pages());
  stream.set_mode(last->mode);
  stream.set_uid(last->uid);
  stream.set_gid(last->gid);
  stream.set_parent({});
  co_return absl::OkStatus();
}

// A step for an owner that is freed: of one stream, or of the directory.
Task<absl::Status> Instance::FreeSomeStreams(Edit* edit, Inode owner) {
  absl::StatusOr<Inode> streams = co_await Inode::Get(edit, owner.streams(), Intent::kWrite);
  if (!streams.ok()) co_return streams.status();
  Directory entries(edit, &space_, *streams);
  const absl::StatusOr<std::vector<Directory::Entry>> first = co_await entries.List(0, 1);
  if (!first.ok()) co_return first.status();
  if (first->empty()) {
    const absl::StatusOr<bool> gone = co_await FreeSome(edit, *streams);
    if (gone.ok() && *gone) owner.set_streams({});
    co_return gone.status();
  }
  absl::StatusOr<Inode> stream = co_await Inode::Get(edit, first->front().inode, Intent::kWrite);
  if (!stream.ok()) co_return stream.status();
  bool is_open = IsOpen(stream->number());
  if (!is_open) {
    const absl::StatusOr<bool> elsewhere = co_await pages_->IsOpenElsewhere(stream->number());
    if (!elsewhere.ok()) co_return elsewhere.status();
    is_open = *elsewhere;
  }
  if (!is_open) {
    const absl::StatusOr<bool> gone = co_await FreeSome(edit, *stream);
    if (!gone.ok() || !*gone) co_return gone.status();
    co_return co_await entries.Remove(first->front().key);
  }
  absl::Status status = co_await entries.Remove(first->front().key);
  if (status.ok()) status = co_await DropLink(edit, *stream);
  co_return status;
}

}  // namespace mangrove::fs
