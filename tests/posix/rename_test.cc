// rename, renameat, renameat2 with every flag.
// Covers: F06

#include <climits>

#include "absl/strings/str_cat.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

int64_t Rename(const char* from, const char* to, unsigned flags) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

const bool refusals = Refuses(
    "RenameRefuses",
    {
        {"Nothing", {ENOENT}, [] { return rename("none", "a"); }},
        {"IntoNothing", {ENOENT}, [] { return rename("file", "none/a"); }},
        {"TheEmptyPath", {ENOENT}, [] { return rename("", "a"); }},
        {"ToTheEmptyPath", {ENOENT}, [] { return rename("file", ""); }},
        {"ThroughAFile", {ENOTDIR}, [] { return rename("file/x", "a"); }},
        {"ToThroughAFile", {ENOTDIR}, [] { return rename("file", "other/a"); }},
        {"AFileToADirectory", {EISDIR}, [] { return rename("file", "dir"); }},
        {"ALinkToADirectory", {EISDIR}, [] { return rename("dirlink", "dir"); }},
        {"ADirectoryToAFile", {ENOTDIR}, [] { return rename("dir", "file"); }},
        {"ADirectoryToALinkToADirectory", {ENOTDIR}, [] { return rename("full", "dirlink"); }},
        {"ADirectoryToAFullOne", {ENOTEMPTY, EEXIST}, [] { return rename("dir", "full"); }},
        {"ADirectoryIntoItself", {EINVAL}, [] { return rename("dir", "dir/a"); }},
        {"ADirectoryToItsParent", {ENOTEMPTY, EEXIST, EINVAL}, [] { return rename("full/in", "full"); }},
        {"ADot", {EBUSY, EINVAL}, [] { return rename(".", "a"); }},
        {"ToADot", {EBUSY, EINVAL}, [] { return rename("dir", "full/."); }},
        {"TwoDots", {EBUSY, EINVAL}, [] { return rename("dir/..", "a"); }},
        {"ToTwoDots", {EBUSY, EINVAL}, [] { return rename("dir", "full/.."); }},
        {"ASlashAfterAFile", {ENOTDIR}, [] { return rename("file/", "a"); }},
        {"AFileToASlash", {ENOTDIR}, [] { return rename("file", "a/"); }},
        {"ThroughALoop", {ELOOP}, [] { return rename("loop/x", "a"); }},
        {"ToALongName", {ENAMETOOLONG}, [] { return rename("file", std::string(256, 'n').c_str()); }},
        {"AcrossFilesystems", {EXDEV}, [] { return rename("file", "/dev/shm/mangrove-posix-none"); }},
        {"ABadAddress", {EFAULT}, [] { return rename("file", NoAddress()); }},
        {"ABadDirectory", {EBADF}, [] { return renameat(987, "file", AT_FDCWD, "a"); }},
        {"FromAnothersDirectory", {EACCES}, [] { return rename("full/in", "open/a"); }, kUser},
        {"ToAnothersDirectory", {EACCES}, [] { return rename("mydir/in", "dir/a"); }, kUser},
        {"FromBehindAClosedDirectory", {EACCES}, [] { return rename("secret/in", "open/a"); }, kUser},
        {"AnothersFromAStickyDirectory", {EPERM, EACCES}, [] { return rename("sticky/theirs", "open/a"); }, kUser},
        {"OverAnothersInAStickyDirectory", {EPERM, EACCES}, [] { return rename("mydir/in", "sticky/theirs"); }, kUser},
        {"OntoANameThatMustBeFree", {EEXIST}, [] { return Rename("file", "other", RENAME_NOREPLACE); }},
        {"OntoItselfThatMustBeFree", {EEXIST}, [] { return Rename("file", "file", RENAME_NOREPLACE); }},
        {"OntoADirectoryThatMustBeFree", {EEXIST}, [] { return Rename("full", "dir", RENAME_NOREPLACE); }},
        {"OntoALinkThatMustBeFree", {EEXIST}, [] { return Rename("file", "dangling", RENAME_NOREPLACE); }},
        {"ExchangingWithNothing", {ENOENT}, [] { return Rename("file", "none", RENAME_EXCHANGE); }},
        {"ExchangingNothing", {ENOENT}, [] { return Rename("none", "file", RENAME_EXCHANGE); }},
        {"ExchangingWithWhatIsInside", {EINVAL}, [] { return Rename("full", "full/in", RENAME_EXCHANGE); }},
        {"ExchangingWithWhatIsAround", {EINVAL}, [] { return Rename("full/in", "full", RENAME_EXCHANGE); }},
        {"ExchangingAndNotReplacing",
         {EINVAL},
         [] { return Rename("file", "other", RENAME_EXCHANGE | RENAME_NOREPLACE); }},
        {"ExchangingAndWhitingOut",
         {EINVAL},
         [] { return Rename("file", "other", RENAME_EXCHANGE | RENAME_WHITEOUT); }},
        {"UnknownFlags", {EINVAL}, [] { return Rename("file", "a", 1u << 20); }},
        {"ExchangingInAStickyDirectory",
         {EPERM, EACCES},
         [] { return Rename("mydir/in", "sticky/theirs", RENAME_EXCHANGE); },
         kUser},
    });

