// open, creat, openat, openat2, close, dup, and what the flags promise.
// Covers: F06

#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "absl/strings/str_cat.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

int64_t OpenAt2(const char* path, uint64_t flags, uint64_t resolve) {
  const open_how how{.flags = flags, .resolve = resolve};
  return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

std::string PathOf(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

const bool refusals = Refuses(
    "OpenRefuses",
    {
        {"ANameThatIsNotThere", {ENOENT}, [] { return open("none", O_RDONLY); }},
        {"ADirectoryThatIsNotThere", {ENOENT}, [] { return open("none/x", O_RDWR | O_CREAT, 0644); }},
        {"TheEmptyPath", {ENOENT}, [] { return open("", O_RDWR | O_CREAT, 0644); }},
        {"APathThroughAFile", {ENOTDIR}, [] { return open("file/x", O_RDONLY); }},
        {"MakingThroughAFile", {ENOTDIR}, [] { return open("file/x", O_RDWR | O_CREAT, 0644); }},
        {"ASlashAfterAFile", {ENOTDIR}, [] { return open("file/", O_RDONLY); }},
        {"ASlashAfterALinkToAFile", {ENOTDIR}, [] { return open("link/", O_RDONLY); }},
        {"ASlashAfterWhatIsMade", {EISDIR}, [] { return open("none/", O_RDWR | O_CREAT, 0644); }},
        {"ALinkToNothing", {ENOENT}, [] { return open("dangling", O_RDWR); }},
        {"ALinkToItself", {ELOOP}, [] { return open("loop", O_RDONLY); }},
        {"MakingThroughALinkToItself", {ELOOP}, [] { return open("loop", O_RDWR | O_CREAT, 0644); }},
        {"AFileThatShallBeNew", {EEXIST}, [] { return open("file", O_RDWR | O_CREAT | O_EXCL, 0644); }},
        {"ADirectoryThatShallBeNew", {EEXIST}, [] { return open("dir", O_RDONLY | O_CREAT | O_EXCL, 0644); }},
        {"ALinkThatShallBeNew", {EEXIST}, [] { return open("link", O_RDWR | O_CREAT | O_EXCL, 0644); }},
        {"ALinkToNothingThatShallBeNew", {EEXIST}, [] { return open("dangling", O_RDWR | O_CREAT | O_EXCL, 0644); }},
        {"WritingToADirectory", {EISDIR}, [] { return open("dir", O_WRONLY); }},
        {"ReadingAndWritingADirectory", {EISDIR}, [] { return open("dir", O_RDWR); }},
        {"TruncatingADirectory", {EISDIR}, [] { return open("dir", O_RDONLY | O_TRUNC); }},
        {"MakingWhatIsADirectory", {EISDIR}, [] { return open("dir", O_RDONLY | O_CREAT, 0644); }},
        {"MakingADot", {EISDIR}, [] { return open("dir/.", O_RDWR | O_CREAT, 0644); }},
        {"AFileThatShallBeADirectory", {ENOTDIR}, [] { return open("file", O_RDONLY | O_DIRECTORY); }},
        {"AFifoThatShallBeADirectory", {ENOTDIR}, [] { return open("fifo", O_RDONLY | O_DIRECTORY); }},
        {"ALinkThatIsNotFollowed", {ELOOP}, [] { return open("link", O_RDONLY | O_NOFOLLOW); }},
        {"ALinkThatShallBeADirectory", {ENOTDIR}, [] { return open("dirlink", O_RDONLY | O_NOFOLLOW | O_DIRECTORY); }},
        {"WritingToAFifoThatNobodyReads", {ENXIO}, [] { return open("fifo", O_WRONLY | O_NONBLOCK); }},
        {"ABadAddress", {EFAULT}, [] { return open(NoAddress(), O_RDONLY); }},
        {"ANameOf256Bytes", {ENAMETOOLONG}, [] { return open(std::string(256, 'n').c_str(), O_RDWR | O_CREAT, 0644); }},
        {"ReadingANameOf256Bytes", {ENAMETOOLONG}, [] { return open(std::string(256, 'n').c_str(), O_RDONLY); }},
        {"APathOfPathMax", {ENAMETOOLONG}, [] { return open(std::string(4096, '/').c_str(), O_RDONLY); }},
        {"ABadDirectory", {EBADF}, [] { return openat(987, "file", O_RDONLY); }},
        {"ATemporaryFileForReading", {EINVAL}, [] { return open("dir", O_RDONLY | O_TMPFILE, 0600); }},
        {"ATemporaryFileInAFile", {ENOTDIR}, [] { return open("file", O_RDWR | O_TMPFILE, 0600); }},
        {"ATemporaryFileInNothing", {ENOENT}, [] { return open("none", O_RDWR | O_TMPFILE, 0600); }},
        {"LinksWhereNoneMayBe", {ELOOP}, [] { return OpenAt2("dirlink/..", O_RDONLY, RESOLVE_NO_SYMLINKS); }},
        {"LeavingWhereOneMustStay", {EXDEV}, [] { return OpenAt2("../case/file", O_RDONLY, RESOLVE_BENEATH); }},
        {"UnknownFlagsOfOpenat2", {EINVAL}, [] { return OpenAt2("file", uint64_t{1} << 60, 0); }},
        {"ReadingWhatIsBehindAClosedDirectory", {EACCES}, [] { return open("secret/in", O_RDONLY); }, kUser},
        {"ReadingAClosedDirectory", {EACCES}, [] { return open("secret", O_RDONLY); }, kUser},
        {"WritingToAnothersFile", {EACCES}, [] { return open("file", O_WRONLY); }, kUser},
        {"TruncatingAnothersFile", {EACCES}, [] { return open("file", O_RDONLY | O_TRUNC); }, kUser},
        {"MakingInAnothersDirectory", {EACCES}, [] { return open("dir/x", O_RDWR | O_CREAT, 0644); }, kUser},
        {"SparingAnothersTimeOfAccess", {EPERM}, [] { return open("file", O_RDONLY | O_NOATIME); }, kUser},
    });

class OpenCall : public Posix {};

TEST_F(OpenCall, MakesAnEmptyFileOfTheCaller) {
  {
    const As user(kUser, kGroup);
    const Fd fd = Open("open/a", O_RDWR | O_CREAT, 0640);
  }
  const struct stat s = Stat("open/a");
  EXPECT_EQ(s.st_mode, mode_t{S_IFREG | 0640});
  EXPECT_EQ(s.st_uid, kUser);
  EXPECT_EQ(s.st_gid, kGroup);
  EXPECT_EQ(s.st_size, 0);
  EXPECT_EQ(s.st_nlink, 1u);
  EXPECT_EQ(s.st_blocks, 0);
}

TEST_F(OpenCall, MasksTheModeOfWhatItMakes) {
  const Umask mask(027);
  const Fd fd = Open("a", O_RDWR | O_CREAT, 0777);
  EXPECT_EQ(Mode("a"), mode_t{0750});
}

TEST_F(OpenCall, TakesTheHighBitsOfTheMode) {
  const Fd fd = Open("a", O_RDWR | O_CREAT, 07711);
  EXPECT_EQ(Mode("a"), mode_t{07711});
}

TEST_F(OpenCall, LeavesTheModeOfAFileThatIsThere) {
  const Fd fd = Open("file", O_RDWR | O_CREAT, 0600);
  EXPECT_EQ(Mode("file"), mode_t{0644});
  EXPECT_EQ(Read("file"), "0123456789");
}

TEST_F(OpenCall, GivesTheMakerADescriptorThatTheModeForbidsToOthers) {
  const As user(kUser);
  const Fd fd = Open("open/a", O_RDWR | O_CREAT, 0);
  EXPECT_EQ(Write(fd, "x"), 1);
  EXPECT_EQ(ReadAt(fd, 0), "x");
  FAILS(EACCES, open("open/a", O_RDONLY));
}

TEST_F(OpenCall, TruncatesWhatIsThere) {
  const Fd fd = Open("file", O_WRONLY | O_TRUNC);
  EXPECT_EQ(Size("file"), 0);
}

TEST_F(OpenCall, CreatIsWritingCreatingAndTruncating) {
  const Fd fd(creat("file", 0600));
  EXPECT_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
  EXPECT_EQ(Size("file"), 0);
}

TEST_F(OpenCall, MakesWhatALinkToNothingNames) {
  const Fd fd = Open("dangling", O_RDWR | O_CREAT);
  EXPECT_TRUE(S_ISREG(Stat("none").st_mode));
  EXPECT_TRUE(S_ISLNK(Stat("dangling").st_mode));
}

TEST_F(OpenCall, FollowsLinksToFilesAndDirectories) {
  EXPECT_EQ(ReadAt(Open("link", O_RDONLY), 0), "0123456789");
  struct stat s {};
  DONE(fstat(Open("dirlink", O_RDONLY | O_DIRECTORY), &s));
  EXPECT_EQ(s.st_ino, Stat("dir").st_ino);
}

TEST_F(OpenCall, WithoutFollowingOpensWhatIsNoLink) {
  EXPECT_EQ(ReadAt(Open("file", O_RDONLY | O_NOFOLLOW), 0), "0123456789");
  EXPECT_EQ(ReadAt(Open("file", O_RDWR | O_CREAT | O_NOFOLLOW), 0), "0123456789");
}

TEST_F(OpenCall, ExclusivelyMakesOneAndOnlyOne) {
  DONE(Open("a", O_RDWR | O_CREAT | O_EXCL));
  FAILS(EEXIST, open("a", O_RDWR | O_CREAT | O_EXCL, 0644));
  DONE(unlink("a"));
  DONE(Open("a", O_RDWR | O_CREAT | O_EXCL));
}

TEST_F(OpenCall, UsesTheLowestNumberThatIsFree) {
  Fd first = Open("file");
  const int number = first;
  const Fd second = Open("file");
  first.Close();
  EXPECT_EQ(Open("other"), number);
}

TEST_F(OpenCall, DescriptorsHaveOffsetsOfTheirOwnAndDuplicatesShareOne) {
  const Fd first = Open("file");
  const Fd second = Open("file");
  const Fd copy(dup(first));
  EXPECT_EQ(lseek(first, 4, SEEK_SET), 4);
  EXPECT_EQ(lseek(second, 0, SEEK_CUR), 0);
  EXPECT_EQ(lseek(copy, 0, SEEK_CUR), 4);
}

TEST_F(OpenCall, ReadsOnlyWhatIsOpenForIt) {
  const Fd writer = Open("file", O_WRONLY);
  const Fd reader = Open("file", O_RDONLY);
  char byte = 0;
  FAILS(EBADF, read(writer, &byte, 1));
  FAILS(EBADF, pread(writer, &byte, 1, 0));
  FAILS(EBADF, write(reader, &byte, 1));
  FAILS(EBADF, pwrite(reader, &byte, 1, 0));
  FAILS(EINVAL, ftruncate(reader, 1));
  EXPECT_EQ(fcntl(writer, F_GETFL) & O_ACCMODE, O_WRONLY);
  EXPECT_EQ(fcntl(reader, F_GETFL) & O_ACCMODE, O_RDONLY);
}

TEST_F(OpenCall, AnOpenFileNeedsNoPermissionAnyMore) {
  DONE(chmod("mine", 0600));
  const As user(kUser);
  const Fd fd = Open("mine");
  DONE(fchmod(fd, 0));
  EXPECT_EQ(ReadAt(fd, 0), "mine");
  EXPECT_EQ(WriteAt(fd, "M", 0), 1);
}

TEST_F(OpenCall, AReadingDescriptorOfADirectoryReadsNoBytes) {
  const Fd fd = Open("dir", O_RDONLY);
  char byte = 0;
  FAILS(EISDIR, read(fd, &byte, 1));
  FAILS(EBADF, write(fd, &byte, 1));
}

TEST_F(OpenCall, AtADirectoryIsRelativeToIt) {
  const Fd directory = Open("full", O_RDONLY | O_DIRECTORY);
  EXPECT_EQ(ReadAt(Fd(openat(directory, "in", O_RDONLY)), 0), "in");
  EXPECT_EQ(ReadAt(Fd(openat(directory, "../file", O_RDONLY)), 0), "0123456789");
  const Fd file = Open("file");
  FAILS(ENOTDIR, openat(file, "in", O_RDONLY));
}

TEST_F(OpenCall, AtADirectoryThatWasMovedIsStillRelativeToIt) {
  const Fd directory = Open("full", O_RDONLY | O_DIRECTORY);
  DONE(rename("full", "dir/moved"));
  const Fd fd(openat(directory, "a", O_RDWR | O_CREAT, 0644));
  DONE(fd);
  EXPECT_EQ(Names("dir/moved"), (std::set<std::string>{"a", "in"}));
}

TEST_F(OpenCall, MakesNothingInADirectoryThatIsGone) {
  const Fd directory = Open("dir", O_RDONLY | O_DIRECTORY);
  DONE(rmdir("dir"));
  FAILS(ENOENT, openat(directory, "a", O_RDWR | O_CREAT, 0644));
  FAILS(ENOENT, mkdirat(directory, "a", 0755));
  FAILS(ENOENT, symlinkat("x", directory, "a"));
  FAILS(ENOENT, mknodat(directory, "a", S_IFIFO | 0644, 0));
  FAILS(ENOENT, linkat(AT_FDCWD, "file", directory, "a", 0));
  FAILS(ENOENT, renameat(AT_FDCWD, "file", directory, "a"));
}

TEST_F(OpenCall, OfASocketFails) {
  const Fd fd(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = "socket"};
  DONE(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
  FAILS(ENXIO, open("socket", O_RDWR));
}

TEST_F(OpenCall, CloseGivesTheNumberBackOnce) {
  const int fd = open("file", O_RDONLY);
  DONE(close(fd));
  FAILS(EBADF, close(fd));
  char byte = 0;
  FAILS(EBADF, read(fd, &byte, 1));
}

TEST_F(OpenCall, ADuplicateOutlivesItsOriginal) {
  Fd fd = Open("file");
  const Fd copy(dup(fd));
  fd.Close();
  EXPECT_EQ(ReadAt(copy, 0), "0123456789");
}

TEST_F(OpenCall, ClosesAtExecWhatIsMarked) {
  EXPECT_EQ(fcntl(Open("file", O_RDONLY | O_CLOEXEC), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(Open("file", O_RDONLY), F_GETFD), 0);
}

TEST_F(OpenCall, ReopensThroughItsNumberWithAnotherMode) {
  const Fd reader = Open("file", O_RDONLY);
  const Fd writer = Open(PathOf(reader), O_WRONLY | O_APPEND);
  EXPECT_EQ(Write(writer, "x"), 1);
  EXPECT_EQ(Read("file"), "0123456789x");
}

TEST_F(OpenCall, ReopensWhatHasNoNameAnyMore) {
  const Fd first = Open("file", O_RDONLY);
  DONE(unlink("file"));
  Fd second = Open(PathOf(first));
  EXPECT_EQ(WriteAt(second, "X", 0), 1);
  second.Close();
  EXPECT_EQ(ReadAt(first, 0), "X123456789");
}

TEST_F(OpenCall, APathDescriptorNamesAndDoesNothingElse) {
  const Fd fd = Open("file", O_PATH);
  char byte = 0;
  FAILS(EBADF, read(fd, &byte, 1));
  FAILS(EBADF, write(fd, &byte, 1));
  FAILS(EBADF, fchmod(fd, 0600));
  FAILS(EBADF, fchown(fd, 0, 0));
  FAILS(EBADF, ftruncate(fd, 0));
  FAILS(EBADF, fsync(fd));
  FAILS(EBADF, fgetxattr(fd, "user.a", &byte, 1));
  struct stat s {};
  DONE(fstat(fd, &s));
  EXPECT_EQ(s.st_ino, Stat("file").st_ino);
  EXPECT_EQ(ReadAt(Open(PathOf(fd), O_RDONLY), 0), "0123456789");
}

TEST_F(OpenCall, APathDescriptorOfALinkIsTheLink) {
  const Fd fd = Open("link", O_PATH | O_NOFOLLOW);
  struct stat s {};
  DONE(fstat(fd, &s));
  EXPECT_TRUE(S_ISLNK(s.st_mode));
  char target[16];
  EXPECT_EQ(readlinkat(fd, "", target, sizeof(target)), 4);
}

TEST_F(OpenCall, APathDescriptorOfADirectoryIsAPlaceToStartFrom) {
  const As user(kUser);
  const Fd fd = Open("mydir", O_PATH | O_DIRECTORY);
  EXPECT_EQ(ReadAt(Fd(openat(fd, "in", O_RDONLY)), 0), "in");
  DONE(Fd(open("file", O_PATH)));
  FAILS(EACCES, open("secret/in", O_PATH));
}

TEST_F(OpenCall, OfATemporaryFileGivesOneWithoutAName) {
  const Fd file(open("dir", O_RDWR | O_TMPFILE, 0600));
  ASSERT_GE(file, 0);
  EXPECT_EQ(Write(file, "hello"), 5);
  struct stat s {};
  DONE(fstat(file, &s));
  EXPECT_EQ(s.st_nlink, 0u);
  EXPECT_EQ(s.st_mode, mode_t{S_IFREG | 0600});
  EXPECT_EQ(Names("dir"), std::set<std::string>());
  DONE(linkat(AT_FDCWD, PathOf(file).c_str(), AT_FDCWD, "dir/a", AT_SYMLINK_FOLLOW));
  EXPECT_EQ(Read("dir/a"), "hello");
  FAILS(ENOENT, linkat(Fd(open("dir", O_RDWR | O_TMPFILE | O_EXCL, 0600)), "", AT_FDCWD, "dir/b", AT_EMPTY_PATH));
}

TEST_F(OpenCall, SynchronousDescriptorsWriteAndRead) {
  for (const int flag : {O_SYNC, O_DSYNC}) {
    const Fd fd = Open("file", O_RDWR | flag);
    EXPECT_EQ(fcntl(fd, F_GETFL) & O_SYNC, flag);
    EXPECT_EQ(WriteAt(fd, "abc", 1), 3);
    EXPECT_EQ(Read("file"), "0abc456789");
  }
}

// Filesystems without direct access refuse it when the file is opened.
TEST_F(OpenCall, DirectAccessReadsWhatWasWritten) {
  alignas(4096) static char bytes[8192];
  const Fd fd(open("a", O_RDWR | O_CREAT | O_DIRECT, 0644));
  if (!places.is_fileset && fd < 0) {
    FAILS(EINVAL, fd);
    return;
  }
  std::fill(std::begin(bytes), std::end(bytes), 'd');
  EXPECT_EQ(pwrite(fd, bytes, sizeof(bytes), 4096), 8192);
  EXPECT_EQ(pread(fd, bytes, 4096, 0), 4096);
  EXPECT_EQ(bytes[0], '\0');
  EXPECT_EQ(Read("a"), std::string(4096, '\0') + std::string(8192, 'd'));
}

TEST_F(OpenCall, AppendingCanBeSwitchedOnAndOff) {
  const Fd fd = Open("file");
  DONE(fcntl(fd, F_SETFL, O_APPEND));
  EXPECT_EQ(Write(fd, "x"), 1);
  DONE(fcntl(fd, F_SETFL, 0));
  EXPECT_EQ(lseek(fd, 0, SEEK_SET), 0);
  EXPECT_EQ(Write(fd, "y"), 1);
  EXPECT_EQ(Read("file"), "y123456789x");
}

}  // namespace
}  // namespace mangrove::posix
