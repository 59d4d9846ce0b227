// mkdir, rmdir, and reading directories while they change.
// Covers: F06

#include <dirent.h>
#include <sys/syscall.h>

#include "absl/strings/str_cat.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

const bool make_refusals = Refuses(
    "MkdirRefuses", {
                        {"AFile", {EEXIST}, [] { return mkdir("file", 0755); }},
                        {"ADirectory", {EEXIST}, [] { return mkdir("dir", 0755); }},
                        {"ALink", {EEXIST}, [] { return mkdir("link", 0755); }},
                        {"ALinkToNothing", {EEXIST}, [] { return mkdir("dangling", 0755); }},
                        {"ALinkToNothingWithASlash", {EEXIST, ENOENT}, [] { return mkdir("dangling/", 0755); }},
                        {"ADot", {EEXIST}, [] { return mkdir(".", 0755); }},
                        {"TwoDots", {EEXIST}, [] { return mkdir("dir/..", 0755); }},
                        {"TheRoot", {EEXIST}, [] { return mkdir("/", 0755); }},
                        {"InNothing", {ENOENT}, [] { return mkdir("none/x", 0755); }},
                        {"TheEmptyPath", {ENOENT}, [] { return mkdir("", 0755); }},
                        {"ThroughAFile", {ENOTDIR}, [] { return mkdir("file/x", 0755); }},
                        {"ThroughALoop", {ELOOP}, [] { return mkdir("loop/x", 0755); }},
                        {"ANameOf256Bytes", {ENAMETOOLONG}, [] { return mkdir(std::string(256, 'n').c_str(), 0755); }},
                        {"ABadAddress", {EFAULT}, [] { return mkdir(NoAddress(), 0755); }},
                        {"ABadDirectory", {EBADF}, [] { return mkdirat(987, "x", 0755); }},
                        {"AtAFile", {ENOTDIR}, [] { return mkdirat(Open("file"), "x", 0755); }},
                        {"InAnothersDirectory", {EACCES}, [] { return mkdir("dir/x", 0755); }, kUser},
                        {"BehindAClosedDirectory", {EACCES}, [] { return mkdir("secret/x", 0755); }, kUser},
                    });

const bool remove_refusals = Refuses(
    "RmdirRefuses", {
                        {"Nothing", {ENOENT}, [] { return rmdir("none"); }},
                        {"TheEmptyPath", {ENOENT}, [] { return rmdir(""); }},
                        {"AFile", {ENOTDIR}, [] { return rmdir("file"); }},
                        {"AFifo", {ENOTDIR}, [] { return rmdir("fifo"); }},
                        {"ALinkToADirectory", {ENOTDIR}, [] { return rmdir("dirlink"); }},
                        {"ALinkToADirectoryWithASlash", {ENOTDIR}, [] { return rmdir("dirlink/"); }},
                        {"WhatHoldsAName", {ENOTEMPTY, EEXIST}, [] { return rmdir("full"); }},
                        {"ADot", {EINVAL}, [] { return rmdir("dir/."); }},
                        {"TwoDots", {ENOTEMPTY, EEXIST}, [] { return rmdir("dir/.."); }},
                        {"ThroughAFile", {ENOTDIR}, [] { return rmdir("file/x"); }},
                        {"ThroughALoop", {ELOOP}, [] { return rmdir("loop/x"); }},
                        {"ANameOf256Bytes", {ENAMETOOLONG}, [] { return rmdir(std::string(256, 'n').c_str()); }},
                        {"ABadAddress", {EFAULT}, [] { return rmdir(NoAddress()); }},
                        {"UnlinkOfADirectory", {EISDIR}, [] { return unlink("dir"); }},
                        {"InAnothersDirectory", {EACCES}, [] { return rmdir("dir"); }, kUser},
                        {"BehindAClosedDirectory", {EACCES}, [] { return rmdir("secret/x"); }, kUser},
                        {"TheRootOfAMount",
                         {EBUSY},
                         [] { return rmdir(Posix::places.is_fileset ? Posix::places.act.c_str() : "/proc"); }},
                    });

