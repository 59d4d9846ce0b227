#include "net/fabric_transport.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/unit/net/transport_fixture.h"

namespace mangrove {
namespace {

using testing::MakeConfig;
using testing::MakeMembers;
using testing::MakePage;
using testing::TestNode;

struct Pair {
  explicit Pair(bool force_local_registration = false, Security security = Security::kAuthenticated)
      : members(MakeMembers(2)) {
    for (uint64_t id = 1; id <= 2; ++id) {
      FabricTransportConfig config = MakeConfig(members, id);
      config.force_local_registration = force_local_registration;
      config.security = security;
      (id == 1 ? a : b) = std::make_unique<TestNode>(std::move(config));
    }
    a->Start();
    b->Start();
    EXPECT_TRUE(a->WaitForPeer(2));
    EXPECT_TRUE(b->WaitForPeer(1));
  }
  std::vector<FabricMember> members;
  std::unique_ptr<TestNode> a;
  std::unique_ptr<TestNode> b;
};

TEST(FabricTransport, AMessageArrivesOnceWithItsBytesSenderAndEpoch) {
  Pair pair;
  pair.a->OnLoop([&] { pair.a->transport->SetEpoch(Epoch(7)); });
  pair.a->Send(2, "hello");
  ASSERT_TRUE(pair.b->WaitFor([&] { return pair.b->received.size() == 1; }));
  const auto& r = pair.b->received[0];
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(r.message.data()), r.message.size()), "hello");
  EXPECT_EQ(r.from, (NodeInstance{NodeId(1), Incarnation(1)}));
  EXPECT_EQ(r.epoch, Epoch(7));
  pair.b->Send(1, "back");
  EXPECT_TRUE(pair.a->WaitFor([&] { return pair.a->received.size() == 1; }));
}

class FabricTransportPages : public ::testing::TestWithParam<std::tuple<bool, Security>> {
 protected:
  Pair MakePair() { return Pair(std::get<0>(GetParam()), std::get<1>(GetParam())); }
};
INSTANTIATE_TEST_SUITE_P(LocalRegistration, FabricTransportPages,
                         ::testing::Combine(::testing::Bool(),
                                            ::testing::Values(Security::kAuthenticated, Security::kEncrypted)));

TEST_P(FabricTransportPages, EveryCountOfPagesArrivesWholeWithEverySizeOfMessage) {
  Pair pair = MakePair();
  size_t sent = 0;
  for (size_t count = 0; count <= kMaxMessagePages; ++count) {
    for (size_t bytes : {size_t{0}, size_t{16}, size_t{1000}, kMaxMessageBytes}) {
      std::vector<std::byte> message(bytes, std::byte{static_cast<uint8_t>(count)});
      std::vector<PageBuffer> pages;
      for (size_t p = 0; p < count; ++p) pages.push_back(MakePage(sent * 100 + p));
      pair.a->Send(2, message, pages);
      ++sent;
    }
  }
  ASSERT_TRUE(pair.b->WaitFor([&] { return pair.b->received.size() == sent; }));
  sent = 0;
  for (size_t count = 0; count <= kMaxMessagePages; ++count) {
    for (size_t bytes : {size_t{0}, size_t{16}, size_t{1000}, kMaxMessageBytes}) {
      const auto& r = pair.b->received[sent];
      EXPECT_EQ(r.message, std::vector<std::byte>(bytes, std::byte{static_cast<uint8_t>(count)}));
      ASSERT_EQ(r.pages.size(), count);
      for (size_t p = 0; p < count; ++p) {
        const PageBuffer expected = MakePage(sent * 100 + p);
        EXPECT_EQ(std::memcmp(r.pages[p].data(), expected->bytes.data(), kPageBytes), 0);
      }
      ++sent;
    }
  }
  EXPECT_EQ(pair.a->Counters().messages_sent, sent);
  EXPECT_EQ(pair.a->Counters().messages_dropped, 0u);
  EXPECT_EQ(pair.b->Counters().pages_received, 4u * 64 * 65 / 2);
}

