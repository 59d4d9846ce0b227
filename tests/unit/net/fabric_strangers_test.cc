// Who is let in: keys, clusters, versions, incarnations, nonsense; and who dies.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "net/fabric_transport.h"
#include "tests/unit/net/transport_fixture.h"

namespace mangrove {
namespace {

using testing::MakeConfig;
using testing::MakeMembers;
using testing::MakePage;
using testing::TestNode;

// Node 2 connects to node 1 with `theirs`; node 1 is as it should be. Both must say `reason` of it, and nobody is up.
void ExpectRefused(const std::vector<FabricMember>& members, FabricTransportConfig theirs,
                   const std::vector<std::string>& words) {
  TestNode good(MakeConfig(members, 1));
  TestNode bad(std::move(theirs));
  good.Start();
  bad.Start();
  std::string error;
  EXPECT_TRUE(bad.WaitForStatus([&](const PeerStatus& status, const TransportCounters&) {
    error = status.last_error;
    for (const std::string& word : words) {
      if (error.find(word) == std::string::npos) return false;
    }
    return !status.connected;
  })) << "says: "
      << error;
  EXPECT_TRUE(good.WaitForStatus(
      [](const PeerStatus& status, const TransportCounters& c) { return c.peers_refused > 0 && !status.connected; }));
  EXPECT_TRUE(good.history.empty());
  EXPECT_TRUE(bad.history.empty());
}

TEST(FabricStrangers, AnotherKeyIsRefused) {
  auto members = MakeMembers(2);
  FabricTransportConfig config = MakeConfig(members, 2);
  config.keys[0][31] = std::byte{0};
  ExpectRefused(members, config, {"refused", "key"});
}

TEST(FabricStrangers, AnotherVersionIsRefusedNamingBoth) {
  auto members = MakeMembers(2);
  FabricTransportConfig config = MakeConfig(members, 2);
  config.protocol_version = 4711;
  ExpectRefused(members, config, {"refused", "version 4711", "version " + std::to_string(kProtocolVersion)});
}

TEST(FabricStrangers, AnotherClusterIsRefusedNamingBoth) {
  auto members = MakeMembers(2);
  FabricTransportConfig config = MakeConfig(members, 2);
  config.cluster.low = 0xBEEF;
  ExpectRefused(members, config, {"refused", "beef", "2222"});
}

TEST(FabricStrangers, AClusterThatDiffersInItsUpperHalfOnlyIsRefused) {
  auto members = MakeMembers(2);
  FabricTransportConfig config = MakeConfig(members, 2);
  config.cluster.high = 0xBEEF;
  ExpectRefused(members, config, {"refused", "key"});
}

TEST(FabricStrangers, ANodeThatIsNoMemberIsRefused) {
  auto members = MakeMembers(3);
  const std::vector<FabricMember> two(members.begin(), members.begin() + 2);
  TestNode good(MakeConfig(two, 1));
  TestNode bad(MakeConfig(members, 3));
  good.Start();
  bad.Start();
  EXPECT_TRUE(bad.WaitForStatus([](const PeerStatus& status, const TransportCounters&) {
    return status.last_error.find("not among the members") != std::string::npos;
  }));
}

TEST(FabricStrangers, AnOlderIncarnationIsRefusedAndANewerOneReplaces) {
  auto members = MakeMembers(2);
  TestNode one(MakeConfig(members, 1));
  one.Start();
  auto two = std::make_unique<TestNode>(MakeConfig(members, 2, 5));
  two->Start();
  ASSERT_TRUE(one.WaitForPeer(2, 5));
  two->Stop();
  ASSERT_TRUE(one.WaitForDown(2));
  two = std::make_unique<TestNode>(MakeConfig(members, 2, 4));
  two->Start();
  EXPECT_TRUE(two->WaitForStatus([](const PeerStatus& status, const TransportCounters&) {
    return status.last_error.find("newer incarnation") != std::string::npos;
  }));
  two->Stop();
  two = std::make_unique<TestNode>(MakeConfig(members, 2, 6));
  two->Start();
  EXPECT_TRUE(one.WaitForPeer(2, 6));
  EXPECT_TRUE(two->WaitForPeer(1));
}

TEST(FabricStrangers, ANewerIncarnationClosesTheOldOneFirst) {
  auto members = MakeMembers(2);
  TestNode one(MakeConfig(members, 1));
  one.Start();
  TestNode old(MakeConfig(members, 2, 1));
  old.Start();
  ASSERT_TRUE(one.WaitForPeer(2, 1));
  // The old one lives on: only a cut-off node or a mistake does that. It listens elsewhere.
  FabricTransportConfig config = MakeConfig(members, 2, 2);
  config.listen_address = testing::Loopback(FreePort());
  TestNode fresh(std::move(config));
  fresh.Start();
  ASSERT_TRUE(one.WaitForPeer(2, 2));
  ASSERT_TRUE(old.WaitForDown(1));
  const std::vector<std::pair<NodeInstance, bool>> expected = {
      {{NodeId(2), Incarnation(1)}, true}, {{NodeId(2), Incarnation(1)}, false}, {{NodeId(2), Incarnation(2)}, true}};
  std::lock_guard<std::mutex> lock(one.mutex);
  EXPECT_EQ(one.history, expected);
}

int ConnectTo(const std::string& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  return fd;
}

TEST(FabricStrangers, GarbageOnThePortDisturbsNobody) {
  auto members = MakeMembers(2);
  TestNode one(MakeConfig(members, 1));
  one.Start();
  std::vector<int> silent;
  uint64_t random = 1;
  for (int i = 0; i < 200; ++i) {
    const int fd = ConnectTo(members[0].address);
    std::vector<unsigned char> bytes(static_cast<size_t>(i) * 7);
    for (auto& b : bytes) b = static_cast<unsigned char>((random = random * 6364136223846793005u + 1) >> 56);
    if (!bytes.empty()) send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (i % 4 == 0) {
      silent.push_back(fd);
    } else {
      close(fd);
    }
  }
  TestNode two(MakeConfig(members, 2));
  two.Start();
  EXPECT_TRUE(one.WaitForPeer(2));
  EXPECT_TRUE(two.WaitForPeer(1));
  two.Send(1, "through the noise");
  EXPECT_TRUE(one.WaitFor([&] { return one.received.size() == 1; }));
  for (int fd : silent) close(fd);
}

TEST(FabricStrangers, AnAcceptorThatNeverAnswersIsGivenUpAndTriedAgain) {
  auto members = MakeMembers(2);
  // Something else listens where node 1 should be.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(static_cast<uint16_t>(std::stoi(members[0].address.substr(10))));
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
  ASSERT_EQ(listen(listener, 16), 0);
  TestNode two(MakeConfig(members, 2));
  two.Start();
  EXPECT_TRUE(two.WaitForStatus([](const PeerStatus& status, const TransportCounters&) {
    return status.last_error.find("handshake took longer") != std::string::npos;
  }));
  close(listener);
  TestNode one(MakeConfig(members, 1));
  one.Start();
  EXPECT_TRUE(two.WaitForPeer(1));
}

TEST(FabricStrangers, AWrongConfigurationIsNamed) {
  const auto members = MakeMembers(2);
  struct Case {
    const char* word;
    std::function<void(FabricTransportConfig&)> change;
  };
  const std::vector<Case> cases = {
      {"host:port", [](auto& c) { c.listen_address = "nowhere"; }},
      {"host:port", [](auto& c) { c.listen_address = "127.0.0.1:99999"; }},
      {"n2", [](auto& c) { c.members[1].address = "127.0.0.1"; }},
      {"no-such-host.invalid", [](auto& c) { c.members[1].address = "no-such-host.invalid:1"; }},
      {"n1 and n2", [](auto& c) { c.members[1].id = NodeId(1); }},
      {"no-such-provider", [](auto& c) { c.provider = "no-such-provider"; }},
      {"incarnation 0", [](auto& c) { c.self.incarnation = Incarnation(0); }},
      {"cluster id", [](auto& c) { c.cluster = {}; }},
      {"node id 0", [](auto& c) { c.members[1].id = NodeId(0); }},
  };
  for (const Case& c : cases) {
    FabricTransportConfig config = MakeConfig(members, 1);
    c.change(config);
    TestNode node(config);
    const absl::Status status = node.transport->Start(&node);
    ASSERT_FALSE(status.ok()) << c.word;
    EXPECT_NE(status.message().find(c.word), absl::string_view::npos) << status;
  }
  TestNode first(MakeConfig(members, 1));
  ASSERT_TRUE(first.transport->Start(&first).ok());
  TestNode second(MakeConfig(members, 1));
  const absl::Status taken = second.transport->Start(&second);
  EXPECT_NE(taken.message().find(members[0].address), absl::string_view::npos) << taken;
}

// --- Peers that die ---------------------------------------------------------------------------------------------------

// Node 2 in a process of its own, made before the test has threads, and started when told its incarnation.
class PeerProcess {
 public:
  explicit PeerProcess(const std::vector<FabricMember>& members) {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe(ends.data()), 0);
    child_ = fork();
    EXPECT_GE(child_, 0);
    if (child_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(ends[1]);
      Run(members, ends[0]);
    }
    close(ends[0]);
    start_ = ends[1];
  }
  ~PeerProcess() { Kill(); }
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  void Start(uint64_t incarnation) {
    EXPECT_EQ(write(start_, &incarnation, sizeof(incarnation)), static_cast<ssize_t>(sizeof(incarnation)));
  }
  void Signal(int number) { kill(child_, number); }
  void Kill() {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    int status = 0;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    close(start_);
    child_ = 0;
  }

