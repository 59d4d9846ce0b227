// Extended attributes as the records of a tree; fs/extended.cc has how.

#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "fs/tree.h"

namespace mangrove::fs {

// What a value has at most, and names of a file's attributes together.
inline constexpr size_t kMostXattrBytes = 65'536;
// What names and values of a file's attributes have together at most: 15 of the longest, and more. So an edit may read them all.
inline constexpr size_t kMostXattrBytesTogether = size_t{1} << 20;
inline constexpr size_t kMostXattrNameBytes = 255;
// Attributes whose names begin so are named streams, as whole values.
inline constexpr std::string_view kStreamXattrPrefix = "user.stream.";

absl::Status NoAttribute(std::string_view name);
// All of an inode's records, in their order. EIO says what is wrong with them.
absl::Status CheckXattrs(const std::vector<TreeRecord>& records);
// Leaves those of attributes that are whole.
void DropBrokenXattrs(std::vector<TreeRecord>* records);

}  // namespace mangrove::fs
