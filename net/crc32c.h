// CRC-32C (Castagnoli), the checksum of messages.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mangrove {

// Extends `crc` (0 to begin with) by `bytes`. Uses the processor's instruction where there is one.
uint32_t Crc32c(uint32_t crc, std::span<const std::byte> bytes);

}  // namespace mangrove