 private:
  // Answers every message with its bytes and as many pages.
  [[noreturn]] static void Run(const std::vector<FabricMember>& members, int start) {
    uint64_t incarnation = 0;
    if (read(start, &incarnation, sizeof(incarnation)) != static_cast<ssize_t>(sizeof(incarnation))) _exit(1);
    TestNode node(MakeConfig(members, 2, incarnation));
    node.on_delivery = [&](const Delivery& delivery) {
      const std::vector<PageBuffer> pages(delivery.pages.size(), MakePage(1));
      node.transport->Send(NodeId(1), Channel::kPages, delivery.message, pages);
    };
    node.Start();
    for (;;) pause();
  }

  pid_t child_ = 0;
  int start_ = -1;
};

TEST(FabricPeers, AKilledPeerIsDownSoonAndComesBackAsANewerIncarnation) {
  const auto members = MakeMembers(2);
  std::array<PeerProcess, 3> processes = {PeerProcess(members), PeerProcess(members), PeerProcess(members)};
  TestNode one(MakeConfig(members, 1));
  one.Start();
  const std::vector<PageBuffer> pages(64, MakePage(1));
  for (uint64_t incarnation = 1; incarnation <= processes.size(); ++incarnation) {
    PeerProcess& process = processes[incarnation - 1];
    process.Start(incarnation);
    ASSERT_TRUE(one.WaitForPeer(2, incarnation));
    // Killed in the middle of an exchange of pages.
    for (int i = 0; i < 20; ++i) one.Send(2, "pages", pages);
    EXPECT_TRUE(one.WaitFor([&] { return one.deliveries >= incarnation; }));
    const auto killed = std::chrono::steady_clock::now();
    process.Kill();
    ASSERT_TRUE(one.WaitForDown(2));
    EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::seconds(1));
    one.Send(2, "to nobody");
  }
  EXPECT_FALSE(one.delivered_while_down);
  FabricTransportGauges gauges;
  one.OnLoop([&] { gauges = one.transport->Gauges(); });
  EXPECT_EQ(gauges.connections, 0u);
}

TEST(FabricPeers, APeerThatIsStoppedIsBoundedInMemoryAndGivenUpAfterTheDeadline) {
  const auto members = MakeMembers(2);
  PeerProcess process(members);
  TestNode one(MakeConfig(members, 1));
  one.Start();
  process.Start(1);
  ASSERT_TRUE(one.WaitForPeer(2, 1));
  process.Signal(SIGSTOP);
  const std::vector<std::byte> message(1000, std::byte{1});
  const std::vector<PageBuffer> pages(4, MakePage(1));
  one.OnLoop([&] {
    for (int i = 0; i < 20'000; ++i)
      one.transport->Send(NodeId(2), Channel::kPages, message,
                          i % 2 == 0 ? std::span(pages) : std::span<const PageBuffer>());
  });
  EXPECT_GT(one.Counters().messages_dropped, 0u);
  EXPECT_TRUE(one.WaitForDown(2));
  process.Signal(SIGCONT);
  // It connects again by itself.
  EXPECT_TRUE(one.WaitForPeer(2, 1));
}

}  // namespace
}  // namespace mangrove
