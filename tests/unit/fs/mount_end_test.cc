// How mounts begin and end, and what happens while an operation waits.
// Covers: F02

#include <signal.h>
#include <sys/wait.h>

#include <future>
#include <string>

#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

std::string MessageOf(const absl::StatusOr<std::unique_ptr<Mount>>& mount) {
  return std::string(mount.status().message());
}

bool IsListed(const std::string& directory) {
  std::ifstream mounts("/proc/self/mounts");
  std::string line;
  while (std::getline(mounts, line)) {
    if (line.find(absl::StrCat(" ", directory, " ")) != std::string::npos) return true;
  }
  return false;
}

TEST_F(MountTest, ADirectoryThatIsNotFitForItIsNamed) {
  const MountPoint point;
  const auto create = [](const std::string& directory) {
    return Mount::Create({.directory = directory, .source = "test"});
  };
  const std::string missing = point.path() + "/none";
  auto mount = create(missing);
  EXPECT_EQ(ErrnoOf(mount.status()), ENOENT);
  EXPECT_EQ(MessageOf(mount), missing + " cannot be opened: No such file or directory");
  const std::string file = point.path() + "/file";
  std::ofstream(file) << "x";
  mount = create(file);
  EXPECT_EQ(ErrnoOf(mount.status()), ENOTDIR);
  EXPECT_EQ(MessageOf(mount), file + " cannot be opened: Not a directory");
  mount = create(point.path());
  EXPECT_EQ(ErrnoOf(mount.status()), ENOTEMPTY);
  EXPECT_EQ(MessageOf(mount), point.path() + " is not empty");
  unlink(file.c_str());
  mount = create("relative");
  EXPECT_EQ(ErrnoOf(mount.status()), EINVAL);
  EXPECT_EQ(MessageOf(mount), "\"relative\" is no absolute path of a directory");
}

TEST_F(MountTest, ADirectoryHasOneMountUnderWhateverName) {
  const MountPoint links;
  const std::string link = links.path() + "/link";
  ASSERT_EQ(symlink(first_.point.path().c_str(), link.c_str()), 0);
  for (const std::string& name : {first_.point.path(), first_.point.path() + "/", link}) {
    const auto mount = Mount::Create({.directory = name, .source = "test"});
    EXPECT_EQ(ErrnoOf(mount.status()), EBUSY) << name;
    EXPECT_EQ(MessageOf(mount), first_.point.path() + " has a mount already, of type fuse.mangrove");
  }
  unlink(link.c_str());
}

TEST_F(MountTest, TheOwnerIsToldThatSomebodyUnmounted) {
  WriteFile("a", "x");
  EXPECT_FALSE(first_.has_ended);
  ASSERT_EQ(umount2(first_.point.path().c_str(), 0), 0);
  EXPECT_TRUE(Comes([&] { return first_.has_ended.load(); }));
  EXPECT_FALSE(IsListed(first_.point.path()));
  MountHere(&second_);
  EXPECT_EQ(ReadAll(SecondPath("a")), "x");
}

TEST_F(MountTest, AMountInUseStaysUnlessItIsForced) {
  WriteFile("a", "x");
  {
    const Descriptor fd = Open("a", O_RDWR);
    const absl::Status refused = Mount::Unmount(first_.point.path(), false);
    EXPECT_EQ(ErrnoOf(refused), EBUSY);
    EXPECT_EQ(refused.message(),
              absl::StrCat(first_.point.path(), " is in use: unmount it by force, or end what uses it"));
    EXPECT_TRUE(IsListed(first_.point.path()));
    EXPECT_TRUE(Mount::Unmount(first_.point.path(), true).ok());
    EXPECT_FALSE(IsListed(first_.point.path()));
    // Who has it open goes on.
    EXPECT_EQ(pwrite(fd, "still", 5, 0), 5);
    EXPECT_FALSE(first_.has_ended);
  }
  EXPECT_TRUE(Comes([&] { return first_.has_ended.load(); }));
}

TEST_F(MountTest, WhoWaitsForAnAnswerDoesNotStopOthers) {
  WriteFile("a", "x");
  WriteFile("b", "y");
  OnLoop([&] { first_.filesystem->Hold("sync"); });
  auto synced = std::async(std::launch::async, [&] {
    const Descriptor fd = Open("a", O_RDWR);
    return ErrorOf(fsync(fd));
  });
  ASSERT_TRUE(Comes([&] { return first_.filesystem->waiting == 1; }));
  EXPECT_EQ(ReadFile("b"), "y");
  EXPECT_EQ(UnderWay(first_), 1u);
  OnLoop([&] { first_.filesystem->Release(); });
  EXPECT_EQ(synced.get(), 0);
}

