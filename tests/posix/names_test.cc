// link, symlink, readlink, unlink, mknod, mkfifo, sockets; names and paths of all lengths.
// Covers: F06

#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <algorithm>
#include <climits>

#include "absl/strings/str_cat.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

std::string Long(size_t length) { return std::string(length, 'n'); }

const bool link_refusals = Refuses(
    "LinkRefuses",
    {
        {"Nothing", {ENOENT}, [] { return link("none", "a"); }},
        {"InNothing", {ENOENT}, [] { return link("file", "none/a"); }},
        {"TheEmptyPath", {ENOENT}, [] { return link("", "a"); }},
        {"ToTheEmptyPath", {ENOENT}, [] { return link("file", ""); }},
        {"ToAName", {EEXIST}, [] { return link("file", "other"); }},
        {"ToItself", {EEXIST}, [] { return link("file", "file"); }},
        {"ToADirectory", {EEXIST}, [] { return link("file", "dir"); }},
        {"ToALinkToNothing", {EEXIST}, [] { return link("file", "dangling"); }},
        {"ADirectory", {EPERM}, [] { return link("dir", "a"); }},
        {"ADot", {EPERM}, [] { return link(".", "a"); }},
        {"ThroughAFile", {ENOTDIR}, [] { return link("file/x", "a"); }},
        {"ToThroughAFile", {ENOTDIR}, [] { return link("file", "other/a"); }},
        {"WithASlashAfterAFile", {ENOTDIR}, [] { return link("file/", "a"); }},
        {"ToWithASlash", {ENOENT, ENOTDIR}, [] { return link("file", "a/"); }},
        {"ALoopThatIsFollowed", {ELOOP}, [] { return linkat(AT_FDCWD, "loop", AT_FDCWD, "a", AT_SYMLINK_FOLLOW); }},
        {"ALinkToNothingThatIsFollowed",
         {ENOENT},
         [] { return linkat(AT_FDCWD, "dangling", AT_FDCWD, "a", AT_SYMLINK_FOLLOW); }},
        {"ToALongName", {ENAMETOOLONG}, [] { return link("file", Long(256).c_str()); }},
        {"UnknownFlags", {EINVAL}, [] { return linkat(AT_FDCWD, "file", AT_FDCWD, "a", 1 << 20); }},
        {"AcrossFilesystems", {EXDEV}, [] { return link("/proc/self/status", "a"); }},
        {"ABadAddress", {EFAULT}, [] { return link("file", NoAddress()); }},
        {"IntoAnothersDirectory", {EACCES}, [] { return link("mine", "dir/a"); }, kUser},
        {"FromBehindAClosedDirectory", {EACCES}, [] { return link("secret/in", "open/a"); }, kUser},
        {"TheEmptyPathOfNoDescriptor", {EBADF}, [] { return linkat(987, "", AT_FDCWD, "a", AT_EMPTY_PATH); }},
    });

const bool symlink_refusals =
    Refuses("SymlinkRefuses", {
                                  {"AName", {EEXIST}, [] { return symlink("x", "file"); }},
                                  {"ADirectory", {EEXIST}, [] { return symlink("x", "dir"); }},
                                  {"ALinkToNothing", {EEXIST}, [] { return symlink("x", "dangling"); }},
                                  {"NoTarget", {ENOENT}, [] { return symlink("", "a"); }},
                                  {"TheEmptyPath", {ENOENT}, [] { return symlink("x", ""); }},
                                  {"InNothing", {ENOENT}, [] { return symlink("x", "none/a"); }},
                                  {"ThroughAFile", {ENOTDIR}, [] { return symlink("x", "file/a"); }},
                                  {"ThroughALoop", {ELOOP}, [] { return symlink("x", "loop/a"); }},
                                  {"WithASlash", {ENOENT, ENOTDIR}, [] { return symlink("x", "a/"); }},
                                  {"ALongTarget", {ENAMETOOLONG}, [] { return symlink(Long(PATH_MAX).c_str(), "a"); }},
                                  {"ALongName", {ENAMETOOLONG}, [] { return symlink("x", Long(256).c_str()); }},
                                  {"ABadAddress", {EFAULT}, [] { return symlink(NoAddress(), "a"); }},
                                  {"InAnothersDirectory", {EACCES}, [] { return symlink("x", "dir/a"); }, kUser},
                                  {"ReadingAFile",
                                   {EINVAL},
                                   [] {
                                     char b[8];
                                     return readlink("file", b, 8);
                                   }},
                                  {"ReadingADirectory",
                                   {EINVAL},
                                   [] {
                                     char b[8];
                                     return readlink("dir", b, 8);
                                   }},
                                  {"ReadingNothing",
                                   {ENOENT},
                                   [] {
                                     char b[8];
                                     return readlink("none", b, 8);
                                   }},
                                  {"ReadingThroughAFile",
                                   {ENOTDIR},
                                   [] {
                                     char b[8];
                                     return readlink("file/x", b, 8);
                                   }},
                                  {"ReadingBehindAClosedDirectory",
                                   {EACCES},
                                   [] {
                                     char b[8];
                                     return readlink("secret/x", b, 8);
                                   },
                                   kUser},
                                  {"ReadingIntoNoRoom",
                                   {EINVAL},
                                   [] {
                                     char b[8];
                                     return readlink("link", b, 0);
                                   }},
                                  {"ReadingToABadAddress", {EFAULT}, [] { return readlink("link", NoAddress(), 8); }},
                              });

