// The files that a node is told: its configuration and its cluster's key.

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <chrono>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/mapping/unique_fd.h"
#include "engine/node_config.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr off_t kMaxConfigBytes = 1 << 20;
constexpr size_t kKeyDigits = 2 * kClusterKeyBytes;
constexpr size_t kMaxKeys = 8;

absl::Status FileError(const std::string& what, const std::string& path, int error) {
  const std::string text = absl::StrCat("cannot read ", what, " ", path, ": ", strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(text);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(text);
  return absl::UnavailableError(text);
}

// `what` names the file for people. `check` sees the file before it is read.
absl::StatusOr<std::string> ReadSmallFile(const std::string& what, const std::string& path, off_t max_bytes,
                                          absl::Status (*check)(const std::string&, const struct stat&)) {
  // Without O_NONBLOCK a pipe that nobody writes to would hold us up.
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (!file.ok() || fstat(file.get(), &info) != 0) return FileError(what, path, errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a file; expected ", what, " there"));
  }
  if (check != nullptr) {
    if (absl::Status s = check(path, info); !s.ok()) return s;
  }
  if (info.st_size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", info.st_size, " bytes; expected at most ", max_bytes, " of ", what));
  }
  std::string text(static_cast<size_t>(max_bytes) + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(what, path, errno);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  text.resize(size);
  return text;
}

// Whoever else can read the key can join the cluster.
absl::Status CheckKeyIsSecret(const std::string& path, const struct stat& info) {
  if ((info.st_mode & 077) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrFormat(
      "the cluster's key %s has mode %04o, so others can use it; expected 0600 or 0400: run chmod 600 %s", path,
      info.st_mode & 07777, path));
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

absl::Status KeyError(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("the cluster's key ", path, " ", what, "; expected keys of ", kKeyDigits,
                   " hexadecimal digits, each on lines of its own, as from: od -An -v -tx1 -N32 /dev/urandom"));
}

}  // namespace

absl::StatusOr<NodeConfig> LoadNodeConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile("the configuration", path, kMaxConfigBytes, nullptr);
  if (!text.ok()) return text.status();
  return ParseNodeConfig(*text, path);
}

std::string FormatNodeConfig(const NodeConfig& config) {
  const auto quoted = [](const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      } else {
        out += c;
      }
    }
    return out + "\"";
  };
  const NodeConfig defaults;
  std::string text =
      absl::StrCat("[node]\nname = ", quoted(config.name), "\ndata_dir = ", quoted(config.data_dir), "\n");
  if (!config.socket_path.empty()) absl::StrAppend(&text, "socket = ", quoted(config.socket_path), "\n");
  absl::StrAppend(&text, "cache_size_mib = ", config.cache_size_bytes >> 20, "\n");
  if (config.provider != defaults.provider) absl::StrAppend(&text, "provider = ", quoted(config.provider), "\n");
  if (config.keep_headroom != defaults.keep_headroom) absl::StrAppend(&text, "keep_headroom = false\n");
  if (config.repair_bytes_per_second != 0) {
    absl::StrAppend(&text, "repair_limit_mib_per_s = ", config.repair_bytes_per_second >> 20, "\n");
  }
  absl::StrAppend(&text, "\n[cluster]\nname = ", quoted(config.cluster_name), "\nkey_file = ", quoted(config.key_file),
                  "\nreplicas = ", config.replicas, "\n");
  if (config.system_replicas != 0) absl::StrAppend(&text, "system_replicas = ", config.system_replicas, "\n");
  if (config.found_before != 0) {
    absl::StrAppend(
        &text,
        "# Later the node founds no cluster: it has one, and an empty disk is one that was replaced.\nfound_before = ",
        config.found_before, "\n");
  }
  if (config.lease_ms != defaults.lease_ms) absl::StrAppend(&text, "lease_ms = ", config.lease_ms, "\n");
  if (config.replace_after_s != defaults.replace_after_s) {
    absl::StrAppend(&text, "replace_after_s = ", config.replace_after_s, "\n");
  }
  if (config.reweigh_after_s != defaults.reweigh_after_s) {
    absl::StrAppend(&text, "reweigh_after_s = ", config.reweigh_after_s, "\n");
  }
  if (config.security != defaults.security) absl::StrAppend(&text, "security = ", quoted(config.security), "\n");
  absl::StrAppend(
      &text,
      "\n# Whom the node knows at its first start. From then on the anchors say who the nodes are: `mangrove node`.\n");
  for (const MemberConfig& member : config.members) {
    absl::StrAppend(&text, "[[members]]\nid = ", member.id.value, "\nname = ", quoted(member.name),
                    "\naddress = ", quoted(member.address), "\n");
    if (member.votes) absl::StrAppend(&text, "votes = ", *member.votes, "\n");
  }
  for (const MountConfig& mount : config.mounts) {
    absl::StrAppend(&text, "[[mounts]]\nfileset = ", quoted(mount.fileset), "\ndirectory = ", quoted(mount.directory),
                    "\n");
    if (!mount.options.empty()) absl::StrAppend(&text, "options = ", quoted(mount.options), "\n");
  }
  return text;
}

