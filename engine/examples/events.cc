// Events: a program learns when pages that it uses went back to an older version, were lost, or are cut off.
//
//   events --socket PATH [--watch]
//
// --watch waits for events until a signal ends the program; kill a node meanwhile, or the daemon that serves it.

#include <atomic>
#include <iostream>
#include <thread>

#include "engine/examples/example.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kSize = 16 * kPageBytes;

static const char* What(RegionEvent::Kind kind) {
  switch (kind) {
    case RegionEvent::Kind::kReverted: return "went back to an older version";
    case RegionEvent::Kind::kMaybeReverted: return "may have gone back to an older version";
    case RegionEvent::Kind::kLost: return "are lost";
    case RegionEvent::Kind::kFenced: return "are cut off from this program; attach again";
  }
  return "?";
}

int main(int argc, char** argv) {
  const bool watch = argc == 4 && std::string(argv[3]) == "--watch";
  const auto session = Check(Session::Attach({.socket_path = FlagValue(watch ? 3 : argc, argv, "--socket")}));
  const auto region = OpenOrMake(*session, "example-events", kSize);

  // Called from a thread of the library: it shall be short, and lock nothing that is held across calls of the region.
  region->SetEventCallback([](const RegionEvent& event) {
    std::cout << "pages " << event.offset_bytes / kPageBytes << " to "
              << (event.offset_bytes + event.length_bytes) / kPageBytes - 1 << " " << What(event.kind) << std::endl;
  });

  auto* const word = reinterpret_cast<uint64_t*>(Check(region->Map(0, kSize)));
  do {
    std::atomic_ref(*word).fetch_add(1);  // An access to what is lost or cut off ends with SIGBUS.
    if (watch) std::this_thread::sleep_for(std::chrono::seconds(1));
  } while (watch);
  Check(region->Flush(0, kPageBytes));
  std::cout << region->Counters().reverts << " pages were reverted since the region was opened\n";
  return 0;
}
