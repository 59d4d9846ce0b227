// A token, a guest and a door over loopback, with a stand-in for whoever admits.
// Covers: C08, C13

#include "engine/join/join_door.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/join/join_cluster.h"
#include "engine/join/join_codec.h"
#include "engine/join/join_token.h"
#include "engine/node_config.h"
#include "net/channel_switch.h"
#include "net/runtime/loop.h"
#include "net/runtime/system_entropy.h"
#include "tests/free_port.h"

namespace mangrove {
namespace {

constexpr char kDoorCluster[] = "forest";

ClusterKey FilledKey(int fill) {
  ClusterKey key;
  key.fill(static_cast<std::byte>(fill));
  return key;
}

JoinRequest Wish(const std::string& name) { return {name, "10.0.0.4:7400", 1}; }

JoinAnswer AnswerTo(const JoinRequest& request) {
  JoinAnswer answer;
  answer.node = NodeId(4);
  answer.keys = {FilledKey(1), FilledKey(2)};
  answer.replicas = 2;
  answer.members = {{NodeId(1), "n1", "10.0.0.1:7400", 1}, {NodeId(4), request.name, request.address, request.votes}};
  return answer;
}

// A node that has a door and nothing behind it.
class Host {
 public:
  explicit Host(Security security = Security::kAuthenticated) {
    FabricTransportConfig config;
    config.cluster = ClusterIdOf(kDoorCluster);
    config.keys = {FilledKey(1)};
    config.security = security;
    config.self = {NodeId(1), Incarnation(1)};
    config.listen_address = address_;
    config.members = {{NodeId(1), "n1", address_}};
    transport_ = std::make_unique<FabricTransport>(std::move(config), &loop_, &entropy_);
    door_ = std::make_unique<JoinDoor>(JoinDoorOptions{kDoorCluster, security, NodeId(1), address_}, transport_.get(),
                                       &loop_, &entropy_, [this](JoinRequest request) { return Admit(request); });
    channels_.Set(Channel::kJoin, door_.get());
    EXPECT_TRUE(transport_->Start(&channels_).ok());
    EXPECT_TRUE(loop_.Start().ok());
  }
  ~Host() {
    loop_.Stop();
    transport_.reset();
    door_.reset();
  }

  void OnLoop(absl::FunctionRef<void()> task) {
    Completion done;
    loop_.RunUntil(
        [&] {
          task();
          done.Set();
        },
        done);
  }
  absl::StatusOr<std::string> TryMakeToken(DurationNs valid) {
    absl::StatusOr<JoinDoor::NewToken> token;
    OnLoop([&] { token = door_->MakeToken(valid); });
    if (!token.ok()) return token.status();
    return token->text;
  }
  JoinToken MakeToken(DurationNs valid = 600 * kSecond) {
    const auto text = TryMakeToken(valid);
    EXPECT_TRUE(text.ok()) << text.status();
    const auto token = ParseJoinToken(*text, absl::Now());
    EXPECT_TRUE(token.ok()) << token.status();
    return *token;
  }
  // What is asked for from now on waits until Release.
  void Hold() {
    OnLoop([&] { is_held_ = true; });
  }
  void Release() {
    OnLoop([&] {
      is_held_ = false;
      for (Outcome<bool>& gate : gates_) gate.Set(true);
    });
  }
  int asked() {
    int asked = 0;
    OnLoop([&] { asked = asked_; });
    return asked;
  }
  bool WaitUntil(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < deadline) {
      bool met = false;
      OnLoop([&] { met = condition(); });
      if (met) return true;
      usleep(1000);
    }
    return false;
  }

  std::function<absl::StatusOr<JoinAnswer>(const JoinRequest&)> decide = AnswerTo;
  const std::string address_ = "127.0.0.1:" + std::to_string(FreePort());
  Loop loop_{LoopOptions()};
  SystemEntropy entropy_;
  ChannelSwitch channels_;
  std::unique_ptr<FabricTransport> transport_;
  std::unique_ptr<JoinDoor> door_;

