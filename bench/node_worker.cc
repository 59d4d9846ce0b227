#include "bench/node_worker.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "bench/timing.h"
#include "engine/transaction.h"

namespace mangrove::bench {
namespace {

constexpr char kRegionName[] = "bench";
constexpr uint64_t kSetPages = 64;  // Of the cached accesses: 256 KiB, in the second-level cache.
constexpr size_t kLineBytes = 64;
constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr int64_t kStartNs = 20'000'000'000;

// The result of `call`, tried again as long as other nodes are still starting.
template <typename Call>
auto Patiently(Call call) {
  const int64_t limit = NowNs() + kStartNs;
  while (true) {
    auto result = call();
    if (result.ok() || NowNs() > limit) return result;
    usleep(20'000);
  }
}

// One cycle through all lines of the set in random order, as offsets.
void WriteCycle(std::byte* base) {
  std::vector<uint64_t> lines(kSetPages * kPageBytes / kLineBytes);
  for (size_t i = 0; i < lines.size(); ++i) lines[i] = i * kLineBytes;
  std::shuffle(lines.begin(), lines.end(), std::mt19937_64(1));
  for (size_t i = 0; i < lines.size(); ++i) {
    std::memcpy(base + lines[i], &lines[(i + 1) % lines.size()], sizeof(uint64_t));
  }
}

double ChaseNs(const std::byte* base, uint64_t count) {
  uint64_t at = 0;
  const int64_t begin = NowNs();
  for (uint64_t i = 0; i < count; ++i) std::memcpy(&at, base + at, sizeof(at));
  const int64_t end = NowNs();
  asm volatile("" : : "r"(at));
  return static_cast<double>(end - begin) / static_cast<double>(count);
}

// Ns per call of copy(page), over the set in an order that no prefetcher knows.
template <typename Copy>
double CopyNs(uint64_t count, Copy copy) {
  const int64_t begin = NowNs();
  for (uint64_t i = 0; i < count; ++i) copy(i * 37 % kSetPages);
  return static_cast<double>(NowNs() - begin) / static_cast<double>(count);
}

// Of pages of 4 KiB, as the region's.
std::byte* PrivateSet() {
  void* set = mmap(nullptr, kSetPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (set == MAP_FAILED) Die("no private memory");
  madvise(set, kSetPages * kPageBytes, MADV_NOHUGEPAGE);
  auto* bytes = static_cast<std::byte*>(set);
  WriteCycle(bytes);
  return bytes;
}

class NodeProgram {
 public:
  explicit NodeProgram(OpenSession open) : open_(std::move(open)) { buffer_.fill(std::byte{7}); }

  void Start() {
    auto session = Patiently(open_);
    Must(session.status(), "opening a session");
    session_ = *std::move(session);
  }

  void Reserve(uint64_t pages) {
    auto region = Patiently([&] { return session_->Reserve({.name = kRegionName, .size_bytes = pages * kPageBytes}); });
    Must(region.status(), "reserving the region");
    region_ = *std::move(region);
    Must(region_->Allocate(0, pages * kPageBytes, {}), "allocating");
    Map(pages);
  }

  void Open(uint64_t pages) {
    auto region = Patiently([&] { return session_->Open(kRegionName, AccessMode::kWrite); });
    Must(region.status(), "opening the region");
    region_ = *std::move(region);
    Map(pages);
  }

  // Each page once, in an order in which nothing is read ahead: operation(page).
  template <typename Operation>
  double EachPageNs(uint64_t first, uint64_t count, Operation operation) {
    if (order_.size() != count) {
      order_.resize(count);
      std::iota(order_.begin(), order_.end(), uint64_t{0});
      std::shuffle(order_.begin(), order_.end(), std::mt19937_64(1));
    }
    return MedianNs(count, [&](uint64_t i) { operation(first + order_[i]); });
  }
  double Load(uint64_t first, uint64_t count) {
    return EachPageNs(first, count, [&](uint64_t page) { Word(page).load(std::memory_order_relaxed); });
  }
  double Store(uint64_t first, uint64_t count) {
    return EachPageNs(first, count, [&](uint64_t page) { Word(page).store(++stamp_, std::memory_order_relaxed); });
  }
  double Read(uint64_t first, uint64_t count) {
    return EachPageNs(first, count, [&](uint64_t page) { Must(region_->Read(page * kPageBytes, buffer_), "reading"); });
  }
  double Write(uint64_t first, uint64_t count) {
    return EachPageNs(first, count,
                      [&](uint64_t page) { Must(region_->Write(page * kPageBytes, buffer_), "writing"); });
  }

  // The same, of which not all are here: ns for each page that came, with all that the others took.
  double Swap(uint64_t first, uint64_t count) {
    const uint64_t before = region_->Counters().pages_fetched;
    const int64_t begin = NowNs();
    Write(first, count);
    const double ns = static_cast<double>(NowNs() - begin);
    return ns / static_cast<double>(std::max<uint64_t>(region_->Counters().pages_fetched - before, 1));
  }

  double Flush(uint64_t first, uint64_t count) {
    Must(region_->Flush(first * kPageBytes, count * kPageBytes), "flushing");
    return 0;
  }

  double SetProtocol(CoherenceProtocol protocol) {
    Must(region_->SetAttributes(0, region_->info().size_bytes, {.protocol = protocol}), "setting the protocol");
    return 0;
  }

  // Of a record in each page: read it, then change it.
  double Update(uint64_t first, uint64_t count) {
    return EachPageNs(first, count, [&](uint64_t page) {
      std::atomic_ref<uint64_t> word = Word(page);
      word.store(word.load() + 1);
    });
  }

  // The whole region in order, so much at a time; MiB/s.
  template <typename Operation>
  double InOrder(uint64_t step_bytes, Operation operation) {
    const uint64_t bytes = region_->info().size_bytes;
    const int64_t begin = NowNs();
    for (uint64_t at = 0; at < bytes; at += step_bytes) operation(at);
    return static_cast<double>(bytes >> 20) * 1e9 / static_cast<double>(NowNs() - begin);
  }
  double ReadAll() {
    return InOrder(kMib, [&](uint64_t at) { Must(region_->Read(at, large_buffer_), "reading"); });
  }
  double LoadAll() {
    return InOrder(kMib, [&](uint64_t at) { std::memcpy(large_buffer_.data(), base_ + at, kMib); });
  }
  double WriteAll() {
    return InOrder(kMib, [&](uint64_t at) { Must(region_->Write(at, large_buffer_), "writing"); });
  }
  double TakeAll() {
    return InOrder(kMib, [&](uint64_t at) {
      auto view = region_->Access(at, kMib, AccessMode::kWrite, 10'000);
      Must(view.status(), "access");
      Must(view->Release(), "release");
    });
  }
  double FlushAll() {
    return InOrder(64 * kMib, [&](uint64_t at) {
      Must(region_->Flush(at, std::min<uint64_t>(64 * kMib, region_->info().size_bytes - at)), "flushing");
    });
  }

  double FlushEach(uint64_t first, uint64_t count) {
    std::vector<double> samples;
    for (uint64_t i = 0; i < count; ++i) {
      WriteWord(first + i, i);
      const int64_t begin = NowNs();
      Flush(first + i, 1);
      samples.push_back(static_cast<double>(NowNs() - begin));
    }
    return Median(std::move(samples));
  }

  double FlushRate(uint64_t threads, uint64_t count, uint64_t first) {
    const auto body = [this, count](uint64_t page) {
      for (uint64_t i = 0; i < count; ++i) {
        WriteWord(page, i);
        Flush(page, 1);
      }
    };
    const int64_t begin = NowNs();
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < threads; ++i) others.emplace_back(body, first + i);
    body(first);
    for (std::thread& other : others) other.join();
    return static_cast<double>(threads * count) * 1e9 / static_cast<double>(NowNs() - begin);
  }

  double CommitRate(uint64_t threads, uint64_t count) {
    const auto body = [this, count](uint64_t first) {
      for (uint64_t i = 0; i < count; ++i) {
        auto transaction = Transaction::Begin(session_);
        Must(transaction.status(), "beginning a transaction");
        for (const uint64_t page : {first, first + 1}) {
          Must(transaction->Write(*region_, page * kPageBytes, std::as_bytes(std::span(&i, 1))),
               "writing in a transaction");
        }
        Must(transaction->Commit(), "committing");
      }
    };
    const int64_t begin = NowNs();
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < threads; ++i) others.emplace_back(body, 2 * i);
    body(0);
    for (std::thread& other : others) other.join();
    return static_cast<double>(threads * count) * 1e9 / static_cast<double>(NowNs() - begin);
  }

  double Turns(uint64_t parity, uint64_t count) {
    std::atomic_ref<uint64_t> counter = Word(0);
    const int64_t begin = NowNs();
    for (uint64_t i = 0; i < count; ++i) {
      while (counter.load(std::memory_order_acquire) % 2 != parity) sched_yield();
      counter.fetch_add(1, std::memory_order_acq_rel);
    }
    return static_cast<double>(NowNs() - begin) / static_cast<double>(2 * count);
  }

  double Chase(uint64_t count) {
    WriteCycle(base_);
    return ChaseNs(base_, count);
  }
  double Copy(uint64_t count) {
    WriteCycle(base_);
    return CopyNs(count, [&](uint64_t page) { Must(region_->Read(page * kPageBytes, buffer_), "reading"); });
  }
  double ChasePrivate(uint64_t count) { return ChaseNs(private_set_, count); }
  double CopyPrivate(uint64_t count) {
    return CopyNs(count, [&](uint64_t page) {
      std::memcpy(buffer_.data(), private_set_ + page * kPageBytes, kPageBytes);
      asm volatile("" : : "r"(buffer_.data()) : "memory");
    });
  }

 private:
  void Map(uint64_t pages) {
    auto base = region_->Map(0, pages * kPageBytes);
    Must(base.status(), "mapping");
    base_ = *base;
  }
  std::atomic_ref<uint64_t> Word(uint64_t page) const {
    return std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(base_ + page * kPageBytes));
  }
  void WriteWord(uint64_t page, uint64_t word) {
    Must(region_->Write(page * kPageBytes, std::as_bytes(std::span(&word, 1))), "writing");
  }

  const OpenSession open_;
  std::shared_ptr<Session> session_;
  std::shared_ptr<Region> region_;
  std::byte* base_ = nullptr;
  std::byte* private_set_ = PrivateSet();
  uint64_t stamp_ = 0;
  std::vector<uint64_t> order_;  // Of EachPageNs.
  alignas(kLineBytes) std::array<std::byte, kPageBytes> buffer_;
  std::vector<std::byte> large_buffer_ = std::vector<std::byte>(kMib);
};

}  // namespace

double ResidentMib(pid_t pid) {
  const std::string path = absl::StrCat("/proc/", pid == 0 ? getpid() : pid, "/statm");
  std::FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) Die("cannot open " + path);
  unsigned long long pages[2] = {0, 0};  // NOLINT(runtime/int): as scanf wants it.
  if (std::fscanf(file, "%llu %llu", &pages[0], &pages[1]) != 2) Die("cannot read " + path);
  std::fclose(file);
  return static_cast<double>(pages[1]) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

Verbs MakeNodeVerbs(OpenSession open) {
  auto p = std::make_shared<NodeProgram>(std::move(open));
  return {
      {"start", [p](const Arguments&) { return p->Start(), 0; }},
      {"reserve", [p](const Arguments& a) { return p->Reserve(a[0]), 0; }},
      {"open", [p](const Arguments& a) { return p->Open(a[0]), 0; }},
      {"load", [p](const Arguments& a) { return p->Load(a[0], a[1]); }},
      {"store", [p](const Arguments& a) { return p->Store(a[0], a[1]); }},
      {"read", [p](const Arguments& a) { return p->Read(a[0], a[1]); }},
      {"write", [p](const Arguments& a) { return p->Write(a[0], a[1]); }},
      {"swap", [p](const Arguments& a) { return p->Swap(a[0], a[1]); }},
      {"flush", [p](const Arguments& a) { return p->Flush(a[0], a[1]); }},
      {"protocol", [p](const Arguments& a) { return p->SetProtocol(static_cast<CoherenceProtocol>(a[0])); }},
      {"update", [p](const Arguments& a) { return p->Update(a[0], a[1]); }},
      {"read_all", [p](const Arguments&) { return p->ReadAll(); }},
      {"load_all", [p](const Arguments&) { return p->LoadAll(); }},
      {"write_all", [p](const Arguments&) { return p->WriteAll(); }},
      {"take_all", [p](const Arguments&) { return p->TakeAll(); }},
      {"flush_all", [p](const Arguments&) { return p->FlushAll(); }},
      {"flush_each", [p](const Arguments& a) { return p->FlushEach(a[0], a[1]); }},
      {"flush_rate", [p](const Arguments& a) { return p->FlushRate(a[0], a[1], a[2]); }},
      {"commit_rate", [p](const Arguments& a) { return p->CommitRate(a[0], a[1]); }},
      {"turns", [p](const Arguments& a) { return p->Turns(a[0], a[1]); }},
      {"chase", [p](const Arguments& a) { return p->Chase(a[0]); }},
      {"copy", [p](const Arguments& a) { return p->Copy(a[0]); }},
      {"chase_private", [p](const Arguments& a) { return p->ChasePrivate(a[0]); }},
      {"copy_private", [p](const Arguments& a) { return p->CopyPrivate(a[0]); }},
      {"resident", [](const Arguments&) { return ResidentMib(0); }},
  };
}

}  // namespace mangrove::bench
