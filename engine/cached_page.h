// A page that this node has, wants, or is about to forget: its machine, and what the driver of the machine keeps beside.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "directory/cache_machine.h"
#include "engine/page_memory.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

// What an operation waits for: all pages of a block, or an error where it ends at one.
struct BlockWait {
  Outcome<bool> over;
  size_t left = 1;  // Pages, and who counts them.
  bool ends_at_error = true;
  absl::InlinedVector<std::pair<PageId, absl::Status>, 1> failed = {};

  void Set(PageId page, const absl::Status& status);
};

struct PageWaiter {
  std::shared_ptr<BlockWait> wait;
  PageId page;
  TimeNs deadline;
  Rights rights;
  bool joined;  // The request was out before.
};

struct CachedPage;

// What there is of a page only while something happens to it.
struct PageWork {
  std::vector<absl::AnyInvocable<void(CachedPage&)>> events;  // In their order; mostly none.
  std::vector<CacheEffect> effects;                           // Being carried out, from next_effect on.
  size_t next_effect = 0;
  absl::InlinedVector<PageWaiter, 1> waiters;
  std::vector<Outcome<absl::Status>> unlock_waiters;

  bool IsOver() const { return events.empty() && effects.empty() && waiters.empty() && unlock_waiters.empty(); }
};

// What PageEngine::TickPage looks after.
enum class Watch : uint8_t {
  kNot,
  kIsOver,   // Nothing: the page is to be forgotten.
  kAnswers,  // Of somebody here, or of another node.
};

struct CachedPage {
  CacheEntry entry;
  std::unique_ptr<PageWork> work;  // There while `carrying`, and while it holds something.
  TimeNs sent_at = 0;              // The last message that waits for an answer, or the begin of the watch.
  TimeNs look_at = 0;              // The tick in looks_; 0: none, or over.
  Watch watch = Watch::kNot;
  bool carrying = false;    // Effects are being carried out: events wait.
  bool charged = false;     // Counted in charged_.
  bool expected = false;    // By memory_.
  bool referenced = false;  // Used since the clock's hand passed.

  bool HasWaiters() const { return work != nullptr && !work->waiters.empty(); }
};
// There is one for each page of the RAM cache.
static_assert(sizeof(CachedPage) == sizeof(CacheEntry) + 32);

}  // namespace mangrove
