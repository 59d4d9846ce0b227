// Attributes of pages: how many nodes keep them on disk, whether they live in RAM only, sixteen bytes of one's own.
//
//   attributes --socket PATH

#include <cstring>
#include <iostream>

#include "engine/examples/example.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kSize = 8 * kPageBytes;

static void Show(Region& region, uint64_t offset) {
  const PageAttributes attributes = Check(region.GetAttributes(offset));
  std::cout << "page " << offset / kPageBytes << ": " << (attributes.persistent ? "persistent" : "volatile") << ", "
            << attributes.replicas << " core holders" << (attributes.keep_in_ram ? ", kept in RAM" : "")
            << (attributes.protocol == CoherenceProtocol::kMigratory ? ", migratory" : "") << ", marked \""
            << reinterpret_cast<const char*>(attributes.user.data()) << "\"\n";
}

int main(int argc, char** argv) {
  const auto session = Check(Session::Attach({.socket_path = FlagValue(argc, argv, "--socket")}));
  const uint64_t half = kSize / 2;
  auto region = session->Reserve({.name = "example-attributes", .size_bytes = kSize, .mode = 0640});
  if (region.ok()) {
    // One region may have pages of several kinds.
    Check((*region)->Allocate(0, half, {.persistent = true}));
    Check((*region)->Allocate(half, half, {.persistent = false}));
  } else {
    region = session->Open("example-attributes", AccessMode::kWrite);
  }
  Check(region.status());

  PageAttributesChange change;  // What has no value stays.
  change.keep_in_ram = true;
  change.protocol = CoherenceProtocol::kMigratory;  // What is read is changed next, by one node after the other.
  change.user.emplace();
  std::memcpy(change.user->data(), "hot", sizeof("hot"));
  Check((*region)->SetAttributes(0, kPageBytes, change));
  Show(**region, 0);
  Show(**region, half);

  // Takes the storage of one page away, and gives it anew: its addresses stay, its content is zeros again.
  Check((*region)->Unallocate(kSize - kPageBytes, kPageBytes));
  Check((*region)->Allocate(kSize - kPageBytes, kPageBytes, {.persistent = false}));
  return 0;
}
