// A full disk is an ordinary state: commits are refused, everything else goes on, and it passes.

#include <sys/mount.h>
#include <unistd.h>

#include <fstream>

#include "engine/store/rocks_store.h"
#include "engine/store/store_directory.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove {
namespace {

using store_test::ExpectSame;
using store_test::MakePage;
using store_test::OptionsFor;
using store_test::TemporaryDirectory;
using store_test::TestLoop;
using store_test::WaitingStore;

constexpr PageId kFirstWritten{1'000'000};

TEST(SpaceGuard, ReserveIsKeptFreeAndPartsOfItAreForWhatHasNoPagesAndForCleaning) {
  TemporaryDirectory directory;
  const uint64_t free_bytes = store::FreeDiskBytes(directory.path());
  store::SpaceGuard roomy(directory.path(), 0);
  roomy.Refresh();
  EXPECT_TRUE(roomy.Admit(4096, store::SpaceUse::kPages).ok());
  // Between the half of the reserve and the whole of it.
  store::SpaceGuard tight(directory.path(), free_bytes / 4 * 5);
  tight.Refresh();
  const absl::Status refused = tight.Admit(4096, store::SpaceUse::kPages);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_NE(refused.message().find(directory.path()), absl::string_view::npos) << refused;
  EXPECT_NE(refused.message().find("4096 bytes needed"), absl::string_view::npos) << refused;
  EXPECT_TRUE(tight.Admit(4096, store::SpaceUse::kSmall).ok());
  EXPECT_TRUE(tight.Admit(free_bytes / 8 * 4, store::SpaceUse::kCleaning).ok());
}

TEST(SpaceGuard, WhatWasAdmittedCountsUntilTheDiskIsLookedAt) {
  TemporaryDirectory directory;
  store::SpaceGuard guard(directory.path(), 0);
  guard.Refresh();
  const uint64_t third = store::FreeDiskBytes(directory.path()) / 3;
  EXPECT_TRUE(guard.Admit(third, store::SpaceUse::kPages).ok());
  EXPECT_TRUE(guard.Admit(third, store::SpaceUse::kPages).ok());
  EXPECT_FALSE(guard.Admit(third + third / 2, store::SpaceUse::kPages).ok());
  guard.Refresh();
  EXPECT_TRUE(guard.Admit(third, store::SpaceUse::kPages).ok());
}

// A small disk of its own.
class SmallDisk {
 public:
  SmallDisk() { mounted_ = mount("none", directory_.path().c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=64m") == 0; }
  ~SmallDisk() {
    if (mounted_) umount2(directory_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  std::string operator/(const std::string& name) const { return directory_ / name; }

 private:
  TemporaryDirectory directory_;
  bool mounted_;
};

void Fill(const std::string& file, size_t bytes) {
  const std::string block(1 << 20, 'x');
  std::ofstream stream(file, std::ios::binary);
  for (size_t written = 0; written < bytes; written += block.size()) stream << block;
  ASSERT_TRUE(stream.flush().good());
}

TEST(StoreDiskFull, CommitsAreRefusedAndTheStoreLivesOn) {
  SmallDisk disk;
  ASSERT_TRUE(disk.mounted()) << "needs the right to mount a tmpfs: run the tests as root";
  WaitingStore s(disk / "store", [](RocksStoreOptions& options) {
    options.reserve_bytes = uint64_t{24} << 20;
    options.tuning.write_buffer_bytes = size_t{1} << 20;
    options.tuning.log_bytes = size_t{2} << 20;
    options.tuning.slack_bytes = size_t{1} << 20;
  });
  Fill(disk / "filler", size_t{30} << 20);
  uint64_t stored = 0;
  absl::Status refused;
  while (refused.ok()) {
    refused = s.Put(kFirstWritten + stored, stored);
    if (refused.ok()) ++stored;
    ASSERT_LT(stored, 16'384u);
  }
  ASSERT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_NE(refused.message().find(disk / "store"), absl::string_view::npos) << refused;
  EXPECT_GT(stored, 100u);
  EXPECT_TRUE(absl::IsNotFound(s.Read(kFirstWritten + stored).status())) << "nothing of the refused batch was applied";
  for (uint64_t i = 0; i < stored; ++i) ExpectSame(*s.Read(kFirstWritten + i), MakePage(kFirstWritten + i, i));
  EXPECT_EQ(s.store->statistics().failed, 0u);

  StoreBatch record;
  record.records.push_back({"incarnation", "2"});
  EXPECT_TRUE(s.Commit(std::move(record)).ok()) << "the node can keep what it must";
  StoreBatch deletion;
  deletion.delete_pages.push_back({kFirstWritten, stored});
  EXPECT_TRUE(s.Commit(std::move(deletion)).ok()) << "space can be freed";

  std::filesystem::remove(disk / "filler");
  EXPECT_TRUE(s.Put(kFirstWritten, 1).ok()) << "and then it goes on";
  ExpectSame(*s.Read(kFirstWritten), MakePage(kFirstWritten, 1));
}

// On a disk that has nothing but the store: what is deleted is the only space there is.
TEST(StoreDiskFull, SpaceOfWhatIsDeletedIsTakenBackAndUsed) {
  SmallDisk disk;
  ASSERT_TRUE(disk.mounted()) << "needs the right to mount a tmpfs: run the tests as root";
  WaitingStore s(disk / "store", [](RocksStoreOptions& options) {
    store_test::SmallBuffers(options);
    options.reserve_bytes = uint64_t{16} << 20;
  });
  uint64_t stored = 0;
  while (s.Put(kFirstWritten + stored, stored).ok()) ASSERT_LT(++stored, 16'384u);
  ASSERT_GT(stored, 5'000u);
  // Every second page, in ranges that are too small to empty a segment, so that the others have to be moved.
  for (uint64_t first = 0; first < stored; first += 200) {
    StoreBatch deletion;
    for (uint64_t i = first; i < std::min(stored, first + 200); i += 2)
      deletion.delete_pages.push_back({kFirstWritten + i, 1});
    ASSERT_TRUE(s.Commit(std::move(deletion)).ok()) << first;
  }
  // Four fifths of that: a sixteenth may stay garbage, and tables and open segments take their part.
  uint64_t refused = 0;
  for (uint64_t i = 0; i < stored * 2 / 5;) {
    const absl::Status status = s.Put(kFirstWritten + 100'000 + i, i);
    ASSERT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
    status.ok() ? ++i : ++refused;
    ASSERT_LT(refused, 1'000'000u) << i;
  }
  for (uint64_t i = 0; i < stored; ++i) {
    const auto page = s.Read(kFirstWritten + i);
    ASSERT_EQ(page.ok(), i % 2 == 1) << i << page.status();
    if (page.ok()) ExpectSame(*page, MakePage(kFirstWritten + i, i));
  }
  for (uint64_t i = 0; i < stored * 2 / 5; ++i)
    ExpectSame(*s.Read(kFirstWritten + 100'000 + i), MakePage(kFirstWritten + 100'000 + i, i));
  EXPECT_GT(s.store->statistics().pages_moved, 0u);
  EXPECT_EQ(s.store->statistics().failed, 0u);
}

TEST(StoreDiskFull, RefusedBatchesAreThoseForWhichThereIsNoSpace) {
  SmallDisk disk;
  ASSERT_TRUE(disk.mounted()) << "needs the right to mount a tmpfs: run the tests as root";
  WaitingStore s(disk / "store", [](RocksStoreOptions& options) { options.reserve_bytes = uint64_t{40} << 20; });
  int outcomes = 0;
  const auto commit = [&](uint64_t first, uint64_t pages, bool fits) {
    StoreBatch batch;
    for (uint64_t i = first; i < first + pages; ++i) batch.put_pages.push_back(MakePage(kFirstWritten + i, i));
    s.store->Commit(std::move(batch), [&outcomes, fits](absl::Status status) {
      EXPECT_EQ(status.ok(), fits) << status;
      ++outcomes;
    });
  };
  commit(0, 1, true);
  commit(10, 8'000, false);
  commit(1, 1, true);
  s.loop.RunUntil([&] { return outcomes == 3; });
  EXPECT_TRUE(s.Read(kFirstWritten + 0).ok());
  EXPECT_TRUE(s.Read(kFirstWritten + 1).ok());
  EXPECT_TRUE(absl::IsNotFound(s.Read(kFirstWritten + 10).status()));
  EXPECT_EQ(s.store->statistics().refused, 1u);
}

TEST(StoreDiskFull, DiskThatFillsUpUnderTheReservePoisonsAndLosesNothing) {  // S5
  SmallDisk disk;
  ASSERT_TRUE(disk.mounted()) << "needs the right to mount a tmpfs: run the tests as root";
  uint64_t stored = 0;
  const auto settings = [](RocksStoreOptions& options) {
    options.reserve_bytes = 0;
    // So large that no table is written in the background: where assertions are compiled into RocksDB, that ends the
    // process when it meets the end of the disk, as a poisoned store does, but too soon for this test.
    options.tuning.write_buffer_bytes = size_t{64} << 20;
    options.on_poisoned = [](const absl::Status&) {};
  };
  {
    WaitingStore s(disk / "store", settings);
    // The log finds the disk full in the middle of a batch that was thought to fit.
    Fill(disk / "filler", size_t{40} << 20);
    std::ofstream eater(disk / "eater", std::ios::binary);
    const std::string block(64 << 10, 'x');
    absl::Status failed;
    while (failed.ok()) {
      failed = s.Put(kFirstWritten + stored, stored);
      if (failed.ok()) ++stored;
      eater << block << std::flush;
      ASSERT_LT(stored, 16'384u);
    }
  }
  std::filesystem::remove(disk / "filler");
  WaitingStore s(disk / "store", settings);
  for (uint64_t i = 0; i < stored; ++i) ExpectSame(*s.Read(kFirstWritten + i), MakePage(kFirstWritten + i, i));
}

}  // namespace
}  // namespace mangrove
