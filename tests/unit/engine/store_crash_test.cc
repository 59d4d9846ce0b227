// What is left after a crash: everything that was acknowledged, and a state between two commits (S1, S2).

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <map>
#include <random>

#include "engine/store/commit_log.h"
#include "engine/store/log_group.h"
#include "engine/store/rocks_store.h"
#include "engine/store/sealed_value.h"
#include "engine/store/segment_files.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove {
namespace {

using store_test::Content;
using store_test::ExpectSame;
using store_test::FileAndOffsetOf;
using store_test::FlipByte;
using store_test::MakePage;
using store_test::OptionsFor;
using store_test::SmallBuffers;
using store_test::TemporaryDirectory;
using store_test::TestLoop;
using store_test::WaitingStore;

constexpr PageId kFirst{absl::MakeUint128(1, 0)};
constexpr uint64_t kCrashPages = 150;
constexpr char kChildVariable[] = "MANGROVE_STORE_CRASH_CHILD";

// The history is the same in child and parent: commit `n` puts some pages, and at times deletes a range first.
StoreBatch BatchOf(uint64_t n) {
  std::mt19937_64 random(n);
  StoreBatch batch;
  if (random() % 8 == 0) batch.delete_pages.push_back({kFirst + random() % kCrashPages, 1 + random() % 30});
  const uint64_t puts = 1 + random() % 4;
  for (uint64_t i = 0; i < puts; ++i) batch.put_pages.push_back(MakePage(kFirst + random() % kCrashPages, n));
  batch.records.push_back({"last", std::to_string(n)});
  return batch;
}

void Apply(const StoreBatch& batch, std::map<PageId, uint64_t>& model) {
  for (const PageRange& range : batch.delete_pages) {
    model.erase(model.lower_bound(range.first), model.lower_bound(range.end()));
  }
  for (const StoredPage& page : batch.put_pages) model[page.page] = page.version.counter;
}

// Commits from `first` on, eight at a time, and writes the number of each acknowledged one into `pipe`, until killed.
[[noreturn]] void CommitUntilKilled(const std::string& path, int pipe, uint64_t first) {
  WaitingStore s(path, SmallBuffers);
  uint64_t next = first;
  uint64_t acknowledged = first - 1;
  while (true) {
    while (next - acknowledged <= 8) {
      s.store->Commit(BatchOf(next), [&acknowledged, pipe, n = next](absl::Status status) {
        if (!status.ok() || write(pipe, &n, sizeof(n)) != sizeof(n)) _exit(2);
        acknowledged = n;
      });
      ++next;
    }
    const uint64_t before = acknowledged;
    s.loop.RunUntil([&] { return acknowledged > before; });
  }
}

// Starts this program again, for the test that is running, as a process with threads of its own.
pid_t StartChild(const std::string& path, int pipe, uint64_t first) {
  const std::string specification = std::to_string(pipe) + " " + std::to_string(first) + " " + path;
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string filter = std::string("--gtest_filter=") + test->test_suite_name() + "." + test->name();
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  setenv(kChildVariable, specification.c_str(), 1);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
    // It runs this very test, whichever shard that is in.
    unsetenv("GTEST_TOTAL_SHARDS");
    unsetenv("GTEST_SHARD_INDEX");
    execl(program.c_str(), program.c_str(), filter.c_str(), static_cast<char*>(nullptr));
    _exit(3);
  }
  unsetenv(kChildVariable);
  return child;
}