const bool unlink_refusals = Refuses(
    "UnlinkRefuses", {
                         {"Nothing", {ENOENT}, [] { return unlink("none"); }},
                         {"TheEmptyPath", {ENOENT}, [] { return unlink(""); }},
                         {"ADirectory", {EISDIR, EPERM}, [] { return unlink("dir"); }},
                         {"ADirectoryWithASlash", {EISDIR, EPERM}, [] { return unlink("dir/"); }},
                         {"ADot", {EISDIR, EPERM, EINVAL}, [] { return unlink("."); }},
                         {"ASlashAfterAFile", {ENOTDIR}, [] { return unlink("file/"); }},
                         {"ASlashAfterALink", {ENOTDIR}, [] { return unlink("dirlink/"); }},
                         {"ThroughAFile", {ENOTDIR}, [] { return unlink("file/x"); }},
                         {"ThroughALoop", {ELOOP}, [] { return unlink("loop/x"); }},
                         {"ALongName", {ENAMETOOLONG}, [] { return unlink(Long(256).c_str()); }},
                         {"UnknownFlags", {EINVAL}, [] { return unlinkat(AT_FDCWD, "file", 1 << 20); }},
                         {"AFileAsADirectory", {ENOTDIR}, [] { return unlinkat(AT_FDCWD, "file", AT_REMOVEDIR); }},
                         {"ABadAddress", {EFAULT}, [] { return unlink(NoAddress()); }},
                         {"InAnothersDirectory", {EACCES}, [] { return unlink("full/in"); }, kUser},
                         {"BehindAClosedDirectory", {EACCES}, [] { return unlink("secret/in"); }, kUser},
                         {"AnothersInAStickyDirectory", {EPERM, EACCES}, [] { return unlink("sticky/theirs"); }, kUser},
                     });

const bool node_refusals =
    Refuses("MknodRefuses",
            {
                {"AName", {EEXIST}, [] { return mknod("file", S_IFREG | 0644, 0); }},
                {"AFifoOfAName", {EEXIST}, [] { return mkfifo("dangling", 0644); }},
                {"ADirectory", {EPERM, EINVAL}, [] { return mknod("a", S_IFDIR | 0755, 0); }},
                {"ALink", {EPERM, EINVAL}, [] { return mknod("a", S_IFLNK | 0755, 0); }},
                {"NoKnownType", {EINVAL}, [] { return mknod("a", S_IFMT | 0755, 0); }},
                {"InNothing", {ENOENT}, [] { return mkfifo("none/a", 0644); }},
                {"ThroughAFile", {ENOTDIR}, [] { return mkfifo("file/a", 0644); }},
                {"ALongName", {ENAMETOOLONG}, [] { return mkfifo(Long(256).c_str(), 0644); }},
                {"ADeviceOfAUser", {EPERM}, [] { return mknod("open/a", S_IFCHR | 0644, makedev(1, 3)); }, kUser},
                {"InAnothersDirectory", {EACCES}, [] { return mkfifo("dir/a", 0644); }, kUser},
            });

