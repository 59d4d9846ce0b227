// Integers as bytes, for what is kept on disk.

#pragma once

#include <cstddef>
#include <cstdint>

namespace mangrove::store {

template <typename T>
void PutLittleEndian(T value, char* out) {
  for (size_t i = 0; i < sizeof(T); ++i) out[i] = static_cast<char>(static_cast<uint8_t>(value >> (8 * i)));
}

template <typename T>
T GetLittleEndian(const char* in) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value | static_cast<T>(uint8_t(in[i])) << (8 * i));
  return value;
}

}  // namespace mangrove::store
