// Pages as transactions use them: locked, read, and written in place, over the engine's own operations.
//
// A page that is locked here may be flushed by somebody meanwhile, and have no right for a moment: Load and Store wait for it.
// Owned by the loop.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mangrove.h"
#include "engine/transactions/log_format.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class PageEngine;
class TransactionPages;

// Pages that are locked until this goes. Move-only.
class HeldPages {
 public:
  HeldPages() = default;
  HeldPages(TransactionPages* pages, uint64_t lock);
  HeldPages(HeldPages&& other) noexcept
      : pages_(std::exchange(other.pages_, nullptr)), lock_(other.lock_), open_(std::move(other.open_)) {}
  HeldPages& operator=(HeldPages&& other) noexcept {
    std::swap(pages_, other.pages_);
    std::swap(lock_, other.lock_);
    std::swap(open_, other.open_);
    return *this;
  }
  ~HeldPages() { Release(); }
  void Release();

 private:
  TransactionPages* pages_ = nullptr;
  uint64_t lock_ = 0;
  std::shared_ptr<bool> open_;  // False: the locks are gone with the node.
};

class TransactionPages {
 public:
  TransactionPages(PageEngine* engine, Clock* clock) : engine_(engine), clock_(clock) {}
  ~TransactionPages() { Shutdown(); }
  // The engine ends, and with it the locks.
  void Shutdown() { *open_ = false; }

  // What the page was allocated as. REQUIRES: it is here.
  struct Allocation {
    ConfigNumber config;
    bool is_volatile = false;
  };
  Allocation AllocationOf(PageId page) const;

  // Whether a transaction may lock more pages. The log locks its own without asking (W3).
  absl::Status CheckMayLock(uint64_t pages) const;
  // Errors as the engine's.
  Task<absl::StatusOr<HeldPages>> Lock(PageRange range, LockMode mode, TimeNs deadline);

  // Whether somebody waits for a lock of the page to go.
  bool IsLockAwaited(PageId page) const;

  // Gets the pages here, side by side, for Load; they may go again at any time.
  Task<absl::Status> Fetch(PageRange range, TimeNs deadline);

  using Content = std::shared_ptr<PageBytes>;
  Task<absl::StatusOr<Content>> Load(PageId page, TimeNs deadline);
  // Whether this node may use what is here now; and bytes of a page as it is here, if it is.
  bool Serves() const;
  std::optional<std::string> LoadNow(PageId page, size_t offset, size_t length) const;
  // REQUIRES: exclusively locked.
  Task<absl::Status> Store(PageId page, Content content, TimeNs deadline);
  // The change's bytes and its sequence. REQUIRES: exclusively locked.
  Task<absl::Status> Apply(const PageChange* change, TimeNs deadline);

  // Everything that any node has written to the pages. Those that are not allocated, volatile or lost have nothing to be flushed.
  Task<absl::Status> FlushAll(std::vector<PageId> pages, TimeNs deadline);
  Task<absl::Status> Flush(PageRange range, TimeNs deadline);

 private:
  friend class HeldPages;
  void Unlock(uint64_t lock);
  Task<absl::Status> FlushWhatIsThere(PageRange range, TimeNs deadline);

  PageEngine* const engine_;
  Clock* const clock_;
  const std::shared_ptr<bool> open_ = std::make_shared<bool>(true);
};

}  // namespace mangrove
