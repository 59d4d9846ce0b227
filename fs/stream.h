// A stream of bytes: which pages of data it has. Extents are records in the tree of an inode, by their first page in the stream: first page in
// the region 8, pages 4, zeros 4. Where there is no extent is a hole, which reads as zeros.
//
//   X1  Extents do not overlap, neither in the stream nor in the region.
//
// Works in an edit.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/inode.h"
#include "fs/space.h"
#include "fs/tree.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

struct Extent {
  uint64_t stream_page = 0;
  uint64_t page = 0;  // Of the region; 0: a hole.
  uint64_t count = 0;

  uint64_t end() const { return stream_page + count; }
  bool IsHole() const { return page == 0; }
};

// EIO: a stream's tree cannot have such a record.
absl::StatusOr<Extent> DecodeExtent(const TreeRecord& record);

class Stream {
 public:
  // At once, so that what a transaction frees or takes fits into a log.
  static constexpr size_t kMostExtents = 512;
  // What Map and Fill give whole, whatever the extents are.
  static constexpr uint64_t kMostPages = 400;

  Stream(Edit* edit, SpaceMap* space, const Inode& inode)
      : edit_(edit), space_(space), inode_(inode), tree_(edit, space, inode.main_root()) {}

  // What the pages of the stream are, holes too, in their order, without a gap: at most kMostExtents of them, so that it may end early.
  Task<absl::StatusOr<std::vector<Extent>>> Map(PageSpan pages);
  // The same, and there are no holes any more: they get pages, which are zeros. REQUIRES: obtained for writing.
  Task<absl::StatusOr<std::vector<Extent>>> Fill(PageSpan pages);
  // Makes the pages a hole. False: there is more to do, in another transaction. REQUIRES: obtained for writing.
  Task<absl::StatusOr<bool>> Punch(PageSpan pages);

 private:
  Task<absl::StatusOr<uint64_t>> FillHole(Extent hole, uint64_t ahead);
  // It has so many pages more, or fewer.
  Task<absl::Status> Count(int64_t pages);
  Task<absl::Status> Add(Extent extent);
  Task<absl::Status> Put(Extent extent);

  Edit* const edit_;
  SpaceMap* const space_;
  Inode inode_;
  Tree tree_;
};

}  // namespace mangrove::fs
