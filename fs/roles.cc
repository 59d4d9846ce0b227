#include "fs/roles.h"

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"

namespace mangrove::fs {
namespace {

constexpr size_t kIncarnationAt = 8;
constexpr size_t kSinceAt = 16;

size_t PlaceOf(Role role) { return kRolesAt + kRoleBytes * static_cast<size_t>(role); }

}  // namespace

std::string ToString(Role role) {
  switch (role) {
    case Role::kRepair: return "repair";
  }
  return "unknown";
}

std::optional<RoleHolder> HolderIn(std::span<const char> entry, Role role) {
  const size_t at = PlaceOf(role);
  const NodeId node(GetLittle<uint64_t>(entry, at));
  if (node.value == 0) return std::nullopt;
  return RoleHolder{.node = {node, Incarnation(GetLittle<uint64_t>(entry, at + kIncarnationAt))},
                    .since = Epoch(GetLittle<uint64_t>(entry, at + kSinceAt))};
}

void PutHolder(std::span<char> entry, Role role, const std::optional<RoleHolder>& holder) {
  const RoleHolder put = holder.value_or(RoleHolder{});
  const size_t at = PlaceOf(role);
  PutLittle(entry, at, uint64_t{put.node.node.value});
  PutLittle(entry, at + kIncarnationAt, uint64_t{put.node.incarnation.value});
  PutLittle(entry, at + kSinceAt, uint64_t{put.since.value});
}

absl::StatusOr<std::optional<RoleHolder>> WhoServes(Role role, const std::optional<RoleHolder>& registered,
                                                    const View& view) {
  if (registered && registered->since > view.epoch) {
    return absl::AbortedError(absl::StrCat("the role \"", ToString(role), "\" was taken by node ",
                                           registered->node.node.value, " in a view that this node does not know yet"));
  }
  if (!registered || !view.Has(registered->node)) return std::nullopt;
  return registered;
}

}  // namespace mangrove::fs
