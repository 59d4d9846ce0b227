// Runs of stores: what a core holder does for pages side by side is what it does for each, in fewer commits and answers.
// Covers: B04

#include <random>

#include "directory/page_run.h"
#include "net/log.h"
#include "tests/sanitizers.h"
#include "tests/unit/engine/core_holder_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;

// A core holder, its disk, and the answers by request.
struct World {
  World() { Start(); }
  void Start() {
    store.Crash();
    holder = std::make_unique<CoreHolder>(&store, &bugs, kSystemReplicas);
    holder->Open([](const absl::Status& s) { ASSERT_TRUE(s.ok()) << s; });
  }
  void Send(const Message& message) {
    holder->Handle(message, [this](const Message& answer) {
      ++messages;
      for (uint64_t i = 0; i < answer.repeat; ++i) {
        const Message one = PartOf(answer, i, 1);
        EXPECT_FALSE(answers.contains(one.request.value)) << "answered twice";
        answers[one.request.value] = one;
      }
    });
  }
  FakeCoreHolderStore store;
  PlantedBugs bugs;
  std::unique_ptr<CoreHolder> holder;
  std::map<uint64_t, Message> answers;
  int messages = 0;
};

class CoreHolderRuns : public CoreHolderTest {
 protected:
  CoreHolderRuns() { SetLogLevel(LogLevel::kOff); }
  ~CoreHolderRuns() override { SetLogLevel(LogLevel::kInfo); }
  // A store of `count` pages from `first` on, each with content of its own.
  static Message StoreRun(PageId first, uint32_t count, uint64_t config, Version version) {
    Message run = Store(first, config, version);
    run.repeat = count;
    run.request = RequestId(1000);
    auto pages = NewPages(count);
    for (uint64_t i = 0; i < count; ++i) pages.get()[i].bytes.fill(static_cast<std::byte>(version.counter + 16 * i));
    run.data = pages;
    return run;
  }
  static void Extend(World& world, uint64_t count, uint64_t config) {
    Message put = Put(kBase, count, config);
    put.request = RequestId(1);
    world.Send(put);
    world.store.FinishAll();
    ASSERT_EQ(world.answers.at(1).code, StatusCode::kOk);
    world.answers.clear();
    world.messages = 0;
  }
};

TEST_F(CoreHolderRuns, NewerPagesAreOneCommitAndOneAnswer) {
  World world;
  Extend(world, 64, 5);
  const int commits = world.store.commit_count;
  world.Send(StoreRun(kBase, 64, 5, V(3)));
  EXPECT_TRUE(world.answers.empty());  // K1
  world.store.FinishAll();
  EXPECT_EQ(world.store.commit_count, commits + 1);
  EXPECT_EQ(world.store.read_count, 0);
  EXPECT_EQ(world.messages, 1);
  ASSERT_EQ(world.answers.size(), 64u);
  for (uint64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(world.answers.at(1000 + i).page, kBase + i);
    EXPECT_EQ(world.answers.at(1000 + i).version, V(3));
    const StoredPage& stored = world.store.durable.pages.at((kBase + i).value);
    EXPECT_EQ(stored.data->bytes[0], static_cast<std::byte>(3 + 16 * i));
  }
}

