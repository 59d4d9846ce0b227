#include "node/mount_command.h"

#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/node_config.h"
#include "fs/mount/mount.h"

namespace mangrove {
namespace {

// mount(8)'s exit codes.
constexpr int kHelperDone = 0;
constexpr int kHelperUsage = 1;
constexpr int kHelperFailed = 32;

// For mount(8), systemd or libfuse, or what a mount does anyway.
bool IsPassedOver(std::string_view option) {
  constexpr std::string_view kKnown[] = {
      "",       "defaults", "_netdev", "auto",  "noauto",  "nofail",      "user",
      "nouser", "users",    "nousers", "owner", "noowner", "group",       "nogroup",
      "async",  "relatime", "atime",   "loud",  "silent",  "allow_other", "default_permissions"};
  if (std::find(std::begin(kKnown), std::end(kKnown), option) != std::end(kKnown)) return true;
  return option.starts_with("x-") || option.starts_with("X-") || option.starts_with("comment=");
}

absl::Status Remount(const std::string& directory, const std::vector<std::string>& options) {
  unsigned long flags = MS_REMOUNT;  // NOLINT: mount(2) has it so.
  for (const std::string& option : options) {
    if (option == "ro") flags |= MS_RDONLY;
    if (option == "rw") flags &= ~static_cast<unsigned long>(MS_RDONLY);  // NOLINT
    if (option == "noexec") flags |= MS_NOEXEC;
    if (option == "nosuid") flags |= MS_NOSUID;
    if (option == "nodev") flags |= MS_NODEV;
    if (option == "noatime") flags |= MS_NOATIME;
  }
  if (mount(nullptr, directory.c_str(), nullptr, flags, nullptr) == 0) return absl::OkStatus();
  const int error = errno;
  return absl::UnknownError(absl::StrCat("remounting ", directory, ": ", std::strerror(error)));
}

// Programs may have set-user-id bits, and devices be used, unless that is forbidden: so mount(8) has it.
void AllowUnlessForbidden(std::vector<std::string>* options, const std::string& allowed) {
  const auto has = [&](const std::string& option) {
    return std::find(options->begin(), options->end(), option) != options->end();
  };
  if (!has(allowed) && !has("no" + allowed)) options->push_back(allowed);
}

struct HelperWords {
  std::string fileset;
  std::string directory;
  std::string options;
  bool only_seems = false;
};

absl::StatusOr<HelperWords> ParseHelperWords(std::span<const std::string> arguments) {
  HelperWords words;
  std::vector<std::string> names;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const bool has_value = word == "-o" || word == "-t" || word == "-N";
    if (has_value && i + 1 == arguments.size()) return absl::InvalidArgumentError(absl::StrCat(word, " has no value"));
    if (has_value) {
      ++i;
      if (word == "-o") absl::StrAppend(&words.options, words.options.empty() ? "" : ",", arguments[i]);
    } else if (word.size() > 1 && word[0] == '-') {
      const size_t unknown = word.find_first_not_of("sfnvw", 1);
      if (unknown != word.npos) return absl::InvalidArgumentError(absl::StrCat("unknown option ", word));
      if (absl::StrContains(word, 'f')) words.only_seems = true;
    } else {
      names.push_back(word);
    }
  }
  if (names.size() != 2) return absl::InvalidArgumentError("expected FILESET DIR [-o OPTIONS]");
  words.fileset = names[0];
  words.directory = names[1];
  return words;
}

absl::StatusOr<std::string> SocketOf(const MountWords& words) {
  if (words.config.empty() || !words.socket.empty()) return words.socket;
  const absl::StatusOr<NodeConfig> config = LoadNodeConfig(words.config);
  if (!config.ok()) return config.status();
  if (!config->socket_path.empty()) return config->socket_path;
  return absl::InvalidArgumentError(absl::StrCat(words.config, " names no socket"));
}

}  // namespace

