// What the renderings of documents (node/render.h) have in common. Pure. What takes JSON throws json::exception where it is of another
// form: RenderDocument makes an error of that.

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace mangrove {

// That of a disk of which no other is said (recovery/view.h).
constexpr uint64_t kFullWeight = 16;

std::string Text(const nlohmann::json& object, const char* key);
uint64_t Number(const nlohmann::json& object, const char* key);
bool IsSet(const nlohmann::json& object, const char* key);
// With commas between; `none` where there are none.
std::string Names(const nlohmann::json& names, const char* none);
// A peer that was never met has no incarnation.
std::string IncarnationText(const nlohmann::json& node);
// "0x… (3 pages), …" of [{"address", "pages"}], the first `most`, and how many pages are in none of these: in others, or not named.
std::string RangesText(const nlohmann::json& ranges, size_t most, uint64_t not_named);

absl::StatusOr<std::string> RenderDocument(const std::string& document, std::string (*render)(const nlohmann::json&));

}  // namespace mangrove