 private:
  Task<absl::StatusOr<JoinAnswer>> Admit(JoinRequest request) {
    ++asked_;
    if (is_held_) {
      Outcome<bool> gate(&loop_);
      gates_.push_back(gate);
      co_await gate.Get();
    }
    co_return decide(request);
  }

  int asked_ = 0;
  bool is_held_ = false;
  std::vector<Outcome<bool>> gates_;
};

bool Contains(const absl::Status& status, const std::string& words) {
  return status.message().find(words) != absl::string_view::npos;
}

class JoinDoorBySecurity : public ::testing::TestWithParam<Security> {};
INSTANTIATE_TEST_SUITE_P(Both, JoinDoorBySecurity, ::testing::Values(Security::kAuthenticated, Security::kEncrypted));

TEST_P(JoinDoorBySecurity, AMachineWithATokenIsAdmittedAndLearnsWhatItNeeds) {
  Host host(GetParam());
  const JoinToken token = host.MakeToken();
  EXPECT_EQ(token.cluster_name, kDoorCluster);
  EXPECT_EQ(token.security, GetParam());
  EXPECT_EQ(token.node, NodeId(1));
  EXPECT_EQ(token.address, host.address_);
  const auto answer = JoinCluster(token, Wish("n4"), 20 * kSecond);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, AnswerTo(Wish("n4")));
}

TEST(JoinDoor, AnotherKeyIsRefusedAtOnceWithWhatToDo) {
  Host host;
  JoinToken token = host.MakeToken();
  token.key[0] ^= std::byte{1};
  const absl::Status status = JoinCluster(token, Wish("n4"), 60 * kSecond).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(Contains(status, "the token is void")) << status;
  EXPECT_TRUE(Contains(status, "node 1 at " + host.address_ + ", which made it, was started anew since; make another"))
      << status;
  EXPECT_EQ(host.asked(), 0);
}

TEST(JoinDoor, ATokenIsGoodOnce) {
  Host host;
  const JoinToken token = host.MakeToken();
  ASSERT_TRUE(JoinCluster(token, Wish("n4"), 20 * kSecond).ok());
  const absl::Status status = JoinCluster(token, Wish("n5"), 20 * kSecond).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Contains(status, "the token was used for n4 at 10.0.0.4:7400")) << status;
  EXPECT_EQ(host.asked(), 1);
}

TEST(JoinDoor, ATokenWhoseTimeIsOverIsVoid) {
  Host host;
  const JoinToken token = host.MakeToken(kSecond);
  ASSERT_TRUE(host.WaitUntil([&] { return host.door_->tokens() == 0; }));
  const absl::Status status = JoinCluster(token, Wish("n4"), 20 * kSecond).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(host.asked(), 0);
}

TEST(JoinDoor, WhyNobodyIsAdmittedArrivesAndTheTokenIsStillGood) {
  Host host;
  const JoinToken token = host.MakeToken();
  host.decide = [](const JoinRequest&) { return absl::AlreadyExistsError("the name n1 is taken by node 1"); };
  EXPECT_EQ(JoinCluster(token, Wish("n1"), 20 * kSecond).status(),
            absl::AlreadyExistsError("the name n1 is taken by node 1"));
  host.OnLoop([&] { host.decide = AnswerTo; });
  EXPECT_TRUE(JoinCluster(token, Wish("n4"), 20 * kSecond).ok());
}

