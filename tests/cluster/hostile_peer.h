// A peer as no node should be: in this process, with the cluster's key, and it sends what it likes.

#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "net/fabric_transport.h"
#include "net/runtime/loop.h"
#include "net/runtime/system_entropy.h"
#include "recovery/member.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {

// In the place of `node`, which must not run, with its configuration and its key. It is a member of the view, as its pulses
// are those of a node, and answers nothing else.
class Impostor final : public TransportEvents {
 public:
  Impostor(const Cluster& cluster, int node, Incarnation incarnation, uint16_t protocol_version = kProtocolVersion);
  Impostor(const Impostor&) = delete;
  Impostor& operator=(const Impostor&) = delete;
  ~Impostor() override;

  bool AwaitConnected(size_t peers);
  bool AwaitLease();
  void Send(int to, std::span<const std::byte> message, std::span<const PageBuffer> pages = {});
  TransportCounters Counters();
  // What it holds against its peers.
  std::vector<PeerStatus> Peers();

  void OnDelivery(const Delivery& delivery) override;
  void OnPeerUp(NodeInstance peer) override;
  void OnPeerDown(NodeInstance peer, const absl::Status& reason) override;

 private:
  void OnLoop(absl::FunctionRef<void()> task);
  void Pulse();
  void SendPulses();

  Loop loop_{{.spin_ns = 0}};
  SystemEntropy entropy_;
  std::unique_ptr<FabricTransport> transport_;
  NodeId self_;
  std::unique_ptr<Member> member_;  // The loop's.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<NodeId> up_;
  bool has_lease_ = false;
};

}  // namespace mangrove::cluster_test
