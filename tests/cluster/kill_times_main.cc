// mangrove-kill-times: how long the pages of a killed node are out of service, and what the others notice of it. Three nodes as
// processes, with the settings that they have by themselves; one is killed, and started again, as often as it is asked for. For the
// kill of a monitor five, which pulse by way of monitors as those of large clusters do. It ends with 1 where a bar is not met.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using nlohmann::literals::operator""_json_pointer;

constexpr char kUsage[] =
    "usage: mangrove-kill-times [--kills N] [--whom member|leader|monitor]\n"
    "  --kills N  how often (default 50)\n"
    "  --whom W   a member that does not lead the anchors (default), the one that leads them, or one by way of which "
    "another one\n"
    "             pulses, and which is no anchor\n";

enum class Whom { kMember, kLeader, kMonitor };
constexpr const char* kWhomTexts[] = {"a member", "the anchors' leader", "a group's monitor"};

// The bars: until all pages can be written again, always less than that; until another node's status says that the node is missing; and
// by how much others' writes may become slower (99.9 %).
constexpr double kServedWithinMs[] = {1500, 2500, 1500};
constexpr double kSaidWithinMs = 2000;
constexpr double kSlowerByMs = 50;

constexpr uint64_t kPages = 64;  // That the killed node was responsible for, and had written last.
constexpr int kServedWithinS = 30;
constexpr auto kWatched = std::chrono::seconds(3);  // Before each kill, and after it.

struct CommandLine {
  int kills = 50;
  Whom whom = Whom::kMember;
};

[[noreturn]] void Refuse(const std::string& what) {
  std::fprintf(stderr, "mangrove-kill-times: %s\n%s", what.c_str(), kUsage);
  std::exit(2);
}

CommandLine Parse(int argc, char** argv) {
  CommandLine line;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) Refuse(absl::StrCat("unknown, or without a value: ", flag));
    const std::string value = argv[i + 1];
    if (flag == "--kills") {
      if (!absl::SimpleAtoi(value, &line.kills) || line.kills < 1 || line.kills > 10'000) {
        Refuse(absl::StrCat("--kills is \"", value, "\", expected a number from 1 to 10000"));
      }
    } else if (flag == "--whom" && (value == "member" || value == "leader" || value == "monitor")) {
      line.whom = value == "member" ? Whom::kMember : value == "leader" ? Whom::kLeader : Whom::kMonitor;
    } else {
      Refuse(absl::StrCat("unknown: ", flag, " ", value));
    }
  }
  return line;
}

// The value that `share` of all are not above, in ms.
double Quantile(std::vector<double> seconds, double share) {
  std::sort(seconds.begin(), seconds.end());
  const auto at = static_cast<size_t>(std::ceil(share * static_cast<double>(seconds.size())));
  return seconds.at(std::max<size_t>(at, 1) - 1) * 1000;
}

void Say(const char* what, const std::vector<double>& seconds) {
  std::printf("%-58s median %8.1f ms, worst %8.1f ms, of %zu\n", what, Quantile(seconds, 0.5), Quantile(seconds, 1),
              seconds.size());
}

absl::Status SetWord(Region& region, uint64_t page, uint64_t value) {
  return region.Write(page * kPageBytes, std::as_bytes(std::span(&value, 1)));
}

