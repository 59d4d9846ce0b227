#include "engine/core_holder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "directory/planted_bugs.h"

namespace mangrove {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

// A store in memory. Commits are applied for readers at once, and durable when the test says so; a read is answered when the
// test says so, with what there is by then, or with what there was when it was asked for.
class FakeStore : public PageStore {
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
  void ReadPage(PageId page, bool with_data, ReadDone done) override {
    reads.push_back({page, with_data, Look(page, with_data), std::move(done)});
    ++read_count;
  }
  void ReadRecords(std::string prefix, RecordsDone done) override {
    std::vector<std::pair<std::string, std::string>> found;
    for (const auto& [key, value] : visible_.records) {
      if (key.compare(0, prefix.size(), prefix) == 0) found.emplace_back(key, value);
    }
    done(std::move(found));
  }
  StoreUsage Usage() const override { return {}; }

  // The oldest commit becomes durable.
  void FinishCommit() {
    auto [batch, done] = std::move(commits.front());
    commits.pop_front();
    Apply(batch, durable);
    done(absl::OkStatus());
  }
  // The newest commit fails as on a full disk. (Of an older one the fake would have to undo what came after.)
  void FailCommit() {
    auto [batch, done] = std::move(commits.back());
    commits.pop_back();
    visible_ = durable;
    for (const auto& commit : commits) Apply(commit.first, visible_);
    done(absl::ResourceExhaustedError("disk full"));
  }
  void FinishRead(bool as_asked = false) {
    auto read = std::move(reads.front());
    reads.pop_front();
    read.done(as_asked ? std::move(read.found) : Look(read.page, read.with_data));
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
  void Crash() {
    commits.clear();
    reads.clear();
    visible_ = durable;
  }

  struct Read {
    PageId page;
    bool with_data;
    absl::StatusOr<StoredPage> found;
    ReadDone done;
  };
  std::deque<std::pair<StoreBatch, CommitDone>> commits;
  std::deque<Read> reads;
  State durable;
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

constexpr PageId kBase{1 << 20};
constexpr uint32_t kSystemReplicas = 3;

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
  void PutTen() { ASSERT_EQ(Call(Put(kBase, 10, 5)).code, StatusCode::kOk); }
  // The same after a restart, so that versions have to be read.
  void PutTenAndRestart() {
    PutTen();
    Restart();
  }

  PlantedBugs bugs_;
  FakeStore store_;
  std::unique_ptr<CoreHolder> holder_;
  std::map<uint64_t, Message> answers_;
  uint64_t requests_ = 0;
};

// --- K1: what it acknowledged is durable ------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K1StoreIsAnsweredWhenItIsDurable) {
  PutTen();
  const uint64_t store = Send(Store(kBase, 5, V(1)));
  EXPECT_FALSE(Answered(store));
  store_.FinishCommit();
  ASSERT_TRUE(Answered(store));
  EXPECT_EQ(answers_[store].kind, MessageKind::kStored);
  EXPECT_EQ(answers_[store].code, StatusCode::kOk);
  EXPECT_EQ(answers_[store].version, V(1));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(1));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).config, ConfigNumber(5));
}

TEST_F(CoreHolderTest, K1StoreThatComesTwiceIsAnsweredWhenTheFirstIsDurable) {
  PutTen();
  const uint64_t first = Send(Store(kBase, 5, V(1)));
  const uint64_t second = Send(Store(kBase, 5, V(1)));
  EXPECT_FALSE(Answered(second));
  EXPECT_EQ(store_.commits.size(), 1u);
  store_.FinishCommit();
  EXPECT_TRUE(Answered(first));
  EXPECT_TRUE(Answered(second));
}

TEST_F(CoreHolderTest, K1PlantedBugAcknowledgesBeforeTheSync) {
  PutTen();
  bugs_.acknowledge_before_sync = true;
  const uint64_t store = Send(Store(kBase, 5, V(1)));
  EXPECT_TRUE(Answered(store));
  EXPECT_EQ(store_.durable.pages.count(kBase.value), 0u);
  store_.FinishCommit();
}

