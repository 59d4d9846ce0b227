// A session whose node runs inside the process.

#include <utility>

#include "engine/attach/local_session.h"
#include "engine/attach/loop_backend.h"
#include "engine/mapping/region_memory.h"
#include "engine/node.h"

namespace mangrove {
namespace {

constexpr ClientId kEmbeddingProgram = 1;

struct OwnsNode {
  std::unique_ptr<Node> node;
};

// The node ends after the backend that uses it: bases are destroyed from the last to the first.
class EmbeddedBackend final : private OwnsNode, public LoopBackend {
 public:
  EmbeddedBackend(std::unique_ptr<Node> owned, const LoopBackendNode& parts, const Limits& limits,
                  EventDispatcher* events)
      : OwnsNode{std::move(owned)}, LoopBackend(parts, kEmbeddingProgram, limits, events) {}
};

}  // namespace

absl::StatusOr<std::shared_ptr<Session>> Session::Embed(const NodeConfig& config, const Limits& limits) {
  absl::StatusOr<std::unique_ptr<Node>> node = Node::Start(config);
  if (!node.ok()) return node.status();
  absl::StatusOr<SessionParts> parts = SessionParts::Create();
  if (!parts.ok()) return parts.status();
  LoopBackendNode doors;
  doors.loop = (*node)->loop();
  doors.operations = (*node)->operations();
  doors.mapped_clients = (*node)->mapped_clients();
  doors.find_region = [memory = (*node)->memory()](PageId page) { return memory->FindRegion(page); };
  doors.pages_fetched = [owner = node->get()](PageRange pages) { return owner->PagesFetched(pages); };
  parts->backend = std::make_unique<EmbeddedBackend>(*std::move(node), doors, limits, parts->events.get());
  return std::make_shared<LocalSession>(*std::move(parts));
}

}  // namespace mangrove
