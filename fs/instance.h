// A fileset's instance on a node: Filesystem over pages.
//
//   instance.cc         making a fileset, opening it
//   names.cc            lookup, and everything that makes a name
//   remove.cc           what takes a name away, and what is done when it was the last
//   rename.cc
//   listing.cc          directories and symbolic links are read
//   file_attributes.cc  attributes; files that become shorter
//   file_data.cc        bytes are read and written, made durable
//   file_space.cc       storage ahead, holes
//   extended.cc         extended attributes and ACLs
//   filesystem_space.cc what is used, and what is free
//   streams.cc          named streams
//
// Each operation is one edit, but for what frees many extents: that is done in steps, which anybody goes on with (remove.cc).

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/directory.h"
#include "fs/filesystem.h"
#include "fs/inode.h"
#include "fs/quota.h"
#include "fs/space.h"
#include "fs/stream.h"

namespace mangrove::fs {

struct FilesetOptions {
  uint32_t replicas = 0;  // Of everything in it; 0: as the cluster does.
  uid_t owner = 0;        // Of the root directory,
  gid_t group = 0;
  mode_t mode = 0755;  // and its permissions.
};

// The tree of orphans in a node's place: inodes that are to be freed, or to be made shorter, when nobody has them open any more.
TreeRoot PlaceRoot(EditPage* page);
// The incarnation that uses the fileset, or did when it was lost; 0: none.
uint64_t UserOfPlace(const EditPage& page);

class Instance final : public Filesystem {
 public:
  // Makes an empty fileset of a region in which nothing is allocated, or where that was interrupted.
  static Task<absl::Status> Make(Pages* pages, FilesetOptions options);
  // EIO: there is no sound fileset. `pages` outlives the result.
  static Task<absl::StatusOr<std::unique_ptr<Instance>>> Open(Pages* pages);

  Instance(Pages* pages, InodeNumber root) : pages_(pages), root_(root), space_(pages) {}

  InodeNumber root() const override { return root_; }
  Task<absl::StatusOr<Attributes>> Lookup(FoundFile directory, std::string name) override;
  Task<absl::StatusOr<Attributes>> MakeNode(Caller caller, FoundFile directory, std::string name, mode_t mode,
                                            dev_t device) override;
  Task<absl::StatusOr<Attributes>> MakeDirectory(Caller caller, FoundFile directory, std::string name,
                                                 mode_t mode) override;
  Task<absl::StatusOr<Attributes>> MakeSymlink(Caller caller, FoundFile directory, std::string name,
                                               std::string target) override;
  Task<absl::StatusOr<Attributes>> MakeUnnamed(Caller caller, FoundFile directory, mode_t mode,
                                               bool may_be_named) override;
  Task<absl::StatusOr<Attributes>> Link(FoundFile file, FoundFile directory, std::string name) override;
  Task<absl::Status> Unlink(FoundFile directory, std::string name) override;
  Task<absl::Status> RemoveDirectory(FoundFile directory, std::string name) override;
  Task<absl::Status> Rename(FoundFile from, std::string name, FoundFile to, std::string new_name,
                            unsigned flags) override;
  Task<absl::StatusOr<std::string>> ReadLink(FoundFile file) override;
  Task<absl::StatusOr<std::vector<DirectoryEntry>>> ReadDirectory(FoundFile directory, uint64_t cookie,
                                                                  size_t most) override;
  Task<absl::StatusOr<InodeNumber>> Parent(FoundFile directory) override;
  Task<absl::StatusOr<Attributes>> GetAttributes(FoundFile file) override;
  Task<absl::StatusOr<Attributes>> SetAttributes(FoundFile file, AttributesChange change) override;
  Task<absl::StatusOr<std::string>> GetXattr(FoundFile file, std::string name) override;
  Task<absl::Status> SetXattr(FoundFile file, std::string name, std::string value, XattrOptions options) override;
  Task<absl::Status> RemoveXattr(FoundFile file, std::string name) override;
  Task<absl::StatusOr<std::vector<std::string>>> ListXattr(FoundFile file) override;
  Task<absl::Status> Open(FoundFile file) override;
  Task<absl::Status> Close(FoundFile file) override;
  Task<absl::StatusOr<std::string>> Read(FoundFile file, uint64_t offset, uint64_t length) override;
  Task<absl::StatusOr<std::string>> ReadUnnoticed(FoundFile file, uint64_t offset, uint64_t length) override;
  Task<absl::Status> Write(FoundFile file, uint64_t offset, std::string bytes, WriteOptions options) override;
  Task<absl::Status> Allocate(FoundFile file, int mode, uint64_t offset, uint64_t length) override;
  Task<absl::StatusOr<uint64_t>> Seek(FoundFile file, uint64_t offset, int whence) override;
  Task<absl::Status> Sync(FoundFile file) override;
  FileLocks* locks() override { return pages_->locks(); }
  PageCopies* copies() override { return pages_->copies(); }
  Task<absl::StatusOr<Space>> GetSpace() override;

