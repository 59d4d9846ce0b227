// A group's page: which of its pages are used (fs/space.h).
//
//   16 first page of the group 8   24 its pages 4   28 pages that are used 4   32 pages that are marked and free 4
//   36 the place of the node that takes pages from it, plus 1, or 0 4   40 zone 4   44 number of the quota that counts it, or 0 4
//   48 the check that looks for lost pages, or the last one 8
//   1008 a bit for each page: it is used   2032 a bit for each page: it is marked   3056 a bit for each page: it was taken since that
//   check began
// The group's page itself is used. What a mark means is the zone's: of metadata, the page is an inode; of data, it is free and not zeros.

#pragma once

#include <cstdint>

#include "fs/edit.h"
#include "fs/space.h"

namespace mangrove::fs {

class GroupView {
 public:
  explicit GroupView(const EditPage* page) : page_(page) {}

  // EIO: it says of another group, or counts what is not so.
  absl::Status Check(uint64_t first_page, Zone zone) const;
  uint64_t first() const;
  uint32_t used() const;
  uint32_t marked() const;
  uint32_t owner() const;
  uint32_t quota() const;
  // Of metadata: pages that are inodes.
  uint32_t inodes() const;
  bool IsUsed(uint32_t i) const;
  bool IsMarked(uint32_t i) const;
  uint64_t check() const;
  bool IsTaken(uint32_t i) const;
  // The first run of so many pages that are neither used nor marked, from `start` on and then from the beginning; the longest one if
  // there is none. Empty: there is no page.
  PageSpan FindClean(uint64_t want, uint32_t start) const;
  // The first run of pages that are marked and not used, at most `most`.
  PageSpan FindMarked(uint64_t most) const;

 private:
  const EditPage* page_;
};

class GroupEditor : public GroupView {
 public:
  explicit GroupEditor(EditPage* page) : GroupView(page), page_(page) {}

  void Initialize(uint64_t first_page, Zone zone, uint32_t owner);
  void SetOwner(uint32_t owner);
  void SetQuota(uint32_t number);
  // Indexes into the group.
  void Set(PageSpan pages, bool used, bool marked);
  void MarkFree();  // Every page that is not used.
  // From now on it notes which pages are taken.
  void BeginCheck(uint64_t check);
  // What it says of itself, and its counts, as its place and its bits have it.
  void Correct(uint64_t first_page, Zone zone);

 private:
  EditPage* page_;
};

}  // namespace mangrove::fs
