#include "bench/program_work.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/file_work.h"
#include "bench/timing.h"
#include "bench/worker.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kFilesOfDirectory = 50;
constexpr uint64_t kSmallestFile = 500;
constexpr uint64_t kSizes = 7;  // Files are 1 to 7 times as long.

// Ends the process if the program does not end well. Its input comes from a file, its output goes nowhere.
void Run(const std::vector<std::string>& command, const std::string& input = "/dev/null") {
  const pid_t pid = static_cast<pid_t>(Must(fork(), "fork"));
  if (pid == 0) {
    const int in = open(input.c_str(), O_RDONLY);
    const int out = open("/dev/null", O_WRONLY);
    if (in < 0 || out < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0) _exit(127);
    // Nobody's own settings.
    setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
    setenv("GIT_CONFIG_SYSTEM", "/dev/null", 1);
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execvp(words[0], words.data());
    _exit(127);
  }
  int status = 0;
  Must(waitpid(pid, &status, 0), "waiting for a program");
  if (status != 0) Die(absl::StrCat("\"", absl::StrJoin(command, " "), "\" ended with ", status));
}

double MsOf(const std::vector<std::string>& command, const std::string& input = "/dev/null") {
  const int64_t begin = NowNs();
  Run(command, input);
  return static_cast<double>(NowNs() - begin) / 1e6;
}

void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) Die("cannot write " + path);
}

void MakeTree(const std::string& root, uint64_t files) {
  for (uint64_t i = 0; i < files; ++i) {
    const std::string directory = absl::StrCat(root, "/d", i / kFilesOfDirectory);
    std::filesystem::create_directories(directory);
    std::string text;
    while (text.size() < kSmallestFile * (1 + i % kSizes)) absl::StrAppend(&text, "line ", i * i + text.size(), "\n");
    WriteFile(absl::StrCat(directory, "/f", i), text);
  }
}

}  // namespace

bool HasProgram(const std::string& name) {
  const char* const path = std::getenv("PATH");
  for (const absl::string_view directory : absl::StrSplit(path == nullptr ? "/usr/bin" : path, ':')) {
    if (access(absl::StrCat(directory, "/", name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

ProgramSources::ProgramSources(const std::string& directory, uint64_t files)
    : tar_(directory + "/files.tar"), repository_(directory + "/repository") {
  MakeTree(repository_, files);
  if (HasProgram("tar")) Run({"tar", "-cf", tar_, "-C", repository_, "."});
  if (!HasProgram("git")) return;
  Run({"git", "-C", repository_, "init", "-q"});
  Run({"git", "-C", repository_, "add", "."});
  Run({"git", "-C", repository_, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m",
       "files"});
}

double ProgramSources::UntarMs(const std::string& parent) const {
  const WorkDirectory work(parent);
  return MsOf({"tar", "-xf", tar_, "-C", work.path()});
}

double ProgramSources::CloneMs(const std::string& parent) const {
  const WorkDirectory work(parent);
  return MsOf({"git", "clone", "-q", "--no-local", repository_, work.path() + "/clone"});
}

double ProgramSources::StatusMs(const std::string& parent) const {
  const WorkDirectory work(parent);
  const std::string clone = work.path() + "/clone";
  Run({"git", "clone", "-q", "--no-local", repository_, clone});
  const std::vector<std::string> status{"git", "-C", clone, "status", "--porcelain"};
  Run(status);
  return MsOf(status);
}

double SqliteRate(const std::string& parent, uint64_t transactions, bool log_ahead) {
  const WorkDirectory work(parent);
  const std::string script = work.path() + "/script";
  const std::string database = work.path() + "/database";
  WriteFile(script, log_ahead ? "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
                                "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);"
                              : "PRAGMA synchronous=FULL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);");
  Run({"sqlite3", database}, script);
  std::string text =
      log_ahead ? "PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL;\n" : "PRAGMA synchronous=FULL;\n";
  for (uint64_t i = 0; i < transactions; ++i) absl::StrAppend(&text, "INSERT INTO t VALUES(", i, ", 'row ", i, "');\n");
  WriteFile(script, text);
  return static_cast<double>(transactions) * 1e3 / MsOf({"sqlite3", "-bail", database}, script);
}

}  // namespace mangrove::bench
