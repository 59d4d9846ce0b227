// A map from pages to what is known of each, for many pages side by side: neighbours lie in one piece, so that going through
// a range costs the hash table one access for sixteen pages, and none that misses the processor's caches for each.
//
// Entries lie in blocks of four, and stay where they are until they are erased: making others moves none. Beside itself an
// entry costs 11 to 15 bytes where neighbours have entries too; one that is alone costs a block and 150 bytes.
//
// Looks like a map of PageId to T*, as far as it is needed. Owned by the loop.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "absl/container/flat_hash_map.h"
#include "directory/address.h"
#include "net/check.h"

namespace mangrove {

template <typename T>
class PageMap {
  static constexpr uint64_t kPiecePages = 16;
  static constexpr uint64_t kBlockPages = 4;
  struct Block {
    alignas(T) std::array<std::byte, kBlockPages * sizeof(T)> room;
  };
  struct Piece {
    std::array<std::unique_ptr<Block>, kPiecePages / kBlockPages> blocks;
    uint32_t used = 0;  // A bit for each entry.
    const PageId first;
    Piece* before = this;  // All pieces, in a ring.
    Piece* next = this;

    explicit Piece(PageId first_page) : first(first_page) {}
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;
    ~Piece() {
      for (uint64_t i = 0; i < kPiecePages; ++i) {
        if (T* entry = At(i)) entry->~T();
      }
    }
    T* At(uint64_t i) const { return (used >> i & 1) == 0 ? nullptr : std::launder(reinterpret_cast<T*>(RoomOf(i))); }
    std::byte* RoomOf(uint64_t i) const { return &blocks[i / kBlockPages]->room[i % kBlockPages * sizeof(T)]; }
    T* Make(uint64_t i) {
      std::unique_ptr<Block>& block = blocks[i / kBlockPages];
      if (block == nullptr) block.reset(new Block);
      T* const entry = new (RoomOf(i)) T();
      used |= uint32_t{1} << i;
      return entry;
    }
    void Erase(uint64_t i) {
      At(i)->~T();
      used &= ~(uint32_t{1} << i);
      const uint32_t of_block = ((uint32_t{1} << kBlockPages) - 1) << i / kBlockPages * kBlockPages;
      if ((used & of_block) == 0) blocks[i / kBlockPages].reset();
    }
  };
  using Pieces = absl::flat_hash_map<PageId, std::unique_ptr<Piece>>;

 public:
  struct Item {
    PageId first;
    T* second;
  };
  struct End {};
  // What find() gives: an item, or none.
  class Found {
   public:
    explicit Found(Item item) : item_(item) {}
    const Item* operator->() const { return &item_; }
    friend bool operator==(const Found& found, End) { return found.item_.second == nullptr; }

   private:
    Item item_;
  };
  // Goes through all, in the order of Next(). Ends with the map's next change.
  class Cursor {
   public:
    explicit Cursor(const Piece* start) : start_(start), piece_(start) { SkipEmpty(); }
    Item operator*() const { return {piece_->first + index_, piece_->At(index_)}; }
    Cursor& operator++() {
      ++index_;
      SkipEmpty();
      return *this;
    }
    friend bool operator==(const Cursor& cursor, End) { return cursor.piece_ == nullptr; }

   private:
    void SkipEmpty() {
      while (piece_ != nullptr && (piece_->used >> index_) == 0) {
        index_ = 0;
        piece_ = piece_->next == start_ ? nullptr : piece_->next;
      }
      while (piece_ != nullptr && piece_->At(index_) == nullptr) ++index_;
    }

    const Piece* start_;
    const Piece* piece_;  // Null: at the end.
    uint64_t index_ = 0;
  };

  Cursor begin() const { return Cursor(hand_); }
  End end() const { return {}; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  Found find(PageId page) const {
    const Piece* const piece = PieceOf(page);
    return Found({page, piece == nullptr ? nullptr : piece->At(IndexOf(page))});
  }

  // The entry of `page`. If there is none it is made, and handed to begin(T&).
  template <typename Begin>
  T& FindOrMake(PageId page, Begin begin) {
    Piece* piece = PieceOf(page);
    if (piece == nullptr) {
      piece = (pieces_[FirstOf(page)] = std::make_unique<Piece>(FirstOf(page))).get();
      Link(piece);
      last_ = piece;
    }
    T* entry = piece->At(IndexOf(page));
    if (entry == nullptr) {
      entry = piece->Make(IndexOf(page));
      ++size_;
      begin(*entry);
    }
    return *entry;
  }

  T& operator[](PageId page) {
    return FindOrMake(page, [](T&) {});
  }

  // REQUIRES: it is there.
  void erase(PageId page) {
    Piece* const piece = PieceOf(page);
    CHECK(piece != nullptr && piece->At(IndexOf(page)) != nullptr);
    piece->Erase(IndexOf(page));
    --size_;
    if (piece->used != 0) return;
    Unlink(piece);
    last_ = nullptr;
    pieces_.erase(FirstOf(page));
  }
  void erase(const Found& found) { erase(found->first); }

  void clear() {
    pieces_.clear();
    size_ = 0;
    last_ = hand_ = nullptr;
    hand_index_ = 0;
  }

  // Goes round all entries, for ever: the pieces in the order in which they were made, each in the order of its pages. What
  // is made comes when the rest has come, unless its piece was there before. REQUIRES: !empty().
  Item Next() {
    while ((hand_->used >> hand_index_) == 0) {
      hand_ = hand_->next;
      hand_index_ = 0;
    }
    while (hand_->At(hand_index_) == nullptr) ++hand_index_;
    const uint64_t index = hand_index_++;
    return {hand_->first + index, hand_->At(index)};
  }

 private:
  static uint64_t IndexOf(PageId page) { return absl::Uint128Low64(page.value) % kPiecePages; }
  static PageId FirstOf(PageId page) { return PageId(page.value - IndexOf(page)); }

  Piece* PieceOf(PageId page) const {
    const PageId first = FirstOf(page);
    if (last_ != nullptr && last_->first == first) return last_;
    const auto it = pieces_.find(first);
    if (it == pieces_.end()) return nullptr;
    last_ = it->second.get();
    return last_;
  }

  void Link(Piece* piece) {
    if (hand_ == nullptr) {
      hand_ = piece;
      return;
    }
    piece->next = hand_;
    piece->before = hand_->before;
    piece->before->next = piece;
    hand_->before = piece;
  }
  void Unlink(Piece* piece) {
    if (hand_ == piece) {
      hand_ = piece->next == piece ? nullptr : piece->next;
      hand_index_ = 0;
    }
    piece->before->next = piece->next;
    piece->next->before = piece->before;
  }

  Pieces pieces_;
  size_t size_ = 0;
  mutable Piece* last_ = nullptr;  // Asked for last.
  Piece* hand_ = nullptr;          // Where Next() goes on, at hand_index_. Null: there is none.
  uint64_t hand_index_ = 0;
};

}  // namespace mangrove
