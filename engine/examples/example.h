// What the examples share: their one flag, and the end of a program that cannot go on.

#pragma once

#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mangrove.h"

namespace mangrove::example {

// Ends the program with the error, unless there is none.
inline void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "error: " << status.message() << "\n";
  std::exit(1);
}

template <typename T>
T Check(absl::StatusOr<T> result) {
  Check(result.status());
  return *std::move(result);
}

// The value of the program's only flag, "--socket PATH" for one.
inline std::string FlagValue(int argc, char** argv, const std::string& flag) {
  if (argc == 3 && argv[1] == flag) return argv[2];
  std::cerr << "usage: " << argv[0] << " " << flag << " VALUE\n";
  std::exit(2);
}

// A region with storage for all of it: the one that an earlier run made, or a new one.
inline std::shared_ptr<Region> OpenOrMake(Session& session, const std::string& name, uint64_t size_bytes) {
  auto reserved = session.Reserve({.name = name, .size_bytes = size_bytes});
  if (absl::IsAlreadyExists(reserved.status())) return Check(session.Open(name, AccessMode::kWrite));
  auto region = Check(std::move(reserved));
  Check(region->Allocate(0, size_bytes, {.persistent = true}));
  return region;
}

}  // namespace mangrove::example
