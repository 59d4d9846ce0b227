// A fileset in memory, with instances that this host has mounted, each in a directory of its own.

#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fs/instance.h"
#include "fs/mount/mount.h"
#include "fs/status.h"
#include "net/runtime/loop.h"
#include "tests/unit/fs/hooked_filesystem.h"
#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {

inline bool CanMount() { return geteuid() == 0 && access("/dev/fuse", R_OK | W_OK) == 0; }

// Of an open file; closed at its end.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  operator int() const { return fd_; }  // NOLINT: system calls take it.

 private:
  int fd_;
};

// What a system call that gave `result` has failed with; 0: it has not.
inline int ErrorOf(int64_t result) { return result < 0 ? errno : 0; }

// A directory that goes with what is in it, but for mounts.
class MountPoint {
 public:
  MountPoint() {
    std::string name = "/tmp/mangrove_mount_XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  MountPoint(const MountPoint&) = delete;
  MountPoint& operator=(const MountPoint&) = delete;
  ~MountPoint() {
    umount2(path_.c_str(), MNT_DETACH);
    rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class MountTest : public testing::Test {
 protected:
  // An instance and its mount.
  struct Mounted {
    MountPoint point;
    std::unique_ptr<Instance> instance;
    std::unique_ptr<HookedFilesystem> filesystem;
    std::unique_ptr<Mount> mount;
    std::atomic<bool> has_ended = false;
  };

  void SetUp() override {
    ASSERT_TRUE(CanMount()) << "mounting takes root and /dev/fuse";
    umask(022);
    ASSERT_TRUE(loop_.Start().ok());
    OnLoop([&] { EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok()); });
    MountHere(&first_);
  }
  void TearDown() override {
    if (!CanMount()) return;
    for (Mounted* mounted : {&first_, &second_}) EndMount(mounted);
    loop_.Stop();
  }

  void OnLoop(absl::FunctionRef<void()> task) {
    Completion done;
    loop_.RunUntil(
        [&] {
          task();
          done.Set();
        },
        done);
  }

  void MountHere(Mounted* mounted, const std::vector<std::string>& flags = {}) {
    absl::StatusOr<std::unique_ptr<Mount>> mount =
        Mount::Create({.directory = mounted->point.path(), .source = "a test's, with a comma", .flags = flags});
    ASSERT_TRUE(mount.ok()) << mount.status();
    mounted->mount = *std::move(mount);
    OnLoop([&] {
      auto opened = Do(Instance::Open(&pages_));
      ASSERT_TRUE(opened.ok()) << opened.status();
      mounted->instance = *std::move(opened);
      mounted->filesystem = std::make_unique<HookedFilesystem>(mounted->instance.get(), &loop_);
      mounted->filesystem->before = [this](const std::string&) {
        pages_.SetNow(WallNs());
        return absl::OkStatus();
      };
      mounted->mount->Serve(&loop_, mounted->filesystem.get(), [mounted] { mounted->has_ended = true; });
    });
  }

  void EndMount(Mounted* mounted) {
    if (mounted->mount == nullptr) return;
    umount2(mounted->point.path().c_str(), MNT_DETACH);
    OnLoop([&] {
      mounted->filesystem->Release();
      mounted->mount->Stop();
    });
    EXPECT_TRUE(Comes([&] { return UnderWay(*mounted) == 0; }));
    mounted->mount = nullptr;
  }

  size_t UnderWay(const Mounted& mounted) {
    size_t count = 0;
    OnLoop([&] { count = mounted.mount->under_way(); });
    return count;
  }

  // Whether it becomes so in a while.
  static bool Comes(const std::function<bool()>& what) {
    constexpr int kLooks = 10'000;
    for (int look = 0; look < kLooks; ++look) {
      if (what()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  static int64_t WallNs() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }

  std::string Path(const std::string& name) const { return absl::StrCat(first_.point.path(), "/", name); }
  std::string SecondPath(const std::string& name) const { return absl::StrCat(second_.point.path(), "/", name); }
  Descriptor Open(const std::string& name, int flags, mode_t mode = 0644) const {
    return Descriptor(open(Path(name).c_str(), flags, mode));
  }
  int OpenError(const std::string& name, int flags, mode_t mode = 0644) const {
    const int fd = open(Path(name).c_str(), flags, mode);
    const int error = ErrorOf(fd);
    if (fd >= 0) close(fd);
    return error;
  }
  void WriteFile(const std::string& name, const std::string& bytes) const {
    std::ofstream out(Path(name), std::ios::binary);
    out << bytes;
    out.close();
    EXPECT_TRUE(out.good()) << name;
  }
  static std::string ReadAll(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    EXPECT_TRUE(in.good()) << path;
    std::ostringstream bytes;
    bytes << in.rdbuf();
    return bytes.str();
  }
  std::string ReadFile(const std::string& name) const { return ReadAll(Path(name)); }
  struct stat Stat(const std::string& name) const {
    struct stat s {};
    EXPECT_EQ(ErrorOf(lstat(Path(name).c_str(), &s)), 0) << name;
    return s;
  }
  int StatError(const std::string& name) const {
    struct stat s {};
    return ErrorOf(lstat(Path(name).c_str(), &s));
  }

  Loop loop_{LoopOptions{}};
  MemoryPages pages_;
  Mounted first_;
  Mounted second_;  // Of another instance; MountHere.
};

}  // namespace mangrove::fs
