// Covers: C08, C13

#include "engine/join/join_codec.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "net/transport.h"

namespace mangrove {
namespace {

std::span<const std::byte> BytesOf(const std::string& bytes) { return std::as_bytes(std::span(bytes)); }

NumberedRequest MakeRequest() { return {7, {"n4", "10.0.0.4:7400", 2}}; }

JoinAnswer MakeAnswer() {
  JoinAnswer answer;
  answer.node = NodeId(4);
  answer.keys.resize(2);
  answer.keys[1].fill(std::byte{9});
  answer.replicas = 2;
  answer.lease_ms = 1500;
  answer.system_replicas = 3;
  answer.members = {{NodeId(1), "n1", "10.0.0.1:7400", 1}, {NodeId(4), "n4", "[::1]:7400", 0}};
  return answer;
}

TEST(JoinCodec, ARequestComesBackAsItWasSent) {
  const auto bytes = EncodeJoinRequest(MakeRequest());
  ASSERT_TRUE(bytes.ok());
  const auto back = DecodeJoinRequest(BytesOf(*bytes));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->number, 7u);
  EXPECT_EQ(back->request, MakeRequest().request);
}

TEST(JoinCodec, ARepliesAnswerOrErrorComesBackAsItWasSent) {
  const auto bytes = EncodeJoinReply({8, MakeAnswer()});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const auto back = DecodeJoinReply(BytesOf(*bytes));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->number, 8u);
  EXPECT_EQ(std::get<JoinAnswer>(back->content), MakeAnswer());

  const auto error = DecodeJoinReply(BytesOf(*EncodeJoinReply({9, absl::AlreadyExistsError("the name is taken")})));
  ASSERT_TRUE(error.ok());
  EXPECT_EQ(std::get<absl::Status>(error->content), absl::AlreadyExistsError("the name is taken"));
}

TEST(JoinCodec, TheMostMembersWithTheLongestNamesFitAsLongAsTheirAddressesAreUsual) {
  JoinAnswer answer = MakeAnswer();
  answer.keys.resize(kMaxJoinKeys);
  answer.members.clear();
  for (uint64_t id = 1; id <= kMaxJoinMembers; ++id) {
    answer.members.push_back(
        {NodeId(id), std::string(kMaxJoinNameBytes, 'n'), "[1111:2222:3333:4444:5555:6666:7777:8888]:65535", 100});
  }
  const auto bytes = EncodeJoinReply({1, answer});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  for (JoinMember& member : answer.members) member.address = std::string(kMaxJoinAddressBytes, 'a');
  EXPECT_NE(EncodeJoinReply({1, answer}).status().message().find("more than 12288"), absl::string_view::npos);
}

TEST(JoinCodec, TheRestOfALongErrorIsLeftOut) {
  const auto bytes = EncodeJoinReply({1, absl::InternalError(std::string(5000, 'e'))});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(std::get<absl::Status>(DecodeJoinReply(BytesOf(*bytes))->content).message().size(), kMaxJoinErrorBytes);
}

TEST(JoinCodec, ARequestThatCannotBeIsRefusedAtBothEnds) {
  struct Case {
    const char* words;
    std::function<void(JoinRequest&)> change;
  };
  const std::vector<Case> cases = {
      {"the name of a node has 0 bytes", [](auto& r) { r.name.clear(); }},
      {"the name of a node has 64 bytes", [](auto& r) { r.name = std::string(64, 'n'); }},
      {"the name of a node", [](auto& r) { r.name = "-n"; }},
      {"the name of a node", [](auto& r) { r.name = "a b"; }},
      {"the name of a node", [](auto& r) { r.name = std::string("a\0b", 3); }},
      {"the address of a node has 0 bytes", [](auto& r) { r.address.clear(); }},
      {"the address of a node has 256 bytes", [](auto& r) { r.address = std::string(256, 'a'); }},
      {"the address of a node", [](auto& r) { r.address = "10.0.0.4:7400\n"; }},
      {"101 votes", [](auto& r) { r.votes = 101; }},
  };
  for (const Case& c : cases) {
    NumberedRequest request = MakeRequest();
    c.change(request.request);
    const absl::Status status = EncodeJoinRequest(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(c.words), absl::string_view::npos) << status;
  }
}

