#include "node/fileset_settings.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/super_root.h"
#include "node/fileset_flags.h"

namespace mangrove {
namespace {

using nlohmann::json;

constexpr uint64_t kMostCopies = 64;

// Nothing, if it is not there.
absl::Status Take(const json& request, const char* key, uint64_t most, std::optional<uint64_t>* value) {
  const auto it = request.find(key);
  if (it == request.end()) return absl::OkStatus();
  if (!it->is_number_unsigned() || it->get<uint64_t>() > most) {
    return absl::InvalidArgumentError(absl::StrCat(key, " is ", it->dump(), ", expected a whole number up to ", most));
  }
  *value = it->get<uint64_t>();
  return absl::OkStatus();
}

}  // namespace

Task<absl::StatusOr<std::string>> SetFileset(fs::SuperRoot* super_root, std::string request) {
  const json parsed = json::parse(request, nullptr, false);
  const auto name = parsed.is_object() ? parsed.find("name") : parsed.end();
  if (!parsed.is_object() || name == parsed.end() || !name->is_string()) {
    co_return absl::InvalidArgumentError(absl::StrCat("\"", request, "\" is no JSON object with a name"));
  }
  std::optional<uint64_t> copies;
  std::optional<uint64_t> bytes;
  fs::FilesetChange change;
  absl::Status status = Take(parsed, "copies", kMostCopies, &copies);
  if (status.ok()) status = Take(parsed, "quota_bytes", kMostQuota, &bytes);
  if (status.ok()) status = Take(parsed, "quota_inodes", kMostQuota, &change.quota.inodes);
  if (status.ok() && bytes && *bytes != 0 && *bytes < fs::kPageSize) {
    status = absl::InvalidArgumentError(absl::StrCat("quota_bytes is ", *bytes, ", expected 0, or a page or more"));
  }
  if (!status.ok()) co_return status;
  if (copies) change.replicas = static_cast<uint32_t>(*copies);
  if (bytes) change.quota.pages = *bytes / fs::kPageSize;
  const std::string fileset = name->get<std::string>();
  status = co_await super_root->Change(fileset, change);
  if (!status.ok()) co_return status;
  co_return fileset;
}

Task<absl::StatusOr<std::string>> UsageOfFileset(fs::SuperRoot* super_root, std::string name) {
  const absl::StatusOr<fs::Usage> usage = co_await super_root->GetUsage(std::move(name));
  if (!usage.ok()) co_return usage.status();
  co_return json{{"used_bytes", usage->count(fs::Counted::kPages) * fs::kPageSize},
                 {"used_inodes", usage->count(fs::Counted::kInodes)},
                 {"quota_bytes", usage->limit(fs::Counted::kPages) * fs::kPageSize},
                 {"quota_inodes", usage->limit(fs::Counted::kInodes)}}
      .dump();
}

}  // namespace mangrove
