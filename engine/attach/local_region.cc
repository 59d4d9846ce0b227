#include "engine/attach/local_region.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/attach/packet_socket.h"
#include "engine/transaction.h"
#include "engine/transactions/log_format.h"
#include "net/check.h"

namespace mangrove {
namespace {

// A call on more pages goes in parts: what comes first is not evicted by what comes last. The smallest cache holds one.
constexpr uint64_t kPartBytes = 256 * kPageBytes;
// From so many bytes on, asking the kernel for entries costs less than the copy.
constexpr uint64_t kPrefaultBytes = 8 * kPageBytes;

constexpr uint64_t PageFloor(uint64_t offset) { return offset & ~(uint64_t{kPageBytes} - 1); }
constexpr uint64_t PageCeiling(uint64_t offset) { return PageFloor(offset + kPageBytes - 1); }

}  // namespace

LocalRegion::LocalRegion(std::shared_ptr<LocalSession> session, std::shared_ptr<SharedRegion> shared, RegionInfo info)
    : session_(std::move(session)), shared_(std::move(shared)), info_(std::move(info)) {
  session_->parts().events->Add(shared_->handle(), listener_);
}

LocalRegion::~LocalRegion() {
  if (session_->parts().liveness->IsOwnProcess()) session_->parts().events->Remove(shared_->handle(), listener_);
}

// --- Checks -----------------------------------------------------------------------------------------------------------

absl::Status LocalRegion::CheckBytes(uint64_t offset, uint64_t length) const {
  if (offset > info_.size_bytes || length > info_.size_bytes - offset) {
    return absl::InvalidArgumentError(absl::StrCat(length, " bytes at offset ", offset, " are not in region '",
                                                   info_.name, "' of ", info_.size_bytes, " bytes"));
  }
  return session_->CheckAlive();
}

absl::Status LocalRegion::CheckPages(uint64_t offset, uint64_t length) const {
  if (offset % kPageBytes != 0 || length % kPageBytes != 0 || length == 0) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", offset, " and length ", length,
                                                   ": expected multiples of ", kPageBytes, ", and at least one page"));
  }
  return CheckBytes(offset, length);
}

absl::Status LocalRegion::CheckWritable() const {
  if (shared_->may_write()) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("region '", info_.name, "' is open for reading only"));
}

absl::Status LocalRegion::CheckMayStore() const {
  if (!IsReadWithoutQuorum()) return absl::OkStatus();
  if (backend().MayStore() && !session_->parts().mappings->lease_has_ended()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("no quorum: the node has no lease on its place in the cluster, and region '", info_.name,
                   "' is only read until it has one; try again later"));
}

RegionPages LocalRegion::Pages(uint64_t offset, uint64_t length) const {
  const uint64_t first = offset >> kPageShift;
  return {shared_->handle(), first, (PageCeiling(offset + length) >> kPageShift) - first};
}

// --- Copying ----------------------------------------------------------------------------------------------------------

inline std::byte* LocalRegion::InPlace(uint64_t offset, uint64_t length, Rights rights) const {
  std::byte* const base = shared_->base(MappingUse::kCalls);
  if (base == nullptr || !session_->parts().liveness->alive() || length == 0 || offset >= info_.size_bytes ||
      length > info_.size_bytes - offset) {
    return nullptr;
  }
  if (!shared_->states().HaveRights(offset >> kPageShift, (offset + length - 1) >> kPageShift, rights)) return nullptr;
  return base + offset;
}

