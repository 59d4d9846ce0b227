// Bytes as published test vectors write them.

#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace mangrove {

inline std::vector<std::byte> Hex(const std::string& digits) {
  const std::string bytes = absl::HexStringToBytes(digits);
  const auto span = std::as_bytes(std::span(bytes));
  return {span.begin(), span.end()};
}

inline std::string HexOf(std::span<const std::byte> bytes) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace mangrove
