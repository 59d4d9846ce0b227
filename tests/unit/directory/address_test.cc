#include "directory/address.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mangrove {
namespace {

GlobalAddress MakeAddress(uint64_t high, uint64_t low) { return GlobalAddress(absl::MakeUint128(high, low)); }

TEST(Address, PrintsAllThirtyTwoDigitsInTwoGroups) {
  EXPECT_EQ(ToString(GlobalAddress(0x200000)), "0x0000000000000000_0000000000200000");
  EXPECT_EQ(ToString(MakeAddress(0x0123456789abcdef, 0xfedcba9876543210)), "0x0123456789abcdef_fedcba9876543210");
}

TEST(Address, PageIsPrintedAsItsAddress) {
  EXPECT_EQ(ToString(PageId(1)), "0x0000000000000000_0000000000001000");
  EXPECT_EQ(ToString(PageId(kSpacePages - 1)), "0xffffffffffffffff_fffffffffffff000");
}

TEST(Address, RangeIsPrintedWithItsPageCount) {
  EXPECT_EQ(ToString(PageRange{PageId(512), 512}), "0x0000000000000000_0000000000200000 + 512 pages");
  EXPECT_EQ(ToString(PageRange{PageId(1), 1}), "0x0000000000000000_0000000000001000 + 1 page");
}

TEST(Address, WhatIsPrintedIsParsedBack) {
  const std::vector<GlobalAddress> addresses = {GlobalAddress(0), GlobalAddress(1), MakeAddress(1, 0),
                                                MakeAddress(0x0123456789abcdef, 0xfedcba9876543210),
                                                GlobalAddress(absl::Uint128Max())};
  for (const GlobalAddress address : addresses) {
    const auto parsed = ParseGlobalAddress(ToString(address));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->value, address.value);
  }
}

TEST(Address, HexadecimalDecimalAndUnderscoresAreAccepted) {
  const std::vector<std::pair<std::string, GlobalAddress>> cases = {
      {"0", GlobalAddress(0)},
      {"0x0", GlobalAddress(0)},
      {"4096", GlobalAddress(4096)},
      {"0x1000", GlobalAddress(4096)},
      {"0xAbC", GlobalAddress(0xabc)},
      {"1_000_000", GlobalAddress(1'000'000)},
      {"0x_10_00_", GlobalAddress(0x1000)},
      {"0x000000000000000000000000000000000000001", GlobalAddress(1)},
      {"340282366920938463463374607431768211455", GlobalAddress(absl::Uint128Max())},
      {"0xffffffffffffffffffffffffffffffff", GlobalAddress(absl::Uint128Max())},
  };
  for (const auto& [text, expected] : cases) {
    const auto parsed = ParseGlobalAddress(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->value, expected.value) << text;
  }
}

TEST(Address, WhatIsNoAddressIsRefusedByName) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no digits"},
      {"_", "no digits"},
      {"0x", "no digits"},
      {"0x__", "no digits"},
      {"0xg", "\"g\" is no digit"},
      {"12a", "\"a\" is no digit"},
      {"-1", "\"-\" is no digit"},
      {" 1", "\" \" is no digit"},
      {"0x1000 ", "\" \" is no digit"},
      {"0_x1", "\"x\" is no digit"},
      {std::string("1\0", 2), "is no digit"},
      {"340282366920938463463374607431768211456", "too large"},
      {"0x100000000000000000000000000000000", "too large"},
      {std::string(10'000, '9'), "too large"},
  };
  for (const auto& [text, reason] : cases) {
    const auto parsed = ParseGlobalAddress(text);
    ASSERT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    const std::string message(parsed.status().message());
    EXPECT_NE(message.find(reason), std::string::npos) << message;
    EXPECT_NE(message.find("expected 0x"), std::string::npos) << message;
    EXPECT_LT(message.size(), 300u);
  }
  EXPECT_NE(ParseGlobalAddress("12a").status().message().find("\"12a\""), absl::string_view::npos);
}

TEST(Address, ErrorMessagesStayPrintable) {
  const auto parsed = ParseGlobalAddress("0x\x01\xff");
  for (const char c : parsed.status().message()) EXPECT_TRUE(c >= ' ' && c < 127);
}

}  // namespace
}  // namespace mangrove
