// Transactions: several writes that happen together, or not at all, whatever nodes die in between.
//
//   accounts --socket PATH
//
// Moves money between accounts that are on different pages. Any number of these programs may run at once, on any nodes.

#include <cstring>
#include <iostream>
#include <random>

#include "engine/examples/example.h"
#include "engine/transaction.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

constexpr uint64_t kAccounts = 8;

static absl::Status Load(Transaction& transaction, Region& region, uint64_t account, AccessMode intent,
                         int64_t* balance) {
  return transaction.Read(region, account * kPageBytes, std::as_writable_bytes(std::span(balance, 1)), intent);
}

static absl::Status Store(Transaction& transaction, Region& region, uint64_t account, int64_t balance) {
  return transaction.Write(region, account * kPageBytes, std::as_bytes(std::span(&balance, 1)));
}

// What is not OK ends the transaction, and nothing of it has happened. What others had locked for too long is tried again.
static absl::Status Move(Transaction& transaction, Region& region, uint64_t from, uint64_t to, int64_t amount) {
  int64_t payer = 0;
  int64_t payee = 0;
  absl::Status status = Load(transaction, region, from, AccessMode::kWrite, &payer);
  if (status.ok()) status = Load(transaction, region, to, AccessMode::kWrite, &payee);
  if (status.ok()) status = Store(transaction, region, from, payer - amount);
  if (status.ok()) status = Store(transaction, region, to, payee + amount);
  return status;
}

int main(int argc, char** argv) {
  const auto session = Check(Session::Attach({.socket_path = FlagValue(argc, argv, "--socket")}));
  const auto region = OpenOrMake(*session, "example-accounts", kAccounts * kPageBytes);
  std::minstd_rand random(std::random_device{}());
  for (int i = 0; i < 100; ++i) {
    const uint64_t from = random() % kAccounts;
    const uint64_t to = (from + 1 + random() % (kAccounts - 1)) % kAccounts;
    const auto move = [&](Transaction& transaction) { return Move(transaction, *region, from, to, 5); };
    Check(RunTransaction(session, {}, move));
  }
  // All accounts as of one moment.
  int64_t sum = 0;
  Check(RunTransaction(session, {}, [&](Transaction& transaction) {
    absl::Status status;
    sum = 0;
    for (uint64_t account = 0; account < kAccounts && status.ok(); ++account) {
      int64_t balance = 0;
      status = Load(transaction, *region, account, AccessMode::kRead, &balance);
      sum += balance;
    }
    return status;
  }));
  std::cout << "moved 100 times; the sum of all accounts is " << sum << ", as it was\n";
  return sum == 0 ? 0 : 1;
}
