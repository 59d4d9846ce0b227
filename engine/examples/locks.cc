// Page locks: an exclusive one makes several steps one, for every node; a shared one keeps writers out.
//
//   locks --socket PATH
//
// Moves money between accounts that are on different pages. Any number of these programs may run at once, on any nodes.

#include <cstring>
#include <iostream>

#include "engine/examples/example.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kAccounts = 4;
constexpr uint64_t kSize = kAccounts * kPageBytes;
constexpr int64_t kTimeoutMs = 10'000;

static int64_t& Balance(std::byte* base, uint64_t account) {
  return *reinterpret_cast<int64_t*>(base + account * kPageBytes);
}

int main(int argc, char** argv) {
  const auto session = Check(Session::Attach({.socket_path = FlagValue(argc, argv, "--socket")}));
  const auto region = OpenOrMake(*session, "example-locks", kSize);
  std::byte* const base = Check(region->Map(0, kSize));

  for (uint64_t step = 0; step < 100; ++step) {
    // Both accounts in one lock: whoever locks one after the other must keep to an order, or two programs wait for
    // each other until the time is up. The lock ends with its object, or with this process.
    PageLock lock = Check(region->Lock(0, kSize, LockMode::kExclusive, kTimeoutMs));
    Balance(base, step % kAccounts) -= 5;
    Balance(base, (step + 1) % kAccounts) += 5;
    Check(lock.Release());
  }

  const PageLock lock = Check(region->Lock(0, kSize, LockMode::kShared, kTimeoutMs));
  int64_t sum = 0;
  for (uint64_t account = 0; account < kAccounts; ++account) sum += Balance(base, account);
  std::cout << "moved 100 times; the sum of all accounts is " << sum << ", as it was\n";
  return sum == 0 ? 0 : 1;
}
