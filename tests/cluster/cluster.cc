#include "tests/cluster/cluster.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tests/free_port.h"

namespace mangrove::cluster_test {
namespace {

constexpr int kStopLimitS = 30;
constexpr int kStartLimitS = 60;
constexpr int kStopSignals[] = {SIGINT, SIGTERM, SIGHUP};

volatile sig_atomic_t g_stop_signal = 0;  // That Eventually has not thrown yet.
volatile sig_atomic_t g_first_stop_signal = 0;
bool g_throws_on_signals = false;

extern "C" void OnStopSignal(int signal) {
  if (g_first_stop_signal != 0) _exit(128 + signal);
  g_first_stop_signal = signal;
  g_stop_signal = signal;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<int> FreePorts(int count) {
  std::vector<int> ports(static_cast<size_t>(count));
  for (int& port : ports) port = FreePort();
  return ports;
}

// Returns the process. It dies with this thread.
pid_t Spawn(const std::vector<std::string>& command, const std::string& out, const std::string& err) {
  std::vector<std::string> words = command;
  if (words[0].front() != '/') words[0] = ProgramPath(words[0]);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  const int in_fd = open("/dev/null", O_RDONLY);
  const int out_fd = open(out.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  const int err_fd = open(err.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (in_fd < 0 || out_fd < 0 || err_fd < 0) _exit(127);
  dup2(in_fd, 0);
  dup2(out_fd, 1);
  dup2(err_fd, 2);
  for (int fd = 3; fd < 1024; ++fd) close(fd);
  execv(argv[0], argv.data());
  _exit(127);
}

// The exit code, or 128 + the signal's number; -1 and killed if it does not end in time.
int Await(pid_t pid, int timeout_s) {
  int status = 0;
  const auto end = [&] {
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
  };
  try {
    if (!Eventually([&] { return waitpid(pid, &status, WNOHANG) == pid; }, timeout_s)) return end();
  } catch (const Stopped&) {
    end();
    throw;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

std::string ProgramPath(const std::string& program) { return absl::StrCat(MANGROVE_BIN_DIR, "/", program); }

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = std::filesystem::temp_directory_path() / "mangrove_cluster_XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr || chmod(pattern.c_str(), 0755) != 0) std::abort();
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void ThrowOnSignals() {
  g_throws_on_signals = true;
  struct sigaction action {};
  action.sa_handler = OnStopSignal;
  action.sa_flags = SA_RESTART;  // Who waits for something short gets it.
  for (const int signal : kStopSignals) sigaction(signal, &action, nullptr);
}

int StopSignal() { return g_first_stop_signal; }

bool Eventually(const std::function<bool()>& condition, int timeout_s) {
  const Stopwatch watch;
  while (!condition()) {
    if (const int signal = std::exchange(g_stop_signal, 0); signal != 0) throw Stopped(signal);
    if (watch.Seconds() > timeout_s) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

std::vector<Output> RunPrograms(const std::vector<std::vector<std::string>>& commands, int timeout_s) {
  const TemporaryDirectory directory;
  std::vector<pid_t> pids;
  for (const auto& command : commands) {
    const std::string place = directory / std::to_string(pids.size());
    pids.push_back(Spawn(command, place + ".out", place + ".err"));
  }
  std::vector<Output> outputs(commands.size());
  size_t ended = 0;
  try {
    for (; ended < pids.size(); ++ended) outputs[ended].exit_code = Await(pids[ended], timeout_s);
  } catch (const Stopped&) {
    while (++ended < pids.size()) {
      kill(pids[ended], SIGKILL);
      waitpid(pids[ended], nullptr, 0);
    }
    throw;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    EXPECT_NE(outputs[i].exit_code, -1) << absl::StrJoin(commands[i], " ") << " does not end in " << timeout_s << " s";
    outputs[i].out = ReadFile(directory / absl::StrCat(i, ".out"));
    outputs[i].err = ReadFile(directory / absl::StrCat(i, ".err"));
  }
  return outputs;
}

Output RunProgram(const std::vector<std::string>& command, int timeout_s) {
  return RunPrograms({command}, timeout_s).front();
}

size_t LinesWith(const std::string& path, const std::string& words) {
  const std::vector<std::string> lines = absl::StrSplit(ReadFile(path), '\n');
  return static_cast<size_t>(std::count_if(
      lines.begin(), lines.end(), [&](const std::string& line) { return line.find(words) != std::string::npos; }));
}

// --- Cluster ----------------------------------------------------------------------------------------------------------

Cluster::Cluster(const ClusterOptions& options) : options_(options), ports_(FreePorts(options.nodes)) {
  WriteKeys({std::string(64, 'a')});
  for (int node = 1; node <= named(); ++node) WriteConfig(node, ConfigText(node));
}

Cluster::~Cluster() {
  if (testing::Test::HasFailure()) {
    for (int node = 1; node <= size(); ++node) {
      std::cerr << "--- log of node-" << node << "\n" << log(node);
    }
  }
  KillAll();
}

std::string Cluster::socket(int node) const { return directory_ / absl::StrCat("node-", node, ".sock"); }
std::string Cluster::config(int node) const {
  const auto made = set_up_.find(node);
  return made != set_up_.end() ? made->second + "/mangroved.toml" : directory_ / absl::StrCat("node-", node, ".toml");
}
std::string Cluster::MadeConfig(int node) const { return ReadFile(config(node)); }
std::string Cluster::log(int node) const { return ReadFile(directory_ / absl::StrCat("node-", node, ".log")); }

size_t Cluster::LinesOf(int node, const std::string& words) const {
  return LinesWith(directory_ / absl::StrCat("node-", node, ".log"), words);
}

std::string Cluster::HostOf(int node) const {
  return options_.hosts.empty() ? "127.0.0.1" : options_.hosts.at(static_cast<size_t>(node) - 1);
}

std::string Cluster::sockets() const {
  std::vector<std::string> all;
  for (int node = 1; node <= size(); ++node) all.push_back(socket(node));
  return absl::StrJoin(all, ",");
}

std::string Cluster::ConfigText(int node) const {
  std::string text = absl::StrCat(
      "[node]\nname = \"node-", node, "\"\ndata_dir = \"", directory_ / absl::StrCat("data-", node), "\"\nsocket = \"",
      socket(node), "\"\ncache_size_mib = ", options_.cache_size_mib,
      "\nfault_timeout_ms = ", options_.fault_timeout_ms, "\n", options_.node_settings,
      "\n[cluster]\nname = \"test\"\nkey_file = \"", directory_ / "key", "\"\nreplicas = ", options_.replicas, "\n");
  for (int member = 1; member <= named(); ++member) {
    const int id = options_.ids.empty() ? member : options_.ids.at(static_cast<size_t>(member) - 1);
    absl::StrAppend(&text, "[[members]]\nid = ", id, "\nname = \"node-", member, "\"\naddress = \"", HostOf(member),
                    ":", ports_[static_cast<size_t>(member) - 1], "\"\n");
  }
  return text;
}

void Cluster::WriteConfig(int node, const std::string& text) const { std::ofstream(config(node)) << text; }

void Cluster::WriteKeys(const std::vector<std::string>& keys) const {
  const std::string path = directory_ / "key";
  std::ofstream(path) << absl::StrJoin(keys, "\n") << "\n";
  chmod(path.c_str(), 0600);
}

void Cluster::Start(int node, const std::vector<std::string>& flags) {
  ASSERT_FALSE(IsRunning(node));
  const std::string log = directory_ / absl::StrCat("node-", node, ".log");
  std::vector<std::string> command;
  if (!options_.launchers.empty()) command = options_.launchers.at(static_cast<size_t>(node) - 1);
  command.insert(command.end(), {ProgramPath("mangroved"), "--config", config(node)});
  command.insert(command.end(), flags.begin(), flags.end());
  processes_[node] = Spawn(command, log, log);
}

Output Cluster::SetUp(int node, std::vector<std::string> command, const std::vector<std::string>& flags) {
  const std::string directory = directory_ / absl::StrCat("made-", node);
  for (const std::string& word : {std::string("--name"), absl::StrCat("node-", node), std::string("--address"),
                                  absl::StrCat(HostOf(node), ":", port(node)), std::string("--dir"), directory,
                                  std::string("--socket"), socket(node)}) {
    command.push_back(word);
  }
  command.insert(command.end(), flags.begin(), flags.end());
  if (!options_.launchers.empty()) {
    command[0] = ProgramPath(command[0]);
    const std::vector<std::string>& launcher = options_.launchers.at(static_cast<size_t>(node) - 1);
    command.insert(command.begin(), launcher.begin(), launcher.end());
  }
  Output output = RunProgram(command);
  if (output.exit_code == 0) set_up_[node] = directory;
  return output;
}

Output Cluster::Found(int node, const std::vector<std::string>& flags) {
  return SetUp(node, {"mangrove", "cluster", "init", "test"}, flags);
}

std::string Cluster::NewToken(int via) { return Ask(via, {"node", "token"})["token"].get<std::string>(); }

Output Cluster::Join(int node, int via, const std::vector<std::string>& flags) {
  return SetUp(node, {"mangrove", "node", "join", NewToken(via)}, flags);
}

std::vector<int> Cluster::Startable() const {
  std::vector<int> nodes;
  for (int node = 1; node <= size(); ++node) {
    if (node <= named() || set_up_.contains(node)) nodes.push_back(node);
  }
  return nodes;
}

void Cluster::StartAll() {
  for (const int node : Startable()) Start(node);
  AwaitConnected();
}

Output Cluster::GiveUp(int via, const std::string& name) {
  const std::string confirm = Ask(via, {"node", "give-up", name})["confirm"];
  return RunProgram({"mangrove", "--socket", socket(via), "node", "give-up", name, "--confirm", confirm});
}

int Cluster::AwaitEnd(int node) {
  const pid_t pid = processes_.at(node);
  processes_.erase(node);
  const int code = Await(pid, kStopLimitS);
  EXPECT_NE(code, -1) << "node-" << node << " does not end";
  return code;
}

int Cluster::Stop(int node, int signal) {
  kill(processes_.at(node), signal == 0 ? SIGTERM : signal);
  return AwaitEnd(node);
}

void Cluster::StopAll() {
  for (const auto& [node, pid] : processes_) kill(pid, SIGTERM);
  while (!processes_.empty()) {
    const int node = processes_.begin()->first;
    EXPECT_EQ(AwaitEnd(node), 0) << "node-" << node;
  }
}

void Cluster::Kill(int node) {
  kill(processes_.at(node), SIGKILL);
  EXPECT_EQ(AwaitEnd(node), 128 + SIGKILL);
}

void Cluster::KillAtOnce(const std::vector<int>& nodes) {
  for (const int node : nodes) kill(processes_.at(node), SIGKILL);
  for (const int node : nodes) EXPECT_EQ(AwaitEnd(node), 128 + SIGKILL);
}

void Cluster::KillAll() {
  for (const auto& [node, pid] : processes_) kill(pid, SIGKILL);
  for (const auto& [node, pid] : processes_) waitpid(pid, nullptr, 0);
  processes_.clear();
}

void Cluster::AwaitConnected() {
  const auto is_connected = [this](int node) {
    const Output status = RunProgram({"mangrove", "--socket", socket(node), "status", "--json"});
    if (status.exit_code != 0) return false;
    const nlohmann::json document = nlohmann::json::parse(status.out);
    size_t connected = 0;
    for (const auto& peer : document["peers"]) connected += peer["connected"].get<bool>() ? 1 : 0;
    const bool all_run = processes_.size() == Startable().size();
    const auto& membership = document["membership"];
    const bool all_are_here =
        membership["has_lease"].get<bool>() && membership["missing"].empty() && membership["behind"].empty();
    return connected + 1 >= processes_.size() && (!all_run || (document["ready"].get<bool>() && all_are_here));
  };
  for (const auto& [node, pid] : processes_) {
    if (Eventually([&, n = node] { return is_connected(n); }, kStartLimitS)) continue;
    throw std::runtime_error(absl::StrCat("node-", node, " is not connected:\n",
                                          RunProgram({"mangrove", "--socket", socket(node), "status"}).out));
  }
}

nlohmann::json Cluster::PeerOf(int node, const std::string& name) {
  const nlohmann::json status = Ask(node, {"status"});
  for (const auto& peer : status["peers"]) {
    if (peer["name"] == name) return peer;
  }
  return nullptr;
}

nlohmann::json Cluster::Ask(int node, const std::vector<std::string>& command) {
  std::vector<std::string> words{"mangrove", "--socket", socket(node), "--json"};
  words.insert(words.end(), command.begin(), command.end());
  const Output output = RunProgram(words);
  EXPECT_EQ(output.exit_code, 0) << output.err;
  return nlohmann::json::parse(output.out, nullptr, false);
}

int Cluster::MonitorOf(int node) {
  const nlohmann::json name = Ask(node, {"status"})["membership"]["monitor"];
  return name.is_null() ? 0 : std::stoi(name.get<std::string>().substr(std::string("node-").size()));
}

std::shared_ptr<Session> Cluster::Attach(int node, int call_timeout_ms) {
  return Take(Session::Attach({.socket_path = socket(node), .limits = {.call_timeout_ms = call_timeout_ms}}));
}

// --- Child ------------------------------------------------------------------------------------------------------------

Child::Child(const std::function<int(const Tell& tell)>& body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    if (g_throws_on_signals) {
      for (const int signal : kStopSignals) ::signal(signal, SIG_DFL);
    }
    const auto tell = [fd = ends[1]](char what) {
      if (write(fd, &what, 1) != 1) _exit(127);
    };
    // What is on the stack is the parent's.
    try {
      _exit(body(tell));
    } catch (const std::exception& error) {
      std::fprintf(stderr, "a child: %s\n", error.what());
      _exit(126);
    }
  }
  close(ends[1]);
  told_ = ends[0];
}

Child::~Child() {
  Kill();
  close(told_);
}

char Child::AwaitTold(int timeout_s) {
  pollfd readable{told_, POLLIN, 0};
  char what = 0;
  if (poll(&readable, 1, timeout_s * 1000) != 1 || read(told_, &what, 1) != 1) return 0;
  return what;
}

void Child::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

std::optional<int> Child::Ended() {
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return {};
  return AwaitEnd();
}

int Child::AwaitEnd(int timeout_s) {
  const int code = Await(std::exchange(pid_, -1), timeout_s);
  EXPECT_NE(code, -1) << "a child does not end in " << timeout_s << " s";
  return code;
}

// --- Mapped accesses --------------------------------------------------------------------------------------------------

namespace {

thread_local sigjmp_buf g_escape;
thread_local volatile sig_atomic_t g_escaping = 0;

extern "C" void Escape(int signal) {
  if (g_escaping == 0) {
    ::signal(signal, SIG_DFL);
    raise(signal);
    return;
  }
  siglongjmp(g_escape, signal);
}

template <typename Access>
int Try(Access access) {
  struct sigaction action {};
  action.sa_handler = Escape;
  action.sa_flags = SA_NODEFER;
  sigaction(SIGBUS, &action, nullptr);
  sigaction(SIGSEGV, &action, nullptr);
  const int signal = sigsetjmp(g_escape, 1);
  g_escaping = 1;
  if (signal == 0) access();
  g_escaping = 0;
  return signal;
}

}  // namespace

int TryLoad(const std::byte* place, uint64_t* value) {
  return Try([&] {
    const uint64_t loaded = *reinterpret_cast<const volatile uint64_t*>(place);
    if (value != nullptr) *value = loaded;
  });
}

int TryStore(std::byte* place, uint64_t value) {
  return Try([&] { *reinterpret_cast<volatile uint64_t*>(place) = value; });
}

std::shared_ptr<Region> MakeRegion(Session& session, const std::string& name, uint64_t size_bytes,
                                   const AllocateOptions& options, uint16_t mode) {
  auto region = Take(session.Reserve({.name = name, .size_bytes = size_bytes, .mode = mode}));
  const absl::Status allocated = region->Allocate(0, size_bytes, options);
  if (!allocated.ok()) throw std::runtime_error(allocated.ToString());
  return region;
}

}  // namespace mangrove::cluster_test
