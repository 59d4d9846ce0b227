#include <algorithm>
#include <cerrno>
#include <utility>

#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr size_t kEntriesAtOnce = 16;

// Whether the pages around these inodes are inodes of the same directory, most of them: how many it has is told by how close the hashes
// lie of some that follow each other.
bool LieDense(const std::vector<Directory::Entry>& entries) {
  constexpr size_t kLeast = 8;
  constexpr double kShare = 0.25;
  constexpr double kKeys = 9.2e18;  // 2^63.
  if (entries.size() < kLeast) return false;
  const auto [least, most] = std::minmax_element(
      entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.inode.value < b.inode.value; });
  const auto keys = static_cast<double>(entries.back().key - entries.front().key + 1);
  const double all = static_cast<double>(entries.size()) / keys * kKeys;
  return all >= kShare * static_cast<double>(most->inode.value - least->inode.value + 1);
}

// Those that can be.
std::vector<uint64_t> InodesOf(const std::vector<Directory::Entry>& entries) {
  const PageSpan zone = PagesOf(Zone::kMetadata);
  std::vector<uint64_t> inodes;
  for (const Directory::Entry& entry : entries) {
    if (entry.inode.value >= zone.first && entry.inode.value - zone.first < zone.count) {
      inodes.push_back(entry.inode.value);
    }
  }
  return inodes;
}

// Of an inode that a directory names, or whose attributes that has: its page is corrupt, or lost, or something else.
bool IsDamage(const absl::Status& status) { return ErrnoOf(status) == EIO || ErrnoOf(status) == ESTALE; }

}  // namespace

Task<absl::StatusOr<std::string>> Instance::ReadLink(FoundFile file) {
  std::string target;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    target.clear();
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    if (!S_ISLNK(inode->mode())) co_return PosixError(EINVAL, "no symbolic link");
    Tree tree(&edit, &space_, inode->main_root());
    const auto chunks = co_await tree.Scan(0, inode->size(), inode->size());
    if (!chunks.ok()) co_return chunks.status();
    for (const TreeRecord& chunk : *chunks) target += chunk.value;
    if (target.size() != inode->size())
      co_return PosixError(EIO, "a symbolic link of another length than its target's");
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok()) co_return status;
  co_return target;
}

// Some entries, each with the attributes that its inode has at the same moment.
Task<absl::StatusOr<std::vector<DirectoryEntry>>> Instance::ListSome(FoundFile directory, uint64_t cookie,
                                                                     size_t most) {
  std::vector<DirectoryEntry> listed;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    listed.clear();
    const absl::StatusOr<Inode> parent = co_await Inode::Get(&edit, directory, Intent::kRead);
    if (!parent.ok()) co_return parent.status();
    if (!parent->IsDirectory()) co_return PosixError(ENOTDIR, "no directory");
    if (absl::Status s = CheckUndamaged(*parent); !s.ok()) co_return s;
    Directory all(&edit, &space_, *parent);
    absl::StatusOr<std::vector<Directory::Entry>> entries = co_await all.List(cookie, most);
    if (!entries.ok()) co_return entries.status();
    if (!edit.glances()) co_await pages_->BringNear(InodesOf(*entries), LieDense(*entries));
    for (Directory::Entry& entry : *entries) {
      const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, entry.inode, Intent::kRead);
      absl::Status found = inode.status();
      Attributes attributes{.inode = entry.inode, .mode = entry.type};
      if (inode.ok()) {
        const absl::StatusOr<Attributes> told = co_await AttributesOf(&edit, *inode);
        found = told.status();
        if (told.ok()) attributes = *told;
      }
      if (!found.ok() && !IsDamage(found)) co_return found;
      listed.push_back({std::move(entry.name), entry.key, attributes, found.ok()});
    }
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunLook(pages_, body);
  if (!status.ok()) co_return status;
  co_return listed;
}

// In edits of few entries each, which keep others from few inodes, and not for long.
Task<absl::StatusOr<std::vector<DirectoryEntry>>> Instance::ReadDirectory(FoundFile directory, uint64_t cookie,
                                                                          size_t most) {
  std::vector<DirectoryEntry> listed;
  while (listed.size() < most) {
    const size_t wanted = std::min(most - listed.size(), kEntriesAtOnce);
    absl::StatusOr<std::vector<DirectoryEntry>> more = co_await ListSome(directory, cookie, wanted);
    if (!more.ok() && listed.empty()) co_return more;
    if (!more.ok()) break;  // Whoever asks for the next ones is told.
    for (DirectoryEntry& entry : *more) listed.push_back(std::move(entry));
    if (more->size() < wanted) break;
    cookie = listed.back().cookie;
  }
  co_return listed;
}

Task<absl::StatusOr<InodeNumber>> Instance::Parent(FoundFile directory) {
  InodeNumber parent;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> inode = co_await GetDirectory(&edit, directory, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    parent = inode->parent();
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunLook(pages_, body);
  if (!status.ok()) co_return status;
  co_return parent;
}

}  // namespace mangrove::fs