template <typename Copy>
absl::Status LocalRegion::CopySlowly(uint64_t offset, uint64_t length, AccessMode mode, Copy copy) {
  if (absl::Status s = CheckBytes(offset, length); !s.ok()) return s;
  if (length == 0) return absl::OkStatus();
  auto mapping = shared_->Mapping(MappingUse::kCalls);
  if (!mapping.ok()) return mapping.status();
  const Rights rights = mode == AccessMode::kWrite ? Rights::kWrite : Rights::kRead;
  // All of it is allocated, before the first part changes anything.
  if (length > PageFloor(offset) + kPartBytes - offset && InPlace(offset, length, rights) == nullptr) {
    if (absl::Status s = backend().CheckAllocated(Pages(offset, length)); !s.ok()) return s;
  }
  for (uint64_t done = 0; done < length;) {
    const uint64_t at = offset + done;
    const uint64_t part = std::min(length - done, PageFloor(at) + kPartBytes - at);
    const bool here = InPlace(at, part, rights) != nullptr;
    if (!here) {
      if (absl::Status s = backend().Acquire(Pages(at, part), mode); !s.ok()) return s;
    }
    if (!here || part >= kPrefaultBytes) {
      // An entry for stores takes a pin, which only the node can take.
      if (mode == AccessMode::kRead) {
        (*mapping)->Prefault(PageFloor(at), PageCeiling(at + part) - PageFloor(at), shared_->states());
      }
    }
    if (mode == AccessMode::kWrite) {
      if (absl::Status s = CheckMayStore(); !s.ok()) return s;
    }
    copy((*mapping)->base() + at, done, part);
    if (absl::Status s = Copied(); !s.ok()) return s;
    done += part;
  }
  return absl::OkStatus();
}

template <typename Copy>
absl::Status LocalRegion::CopyPart(uint64_t offset, uint64_t done, uint64_t length, AccessMode mode, Copy& copy) {
  const PageId first = shared_->frames()->pages().first;
  int64_t patience_ends_ns = 0;
  for (const uint64_t end = done + length; done < end;) {
    const uint64_t at = offset + done;
    const uint64_t part = std::min(end - done, PageFloor(at) + kPageBytes - at);
    if (const uint64_t copied = copy(first + (at >> kPageShift), at - PageFloor(at), done, part, end - done)) {
      done += copied;
      patience_ends_ns = 0;
      continue;
    }
    // It was taken away between being brought here and being copied.
    const int64_t now_ns = MonotonicNowNs();
    if (patience_ends_ns == 0) patience_ends_ns = now_ns + backend().limits().call_timeout_ms * kMillisecond;
    if (now_ns >= patience_ends_ns) {
      return absl::UnavailableError(absl::StrCat("the page at offset ", PageFloor(at), " of region '", info_.name,
                                                 "' did not stay long enough to be used; try again"));
    }
    if (absl::Status s = backend().Acquire(Pages(at, part), mode); !s.ok()) return s;
  }
  return absl::OkStatus();
}

template <typename Copy>
absl::Status LocalRegion::CopyPages(uint64_t offset, uint64_t length, AccessMode mode, Copy copy) {
  if (absl::Status s = CheckBytes(offset, length); !s.ok()) return s;
  const Rights rights = mode == AccessMode::kWrite ? Rights::kWrite : Rights::kRead;
  const auto here = [&](uint64_t at, uint64_t part) {
    return shared_->states().HaveRights(at >> kPageShift, (at + part - 1) >> kPageShift, rights);
  };
  // All of it is allocated, before the first part changes anything.
  if (length > PageFloor(offset) + kPartBytes - offset && !here(offset, length)) {
    if (absl::Status s = backend().CheckAllocated(Pages(offset, length)); !s.ok()) return s;
  }
  for (uint64_t done = 0; done < length;) {
    const uint64_t at = offset + done;
    const uint64_t part = std::min(length - done, PageFloor(at) + kPartBytes - at);
    if (!here(at, part)) {
      if (absl::Status s = backend().Acquire(Pages(at, part), mode); !s.ok()) return s;
    }
    if (absl::Status s = CopyPart(offset, done, part, mode, copy); !s.ok()) return s;
    done += part;
  }
  return absl::OkStatus();
}

absl::Status LocalRegion::Read(uint64_t offset, std::span<std::byte> out) {
  if (RegionFrames* const frames = shared_->frames(); frames != nullptr) {
    return CopyPages(offset, out.size(), AccessMode::kRead,
                     [&](PageId page, size_t in_page, uint64_t done, size_t part, uint64_t left) -> uint64_t {
                       if (part < kPageBytes || left < 2 * kPageBytes) {
                         return frames->ReadPage(page, in_page, out.subspan(done, part)) ? part : 0;
                       }
                       const PageRange whole{page, left >> kPageShift};
                       return frames->ReadPages(whole, out.subspan(done, whole.count << kPageShift)) << kPageShift;
                     });
  }
  if (out.size() < kPrefaultBytes) {
    if (const std::byte* place = InPlace(offset, out.size(), Rights::kRead); place != nullptr) {
      std::memcpy(out.data(), place, out.size());
      return Copied();
    }
  }
  return CopySlowly(offset, out.size(), AccessMode::kRead, [&](const std::byte* place, uint64_t done, uint64_t part) {
    std::memcpy(out.data() + done, place, part);
  });
}

