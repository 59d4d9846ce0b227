// Integers in wire order, at any alignment. The compiler makes one load or store of each.

#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>

namespace mangrove {

static_assert(std::endian::native == std::endian::little, "a big-endian host would need byte swaps here");

template <std::unsigned_integral T>
void StoreLittle(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

template <std::unsigned_integral T>
T LoadLittle(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

}  // namespace mangrove
