// Counts the words of files with processes on several nodes, in one hash table in mapped memory.
//
//   wordcount --sockets A,B,C [--region NAME] [--output FILE] [--slots N] [--arena-mib N] FILE|DIRECTORY...
//   wordcount --read --sockets A [--region NAME] [--output FILE]      prints the table that an earlier run has left
//
// A word is a longest run of the letters A to Z and a to z, in lower case; one does not go from file to file. For each
// socket a worker process is forked, which attaches to the node there, as if it were on another machine. The files are
// cut into chunks, dealt out in turn. A worker counts in its own memory and merges that into the table now and then.
//
// Every worker updates the one table by atomics alone: see word_table.h.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "engine/examples/example.h"
#include "engine/examples/local_counts.h"
#include "engine/examples/word_table.h"

using namespace mangrove;           // NOLINT(google-build-using-namespace)
using namespace mangrove::example;  // NOLINT(google-build-using-namespace)

namespace {

constexpr uint64_t kChunkBytes = uint64_t{1} << 20;
constexpr size_t kMergeAtWords = size_t{1} << 20;  // Distinct ones that a worker holds.
constexpr uint64_t kReadStepBytes = uint64_t{1} << 20;

struct Options {
  std::vector<std::string> sockets;
  std::string region = "wordcount";
  std::string output;
  uint64_t slots = 0;  // 0: by the size of the files.
  uint64_t arena_mib = 16;
  bool read = false;
  std::vector<std::string> paths;
};

[[noreturn]] void Fail(const std::string& message, int exit_code = 1) {
  std::cerr << "wordcount: " << message << "\n";
  std::exit(exit_code);
}

// --- Workers ----------------------------------------------------------------------------------------------------------

// A piece of a file.
struct Chunk {
  size_t file;
  uint64_t begin;
  uint64_t end;
};

// What a worker tells the parent: short enough that the pipe takes it whole.
struct Report {
  bool ok = false;
  uint64_t bytes = 0;
  uint64_t words = 0;
  double counting_s = 0;
  double merging_s = 0;
  double flushing_s = 0;
  RegionCounters counters;
  char error[1024] = {};
};
static_assert(sizeof(Report) <= 4096);

class Stopwatch {
 public:
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(start_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct Job {
  Options options;
  Layout layout;
  std::vector<std::string> files;
  std::vector<Chunk> chunks;
};

absl::Status Work(const Job& job, size_t worker, Report* report) {
  auto session = Session::Attach({.socket_path = job.options.sockets[worker]});
  if (!session.ok()) return session.status();
  auto region = (*session)->Open(job.options.region, AccessMode::kWrite);
  if (!region.ok()) return region.status();
  const absl::StatusOr<std::byte*> base = (*region)->Map(0, job.layout.size());
  if (!base.ok()) return base.status();
  Table table(*base, job.layout);
  const double first_part = static_cast<double>(worker) / static_cast<double>(job.options.sockets.size());

  LocalCounts counts;
  Stopwatch watch;
  for (size_t i = worker; i < job.chunks.size(); i += job.options.sockets.size()) {
    const Chunk& chunk = job.chunks[i];
    const absl::StatusOr<std::string> text = ReadChunk(job.files[chunk.file], chunk.begin, chunk.end);
    if (!text.ok()) return text.status();
    counts.Count(*text);
    report->bytes += chunk.end - chunk.begin;
    const bool is_last = i + job.options.sockets.size() >= job.chunks.size();
    if (counts.distinct() < kMergeAtWords && !is_last) continue;
    report->counting_s += watch.Lap();
    if (absl::Status s = table.Merge(counts.Entries(), first_part); !s.ok()) return s;
    counts.Clear();
    report->merging_s += watch.Lap();
  }
  // Whoever wrote is told of a loss by its own flush: only after this has the worker done its part, whatever becomes of its node.
  if (absl::Status s = (*region)->Flush(0, job.layout.size()); !s.ok()) return s;
  report->flushing_s = watch.Lap();
  report->words = counts.words();
  report->counters = (*region)->Counters();
  return absl::OkStatus();
}

extern "C" void OnBusError(int) {
  constexpr char kText[] = "wordcount: a page of the table could not be had: a node that is needed does not answer\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  _exit(1);
}

[[noreturn]] void RunWorker(const Job& job, size_t worker, int go, int result) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  char begin = 0;
  if (read(go, &begin, 1) != 1) _exit(1);  // The parent has given up.
  Report report;
  const absl::Status status = Work(job, worker, &report);
  report.ok = status.ok();
  absl::SNPrintF(report.error, sizeof(report.error), "%s", std::string(status.message()));
  const bool told = write(result, &report, sizeof(report)) == sizeof(report);
  _exit(told && report.ok ? 0 : 1);
}

// The workers, as the parent sees them.
class Workers {
 public:
  // REQUIRES: this process has one thread: the others would be missing in its children.
  explicit Workers(const Job& job);
  ~Workers();
  void Go();
  // Fails at the first worker that does.
  absl::StatusOr<std::vector<Report>> Await();

