// Mapped memory: attach to the daemon of this host, map a region, use it with loads, stores and atomics.
//
//   attach --socket PATH

#include <atomic>
#include <iostream>

#include "engine/examples/example.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

// What is in the region, as every node sees it. Plain data: no pointers, the same layout everywhere.
struct Visits {
  uint64_t count;
  uint64_t of_even_runs;
};

int main(int argc, char** argv) {
  const auto session = Check(Session::Attach({.socket_path = FlagValue(argc, argv, "--socket")}));
  const uint64_t size = kPageBytes;

  // A region is a name and a range of addresses, without storage; its pages get storage, and zeros, by Allocate.
  auto region = session->Reserve({.name = "example-attach", .size_bytes = size});
  if (region.ok()) {
    Check((*region)->Allocate(0, size, {.persistent = true}));
  } else if (absl::IsAlreadyExists(region.status())) {
    region = session->Open("example-attach", AccessMode::kWrite);
  }
  Check(region.status());

  std::byte* const base = Check((*region)->Map(0, size));
  auto* const visits = reinterpret_cast<Visits*>(base);
  // Several programs on several nodes may run this line at once.
  const uint64_t count = std::atomic_ref(visits->count).fetch_add(1) + 1;
  if (count % 2 == 0) std::atomic_ref(visits->of_even_runs).fetch_add(1);

  std::cout << "this is run " << count << ", on any node\n";
  const RegionCounters counters = (*region)->Counters();
  std::cout << counters.read_faults + counters.write_faults << " faults\n";
  Check((*region)->Flush(0, size));  // The count is on several nodes' disks now.
  Check((*region)->Unmap(0, size));
  return 0;
}
