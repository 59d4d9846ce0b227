#include "bench/store_bench.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/floors/bulk_floor.h"
#include "bench/floors/store_floor.h"
#include "bench/measured_store.h"
#include "bench/timing.h"
#include "bench/worker.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kPages = 50'000;  // 195 MiB that are written again and again, in random order.
constexpr uint64_t kBatchPages = 250;
constexpr uint64_t kManyCommits = 2 * kPages;
constexpr double kNsPerUs = 1e3;
constexpr double kNsPerMs = 1e6;
constexpr double kNsPerSecond = 1e9;
constexpr double kBytesPerMib = 1 << 20;

// What this process made the disk write so far, once the kernel's page cache is empty of it.
uint64_t WrittenBytes() {
  std::ifstream io("/proc/self/io");
  uint64_t value = 0;
  for (std::string key; io >> key >> value;) {
    if (key == "write_bytes:") return value;
  }
  Die("/proc/self/io has no write_bytes");
}

uint64_t BytesIn(const std::string& directory) {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

template <typename Operation>
double RatePerSecond(uint64_t count, Operation operation) {
  const int64_t begin = NowNs();
  operation();
  return static_cast<double>(count) * kNsPerSecond / static_cast<double>(NowNs() - begin);
}

// Over so many commits that the store has to reclaim what was overwritten.
double WriteAmplification(MeasuredStore& store) {
  const uint64_t before = WrittenBytes();
  store.Commit(kManyCommits, 64);
  sync();
  return static_cast<double>(WrittenBytes() - before) / static_cast<double>(kManyCommits * kPageBytes);
}

// The end of a process that has the store open, behind commits that it has not moved into tables.
[[noreturn]] void Crash(MeasuredStore& store) {
  store.Commit(kPages / 4, 64);
  _exit(0);
}

Verbs MakeStoreVerbs(const std::string& path) {
  auto store = std::make_shared<std::unique_ptr<MeasuredStore>>();
  return {{"open", [=](const Arguments&) { return *store = std::make_unique<MeasuredStore>(path, kPages), 0; }},
          {"fill", [=](const Arguments&) { return (*store)->Fill(), 0; }},
          {"latency", [=](const Arguments& a) { return MedianNs(a[0], [&](uint64_t) { (*store)->Commit(1, 1); }); }},
          {"rate", [=](const Arguments& a) { return RatePerSecond(a[0], [&] { (*store)->Commit(a[0], a[1]); }); }},
          {"bulk", [=](const Arguments& a) { return RatePerSecond(kPages, [&] { (*store)->Bulk(a[0], a[1]); }); }},
          {"read", [=](const Arguments& a) { return MedianNs(a[0], [&](uint64_t) { (*store)->Read(); }); }},
          {"amplification", [=](const Arguments&) { return WriteAmplification(**store); }},
          {"space", [=](const Arguments&) { return static_cast<double>(BytesIn(path)) / (kPages * kPageBytes); }},
          {"crash", [=](const Arguments&) -> double { Crash(**store); }},
          {"reopen", [=](const Arguments&) {
             return MedianNs(1, [&](uint64_t) { *store = std::make_unique<MeasuredStore>(path, kPages); });
           }}};
}

// One file, whose blocks are written already.
class BareFile {
 public:
  explicit BareFile(const std::string& path) {
    fd_ = static_cast<int>(Must(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "opening " + path));
    for (uint64_t i = 0; i < kPages; i += kBatchPages) Write(i, kBatchPages);
    Must(fsync(fd_), "syncing " + path);
    direct_fd_ = static_cast<int>(Must(open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC), "opening " + path));
  }
  ~BareFile() {
    close(fd_);
    close(direct_fd_);
  }
  BareFile(const BareFile&) = delete;
  BareFile& operator=(const BareFile&) = delete;

  void Commit(uint64_t pages) {
    Write(random_() % (kPages - pages), pages);
    Must(fdatasync(fd_), "fdatasync");
  }
  // From the disk, as a page is read that has not been read before.
  void Read() {
    Must(pread(direct_fd_, block_->bytes.data(), kPageBytes, static_cast<off_t>(random_() % kPages * kPageBytes)),
         "pread");
  }
  void Bulk() {
    for (uint64_t i = 0; i < kPages; i += kBatchPages) {
      Write(i, kBatchPages);
      Must(fdatasync(fd_), "fdatasync");
    }
  }
  void ReadInOrder(uint64_t pages) {
    for (uint64_t i = 0; i < pages; i += kBatchPages) {
      Must(pread(fd_, buffer_.data(), buffer_.size(), static_cast<off_t>(i * kPageBytes)), "pread");
    }
  }

 private:
  void Write(uint64_t page, uint64_t pages) {
    Must(pwrite(fd_, buffer_.data(), pages * kPageBytes, static_cast<off_t>(page * kPageBytes)), "pwrite");
  }

  struct alignas(kPageBytes) Block {
    std::array<char, kPageBytes> bytes;
  };

  int fd_ = -1;
  int direct_fd_ = -1;
  const std::unique_ptr<Block> block_ = std::make_unique<Block>();
  std::vector<char> buffer_ = std::vector<char>(kBatchPages * kPageBytes);
  std::mt19937_64 random_{1};
};