// Small, inline and in slots; and what waits in the queue behind a full ring of slots.
TEST_P(FabricTransportPages, AMessageComesOnTheChannelThatItWasSentOn) {
  Pair pair = MakePair();
  const std::string text = "channel";
  const std::vector<PageBuffer> pages(kMaxMessagePages, MakePage(1));
  std::vector<std::pair<Channel, size_t>> sent;
  pair.a->OnLoop([&] {
    for (int round = 0; round < 5; ++round) {
      for (const size_t count : {size_t{0}, size_t{2}, kMaxMessagePages}) {
        for (const Channel channel : {Channel::kMembership, Channel::kPages}) {
          const std::span<const PageBuffer> some = std::span(pages).first(count);
          pair.a->transport->Send(NodeId(2), channel, std::as_bytes(std::span(text)), some);
          sent.emplace_back(channel, count);
        }
      }
    }
    EXPECT_GT(pair.a->transport->Gauges().queued_messages, 0u);
  });
  ASSERT_TRUE(pair.b->WaitFor([&] { return pair.b->received.size() == sent.size(); }));
  for (size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(pair.b->received[i].channel, sent[i].first) << i;
    EXPECT_EQ(pair.b->received[i].pages.size(), sent[i].second) << i;
  }
}

// Every message is answered, so both directions are busy; the window keeps within what a connection may queue (T5).
class FabricTransportLoad : public ::testing::TestWithParam<Security> {};
INSTANTIATE_TEST_SUITE_P(Both, FabricTransportLoad, ::testing::Values(Security::kAuthenticated, Security::kEncrypted));

TEST_P(FabricTransportLoad, NothingIsLostOrReorderedUnderLoad) {
  constexpr uint64_t kMessages = 100'000;
  constexpr uint64_t kWindow = 64;
  Pair pair(false, GetParam());
  const PageBuffer page = MakePage(1);
  auto send = [&](TestNode& node, uint64_t to, uint64_t number) {
    std::vector<std::byte> message(8 + number % 200);
    std::memcpy(message.data(), &number, sizeof(number));
    const std::vector<PageBuffer> pages(number % 16 == 0 ? number % 5 : 0, page);
    node.transport->Send(NodeId(to), Channel::kPages, message, pages);
  };
  auto number_of = [](const Delivery& delivery) {
    uint64_t number = 0;
    std::memcpy(&number, delivery.message.data(), sizeof(number));
    return number;
  };
  uint64_t expected_b = 0;
  uint64_t expected_a = 0;
  bool ordered = true;
  pair.b->on_delivery = [&](const Delivery& delivery) {
    const uint64_t number = number_of(delivery);
    ordered &= number == expected_b++;
    for (const std::byte* p : delivery.pages) ordered &= std::memcmp(p, page->bytes.data(), kPageBytes) == 0;
    send(*pair.b, 1, number);
  };
  pair.a->on_delivery = [&](const Delivery& delivery) {
    const uint64_t number = number_of(delivery);
    if (number != expected_a++) ordered = false;
    if (number + kWindow < kMessages) send(*pair.a, 2, number + kWindow);
  };
  pair.a->OnLoop([&] {
    for (uint64_t i = 0; i < kWindow; ++i) send(*pair.a, 2, i);
  });
  EXPECT_TRUE(pair.a->WaitFor([&] { return expected_a == kMessages; }, 60));
  pair.a->OnLoop([] {});
  pair.b->OnLoop([&] { EXPECT_TRUE(ordered); });
  EXPECT_EQ(pair.a->Counters().messages_dropped, 0u);
  EXPECT_EQ(pair.b->Counters().messages_dropped, 0u);
}

// No completion is asked for most messages: what they hold is asked after in the end, or when it gets much.
TEST(FabricTransport, PagesThatAreOutAreLetGo) {
  Pair pair;
  PageBuffer page = MakePage(1);
  const std::weak_ptr<const PageBytes> held = page;
  pair.a->Send(2, "one", {{page}});
  page = nullptr;
  EXPECT_TRUE(pair.a->WaitForStatus([&](const auto&, const auto&) { return held.expired(); }));

  constexpr size_t kPages = 40;
  std::vector<std::weak_ptr<const PageBytes>> many;
  for (size_t i = 0; i < kPages; ++i) {
    const PageBuffer next = MakePage(i);
    many.push_back(next);
    pair.a->Send(2, "many", {{next}});
  }
  EXPECT_TRUE(pair.a->WaitForStatus([&](const auto&, const auto&) { return many[kPages / 2].expired(); }));
  EXPECT_TRUE(pair.b->WaitFor([&] { return pair.b->received.size() == 1 + kPages; }));
}

TEST(FabricTransport, AMessageToAPeerWithoutConnectionIsDroppedAndCounted) {
  auto members = MakeMembers(2);
  TestNode a(MakeConfig(members, 1));
  a.Start();
  a.Send(2, "nobody there");
  EXPECT_EQ(a.Counters().messages_dropped, 1u);
  EXPECT_EQ(a.Counters().messages_sent, 0u);
}

}  // namespace
}  // namespace mangrove
