// A hash table of words in mapped memory, which processes on several nodes update by atomics alone: no lock, and none of
// them ever waits for another.
//
//   page 0       Header
//   page 1       how much of the arena is taken: on a page of its own, since all workers write it
//   from page 2  slots of 16 bytes {tag, count}, open addressing
//   behind them  the arena, for words of more than 12 letters: {length, letters}, 8-byte aligned
//
//  I1  A slot's tag goes from 0 to its word's once, by compare-and-swap, and never changes again. A tag is the word
//      itself, 5 bits a letter, or for long words 31 bits of hash and the place in the arena.
//  I2  What a tag refers to in the arena is written before the tag is (release), and never changes again; who has read
//      the tag (acquire) may read it.
//  I3  The header says `finished` only after every worker has merged, and a table that says so on disk is whole there.
//
// What it costs: a page that several nodes write goes to and fro between them. So workers merge seldom and in the order of
// slots, each beginning at another part of the table: a page comes once to each worker for a whole merge.

#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/mangrove.h"

namespace mangrove::example {

constexpr uint64_t kMagic = 0x31746e756f437277;  // "wrCount1"
constexpr uint64_t kArenaBlockBytes = uint64_t{64} << 10;
constexpr size_t kShortWordLetters = 12;
constexpr uint64_t kLongTag = uint64_t{1} << 63;
constexpr uint64_t kMaxProbes = 4096;

struct Header {
  uint64_t magic;
  uint64_t slots;
  uint64_t arena_bytes;
  uint64_t finished;  // I3
};
struct Slot {
  uint64_t tag;
  uint64_t count;
};
static_assert(sizeof(Slot) == 16 && kPageBytes % sizeof(Slot) == 0);

// Where everything is, by byte.
struct Layout {
  uint64_t slots;
  uint64_t arena_bytes;

  static constexpr uint64_t kArenaTakenAt = kPageBytes;
  static constexpr uint64_t kSlotsAt = 2 * kPageBytes;
  uint64_t arena_at() const { return kSlotsAt + slots * sizeof(Slot); }
  uint64_t size() const { return arena_at() + arena_bytes; }
};

inline uint64_t Mix(uint64_t x) {  // The end of MurmurHash3: every bit of x changes every bit of the result.
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53;
  return x ^ (x >> 33);
}

inline uint64_t HashOf(std::string_view word) {  // FNV-1a, the same in every process.
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return Mix(hash);
}

inline std::string UnpackShort(uint64_t tag) {
  std::string word;
  for (; tag != 0; tag >>= 5) word.push_back(static_cast<char>('a' - 1 + (tag & 31)));
  return word;
}

inline uint64_t ArenaOffset(uint64_t long_tag) { return (long_tag & 0xffffffff) * 8; }

// A word and its count, on the way into the table.
struct Entry {
  uint64_t hash;
  uint64_t short_tag;  // 0: it is long.
  std::string_view long_word;
  uint64_t count;
};

// One worker's view of the table. Owned by its thread.
class Table {
 public:
  Table(std::byte* base, const Layout& layout) : base_(base), layout_(layout) {}

  // Adds the counts; `first_part` of 0 to 1 is where in the table to begin.
  absl::Status Merge(std::vector<Entry> entries, double first_part);

 private:
  template <typename T>
  T* At(uint64_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }
  Slot* SlotAt(uint64_t index) const { return At<Slot>(Layout::kSlotsAt) + index; }
  uint64_t HomeOf(const Entry& entry) const { return entry.hash >> (64 - std::countr_zero(layout_.slots)); }
  absl::Status Add(const Entry& entry);
  bool IsOf(uint64_t tag, const Entry& entry) const;
  absl::StatusOr<uint64_t> WriteLong(const Entry& entry);

