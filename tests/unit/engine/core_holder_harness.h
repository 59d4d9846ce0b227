// A core holder over a store in memory, and messages for it.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "directory/planted_bugs.h"
#include "engine/core_holder.h"

namespace mangrove {

// A store in memory. Commits are applied for readers at once, and durable when the test says so; a read is answered when the
// test says so, with what there is by then, or with what there was when it was asked for.
class FakeCoreHolderStore : public PageStore {
 public:
  struct State {
    std::map<absl::uint128, StoredPage> pages;
    std::map<std::string, std::string> records;
  };

  void Commit(StoreBatch batch, CommitDone done) override {
    Apply(batch, visible_);
    commits.push_back({std::move(batch), std::move(done)});
    ++commit_count;
  }
  void ReadPages(PageRange range, bool with_data, PagesDone done) override {
    reads.push_back({range, with_data, Look(range, with_data), std::move(done), {}});
    ++read_count;
  }
  void ListPages(PageRange range, size_t most, Listed, ListDone done) override {
    reads.push_back({range, /*with_data=*/false, {}, nullptr, {most, List(range, most), std::move(done)}});
    ++read_count;
  }
  void ReadRecords(std::string prefix, RecordsDone done) override {
    std::vector<std::pair<std::string, std::string>> found;
    for (const auto& [key, value] : visible_.records) {
      if (key.compare(0, prefix.size(), prefix) == 0) found.emplace_back(key, value);
    }
    done(std::move(found));
  }
  StoreUsage Usage() const override { return usage; }

  // The oldest commit becomes durable.
  void FinishCommit() {
    auto [batch, done] = std::move(commits.front());
    commits.pop_front();
    Apply(batch, durable);
    done(absl::OkStatus());
  }
  // The newest commit fails as on a full disk.
  void FailCommit() {
    auto [batch, done] = std::move(commits.back());
    commits.pop_back();
    visible_ = durable;
    for (const auto& commit : commits) Apply(commit.first, visible_);
    done(absl::ResourceExhaustedError("disk full"));
  }
  // The oldest one does. Nothing that came after counts on it.
  void FailOldestCommit() {
    auto [batch, done] = std::move(commits.front());
    commits.pop_front();
    visible_ = durable;
    for (const auto& commit : commits) Apply(commit.first, visible_);
    done(absl::ResourceExhaustedError("disk full"));
  }
  void FinishRead(bool as_asked = false) {
    auto read = std::move(reads.front());
    reads.pop_front();
    Listing& listing = read.listing;
    if (listing.done) return listing.done(as_asked ? std::move(listing.found) : List(read.pages, listing.most));
    read.done(as_asked ? std::move(read.found) : Look(read.pages, read.with_data));
  }
  void FinishAll() {
    while (!commits.empty() || !reads.empty()) {
      if (!reads.empty()) {
        FinishRead();
      } else {
        FinishCommit();
      }
    }
  }
  absl::StatusOr<StoredPage> Look(PageId page, bool with_data) const {
    if (corrupt.count(page.value) > 0) return absl::DataLossError("checksum");
    const auto it = visible_.pages.find(page.value);
    if (it == visible_.pages.end()) return absl::NotFoundError("no record");
    StoredPage found = it->second;
    if (!with_data) found.data = nullptr;
    return found;
  }
  using Found = std::vector<absl::StatusOr<StoredPage>>;
  Found Look(PageRange range, bool with_data) const {
    Found found;
    for (uint64_t i = 0; i < range.count; ++i) found.push_back(Look(range.first + i, with_data));
    return found;
  }
  PageList List(PageRange range, size_t most) const {
    PageList list;
    for (auto it = visible_.pages.lower_bound(range.first.value); it != visible_.pages.end(); ++it) {
      const PageId page(it->first);
      if (!range.Contains(page)) break;
      if (list.pages.size() == most) {
        list.next = page;
        break;
      }
      const absl::StatusOr<StoredPage> found = Look(page, /*with_data=*/false);
      list.pages.push_back(found.ok() ? *found : StoredPage{.page = page});
    }
    return list;
  }
  void Crash() {
    commits.clear();
    reads.clear();
    visible_ = durable;
  }

