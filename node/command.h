// A command of the program "mangrove", and what it may be given. commands.cc runs them.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mangrove {

struct Options {
  std::string socket;
  double timeout_s = 10;
  bool json = false;
  bool watch = false;
  bool help = false;
  bool version = false;
  // Of some commands.
  std::optional<uint64_t> votes;
  std::optional<uint64_t> group;
  std::optional<uint64_t> replicas;
  std::optional<uint64_t> valid_s;
  bool anchor = false;
  bool encrypted = false;
  bool force = false;
  bool list = false;
  bool repair = false;
  std::string withdraw;
  std::string confirm;
  std::string name;
  std::string address;
  std::string directory;
  std::string without_quorum;
  std::optional<uint64_t> copies;
  std::optional<uint64_t> quota_bytes;  // 0: none.
  std::optional<uint64_t> quota_inodes;
  std::string mount_options;
};

struct Command {
  std::vector<std::string> words;
  const char* parameter;  // Null: it takes none. In brackets: it may be left out.
  const char* what;       // For Inspect.
  absl::StatusOr<std::string> (*render)(const std::string& document);
  const char* summary;
  const char* help;
  std::vector<std::string> flags = {};  // That it takes beside those of all.
  // What Inspect is given, where that is not the parameter itself.
  std::string (*argument)(const std::string& parameter, const Options& options) = nullptr;
  // Instead of Inspect: of this machine, without a daemon.
  absl::StatusOr<std::string> (*set_up)(const std::string& parameter, const Options& options) = nullptr;
  const char* second = nullptr;  // Another parameter: it becomes the directory.
  // Why what was asked for is not done, although there is a document about it; empty: it is.
  std::string (*refused)(const std::string& document) = nullptr;
};

// page_commands.cc: regions, pages, the directory, logs.
std::vector<Command> PageCommands();
// Of a command that does what cannot be undone: without --confirm it only says what that is.
std::string ConfirmedArgument(const std::string& parameter, const Options& options);
// The same, where --confirm is what it said.
std::string ShownArgument(const std::string& parameter, const Options& options);
std::string SetRegionArgument(const std::string& region, const Options& options);

}  // namespace mangrove
