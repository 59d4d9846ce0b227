// A map from pages to what is known of each, for many pages side by side: neighbours lie in one piece, so that going through
// a range costs the hash table one access for sixteen pages, and none that misses the processor's caches for each.
//
// Looks like a map of PageId to T*, as far as it is needed. Owned by the loop.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "directory/address.h"
#include "net/check.h"

namespace mangrove {

template <typename T>
class PageMap {
  static constexpr uint64_t kPiecePages = 16;
  struct Piece {
    std::array<std::unique_ptr<T>, kPiecePages> entries;
    size_t used = 0;
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
  // Goes through all, in no order. Ends with the map's next change.
  class Cursor {
   public:
    Cursor(typename Pieces::const_iterator piece, typename Pieces::const_iterator end) : piece_(piece), end_(end) {
      SkipEmpty();
    }
    Item operator*() const { return {piece_->first + index_, piece_->second->entries[index_].get()}; }
    Cursor& operator++() {
      ++index_;
      SkipEmpty();
      return *this;
    }
    friend bool operator==(const Cursor& cursor, End) { return cursor.piece_ == cursor.end_; }

   private:
    void SkipEmpty() {
      for (; piece_ != end_; ++piece_, index_ = 0) {
        for (; index_ < kPiecePages; ++index_) {
          if (piece_->second->entries[index_] != nullptr) return;
        }
      }
    }

    typename Pieces::const_iterator piece_;
    typename Pieces::const_iterator end_;
    uint64_t index_ = 0;
  };

  Cursor begin() const { return Cursor(pieces_.begin(), pieces_.end()); }
  End end() const { return {}; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  Found find(PageId page) const {
    const Piece* const piece = PieceOf(page);
    return Found({page, piece == nullptr ? nullptr : piece->entries[IndexOf(page)].get()});
  }

  // The entry of `page`; made by make() -> std::unique_ptr<T> if there is none.
  template <typename Make>
  T& FindOrMake(PageId page, Make make) {
    Piece* piece = PieceOf(page);
    if (piece == nullptr) {
      std::unique_ptr<Piece>& slot = pieces_[FirstOf(page)];
      slot = std::make_unique<Piece>();
      piece = slot.get();
      last_first_ = FirstOf(page);
      last_ = piece;
    }
    std::unique_ptr<T>& entry = piece->entries[IndexOf(page)];
    if (entry == nullptr) {
      entry = make();
      ++piece->used;
      ++size_;
    }
    return *entry;
  }

  // REQUIRES: it is there.
  void erase(PageId page) {
    Piece* const piece = PieceOf(page);
    CHECK(piece != nullptr && piece->entries[IndexOf(page)] != nullptr);
    const std::unique_ptr<T> entry = std::move(piece->entries[IndexOf(page)]);
    --size_;
    if (--piece->used > 0) return;
    last_ = nullptr;
    pieces_.erase(FirstOf(page));
  }
  void erase(const Found& found) { erase(found->first); }

 private:
  static uint64_t IndexOf(PageId page) { return absl::Uint128Low64(page.value) % kPiecePages; }
  static PageId FirstOf(PageId page) { return PageId(page.value - IndexOf(page)); }

  Piece* PieceOf(PageId page) const {
    const PageId first = FirstOf(page);
    if (last_ != nullptr && last_first_ == first) return last_;
    const auto it = pieces_.find(first);
    if (it == pieces_.end()) return nullptr;
    last_first_ = first;
    last_ = it->second.get();
    return last_;
  }

  Pieces pieces_;
  size_t size_ = 0;
  mutable PageId last_first_;  // Of last_, which was asked for last.
  mutable Piece* last_ = nullptr;
};

}  // namespace mangrove
