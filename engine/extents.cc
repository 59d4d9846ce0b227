// Allocates ranges on their core holders, and takes them away.

#include <algorithm>
#include <utility>

#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {

Task<absl::Status> PageEngine::PutExtent(PageRange range, ConfigNumber config, uint32_t replicas, bool is_volatile,
                                         TimeNs deadline) {
  Message put;
  put.kind = MessageKind::kPutExtent;
  put.page = range.first;
  put.count = range.count;
  put.config = config;
  put.replicas = is_volatile ? 0 : replicas;
  put.is_volatile = is_volatile;
  const std::vector<NodeId> nodes = locator_->CoreHolders(range, replicas);
  const absl::Status status = co_await CallAll(nodes, put, deadline);
  co_return status;
}

// Copies first, so that none is left that cannot be stored any more; and once more when no disk has the range: a responsible
// node that started anew in between may have opened it from one.
Task<absl::Status> PageEngine::DropExtent(PageRange range, ConfigNumber config, TimeNs deadline) {
  Message drop;
  drop.page = range.first;
  drop.count = range.count;
  drop.config = config;
  for (const MessageKind kind : {MessageKind::kDropCopies, MessageKind::kDropExtent, MessageKind::kDropCopies}) {
    drop.kind = kind;
    const bool of_disks = kind == MessageKind::kDropExtent;
    const auto replicas = of_disks ? static_cast<uint32_t>(options_.members.size()) : 1;
    const absl::Status status = co_await CallAll(locator_->CoreHolders(range, replicas), drop, deadline);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove
