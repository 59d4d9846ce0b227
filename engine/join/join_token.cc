#include "engine/join/join_token.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr std::string_view kFamily = "mgt";
constexpr char kPrefix[] = "mgt1.";
constexpr size_t kPrefixBytes = sizeof(kPrefix) - 1;
constexpr uint8_t kVersion = 1;
constexpr size_t kMaxTextBytes = 255;
constexpr size_t kHeadBytes = 1 + 2 + 1 + 8 + 8;
constexpr size_t kChecksumBytes = 4;
constexpr size_t kLeastBytes = kHeadBytes + 1 + 1 + kClusterKeyBytes + kChecksumBytes;

template <typename T>
void Put(std::string& to, T value) {
  std::array<std::byte, sizeof(T)> bytes;
  StoreLittle<T>(bytes.data(), value);
  to.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void PutText(std::string& to, const std::string& text) {
  CHECK(text.size() <= kMaxTextBytes);
  Put(to, static_cast<uint8_t>(text.size()));
  to += text;
}

uint32_t ChecksumOf(std::string_view bytes) { return static_cast<uint32_t>(XXH3_64bits(bytes.data(), bytes.size())); }

// Takes from the front what is there; what is not shows in `fits`.
class Taker {
 public:
  explicit Taker(std::string_view from) : from_(from) {}
  std::string_view Take(size_t bytes) {
    fits_ = fits_ && bytes <= from_.size();
    const std::string_view taken = fits_ ? from_.substr(0, bytes) : std::string_view();
    from_.remove_prefix(taken.size());
    return taken;
  }
  template <typename T>
  T Number() {
    const std::string_view bytes = Take(sizeof(T));
    return bytes.empty() ? T{} : LoadLittle<T>(reinterpret_cast<const std::byte*>(bytes.data()));
  }
  std::string Text() { return std::string(Take(Number<uint8_t>())); }
  bool FitsExactly() const { return fits_ && from_.empty(); }

 private:
  std::string_view from_;
  bool fits_ = true;
};

absl::Status Bad(const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("the token ", why, "; copy it again, as a whole"));
}

absl::Status OtherVersion(const std::string& version) {
  return absl::InvalidArgumentError(absl::StrCat("the token is of version ", version,
                                                 ", and this build knows version 1; use the build of the cluster"));
}

// The bytes between prefix and checksum.
absl::StatusOr<std::string> Unwrap(std::string_view text) {
  std::string letters(text);
  letters.erase(std::remove_if(letters.begin(), letters.end(),
                               [](char c) { return absl::ascii_isspace(static_cast<unsigned char>(c)); }),
                letters.end());
  const std::string_view given(letters);
  if (given.substr(0, kPrefixBytes) != kPrefix) {
    const size_t dot = given.find('.');
    const bool of_family = given.substr(0, kFamily.size()) == kFamily && dot != std::string_view::npos;
    const std::string_view version =
        of_family ? given.substr(kFamily.size(), dot - kFamily.size()) : std::string_view();
    const bool is_number = !version.empty() && version.size() <= 4 &&
                           std::all_of(version.begin(), version.end(),
                                       [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
    if (is_number) return OtherVersion(std::string(version));
    return Bad(absl::StrCat("does not begin with \"", kPrefix, "\""));
  }
  const std::string_view coded = given.substr(kPrefixBytes);
  std::string bytes;
  if (!absl::WebSafeBase64Unescape(std::string(coded), &bytes)) {
    return Bad("is cut off, or has a character that no token has");
  }
  if (bytes.size() < kLeastBytes) return Bad(absl::StrCat("is cut off after ", coded.size(), " letters"));
  const auto* start = reinterpret_cast<const std::byte*>(bytes.data());
  const auto length = LoadLittle<uint16_t>(start + 1);
  if (bytes.size() != length) {
    return Bad(absl::StrCat("has ", bytes.size(), " bytes, and says that it has ", length));
  }
  const size_t body = bytes.size() - kChecksumBytes;
  if (LoadLittle<uint32_t>(start + body) != ChecksumOf(std::string_view(bytes).substr(0, body))) {
    return Bad("has a letter that is wrong");
  }
  bytes.resize(body);
  return bytes;
}

}  // namespace

std::string EncodeJoinToken(const JoinToken& token) {
  std::string bytes;
  Put(bytes, kVersion);
  Put(bytes, uint16_t{0});  // The length.
  Put(bytes, static_cast<uint8_t>(token.security));
  Put(bytes, token.node.value);
  Put(bytes, static_cast<uint64_t>(absl::ToUnixSeconds(token.expiry)));
  PutText(bytes, token.cluster_name);
  PutText(bytes, token.address);
  bytes.append(reinterpret_cast<const char*>(token.key.data()), token.key.size());
  StoreLittle(reinterpret_cast<std::byte*>(bytes.data()) + 1, static_cast<uint16_t>(bytes.size() + kChecksumBytes));
  Put(bytes, ChecksumOf(bytes));
  return absl::StrCat(kPrefix, absl::WebSafeBase64Escape(bytes));
}

absl::StatusOr<JoinToken> ParseJoinToken(std::string_view text, absl::Time now) {
  const absl::StatusOr<std::string> bytes = Unwrap(text);
  if (!bytes.ok()) return bytes.status();
  Taker taker(*bytes);
  const auto version = taker.Number<uint8_t>();
  if (version != kVersion) return OtherVersion(absl::StrCat(version));
  taker.Number<uint16_t>();
  JoinToken token;
  token.security = static_cast<Security>(taker.Number<uint8_t>());
  token.node = NodeId(taker.Number<uint64_t>());
  token.expiry = absl::FromUnixSeconds(static_cast<int64_t>(taker.Number<uint64_t>()));
  token.cluster_name = taker.Text();
  token.address = taker.Text();
  const std::string_view key = taker.Take(kClusterKeyBytes);
  const bool is_security = token.security == Security::kAuthenticated || token.security == Security::kEncrypted;
  const bool is_node = token.node.value != 0 && token.node != kGuestNode;
  if (!taker.FitsExactly() || !is_security || !is_node || token.cluster_name.empty() || token.address.empty()) {
    return Bad("has parts that no token has");
  }
  std::copy_n(reinterpret_cast<const std::byte*>(key.data()), key.size(), token.key.begin());
  if (token.expiry < now) {
    return absl::DeadlineExceededError(absl::StrCat(
        "the token's time was over at ", absl::FormatTime(absl::RFC3339_sec, token.expiry, absl::UTCTimeZone()), ", ",
        absl::FormatDuration(absl::Trunc(now - token.expiry, absl::Seconds(1))),
        " ago by this machine's clock; make another one at ", ToString(token.node)));
  }
  return token;
}

}  // namespace mangrove