TEST(JoinDoor, AnAnswerThatWasLostIsGivenAgainAndNobodyIsAdmittedTwice) {
  Host host;
  const JoinToken token = host.MakeToken();
  host.Hold();
  const absl::Status lost = JoinCluster(token, Wish("n4"), 300 * kMillisecond).status();
  EXPECT_EQ(lost.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Contains(lost, "has the request, but did not answer within 300 ms")) << lost;
  // Who is asked for something else meanwhile does not wait.
  const absl::Status other = JoinCluster(token, Wish("n5"), 20 * kSecond).status();
  EXPECT_TRUE(Contains(other, "the token is being used for n4")) << other;
  host.Release();
  for (int i = 0; i < 2; ++i) {
    const auto again = JoinCluster(token, Wish("n4"), 20 * kSecond);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, AnswerTo(Wish("n4")));
  }
  EXPECT_EQ(host.asked(), 1);
}

TEST(JoinDoor, WhoAsksAgainWhileItIsAskedForGetsThatAnswer) {
  Host host;
  const JoinToken token = host.MakeToken();
  host.Hold();
  EXPECT_FALSE(JoinCluster(token, Wish("n4"), 300 * kMillisecond).ok());
  absl::StatusOr<JoinAnswer> answer;
  std::thread machine([&] { answer = JoinCluster(token, Wish("n4"), 20 * kSecond); });
  EXPECT_TRUE(host.WaitUntil([&] { return host.transport_->GuestKey() == token.key; }));
  host.Release();
  machine.join();
  EXPECT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(host.asked(), 1);
}

