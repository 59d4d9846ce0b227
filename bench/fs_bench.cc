#include "bench/fs_bench.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/cluster.h"
#include "bench/file_work.h"
#include "bench/floors/pass_through.h"
#include "bench/janitor.h"
#include "bench/program_work.h"
#include "engine/mangrove.h"

namespace mangrove::bench {
namespace {

constexpr size_t kNodes = 3;
constexpr uint64_t kCacheMib = 1024;
constexpr int64_t kDaemonSpinUs = 50;  // What daemons have by themselves.
constexpr uint64_t kListed = 1000;
constexpr uint64_t kManyListed = 100'000;
constexpr uint64_t kPagesOfMib = (1 << 20) / kPageBytes;

void LeaveOut(const std::string& name, const std::string& why) {
  std::fprintf(stderr, "%s: left out, %s\n", name.c_str(), why.c_str());
}

// What is measured in one directory at a time.
struct FileMeasurement {
  std::string name;
  std::string unit;
  std::function<double(const std::string& directory)> measure;
  std::string program;  // That it takes; empty: none.
};

double ListWarmMs(const std::string& parent) {
  const WorkDirectory work(parent);
  MakeFiles(work.fd(), kListed);
  ListMs(work.fd(), kListed);
  return ListMs(work.fd(), kListed);
}

std::vector<FileMeasurement> FileMeasurements(const RunOptions& options, const ProgramSources* sources) {
  const uint64_t n = options.pages;
  const uint64_t mib = std::max<uint64_t>(n / 8, 4);
  const uint64_t few = std::max<uint64_t>(n / 4, 4);
  using Directory = const std::string&;
  return {{"create", "1/s", [=](Directory d) { return CreateRate(d, n); }, ""},
          {"create_1k", "1/s", [=](Directory d) { return CreateSmallRate(d, n); }, ""},
          {"open_read_close", "1/s", [=](Directory d) { return OpenReadCloseRate(d, n); }, ""},
          {"stat", "1/s", [=](Directory d) { return StatRate(d, n); }, ""},
          {"stat_warm", "1/s", [=](Directory d) { return StatWarmRate(d, n); }, ""},
          {"rename", "1/s", [=](Directory d) { return RenameRate(d, n); }, ""},
          {"unlink", "1/s", [=](Directory d) { return UnlinkRate(d, n); }, ""},
          {"mkdir", "1/s", [=](Directory d) { return MakeDirectoryRate(d, n); }, ""},
          {"list_1000", "ms", [](Directory d) { return ListWarmMs(d); }, ""},
          {"read_4k", "1/s", [=](Directory d) { return ReadPageRate(d, n); }, ""},
          {"read_4k_warm", "1/s", [=](Directory d) { return ReadPageWarmRate(d, n); }, ""},
          {"write_4k", "1/s", [=](Directory d) { return WritePageRate(d, n); }, ""},
          {"write_4k_fsync", "us", [=](Directory d) { return WritePageAndSyncUs(d, few); }, ""},
          {"read_1m", "MiB/s", [=](Directory d) { return ReadMibRate(d, mib); }, ""},
          {"write_1m", "MiB/s", [=](Directory d) { return WriteMibRate(d, mib); }, ""},
          {"write_1m_fsync", "MiB/s", [=](Directory d) { return WriteMibAndSyncRate(d, mib); }, ""},
          {"untar", "ms", [=](Directory d) { return sources->UntarMs(d); }, "tar"},
          {"git_clone", "ms", [=](Directory d) { return sources->CloneMs(d); }, "git"},
          {"git_status", "ms", [=](Directory d) { return sources->StatusMs(d); }, "git"},
          {"sqlite_rollback", "1/s", [=](Directory d) { return SqliteRate(d, few, false); }, "sqlite3"},
          {"sqlite_wal", "1/s", [=](Directory d) { return SqliteRate(d, few, true); }, "sqlite3"}};
}

constexpr char kSyncBesideFlush[] = "write_4k_fsync_beside_flush";
constexpr char kReadCold[] = "read_cold";
constexpr char kReadColdBesideEngine[] = "read_cold_beside_engine";
constexpr char kListCold[] = "list_cold_100000";

// Where everything is measured: a directory of this host, the pass-through to it, and the mounts.
class Places {
 public:
  Places(const RunOptions& options, std::string directory)
      : options_(options),
        local_(directory + "/local"),
        pass_(directory + "/pass"),
        janitor_(directory, {pass_, MountOf(directory, 0), MountOf(directory, 1), MountOf(directory, 2)}) {
    for (const std::string& path : {local_, pass_}) std::filesystem::create_directories(path);
    pass_through_.emplace(local_, pass_);
    mounts_ = options.directories;
    if (!mounts_.empty()) return;
    ClusterOptions cluster{.directory = ClusterOf(directory),
                           .cores = std::vector<int>(kNodes, -1),
                           .spin_us = kDaemonSpinUs,
                           .daemon = options.bin_directory + "/mangroved",
                           .all_daemons = true,
                           .mounts = true,
                           .pages = LargeMib() * kPagesOfMib,
                           .cache_mib = kCacheMib};
    cluster_ = std::make_unique<Cluster>(std::move(cluster));
    for (size_t i = 0; i < kNodes; ++i) mounts_.push_back(cluster_->mount_of(i));
  }

