#include "net/fabric_transport.h"

#include <utility>

#include "net/fabric/fabric_core.h"

namespace mangrove {

FabricTransport::FabricTransport(FabricTransportConfig config, Loop* loop, Entropy* entropy)
    : core_(std::make_unique<FabricCore>(std::move(config), loop, entropy)) {}

FabricTransport::~FabricTransport() = default;

absl::Status FabricTransport::Start(TransportEvents* events) { return core_->Start(events); }

void FabricTransport::Send(NodeId to, Channel channel, std::span<const std::byte> message,
                           std::span<const PageBuffer> pages) {
  core_->Send(to, channel, message, pages);
}

void FabricTransport::SetEpoch(Epoch epoch) { core_->SetEpoch(epoch); }

void FabricTransport::Expel(NodeInstance node) { core_->Expel(node); }

uint8_t FabricTransport::LevelOf(NodeId peer, Subsystem subsystem) const { return core_->LevelOf(peer, subsystem); }

std::vector<PeerStatus> FabricTransport::Peers() const { return core_->Peers(); }

TransportCounters FabricTransport::Counters() const { return core_->Counters(); }

TransportSecurity FabricTransport::SecurityInUse() const { return core_->SecurityInUse(); }

absl::Status FabricTransport::SetMembers(const std::vector<FabricMember>& members) {
  return core_->SetMembers(members);
}

void FabricTransport::SetKeys(std::vector<ClusterKey> keys) { core_->SetKeys(std::move(keys)); }

void FabricTransport::SetGuestKeys(std::vector<ClusterKey> keys) { core_->SetGuestKeys(std::move(keys)); }

std::optional<ClusterKey> FabricTransport::GuestKey() const { return core_->GuestKey(); }

std::optional<RefusalReason> FabricTransport::RefusedBy(NodeId peer) const { return core_->RefusedBy(peer); }

FabricTransportGauges FabricTransport::Gauges() const { return core_->Gauges(); }

}  // namespace mangrove
