#include "engine/store/unapplied_index.h"

#include <algorithm>

#include "net/check.h"

namespace mangrove::store {

void UnappliedIndex::Add(uint64_t number, const StoreBatch& batch) {
  CHECK(number != 0);
  for (const StoredPage& page : batch.put_pages) pages_[page.page] = number;
  for (const PageRange& range : batch.delete_pages) deleted_.push_back({number, range});
  if (!batch.put_pages.empty() || !batch.delete_pages.empty()) last_of_pages_ = number;
  for (const StoreBatch::Record& record : batch.records) records_[record.key] = number;
}

void UnappliedIndex::Remove(uint64_t number, const StoreBatch& batch) {
  for (const StoredPage& page : batch.put_pages) {
    const auto it = pages_.find(page.page);
    if (it != pages_.end() && it->second == number) pages_.erase(it);
  }
  while (!deleted_.empty() && deleted_.front().number <= number) deleted_.pop_front();
  if (last_of_pages_ <= number) last_of_pages_ = 0;
  for (const StoreBatch::Record& record : batch.records) {
    const auto it = records_.find(record.key);
    if (it != records_.end() && it->second == number) records_.erase(it);
  }
}

uint64_t UnappliedIndex::LastChangeOf(PageId page) const {
  uint64_t last = 0;
  if (const auto it = pages_.find(page); it != pages_.end()) last = it->second;
  for (const DeletedRange& deleted : deleted_) {
    if (deleted.range.Contains(page)) last = std::max(last, deleted.number);
  }
  return last;
}

uint64_t UnappliedIndex::LastChangeOfRecords(std::string_view prefix) const {
  uint64_t last = 0;
  for (auto it = records_.lower_bound(std::string(prefix)); it != records_.end(); ++it) {
    if (std::string_view(it->first).substr(0, prefix.size()) != prefix) break;
    last = std::max(last, it->second);
  }
  return last;
}

}  // namespace mangrove::store
