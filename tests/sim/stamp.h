// What the simulated programs write into pages: a stamp that names the store, and 4 KiB that follow from it.
//
//   word 0   the number of the store, counted over the whole run; 0 in a page of zeros
//   word 1   the writer: slot and incarnation
//   word 2   a checksum of both and of the page's number
//   word 3.. derived from word 2, so that a page put together from two stores is seen
//
// A page of zeros is one that was never written.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "directory/address.h"
#include "net/page_buffer.h"

namespace mangrove::sim {

struct Stamp {
  uint64_t op = 0;
  uint64_t writer = 0;
  friend constexpr bool operator==(const Stamp&, const Stamp&) = default;
};

enum class PageContent : uint8_t { kZeros, kStamped, kTorn };

struct ParsedPage {
  PageContent content = PageContent::kZeros;
  Stamp stamp;  // As found; to be trusted only if kStamped.
};

// `out` points to kPageBytes. REQUIRES: stamp.op != 0.
void FillPage(PageId page, const Stamp& stamp, std::byte* out);
// Reads all of the kPageBytes at `data` (null: zeros). A page that belongs elsewhere is kTorn.
ParsedPage ParsePage(PageId page, const std::byte* data);

}  // namespace mangrove::sim
