// Small records of the page engine: what it has asked, what it is about to send, what is locked, and who it thinks is responsible.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "directory/address.h"
#include "directory/messages.h"
#include "engine/node_operations.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

// A request to another node that is answered once.
struct Call {
  Outcome<Message> outcome;
  Message message;
  NodeId to;
  TimeNs deadline;
  TimeNs resend_at;
  DurationNs resend_after;
  std::string trouble = {};  // Why it is not done yet, as far as the other node has said.
};

// Messages to a node.
struct Outbox {
  std::vector<Message> messages;
  bool leaves = false;  // At the end of the turn.
  size_t pages = 0;     // With the messages.
};

struct PageLockRecord {
  ClientId client;
  PageRange range;
  LockMode mode;
};

struct PageLocks {
  std::map<uint64_t, PageLockRecord> all;
  uint64_t next = 1;
  uint64_t pages = 0;  // Of all, and of those that are being taken.
};

// A range, in a fresh extent of this disk, of which a responsible node was told that it is fresh. Only that one is told so again, in
// the same stay of the segment with it.
struct ToldFresh {
  PageRange range;
  NodeInstance asker;
  Epoch since;
};

// A range that was unallocated: nothing of it is opened, as long as late messages of the allocation may be on their way.
struct Discarded {
  PageRange range;
  ConfigNumber config;
  TimeNs until;
};

struct Discard {
  size_t left = 0;  // Pages.
  absl::AnyInvocable<void()> done;
};

// Who is responsible for a segment, as far as this node has heard.
struct Location {
  NodeId node;
  uint32_t term = 0;
  uint32_t pages = 0;     // Of the segment, in cache_ or in given_away_.
  Txn txn;                // The highest that was heard: whoever speaks of a higher one is responsible by now.
  bool stale = false;     // That node says that it is not.
  bool searched = false;  // It is being found out.
};

}  // namespace mangrove
