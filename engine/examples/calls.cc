// Calls: read and write copy bytes; access gives a view of many pages, fetched in few messages and held meanwhile.
//
//   calls --socket PATH

#include <algorithm>
#include <cstring>
#include <iostream>
#include <vector>

#include "engine/examples/example.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kSize = 256 * kPageBytes;
constexpr int64_t kTimeoutMs = 10'000;

int main(int argc, char** argv) {
  const auto session = Check(Session::Attach({.socket_path = FlagValue(argc, argv, "--socket")}));
  const auto region = OpenOrMake(*session, "example-calls", kSize);

  // Any offset and length, over the borders of pages.
  const std::string text = "many machines, one memory";
  const uint64_t offset = kPageBytes - 10;
  Check(region->Write(offset, std::as_bytes(std::span(text))));
  std::string back(text.size(), ' ');
  Check(region->Read(offset, std::as_writable_bytes(std::span(back))));
  std::cout << "read back: " << back << "\n";

  // All pages at once, for writing: until Release no other node touches them.
  PageView view = Check(region->Access(0, kSize, AccessMode::kWrite, kTimeoutMs));
  for (uint64_t page = 0; page < kSize / kPageBytes; ++page) {
    std::memcpy(view.mutable_bytes().data() + page * kPageBytes, &page, sizeof(page));
  }
  Check(view.Release());

  // For reading: others may read as well.
  view = Check(region->Access(0, kSize, AccessMode::kRead, kTimeoutMs));
  uint64_t sum = 0;
  for (uint64_t page = 0; page < kSize / kPageBytes; ++page) {
    uint64_t number = 0;
    std::memcpy(&number, view.bytes().data() + page * kPageBytes, sizeof(number));
    sum += number;
  }
  std::cout << "the sum of " << kSize / kPageBytes << " numbers, one on each page: " << sum << "\n";
  Check(view.Release());
  return sum == 255 * 256 / 2 && back == text ? 0 : 1;
}