// Of a page in no extent, of one that was never stored, of one that is corrupt, of one that is lost and of one that is on its way.
TEST_F(CoreHolderRuns, AQueryOfManyPagesIsAnsweredAsOneOfEach) {
  World world;
  Extend(world, 16, 5);
  world.Send(StoreRun(kBase, 12, 5, V(3)));
  world.store.FinishAll();
  world.Start();
  world.holder->MarkLost(kBase + 6, V(4), [](const absl::Status& s) { EXPECT_TRUE(s.ok()) << s; });
  world.store.FinishAll();
  world.store.corrupt.insert((kBase + 4).value);
  world.answers.clear();
  Message later = StoreRun(kBase + 8, 1, 5, V(7));
  later.request = RequestId(3000);
  world.Send(later);
  world.store.FinishRead();  // Of its version.
  const int reads = world.store.read_count;
  Message run = Query(kBase, /*with_data=*/true, /*seal_at=*/2);
  run.repeat = 18;
  run.request = RequestId(1000);
  world.Send(run);
  EXPECT_EQ(world.store.read_count, reads + 2);  // On either side of the lost one.
  world.store.FinishAll();
  for (uint64_t i = 0; i < 18; ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(world.answers.contains(1000 + i));
    const Message& answer = world.answers.at(1000 + i);
    EXPECT_EQ(answer.page, kBase + i);
    const StatusCode expected = i >= 16            ? StatusCode::kNotFound
                                : i == 4 || i == 6 ? StatusCode::kDataLoss
                                                   : StatusCode::kOk;
    EXPECT_EQ(answer.code, expected);
    if (expected != StatusCode::kOk) continue;
    EXPECT_EQ(answer.have, i < 12);
    if (!answer.have) continue;
    EXPECT_EQ(answer.version, V(i == 8 ? 7 : 3));
    EXPECT_EQ(answer.data->bytes[0], static_cast<std::byte>(i == 8 ? 7 : 3 + 16 * i));
  }
  world.answers.clear();
  for (uint64_t i : {0, 15}) {  // Each of them is sealed.
    Message old = StoreRun(kBase + i, 1, 5, V(9));
    old.request = RequestId(4000 + i);
    world.Send(old);
    world.store.FinishAll();
    EXPECT_EQ(world.answers.at(4000 + i).code, StatusCode::kAborted);
  }
}

TEST_F(CoreHolderRuns, VersionsThatAreNotRememberedAreReadAtOnce) {
  World world;
  Extend(world, 16, 5);
  world.Send(StoreRun(kBase + 4, 4, 5, V(9)));
  world.store.FinishAll();
  world.Start();
  world.answers.clear();
  world.Send(StoreRun(kBase, 16, 5, V(4)));
  EXPECT_EQ(world.store.reads.size(), 1u);
  world.store.FinishAll();
  EXPECT_EQ(world.store.read_count, 1);
  for (uint64_t i = 0; i < 16; ++i) {  // K2
    const bool was_newer = i >= 4 && i < 8;
    EXPECT_EQ(world.answers.at(1000 + i).version, V(was_newer ? 9 : 4)) << i;
    EXPECT_EQ(world.store.durable.pages.at((kBase + i).value).version, V(was_newer ? 9 : 4)) << i;
  }
}

TEST_F(CoreHolderRuns, APageOfARunThatIsReadKeepsItsOrder) {
  World world;
  Extend(world, 8, 5);
  world.Start();
  world.Send(StoreRun(kBase, 8, 5, V(4)));
  Message later = StoreRun(kBase + 3, 1, 5, V(6));
  later.request = RequestId(2000);
  world.Send(later);
  Message older = StoreRun(kBase + 2, 3, 5, V(5));
  older.request = RequestId(3000);
  world.Send(older);
  world.store.FinishAll();
  EXPECT_EQ(world.answers.size(), 12u);
  EXPECT_EQ(world.answers.at(2000).version, V(6));
  EXPECT_EQ(world.answers.at(3001).version, V(6));
  for (uint64_t i = 0; i < 8; ++i) {
    const Version expected = i == 3 ? V(6) : i == 2 || i == 4 ? V(5) : V(4);
    EXPECT_EQ(world.store.durable.pages.at((kBase + i).value).version, expected) << i;
  }
}

TEST_F(CoreHolderRuns, AFailedCommitIsToldOfEachPageAndForgotten) {
  World world;
  Extend(world, 8, 5);
  world.Send(StoreRun(kBase, 8, 5, V(4)));
  world.store.FailCommit();
  ASSERT_EQ(world.answers.size(), 8u);
  for (uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(world.answers.at(1000 + i).code, StatusCode::kResourceExhausted);
    EXPECT_EQ(world.answers.at(1000 + i).page, kBase + i);
  }
  world.answers.clear();
  world.Send(StoreRun(kBase, 8, 5, V(4)));
  world.store.FinishAll();
  EXPECT_EQ(world.answers.at(1007).version, V(4));
  EXPECT_EQ(world.store.durable.pages.size(), 8u);
}

