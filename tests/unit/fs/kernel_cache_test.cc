// What the kernel keeps of a mount, and when it asks again: of a fileset in memory whose pages others take, as a test says.
// Covers: F16

#include <dirent.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <future>
#include <map>
#include <mutex>
#include <string>

#include "fs/mount/kernel_cache.h"
#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

class KernelCacheTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (HasFatalFailure()) return;
    OnLoop([&] {
      first_.filesystem->before = [this](const std::string& operation) {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++asked_[operation];
        pages_.SetNow(WallNs());
        return absl::OkStatus();
      };
      pages_.memory_copies().SetUsableFor(20 * kSecond);
    });
  }

  // After a change by this node attributes are told anew.
  static void SettleDown() { std::this_thread::sleep_for(std::chrono::milliseconds(30)); }
  // Of these operations since the last time.
  std::map<std::string, int> Asked() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(asked_, {});
  }
  int AskedFor(const std::string& operation) { return Asked()[operation]; }
  uint64_t InodeOf(const std::string& name) const { return Stat(name).st_ino; }
  // Somebody else takes the page, and has it when this returns. False: he waits for long.
  bool Take(uint64_t page) {
    auto gone = std::make_shared<std::promise<void>>();
    OnLoop([&] { pages_.memory_copies().Take(page, [gone] { gone->set_value(); }); });
    return gone->get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  }
  // The file's inode is changed as another node does it, and its page leaves before.
  void ChangeElsewhere(const std::string& name, absl::FunctionRef<void(InodeNumber)> change) {
    const uint64_t page = InodeOf(name);
    ASSERT_TRUE(Take(page));
    OnLoop([&] { change(InodeNumber{page}); });
  }
  void WriteElsewhere(const std::string& name, const std::string& bytes) {
    ChangeElsewhere(name,
                    [&](InodeNumber inode) { EXPECT_TRUE(Do(first_.instance->Write(inode, 0, bytes, {})).ok()); });
  }

  // Of each name the attributes at once, as `ls -l` does. How many names.
  int List(const std::string& name) {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(Path(name).c_str()), closedir);
    int names = 0;
    while (const dirent* const entry = readdir(directory.get())) {
      struct stat s {};
      EXPECT_EQ(fstatat(dirfd(directory.get()), entry->d_name, &s, AT_SYMLINK_NOFOLLOW), 0) << entry->d_name;
      if (entry->d_name[0] != '.') ++names;
    }
    return names;
  }
  void MakeDirectoryOf(const std::string& name, int files) {
    ASSERT_EQ(mkdir(Path(name).c_str(), 0755), 0);
    for (int i = 0; i < files; ++i) WriteFile(absl::StrCat(name, "/", i), "");
    SettleDown();
  }

  std::mutex mutex_;
  std::map<std::string, int> asked_;
};

TEST_F(KernelCacheTest, WhoIsAloneAsksNobody) {
  WriteFile("file", "bytes");
  SettleDown();
  const Descriptor file = Open("file", O_RDONLY);
  char bytes[5];
  struct stat s {};
  ASSERT_EQ(pread(file, bytes, 5, 0), 5);
  ASSERT_EQ(fstat(file, &s), 0);
  SettleDown();
  Stat("file");
  Asked();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(fstat(file, &s), 0);
    EXPECT_EQ(pread(file, bytes, 5, 0), 5);
  }
  EXPECT_THAT(Asked(), testing::IsEmpty());
}

// K6
TEST_F(KernelCacheTest, WhoListsWithAttributesAsksForNoNames) {
  MakeDirectoryOf("dir", 100);
  Asked();
  EXPECT_EQ(List("dir"), 100);
  EXPECT_LE(AskedFor("lookup"), 3);  // Of the directory itself.
}

TEST_F(KernelCacheTest, ANameIsAskedForNowAndThen) {
  WriteFile("file", "");
  SettleDown();
  Stat("file");
  EXPECT_EQ(StatError("none"), ENOENT);
  Asked();
  for (int i = 0; i < 100; ++i) {
    Stat("file");
    EXPECT_EQ(StatError("none"), ENOENT);
  }
  EXPECT_LE(AskedFor("lookup"), 6);  // On a slow machine.
  EXPECT_TRUE(Comes([&] {
    Stat("file");
    return AskedFor("lookup") > 0;
  }));
}

