// A node of a tree: records in the order of their keys, in some bytes of a page. The root of a tree is such a node in its inode; the others
// have a page each.
//
//   0  records 2   2  level 2 (0: a leaf)   4  where the lowest record is 2   6  bytes of records that are gone 2
//   8  for each record, in the order of keys: where it is 2
//   ...  records, from the end of the node down: key 8, length 2, bytes
//
// In a leaf a record's bytes are the tree's user's; in the other levels they are the number of the child's page.
//
//   N1  Keys ascend strictly.
//   N2  A child's key is not above any key below the child, and that of the next child is above all of them.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace mangrove::fs {

class NodeView {
 public:
  // `bytes`, at most 2^16 of them, outlive it.
  explicit NodeView(std::span<const char> bytes) : bytes_(bytes) {}

  // EIO: what is there is no node.
  absl::Status Check() const;
  uint16_t count() const;
  uint16_t level() const;
  uint64_t KeyAt(uint16_t i) const;
  std::string_view ValueAt(uint16_t i) const;
  uint64_t ChildAt(uint16_t i) const;  // REQUIRES: level() > 0.
  // The first record whose key is not below `key`; count() if there is none.
  uint16_t LowerBound(uint64_t key) const;
  // In a level above the leaves: the child that `key` is below. REQUIRES: count() > 0.
  uint16_t ChildFor(uint64_t key) const;

  // What a record of `value_bytes` takes, and what a node of `node_bytes` has for them.
  static constexpr size_t BytesOf(size_t value_bytes) { return kSlotBytes + kRecordHead + value_bytes; }
  static constexpr size_t Capacity(size_t node_bytes) { return node_bytes - kHead; }
  size_t FreeBytes() const;
  size_t UsedBytes() const { return Capacity(bytes_.size()) - FreeBytes(); }

 protected:
  static constexpr size_t kHead = 8;
  static constexpr size_t kSlotBytes = 2;
  static constexpr size_t kRecordHead = 10;
  static size_t SlotAt(size_t i) { return kHead + kSlotBytes * i; }
  uint16_t PlaceOf(uint16_t i) const;
  uint16_t lowest() const;
  uint16_t gone() const;

 private:
  std::span<const char> bytes_;
};

class NodeEditor : public NodeView {
 public:
  explicit NodeEditor(std::span<char> bytes) : NodeView(bytes), bytes_(bytes) {}

  void Clear(uint16_t level);
  // False: it does not fit, and nothing has changed. REQUIRES: no such key.
  bool Insert(uint64_t key, std::string_view value);
  // The same. REQUIRES: `i` is below count().
  bool Replace(uint16_t i, std::string_view value);
  void Erase(uint16_t i);
  // The next child takes the place of this one, so that N2 holds for lower keys too. REQUIRES: level() > 0.
  void EraseChild(uint16_t i);

 private:
  void Set(size_t at, size_t value);
  void Compact();

  std::span<char> bytes_;
};

std::string ChildValue(uint64_t page);

}  // namespace mangrove::fs
