#include "engine/node_config.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "net/check.h"

// The only source that knows the library.
#include <toml++/toml.h>

namespace mangrove {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr size_t kMaxNameBytes = 63;
constexpr size_t kMaxSocketPathBytes = 107;  // sockaddr_un has 108, with the NUL.
constexpr size_t kMaxMembers = 1024;
constexpr uint32_t kMostSystemReplicas = UINT8_MAX;     // A byte of the handshake.
constexpr int64_t kMaxNodeId = (int64_t{1} << 60) - 1;  // Ten levels of groups.
constexpr size_t kMaxShownValueBytes = 80;

// What a number in the file may be, in the unit of its key.
struct Bounds {
  int64_t min;
  int64_t max;
  const char* unit;
};
constexpr Bounds kCacheSizeMib{1, int64_t{1} << 24, " MiB"};
constexpr Bounds kFaultTimeoutMs{1, 3'600'000, " ms"};
constexpr Bounds kSpinUs{0, 1'000'000, " us"};
constexpr Bounds kDiskReserveMib{0, int64_t{1} << 40, " MiB"};
constexpr Bounds kMonitorsAbove{0, NodeDatabase::kMostNodes, " nodes"};
constexpr Bounds kRepairLimitMib{1, int64_t{1} << 20, " MiB/s"};
constexpr Bounds kFoundBefore{0, int64_t{1} << 40, " s"};
constexpr Bounds kLeaseMs{kLeastLeaseMs, kMostLeaseMs, " ms"};
constexpr Bounds kReplaceAfterS{kLeastReplaceAfterS, kMostReplaceAfterS, " s"};
constexpr Bounds kReweighAfterS{0, kMostReplaceAfterS, " s"};
constexpr Bounds kReplicas{1, kMaxMembers, ""};
constexpr Bounds kSystemReplicas{1, kMostSystemReplicas, ""};
constexpr Bounds kId{1, kMaxNodeId, ""};
constexpr Bounds kVotes{0, kMaxVotes, ""};
constexpr size_t kMaxAnchors = 64;

// What is wrong with which key. Keys are written as in the file, members are counted from 1: "members[2].name".
struct Problem {
  std::string key;
  std::string text;
};
using Finding = std::optional<Problem>;

std::string Quoted(std::string_view text) {
  std::string shown(text.substr(0, kMaxShownValueBytes));
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(shown), text.size() > shown.size() ? "…\"" : "\"");
}

std::string Expected(const Bounds& bounds) {
  return absl::StrCat("expected a whole number from ", bounds.min, " to ", bounds.max, bounds.unit);
}

// --- What the types do not say ----------------------------------------------------------------------------------------

Finding CheckName(const std::string& key, const std::string& name) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  if (!name.empty() && name.size() <= kMaxNameBytes && name.front() != '-' && name.front() != '.' &&
      std::all_of(name.begin(), name.end(), allowed)) {
    return std::nullopt;
  }
  return Problem{key, absl::StrCat("is ", Quoted(name), ", expected 1 to ", kMaxNameBytes,
                                   " letters, digits, '-', '_' and '.', not beginning with '-' or '.'")};
}

Finding CheckPath(const std::string& key, const std::string& path, const char* what) {
  if (path.empty()) return Problem{key, absl::StrCat("is empty, expected the path of ", what)};
  if (path.find('\0') != std::string::npos)
    return Problem{key, absl::StrCat("is ", Quoted(path), ", expected no NUL in it")};
  return std::nullopt;
}

// `unit`: of the bounds, in that of `value`.
Finding CheckNumber(const std::string& key, uint64_t value, const Bounds& bounds, uint64_t unit) {
  if (value % unit == 0 && value / unit >= static_cast<uint64_t>(bounds.min) &&
      value / unit <= static_cast<uint64_t>(bounds.max)) {
    return std::nullopt;
  }
  const std::string shown = value % unit == 0 ? absl::StrCat(value / unit, bounds.unit) : absl::StrCat(value, " bytes");
  return Problem{key, absl::StrCat("is ", shown, ", ", Expected(bounds))};
}

bool IsAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port == 0 || port > 65535) {
    return false;
  }
  if (!std::all_of(address.begin() + static_cast<ptrdiff_t>(colon) + 1, address.end(), absl::ascii_isdigit))
    return false;
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return false;
  }
  return !host.empty() && host.size() <= 253 && host.find_first_of("[] \t/") == std::string::npos;
}

