// Has an instance take care of what is left to do, again and again: once a second after it has ended.
//
// Owned by the loop.

#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "fs/instance.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

class Upkeep {
 public:
  // Both outlive it. `name`: the fileset's.
  Upkeep(Clock* clock, std::string name, Instance* instance);
  Upkeep(const Upkeep&) = delete;
  Upkeep& operator=(const Upkeep&) = delete;
  ~Upkeep();  // REQUIRES: Stop has ended.

  // From when it returns nothing is done any more. Once.
  Task<bool> Stop();

 private:
  void Wait();
  void OnDone(const absl::Status& status);

  Clock* const clock_;
  const std::string name_;
  Instance* const instance_;
  Clock::TimerId timer_ = 0;
  bool is_at_work_ = false;
  std::optional<Outcome<bool>> stopped_;
  absl::Status last_;
};

}  // namespace mangrove::fs