TEST_F(CoreHolderTest, K1EachStoreIsOneCommit) {
  PutTen();
  const int before = store_.commit_count;
  for (uint64_t i = 0; i < 10; ++i) Send(Store(kBase + i, 5, V(1)));
  EXPECT_EQ(store_.commit_count, before + 10);
  EXPECT_EQ(store_.read_count, 0);
}

TEST_F(CoreHolderTest, K1QueryTellsOfAVersionOnlyWhenItIsDurable) {
  PutTen();
  Send(Store(kBase, 5, V(1)));
  const uint64_t query = Send(Query(kBase));
  store_.FinishRead();
  EXPECT_FALSE(Answered(query));
  store_.FinishCommit();
  ASSERT_TRUE(Answered(query));
  EXPECT_EQ(answers_[query].version, V(1));
}

TEST_F(CoreHolderTest, K1PutAndDropAreAnsweredWhenTheyAreDurable) {
  const uint64_t put = Send(Put(kBase, 10, 5));
  const uint64_t again = Send(Put(kBase, 10, 5));
  EXPECT_FALSE(Answered(put));
  store_.FinishCommit();
  EXPECT_TRUE(Answered(put));
  EXPECT_FALSE(Answered(again));
  store_.FinishCommit();
  EXPECT_TRUE(Answered(again));
  const uint64_t drop = Send(Drop(kBase, 10, 5));
  EXPECT_FALSE(Answered(drop));
  store_.FinishCommit();
  EXPECT_EQ(answers_[drop].kind, MessageKind::kDone);
}

TEST_F(CoreHolderTest, K1FullDiskIsToldAndTheStoreCanBeRepeated) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  const uint64_t failed = Send(Store(kBase, 5, V(3)));
  const uint64_t older = Send(Store(kBase, 5, V(2)));
  store_.FailCommit();
  EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
  EXPECT_EQ(answers_[older].code, StatusCode::kResourceExhausted);
  EXPECT_EQ(Call(Query(kBase)).version, V(1));
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(2));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(2));
}

TEST_F(CoreHolderTest, K1AfterTheNewestWriteFailedTheOneBeforeIsStillWaitedFor) {
  PutTen();
  Send(Store(kBase, 5, V(2)));
  Send(Store(kBase, 5, V(3)));
  store_.FailCommit();
  const uint64_t older = Send(Store(kBase, 5, V(1)));
  EXPECT_FALSE(Answered(older));
  store_.FinishAll();
  EXPECT_EQ(answers_[older].version, V(2));
}

TEST_F(CoreHolderTest, K1QueryThatSawAFailedWriteIsReadAgain) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  Send(Store(kBase, 5, V(2)));
  const uint64_t query = Send(Query(kBase));
  store_.FailCommit();
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  EXPECT_EQ(answers_[query].version, V(1));
}

// --- K2: versions never decrease --------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K2OlderStoreIsAcknowledgedWithoutWriting) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  const int before = store_.commit_count;
  for (const Version v : {V(2), V(3)}) {
    const Message answer = Call(Store(kBase, 5, v));
    EXPECT_EQ(answer.code, StatusCode::kOk);
    EXPECT_EQ(answer.version, V(3));
  }
  EXPECT_EQ(store_.commit_count, before);
  EXPECT_EQ(store_.read_count, 0);
}

TEST_F(CoreHolderTest, K2LaterEpochBeatsEveryCounter) {
  PutTen();
  Call(Store(kBase, 5, V(100, 1)));
  EXPECT_EQ(Call(Store(kBase, 5, V(1, 2))).version, V(1, 2));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(1, 2));
}

TEST_F(CoreHolderTest, K2AfterAStartTheVersionIsReadOnceBeforeTheFirstStore) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  Restart();
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(3));
  EXPECT_EQ(store_.read_count, 1);
  EXPECT_EQ(Call(Store(kBase, 5, V(4))).version, V(4));
  EXPECT_EQ(store_.read_count, 1);
}

