// Programs of an unprivileged user.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/nobody.h"
#include "tests/unit/engine/attach_harness.h"

namespace mangrove::attach_test {
namespace {

constexpr uint64_t kUserBytes = 16 * kPageBytes;

int Told(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 98;
}

class AttachUser : public testing::Test {
 protected:
  // Runs `body` as nobody against a daemon of root, that has a region "open" (mode 0666), "mine" (0600, of root),
  // "readable" (0644) and "group" (0660, of the group that gives access to the device).
  int RunAsNobody(const std::function<int(Session&)>& body) {
    ChildDaemon daemon(path_);
    // In a process of its own: this one forks once more.
    ChildProgram root([&] {
      auto session = *Session::Attach({.socket_path = path_});
      const std::pair<const char*, uint16_t> regions[] = {
          {"open", 0666}, {"mine", 0600}, {"readable", 0644}, {"group", 0660}};
      for (const auto& [name, mode] : regions) {
        auto region = session->Reserve({.name = name, .size_bytes = kUserBytes, .group = kDeviceGroup, .mode = mode});
        if (!region.ok() || !(*region)->Allocate(0, kUserBytes, {}).ok()) return 1;
      }
      return 0;
    });
    EXPECT_EQ(root.Wait(), 0);
    ChildProgram program([&] {
      BecomeNobody();
      auto session = Session::Attach({.socket_path = path_});
      return session.ok() ? body(**session) : Told(session.status());
    });
    return program.Wait();
  }

  // The first word of a region, as a session of its own sees it.
  uint64_t SharedWord(const std::string& name) const {
    auto session = *Session::Attach({.socket_path = path_});
    uint64_t word = UINT64_MAX;
    (*session->Open(name, AccessMode::kRead))->Read(0, std::as_writable_bytes(std::span(&word, 1))).IgnoreError();
    return word;
  }

  const std::string path_ = NewSocketPath();
};

TEST_F(AttachUser, MapsWritesAndReadsWhatTheModesAllow) {
  EXPECT_EQ(RunAsNobody([](Session& session) {
              for (const char* name : {"open", "group"}) {
                auto region = session.Open(name, AccessMode::kWrite);
                if (!region.ok()) return 1;
                auto base = (*region)->Map(0, kUserBytes);
                if (!base.ok()) return Told(base.status());
                if (TryStore(*base, 42) != 0) return 3;
                // A fault inside of a system call.
                const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
                if (read(zeros, *base + 3 * kPageBytes, 2 * kPageBytes) != 2 * kPageBytes) return 4;
                std::vector<std::byte> bytes(2 * kPageBytes);
                if (!(*region)->Read(0, bytes).ok() || bytes[0] != std::byte{42}) return 5;
              }
              auto own = session.Reserve({.name = "own", .size_bytes = kUserBytes});
              return own.ok() && (*own)->info().owner == kNobody ? 0 : 6;
            }),
            0);
}

TEST_F(AttachUser, IsDeniedWhatTheModesDeny) {
  EXPECT_EQ(RunAsNobody([](Session& session) {
              const auto denied = [](const absl::Status& s) { return s.code() == absl::StatusCode::kPermissionDenied; };
              if (!denied(session.Open("mine", AccessMode::kRead).status())) return 1;
              if (!denied(session.Open("readable", AccessMode::kWrite).status())) return 2;
              if (!denied(session.Free("open"))) return 3;
              auto region = session.Open("open", AccessMode::kWrite);
              return region.ok() && denied((*region)->Allocate(0, kPageBytes, {})) ? 0 : 4;
            }),
            0);
}

// Every descriptor that the library holds, tried for writing by whoever has its number.
bool AnyDescriptorGivesWriting(size_t size) {
  bool any = false;
  for (int fd = 3; fd < 64; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) continue;
    void* shared = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    char target[256] = {};
    const bool is_memory = readlink(path.c_str(), target, sizeof(target) - 1) > 0 &&
                           std::string(target).find("memfd:") != std::string::npos &&
                           std::string(target).find("sealed") == std::string::npos;
    const int again = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (is_memory && (shared != MAP_FAILED || again >= 0 || pwrite(fd, "x", 1, 0) == 1 || ftruncate(fd, 0) == 0)) {
      std::fprintf(stderr, "descriptor %d (%s) can be written\n", fd, target);
      any = true;
    }
  }
  return any;
}

TEST_F(AttachUser, WhoMayOnlyReadFindsNoWayToWrite) {
  EXPECT_EQ(RunAsNobody([this](Session& session) {
              auto region = session.Open("readable", AccessMode::kRead);
              if (!region.ok()) return 1;
              auto base = (*region)->Map(0, kUserBytes);
              if (!base.ok()) return Told(base.status());
              if (TryLoad(*base) != 0) return 3;
              if (TryStore(*base, 1) == 0) return 4;
              if (AnyDescriptorGivesWriting(kUserBytes)) return 5;
              if (mprotect(*base, kUserBytes, PROT_READ | PROT_WRITE) == 0) TryStore(*base, 1);
              return SharedWord("readable") == 0 ? 0 : 6;
            }),
            0);
}

}  // namespace
}  // namespace mangrove::attach_test