class RenameCall : public Posix {};

TEST_F(RenameCall, GivesAFileAnotherName) {
  const ino_t inode = Stat("file").st_ino;
  DONE(rename("file", "a"));
  EXPECT_EQ(StatOutcome("file"), "ENOENT");
  EXPECT_EQ(Read("a"), "0123456789");
  EXPECT_EQ(Stat("a").st_ino, inode);
  EXPECT_EQ(Links("a"), 1u);
}

TEST_F(RenameCall, MovesToAnotherDirectory) {
  DONE(rename("file", "dir/a"));
  EXPECT_FALSE(Exists("file"));
  EXPECT_EQ(Names("dir"), std::set<std::string>{"a"});
  DONE(rename("dir/a", "full/b"));
  EXPECT_EQ(Names("dir"), std::set<std::string>());
  EXPECT_EQ(Read("full/b"), "0123456789");
}

TEST_F(RenameCall, ReplacesAFile) {
  DONE(rename("file", "other"));
  EXPECT_FALSE(Exists("file"));
  EXPECT_EQ(Read("other"), "0123456789");
}

TEST_F(RenameCall, WhatIsReplacedLivesWhileItIsOpen) {
  const Fd fd = Open("other");
  DONE(rename("file", "other"));
  EXPECT_EQ(ReadAt(fd, 0), "other");
  struct stat s {};
  DONE(fstat(fd, &s));
  EXPECT_EQ(s.st_nlink, 0u);
}

TEST_F(RenameCall, WhatIsReplacedKeepsItsOtherNames) {
  DONE(link("other", "a"));
  DONE(rename("file", "other"));
  EXPECT_EQ(Links("a"), 1u);
  EXPECT_EQ(Read("a"), "other");
}

TEST_F(RenameCall, OfTwoNamesOfOneFileDoesNothing) {
  DONE(link("file", "a"));
  DONE(rename("file", "a"));
  EXPECT_TRUE(Exists("file"));
  EXPECT_TRUE(Exists("a"));
  EXPECT_EQ(Links("a"), 2u);
  DONE(rename("file", "file"));
  DONE(rename("dir", "dir"));
  EXPECT_EQ(Read("file"), "0123456789");
}

TEST_F(RenameCall, AnOpenFileStaysOpen) {
  const Fd fd = Open("file");
  DONE(rename("file", "dir/a"));
  EXPECT_EQ(WriteAt(fd, "x", 0), 1);
  EXPECT_EQ(Read("dir/a"), "x123456789");
}

