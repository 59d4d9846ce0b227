// A fileset is repaired by one node at a time, which registers for it. P4

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "fs/status.h"
#include "fs/super_root.h"
#include "net/log.h"

namespace mangrove::fs {

std::optional<NodeId> SuperRoot::RepairedBy(const FilesetInfo& info) const {
  const absl::StatusOr<std::optional<RoleHolder>> holder = WhoServes(Role::kRepair, info.repair, node_.engine->view());
  if (!holder.ok()) return info.repair->node.node;
  if (!*holder) return std::nullopt;
  // This node may have failed to say that it has ended.
  const NodeId by = (*holder)->node.node;
  return by != node_.self || repairing_.contains(info.number) ? std::optional(by) : std::nullopt;
}

// EBUSY: it is. Aborted: this node cannot know.
absl::Status SuperRoot::NotBeingRepaired(const FilesetInfo& info) const {
  const absl::StatusOr<std::optional<RoleHolder>> holder = WhoServes(Role::kRepair, info.repair, node_.engine->view());
  if (!holder.ok()) return holder.status();
  const std::optional<NodeId> by = RepairedBy(info);
  if (!by) return absl::OkStatus();
  return PosixError(EBUSY, absl::StrCat("fileset \"", info.name, "\" is being repaired by node ", by->value,
                                        ": wait for that to end, or stop that node"));
}

Task<absl::StatusOr<RoleHolder>> SuperRoot::BeginRepair(Entry entry) {
  RoleHolder holder;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> page = co_await edit.Get(entry.page, PageKind::kFilesetEntry, Intent::kWrite);
    if (!page.ok()) co_return page.status();
    // What it says now, and not when it was looked up.
    const absl::StatusOr<FilesetInfo> info = InfoOf(entry, **page);
    if (!info.ok()) co_return info.status();
    // What this node had registered before has ended: it repairs a fileset once at a time.
    const bool is_ours = info->repair && info->repair->node.node == node_.self;
    if (absl::Status s = NotBeingRepaired(*info); !is_ours && !s.ok()) co_return s;
    if (info->state != FilesetState::kOffline) {
      co_return PosixError(EBUSY, absl::StrCat("fileset \"", info->name, "\" is ", ToString(info->state),
                                               ": set it offline before it is repaired"));
    }
    const View& view = node_.engine->view();
    const auto self = view.members.find(node_.self);
    if (self == view.members.end()) co_return absl::UnavailableError("this node is not in the cluster's view");
    holder = {.node = {node_.self, self->second}, .since = view.epoch};
    PutHolder((*page)->mutable_bytes(), Role::kRepair, holder);
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(list_.get(), body);
  if (!status.ok()) co_return status;
  co_return holder;
}

Task<absl::Status> SuperRoot::EndRepair(Entry entry, RoleHolder holder) {
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> page = co_await edit.Get(entry.page, PageKind::kFilesetEntry, Intent::kWrite);
    if (!page.ok()) co_return page.status();
    const bool is_ours = InfoOf(entry, **page).ok() && HolderIn((*page)->bytes(), Role::kRepair) == holder;
    if (is_ours) PutHolder((*page)->mutable_bytes(), Role::kRepair, std::nullopt);
    co_return absl::OkStatus();
  };
  co_return co_await RunEdit(list_.get(), body);
}

Task<absl::StatusOr<CheckReport>> SuperRoot::Repair(Entry entry, PageRange region, CheckOptions options) {
  // From here on, so that it is not set online in the moment after it was registered.
  if (!repairing_.insert(entry.info.number).second) {
    co_return PosixError(EBUSY,
                         absl::StrCat("fileset \"", entry.info.name, "\" is being repaired by this node already"));
  }
  const absl::StatusOr<RoleHolder> holder = co_await BeginRepair(entry);
  if (!holder.ok()) {
    repairing_.erase(entry.info.number);
    co_return holder.status();
  }
  absl::Status status = co_await CheckUnused(region, entry.info.name);
  absl::StatusOr<CheckReport> report = CheckReport{};
  if (!status.ok()) {
    report = status;
  } else {
    EnginePages pages(node_, region, clients_());
    report = co_await CheckFileset(&pages, options);
  }
  repairing_.erase(entry.info.number);
  status = co_await EndRepair(entry, *holder);
  if (!status.ok()) {
    LogWarning("fileset \"", entry.info.name, "\": that its repair has ended is not noted: ", status.message());
  }
  co_return report;
}

}  // namespace mangrove::fs
