// An inode: one page, with a file's attributes and the roots of its trees.
//
//   16 generation 8   24 mode 4   28 links 4   32 owner 4   36 group 4   40 device 8   48 size 8   56 pages of data 8
//   64 times: accessed, modified, changed, born, 8 each   96 directory that it is in, of directories 8   104 flags 4   108 the place that has it among its orphans, plus 1, or 0 4
//   112 pages of the stream that may not be durable: first 8, end 8   128 writes of its stream, counted 8
//   176 directory of its named streams 8 (0: it never had one)   184 pages of these 8
//   192 main root: extents of a regular file, entries of a directory, the target of a symbolic link
//   2880 root of the extended attributes
//
//   I1  A file with links, or that somebody has open, is no other file; one without either is in a place's tree of orphans, and says in which,
//       until its pages are free (remove.cc).
//   I2  Behind the end of a file its pages may hold anything: who makes it longer fills them with zeros, up to where it writes; and what is
//       left behind the end in its last page too, durably, so that no loss brings it to light.
//   I3  No two files have had one page's number and one generation: that is 64 random bits, taken when the file is made. A loss, or a log that is
//       replayed, brings nothing back that somebody could have seen and that was not this file.
//   I4  A named stream is an inode in the directory of streams of its owner, which is the parent of both (fs/streams.cc). The owner counts
//       the stream's pages as long as it is in there; afterwards it has no parent.

#pragma once

#include <cstdint>
#include <optional>

#include "fs/attributes.h"
#include "fs/bytes.h"
#include "fs/edit.h"
#include "fs/tree.h"

namespace mangrove::fs {

constexpr uint64_t kMostFileBytes = (uint64_t{1} << 63) - 1;
constexpr uint32_t kMostLinks = 65'000;

// Of a file that is being made: I3.
uint64_t NewGeneration(Pages* pages);

class Inode {
 public:
  enum Flag : uint32_t {
    kShrinking = 1,    // It has extents behind its end that are to be freed.
    kOldTail = 2,      // Its last page has bytes of before behind the end.
    kOneCopy = 4,      // What it takes from now on is kept on one disk. Of a directory: what is made in it is so.
    kStreams = 8,      // It is a directory of named streams,
    kStream = 16,      // or one of these.
    kDamaged = 32,     // A directory that a check could not repair: nobody uses it.
    kMayBeNamed = 64,  // It was made without a name, and may be given one while it is open.
  };

  explicit Inode(EditPage* page) : page_(page) {}
  // ESTALE: it is no inode, or not in use, or another file's.
  static Task<absl::StatusOr<Inode>> Get(Edit* edit, FoundFile file, Intent intent);

  InodeNumber number() const { return {page_->number()}; }
  uint64_t generation() const { return Load<uint64_t>(16); }
  Attributes attributes() const;
  mode_t mode() const { return Load<uint32_t>(24); }
  bool IsDirectory() const { return S_ISDIR(mode()); }
  bool IsRegular() const { return S_ISREG(mode()); }
  uint32_t links() const { return Load<uint32_t>(28); }
  uint64_t size() const { return Load<uint64_t>(48); }
  uint64_t pages() const { return Load<uint64_t>(56); }
  int64_t accessed() const { return static_cast<int64_t>(Load<uint64_t>(64)); }
  int64_t modified() const { return static_cast<int64_t>(Load<uint64_t>(72)); }
  int64_t changed() const { return static_cast<int64_t>(Load<uint64_t>(80)); }
  InodeNumber parent() const { return {Load<uint64_t>(96)}; }
  bool IsOfStreams() const { return Has(kStreams) || Has(kStream); }
  bool MayHaveStreams() const { return (IsRegular() || IsDirectory()) && !IsOfStreams(); }
  InodeNumber streams() const { return {Load<uint64_t>(176)}; }
  uint64_t stream_pages() const { return Load<uint64_t>(184); }
  bool Has(Flag flag) const { return (Load<uint32_t>(104) & flag) != 0; }
  uint64_t writes() const { return Load<uint64_t>(128); }
  // The place whose tree of orphans has it.
  std::optional<uint64_t> orphan_place() const;
  PageSpan dirty() const { return {Load<uint64_t>(112), Load<uint64_t>(120) - Load<uint64_t>(112)}; }

  // REQUIRES, all of these: obtained for writing.
  void Initialize(const Attributes& attributes, InodeNumber parent);
  void set_mode(mode_t mode) { Store<uint32_t>(24, mode); }
  void set_links(uint32_t links) { Store(28, links); }
  void set_uid(uid_t uid) { Store<uint32_t>(32, uid); }
  void set_gid(gid_t gid) { Store<uint32_t>(36, gid); }
  void set_size(uint64_t size) { Store(48, size); }
  void set_pages(uint64_t pages) { Store(56, pages); }
  void set_accessed(int64_t ns) { Store(64, static_cast<uint64_t>(ns)); }
  void set_modified(int64_t ns) { Store(72, static_cast<uint64_t>(ns)); }
  void set_changed(int64_t ns) { Store(80, static_cast<uint64_t>(ns)); }
  void set_parent(InodeNumber parent) { Store(96, parent.value); }
  void set_streams(InodeNumber directory) { Store(176, directory.value); }
  void set_stream_pages(uint64_t pages) { Store(184, pages); }
  void Set(Flag flag, bool value);
  void set_orphan_place(std::optional<uint64_t> place);
  void set_dirty(PageSpan pages);
  // These pages of the stream were written to.
  void AddDirty(PageSpan pages);

  TreeRoot main_root() const { return {page_, 192, 2688}; }
  TreeRoot xattr_root() const { return {page_, 2880, 1200}; }

 private:
  template <typename T>
  T Load(size_t at) const {
    return GetLittle<T>(page_->bytes(), at);
  }
  template <typename T>
  void Store(size_t at, T value) {
    PutLittle(page_->mutable_bytes(), at, value);
  }

  EditPage* page_;
};

}  // namespace mangrove::fs