TEST_F(KernelCacheTest, NamesOfAListingAreOverWhenOthersChangeThem) {
  MakeDirectoryOf("dir", 10);
  const InodeNumber directory{InodeOf("dir")};
  EXPECT_EQ(List("dir"), 10);
  const TimeNs begun = loop_.ExactNow();
  ASSERT_TRUE(Take(directory.value));
  EXPECT_LT(loop_.ExactNow() - begun, kSecond);
  OnLoop([&] { EXPECT_TRUE(Do(first_.instance->Rename(directory, "3", directory, "new", 0)).ok()); });
  EXPECT_EQ(StatError("dir/3"), ENOENT);
  EXPECT_EQ(StatError("dir/new"), 0);
  // Where others change the directory, none are kept.
  Asked();
  EXPECT_EQ(List("dir"), 10);
  EXPECT_GE(AskedFor("lookup"), 10);
  EXPECT_EQ(StatError("dir/none"), ENOENT);
  const TimeNs again = loop_.ExactNow();
  ASSERT_TRUE(Take(directory.value));
  EXPECT_LT(loop_.ExactNow() - again, KernelCache::kNamesLast / 2);
}

TEST_F(KernelCacheTest, ANameThatWasMovedIsKeptAsLongAsBefore) {
  MakeDirectoryOf("from", 10);
  MakeDirectoryOf("to", 0);
  const uint64_t to = InodeOf("to");
  EXPECT_EQ(List("from"), 10);
  ASSERT_EQ(rename(Path("from/3").c_str(), Path("to/3").c_str()), 0);
  const TimeNs begun = loop_.ExactNow();
  ASSERT_TRUE(Take(to));
  EXPECT_GT(loop_.ExactNow() - begun, KernelCache::kNamesLast / 2);
  OnLoop([&] { EXPECT_TRUE(Do(first_.instance->Unlink(InodeNumber{to}, "3")).ok()); });
  EXPECT_EQ(StatError("to/3"), ENOENT);
}

TEST_F(KernelCacheTest, WhatOthersChangeIsAskedForAgain) {
  WriteFile("file", "bytes");
  SettleDown();
  const Descriptor file = Open("file", O_RDONLY);
  struct stat s {};
  ASSERT_EQ(fstat(file, &s), 0);
  EXPECT_EQ(s.st_mode & 07777, mode_t{0644});
  ChangeElsewhere("file", [&](InodeNumber inode) {
    AttributesChange change;
    change.mode = 0600;
    EXPECT_TRUE(Do(first_.instance->SetAttributes(inode, change)).ok());
  });
  ASSERT_EQ(fstat(file, &s), 0);
  EXPECT_EQ(s.st_mode & 07777, mode_t{0600});
}

TEST_F(KernelCacheTest, BytesThatOthersWriteAreReadByWhoeverHasTheFileOpen) {
  WriteFile("file", "before");
  const Descriptor file = Open("file", O_RDONLY);
  const struct stat before = Stat("file");
  char bytes[7] = {};
  ASSERT_EQ(pread(file, bytes, 6, 0), 6);
  EXPECT_STREQ(bytes, "before");
  WriteElsewhere("file", "behind");
  // As `touch -d` would: the time of change says nothing.
  ChangeElsewhere("file", [&](InodeNumber inode) {
    AttributesChange change;
    change.modified_ns = before.st_mtim.tv_sec * int64_t{kSecond} + before.st_mtim.tv_nsec;
    EXPECT_TRUE(Do(first_.instance->SetAttributes(inode, change)).ok());
  });
  ASSERT_EQ(pread(file, bytes, 6, 0), 6);
  EXPECT_STREQ(bytes, "behind");
  EXPECT_EQ(ReadFile("file"), "behind");
}

TEST_F(KernelCacheTest, BytesThatWereReadByAHandleOfBeforeAreNotKeptForTheNext) {
  WriteFile("file", "before");
  EXPECT_EQ(ReadFile("file"), "before");
  Asked();
  EXPECT_EQ(ReadFile("file"), "before");
  EXPECT_EQ(AskedFor("read"), 0);
  WriteElsewhere("file", "behind");
  EXPECT_EQ(ReadFile("file"), "behind");
}

TEST_F(KernelCacheTest, AMappingSeesWhatOthersWriteSoon) {
  WriteFile("file", "before");
  const Descriptor file = Open("file", O_RDONLY);
  auto* const mapped = static_cast<const char*>(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0));
  ASSERT_NE(mapped, MAP_FAILED);
  EXPECT_EQ(std::string(mapped, 6), "before");
  WriteElsewhere("file", "behind");
  EXPECT_TRUE(Comes([&] { return std::string(mapped, 6) == "behind"; }));
  munmap(const_cast<char*>(mapped), 4096);
}

