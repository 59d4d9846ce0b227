#include "node/setup.h"

#include <errno.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/join/join_token.h"
#include "engine/node_config.h"
#include "engine/whole_file.h"
#include "net/runtime/system_entropy.h"

namespace mangrove {
namespace {

// A cluster that is made is started within that.
constexpr int64_t kFoundingTimeS = 24 * 3600;
constexpr mode_t kReadable = 0644;

absl::Status HasNode(const absl::Status& status) {
  return absl::IsAlreadyExists(status)
             ? absl::AlreadyExistsError(absl::StrCat(status.message(), "; this machine has a node there already"))
             : status;
}

std::string ConfigPath(const SetupOptions& options) { return options.directory + "/mangroved.toml"; }
std::string KeyPath(const SetupOptions& options) { return options.directory + "/cluster.key"; }

absl::Status CheckFree(const SetupOptions& options) {
  std::error_code error;
  for (const std::string& path : {ConfigPath(options), KeyPath(options)}) {
    if (std::filesystem::exists(path, error)) return HasNode(FileError(EEXIST, "make", path));
  }
  return absl::OkStatus();
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
  if (error) return FileError(error.value(), "make", directory);
  return access(directory.c_str(), W_OK) == 0 ? absl::OkStatus() : FileError(errno, "write to", directory);
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
  absl::Status status = WriteWholeFile(KeyPath(options), kKeyFileMode, FormatClusterKeys(keys), IfThere::kRefuse);
  if (!status.ok()) return HasNode(status);
  status = WriteWholeFile(ConfigPath(options), kReadable, FormatNodeConfig(config), IfThere::kRefuse);
  if (!status.ok()) unlink(KeyPath(options).c_str());
  return HasNode(status);
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
  SystemEntropy entropy;
  if (absl::Status status = WriteFiles(options, config, {NewClusterKey(&entropy)}); !status.ok()) return status;
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
  if (answer->system_replicas != answer->replicas) config.system_replicas = answer->system_replicas;
  if (answer->lease_ms != 0) config.lease_ms = answer->lease_ms;
  for (const JoinMember& member : answer->members) {
    config.members.push_back({.id = member.id, .name = member.name, .address = member.address, .votes = member.votes});
  }
  if (absl::Status status = WriteFiles(options, config, answer->keys); !status.ok()) return status;
  return absl::StrCat(options.name, " belongs to cluster ", token->cluster_name, " now, as node ", answer->node.value,
                      ".\n", NextSteps(options, config));
}

}  // namespace mangrove
