// What the daemon makes of programs that do not keep to the protocol, and of those that die.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "engine/attach/attach_codec.h"
#include "engine/attach/deadline_page.h"
#include "engine/attach/packet_socket.h"
#include "engine/mapping/local_mapping.h"
#include "tests/unit/engine/attach_harness.h"

namespace mangrove::attach_test {
namespace {

constexpr uint64_t kServedBytes = 16 * kPageBytes;

int64_t Soon() { return MonotonicNowNs() + 10 * kSecond; }

// A program that sends what it likes.
class RawProgram {
 public:
  explicit RawProgram(const std::string& path) : socket_(*ConnectPacketSocket(path)) {}

  bool Send(const AttachBytes& bytes, std::span<const int> descriptors = {}) {
    for (;;) {
      const PacketResult result = SendPacket(socket_.get(), bytes, descriptors);
      if (result != PacketResult::kNotNow) return result == PacketResult::kDone;
      if (!WaitForSocket(socket_.get(), POLLOUT, Soon())) return false;
    }
  }
  // False at the end of the connection.
  bool Receive() {
    for (;;) {
      const PacketResult result = ReceivePacket(socket_.get(), packet_);
      if (result != PacketResult::kNotNow) return result == PacketResult::kDone;
      if (!WaitForSocket(socket_.get(), POLLIN, Soon())) ADD_FAILURE() << "no packet, and no end";
    }
  }
  bool HangsUp() {
    while (Receive()) {
    }
    return true;
  }
  absl::Status Welcome() {
    if (!Receive()) return absl::InternalError("no welcome");
    auto welcome = DecodeWelcome(packet_.bytes());
    return welcome.ok() ? welcome->status : welcome.status();
  }
  void SayHello() {
    ASSERT_TRUE(Send(EncodeHello({})));
    ASSERT_TRUE(Welcome().ok());
    ASSERT_EQ(packet_.descriptors.size(), 2u);
    deadline_.emplace(*DeadlineView::Create(packet_.descriptors[0]));
    events_ = std::move(packet_.descriptors[1]);
  }
  // REQUIRES: SayHello.
  int64_t deadline_ns() const { return deadline_->deadline_ns(); }
  int64_t lease_ns() const { return deadline_->lease_ns(); }
  AttachReply Ask(AttachRequest request, std::span<const int> descriptors = {}) {
    request.id = next_id_++;
    EXPECT_TRUE(Send(EncodeRequest(request), descriptors));
    return NextReply();
  }
  AttachReply NextReply() {
    if (!Receive()) return {.status = absl::UnavailableError("hung up")};
    auto reply = DecodeReply(packet_.bytes());
    EXPECT_TRUE(reply.ok());
    return *reply;
  }
  int fd() const { return socket_.get(); }
  // Of the last packet.
  int descriptor(size_t index) const { return packet_.descriptors.at(index).get(); }

 private:
  UniqueFd socket_;
  UniqueFd events_;
  std::optional<DeadlineView> deadline_;
  ReceivedPacket packet_;
  uint64_t next_id_ = 1;
};

class AttachServerTest : public testing::Test {
 protected:
  void Serve(AttachServerOptions options = {}) {
    daemon_ = std::make_unique<TestDaemon>(path_, std::move(options));
    ASSERT_TRUE(daemon_->started().ok()) << daemon_->started();
  }
  TestNode& node() { return daemon_->node(); }
  // Whatever others did, this one is served.
  void ExpectServed() {
    auto session = Session::Attach({.socket_path = path_});
    ASSERT_TRUE(session.ok()) << session.status();
    EXPECT_TRUE((*session)->Space().ok());
  }
  size_t Clients() {
    size_t clients = 0;
    node().OnLoop([&] { clients = daemon_->server().clients(); });
    return clients;
  }