TEST_F(CoreHolderTest, K2StoresOfOnePageKeepTheirOrderWhileItsVersionIsRead) {
  PutTenAndRestart();
  const uint64_t first = Send(Store(kBase, 5, V(1)));
  const uint64_t second = Send(Store(kBase, 5, V(2)));
  const uint64_t late = Send(Store(kBase, 5, V(1)));
  const uint64_t other = Send(Store(kBase + 1, 5, V(7)));
  EXPECT_EQ(store_.reads.size(), 2u);
  EXPECT_TRUE(store_.commits.empty());
  store_.FinishRead();
  ASSERT_EQ(store_.commits.size(), 2u);
  EXPECT_EQ(store_.commits[0].first.put_pages[0].version, V(1));
  EXPECT_EQ(store_.commits[1].first.put_pages[0].version, V(2));
  store_.FinishAll();
  EXPECT_EQ(answers_[first].version, V(1));
  EXPECT_EQ(answers_[second].version, V(2));
  EXPECT_EQ(answers_[late].version, V(2));
  EXPECT_EQ(answers_[other].version, V(7));
}

TEST_F(CoreHolderTest, K2FreshExtentNeedsNoReadOfVersions) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  EXPECT_EQ(store_.read_count, 0);
}

TEST_F(CoreHolderTest, K2VersionsMayBeForgottenAndAreReadAgain) {
  ASSERT_EQ(Call(Put(kBase, CoreHolder::kMaxVersions + 10, 5)).code, StatusCode::kOk);
  Message store = Store(kBase, 5, V(9));
  for (uint64_t i = 0; i < CoreHolder::kMaxVersions + 1; ++i) {
    store.page = kBase + i;
    Send(store);
    store_.FinishAll();
  }
  EXPECT_EQ(store_.read_count, 0);
  EXPECT_EQ(Call(Store(kBase, 5, V(8))).version, V(9));
  EXPECT_EQ(store_.read_count, 1);
}

TEST_F(CoreHolderTest, K2ReadErrorIsToldToAllStoresThatWait) {
  PutTenAndRestart();
  const uint64_t first = Send(Store(kBase, 5, V(1)));
  const uint64_t second = Send(Store(kBase, 5, V(2)));
  auto read = std::move(store_.reads.front());
  store_.reads.clear();
  read.done(absl::InternalError("poisoned"));
  EXPECT_EQ(answers_[first].code, StatusCode::kInternal);
  EXPECT_EQ(answers_[second].code, StatusCode::kInternal);
}

TEST_F(CoreHolderTest, K2CorruptRecordIsToldAndMendedByTheNextStore) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  store_.corrupt.insert(kBase.value);
  EXPECT_EQ(Call(Query(kBase)).code, StatusCode::kDataLoss);
  EXPECT_EQ(Call(Store(kBase, 5, V(3), /*complete=*/true)).version, V(3));
  EXPECT_EQ(Call(Query(kBase)).version, V(3));
}

TEST_F(CoreHolderTest, K2CorruptRecordThatCouldNotBeMendedStaysSo) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  store_.corrupt.insert(kBase.value);
  Call(Query(kBase));
  const uint64_t failed = Send(Store(kBase, 5, V(3), /*complete=*/true));
  store_.corrupt.insert(kBase.value);
  store_.FailCommit();
  EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
  const int before = store_.commit_count;
  EXPECT_EQ(Call(Store(kBase, 5, V(3), /*complete=*/true)).version, V(3));
  EXPECT_EQ(store_.commit_count, before + 1);
}

TEST_F(CoreHolderTest, K2CorruptHeaderIsMendedByAStore) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  Restart();
  store_.corrupt.insert(kBase.value);
  EXPECT_EQ(Call(Store(kBase, 5, V(4))).version, V(4));
  EXPECT_EQ(Call(Query(kBase)).version, V(4));
}

// --- K3: what is refused ----------------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K3StoreOutsideOfExtentsIsRefused) {
  PutTen();
  const Message answer = Call(Store(kBase + 10, 5, V(1)));
  EXPECT_EQ(answer.code, StatusCode::kFailedPrecondition);
  EXPECT_THAT(answer.text, HasSubstr("is in no extent"));
}

