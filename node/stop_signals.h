// The signals that ask a program to stop, or to look at its files again.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace mangrove {

// From its making on SIGTERM, SIGINT and SIGHUP no longer end the process. SIGHUP is news for Wait, each time. Of the others
// the first is; a second one ends the process at once, with exit code 128 and its number. Thread-safe. One in a process.
class StopSignals {
 public:
  // REQUIRES: no other thread yet; those that are started later do not get these signals.
  StopSignals();
  // Returns the number of the first signal to stop, if it has come; SIGHUP, if that came since the last call; 0, if Interrupt
  // was called.
  int Wait();
  // For one call of Wait.
  void Interrupt();
  // Waits for so long at most. Whether a signal to stop has come.
  bool HasComeWithin(int64_t seconds);
  // Unless the process has ended in `limit_s` seconds, `report` is called and the process ends with `exit_code`.
  void EndWithin(int64_t limit_s, int exit_code, std::function<void()> report);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace mangrove
