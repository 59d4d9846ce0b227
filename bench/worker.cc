#include "bench/worker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <utility>

#include "bench/timing.h"

namespace mangrove::bench {
namespace {

struct Command {
  char verb[40];
  Arguments arguments;
};

void Serve(const std::string& name, int channel, const std::function<Verbs()>& make) {
  Verbs verbs = make();
  Command command;
  while (recv(channel, &command, sizeof(command), 0) == static_cast<ssize_t>(sizeof(command))) {
    if (command.verb[0] == '\0') return;
    const auto verb = verbs.find(command.verb);
    if (verb == verbs.end()) Die(absl::StrCat(name, " knows no ", command.verb));
    const double result = verb->second(command.arguments);
    Must(send(channel, &result, sizeof(result), 0), "answering the parent");
  }
}

}  // namespace

void Die(const std::string& what) {
  std::fprintf(stderr, "mangrove-bench: %s\n", what.c_str());
  std::fflush(stderr);
  _exit(1);
}

void Must(const absl::Status& status, const std::string& what) {
  if (!status.ok()) Die(absl::StrCat(what, ": ", status.ToString()));
}

int64_t Must(int64_t result, const std::string& what) {
  if (result < 0) Die(absl::StrCat(what, ": ", std::strerror(errno)));
  return result;
}

void PinTo(int core) {
  if (core < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  Must(sched_setaffinity(0, sizeof(set), &set), absl::StrCat("pinning to processor ", core));
}

Worker::Worker(std::string name, int core, std::function<Verbs()> make) : name_(std::move(name)) {
  int ends[2];
  Must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
  const pid_t parent = getpid();
  pid_ = static_cast<pid_t>(Must(fork(), "fork"));
  if (pid_ == 0) {
    close(ends[0]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    PinTo(core);
    Serve(name_, ends[1], make);
    _exit(0);
  }
  close(ends[1]);
  channel_ = ends[0];
}

// Its siblings have copies of this end, so closing it is not enough.
Worker::~Worker() {
  const Command end{};
  send(channel_, &end, sizeof(end), MSG_NOSIGNAL);
  close(channel_);
  AwaitEnd(pid_);
}

void Worker::Begin(const std::string& verb, uint64_t a, uint64_t b, uint64_t c) {
  last_verb_ = verb;
  Command command{};
  std::snprintf(command.verb, sizeof(command.verb), "%s", verb.c_str());
  command.arguments = {a, b, c};
  if (send(channel_, &command, sizeof(command), MSG_NOSIGNAL) < 0) Die(name_ + " has ended");
}

double Worker::End() {
  double result = 0;
  if (recv(channel_, &result, sizeof(result), 0) != static_cast<ssize_t>(sizeof(result))) {
    Die(absl::StrCat(name_, " ended during ", last_verb_));
  }
  return result;
}

void AwaitEnd(pid_t pid) {
  const int64_t limit = NowNs() + int64_t{10'000'000'000};
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (NowNs() > limit) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return;
    }
    usleep(2000);
  }
}

}  // namespace mangrove::bench