TEST(JoinCodec, AnAnswerThatCannotBeIsRefusedAtBothEnds) {
  struct Case {
    const char* words;
    std::function<void(JoinAnswer&)> change;
  };
  const std::vector<Case> cases = {
      {"the id 0", [](auto& a) { a.node = NodeId(); }},
      {"the id 18446744073709551615", [](auto& a) { a.members[1].id = a.node = kGuestNode; }},
      {"has no key", [](auto& a) { a.keys.clear(); }},
      {"17 entries", [](auto& a) { a.keys.resize(17); }},
      {"0 replicas", [](auto& a) { a.replicas = 0; }},
      {"without node 4", [](auto& a) { a.members.pop_back(); }},
      {"without node 4", [](auto& a) { a.members.clear(); }},
      {"names node 4 twice", [](auto& a) { a.members[0].id = NodeId(4); }},
      {"names node 4 behind node 5", [](auto& a) { a.members[0].id = NodeId(5); }},
      {"node 1 has 101 votes", [](auto& a) { a.members[0].votes = 101; }},
      {"65 entries", [](auto& a) { a.members.resize(65); }},
      {"the name of a node", [](auto& a) { a.members[0].name.clear(); }},
      {"the address of a node", [](auto& a) { a.members[0].address.clear(); }},
  };
  for (const Case& c : cases) {
    JoinAnswer answer = MakeAnswer();
    c.change(answer);
    const absl::Status status = EncodeJoinReply({1, answer}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.words;
    EXPECT_NE(status.message().find(c.words), absl::string_view::npos) << status;
  }
  EXPECT_FALSE(EncodeJoinReply({1, absl::OkStatus()}).ok());
}

// Whatever is sent, there is a value or an error, and a value that could have been sent.
class JoinCodecNonsense : public ::testing::Test {
 protected:
  static void Decode(const std::string& bytes) {
    if (const auto request = DecodeJoinRequest(BytesOf(bytes)); request.ok()) {
      EXPECT_TRUE(EncodeJoinRequest(*request).ok());
    }
    if (const auto reply = DecodeJoinReply(BytesOf(bytes)); reply.ok()) {
      EXPECT_TRUE(EncodeJoinReply(*reply).ok());
    }
  }
  const std::vector<std::string> good_ = {*EncodeJoinRequest(MakeRequest()), *EncodeJoinReply({8, MakeAnswer()}),
                                          *EncodeJoinReply({9, absl::AlreadyExistsError("taken")})};
  std::mt19937_64 random_{11};
};

TEST_F(JoinCodecNonsense, WhatIsCutOffIsRefused) {
  for (const std::string& bytes : good_) {
    for (size_t length = 0; length < bytes.size(); ++length) {
      EXPECT_FALSE(DecodeJoinRequest(BytesOf(bytes.substr(0, length))).ok());
      EXPECT_FALSE(DecodeJoinReply(BytesOf(bytes.substr(0, length))).ok());
    }
    EXPECT_FALSE(DecodeJoinRequest(BytesOf(bytes + std::string(8, '\0'))).ok());
    EXPECT_FALSE(DecodeJoinReply(BytesOf(bytes + std::string(8, '\0'))).ok());
  }
}

TEST_F(JoinCodecNonsense, WhatIsChangedIsAnErrorOrCouldHaveBeenSent) {
  for (int round = 0; round < 30'000; ++round) {
    std::string bytes = good_[random_() % good_.size()];
    for (uint64_t changes = 1 + random_() % 4; changes > 0; --changes) {
      bytes[random_() % bytes.size()] = static_cast<char>(random_());
    }
    Decode(bytes);
  }
}

TEST_F(JoinCodecNonsense, RandomBytesAreRefused) {
  for (int round = 0; round < 5'000; ++round) {
    std::string bytes(random_() % 300, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random_());
    EXPECT_FALSE(DecodeJoinRequest(BytesOf(bytes)).ok());
    EXPECT_FALSE(DecodeJoinReply(BytesOf(bytes)).ok());
    if (bytes.size() < 8) continue;
    // With a frame that is right.
    bytes.resize(bytes.size() / 8 * 8);
    const uint32_t frame[2] = {0, static_cast<uint32_t>(bytes.size() / 8 - 1)};
    std::memcpy(bytes.data(), frame, sizeof(frame));
    Decode(bytes);
  }
  EXPECT_FALSE(DecodeJoinReply(BytesOf(std::string(kMaxMessageBytes + 8, '\0'))).ok());
}

}  // namespace
}  // namespace mangrove
