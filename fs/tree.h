// A tree of records with 64-bit keys: the extents of a stream, the entries of a directory, a file's extended attributes. Its root is a
// node in a page of its owner's, so a small one needs no page of its own; when that is full what is in it goes to a page, and so on.
// A node that a record would not fit into is split on the way down. Nodes are not merged; one that has no record any more goes.
//
// A node's page: 16 the page that has the root 8   24 the node. So whose a page is can be found out from the page.
//
//   R1  No node but the root is empty.
//   R2  A node's page says which page has the root of its tree.
//
// Works in an edit, and lives as long as a step of it.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/edit.h"
#include "fs/tree_node.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

constexpr size_t kTreeOwnerAt = kHeaderBytes;
constexpr size_t kTreeNodeAt = kHeaderBytes + 8;

// Where a tree gets pages of metadata, and gives them back.
class MetadataPages {
 public:
  virtual ~MetadataPages() = default;
  // The number of a page that was free. ENOSPC: there is none.
  virtual Task<absl::StatusOr<uint64_t>> Take(Edit* edit) = 0;
  virtual Task<absl::Status> GiveBack(Edit* edit, uint64_t page) = 0;
};

// Some bytes of a page of the edit that are the root.
struct TreeRoot {
  EditPage* page = nullptr;
  size_t offset = 0;
  size_t size = 0;

  std::span<const char> bytes() const { return page->bytes().subspan(offset, size); }
  std::span<char> mutable_bytes() const { return page->mutable_bytes().subspan(offset, size); }
};

struct TreeRecord {
  uint64_t key = 0;
  std::string value;
};

class Tree {
 public:
  static constexpr size_t kMostValueBytes = 1024;

  Tree(Edit* edit, MetadataPages* metadata, TreeRoot root) : edit_(edit), metadata_(metadata), root_(root) {}

  Task<absl::StatusOr<std::optional<std::string>>> Get(uint64_t key);
  // The record with the greatest key that is not above `key`.
  Task<absl::StatusOr<std::optional<TreeRecord>>> Floor(uint64_t key);
  // Records from `from` on, to `to` included, in their order, at most `most`.
  Task<absl::StatusOr<std::vector<TreeRecord>>> Scan(uint64_t from, uint64_t to, size_t most);

  // The others: REQUIRES that the root's page was obtained for writing. Puts the record in, or in place of the one with its key.
  Task<absl::Status> Put(uint64_t key, std::string value);
  // Nothing if there is no such record.
  Task<absl::Status> Erase(uint64_t key);
  // It has no records.
  bool IsEmpty() const { return NodeView(root_.bytes()).count() == 0; }

 private:
  // A node on the way down, and which of its children the way goes on to.
  struct Step {
    EditPage* page = nullptr;  // Null: the root.
    uint16_t child = 0;
  };
  using Path = std::vector<Step>;

  std::span<const char> BytesOf(const EditPage* page) const;
  std::span<char> MutableBytesOf(EditPage* page) const;
  Task<absl::StatusOr<EditPage*>> GetNode(uint64_t page, Intent intent);
  Task<absl::StatusOr<Path>> Descend(uint64_t key, Intent leaf);
  Task<absl::Status> Collect(EditPage* node, uint64_t from, uint64_t to, size_t most, std::vector<TreeRecord>* out);
  Task<absl::Status> PushRootDown();
  Task<absl::Status> Split(EditPage* parent, uint16_t child, uint64_t key);

  Edit* const edit_;
  MetadataPages* const metadata_;
  const TreeRoot root_;
};

}  // namespace mangrove::fs
