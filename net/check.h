// CHECK: an invariant that must hold, in every build. A broken one ends the process with the place and the condition;
// an operating error is an absl::Status and never a CHECK.

#pragma once

namespace mangrove {

// Writes "file:line: CHECK failed: condition" to the standard error and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace mangrove

#define CHECK(condition)                                       \
  do {                                                         \
    if (__builtin_expect(!(condition), 0)) {                   \
      ::mangrove::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                          \
  } while (false)
