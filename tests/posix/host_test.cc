// What the host does with a filesystem: read-only mounts, programs that run from it, inotify.
// Covers: F06

#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

using testing::AnyOf;
using testing::ElementsAre;

// The working directory is the same one, mounted read-only.
class ReadOnlyMount : public Posix {
 protected:
  void SetUp() override {
    Posix::SetUp();
    directory_ = "/tmp/mangrove_posix_ro_XXXXXX";
    ASSERT_NE(mkdtemp(directory_.data()), nullptr);
    ASSERT_EQ(Outcome(mount(".", directory_.c_str(), nullptr, MS_BIND, nullptr)), "done");
    ASSERT_EQ(Outcome(mount(nullptr, directory_.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr)), "done");
    ASSERT_EQ(Outcome(chdir(directory_.c_str())), "done");
  }
  void TearDown() override {
    DONE(chdir("/"));
    DONE(umount2(directory_.c_str(), MNT_DETACH));
    DONE(rmdir(directory_.c_str()));
    Posix::TearDown();
  }

  std::string directory_;
};

TEST_F(ReadOnlyMount, RefusesEveryChange) {
  FAILS(EROFS, open("file", O_WRONLY));
  FAILS(EROFS, open("file", O_RDONLY | O_TRUNC));
  FAILS(EROFS, open("a", O_RDWR | O_CREAT, 0644));
  FAILS(EROFS, truncate("file", 0));
  FAILS(EROFS, mkdir("a", 0755));
  FAILS(EROFS, rmdir("dir"));
  FAILS(EROFS, mkfifo("a", 0644));
  FAILS(EROFS, symlink("x", "a"));
  FAILS(EROFS, link("file", "a"));
  FAILS(EROFS, unlink("file"));
  FAILS(EROFS, rename("file", "a"));
  FAILS(EROFS, chmod("file", 0600));
  FAILS(EROFS, chown("file", 1, 1));
  FAILS(EROFS, lchown("link", 1, 1));
  FAILS(EROFS, utimensat(AT_FDCWD, "file", nullptr, 0));
  FAILS(EROFS, setxattr("file", "user.a", "x", 1, 0));
  FAILS(EROFS, removexattr("file", "user.a"));
  FAILS(EROFS, access("file", W_OK));
  EXPECT_EQ(Read("file"), "0123456789");
}

TEST_F(ReadOnlyMount, SaysFirstWhatIsThereAlready) {
  FAILS(EEXIST, mkdir("dir", 0755));
  FAILS(EEXIST, symlink("x", "file"));
  FAILS(EEXIST, open("file", O_RDWR | O_CREAT | O_EXCL, 0644));
  FAILS(ENOENT, open("none/a", O_RDWR | O_CREAT, 0644));
  FAILS(ENOENT, unlink("none/a"));
}

// A fileset that is mounted once more as read-only does not know.
TEST_F(ReadOnlyMount, ReadsAndLeavesTheTimes) {
  const struct stat before = Stat("file");
  AwaitLaterTime();
  EXPECT_EQ(ReadAt(Open("file", O_RDONLY), 0), "0123456789");
  DONE(access("file", R_OK));
  DONE(Open("file", O_RDONLY | O_CREAT));
  EXPECT_EQ(Ns(Stat("file").st_mtim), Ns(before.st_mtim));
  if (!places.is_fileset) {
    EXPECT_EQ(Ns(Stat("file").st_atim), Ns(before.st_atim));
  }
}

TEST_F(ReadOnlyMount, LetsFifosBeWritten) {
  const Fd fd = Open("fifo", O_RDWR);
  EXPECT_EQ(Write(fd, "x"), 1);
}

TEST_F(ReadOnlyMount, RefusesToMoveOutAndIn) {
  FAILS(EXDEV, rename("file", There("a").c_str()));
  FAILS(EROFS, link(There("file").c_str(), "a"));
}

class Programs : public Posix {
 protected:
  // A program that reads until its input ends.
  static void MakeProgram(const std::string& name, mode_t mode = 0755) {
    const Fd from = Open("/bin/cat", O_RDONLY);
    Make(name, ReadAt(from, 0, size_t{8} << 20), mode);
  }
  // The errno of executing it, or 0 and it has run to its end.
  static int Run(const std::string& path, const std::string& argument = "/dev/null", uid_t user = 0) {
    const pid_t child = fork();
    if (child == 0) {
      if (user != 0 && (setgid(user) != 0 || setuid(user) != 0)) _exit(1);
      execl(path.c_str(), path.c_str(), argument.c_str(), nullptr);
      _exit(errno);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status);
  }
};

TEST_F(Programs, RunFromTheFilesystem) {
  MakeProgram("a");
  EXPECT_EQ(Run("./a"), 0);
  Make("script", "#!/bin/sh\nexit 7\n", 0755);
  EXPECT_EQ(Run("./script"), 7);
}

TEST_F(Programs, RunOnlyIfSomebodyMayExecuteThem) {
  MakeProgram("a", 0644);
  EXPECT_EQ(ErrnoName(Run("./a")), "EACCES");
  DONE(chmod("a", 0700));
  EXPECT_EQ(ErrnoName(Run("./a", "/dev/null", kUser)), "EACCES");
  DONE(chmod("a", 0711));
  EXPECT_EQ(Run("./a", "/dev/null", kUser), 0);
}