  // Before anything else: this node uses the fileset from now on. If it did when it was lost, what that left behind is put in order.
  Task<absl::Status> BeginUse();
  // In good order, after everything else of the last instance on this node.
  Task<absl::Status> EndUse();
  // Frees what nodes that are gone had begun to free, or had open. For a check, and whoever opens the fileset.
  Task<absl::Status> FinishRemovals();
  // To be called once a second or so (fs/upkeep.h): goes on with what could not be freed, and with what nodes that are gone leave behind.
  // Where there is none it looks at nothing but the view. After an error it goes on the next time.
  Task<absl::Status> TakeCare();
  // A call that is under way ends soon.
  void StopCare() { stops_care_ = true; }

 private:
  struct NewFile {
    Caller caller;
    mode_t mode = 0;
    dev_t device = 0;
    std::string target;  // Of a symbolic link.
  };

  Task<absl::Status> SetUser(uint64_t incarnation);
  // names.cc
  static Task<absl::StatusOr<Inode>> GetDirectory(Edit* edit, FoundFile file, Intent intent);
  static absl::Status CheckUndamaged(const Inode& directory);
  void Touch(Inode* directory) const;
  Task<absl::StatusOr<Attributes>> MakeFile(FoundFile directory, std::string name, NewFile file);
  Task<absl::StatusOr<Inode>> MakeInode(Edit* edit, Inode directory, NewFile file);
  Task<absl::Status> WriteTarget(Edit* edit, Inode inode, std::string target);
  // listing.cc
  Task<absl::StatusOr<std::vector<DirectoryEntry>>> ListSome(FoundFile directory, uint64_t cookie, size_t most);
  // remove.cc
  Task<absl::Status> OpenMade(FoundFile file, bool is_unnamed);
  Task<absl::Status> DropLink(Edit* edit, Inode inode);
  Task<absl::Status> RemoveOrKeep(Edit* edit, Inode inode);
  Task<absl::StatusOr<bool>> FreeSome(Edit* edit, Inode inode);
  Task<absl::StatusOr<bool>> FreeTree(Edit* edit, TreeRoot root);
  Task<absl::Status> NameOrphan(Edit* edit, uint64_t place, InodeNumber inode, bool orphan);
  Task<absl::Status> MakeOrphan(Edit* edit, Inode inode);
  Task<absl::Status> EndOrphan(Edit* edit, Inode inode);
  // orphans.cc
  enum class Removal : uint8_t { kHasMore, kDone, kInUse };
  Task<absl::StatusOr<Removal>> FinishSome(Edit* edit, InodeNumber number, std::optional<uint64_t> place);
  Task<absl::StatusOr<Removal>> Finish(InodeNumber number, std::optional<uint64_t> place);
  Task<absl::Status> FinishRemoval(InodeNumber inode);
  Task<absl::Status> FinishRemovalsOf(uint64_t place);
  Task<absl::Status> TryLeftovers();
  void NoteLeftover(InodeNumber inode) { leftovers_.try_emplace(inode); }
  // rename.cc
  struct Move;
  Task<absl::Status> MoveIn(Edit* edit, Move* move);
  Task<absl::Status> CheckMove(Edit* edit, const Move* move);
  Task<absl::Status> IsNotBelow(Edit* edit, InodeNumber directory, InodeNumber other);
  Task<absl::Status> Exchange(Edit* edit, Move* move);
  // file_data.cc
  Task<absl::StatusOr<std::string>> ReadAt(FoundFile file, uint64_t offset, uint64_t length, bool* wants_time);
  Task<absl::Status> ReadBytes(Edit* edit, Inode inode, uint64_t offset, std::string* bytes);
  Task<absl::Status> CheckRoom(const std::vector<Extent>* map, PageSpan pages);
  Task<absl::StatusOr<bool>> MakeRoom(Edit* edit, Inode inode, uint64_t from, uint64_t length, bool* took);
  Task<absl::Status> WriteBytes(Edit* edit, Inode inode, uint64_t from, const std::string* bytes, bool clears_set_id);
  Task<absl::Status> SyncOne(FoundFile file);
  // file_attributes.cc
  Task<absl::StatusOr<bool>> Resize(Edit* edit, Inode inode, uint64_t size);
  Task<absl::StatusOr<bool>> Shrink(Edit* edit, Inode inode);
  Task<absl::Status> ClearBehindEnd(Edit* edit, Inode inode, uint64_t to);
  Task<absl::StatusOr<bool>> AreZeros(uint64_t place, uint64_t length);
  Task<absl::Status> ZeroBytes(Edit* edit, Inode inode, uint64_t from, uint64_t to);
  // filesystem_space.cc
  Task<absl::StatusOr<Usage>> UsageNow();
  // extended.cc
  Task<absl::StatusOr<std::optional<std::string>>> FindXattr(Edit* edit, Inode inode, std::string name);
  Task<absl::Status> PutXattr(Edit* edit, Inode inode, std::string name, std::string value, XattrMode mode);
  Task<absl::StatusOr<bool>> EraseXattr(Edit* edit, Inode inode, std::string name);
  Task<absl::Status> ChangeModeOfAcl(Edit* edit, Inode inode);
  Task<absl::Status> InheritCopies(Edit* edit, Inode directory, Inode made);
  Task<absl::StatusOr<mode_t>> InheritAcl(Edit* edit, Inode directory, Inode made, NewFile file);

