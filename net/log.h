// The log of a process, for every folder: lines for operators, on the standard error or in a file. The only header of
// the project that stands before the logging library; log.cc alone knows which one it is.

#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace mangrove {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// Thread-safe, all of them. Lines below the level (kInfo until it is set) are dropped.
void SetLogLevel(LogLevel level);
bool LogEnabled(LogLevel level);
// From now on lines are appended to the file at `path` instead of the standard error.
absl::Status SetLogFile(const std::string& path);
// Stands in every line: the node's name, for one.
void SetLogName(const std::string& name);
void LogLine(LogLevel level, std::string_view text);

// The parts are what absl::StrCat takes, and are not put together for a line that is dropped.
template <typename... Parts>
void LogDebug(const Parts&... parts) {
  if (LogEnabled(LogLevel::kDebug)) LogLine(LogLevel::kDebug, absl::StrCat(parts...));
}
template <typename... Parts>
void LogInfo(const Parts&... parts) {
  if (LogEnabled(LogLevel::kInfo)) LogLine(LogLevel::kInfo, absl::StrCat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  if (LogEnabled(LogLevel::kWarning)) LogLine(LogLevel::kWarning, absl::StrCat(parts...));
}
template <typename... Parts>
void LogError(const Parts&... parts) {
  if (LogEnabled(LogLevel::kError)) LogLine(LogLevel::kError, absl::StrCat(parts...));
}

// Says each thing once, however often it happens: for what a stranger can cause at will. Thread-compatible.
class LogOnce {
 public:
  // Remembers at most `max_keys` keys; further ones share a single line that says so.
  explicit LogOnce(size_t max_keys = 1024) : max_keys_(max_keys) {}
  // Logs the first time that `key` comes. Returns whether it did.
  bool Log(LogLevel level, const std::string& key, std::string_view text);
  // Of each key that begins with `prefix` the next time is a first time again.
  void Forget(std::string_view prefix);

 private:
  const size_t max_keys_;
  bool full_said_ = false;
  absl::flat_hash_set<std::string> keys_;
};

}  // namespace mangrove
