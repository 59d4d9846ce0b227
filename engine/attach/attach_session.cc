#include <utility>

#include "engine/attach/inspect.h"
#include "engine/attach/local_session.h"
#include "engine/attach/socket_backend.h"
#include "engine/mangrove.h"

namespace mangrove {

absl::StatusOr<std::shared_ptr<Session>> Session::Attach(const AttachOptions& options) {
  auto parts = SessionParts::Create();
  if (!parts.ok()) return parts.status();
  auto backend = SocketBackend::Connect(options, &*parts);
  if (!backend.ok()) return backend.status();
  parts->backend = *std::move(backend);
  return std::shared_ptr<Session>(std::make_shared<LocalSession>(*std::move(parts)));
}

absl::StatusOr<std::string> InspectNode(const AttachOptions& options, const std::string& what,
                                        const std::string& argument) {
  auto parts = SessionParts::Create();
  if (!parts.ok()) return parts.status();
  auto backend = SocketBackend::Connect(options, &*parts);
  if (!backend.ok()) return backend.status();
  return (*backend)->Inspect(what, argument);
}

}  // namespace mangrove
