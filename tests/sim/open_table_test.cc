// What the tables of open files say after nodes were lost that had them.
// Covers: F06

#include "fs/open_table.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "fs/status.h"
#include "tests/sim/fileset_test.h"

namespace mangrove::sim {
namespace {

class OpenTableTest : public FilesetTest {
 protected:
  // The node has the pages of the other's table, and nobody else has.
  void TakeTable(int slot, int other) { TakePages(slot, fs::OpenTable::PagesOf(static_cast<uint64_t>(other) + 1)); }
  absl::Status Unlink(int slot, const std::string& name) {
    absl::Status status = absl::UnavailableError("");
    const TimeNs limit = world_.now() + kFilesetBound;
    while (fs::ErrnoOf(status) == EAGAIN && world_.now() < limit)
      status = On(slot, At(slot).Unlink(At(slot).root(), name));
    return status;
  }
  bool IsThere(int slot, fs::FoundFile file) {
    const absl::Status status = On(slot, At(slot).GetAttributes(file)).status();
    EXPECT_TRUE(status.ok() || fs::ErrnoOf(status) == ESTALE) << status;
    return status.ok();
  }
};

TEST_F(OpenTableTest, AFileThatIsOpenStaysThoughTheTableThatSaysSoWasLostWithAnotherNode) {
  MakeOpen(0, "first");  // With it the table is made.
  const fs::FoundFile file = MakeOpen(0, "a");
  TakeTable(2, 0);
  Lose(2);
  EXPECT_TRUE(Unlink(1, "a").ok());
  EXPECT_TRUE(IsThere(0, file));
  EXPECT_EQ(On(0, At(0).Read(file, 0, 10)).status(), absl::OkStatus());

  // Written anew, it is believed again.
  for (const int slot : {0, 1}) EXPECT_TRUE(On(slot, At(slot).TakeCare()).ok());
  EXPECT_TRUE(IsThere(0, file));
  EXPECT_TRUE(On(0, At(0).Close(file)).ok());
  EXPECT_FALSE(IsThere(0, file));
}

TEST_F(OpenTableTest, AFileThatNobodyHasOpenIsFreedSoonAfterANodeWasLost) {
  const fs::FoundFile file = MakeOpen(0, "a");
  EXPECT_TRUE(On(0, At(0).Close(file)).ok());
  TakeTable(2, 0);
  Lose(2);
  EXPECT_TRUE(Unlink(1, "a").ok());
  EXPECT_TRUE(On(0, At(0).TakeCare()).ok());
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(On(1, At(1).TakeCare()).ok());
  EXPECT_FALSE(IsThere(1, file));
}

TEST_F(OpenTableTest, WhatANodeHadOpenInAnEarlierLifeKeepsNoFile) {
  const fs::FoundFile file = MakeOpen(0, "a");
  EXPECT_TRUE(On(0, homes_[0].pages->SyncTransactions()).ok());
  Lose(0);
  cluster_.Start(0);
  RunUntil([&] { return cluster_.AllReady(); });
  EXPECT_TRUE(Unlink(1, "a").ok());
  EXPECT_FALSE(IsThere(1, file));
}

TEST_F(OpenTableTest, WhoHasUnmountedKeepsNoFile) {
  const fs::FoundFile file = MakeOpen(0, "a");
  EXPECT_TRUE(On(0, At(0).Close(file)).ok());
  EXPECT_TRUE(On(0, At(0).EndUse()).ok());
  homes_.erase(0);
  Lose(2);  // Another view, of which that table says nothing.
  EXPECT_TRUE(Unlink(1, "a").ok());
  EXPECT_FALSE(IsThere(1, file));
}

}  // namespace
}  // namespace mangrove::sim