  struct Listing {
    size_t most = 0;
    PageList found;
    ListDone done;  // Null: the read is none.
  };
  struct Read {
    PageRange pages;
    bool with_data;
    Found found;
    PagesDone done;
    Listing listing;
  };
  std::deque<std::pair<StoreBatch, CommitDone>> commits;
  std::deque<Read> reads;
  State durable;
  StoreUsage usage;
  std::set<absl::uint128> corrupt;
  int commit_count = 0;
  int read_count = 0;

 private:
  void Apply(const StoreBatch& batch, State& state) {
    for (const PageRange& range : batch.delete_pages) {
      state.pages.erase(state.pages.lower_bound(range.first.value), state.pages.lower_bound(range.end().value));
    }
    for (const StoredPage& page : batch.put_pages) {
      state.pages[page.page.value] = page;
      corrupt.erase(page.page.value);
    }
    for (const auto& record : batch.records) {
      if (record.value) {
        state.records[record.key] = *record.value;
      } else {
        state.records.erase(record.key);
      }
    }
  }

  State visible_;
};

inline constexpr PageId kBase{1 << 20};
inline constexpr uint32_t kSystemReplicas = 3;

class CoreHolderTest : public ::testing::Test {
 protected:
  CoreHolderTest() { Start(); }

  void Start() {
    answers_.clear();
    holder_ = std::make_unique<CoreHolder>(&store_, &bugs_, kSystemReplicas);
    absl::Status opened = absl::UnknownError("Open has not called back");
    holder_->Open([&](absl::Status s) { opened = std::move(s); });
    ASSERT_TRUE(opened.ok()) << opened;
  }
  void Restart() {
    store_.Crash();
    Start();
  }

  // Sends a message; its answer will be in answers_ under the returned number.
  uint64_t Send(Message m) {
    m.request = RequestId(++requests_);
    const uint64_t number = requests_;
    holder_->Handle(m, [this, number, m](const Message& answer) {
      EXPECT_EQ(answer.page, m.page);
      EXPECT_EQ(answer.count, m.count);
      EXPECT_EQ(answer.request, m.request);
      EXPECT_EQ(answers_.count(number), 0u) << "answered twice";
      answers_[number] = answer;
    });
    return number;
  }
  bool Answered(uint64_t number) const { return answers_.count(number) > 0; }
  // Sends, lets everything finish, and gives the answer.
  Message Call(const Message& m) {
    const uint64_t number = Send(m);
    store_.FinishAll();
    EXPECT_TRUE(Answered(number));
    return answers_[number];
  }

  static Message Put(PageId first, uint64_t count, uint64_t config, uint32_t replicas = 2, bool is_volatile = false) {
    Message m;
    m.kind = MessageKind::kPutExtent;
    m.page = first;
    m.count = count;
    m.config = ConfigNumber(config);
    m.replicas = replicas;
    m.is_volatile = is_volatile;
    return m;
  }
  static Message Drop(PageId first, uint64_t count, uint64_t config) {
    Message m = Put(first, count, config);
    m.kind = MessageKind::kDropExtent;
    return m;
  }
  static Message Store(PageId page, uint64_t config, Version version, bool complete = false) {
    Message m;
    m.kind = MessageKind::kStore;
    m.page = page;
    m.config = ConfigNumber(config);
    m.version = version;
    m.complete = complete;
    auto data = std::make_shared<PageBytes>();
    data->bytes.fill(static_cast<std::byte>(version.counter));
    m.data = data;
    return m;
  }
  static Message Query(PageId page, bool with_data = true, uint64_t seal_at = 0) {
    Message m;
    m.kind = MessageKind::kQueryStored;
    m.page = page;
    m.with_data = with_data;
    m.seal = seal_at > 0;
    m.grant_epoch = Epoch(seal_at);
    return m;
  }
  static Version V(uint64_t counter, uint64_t epoch = 1) { return {Epoch(epoch), counter}; }
  // Ten pages from kBase on, configuration 5.
  void PutTen() { ASSERT_EQ(Call(Put(kBase, 10, 5)).code, absl::StatusCode::kOk); }
  // The same after a restart, so that versions have to be read.
  void PutTenAndRestart() {
    PutTen();
    Restart();
  }

  PlantedBugs bugs_;
  FakeCoreHolderStore store_;
  std::unique_ptr<CoreHolder> holder_;
  std::map<uint64_t, Message> answers_;
  uint64_t requests_ = 0;
};

}  // namespace mangrove
