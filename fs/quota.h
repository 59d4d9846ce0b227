// What a fileset may use at most: pages of data, and inodes.
//
// Data is counted in pages, once, however many disks have it; pages of metadata are not, but for the inodes. Nodes are peers, and do not write
// to one counter: what may still be used lies in part in the fileset's page, in part in the nodes' places, as their allowances. Who takes
// pages takes them off the allowance of its own node, who frees some puts them there, in the edit that does it. An allowance that does not do
// is filled up from the fileset's page, and when nothing is left there from the other places.
//
// A group's page says which quota counts it, by its number; other groups' pages are taken and freed without a word. So where there is
// no quota nothing is read or written for it. When a fileset gets one, its groups are counted one after the other.
//
// In a place: 24 number of the quota that its allowances are of 4   28 a bit for each kind that is in debt 4
//   32 allowances of pages 8, of inodes 8   48 how often they have changed 8
//
//   Q1  When all groups are counted: limit = used + left in the fileset's page + the allowances. Meanwhile the same of those that are.
//       A kind without a limit has kNoLimit.
//   Q2  No allowance is below 0. What is left in the fileset's page is only if more was used when the limit was set; then every place is in
//       debt, and gives what it has to the fileset's page before it takes from there.
//   Q3  Groups and places of another number are of a quota that there is no more, and not counted.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/group_page.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

enum class Counted : uint8_t { kPages = 0, kInodes = 1 };
constexpr size_t kCountedKinds = 2;

// Limits; 0: none.
struct QuotaChange {
  std::optional<uint64_t> pages;  // Stays as it is.
  std::optional<uint64_t> inodes;
};

struct Usage {
  std::array<uint64_t, kCountedKinds> used{};
  std::array<uint64_t, kCountedKinds> limits{};  // 0: none.
  bool is_counted = false;  // At one moment; otherwise the groups as they were looked at, one after the other.

  uint64_t count(Counted kind) const { return used[static_cast<size_t>(kind)]; }
  uint64_t limit(Counted kind) const { return limits[static_cast<size_t>(kind)]; }
};

// EINVAL: a limit that is none. When it returns it holds. Limits may be below what is used: then only more is refused. What is interrupted FinishQuota goes on with.
Task<absl::Status> SetQuota(Pages* pages, QuotaChange change);
Task<absl::Status> FinishQuota(Pages* pages);
// The same limits, and what is used counted from the groups: for a repair.
Task<absl::Status> CountQuotaAnew(Pages* pages);
Task<absl::StatusOr<Usage>> GetUsage(Pages* pages);
// The limits, and what is used where that takes no counting (is_counted).
Task<absl::StatusOr<Usage>> GetQuota(Pages* pages);
// Whether the groups have what the quota says (Q1): a sentence for each thing that is wrong. Of a fileset that is in use it looks again, some
// times at most, and then says nothing.
Task<absl::StatusOr<std::vector<std::string>>> CheckQuota(Pages* pages);

// How many of these may be taken from the group in this edit: 1 to `want`. EDQUOT: none.
Task<absl::StatusOr<uint64_t>> Allow(Edit* edit, GroupEditor* group, Counted kind, uint64_t want);
// They are taken. REQUIRES: allowed in this edit.
Task<absl::Status> Charge(Edit* edit, GroupEditor* group, Counted kind, uint64_t count);
Task<absl::Status> Credit(Edit* edit, GroupEditor* group, Counted kind, uint64_t count);
// `page`, of the fileset: the number that a group gets which is new, 0 if there is no quota.
uint32_t QuotaOf(const EditPage& page);

}  // namespace mangrove::fs
