#include "engine/region_request.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

using nlohmann::json;

const json* TextIn(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? &*found : nullptr;
}

}  // namespace

const char* Name(WithoutQuorum without_quorum) { return without_quorum == WithoutQuorum::kRead ? "read" : "refuse"; }

absl::StatusOr<RegionRequest> ParseRegionRequest(const std::string& text) {
  const json wanted = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const json* const name = TextIn(wanted, "region");
  const json* const without_quorum = TextIn(wanted, "without_quorum");
  if (name == nullptr || without_quorum == nullptr) {
    return absl::InvalidArgumentError("set region takes an object with region and without_quorum");
  }
  RegionRequest request{.name = name->get<std::string>()};
  const auto policy = without_quorum->get<std::string>();
  for (const WithoutQuorum known : {WithoutQuorum::kRefuse, WithoutQuorum::kRead}) {
    if (policy != Name(known)) continue;
    request.without_quorum = known;
    return request;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("without_quorum is \"", policy, "\", expected \"refuse\" or \"read\""));
}

}  // namespace mangrove