  const std::string& local() const { return local_; }
  const std::string& pass() const { return pass_; }
  const std::vector<std::string>& mounts() const { return mounts_; }
  Cluster* cluster() const { return cluster_.get(); }  // Null: the mounts are somebody else's.
  uint64_t LargeMib() const { return std::max<uint64_t>(options_.pages / 4, 4); }

 private:
  static std::string ClusterOf(const std::string& directory) { return directory + "/cluster"; }
  static std::string MountOf(const std::string& directory, size_t index) {
    return absl::StrCat(ClusterOf(directory), "/mount-", index + 1);
  }

  const RunOptions& options_;
  const std::string local_;
  const std::string pass_;
  const Janitor janitor_;  // Goes last.
  std::optional<PassThrough> pass_through_;
  std::vector<std::string> mounts_;
  std::unique_ptr<Cluster> cluster_;
};

class FsRun {
 public:
  FsRun(const RunOptions& options, Places* places, std::vector<Row>* rows)
      : options_(options), places_(*places), rows_(rows) {}

  void OfOneMount(const FileMeasurement& what) {
    if (!what.program.empty() && !HasProgram(what.program)) return LeaveOut(what.name, "there is no " + what.program);
    Add({.name = what.name,
         .unit = what.unit,
         .value = [&] { return what.measure(places_.mounts()[0]); },
         .floor = [&] { return what.measure(places_.pass()); },
         .local = [&] { return what.measure(places_.local()); }},
        options_.repetitions);
  }

  // What one node has written, another one reads.
  void ReadCold() {
    const uint64_t mib = places_.LargeMib();
    const WorkDirectory local(places_.local());
    const WorkDirectory pass(places_.pass());
    const WorkDirectory writer(places_.mounts()[0]);
    const WorkDirectory reader(places_.mounts()[1], writer);
    const auto write_and_read = [mib](const WorkDirectory& to, const WorkDirectory& from) {
      WriteLarge(to.fd(), mib);
      return ReadLargeRate(from.fd(), mib);
    };
    const auto value = [&] { return write_and_read(writer, reader); };
    if (options_.Wants(kReadCold)) {
      Add({.name = kReadCold,
           .unit = "MiB/s",
           .value = value,
           .floor = [&] { return write_and_read(pass, pass); },
           .local = [&] { return write_and_read(local, local); }},
          options_.repetitions);
    }
    Cluster* const cluster = places_.cluster();
    if (!options_.Wants(kReadColdBesideEngine)) return;
    if (cluster == nullptr) return LeaveOut(kReadColdBesideEngine, "the mounts are not of a cluster made for it");
    const auto engine = [&] {
      cluster->node(0).Call("write_all");
      cluster->node(0).Call("flush_all");
      return cluster->node(1).Call("read_all");
    };
    Add({.name = kReadColdBesideEngine, .unit = "MiB/s", .value = value, .floor = engine}, options_.repetitions);
  }

