// Who is told when pages leave this node's memory, so that it need not look again and again whether others have changed them.
//
// What another node is about to change leaves first, with the right to read it. Nothing is said of what is changed here.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "directory/address.h"

namespace mangrove {

class PageWatches {
 public:
  // Called in the middle of the engine's work, which it may not use then.
  using OnLeft = std::function<void(PageId page)>;
  using OnView = std::function<void()>;

  // `left`: of a page of `range`; `view`: there is a new one. The number is for Remove.
  uint64_t Add(PageRange range, OnLeft left, OnView view) {
    watches_.emplace(++last_, Watch{range, std::move(left), std::move(view)});
    return last_;
  }
  void Remove(uint64_t number) { watches_.erase(number); }

  void TellLeft(PageId page) const {
    for (const auto& [number, watch] : watches_) {
      if (watch.range.Contains(page)) watch.left(page);
    }
  }
  void TellView() const {
    for (const auto& [number, watch] : watches_) watch.view();
  }

 private:
  struct Watch {
    PageRange range;
    OnLeft left;
    OnView view;
  };
  std::map<uint64_t, Watch> watches_;
  uint64_t last_ = 0;
};

}  // namespace mangrove
