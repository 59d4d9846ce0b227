#include "fs/inode.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "fs/space.h"
#include "fs/status.h"

namespace mangrove::fs {

uint64_t NewGeneration(Pages* pages) { return std::max<uint64_t>(pages->Random(), 1); }

Task<absl::StatusOr<Inode>> Inode::Get(Edit* edit, FoundFile file, Intent intent) {
  const InodeNumber number = file.inode;
  const auto nobody = [&] { return PosixError(ESTALE, absl::StrCat("inode ", number.value, " is nobody's")); };
  const PageSpan zone = PagesOf(Zone::kMetadata);
  if (number.value < zone.first || number.value >= zone.first + zone.count) co_return nobody();
  const absl::StatusOr<EditPage*> page = co_await edit->Get(number.value, PageKind::kInode, intent);
  if (!page.ok()) co_return page.status();
  const Inode inode(*page);
  if (inode.mode() == 0) co_return nobody();
  if (file.generation != 0 && file.generation != inode.generation()) {
    co_return PosixError(ESTALE, absl::StrCat("inode ", number.value, " is another file's by now"));
  }
  co_return inode;
}

Attributes Inode::attributes() const {
  return {.inode = number(),
          .generation = generation(),
          .mode = mode(),
          .links = links(),
          .uid = Load<uint32_t>(32),
          .gid = Load<uint32_t>(36),
          .device = Load<uint64_t>(40),
          .size_bytes = size(),
          .pages = pages() + stream_pages(),
          .accessed_ns = accessed(),
          .modified_ns = modified(),
          .changed_ns = changed(),
          .born_ns = static_cast<int64_t>(Load<uint64_t>(88)),
          .is_of_streams = IsOfStreams()};
}

void Inode::Initialize(const Attributes& attributes, InodeNumber parent) {
  Store(16, attributes.generation);
  set_mode(attributes.mode);
  set_links(attributes.links);
  set_uid(attributes.uid);
  set_gid(attributes.gid);
  Store<uint64_t>(40, attributes.device);
  set_size(attributes.size_bytes);
  set_pages(attributes.pages);
  set_accessed(attributes.accessed_ns);
  set_modified(attributes.modified_ns);
  set_changed(attributes.changed_ns);
  Store(88, static_cast<uint64_t>(attributes.born_ns));
  set_parent(parent);
  for (const TreeRoot& root : {main_root(), xattr_root()}) NodeEditor(root.mutable_bytes()).Clear(0);
}

void Inode::Set(Flag flag, bool value) {
  const auto flags = Load<uint32_t>(104);
  Store<uint32_t>(104, value ? flags | flag : flags & ~static_cast<uint32_t>(flag));
}

std::optional<uint64_t> Inode::orphan_place() const {
  const auto place = Load<uint32_t>(108);
  return place == 0 ? std::nullopt : std::optional<uint64_t>(place - 1);
}

void Inode::set_orphan_place(std::optional<uint64_t> place) {
  Store<uint32_t>(108, place ? static_cast<uint32_t>(*place) + 1 : 0);
}

void Inode::set_dirty(PageSpan pages) {
  Store(112, pages.first);
  Store(120, pages.first + pages.count);
}

void Inode::AddDirty(PageSpan pages) {
  const PageSpan old = dirty();
  Store(128, writes() + 1);
  if (old.count == 0) return set_dirty(pages);
  const uint64_t first = std::min(old.first, pages.first);
  set_dirty({first, std::max(old.first + old.count, pages.first + pages.count) - first});
}

}  // namespace mangrove::fs
