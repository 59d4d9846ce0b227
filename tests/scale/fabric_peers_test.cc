// What a connection costs, in bytes of memory.

#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <vector>

#include "net/fabric_transport.h"
#include "tests/unit/net/transport_fixture.h"

namespace mangrove {
namespace {

using testing::MakeConfig;
using testing::MakeMembers;
using testing::MakePage;
using testing::TestNode;

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t size = 0;
  size_t resident = 0;
  statm >> size >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// All sides of all connections are in this process, and touch every receive buffer and every slot that they have.
TEST(FabricPeers, AConnectedPeerCostsUnderOneMebibyte) {
  constexpr uint64_t kNodes = 5;
  constexpr uint64_t kMessages = 40;
  constexpr size_t kLimit = 1024 * 1024;
  const auto members = MakeMembers(kNodes);
  const std::vector<PageBuffer> pages(kMaxMessagePages, MakePage(1));
  std::vector<std::unique_ptr<TestNode>> nodes;
  for (uint64_t id = 1; id <= kNodes; ++id) {
    nodes.push_back(std::make_unique<TestNode>(MakeConfig(members, id)));
    nodes.back()->on_delivery = [](const Delivery&) {};
  }
  auto exchange = [&](uint64_t from, uint64_t to) {
    ASSERT_TRUE(nodes[from - 1]->WaitForPeer(to));
    TestNode& receiver = *nodes[to - 1];
    for (uint64_t i = 0; i < kMessages; ++i) {
      const uint64_t before = receiver.Counters().messages_received;
      nodes[from - 1]->Send(to, std::string(kMaxMessageBytes, 'x'), pages);
      ASSERT_TRUE(receiver.WaitFor([&] { return receiver.deliveries > before; }));
    }
  };
  nodes[0]->Start();
  nodes[1]->Start();
  exchange(1, 2);
  exchange(2, 1);
  const size_t before = ResidentBytes();
  size_t sides = 0;
  for (uint64_t id = 3; id <= kNodes; ++id) {
    nodes[id - 1]->Start();
    for (uint64_t other = 1; other < id; ++other) {
      exchange(id, other);
      exchange(other, id);
      sides += 2;
    }
  }
  const size_t each = (ResidentBytes() - before) / sides;
  EXPECT_LT(each, kLimit);
  std::printf("%zu KiB for each side of a connection, nodes' own memory included\n", each / 1024);
}

}  // namespace
}  // namespace mangrove
