// A log whose pages no disk has any more (Y6): an operator gives it up, since nobody else can know that they never come back.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/transactions/log_replay.h"
#include "net/log.h"

namespace mangrove {
namespace {

// Of the view, into a generation: above all that nodes have counted by themselves.
constexpr int kEpochShift = 20;

}  // namespace

Task<absl::Status> LogReplay::CheckLost(NodeId node, TimeNs deadline) {
  if (engine_->view().members.contains(node)) {
    co_return absl::FailedPreconditionError(
        absl::StrCat(ToString(node), " is here, and its log is in use; stop it before its log is given up"));
  }
  const absl::StatusOr<LogContent> content = co_await ReadLog(pages_, node, deadline);
  co_return content.status();
}

Task<absl::Status> LogReplay::GiveUpLost(NodeId node, TimeNs deadline) {
  // No replay is under way beside it.
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock({kReplayPage, 1}, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  const absl::Status lost = co_await CheckLost(node, deadline);
  if (lost.ok()) {
    co_return absl::FailedPreconditionError(
        absl::StrCat("the log of ", ToString(node), " can be read; nothing is lost, and nothing was changed"));
  }
  if (!absl::IsDataLoss(lost)) co_return lost;
  LogWarning("an operator gives up what is lost of the log of ", ToString(node), ": ", lost.message());
  // Pages that each disk has lost are zeros then, at which the log ends. By segments, as they were put first.
  absl::Status status;
  const PageRange log = LogOf(node);
  for (PageId first = log.first; status.ok() && first < log.end(); first = first + kSegmentPages) {
    status = co_await engine_->PutExtent({first, kSegmentPages}, kLogConfig, options_.replicas, /*is_volatile=*/false,
                                         deadline);
  }
  if (!status.ok()) co_return status;
  const absl::StatusOr<LogContent> left = co_await ReadLog(pages_, node, deadline);
  if (left.ok() && left->header.generation > 0) co_return absl::OkStatus();
  if (!left.ok() && !absl::IsDataLoss(left.status())) co_return left.status();
  status = co_await BeginAnew(node, deadline);
  co_return status;
}

// Its header is lost, or what is behind it is damaged on each disk.
Task<absl::Status> LogReplay::BeginAnew(NodeId node, TimeNs deadline) {
  const PageRange page{LogOf(node).first, 1};
  const absl::StatusOr<HeldPages> held = co_await pages_->Lock(page, LockMode::kExclusive, deadline);
  if (!held.ok()) co_return held.status();
  const auto before = co_await pages_->Load(page.first, deadline);
  if (!before.ok()) co_return before.status();
  const absl::StatusOr<LogHeader> header = DecodeLogHeader(**before);
  LogHeader empty{.owner = {}, .ring_pages = static_cast<uint32_t>(options_.log_pages - 1)};
  empty.generation = engine_->view().epoch.value << kEpochShift;
  if (header.ok()) empty.generation = std::max(empty.generation, header->generation + 1);
  TransactionPages::Content content = NewPage();
  EncodeLogHeader(empty, *content);
  absl::Status status = co_await pages_->Store(page.first, content, deadline);
  if (status.ok()) status = co_await pages_->Flush(page, deadline);
  co_return status;
}

}  // namespace mangrove