const bool read_refusals =
    Refuses("ReadingADirectoryRefuses",
            {
                {"AFile", {ENOTDIR}, [] { return opendir("file") == nullptr ? -1 : 0; }},
                {"Nothing", {ENOENT}, [] { return opendir("none") == nullptr ? -1 : 0; }},
                {"ALinkToNothing", {ENOENT}, [] { return opendir("dangling") == nullptr ? -1 : 0; }},
                {"AClosedDirectory", {EACCES}, [] { return opendir("secret") == nullptr ? -1 : 0; }, kUser},
                {"ADescriptorOfAFile",
                 {ENOTDIR},
                 [] {
                   char b[512];
                   return syscall(SYS_getdents64, int{Open("file")}, b, 512);
                 }},
                {"AnEntryWithoutRoom",
                 {EINVAL},
                 [] {
                   char b[4];
                   return syscall(SYS_getdents64, int{Open(".", O_RDONLY)}, b, 4);
                 }},
                {"ChangingToAFile", {ENOTDIR}, [] { return chdir("file"); }},
                {"ChangingToNothing", {ENOENT}, [] { return chdir("none"); }},
                {"ChangingToAClosedDirectory", {EACCES}, [] { return chdir("secret"); }, kUser},
                {"ChangingToADescriptorOfAFile", {ENOTDIR}, [] { return fchdir(Open("file")); }},
            });

class Directories : public Posix {
 protected:
  struct Closer {
    void operator()(DIR* directory) const { closedir(directory); }
  };
  using Listing = std::unique_ptr<DIR, Closer>;

  static Listing List(const std::string& name) {
    Listing listing(opendir(name.c_str()));
    EXPECT_NE(listing, nullptr) << name;
    return listing;
  }
  // What is left of a listing, in its order; the dots too.
  static std::vector<std::string> Rest(const Listing& listing) {
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(listing.get())) names.push_back(entry->d_name);
    EXPECT_EQ(errno, 0);
    return names;
  }
  static std::set<std::string> SetOf(const std::vector<std::string>& names) {
    std::set<std::string> set(names.begin(), names.end());
    EXPECT_EQ(set.size(), names.size()) << "a name is there twice";
    return set;
  }
  static std::string Numbered(int number) { return absl::StrCat("dir/a name that is not short ", number); }
  static void MakeMany(int count) {
    for (int i = 0; i < count; ++i) Make(Numbered(i));
  }
};

TEST_F(Directories, MkdirMakesAnEmptyDirectoryOfTheCaller) {
  {
    const As user(kUser, kGroup);
    DONE(mkdir("open/d", 0750));
  }
  const struct stat s = Stat("open/d");
  EXPECT_EQ(s.st_mode, mode_t{S_IFDIR | 0750});
  EXPECT_EQ(s.st_uid, kUser);
  EXPECT_EQ(s.st_gid, kGroup);
  EXPECT_EQ(s.st_nlink, 2u);
  EXPECT_EQ(Names("open/d"), std::set<std::string>());
}

TEST_F(Directories, MkdirMasksTheMode) {
  const Umask mask(077);
  DONE(mkdir("d", 0777));
  EXPECT_EQ(Mode("d"), mode_t{0700});
}

TEST_F(Directories, MkdirTakesTheStickyBit) {
  DONE(mkdir("d", 01777));
  EXPECT_EQ(Mode("d"), mode_t{01755});
}

TEST_F(Directories, MkdirTakesASlashAtTheEnd) {
  DONE(mkdir("d/", 0755));
  EXPECT_TRUE(S_ISDIR(Stat("d").st_mode));
  DONE(rmdir("d/"));
  EXPECT_FALSE(Exists("d"));
}

// A filesystem that does not count says 1.
TEST_F(Directories, CountTheirSubdirectories) {
  DONE(mkdir("d", 0755));
  const bool counts = Links("d") != 1;
  for (nlink_t i = 1; i <= 3; ++i) {
    DONE(mkdir(absl::StrCat("d/", i).c_str(), 0755));
    EXPECT_EQ(Links("d"), counts ? 2 + i : 1);
  }
  Make("d/file");
  EXPECT_EQ(Links("d"), counts ? 5u : 1u);
  DONE(rename("d/1", "moved"));
  EXPECT_EQ(Links("d"), counts ? 4u : 1u);
  DONE(rmdir("d/2"));
  EXPECT_EQ(Links("d"), counts ? 3u : 1u);
  DONE(rename("d/3", "d/4"));
  EXPECT_EQ(Links("d"), counts ? 3u : 1u);
}

TEST_F(Directories, RmdirRemoves) {
  DONE(rmdir("dir"));
  EXPECT_EQ(StatOutcome("dir"), "ENOENT");
  DONE(mkdir("dir", 0700));
  EXPECT_EQ(Mode("dir"), mode_t{0700});
}

TEST_F(Directories, RmdirTakesWhatWasEmptied) {
  DONE(unlink("full/in"));
  DONE(rmdir("full"));
  EXPECT_FALSE(Exists("full"));
  DONE(unlinkat(AT_FDCWD, "dir", AT_REMOVEDIR));
  EXPECT_FALSE(Exists("dir"));
}

