// The daemon dies or stops under attached programs.
// Covers: G03

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "engine/attach/packet_socket.h"
#include "tests/unit/engine/attach_harness.h"

namespace mangrove::attach_test {
namespace {

constexpr uint64_t kSize = 16 * kPageBytes;
constexpr uint64_t kHangingPage = 5;
constexpr std::chrono::seconds kBound{3};

using Time = std::chrono::steady_clock;

// A program with a region mapped, one thread in a fault that nobody answers and one that computes.
class AttachWatchdog : public testing::Test {
 protected:
  AttachWatchdog() : daemon_(path_, [](TestNode& node) { node.MakeHang(kHangingPage); }) {}

  void Begin() {
    session_ = *Session::Attach({.socket_path = path_});
    region_ = *session_->Reserve({.name = "r", .size_bytes = kSize});
    ASSERT_TRUE(region_->Allocate(0, kSize, {}).ok());
    base_ = *region_->Map(0, kSize);
    region_->SetEventCallback([this](const RegionEvent& event) {
      if (event.kind == RegionEvent::Kind::kFenced) fenced_ = true;
    });
    ASSERT_EQ(TryStore(base_, 7), 0);
    blocked_ = std::thread([this] { blocked_signal_ = TryLoad(base_ + kHangingPage * kPageBytes); });
    computing_ = std::thread([this] {
      int signal = 0;
      for (uint64_t i = 0; signal == 0; ++i) signal = TryStore(base_ + kPageBytes, i);
      computing_signal_ = signal;
    });
    // The fault has been taken up.
    ASSERT_TRUE(Eventually([this] { return region_->Counters().read_faults >= 1; }));
  }

