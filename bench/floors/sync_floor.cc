#include "bench/floors/sync_floor.h"

#include <fcntl.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "bench/floors/bare_fabric.h"
#include "bench/timing.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kAckBytes = 64;

// A file that is overwritten in place: its blocks are written already, so a sync is of data alone.
class SyncedFile {
 public:
  explicit SyncedFile(const std::string& path) {
    fd_ = static_cast<int>(Must(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "opening " + path));
    const std::vector<char> zeros(kPages * kPage);
    Must(pwrite(fd_, zeros.data(), zeros.size(), 0), "writing " + path);
    Must(fsync(fd_), "syncing " + path);
  }
  ~SyncedFile() { close(fd_); }
  SyncedFile(const SyncedFile&) = delete;
  SyncedFile& operator=(const SyncedFile&) = delete;

  void Put(const std::byte* page) {
    Must(pwrite(fd_, page, kPage, static_cast<off_t>(next_++ % kPages * kPage)), "pwrite");
    Must(fdatasync(fd_), "fdatasync");
  }

 private:
  static constexpr uint64_t kPages = 1024;
  int fd_ = -1;
  uint64_t next_ = 0;
};

struct Lane {
  Lane(int64_t spin_us, const std::string& path) : fabric(spin_us), file(path) {}
  BareFabric fabric;
  SyncedFile file;
};

using Lanes = std::shared_ptr<std::vector<std::unique_ptr<Lane>>>;

Lanes MakeLanes(const SyncFloorOptions& options, const std::string& side) {
  auto lanes = std::make_shared<std::vector<std::unique_ptr<Lane>>>();
  for (uint64_t i = 0; i < options.threads; ++i) {
    const std::string path = absl::StrCat(options.directory, "/sync-floor-", side, "-", options.threads, "-", i);
    lanes->push_back(std::make_unique<Lane>(options.spin_us, path));
  }
  return lanes;
}

// Runs body(lane) for each lane, in a thread of its own.
template <typename Body>
void ForEachLane(const Lanes& lanes, Body body) {
  std::vector<std::thread> threads;
  for (size_t i = 1; i < lanes->size(); ++i) threads.emplace_back([&, i] { body(*(*lanes)[i]); });
  body(*lanes->front());
  for (std::thread& thread : threads) thread.join();
}

Verbs MakeServer(const SyncFloorOptions& options) {
  const Lanes lanes = MakeLanes(options, "server");
  return {{"listen", [lanes](const Arguments& a) { return (*lanes)[a[0]]->fabric.Listen(); }},
          {"accept", [lanes](const Arguments& a) { return (*lanes)[a[0]]->fabric.Accept(), 0; }},
          {"serve", [lanes](const Arguments& a) {
             ForEachLane(lanes, [&](Lane& lane) {
               for (uint64_t i = 0; i < a[0]; ++i) {
                 lane.file.Put(lane.fabric.Receive().bytes);
                 lane.fabric.Send(0, kAckBytes);
               }
             });
             return 0;
           }}};
}

void Flush(Lane& lane) {
  lane.fabric.Send(0, kPage);
  lane.file.Put(lane.fabric.send_buffer());
  lane.fabric.Receive();
}

Verbs MakeClient(const SyncFloorOptions& options) {
  const Lanes lanes = MakeLanes(options, "client");
  return {
      {"connect",
       [lanes](const Arguments& a) { return (*lanes)[a[0]]->fabric.Connect(static_cast<uint16_t>(a[1])), 0; }},
      {"latency", [lanes](const Arguments& a) { return MedianNs(a[0], [&](uint64_t) { Flush(*lanes->front()); }); }},
      {"rate", [lanes](const Arguments& a) {
         const int64_t begin = NowNs();
         ForEachLane(lanes, [&](Lane& lane) {
           for (uint64_t i = 0; i < a[0]; ++i) Flush(lane);
         });
         return static_cast<double>(a[0] * lanes->size()) * 1e9 / static_cast<double>(NowNs() - begin);
       }}};
}

}  // namespace

SyncFloor::SyncFloor(const SyncFloorOptions& options) {
  server_ = std::make_unique<Worker>("bare syncing server", options.server_core, [=] { return MakeServer(options); });
  client_ = std::make_unique<Worker>("bare syncing client", options.client_core, [=] { return MakeClient(options); });
  for (uint64_t i = 0; i < options.threads; ++i) {
    const auto port = static_cast<uint64_t>(server_->Call("listen", i));
    server_->Begin("accept", i);
    client_->Call("connect", i, port);
    server_->End();
  }
}

SyncFloor::~SyncFloor() = default;

double SyncFloor::Run(const std::string& verb, uint64_t count) {
  server_->Begin("serve", count);
  const double result = client_->Call(verb, count);
  server_->End();
  return result;
}

double SyncFloor::LatencyNs(uint64_t count) { return Run("latency", count); }
double SyncFloor::RatePerSecond(uint64_t count_per_thread) { return Run("rate", count_per_thread); }

}  // namespace mangrove::bench
