#include "fs/tree.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/status.h"
#include "net/check.h"

namespace mangrove::fs {
namespace {

constexpr size_t kSeparatorBytes = NodeView::BytesOf(sizeof(uint64_t));

// How many of the node's records stay when it is split: about half of the bytes; all but the last where keys come in their order.
uint16_t SplitPoint(const NodeView& node, uint64_t key) {
  const auto last = static_cast<uint16_t>(node.count() - 1);
  if (node.KeyAt(last) < key) return last;
  size_t bytes = 0;
  for (uint16_t i = 0; i < last; ++i) {
    bytes += NodeView::BytesOf(node.ValueAt(i).size());
    if (bytes * 2 >= node.UsedBytes()) return static_cast<uint16_t>(i + 1);
  }
  return last;
}

}  // namespace

std::span<const char> Tree::BytesOf(const EditPage* page) const {
  return page == nullptr ? root_.bytes() : page->bytes().subspan(kTreeNodeAt);
}
std::span<char> Tree::MutableBytesOf(EditPage* page) const {
  return page == nullptr ? root_.mutable_bytes() : page->mutable_bytes().subspan(kTreeNodeAt);
}

Task<absl::StatusOr<EditPage*>> Tree::GetNode(uint64_t page, Intent intent) {
  absl::StatusOr<EditPage*> node = co_await edit_->Get(page, PageKind::kTree, intent);
  if (!node.ok()) co_return node;
  if (absl::Status s = NodeView(BytesOf(*node)).Check(); !s.ok()) {
    co_return PosixError(EIO, absl::StrCat("page ", page, " of the fileset: ", s.message()));
  }
  co_return node;
}

// The way to the leaf where `key` belongs; the last step is the leaf.
Task<absl::StatusOr<Tree::Path>> Tree::Descend(uint64_t key, Intent leaf) {
  if (absl::Status s = NodeView(root_.bytes()).Check(); !s.ok()) {
    co_return PosixError(EIO, absl::StrCat("page ", root_.page->number(), " of the fileset: ", s.message()));
  }
  Path path{{}};
  for (;;) {
    const NodeView node(BytesOf(path.back().page));
    const uint16_t level = node.level();
    if (level == 0) co_return path;
    path.back().child = node.ChildFor(key);
    const absl::StatusOr<EditPage*> child =
        co_await GetNode(node.ChildAt(path.back().child), level == 1 ? leaf : Intent::kRead);
    if (!child.ok()) co_return child.status();
    if (NodeView(BytesOf(*child)).level() + 1 != level) {
      co_return PosixError(EIO,
                           absl::StrCat("page ", (*child)->number(), " of the fileset is a node of another level"));
    }
    path.push_back({*child});
  }
}

Task<absl::StatusOr<std::optional<std::string>>> Tree::Get(uint64_t key) {
  const absl::StatusOr<Path> path = co_await Descend(key, Intent::kRead);
  if (!path.ok()) co_return path.status();
  const NodeView leaf(BytesOf(path->back().page));
  const uint16_t i = leaf.LowerBound(key);
  if (i == leaf.count() || leaf.KeyAt(i) != key) co_return std::nullopt;
  co_return std::string(leaf.ValueAt(i));
}

Task<absl::StatusOr<std::optional<TreeRecord>>> Tree::Floor(uint64_t key) {
  for (;;) {
    const absl::StatusOr<Path> path = co_await Descend(key, Intent::kRead);
    if (!path.ok()) co_return path.status();
    const NodeView leaf(BytesOf(path->back().page));
    uint16_t i = leaf.LowerBound(key);
    if (i < leaf.count() && leaf.KeyAt(i) == key) co_return TreeRecord{key, std::string(leaf.ValueAt(i))};
    if (i > 0) {
      --i;
      co_return TreeRecord{leaf.KeyAt(i), std::string(leaf.ValueAt(i))};
    }
    // It would be in the leaf before: below the separator that led here.
    uint64_t separator = 0;
    for (size_t step = 0; step + 1 < path->size(); ++step) {
      if ((*path)[step].child > 0) separator = NodeView(BytesOf((*path)[step].page)).KeyAt((*path)[step].child);
    }
    if (separator == 0) co_return std::nullopt;
    key = separator - 1;
  }
}

Task<absl::Status> Tree::Collect(EditPage* node, uint64_t from, uint64_t to, size_t most,
                                 std::vector<TreeRecord>* out) {
  const NodeView view(BytesOf(node));
  if (view.level() == 0) {
    for (uint16_t i = view.LowerBound(from); i < view.count() && view.KeyAt(i) <= to && out->size() < most; ++i) {
      out->push_back({view.KeyAt(i), std::string(view.ValueAt(i))});
    }
    co_return absl::OkStatus();
  }
  for (uint16_t i = view.ChildFor(from); i < view.count() && out->size() < most; ++i) {
    if (i > 0 && view.KeyAt(i) > to) break;
    const absl::StatusOr<EditPage*> child = co_await GetNode(view.ChildAt(i), Intent::kRead);
    if (!child.ok()) co_return child.status();
    if (NodeView(BytesOf(*child)).level() >= view.level()) {
      co_return PosixError(EIO,
                           absl::StrCat("page ", (*child)->number(), " of the fileset is a node of another level"));
    }
    const absl::Status status = co_await Collect(*child, from, to, most, out);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::vector<TreeRecord>>> Tree::Scan(uint64_t from, uint64_t to, size_t most) {
  std::vector<TreeRecord> records;
  absl::Status status = NodeView(root_.bytes()).Check();
  if (status.ok()) status = co_await Collect(nullptr, from, to, most, &records);
  if (!status.ok()) co_return status;
  co_return records;
}

// --- Changes ----------------------------------------------------------------------------------------------------------

// Everything that is in the root goes to a page below it.
Task<absl::Status> Tree::PushRootDown() {
  const absl::StatusOr<uint64_t> number = co_await metadata_->Take(edit_);
  if (!number.ok()) co_return number.status();
  const absl::StatusOr<EditPage*> page = co_await edit_->Make(*number, PageKind::kTree);
  if (!page.ok()) co_return page.status();
  PutLittle((*page)->mutable_bytes(), kTreeOwnerAt, root_.page->number());  // R2
  const NodeView root(root_.bytes());
  const uint16_t level = root.level();
  NodeEditor below(MutableBytesOf(*page));
  below.Clear(level);
  for (uint16_t i = 0; i < root.count(); ++i) CHECK(below.Insert(root.KeyAt(i), root.ValueAt(i)));
  NodeEditor editor(root_.mutable_bytes());
  editor.Clear(static_cast<uint16_t>(level + 1));
  CHECK(editor.Insert(0, ChildValue(*number)));
  co_return absl::OkStatus();
}

// The upper part of the child's records goes to a page of its own. REQUIRES: the parent has room for a separator.
Task<absl::Status> Tree::Split(EditPage* parent, uint16_t child, uint64_t key) {
  const absl::StatusOr<EditPage*> left = co_await GetNode(NodeView(BytesOf(parent)).ChildAt(child), Intent::kWrite);
  if (!left.ok()) co_return left.status();
  if (parent != nullptr) {
    const absl::StatusOr<EditPage*> writable = co_await GetNode(parent->number(), Intent::kWrite);
    if (!writable.ok()) co_return writable.status();
  }
  const absl::StatusOr<uint64_t> number = co_await metadata_->Take(edit_);
  if (!number.ok()) co_return number.status();
  const absl::StatusOr<EditPage*> page = co_await edit_->Make(*number, PageKind::kTree);
  if (!page.ok()) co_return page.status();
  PutLittle((*page)->mutable_bytes(), kTreeOwnerAt, root_.page->number());  // R2
  NodeEditor lower(MutableBytesOf(*left));
  NodeEditor upper(MutableBytesOf(*page));
  upper.Clear(lower.level());
  const uint16_t stay = SplitPoint(lower, key);
  const uint64_t separator = lower.KeyAt(stay);
  for (uint16_t i = stay; i < lower.count(); ++i) CHECK(upper.Insert(lower.KeyAt(i), lower.ValueAt(i)));
  while (lower.count() > stay) lower.Erase(static_cast<uint16_t>(lower.count() - 1));
  CHECK(NodeEditor(MutableBytesOf(parent)).Insert(separator, ChildValue(*number)));
  co_return absl::OkStatus();
}

Task<absl::Status> Tree::Put(uint64_t key, std::string value) {
  CHECK(value.size() <= kMostValueBytes);
  for (;;) {
    const absl::StatusOr<Path> path = co_await Descend(key, Intent::kWrite);
    if (!path.ok()) co_return path.status();
    EditPage* const leaf = path->back().page;
    NodeEditor node(MutableBytesOf(leaf));
    const uint16_t i = node.LowerBound(key);
    const bool is_there = i < node.count() && node.KeyAt(i) == key;
    if (is_there ? node.Replace(i, value) : node.Insert(key, value)) co_return absl::OkStatus();
    // The highest node on the way that must be split first: the one below the lowest that has room for a separator.
    size_t step = path->size() - 1;
    while (step > 0 && NodeView(BytesOf((*path)[step - 1].page)).FreeBytes() < kSeparatorBytes) --step;
    absl::Status status;  // GCC 12 destroys the result of a conditional co_await twice.
    if (step == 0) {
      status = co_await PushRootDown();
    } else {
      status = co_await Split((*path)[step - 1].page, (*path)[step - 1].child, key);
    }
    if (!status.ok()) co_return status;
  }
}

Task<absl::Status> Tree::Erase(uint64_t key) {
  const absl::StatusOr<Path> path = co_await Descend(key, Intent::kWrite);
  if (!path.ok()) co_return path.status();
  {
    const NodeView leaf(BytesOf(path->back().page));
    const uint16_t i = leaf.LowerBound(key);
    if (i == leaf.count() || leaf.KeyAt(i) != key) co_return absl::OkStatus();
    NodeEditor(MutableBytesOf(path->back().page)).Erase(i);
  }
  // R1
  for (size_t step = path->size() - 1; step > 0; --step) {
    EditPage* const node = (*path)[step].page;
    if (NodeView(BytesOf(node)).count() > 0) co_return absl::OkStatus();
    EditPage* const parent = (*path)[step - 1].page;
    if (parent != nullptr) {
      const absl::StatusOr<EditPage*> writable = co_await GetNode(parent->number(), Intent::kWrite);
      if (!writable.ok()) co_return writable.status();
    }
    NodeEditor(MutableBytesOf(parent)).EraseChild((*path)[step - 1].child);
    const absl::Status status = co_await metadata_->GiveBack(edit_, node->number());
    if (!status.ok()) co_return status;
  }
  NodeEditor root(root_.mutable_bytes());
  if (root.count() == 0) root.Clear(0);
  co_return absl::OkStatus();
}

}  // namespace mangrove::fs
