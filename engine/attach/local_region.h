// A Region of a LocalSession. Invariants: local_session.h.

#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "engine/attach/local_session.h"

namespace mangrove {

class LocalRegion final : public Region {
 public:
  LocalRegion(std::shared_ptr<LocalSession> session, std::shared_ptr<SharedRegion> shared, RegionInfo info);
  ~LocalRegion() override;

  const RegionInfo& info() const override { return info_; }
  absl::Status Allocate(uint64_t offset, uint64_t length, const AllocateOptions& options) override;
  absl::Status Unallocate(uint64_t offset, uint64_t length) override;
  absl::StatusOr<std::byte*> Map(uint64_t offset, uint64_t length) override;
  absl::Status Unmap(uint64_t offset, uint64_t length) override;
  absl::Status Read(uint64_t offset, std::span<std::byte> out) override;
  absl::Status Write(uint64_t offset, std::span<const std::byte> bytes) override;
  absl::Status Flush(uint64_t offset, uint64_t length) override;
  absl::StatusOr<PageAttributes> GetAttributes(uint64_t offset) override;
  absl::Status SetAttributes(uint64_t offset, uint64_t length, const PageAttributesChange& change) override;
  void SetEventCallback(std::function<void(const RegionEvent&)> callback) override;
  RegionCounters Counters() const override;
  absl::StatusOr<std::vector<LoggedWrite>> ReadLog(uint64_t node) override;
  absl::Status Heal(uint64_t offset, uint64_t length) override;

 protected:
  absl::StatusOr<uint64_t> LockPages(uint64_t offset, uint64_t length, LockMode mode, int64_t timeout_ms) override;
  absl::Status UnlockPages(uint64_t lock_id) override;
  absl::StatusOr<std::byte*> ViewAddress(uint64_t offset, uint64_t length) override;
  absl::StatusOr<std::byte*> StaleViewAddress(uint64_t offset, uint64_t length) override;
  absl::StatusOr<std::string> ReadIn(uint64_t transaction, uint64_t offset, uint64_t length,
                                     AccessMode intent) override;
  absl::Status WriteIn(uint64_t transaction, uint64_t offset, const std::string& bytes) override;

 private:
  // The bytes' place in the calls' mapping when they can be accessed without the node; null otherwise.
  std::byte* InPlace(uint64_t offset, uint64_t length, Rights rights) const;
  // Calls copy(place, done, part) for parts of the range, each brought here before.
  template <typename Copy>
  absl::Status CopySlowly(uint64_t offset, uint64_t length, AccessMode mode, Copy copy);
  // The same where the node is in this process: copy(page, in_page, done, part, left) for `part` bytes, in one page, of the
  // `left` ones that are to be copied in order; gives how many it has copied, and is called again after 0.
  template <typename Copy>
  absl::Status CopyPages(uint64_t offset, uint64_t length, AccessMode mode, Copy copy);
  template <typename Copy>
  absl::Status CopyPart(uint64_t offset, uint64_t done, uint64_t length, AccessMode mode, Copy& copy);

  // OK: what was copied before is good (L2).
  absl::Status Copied() const {
    std::atomic_thread_fence(std::memory_order_acquire);
    return session_->parts().liveness->alive() ? absl::OkStatus() : session_->CheckAlive();
  }
  absl::Status CheckBytes(uint64_t offset, uint64_t length) const;
  // Alive, whole pages, at least one, in the region.
  absl::Status CheckPages(uint64_t offset, uint64_t length) const;
  absl::Status CheckWritable() const;
  bool IsReadWithoutQuorum() const { return info_.without_quorum == WithoutQuorum::kRead; }
  // Of a mapping of this process: unless stores into it are forbidden, or about to be.
  absl::Status CheckMayStore() const;
  absl::StatusOr<BytesOfPage> PlaceInPage(uint64_t offset, uint64_t length) const;
  RegionPages Pages(uint64_t offset, uint64_t length) const;
  Backend& backend() const { return *session_->parts().backend; }

  const std::shared_ptr<LocalSession> session_;
  const std::shared_ptr<SharedRegion> shared_;
  const RegionInfo info_;
  const std::shared_ptr<RegionListener> listener_ = std::make_shared<RegionListener>();
  std::mutex mutex_;
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> maps_;  // How often each range is mapped.
};

}  // namespace mangrove
