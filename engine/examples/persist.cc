// Persistence: what was flushed is there after everything was stopped, or killed. Run it, restart the cluster, run it again.
//
//   persist --socket PATH

#include <ctime>
#include <iostream>

#include "engine/examples/example.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

struct Diary {
  uint64_t entries;
  std::time_t written_at[500];
};
static_assert(sizeof(Diary) <= kPageBytes);  // One page: it is flushed whole, or not at all.

int main(int argc, char** argv) {
  const auto session = Check(Session::Attach({.socket_path = FlagValue(argc, argv, "--socket")}));
  const auto region = OpenOrMake(*session, "example-persist", kPageBytes);
  auto& diary = *reinterpret_cast<Diary*>(Check(region->Map(0, kPageBytes)));

  std::cout << diary.entries << " entries were kept\n";
  for (uint64_t i = 0; i < diary.entries; ++i) std::cout << "  " << std::ctime(&diary.written_at[i]);

  // One program at a time: the lock makes it so on all nodes.
  PageLock lock = Check(region->Lock(0, kPageBytes, LockMode::kExclusive, /*timeout_ms=*/10'000));
  if (diary.entries == std::size(diary.written_at)) diary.entries = 0;
  diary.written_at[diary.entries++] = std::time(nullptr);
  Check(lock.Release());

  // OK means: on the disk of every core holder. Until then the entry may be lost with this node.
  Check(region->Flush(0, kPageBytes));
  std::cout << "one more is on disk\n";
  return 0;
}
