// What the tests of the store share: a directory of one's own, a loop, and calls that wait.

#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "engine/store/rocks_db.h"
#include "engine/store/rocks_store.h"
#include "engine/store/segment_files.h"

namespace mangrove::store_test {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "mangrove_store_XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// The thread that calls RunUntil is the loop.
class TestLoop {
 public:
  void Post(absl::AnyInvocable<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
      ++posted_;
    }
    wake_.notify_one();
  }

  // Runs tasks until `condition` holds; ends the test program where it does not hold within a minute.
  template <typename Condition>
  void RunUntil(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!condition()) {
      absl::AnyInvocable<void()> task;
      {
        std::unique_lock lock(mutex_);
        if (!wake_.wait_until(lock, deadline, [this] { return !tasks_.empty(); })) std::abort();
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  size_t posted() const {
    const std::lock_guard lock(mutex_);
    return posted_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<absl::AnyInvocable<void()>> tasks_;
  size_t posted_ = 0;
};

constexpr ClusterId kCluster{0x1122334455667788, 0x99aabbccddeeff00};
constexpr NodeId kNode{7};

inline RocksStoreOptions OptionsFor(const std::string& path, TestLoop& loop) {
  RocksStoreOptions options;
  options.path = path;
  options.post = [&loop](absl::AnyInvocable<void()> task) { loop.Post(std::move(task)); };
  options.cluster = kCluster;
  options.node = kNode;
  options.reserve_bytes = 1 << 20;
  return options;
}

// Content that tells pages and versions apart.
inline PageBuffer Content(uint64_t seed) {
  auto page = std::make_shared<PageBytes>();
  uint64_t x = seed * 0x9e3779b97f4a7c15 + 1;
  for (size_t i = 0; i < kPageBytes; i += sizeof(x)) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    std::memcpy(&page->bytes[i], &x, sizeof(x));
  }
  return page;
}

inline StoredPage MakePage(PageId page, uint64_t counter) {
  return StoredPage{.page = page,
                    .version = Version{Epoch(3), counter},
                    .config = ConfigNumber(5),
                    .handle = RecoveryHandle{.high = counter + 1, .low = counter + 2},
                    .data = Content(counter)};
}

inline void ExpectSame(const StoredPage& a, const StoredPage& b) {
  EXPECT_EQ(a.page.value, b.page.value);
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(a.config, b.config);
  EXPECT_EQ(a.handle, b.handle);
  ASSERT_EQ(a.data == nullptr, b.data == nullptr);
  if (a.data != nullptr) {
    EXPECT_TRUE(a.data->bytes == b.data->bytes);
  }
}

// Of a store that is closed: where the page's data stands. Aborts if there is none.
inline std::pair<std::string, uint64_t> FileAndOffsetOf(const std::string& path, PageId page) {
  auto db = store::RocksDb::Open(path, {}, [] {});
  if (!db.ok()) std::abort();
  const auto entry = (*db)->Find(page);
  if (!entry.ok()) std::abort();
  return {store::SegmentFiles(path + "/segments").NameOf(entry->place.segment), entry->place.block * kPageBytes};
}

inline void FlipByte(const std::string& file, uint64_t offset) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  const char damaged = static_cast<char>(stream.get() ^ 0x40);
  stream.seekp(static_cast<std::streamoff>(offset));
  stream.put(damaged);
  ASSERT_TRUE(stream.good());
}

inline uint64_t BytesOfSegments(const std::string& path) {
  return store::SegmentFiles(path + "/segments").TotalBytes();
}

// Small, so that tables are written, segments are begun, emptied and used again all the time.
inline void SmallBuffers(RocksStoreOptions& options) {
  options.tuning.write_buffer_bytes = size_t{256} << 10;
  options.tuning.log_bytes = size_t{512} << 10;
  options.tuning.slack_bytes = size_t{256} << 10;
}

// A store, its loop, and calls that wait for their outcome.
class WaitingStore {
 public:
  explicit WaitingStore(const std::string& path) : WaitingStore(path, [](RocksStoreOptions&) {}) {}

  template <typename Adjust>
  WaitingStore(const std::string& path, Adjust adjust) {
    RocksStoreOptions options = OptionsFor(path, loop);
    adjust(options);
    auto opened = RocksStore::Open(std::move(options));
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) std::abort();
    store = *std::move(opened);
  }

  absl::Status Commit(StoreBatch batch) {
    std::optional<absl::Status> outcome;
    store->Commit(std::move(batch), [&](absl::Status status) { outcome = std::move(status); });
    loop.RunUntil([&] { return outcome.has_value(); });
    return *outcome;
  }

  absl::Status Put(PageId page, uint64_t counter) {
    StoreBatch batch;
    batch.put_pages.push_back(MakePage(page, counter));
    return Commit(std::move(batch));
  }

  absl::StatusOr<StoredPage> Read(PageId page, bool with_data = true) {
    std::optional<absl::StatusOr<StoredPage>> outcome;
    store->ReadPage(page, with_data, [&](absl::StatusOr<StoredPage> result) { outcome = std::move(result); });
    loop.RunUntil([&] { return outcome.has_value(); });
    return *std::move(outcome);
  }

  std::vector<absl::StatusOr<StoredPage>> ReadRange(PageRange range, bool with_data) {
    std::optional<std::vector<absl::StatusOr<StoredPage>>> outcome;
    store->ReadPages(range, with_data, [&](auto result) { outcome = std::move(result); });
    loop.RunUntil([&] { return outcome.has_value(); });
    return *std::move(outcome);
  }

  absl::StatusOr<PageList> List(PageRange range, size_t most, PageStore::Listed what = PageStore::Listed::kAll) {
    std::optional<absl::StatusOr<PageList>> outcome;
    store->ListPages(range, most, what, [&](absl::StatusOr<PageList> result) { outcome = std::move(result); });
    loop.RunUntil([&] { return outcome.has_value(); });
    return *std::move(outcome);
  }

  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Records(const std::string& prefix) {
    std::optional<absl::StatusOr<std::vector<std::pair<std::string, std::string>>>> outcome;
    store->ReadRecords(prefix, [&](auto result) { outcome = std::move(result); });
    loop.RunUntil([&] { return outcome.has_value(); });
    return *std::move(outcome);
  }

  TestLoop loop;
  std::unique_ptr<RocksStore> store;
};

}  // namespace mangrove::store_test