TEST_F(Directories, RmdirTakesWhatHadManyNames) {
  MakeMany(300);
  for (int i = 0; i < 300; ++i) DONE(unlink(Numbered(i).c_str()));
  EXPECT_EQ(Names("dir"), std::set<std::string>());
  DONE(rmdir("dir"));
}

TEST_F(Directories, WhatIsOpenOutlivesItsName) {
  const Fd fd = Open("dir", O_RDONLY | O_DIRECTORY);
  DONE(rmdir("dir"));
  struct stat s {};
  FAILS(ENOENT, openat(fd, "x", O_RDONLY));
  DONE(fstat(fd, &s));
  EXPECT_EQ(s.st_nlink, 0u);
  EXPECT_TRUE(S_ISDIR(s.st_mode));
  DONE(fchmod(fd, 0700));
  DONE(fsync(fd));
}

TEST_F(Directories, AListingOfWhatIsGoneIsEmpty) {
  const Listing listing = List("dir");
  DONE(rmdir("dir"));
  // It may fail.
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    EXPECT_TRUE(name == "." || name == "..") << name;
  }
}

TEST_F(Directories, TheWorkingDirectoryOutlivesItsName) {
  DONE(chdir("dir"));
  DONE(rmdir("../dir"));
  char path[4096];
  FAILS(ENOENT, getcwd(path, sizeof(path)) == nullptr ? -1 : 0);
  // The kernel knows that it has gone, or a fileset says so.
  EXPECT_THAT(Outcome(open("a", O_RDWR | O_CREAT, 0644)),
              testing::AnyOf("ENOENT", places.is_fileset ? "ESTALE" : "ENOENT"));
  EXPECT_THAT(Outcome(mkdir("a", 0755)), testing::AnyOf("ENOENT", places.is_fileset ? "ESTALE" : "ENOENT"));
  EXPECT_FALSE(Exists("dir"));
}

TEST_F(Directories, TheWorkingDirectoryGoesWhereItsDirectoryGoes) {
  DONE(chdir("full"));
  DONE(rename("../full", "../dir/moved"));
  EXPECT_EQ(ReadAt(Open("in", O_RDONLY), 0), "in");
  EXPECT_EQ(ReadAt(Open("../../file", O_RDONLY), 0), "0123456789");
  char path[4096];
  EXPECT_TRUE(std::string(getcwd(path, sizeof(path))).ends_with("/dir/moved"));
}

TEST_F(Directories, DotsAreTheDirectoryAndItsParent) {
  DONE(mkdir("dir/d", 0755));
  struct stat dot {};
  struct stat dots {};
  DONE(stat("dir/d/.", &dot));
  DONE(stat("dir/d/..", &dots));
  EXPECT_EQ(dot.st_ino, Stat("dir/d").st_ino);
  EXPECT_EQ(dots.st_ino, Stat("dir").st_ino);
  DONE(rename("dir/d", "full/d"));
  DONE(stat("full/d/..", &dots));
  EXPECT_EQ(dots.st_ino, Stat("full").st_ino);
}

TEST_F(Directories, AListingNamesEachOnceWithItsNumberAndType) {
  const Listing listing = List(There(""));
  std::set<std::string> names;
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    EXPECT_TRUE(names.insert(name).second) << name;
    struct stat s {};
    DONE(lstat(There(name).c_str(), &s));
    EXPECT_TRUE(name == ".." || entry->d_ino == s.st_ino) << name;
    EXPECT_TRUE(entry->d_type == DT_UNKNOWN || static_cast<mode_t>(DTTOIF(entry->d_type)) == (s.st_mode & S_IFMT))
        << name;
  }
  EXPECT_EQ(names, (std::set<std::string>{".", "..", "dangling", "dir", "dirlink", "fifo", "file", "full", "link",
                                          "loop", "mine", "mydir", "open", "other", "secret", "sticky"}));
}

TEST_F(Directories, AListingOfNothingHasTheDots) {
  EXPECT_EQ(SetOf(Rest(List("dir"))), (std::set<std::string>{".", ".."}));
}

TEST_F(Directories, ManyNamesAreAllListed) {
  MakeMany(500);
  EXPECT_EQ(Names("dir").size(), 500u);
  for (int i = 0; i < 500; i += 2) DONE(unlink(Numbered(i).c_str()));
  EXPECT_EQ(Names("dir").size(), 250u);
  EXPECT_TRUE(Exists(Numbered(1)));
  EXPECT_FALSE(Exists(Numbered(2)));
}

