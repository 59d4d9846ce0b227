// Peers of another version, that send what cannot be read, or whose bytes are altered on their way; strangers on the port.
// A node says it once, and goes on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "directory/codec.h"
#include "net/envelope.h"
#include "net/fabric_transport.h"
#include "net/little_endian.h"
#include "net/log.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/hostile_peer.h"
#include "tests/wire.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

class HostilePeer : public testing::Test {
 protected:
  uint64_t Counter(int node, const std::string& name) {
    return cluster_.Ask(node, {"status"})["counters"][name].get<uint64_t>();
  }
  Incarnation IncarnationOf(int node) {
    return Incarnation(cluster_.Ask(node, {"status"})["node"]["incarnation"].get<uint64_t>());
  }

  // A page in each of some segments, on every node's disk.
  void Write() {
    const auto session = cluster_.Attach(1);
    const auto region = MakeRegion(*session, "r", kSegments * kSegmentBytes, {.replicas = 3});
    for (uint64_t i = 0; i < kSegments; ++i) {
      const uint64_t value = 100 + i;
      ASSERT_TRUE(region->Write(i * kSegmentBytes, std::as_bytes(std::span(&value, 1))).ok());
    }
    ASSERT_TRUE(region->Flush(0, region->info().size_bytes).ok());
  }
  // Every node serves what was written, and takes more.
  void ExpectServing() {
    for (int node = 1; node <= 3; ++node) {
      const auto session = cluster_.Attach(node);
      const auto region = Take(session->Open("r", AccessMode::kWrite));
      for (uint64_t i = 0; i < kSegments; ++i) {
        uint64_t value = 0;
        const absl::Status read = region->Read(i * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1)));
        ASSERT_TRUE(read.ok()) << read;
        ASSERT_EQ(value, 100 + i) << "node-" << node;
      }
      const uint64_t value = 7;
      EXPECT_TRUE(region->Write(8, std::as_bytes(std::span(&value, 1))).ok());
      const absl::Status flushed = region->Flush(0, kPageBytes);
      EXPECT_TRUE(flushed.ok()) << flushed;
    }
  }
  // An impostor has used incarnations of node 3's since it ended.
  void BringBackNode3(Incarnation past) {
    do {
      if (cluster_.IsRunning(3)) cluster_.Kill(3);
      cluster_.Start(3);
      EXPECT_TRUE(Eventually([&] {
        return RunProgram({"mangrove", "--socket", cluster_.socket(3), "status"}).exit_code == 0;
      }));
    } while (IncarnationOf(3) <= past);
    cluster_.AwaitConnected();
  }

  static constexpr uint64_t kSegments = 8;
  Cluster cluster_;
};

// --- Another version --------------------------------------------------------------------------------------------------

class OtherVersion : public HostilePeer, public testing::WithParamInterface<int> {};

// The highest connects to the others, the lowest is connected to.
INSTANTIATE_TEST_SUITE_P(Both, OtherVersion, testing::Values(1, 3));

TEST_P(OtherVersion, IsRefusedAndBothSidesSayItOnce) {
  cluster_.StartAll();
  Write();
  const int node = GetParam();
  const int other = node == 1 ? 3 : 1;
  cluster_.Kill(node);
  const std::string log = cluster_.directory() + "/impostor.log";
  ASSERT_TRUE(SetLogFile(log).ok());
  constexpr uint16_t kOther = kProtocolVersion + 41;
  const auto both = [](int from, int to) {
    return absl::StrCat("protocol version ", from, " met protocol version ", to);
  };
  {
    Impostor impostor(cluster_, node, Incarnation(uint64_t{1} << 30), kOther);
    // Whoever accepts counts the refusals.
    const auto tries = [&] { return node == 1 ? impostor.Counters().peers_refused : Counter(other, "peers_refused"); };
    EXPECT_TRUE(Eventually([&] { return tries() >= 6; }));
    for (const PeerStatus& peer : impostor.Peers()) EXPECT_FALSE(peer.connected);
    for (const int daemon : {2, other}) {
      EXPECT_EQ(cluster_.LinesOf(daemon, node == 1 ? both(kProtocolVersion, kOther) : both(kOther, kProtocolVersion)),
                1u);
      EXPECT_EQ(cluster_.PeerOf(daemon, absl::StrCat("node-", node))["connected"], false);
    }
  }
  EXPECT_TRUE(SetLogFile("/dev/stderr").ok());
  // Those that connect to it are of one host; those that it connects to are two nodes.
  EXPECT_EQ(LinesWith(log, both(kProtocolVersion, kOther)), node == 1 ? 1u : 0u);
  EXPECT_EQ(LinesWith(log, both(kOther, kProtocolVersion)), node == 1 ? 0u : 2u);
  cluster_.Start(node);
  cluster_.AwaitConnected();
  ExpectServing();
}