  void ExpectCutOffSince(Time::time_point start) {
    blocked_.join();
    computing_.join();
    EXPECT_LT(Time::now() - start, kBound);
    EXPECT_EQ(blocked_signal_, SIGBUS);
    EXPECT_EQ(computing_signal_, SIGBUS);
    EXPECT_TRUE(Eventually([this] { return fenced_.load(); }));
    EXPECT_LT(Time::now() - start, kBound);
    uint64_t value = 0;
    EXPECT_EQ(TryLoad(base_, &value), SIGBUS);
    // What was never touched reads as an error too, not as zeros.
    EXPECT_EQ(TryLoad(base_ + 9 * kPageBytes, &value), SIGBUS);
    std::byte word[8];
    EXPECT_EQ(region_->Read(0, word).code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(session_->Space().status().code(), absl::StatusCode::kUnavailable);
    const absl::Status gone = region_->Lock(0, kPageBytes, LockMode::kShared, 0).status();
    EXPECT_NE(gone.message().find("attach again"), std::string::npos) << gone;
  }

  // In a child of fork.
  bool AttachesItself() const {
#if defined(__SANITIZE_THREAD__)
    return true;  // It forbids threads there.
#else
    auto own = Session::Attach({.socket_path = path_});
    return own.ok() && (*own)->Space().ok();
#endif
  }

  const std::string path_ = NewSocketPath();
  ChildDaemon daemon_;
  std::shared_ptr<Session> session_;
  std::shared_ptr<Region> region_;
  std::byte* base_ = nullptr;
  std::atomic<bool> fenced_{false};
  std::thread blocked_;
  std::thread computing_;
  std::atomic<int> blocked_signal_{0};
  std::atomic<int> computing_signal_{0};
};

TEST_F(AttachWatchdog, AKilledDaemonEndsEveryAccessWithSigbus) {
  Begin();
  const auto start = Time::now();
  daemon_.KillAndReap();
  ExpectCutOffSince(start);
}

TEST_F(AttachWatchdog, AStoppedDaemonEndsEveryAccessWithSigbus) {
  Begin();
  const auto start = Time::now();
  daemon_.Signal(SIGSTOP);
  ExpectCutOffSince(start);
  // It goes on, and has lost a client.
  daemon_.Signal(SIGCONT);
  auto again = Session::Attach({.socket_path = path_});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(TryLoad(base_), SIGBUS);
  uint64_t value = 0;
  auto region = (*again)->Open("r", AccessMode::kRead);
  ASSERT_TRUE(region.ok()) << region.status();
  EXPECT_EQ(TryLoad(*(*region)->Map(0, kSize), &value), 0);
  EXPECT_EQ(value, 7u);
}

TEST_F(AttachWatchdog, AProgramAttachesToTheNextDaemon) {
  Begin();
  const auto start = Time::now();
  daemon_.KillAndReap();
  ExpectCutOffSince(start);
  TestDaemon next(path_);
  ASSERT_TRUE(next.started().ok()) << next.started();
  auto again = Session::Attach({.socket_path = path_});
  ASSERT_TRUE(again.ok()) << again.status();
  auto region = *(*again)->Reserve({.name = "r", .size_bytes = kSize});
  ASSERT_TRUE(region->Allocate(0, kSize, {}).ok());
  EXPECT_EQ(TryStore(*region->Map(0, kSize), 1), 0);
  // The old one stays what it is, and can be dropped.
  EXPECT_EQ(TryLoad(base_), SIGBUS);
  region_.reset();
  session_.reset();
  EXPECT_EQ(TryStore(*region->Map(0, kSize), 2), 0);
}

TEST_F(AttachWatchdog, AStoppedDaemonIsNotAttachedTo) {
  daemon_.Signal(SIGSTOP);
  const auto session = Session::Attach({.socket_path = path_, .limits = {200}});
  EXPECT_EQ(session.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(session.status().message().find(path_), std::string::npos) << session.status();
}

TEST_F(AttachWatchdog, ACallUnderWayEndsWithTheDaemon) {
  session_ = *Session::Attach({.socket_path = path_, .limits = {60'000}});
  region_ = *session_->Reserve({.name = "r", .size_bytes = kSize});
  absl::Status result;
  std::atomic<bool> calling{false};
  std::thread caller([&] {
    std::byte word[8];
    calling = true;
    result = region_->Read(kHangingPage * kPageBytes, word);
  });
  ASSERT_TRUE(Eventually([&] { return calling.load(); }));
  const auto start = Time::now();
  daemon_.KillAndReap();
  caller.join();
  EXPECT_LT(Time::now() - start, kBound);
  EXPECT_EQ(result.code(), absl::StatusCode::kUnavailable) << result;
}

// Whose page is here, but for an entry in the calls' mapping: so the copy faults, and nobody serves it.
TEST_F(AttachWatchdog, ACallThatIsCopyingEndsWithAnErrorAndNoSignal) {
  for (const bool killed : {false, true}) {
    const std::string path = NewSocketPath();
    ChildDaemon daemon(path);
    const auto session = *Session::Attach({.socket_path = path, .limits = {60'000}});
    const auto region = *session->Reserve({.name = "r", .size_bytes = kSize});
    ASSERT_TRUE(region->Allocate(0, kSize, {}).ok());
    std::byte word[8] = {};
    ASSERT_TRUE(region->Read(kPageBytes, word).ok());  // Makes that mapping.
    std::byte* const base = *region->Map(0, kSize);
    ASSERT_EQ(TryStore(base, 7), 0);
    daemon.Signal(SIGSTOP);
    absl::Status read, written;
    std::thread reader([&] {
      std::byte out[8];
      read = region->Read(0, out);
    });
    std::thread writer([&] { written = region->Write(8, word); });
    if (killed) daemon.KillAndReap();
    reader.join();
    writer.join();
    EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable) << read;
    EXPECT_EQ(written.code(), absl::StatusCode::kUnavailable) << written;
    EXPECT_NE(read.message().find("attach again"), std::string::npos) << read;
    // What the program itself has mapped is another matter.
    EXPECT_TRUE(Eventually([&] { return TryLoad(base) == SIGBUS; }));  // The calls end before it is sealed (L2).
  }
}

TEST_F(AttachWatchdog, ADaemonThatIsIdleForLongIsBelieved) {
  const std::string path = NewSocketPath();
  const ChildDaemon daemon(path, {}, {.deadline = 500 * kMillisecond, .stamp_interval = 20 * kMillisecond});
  session_ = *Session::Attach({.socket_path = path});
  region_ = *session_->Reserve({.name = "r", .size_bytes = kSize});
  ASSERT_TRUE(region_->Allocate(0, kSize, {}).ok());
  base_ = *region_->Map(0, kSize);
  // The elapsed time is what is tested: longer than any deadline that was set before.
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  EXPECT_EQ(TryStore(base_, 1), 0);
  EXPECT_TRUE(session_->Space().ok());
}

TEST_F(AttachWatchdog, TheEndOfTheNodesLeaseEndsEveryAccessWithSigbus) {
  const std::string path = NewSocketPath();
  const TimeNs lease_end = MonotonicNowNs() + 700 * kMillisecond;
  const ChildDaemon daemon(path, {}, {.serves_until = [lease_end] { return lease_end; }});
  session_ = *Session::Attach({.socket_path = path});
  region_ = *session_->Reserve({.name = "r", .size_bytes = kSize});
  ASSERT_TRUE(region_->Allocate(0, kSize, {}).ok());
  base_ = *region_->Map(0, kSize);
  int signal = 0;
  uint64_t stores = 0;
  for (; signal == 0 && MonotonicNowNs() < lease_end + 10 * kSecond; ++stores) signal = TryStore(base_, stores);
  const TimeNs ended = MonotonicNowNs();
  EXPECT_EQ(signal, SIGBUS);
  EXPECT_GT(stores, 100u);
  EXPECT_GE(ended, lease_end);
  EXPECT_LT(ended, lease_end + kSecond);
  std::byte word[8];
  EXPECT_TRUE(Eventually([&] { return region_->Read(0, word).code() == absl::StatusCode::kUnavailable; }));
}

// Covers: C07
TEST_F(AttachWatchdog, ARegionThatIsReadWithoutALeaseStaysMappedForLoadsUntilThereIsOneAgain) {
  const std::string path = NewSocketPath();
  const TimeNs lease_end = MonotonicNowNs() + 700 * kMillisecond;
  const TimeNs next_lease = lease_end + 1500 * kMillisecond;
  const auto serves_until = [=] { return MonotonicNowNs() < next_lease ? lease_end : kForever; };
  const ChildDaemon daemon(path, {}, {.serves_until = serves_until});
  session_ = *Session::Attach({.socket_path = path});
  region_ = *session_->Reserve({.name = "r", .size_bytes = kSize, .without_quorum = WithoutQuorum::kRead});
  ASSERT_EQ(region_->info().without_quorum, WithoutQuorum::kRead);
  ASSERT_TRUE(region_->Allocate(0, kSize, {}).ok());
  base_ = *region_->Map(0, kSize);
  const uint64_t word = 7;
  const auto bytes = std::as_bytes(std::span(&word, 1));
  ASSERT_TRUE(region_->Write(0, bytes).ok());
  int signal = 0;
  uint64_t stores = 0;
  for (; signal == 0 && MonotonicNowNs() < next_lease; ++stores) signal = TryStore(base_ + kPageBytes, stores);
  EXPECT_EQ(signal, SIGSEGV);
  EXPECT_GT(stores, 100u);
  EXPECT_GE(MonotonicNowNs(), lease_end);
  uint64_t value = 0;
  EXPECT_EQ(TryLoad(base_ + kPageBytes, &value), 0);
  EXPECT_EQ(value, stores - 2);
  std::byte read[8];
  EXPECT_TRUE(region_->Read(0, read).ok());
  const absl::Status written = region_->Write(0, bytes);
  EXPECT_EQ(written.code(), absl::StatusCode::kUnavailable) << written;
  EXPECT_NE(written.message().find("no quorum"), std::string::npos) << written;
  EXPECT_LT(MonotonicNowNs(), next_lease);
  EXPECT_TRUE(Eventually([&] { return region_->Write(0, bytes).ok(); }));
  EXPECT_EQ(TryStore(base_ + kPageBytes, 9), 0);
  EXPECT_GE(MonotonicNowNs(), next_lease);
}

TEST_F(AttachWatchdog, AProgramThatHasSomethingElseMappedIsCutOffAllTheSame) {
  const std::string path = NewSocketPath();
  const TimeNs lease_end = MonotonicNowNs() + 700 * kMillisecond;
  const ChildDaemon daemon(path, {}, {.serves_until = [=] { return lease_end; }});
  session_ = *Session::Attach({.socket_path = path});
  region_ = *session_->Reserve({.name = "r", .size_bytes = kSize, .without_quorum = WithoutQuorum::kRead});
  const auto other = *session_->Reserve({.name = "other", .size_bytes = kSize});
  for (const auto& region : {region_, other}) ASSERT_TRUE(region->Allocate(0, kSize, {}).ok());
  base_ = *region_->Map(0, kSize);
  ASSERT_EQ(TryStore(*other->Map(0, kSize), 1), 0);
  ASSERT_EQ(TryStore(base_, 1), 0);
  EXPECT_TRUE(Eventually([&] { return TryLoad(base_) == SIGBUS; }));
  EXPECT_GE(MonotonicNowNs(), lease_end);
}

TEST_F(AttachWatchdog, AChildOfForkIsToldThatItHasNoSession) {
  session_ = *Session::Attach({.socket_path = path_});
  region_ = *session_->Reserve({.name = "r", .size_bytes = kSize});
  ASSERT_TRUE(region_->Allocate(0, kSize, {}).ok());
  base_ = *region_->Map(0, kSize);
  std::byte word[8];
  ASSERT_TRUE(region_->Read(0, word).ok());
  const pid_t child = fork();
  if (child == 0) {
    const bool told = region_->Read(0, word).code() == absl::StatusCode::kUnavailable &&
                      region_->Flush(0, kPageBytes).code() == absl::StatusCode::kUnavailable &&
                      session_->Space().status().code() == absl::StatusCode::kUnavailable;
    region_.reset();
    session_.reset();
    _exit(told && AttachesItself() ? 0 : 1);
  }
  int status = -1;
  if (!Eventually([&] { return waitpid(child, &status, WNOHANG) == child; })) {
    kill(child, SIGSEGV);  // A sanitizer's handler says where it hangs.
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ADD_FAILURE() << "the child hangs";
  }
  EXPECT_EQ(status, 0);
  // What the child dropped is still the parent's.
  EXPECT_EQ(TryStore(base_, 1), 0);
  EXPECT_TRUE(region_->Flush(0, kPageBytes).ok());
}

}  // namespace
}  // namespace mangrove::attach_test
