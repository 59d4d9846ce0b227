// A tree as a check goes through it: step by step, each of them in an edit, with everything that is wrong in it. fs/check.h

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/edit.h"
#include "fs/tree.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

// What says that a page, or a value on it, is damaged. Other errors are of the engine: nothing was found out.
bool IsDamage(const absl::Status& status);

struct TreeStep {
  std::vector<TreeRecord> records;    // In their order.
  std::vector<uint64_t> nodes;        // Pages of the tree whose keys begin in this step.
  std::vector<std::string> problems;  // Sentences. With them there may be records and nodes that were not found.
  bool is_lossy = false;              // One of them is a page that no disk has.
  uint64_t next = 0;                  // Where the next step begins.
  bool is_last = true;
};

class CheckedTree {
 public:
  // `whose`: for sentences. `may_be_node`: whether there can be a node of a tree in a page at all. All outlive it.
  CheckedTree(Edit* edit, TreeRoot root, const std::string* whose, const std::function<bool(uint64_t)>* may_be_node)
      : edit_(edit), root_(root), whose_(whose), may_be_node_(may_be_node) {}

  // At most `most` records, from `from` on.
  Task<absl::Status> Step(uint64_t from, size_t most, TreeStep* step);
  // Whether a page is a node of the tree, of this level, on the way to this key.
  Task<absl::StatusOr<bool>> HasNode(uint64_t page, uint16_t level, uint64_t key);
  // Every record that can be read, whatever is wrong around it; one of each key. ResourceExhausted: more bytes than that.
  Task<absl::StatusOr<std::vector<TreeRecord>>> Gather(size_t most_bytes);

 private:
  // Keys below a node: from `low` to `high`, both included.
  struct Range {
    uint64_t low = 0;
    uint64_t high = ~uint64_t{0};
  };

  std::span<const char> BytesOf(const EditPage* page) const;
  Task<absl::StatusOr<EditPage*>> GetChild(uint64_t child);
  Task<absl::Status> Visit(const EditPage* page, Range range, uint64_t from, size_t most, TreeStep* step);

  Edit* const edit_;
  const TreeRoot root_;
  const std::string* const whose_;
  const std::function<bool(uint64_t)>* const may_be_node_;
};

}  // namespace mangrove::fs