TEST_F(Directories, ARewoundListingSeesWhatIsThereNow) {
  const Listing listing = List("dir");
  EXPECT_EQ(Rest(listing).size(), 2u);
  Make("dir/a");
  rewinddir(listing.get());
  EXPECT_EQ(SetOf(Rest(listing)), (std::set<std::string>{".", "..", "a"}));
}

TEST_F(Directories, ASeekGoesBackToWhereItWasTold) {
  MakeMany(100);
  const Listing listing = List("dir");
  for (int i = 0; i < 37; ++i) ASSERT_NE(readdir(listing.get()), nullptr);
  const long here = telldir(listing.get());
  const std::vector<std::string> rest = Rest(listing);
  EXPECT_EQ(rest.size(), 65u);
  seekdir(listing.get(), here);
  EXPECT_EQ(Rest(listing), rest);
}

TEST_F(Directories, EveryPlaceOfAListingCanBeSoughtAgain) {
  MakeMany(20);
  const Listing listing = List("dir");
  std::vector<std::pair<long, std::string>> places_of;
  for (long here = telldir(listing.get()); const dirent* entry = readdir(listing.get());
       here = telldir(listing.get())) {
    places_of.emplace_back(here, entry->d_name);
  }
  EXPECT_EQ(places_of.size(), 22u);
  for (auto place = places_of.rbegin(); place != places_of.rend(); ++place) {
    seekdir(listing.get(), place->first);
    const dirent* const entry = readdir(listing.get());
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->d_name, place->second);
  }
}

TEST_F(Directories, ASeekGoesToTheSamePlaceAlsoIfNamesWentAndCame) {
  MakeMany(200);
  const Listing listing = List("dir");
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) seen.insert(readdir(listing.get())->d_name);
  const long here = telldir(listing.get());
  for (const std::string& name : seen) {
    if (name == "." || name == "..") continue;
    DONE(unlink(absl::StrCat("dir/", name).c_str()));
  }
  seekdir(listing.get(), here);
  const std::set<std::string> rest = SetOf(Rest(listing));
  EXPECT_EQ(rest.size(), 102u);
  for (const std::string& name : rest) EXPECT_FALSE(seen.contains(name)) << name;
}

TEST_F(Directories, WhatStaysIsListedOnceWhileOtherNamesGoAndCome) {
  MakeMany(300);
  const Listing listing = List("dir");
  std::vector<std::string> seen;
  for (int i = 0; const dirent* entry = readdir(listing.get()); ++i) {
    seen.push_back(entry->d_name);
    if (i >= 100) continue;
    Make(absl::StrCat("dir/came later ", i));
    DONE(unlink(Numbered(2 * i).c_str()));
  }
  const std::set<std::string> names = SetOf(seen);
  for (int i = 0; i < 300; ++i) {
    if (i < 200 && i % 2 == 0) continue;
    EXPECT_TRUE(names.contains(Numbered(i).substr(4))) << i;
  }
}

TEST_F(Directories, EachListedNameCanBeRemovedAtOnce) {
  MakeMany(300);
  const Listing listing = List("dir");
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    DONE(unlink(absl::StrCat("dir/", name).c_str()));
  }
  DONE(rmdir("dir"));
}

TEST_F(Directories, ARenameWhileListingLosesNoOtherName) {
  MakeMany(100);
  const Listing listing = List("dir");
  std::set<std::string> seen;
  for (int i = 0; const dirent* entry = readdir(listing.get()); ++i) {
    seen.insert(entry->d_name);
    if (i != 10) continue;
    DONE(rename(Numbered(50).c_str(), "dir/renamed"));
  }
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(i == 50 || seen.contains(Numbered(i).substr(4))) << i;
}

TEST_F(Directories, AreOpenForReadingAlone) {
  const Listing listing = List("dir");
  EXPECT_EQ(fcntl(dirfd(listing.get()), F_GETFL) & O_ACCMODE, O_RDONLY);
  FAILS(EBADF, Write(dirfd(listing.get()), "x"));
  FAILS(EINVAL, ftruncate(dirfd(listing.get()), 0));
}

TEST_F(Directories, NamesAreBytes) {
  for (const std::string name : {" ", "\n", "\xff\xfe", "ä", "*", "-", "...", "a\\b"}) {
    Make("dir/" + name, name);
    EXPECT_EQ(Read("dir/" + name), name);
  }
  EXPECT_EQ(Names("dir").size(), 8u);
  EXPECT_FALSE(Exists("DIR"));
}

}  // namespace
}  // namespace mangrove::posix
