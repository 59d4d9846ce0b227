#include "fs/group_page.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr size_t kFirstAt = 16;
constexpr size_t kPagesAt = 24;
constexpr size_t kUsedAt = 28;
constexpr size_t kMarkedAt = 32;
constexpr size_t kOwnerAt = 36;
constexpr size_t kZoneAt = 40;
constexpr size_t kQuotaAt = 44;
constexpr size_t kCheckAt = 48;
constexpr size_t kUsedBits = 1008;
constexpr size_t kMarkBits = 2032;
constexpr size_t kTakenBits = 3056;
constexpr uint32_t kWordBits = 64;

bool BitOf(std::span<const char> page, size_t bits, uint32_t i) {
  return (static_cast<unsigned char>(page[bits + i / 8]) >> i % 8 & 1) != 0;
}

void PutBit(std::span<char> page, size_t bits, uint32_t i, bool value) {
  const auto mask = static_cast<unsigned char>(1U << i % 8);
  const auto byte = static_cast<unsigned char>(page[bits + i / 8]);
  page[bits + i / 8] = static_cast<char>(value ? byte | mask : byte & ~mask);
}

}  // namespace

absl::Status GroupView::Check(uint64_t first_page, Zone zone) const {
  const auto bytes = page_->bytes();
  if (first() != first_page || GetLittle<uint32_t>(bytes, kPagesAt) != kGroupPages ||
      GetLittle<uint32_t>(bytes, kZoneAt) != static_cast<uint32_t>(zone) || !IsUsed(0)) {
    return PosixError(EIO, absl::StrCat("page ", page_->number(), " of the fileset is another group's"));
  }
  uint32_t used_bits = 0;
  for (size_t at = 0; at < kGroupPages / 8; at += 8) {
    used_bits += static_cast<uint32_t>(std::popcount(GetLittle<uint64_t>(bytes, kUsedBits + at)));
  }
  if (used_bits == used()) return absl::OkStatus();
  return PosixError(EIO, absl::StrCat("the group of page ", page_->number(), " of the fileset counts ", used(),
                                      " used pages, and has ", used_bits));
}

uint64_t GroupView::first() const { return GetLittle<uint64_t>(page_->bytes(), kFirstAt); }
uint32_t GroupView::used() const { return GetLittle<uint32_t>(page_->bytes(), kUsedAt); }
uint32_t GroupView::marked() const { return GetLittle<uint32_t>(page_->bytes(), kMarkedAt); }
uint32_t GroupView::owner() const { return GetLittle<uint32_t>(page_->bytes(), kOwnerAt); }
uint32_t GroupView::quota() const { return GetLittle<uint32_t>(page_->bytes(), kQuotaAt); }
uint32_t GroupView::inodes() const {
  uint32_t count = 0;
  for (size_t at = 0; at < kGroupPages / 8; at += 8) {
    count += static_cast<uint32_t>(std::popcount(GetLittle<uint64_t>(page_->bytes(), kUsedBits + at) &
                                                 GetLittle<uint64_t>(page_->bytes(), kMarkBits + at)));
  }
  return count;
}
bool GroupView::IsUsed(uint32_t i) const { return BitOf(page_->bytes(), kUsedBits, i); }
bool GroupView::IsMarked(uint32_t i) const { return BitOf(page_->bytes(), kMarkBits, i); }

uint64_t GroupView::check() const { return GetLittle<uint64_t>(page_->bytes(), kCheckAt); }
bool GroupView::IsTaken(uint32_t i) const { return BitOf(page_->bytes(), kTakenBits, i); }

PageSpan GroupView::FindClean(uint64_t want, uint32_t start) const {
  const auto bytes = page_->bytes();
  PageSpan longest;
  const auto search = [&](uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to;) {
      const uint32_t word = i / kWordBits * 8;
      if (i % kWordBits == 0 && (GetLittle<uint64_t>(bytes, kUsedBits + word) |
                                 GetLittle<uint64_t>(bytes, kMarkBits + word)) == ~uint64_t{0}) {
        i += kWordBits;
        continue;
      }
      uint32_t length = 0;
      while (i + length < kGroupPages && length < want && !IsUsed(i + length) && !IsMarked(i + length)) ++length;
      if (length > longest.count) longest = {i, length};
      if (length == want) return true;
      i += length + 1;
    }
    return false;
  };
  if (!search(start, kGroupPages)) search(0, start);
  return longest;
}