TEST_F(KernelCacheTest, WhoWritesToAFileSeesItAsItIs) {
  WriteFile("file", "before");
  const Descriptor reader = Open("file", O_RDONLY);
  char bytes[7] = {};
  ASSERT_EQ(pread(reader, bytes, 6, 0), 6);
  const Descriptor writer = Open("file", O_RDWR);
  ASSERT_EQ(pwrite(writer, "behind", 6, 0), 6);
  ASSERT_EQ(pread(reader, bytes, 6, 0), 6);
  EXPECT_STREQ(bytes, "behind");
  ASSERT_EQ(ftruncate(writer, 3), 0);
  EXPECT_EQ(pread(reader, bytes, 6, 0), 3);
  EXPECT_EQ(Stat("file").st_size, 3);
  const Descriptor appends = Open("file", O_WRONLY | O_APPEND);
  ASSERT_EQ(write(appends, "x", 1), 1);
  EXPECT_EQ(pread(reader, bytes, 6, 0), 4);
}

TEST_F(KernelCacheTest, ATimeThatIsOverIsAskedForAgain) {
  OnLoop([&] { pages_.memory_copies().SetUsableFor(400 * kMillisecond); });
  WriteFile("file", "bytes");
  const Descriptor file = Open("file", O_RDONLY);
  SettleDown();
  struct stat s {};
  fstat(file, &s);
  Asked();
  EXPECT_TRUE(Comes([&] {
    fstat(file, &s);
    return AskedFor("get attributes") > 0;
  }));
}

TEST_F(KernelCacheTest, WithoutALeaseNothingIsKept) {
  OnLoop([&] { pages_.memory_copies().SetUsableFor(0); });
  WriteFile("file", "bytes");
  const Descriptor file = Open("file", O_RDONLY);
  SettleDown();
  struct stat s {};
  fstat(file, &s);
  Asked();
  fstat(file, &s);
  EXPECT_GT(AskedFor("get attributes"), 0);
}

// K5
TEST_F(KernelCacheTest, TwoMountsOfOneNodeKeepNothing) {
  WriteFile("file", "bytes");
  EXPECT_EQ(ReadFile("file"), "bytes");
  const Descriptor reader = Open("file", O_RDONLY);
  char bytes[6] = {};
  ASSERT_EQ(pread(reader, bytes, 5, 0), 5);
  MountHere(&second_);
  ASSERT_EQ(chmod(SecondPath("file").c_str(), 0600), 0);
  EXPECT_EQ(Stat("file").st_mode & 07777, mode_t{0600});
  ASSERT_EQ(rename(SecondPath("file").c_str(), SecondPath("other").c_str()), 0);
  EXPECT_EQ(StatError("file"), ENOENT);
  EXPECT_EQ(ReadFile("other"), "bytes");
  const Descriptor writer(open(SecondPath("other").c_str(), O_WRONLY));
  ASSERT_EQ(pwrite(writer, "BYTES", 5, 0), 5);
  // Of several who have it open each is answered.
  const Descriptor another = Open("other", O_RDONLY);
  EXPECT_EQ(ReadFile("other"), "BYTES");
  ASSERT_EQ(pread(reader, bytes, 5, 0), 5);
  EXPECT_STREQ(bytes, "BYTES");
  EXPECT_EQ(lseek(another, 0, SEEK_END), 5);
  EXPECT_EQ(ReadFile("other"), "BYTES");
}

// A page that leaves waits for no read, and who has the bytes dropped waits for that alone.
TEST_F(KernelCacheTest, APageLeavesWhileAReadWaits) {
  WriteFile("file", std::string(1 << 20, 'a'));
  const Descriptor file = Open("file", O_RDONLY);
  char byte = 0;
  ASSERT_EQ(pread(file, &byte, 1, 0), 1);
  OnLoop([&] { first_.filesystem->Hold("read"); });
  auto reads = std::async(std::launch::async, [&] {
    char far = 0;
    return pread(file, &far, 1, (1 << 20) - 1);
  });
  ASSERT_TRUE(Comes([&] { return first_.filesystem->waiting > 0; }));
  EXPECT_TRUE(Take(InodeOf("file")));
  auto stats = std::async(std::launch::async, [&] { return Stat("file").st_size; });
  EXPECT_EQ(stats.get(), 1 << 20);
  OnLoop([&] { first_.filesystem->Release(); });
  EXPECT_EQ(reads.get(), 1);
}

