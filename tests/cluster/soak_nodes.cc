#include "tests/cluster/soak_nodes.h"

#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace mangrove::cluster_test {
namespace {

constexpr char kEndsForItsStore[] = "what is durable is known only after a restart";
constexpr char kNodeSettings[] = "disk_reserve_mib = 64\n";
constexpr char kMonitorSettings[] = "monitors_above = 0\n";

std::string NameOf(int node) { return absl::StrCat("node-", node); }

// The program's configuration, with the disk and the settings that the others have.
std::string LikeTheOthers(const std::string& made, const std::string& data, const std::string& settings) {
  std::string text;
  const std::vector<std::string> lines = absl::StrSplit(made, '\n');
  for (const std::string& line : lines) {
    const bool says_where = absl::StartsWith(line, "data_dir = ");
    absl::StrAppend(&text,
                    says_where ? absl::StrCat("data_dir = \"", data, "\"\n", settings) : absl::StrCat(line, "\n"));
  }
  return text;
}

}  // namespace

SoakNodes::SoakNodes(const SoakOptions& options)
    : options_(options),
      all_(options.nodes + 1),
      network_(NodeNetwork::Make(all_)),
      cluster_(Options()),
      disks_(options.full_disks ? NodeDisks::Make(cluster_.directory(), all_)
                                : absl::CancelledError("they are not asked for")) {}

ClusterOptions SoakNodes::Options() const {
  ClusterOptions options{.nodes = all_, .joiners = 1, .node_settings = kNodeSettings};
  if (options_.has_monitors()) {
    options.node_settings += kMonitorSettings;
    options.ids = {1, 2, 3, 65, 66};  // Of the fourth and the fifth, which are no anchors, one is the other's.
    options.ids.resize(static_cast<size_t>(options_.nodes));
  }
  if (!network_.ok()) return options;
  options.hosts = (*network_)->hosts();
  options.launchers = (*network_)->launchers();
  return options;
}

SoakedCluster SoakNodes::cluster() const {
  return {.nodes = options_.nodes,
          .has_monitors = options_.has_monitors(),
          .has_network = network_.ok(),
          .has_disks = disks_.ok()};
}

std::string SoakNodes::sockets() const {
  std::vector<std::string> all;
  for (int node = 1; node <= options_.nodes; ++node) all.push_back(socket(node));
  return absl::StrJoin(all, ",");
}

std::string SoakNodes::DataOf(int node) const { return absl::StrCat(cluster_.directory(), "/data-", node); }

void SoakNodes::Found() { cluster_.StartAll(); }

Output SoakNodes::Command(const std::vector<std::string>& words) const {
  std::vector<std::string> command{"mangrove", "--socket", socket(1)};
  command.insert(command.end(), words.begin(), words.end());
  Output output = RunProgram(command);
  if (output.exit_code == 0) return output;
  throw std::runtime_error(
      absl::StrCat("\"mangrove ", absl::StrJoin(words, " "), "\" ended with ", output.exit_code, ": ", output.err));
}

void SoakNodes::Join() {
  const int joiner = all_;
  const Output joined = cluster_.Join(joiner, 1);
  if (joined.exit_code != 0) throw std::runtime_error(absl::StrCat(NameOf(joiner), " cannot join: ", joined.err));
  const std::string settings = absl::StrCat(kNodeSettings, options_.has_monitors() ? kMonitorSettings : "");
  cluster_.WriteConfig(joiner, LikeTheOthers(cluster_.MadeConfig(joiner), DataOf(joiner), settings));
  cluster_.Start(joiner);
}

void SoakNodes::JoinFirst() { Join(); }

// Nothing is left of the node that was there; not even its number.
void SoakNodes::JoinAgain() {
  draining_ = 0;
  EmptyDisk(all_);
  std::filesystem::remove_all(std::filesystem::path(cluster_.config(all_)).parent_path());
  Join();
}

void SoakNodes::EmptyDisk(int node) const {
  for (const auto& entry : std::filesystem::directory_iterator(DataOf(node))) std::filesystem::remove_all(entry);
}

// --- Faults -----------------------------------------------------------------------------------------------------------

void SoakNodes::Begin(const Fault& fault) {
  using enum FaultKind;
  const int first = fault.nodes.at(0);
  if (IsPause(fault)) {
    kill(cluster_.pid(first), SIGSTOP);
    return;
  }
  switch (fault.kind) {
    case kShortCut:
    case kLongCut: return (*network_)->CutOff(first, fault.cut);
    case kCutPair: return (*network_)->Separate({first}, {fault.nodes.at(1)});
    case kSplit: {
      std::vector<int> others;
      for (int node = 1; node <= all_; ++node) {
        if (!fault.Hits(node)) others.push_back(node);
      }
      return (*network_)->Separate(fault.nodes, others);
    }
    case kFullDisk: filled_ = first; return (*disks_)->Fill(first);
    case kDrain:
      draining_ = first;
      Command({"node", "drain", NameOf(first)});
      return;
    case kKillAll: return cluster_.KillAll();
    default:
      cluster_.KillAtOnce(fault.nodes);
      if (CostsADisk(fault)) EmptyDisk(first);
  }
}

