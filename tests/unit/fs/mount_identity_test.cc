// Through the kernel: between its look at a file and the operation, another mount puts another file in its place, which has the same number.
// Covers: F02, F06, F09

#include <dirent.h>
#include <sys/wait.h>

#include <set>
#include <string>

#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

constexpr uid_t kSomebody = 65534;

class MountIdentity : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    MountHere(&second_);
  }
  // `what`, on the other mount's instance, before the first mount's next operation of this name; once.
  void Before(const std::string& operation, std::function<void(Instance*)> what) {
    OnLoop([&] {
      first_.filesystem->before = [this, operation, what, done = false](const std::string& now) mutable {
        pages_.SetNow(WallNs());
        if (now != operation || done) return absl::OkStatus();
        done = true;
        what(second_.instance.get());
        ++times_;
        return absl::OkStatus();
      };
    });
  }
  // Another file of the same number and name.
  static void Replace(Instance* other, mode_t mode, const std::string& bytes) {
    const InodeNumber root = other->root();
    const Attributes old = *Do(other->Lookup(root, "a"));
    ASSERT_TRUE(Do(other->Unlink(root, "a")).ok());
    const Attributes made = *Do(other->MakeNode({}, root, "a", S_IFREG | mode, 0));
    ASSERT_EQ(made.inode, old.inode);
    ASSERT_TRUE(Do(other->Write(made.inode, 0, bytes, {})).ok());
  }
  // What `call` fails with when somebody without privileges calls it; 0: it does not.
  static int AsSomebody(const std::function<int()>& call) {
    const pid_t child = fork();
    if (child == 0) {
      if (setresgid(kSomebody, kSomebody, kSomebody) != 0 || setresuid(kSomebody, kSomebody, kSomebody) != 0)
        _exit(255);
      _exit(ErrorOf(call()));
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status);
  }

  int times_ = 0;
};

TEST_F(MountIdentity, OpenSeesTheFileThatHasTakenThePlaceOfTheOneThatWasLookedUp) {
  WriteFile("a", "old");
  for (const std::string operation : {"get attributes", "open"}) {
    const std::string bytes = absl::StrCat("new before ", operation);
    Before(operation, [&](Instance* other) { Replace(other, 0644, bytes); });
    const Descriptor fd = Open("a", O_RDONLY);
    ASSERT_GE(fd, 0) << strerror(errno);
    char read[64];
    ASSERT_EQ(pread(fd, read, sizeof(read), 0), static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(std::string(read, bytes.size()), bytes);
  }
  EXPECT_EQ(times_, 2);
}

TEST_F(MountIdentity, WhatSomebodyMayDoWithAFileNobodyMayDoWithTheNextOneOfItsNumber) {
  WriteFile("a", "old");
  ASSERT_EQ(chmod(first_.point.path().c_str(), 0755), 0);
  ASSERT_EQ(chmod(Path("a").c_str(), 0666), 0);
  Before("open", [](Instance* other) { Replace(other, 0600, "secret"); });
  EXPECT_EQ(AsSomebody([&] { return open(Path("a").c_str(), O_RDONLY); }), EACCES);
  EXPECT_EQ(times_, 1);

  ASSERT_EQ(chmod(Path("a").c_str(), 0666), 0);
  Before("open", [](Instance* other) { Replace(other, 0600, "secret"); });
  EXPECT_EQ(AsSomebody([&] { return open(Path("a").c_str(), O_WRONLY | O_TRUNC); }), EACCES);

  ASSERT_EQ(chmod(Path("a").c_str(), 0666), 0);
  Before("set attributes", [](Instance* other) { Replace(other, 0600, "secret"); });
  EXPECT_EQ(AsSomebody([&] { return truncate(Path("a").c_str(), 0); }), EACCES);
  EXPECT_EQ(times_, 3);
  EXPECT_EQ(ReadFile("a"), "secret");
}

TEST_F(MountIdentity, AFileIsMadeInTheDirectoryThatIsThereThen) {
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  Before("make node", [](Instance* other) {
    const InodeNumber root = other->root();
    ASSERT_TRUE(Do(other->RemoveDirectory(root, "d")).ok());
    ASSERT_TRUE(Do(other->MakeDirectory({}, root, "private", 0700)).ok());
    ASSERT_TRUE(Do(other->MakeDirectory({}, root, "d", 0755)).ok());
  });
  WriteFile("d/a", "x");
  EXPECT_EQ(times_, 1);
  EXPECT_EQ(StatError("private/a"), ENOENT);
  EXPECT_EQ(ReadFile("d/a"), "x");
}

TEST_F(MountIdentity, ANumberThatProgramsSeeIsThePages) {
  WriteFile("a", "x");
  ASSERT_EQ(link(Path("a").c_str(), Path("b").c_str()), 0);
  InodeNumber inode;
  OnLoop([&] { inode = Do(first_.instance->Lookup(first_.instance->root(), "a"))->inode; });
  EXPECT_EQ(Stat("a").st_ino, inode.value);
  EXPECT_EQ(Stat("b").st_ino, inode.value);
  struct stat there {};
  ASSERT_EQ(stat(SecondPath("b").c_str(), &there), 0);
  EXPECT_EQ(there.st_ino, inode.value);
  EXPECT_EQ(there.st_nlink, 2U);
}

TEST_F(MountIdentity, ACorruptInodeIsListedAndTheOthersAreRead) {
  for (int i = 0; i < 50; ++i) WriteFile(absl::StrCat("a", i), "x");
  OnLoop([&] {
    const InodeNumber inode = Do(first_.instance->Lookup(first_.instance->root(), "a7"))->inode;
    pages_.metadata(inode.value)[1'000] ^= 1;
  });
  std::set<std::string> names;
  DIR* const directory = opendir(first_.point.path().c_str());
  ASSERT_NE(directory, nullptr);
  while (const dirent* entry = readdir(directory)) {
    names.insert(entry->d_name);
    if (entry->d_name == std::string("a7")) {
      EXPECT_EQ(entry->d_type, DT_REG);
    }
  }
  closedir(directory);
  EXPECT_EQ(names.size(), 52U);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(StatError(absl::StrCat("a", i)), i == 7 ? EIO : 0) << i;
}

TEST_F(MountIdentity, WhatTheKernelForgetsTheMountForgets) {
  for (int i = 0; i < 300; ++i) WriteFile(absl::StrCat("a", i), "x");
  const std::string list = absl::StrCat("ls -lR ", first_.point.path(), " > /dev/null");
  ASSERT_EQ(system(list.c_str()), 0);
  const auto known = [&] {
    size_t count = 0;
    OnLoop([&] { count = first_.mount->known_files(); });
    return count;
  };
  EXPECT_GE(known(), 300U);
  for (int i = 0; i < 300; ++i) ASSERT_EQ(unlink(Path(absl::StrCat("a", i)).c_str()), 0);
  EXPECT_TRUE(Comes([&] { return known() == 0; })) << known();
}

}  // namespace
}  // namespace mangrove::fs
