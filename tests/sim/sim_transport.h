// The simulated door to other nodes: a network with weather, and the transport that a life of a node has on it.
//
// It keeps T1 to T5 of net/transport.h and nothing beyond: messages are lost, doubled and overtake each other as the
// weather says, links are cut in one direction or both, a connection breaks without anybody's fault, and the news of it
// comes late, or never. Who was expelled is told so when it connects. A message of an incarnation may arrive after its death, until its successor is up.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "net/transport.h"
#include "tests/sim/sim_world.h"

namespace mangrove::sim {

// How the links are; the same for all of them.
struct Weather {
  DurationNs min_delay = 20 * kMicrosecond;
  DurationNs max_delay = 500 * kMicrosecond;
  uint32_t lose_per_mille = 0;
  uint32_t double_per_mille = 0;
  uint32_t overtake_per_mille = 0;    // How often a message does not keep its place.
  uint32_t late_per_mille = 0;        // How often it takes up to `late_delay`.
  uint32_t late_pages_per_mille = 0;  // The same for messages with pages.
  DurationNs late_delay = 200 * kMillisecond;
};

class SimNetwork;

class SimTransport final : public Transport {
 public:
  SimTransport(SimNetwork* network, int slot, NodeInstance self) : network_(network), slot_(slot), self_(self) {}
  ~SimTransport() override;

  absl::Status Start(TransportEvents* events) override;
  void Send(NodeId to, Channel channel, std::span<const std::byte> message, std::span<const PageBuffer> pages) override;
  void SetEpoch(Epoch epoch) override { epoch_ = epoch; }
  void Expel(NodeInstance node) override;
  uint8_t LevelOf(NodeId peer, Subsystem subsystem) const override;
  std::vector<PeerStatus> Peers() const override;
  TransportCounters Counters() const override { return counters_; }
  TransportSecurity SecurityInUse() const override { return {}; }

 private:
  friend class SimNetwork;
  SimNetwork* const network_;
  const int slot_;
  const NodeInstance self_;
  Epoch epoch_;
  TransportEvents* events_ = nullptr;
  TransportCounters counters_;
};

class SimNetwork {
 public:
  SimNetwork(SimWorld* world, int nodes);

  // One per life of a node. The life ends with Detach, or with the transport.
  std::unique_ptr<SimTransport> Attach(int slot, NodeInstance self);
  // The node has died: the others may hear of it, sooner or later or never.
  void Detach(int slot);

  void SetWeather(const Weather& weather) { weather_ = weather; }
  const Weather& weather() const { return weather_; }
  // Nothing sent from `from` arrives at `to` until Heal, and no connection is made.
  void Cut(int from, int to);
  void Heal(int from, int to);
  void HealAll();
  bool IsCut(int from, int to) const { return link(from, to).cut; }
  // `slot` is told that `peer` is down, whatever the truth is. Does nothing if they are not connected.
  void FalseAlarm(int slot, int peer);

  // Messages on the wire, for tests.
  uint64_t delivered() const { return delivered_; }

 private:
  friend class SimTransport;

  // What `slot` knows of `peer`.
  struct Side {
    uint64_t connection = 0;  // The last one that came up here.
    bool up = false;
    Incarnation known;     // The newest that OnPeerUp named.
    Incarnation expelled;  // This one and those before it are not let in.
    std::string last_error;
  };
  struct Link {
    bool cut = false;
    TimeNs last_delivery = 0;
  };
  // An unordered pair's newest connection.
  struct Pair {
    uint64_t connection = 0;
    bool connecting = false;
  };
  struct Wire;  // A message under way.

  Side& side(int slot, int peer) { return sides_[static_cast<size_t>(slot)][static_cast<size_t>(peer)]; }
  const Side& side(int slot, int peer) const { return sides_[static_cast<size_t>(slot)][static_cast<size_t>(peer)]; }
  Link& link(int from, int to) { return links_[static_cast<size_t>(from)][static_cast<size_t>(to)]; }
  const Link& link(int from, int to) const { return links_[static_cast<size_t>(from)][static_cast<size_t>(to)]; }
  Pair& pair(int a, int b);
  SimTransport* transport(int slot) { return transports_[static_cast<size_t>(slot)]; }
  bool IsStarted(int slot) const;

  void Started(int slot);
  void ScheduleConnect(int a, int b);
  void Connect(int a, int b);
  void Expel(int slot, int peer, Incarnation incarnation);
  bool TellExpelled(int slot, int peer);
  void ComeUp(int slot, int peer, uint64_t connection, Incarnation incarnation);
  void GoDown(int slot, int peer, uint64_t connection, const std::string& reason);
  void Send(SimTransport* from, int to, Channel channel, std::span<const std::byte> message,
            std::span<const PageBuffer> pages);
  void Transmit(const std::shared_ptr<Wire>& wire);
  void Deliver(const std::shared_ptr<Wire>& wire);
  DurationNs Delay(bool with_pages = false);

  SimWorld* const world_;
  const int nodes_;
  SimRandom random_;
  Weather weather_;
  uint64_t next_connection_ = 0;
  uint64_t delivered_ = 0;
  uint64_t healed_ = 0;  // How often all of it was.
  std::array<SimTransport*, kMaxNodes> transports_{};
  std::array<std::array<Side, kMaxNodes>, kMaxNodes> sides_;
  std::array<std::array<Link, kMaxNodes>, kMaxNodes> links_;
  std::array<std::array<Pair, kMaxNodes>, kMaxNodes> pairs_;
};

}  // namespace mangrove::sim
