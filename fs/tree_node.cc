#include "fs/tree_node.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/status.h"
#include "net/check.h"

namespace mangrove::fs {
namespace {

constexpr size_t kCountAt = 0;
constexpr size_t kLevelAt = 2;
constexpr size_t kLowestAt = 4;
constexpr size_t kGoneAt = 6;
constexpr uint16_t kMostLevels = 12;

}  // namespace

std::string ChildValue(uint64_t page) {
  std::string value(sizeof(page), '\0');
  PutLittle({value.data(), value.size()}, 0, page);
  return value;
}

void NodeEditor::Set(size_t at, size_t value) { PutLittle(bytes_, at, static_cast<uint16_t>(value)); }

void NodeEditor::Clear(uint16_t level) {
  std::memset(bytes_.data(), 0, bytes_.size());
  Set(kLevelAt, level);
  Set(kLowestAt, bytes_.size());
}

uint16_t NodeView::count() const { return GetLittle<uint16_t>(bytes_, kCountAt); }
uint16_t NodeView::level() const { return GetLittle<uint16_t>(bytes_, kLevelAt); }
uint16_t NodeView::lowest() const { return GetLittle<uint16_t>(bytes_, kLowestAt); }
uint16_t NodeView::gone() const { return GetLittle<uint16_t>(bytes_, kGoneAt); }
uint16_t NodeView::PlaceOf(uint16_t i) const { return GetLittle<uint16_t>(bytes_, SlotAt(i)); }

absl::Status NodeView::Check() const {
  const auto wrong = [](absl::string_view what) { return PosixError(EIO, absl::StrCat("a tree's node has ", what)); };
  if (level() > kMostLevels) return wrong(absl::StrCat("level ", level()));
  if (SlotAt(count()) > lowest() || lowest() > bytes_.size()) return wrong("records where its head is");
  size_t used = gone();
  for (uint16_t i = 0; i < count(); ++i) {
    const size_t place = PlaceOf(i);
    if (place < lowest() || place + kRecordHead > bytes_.size()) return wrong("a record outside of it");
    const size_t length = GetLittle<uint16_t>(bytes_, place + 8);
    if (length > bytes_.size() - place - kRecordHead) return wrong("a record that is too long");
    if (level() > 0 && length != sizeof(uint64_t)) return wrong("a child that is no page's number");
    if (i > 0 && KeyAt(i) <= KeyAt(static_cast<uint16_t>(i - 1))) return wrong("keys that do not ascend");  // N1
    used += kRecordHead + length;
  }
  if (used != bytes_.size() - lowest()) return wrong("records that overlap");
  if (level() > 0 && count() == 0) return wrong("no child");
  return absl::OkStatus();
}

uint64_t NodeView::KeyAt(uint16_t i) const { return GetLittle<uint64_t>(bytes_, PlaceOf(i)); }

std::string_view NodeView::ValueAt(uint16_t i) const {
  const size_t place = PlaceOf(i);
  return {bytes_.data() + place + kRecordHead, GetLittle<uint16_t>(bytes_, place + 8)};
}

uint64_t NodeView::ChildAt(uint16_t i) const { return GetLittle<uint64_t>(bytes_, PlaceOf(i) + kRecordHead); }

uint16_t NodeView::LowerBound(uint64_t key) const {
  uint16_t low = 0;
  uint16_t high = count();
  while (low < high) {
    const auto middle = static_cast<uint16_t>((low + high) / 2);
    if (KeyAt(middle) < key) {
      low = static_cast<uint16_t>(middle + 1);
    } else {
      high = middle;
    }
  }
  return low;
}

uint16_t NodeView::ChildFor(uint64_t key) const {
  const uint16_t i = LowerBound(key);
  if (i < count() && KeyAt(i) == key) return i;
  return i == 0 ? i : static_cast<uint16_t>(i - 1);
}

size_t NodeView::FreeBytes() const { return lowest() + gone() - SlotAt(count()); }

// Records side by side again, at the end.
void NodeEditor::Compact() {
  const std::string before(bytes_.data(), bytes_.size());
  const std::span<const char> from(before);
  size_t place = bytes_.size();
  for (uint16_t i = 0; i < count(); ++i) {
    const size_t old = GetLittle<uint16_t>(from, SlotAt(i));
    const size_t length = kRecordHead + GetLittle<uint16_t>(from, old + 8);
    place -= length;
    std::memcpy(bytes_.data() + place, before.data() + old, length);
    Set(SlotAt(i), place);
  }
  Set(kLowestAt, place);
  Set(kGoneAt, 0);
}

bool NodeEditor::Insert(uint64_t key, std::string_view value) {
  if (BytesOf(value.size()) > FreeBytes()) return false;
  const uint16_t i = LowerBound(key);
  CHECK(i == count() || KeyAt(i) != key);
  if (SlotAt(count() + 1U) + kRecordHead + value.size() > lowest()) Compact();
  const size_t place = lowest() - kRecordHead - value.size();
  PutLittle(bytes_, place, key);
  Set(place + 8, value.size());
  std::memcpy(bytes_.data() + place + kRecordHead, value.data(), value.size());
  std::memmove(bytes_.data() + SlotAt(i) + kSlotBytes, bytes_.data() + SlotAt(i), kSlotBytes * (count() - i));
  Set(SlotAt(i), place);
  Set(kCountAt, count() + 1);
  Set(kLowestAt, place);
  return true;
}

bool NodeEditor::Replace(uint16_t i, std::string_view value) {
  const size_t old = ValueAt(i).size();
  if (old == value.size()) {
    std::memcpy(bytes_.data() + PlaceOf(i) + kRecordHead, value.data(), value.size());
    return true;
  }
  if (value.size() > old && value.size() - old > FreeBytes()) return false;
  const uint64_t key = KeyAt(i);
  const std::string kept(value);  // It may be this node's own.
  Erase(i);
  CHECK(Insert(key, kept));
  return true;
}

void NodeEditor::Erase(uint16_t i) {
  const size_t place = PlaceOf(i);
  const size_t length = kRecordHead + ValueAt(i).size();
  if (place == lowest()) {
    Set(kLowestAt, place + length);
  } else {
    Set(kGoneAt, gone() + length);
  }
  std::memset(bytes_.data() + place, 0, length);
  std::memmove(bytes_.data() + SlotAt(i), bytes_.data() + SlotAt(i) + kSlotBytes, kSlotBytes * (count() - i - 1U));
  Set(kCountAt, count() - 1);
  Set(SlotAt(count()), 0);
}

void NodeEditor::EraseChild(uint16_t i) {
  if (i > 0 || count() == 1) return Erase(i);
  const std::string next(ValueAt(1));
  Erase(1);
  CHECK(Replace(0, next));
}

}  // namespace mangrove::fs
