// The copies that a node has of a fileset's pages, for whoever keeps something of them where the engine does not see it: the kernel's caches.
//
// Owned by the loop.

#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "net/runtime/clock.h"

namespace mangrove::fs {

class PageCopies {
 public:
  class Keeper {
   public:
    virtual ~Keeper() = default;
    // The page is wanted elsewhere, or its room here: it leaves when `go` is called, once, and by nobody is read here any more. In the middle
    // of the engine's work.
    virtual void OnLeaving(uint64_t page, std::function<void()> go) = 0;
    // A transaction of this node has changed the page, or may have. Before anybody is told that it has ended.
    virtual void OnChanged(uint64_t page) = 0;
    // From now on there is another one beside it.
    virtual void OnOther() = 0;
  };

  virtual ~PageCopies() = default;

  // Whether the page can be read here, at this moment.
  virtual bool Has(uint64_t page) const = 0;
  // For how long what is here is as others see it, whatever happens to this node from now on, unless it leaves before. 0: not at all.
  virtual DurationNs UsableFor() const = 0;

  bool HasKeeper() const { return !keepers_.empty(); }
  // `keeper` outlives what is under way of OnLeaving.
  void Add(Keeper* keeper) {
    keepers_.push_back(keeper);
    if (keepers_.size() == 1) OnFirst();
    if (keepers_.size() > 1) {
      for (Keeper* each : keepers_) each->OnOther();
    }
  }
  void Remove(Keeper* keeper) {
    std::erase(keepers_, keeper);
    if (keepers_.empty()) OnNone();
  }

 protected:
  // Its pages are watched from the first keeper to the last.
  virtual void OnFirst() {}
  virtual void OnNone() {}
  void Change(uint64_t page) {
    for (Keeper* each : keepers_) each->OnChanged(page);
  }
  // `go` once all of them have let it go.
  void Leave(uint64_t page, std::function<void()> go) {
    if (keepers_.empty()) return go();
    if (keepers_.size() == 1) return keepers_.front()->OnLeaving(page, std::move(go));
    auto left = std::make_shared<size_t>(keepers_.size());
    const std::vector<Keeper*> keepers = keepers_;
    for (Keeper* each : keepers) {
      each->OnLeaving(page, [left, go] {
        if (--*left == 0) go();
      });
    }
  }

 private:
  std::vector<Keeper*> keepers_;
};

}  // namespace mangrove::fs
