// Allocates ranges on their core holders, and takes them away.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr DurationNs kTryAgain = 20 * kMillisecond;

}  // namespace

// D1
Task<absl::Status> PageEngine::PutExtent(PageRange range, ConfigNumber config, uint32_t replicas, bool is_volatile,
                                         TimeNs deadline) {
  Message put;
  put.kind = MessageKind::kPutExtent;
  put.page = range.first;
  put.count = range.count;
  put.config = config;
  put.replicas = is_volatile ? 0 : replicas;
  put.is_volatile = is_volatile;
  const uint32_t kept_on = is_volatile ? static_cast<uint32_t>(disks_.count()) : replicas;
  absl::Status status = co_await ChangeExtents(put, kept_on, deadline);
  if (status.ok()) status = co_await WaitForLease(deadline);
  co_return status;
}

// Copies first, so that none is left that cannot be stored any more; and once more when no disk has the range: a responsible
// node that started anew in between may have opened it from one.
Task<absl::Status> PageEngine::DropExtent(PageRange range, ConfigNumber config, uint32_t replicas, TimeNs deadline) {
  absl::Status status = co_await DropAllCopies(range, config, deadline);
  if (!status.ok()) co_return status;
  Message drop;
  drop.kind = MessageKind::kDropExtent;
  drop.page = range.first;
  drop.count = range.count;
  drop.config = config;
  status = co_await ChangeExtents(drop, replicas, deadline);
  if (!status.ok()) co_return status;
  status = co_await DropAllCopies(range, config, deadline);
  if (status.ok()) status = co_await WaitForLease(deadline);
  co_return status;
}

Task<absl::StatusOr<bool>> PageEngine::IsAllocated(PageId page) {
  if (disks_.IsCurrent(options_.self.node)) co_return core_.Find(page) != nullptr;
  const absl::StatusOr<NodeId> knows = disks_.WhoKnows(page);
  if (!knows.ok()) co_return knows.status();
  const Message said = co_await AskForExtent(*knows, page, Epoch());
  if (absl::IsNotFound(said.status())) co_return false;
  if (!said.status().ok()) co_return said.status();
  co_return true;
}

// On each disk of the view, in that view alone. `replicas`: of each page's, one is current.
Task<absl::Status> PageEngine::ChangeExtents(Message change, uint32_t replicas, TimeNs deadline) {
  const PageRange range{change.page, change.count};
  absl::Status status;
  do {
    if (stopped_) co_return stopped_status_;
    const Epoch view = view_.epoch;
    status = disks_.Check(range, replicas);
    if (status.ok()) {
      status = co_await CallAll(disks_.StoringExtents(), change, deadline);
      if (status.ok() && view != view_.epoch) status = absl::AbortedError("others keep it on disk by now; try again");
    }
    const bool may_change = absl::IsAborted(status) || absl::IsUnavailable(status);
    if (!may_change || deadline <= clock_->Now() + kTryAgain) break;
    co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
  } while (true);
  co_return absl::IsAborted(status) ? absl::UnavailableError(status.message()) : status;
}

// Asks every responsible node. Where there is none this node becomes it: so nobody else does meanwhile.
Task<absl::Status> PageEngine::DropAllCopies(PageRange range, ConfigNumber config, TimeNs deadline) {
  const PageId first = SegmentStart(range.first);
  const PageRange segments{first, (range.end() - first + kSegmentPages - 1) / kSegmentPages * kSegmentPages};
  absl::Status status;
  absl::Status why;  // It could not be done the last time, as far as a node is to blame.
  do {
    const absl::StatusOr<std::vector<DirectoryEntry>> entries = co_await AppointSelf(segments, deadline);
    status = entries.status();
    const auto is_stranger = [this](const DirectoryEntry& entry) { return !IsMember(entry.responsible); };
    if (entries.ok() && std::any_of(entries->begin(), entries->end(), is_stranger)) {
      status = absl::DataLossError(
          absl::StrCat("the directory names a node that is no member for a part of ", ToString(range)));
    }
    std::vector<Outcome<Message>> outcomes;
    if (status.ok()) {
      Turn turn(this);
      for (const DirectoryEntry& entry : *entries) {
        Message drop;
        drop.kind = MessageKind::kDropCopies;
        drop.page = std::max(range.first, entry.range.first);
        drop.count = std::min(range.end(), entry.range.end()) - drop.page;
        drop.config = config;
        outcomes.push_back(StartCall(entry.responsible, drop, deadline, 5 * options_.resend_after));
      }
    }
    for (Outcome<Message>& outcome : outcomes) {
      const Message answer = co_await outcome.Get();
      if (status.ok() || absl::IsAborted(status)) status = answer.status();
    }
    if (absl::IsUnavailable(status)) why = status;
    if (status.ok() || stopped_ || clock_->Now() + kTryAgain >= deadline) break;
    if (absl::IsAborted(status) || !entries.ok()) co_await SleepUntil(clock_, clock_->Now() + kTryAgain);
  } while (absl::IsAborted(status) || absl::IsUnavailable(status));
  co_return absl::IsDeadlineExceeded(status) && !why.ok() ? why : status;
}

}  // namespace mangrove
