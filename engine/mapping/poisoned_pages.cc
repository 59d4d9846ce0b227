#include "engine/mapping/poisoned_pages.h"

namespace mangrove {
namespace {

void Append(std::vector<PageRange>& ranges, PageId page) {
  if (!ranges.empty() && ranges.back().end() == page) {
    ++ranges.back().count;
  } else {
    ranges.push_back({page, 1});
  }
}

}  // namespace

void PoisonedPages::Begin(PageId page) {
  std::lock_guard lock(mutex_);
  pages_[page] = true;
}

void PoisonedPages::End(PageId page, bool poisoned) {
  std::lock_guard lock(mutex_);
  if (poisoned) {
    pages_[page] = false;
  } else {
    pages_.erase(page);
  }
}

std::vector<PageRange> PoisonedPages::Forget(PageRange range) {
  std::vector<PageRange> forgotten;
  std::lock_guard lock(mutex_);
  auto it = pages_.lower_bound(range.first);
  while (it != pages_.end() && it->first < range.end()) {
    Append(forgotten, it->first);
    if (it->second) {
      ++it;
    } else {
      it = pages_.erase(it);
    }
  }
  return forgotten;
}

std::vector<PageRange> PoisonedPages::List() const {
  std::vector<PageRange> ranges;
  std::lock_guard lock(mutex_);
  for (const auto& [page, being_poisoned] : pages_) Append(ranges, page);
  return ranges;
}

}  // namespace mangrove
