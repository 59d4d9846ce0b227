// Named streams against their owners: K7, and what of K5 is about them.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "fs/checker.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr int kMostTries = 4;
constexpr size_t kStreamsAtOnce = 64;  // Their inodes, in one edit.

}  // namespace

// Of a directory of streams: no directory has its name, its owner names it.
Task<absl::StatusOr<bool>> Checker::IsNamedByOwner(Edit* edit, Inode streams) {
  if (!HasGroup(streams.parent().value, false)) co_return false;
  const absl::StatusOr<Inode> owner = co_await Inode::Get(edit, streams.parent(), Intent::kRead);
  if (absl::IsDataLoss(owner.status())) co_return true;  // It may be there again one day.
  if (!owner.ok() && !IsDamage(owner.status())) co_return owner.status();
  co_return owner.ok() && owner->streams() == streams.number();
}

// REQUIRES: the owner names a directory.
Task<absl::Status> Checker::CheckStreamsDirectory(Edit* edit, Inode owner) {
  absl::Status wrong = PosixError(ESTALE, "it is in no group of metadata");
  if (HasGroup(owner.streams().value, false)) {
    const absl::StatusOr<Inode> streams = co_await Inode::Get(edit, owner.streams(), Intent::kRead);
    if (!streams.ok() && !IsDamage(streams.status())) co_return streams.status();
    const bool is_one = streams.ok() && streams->Has(Inode::kStreams) && streams->IsDirectory();
    if (is_one && streams->parent() == owner.number()) co_return absl::OkStatus();
    wrong = streams.status();
  }
  // One that is damaged goes first: it may be mended yet.
  bool repairs = options_.repair && !absl::IsDataLoss(wrong);
  if (repairs && !wrong.ok() && HasGroup(owner.streams().value, false)) {
    const absl::StatusOr<bool> is_marked = co_await IsMarked(edit, owner.streams().value);
    if (!is_marked.ok()) co_return is_marked.status();
    repairs = !*is_marked;
  }
  Found(absl::StrCat("inode ", owner.number().value, " has its streams in inode ", owner.streams().value,
                     ", which is no directory of streams"),
        repairs ? "it has none now" : "");
  if (!repairs) co_return absl::OkStatus();
  owner.set_streams({});
  owner.set_changed(pages_->NowNs());
  co_return absl::OkStatus();
}

// Whoever changes what there is to add up changes the owner's count too. False: some of it could not be read.
Task<absl::StatusOr<bool>> Checker::SumStreams(uint64_t owner, uint64_t* state, uint64_t* pages) {
  *state = 0;
  *pages = 0;
  uint64_t from = 0;
  bool is_last = false;
  bool is_whole = true;
  while (!is_last) {
    uint64_t sum = 0;
    uint64_t next = from;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      sum = 0;
      next = from;
      is_last = true;
      const absl::Status counted = co_await ReadCounts(&edit);
      if (!counted.ok()) co_return counted;
      const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{owner}, Intent::kRead);
      is_whole = is_whole && inode.ok();
      if (!inode.ok()) co_return IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
      const absl::StatusOr<EditPage*> page = co_await edit.Get(owner, PageKind::kInode, Intent::kRead);
      if (!page.ok()) co_return page.status();
      if (from == 0) *state = StateOf((*page)->bytes());
      if (!HasGroup(inode->streams().value, false)) co_return absl::OkStatus();
      const absl::StatusOr<Inode> streams = co_await Inode::Get(&edit, inode->streams(), Intent::kRead);
      is_whole = is_whole && !absl::IsDataLoss(streams.status());
      if (!streams.ok()) co_return IsDamage(streams.status()) ? absl::OkStatus() : streams.status();
      Directory entries(&edit, &space_, *streams);
      const absl::StatusOr<std::vector<Directory::Entry>> some =
          co_await entries.List(from, std::min(options_.records_at_once, kStreamsAtOnce));
      is_whole = is_whole && some.ok();
      if (!some.ok()) co_return IsDamage(some.status()) ? absl::OkStatus() : some.status();
      for (const Directory::Entry& entry : *some) {
        next = entry.key;
        if (!HasGroup(entry.inode.value, false)) continue;
        const absl::StatusOr<Inode> stream = co_await Inode::Get(&edit, entry.inode, Intent::kRead);
        if (absl::IsDataLoss(stream.status())) is_whole = false;
        if (!stream.ok() && !IsDamage(stream.status())) co_return stream.status();
        if (stream.ok() && stream->Has(Inode::kStream)) sum += stream->pages();
      }
      is_last = some->empty();
      co_return absl::OkStatus();
    };
    const absl::Status status = co_await Look(body);
    if (!status.ok()) co_return status;
    *pages += sum;
    from = next;
  }
  co_return is_whole;
}

Task<absl::Status> Checker::CheckStreams(uint64_t owner) {
  for (int attempt = 1; attempt <= kMostTries; ++attempt) {
    uint64_t state = 0;
    uint64_t pages = 0;
    const absl::StatusOr<bool> is_whole = co_await SumStreams(owner, &state, &pages);
    if (!is_whole.ok()) co_return is_whole.status();
    bool is_steady = true;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      is_steady = true;
      absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{owner}, intent());
      if (!inode.ok()) co_return IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
      const absl::StatusOr<EditPage*> page = co_await edit.Get(owner, PageKind::kInode, Intent::kRead);
      if (!page.ok()) co_return page.status();
      is_steady = StateOf((*page)->bytes()) == state;
      if (!is_steady) co_return absl::OkStatus();
      if (*is_whole && inode->stream_pages() != pages) {
        Found(absl::StrCat("inode ", owner, " counts ", inode->stream_pages(), " pages of its streams, which have ",
                           pages),
              options_.repair ? "it counts them now" : "");
        if (options_.repair) inode->set_stream_pages(pages);
      }
      if (inode->streams() == InodeNumber{}) co_return absl::OkStatus();
      co_return co_await CheckStreamsDirectory(&edit, *inode);
    };
    const absl::Status status = co_await Look(body);
    if (!status.ok() || is_steady) co_return status;
  }
  ++report_.unjudged;
  co_return absl::OkStatus();
}

}  // namespace mangrove::fs
