// A file of the log, one segment of it: blocks of 4096 bytes, written past the kernel's page cache, each write durable before it is done.
//
// A sync after a write into space that is not yet there waits for the filesystem's journal as well, since the file
// grows. So zeros are written ahead, up to a MiB at a time, in the file's first life; when it is used again, everything
// is there.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/unique_fd.h"
#include "engine/store/page_entry.h"

namespace mangrove::store {

// Memory as direct reads and writes need it: a number of whole blocks, at a block's alignment.
class LogBuffer {
 public:
  // At least `bytes`, of which the content is not kept.
  std::span<char> Reserve(size_t bytes);

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

// Owned by one thread.
class LogSegment {
 public:
  // A file that is there, or a new, empty one, whose entry in the directory is durable. Zeros are written up to
  // `full_bytes`, at most. On a filesystem without direct writes they go through the page cache. INTERNAL and the like:
  // what the system says, with the file. REQUIRES: `full_bytes` is a multiple of a block.
  // Open: NotFound if there is none.
  static absl::StatusOr<LogSegment> Open(std::string file, uint64_t full_bytes);
  static absl::StatusOr<LogSegment> Create(std::string file, uint64_t full_bytes);

  // Its entry in the directory is durable once that is synced. INTERNAL and the like, as above.
  absl::Status Rename(std::string file);

  const std::string& file() const { return file_; }
  // Blocks from 0 to here have been written. Multiple of a block.
  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t size_blocks() const { return size_bytes_ / kBlockBytes; }

  // Durable when it returns OK; after an error nothing is known of the blocks. REQUIRES: whole blocks, out of a
  // LogBuffer.
  absl::Status Write(uint64_t offset, std::span<const char> blocks);
  // Fills `out`. DataLoss: the disk cannot read it. REQUIRES: as above, below size_bytes().
  absl::Status Read(uint64_t offset, std::span<char> out) const;
  // Gives the blocks from `blocks` on back to the filesystem; a crash may undo it. INTERNAL and the like, as above.
  absl::Status Cut(uint64_t blocks);

 private:
  LogSegment(std::string file, UniqueFd fd, uint64_t size_bytes, uint64_t full_bytes)
      : file_(std::move(file)), fd_(std::move(fd)), full_bytes_(full_bytes), size_bytes_(size_bytes) {}
  absl::Status WriteZerosAhead();
  absl::Status WriteBlocks(uint64_t offset, std::span<const char> blocks, int flags);

  std::string file_;
  UniqueFd fd_;
  uint64_t full_bytes_;
  uint64_t size_bytes_;
};

}  // namespace mangrove::store