 private:
  absl::Status TakeReport(size_t worker, Report* report);
  std::string HowItEnded(size_t worker);

  const Job& job_;
  std::vector<pid_t> pids_;
  std::vector<int> go_;
  std::vector<int> results_;
};

Workers::Workers(const Job& job) : job_(job) {
  for (size_t i = 0; i < job.options.sockets.size(); ++i) {
    int go[2];
    int result[2];
    if (pipe2(go, O_CLOEXEC) != 0 || pipe2(result, O_CLOEXEC) != 0) Fail(absl::StrCat("pipe: ", strerror(errno)));
    const pid_t pid = fork();
    if (pid < 0) Fail(absl::StrCat("fork: ", strerror(errno)));
    if (pid == 0) {
      close(go[1]);
      close(result[0]);
      for (const int fd : go_) close(fd);  // Their ends are news to the workers before this one.
      RunWorker(job, i, go[0], result[1]);
    }
    close(go[0]);
    close(result[1]);
    pids_.push_back(pid);
    go_.push_back(go[1]);
    results_.push_back(result[0]);
  }
}

Workers::~Workers() {
  for (const pid_t pid : pids_) {
    if (pid <= 0) continue;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
}

void Workers::Go() {
  for (const int fd : go_) {
    if (write(fd, "g", 1) != 1) Fail("a worker has ended before it began");
  }
}

absl::StatusOr<std::vector<Report>> Workers::Await() {
  std::vector<Report> reports(pids_.size());
  std::vector<pollfd> waiting;
  for (const int fd : results_) waiting.push_back({fd, POLLIN, 0});
  for (size_t left = pids_.size(); left > 0;) {
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i].fd < 0 || waiting[i].revents == 0) continue;
      if (absl::Status s = TakeReport(i, &reports[i]); !s.ok()) return s;
      waiting[i].fd = -1;
      --left;
    }
  }
  return reports;
}

absl::Status Workers::TakeReport(size_t worker, Report* report) {
  const std::string at = absl::StrCat("the worker at ", job_.options.sockets[worker]);
  if (read(results_[worker], report, sizeof(*report)) != sizeof(*report)) {
    return absl::UnavailableError(absl::StrCat(at, " ", HowItEnded(worker)));
  }
  if (!report->ok) return absl::UnavailableError(absl::StrCat(at, ": ", report->error));
  HowItEnded(worker);
  return absl::OkStatus();
}

std::string Workers::HowItEnded(size_t worker) {
  int status = 0;
  waitpid(std::exchange(pids_[worker], -1), &status, 0);
  if (WIFSIGNALED(status))
    return absl::StrCat("was ended by signal ", WTERMSIG(status), ", ", strsignal(WTERMSIG(status)));
  return absl::StrCat("ended with exit code ", WEXITSTATUS(status), " and without a result");
}

// --- The parent -------------------------------------------------------------------------------------------------------

void AddFile(const std::filesystem::path& path, Job* job) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) Fail(absl::StrCat("cannot read ", path.string(), ": ", error.message()));
  for (uint64_t begin = 0; begin < size; begin += kChunkBytes) {
    job->chunks.push_back({job->files.size(), begin, std::min(size, begin + kChunkBytes)});
  }
  job->files.push_back(path);
}

// In the order of names, so that a run is like the one before. Links in directories are not followed.
void AddFiles(const std::string& path, Job* job) {
  if (!std::filesystem::is_directory(path)) return AddFile(path, job);
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (auto at = std::filesystem::recursive_directory_iterator(path, error); !error && at != end(at);
       at.increment(error)) {
    if (at->is_regular_file() && !at->is_symlink()) found.push_back(at->path());
  }
  if (error) Fail(absl::StrCat("cannot list ", path, ": ", error.message()));
  std::sort(found.begin(), found.end());
  for (const auto& file : found) AddFile(file, job);
}

// Ordinary text of some MB has a different word for every few hundred bytes. Tables are best half empty or more.
uint64_t SlotsFor(const Job& job) {
  uint64_t bytes = 0;
  for (const Chunk& chunk : job.chunks) bytes += chunk.end - chunk.begin;
  return std::clamp(std::bit_ceil(bytes / 128), uint64_t{1} << 16, uint64_t{1} << 26);
}

