#include "tests/cluster/plain_copy.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "engine/store/rocks_store.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

// As a flush: so many pages in a commit, and 6 MiB on their way.
constexpr uint64_t kPagesOfCommit = 64;
constexpr uint64_t kCommitsAtOnce = 24;
constexpr uint64_t kFirst = 1 << 20;

// What stores post, carried out by the thread that waits.
class Tasks {
 public:
  void Post(absl::AnyInvocable<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  template <typename Condition>
  void RunUntil(Condition condition) {
    while (!condition()) {
      std::deque<absl::AnyInvocable<void()>> tasks;
      {
        const std::lock_guard lock(mutex_);
        tasks.swap(tasks_);
      }
      for (auto& task : tasks) task();
      if (tasks.empty()) std::this_thread::yield();
    }
  }

 private:
  std::mutex mutex_;
  std::deque<absl::AnyInvocable<void()>> tasks_;
};

void Must(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

// Commits batches, so many at once.
class Writer {
 public:
  Writer(PageStore& store, Tasks& tasks) : store_(store), tasks_(tasks) {}
  void Write(StoreBatch batch) {
    tasks_.RunUntil([this] { return under_way_ < kCommitsAtOnce; });
    ++under_way_;
    store_.Commit(std::move(batch), [this](const absl::Status& status) {
      Must(status);
      --under_way_;
    });
  }
  void Finish() {
    tasks_.RunUntil([this] { return under_way_ == 0; });
  }

 private:
  PageStore& store_;
  Tasks& tasks_;
  uint64_t under_way_ = 0;
};

PageBuffer ContentOf(uint64_t page) {
  auto block = std::make_shared<PageBytes>();
  std::fill(block->bytes.begin(), block->bytes.end(), static_cast<std::byte>(page * 31 % 251));
  return block;
}

}  // namespace

double PlainCopyMibPerSecond(const std::string& directory, uint64_t pages) {
  Tasks tasks;
  const auto open = [&](const std::string& name) {
    return Take(RocksStore::Open({.path = directory + name,
                                  .post = [&tasks](absl::AnyInvocable<void()> task) { tasks.Post(std::move(task)); },
                                  .cluster = ClusterId{1, 2},
                                  .node = NodeId(3)}));
  };
  const std::unique_ptr<RocksStore> from = open("/from");
  const std::unique_ptr<RocksStore> to = open("/to");
  Writer fill(*from, tasks);
  for (uint64_t page = 0; page < pages;) {
    StoreBatch batch;
    for (; batch.put_pages.size() < kPagesOfCommit && page < pages; ++page) {
      batch.put_pages.push_back(
          {.page = PageId{kFirst + page}, .version = {Epoch(1), page + 1}, .data = ContentOf(page)});
    }
    fill.Write(std::move(batch));
  }
  fill.Finish();

  const Stopwatch watch;
  Writer copy(*to, tasks);
  // As many pages are being read as are being written.
  struct Batch {
    StoreBatch pages;
    uint64_t awaited = 0;
  };
  std::deque<std::unique_ptr<Batch>> reading;
  const auto write_first = [&] {
    tasks.RunUntil([&] { return reading.front()->awaited == 0; });
    copy.Write(std::move(reading.front()->pages));
    reading.pop_front();
  };
  for (uint64_t page = 0; page < pages;) {
    reading.push_back(std::make_unique<Batch>());
    Batch* const batch = reading.back().get();
    for (uint64_t i = 0; i < kPagesOfCommit && page < pages; ++i, ++page) {
      ++batch->awaited;
      from->ReadPage(PageId{kFirst + page}, true, [batch](absl::StatusOr<StoredPage> read) {
        batch->pages.put_pages.push_back(Take(std::move(read)));
        --batch->awaited;
      });
    }
    if (reading.size() == kCommitsAtOnce) write_first();
  }
  while (!reading.empty()) write_first();
  copy.Finish();
  return static_cast<double>(pages * kPageBytes) / (1 << 20) / watch.Seconds();
}

}  // namespace mangrove::cluster_test
