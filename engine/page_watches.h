// Who is told when pages leave this node's memory, so that it need not look again and again whether others have changed them; and who has them
// wait, because something of them is kept where the engine does not see it.
//
// What another node is about to change leaves first, with the right to read it. Nothing is said of what is changed here.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

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
  void Remove(uint64_t number) {
    watches_.erase(number);
    guards_.erase(number);
  }

  // `go` is to be called once, then the page leaves: nobody reads it here any more. Others wait for it: not for longer than they bear with a node.
  using OnLeaving = std::function<void(PageId page, std::function<void()> go)>;
  // The number is for Remove; what is under way then is still to be let go.
  uint64_t AddGuard(PageRange range, OnLeaving leaving) {
    guards_.emplace(++last_, Guard{range, std::move(leaving)});
    return last_;
  }
  bool IsGuarded(PageId page) const {
    for (const auto& [number, guard] : guards_) {
      if (guard.range.Contains(page)) return true;
    }
    return false;
  }
  // `go` once all that guard the page let it go.
  void WhenMayLeave(PageId page, std::function<void()> go) const {
    auto left = std::make_shared<size_t>(1);
    const std::function<void()> one = [left, go = std::move(go)] {
      if (--*left == 0) go();
    };
    std::vector<OnLeaving> asked;
    for (const auto& [number, guard] : guards_) {
      if (guard.range.Contains(page)) asked.push_back(guard.leaving);
    }
    *left += asked.size();
    for (const OnLeaving& leaving : asked) leaving(page, one);
    one();
  }

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
  struct Guard {
    PageRange range;
    OnLeaving leaving;
  };
  std::map<uint64_t, Watch> watches_;
  std::map<uint64_t, Guard> guards_;
  uint64_t last_ = 0;
};

}  // namespace mangrove
