// What one disk has, as a core holder tells another that catches up: a page of bytes at a time.

#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/version.h"
#include "net/page_buffer.h"

namespace mangrove {

struct StoredExtent {
  PageRange range;
  ConfigNumber config;
  uint32_t replicas = 0;
  bool is_volatile = false;
  bool is_learned = false;  // That there is no record of a page means nothing (K4 of engine/core_holder.h).
};

struct StoredVersion {
  PageId page;
  Version version;  // The newest possible, where nobody knows it any more.
  bool is_unreadable = false;
  friend bool operator==(const StoredVersion&, const StoredVersion&) = default;
};

constexpr Version kUnknownVersion{Epoch(UINT64_MAX), UINT64_MAX};
constexpr size_t kExtentsPerList = 110;
// At most; of side by side pages about a thousand.
constexpr size_t kVersionsPerList = 1364;

// REQUIRES: no more than fit; sorted by their addresses.
PageBuffer EncodeStoredList(const std::vector<StoredExtent>& extents);
// The first `count`, which are as many as fit. REQUIRES: sorted by their addresses, each of another page.
struct EncodedVersions {
  PageBuffer page;
  size_t count = 0;
};
EncodedVersions EncodeVersionList(const std::vector<StoredVersion>& versions);

// InvalidArgument: too many, or an entry that is none, out of order, or before `from`; behind the last entry is something.
absl::StatusOr<std::vector<StoredExtent>> DecodeExtentList(const PageBytes& bytes, PageId from);
absl::StatusOr<std::vector<StoredVersion>> DecodeVersionList(const PageBytes& bytes, PageId from);

}  // namespace mangrove