absl::Status LocalRegion::Write(uint64_t offset, std::span<const std::byte> bytes) {
  if (!shared_->may_write()) return CheckWritable();
  if (RegionFrames* const frames = shared_->frames(); frames != nullptr) {
    return CopyPages(offset, bytes.size(), AccessMode::kWrite,
                     [&](PageId page, size_t in_page, uint64_t done, size_t part, uint64_t) -> uint64_t {
                       return frames->WritePage(page, in_page, bytes.subspan(done, part)) ? part : 0;
                     });
  }
  if (bytes.size() < kPrefaultBytes) {
    std::byte* const place = InPlace(offset, bytes.size(), Rights::kWrite);
    if (place != nullptr && CheckMayStore().ok()) {
      std::memcpy(place, bytes.data(), bytes.size());
      return Copied();
    }
  }
  return CopySlowly(offset, bytes.size(), AccessMode::kWrite, [&](std::byte* place, uint64_t done, uint64_t part) {
    std::memcpy(place, bytes.data() + done, part);
  });
}

// --- Mapping ----------------------------------------------------------------------------------------------------------

absl::StatusOr<std::byte*> LocalRegion::Map(uint64_t offset, uint64_t length) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  if (absl::Status s = backend().CheckAllocated(Pages(offset, length)); !s.ok()) return s;
  auto mapping = shared_->Mapping(MappingUse::kProgram);
  if (!mapping.ok()) return mapping.status();
  const std::lock_guard lock(mutex_);
  ++maps_[{offset, length}];
  return (*mapping)->base() + offset;
}

absl::Status LocalRegion::Unmap(uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  const auto it = maps_.find({offset, length});
  if (it == maps_.end()) {
    return absl::InvalidArgumentError(absl::StrCat(length, " bytes at offset ", offset, " of region '", info_.name,
                                                   "' are not mapped by that range"));
  }
  if (--it->second == 0) maps_.erase(it);
  return absl::OkStatus();
}

absl::StatusOr<std::byte*> LocalRegion::ViewAddress(uint64_t offset, uint64_t length) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  auto mapping = shared_->Mapping(MappingUse::kProgram);
  if (!mapping.ok()) return mapping.status();
  (*mapping)->Prefault(offset, length, shared_->states());
  return (*mapping)->base() + offset;
}

absl::StatusOr<std::byte*> LocalRegion::StaleViewAddress(uint64_t offset, uint64_t length) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  const RegionFrames* const frames = shared_->frames();
  const bool without_quorum =
      frames != nullptr ? frames->fence() == FrameFence::kLoadsOnly : session_->parts().mappings->lease_has_ended();
  const uint64_t first = offset >> kPageShift;
  if (!IsReadWithoutQuorum() || !without_quorum ||
      !shared_->states().HaveRights(first, first + (length >> kPageShift) - 1, Rights::kRead)) {
    return absl::UnavailableError("it cannot be viewed without a lock");
  }
  return ViewAddress(offset, length);
}

absl::Status LocalRegion::Heal(uint64_t offset, uint64_t length) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  RegionMapping* const mappings[] = {shared_->MappingIfAny(MappingUse::kProgram),
                                     shared_->MappingIfAny(MappingUse::kCalls)};
  if (mappings[0] == nullptr && mappings[1] == nullptr) return absl::OkStatus();
  absl::Status status = backend().Heal(Pages(offset, length));
  for (RegionMapping* mapping : mappings) {
    if (mapping != nullptr && status.ok()) status = mapping->Heal(offset, length);
  }
  return status;
}

// --- Requests ---------------------------------------------------------------------------------------------------------

absl::Status LocalRegion::Allocate(uint64_t offset, uint64_t length, const AllocateOptions& options) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  return backend().Allocate(Pages(offset, length), options);
}

absl::Status LocalRegion::Unallocate(uint64_t offset, uint64_t length) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  return backend().Unallocate(Pages(offset, length));
}

absl::Status LocalRegion::Flush(uint64_t offset, uint64_t length) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  return backend().Flush(Pages(offset, length));
}

