#include "node/fileset_flags.h"

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "net/page_buffer.h"

namespace mangrove {
namespace {

absl::StatusOr<uint64_t> ParseQuota(const std::string& text, bool bytes) {
  if (text == "none") return 0;
  absl::string_view digits = text;
  int shift = 0;
  if (bytes && !digits.empty()) {
    const size_t unit = absl::string_view("KMGTP").find(absl::ascii_toupper(digits.back()));
    if (unit != absl::string_view::npos) {
      shift = 10 * (static_cast<int>(unit) + 1);
      digits.remove_suffix(1);
    }
  }
  uint64_t number = 0;
  if (!absl::SimpleAtoi(digits, &number) || number > kMostQuota >> shift) {
    return absl::InvalidArgumentError(absl::StrCat(
        "is \"", text, "\", expected ", bytes ? "a size up to 1024P, such as 10G" : "a number", ", or none"));
  }
  number <<= shift;
  if (bytes && number != 0 && number < kPageBytes) {
    return absl::InvalidArgumentError(absl::StrCat("is ", number, " bytes, expected ", kPageBytes, " or more"));
  }
  return number;
}

}  // namespace

Flag QuotaFlag(const std::string& name, bool bytes, std::optional<uint64_t>* value) {
  return {name, [name, bytes, value](const std::string& text) {
            const absl::StatusOr<uint64_t> quota = ParseQuota(text, bytes);
            if (!quota.ok()) return absl::InvalidArgumentError(absl::StrCat(name, " ", quota.status().message()));
            *value = *quota;
            return absl::OkStatus();
          }};
}

std::string SetFilesetRequest(const std::string& name, std::optional<uint64_t> copies,
                              std::optional<uint64_t> quota_bytes, std::optional<uint64_t> quota_inodes) {
  nlohmann::json request{{"name", name}};
  if (copies) request["copies"] = *copies;
  if (quota_bytes) request["quota_bytes"] = *quota_bytes;
  if (quota_inodes) request["quota_inodes"] = *quota_inodes;
  return request.dump();
}

}  // namespace mangrove