TEST_F(RenameCall, MovesLinksThemselves) {
  DONE(rename("link", "a"));
  EXPECT_EQ(ReadLink("a"), "file");
  DONE(rename("file", "dangling"));
  EXPECT_TRUE(S_ISREG(Stat("dangling").st_mode));
  EXPECT_FALSE(Exists("none"));
  DONE(rename("dangling", "dirlink"));
  EXPECT_TRUE(S_ISREG(Stat("dirlink").st_mode));
  EXPECT_EQ(Names("dir"), std::set<std::string>());
}

TEST_F(RenameCall, MovesFifos) {
  DONE(rename("fifo", "other"));
  EXPECT_TRUE(S_ISFIFO(Stat("other").st_mode));
}

TEST_F(RenameCall, MovesADirectoryWithWhatIsInIt) {
  DONE(rename("full", "dir/a"));
  EXPECT_EQ(Read("dir/a/in"), "in");
  struct stat s {};
  DONE(stat("dir/a/..", &s));
  EXPECT_EQ(s.st_ino, Stat("dir").st_ino);
}

TEST_F(RenameCall, ReplacesAnEmptyDirectory) {
  const ino_t inode = Stat("full").st_ino;
  DONE(rename("full", "dir"));
  EXPECT_FALSE(Exists("full"));
  EXPECT_EQ(Stat("dir").st_ino, inode);
  EXPECT_EQ(Names("dir"), std::set<std::string>{"in"});
}

// A filesystem that does not count subdirectories says 1.
TEST_F(RenameCall, CountsSubdirectoriesWhereTheyAre) {
  DONE(mkdir("dir/d", 0755));
  DONE(mkdir("full/d", 0755));
  if (Links("dir") == 1) return;
  DONE(rename("dir/d", "full/e"));
  EXPECT_EQ(Links("dir"), 2u);
  EXPECT_EQ(Links("full"), 4u);
  DONE(rename("full/d", "full/e"));
  EXPECT_EQ(Links("full"), 3u);
  EXPECT_EQ(Links("full/e"), 2u);
}

TEST_F(RenameCall, TakesASlashAfterADirectory) {
  DONE(rename("full/", "a/"));
  EXPECT_EQ(Read("a/in"), "in");
}

TEST_F(RenameCall, AtDirectories) {
  const Fd from = Open("full", O_RDONLY | O_DIRECTORY);
  const Fd to = Open("dir", O_RDONLY | O_DIRECTORY);
  DONE(renameat(from, "in", to, "out"));
  EXPECT_EQ(Read("dir/out"), "in");
}

TEST_F(RenameCall, WithoutReplacingMoves) {
  DONE(Rename("file", "dir/a", RENAME_NOREPLACE));
  EXPECT_FALSE(Exists("file"));
  EXPECT_EQ(Read("dir/a"), "0123456789");
  DONE(Rename("full", "dir/b", RENAME_NOREPLACE));
  EXPECT_EQ(Read("dir/b/in"), "in");
}

TEST_F(RenameCall, ExchangesFiles) {
  DONE(Rename("file", "full/in", RENAME_EXCHANGE));
  EXPECT_EQ(Read("file"), "in");
  EXPECT_EQ(Read("full/in"), "0123456789");
}

TEST_F(RenameCall, ExchangesAFileAndADirectory) {
  const nlink_t links = Stat("dir").st_nlink;
  const nlink_t root_links = Stat(".").st_nlink;
  DONE(mkdir("dir/d", 0755));
  DONE(Rename("file", "dir/d", RENAME_EXCHANGE));
  EXPECT_TRUE(S_ISDIR(Stat("file").st_mode));
  EXPECT_EQ(Read("dir/d"), "0123456789");
  EXPECT_EQ(Stat("dir").st_nlink, links);
  EXPECT_EQ(Stat(".").st_nlink, root_links == 1 ? 1 : root_links + 1);
  struct stat s {};
  DONE(stat("file/..", &s));
  EXPECT_EQ(s.st_ino, Stat(".").st_ino);
}