PageSpan GroupView::FindMarked(uint64_t most) const {
  for (uint32_t i = 0; i < kGroupPages; ++i) {
    if (!IsMarked(i) || IsUsed(i)) continue;
    uint32_t length = 1;
    while (i + length < kGroupPages && length < most && IsMarked(i + length) && !IsUsed(i + length)) ++length;
    return {i, length};
  }
  return {};
}

void GroupEditor::Initialize(uint64_t first_page, Zone zone, uint32_t owner) {
  const auto bytes = page_->mutable_bytes();
  PutLittle(bytes, kFirstAt, first_page);
  PutLittle(bytes, kPagesAt, static_cast<uint32_t>(kGroupPages));
  PutLittle(bytes, kZoneAt, static_cast<uint32_t>(zone));
  PutLittle(bytes, kOwnerAt, owner);
  Set({0, 1}, true, false);
}

void GroupEditor::SetQuota(uint32_t number) { PutLittle(page_->mutable_bytes(), kQuotaAt, number); }
void GroupEditor::SetOwner(uint32_t owner) { PutLittle(page_->mutable_bytes(), kOwnerAt, owner); }

void GroupEditor::Set(PageSpan pages, bool used, bool marked) {
  const auto bytes = page_->mutable_bytes();
  uint32_t used_count = this->used();
  uint32_t marked_count = this->marked();
  for (auto i = static_cast<uint32_t>(pages.first); i < pages.first + pages.count; ++i) {
    used_count += static_cast<uint32_t>(used) - static_cast<uint32_t>(IsUsed(i));
    marked_count += static_cast<uint32_t>(marked && !used) - static_cast<uint32_t>(IsMarked(i) && !IsUsed(i));
    PutBit(bytes, kUsedBits, i, used);
    PutBit(bytes, kMarkBits, i, marked);
    if (used) PutBit(bytes, kTakenBits, i, true);
  }
  PutLittle(bytes, kUsedAt, used_count);
  PutLittle(bytes, kMarkedAt, marked_count);
}

void GroupEditor::BeginCheck(uint64_t check) {
  const auto bytes = page_->mutable_bytes();
  PutLittle(bytes, kCheckAt, check);
  std::memset(bytes.data() + kTakenBits, 0, kGroupPages / 8);
}

void GroupEditor::Correct(uint64_t first_page, Zone zone) {
  const auto bytes = page_->mutable_bytes();
  PutLittle(bytes, kFirstAt, first_page);
  PutLittle(bytes, kPagesAt, static_cast<uint32_t>(kGroupPages));
  PutLittle(bytes, kZoneAt, static_cast<uint32_t>(zone));
  if (owner() > kNodePlaces) SetOwner(0);
  PutBit(bytes, kUsedBits, 0, true);
  uint32_t used_count = 0;
  uint32_t marked_count = 0;
  for (uint32_t i = 0; i < kGroupPages; ++i) {
    // A mark is an inode's in the zone of metadata, a free page's in the others.
    if (IsMarked(i) && IsUsed(i) != (zone == Zone::kMetadata)) PutBit(bytes, kMarkBits, i, false);
    used_count += static_cast<uint32_t>(IsUsed(i));
    marked_count += static_cast<uint32_t>(IsMarked(i) && !IsUsed(i));
  }
  PutLittle(bytes, kUsedAt, used_count);
  PutLittle(bytes, kMarkedAt, marked_count);
}

void GroupEditor::MarkFree() {
  for (uint32_t i = 0; i < kGroupPages; ++i) {
    if (!IsUsed(i) && !IsMarked(i)) Set({i, 1}, false, true);
  }
}

}  // namespace mangrove::fs