TEST_F(CoreHolderTest, K3StoreOfAnotherConfigurationIsRefused) {
  PutTen();
  for (const uint64_t config : {4, 6}) {
    const Message answer = Call(Store(kBase, config, V(1)));
    EXPECT_EQ(answer.code, StatusCode::kFailedPrecondition);
    EXPECT_THAT(answer.text, HasSubstr("has configuration 5"));
  }
  EXPECT_TRUE(store_.durable.pages.empty());
}

TEST_F(CoreHolderTest, K3SealRefusesOlderEpochsButNotCompletions) {
  PutTen();
  Call(Query(kBase, true, /*seal_at=*/4));
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kAborted);
  EXPECT_EQ(Call(Store(kBase + 1, 5, V(9, 3))).code, StatusCode::kOk);
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3), /*complete=*/true)).code, StatusCode::kOk);
  EXPECT_EQ(Call(Store(kBase, 5, V(1, 4))).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K3SealNeverGoesBack) {
  PutTen();
  Call(Query(kBase, true, 4));
  Call(Query(kBase, true, 3));
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kAborted);
}

TEST_F(CoreHolderTest, K3SealCountsForStoresThatWaitForTheirVersion) {
  PutTenAndRestart();
  const uint64_t store = Send(Store(kBase, 5, V(9, 3)));
  const uint64_t query = Send(Query(kBase, true, 4));
  store_.FinishAll();
  EXPECT_EQ(answers_[store].code, StatusCode::kAborted);
  EXPECT_EQ(answers_[query].version, Version{});
}

TEST_F(CoreHolderTest, K3QueryWithoutSealSealsNothing) {
  PutTen();
  Message query = Query(kBase);
  query.grant_epoch = Epoch(4);
  Call(query);
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K3PlantedBugSkipsTheSeal) {
  PutTen();
  bugs_.skip_seal = true;
  Call(Query(kBase, true, 4));
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K3StoreWithoutContentIsRefused) {
  PutTen();
  Message store = Store(kBase, 5, V(1));
  store.data = nullptr;
  EXPECT_EQ(Call(store).code, StatusCode::kInvalidArgument);
}

// --- K4: no record means zeros ----------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K4NoRecordInAnExtentIsVersionZero) {
  PutTen();
  for (int start = 0; start < 2; ++start) {
    const Message answer = Call(Query(kBase + 3));
    EXPECT_EQ(answer.kind, MessageKind::kStoredInfo);
    EXPECT_EQ(answer.code, StatusCode::kOk);
    EXPECT_EQ(answer.version, Version{});
    EXPECT_FALSE(answer.have);
    EXPECT_EQ(answer.data, nullptr);
    EXPECT_EQ(answer.config, ConfigNumber(5));
    EXPECT_EQ(answer.replicas, 2u);
    Restart();
  }
}

TEST_F(CoreHolderTest, K4NoExtentIsNotFound) {
  PutTen();
  EXPECT_EQ(Call(Query(kBase + 10)).code, StatusCode::kNotFound);
  EXPECT_EQ(Call(Query(PageId(kBase.value - 1))).code, StatusCode::kNotFound);
}

TEST_F(CoreHolderTest, K4RecordIsGivenWithItsContentIfAsked) {
  ASSERT_EQ(Call(Put(kBase, 10, 5, 3, /*is_volatile=*/true)).code, StatusCode::kOk);
  Call(Store(kBase, 5, V(7)));
  Message answer = Call(Query(kBase));
  EXPECT_TRUE(answer.have);
  EXPECT_EQ(answer.version, V(7));
  EXPECT_EQ(answer.replicas, 3u);
  EXPECT_TRUE(answer.is_volatile);
  ASSERT_NE(answer.data, nullptr);
  EXPECT_EQ(answer.data->bytes[0], std::byte{7});
  answer = Call(Query(kBase, /*with_data=*/false));
  EXPECT_TRUE(answer.have);
  EXPECT_EQ(answer.data, nullptr);
}