class NameCalls : public Posix {
 protected:
  static int64_t Bind(int fd, const std::string& path) {
    sockaddr_un address{.sun_family = AF_UNIX};
    std::copy(path.begin(), path.end(), address.sun_path);
    return bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  static int64_t Connect(int fd, const std::string& path) {
    sockaddr_un address{.sun_family = AF_UNIX};
    std::copy(path.begin(), path.end(), address.sun_path);
    return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
};

TEST_F(NameCalls, LinkGivesAFileOneNameMore) {
  DONE(link("file", "dir/a"));
  EXPECT_EQ(Links("file"), 2u);
  EXPECT_EQ(Stat("file").st_ino, Stat("dir/a").st_ino);
  EXPECT_EQ(WriteAt(Open("dir/a"), "x", 0), 1);
  EXPECT_EQ(Read("file"), "x123456789");
  DONE(chmod("file", 0600));
  EXPECT_EQ(Mode("dir/a"), mode_t{0600});
  DONE(unlink("file"));
  EXPECT_EQ(Links("dir/a"), 1u);
  EXPECT_EQ(Read("dir/a"), "x123456789");
}

TEST_F(NameCalls, LinkTakesFifosAndLinks) {
  DONE(link("fifo", "a"));
  EXPECT_EQ(Links("fifo"), 2u);
  DONE(link("link", "b"));
  EXPECT_TRUE(S_ISLNK(Stat("b").st_mode));
  EXPECT_EQ(Links("link"), 2u);
  EXPECT_EQ(Links("file"), 1u);
}

TEST_F(NameCalls, LinkFollowsWhereThatIsAsked) {
  DONE(linkat(AT_FDCWD, "link", AT_FDCWD, "a", AT_SYMLINK_FOLLOW));
  EXPECT_EQ(Stat("a").st_ino, Stat("file").st_ino);
  EXPECT_EQ(Links("file"), 2u);
}

TEST_F(NameCalls, LinkTakesADescriptorAlone) {
  DONE(linkat(Open("file"), "", AT_FDCWD, "a", AT_EMPTY_PATH));
  EXPECT_EQ(Read("a"), "0123456789");
  const Fd fd = Open("a");
  DONE(linkat(AT_FDCWD, absl::StrCat("/proc/self/fd/", int{fd}).c_str(), AT_FDCWD, "b", AT_SYMLINK_FOLLOW));
  EXPECT_EQ(Links("file"), 3u);
}

TEST_F(NameCalls, LinkGivesNoNameToWhatHasLostAll) {
  const Fd fd = Open("file");
  DONE(unlink("file"));
  FAILS(ENOENT, linkat(fd, "", AT_FDCWD, "a", AT_EMPTY_PATH));
  FAILS(ENOENT, linkat(AT_FDCWD, absl::StrCat("/proc/self/fd/", int{fd}).c_str(), AT_FDCWD, "a", AT_SYMLINK_FOLLOW));
}

TEST_F(NameCalls, AUserMayLinkWhatIsHisOwn) {
  {
    const As user(kUser);
    DONE(link("mine", "open/a"));
  }
  EXPECT_EQ(Links("mine"), 2u);
}

TEST_F(NameCalls, ManyNamesOfAFile) {
  for (int i = 0; i < 300; ++i) DONE(link("file", absl::StrCat("dir/", i).c_str()));
  EXPECT_EQ(Links("file"), 301u);
  for (int i = 0; i < 300; ++i) DONE(unlink(absl::StrCat("dir/", i).c_str()));
  EXPECT_EQ(Links("file"), 1u);
}

TEST_F(NameCalls, SymlinkSaysWhatItWasTold) {
  for (const std::string target : {"x", "/", "../..", "a//b/", "none/at/all", "\n"}) {
    DONE(symlink(target.c_str(), "a"));
    EXPECT_EQ(ReadLink("a"), target);
    EXPECT_EQ(Size("a"), static_cast<off_t>(target.size()));
    DONE(unlink("a"));
  }
}

TEST_F(NameCalls, SymlinkIsOfTheCallerAndHasAllPermissions) {
  {
    const As user(kUser, kGroup);
    const Umask mask(077);
    DONE(symlink("x", "open/a"));
  }
  const struct stat s = Stat("open/a");
  EXPECT_EQ(s.st_mode, mode_t{S_IFLNK | 0777});
  EXPECT_EQ(s.st_uid, kUser);
  EXPECT_EQ(s.st_gid, kGroup);
  EXPECT_EQ(s.st_nlink, 1u);
}

TEST_F(NameCalls, LongTargetsAreWhole) {
  for (const size_t length : {255, 256, 1'000, 3'900, PATH_MAX - 1}) {
    const std::string target(length, 't');
    DONE(symlink(target.c_str(), "a"));
    EXPECT_EQ(ReadLink("a"), target);
    DONE(unlink("a"));
  }
}

TEST_F(NameCalls, ReadlinkCutsWhatDoesNotFit) {
  char target[3] = {'-', '-', '-'};
  EXPECT_EQ(readlink("link", target, 2), 2);
  EXPECT_EQ(std::string(target, 3), "fi-");
}

TEST_F(NameCalls, SymlinksLeadFromTheirOwnDirectory) {
  DONE(symlink("../file", "dir/a"));
  DONE(symlink("dir/a", "b"));
  EXPECT_EQ(ReadAt(Open("b"), 0), "0123456789");
  DONE(rename("dir/a", "a"));
  FAILS(ENOENT, open("a", O_RDONLY));
}

TEST_F(NameCalls, FortyLinksAreFollowedAndNoMore) {
  DONE(symlink("file", "0"));
  for (int i = 1; i <= 40; ++i) DONE(symlink(absl::StrCat(i - 1).c_str(), absl::StrCat(i).c_str()));
  EXPECT_EQ(ReadAt(Open("39", O_RDONLY), 0), "0123456789");
  FAILS(ELOOP, open("40", O_RDONLY));
}

TEST_F(NameCalls, UnlinkOfALinkLeavesItsTarget) {
  DONE(unlink("link"));
  DONE(unlink("dangling"));
  DONE(unlink("dirlink"));
  DONE(unlink("fifo"));
  EXPECT_EQ(Read("file"), "0123456789");
  EXPECT_TRUE(Exists("dir"));
}

TEST_F(NameCalls, UnlinkTakesOneNameAtATime) {
  DONE(link("file", "a"));
  const Fd fd = Open("a");
  DONE(unlink("file"));
  struct stat s {};
  DONE(fstat(fd, &s));
  EXPECT_EQ(s.st_nlink, 1u);
  DONE(unlink("a"));
  DONE(fstat(fd, &s));
  EXPECT_EQ(s.st_nlink, 0u);
  FAILS(ENOENT, unlink("a"));
}

TEST_F(NameCalls, UnlinkAtADirectory) {
  const Fd directory = Open("full", O_RDONLY | O_DIRECTORY);
  DONE(unlinkat(directory, "in", 0));
  EXPECT_EQ(Names("full"), std::set<std::string>());
  DONE(unlinkat(directory, "../dir", AT_REMOVEDIR));
  EXPECT_FALSE(Exists("dir"));
}

TEST_F(NameCalls, UnlinkNeedsTheDirectoryAloneAndNotTheFile) {
  Make("mydir/roots", "", 0);
  const As user(kUser);
  DONE(unlink("mydir/roots"));
}

TEST_F(NameCalls, UnlinkGivesTheRoomBack) {
  Make("a", std::string(4 << 20, 'x'));
  DONE(fsync(Open("a")));
  struct statvfs before {};
  DONE(statvfs(".", &before));
  DONE(unlink("a"));
  struct statvfs after {};
  DONE(statvfs(".", &after));
  if (places.is_fileset) {
    EXPECT_GE(after.f_bfree, before.f_bfree);
  }
}

TEST_F(NameCalls, MknodMakesWhatItIsAskedFor) {
  DONE(mknod("regular", S_IFREG | 0640, 0));
  DONE(mknod("nothing", 0640, 0));
  DONE(mknod("character", S_IFCHR | 0600, makedev(1, 3)));
  DONE(mknod("block", S_IFBLK | 0600, makedev(259, 70'000)));
  DONE(mknod("socket", S_IFSOCK | 0755, 0));
  DONE(mknod("pipe", S_IFIFO | 0666, 0));
  EXPECT_EQ(Stat("regular").st_mode, mode_t{S_IFREG | 0640});
  EXPECT_EQ(Stat("nothing").st_mode, mode_t{S_IFREG | 0640});
  EXPECT_EQ(Stat("character").st_mode, mode_t{S_IFCHR | 0600});
  EXPECT_EQ(Stat("character").st_rdev, makedev(1, 3));
  EXPECT_EQ(Stat("block").st_mode, mode_t{S_IFBLK | 0600});
  EXPECT_EQ(Stat("block").st_rdev, makedev(259, 70'000));
  EXPECT_EQ(Stat("socket").st_mode, mode_t{S_IFSOCK | 0755});
  EXPECT_EQ(Stat("pipe").st_mode, mode_t{S_IFIFO | 0644});
  EXPECT_EQ(Stat("regular").st_rdev, dev_t{0});
}

TEST_F(NameCalls, AFifoCarriesBytesAndKeepsNone) {
  const Fd reader(open("fifo", O_RDONLY | O_NONBLOCK));
  const Fd writer(open("fifo", O_WRONLY | O_NONBLOCK));
  EXPECT_EQ(Write(writer, "hello"), 5);
  char bytes[8];
  EXPECT_EQ(read(reader, bytes, sizeof(bytes)), 5);
  FAILS(EAGAIN, read(reader, bytes, sizeof(bytes)));
  EXPECT_EQ(Size("fifo"), 0);
}

TEST_F(NameCalls, ASocketIsConnectedToByItsName) {
  const Fd server(socket(AF_UNIX, SOCK_STREAM, 0));
  const Fd client(socket(AF_UNIX, SOCK_STREAM, 0));
  DONE(Bind(server, "socket"));
  EXPECT_TRUE(S_ISSOCK(Stat("socket").st_mode));
  FAILS(ECONNREFUSED, Connect(client, "socket"));
  DONE(listen(server, 1));
  DONE(Connect(client, "socket"));
  FAILS(EADDRINUSE, Bind(Fd(socket(AF_UNIX, SOCK_STREAM, 0)), "socket"));
  FAILS(ECONNREFUSED, Connect(Fd(socket(AF_UNIX, SOCK_STREAM, 0)), "file"));
  DONE(unlink("socket"));
  FAILS(ENOENT, Connect(Fd(socket(AF_UNIX, SOCK_STREAM, 0)), "socket"));
}

TEST_F(NameCalls, NamesOf255BytesAreWholeInEveryCall) {
  const std::string first = "dir/" + Long(255);
  const std::string second = "dir/" + std::string(255, 'm');
  Make(first, "long");
  EXPECT_EQ(Names("dir"), std::set<std::string>{Long(255)});
  DONE(rename(first.c_str(), second.c_str()));
  DONE(link(second.c_str(), first.c_str()));
  EXPECT_EQ(Read(first), "long");
  DONE(unlink(first.c_str()));
  DONE(unlink(second.c_str()));
  DONE(symlink("x", first.c_str()));
  DONE(mkdir(second.c_str(), 0755));
  DONE(mkfifo((second + "/" + Long(255)).c_str(), 0644));
  FAILS(ENAMETOOLONG, rename("file", ("dir/" + Long(256)).c_str()));
  EXPECT_EQ(StatOutcome("dir/" + Long(256)), "ENAMETOOLONG");
}

TEST_F(NameCalls, PathsReachDeeperThanAPathMayBeLong) {
  const std::string name = Long(250);
  DONE(chdir("dir"));
  for (int depth = 0; depth < 20; ++depth) {
    ASSERT_EQ(Outcome(mkdir(name.c_str(), 0755)), "done") << depth;
    ASSERT_EQ(Outcome(chdir(name.c_str())), "done") << depth;
  }
  Make("a", "deep");
  EXPECT_EQ(ReadAt(Open("a"), 0), "deep");
  DONE(unlink("a"));
  for (int depth = 0; depth < 20; ++depth) {
    ASSERT_EQ(Outcome(chdir("..")), "done") << depth;
    ASSERT_EQ(Outcome(rmdir(name.c_str())), "done") << depth;
  }
}

TEST_F(NameCalls, APathOf4095BytesIsTheLongest) {
  std::string path = "file";
  while (path.size() + 2 <= PATH_MAX - 1) path = "./" + path;
  if (path.size() < PATH_MAX - 1) path = "." + std::string(PATH_MAX - 1 - path.size(), '/') + path.substr(1);
  EXPECT_EQ(path.size(), size_t{PATH_MAX - 1});
  EXPECT_EQ(ReadAt(Open(path, O_RDONLY), 0), "0123456789");
  FAILS(ENAMETOOLONG, open(("./" + path).c_str(), O_RDONLY));
}

}  // namespace
}  // namespace mangrove::posix