// --- What cannot be read ----------------------------------------------------------------------------------------------

// Bytes of `count` random ones.
std::vector<std::byte> RandomBytes(std::mt19937_64& random, size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

// A message as nodes send it.
std::vector<std::byte> SoundMessage() {
  Message message;
  message.kind = MessageKind::kRequest;
  message.page = PageId(1 << 20);
  message.request = RequestId(1);
  std::vector<std::byte> bytes;
  Encode(std::span(&message, 1), [&](const Packet& packet) { bytes = packet.bytes; });
  return bytes;
}

TEST_F(HostilePeer, AMessageOfNonsenseFromAPeerWithTheKeyIsCountedAndSaidOnce) {
  cluster_.StartAll();
  Write();
  const Incarnation incarnation(IncarnationOf(3).value + 1);
  cluster_.Kill(3);
  {
    Impostor impostor(cluster_, 3, incarnation);
    ASSERT_TRUE(impostor.AwaitLease());
    std::mt19937_64 random(1);
    const std::vector<std::byte> sound = SoundMessage();
    const PageBuffer page = std::make_shared<PageBytes>();
    uint64_t sent = 0;
    for (size_t i = 0; i < 60; ++i) {
      std::vector<std::vector<std::byte>> messages;
      messages.push_back(RandomBytes(random, random() % (kMaxMessageBytes + 1)));
      messages.push_back(RandomBytes(random, i * 8));
      messages.emplace_back(sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(i * sound.size() / 60));
      for (const auto& message : messages) {
        // With pages that it does not name.
        const std::vector<PageBuffer> pages(i % 3, page);
        for (const int node : {1, 2}) impostor.Send(node, message, pages);
        ++sent;
      }
    }
    for (const int node : {1, 2}) {
      EXPECT_TRUE(Eventually([&] { return Counter(node, "bad_messages") == sent; })) << Counter(node, "bad_messages");
      EXPECT_EQ(cluster_.LinesOf(node, "sent what cannot be read"), 1u);
      EXPECT_THAT(cluster_.log(node), HasSubstr(ToString(NodeInstance{NodeId(3), incarnation})));
      // It holds the key: the next message may be a good one.
      EXPECT_EQ(cluster_.PeerOf(node, "node-3")["connected"], true);
    }
  }
  BringBackNode3(incarnation);
  ExpectServing();
}

// Messages that can be read and that make no sense.
TEST_F(HostilePeer, SenselessMessagesFromAPeerWithTheKeyEndNoNode) {
  cluster_.StartAll();
  Write();
  GlobalAddress address;
  {
    const auto session = cluster_.Attach(1);
    address = Take(session->Open("r", AccessMode::kRead))->info().address;
  }
  const Incarnation incarnation(IncarnationOf(3).value + 1);
  cluster_.Kill(3);
  Impostor impostor(cluster_, 3, incarnation);
  ASSERT_TRUE(impostor.AwaitLease());
  std::mt19937_64 random(2);
  const auto any = [&](std::initializer_list<uint64_t> values) { return values.begin()[random() % values.size()]; };
  for (int i = 0; i < 15'000 && !testing::Test::HasFailure(); ++i) {
    Message m;
    m.kind = static_cast<MessageKind>(random() % kMessageKinds);
    m.page = random() % 4 == 0 ? PageId(any({1, 2, 3, 4, 5, 1000})) : PageOf(address + any({0, 1, 5}) * kSegmentBytes);
    if (random() % 8 == 0) m.page = PageId(kSpacePages - 1);
    m.count = any({0, 1, 1, 1, 2, 1000, uint64_t{1} << 40});
    m.txn = Txn(any({0, 1, (uint64_t{1} << 40) + 1, ~uint64_t{0}}));
    m.request = RequestId(any({0, 1, ~uint64_t{0}}));
    m.peer = {NodeId(any({0, 1, 2, 3, 3, 9, ~uint64_t{0}})), Incarnation(any({0, 1, incarnation.value, ~uint64_t{0}}))};
    m.access = static_cast<Access>(random() % 3);
    m.holding = static_cast<Holding>(random() % 4);
    for (Version* version : {&m.version, &m.flushed}) *version = {Epoch(any({0, 1, ~uint64_t{0}})), any({0, 1, 7})};
    m.grant_epoch = Epoch(any({0, 1, ~uint64_t{0}}));
    m.config = ConfigNumber(any({0, 1, 2, ~uint64_t{0}}));
    m.replicas = static_cast<uint32_t>(any({0, 1, 3, 4'000'000'000}));
    for (bool* flag : {&m.active, &m.have, &m.exclusive, &m.owner, &m.retain, &m.kept, &m.seal, &m.complete,
                       &m.with_data, &m.is_volatile}) {
      *flag = random() % 2 == 0;
    }
    if (random() % 4 == 0) m.SetStatus(absl::Status(static_cast<absl::StatusCode>(random() % 17), "no reason"));
    if (random() % 3 == 0) m.data = std::make_shared<PageBytes>();
    for (const int node : {1, 2}) {
      Encode(std::span(&m, 1), [&](const Packet& packet) { impostor.Send(node, packet.bytes, packet.pages); });
    }
    if (i % 1000 == 0) {
      for (const int node : {1, 2})
        ASSERT_EQ(cluster_.PeerOf(node, "node-3")["connected"], true) << i << " to " << node;
    }
  }
  for (const int node : {1, 2}) {
    EXPECT_TRUE(Eventually([&] { return Counter(node, "messages_received") >= 15'000; }));
    EXPECT_EQ(cluster_.Ask(node, {"node", "list"}).size(), 3u);
  }
}

// --- What is altered on its way ---------------------------------------------------------------------------------------

enum class Alteration : uint8_t { kNone, kBit, kLength, kCut, kHello };

// Where the magic of an envelope, or of a handshake's first message, stands in what goes over the wire.
template <typename Change>
bool AtEach(std::string& bytes, const std::string& magic, size_t with, Change change) {
  for (size_t at = bytes.find(magic); at != std::string::npos; at = bytes.find(magic, at + 1)) {
    if (at + with <= bytes.size() && !change(at)) return false;
  }
  return true;
}

class AlteringWire : public HostilePeer {
 protected:
  // Between node 3 and node 1, when they start.
  void Connect() {
    wire_ = std::make_unique<Wire>(cluster_.port(1), [this](int, std::string& bytes) { return Alter(bytes); });
    const std::string text = cluster_.ConfigText(3);
    const std::string other = absl::StrReplaceAll(
        text, {{absl::StrCat("127.0.0.1:", cluster_.port(1)), absl::StrCat("127.0.0.1:", wire_->port())}});
    ASSERT_NE(text, other);
    cluster_.WriteConfig(3, other);
  }
  // And from then on, since a node that has seen a view looks for node 1 where the anchors say that it is.
  void StayConnected() {
    const std::string address = absl::StrCat("127.0.0.1:", wire_->port());
    cluster_.Ask(1, {"node", "set", "node-1", "--address", address});
    for (const int node : {2, 3}) {
      EXPECT_TRUE(Eventually([&] { return cluster_.PeerOf(node, "node-1")["address"] == address; }));
    }
  }
  bool Alter(std::string& bytes) {
    const Alteration what = alteration_;
    if (what == Alteration::kNone) return true;
    if (what == Alteration::kHello) {
      // With the version, since "MH" alone may stand anywhere.
      std::string hello = "MH__";
      StoreLittle<uint16_t>(reinterpret_cast<std::byte*>(hello.data() + 2), kProtocolVersion);
      return AtEach(bytes, hello, 52, [&](size_t at) {
        bytes[at] = '?';
        ++altered_;
        return true;
      });
    }
    return AtEach(bytes, "MGE2", kEnvelopeBytes, [&](size_t at) {
      ++altered_;
      if (what == Alteration::kBit) bytes[at + 8] ^= 16;
      if (what == Alteration::kLength) bytes[at + 18] ^= 1;
      if (what == Alteration::kCut) bytes.resize(at + kEnvelopeBytes / 2);
      return what != Alteration::kCut;
    });
  }
  // Alters what goes over the wire until it has been done eight times, over as many connections.
  void AlterForAWhile(Alteration what) {
    alteration_ = what;
    const auto asks = [&] {
      RunProgram({"mangrove", "--socket", cluster_.socket(3), "--timeout", "1", "page", "show", node_1s_page_});
      return altered_ >= 8;
    };
    EXPECT_TRUE(Eventually(asks, 60));
    alteration_ = Alteration::kNone;
    cluster_.AwaitConnected();
    ExpectServing();
    // However much of it was not said: the last word is how it is.
    EXPECT_TRUE(
        Eventually([&] { return LastLineOf(1, "node-3 (node 3").find("connected with") != std::string::npos; }));
  }
  std::string LastLineOf(int node, const std::string& words) {
    std::string last;
    for (const absl::string_view line : absl::StrSplit(cluster_.log(node), '\n')) {
      if (absl::StrContains(line, words)) last = std::string(line);
    }
    return last;
  }
  // A page that node 1 is asked about.
  void FindPage() {
    const auto session = cluster_.Attach(2);
    const auto region = Take(session->Open("r", AccessMode::kRead));
    for (uint64_t i = 0; i < kSegments; ++i) {
      const std::string address = ToString(region->info().address + i * kSegmentBytes);
      if (cluster_.Ask(2, {"page", "show", address})["responsible"] == "node-1") node_1s_page_ = address;
    }
    ASSERT_NE(node_1s_page_, "");
  }
  size_t LinesOfBoth(const std::string& words) { return cluster_.LinesOf(1, words) + cluster_.LinesOf(3, words); }

  std::atomic<Alteration> alteration_{Alteration::kNone};
  std::atomic<uint64_t> altered_{0};
  std::unique_ptr<Wire> wire_;
  std::string node_1s_page_;
};

struct Altered {
  const char* name;
  Alteration what;
  const char* words;
};
class AlteredMessage : public AlteringWire, public testing::WithParamInterface<Altered> {};

INSTANTIATE_TEST_SUITE_P(Each, AlteredMessage,
                         testing::Values(Altered{"Corrupt", Alteration::kBit, "corrupt message: the tag"},
                                         Altered{"OfAWrongLength", Alteration::kLength, "corrupt message: the tag"},
                                         Altered{"CutOff", Alteration::kCut, "lost node-"}),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST_P(AlteredMessage, CostsItsConnectionAndIsSaidOnce) {
  Connect();
  cluster_.StartAll();
  StayConnected();
  Write();
  FindPage();
  AlterForAWhile(GetParam().what);
  const size_t said = LinesOfBoth(GetParam().words);
  EXPECT_GE(said, 1u);
  EXPECT_LE(said, 4u);
  // By the other side as well.
  for (const int node : {1, 3}) EXPECT_LE(cluster_.LinesOf(node, "lost "), 5u) << cluster_.log(node);
}

TEST_F(AlteringWire, WhatIsNoBeginningOfAConnectionIsRefusedAndSaidOnce) {
  Connect();
  alteration_ = Alteration::kHello;
  for (int node = 1; node <= 3; ++node) cluster_.Start(node);
  EXPECT_TRUE(Eventually([&] { return altered_ >= 5 && cluster_.LinesOf(1, "refused a connection") > 0; }));
  EXPECT_EQ(cluster_.LinesOf(1, "not the beginning of a connection between nodes"), 1u);
  EXPECT_EQ(cluster_.LinesOf(3, "not the beginning of a connection between nodes"), 1u);
  alteration_ = Alteration::kNone;
  cluster_.AwaitConnected();
  Write();
  ExpectServing();
}

// --- Recorded ---------------------------------------------------------------------------------------------------------

class RecordingWire : public AlteringWire {
 protected:
  // What the wire's threads write to is a member here.
  ~RecordingWire() override { wire_.reset(); }
  // What node 3 sends to node 1 while they find each other.
  void Record() {
    wire_ = std::make_unique<Wire>(cluster_.port(1), [this](int from, std::string& bytes) {
      const std::lock_guard lock(mutex_);
      if (from == 0) recorded_ += bytes;
      return true;
    });
    cluster_.WriteConfig(3, absl::StrReplaceAll(cluster_.ConfigText(3), {{absl::StrCat("127.0.0.1:", cluster_.port(1)),
                                                                          absl::StrCat("127.0.0.1:", wire_->port())}}));
    cluster_.StartAll();
  }
  std::mutex mutex_;
  std::string recorded_;
};

// What libfabric would take for its own, if it read it: operations and lengths that are none.
TEST_F(RecordingWire, WhatWasRecordedOfAConnectionEndsNoNodeThatHasStartedAnewAndKeepsNobodyAway) {
  Record();
  Write();
  for (const int node : {1, 3}) cluster_.Kill(node);
  std::vector<std::string> connections;
  {
    const std::lock_guard lock(mutex_);
    connections = SplitAtHellos(recorded_, kProtocolVersion);
  }
  ASSERT_GE(connections.size(), 2u);
  cluster_.Start(1);
  std::mt19937_64 random(4);
  std::vector<int> fds;
  const auto repeat = [&](const std::string& bytes) {
    fds.push_back(ConnectTo(cluster_.port(1)));
    if (fds.back() >= 0) send(fds.back(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  };
  EXPECT_TRUE(Eventually([&] {
    return RunProgram({"mangrove", "--socket", cluster_.socket(1), "status"}).exit_code == 0;
  }));
  const size_t hello_bytes = connections[1].find("MH") + kHelloBytes;
  for (int i = 0; i < 200; ++i) {
    const std::vector<std::byte> garbage = RandomBytes(random, 3000);
    std::string behind(reinterpret_cast<const char*>(garbage.data()), garbage.size());
    if (i % 2 == 0) std::fill(behind.begin(), behind.end(), '\xFF');
    const std::string& recorded = connections[i % connections.size()];
    // The connection request of the provider has a length of its own: what is behind it counts once it was accepted.
    repeat(i % 3 == 0 ? recorded : recorded.substr(0, std::max(hello_bytes, size_t{300})) + behind);
  }
  EXPECT_TRUE(Eventually([&] { return Counter(1, "peers_refused") >= 50; })) << Counter(1, "peers_refused");
  cluster_.Start(3);
  cluster_.AwaitConnected();
  ExpectServing();
  EXPECT_LE(cluster_.LinesOf(1, "refused a connection"), 3u);
  for (const int fd : fds) close(fd);
}

// --- Strangers --------------------------------------------------------------------------------------------------------

TEST_F(HostilePeer, GarbageOfStrangersOnThePortDisturbsNobody) {
  cluster_.StartAll();
  Write();
  cluster_.Kill(3);
  const size_t lines = cluster_.LinesOf(1, " ");
  std::mt19937_64 random(3);
  std::vector<int> silent;
  for (size_t i = 0; i < 200; ++i) {
    const int fd = ConnectTo(cluster_.port(1));
    ASSERT_GE(fd, 0);
    std::vector<std::byte> bytes = RandomBytes(random, i * 7);
    const std::string_view request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    if (i % 5 == 0) {
      bytes.assign(reinterpret_cast<const std::byte*>(request.begin()),
                   reinterpret_cast<const std::byte*>(request.end()));
    }
    send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (i % 4 == 0) {
      silent.push_back(fd);
    } else {
      close(fd);
    }
  }
  // One of its own still gets in.
  cluster_.Start(3);
  cluster_.AwaitConnected();
  ExpectServing();
  EXPECT_LE(cluster_.LinesOf(1, " "), lines + 10) << cluster_.log(1);
  for (const int fd : silent) close(fd);
}

}  // namespace
}  // namespace mangrove::cluster_test
