// A node inside the program itself: no daemon. The node is a member of its cluster as any other, for as long as the
// session lives; it needs a configuration of its own, and nobody else may run that node meanwhile.
//
//   embed --config FILE

#include <atomic>
#include <iostream>

#include "engine/examples/example.h"
#include "engine/node_config.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

int main(int argc, char** argv) {
  const NodeConfig config = Check(LoadNodeConfig(FlagValue(argc, argv, "--config")));
  const auto session = Check(Session::Embed(config));
  const auto region = OpenOrMake(*session, "example-embed", kPageBytes);

  auto* const runs = reinterpret_cast<uint64_t*>(Check(region->Map(0, kPageBytes)));
  const uint64_t count = std::atomic_ref(*runs).fetch_add(1) + 1;
  std::cout << config.name << " in this process: run " << count << "\n";

  const SpaceTotals space = Check(session->Space());
  std::cout << (space.free_bytes >> 20) << " MiB free in the cluster\n";
  // The node ends with the session: what shall outlive it is flushed.
  Check(region->Flush(0, kPageBytes));
  return 0;
}