Finding CheckMember(const std::string& key, const MemberConfig& member) {
  if (Finding f = CheckNumber(key + ".id", member.id.value, kId, 1)) return f;
  if (Finding f = CheckName(key + ".name", member.name)) return f;
  if (!IsAddress(member.address)) {
    return Problem{key + ".address",
                   absl::StrCat("is ", Quoted(member.address),
                                ", expected \"host:port\" or \"[IPv6 address]:port\" with a port from "
                                "1 to 65535")};
  }
  if (member.votes) {
    if (Finding f = CheckNumber(key + ".votes", *member.votes, kVotes, 1)) return f;
  }
  return std::nullopt;
}

std::string TableKey(const char* list, size_t index) { return absl::StrCat(list, "[", index + 1, "]"); }
std::string MemberKey(size_t index) { return TableKey("members", index); }

// Two nodes may share nothing that tells them apart.
Finding CheckDuplicates(const std::vector<MemberConfig>& members) {
  for (size_t later = 0; later < members.size(); ++later) {
    const std::string key = MemberKey(later);
    for (size_t earlier = 0; earlier < later; ++earlier) {
      const MemberConfig& a = members[earlier];
      const MemberConfig& b = members[later];
      const auto taken = [&](const char* field, const std::string& value) {
        return Problem{absl::StrCat(key, ".", field), absl::StrCat("is ", value, ", as that of ", MemberKey(earlier),
                                                                   "; expected one that no other member has")};
      };
      if (a.id == b.id) return taken("id", std::to_string(b.id.value));
      if (a.name == b.name) return taken("name", Quoted(b.name));
      if (a.address == b.address) return taken("address", Quoted(b.address));
    }
  }
  return std::nullopt;
}

Finding CheckMembers(const NodeConfig& config) {
  if (config.members.empty() || config.members.size() > kMaxMembers) {
    return Problem{"members", absl::StrCat("has ", config.members.size(), " tables, expected 1 to ", kMaxMembers,
                                           ": a [[members]] for each node of the cluster, this one included")};
  }
  for (size_t i = 0; i < config.members.size(); ++i) {
    if (Finding f = CheckMember(MemberKey(i), config.members[i])) return f;
  }
  if (Finding f = CheckDuplicates(config.members)) return f;
  std::vector<std::string> names;
  for (const MemberConfig& member : config.members) names.push_back(member.name);
  if (std::find(names.begin(), names.end(), config.name) == names.end()) {
    return Problem{"node.name", absl::StrCat("is ", Quoted(config.name),
                                             ", expected one of the members: ", absl::StrJoin(names, ", "))};
  }
  const auto gives_votes = [](const MemberConfig& member) { return member.votes.has_value(); };
  const auto is_anchor = [](const MemberConfig& member) { return member.votes.value_or(0) > 0; };
  const auto anchors = std::count_if(config.members.begin(), config.members.end(), is_anchor);
  if (std::any_of(config.members.begin(), config.members.end(), gives_votes) &&
      (anchors == 0 || static_cast<size_t>(anchors) > kMaxAnchors)) {
    return Problem{"members", absl::StrCat("has ", anchors, " tables with votes above 0, expected 1 to ", kMaxAnchors,
                                           ", or no votes at all: then the first members have them")};
  }
  return std::nullopt;
}

Finding CheckMounts(const std::vector<MountConfig>& mounts) {
  std::set<std::string> directories;
  for (size_t i = 0; i < mounts.size(); ++i) {
    const auto& [fileset, directory, options] = mounts[i];
    const std::string key = TableKey("mounts", i);
    if (fileset.empty()) return Problem{key + ".fileset", "is empty, expected the name of a fileset"};
    if (Finding f = CheckPath(key + ".directory", directory, "a directory")) return f;
    const auto problem = [&](const char* expected) {
      return Problem{key + ".directory", absl::StrCat("is ", Quoted(directory), ", expected ", expected)};
    };
    if (directory.front() != '/') return problem("an absolute path");
    if (!directories.insert(directory).second) return problem("one that no other mount has");
  }
  return std::nullopt;
}

