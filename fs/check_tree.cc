#include "fs/check_tree.h"

#include <cerrno>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/status.h"
#include "fs/tree_node.h"

namespace mangrove::fs {

// A page that is lost is DataLoss; one that is not allocated FailedPrecondition, as is ESTALE.
bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsFailedPrecondition(status) || status == PosixError(EIO, status.message());
}

std::span<const char> CheckedTree::BytesOf(const EditPage* page) const {
  return page == nullptr ? root_.bytes() : page->bytes().subspan(kTreeNodeAt);
}

// EIO says what is wrong with it; R1, R2, N1.
Task<absl::StatusOr<EditPage*>> CheckedTree::GetChild(uint64_t child) {
  if (!(*may_be_node_)(child)) {
    co_return PosixError(EIO, absl::StrCat("page ", child, ", which is in no group of metadata"));
  }
  const absl::StatusOr<EditPage*> page = co_await edit_->Get(child, PageKind::kTree, Intent::kRead);
  if (!page.ok()) co_return page;
  const auto owner = GetLittle<uint64_t>((*page)->bytes(), kTreeOwnerAt);
  if (owner != root_.page->number()) {
    co_return PosixError(EIO, absl::StrCat("page ", child, ", which is of a tree of page ", owner));
  }
  const NodeView view(BytesOf(*page));
  absl::Status wrong = view.Check();
  if (wrong.ok() && view.count() == 0) wrong = PosixError(EIO, "it is an empty node");
  if (!wrong.ok()) co_return PosixError(EIO, absl::StrCat("page ", child, ": ", wrong.message()));
  co_return page;
}

Task<absl::Status> CheckedTree::Step(uint64_t from, size_t most, TreeStep* step) {
  *step = {};
  if (absl::Status s = NodeView(root_.bytes()).Check(); !s.ok()) {
    step->problems.push_back(absl::StrCat(*whose_, ": ", s.message()));
    co_return absl::OkStatus();
  }
  const Range everything;
  co_return co_await Visit(nullptr, everything, from, most, step);
}

Task<absl::Status> CheckedTree::Visit(const EditPage* page, Range range, uint64_t from, size_t most, TreeStep* step) {
  const NodeView view(BytesOf(page));
  const std::string place = page == nullptr ? *whose_ : absl::StrCat("page ", page->number(), ", of ", *whose_);
  for (uint16_t i = 0; i < view.count() && step->is_last; ++i) {
    const uint64_t key = view.KeyAt(i);
    // The first child takes everything below its key too. N2
    if (key > range.high || (key < range.low && (view.level() == 0 || i > 0))) {
      step->problems.push_back(
          absl::StrCat(place, ": key ", key, " is not where it belongs, between ", range.low, " and ", range.high));
      continue;
    }
    if (view.level() == 0) {
      if (key < from) continue;
      if (step->records.size() == most) {
        step->is_last = false;
        step->next = key;
        break;
      }
      step->records.push_back({key, std::string(view.ValueAt(i))});
      continue;
    }
    const bool is_last = i + 1 == view.count();
    const Range keys{i == 0 ? range.low : key, is_last ? range.high : view.KeyAt(static_cast<uint16_t>(i + 1)) - 1};
    if (keys.high < from) continue;
    const absl::StatusOr<EditPage*> child = co_await GetChild(view.ChildAt(i));
    if (!child.ok() && !IsDamage(child.status())) co_return child.status();
    if (!child.ok()) {
      step->is_lossy = step->is_lossy || absl::IsDataLoss(child.status());
      step->problems.push_back(absl::StrCat(place, ": ", child.status().message()));
      continue;
    }
    const uint16_t level = NodeView(BytesOf(*child)).level();
    if (level + 1 != view.level()) {
      step->problems.push_back(absl::StrCat("page ", (*child)->number(), ", of ", *whose_, ": it is a node of level ",
                                            level, " below one of level ", view.level()));
      continue;
    }
    if (from == 0 || keys.low >= from) step->nodes.push_back((*child)->number());
    const absl::Status status = co_await Visit(*child, keys, from, most, step);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<bool>> CheckedTree::HasNode(uint64_t page, uint16_t level, uint64_t key) {
  const EditPage* node = nullptr;
  while (NodeView(BytesOf(node)).Check().ok() && NodeView(BytesOf(node)).level() > level) {
    const NodeView view(BytesOf(node));
    const uint16_t above = view.level();
    const absl::StatusOr<EditPage*> child = co_await GetChild(view.ChildAt(view.ChildFor(key)));
    if (IsDamage(child.status())) co_return false;
    if (!child.ok()) co_return child.status();
    node = *child;
    if (node->number() == page) co_return NodeView(BytesOf(node)).level() == level;
    if (NodeView(BytesOf(node)).level() >= above) co_return false;
  }
  co_return false;
}

Task<absl::StatusOr<std::vector<TreeRecord>>> CheckedTree::Gather(size_t most_bytes) {
  std::map<uint64_t, std::string> found;
  size_t bytes = 0;
  std::set<uint64_t> seen;
  std::vector<const EditPage*> next;
  if (NodeView(root_.bytes()).Check().ok()) next.push_back(nullptr);
  while (!next.empty()) {
    const NodeView view(BytesOf(next.back()));
    next.pop_back();
    for (uint16_t i = 0; i < view.count(); ++i) {
      if (view.level() == 0) {
        if (!found.try_emplace(view.KeyAt(i), view.ValueAt(i)).second) continue;
        bytes += NodeView::BytesOf(view.ValueAt(i).size());
        if (bytes > most_bytes) co_return absl::ResourceExhaustedError("a tree of too many records");
        continue;
      }
      if (!seen.insert(view.ChildAt(i)).second) continue;
      const absl::StatusOr<EditPage*> child = co_await GetChild(view.ChildAt(i));
      if (child.ok()) next.push_back(*child);
      // What is lost may come back.
      const bool is_gone = IsDamage(child.status()) && !absl::IsDataLoss(child.status());
      if (!child.ok() && !is_gone) co_return child.status();
    }
  }
  std::vector<TreeRecord> records;
  for (auto& [key, value] : found) records.push_back({key, std::move(value)});
  co_return records;
}

}  // namespace mangrove::fs
