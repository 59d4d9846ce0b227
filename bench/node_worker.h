// A program that has a node, by embedding it or by attaching to a daemon, and does with a region's pages what it is told.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bench/worker.h"
#include "engine/mangrove.h"

namespace mangrove::bench {

using OpenSession = std::function<absl::StatusOr<std::shared_ptr<Session>>()>;

// For Worker. Pages are counted from the region's begin; times are in ns, medians of the pages unless said otherwise.
//   start                      opens the session
//   reserve(pages)             makes the region, allocates and maps all of it; open(pages) maps what is there
//   load(first, count)         a load from each page; store likewise
//   read(first, count)         Region::Read of each page; write likewise
//   flush(first, count)        one Region::Flush of all
//   flush_each(first, count)   Region::Write of some bytes, then Region::Flush, which alone is timed, page by page
//   flush_rate(threads, count, first) flushes per second; each thread writes to a page of its own, from page `first` on, and
//                              flushes it, `count` times
//   commit_rate(threads, count) transactions per second; each thread writes some bytes to two pages of its own, `count` times
//   turns(parity, count)       adds 1 to page 0's counter whenever it is even (odd); the time per turn of two nodes
//   chase(count), copy(count)  ns per load, or per Region::Read, of 64 pages that are here; chase_private, copy_private:
//                              the same on private memory, by loads and memcpy
//   resident                   this process' resident memory in MiB
Verbs MakeNodeVerbs(OpenSession open);

// In MiB; 0 is this process.
double ResidentMib(pid_t pid);

}  // namespace mangrove::bench
