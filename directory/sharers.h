// The nodes that have read copies of a page, as a handle of 8 bytes: neighbours mostly have the same sharers, and then the
// set itself is there once for all of them.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "net/ids.h"

namespace mangrove {

// A sorted set of nodes, never changed once it is made. A copy shares it; the count of users is for one thread: all
// handles of a set are owned by one loop.
class Sharers {
 public:
  Sharers() = default;
  Sharers(std::initializer_list<NodeInstance> nodes) : Sharers(std::vector<NodeInstance>(nodes)) {}
  explicit Sharers(std::vector<NodeInstance> nodes);  // In any order.
  Sharers(const Sharers& other) : set_(other.set_) {
    if (set_ != nullptr) ++set_->users;
  }
  Sharers(Sharers&& other) noexcept : set_(std::exchange(other.set_, nullptr)) {}
  Sharers& operator=(Sharers other) noexcept {
    std::swap(set_, other.set_);
    return *this;
  }
  ~Sharers() {
    if (set_ != nullptr && --set_->users == 0) delete set_;
  }

  const NodeInstance* begin() const { return set_ == nullptr ? nullptr : set_->nodes.data(); }
  const NodeInstance* end() const { return begin() + size(); }
  size_t size() const { return set_ == nullptr ? 0 : set_->nodes.size(); }
  bool empty() const { return set_ == nullptr; }
  bool Contains(NodeInstance node) const;

  // Handles of one set, not only of equal ones.
  bool IsSame(const Sharers& other) const { return set_ == other.set_; }
  bool IsShared() const { return set_ != nullptr && set_->users > 1; }
  friend bool operator==(const Sharers& a, const Sharers& b);
  template <typename H>
  friend H AbslHashValue(H h, const Sharers& sharers) {
    return H::combine_contiguous(std::move(h), sharers.begin(), sharers.size());
  }

 private:
  struct Set {
    std::vector<NodeInstance> nodes;  // Sorted, not empty.
    size_t users = 1;
  };
  Set* set_ = nullptr;  // Null: nobody.
};
static_assert(sizeof(Sharers) == 8);

// Makes sets that differ by a node, equal ones once only. Owned by the loop, as everything that it gives.
class SharerTable {
 public:
  Sharers With(const Sharers& sharers, NodeInstance node) { return Change(sharers, node, true); }
  Sharers Without(const Sharers& sharers, NodeInstance node) { return Change(sharers, node, false); }
  size_t size() const { return sets_.size(); }  // With those that no page has any more, until they are swept out.

 private:
  // What was made of what: pages side by side change alike.
  struct Made {
    Sharers from;
    NodeInstance node;
    bool with = false;
    Sharers to;
  };

  Sharers Change(const Sharers& sharers, NodeInstance node, bool with);
  void Sweep();

  std::array<Made, 4> made_;
  size_t next_made_ = 0;
  absl::flat_hash_set<Sharers> sets_;
  size_t sweep_at_ = 64;
};

}  // namespace mangrove