absl::StatusOr<MountWords> ParseMountOptions(std::string_view text) {
  MountWords words;
  const std::pair<std::string_view, std::string*> values[] = {
      {"socket=", &words.socket}, {"config=", &words.config}, {"timeout=", &words.timeout}};
  const std::vector<std::string> options = absl::StrSplit(absl::string_view(text.data(), text.size()), ',');
  for (const std::string& option : options) {
    bool is_known = IsPassedOver(option);
    for (const auto& [name, value] : values) {
      if (!option.starts_with(name)) continue;
      *value = option.substr(name.size());
      is_known = true;
    }
    if (option == "remount") {
      words.remounts = is_known = true;
    } else if (fs::IsMountOption(option)) {
      words.options.push_back(option);
      is_known = true;
    }
    if (!is_known) return absl::InvalidArgumentError(absl::StrCat("unknown mount option \"", option, "\""));
  }
  return words;
}

absl::StatusOr<std::vector<std::string>> ParseOwnMountOptions(std::string_view text) {
  absl::StatusOr<MountWords> words = ParseMountOptions(text);
  if (!words.ok()) return words.status();
  const std::pair<bool, const char*> others[] = {{words->remounts, "remount"},
                                                 {!words->socket.empty(), "socket"},
                                                 {!words->config.empty(), "config"},
                                                 {!words->timeout.empty(), "timeout"}};
  for (const auto& [is_there, name] : others) {
    if (!is_there) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the option \"", name, "\" is for commands, not for a daemon's own mounts"));
  }
  return std::move(words->options);
}

std::string AbsoluteDirectory(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(directory, error).lexically_normal();
  const std::string text = error ? directory : path.string();
  return text.size() > 1 && text.back() == '/' ? text.substr(0, text.size() - 1) : text;
}

std::string UnmountRequest(const std::string& directory, bool by_force) {
  return nlohmann::json{{"directory", AbsoluteDirectory(directory)}, {"force", by_force}}.dump();
}

std::string MountRequest(const std::string& fileset, const std::string& directory, const std::string& options) {
  const absl::StatusOr<MountWords> words = ParseMountOptions(options);
  return nlohmann::json{{"fileset", fileset},
                        {"directory", AbsoluteDirectory(directory)},
                        {"options", words.ok() ? words->options : std::vector<std::string>()}}
      .dump();
}

int RunMountHelper(std::span<const std::string> arguments, const CommandEnvironment& environment) {
  const auto fail = [&](int code, const absl::Status& status) {
    environment.err << kMountHelperName << ": " << status.message() << "\n";
    return code;
  };
  const absl::StatusOr<HelperWords> words = ParseHelperWords(arguments);
  if (!words.ok()) return fail(kHelperUsage, words.status());
  absl::StatusOr<MountWords> parsed = ParseMountOptions(words->options);
  if (!parsed.ok()) return fail(kHelperUsage, parsed.status());
  if (words->only_seems) return kHelperDone;
  if (parsed->remounts) {
    const absl::Status remounted = Remount(words->directory, parsed->options);
    return remounted.ok() ? kHelperDone : fail(kHelperFailed, remounted);
  }
  const absl::StatusOr<std::string> socket = SocketOf(*parsed);
  if (!socket.ok()) return fail(kHelperUsage, socket.status());
  AllowUnlessForbidden(&parsed->options, "suid");
  AllowUnlessForbidden(&parsed->options, "dev");
  std::vector<std::string> command{"mount", "-o", absl::StrJoin(parsed->options, ","), words->fileset,
                                   words->directory};
  if (!socket->empty()) command.insert(command.end(), {"--socket", *socket});
  if (!parsed->timeout.empty()) command.insert(command.end(), {"--timeout", parsed->timeout});
  std::ostringstream unread;
  const CommandEnvironment quiet{.inspect = environment.inspect,
                                 .socket_path = environment.socket_path,
                                 .out = unread,
                                 .err = environment.err,
                                 .wait_to_look = environment.wait_to_look};
  const int code = RunCommand(command, quiet);
  return code == kExitDone ? kHelperDone : code == kExitUsage ? kHelperUsage : kHelperFailed;
}

}  // namespace mangrove