// Runs a child until it has acknowledged `commits`; the last number that it acknowledged before it was killed.
uint64_t RunAndKill(const std::string& path, uint64_t first, uint64_t commits) {
  int pipe_ends[2];
  EXPECT_EQ(pipe(pipe_ends), 0);
  const pid_t child = StartChild(path, pipe_ends[1], first);
  close(pipe_ends[1]);
  uint64_t acknowledged = first - 1;
  uint64_t n = 0;
  while (read(pipe_ends[0], &n, sizeof(n)) == sizeof(n)) {
    EXPECT_EQ(n, acknowledged + 1) << "acknowledged in order";
    acknowledged = n;
    if (n == first + commits) kill(child, SIGKILL);
  }
  close(pipe_ends[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  return acknowledged;
}

// The state after the commits up to the one that the store names; that one's number.
uint64_t ExpectStateBetweenTwoCommits(WaitingStore& s, std::map<PageId, uint64_t>& model, uint64_t& applied) {
  const auto last = s.Records("last");
  EXPECT_TRUE(last.ok()) << last.status();
  if (!last.ok() || last->size() != 1) return 0;
  const uint64_t found = std::stoull(last->at(0).second);
  while (applied < found) Apply(BatchOf(++applied), model);
  for (uint64_t i = 0; i < kCrashPages; ++i) {
    const auto page = s.Read(kFirst + i);
    const auto expected = model.find(kFirst + i);
    if (expected == model.end()) {
      EXPECT_TRUE(absl::IsNotFound(page.status())) << i << " " << page.status();
    } else {
      EXPECT_TRUE(page.ok()) << i << " " << page.status();
      if (page.ok()) ExpectSame(*page, MakePage(kFirst + i, expected->second));
    }
  }
  return found;
}

// In the child: does not return.
void BeChild() {
  const char* const specification = getenv(kChildVariable);
  if (specification == nullptr) return;
  const std::string text = specification;
  const size_t space = text.find(' ');
  const size_t path = text.find(' ', space + 1) + 1;
  CommitUntilKilled(text.substr(path), std::stoi(text), std::stoull(text.substr(space + 1)));
}

// Segments are emptied and their files used again all the while: at most 150 pages are needed, of 32 to a segment.
TEST(StoreCrash, KilledProcessLeavesEveryAcknowledgedCommitAndNoHalfOne) {
  BeChild();
  TemporaryDirectory directory;
  std::mt19937_64 random(std::random_device{}());
  std::map<PageId, uint64_t> model;
  uint64_t applied = 0;
  for (int round = 0; round < 40; ++round) {
    const uint64_t commits = random() % 300;
    SCOPED_TRACE("round " + std::to_string(round) + ", killed after " + std::to_string(commits) + " commits");
    const uint64_t acknowledged = RunAndKill(directory.path(), applied + 1, commits);
    WaitingStore s(directory.path(), SmallBuffers);
    ASSERT_GE(ExpectStateBetweenTwoCommits(s, model, applied), acknowledged);
    ASSERT_FALSE(testing::Test::HasFailure());
  }
  const auto segments = store::SegmentFiles(directory / "segments").List();
  ASSERT_TRUE(segments.ok());
  EXPECT_GT(segments->back(), 100u);
  EXPECT_LT(segments->size(), 60u);
}

// What the disk would have if the machine died now.
void CopyStore(const std::string& from, const std::string& to) {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

void Overwrite(const std::string& file, uint64_t offset, const std::string& bytes) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(static_cast<std::streamoff>(offset));
  stream << bytes;
  ASSERT_TRUE(stream.good());
}

struct LastGroup {
  std::string file;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// Of the log of a store that is closed; no bytes if the tables have everything.
LastGroup FindLastGroup(const std::string& path) {
  auto db = store::RocksDb::Open(path, {}, [] {});
  EXPECT_TRUE(db.ok()) << db.status();
  const auto stamp = store::DecodeStamp(**(*db)->ReadStamp());
  store::SegmentFiles files(path + "/segments");
  LastGroup last;
  store::LogPosition before = *(*db)->DurablePosition();
  const auto log = store::CommitLog::Open({.salt = stamp->log_salt}, &files, before, [&](const auto& group) {
    const store::PagePlace end = group.position.end;
    const uint64_t begin = end.segment == before.end.segment ? before.end.block : 0;
    last = {files.NameOf(end.segment), begin * store::kBlockBytes, (end.block - begin) * store::kBlockBytes};
    before = group.position;
    return absl::OkStatus();
  });
  EXPECT_TRUE(log.ok()) << log.status();
  return last;
}

// The machine died with the last write, of commits and of what the cleaner moved, in part on the disk.
TEST(StoreCrash, AnyPartOfTheLastWriteMayBeMissing) {  // L1, C2
  BeChild();
  TemporaryDirectory directory;
  std::mt19937_64 random(std::random_device{}());
  std::map<PageId, uint64_t> model;
  uint64_t applied = 0;
  int cut = 0;
  for (int round = 0; round < 6; ++round) {
    RunAndKill(directory / "store", applied + 1, 50 + random() % 200);
    CopyStore(directory / "store", directory / "killed");
    const LastGroup last = FindLastGroup(directory / "killed");
    std::filesystem::remove_all(directory / "killed");
    for (uint64_t at = 0; at < last.bytes; at += 512 * (1 + random() % 64)) {
      CopyStore(directory / "store", directory / "killed");
      const std::string file = directory / ("killed/segments/" + std::filesystem::path(last.file).filename().string());
      const bool front = random() % 2 == 0;
      Overwrite(file, last.offset + (front ? 0 : at), std::string(front ? at : last.bytes - at, '\xee'));
      {
        SCOPED_TRACE("round " + std::to_string(round) + ", from " + std::to_string(at));
        WaitingStore s(directory / "killed", SmallBuffers);
        auto model_then = model;
        uint64_t applied_then = applied;
        EXPECT_GT(ExpectStateBetweenTwoCommits(s, model_then, applied_then), 0u);
        for (uint64_t i = 0; i < 20; ++i) ASSERT_TRUE(s.Commit(BatchOf(applied_then + 1 + i)).ok());
        ExpectStateBetweenTwoCommits(s, model_then, applied_then);
      }
      {
        WaitingStore s(directory / "killed", SmallBuffers);
        auto model_then = model;
        uint64_t applied_then = applied;
        EXPECT_GT(ExpectStateBetweenTwoCommits(s, model_then, applied_then), 0u);
      }
      ASSERT_FALSE(testing::Test::HasFailure());
      std::filesystem::remove_all(directory / "killed");
      ++cut;
    }
    WaitingStore s(directory / "store", SmallBuffers);
    ExpectStateBetweenTwoCommits(s, model, applied);
  }
  EXPECT_GE(cut, 6);
}

constexpr uint64_t kBlock = store::kBlockBytes;
// A commit of one page: its header's block, and the page.
constexpr uint64_t kGroupBlocks = 2;

// The image of a store with pages 1 to 6, each committed by itself and in the log alone. Its log's file.
std::string MakeImage(const std::string& image) {
  TemporaryDirectory directory;
  WaitingStore s(directory / "store");
  for (uint64_t i = 1; i <= 6; ++i) EXPECT_TRUE(s.Put(kFirst + i, i).ok());
  CopyStore(directory / "store", image);
  return image + "/segments/000000000001.seg";
}

// Opens the store twice, with a commit between: what was dropped is so for ever.
void ExpectPages(const std::string& path, uint64_t there) {
  {
    WaitingStore s(path);
    for (uint64_t i = 1; i <= there; ++i) ExpectSame(*s.Read(kFirst + i), MakePage(kFirst + i, i));
    EXPECT_TRUE(s.Put(kFirst + 100, 100).ok());
  }
  WaitingStore s(path);
  ExpectSame(*s.Read(kFirst + 100), MakePage(kFirst + 100, 100));
  for (uint64_t i = 1; i <= there; ++i) ExpectSame(*s.Read(kFirst + i), MakePage(kFirst + i, i));
  for (uint64_t i = there + 1; i <= 6; ++i) EXPECT_TRUE(absl::IsNotFound(s.Read(kFirst + i).status()));
}

TEST(StoreCrash, WhatIsInTheLogAloneIsThere) {
  TemporaryDirectory directory;
  MakeImage(directory / "store");
  ExpectPages(directory / "store", 6);
}

TEST(StoreCrash, UnfinishedCommitAtTheEndOfTheLogIsDropped) {  // L1
  for (const uint64_t there : {uint64_t{0}, uint64_t{512}, kBlock, kBlock + 512, 2 * kBlock - 512}) {
    SCOPED_TRACE(there);
    TemporaryDirectory directory;
    const std::string log = MakeImage(directory / "store");
    const uint64_t last = 5 * kGroupBlocks * kBlock;
    Overwrite(log, last + there, std::string(kGroupBlocks * kBlock - there, '\0'));
    ExpectPages(directory / "store", 5);
  }
}

TEST(StoreCrash, UnfinishedCommitWhoseBeginningIsMissingIsDropped) {  // L1
  TemporaryDirectory directory;
  const std::string log = MakeImage(directory / "store");
  Overwrite(log, 5 * kGroupBlocks * kBlock, std::string(512, '\0'));
  ExpectPages(directory / "store", 5);
}

TEST(StoreCrash, FileThatEndsInsideTheUnfinishedCommit) {  // L1
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{512}, kBlock, kBlock + 100}) {
    SCOPED_TRACE(bytes);
    TemporaryDirectory directory;
    const std::string log = MakeImage(directory / "store");
    std::filesystem::resize_file(log, 5 * kGroupBlocks * kBlock + bytes);
    ExpectPages(directory / "store", 5);
  }
}

void ExpectRefusedAsDamaged(const std::string& path, const std::string& file) {
  TestLoop loop;
  const auto opened = RocksStore::Open(OptionsFor(path, loop));
  ASSERT_TRUE(absl::IsDataLoss(opened.status())) << opened.status();
  EXPECT_NE(opened.status().message().find(file), absl::string_view::npos) << opened.status();
  EXPECT_NE(opened.status().message().find("move the directory"), absl::string_view::npos) << opened.status();
}

TEST(StoreCrash, DamagedCommitInsideTheLogIsNeverSkipped) {  // L2
  for (const uint64_t at : {uint64_t{3}, uint64_t{50}}) {
    for (uint64_t damaged = 1; damaged <= 5; ++damaged) {
      SCOPED_TRACE(std::to_string(at) + " of " + std::to_string(damaged));
      TemporaryDirectory directory;
      const std::string log = MakeImage(directory / "store");
      FlipByte(log, (damaged - 1) * kGroupBlocks * kBlock + at);
      ExpectRefusedAsDamaged(directory / "store", log);
    }
  }
}

TEST(StoreCrash, DamagedPageInsideTheLogCostsThatPage) {  // L2
  for (uint64_t damaged = 1; damaged <= 5; ++damaged) {
    TemporaryDirectory directory;
    const std::string log = MakeImage(directory / "store");
    FlipByte(log, (damaged - 1) * kGroupBlocks * kBlock + kBlock + 500);
    WaitingStore s(directory / "store");
    for (uint64_t i = 1; i <= 6; ++i) {
      const auto page = s.Read(kFirst + i);
      EXPECT_EQ(page.ok(), i != damaged) << i << " " << page.status();
      EXPECT_EQ(absl::IsDataLoss(page.status()), i == damaged) << i << " " << page.status();
    }
  }
}

TEST(StoreCrash, MissingLogIsDamage) {
  TemporaryDirectory directory;
  const std::string log = MakeImage(directory / "store");
  std::filesystem::remove(log);
  ExpectRefusedAsDamaged(directory / "store", log);
}

// Whatever is overwritten or cut off: what is left is a beginning of the commits, or the store says that it is damaged.
TEST(StoreCrash, RandomDamageOfTheLogIsNeverTakenForSomethingElse) {
  TemporaryDirectory original;
  MakeImage(original / "store");
  std::mt19937_64 random(std::random_device{}());
  for (int round = 0; round < 60; ++round) {
    TemporaryDirectory copy;
    CopyStore(original / "store", copy / "store");
    const std::string file = copy / "store/segments/000000000001.seg";
    const uint64_t size = 6 * kGroupBlocks * kBlock;
    const uint64_t at = random() % size;
    const uint64_t bytes = std::min<uint64_t>(size - at, 1 + random() % (round % 3 == 0 ? 10 : 9'000));
    std::string noise(bytes, '\0');
    if (round % 2 == 0) std::generate(noise.begin(), noise.end(), [&] { return static_cast<char>(random()); });
    Overwrite(file, at, noise);
    if (round % 5 == 0) std::filesystem::resize_file(file, at + bytes);
    SCOPED_TRACE(std::to_string(bytes) + " bytes at " + std::to_string(at));
    TestLoop loop;
    if (const auto opened = RocksStore::Open(OptionsFor(copy / "store", loop)); !opened.ok()) {
      ASSERT_TRUE(absl::IsDataLoss(opened.status())) << opened.status();
      continue;
    }
    WaitingStore s(copy / "store");
    bool ended = false;
    for (uint64_t i = 1; i <= 6; ++i) {
      const auto page = s.Read(kFirst + i);
      ended |= absl::IsNotFound(page.status());
      ASSERT_EQ(page.ok() || absl::IsDataLoss(page.status()), !ended) << i << " " << page.status();
      if (page.ok()) ExpectSame(*page, MakePage(kFirst + i, i));
    }
  }
}

TEST(StoreCrash, FlippedBytesOfPagesCostOnlyThese) {  // S4
  constexpr uint64_t kMany = 1'500;
  constexpr uint64_t kDamaged[] = {3, 700, kMany - 1};
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path(), SmallBuffers);
    for (uint64_t i = 0; i < kMany; ++i) ASSERT_TRUE(s.Put(kFirst + i, i).ok());
  }
  for (const uint64_t i : kDamaged) {
    const auto [file, offset] = FileAndOffsetOf(directory.path(), kFirst + i);
    FlipByte(file, offset + i);
  }
  WaitingStore s(directory.path(), SmallBuffers);
  for (uint64_t i = 0; i < kMany; ++i) {
    const auto page = s.Read(kFirst + i);
    ASSERT_EQ(page.ok(), std::count(std::begin(kDamaged), std::end(kDamaged), i) == 0) << i << page.status();
    if (page.ok()) {
      ExpectSame(*page, MakePage(kFirst + i, i));
      continue;
    }
    EXPECT_TRUE(absl::IsDataLoss(page.status())) << page.status();
    EXPECT_NE(page.status().message().find(ToString(kFirst + i)), absl::string_view::npos) << page.status();
    ASSERT_TRUE(s.Put(kFirst + i, i).ok()) << "a sound copy from elsewhere replaces it";
    ExpectSame(*s.Read(kFirst + i), MakePage(kFirst + i, i));
  }
}

TEST(StoreCrash, MissingSegmentOfPageDataCostsThePagesInIt) {  // S4
  constexpr uint64_t kMany = 200;
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path(), SmallBuffers);
    for (uint64_t i = 0; i < kMany; ++i) ASSERT_TRUE(s.Put(kFirst + i, i).ok());
  }
  std::filesystem::remove(FileAndOffsetOf(directory.path(), kFirst + 100).first);
  WaitingStore s(directory.path(), SmallBuffers);
  uint64_t lost = 0;
  for (uint64_t i = 0; i < kMany; ++i) {
    const auto page = s.Read(kFirst + i);
    if (page.ok()) {
      ExpectSame(*page, MakePage(kFirst + i, i));
      continue;
    }
    ++lost;
    EXPECT_TRUE(absl::IsDataLoss(page.status())) << page.status();
    ASSERT_TRUE(s.Put(kFirst + i, i).ok());
  }
  EXPECT_GE(lost, 1u);
  EXPECT_LE(lost, 31u);
  // Nothing refers to the segment any more, and so it is given away as any other.
  for (uint64_t n = 0; n < 1'000; ++n) ASSERT_TRUE(s.Put(kFirst + n % kMany, n).ok()) << n;
  EXPECT_GT(s.store->statistics().segments_emptied, 10u);
}

