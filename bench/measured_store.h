#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "bench/worker.h"
#include "engine/store/rocks_store.h"

namespace mangrove::bench {

// A store of so many pages whose loop is the thread that measures, which polls.
class MeasuredStore {
 public:
  MeasuredStore(const std::string& path, uint64_t pages) : pages_(pages) {
    auto opened = RocksStore::Open({.path = path,
                                    .post = [this](absl::AnyInvocable<void()> task) { Post(std::move(task)); },
                                    .cluster = ClusterId{1, 2},
                                    .node = NodeId(3)});
    Must(opened.status(), "opening a store");
    store_ = *std::move(opened);
  }

  // Every page once.
  void Fill() { Bulk(pages_ / kFillCommits, 1); }

  // So many commits of a page each.
  void Commit(uint64_t commits, uint64_t outstanding) {
    CommitAll(commits, outstanding, [this] {
      StoreBatch batch;
      AddPage(kFirst + random_() % pages_, batch);
      return batch;
    });
  }

  // As many bytes as all pages have, in their order.
  void Bulk(uint64_t pages_of_commit, uint64_t outstanding) {
    uint64_t next = 0;
    CommitAll(pages_ / pages_of_commit, outstanding, [&] {
      StoreBatch batch;
      for (uint64_t i = 0; i < pages_of_commit; ++i) AddPage(kFirst + next++, batch);
      return batch;
    });
  }

  void Read() {
    bool done = false;
    store_->ReadPage(kFirst + random_() % pages_, true, [&done](const absl::StatusOr<StoredPage>& page) {
      Must(page.status(), "a read");
      done = true;
    });
    while (!done) RunTasks();
  }

 private:
  void Post(absl::AnyInvocable<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  void RunTasks() {
    std::deque<absl::AnyInvocable<void()>> tasks;
    {
      const std::lock_guard lock(mutex_);
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task();
    if (tasks.empty()) std::this_thread::yield();  // The store's threads may need this very processor.
  }
  void AddPage(PageId page, StoreBatch& batch) {
    batch.put_pages.push_back({.page = page, .version = {Epoch(1), ++counter_}, .data = data_});
  }
  template <typename MakeBatch>
  void CommitAll(uint64_t commits, uint64_t outstanding, MakeBatch make) {
    uint64_t started = 0;
    uint64_t done = 0;
    while (done < commits) {
      for (; started < commits && started - done < outstanding; ++started) {
        store_->Commit(make(), [&done](const absl::Status& status) {
          Must(status, "a commit");
          ++done;
        });
      }
      RunTasks();
    }
  }

  // Commits in which Fill puts all pages.
  static constexpr uint64_t kFillCommits = 200;
  static constexpr PageId kFirst{1'000'000};

  const uint64_t pages_;
  const PageBuffer data_ = std::make_shared<PageBytes>();
  std::mutex mutex_;
  std::deque<absl::AnyInvocable<void()>> tasks_;
  std::mt19937_64 random_{1};
  uint64_t counter_ = 0;
  std::unique_ptr<RocksStore> store_;
};

}  // namespace mangrove::bench