Finding FindProblem(const NodeConfig& config) {
  static const std::set<std::string> kLevels{"debug", "info", "warning", "error", "off"};
  if (Finding f = CheckName("node.name", config.name)) return f;
  if (Finding f = CheckPath("node.data_dir", config.data_dir, "a directory")) return f;
  if (config.socket_path.size() > kMaxSocketPathBytes || config.socket_path.find('\0') != std::string::npos) {
    return Problem{"node.socket",
                   absl::StrCat("is ", Quoted(config.socket_path), ", expected a path of at most ", kMaxSocketPathBytes,
                                " bytes; this one has ", config.socket_path.size())};
  }
  if (Finding f = CheckNumber("node.cache_size_mib", config.cache_size_bytes, kCacheSizeMib, kMiB)) return f;
  if (Finding f = CheckNumber("node.disk_reserve_mib", config.disk_reserve_bytes, kDiskReserveMib, kMiB)) return f;
  if (const uint64_t limit = config.repair_bytes_per_second; limit != 0) {
    if (Finding f = CheckNumber("node.repair_limit_mib_per_s", limit, kRepairLimitMib, kMiB)) return f;
  }
  const auto milliseconds = static_cast<uint64_t>(config.fault_timeout_ms);
  if (Finding f = CheckNumber("node.fault_timeout_ms", milliseconds, kFaultTimeoutMs, 1)) return f;
  if (Finding f = CheckNumber("node.spin_us", static_cast<uint64_t>(config.spin_us), kSpinUs, 1)) return f;
  if (Finding f = CheckNumber("node.monitors_above", config.monitors_above, kMonitorsAbove, 1)) return f;
  if (config.provider.empty()) return Problem{"node.provider", "is empty, expected \"tcp\" or \"verbs\""};
  if (!kLevels.contains(config.log_level)) {
    return Problem{"node.log_level",
                   absl::StrCat("is ", Quoted(config.log_level), ", expected one of ", absl::StrJoin(kLevels, ", "))};
  }
  if (Finding f = CheckName("cluster.name", config.cluster_name)) return f;
  if (Finding f = CheckPath("cluster.key_file", config.key_file, "the file with the cluster's key")) return f;
  if (config.security != Name(Security::kAuthenticated) && config.security != Name(Security::kEncrypted)) {
    return Problem{"cluster.security",
                   absl::StrCat("is ", Quoted(config.security), ", expected \"", Name(Security::kAuthenticated),
                                "\" or \"", Name(Security::kEncrypted), "\"")};
  }
  if (Finding f = CheckNumber("cluster.replicas", config.replicas, kReplicas, 1)) return f;
  if (const uint64_t system = config.system_replicas; system != 0) {
    if (Finding f = CheckNumber("cluster.system_replicas", system, kSystemReplicas, 1)) return f;
  }
  if (Finding f = CheckNumber("cluster.lease_ms", config.lease_ms, kLeaseMs, 1)) return f;
  if (Finding f = CheckNumber("cluster.replace_after_s", config.replace_after_s, kReplaceAfterS, 1)) return f;
  if (Finding f = CheckNumber("cluster.reweigh_after_s", config.reweigh_after_s, kReweighAfterS, 1)) return f;
  if (Finding f = CheckMounts(config.mounts)) return f;
  return CheckMembers(config);
}

// --- The file ---------------------------------------------------------------------------------------------------------

std::string Shown(const toml::node& node) {
  if (node.is_table()) return "a table";
  if (node.is_array()) return "an array";
  if (const auto* text = node.as_string()) return Quoted(text->get());
  std::ostringstream out;
  node.visit([&out](const auto& value) { out << value; });
  return out.str();
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j + 1] + 1, row[j] + 1});
    }
  }
  return row.back();
}

// A key that may stand in a table of the file.
struct Key {
  const char* name;
  bool required;
  // Takes the value, or says what was expected.
  std::function<std::optional<std::string>(const toml::node&)> take;
};

Key StringKey(const char* name, bool required, std::string* out) {
  return {name, required, [out](const toml::node& node) -> std::optional<std::string> {
            const auto* text = node.as_string();
            if (text == nullptr) return "expected a string";
            *out = text->get();
            return std::nullopt;
          }};
}

template <typename Number>
Key NumberKey(const char* name, bool required, const Bounds& bounds, uint64_t unit, Number* out) {
  return {name, required, [=](const toml::node& node) -> std::optional<std::string> {
            const auto* number = node.as_integer();
            if (number == nullptr || number->get() < bounds.min || number->get() > bounds.max) return Expected(bounds);
            *out = static_cast<Number>(static_cast<uint64_t>(number->get()) * unit);
            return std::nullopt;
          }};
}

Key FlagKey(const char* name, bool required, bool* out) {
  return {name, required, [=](const toml::node& node) -> std::optional<std::string> {
            const auto* flag = node.as_boolean();
            if (flag == nullptr) return "expected true or false";
            *out = flag->get();
            return std::nullopt;
          }};
}