TEST(JoinDoor, ATokenThatIsAskedWithOutlivesItsTimeUntilTheAnswer) {
  Host host;
  const JoinToken token = host.MakeToken(kSecond);
  host.Hold();
  absl::StatusOr<JoinAnswer> answer;
  std::thread machine([&] { answer = JoinCluster(token, Wish("n4"), 20 * kSecond); });
  const TimeNs begin = host.loop_.ExactNow();
  EXPECT_TRUE(host.WaitUntil([&] { return host.loop_.Now() > begin + 1'500 * kMillisecond; }));
  EXPECT_EQ(host.asked(), 1);
  host.Release();
  machine.join();
  EXPECT_TRUE(answer.ok()) << answer.status();
}

TEST(JoinDoor, ARefusalArrivesAlthoughTheTokensTimeIsOverMeanwhile) {
  Host host;
  const JoinToken token = host.MakeToken(kSecond);
  host.Hold();
  host.decide = [](const JoinRequest&) { return absl::AlreadyExistsError("taken"); };
  absl::StatusOr<JoinAnswer> answer;
  std::thread machine([&] { answer = JoinCluster(token, Wish("n4"), 20 * kSecond); });
  const TimeNs begin = host.loop_.ExactNow();
  EXPECT_TRUE(host.WaitUntil([&] { return host.loop_.Now() > begin + 1'500 * kMillisecond; }));
  host.Release();
  machine.join();
  EXPECT_EQ(answer.status(), absl::AlreadyExistsError("taken"));
  EXPECT_TRUE(host.WaitUntil([&] { return host.door_->tokens() == 0; }));
}

// The guest's own, by hand.
TEST(JoinDoor, WhatCannotBeReadIsAnsweredAndMovesNobody) {
  class Listener final : public TransportEvents {
   public:
    void OnDelivery(const Delivery& delivery) override {
      const auto reply = DecodeJoinReply(delivery.message);
      ASSERT_TRUE(reply.ok());
      EXPECT_EQ(reply->number, 0u);
      EXPECT_EQ(std::get<absl::Status>(reply->content).code(), absl::StatusCode::kInvalidArgument);
      ++replies;
    }
    void OnPeerUp(NodeInstance /*peer*/) override {}
    void OnPeerDown(NodeInstance /*peer*/, const absl::Status& /*reason*/) override {}
    std::atomic<int> replies = 0;
  };
  Host host;
  const JoinToken token = host.MakeToken();
  FabricTransportConfig config;
  config.cluster = ClusterIdOf(kDoorCluster);
  config.keys = {token.key};
  config.self = {kGuestNode, Incarnation(1)};
  config.members = {{NodeId(1), "n1", host.address_}};
  Listener listener;
  Loop loop{LoopOptions()};
  SystemEntropy entropy;
  FabricTransport transport(std::move(config), &loop, &entropy);
  ASSERT_TRUE(transport.Start(&listener).ok());
  ASSERT_TRUE(loop.Start().ok());
  EXPECT_TRUE(host.WaitUntil([&] { return host.transport_->GuestKey().has_value(); }));
  const std::string nonsense(100, '\1');
  // Again, since it may not know yet that the connection is up.
  EXPECT_TRUE(host.WaitUntil([&] {
    loop.Post([&] { transport.Send(NodeId(1), Channel::kJoin, std::as_bytes(std::span(nonsense)), {}); });
    return listener.replies > 0;
  }));
  EXPECT_EQ(host.asked(), 0);
  loop.Stop();
}

// Each takes the other's connection again and again.
TEST(JoinDoor, TwoMachinesWithTwoTokensAtOnceBothGetTheirOwnAnswer) {
  Host host;
  const JoinToken tokens[2] = {host.MakeToken(), host.MakeToken()};
  host.Hold();
  absl::StatusOr<JoinAnswer> answers[2];
  std::vector<std::thread> machines;
  for (int i = 0; i < 2; ++i) {
    machines.emplace_back([&, i] { answers[i] = JoinCluster(tokens[i], Wish("m" + std::to_string(i)), 20 * kSecond); });
  }
  EXPECT_TRUE(host.WaitUntil([&] { return host.transport_->Counters().messages_received >= 4; }));
  host.Release();
  for (std::thread& machine : machines) machine.join();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(answers[i].ok()) << answers[i].status();
    EXPECT_EQ(answers[i]->members[1].name, "m" + std::to_string(i));
  }
  EXPECT_EQ(host.asked(), 2);
}

TEST(JoinDoor, AnAnswerThatDoesNotFitIsAnErrorThatSaysSo) {
  Host host;
  host.decide = [](const JoinRequest& request) {
    JoinAnswer answer = AnswerTo(request);
    answer.keys.clear();
    return answer;
  };
  const absl::Status status = JoinCluster(host.MakeToken(), Wish("n4"), 20 * kSecond).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(Contains(status, "it was admitted, but cannot be told so")) << status;
}

TEST(JoinDoor, TokensAreLimitedInTimeAndNumber) {
  Host host;
  EXPECT_EQ(host.TryMakeToken(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(host.TryMakeToken(JoinDoor::kMaxValid + 1).status().code(), absl::StatusCode::kInvalidArgument);
  for (size_t i = 0; i < JoinDoor::kMaxTokens; ++i) EXPECT_TRUE(host.TryMakeToken(600 * kSecond).ok());
  const absl::Status status = host.TryMakeToken(600 * kSecond).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Contains(status, "there are 16 tokens")) << status;
}

TEST(JoinDoor, TokensThatWereUsedKeepNobodyFromMakingOthers) {
  Host host;
  std::vector<JoinToken> used;
  for (size_t i = 0; i < JoinDoor::kMaxTokens + 2; ++i) {
    used.push_back(host.MakeToken());
    ASSERT_TRUE(JoinCluster(used.back(), Wish(absl::StrCat("n", i)), 20 * kSecond).ok()) << i;
  }
  // The last ones are answered again.
  EXPECT_TRUE(JoinCluster(used.back(), Wish(absl::StrCat("n", used.size() - 1)), 20 * kSecond).ok());
  EXPECT_TRUE(Contains(JoinCluster(used.front(), Wish("n0"), 20 * kSecond).status(), "the token is void"));
  host.OnLoop([&] { EXPECT_EQ(host.door_->tokens(), JoinDoor::kMaxUsedTokens); });
}

TEST(JoinDoor, ATokenThatIsWithdrawnIsVoid) {
  Host host;
  const JoinToken token = host.MakeToken();
  const JoinToken other = host.MakeToken();
  ASSERT_TRUE(JoinCluster(other, Wish("n4"), 20 * kSecond).ok());
  std::vector<JoinDoor::TokenStatus> tokens;
  host.OnLoop([&] { tokens = host.door_->Tokens(); });
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_FALSE(tokens[0].is_used);
  EXPECT_TRUE(tokens[1].is_used);
  EXPECT_EQ(tokens[1].request, Wish("n4"));
  EXPECT_GT(tokens[0].left, 590 * kSecond);
  host.OnLoop([&] {
    EXPECT_EQ(host.door_->Withdraw("nothing").status().code(), absl::StatusCode::kNotFound);
    const auto withdrawn = host.door_->Withdraw(tokens[0].id);
    ASSERT_TRUE(withdrawn.ok());
    EXPECT_EQ(*withdrawn, std::vector<std::string>{tokens[0].id});
  });
  EXPECT_TRUE(Contains(JoinCluster(token, Wish("n5"), 20 * kSecond).status(), "the token is void"));
  EXPECT_TRUE(JoinCluster(other, Wish("n4"), 20 * kSecond).ok());
  host.OnLoop([&] {
    EXPECT_EQ(host.door_->Withdraw("all")->size(), 1u);
    EXPECT_EQ(host.door_->tokens(), 0u);
  });
}

// Who is being admitted by it is not told, whatever comes of it.
TEST(JoinDoor, ATokenIsWithdrawnWhileItIsUsed) {
  Host host;
  const JoinToken token = host.MakeToken();
  host.Hold();
  EXPECT_FALSE(JoinCluster(token, Wish("n4"), 300 * kMillisecond).ok());
  EXPECT_EQ(host.asked(), 1);
  host.OnLoop([&] { EXPECT_EQ(host.door_->Withdraw("all")->size(), 1u); });
  host.Release();
  const absl::Status status = JoinCluster(token, Wish("n4"), 20 * kSecond).status();
  EXPECT_TRUE(Contains(status, "the token is void")) << status;
}

TEST(JoinDoor, ADoorThatGoesAwayBeforeTheAnswerIsNotMissed) {
  Host host;
  const JoinToken token = host.MakeToken();
  host.Hold();
  EXPECT_FALSE(JoinCluster(token, Wish("n4"), 300 * kMillisecond).ok());
  EXPECT_EQ(host.asked(), 1);
  host.OnLoop([&] {
    host.transport_.reset();
    host.door_.reset();
  });
  host.Release();
  host.OnLoop([] {});
}

// --- The machine's side -------------------------------------------------------------------------------------------------

TEST(JoinCluster, ANodeThatIsAwayIsGivenUpInTimeAndNamed) {
  JoinToken token{
      kDoorCluster, Security::kAuthenticated, NodeId(1), "127.0.0.1:" + std::to_string(FreePort()), FilledKey(7), {}};
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = JoinCluster(token, Wish("n4"), 300 * kMillisecond).status();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Contains(status, "node 1 at " + token.address + " could not be reached within 300 ms: ")) << status;
}

TEST(JoinCluster, AnotherClusterIsNamed) {
  Host host;
  JoinToken token = host.MakeToken();
  token.cluster_name = "desert";
  const absl::Status status = JoinCluster(token, Wish("n4"), 20 * kSecond).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Contains(status, "met a node of cluster")) << status;
}

TEST(JoinCluster, WhatCannotBeUsedIsNamed) {
  Host host;
  JoinToken token = host.MakeToken();
  EXPECT_TRUE(Contains(JoinCluster(token, Wish("no name"), 20 * kSecond).status(), "the name of a node"));
  token.address = "nowhere";
  EXPECT_TRUE(Contains(JoinCluster(token, Wish("n4"), 20 * kSecond).status(), "\"nowhere\", expected \"host:port\""));
}

}  // namespace
}  // namespace mangrove