TEST_F(CoreHolderTest, K4SystemPagesAreInBuiltInExtentsAndSayWhetherThereIsARecord) {
  for (const PageId page : {kSuperRootPage, kRamDirectoryRootPage, kDiskDirectoryRootPage, kRegionTablePages.first,
                            PageId(kRegionTablePages.end().value - 1)}) {
    Message answer = Call(Query(page));
    EXPECT_EQ(answer.code, StatusCode::kOk);
    EXPECT_EQ(answer.version, Version{});
    EXPECT_FALSE(answer.have);
    EXPECT_EQ(answer.config, ConfigNumber(1));
    EXPECT_EQ(answer.replicas, kSystemReplicas);
    EXPECT_FALSE(answer.is_volatile);
    EXPECT_EQ(Call(Store(page, 1, V(1))).code, StatusCode::kOk);
    Restart();
    EXPECT_TRUE(Call(Query(page)).have);
  }
  EXPECT_EQ(Call(Query(PageId(kDiskDirectoryRootPage + 1))).code, StatusCode::kNotFound);
  EXPECT_EQ(Call(Query(kRegionTablePages.end())).code, StatusCode::kNotFound);
}

TEST_F(CoreHolderTest, K4RecordOfAnotherConfigurationIsDataLoss) {
  PutTen();
  Call(Store(kBase, 5, V(7)));
  Extent extent = *holder_->Find(kBase);
  extent.config = ConfigNumber(6);
  StoreBatch batch;
  batch.records.push_back({ExtentKey(kBase), EncodeExtent(extent)});
  store_.Commit(std::move(batch), [](const absl::Status&) {});
  store_.FinishCommit();
  Restart();
  EXPECT_EQ(Call(Query(kBase)).code, StatusCode::kDataLoss);
  EXPECT_EQ(Call(Store(kBase, 6, V(1))).version, V(1));
  EXPECT_EQ(Call(Query(kBase)).version, V(1));
}

// --- K5: extents do not overlap ---------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K5ExtentsSurviveARestart) {
  PutTen();
  ASSERT_EQ(Call(Put(kBase + 10, 5, 7, 1, true)).code, StatusCode::kOk);
  ASSERT_TRUE(holder_->Find(kBase)->fresh);
  Restart();
  const Extent* const extent = holder_->Find(kBase + 12);
  ASSERT_NE(extent, nullptr);
  EXPECT_EQ(extent->range, (PageRange{kBase + 10, 5}));
  EXPECT_EQ(extent->config, ConfigNumber(7));
  EXPECT_EQ(extent->replicas, 1u);
  EXPECT_TRUE(extent->is_volatile);
  EXPECT_FALSE(extent->fresh);
  EXPECT_EQ(holder_->extents().size(), 4u);
}

TEST_F(CoreHolderTest, K5FirstUnallocatedPage) {
  PutTen();
  Call(Put(kBase + 10, 5, 7));
  EXPECT_EQ(holder_->FirstUnallocated({kBase, 15}), std::nullopt);
  EXPECT_EQ(holder_->FirstUnallocated({kBase + 3, 20}), kBase + 15);
  EXPECT_EQ(holder_->FirstUnallocated({PageId(kBase.value - 1), 3}), PageId(kBase.value - 1));
}

TEST_F(CoreHolderTest, K5PuttingTheSameAgainChangesNothing) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  EXPECT_EQ(Call(Put(kBase, 10, 5)).code, StatusCode::kOk);
  EXPECT_EQ(Call(Query(kBase)).version, V(1));
}

TEST_F(CoreHolderTest, K5PuttingAnOlderOneIsRefused) {
  PutTen();
  for (const Message& m :
       {Put(kBase, 10, 4), Put(kBase + 9, 2, 4), Put(PageId(kBase.value - 5), 20, 4), Put(kBase, 9, 5)}) {
    const Message answer = Call(m);
    EXPECT_EQ(answer.code, StatusCode::kFailedPrecondition);
    EXPECT_THAT(answer.text, HasSubstr("is not newer than 5"));
  }
  EXPECT_EQ(holder_->extents().size(), 3u);
}