std::vector<Key> NodeKeys(NodeConfig* config) {
  return {
      StringKey("name", true, &config->name),
      StringKey("data_dir", true, &config->data_dir),
      StringKey("socket", false, &config->socket_path),
      NumberKey("cache_size_mib", false, kCacheSizeMib, kMiB, &config->cache_size_bytes),
      NumberKey("fault_timeout_ms", false, kFaultTimeoutMs, 1, &config->fault_timeout_ms),
      NumberKey("spin_us", false, kSpinUs, 1, &config->spin_us),
      StringKey("provider", false, &config->provider),
      StringKey("log_file", false, &config->log_file),
      StringKey("log_level", false, &config->log_level),
      NumberKey("disk_reserve_mib", false, kDiskReserveMib, kMiB, &config->disk_reserve_bytes),
      FlagKey("keep_headroom", false, &config->keep_headroom),
      NumberKey("repair_limit_mib_per_s", false, kRepairLimitMib, kMiB, &config->repair_bytes_per_second),
      FlagKey("evict_to_peers", false, &config->evict_to_peers),
      NumberKey("monitors_above", false, kMonitorsAbove, 1, &config->monitors_above),
  };
}

std::vector<Key> ClusterKeys(NodeConfig* config) {
  return {
      StringKey("name", true, &config->cluster_name),
      StringKey("key_file", true, &config->key_file),
      StringKey("security", false, &config->security),
      NumberKey("replicas", false, kReplicas, 1, &config->replicas),
      NumberKey("system_replicas", false, kSystemReplicas, 1, &config->system_replicas),
      NumberKey("found_before", false, kFoundBefore, 1, &config->found_before),
      NumberKey("lease_ms", false, kLeaseMs, 1, &config->lease_ms),
      NumberKey("replace_after_s", false, kReplaceAfterS, 1, &config->replace_after_s),
      NumberKey("reweigh_after_s", false, kReweighAfterS, 1, &config->reweigh_after_s),
  };
}

std::vector<Key> MemberKeys(MemberConfig* member) {
  return {
      NumberKey("id", true, kId, 1, &member->id.value),
      StringKey("name", true, &member->name),
      StringKey("address", true, &member->address),
      NumberKey("votes", false, kVotes, 1, &member->votes),
  };
}

std::vector<Key> MountKeys(MountConfig* mount) {
  return {
      StringKey("fileset", true, &mount->fileset),
      StringKey("directory", true, &mount->directory),
      StringKey("options", false, &mount->options),
  };
}

// Reads one file, remembering the line of every key for what is found wrong later.
class Reader {
 public:
  Finding Read(const toml::table& root, NodeConfig* config);
  // 0 if the key, and the tables around it, are not in the file.
  uint32_t LineOf(std::string key) const;

 private:
  Finding ReadSection(const std::string& name, const toml::node& node, const std::vector<Key>& keys);
  template <typename Table>
  Finding ReadTables(const char* name, const char* what, const toml::node& node, std::vector<Key> (*keys)(Table* table),
                     std::vector<Table>* tables);
  Finding ReadKeys(const std::string& section, const toml::table& table, const std::vector<Key>& keys);
  void Note(const std::string& key, const toml::source_region& source) { lines_[key] = source.begin.line; }

  std::map<std::string, uint32_t> lines_;
};

// By their place in the file, so that the first problem is the topmost one.
std::vector<std::pair<const toml::key*, const toml::node*>> InOrder(const toml::table& table) {
  std::vector<std::pair<const toml::key*, const toml::node*>> entries;
  for (const auto& [key, node] : table) entries.emplace_back(&key, &node);
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.first->source().begin.line < b.first->source().begin.line;
  });
  return entries;
}

std::string UnknownKey(std::string_view name, const std::vector<std::string>& known) {
  std::string closest;
  size_t distance = std::max<size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const size_t d = EditDistance(name, candidate);
    // Someone who leaves out the unit means it all the same.
    if (d < distance || (closest.empty() && name.size() > 3 && candidate.starts_with(name))) {
      closest = candidate;
      distance = std::min(d, distance);
    }
  }
  if (!closest.empty()) return absl::StrCat("is not a known key; did you mean '", closest, "'?");
  return absl::StrCat("is not a known key; expected one of ", absl::StrJoin(known, ", "));
}

Finding Reader::ReadKeys(const std::string& section, const toml::table& table, const std::vector<Key>& keys) {
  for (const auto& [name, node] : InOrder(table)) {
    const std::string path = absl::StrCat(section, ".", absl::Utf8SafeCHexEscape(std::string(name->str())));
    Note(path, name->source());
    const auto key = std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return name->str() == k.name; });
    if (key == keys.end()) {
      std::vector<std::string> known;
      for (const Key& k : keys) known.emplace_back(k.name);
      return Problem{path, UnknownKey(name->str(), known)};
    }
    if (const auto expected = key->take(*node))
      return Problem{path, absl::StrCat("is ", Shown(*node), ", ", *expected)};
  }
  for (const Key& key : keys) {
    if (key.required && !table.contains(key.name)) return Problem{absl::StrCat(section, ".", key.name), "is missing"};
  }
  return std::nullopt;
}