// Removes what an earlier run has left, also one that was killed half-way.
void RemoveTable(Session& session, const std::string& name) {
  constexpr uint64_t kStepBytes = uint64_t{2} << 20;
  auto opened = session.Open(name, AccessMode::kWrite);
  if (absl::IsNotFound(opened.status())) return;
  auto region = Check(std::move(opened));
  const uint64_t size = region->info().size_bytes;
  if (region->info().allocated_bytes == size) {
    Check(region->Unallocate(0, size));
  } else if (region->info().allocated_bytes > 0) {
    for (uint64_t at = 0; at < size; at += kPageBytes) {
      const uint64_t step = at % kStepBytes == 0 ? std::min(kStepBytes, size - at) : kPageBytes;
      const absl::Status whole = region->Unallocate(at, step);
      if (whole.ok()) at += step - kPageBytes;
      if (!whole.ok() && !absl::IsFailedPrecondition(whole)) Check(whole);
    }
  }
  region.reset();
  Check(session.Free(name));
}

std::shared_ptr<Region> MakeTable(Session& session, const Job& job) {
  RemoveTable(session, job.options.region);
  auto region = Check(session.Reserve({.name = job.options.region, .size_bytes = job.layout.size()}));
  Check(region->Allocate(0, job.layout.size(), {.persistent = true}));
  const Header header{kMagic, job.layout.slots, job.layout.arena_bytes, 0};
  Check(region->Write(0, std::as_bytes(std::span(&header, 1))));
  return region;
}

struct CountedWord {
  std::string word;
  uint64_t count;
};

// In large steps, each of which is few messages.
std::string ReadRange(Region& region, uint64_t offset, uint64_t length) {
  std::string bytes(length, '\0');
  for (uint64_t at = 0; at < length; at += kReadStepBytes) {
    const std::span step(bytes.data() + at, std::min(kReadStepBytes, length - at));
    Check(region.Read(offset + at, std::as_writable_bytes(step)));
  }
  return bytes;
}

// Trusts nothing of what it reads: the region may be something else, or of another version.
std::vector<CountedWord> ReadTable(Region& region) {
  Header header{};
  if (region.info().size_bytes >= Layout::kSlotsAt) {
    Check(region.Read(0, std::as_writable_bytes(std::span(&header, 1))));
  }
  const Layout layout{header.slots, header.arena_bytes};
  if (header.magic != kMagic || !std::has_single_bit(header.slots) || header.slots > region.info().size_bytes ||
      layout.size() != region.info().size_bytes) {
    Fail(absl::StrCat("region ", region.info().name, " is not a table of words"));
  }
  if (header.finished == 0) Fail(absl::StrCat("the table ", region.info().name, " is of a run that did not finish"));
  uint64_t taken = 0;
  Check(region.Read(Layout::kArenaTakenAt, std::as_writable_bytes(std::span(&taken, 1))));
  const std::string arena = ReadRange(region, layout.arena_at(), std::min(taken, layout.arena_bytes));
  const std::string slots = ReadRange(region, Layout::kSlotsAt, layout.slots * sizeof(Slot));
  std::vector<CountedWord> words;
  for (uint64_t i = 0; i < layout.slots; ++i) {
    Slot slot{};
    std::memcpy(&slot, slots.data() + i * sizeof(Slot), sizeof(slot));
    if (slot.tag == 0) continue;
    if ((slot.tag & kLongTag) == 0) {
      words.push_back({UnpackShort(slot.tag), slot.count});
      continue;
    }
    uint64_t length = 0;
    const uint64_t at = ArenaOffset(slot.tag);
    if (at + sizeof(length) <= arena.size()) std::memcpy(&length, arena.data() + at, sizeof(length));
    if (length <= kShortWordLetters || length > arena.size() - at - 8) Fail(absl::StrCat("slot ", i, " is damaged"));
    words.push_back({arena.substr(at + 8, length), slot.count});
  }
  std::sort(words.begin(), words.end(), [](const CountedWord& a, const CountedWord& b) { return a.word < b.word; });
  return words;
}

void PrintWords(const std::vector<CountedWord>& words, const std::string& path) {
  std::ofstream file;
  if (!path.empty()) file.open(path, std::ios::binary | std::ios::trunc);
  std::ostream& out = path.empty() ? std::cout : file;
  for (const CountedWord& word : words) out << word.count << ' ' << word.word << '\n';
  out.flush();
  if (!out.good()) Fail(absl::StrCat("cannot write ", path.empty() ? "the standard output" : path));
}

