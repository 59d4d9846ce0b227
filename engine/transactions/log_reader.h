// Reads a node's log from its pages.

#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "engine/transactions/log_format.h"
#include "engine/transactions/transaction_pages.h"

namespace mangrove {

// What a log says, from its tail to its end.
struct LogContent {
  LogHeader header;
  std::vector<LogRecord> records;
};

// FailedPrecondition: the node has never had a log. While this reads, the log's header is locked for reading: its tail stays.
Task<absl::StatusOr<LogContent>> ReadLog(TransactionPages* pages, NodeId node, TimeNs deadline);

// Only the changes of these pages, of those records that have any.
std::vector<LogRecord> OnlyOf(PageRange pages, std::vector<LogRecord> records);

}  // namespace mangrove