Finding Reader::ReadSection(const std::string& name, const toml::node& node, const std::vector<Key>& keys) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return Problem{name, absl::StrCat("is ", Shown(node), ", expected a table: [", name, "]")};
  return ReadKeys(name, *table, keys);
}

template <typename Table>
Finding Reader::ReadTables(const char* name, const char* what, const toml::node& node,
                           std::vector<Key> (*keys)(Table* table), std::vector<Table>* tables) {
  const toml::array* const list = node.as_array();
  if (list == nullptr) {
    return Problem{name, absl::StrCat("is ", Shown(node), ", expected a [[", name, "]] for each ", what)};
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string key = TableKey(name, i);
    Note(key, (*list)[i].source());
    Table table;
    if (Finding f = ReadSection(key, (*list)[i], keys(&table))) return f;
    tables->push_back(std::move(table));
  }
  return std::nullopt;
}

Finding Reader::Read(const toml::table& root, NodeConfig* config) {
  for (const auto& [name, node] : InOrder(root)) {
    const std::string section(name->str());
    Note(absl::Utf8SafeCHexEscape(section), name->source());
    Finding found;
    if (section == "node") {
      found = ReadSection(section, *node, NodeKeys(config));
    } else if (section == "cluster") {
      found = ReadSection(section, *node, ClusterKeys(config));
    } else if (section == "members") {
      found = ReadTables("members", "node of the cluster", *node, MemberKeys, &config->members);
    } else if (section == "mounts") {
      found = ReadTables("mounts", "fileset that is mounted", *node, MountKeys, &config->mounts);
    } else {
      found = Problem{absl::Utf8SafeCHexEscape(section), UnknownKey(section, {"node", "cluster", "members", "mounts"})};
    }
    if (found) return found;
  }
  for (const char* section : {"node", "cluster"}) {
    if (!root.contains(section)) return Problem{section, absl::StrCat("is missing; expected a table [", section, "]")};
  }
  return std::nullopt;
}

uint32_t Reader::LineOf(std::string key) const {
  while (true) {
    if (const auto line = lines_.find(key); line != lines_.end()) return line->second;
    const size_t dot = key.rfind('.');
    if (dot == std::string::npos) return 0;
    key.resize(dot);
  }
}

}  // namespace

const MemberConfig& NodeConfig::self() const {
  const auto member = std::find_if(members.begin(), members.end(), [&](const auto& m) { return m.name == name; });
  CHECK(member != members.end());
  return *member;
}

RecoveryTiming TimingOf(const NodeConfig& config) {
  return TimingOf(config.lease_ms * kMillisecond, config.replace_after_s * kSecond, config.reweigh_after_s * kSecond);
}

uint32_t SystemReplicasOf(const NodeConfig& config) {
  return std::min(config.system_replicas != 0 ? config.system_replicas : config.replicas, kMostSystemReplicas);
}

Security SecurityOf(const NodeConfig& config) {
  return config.security == Name(Security::kEncrypted) ? Security::kEncrypted : Security::kAuthenticated;
}

absl::Status CheckNodeRecord(const std::string& name, const std::string& address, uint32_t votes) {
  Finding f = CheckName("the node's name", name);
  if (!f && !IsAddress(address)) {
    f = Problem{"the node's address",
                absl::StrCat("is ", Quoted(address), ", expected \"host:port\" or \"[IPv6 address]:port\"")};
  }
  if (!f) f = CheckNumber("the number of its votes", votes, kVotes, 1);
  return f ? absl::InvalidArgumentError(absl::StrCat(f->key, " ", f->text)) : absl::OkStatus();
}

absl::Status ValidateNodeConfig(const NodeConfig& config) {
  const Finding found = FindProblem(config);
  if (!found) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(found->key, " ", found->text));
}

absl::StatusOr<NodeConfig> ParseNodeConfig(const std::string& text, const std::string& origin) {
  NodeConfig config;
  Reader reader;
  Finding found;
  try {
    const toml::table root = toml::parse(text);
    found = reader.Read(root, &config);
  } catch (const toml::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(origin, ":", error.source().begin.line, ": ", std::string(error.description())));
  }
  if (!found) found = FindProblem(config);
  if (!found) return config;
  const uint32_t line = reader.LineOf(found->key);
  return absl::InvalidArgumentError(
      absl::StrCat(origin, line > 0 ? absl::StrCat(":", line) : "", ": ", found->key, " ", found->text));
}

}  // namespace mangrove