void PrintSummary(const Job& job, const std::vector<Report>& reports, size_t distinct, double working_s) {
  // Where the words go to the standard output, this does not.
  std::ostream& out = job.options.output.empty() ? std::cerr : std::cout;
  uint64_t bytes = 0;
  uint64_t words = 0;
  for (size_t i = 0; i < reports.size(); ++i) {
    const Report& r = reports[i];
    bytes += r.bytes;
    words += r.words;
    out << absl::StreamFormat(
        "worker %d at %s: %.1f MB, counted in %.2f s, merged in %.2f s, flushed in %.2f s, %d read faults, %d write "
        "faults, %d pages came "
        "to "
        "its node\n",
        i + 1, job.options.sockets[i], r.bytes / 1e6, r.counting_s, r.merging_s, r.flushing_s, r.counters.read_faults,
        r.counters.write_faults, r.counters.pages_fetched);
  }
  out << absl::StreamFormat("%d words, %d different, in %d files of %.1f MB: %.1f MB/s, %.2f s with the flush\n", words,
                            distinct, job.files.size(), bytes / 1e6, bytes / 1e6 / working_s, working_s);
}

void CountWords(const Options& options) {
  Job job{options, {options.slots, options.arena_mib << 20}, {}, {}};
  for (const std::string& path : options.paths) AddFiles(path, &job);
  if (job.layout.slots == 0) job.layout.slots = SlotsFor(job);
  Workers workers(job);  // Before anything that has threads.
  const auto session = Check(Session::Attach({.socket_path = options.sockets.front()}));
  const auto region = MakeTable(*session, job);
  Stopwatch watch;
  workers.Go();
  const absl::StatusOr<std::vector<Report>> reports = workers.Await();
  if (!reports.ok()) Fail(std::string(reports.status().message()));  // The other workers end with this process.
  // I3: the word of the end goes to the disk after all that it vouches for, which the workers have flushed.
  Header header{kMagic, job.layout.slots, job.layout.arena_bytes, 1};
  Check(region->Write(0, std::as_bytes(std::span(&header, 1))));
  Check(region->Flush(0, kPageBytes));
  const double working_s = watch.Lap();
  const std::vector<CountedWord> words = ReadTable(*region);
  PrintWords(words, options.output);
  PrintSummary(job, *reports, words.size(), working_s);
}

void ReadWords(const Options& options) {
  const auto session = Check(Session::Attach({.socket_path = options.sockets.front()}));
  const auto region = Check(session->Open(options.region, AccessMode::kRead));
  PrintWords(ReadTable(*region), options.output);
}

[[noreturn]] void FailUsage(const std::string& message) {
  Fail(absl::StrCat(message,
                    "\nusage: wordcount --sockets A,B,C [--region NAME] [--output FILE] [--slots N] [--arena-mib N] "
                    "FILE|DIRECTORY...\n       wordcount --read --sockets A [--region NAME] [--output FILE]"),
       2);
}

uint64_t NumberOf(const std::string& flag, const std::string& text, uint64_t max) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number == 0 || number > max) {
    FailUsage(absl::StrCat(flag, " is \"", text, "\", expected a number from 1 to ", max));
  }
  return number;
}

Options ParseOptions(const std::vector<std::string>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& flag = arguments[i];
    if (!flag.starts_with("--")) {
      options.paths.push_back(flag);
      continue;
    }
    if (flag == "--read") {
      options.read = true;
      continue;
    }
    if (i + 1 == arguments.size()) FailUsage(absl::StrCat(flag, " needs a value"));
    const std::string& value = arguments[++i];
    if (flag == "--sockets") {
      options.sockets = absl::StrSplit(value, ',', absl::SkipEmpty());
    } else if (flag == "--region") {
      options.region = value;
    } else if (flag == "--output") {
      options.output = value;
    } else if (flag == "--slots") {
      // A power of two, and whole pages.
      options.slots = std::max<uint64_t>(256, std::bit_ceil(NumberOf(flag, value, uint64_t{1} << 36)));
    } else if (flag == "--arena-mib") {
      options.arena_mib = NumberOf(flag, value, 32 << 10);
    } else {
      FailUsage(absl::StrCat("unknown flag ", flag));
    }
  }
  if (options.sockets.empty()) FailUsage("--sockets is missing");
  if (options.read != options.paths.empty()) FailUsage(options.read ? "--read takes no files" : "no files are given");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGBUS, OnBusError);
  const Options options = ParseOptions({argv + 1, argv + argc});
  if (options.read) {
    ReadWords(options);
  } else {
    CountWords(options);
  }
  return 0;
}
