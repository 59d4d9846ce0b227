// Extended attributes as the records of a tree; fs/extended.cc has how.

#pragma once

#include <vector>

#include "absl/status/status.h"
#include "fs/tree.h"

namespace mangrove::fs {

// All of an inode's records, in their order. EIO says what is wrong with them.
absl::Status CheckXattrs(const std::vector<TreeRecord>& records);

}  // namespace mangrove::fs
