// A request to a core holder to store a run of pages (directory/page_run.h), see engine/store_calls.cc.

#pragma once

#include <bitset>

#include "absl/status/status.h"
#include "directory/messages.h"
#include "net/page_buffer.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

// Of a run's pages.
using RowMask = std::bitset<PageRow::kPages>;

// What has come of it.
struct Stored {
  RowMask failed;
  absl::Status first_error;
};

struct StoreCall {
  Message run;  // Its requests follow one another.
  NodeId to;
  TimeNs deadline;
  TimeNs resend_at;
  DurationNs resend_after;
  RowMask left;  // Not answered yet.
  Stored stored;
  Outcome<Stored> outcome;

  // `pages`, of those that are left, have come to `status`. True: the request is over.
  bool End(const RowMask& pages, const absl::Status& status);
};

}  // namespace mangrove
