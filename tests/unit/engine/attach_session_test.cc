// Attached programs against a daemon in this process: what the public interface promises.

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/unit/engine/attach_harness.h"

namespace mangrove::attach_test {
namespace {

constexpr uint64_t kSize = 64 * kPageBytes;

class AttachSession : public testing::Test {
 protected:
  AttachSession() : path_(NewSocketPath()), daemon_(path_) { EXPECT_TRUE(daemon_.started().ok()) << daemon_.started(); }

  std::shared_ptr<Session> Attach() {
    auto session = Session::Attach({.socket_path = path_});
    EXPECT_TRUE(session.ok()) << session.status();
    return *session;
  }
  // A region of which everything is allocated.
  std::shared_ptr<Region> NewRegion(const std::shared_ptr<Session>& session, const std::string& name = "table") {
    auto region = session->Reserve({.name = name, .size_bytes = kSize});
    EXPECT_TRUE(region.ok()) << region.status();
    EXPECT_TRUE((*region)->Allocate(0, kSize, {}).ok());
    return *region;
  }

  std::string path_;
  TestDaemon daemon_;
};

TEST_F(AttachSession, MappedMemoryIsSharedWithTheNodesOtherPrograms) {
  auto one = Attach();
  auto region = NewRegion(one);
  auto base = region->Map(0, kSize);
  ASSERT_TRUE(base.ok()) << base.status();
  std::atomic_ref(*reinterpret_cast<uint64_t*>(*base + 3 * kPageBytes)).fetch_add(42);

  auto two = Attach();
  auto again = two->Open("table", AccessMode::kWrite);
  ASSERT_TRUE(again.ok()) << again.status();
  auto other = (*again)->Map(0, kSize);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(*other, *base);
  EXPECT_EQ(std::atomic_ref(*reinterpret_cast<uint64_t*>(*other + 3 * kPageBytes)).fetch_add(1), 42u);
  EXPECT_EQ(std::atomic_ref(*reinterpret_cast<uint64_t*>(*base + 3 * kPageBytes)).load(), 43u);
  const RegionCounters counters = region->Counters();
  EXPECT_GE(counters.read_faults + counters.write_faults, 1u);
}

TEST_F(AttachSession, ReadAndWriteCopyAnyBytes) {
  auto region = NewRegion(Attach());
  std::vector<std::byte> written(3 * kPageBytes + 100);
  for (size_t i = 0; i < written.size(); ++i) written[i] = static_cast<std::byte>(i * 7);
  ASSERT_TRUE(region->Write(kPageBytes - 50, written).ok());
  std::vector<std::byte> read(written.size());
  ASSERT_TRUE(region->Read(kPageBytes - 50, read).ok());
  EXPECT_EQ(read, written);
  // Now without the node.
  const int before = daemon_.node().acquisitions;
  ASSERT_TRUE(region->Read(kPageBytes - 50, read).ok());
  ASSERT_TRUE(region->Write(kPageBytes - 50, written).ok());
  EXPECT_EQ(daemon_.node().acquisitions, before);
}

}  // namespace
}  // namespace mangrove::attach_test
