// Which node serves what for a fileset: the name service. A role is registered in the fileset's entry of the list of filesets
// (fs/super_root.h), which every node finds and reads like any other page: nobody is asked for it, and nobody has to be told.
//
// In that page from kRolesAt on, for each role: node 8 (0: nobody)   its incarnation 8   the view in which it was registered 8
//
//   W1  Who serves a role is in the view, in this life. Who has left it serves nothing any more, whatever is registered: nobody has to
//       end a role for it.
//   W2  Who takes a role knows the view in which it was registered before, or a later one. Otherwise it would take it from a node of
//       which it has not heard yet.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "net/ids.h"
#include "recovery/view.h"

namespace mangrove::fs {

// Their numbers are on disk.
enum class Role : uint8_t { kRepair = 0 };
std::string ToString(Role role);

inline constexpr size_t kRolesAt = 512;
inline constexpr size_t kRoleBytes = 24;

struct RoleHolder {
  NodeInstance node;
  Epoch since;
  friend bool operator==(const RoleHolder&, const RoleHolder&) = default;
};

// Whom an entry names, there or not (W1).
std::optional<RoleHolder> HolderIn(std::span<const char> entry, Role role);
// Nothing: nobody.
void PutHolder(std::span<char> entry, Role role, const std::optional<RoleHolder>& holder);

// Who serves it of those that are there in `view`; nothing: it can be taken. Aborted: `view` is too old to know (W2).
absl::StatusOr<std::optional<RoleHolder>> WhoServes(Role role, const std::optional<RoleHolder>& registered,
                                                    const View& view);

}  // namespace mangrove::fs