  const std::string path_ = NewSocketPath();
  std::unique_ptr<TestDaemon> daemon_;
};

TEST_F(AttachServerTest, AnotherVersionIsRefusedWithBothNumbers) {
  Serve();
  RawProgram program(path_);
  program.Send(EncodeHello({.version = 99}));
  const absl::Status status = program.Welcome();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("version 99"), std::string::npos) << status;
  EXPECT_NE(status.message().find(absl::StrCat("version ", kAttachVersion)), std::string::npos) << status;
  EXPECT_TRUE(program.HangsUp());
  ExpectServed();
}

TEST_F(AttachServerTest, WhoSaysNoHelloIsRefused) {
  Serve({.hello_timeout = 100 * kMillisecond});
  RawProgram stranger(path_);
  stranger.Send(AttachBytes(24, std::byte{0x41}));
  EXPECT_EQ(stranger.Welcome().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(stranger.HangsUp());
  RawProgram wrong_magic(path_);
  wrong_magic.Send(EncodeHello({.magic = 1}));
  EXPECT_EQ(wrong_magic.Welcome().code(), absl::StatusCode::kInvalidArgument);
  RawProgram silent(path_);
  EXPECT_EQ(silent.Welcome().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(silent.HangsUp());
  ExpectServed();
}

TEST_F(AttachServerTest, MalformedPacketsEndTheConnectionWithAnError) {
  Serve();
  std::mt19937_64 random(3);
  for (int i = 0; i < 100; ++i) {
    RawProgram program(path_);
    program.SayHello();
    AttachBytes bytes(8 * (1 + random() % 200));
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    ASSERT_TRUE(program.Send(bytes));
    const AttachReply reply = program.NextReply();
    EXPECT_EQ(reply.id, 0u);
    EXPECT_EQ(reply.status.code(), absl::StatusCode::kInvalidArgument) << reply.status;
    EXPECT_TRUE(program.HangsUp());
  }
  EXPECT_TRUE(Eventually([&] { return node().ended_clients == 100; }));
  ExpectServed();
}

TEST_F(AttachServerTest, DescriptorsThatDoNotBelongEndTheConnection) {
  Serve();
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int two[] = {fd, fd};
  RawProgram extra(path_);
  extra.SayHello();
  EXPECT_EQ(extra.Ask({.call = SpaceCall{}}, two).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(extra.HangsUp());
  RawProgram none(path_);
  none.SayHello();
  EXPECT_EQ(none.Ask({.call = MapCall{1, 4096}}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(none.HangsUp());
  ExpectServed();
  close(fd);
}

TEST_F(AttachServerTest, ADescriptorThatIsNoUserfaultfdIsAnError) {
  Serve();
  RawProgram program(path_);
  program.SayHello();
  const AttachReply opened = program.Ask({.call = ReserveCall{{.name = "r", .size_bytes = kServedBytes}}});
  ASSERT_TRUE(opened.status.ok()) << opened.status;
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const uint64_t region = std::get<OpenedReply>(opened.result).region;
  EXPECT_EQ(program.Ask({.call = MapCall{region, 4096}}, {&fd, 1}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(program.Ask({.call = SpaceCall{}}).status.ok());
  close(fd);
}

TEST_F(AttachServerTest, PacketsThatAreTooLongEndTheConnection) {
  Serve();
  RawProgram program(path_);
  program.SayHello();
  const std::vector<std::byte> long_packet(kMaxAttachMessageBytes + 8);
  ASSERT_GT(send(program.fd(), long_packet.data(), long_packet.size(), MSG_NOSIGNAL), 0);
  EXPECT_TRUE(program.HangsUp());
  ExpectServed();
}

TEST_F(AttachServerTest, RangesAndRegionsThatAreNotThereAreErrors) {
  Serve();
  RawProgram program(path_);
  program.SayHello();
  const AttachReply opened = program.Ask({.call = ReserveCall{{.name = "r", .size_bytes = kServedBytes}}});
  const uint64_t region = std::get<OpenedReply>(opened.result).region;
  const RegionPages wrong[] = {{region + 1, 0, 1},
                               {0, 0, 1},
                               {region, 0, 0},
                               {region, 16, 1},
                               {region, 0, 17},
                               {region, 1, 16},
                               {region, UINT64_MAX, 1},
                               {region, 1, UINT64_MAX},
                               {region, UINT64_MAX, UINT64_MAX}};
  for (const RegionPages& pages : wrong) {
    EXPECT_EQ(program.Ask({.call = AcquireCall{pages}}).status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(program.Ask({.call = FlushCall{pages}}).status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(program.Ask({.call = LockCall{pages}}).status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(program.Ask({.call = HealCall{pages}}).status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(program.Ask({.call = UnlockCall{4}}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(program.Ask({.call = CloseCall{region + 1}}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(program.Ask({.call = CloseCall{region}}).status.ok());
  EXPECT_EQ(program.Ask({.call = FlushCall{{region, 0, 1}}}).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(AttachServerTest, AReadOnlyRegionIsNotAcquiredForWriting) {
  Serve();
  RawProgram program(path_);
  program.SayHello();
  program.Ask({.call = ReserveCall{{.name = "r", .size_bytes = kServedBytes}}});
  const AttachReply opened = program.Ask({.call = OpenCall{"r", AccessMode::kRead}});
  const uint64_t region = std::get<OpenedReply>(opened.result).region;
  EXPECT_FALSE(std::get<OpenedReply>(opened.result).may_write);
  const RegionPages pages{region, 0, 1};
  EXPECT_EQ(program.Ask({.call = AcquireCall{pages, AccessMode::kWrite}}).status.code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(program.Ask({.call = LockCall{pages, LockMode::kExclusive}}).status.code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(program.Ask({.call = AcquireCall{pages, AccessMode::kRead}}).status.ok());
}

TEST_F(AttachServerTest, LimitsOfOneProgramHold) {
  Serve({.max_requests = 10, .max_regions = 2});
  RawProgram program(path_);
  program.SayHello();
  const AttachReply opened = program.Ask({.call = ReserveCall{{.name = "r", .size_bytes = kServedBytes}}});
  const uint64_t region = std::get<OpenedReply>(opened.result).region;
  EXPECT_TRUE(program.Ask({.call = OpenCall{"r", AccessMode::kRead}}).status.ok());
  EXPECT_EQ(program.Ask({.call = OpenCall{"r", AccessMode::kRead}}).status.code(),
            absl::StatusCode::kResourceExhausted);
  node().MakeHang(0);
  for (uint64_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(program.Send(
        EncodeRequest({.id = 100 + i, .timeout_ms = 600'000, .call = AcquireCall{{region, 0, 1}, AccessMode::kRead}})));
  }
  EXPECT_EQ(program.Ask({.call = SpaceCall{}}).status.code(), absl::StatusCode::kResourceExhausted);
  // What gives back is always taken.
  EXPECT_TRUE(program.Ask({.call = CloseCall{region}}).status.ok());
  ExpectServed();
}

TEST_F(AttachServerTest, AFloodThatReadsNothingIsHeldBackAndOthersAreServed) {
  Serve();
  RawProgram flood(path_);
  flood.SayHello();
  const AttachBytes request = EncodeRequest({.id = 1, .call = InspectCall{"long", ""}});
  // Until its socket takes no more: the daemon has stopped reading.
  bool blocked = false;
  for (int i = 0; i < 1'000'000 && !blocked; ++i) {
    if (SendPacket(flood.fd(), request) == PacketResult::kNotNow) {
      blocked = !WaitForSocket(flood.fd(), POLLOUT, MonotonicNowNs() + 200 * kMillisecond);
    }
  }
  EXPECT_TRUE(blocked);
  ExpectServed();
  EXPECT_TRUE(Eventually([&] { return Clients() == 1; }));
}

TEST_F(AttachServerTest, TooManyProgramsAreRefusedWithAnError) {
  Serve({.max_clients = 2});
  RawProgram one(path_);
  one.SayHello();
  RawProgram two(path_);
  two.SayHello();
  const auto third = Session::Attach({.socket_path = path_});
  EXPECT_EQ(third.status().code(), absl::StatusCode::kResourceExhausted) << third.status();
}

TEST_F(AttachServerTest, ADeadProgramsLocksAndMappingsAreGivenBack) {
  // Forked before there are threads; attaches when told.
  int go[2];
  ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
  ChildProgram victim([&] {
    char byte;
    close(go[1]);
    if (read(go[0], &byte, 1) != 1) return 1;
    auto session = Session::Attach({.socket_path = path_});
    if (!session.ok()) return 2;
    auto region = (*session)->Open("r", AccessMode::kWrite);
    if (!region.ok()) return 3;
    auto base = (*region)->Map(0, kServedBytes);
    auto lock = (*region)->Lock(0, kPageBytes, LockMode::kExclusive, 0);
    if (!base.ok() || !lock.ok()) return 4;
    // A child that lives on, with copies of every descriptor.
    if (fork() == 0) _exit(static_cast<int>(read(go[0], &byte, 1)));  // Until the test has ended.
    TryLoad(*base + 5 * kPageBytes);                                  // Waits in the fault.
    return 5;
  });
  Serve();
  auto session = *Session::Attach({.socket_path = path_});
  auto region = *session->Reserve({.name = "r", .size_bytes = kServedBytes});
  ASSERT_TRUE(region->Allocate(0, kServedBytes, {}).ok());
  node().MakeHang(5);
  const int before = node().acquisitions;
  ASSERT_EQ(write(go[1], "g", 1), 1);
  ASSERT_TRUE(Eventually([&] { return node().acquisitions >= before + 2; }));
  EXPECT_EQ(region->Lock(0, kPageBytes, LockMode::kExclusive, 0).status().code(), absl::StatusCode::kDeadlineExceeded);
  victim.Signal(SIGKILL);
  EXPECT_TRUE(region->Lock(0, kPageBytes, LockMode::kExclusive, 5000).ok());
  EXPECT_EQ(node().ended_clients, 1);
  EXPECT_EQ(Clients(), 1u);
  EXPECT_EQ(victim.Wait(), 100 + SIGKILL);
  close(go[1]);
  close(go[0]);
}

TEST_F(AttachServerTest, ALockGrantedToAProgramThatIsGoneIsGivenBack) {
  Serve();
  auto session = *Session::Attach({.socket_path = path_});
  auto region = *session->Reserve({.name = "r", .size_bytes = kServedBytes});
  auto held = region->Lock(0, kPageBytes, LockMode::kExclusive, 0);
  ASSERT_TRUE(held.ok());
  {
    RawProgram program(path_);
    program.SayHello();
    const AttachReply opened = program.Ask({.call = OpenCall{"r", AccessMode::kWrite}});
    const RegionPages pages{std::get<OpenedReply>(opened.result).region, 0, 1};
    program.Send(EncodeRequest({.id = 50, .timeout_ms = 60'000, .call = LockCall{pages, LockMode::kExclusive}}));
    ASSERT_TRUE(Eventually([&] { return node().waiting_locks == 1; }));
  }
  EXPECT_TRUE(Eventually([&] { return node().ended_clients == 1; }));
  EXPECT_TRUE(held->Release().ok());
  EXPECT_TRUE(region->Lock(0, kPageBytes, LockMode::kExclusive, 5000).ok());
}

TEST_F(AttachServerTest, TheSocketOfALivingDaemonIsRefusedThatOfADeadOneTaken) {
  {
    ChildDaemon other(path_);
    TestDaemon second(path_);
    EXPECT_EQ(second.started().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(second.started().message().find(path_), std::string::npos) << second.started();
    other.KillAndReap();
  }
  ASSERT_EQ(access(path_.c_str(), F_OK), 0);
  Serve();
  ExpectServed();
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0666u);
  daemon_.reset();
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(AttachServerTest, AFileThatIsNoSocketIsLeftAlone) {
  ASSERT_EQ(close(open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
  TestDaemon daemon(path_);
  EXPECT_EQ(daemon.started().code(), absl::StatusCode::kFailedPrecondition) << daemon.started();
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
}

TEST_F(AttachServerTest, TheDeadlineMovesForEveryProgramThatComes) {
  constexpr DurationNs kDeadline = 700 * kMillisecond;
  constexpr DurationNs kInterval = 10 * kMillisecond;
  Serve({.deadline = kDeadline, .stamp_interval = kInterval});
  // The second time after nobody was there.
  for (int i = 0; i < 2; ++i) {
    const int64_t before = MonotonicNowNs();
    RawProgram program(path_);
    program.SayHello();
    int64_t last = program.deadline_ns();
    EXPECT_GE(last, before + kDeadline);
    for (int moves = 0; moves < 5; ++moves) {
      ASSERT_TRUE(Eventually([&] { return program.deadline_ns() > last; }));
      last = program.deadline_ns();
    }
    EXPECT_LE(last, MonotonicNowNs() + kDeadline);
    shutdown(program.fd(), SHUT_RDWR);
    // The deadline stands still then.
    ASSERT_TRUE(Eventually([&] { return program.deadline_ns() < MonotonicNowNs() + kDeadline - 10 * kInterval; }));
  }
}

TEST_F(AttachServerTest, TheDeadlinePageSaysWhenTheLeaseEnds) {
  std::atomic<TimeNs> lease_end = MonotonicNowNs() + 400 * kMillisecond;
  Serve({.stamp_interval = 5 * kMillisecond, .serves_until = [&] { return lease_end.load(); }});
  RawProgram program(path_);
  program.SayHello();
  EXPECT_EQ(program.lease_ns(), lease_end);
  for (int moves = 0; moves < 20; ++moves) {
    lease_end = lease_end + 10 * kMillisecond;
    ASSERT_TRUE(Eventually([&] { return program.lease_ns() == lease_end; }));
  }
  EXPECT_GT(program.deadline_ns(), MonotonicNowNs());
}

TEST_F(AttachServerTest, NothingIsMappedWithoutALease) {
  std::atomic<TimeNs> lease_end = MonotonicNowNs() - 1;
  // One stamp, when the first program comes.
  Serve({.stamp_interval = 100 * kSecond, .serves_until = [&] { return lease_end.load(); }});
  auto session = *Session::Attach({.socket_path = path_});
  auto region = *session->Reserve({.name = "r", .size_bytes = kServedBytes});
  ASSERT_TRUE(region->Allocate(0, kServedBytes, {}).ok());
  const auto refused = region->Map(0, kServedBytes);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(refused.status().message().find("no lease"), std::string::npos) << refused.status();
  // The session is there still, and the page says what is so when something is mapped.
  lease_end = MonotonicNowNs() + 100 * kSecond;
  const auto mapped = region->Map(0, kServedBytes);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  RawProgram other(path_);
  other.SayHello();
  EXPECT_EQ(other.lease_ns(), lease_end);
}

// S4
TEST_F(AttachServerTest, WhoIsCutOffHasSealedWhatItHadMappedWhenThatIsSaid) {
  Serve();
  auto session = *Session::Attach({.socket_path = path_});
  auto region = *session->Reserve({.name = "r", .size_bytes = kServedBytes});
  ASSERT_TRUE(region->Allocate(0, kServedBytes, {}).ok());
  std::byte* const base = *region->Map(0, kServedBytes);
  ASSERT_EQ(TryStore(base, 7), 0);
  RawProgram idle(path_);
  idle.SayHello();
  std::atomic<int> all_have = -1;
  node().OnLoop([&] { daemon_->server().CutOff(10 * kSecond, [&](bool all) { all_have = all ? 1 : 0; }); });
  const int64_t limit = Soon();
  while (all_have == -1 && MonotonicNowNs() < limit) std::this_thread::yield();
  EXPECT_EQ(TryLoad(base), SIGBUS);
  EXPECT_EQ(all_have, 1);
  EXPECT_EQ(Clients(), 0u);
  EXPECT_TRUE(idle.HangsUp());
  EXPECT_FALSE(ConnectPacketSocket(path_).ok());
  EXPECT_EQ(session->Space().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(AttachServerTest, AProgramThatStandsStillDoesNotGiveUpWhatItHasMapped) {
  int go[2];
  int told[2];
  ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(told, O_CLOEXEC), 0);
  ChildProgram victim([&] {
    char byte;
    if (read(go[0], &byte, 1) != 1) return 1;
    auto session = Session::Attach({.socket_path = path_});
    if (!session.ok()) return 2;
    auto region = (*session)->Open("r", AccessMode::kWrite);
    if (!region.ok() || !(*region)->Map(0, kServedBytes).ok()) return 3;
    if (write(told[1], "t", 1) != 1) return 4;
    return static_cast<int>(read(go[0], &byte, 1));  // Until it is killed.
  });
  Serve();
  auto session = *Session::Attach({.socket_path = path_});
  auto region = *session->Reserve({.name = "r", .size_bytes = kServedBytes});
  ASSERT_TRUE(region->Allocate(0, kServedBytes, {}).ok());
  close(told[1]);  // The victim's own is open.
  ASSERT_EQ(write(go[1], "g", 1), 1);
  char byte;
  ASSERT_EQ(read(told[0], &byte, 1), 1);
  victim.Signal(SIGSTOP);
  std::atomic<int> all_have = -1;
  node().OnLoop([&] { daemon_->server().CutOff(50 * kMillisecond, [&](bool all) { all_have = all ? 1 : 0; }); });
  EXPECT_TRUE(Eventually([&] { return all_have != -1; }));
  EXPECT_EQ(all_have, 0);
  EXPECT_EQ(Clients(), 1u);
  victim.Signal(SIGKILL);
  EXPECT_EQ(victim.Wait(), 100 + SIGKILL);
  for (const int end : {go[0], go[1], told[0]}) close(end);
}

// S4. One that stands still when it is refused, say: this one has nobody who would seal what it has mapped.
TEST_F(AttachServerTest, WhoIsRefusedMayUseWhatItHasMappedUntilItHangsUp) {
  for (const bool hangs_up : {false, true}) {
    Serve();
    {
      auto session = *Session::Attach({.socket_path = path_});
      ASSERT_TRUE((*session->Reserve({.name = "r", .size_bytes = kServedBytes}))->Allocate(0, kServedBytes, {}).ok());
    }
    auto program = std::make_optional<RawProgram>(path_);
    program->SayHello();
    const AttachReply opened = program->Ask({.call = OpenCall{"r", AccessMode::kWrite}});
    ASSERT_TRUE(opened.status.ok()) << opened.status;
    const auto mapping = *LocalMapping::Create(program->descriptor(0), kServedBytes, false);
    const UniqueFd userfaultfd = mapping->ReleaseUserfaultfd();
    const int descriptor = userfaultfd.get();
    const MapCall map{std::get<OpenedReply>(opened.result).region, reinterpret_cast<uint64_t>(mapping->base()),
                      MappingUse::kProgram};
    ASSERT_TRUE(program->Ask({.call = map}, {&descriptor, 1}).status.ok());
    ASSERT_EQ(TryStore(mapping->base(), 7), 0);

    ASSERT_TRUE(program->Send(AttachBytes(16, std::byte{1})));
    EXPECT_EQ(program->NextReply().status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(program->HangsUp());
    uint64_t value = 0;
    ASSERT_EQ(TryLoad(mapping->base(), &value), 0);
    EXPECT_EQ(value, 7u);

    std::atomic<int> all_have = -1;
    const DurationNs patience = hangs_up ? 10 * kSecond : 50 * kMillisecond;
    node().OnLoop([&] { daemon_->server().CutOff(patience, [&](bool all) { all_have = all ? 1 : 0; }); });
    if (hangs_up) {
      EXPECT_EQ(all_have, -1);
      program.reset();
    }
    EXPECT_TRUE(Eventually([&] { return all_have != -1; }));
    EXPECT_EQ(all_have, hangs_up ? 1 : 0);
    EXPECT_EQ(Clients(), hangs_up ? 0u : 1u);
    daemon_.reset();
  }
}

TEST_F(AttachServerTest, CredentialsAreThoseOfTheProgram) {
  Serve();
  auto session = *Session::Attach({.socket_path = path_});
  auto region = *session->Reserve({.name = "r", .size_bytes = kServedBytes});
  EXPECT_EQ(region->info().owner, geteuid());
  EXPECT_EQ(region->info().group, getegid());
}

}  // namespace
}  // namespace mangrove::attach_test
