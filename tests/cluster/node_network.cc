#include "tests/cluster/node_network.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <stdexcept>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using Words = std::vector<std::string>;

constexpr char kPrefix[] = "mangrove-soak-";  // Then the process, '-', and the node.

std::string Host(int node) { return absl::StrCat("10.77.0.", node); }

// The administrator's programs are not on everybody's path.
Words AsAdministrator(const Words& command) {
  Words words{"/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

absl::Status Do(const Words& command) {
  const Output output = RunProgram(AsAdministrator(command));
  if (output.exit_code == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("\"", absl::StrJoin(command, " "), "\" ended with ", output.exit_code, ": ", output.err));
}

void MustDo(const Words& command) {
  const absl::Status done = Do(command);
  if (!done.ok()) throw std::runtime_error(std::string(done.message()));
}

// Those of processes that were killed.
void RemoveLeftOver() {
  std::error_code none_there;
  for (const auto& entry : std::filesystem::directory_iterator("/run/netns", none_there)) {
    const std::string name = entry.path().filename();
    const std::vector<std::string> parts = absl::StrSplit(name, '-');
    pid_t process = 0;
    if (!name.starts_with(kPrefix) || parts.size() != 4 || !absl::SimpleAtoi(parts[2], &process)) continue;
    if (kill(process, 0) != 0 && errno == ESRCH) Do({"ip", "netns", "delete", name}).IgnoreError();
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<NodeNetwork>> NodeNetwork::Make(int nodes) {
  if (geteuid() != 0) return absl::UnavailableError("this is not root");
  RemoveLeftOver();
  std::unique_ptr<NodeNetwork> network(new NodeNetwork(nodes));
  const absl::Status set_up = network->SetUp();
  if (!set_up.ok()) return set_up;
  return network;
}

NodeNetwork::~NodeNetwork() {
  // What was not made is not there to be removed.
  for (int node = 0; node <= nodes_; ++node) Do({"ip", "netns", "delete", Namespace(node)}).IgnoreError();
}

std::string NodeNetwork::Namespace(int node) const {
  return absl::StrCat(kPrefix, getpid(), "-", node == 0 ? "bridge" : absl::StrCat(node));
}

Words NodeNetwork::Within(int node, const Words& command) const {
  Words words{"ip", "netns", "exec", Namespace(node)};
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

absl::Status NodeNetwork::SetUp() {
  const std::string bridge = Namespace(0);
  std::vector<Words> commands{{"ip", "netns", "add", bridge},
                              {"ip", "-n", bridge, "link", "add", "bridge", "type", "bridge"},
                              {"ip", "-n", bridge, "link", "set", "bridge", "up"}};
  for (int node = 1; node <= nodes_; ++node) {
    const std::string own = Namespace(node);
    const std::string port = absl::StrCat("port", node);
    commands.insert(commands.end(),
                    {{"ip", "netns", "add", own},
                     {"ip", "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own},
                     {"ip", "-n", bridge, "link", "set", port, "master", "bridge", "up"},
                     {"ip", "-n", own, "address", "add", absl::StrCat(Host(node), "/24"), "dev", "eth0"},
                     {"ip", "-n", own, "link", "set", "eth0", "up"},
                     {"ip", "-n", own, "link", "set", "lo", "up"},
                     Within(node, {"nft",
                                   "add table inet soak; "
                                   "add chain inet soak in { type filter hook input priority 0; }; "
                                   "add chain inet soak out { type filter hook output priority 0; }"})});
  }
  for (const Words& command : commands) {
    const absl::Status done = Do(command);
    if (!done.ok()) return done;
  }
  return absl::OkStatus();
}

std::vector<std::string> NodeNetwork::hosts() const {
  std::vector<std::string> all;
  for (int node = 1; node <= nodes_; ++node) all.push_back(Host(node));
  return all;
}

std::vector<Words> NodeNetwork::launchers() const {
  std::vector<Words> all;
  for (int node = 1; node <= nodes_; ++node) all.push_back(AsAdministrator(Within(node, {})));
  return all;
}

void NodeNetwork::CutOff(int node, Cut cut) {
  std::string rules;
  if (cut != Cut::kHears) absl::StrAppend(&rules, "add rule inet soak in iifname eth0 drop; ");
  if (cut != Cut::kIsHeard) absl::StrAppend(&rules, "add rule inet soak out oifname eth0 drop; ");
  MustDo(Within(node, {"nft", rules}));
}

void NodeNetwork::Separate(const std::vector<int>& some, const std::vector<int>& others) {
  std::vector<std::string> hosts;
  for (const int other : others) hosts.push_back(Host(other));
  const std::string all = absl::StrJoin(hosts, ", ");
  for (const int node : some) {
    MustDo(Within(node, {"nft", absl::StrCat("add rule inet soak in ip saddr { ", all,
                                             " } drop; add rule inet soak out ip daddr { ", all, " } drop")}));
  }
}

void NodeNetwork::Heal(int node) { MustDo(Within(node, {"nft", "flush table inet soak"})); }

}  // namespace mangrove::cluster_test