absl::StatusOr<PageAttributes> LocalRegion::GetAttributes(uint64_t offset) {
  if (absl::Status s = CheckPages(offset, kPageBytes); !s.ok()) return s;
  return backend().GetAttributes(shared_->handle(), offset >> kPageShift);
}

absl::Status LocalRegion::SetAttributes(uint64_t offset, uint64_t length, const PageAttributesChange& change) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  return backend().SetAttributes(Pages(offset, length), change);
}

absl::StatusOr<uint64_t> LocalRegion::LockPages(uint64_t offset, uint64_t length, LockMode mode, int64_t timeout_ms) {
  if (absl::Status s = CheckPages(offset, length); !s.ok()) return s;
  if (timeout_ms < 0)
    return absl::InvalidArgumentError(absl::StrCat("timeout_ms is ", timeout_ms, "; expected 0 or more"));
  if (mode == LockMode::kExclusive) {
    if (absl::Status s = CheckWritable(); !s.ok()) return s;
  }
  return backend().Lock(Pages(offset, length), mode, timeout_ms);
}

// --- Transactions -----------------------------------------------------------------------------------------------------

absl::StatusOr<BytesOfPage> LocalRegion::PlaceInPage(uint64_t offset, uint64_t length) const {
  if (absl::Status s = CheckBytes(offset, length); !s.ok()) return s;
  const uint64_t in_page = offset % kPageBytes;
  if (length == 0 || in_page + length > kTransactionBytesOfPage) {
    return absl::InvalidArgumentError(absl::StrCat(
        length, " bytes from byte ", in_page, " of a page on; a transaction's ", "read or write is of 1 to ",
        kTransactionBytesOfPage, " bytes, within the first ", kTransactionBytesOfPage, " of one page"));
  }
  return BytesOfPage{shared_->handle(), offset >> kPageShift, static_cast<uint16_t>(in_page),
                     static_cast<uint16_t>(length)};
}

absl::StatusOr<std::string> LocalRegion::ReadIn(uint64_t transaction, uint64_t offset, uint64_t length,
                                                AccessMode intent) {
  if (intent == AccessMode::kWrite && !shared_->may_write()) return CheckWritable();
  const absl::StatusOr<BytesOfPage> place = PlaceInPage(offset, length);
  if (!place.ok()) return place.status();
  return backend().ReadIn(transaction, *place, intent);
}

absl::Status LocalRegion::WriteIn(uint64_t transaction, uint64_t offset, const std::string& bytes) {
  if (absl::Status s = CheckWritable(); !s.ok()) return s;
  const absl::StatusOr<BytesOfPage> place = PlaceInPage(offset, bytes.size());
  if (!place.ok()) return place.status();
  return backend().WriteIn(transaction, *place, bytes);
}

absl::StatusOr<std::vector<LoggedWrite>> LocalRegion::ReadLog(uint64_t node) {
  if (absl::Status s = session_->CheckAlive(); !s.ok()) return s;
  const absl::StatusOr<std::string> encoded = backend().ReadLog(shared_->handle(), node);
  if (!encoded.ok()) return encoded.status();
  std::vector<LoggedWrite> writes;
  std::string_view left = *encoded;
  while (std::optional<LogRecord> record = TakeRecord(left)) {
    for (const PageChange& page : record->pages) {
      const uint64_t first = (page.page - PageOf(info_.address)) << kPageShift;
      for (const ByteChange& change : page.changes) {
        writes.push_back({record->transaction, first + change.offset, change.bytes, page.sequence});
      }
    }
  }
  return writes;
}

absl::Status LocalRegion::UnlockPages(uint64_t lock_id) {
  if (absl::Status s = session_->CheckAlive(); !s.ok()) return s;
  return backend().Unlock(lock_id);
}

void LocalRegion::SetEventCallback(std::function<void(const RegionEvent&)> callback) {
  listener_->SetCallback(std::move(callback));
  if (session_->parts().liveness->IsOwnProcess()) session_->parts().events->Start();
}

RegionCounters LocalRegion::Counters() const {
  RegionCounters counters;
  if (session_->CheckAlive().ok()) {
    if (auto of_node = backend().Counters(shared_->handle()); of_node.ok()) counters = *of_node;
  }
  counters.reverts = listener_->reverted_pages();
  return counters;
}

}  // namespace mangrove
