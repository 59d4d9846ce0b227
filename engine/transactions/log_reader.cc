#include "engine/transactions/log_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace mangrove {

Task<absl::StatusOr<LogContent>> ReadLog(TransactionPages* pages, NodeId node, TimeNs deadline) {
  const PageId header_page = LogOf(node).first;
  const absl::StatusOr<HeldPages> held = co_await pages->Lock({header_page, 1}, LockMode::kShared, deadline);
  if (!held.ok()) co_return held.status();
  const auto first = co_await pages->Load(header_page, deadline);
  if (!first.ok()) co_return first.status();
  const absl::StatusOr<LogHeader> header = DecodeLogHeader(**first);
  if (!header.ok()) {
    co_return absl::Status(header.status().code(),
                           absl::StrCat("the log of ", ToString(node), ": ", header.status().message()));
  }
  LogContent content{.header = *header, .records = {}};
  if (header->generation == 0 || header->owner.node.value == 0) co_return content;
  LogStream stream(*header);
  bool goes_on = true;
  while (goes_on && stream.next() < header->tail + header->ring_pages) {
    const auto page = co_await pages->Load(LogPageAt(node, header->ring_pages, stream.next()), deadline);
    if (!page.ok()) co_return page.status();
    goes_on = stream.Add(**page);
  }
  content.records = stream.records();
  co_return content;
}

std::vector<LogRecord> OnlyOf(PageRange pages, std::vector<LogRecord> records) {
  for (LogRecord& record : records) {
    std::erase_if(record.pages, [&pages](const PageChange& change) { return !pages.Contains(change.page); });
  }
  std::erase_if(records, [](const LogRecord& record) { return record.pages.empty(); });
  return records;
}

}  // namespace mangrove