TEST_F(Programs, AreNoProgramsIfTheirBytesAreNot) {
  Make("a", "nothing", 0755);
  EXPECT_EQ(ErrnoName(Run("./a")), "ENOEXEC");
  EXPECT_EQ(ErrnoName(Run("./dir")), "EACCES");
  EXPECT_EQ(ErrnoName(Run("./none")), "ENOENT");
}

TEST_F(Programs, DoNotRunWhileTheyAreWritten) {
  MakeProgram("a");
  Fd fd = Open("a", O_WRONLY);
  EXPECT_EQ(ErrnoName(Run("./a")), "ETXTBSY");
  fd.Close();
  EXPECT_EQ(Run("./a"), 0);
}

// Linux lets programs be written that run since version 6.11, for a while.
TEST_F(Programs, AreNotWrittenWhileTheyRun) {
  MakeProgram("a");
  int in[2];
  int out[2];
  DONE(pipe(in));
  DONE(pipe(out));
  const pid_t child = fork();
  if (child == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[1]);
    execl("./a", "./a", nullptr);
    _exit(1);
  }
  close(in[0]);
  close(out[1]);
  const Fd answers(out[0]);
  Fd asks(in[1]);
  EXPECT_EQ(Write(asks, "x"), 1);
  char byte = 0;
  EXPECT_EQ(read(answers, &byte, 1), 1);  // So it runs.
  EXPECT_THAT(Outcome(Fd(open("a", O_WRONLY))), AnyOf("ETXTBSY", "done"));
  DONE(rename("a", "b"));
  DONE(unlink("b"));
  EXPECT_EQ(Write(asks, "y"), 1);
  EXPECT_EQ(read(answers, &byte, 1), 1);
  asks.Close();
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// Of what is done on the same mount.
class Watching : public Posix {
 protected:
  void SetUp() override {
    Posix::SetUp();
    watcher_ = std::make_unique<Fd>(inotify_init1(IN_NONBLOCK));
  }
  void Watch(const char* name, uint32_t events) { DONE(inotify_add_watch(*watcher_, name, events)); }
  std::vector<std::string> Events() const {
    std::string bytes(8192, '\0');
    const ssize_t length = read(*watcher_, bytes.data(), bytes.size());
    std::vector<std::string> events;
    for (ssize_t at = 0; at < length;) {
      inotify_event event;
      std::memcpy(&event, bytes.data() + at, sizeof(event));
      const char* const name = bytes.data() + at + sizeof(event);
      events.push_back(event.len > 0 ? absl::StrCat(Word(event.mask), " ", name) : Word(event.mask));
      at += static_cast<ssize_t>(sizeof(event) + event.len);
    }
    return events;
  }

  std::unique_ptr<Fd> watcher_;

 private:
  static std::string Word(uint32_t mask) {
    const std::pair<uint32_t, const char*> words[] = {
        {IN_CREATE, "create"}, {IN_DELETE, "delete"},       {IN_MOVED_FROM, "from"},   {IN_MOVED_TO, "to"},
        {IN_MODIFY, "modify"}, {IN_ATTRIB, "attributes"},   {IN_CLOSE_WRITE, "close"}, {IN_OPEN, "open"},
        {IN_ACCESS, "access"}, {IN_DELETE_SELF, "deleted"}, {IN_MOVE_SELF, "moved"},   {IN_IGNORED, "ignored"},
    };
    for (const auto& [bit, word] : words) {
      if ((mask & bit) != 0) return word;
    }
    return absl::StrCat(mask);
  }
};

TEST_F(Watching, ADirectoryTellsOfItsNames) {
  Watch("dir", IN_CREATE | IN_DELETE | IN_MOVE);
  Make("dir/a");
  DONE(rename("dir/a", "dir/b"));
  DONE(link("file", "dir/c"));
  DONE(mkdir("dir/d", 0755));
  DONE(symlink("x", "dir/e"));
  DONE(unlink("dir/b"));
  DONE(rmdir("dir/d"));
  DONE(rename("dir/c", "c"));
  EXPECT_THAT(Events(), ElementsAre("create a", "from a", "to b", "create c", "create d", "create e", "delete b",
                                    "delete d", "from c"));
}

TEST_F(Watching, AFileTellsWhatIsDoneWithIt) {
  Watch("file", IN_OPEN | IN_ACCESS | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB);
  Fd fd = Open("file");
  EXPECT_EQ(ReadAt(fd, 0), "0123456789");
  EXPECT_EQ(WriteAt(fd, "x", 0), 1);
  fd.Close();
  DONE(chmod("file", 0600));
  DONE(truncate("file", 1));
  EXPECT_THAT(Events(), ElementsAre("open", "access", "modify", "close", "attributes", "modify"));
}

TEST_F(Watching, WhatIsWatchedTellsOfItsEnd) {
  Watch("file", IN_DELETE_SELF | IN_MOVE_SELF);
  DONE(rename("file", "a"));
  DONE(unlink("a"));
  EXPECT_THAT(Events(), ElementsAre("moved", "deleted", "ignored"));
}

TEST_F(Watching, RefusesWhatIsNotThere) {
  FAILS(ENOENT, inotify_add_watch(*watcher_, "none", IN_CREATE));
  FAILS(ENOTDIR, inotify_add_watch(*watcher_, "file", IN_CREATE | IN_ONLYDIR));
  FAILS(EINVAL, inotify_add_watch(*watcher_, "file", 0));
  DONE(inotify_add_watch(*watcher_, "file", IN_CREATE));
  FAILS(EEXIST, inotify_add_watch(*watcher_, "file", IN_CREATE | IN_MASK_CREATE));
}

}  // namespace
}  // namespace mangrove::posix
