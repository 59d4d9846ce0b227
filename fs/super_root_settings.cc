// What is set of a fileset, and what is used of it.

#include <utility>

#include "fs/fileset_page.h"
#include "fs/super_root.h"

namespace mangrove::fs {

// Of a fileset that is whole. They are of no instance.
Task<absl::StatusOr<std::unique_ptr<EnginePages>>> SuperRoot::OpenPagesOf(std::string name) {
  const absl::Status status = co_await Ready();
  if (!status.ok()) co_return status;
  const absl::StatusOr<Entry> entry = co_await Get(name);
  if (!entry.ok()) co_return entry.status();
  const absl::StatusOr<PageRange> region = co_await OpenRegionOf(*entry);
  if (!region.ok()) co_return region.status();
  co_return std::make_unique<EnginePages>(node_, *region, clients_());
}

Task<absl::Status> SuperRoot::Change(std::string name, FilesetChange change) {
  const absl::StatusOr<std::unique_ptr<EnginePages>> pages = co_await OpenPagesOf(name);
  if (!pages.ok()) co_return pages.status();
  if (change.replicas) {
    const absl::StatusOr<Entry> entry = co_await Get(name);
    if (!entry.ok()) co_return entry.status();
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const absl::StatusOr<EditPage*> page = co_await edit.Get(kFilesetPage, PageKind::kFileset, Intent::kWrite);
      if (page.ok()) PutLittle((*page)->mutable_bytes(), kReplicasAt, *change.replicas);
      co_return page.status();
    };
    absl::Status status = co_await RunEdit(pages->get(), body);
    if (status.ok()) status = co_await SetReplicas(*entry, *change.replicas);
    if (!status.ok()) co_return status;
  }
  if (!change.quota.pages && !change.quota.inodes) co_return absl::OkStatus();
  const absl::Status status = co_await SetQuota(pages->get(), change.quota);
  if (!status.ok()) co_return status;
  co_return co_await (*pages)->SyncTransactions();
}

Task<absl::StatusOr<Usage>> SuperRoot::GetUsage(std::string name) {
  const absl::StatusOr<std::unique_ptr<EnginePages>> pages = co_await OpenPagesOf(std::move(name));
  if (!pages.ok()) co_return pages.status();
  co_return co_await fs::GetUsage(pages->get());
}

}  // namespace mangrove::fs
