// What an attached program asks for, and how it is answered.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach_server.h"
#include "engine/attach/attached_client.h"
#include "net/check.h"

namespace mangrove {
void AttachedClient::Dispatch(AttachRequest request, Descriptors descriptors) {
  const auto& limit = server_->options_.max_request_timeout;
  const uint64_t timeout_ms = std::min<uint64_t>(request.timeout_ms, limit / kMillisecond);
  const TimeNs deadline = server_->loop_->Now() + static_cast<DurationNs>(timeout_ms) * kMillisecond;
  std::visit(
      [&](auto& call) {
        if constexpr (std::is_same_v<std::decay_t<decltype(call)>, MapCall>) {
          Finish(request.id, DoMap(call, std::move(descriptors[0])));
        } else {
          Do(request.id, deadline, std::move(call));
        }
      },
      request.call);
}

// --- Answering --------------------------------------------------------------------------------------------------------

void AttachedClient::Finish(uint64_t id, const absl::Status& status) {
  CHECK(requests_ > 0);
  --requests_;
  Send({.id = id, .status = status});
}

void AttachedClient::Run(uint64_t id, Task<absl::Status> task) {
  Spawn<absl::Status>(std::move(task),
                      [self = shared_from_this(), id](absl::Status status) { self->Finish(id, status); });
}

template <typename T>
void AttachedClient::Run(uint64_t id, Task<absl::StatusOr<T>> task) {
  Spawn<absl::StatusOr<T>>(std::move(task), [self = shared_from_this(), id](absl::StatusOr<T> result) {
    if (!result.ok()) return self->Finish(id, result.status());
    --self->requests_;
    self->Send({.id = id, .result = *std::move(result)});
  });
}

void AttachedClient::RunOpen(uint64_t id, Task<absl::StatusOr<OpenedRegion>> task) {
  Spawn<absl::StatusOr<OpenedRegion>>(std::move(task),
                                      [self = shared_from_this(), id](absl::StatusOr<OpenedRegion> opened) {
                                        if (!opened.ok()) return self->Finish(id, opened.status());
                                        if (self->ended_) return;
                                        Descriptors descriptors;
                                        auto reply = self->AdmitRegion(id, *std::move(opened), descriptors);
                                        if (!reply.ok()) return self->Finish(id, reply.status());
                                        --self->requests_;
                                        self->Send(*reply, std::move(descriptors));
                                      });
}

void AttachedClient::RunList(uint64_t id, Task<absl::StatusOr<std::vector<RegionInfo>>> task) {
  ++lists_;
  using Result = absl::StatusOr<std::vector<RegionInfo>>;
  Spawn<Result>(std::move(task), [self = shared_from_this(), id](Result regions) {
    --self->lists_;
    if (!regions.ok()) return self->Finish(id, regions.status());
    --self->requests_;
    size_t sent = 0;
    do {
      const size_t count = std::min(kRegionsPerReply, regions->size() - sent);
      const auto first = regions->begin() + static_cast<ptrdiff_t>(sent);
      sent += count;
      self->Send({.id = id,
                  .more = sent < regions->size(),
                  .result = RegionListReply{{first, first + static_cast<ptrdiff_t>(count)}}});
    } while (sent < regions->size() && !self->ended_);
  });
}

void AttachedClient::RunText(uint64_t id, Task<absl::StatusOr<std::string>> task) {
  ++lists_;
  using Result = absl::StatusOr<std::string>;
  Spawn<Result>(std::move(task), [self = shared_from_this(), id](Result text) {
    --self->lists_;
    if (!text.ok()) return self->Finish(id, text.status());
    --self->requests_;
    size_t sent = 0;
    do {
      TextReply part{text->substr(sent, kTextBytesPerReply)};
      sent += part.text.size();
      self->Send({.id = id, .more = sent < text->size(), .result = std::move(part)});
    } while (sent < text->size() && !self->ended_);
  });
}

void AttachedClient::RunLock(uint64_t id, Task<absl::StatusOr<uint64_t>> task) {
  Spawn<absl::StatusOr<uint64_t>>(std::move(task), [self = shared_from_this(), id](absl::StatusOr<uint64_t> lock) {
    if (!lock.ok()) return self->Finish(id, lock.status());
    if (self->ended_) {
      // EndClient came before the grant. If the node has given it back already, that is as well.
      self->server_->operations_->Unlock(self->id_, *lock).IgnoreError();
      return;
    }
    --self->requests_;
    self->Send({.id = id, .result = LockedReply{*lock}});
  });
}

// --- Regions ----------------------------------------------------------------------------------------------------------

absl::StatusOr<AttachedClient::OpenRegion*> AttachedClient::Find(RegionHandle region) {
  const auto it = regions_.find(region);
  if (it == regions_.end()) return absl::InvalidArgumentError(absl::StrCat("no open region has the number ", region));
  return &it->second;
}

absl::StatusOr<PageRange> AttachedClient::RangeOf(const RegionPages& pages, bool for_writing) {
  auto region = Find(pages.region);
  if (!region.ok()) return region.status();
  const OpenedRegion& opened = (*region)->opened;
  if (pages.count == 0 || pages.first >= opened.pages.count || pages.count > opened.pages.count - pages.first) {
    return absl::InvalidArgumentError(absl::StrCat(pages.count, " pages from page ", pages.first,
                                                   " on are not in region '", opened.info.name, "', which has ",
                                                   opened.pages.count));
  }
  if (for_writing && !opened.may_write) {
    return absl::PermissionDeniedError(absl::StrCat("region '", opened.info.name, "' is open for reading only"));
  }
  return PageRange{opened.pages.first + pages.first, pages.count};
}

absl::StatusOr<AttachReply> AttachedClient::AdmitRegion(uint64_t id, OpenedRegion opened, Descriptors& descriptors) {
  if (regions_.size() >= server_->options_.max_regions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the program has ", regions_.size(), " regions open, which is the limit"));
  }
  auto frames = server_->find_region_(opened.pages.first);
  if (frames == nullptr) return absl::InternalError(absl::StrCat("region '", opened.info.name, "' has no memory here"));
  auto memory = opened.may_write ? frames->OpenFrames() : frames->OpenFramesReadOnly();
  if (!memory.ok()) return memory.status();
  auto states = frames->OpenStates();
  if (!states.ok()) return states.status();
  descriptors.push_back(*std::move(memory));
  descriptors.push_back(*std::move(states));
  const RegionHandle handle = next_region_++;
  AttachReply reply{.id = id, .result = OpenedReply{handle, opened.info, opened.may_write, opened.is_owner}};
  regions_.emplace(handle, OpenRegion{std::move(opened), std::move(frames), std::nullopt});
  return reply;
}

void AttachedClient::Do(uint64_t id, TimeNs deadline, ReserveCall call) {
  RunOpen(id, server_->operations_->Reserve(peer_.credentials, std::move(call.options), deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, OpenCall call) {
  RunOpen(id, server_->operations_->Open(peer_.credentials, std::move(call.name), call.mode, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs, CloseCall call) {
  auto region = Find(call.region);
  if (!region.ok()) return Finish(id, region.status());
  StopServing(**region);
  regions_.erase(call.region);
  Finish(id, absl::OkStatus());
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, FreeCall call) {
  Run(id, server_->operations_->Free(peer_.credentials, std::move(call.name), deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, ListCall) {
  if (lists_ >= kMaxLists) return Finish(id, absl::ResourceExhaustedError("too many lists at once"));
  RunList(id, server_->operations_->ListRegions(deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, InspectCall call) {
  if (lists_ >= kMaxLists) return Finish(id, absl::ResourceExhaustedError("too many lists at once"));
  NodeOperations* const node = server_->operations_;
  RunText(id, NodeOperations::IsOperation(call.what)
                  ? node->Operate(peer_.credentials, std::move(call.what), std::move(call.argument), deadline)
                  : node->Inspect(std::move(call.what), std::move(call.argument), deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, SpaceCall) { Run(id, server_->operations_->Space(deadline)); }

void AttachedClient::StopServing(const OpenRegion& region) const {
  for (const auto& mapping : region.mappings) {
    if (mapping) server_->mapped_clients_->Remove(*mapping);
  }
}

absl::Status AttachedClient::DoMap(const MapCall& call, UniqueFd userfaultfd) {
  auto region = Find(call.region);
  if (!region.ok()) return region.status();
  OpenRegion& open = **region;
  const absl::Status lease = server_->CheckLease();
  if (!lease.ok() && open.frames->fence() != FrameFence::kLoadsOnly) return lease;
  if (lease.ok()) server_->SetDeadline();  // What it says of the lease may have passed.
  // One that the program gave up before it was told of the first.
  std::optional<MappingId>& served = open.mappings[static_cast<size_t>(call.use)];
  if (served) server_->mapped_clients_->Remove(*std::exchange(served, std::nullopt));
  auto mapping = server_->mapped_clients_->Add({.userfaultfd = std::move(userfaultfd),
                                                .base = call.base,
                                                .region = open.frames,
                                                .read_only = !open.opened.may_write,
                                                .max_workers = server_->options_.max_workers,
                                                .spin_ns = server_->options_.spin_ns});
  if (!mapping.ok()) return mapping.status();
  served = *mapping;
  return absl::OkStatus();
}

// --- Pages ------------------------------------------------------------------------------------------------------------

void AttachedClient::Do(uint64_t id, TimeNs deadline, AllocateCall call) {
  auto range = RangeOf(call.pages);
  if (!range.ok()) return Finish(id, range.status());
  Run(id, server_->operations_->Allocate(peer_.credentials, *range, call.options, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, UnallocateCall call) {
  auto range = RangeOf(call.pages);
  if (!range.ok()) return Finish(id, range.status());
  Run(id, server_->operations_->Unallocate(peer_.credentials, *range, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, GetAttributesCall call) {
  auto range = RangeOf({call.region, call.page, 1});
  if (!range.ok()) return Finish(id, range.status());
  Run(id, server_->operations_->GetAttributes(range->first, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, SetAttributesCall call) {
  auto range = RangeOf(call.pages);
  if (!range.ok()) return Finish(id, range.status());
  Run(id, server_->operations_->SetAttributes(peer_.credentials, *range, call.change, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, CheckAllocatedCall call) {
  auto range = RangeOf(call.pages);
  if (!range.ok()) return Finish(id, range.status());
  Run(id, server_->operations_->CheckAllocated(*range, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, AcquireCall call) {
  const bool write = call.mode == AccessMode::kWrite;
  auto range = RangeOf(call.pages, write);
  if (!range.ok()) return Finish(id, range.status());
  Run(id, server_->operations_->Acquire(*range, write ? Rights::kWrite : Rights::kRead, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, LockCall call) {
  auto range = RangeOf(call.pages, call.mode == LockMode::kExclusive);
  if (!range.ok()) return Finish(id, range.status());
  RunLock(id, server_->operations_->Lock(id_, *range, call.mode, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs, UnlockCall call) {
  Finish(id, server_->operations_->Unlock(id_, call.lock_id));
}
void AttachedClient::Do(uint64_t id, TimeNs deadline, FlushCall call) {
  auto range = RangeOf(call.pages);
  if (!range.ok()) return Finish(id, range.status());
  Run(id, server_->operations_->Flush(*range, deadline));
}
void AttachedClient::Do(uint64_t id, TimeNs, HealCall call) {
  auto range = RangeOf(call.pages);
  if (!range.ok()) return Finish(id, range.status());
  absl::Status healed;
  for (const auto& mapping : regions_.at(call.pages.region).mappings) {
    if (mapping && healed.ok()) healed = server_->mapped_clients_->Heal(*mapping, *range).status();
  }
  Finish(id, healed);
}

absl::StatusOr<RegionCounters> AttachedClient::CountersOf(RegionHandle handle) {
  auto region = Find(handle);
  if (!region.ok()) return region.status();
  RegionCounters counters;
  for (const auto& mapping : (*region)->mappings) {
    if (!mapping) continue;
    if (const auto faults = server_->mapped_clients_->Counters(*mapping); faults.ok()) {
      counters.read_faults += faults->read_faults;
      counters.write_faults += faults->write_faults;
    }
  }
  if (server_->options_.pages_fetched)
    counters.pages_fetched = server_->options_.pages_fetched((*region)->opened.pages);
  return counters;
}

void AttachedClient::Do(uint64_t id, TimeNs, CountersCall call) {
  auto counters = CountersOf(call.region);
  if (!counters.ok()) return Finish(id, counters.status());
  --requests_;
  Send({.id = id, .result = *counters});
}

}  // namespace mangrove
