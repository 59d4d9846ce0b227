// What the oracle asks of disks (O11, O12).

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/sim/oracle.h"

namespace mangrove::sim {

void Oracle::CheckCopies(absl::FunctionRef<std::vector<DiskCopy>(PageId)> copies_of) {
  for (uint32_t index = 0; index < pages_.size(); ++index) {
    const Page& page = pages_[index];
    const bool is_free = page.allocation == Allocation::kFree;
    if (!page.managed || page.may_be_lost || (!is_free && page.allocation != Allocation::kAllocated)) continue;
    std::vector<DiskCopy> copies = copies_of(page.id);
    for (const DiskCopy& copy : copies) {
      std::string what =
          is_free ? copy.extent ? "knows of an extent of a free page" : "" : CheckCopy(page, index, copy);
      for (const DiskCopy& other : copies) {
        const bool are_alike = copy.data == nullptr || other.data == nullptr || copy.version != other.version ||
                               copy.data->bytes == other.data->bytes;
        if (copy.keeps && other.keeps && !are_alike) what = "has the version of another disk in other words";
      }
      if (what.empty()) continue;
      std::string text = absl::StrCat("O11: the disk of node ", copy.node + 1, " ", what, ";");
      for (const DiskCopy& other : copies) absl::StrAppend(&text, " ", ToString(other));
      return Fail(page, text);
    }
  }
}

namespace {

// One copy is damaged, and the place of this one was taken by what a flush that failed on the other disk brought here.
bool IsLostForGood(const DiskCopy& copy, const std::vector<DiskCopy>& copies) {
  return copy.is_lost && std::any_of(copies.begin(), copies.end(), [&](const DiskCopy& other) {
           return other.keeps && other.is_damaged && other.version < copy.version;
         });
}

}  // namespace

void Oracle::CheckCurrentCopies(absl::FunctionRef<std::vector<DiskCopy>(PageId)> copies_of) {
  for (uint32_t index = 0; index < pages_.size(); ++index) {
    Page& page = pages_[index];
    if (!page.managed || page.may_be_lost || page.allocation != Allocation::kAllocated) continue;
    const std::vector<DiskCopy> copies = copies_of(page.id);
    for (const DiskCopy& copy : copies) {
      if (!copy.is_current || !copy.keeps) continue;
      page.may_be_lost = IsLostForGood(copy, copies);
      if (page.may_be_lost) break;
      const std::string what = CheckCopy(page, index, copy);
      if (what.empty()) continue;
      return Fail(page, absl::StrCat("O12: the disk of node ", copy.node + 1, " ", what, "; ", ToString(copy)));
    }
  }
}

std::string Oracle::CheckCopy(const Page& page, uint32_t index, const DiskCopy& copy) const {
  if (!copy.extent) return "knows of no extent of an allocated page";
  if (!copy.keeps || copy.is_damaged || page.is_void) return "";
  if (copy.is_lost) return "has the page as lost";
  if (copy.version == Version{}) {
    return page.flushed == 0 ? "" : absl::StrCat("has nothing of the page, and version ", page.flushed, " was flushed");
  }
  if (copy.config != copy.extent->config) return "has a record of another configuration";
  const ParsedPage found = ParsePage(page.id, copy.data == nullptr ? nullptr : copy.data->bytes.data());
  if (found.content == PageContent::kTorn) return "has a torn page";
  uint32_t version = 0;
  if (found.content == PageContent::kStamped) {
    if (found.stamp.op >= store_records_.size()) return "has what was never written";
    const StoreRecord& record = store_records_[found.stamp.op];
    if (record.page != index) return "has what was written elsewhere";
    if (record.generation != page.generation) return "has what was written before the page was allocated anew";
    version = record.version;
    if (version >= page.versions.size() || page.versions[version] != found.stamp.op) {
      return absl::StrCat("has version ", version, ", which died with its node");
    }
  }
  return version >= page.flushed
             ? ""
             : absl::StrCat("has version ", version, ", and version ", page.flushed, " was flushed");
}

}  // namespace mangrove::sim