TEST_F(MountTest, WhoWaitsWhenTheMountStopsGetsAnError) {
  WriteFile("a", "x");
  OnLoop([&] { first_.filesystem->Hold("sync"); });
  auto synced = std::async(std::launch::async, [&] {
    const Descriptor fd = Open("a", O_RDWR);
    return ErrorOf(fsync(fd));
  });
  ASSERT_TRUE(Comes([&] { return first_.filesystem->waiting == 1; }));
  OnLoop([&] { first_.mount->Stop(); });
  EXPECT_EQ(UnderWay(first_), 1u);
  OnLoop([&] { first_.filesystem->Release(); });
  EXPECT_EQ(UnderWay(first_), 0u);
  first_.mount = nullptr;
  EXPECT_EQ(StatError("a"), ENOENT);  // It is the directory below that is looked into now.
  synced.wait();
}

TEST_F(MountTest, ErrorsOfTheFilesystemReachTheProgram) {
  WriteFile("a", "x");
  const auto fail_with = [&](const absl::Status& error) {
    OnLoop([&] {
      first_.filesystem->before = [error](const std::string& operation) {
        return operation == "read" ? error : absl::OkStatus();
      };
    });
    const Descriptor fd = Open("a", O_RDONLY | O_DIRECT);
    char byte = 0;
    return ErrorOf(pread(fd, &byte, 1, 0));
  };
  EXPECT_EQ(fail_with(absl::DataLossError("lost")), EIO);
  EXPECT_EQ(fail_with(absl::UnavailableError("no quorum")), EAGAIN);
  EXPECT_EQ(fail_with(absl::DeadlineExceededError("slow")), ETIMEDOUT);
  EXPECT_EQ(fail_with(PosixError(ESTALE, "gone")), ESTALE);
}

// Between the kernel's look and its request the name was made by another node: permissions are those of the file that there is.
TEST_F(MountTest, AFileThatWasMadeMeanwhileIsOpenedAsWhatItIs) {
  ASSERT_EQ(chmod(first_.point.path().c_str(), 0777), 0);
  const auto open_when_made_meanwhile = [&](int flags, mode_t mode) {
    OnLoop([&] {
      first_.filesystem->before = [this, mode](const std::string& operation) {
        if (operation != "make node") return absl::OkStatus();
        Do(first_.instance->MakeNode({}, first_.instance->root(), "a", mode, 0)).IgnoreError();
        return absl::OkStatus();
      };
    });
    const pid_t child = fork();
    if (child == 0) _exit(setgid(65534) == 0 && setuid(65534) == 0 ? OpenError("a", flags) : 255);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(unlink(Path("a").c_str()), 0);
    return WEXITSTATUS(status);
  };
  EXPECT_EQ(open_when_made_meanwhile(O_RDWR | O_CREAT, S_IFREG | 0666), 0);
  EXPECT_EQ(open_when_made_meanwhile(O_RDWR | O_CREAT, S_IFREG | 0600), EACCES);
  EXPECT_EQ(open_when_made_meanwhile(O_RDWR | O_CREAT | O_EXCL, S_IFREG | 0666), EEXIST);
  EXPECT_EQ(open_when_made_meanwhile(O_RDONLY | O_CREAT | O_NONBLOCK, S_IFIFO | 0666), 0);
}

// A process that mounts, and is killed.
class KilledServer {
 public:
  explicit KilledServer(const std::string& directory) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    child_ = fork();
    if (child_ == 0) Serve(directory, ready[1]);
    close(ready[1]);
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
  }
  ~KilledServer() { Kill(); }
  void Kill() {
    if (child_ == 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = 0;
  }

 private:
  [[noreturn]] static void Serve(const std::string& directory, int ready) {
    Loop loop{LoopOptions{}};
    MemoryPages pages;
    auto mount = Mount::Create({.directory = directory, .source = "test"});
    if (!mount.ok() || !Do(Instance::Make(&pages, {})).ok()) _exit(1);
    auto instance = Do(Instance::Open(&pages));
    (*mount)->Serve(&loop, instance->get(), nullptr);
    if (!loop.Start().ok() || write(ready, "r", 1) != 1) _exit(1);
    while (true) pause();
  }

  pid_t child_ = 0;
};

TEST(MountOfAProcess, WhenItIsKilledCallsFailAtOnceAndTheDirectoryCanBeMountedAgain) {
  ASSERT_TRUE(CanMount()) << "mounting takes root and /dev/fuse";
  const MountPoint point;
  KilledServer server(point.path());
  std::ofstream(point.path() + "/a") << "x";
  const Descriptor fd(open((point.path() + "/a").c_str(), O_RDWR));
  ASSERT_GE(fd, 0);
  server.Kill();
  char byte = 0;
  EXPECT_EQ(ErrorOf(pread(fd, &byte, 1, 0)), ENOTCONN);
  EXPECT_EQ(ErrorOf(pwrite(fd, &byte, 1, 0)), ENOTCONN);
  struct stat s {};
  EXPECT_EQ(ErrorOf(stat(point.path().c_str(), &s)), ENOTCONN);
  EXPECT_TRUE(IsListed(point.path()));
  {
    KilledServer again(point.path());
    EXPECT_EQ(stat(point.path().c_str(), &s), 0);
    again.Kill();
  }
  EXPECT_TRUE(Mount::Unmount(point.path(), false).ok());
  EXPECT_FALSE(IsListed(point.path()));
}

}  // namespace
}  // namespace mangrove::fs