std::map<NodeId, uint32_t> VotesOf(const NodeConfig& config) {
  std::map<NodeId, uint32_t> votes;
  bool are_given = false;
  for (const MemberConfig& member : config.members) {
    votes[member.id] = member.votes.value_or(0);
    are_given |= member.votes.has_value();
  }
  int left = are_given ? 0 : votes.size() >= 3 ? 3 : 1;
  for (auto& [node, count] : votes) {
    if (left-- > 0) count = 1;
  }
  return votes;
}

NodeIdentity NewIdentity(const std::string& address) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.space = XXH3_64bits(address.data(), address.size()),
          .time = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count())};
}

std::map<NodeId, NodeRecord> NodesOf(const NodeConfig& config) {
  std::map<NodeId, NodeRecord> nodes;
  const std::map<NodeId, uint32_t> votes = VotesOf(config);
  for (const MemberConfig& member : config.members) {
    nodes[member.id] = {.name = member.name,
                        .address = member.address,
                        .votes = votes.at(member.id),
                        .identity = NewIdentity(member.address)};
  }
  return nodes;
}

ClusterId ClusterIdOf(const std::string& cluster_name) {
  const XXH128_hash_t hash = XXH3_128bits(cluster_name.data(), cluster_name.size());
  return {hash.high64, hash.low64};
}

ClusterKey NewClusterKey(Entropy* entropy) {
  ClusterKey key;
  for (size_t i = 0; i < key.size(); i += sizeof(uint64_t)) StoreLittle<uint64_t>(key.data() + i, entropy->Next());
  return key;
}

std::string FormatClusterKeys(const std::vector<ClusterKey>& keys) {
  std::string text;
  for (const ClusterKey& key : keys) {
    for (const std::byte byte : key) absl::StrAppendFormat(&text, "%02x", std::to_integer<unsigned>(byte));
    text += '\n';
  }
  return text;
}

// A key may go over lines, as od prints it; a line is never of two keys, so that a digit that is missing is noticed.
absl::StatusOr<std::vector<ClusterKey>> LoadClusterKeys(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile("the cluster's key", path, 4096, CheckKeyIsSecret);
  if (!text.ok()) return text.status();
  std::vector<ClusterKey> keys;
  size_t digits = kKeyDigits;  // Of the last one.
  bool line_has_ended = true;
  for (size_t i = 0; i < text->size(); ++i) {
    const char c = (*text)[i];
    if (c == '\n') line_has_ended = true;
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
    const int digit = HexDigit(c);
    if (digit < 0) return KeyError(path, absl::StrCat("has something else than a digit as its byte ", i + 1));
    if (digits == kKeyDigits) {
      if (!line_has_ended) return KeyError(path, absl::StrCat("has more digits in the line of key ", keys.size()));
      if (keys.size() == kMaxKeys) return KeyError(path, absl::StrCat("has more than ", kMaxKeys, " keys"));
      keys.emplace_back();
      digits = 0;
    }
    line_has_ended = false;
    std::byte& into = keys.back()[digits / 2];
    into = into << 4 | static_cast<std::byte>(digit);
    ++digits;
  }
  if (keys.empty()) return KeyError(path, "has 0 digits");
  if (digits != kKeyDigits) return KeyError(path, absl::StrCat("has ", digits, " digits in key ", keys.size()));
  return keys;
}

}  // namespace mangrove
