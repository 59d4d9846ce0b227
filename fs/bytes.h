// Little-endian integers at places of a page, and zeros.

#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "net/little_endian.h"

namespace mangrove::fs {

template <typename T>
T GetLittle(std::span<const char> bytes, size_t at) {
  return LoadLittle<T>(reinterpret_cast<const std::byte*>(bytes.data()) + at);
}
template <typename T>
void PutLittle(std::span<char> bytes, size_t at, T value) {
  StoreLittle<T>(reinterpret_cast<std::byte*>(bytes.data()) + at, value);
}

inline bool IsZeros(std::string_view bytes) { return bytes.find_first_not_of('\0') == std::string_view::npos; }

}  // namespace mangrove::fs