  void SyncBesideFlush() {
    Cluster* const cluster = places_.cluster();
    if (cluster == nullptr) return LeaveOut(kSyncBesideFlush, "the mounts are not of a cluster made for it");
    const uint64_t n = std::max<uint64_t>(options_.pages / 4, 4);
    Add({.name = kSyncBesideFlush,
         .unit = "us",
         .value = [&] { return WritePageAndSyncUs(places_.mounts()[0], n); },
         .floor = [&] { return cluster->node(0).Call("flush_each", 0, n) / 1e3; }},
        options_.repetitions);
  }

  // Once on each other node, which has seen nothing of it.
  void ListCold() {
    const WorkDirectory local(places_.local());
    const WorkDirectory pass(places_.pass(), local);
    const WorkDirectory writer(places_.mounts()[0]);
    std::fprintf(stderr, "list_cold_100000: making the files ...\n");
    MakeFiles(local.fd(), kManyListed);
    MakeFiles(writer.fd(), kManyListed);
    size_t reader = 0;
    const auto list = [&] {
      const WorkDirectory cold(places_.mounts()[++reader], writer);
      return ListMs(cold.fd(), kManyListed);
    };
    Add({.name = kListCold,
         .unit = "ms",
         .value = list,
         .floor = [&] { return ListMs(pass.fd(), kManyListed); },
         .local = [&] { return ListMs(local.fd(), kManyListed); }},
        static_cast<int>(places_.mounts().size()) - 1);
  }

 private:
  void Add(const Measurement& measurement, int repetitions) {
    std::fprintf(stderr, "%s ...\n", measurement.name.c_str());
    rows_->push_back(Measure(measurement, repetitions));
  }

  const RunOptions& options_;
  const Places& places_;
  std::vector<Row>* const rows_;
};

bool WantsAny(const RunOptions& options, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return options.Wants(name); });
}

void RunBetweenNodes(const RunOptions& options, const Places& places, FsRun* run) {
  if (places.mounts().size() < 2) {
    for (const char* name : {kReadCold, kReadColdBesideEngine, kListCold}) {
      if (options.Wants(name)) LeaveOut(name, "it takes the mounts of two nodes");
    }
    return;
  }
  if (WantsAny(options, {kReadCold, kReadColdBesideEngine})) run->ReadCold();
  if (!options.Wants(kListCold)) return;
  options.large ? run->ListCold() : LeaveOut(kListCold, "as was asked for");
}

}  // namespace

std::vector<std::string> FsNames() {
  std::vector<std::string> names;
  for (const FileMeasurement& what : FileMeasurements({}, nullptr)) names.push_back(what.name);
  names.insert(names.end(), {kSyncBesideFlush, kReadCold, kReadColdBesideEngine, kListCold});
  return names;
}

std::vector<Row> RunFs(const RunOptions& options) {
  if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) Die("mounts take root, and /dev/fuse");
  std::vector<Row> rows;
  Places places(options, options.directory + "/fs");
  std::optional<ProgramSources> sources;
  if (WantsAny(options, {"untar", "git_clone", "git_status"})) {
    sources.emplace(options.directory + "/sources", std::max<uint64_t>(4 * options.pages, 100));
  }
  FsRun run(options, &places, &rows);
  for (const FileMeasurement& what : FileMeasurements(options, sources ? &*sources : nullptr)) {
    if (options.Wants(what.name)) run.OfOneMount(what);
  }
  if (options.Wants(kSyncBesideFlush)) run.SyncBesideFlush();
  RunBetweenNodes(options, places, &run);
  return rows;
}

}  // namespace mangrove::bench