TEST_F(CoreHolderTest, K5NewerOneRemovesWhatItOverlapsPagesIncluded) {
  PutTen();
  for (const uint64_t i : {0, 3, 4, 9}) Call(Store(kBase + i, 5, V(9)));
  const int before = store_.commit_count;
  ASSERT_EQ(Call(Put(kBase + 3, 4, 6)).code, StatusCode::kOk);
  EXPECT_EQ(store_.commit_count, before + 1);
  EXPECT_EQ(holder_->Find(kBase)->range, (PageRange{kBase, 3}));
  EXPECT_EQ(holder_->Find(kBase + 3)->config, ConfigNumber(6));
  EXPECT_EQ(holder_->Find(kBase + 7)->range, (PageRange{kBase + 7, 3}));
  for (int start = 0; start < 2; ++start) {
    EXPECT_EQ(Call(Query(kBase)).version, V(9));
    EXPECT_EQ(Call(Query(kBase + 3)).version, Version{});
    EXPECT_EQ(Call(Query(kBase + 4)).version, Version{});
    EXPECT_EQ(Call(Query(kBase + 9)).version, V(9));
    Restart();
  }
  EXPECT_EQ(Call(Store(kBase + 3, 6, V(1))).version, V(1));
}

TEST_F(CoreHolderTest, K5DropSplitsAndLeavesNewerOnes) {
  PutTen();
  Call(Put(kBase + 5, 2, 8));
  Call(Store(kBase + 2, 5, V(1)));
  EXPECT_EQ(Call(Drop(kBase + 2, 6, 5)).code, StatusCode::kOk);
  for (int start = 0; start < 2; ++start) {
    EXPECT_EQ(holder_->Find(kBase + 1)->range, (PageRange{kBase, 2}));
    EXPECT_EQ(holder_->Find(kBase + 2), nullptr);
    EXPECT_EQ(holder_->Find(kBase + 5)->range, (PageRange{kBase + 5, 2}));
    EXPECT_EQ(holder_->Find(kBase + 7), nullptr);
    EXPECT_EQ(holder_->Find(kBase + 8)->range, (PageRange{kBase + 8, 2}));
    EXPECT_EQ(store_.durable.pages.size(), 0u);
    Restart();
  }
}

TEST_F(CoreHolderTest, K5DropOfNothingIsDone) { EXPECT_EQ(Call(Drop(kBase, 10, 5)).code, StatusCode::kOk); }

TEST_F(CoreHolderTest, K5SystemPagesAndNonsenseCanBeNeitherPutNorDropped) {
  for (const Message& m :
       {Put(kSuperRootPage, 1, 9), Drop(kSuperRootPage, 1, 9), Put(PageId(100), 500, 9),
        Drop(kRegionTablePages.first, 1, 9), Put(kBase, 0, 9), Put(PageId(0), 1, 9), Put(PageId(kSpacePages - 1), 2, 9),
        Put(PageId(kSpacePages), 1, 9), Put(kBase, 1, 0), Drop(kBase, 0, 1)}) {
    EXPECT_EQ(Call(m).code, StatusCode::kInvalidArgument) << m.page.value << " " << m.count;
  }
}

TEST_F(CoreHolderTest, K5CorruptRecordsOfExtentsAreNamedAtOpen) {
  const Extent extent{.range = {kBase, 10}, .config = ConfigNumber(5), .replicas = 2};
  Extent overlapping = extent;
  overlapping.range.first = kBase + 9;
  Extent none = extent;
  none.config = ConfigNumber(0);
  std::string flags = EncodeExtent(extent);
  flags.back() = 2;
  std::string format = EncodeExtent(extent);
  format[0] = 9;
  const std::string key = ExtentKey(kBase);
  const std::vector<std::pair<std::string, std::string>> bad = {{key, ""},
                                                                {key, EncodeExtent(extent) + "x"},
                                                                {key, EncodeExtent(overlapping)},
                                                                {key, EncodeExtent(none)},
                                                                {key, flags},
                                                                {key, format},
                                                                {ExtentKey(kBase + 9), EncodeExtent(overlapping)}};
  for (const auto& [bad_key, value] : bad) {
    StoreBatch batch;
    batch.records.push_back({key, EncodeExtent(extent)});
    batch.records.push_back({bad_key, value});
    store_.Commit(std::move(batch), [](const absl::Status&) {});
    store_.FinishCommit();
    CoreHolder holder(&store_, &bugs_, 1);
    absl::Status opened;
    holder.Open([&](absl::Status s) { opened = std::move(s); });
    EXPECT_EQ(opened.code(), StatusCode::kDataLoss);
    EXPECT_THAT(std::string(opened.message()), HasSubstr(bad_key));
    store_.durable.records.clear();
    store_.Crash();
  }
}