Verbs MakeFloorVerbs(const std::string& path) {
  auto file = std::make_shared<BareFile>(path);
  return {
      {"latency", [=](const Arguments& a) { return MedianNs(a[0], [&](uint64_t) { file->Commit(1); }); }},
      {"rate",
       [=](const Arguments& a) {
         return RatePerSecond(a[0], [&] {
           for (uint64_t i = 0; i < a[0]; i += a[1]) file->Commit(a[1]);
         });
       }},
      {"bulk", [=](const Arguments&) { return RatePerSecond(kPages, [&] { file->Bulk(); }); }},
      {"read", [=](const Arguments& a) { return MedianNs(a[0], [&](uint64_t) { file->Read(); }); }},
      {"read_log", [=](const Arguments&) { return MedianNs(1, [&](uint64_t) { file->ReadInOrder(kPages / 4); }); }}};
}

double RecoveryNs(const std::string& path) {
  {
    Worker crashing("crashing store", -1, [=] { return MakeStoreVerbs(path); });
    crashing.Call("open");
    crashing.Begin("crash");
  }
  Worker recovering("recovering store", -1, [=] { return MakeStoreVerbs(path); });
  return recovering.Call("reopen");
}

}  // namespace

std::vector<std::string> StoreNames() {
  return {"commit_latency",  "commit_rate_8", "commit_rate_64", "bulk_commits",        "bulk_pages",
          "bulk_two_stores", "page_read",     "recovery",       "write_amplification", "space"};
}

std::vector<Row> RunStore(const RunOptions& options) {
  std::vector<Row> rows;
  Worker store("store", -1, [&] { return MakeStoreVerbs(options.directory + "/store"); });
  Worker bare("bare file", -1, [&] { return MakeFloorVerbs(options.directory + "/bare"); });
  store.Call("open");
  store.Call("fill");
  const uint64_t n = options.pages;
  Group group(options, &rows);
  group.Add(
      "commit_latency", "us", [&] { return store.Call("latency", n) / kNsPerUs; },
      [&] { return bare.Call("latency", n) / kNsPerUs; });
  for (const uint64_t outstanding : {8, 64}) {
    const uint64_t count = outstanding * n;
    group.Add(
        absl::StrCat("commit_rate_", outstanding), "1/s", [&] { return store.Call("rate", count, outstanding); },
        [&] { return bare.Call("rate", count, outstanding); });
  }
  for (const auto& [name, pages, outstanding] :
       {std::tuple("bulk_commits", kBatchPages, uint64_t{4}), {"bulk_pages", uint64_t{1}, uint64_t{1024}}}) {
    group.Add(
        name, "MiB/s", [&] { return store.Call("bulk", pages, outstanding) * kPageBytes / kBytesPerMib; },
        [&] { return bare.Call("bulk") * kPageBytes / kBytesPerMib; });
  }
  {
    StoreFloor stores(options.directory, kPages);
    PlainWriteFloor files(options.directory);
    const uint64_t mib = kPages * kPageBytes >> 20;
    group.Add(
        "bulk_two_stores", "MiB/s", [&] { return stores.MibPerSecond(); }, [&] { return files.MibPerSecond(mib); });
  }
  group.Add(
      "page_read", "us", [&] { return store.Call("read", n) / kNsPerUs; },
      [&] { return bare.Call("read", n) / kNsPerUs; });
  group.Add(
      "recovery", "ms", [&] { return RecoveryNs(options.directory + "/crashed") / kNsPerMs; },
      [&] { return bare.Call("read_log") / kNsPerMs; });
  group.Add(
      "write_amplification", "x", [&] { return store.Call("amplification"); }, [] { return 1; });
  group.Add(
      "space", "x", [&] { return store.Call("space"); }, [] { return 1; });
  return rows;
}

}  // namespace mangrove::bench