TEST_F(KernelCacheTest, AMountEndsWhileBytesAreDropped) {
  WriteFile("file", std::string(1 << 20, 'a'));
  auto file = std::make_unique<Descriptor>(Open("file", O_RDONLY));
  char byte = 0;
  ASSERT_EQ(pread(*file, &byte, 1, 0), 1);
  OnLoop([&] { first_.filesystem->Hold("read"); });
  auto reads = std::async(std::launch::async, [&] {
    char far = 0;
    const ssize_t read = pread(*file, &far, 1, (1 << 20) - 1);
    file.reset();
    return read;
  });
  ASSERT_TRUE(Comes([&] { return first_.filesystem->waiting > 0; }));
  EXPECT_TRUE(Take(InodeOf("file")));
  EndMount(&first_);
  reads.wait();
}

// Its own table of descriptors is a copy at first, and to close that of a file here tells the mount, which serves nobody by then.
TEST_F(KernelCacheTest, AMountEndsWhileTheThreadThatDropsBytesBegins) {
  WriteFile("file", std::string(1 << 20, 'a'));
  const Descriptor file = Open("file", O_RDONLY);
  char byte = 0;
  ASSERT_EQ(pread(file, &byte, 1, 0), 1);
  OnLoop([&] { first_.filesystem->Hold("read"); });
  auto reads = std::async(std::launch::async, [&] { return pread(file, &byte, 1, (1 << 20) - 1); });
  ASSERT_TRUE(Comes([&] { return first_.filesystem->waiting > 0; }));
  const uint64_t page = InodeOf("file");
  OnLoop([&] {
    pages_.memory_copies().Take(page, [] {});
    first_.filesystem->Release();
    first_.mount->Stop();
  });
  EndMount(&first_);
  reads.wait();
}

// In a process of its own, which ends while the kernel waits for it.
class ServedAlone : public KernelCacheTest {
 public:
  void ServeUntilKilled(const std::string& report) {
    SetUp();
    WriteFile("file", std::string(1 << 20, 'a'));
    const uint64_t page = InodeOf("file");
    std::ofstream(report) << first_.point.path() << std::endl;
    // The test opens the file, and reads its first byte; then it wants its last one.
    if (!Comes([&] { return AskedFor("read") > 0; })) return;
    OnLoop([&] { first_.filesystem->Hold("read"); });
    std::ofstream(report, std::ios::app) << "holds" << std::endl;
    if (!Comes([&] { return first_.filesystem->waiting > 0; }) || !Take(page)) return;
    // The thread has begun to wait by then, or will in a moment; either way it is to end.
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    raise(SIGKILL);
  }

 private:
  void TestBody() override {}
};

TEST(KilledMount, KeepsNobodyWaiting) {
  ASSERT_TRUE(CanMount());
  std::string report = "/tmp/mangrove_report_XXXXXX";
  close(mkstemp(report.data()));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ServedAlone().ServeUntilKilled(report);
    _exit(1);
  }
  const auto line = [&](int number) {
    std::ifstream in(report);
    std::string text;
    for (int i = 0; i <= number && std::getline(in, text); ++i) continue;
    return in.good() ? text : std::string();
  };
  const auto comes = [](const std::function<bool()>& what) {
    for (int look = 0; look < 20'000 && !what(); ++look) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return what();
  };
  ASSERT_TRUE(comes([&] { return !line(0).empty(); }));
  const std::string directory = line(0);
  auto reads = std::async(std::launch::async, [&] {
    const Descriptor file(open((directory + "/file").c_str(), O_RDONLY));
    char byte = 0;
    if (pread(file, &byte, 1, 0) != 1) return -1;
    if (!comes([&] { return line(1) == "holds"; })) return -2;
    return pread(file, &byte, 1, (1 << 20) - 1) == -1 ? errno : 0;
  });
  ASSERT_EQ(reads.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_GT(reads.get(), 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  struct stat s {};
  EXPECT_EQ(ErrorOf(stat((directory + "/nothing").c_str(), &s)), ENOTCONN);
  umount2(directory.c_str(), MNT_DETACH);
  rmdir(directory.c_str());
  unlink(report.c_str());
}

}  // namespace
}  // namespace mangrove::fs
