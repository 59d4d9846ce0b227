// What disks have of a page, in durable records.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "directory/locator.h"
#include "engine/core_holder.h"
#include "net/page_buffer.h"
#include "recovery/view.h"

namespace mangrove::sim {

class SimCluster;

// On one disk that keeps pages.
struct DiskCopy {
  int node = 0;
  bool keeps = false;            // It is a core holder of the page.
  bool is_current = false;       // Its node serves, and the view names it among those that are behind in nothing.
  std::optional<Extent> extent;  // That has the page.
  bool is_lost = false;          // The page is marked so.
  bool is_damaged = false;       // Its record cannot be read.
  Version version;               // Of the record; {0, 0}: there is none.
  ConfigNumber config;           // The same; 0: it is damaged.
  PageBuffer data;               // The same. Null: zeros, or it is damaged.
};

// By the newest view that a node follows. Void when the world goes on.
class DiskCopies {
 public:
  explicit DiskCopies(SimCluster* cluster);

  Epoch epoch() const { return view_.epoch; }
  std::vector<DiskCopy> Of(PageId page) const;
  // The first of the pages whose core holders' records are not all of one version, and what there is of it; empty: there is none.
  std::string FirstThatDiffers(const std::vector<PageId>& pages) const;

 private:
  SimCluster* const cluster_;
  const View view_;
  const Locator locator_;
  std::map<int, std::map<absl::uint128, Extent>> extents_;  // By node and first page.
};

std::string ToString(const DiskCopy& copy);

}  // namespace mangrove::sim
