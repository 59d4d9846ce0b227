// Pages with changes of transactions that are committed on this node, and not durable yet. The engine's lock of such a page stays with it, so
// no other node sees or has it; transactions of this node take it in turns, and see what is committed.
//
//  P1  A page is here from the commit of a change that is not in it yet until all such changes are, and no transaction holds it. Its
//      engine's lock is exclusive all the while.
//  P2  One transaction has it for writing, or several for reading.
//  P3  After kTenure, if others wait for it, and after kMostTenure in any case, no transaction takes it any more before it was given up
//      once: so other nodes get their turn, and what is not durable is not of long ago.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "engine/transactions/transaction_pages.h"
#include "engine/transactions/waiters.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class LocalPages {
 public:
  static constexpr DurationNs kTenure = 10 * kMillisecond;
  static constexpr DurationNs kMostTenure = 200 * kMillisecond;

  struct Page {
    explicit Page(Clock* clock) : changed(clock) {}
    HeldPages lock;
    TransactionPages::Content content;  // With all changes that are committed.
    ConfigNumber config;
    uint64_t sequence = 0;
    uint64_t writer = 0;  // 0: nobody.
    std::set<uint64_t> readers;
    int pending = 0;  // Changes that are not in the page.
    TimeNs since = 0;
    Waiters changed;
  };

  LocalPages(const TransactionPages* pages, Clock* clock) : all_(pages), clock_(clock) {}

  bool IsEmpty() const { return pages_.empty(); }
  // Null: it is not here.
  Page* Find(PageId page);
  // Has the transaction hold the page. False: it has to wait, or the page is to be given up first. REQUIRES: it is here.
  bool Take(PageId page, uint64_t transaction, LockMode mode);
  // Until something about the page has changed, at most until `deadline`.
  Task<bool> Wait(PageId page, TimeNs deadline);
  // The transaction holds it no longer.
  void Leave(PageId page, uint64_t transaction);
  // A page of which the first such change is being committed, held by that transaction for writing.
  Page* Add(PageId page, uint64_t transaction, HeldPages lock);
  // A change of it is in the page.
  void Applied(PageId page);
  // Whoever waits goes on. The node ends.
  void Clear();

 private:
  void GiveUpIfIdle(PageId page);
  bool IsOverdue(PageId page, const Page& local) const;

  const TransactionPages* const all_;
  Clock* const clock_;
  std::map<PageId, std::shared_ptr<Page>> pages_;
};

}  // namespace mangrove
