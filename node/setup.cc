#include "node/setup.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "engine/join/join_token.h"
#include "engine/mapping/unique_fd.h"
#include "engine/node_config.h"
#include "net/runtime/system_entropy.h"

namespace mangrove {
namespace {

// A cluster that is made is started within that.
constexpr int64_t kFoundingTimeS = 24 * 3600;
constexpr mode_t kSecret = 0600;
constexpr mode_t kReadable = 0644;

absl::Status FileError(const char* what, const std::string& path, int error) {
  const std::string text = absl::StrCat("cannot ", what, " ", path, ": ", strerror(error));
  return error == EEXIST ? absl::AlreadyExistsError(absl::StrCat(text, "; this machine has a node there already"))
                         : absl::UnavailableError(text);
}

std::string ConfigPath(const SetupOptions& options) { return options.directory + "/mangroved.toml"; }
std::string KeyPath(const SetupOptions& options) { return options.directory + "/cluster.key"; }

// Whole and on the disk, or not there.
absl::Status WriteNewFile(const std::string& path, mode_t mode, const std::string& text) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (file.get() < 0) return FileError("make", path, errno);
  const bool is_written = write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (is_written && fsync(file.get()) == 0) return absl::OkStatus();
  const int error = errno;
  unlink(path.c_str());
  return FileError("write", path, error);
}

absl::Status CheckFree(const SetupOptions& options) {
  std::error_code error;
  for (const std::string& path : {ConfigPath(options), KeyPath(options)}) {
    if (std::filesystem::exists(path, error)) return FileError("make", path, EEXIST);
  }
  return absl::OkStatus();
}

std::string KeyText(const std::vector<ClusterKey>& keys) {
  std::string text;
  for (const ClusterKey& key : keys) {
    const absl::string_view bytes(reinterpret_cast<const char*>(key.data()), key.size());
    absl::StrAppend(&text, absl::BytesToHexString(bytes), "\n");
  }
  return text;
}

// A daemon may be started from anywhere.
SetupOptions Absolute(SetupOptions options) {
  options.directory = std::filesystem::absolute(options.directory).lexically_normal().string();
  if (!options.socket.empty()) options.socket = std::filesystem::absolute(options.socket).string();
  return options;
}

absl::Status MakeDirectory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return FileError("make", directory, error.value());
  return access(directory.c_str(), W_OK) == 0 ? absl::OkStatus() : FileError("write to", directory, errno);
}

NodeConfig ConfigOf(const SetupOptions& options) {
  NodeConfig config;
  config.name = options.name;
  config.data_dir = options.directory + "/data";
  config.socket_path = options.socket.empty() ? options.directory + "/mangroved.sock" : options.socket;
  config.key_file = KeyPath(options);
  return config;
}

absl::Status WriteFiles(const SetupOptions& options, const NodeConfig& config, const std::vector<ClusterKey>& keys) {
  if (absl::Status status = ValidateNodeConfig(config); !status.ok()) return status;
  if (absl::Status status = MakeDirectory(options.directory); !status.ok()) return status;
  if (absl::Status status = WriteNewFile(KeyPath(options), kSecret, KeyText(keys)); !status.ok()) return status;
  absl::Status status = WriteNewFile(ConfigPath(options), kReadable, FormatNodeConfig(config));
  if (!status.ok()) unlink(KeyPath(options).c_str());
  return status;
}

std::string NextSteps(const SetupOptions& options, const NodeConfig& config) {
  return absl::StrCat("  start it:  mangroved --config ", ConfigPath(options), "\n  look:      mangrove --socket ",
                      config.socket_path, " status\n");
}

}  // namespace

absl::StatusOr<std::string> SetUpCluster(const SetupOptions& relative) {
  const SetupOptions options = Absolute(relative);
  if (absl::Status status = CheckNodeRecord(options.name, options.address, 1); !status.ok()) return status;
  if (absl::Status status = CheckFree(options); !status.ok()) return status;
  NodeConfig config = ConfigOf(options);
  config.cluster_name = options.cluster;
  config.replicas = options.replicas;
  if (options.is_encrypted) config.security = Name(Security::kEncrypted);
  config.found_before = absl::ToUnixSeconds(absl::Now()) + kFoundingTimeS;
  config.members.push_back({.id = NodeId(1), .name = options.name, .address = options.address, .votes = 1});
  ClusterKey key;
  SystemEntropy entropy;
  for (size_t i = 0; i < key.size(); i += sizeof(uint64_t)) {
    const uint64_t bits = entropy.Next();
    memcpy(key.data() + i, &bits, sizeof(bits));
  }
  if (absl::Status status = WriteFiles(options, config, {key}); !status.ok()) return status;
  return absl::StrCat("cluster ", options.cluster, " has its first node, ", options.name, ", which is its anchor.\n",
                      NextSteps(options, config), "  let others in: mangrove --socket ", config.socket_path,
                      " node token\n");
}

absl::StatusOr<std::string> SetUpJoin(const std::string& text, const SetupOptions& relative) {
  const SetupOptions options = Absolute(relative);
  if (absl::Status status = CheckNodeRecord(options.name, options.address, options.votes); !status.ok()) return status;
  if (absl::Status status = CheckFree(options); !status.ok()) return status;
  const absl::StatusOr<JoinToken> token = ParseJoinToken(text, absl::Now());
  if (!token.ok()) return token.status();
  // Before anybody is asked for anything.
  if (absl::Status status = MakeDirectory(options.directory); !status.ok()) return status;
  const JoinRequest request{
      .name = options.name, .address = options.address, .votes = options.votes, .group = options.group};
  const absl::StatusOr<JoinAnswer> answer = JoinCluster(*token, request, options.patience);
  if (!answer.ok()) return answer.status();
  NodeConfig config = ConfigOf(options);
  config.cluster_name = token->cluster_name;
  config.security = Name(token->security);
  config.replicas = answer->replicas;
  for (const JoinMember& member : answer->members) {
    config.members.push_back({.id = member.id, .name = member.name, .address = member.address, .votes = member.votes});
  }
  if (absl::Status status = WriteFiles(options, config, answer->keys); !status.ok()) return status;
  return absl::StrCat(options.name, " belongs to cluster ", token->cluster_name, " now, as node ", answer->node.value,
                      ".\n", NextSteps(options, config));
}

}  // namespace mangrove
