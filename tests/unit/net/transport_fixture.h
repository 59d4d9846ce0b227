// A node that is nothing but a loop and a real transport, and remembers what the transport told it.

#pragma once

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "net/fabric_transport.h"
#include "net/runtime/loop.h"
#include "net/runtime/system_entropy.h"
#include "tests/free_port.h"

namespace mangrove::testing {

inline std::string Loopback(int port) { return "127.0.0.1:" + std::to_string(port); }

inline std::vector<FabricMember> MakeMembers(int count) {
  std::vector<FabricMember> members;
  for (int i = 1; i <= count; ++i) {
    members.push_back({NodeId(static_cast<uint64_t>(i)), "n" + std::to_string(i), Loopback(FreePort())});
  }
  return members;
}

inline FabricTransportConfig MakeConfig(const std::vector<FabricMember>& members, uint64_t node,
                                        uint64_t incarnation = 1) {
  FabricTransportConfig config;
  config.cluster = {0x1111, 0x2222};
  config.keys.resize(1);
  config.keys[0].fill(std::byte{0x5A});
  config.self = {NodeId(node), Incarnation(incarnation)};
  config.listen_address = members[node - 1].address;
  config.members = members;
  return config;
}

inline PageBuffer MakePage(uint64_t seed) {
  auto page = std::make_shared<PageBytes>();
  for (size_t i = 0; i < kPageBytes; i += sizeof(seed)) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::memcpy(page->bytes.data() + i, &seed, sizeof(seed));
  }
  return page;
}

struct Received {
  NodeInstance from;
  Epoch epoch;
  Channel channel = Channel::kPages;
  std::vector<std::byte> message;
  std::vector<std::vector<std::byte>> pages;
};

class TestNode : public TransportEvents {
 public:
  explicit TestNode(FabricTransportConfig config, DurationNs spin_ns = 20 * kMicrosecond) : loop({.spin_ns = spin_ns}) {
    transport = std::make_unique<FabricTransport>(std::move(config), &loop, &entropy);
  }
  ~TestNode() override { Stop(); }

  void Start() {
    const absl::Status status = transport->Start(this);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(loop.Start().ok());
  }
  // All at once, as for a node that dies in its sleep.
  void Stop() {
    loop.Stop();
    transport.reset();
  }

  void OnLoop(absl::FunctionRef<void()> task) {
    Completion done;
    loop.RunUntil(
        [&] {
          task();
          done.Set();
        },
        done);
  }

  void Send(uint64_t to, std::span<const std::byte> message, std::span<const PageBuffer> pages = {}) {
    OnLoop([&] { transport->Send(NodeId(to), Channel::kPages, message, pages); });
  }
  void Send(uint64_t to, const std::string& text, std::span<const PageBuffer> pages = {}) {
    Send(to, std::as_bytes(std::span(text)), pages);
  }

  // Bounded; false if it never came true.
  bool WaitFor(const std::function<bool()>& condition, int seconds = 20) {
    std::unique_lock<std::mutex> lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(seconds), condition);
  }
  bool WaitForPeer(uint64_t node, uint64_t incarnation = 1) {
    return WaitFor([&] { return Up(node) == incarnation; });
  }
  bool WaitForDown(uint64_t node) {
    return WaitFor([&] { return Up(node) == 0; });
  }
  // The incarnation that is up, or 0. REQUIRES: `mutex` held.
  uint64_t Up(uint64_t node) const {
    uint64_t up = 0;
    for (const auto& [instance, is_up] : history) {
      if (instance.node.value == node) up = is_up ? instance.incarnation.value : 0;
    }
    return up;
  }
  // Polls the transport's own account, which tells nobody when it changes.
  bool WaitForStatus(const std::function<bool(const PeerStatus&, const TransportCounters&)>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < deadline) {
      bool met = false;
      OnLoop([&] { met = condition(transport->Peers().at(0), transport->Counters()); });
      if (met) return true;
      usleep(1000);
    }
    return false;
  }
  TransportCounters Counters() {
    TransportCounters counters;
    OnLoop([&] { counters = transport->Counters(); });
    return counters;
  }

  void OnDelivery(const Delivery& delivery) override {
    std::lock_guard<std::mutex> lock(mutex);
    ++deliveries;
    if (Up(delivery.from.node.value) != delivery.from.incarnation.value) delivered_while_down = true;
    if (on_delivery) {
      on_delivery(delivery);
    } else {
      Received r;
      r.from = delivery.from;
      r.epoch = delivery.epoch;
      r.channel = delivery.channel;
      r.message.assign(delivery.message.begin(), delivery.message.end());
      for (const std::byte* page : delivery.pages) r.pages.emplace_back(page, page + kPageBytes);
      received.push_back(std::move(r));
    }
    changed.notify_all();
  }
  void OnPeerUp(NodeInstance peer) override {
    std::lock_guard<std::mutex> lock(mutex);
    history.emplace_back(peer, true);
    changed.notify_all();
  }
  void OnPeerDown(NodeInstance peer, const absl::Status& reason) override {
    std::lock_guard<std::mutex> lock(mutex);
    EXPECT_FALSE(reason.ok());
    history.emplace_back(peer, false);
    reasons.emplace_back(reason.message());
    changed.notify_all();
  }

  void OnExpelled(NodeInstance by) override {
    std::lock_guard<std::mutex> lock(mutex);
    expelled_by.push_back(by);
    changed.notify_all();
  }

  Loop loop;
  SystemEntropy entropy;
  std::unique_ptr<FabricTransport> transport;

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::pair<NodeInstance, bool>> history;  // Ups and downs.
  std::vector<Received> received;
  std::vector<std::string> reasons;  // Of the downs.
  std::vector<NodeInstance> expelled_by;
  uint64_t deliveries = 0;
  bool delivered_while_down = false;
  std::function<void(const Delivery&)> on_delivery;  // With `mutex` held.
};

}  // namespace mangrove::testing