TEST_F(RenameCall, ExchangesFullDirectories) {
  Make("dir/a");
  DONE(Rename("full", "dir", RENAME_EXCHANGE));
  EXPECT_EQ(Names("dir"), std::set<std::string>{"in"});
  EXPECT_EQ(Names("full"), std::set<std::string>{"a"});
}

TEST_F(RenameCall, ExchangesLinks) {
  DONE(Rename("link", "dangling", RENAME_EXCHANGE));
  EXPECT_EQ(ReadLink("link"), "none");
  EXPECT_EQ(ReadLink("dangling"), "file");
}

TEST_F(RenameCall, ExchangeOfTwoNamesOfOneFileDoesNothing) {
  DONE(link("file", "a"));
  DONE(Rename("file", "a", RENAME_EXCHANGE));
  EXPECT_EQ(Links("file"), 2u);
  EXPECT_EQ(Stat("file").st_ino, Stat("a").st_ino);
}

// Not every filesystem knows whiteouts.
TEST_F(RenameCall, LeavesAWhiteoutOrSaysThatItCannot) {
  const std::string outcome = Outcome(Rename("file", "a", RENAME_WHITEOUT));
  if (outcome == "done") {
    EXPECT_TRUE(S_ISCHR(Stat("file").st_mode));
    EXPECT_EQ(Stat("file").st_rdev, dev_t{0});
    EXPECT_EQ(Read("a"), "0123456789");
    return;
  }
  EXPECT_EQ(outcome, "EINVAL");
  EXPECT_EQ(Read("file"), "0123456789");
}

TEST_F(RenameCall, OverADirectoryThatIsSomebodysWorkingDirectory) {
  DONE(chdir("dir"));
  DONE(rename("../full", "../dir"));
  EXPECT_THAT(Outcome(open("in", O_RDONLY)), testing::AnyOf("ENOENT", places.is_fileset ? "ESTALE" : "ENOENT"));
  EXPECT_EQ(Read("dir/in"), "in");
}

TEST_F(RenameCall, AUserMovesHisOwnDirectoryOnlyIfHeMayWriteToIt) {
  {
    const As user(kUser);
    DONE(mkdir("open/d", 0755));
    DONE(mkdir("open/e", 0755));
    DONE(rename("open/d", "open/e/d"));
    DONE(chmod("open/e/d", 0555));
    // Its parent would be another one: that is in the directory itself.
    FAILS(EACCES, rename("open/e/d", "open/d"));
    DONE(rename("open/e/d", "open/e/f"));
  }
  EXPECT_EQ(Names("open/e"), std::set<std::string>{"f"});
}

TEST_F(RenameCall, InAStickyDirectoryIsForTheOwnersOfFileAndDirectory) {
  const As stranger(kStranger);
  DONE(rename("sticky/theirs", "sticky/a"));
  DONE(rename("sticky/a", "open/a"));
}

TEST_F(RenameCall, ManyTimesLosesNothing) {
  for (int i = 0; i < 50; ++i) {
    DONE(rename(i == 0 ? "file" : absl::StrCat(i % 2 == 1 ? "dir/" : "full/", i - 1).c_str(),
                absl::StrCat(i % 2 == 0 ? "dir/" : "full/", i).c_str()));
  }
  EXPECT_EQ(Read("full/49"), "0123456789");
  EXPECT_EQ(Names("dir"), std::set<std::string>());
}

TEST_F(RenameCall, ALongChainOfDirectoriesCannotGoBelowItsEnd) {
  std::string path = "dir";
  for (int i = 0; i < 20; ++i) {
    path += "/d";
    DONE(mkdir(path.c_str(), 0755));
  }
  FAILS(EINVAL, rename("dir", (path + "/e").c_str()));
  FAILS(EINVAL, rename("dir/d/d", (path + "/e").c_str()));
  FAILS(EINVAL, Rename("dir", path.c_str(), RENAME_EXCHANGE));
  FAILS(ENOTEMPTY, rename(path.c_str(), "dir"));
  DONE(rename("dir/d/d", "full/d"));
}

}  // namespace
}  // namespace mangrove::posix
