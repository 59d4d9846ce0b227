// The processes that a benchmark consists of, and how the parent tells them what to do next. The parent itself only
// orchestrates: it starts no threads (so that it can fork), measures nothing, and sleeps while a worker measures.

#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace mangrove::bench {

// Ends the process, in a benchmark the only answer to an error, with a line on standard error.
[[noreturn]] void Die(const std::string& what);
void Must(const absl::Status& status, const std::string& what);
// For system calls: a negative `result` ends the process with errno's text.
int64_t Must(int64_t result, const std::string& what);

using Arguments = std::array<uint64_t, 3>;
// What a worker can be told, by name. The result goes back to the parent.
using Verbs = std::map<std::string, std::function<double(const Arguments&)>>;

// Keeps the calling thread, and the threads that it starts, on a processor. Negative: on any.
void PinTo(int core);

// A process forked by this one. Ended with it, or by the destructor. Not thread-safe.
class Worker {
 public:
  // Forks a process on `core` that calls `make`, then carries out what it is told.
  Worker(std::string name, int core, std::function<Verbs()> make);
  // The process drops its verbs, and with them what they own, then ends; it is killed if that takes over 10 s.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  double Call(const std::string& verb, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0) {
    Begin(verb, a, b, c);
    return End();
  }
  // The two halves of Call, for what several workers do at a time.
  void Begin(const std::string& verb, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0);
  double End();

 private:
  const std::string name_;
  pid_t pid_ = 0;
  int channel_ = -1;
  std::string last_verb_;
};

// Waits until the process ends, and kills it if that takes over 10 s.
void AwaitEnd(pid_t pid);

}  // namespace mangrove::bench
