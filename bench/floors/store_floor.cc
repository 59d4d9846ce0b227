#include "bench/floors/store_floor.h"

#include <algorithm>

#include "bench/measured_store.h"
#include "bench/timing.h"

namespace mangrove::bench {
namespace {

// As a flush: so many pages in a commit, and 6 MiB on their way.
constexpr uint64_t kOutstanding = 24;

Verbs MakeVerbs(const std::string& path, uint64_t pages) {
  auto store = std::make_shared<MeasuredStore>(path, pages);
  const uint64_t pages_of_commit = pages % 64 == 0 ? 64 : 50;
  return {{"write", [=](const Arguments&) {
             const int64_t begin = NowNs();
             store->Bulk(pages_of_commit, kOutstanding);
             return static_cast<double>(pages * kPageBytes) / (1 << 20) * 1e9 / static_cast<double>(NowNs() - begin);
           }}};
}

}  // namespace

StoreFloor::StoreFloor(const std::string& directory, uint64_t pages) {
  one_ = std::make_unique<Worker>("bare store", -1, [=] { return MakeVerbs(directory + "/bare-store-1", pages); });
  other_ = std::make_unique<Worker>("bare store", -1, [=] { return MakeVerbs(directory + "/bare-store-2", pages); });
}

StoreFloor::~StoreFloor() = default;

double StoreFloor::MibPerSecond() {
  other_->Begin("write");
  const double one = one_->Call("write");
  return std::min(one, other_->End());
}

}  // namespace mangrove::bench
