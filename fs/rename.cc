#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr int kMostDepth = 100'000;

}  // namespace

// What an edit has in hand of it.
struct Instance::Move {
  FoundFile from;
  std::string name;
  FoundFile to;
  std::string new_name;
  unsigned flags = 0;

  std::optional<Inode> source_directory;
  std::optional<Inode> target_directory;
  std::optional<Directory::Entry> source_entry;
  std::optional<Directory::Entry> target_entry;
  std::optional<Inode> source;
  std::optional<Inode> target;

  bool IsOfOneDirectory() const { return from.inode == to.inode; }
};

// EINVAL: `directory` is `other`, or somewhere below it. Each directory on the way up stays where it is to the end of the edit.
Task<absl::Status> Instance::IsNotBelow(Edit* edit, InodeNumber directory, InodeNumber other) {
  for (int steps = 0; steps < kMostDepth; ++steps) {
    if (directory == other) co_return PosixError(EINVAL, "a directory cannot go below itself");
    if (directory == root_) co_return absl::OkStatus();
    const absl::StatusOr<Inode> inode = co_await Inode::Get(edit, directory, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    directory = inode->parent();
  }
  co_return PosixError(ELOOP, "directories that are in each other");
}

// Finds everything that takes part, directories in the order of their numbers.
Task<absl::Status> Instance::MoveIn(Edit* edit, Move* move) {
  const bool from_first = move->from.inode < move->to.inode;
  for (const bool is_source : {from_first, !from_first}) {
    absl::StatusOr<Inode> directory = co_await GetDirectory(edit, is_source ? move->from : move->to, Intent::kWrite);
    if (!directory.ok()) co_return directory.status();
    (is_source ? move->source_directory : move->target_directory) = *directory;
  }
  const bool is_of_streams = move->source_directory->IsOfStreams() || move->target_directory->IsOfStreams();
  if (is_of_streams && !move->IsOfOneDirectory()) co_return PosixError(EXDEV, "a stream stays with its file");
  Directory from(edit, &space_, *move->source_directory);
  auto source = co_await from.Find(move->name);
  if (!source.ok()) co_return source.status();
  if (!source->has_value()) co_return PosixError(ENOENT, absl::StrCat("there is no \"", move->name, "\""));
  move->source_entry = *std::move(source);
  Directory to(edit, &space_, *move->target_directory);
  auto target = co_await to.Find(move->new_name);
  if (!target.ok()) co_return target.status();
  move->target_entry = *std::move(target);
  const absl::StatusOr<Inode> inode = co_await Inode::Get(edit, move->source_entry->inode, Intent::kWrite);
  if (!inode.ok()) co_return inode.status();
  move->source = *inode;
  if (!move->target_entry.has_value()) co_return absl::OkStatus();
  const absl::StatusOr<Inode> other = co_await Inode::Get(edit, move->target_entry->inode, Intent::kWrite);
  if (!other.ok()) co_return other.status();
  move->target = *other;
  co_return absl::OkStatus();
}

Task<absl::Status> Instance::CheckMove(Edit* edit, const Move* move) {
  const bool exchanges = (move->flags & RENAME_EXCHANGE) != 0;
  if (exchanges && !move->target) co_return PosixError(ENOENT, absl::StrCat("there is no \"", move->new_name, "\""));
  if ((move->flags & RENAME_NOREPLACE) != 0 && move->target) {
    co_return PosixError(EEXIST, absl::StrCat("there is a \"", move->new_name, "\""));
  }
  if (!move->IsOfOneDirectory()) {
    if (move->source->IsDirectory()) {
      const absl::Status status = co_await IsNotBelow(edit, move->to.inode, move->source->number());
      if (!status.ok()) co_return status;
    }
    if (exchanges && move->target->IsDirectory()) {
      const absl::Status status = co_await IsNotBelow(edit, move->from.inode, move->target->number());
      if (!status.ok()) co_return status;
    }
  }
  if (move->target && move->source->number() == move->target->number()) co_return absl::OkStatus();
  const bool leaves = move->source->IsDirectory();
  const bool comes_back = move->target && move->target->IsDirectory();
  const bool gets_one = leaves && !comes_back && move->target_directory->links() >= kMostLinks;
  const bool gives_one = exchanges && comes_back && !leaves && move->source_directory->links() >= kMostLinks;
  if (!move->IsOfOneDirectory() && (gets_one || gives_one)) co_return PosixError(EMLINK, "too many directories in one");
  if (exchanges || !move->target) co_return absl::OkStatus();
  if (move->source->IsDirectory() && !move->target->IsDirectory()) {
    co_return PosixError(ENOTDIR, absl::StrCat("\"", move->new_name, "\" is no directory"));
  }
  if (!move->target->IsDirectory()) co_return absl::OkStatus();
  if (!move->source->IsDirectory()) {
    co_return PosixError(EISDIR, absl::StrCat("\"", move->new_name, "\" is a directory"));
  }
  const Directory replaced(edit, &space_, *move->target);
  if (replaced.IsEmpty()) co_return absl::OkStatus();
  co_return PosixError(ENOTEMPTY, absl::StrCat("\"", move->new_name, "\" is not empty"));
}

Task<absl::Status> Instance::Exchange(Edit* edit, Move* move) {
  Directory from(edit, &space_, *move->source_directory);
  Directory to(edit, &space_, *move->target_directory);
  absl::Status status =
      co_await from.Replace(*move->source_entry, move->target->number(), move->target->mode() & S_IFMT);
  if (status.ok()) {
    status = co_await to.Replace(*move->target_entry, move->source->number(), move->source->mode() & S_IFMT);
  }
  if (!status.ok()) co_return status;
  move->target->set_changed(pages_->NowNs());
  if (move->IsOfOneDirectory()) co_return absl::OkStatus();
  const auto change = [](Inode* inode, Inode* leaves, Inode* gets) {
    if (!inode->IsDirectory()) return;
    inode->set_parent(gets->number());
    leaves->set_links(leaves->links() - 1);
    gets->set_links(gets->links() + 1);
  };
  change(&*move->source, &*move->source_directory, &*move->target_directory);
  change(&*move->target, &*move->target_directory, &*move->source_directory);
  co_return absl::OkStatus();
}

Task<absl::Status> Instance::Rename(FoundFile from, std::string name, FoundFile to, std::string new_name,
                                    unsigned flags) {
  if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE) {
    co_return PosixError(EINVAL, absl::StrCat("no way to rename: flags ", flags));
  }
  for (const std::string& one : {name, new_name}) {
    if (absl::Status s = CheckName(one); !s.ok()) co_return s;
  }
  InodeNumber removed;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    removed = {};
    Move move{.from = from, .name = name, .to = to, .new_name = new_name, .flags = flags};
    absl::Status status = co_await MoveIn(&edit, &move);
    if (status.ok()) status = co_await CheckMove(&edit, &move);
    if (!status.ok()) co_return status;
    // Two names of one file: POSIX has them stay as they are.
    if (move.target && move.source->number() == move.target->number()) co_return absl::OkStatus();
    if (flags == RENAME_EXCHANGE) {
      status = co_await Exchange(&edit, &move);
    } else {
      Directory target_entries(&edit, &space_, *move.target_directory);
      const mode_t type = move.source->mode() & S_IFMT;
      if (move.target) {
        status = co_await target_entries.Replace(*move.target_entry, move.source->number(), type);
      } else {
        status = co_await target_entries.Add(new_name, move.source->number(), type);
      }
      Directory source_entries(&edit, &space_, *move.source_directory);
      if (status.ok()) status = co_await source_entries.Remove(move.source_entry->key);
      if (!status.ok()) co_return status;
      if (move.source->IsDirectory()) {
        move.source->set_parent(to.inode);
        move.source_directory->set_links(move.source_directory->links() - 1);
        move.target_directory->set_links(move.target_directory->links() + 1);
      }
      if (move.target) {
        if (move.target->IsDirectory()) move.target_directory->set_links(move.target_directory->links() - 1);
        status = co_await DropLink(&edit, *move.target);
        if (move.target->mode() != 0 && move.target->links() == 0) removed = move.target->number();
      }
    }
    move.source->set_changed(pages_->NowNs());
    if (!status.ok()) co_return status;
    Touch(&*move.source_directory);
    co_return co_await TouchNames(&edit, *move.target_directory);
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok() || removed == InodeNumber{} || IsOpen(removed)) co_return status;
  (co_await FinishRemoval(removed)).IgnoreError();
  co_return absl::OkStatus();
}

}  // namespace mangrove::fs
