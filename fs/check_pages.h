// What the check of a fileset has of its pages: which are used, who has them, and trees node by node. fs/check.h
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "fs/check.h"
#include "fs/edit.h"
#include "fs/space.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

class CheckedPages {
 public:
  // Both outlive it.
  CheckedPages(Pages* pages, CheckReport* report) : pages_(pages), report_(report) {}

  void Problem(std::string sentence);

  // Has `copy(page)` take from a sound page of this kind what is wanted; it may be called more than once. What is wrong with the page is a
  // problem, `whose` says whose it is, and false.
  template <typename Copy>
  Task<absl::StatusOr<bool>> With(uint64_t page, PageKind kind, absl::string_view whose, Copy& copy) {
    std::string owner(whose);
    absl::Status wrong;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const absl::StatusOr<EditPage*> found = co_await edit.Get(page, kind, Intent::kRead);
      wrong = IsDamage(found.status()) ? found.status() : absl::OkStatus();
      if (!found.ok()) co_return wrong.ok() ? found.status() : absl::OkStatus();
      copy(*found);
      co_return absl::OkStatus();
    };
    const absl::Status status = co_await RunEdit(pages_, body);
    if (!status.ok()) co_return status;
    if (!wrong.ok()) ReportDamage(owner, wrong);
    co_return wrong.ok();
  }

  // The groups of a zone.
  Task<absl::Status> LoadGroups(Zone zone, uint64_t count);
  // The pages of the metadata zone that are marked as inodes.
  std::vector<uint64_t> MarkedInodes() const;
  // `whose` has these pages of the zones that `data` says. What is wrong with that is a problem. False: they are not there at all.
  bool Claim(PageSpan pages, bool data, absl::string_view whose);
  // What is used and nobody's is a problem.
  void ReportLeaks();

  // Every record below a tree's root, in order. K1
  using Record = std::function<void(uint64_t key, std::string_view value)>;
  Task<absl::Status> Walk(std::string root, std::string whose, Record* record);

 private:
  struct Group {
    Zone zone = Zone::kMetadata;
    std::vector<bool> used;
    std::vector<bool> marked;
    std::vector<bool> claimed;
  };
  // Keys below a node: from `low` to `high`, both included.
  struct Range {
    uint64_t low = 0;
    uint64_t high = ~uint64_t{0};
  };

  static bool IsDamage(const absl::Status& status);
  void ReportDamage(const std::string& whose, const absl::Status& wrong);
  void CheckBits(uint64_t first, const Group& group);
  Group* GroupOf(uint64_t page);
  Task<absl::Status> WalkNode(std::string node, uint64_t page, Range range, const std::string* whose, Record* record);

  Pages* const pages_;
  CheckReport* const report_;
  std::map<uint64_t, Group> groups_;  // By their first pages.
};

}  // namespace mangrove::fs