bool SoakNodes::IsOver(const Fault& fault) const {
  return fault.kind != FaultKind::kDrain || !cluster_.IsRunning(fault.nodes.at(0));
}

void SoakNodes::End(const Fault& fault) {
  using enum FaultKind;
  if (fault.kind == kDrain) return JoinAgain();
  if (fault.kind == kFullDisk) (*disks_)->Free(fault.nodes.at(0));
  const bool cuts = fault.kind == kShortCut || fault.kind == kLongCut || fault.kind == kCutPair || fault.kind == kSplit;
  for (const int node : fault.nodes) {
    if (cuts) {
      (*network_)->Heal(node);
    } else if (cluster_.IsRunning(node)) {
      kill(cluster_.pid(node), SIGCONT);
    } else {
      cluster_.Start(node);
    }
  }
}

// A node whose disk is full may end: what is durable is known only after a restart. One that is drained does, when it is done.
bool SoakNodes::MayHaveEnded(int node, const siginfo_t& info) const {
  if (info.si_code != CLD_EXITED) return false;
  if (node == draining_) return info.si_status == EXIT_SUCCESS;
  return node == filled_ && info.si_status == EXIT_FAILURE && cluster_.LinesOf(node, kEndsForItsStore) > 0;
}

void SoakNodes::NoteEnds() {
  for (int node = 1; node <= all_; ++node) {
    if (!cluster_.IsRunning(node)) continue;
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(cluster_.pid(node)), &info, WEXITED | WNOHANG | WNOWAIT) != 0) continue;
    if (info.si_pid == 0) continue;
    if (!MayHaveEnded(node, info)) {
      throw std::runtime_error(absl::StrCat(NameOf(node), " has ended by itself, by ",
                                            info.si_code == CLD_EXITED ? "exit code " : "signal ", info.si_status));
    }
    cluster_.AwaitEnd(node);
    if (node == filled_) ++ended_for_their_disks_;
  }
}

void SoakNodes::RestartFilled() {
  NoteEnds();
  if (filled_ != 0 && !cluster_.IsRunning(filled_)) cluster_.Start(filled_);
}

// --- What they say ----------------------------------------------------------------------------------------------------

// Of all nodes, in order, asked at once; an object without members of one that does not answer.
std::vector<nlohmann::json> SoakNodes::Statuses() const {
  std::vector<std::vector<std::string>> commands;
  for (int node = 1; node <= all_; ++node) {
    commands.push_back({"mangrove", "--socket", socket(node), "--json", "status"});
  }
  std::vector<nlohmann::json> statuses;
  for (const Output& output : RunPrograms(commands)) {
    statuses.push_back(output.exit_code == 0 ? nlohmann::json::parse(output.out) : nlohmann::json::object());
  }
  return statuses;
}

WholeLook SoakNodes::Look() const { return LookAtStatuses(Statuses(), kSoakAnchors); }

SoakRoles SoakNodes::Roles() {
  SoakRoles roles;
  const auto number_of = [](const nlohmann::json& status, const char* role) {
    if (status.empty()) return 0;
    const nlohmann::json& name = status.at("membership").at(role);
    int number = 0;
    return name.is_string() && absl::SimpleAtoi(name.get<std::string>().substr(5), &number) ? number : 0;
  };
  // A monitor that does not lead, if there is one.
  const bool are_known = Eventually([&] {
    for (const nlohmann::json& status : Statuses()) {
      if (roles.leader == 0) roles.leader = number_of(status, "leader");
      const int monitor = number_of(status, "monitor");
      if (monitor != 0 && (roles.monitor == 0 || roles.monitor == roles.leader)) roles.monitor = monitor;
    }
    return roles.leader != 0 && (roles.monitor != 0 || !options_.has_monitors());
  });
  if (!are_known) throw std::runtime_error("nobody leads, or is a monitor");
  return roles;
}

void SoakNodes::CopyLogs(const std::string& directory) const {
  for (int node = 1; node <= all_; ++node) {
    const std::string name = absl::StrCat("/node-", node, ".log");
    std::error_code not_there;
    std::filesystem::copy_file(cluster_.directory() + name, directory + name, not_there);
  }
}

}  // namespace mangrove::cluster_test
