#include "fs/instance.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/fileset_page.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

// Of a node's place: its incarnation that uses the fileset, 0 if none does; the tree of orphans. Between them: fs/quota.h.
constexpr size_t kUserAt = 16;
constexpr size_t kOrphansAt = 64;

Task<absl::Status> MakeHead(Edit* edit, FilesetOptions options, InodeNumber root) {
  Pages* const pages = edit->pages();
  for (uint64_t place = 0; place < kNodePlaces; ++place) {
    const absl::StatusOr<EditPage*> page = co_await edit->Make(kFirstPlacePage + place, PageKind::kPlace);
    if (!page.ok()) co_return page.status();
    NodeEditor(PlaceRoot(*page).mutable_bytes()).Clear(0);
  }
  const absl::StatusOr<EditPage*> inode = co_await edit->Make(root.value, PageKind::kInode);
  if (!inode.ok()) co_return inode.status();
  const int64_t now = pages->NowNs();
  Inode(*inode).Initialize({.inode = root,
                            .generation = NewGeneration(pages),
                            .mode = S_IFDIR | (options.mode & 07777),
                            .links = 2,
                            .uid = options.owner,
                            .gid = options.group,
                            .size_bytes = kPageSize,
                            .accessed_ns = now,
                            .modified_ns = now,
                            .changed_ns = now,
                            .born_ns = now},
                           root);
  const absl::StatusOr<EditPage*> fileset = co_await edit->Get(kFilesetPage, PageKind::kFileset, Intent::kWrite);
  if (!fileset.ok()) co_return fileset.status();
  PutLittle((*fileset)->mutable_bytes(), kRootDirectoryAt, root.value);
  co_return absl::OkStatus();
}

}  // namespace

TreeRoot PlaceRoot(EditPage* page) { return {page, kOrphansAt, kMetadataBytes - kOrphansAt}; }

uint64_t UserOfPlace(const EditPage& page) { return GetLittle<uint64_t>(page.bytes(), kUserAt); }

Task<absl::Status> Instance::Make(Pages* pages, FilesetOptions options) {
  absl::Status status = co_await pages->Allocate({0, kGroupPages}, options.replicas);
  if (!status.ok() && !absl::IsAlreadyExists(status)) co_return status;
  SpaceMap space(pages);
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    // Made it is by one edit: if there is something, another node has been faster.
    const absl::StatusOr<std::string> there = co_await edit.GetRaw(kFilesetPage);
    if (!there.ok()) co_return there.status();
    if (there->find_first_not_of('\0') != std::string::npos) co_return absl::OkStatus();
    const absl::StatusOr<EditPage*> fileset = co_await edit.Make(kFilesetPage, PageKind::kFileset);
    if (!fileset.ok()) co_return fileset.status();
    const auto bytes = (*fileset)->mutable_bytes();
    PutLittle(bytes, kReplicasAt, options.replicas);
    PutLittle(bytes, kRegionPagesAt, kRegionPages);
    PutLittle(bytes, kMadeAt, static_cast<uint64_t>(pages->NowNs()));
    const absl::StatusOr<uint64_t> root = co_await space.TakeInode(&edit);
    if (!root.ok()) co_return root.status();
    co_return co_await MakeHead(&edit, options, {*root});
  };
  co_return co_await RunEdit(pages, body);
}

Task<absl::StatusOr<std::unique_ptr<Instance>>> Instance::Open(Pages* pages) {
  InodeNumber root;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> fileset = co_await edit.Get(kFilesetPage, PageKind::kFileset, Intent::kRead);
    if (!fileset.ok()) co_return fileset.status();
    root = {GetLittle<uint64_t>((*fileset)->bytes(), kRootDirectoryAt)};
    const auto region = GetLittle<uint64_t>((*fileset)->bytes(), kRegionPagesAt);
    if (region != kRegionPages) {
      co_return PosixError(EIO, absl::StrCat("the fileset's region has ", region,
                                             " pages; this program knows filesets of ", kRegionPages));
    }
    const absl::StatusOr<Inode> directory = co_await Inode::Get(&edit, root, Intent::kRead);
    if (!directory.ok()) co_return directory.status();
    if (!directory->IsDirectory()) co_return PosixError(EIO, "the fileset's root is no directory");
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(pages, body);
  if (!status.ok()) co_return status;
  co_return std::make_unique<Instance>(pages, root);
}

Task<absl::Status> Instance::BeginUse() {
  bool was_lost = false;
  auto look = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> page =
        co_await edit.Get(kFirstPlacePage + pages_->NodePlace(), PageKind::kPlace, Intent::kWrite);
    if (!page.ok()) co_return page.status();
    const uint64_t user = UserOfPlace(**page);
    was_lost = user != 0 && user != pages_->Incarnation();
    if (!was_lost) PutLittle((*page)->mutable_bytes(), kUserAt, pages_->Incarnation());
    co_return absl::OkStatus();
  };
  absl::Status status = co_await RunEdit(pages_, look);
  if (status.ok() && was_lost) {
    status = co_await space_.MarkOwnGroups();
    if (status.ok()) status = co_await SetUser(pages_->Incarnation());
  }
  if (status.ok()) status = co_await pages_->SyncTransactions();  // Before there is anything that may be lost.
  co_return status;
}

Task<absl::Status> Instance::EndUse() {
  absl::Status status = co_await pages_->EndOpens();
  if (status.ok()) status = co_await SetUser(0);
  if (status.ok()) status = co_await pages_->SyncTransactions();
  co_return status;
}

Task<absl::Status> Instance::SetUser(uint64_t incarnation) {
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> page =
        co_await edit.Get(kFirstPlacePage + pages_->NodePlace(), PageKind::kPlace, Intent::kWrite);
    if (page.ok()) PutLittle((*page)->mutable_bytes(), kUserAt, incarnation);
    co_return page.status();
  };
  co_return co_await RunEdit(pages_, body);
}

}  // namespace mangrove::fs