// No file of this process grows past `bytes` while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    before_handler_ = signal(SIGXFSZ, SIG_IGN);
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit limit{bytes, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, before_handler_);
  }

 private:
  rlimit before_;
  sighandler_t before_handler_;
};

TEST(StoreCrash, FailedWritePoisonsTheStore) {  // S5
  TemporaryDirectory directory;
  constexpr uint64_t kAcknowledged = 10;
  {
    std::atomic<int> poisoned{0};
    WaitingStore s(directory.path(),
                   [&](RocksStoreOptions& options) { options.on_poisoned = [&](const absl::Status&) { ++poisoned; }; });
    for (uint64_t i = 0; i < kAcknowledged; ++i) ASSERT_TRUE(s.Put(kFirst + i, i).ok());
    absl::Status first;
    {
      const FileSizeLimit limit(100'000);
      for (uint64_t i = 0; i < 100 && first.ok(); ++i) first = s.Put(kFirst + kAcknowledged + i, i);
    }
    ASSERT_FALSE(first.ok());
    EXPECT_FALSE(absl::IsResourceExhausted(first)) << "that would promise that nothing was applied";
    EXPECT_EQ(poisoned, 1);
    EXPECT_EQ(s.Put(kFirst, 7), first);
    EXPECT_EQ(s.Commit(StoreBatch{}), first);
    EXPECT_EQ(s.Read(kFirst).status(), first);
    EXPECT_EQ(s.Records("").status(), first);
    EXPECT_EQ(s.List({kFirst, kCrashPages}, 10).status(), first);
    EXPECT_EQ(poisoned, 1);
  }
  WaitingStore s(directory.path());
  for (uint64_t i = 0; i < kAcknowledged; ++i) ExpectSame(*s.Read(kFirst + i), MakePage(kFirst + i, i));
}

TEST(StoreCrashDeathTest, FailedWriteEndsTheProcessByDefault) {  // S5
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  // The process that ends runs this test from its beginning, and cleans up nothing.
  const std::string path = std::filesystem::temp_directory_path() / ("mangrove_store_end_" + std::to_string(getpgrp()));
  EXPECT_EXIT(
      {
        WaitingStore s(path);
        const FileSizeLimit limit(100'000);
        for (uint64_t i = 0; i < 100; ++i) static_cast<void>(s.Put(kFirst + i, i));
      },
      testing::ExitedWithCode(EXIT_FAILURE), "");
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace mangrove
