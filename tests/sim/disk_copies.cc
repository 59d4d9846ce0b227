#include "tests/sim/disk_copies.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {

DiskCopies::DiskCopies(SimCluster* cluster)
    : cluster_(cluster), view_(cluster->NewestView()), locator_(view_.disks, view_.weights) {
  const std::string prefix = ExtentKey(PageId{}).substr(0, ExtentKey(PageId{}).find('/') + 1);
  for (const NodeId node : view_.disks) {
    const int slot = SlotOfNode(node);
    for (const auto& [key, value] : cluster_->host(slot).disk->records()) {
      if (key.compare(0, prefix.size(), prefix) != 0) continue;
      const absl::StatusOr<Extent> extent = DecodeExtent(key, value);
      CHECK(extent.ok());
      extents_[slot][extent->range.first.value] = *extent;
    }
  }
}

std::vector<DiskCopy> DiskCopies::Of(PageId page) const {
  std::vector<DiskCopy> copies;
  for (const NodeId node : view_.disks) {
    DiskCopy& copy = copies.emplace_back();
    copy.node = SlotOfNode(node);
    copy.is_current = cluster_->host(copy.node).ready && view_.members.contains(node) && !view_.behind.contains(node);
    const SimDisk& disk = *cluster_->host(copy.node).disk;
    const auto of_node = extents_.find(copy.node);
    if (of_node != extents_.end()) {
      const auto after = of_node->second.upper_bound(page.value);
      if (after != of_node->second.begin() && std::prev(after)->second.range.Contains(page)) {
        copy.extent = std::prev(after)->second;
      }
    }
    copy.is_lost = disk.records().contains(LostKey(page));
    copy.is_damaged = disk.IsDamaged(page);
    const StoredPage* const stored = disk.Durable(page);
    if (stored == nullptr) continue;
    copy.version = stored->version;
    if (copy.is_damaged) continue;
    copy.config = stored->config;
    copy.data = stored->data;
  }
  uint32_t replicas = cluster_->options().replicas;
  for (const DiskCopy& copy : copies) {
    if (copy.extent) replicas = copy.extent->replicas;
  }
  const std::vector<NodeId> holders = locator_.CoreHolders(page, std::max<uint32_t>(replicas, 1));
  for (DiskCopy& copy : copies) {
    copy.keeps = std::find(holders.begin(), holders.end(), NodeOfSlot(copy.node)) != holders.end();
  }
  return copies;
}

std::string DiskCopies::FirstThatDiffers(const std::vector<PageId>& pages) const {
  for (const PageId page : pages) {
    std::vector<DiskCopy> copies = Of(page);
    std::erase_if(copies, [](const DiskCopy& copy) { return !copy.keeps || copy.is_damaged || copy.is_lost; });
    const auto differs = [&](const DiskCopy& copy) { return copy.version != copies.front().version; };
    if (std::none_of(copies.begin(), copies.end(), differs)) continue;
    std::string text = absl::StrCat("page ", mangrove::ToString(page), ":");
    for (const DiskCopy& copy : copies) absl::StrAppend(&text, " ", ToString(copy));
    return text;
  }
  return "";
}

std::string ToString(const DiskCopy& copy) {
  std::string text = absl::StrCat("node ", copy.node + 1, copy.keeps ? "" : " (keeps it not)");
  if (!copy.extent) return absl::StrCat(text, " knows of no extent;");
  absl::StrAppend(&text, " in configuration ", copy.extent->config.value, copy.is_lost ? " as lost" : "",
                  copy.is_damaged ? " damaged" : "");
  if (copy.version == Version{}) return absl::StrCat(text, " has no record;");
  return absl::StrCat(text, " has version ", mangrove::ToString(copy.version), " of configuration ", copy.config.value,
                      ";");
}

}  // namespace mangrove::sim
