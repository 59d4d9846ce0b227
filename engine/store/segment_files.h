// The files of the log's segments: made ahead, read by page, and used again when nothing in them is needed.
//
// Segments have ascending numbers, each used once; a file that is used again gets the name of the further segment. So a
// place (page_entry.h) never comes to mean other data, and a reader that comes too late finds no file, or data whose
// checksum is not that of its entry.

#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/unique_fd.h"
#include "engine/store/log_segment.h"
#include "engine/store/page_entry.h"

namespace mangrove::store {

// Thread-safe.
class SegmentFiles {
 public:
  explicit SegmentFiles(std::string directory) : directory_(std::move(directory)) {}

  const std::string& directory() const { return directory_; }
  std::string NameOf(uint64_t segment) const;

  // Makes the directory if it is not there, and removes what segments are in it.
  absl::Status Clear();
  // The numbers of the segments that there are, ascending.
  absl::StatusOr<std::vector<uint64_t>> List() const;
  // Bytes of the segment's file; 0 if there is none.
  uint64_t BytesOf(uint64_t segment) const;

  // Of all files.
  uint64_t TotalBytes() const;

  // For writing, see LogSegment. Make: the file that is there, or one that is not needed any more, or a new one; durable
  // in its directory.
  absl::StatusOr<LogSegment> Open(uint64_t segment, uint64_t full_bytes) const;
  absl::StatusOr<LogSegment> Make(uint64_t segment, uint64_t full_bytes);

  // Fills `out`, of whole blocks, through the kernel's page cache. NotFound: there is no such segment, or not any more.
  // DataLoss: the file ends before, or the disk cannot read it.
  absl::Status Read(PagePlace place, std::span<char> out);

  // Nothing in the segment is needed any more. `keep`: its file may be used again, otherwise it is removed. REQUIRES: it
  // stands in no durable index.
  absl::Status Release(uint64_t segment, bool keep);

 private:
  absl::StatusOr<std::shared_ptr<const UniqueFd>> OpenToRead(uint64_t segment);

  const std::string directory_;
  mutable std::mutex mutex_;
  // Guarded by mutex_, as is what follows.
  std::deque<std::string> kept_;
  // The files that were opened last.
  std::map<uint64_t, std::shared_ptr<const UniqueFd>> opened_;
  std::deque<uint64_t> opened_order_;
};

}  // namespace mangrove::store
