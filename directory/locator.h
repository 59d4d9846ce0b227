// Which nodes keep a page on disk: the interface that the disk directory will fill, and an answer that is fixed
// by the configuration, whoever is there.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "directory/address.h"
#include "net/ids.h"

namespace mangrove {

class Locator {
 public:
  virtual ~Locator() = default;

  // The first of its core holders.
  virtual NodeId Primary(PageId page) const = 0;

  // Those that keep the page on disk, the primary first. `replicas` is cut to the number of nodes.
  virtual std::vector<NodeId> CoreHolders(PageId page, uint32_t replicas) const = 0;

  // Every node that is in CoreHolders of a page of `range`, in the order of their numbers. Looks at no more segments
  // than it takes to know.
  virtual std::vector<NodeId> CoreHolders(const PageRange& range, uint32_t replicas) const = 0;
};

// Spreads segments over a fixed set of nodes by a hash of their address, the same on every node and for ever.
class HashLocator final : public Locator {
 public:
  // REQUIRES: not empty, no node twice.
  explicit HashLocator(std::vector<NodeId> nodes);

  NodeId Primary(PageId page) const override;
  std::vector<NodeId> CoreHolders(PageId page, uint32_t replicas) const override;
  std::vector<NodeId> CoreHolders(const PageRange& range, uint32_t replicas) const override;

 private:
  size_t Place(PageId page) const;
  std::vector<NodeId> nodes_;  // Sorted.
};

}  // namespace mangrove