  std::byte* const base_;
  const Layout layout_;
  // This worker's part of the arena, in bytes from its start.
  uint64_t block_next_ = 0;
  uint64_t block_end_ = 0;
};

inline absl::Status Table::Merge(std::vector<Entry> entries, double first_part) {
  const auto home_is_lower = [this](const Entry& a, const Entry& b) { return HomeOf(a) < HomeOf(b); };
  std::sort(entries.begin(), entries.end(), home_is_lower);
  std::rotate(entries.begin(), entries.begin() + static_cast<ptrdiff_t>(first_part * entries.size()), entries.end());
  uint64_t page = UINT64_MAX;
  for (const Entry& entry : entries) {
    const uint64_t home = HomeOf(entry);
    if (const uint64_t its_page = home * sizeof(Slot) / kPageBytes; its_page != page) {
      // The page will be written: asking for that at once is one fault, reading first and then writing would be two.
      std::atomic_ref(SlotAt(home)->count).fetch_add(0, std::memory_order_relaxed);
      page = its_page;
    }
    if (absl::Status s = Add(entry); !s.ok()) return s;
  }
  return absl::OkStatus();
}

inline absl::Status Table::Add(const Entry& entry) {
  uint64_t own_tag = entry.short_tag;
  for (uint64_t probe = 0, index = HomeOf(entry); probe < std::min(kMaxProbes, layout_.slots);
       ++probe, index = (index + 1) & (layout_.slots - 1)) {
    Slot* const slot = SlotAt(index);
    const std::atomic_ref tag(slot->tag);
    uint64_t seen = tag.load(std::memory_order_acquire);
    if (seen == 0) {
      if (own_tag == 0) {
        const absl::StatusOr<uint64_t> written = WriteLong(entry);
        if (!written.ok()) return written.status();
        own_tag = *written;
      }
      // Release: I2. Where another was first, what it wrote is looked at, and our arena space is used again.
      if (tag.compare_exchange_strong(seen, own_tag, std::memory_order_acq_rel, std::memory_order_acquire)) {
        if (entry.short_tag == 0) block_next_ = ArenaOffset(own_tag) + (8 + entry.long_word.size() + 7) / 8 * 8;
        seen = own_tag;
      }
    }
    if (IsOf(seen, entry)) {
      std::atomic_ref(slot->count).fetch_add(entry.count, std::memory_order_relaxed);
      return absl::OkStatus();
    }
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the table of ", layout_.slots, " slots is full; give it more with --slots ", layout_.slots * 2));
}

inline bool Table::IsOf(uint64_t tag, const Entry& entry) const {
  if (entry.short_tag != 0) return tag == entry.short_tag;
  if ((tag & kLongTag) == 0 || (tag & ~kLongTag) >> 32 != entry.hash >> 33) return false;
  const std::byte* const at = base_ + layout_.arena_at() + ArenaOffset(tag);
  uint64_t length = 0;
  std::memcpy(&length, at, sizeof(length));
  return length == entry.long_word.size() && std::memcmp(at + 8, entry.long_word.data(), length) == 0;
}

// Writes the word where the next one goes, without taking that space yet. Returns its tag.
inline absl::StatusOr<uint64_t> Table::WriteLong(const Entry& entry) {
  const uint64_t length = entry.long_word.size();
  if (block_next_ + 8 + length > block_end_) {
    const uint64_t block = std::max(kArenaBlockBytes, (8 + length + kPageBytes - 1) / kPageBytes * kPageBytes);
    // Whole pages, so that what a worker appends to is written by no other.
    block_next_ = std::atomic_ref(*At<uint64_t>(Layout::kArenaTakenAt)).fetch_add(block);
    block_end_ = block_next_ + block;
    if (block_end_ > layout_.arena_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat("the arena for long words, ", layout_.arena_bytes >> 20,
                                                       " MiB, is full; give it more with --arena-mib ",
                                                       layout_.arena_bytes >> 19));
    }
  }
  std::byte* const at = base_ + layout_.arena_at() + block_next_;
  std::memcpy(at, &length, sizeof(length));
  std::memcpy(at + 8, entry.long_word.data(), length);
  return kLongTag | (entry.hash >> 33) << 32 | block_next_ / 8;
}

}  // namespace mangrove::example
