#include "net/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "net/check.h"

namespace mangrove {
namespace {

constexpr char kPattern[] = "%Y-%m-%dT%H:%M:%S.%f%z %L %n: %v";

struct LogState {
  std::atomic<LogLevel> level{LogLevel::kInfo};
  std::mutex mutex;  // Guards the two below, not the logging itself.
  spdlog::sink_ptr sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  std::string name = "mangrove";
  // Its predecessors are never freed, since a thread may be about to use one; there are a handful in a process's life.
  std::atomic<spdlog::logger*> logger{nullptr};

  void Rebuild() {
    auto* made = new spdlog::logger(name, sink);
    made->set_pattern(kPattern);
    made->set_level(spdlog::level::trace);
    made->flush_on(spdlog::level::info);
    logger.store(made);
  }
};

LogState& State() {
  // Never destroyed: threads may log while the process ends.
  static LogState* const state = [] {
    auto* made = new LogState;
    made->Rebuild();
    return made;
  }();
  return *state;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: return spdlog::level::off;
  }
  CHECK(false);
}

}  // namespace

void SetLogLevel(LogLevel level) { State().level.store(level, std::memory_order_relaxed); }

bool LogEnabled(LogLevel level) { return level >= State().level.load(std::memory_order_relaxed); }

absl::Status SetLogFile(const std::string& path) {
  LogState& state = State();
  std::lock_guard<std::mutex> lock(state.mutex);
  try {
    state.sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
  } catch (const spdlog::spdlog_ex& error) {
    return absl::InvalidArgumentError(absl::StrCat("the log file ", path, " cannot be opened: ", error.what()));
  }
  state.Rebuild();
  return absl::OkStatus();
}

void SetLogName(const std::string& name) {
  LogState& state = State();
  std::lock_guard<std::mutex> lock(state.mutex);
  state.name = name;
  state.Rebuild();
}

void LogLine(LogLevel level, std::string_view text) {
  if (!LogEnabled(level)) return;
  State().logger.load()->log(ToSpdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

bool LogOnce::Log(LogLevel level, const std::string& key, std::string_view text) {
  if (keys_.contains(key)) return false;
  if (keys_.size() < max_keys_) {
    keys_.insert(key);
    LogLine(level, text);
    return true;
  }
  if (full_said_) return false;
  full_said_ = true;
  LogLine(level, text);
  LogLine(level, "more of this kind is not logged: too many different ones");
  return true;
}

void LogOnce::Forget(std::string_view prefix) {
  absl::erase_if(keys_, [prefix](const std::string& key) { return key.starts_with(prefix); });
}

}  // namespace mangrove
