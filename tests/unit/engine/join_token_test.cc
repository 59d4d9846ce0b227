// Covers: C08, C13

#include "engine/join/join_token.h"

#include <gtest/gtest.h>

#include <string>

namespace mangrove {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

JoinToken MakeToken() {
  JoinToken token;
  token.cluster_name = "forest";
  token.security = Security::kEncrypted;
  token.node = NodeId(3);
  token.address = "host-3.example:7400";
  token.key.fill(std::byte{0xC7});
  token.expiry = kNow + absl::Minutes(10);
  return token;
}

std::string ErrorOf(const std::string& text, absl::Time now = kNow) {
  const auto parsed = ParseJoinToken(text, now);
  EXPECT_FALSE(parsed.ok()) << text;
  return std::string(parsed.status().message());
}

TEST(JoinToken, ComesBackAsItWasMade) {
  const JoinToken token = MakeToken();
  const std::string text = EncodeJoinToken(token);
  EXPECT_EQ(text.substr(0, 5), "mgt1.");
  const auto parsed = ParseJoinToken(text, kNow);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->cluster_name, token.cluster_name);
  EXPECT_EQ(parsed->security, token.security);
  EXPECT_EQ(parsed->node, token.node);
  EXPECT_EQ(parsed->address, token.address);
  EXPECT_EQ(parsed->key, token.key);
  EXPECT_EQ(parsed->expiry, token.expiry);
}

TEST(JoinToken, WhiteSpaceAndLineBreaksDoNotCount) {
  std::string text = EncodeJoinToken(MakeToken());
  text.insert(40, "\r\n  ");
  EXPECT_TRUE(ParseJoinToken("  " + text + "\n", kNow).ok());
}

TEST(JoinToken, EachOneThatIsCutOffIsRefusedAsNotWhole) {
  const std::string text = EncodeJoinToken(MakeToken());
  for (size_t length = 0; length < text.size(); ++length) {
    const std::string error = ErrorOf(text.substr(0, length));
    EXPECT_NE(error.find("copy it again, as a whole"), std::string::npos) << length << ": " << error;
  }
  EXPECT_NE(ErrorOf(text.substr(0, 60)).find("cut off"), std::string::npos);
  EXPECT_NE(ErrorOf(text + "AAAA").find("says that it has"), std::string::npos);
}

TEST(JoinToken, EachWrongLetterIsNoticed) {
  const std::string text = EncodeJoinToken(MakeToken());
  for (size_t i = 0; i < text.size(); ++i) {
    for (const char letter : {'A', 'b', '7', '-', '!'}) {
      if (text[i] == letter) continue;
      std::string wrong = text;
      wrong[i] = letter;
      const auto parsed = ParseJoinToken(wrong, kNow);
      // The last letter may hold bits that nobody reads.
      if (i + 1 == text.size() && parsed.ok()) continue;
      EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << i << letter;
    }
  }
  std::string wrong = text;
  wrong[text.size() / 2] = wrong[text.size() / 2] == 'A' ? 'B' : 'A';
  EXPECT_NE(ErrorOf(wrong).find("a letter that is wrong"), std::string::npos);
}

TEST(JoinToken, AnErrorHoldsNothingOfTheToken) {
  const std::string text = EncodeJoinToken(MakeToken());
  for (const std::string& bad : {text.substr(0, 60), "x" + text, text + "AAAA"}) {
    const std::string error = ErrorOf(bad);
    for (size_t i = 5; i + 8 <= bad.size(); ++i) EXPECT_EQ(error.find(bad.substr(i, 8)), std::string::npos) << error;
  }
}

TEST(JoinToken, OneWhoseTimeIsOverSaysWhenThatWas) {
  const std::string text = EncodeJoinToken(MakeToken());
  EXPECT_TRUE(ParseJoinToken(text, kNow + absl::Minutes(10)).ok());
  const auto late = ParseJoinToken(text, kNow + absl::Minutes(12));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(late.status().message(),
            "the token's time was over at 2027-01-15T08:10:00+00:00, 2m ago by this machine's clock; make another one "
            "at node 3");
}

TEST(JoinToken, AnotherVersionIsNamed) {
  std::string text = EncodeJoinToken(MakeToken());
  text[3] = '2';
  EXPECT_EQ(ErrorOf(text), "the token is of version 2, and this build knows version 1; use the build of the cluster");
}

TEST(JoinToken, SomethingElseIsNoToken) {
  for (const char* text : {"", "hello", "mgt", "mgt1", "mgtx.abc", "mgt1", "MGT1.AAAA"}) {
    EXPECT_NE(ErrorOf(text).find("does not begin with \"mgt1.\""), std::string::npos) << text;
  }
}

TEST(JoinToken, OneOfNoNodeIsRefused) {
  JoinToken token = MakeToken();
  token.node = kGuestNode;
  EXPECT_NE(ErrorOf(EncodeJoinToken(token)).find("parts that no token has"), std::string::npos);
  token = MakeToken();
  token.address.clear();
  EXPECT_NE(ErrorOf(EncodeJoinToken(token)).find("parts that no token has"), std::string::npos);
}

}  // namespace
}  // namespace mangrove
