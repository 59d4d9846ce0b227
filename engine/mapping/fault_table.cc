#include "engine/mapping/fault_table.h"

#include <algorithm>

#include "net/check.h"

namespace mangrove {

bool FaultTable::Admit(const PageFault& fault) {
  auto [found, inserted] = entries_.try_emplace(fault.page, Entry{.fault = fault});
  if (inserted) {
    queue_.push_back(fault.page);
    return true;
  }
  Entry& entry = found->second;
  if (entry.served) {
    entry.wake = true;
  } else {
    entry.fault.wanted = std::max(entry.fault.wanted, fault.wanted);
    entry.fault.write_protect = entry.fault.write_protect && fault.write_protect;
  }
  return false;
}

std::optional<PageFault> FaultTable::Next() {
  if (queue_.empty()) return std::nullopt;
  Entry& entry = entries_.at(queue_.front());
  queue_.pop_front();
  CHECK(!entry.served);
  entry.served = true;
  return entry.fault;
}

bool FaultTable::Finish(PageId page) {
  auto found = entries_.find(page);
  CHECK(found != entries_.end() && found->second.served);
  const bool wake = found->second.wake;
  entries_.erase(found);
  return wake;
}

}  // namespace mangrove
