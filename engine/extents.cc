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

Task<absl::Status> PageEngine::DropExtent(PageRange range, ConfigNumber config, TimeNs deadline) {
  Message message;
  message.kind = MessageKind::kDropExtent;
  message.page = range.first;
  message.count = range.count;
  message.config = config;
  const std::vector<NodeId> responsible = locator_->CoreHolders(range, 1);
  absl::Status status = co_await CallAll(responsible, message, deadline);
  if (!status.ok()) co_return status;
  std::vector<NodeId> others = locator_->CoreHolders(range, static_cast<uint32_t>(options_.members.size()));
  std::erase_if(others, [&](NodeId node) {
    return std::find(responsible.begin(), responsible.end(), node) != responsible.end();
  });
  status = co_await CallAll(others, message, deadline);
  co_return status;
}

}  // namespace mangrove
