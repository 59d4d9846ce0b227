#include "engine/transactions/log_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "net/log.h"

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
  const uint64_t end = header->tail + header->ring_pages;
  uint64_t fetched = stream.next();
  uint64_t fetch = 1;
  bool goes_on = true;
  while (goes_on && stream.next() < end) {
    const PageId at = LogPageAt(node, header->ring_pages, stream.next());
    if (stream.next() == fetched) {  // More at a time, the longer the log is.
      const uint64_t pages_to_edge = LogOf(node).first + (header->ring_pages + uint64_t{1}) - at;
      const uint64_t count = std::min({fetch, end - fetched, pages_to_edge});
      const absl::Status ahead = co_await pages->Fetch({at, count}, deadline);
      if (!ahead.ok()) LogDebug("reading a log ahead: ", ahead.message());  // Whoever needs that page meets it again.
      fetched += count;
      fetch = std::min(2 * fetch, PageEngine::kBlockPages);
    }
    const auto page = co_await pages->Load(at, deadline);
    if (!page.ok()) co_return page.status();
    const absl::StatusOr<bool> added = stream.Add(**page);
    if (!added.ok()) {
      co_return absl::Status(added.status().code(),
                             absl::StrCat("the log of ", ToString(node), ": ", added.status().message()));
    }
    goes_on = *added;
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