TEST_F(CoreHolderTest, K5RecordsSortByAddress) {
  EXPECT_EQ(ExtentKey(PageId(0x1234)), "extent/00000000000000000000000000001234");
  EXPECT_LT(ExtentKey(PageId(UINT64_MAX)), ExtentKey(PageId(absl::MakeUint128(1, 0))));
  Extent extent{
      .range = {PageId(absl::MakeUint128(7, 1)), 10}, .config = ConfigNumber(5), .replicas = 2, .is_volatile = true};
  const auto decoded = DecodeExtent(ExtentKey(extent.range.first), EncodeExtent(extent));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->range, extent.range);
  EXPECT_EQ(decoded->config, extent.config);
  EXPECT_EQ(decoded->replicas, 2u);
  EXPECT_TRUE(decoded->is_volatile);
}

// --- K6: one change after the other -----------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K6WhatAChangeRemovesIsInNoExtentFromTheCallOn) {
  PutTen();
  const uint64_t put = Send(Put(kBase, 5, 6));
  EXPECT_EQ(holder_->Find(kBase), nullptr);
  EXPECT_NE(holder_->Find(kBase + 5), nullptr);
  EXPECT_EQ(answers_[Send(Store(kBase, 5, V(1)))].code, StatusCode::kFailedPrecondition);
  store_.FinishCommit();
  EXPECT_TRUE(Answered(put));
  EXPECT_EQ(holder_->Find(kBase)->config, ConfigNumber(6));
}

TEST_F(CoreHolderTest, K6ChangesWaitForEachOther) {
  const uint64_t first = Send(Put(kBase, 10, 5));
  const uint64_t drop = Send(Drop(kBase + 5, 5, 5));
  const uint64_t second = Send(Put(kBase + 5, 5, 4));
  EXPECT_EQ(store_.commits.size(), 1u);
  store_.FinishAll();
  EXPECT_EQ(answers_[first].code, StatusCode::kOk);
  EXPECT_EQ(answers_[drop].code, StatusCode::kOk);
  EXPECT_EQ(answers_[second].code, StatusCode::kOk);
  EXPECT_EQ(holder_->Find(kBase + 5)->config, ConfigNumber(4));
}

TEST_F(CoreHolderTest, K6FailedChangeLeavesWhatWasThere) {
  PutTen();
  Call(Store(kBase + 4, 5, V(3)));
  const uint64_t put = Send(Put(kBase + 4, 2, 6));
  store_.FailCommit();
  EXPECT_EQ(answers_[put].code, StatusCode::kResourceExhausted);
  EXPECT_EQ(holder_->Find(kBase + 4)->range, (PageRange{kBase, 10}));
  EXPECT_EQ(holder_->extents().size(), 3u);
  EXPECT_EQ(Call(Store(kBase + 4, 5, V(2))).version, V(3));
  EXPECT_EQ(Call(Put(kBase + 4, 2, 6)).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K6VersionReadBeforeAChangeDoesNotCountAfterIt) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  Restart();
  Send(Store(kBase, 5, V(10)));  // Waits for its version.
  Send(Put(kBase, 10, 6));
  store_.FinishCommit();
  const uint64_t store = Send(Store(kBase, 6, V(1)));
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  EXPECT_EQ(answers_[store].version, V(1));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(1));
}