// Writes to pages, one after the other, and notes how long each took.
class Untouched {
 public:
  explicit Untouched(Region& region) : region_(region), thread_([this] { Run(); }) {}
  ~Untouched() { End(); }
  void Begin(bool with_kill) { phase_ = with_kill ? 1 : 0; }
  void End() {
    ends_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // REQUIRES: it has ended.
  const std::vector<double>& seconds(bool with_kill) const { return seconds_[with_kill ? 1 : 0]; }
  int failed() const { return failed_; }

 private:
  void Run() {
    for (uint64_t i = 0; !ends_; ++i) {
      const int phase = phase_;
      const Stopwatch watch;
      if (!SetWord(region_, i % kPages, i).ok()) ++failed_;
      if (phase >= 0) seconds_[phase].push_back(watch.Seconds());
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }

  Region& region_;
  std::atomic<bool> ends_ = false;
  std::atomic<int> phase_ = -1;
  std::atomic<int> failed_ = 0;
  std::vector<double> seconds_[2];
  std::thread thread_;
};

// Asks a node for its status, again and again, until that says after a kill that another one is missing.
class StatusWatch {
 public:
  StatusWatch(Cluster& cluster, int node, int missing)
      : socket_(cluster.socket(node)), missing_(absl::StrCat("node-", missing)), thread_([this] { Run(); }) {}
  ~StatusWatch() {
    ends_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void Killed() { killed_ = std::chrono::steady_clock::now().time_since_epoch().count(); }
  // From the kill.
  double Seconds() {
    thread_.join();
    return seconds_;
  }

 private:
  void Run() {
    while (!ends_ && seconds_ < kServedWithinS) {
      const auto killed = std::chrono::steady_clock::duration(killed_.load());
      const Output status = RunProgram({"mangrove", "--socket", socket_, "status", "--json"});
      if (killed.count() != 0) {
        const std::chrono::duration<double> since = std::chrono::steady_clock::now().time_since_epoch() - killed;
        seconds_ = since.count();
        if (SaysIt(nlohmann::json::parse(status.out, nullptr, false))) return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  bool SaysIt(const nlohmann::json& status) const {
    const nlohmann::json names =
        status.is_object() ? status.value("/membership/missing"_json_pointer, nlohmann::json()) : nlohmann::json();
    return std::find(names.begin(), names.end(), missing_) != names.end();
  }

  const std::string socket_;
  const std::string missing_;
  std::atomic<bool> ends_ = false;
  std::atomic<std::chrono::steady_clock::rep> killed_ = 0;  // When; 0: not yet.
  double seconds_ = 0;
  std::thread thread_;
};

struct Times {
  std::vector<double> first;  // Until a page of the killed node can be written again,
  std::vector<double> all;    // and until all of them can.
  std::vector<double> said;   // Until a status says that the node is missing.
  std::vector<double> untouched;
  std::vector<double> untouched_with_kill;
  std::vector<double> longest;  // Of the latter, of each kill.
  int untouched_failed = 0;
};

int LeaderOf(Cluster& cluster) {
  std::string leader;
  const bool known = Eventually([&] {
    const nlohmann::json name = cluster.Ask(1, {"status"})["membership"]["leader"];
    if (name.is_string()) leader = name;
    return !leader.empty();
  });
  int node = 0;
  if (!known || !absl::SimpleAtoi(leader.substr(leader.rfind('-') + 1), &node))
    throw std::runtime_error("nobody leads");
  return node;
}

struct Roles {
  int victim = 0;
  int survivor = 0;  // Which uses the pages of the victim.
  int third = 0;
};

// Three of the nodes.
Roles RolesOf(Cluster& cluster, Whom whom) {
  const int leader = LeaderOf(cluster);
  if (whom == Whom::kMonitor) {
    const int survivor = cluster.size();
    int monitor = 0;
    if (!Eventually([&] { return monitor = cluster.MonitorOf(survivor), monitor != 0; })) {
      throw std::runtime_error("nobody is a monitor");
    }
    return {.victim = monitor, .survivor = survivor, .third = leader};
  }
  const auto after = [&](int by) { return (leader - 1 + by) % 3 + 1; };
  if (whom == Whom::kLeader) return {.victim = leader, .survivor = after(1), .third = after(2)};
  return {.victim = after(1), .survivor = after(2), .third = leader};
}

void KillOnce(Cluster& cluster, int number, Whom whom, Times& times) {
  const auto [victim, survivor, third] = RolesOf(cluster, whom);
  const std::string name = absl::StrCat("kill-", number);
  const auto session = cluster.Attach(survivor, kServedWithinS * 1000);
  const auto own = MakeRegion(*session, name + "-own", kPages * kPageBytes);
  const auto of_third = cluster.Attach(third, kServedWithinS * 1000);
  const auto shared = Take(of_third->Open(name + "-own", AccessMode::kWrite));
  {
    const auto of_victim = cluster.Attach(victim);
    const auto made = MakeRegion(*of_victim, name, kPages * kPageBytes);
    absl::Status status;
    for (uint64_t page = 0; page < kPages && status.ok(); ++page) status = SetWord(*made, page, page);
    if (status.ok()) status = made->Flush(0, kPages * kPageBytes);
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }
  const auto region = Take(session->Open(name, AccessMode::kWrite));
  {
    // Two nodes that take the pages from each other.
    Untouched untouched[] = {Untouched(*own), Untouched(*shared)};
    StatusWatch status(cluster, third, victim);
    for (Untouched& each : untouched) each.Begin(false);
    std::this_thread::sleep_for(kWatched);
    for (Untouched& each : untouched) each.Begin(true);
    cluster.Kill(victim);
    const Stopwatch since;
    status.Killed();
    for (uint64_t page = 0; page < kPages; ++page) {
      while (!SetWord(*region, page, page + 1000).ok()) {
        if (since.Seconds() > kServedWithinS) throw std::runtime_error("the pages are not served again");
      }
      if (page == 0) times.first.push_back(since.Seconds());
    }
    times.all.push_back(since.Seconds());
    times.said.push_back(status.Seconds());
    std::this_thread::sleep_for(
        kWatched - std::min<std::chrono::duration<double>>(kWatched, std::chrono::duration<double>(since.Seconds())));
    times.longest.push_back(0);
    for (Untouched& each : untouched) {
      each.End();
      for (const double seconds : each.seconds(false)) times.untouched.push_back(seconds);
      for (const double seconds : each.seconds(true)) {
        times.untouched_with_kill.push_back(seconds);
        times.longest.back() = std::max(times.longest.back(), seconds);
      }
      times.untouched_failed += each.failed();
    }
  }
  std::printf(
      "%3d: node-%d killed; served again after %.0f ms, all of it after %.0f ms; missed by a status after %.0f ms; "
      "others' longest write %.0f ms\n",
      number, victim, times.first.back() * 1000, times.all.back() * 1000, times.said.back() * 1000,
      times.longest.back() * 1000);
  std::fflush(stdout);
  cluster.Start(victim);
  cluster.AwaitConnected();
}

// "", or the bars that are not met.
std::string MissedBars(Whom whom, const Times& times) {
  std::vector<std::string> missed;
  const double served = Quantile(times.all, 1);
  const double bar = kServedWithinMs[static_cast<int>(whom)];
  if (served >= bar) {
    missed.push_back(
        absl::StrFormat("all pages can be written again after %.0f ms at worst, expected less than %.0f", served, bar));
  }
  const double said = Quantile(times.said, 1);
  if (said >= kSaidWithinMs) {
    missed.push_back(absl::StrFormat("a status said after %.0f ms that the node is missing, expected less than %.0f",
                                     said, kSaidWithinMs));
  }
  const double slower = Quantile(times.untouched_with_kill, 0.999) - Quantile(times.untouched, 0.999);
  if (slower > kSlowerByMs) {
    missed.push_back(absl::StrFormat(
        "99.9 %% of the others' writes took %.1f ms longer with a kill, expected %.0f at most", slower, kSlowerByMs));
  }
  if (times.untouched_failed > 0) {
    missed.push_back(absl::StrFormat("%d of the others' writes failed, expected none", times.untouched_failed));
  }
  return absl::StrJoin(missed, "; ");
}

int Main(int argc, char** argv) {
  const CommandLine line = Parse(argc, argv);
  ClusterOptions options{.nodes = 3};
  // The fourth is the fifth's monitor: they are a group of their own.
  if (line.whom == Whom::kMonitor) {
    options = {.nodes = 5, .node_settings = "monitors_above = 0\n", .ids = {1, 2, 3, 65, 66}};
  }
  Cluster cluster(options);
  cluster.StartAll();
  cluster.AwaitConnected();
  Times times;
  for (int i = 1; i <= line.kills; ++i) KillOnce(cluster, i, line.whom, times);
  std::printf("%s killed, %d times, with the settings that nodes have by themselves\n",
              kWhomTexts[static_cast<int>(line.whom)], line.kills);
  Say("until a page of it can be written again:", times.first);
  Say(absl::StrCat("until all ", kPages, " can:").c_str(), times.all);
  Say("until another node's status says that it is missing:", times.said);
  for (const bool with_kill : {false, true}) {
    const auto& seconds = with_kill ? times.untouched_with_kill : times.untouched;
    std::printf(
        "%-58s 99.9 %% %8.2f ms, worst %8.2f ms, of %zu\n",
        with_kill ? "the same, in the 3 s from a kill:" : "writes of the other two to pages of theirs, 3 s before:",
        Quantile(seconds, 0.999), Quantile(seconds, 1), seconds.size());
  }
  Say("the longest of these, of each kill:", times.longest);
  const std::string missed = MissedBars(line.whom, times);
  if (missed.empty()) {
    std::printf(
        "bars met: served again in less than %.0f ms, missed by a status in %.0f ms, others' writes (99.9 %%) at most "
        "%.0f ms longer\n",
        kServedWithinMs[static_cast<int>(line.whom)], kSaidWithinMs, kSlowerByMs);
  } else {
    std::printf("BARS NOT MET: %s\n", missed.c_str());
  }
  return missed.empty() ? 0 : 1;
}

}  // namespace
}  // namespace mangrove::cluster_test

int main(int argc, char** argv) {
  try {
    return mangrove::cluster_test::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mangrove-kill-times: %s\n", error.what());
    return 1;
  }
}
