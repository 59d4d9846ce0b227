// Has something done again and again while a fileset is open: once a second after it has ended, and when there is news.
//
// Owned by the loop.

#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

class Upkeep {
 public:
  struct Chore {
    std::string trouble;  // What the log says before the reason, if it fails.
    std::function<Task<absl::Status>()> run;
    std::function<void()> end = nullptr;  // A run that is under way is to end soon.
  };

  // `clock` outlives it, and so does whatever the chore uses.
  Upkeep(Clock* clock, Chore chore);
  Upkeep(const Upkeep&) = delete;
  Upkeep& operator=(const Upkeep&) = delete;
  ~Upkeep();  // REQUIRES: Stop has ended.

  // It is to be done once more, at once. Also in the middle of what the chore uses.
  void Hurry();
  // From when it returns nothing is done any more. Once.
  Task<bool> Stop();

 private:
  void WaitUntil(TimeNs when);
  void OnDone(const absl::Status& status);

  Clock* const clock_;
  const Chore chore_;
  Clock::TimerId timer_ = 0;
  bool is_at_work_ = false;
  bool is_in_a_hurry_ = false;
  std::optional<Outcome<bool>> stopped_;
  absl::Status last_;
};

}  // namespace mangrove::fs