TEST_F(CoreHolderTest, K6QueryThatWasReadBeforeAChangeIsReadAgain) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  const uint64_t query = Send(Query(kBase));
  Send(Put(kBase, 10, 6));
  store_.FinishCommit();
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  ASSERT_TRUE(Answered(query));
  EXPECT_EQ(answers_[query].version, Version{});
  EXPECT_EQ(answers_[query].config, ConfigNumber(6));
}

TEST_F(CoreHolderTest, CallbacksThatComeAfterItsEndAreIgnored) {
  PutTenAndRestart();
  Send(Store(kBase, 5, V(1)));
  Send(Query(kBase));
  Send(Put(kBase + 20, 1, 9));
  holder_.reset();
  store_.FinishAll();
  EXPECT_TRUE(answers_.empty());
}

// --- All rules at once ------------------------------------------------------------------------------------------------

// Random messages, finished in random order, with crashes: what was acknowledged is there after each of them.
class CoreHolderModel : public CoreHolderTest {
 protected:
  static constexpr uint64_t kPages = 6;

  void Step(std::mt19937_64& random) {
    const uint64_t dice = random() % 100;
    if (dice < 35) {
      SendStore(random);
    } else if (dice < 45) {
      Send(Query(kBase + random() % kPages));
    } else if (dice < 48) {
      SendPut(random);
    } else if (dice < 70) {
      if (!store_.commits.empty()) store_.FinishCommit();
    } else if (dice < 90) {
      if (!store_.reads.empty()) store_.FinishRead(random() % 2 == 0);
    } else if (dice < 93) {
      if (!store_.commits.empty()) store_.FailCommit();
    } else if (dice < 95) {
      CheckAnswers();
      Restart();
    }
    CheckAnswers();
  }

  void SendStore(std::mt19937_64& random) {
    const PageId page = kBase + random() % kPages;
    const Extent* const extent = holder_->Find(page);
    const uint64_t config = extent != nullptr ? extent->config.value : 1;
    Message m = Store(page, config, V(1 + random() % 30));
    configs_[Send(m)] = config;
  }
  void SendPut(std::mt19937_64& random) {
    const uint64_t first = random() % kPages;
    const uint64_t config = ++last_config_;
    configs_[Send(Put(kBase + first, 1 + random() % (kPages - first), config))] = config;
  }

  // K1 and K2, as an observer of the answers sees them.
  void CheckAnswers() {
    for (auto& [number, answer] : answers_) {
      if (answer.code != StatusCode::kOk) continue;
      if (answer.kind == MessageKind::kDone) {
        const uint64_t config = configs_.at(number);
        for (uint64_t i = 0; i < answer.count; ++i) {
          auto& page = pages_[(answer.page + i).value];
          if (config > page.first) page = {config, Version{}};
        }
      } else {
        const uint64_t config = answer.kind == MessageKind::kStored ? configs_.at(number) : answer.config.value;
        Promise(answer.page, config, answer.version);
      }
    }
    answers_.clear();
    for (const auto& [page, promise] : pages_) {
      const auto it = store_.durable.pages.find(page);
      if (it == store_.durable.pages.end()) {
        EXPECT_EQ(promise.second, Version{});
      } else if (it->second.config.value == promise.first) {
        EXPECT_GE(it->second.version, promise.second);
      } else {
        EXPECT_GT(it->second.config.value, promise.first);
      }
    }
  }
  void Promise(PageId page, uint64_t config, Version version) {
    auto& promise = pages_[page.value];
    if (config > promise.first) promise = {config, version};
    if (config == promise.first) promise.second = std::max(promise.second, version);
  }

  std::map<uint64_t, uint64_t> configs_;                         // Of requests.
  std::map<absl::uint128, std::pair<uint64_t, Version>> pages_;  // What was acknowledged last.
  uint64_t last_config_ = 10;
};

TEST_F(CoreHolderModel, AcknowledgedVersionsSurviveAnyOrderOfEvents) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200'000 && !HasFailure(); ++round) Step(random);
}

}  // namespace
}  // namespace mangrove
