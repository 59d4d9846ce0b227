#include "node/render_parts.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "node/text.h"

namespace mangrove {

using nlohmann::json;

std::string Text(const json& object, const char* key) { return object.at(key).get<std::string>(); }
uint64_t Number(const json& object, const char* key) { return object.at(key).get<uint64_t>(); }
bool IsSet(const json& object, const char* key) { return object.at(key).get<bool>(); }

std::string Names(const json& names, const char* none) {
  return names.empty() ? none : absl::StrJoin(names.get<std::vector<std::string>>(), ", ");
}

std::string IncarnationText(const json& node) {
  const uint64_t incarnation = Number(node, "incarnation");
  return incarnation == 0 ? "-" : std::to_string(incarnation);
}

std::string RangesText(const json& ranges, size_t most, uint64_t not_named) {
  std::vector<std::string> parts;
  for (const json& range : ranges) {
    const uint64_t pages = Number(range, "pages");
    if (parts.size() < most) {
      parts.push_back(absl::StrCat(Text(range, "address"), " (", CountText(pages, "page"), ")"));
    } else {
      not_named += pages;
    }
  }
  if (not_named > 0) parts.push_back(absl::StrCat(CountText(not_named, "page"), " more"));
  return absl::StrJoin(parts, ", ");
}

absl::StatusOr<std::string> RenderDocument(const std::string& document, std::string (*render)(const json&)) {
  try {
    return render(json::parse(document));
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("the daemon's answer is not understood (", error.what(),
                                            "); are mangrove and mangroved of the same version?"));
  }
}

}  // namespace mangrove