  // Of an orphan that was to be freed, and could not be: in how many calls of TakeCare it is tried again, and after how many the next time.
  struct Leftover {
    uint32_t tries_in = 1;
    uint32_t wait = 1;
  };
  // What is durable of a file's bytes, where its inode does not say so yet: all that was written before its `writes` came to this.
  struct Synced {
    uint64_t generation = 0;
    uint64_t writes = 0;
  };
  bool IsSynced(const Inode& inode) const;
  void NoteSynced(InodeNumber inode, Synced synced);
  // streams.cc
  Task<absl::StatusOr<Attributes>> LookupStreams(FoundFile directory, std::string name);
  Task<absl::StatusOr<Attributes>> AttributesOf(Edit* edit, Inode inode);
  Task<absl::StatusOr<std::optional<std::string>>> AclOfStreams(Edit* edit, Inode inode);
  Task<absl::Status> TouchNames(Edit* edit, Inode directory);
  Task<absl::StatusOr<std::vector<Directory::Entry>>> StreamsOf(Edit* edit, Inode owner);
  Task<absl::StatusOr<std::optional<Inode>>> FindStream(Edit* edit, Inode owner, std::string name, Intent intent);
  Task<absl::StatusOr<Inode>> MakeStream(Edit* edit, Inode owner, std::string name);
  Task<absl::StatusOr<std::optional<std::string>>> StreamValue(Edit* edit, Inode owner, std::string name);
  Task<absl::Status> SetStream(FoundFile file, std::string name, std::string value, XattrMode mode);
  Task<absl::Status> RemoveStream(FoundFile file, std::string name);
  Task<absl::Status> LeaveOwner(Edit* edit, Inode stream);
  Task<absl::Status> FreeSomeStreams(Edit* edit, Inode owner);

  bool IsOpen(InodeNumber inode) const { return open_.contains(inode) || opening_.contains(inode); }

  Pages* const pages_;
  const InodeNumber root_;
  SpaceMap space_;
  // What was used when it was counted last, and until when that will do.
  decltype(Usage::used) counted_{};
  int64_t counted_until_ns_ = 0;
  std::map<InodeNumber, Synced> synced_;
  std::map<InodeNumber, uint64_t> open_;     // How often.
  std::map<InodeNumber, uint64_t> opening_;  // Of which it is not known yet whether they are there.
  std::map<InodeNumber, Leftover> leftovers_;
  bool stops_care_ = false;
  uint32_t sweep_in_ = 0;  // In how many calls of TakeCare all places are looked at; 0: it was not said yet.
};

}  // namespace mangrove::fs