TEST_F(CoreHolderRuns, ARunWithoutContentOrBeyondItsExtentIsRefusedPageByPage) {
  World world;
  Extend(world, 8, 5);
  Message empty = StoreRun(kBase, 3, 5, V(4));
  empty.data = nullptr;
  world.Send(empty);
  ASSERT_EQ(world.answers.size(), 3u);
  for (const auto& [request, answer] : world.answers) EXPECT_EQ(answer.code, StatusCode::kInvalidArgument);
  world.answers.clear();
  world.Send(StoreRun(kBase + 6, 4, 5, V(4)));
  world.store.FinishAll();
  EXPECT_EQ(world.answers.at(1001).code, StatusCode::kOk);
  EXPECT_EQ(world.answers.at(1002).code, StatusCode::kFailedPrecondition);
  EXPECT_EQ(world.answers.at(1003).code, StatusCode::kFailedPrecondition);
  EXPECT_EQ(world.store.durable.pages.size(), 2u);
}

// One gets runs, the other each of their pages by itself.
TEST_F(CoreHolderRuns, RunsDoWhatTheirPagesDo) {
  constexpr uint64_t kPages = 40;
  for (uint64_t seed = 1; seed <= Histories(300); ++seed) {
    std::mt19937_64 random(seed);
    World runs;
    World singles;
    uint64_t request = 1;
    uint64_t config = 1;
    const auto send = [&](Message message) {
      message.request = RequestId(request);
      request += message.repeat;
      runs.Send(message);
      for (uint64_t i = 0; i < message.repeat; ++i) singles.Send(PartOf(message, i, 1));
    };
    const auto finish = [&] {
      runs.store.FinishAll();
      singles.store.FinishAll();
    };
    for (int step = 0; step < 60; ++step) {
      const PageId first = kBase + random() % kPages;
      switch (random() % 12) {
        case 0:
          finish();
          send(Put(first, 1 + random() % 20, ++config));
          finish();
          break;
        case 1:
          finish();
          send(Drop(first, 1 + random() % 4, config));
          finish();
          break;
        case 2: {
          finish();
          const bool seals = random() % 2 == 0;
          send(Query(first, false, seals ? 1 + random() % 3 : 0));
          finish();
          break;
        }
        case 3:
          finish();
          runs.store.corrupt.insert(first.value);
          singles.store.corrupt.insert(first.value);
          break;
        case 4:
          finish();
          runs.Start();
          singles.Start();
          break;
        case 5: finish(); break;
        default: {
          Message store =
              StoreRun(first, 1 + random() % 16, 1 + random() % (config + 1), V(1 + random() % 8, 1 + random() % 3));
          if (random() % 4 != 0) store.config = ConfigNumber(config);
          store.complete = random() % 8 == 0;
          send(store);
        }
      }
    }
    finish();
    ASSERT_EQ(runs.answers.size(), singles.answers.size()) << "seed " << seed;
    for (const auto& [number, answer] : singles.answers) {
      const Message& other = runs.answers.at(number);
      ASSERT_EQ(other.kind, answer.kind) << "seed " << seed << " request " << number;
      ASSERT_EQ(other.page, answer.page) << "seed " << seed << " request " << number;
      ASSERT_EQ(other.code, answer.code) << "seed " << seed << " request " << number;
      ASSERT_EQ(other.version, answer.version) << "seed " << seed << " request " << number;
    }
    for (uint64_t i = 0; i < kPages + 32; ++i) {
      const absl::uint128 page = (kBase + i).value;
      const auto one = singles.store.durable.pages.find(page);
      const auto other = runs.store.durable.pages.find(page);
      ASSERT_EQ(one == singles.store.durable.pages.end(), other == runs.store.durable.pages.end()) << "seed " << seed;
      if (one == singles.store.durable.pages.end()) continue;
      ASSERT_EQ(other->second.version, one->second.version) << "seed " << seed << " page " << i;
      ASSERT_EQ(other->second.data->bytes, one->second.data->bytes) << "seed " << seed << " page " << i;
    }
  }
}

}  // namespace
}  // namespace mangrove
