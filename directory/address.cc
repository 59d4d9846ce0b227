#include "directory/address.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mangrove {
namespace {

constexpr absl::uint128 kMaxAddress = absl::Uint128Max();

// The text as an error message can carry it: printable and short.
std::string Quoted(std::string_view text) {
  constexpr size_t kShownBytes = 64;
  const std::string shown = absl::CHexEscape(absl::string_view(text.data(), std::min(text.size(), kShownBytes)));
  return absl::StrCat("\"", shown, text.size() > kShownBytes ? "..." : "", "\"");
}

absl::Status BadAddress(std::string_view text, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("global address ", Quoted(text), ": ", what,
                   "; expected 0x and hexadecimal digits, or decimal digits, below 2^128"));
}

// -1 if `c` is no digit of `base`, 10 or 16.
int DigitValue(char c, int base) {
  if (c >= '0' && c <= '9') return c - '0';
  if (base == 16 && c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (base == 16 && c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string ToString(GlobalAddress address) {
  return absl::StrFormat("0x%016x_%016x", absl::Uint128High64(address.value), absl::Uint128Low64(address.value));
}

std::string ToString(PageId page) { return ToString(AddressOf(page)); }

std::string ToString(const PageRange& range) {
  return absl::StrCat(ToString(range.first), " + ", range.count, range.count == 1 ? " page" : " pages");
}

absl::StatusOr<GlobalAddress> ParseGlobalAddress(std::string_view text) {
  const bool hexadecimal = text.substr(0, 2) == "0x";
  const int base = hexadecimal ? 16 : 10;
  absl::uint128 value = 0;
  bool any_digit = false;
  for (const char c : text.substr(hexadecimal ? 2 : 0)) {
    if (c == '_') continue;
    const int digit = DigitValue(c, base);
    if (digit < 0) return BadAddress(text, absl::StrCat(Quoted(std::string_view(&c, 1)), " is no digit"));
    if (value > (kMaxAddress - digit) / base) return BadAddress(text, "too large");
    value = value * base + digit;
    any_digit = true;
  }
  if (!any_digit) return BadAddress(text, "no digits");
  return GlobalAddress(value);
}

}  // namespace mangrove
