// utimensat and its relatives, and which call changes which of the three times.
// Covers: F06

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

#include "absl/strings/str_replace.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

constexpr timespec kNow{0, UTIME_NOW};
constexpr timespec kOmit{0, UTIME_OMIT};

int64_t SetTimes(const char* path, timespec access, timespec change, int flags = 0) {
  const timespec times[2] = {access, change};
  return utimensat(AT_FDCWD, path, times, flags);
}

const bool refusals = Refuses(
    "UtimensatRefuses",
    {
        {"Nothing", {ENOENT}, [] { return utimensat(AT_FDCWD, "none", nullptr, 0); }},
        {"NothingAlsoIfItKeepsAll", {ENOENT}, [] { return SetTimes("none", kOmit, kNow); }},
        {"ALinkToNothing", {ENOENT}, [] { return utimensat(AT_FDCWD, "dangling", nullptr, 0); }},
        {"ThroughAFile", {ENOTDIR}, [] { return utimensat(AT_FDCWD, "file/x", nullptr, 0); }},
        {"ALoop", {ELOOP}, [] { return utimensat(AT_FDCWD, "loop", nullptr, 0); }},
        {"TooManyNanoseconds",
         {EINVAL},
         [] {
           return SetTimes("file", {1, 1'000'000'000}, {1, 0});
         }},
        {"FewerThanNoNanoseconds",
         {EINVAL},
         [] {
           return SetTimes("file", {1, 0}, {1, -1});
         }},
        {"UnknownFlags", {EINVAL}, [] { return SetTimes("file", kNow, kNow, 1 << 20); }},
        {"WhatIsNotOpen", {EBADF}, [] { return futimens(987, nullptr); }},
        {"ABadAddress", {EFAULT}, [] { return utimensat(AT_FDCWD, NoAddress(), nullptr, 0); }},
        {"NowOfWhatOneMayNotWrite", {EACCES}, [] { return utimensat(AT_FDCWD, "file", nullptr, 0); }, kUser},
        {"NowTwiceOfWhatOneMayNotWrite", {EACCES}, [] { return SetTimes("file", kNow, kNow); }, kUser},
        {"TimesOfAnothers",
         {EPERM},
         [] {
           return SetTimes("file", {1, 0}, {1, 0});
         },
         kUser},
        {"TimesOfAnothersThatOneMayWrite",
         {EPERM},
         [] {
           return SetTimes("open", {1, 0}, {1, 0});
         },
         kUser},
        {"OneNowOfAnothersThatOneMayWrite", {EPERM}, [] { return SetTimes("open", kNow, kOmit); }, kUser},
        {"BehindAClosedDirectory", {EACCES}, [] { return utimensat(AT_FDCWD, "secret/in", nullptr, 0); }, kUser},
    });

class Times : public Posix {
 protected:
  static bool IsRecent(const timespec& time) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - time.tv_sec < 300 && time.tv_sec <= now.tv_sec + 1;
  }
  static void ExpectTimes(const std::string& name, timespec access, timespec change) {
    EXPECT_EQ(Ns(Stat(name).st_atim), Ns(access)) << name;
    EXPECT_EQ(Ns(Stat(name).st_mtim), Ns(change)) << name;
  }
};

TEST_F(Times, AreSetToTheNanosecond) {
  DONE(SetTimes("file", {1'234'567'890, 123'456'789}, {1'345'678'901, 987'654'321}));
  ExpectTimes("file", {1'234'567'890, 123'456'789}, {1'345'678'901, 987'654'321});
  DONE(SetTimes("dir", {1, 1}, {2, 2}));
  ExpectTimes("dir", {1, 1}, {2, 2});
}

TEST_F(Times, OfBeforeTheEpochAndOfALongTimeAfter) {
  DONE(SetTimes("file", {-1'000, 5}, {-1, 999'999'999}));
  ExpectTimes("file", {-1'000, 5}, {-1, 999'999'999});
  DONE(SetTimes("file", {4'294'967'296, 0}, {6'000'000'000, 7}));
  ExpectTimes("file", {4'294'967'296, 0}, {6'000'000'000, 7});
}

TEST_F(Times, CanBeNow) {
  Age("file");
  DONE(SetTimes("file", kNow, kNow));
  EXPECT_TRUE(IsRecent(Stat("file").st_atim));
  EXPECT_TRUE(IsRecent(Stat("file").st_mtim));
  Age("file");
  DONE(utimensat(AT_FDCWD, "file", nullptr, 0));
  EXPECT_TRUE(IsRecent(Stat("file").st_atim));
  EXPECT_TRUE(IsRecent(Stat("file").st_mtim));
}

TEST_F(Times, CanBeLeft) {
  DONE(SetTimes("file", {1, 0}, {2, 0}));
  DONE(SetTimes("file", kOmit, {3, 0}));
  ExpectTimes("file", {1, 0}, {3, 0});
  DONE(SetTimes("file", {4, 0}, kOmit));
  ExpectTimes("file", {4, 0}, {3, 0});
  DONE(SetTimes("file", kOmit, kNow));
  EXPECT_EQ(Stat("file").st_atim.tv_sec, 4);
  EXPECT_TRUE(IsRecent(Stat("file").st_mtim));
}

TEST_F(Times, BothLeftChangeNothingAndAskForNothing) {
  EXPECT_EQ(Touched("file", [] { return SetTimes("file", kOmit, kOmit); }), "");
  const As user(kUser);
  DONE(SetTimes("file", kOmit, kOmit));
}

TEST_F(Times, OfALinkItself) {
  Age("file");
  DONE(SetTimes("link", {5, 0}, {6, 0}, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(Stat("link").st_mtim.tv_sec, 6);
  EXPECT_EQ(Stat("file").st_mtim.tv_sec, 1'100'000'000);
  DONE(SetTimes("link", {7, 0}, {8, 0}));
  EXPECT_EQ(Stat("file").st_mtim.tv_sec, 8);
  EXPECT_EQ(Stat("link").st_mtim.tv_sec, 6);
}

TEST_F(Times, OfDescriptorsAlsoOfReadingOnes) {
  const timespec times[2] = {{5, 0}, {6, 0}};
  DONE(futimens(Open("file", O_RDONLY), times));
  EXPECT_EQ(Stat("file").st_mtim.tv_sec, 6);
  DONE(futimens(Open("dir", O_RDONLY), times));
  EXPECT_EQ(Stat("dir").st_mtim.tv_sec, 6);
}

TEST_F(Times, TheOldCallsSetThemToo) {
  const utimbuf seconds{.actime = 5, .modtime = 6};
  DONE(utime("file", &seconds));
  ExpectTimes("file", {5, 0}, {6, 0});
  const timeval micros[2] = {{7, 8}, {9, 10}};
  DONE(utimes("file", micros));
  ExpectTimes("file", {7, 8'000}, {9, 10'000});
}

TEST_F(Times, TheOwnerSetsThemWhateverTheMode) {
  DONE(chmod("mine", 0));
  {
    const As user(kUser);
    DONE(SetTimes("mine", {5, 0}, {6, 0}));
    DONE(utimensat(AT_FDCWD, "mine", nullptr, 0));
  }
  EXPECT_TRUE(IsRecent(Stat("mine").st_mtim));
}

TEST_F(Times, WhoMayWriteMaySetNow) {
  Make("a", "", 0666);
  Age("a");
  {
    const As user(kUser);
    DONE(utimensat(AT_FDCWD, "a", nullptr, 0));
    DONE(SetTimes("a", kNow, kNow));
  }
  EXPECT_TRUE(IsRecent(Stat("a").st_mtim));
}

TEST_F(Times, OfWhatIsMadeAreNow) {
  DONE(Open("a", O_RDWR | O_CREAT));
  DONE(mkdir("d", 0755));
  DONE(symlink("x", "s"));
  for (const char* name : {"a", "d", "s"}) {
    const struct stat s = Stat(name);
    EXPECT_TRUE(IsRecent(s.st_atim)) << name;
    EXPECT_TRUE(IsRecent(s.st_mtim)) << name;
    EXPECT_TRUE(IsRecent(s.st_ctim)) << name;
  }
}

TEST_F(Times, NeverGoBack) {
  int64_t last = Ns(Stat("file").st_ctim);
  for (int i = 0; i < 20; ++i) {
    DONE(chmod("file", i % 2 == 0 ? 0600 : 0644));
    const int64_t now = Ns(Stat("file").st_ctim);
    EXPECT_GE(now, last);
    last = now;
  }
}

// A call, the name that is looked at, and which of its times must be other ones: a access, m change, c change of status.
struct Row {
  const char* name;
  const char* looked_at;
  std::vector<const char*> touched;
  std::function<int64_t()> call;
  std::vector<const char*> on_a_fileset = {};  // Where its limits make it another answer.
};

class TouchCase final : public Posix {
 public:
  explicit TouchCase(Row row) : row_(std::move(row)) {}
  void TestBody() override {
    const bool is_limited = places.is_fileset && !row_.on_a_fileset.empty();
    const std::vector<const char*>& touched = is_limited ? row_.on_a_fileset : row_.touched;
    std::vector<std::string> allowed(touched.begin(), touched.end());
    struct statvfs filesystem {};
    DONE(statvfs(".", &filesystem));
    if ((filesystem.f_flag & (ST_NOATIME | ST_NODIRATIME)) != 0) {
      for (const char* one : touched) allowed.push_back(absl::StrReplaceAll(one, {{"a", ""}}));
    }
    EXPECT_THAT(allowed, testing::Contains(Touched(row_.looked_at, row_.call)));
  }

 private:
  const Row row_;
};

bool Touches(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    testing::RegisterTest("Touches", row.name, nullptr, nullptr, __FILE__, __LINE__,
                          [row]() -> Posix* { return new TouchCase(row); });
  }
  return true;
}

int64_t ReadSome(int fd, size_t length) {
  char bytes[64];
  return read(fd, bytes, length);
}

int64_t ListSome(const char* name) { return std::ssize(Names(name)) >= 0 && Open(name, O_RDONLY) >= 0 ? 0 : -1; }

int64_t StoreMapped() {
  const Fd fd = Open("file");
  void* const mapped = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return -1;
  *static_cast<volatile char*>(mapped) = 'x';
  const int synced = msync(mapped, 4096, MS_SYNC);
  munmap(mapped, 4096);
  return synced;
}

const bool rows = Touches({
    {"AReadTheTimeOfAccess", "file", {"a"}, [] { return ReadSome(Open("file"), 4); }},
    {"AReadOfNothingNone", "file", {""}, [] { return ReadSome(Open("file"), 0); }},
    {"AReadThatSparesItNone", "file", {""}, [] { return ReadSome(Open("file", O_RDONLY | O_NOATIME), 4); }, {"a"}},
    {"AWriteTheChange", "file", {"mc"}, [] { return WriteAt(Open("file"), "x", 0); }},
    {"AWriteAtTheEndTheChange", "file", {"mc"}, [] { return Write(Open("file", O_WRONLY | O_APPEND), "x"); }},
    {"AWriteOfNothingNone", "file", {""}, [] { return Write(Open("file"), ""); }},
    {"ATruncationTheChange", "file", {"mc"}, [] { return truncate("file", 3); }},
    {"GrowingTheChange", "file", {"mc"}, [] { return ftruncate(Open("file"), 30); }},
    {"ATruncationToTheSameSizeMayBeNone", "file", {"mc", ""}, [] { return truncate("file", 10); }},
    {"OpeningAndTruncatingTheChange", "file", {"mc"}, [] { return Open("file", O_RDWR | O_TRUNC); }},
    {"OpeningNone", "file", {""}, [] { return Open("file"); }},
    {"OpeningWhatIsThereNone", "file", {""}, [] { return Open("file", O_RDWR | O_CREAT); }},
    {"OpeningWhatIsThereNoneOfTheDirectory", ".", {""}, [] { return Open("file", O_RDWR | O_CREAT); }},
    {"CreatingTheDirectory", "dir", {"mc"}, [] { return Open("dir/a", O_RDWR | O_CREAT); }},
    {"MkdirTheDirectory", "dir", {"mc"}, [] { return mkdir("dir/a", 0755); }},
    {"MkfifoTheDirectory", "dir", {"mc"}, [] { return mkfifo("dir/a", 0755); }},
    {"SymlinkTheDirectory", "dir", {"mc"}, [] { return symlink("x", "dir/a"); }},
    {"LinkTheDirectory", "dir", {"mc"}, [] { return link("file", "dir/a"); }},
    {"LinkTheFile", "file", {"c"}, [] { return link("file", "dir/a"); }},
    {"UnlinkTheDirectory", "full", {"mc"}, [] { return unlink("full/in"); }},
    {"UnlinkTheFileThatHasAnotherName", "file", {"c"}, [] { return link("file", "a"), AwaitLaterTime(), unlink("a"); }},
    {"RmdirTheDirectory", ".", {"mc"}, [] { return rmdir("dir"); }},
    {"RenameWhereItComesFrom", "full", {"mc"}, [] { return rename("full/in", "dir/a"); }},
    {"RenameWhereItGoesTo", "dir", {"mc"}, [] { return rename("full/in", "dir/a"); }},
    {"RenameOverANameTheDirectory", ".", {"mc"}, [] { return rename("file", "other"); }},
    {"RenameToItselfNone", ".", {""}, [] { return rename("file", "file"); }},
    {"ExchangeBothDirectories",
     "dir",
     {"mc"},
     [] {
       return mkdir("dir/a", 0755), AwaitLaterTime(), renameat2(AT_FDCWD, "file", AT_FDCWD, "dir/a", RENAME_EXCHANGE);
     }},
    {"ChmodTheStatus", "file", {"c"}, [] { return chmod("file", 0600); }},
    {"ChmodToTheSameTheStatus", "file", {"c"}, [] { return chmod("file", 0644); }},
    {"ChownTheStatus", "file", {"c"}, [] { return chown("file", 1, 1); }},
    {"LchownTheStatusOfTheLink", "link", {"c"}, [] { return lchown("link", 1, 1); }},
    {"TimesAndTheStatus",
     "file",
     {"amc"},
     [] {
       return SetTimes("file", {1, 0}, {2, 0});
     }},
    {"OneTimeAndTheStatus",
     "file",
     {"mc"},
     [] {
       return SetTimes("file", kOmit, {2, 0});
     }},
    {"SetxattrTheStatus", "file", {"c"}, [] { return setxattr("file", "user.a", "x", 1, 0); }},
    {"RemovexattrTheStatus",
     "other",
     {"c"},
     [] { return setxattr("other", "user.a", "x", 1, 0), AwaitLaterTime(), removexattr("other", "user.a"); }},
    {"GetxattrNone", "file", {""}, [] { return listxattr("file", nullptr, 0); }},
    {"StatNone",
     "file",
     {""},
     [] {
       struct stat s {};
       return stat("file", &s);
     }},
    {"StatNoneOfTheDirectory",
     ".",
     {""},
     [] {
       struct stat s {};
       return stat("file", &s);
     }},
    {"AccessNone", "file", {""}, [] { return access("file", R_OK); }},
    {"ReadlinkTheTimeOfAccess",
     "link",
     {"a"},
     [] {
       char b[16];
       return readlink("link", b, 16);
     },
     {""}},
    {"ListingTheTimeOfAccess", "full", {"a"}, [] { return ListSome("full"); }, {""}},
    {"AllocatingMoreTheChange", "file", {"mc"}, [] { return fallocate(Open("file"), 0, 0, 30); }},
    {"PunchingTheChange",
     "file",
     {"mc"},
     [] { return fallocate(Open("file"), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 3); }},
    {"CopyingTheTarget",
     "other",
     {"mc"},
     [] { return copy_file_range(Open("file"), nullptr, Open("other"), nullptr, 3, 0); }},
    {"CopyingTheSource",
     "file",
     {"a", ""},
     [] { return copy_file_range(Open("file"), nullptr, Open("other"), nullptr, 3, 0); }},
    {"StoringMappedTheChange", "file", {"mc", "amc"}, [] { return StoreMapped(); }},
    {"FsyncNone", "file", {""}, [] { return fsync(Open("file")); }},
    {"SeekNone", "file", {""}, [] { return lseek(Open("file"), 0, SEEK_END); }},
});

}  // namespace
}  // namespace mangrove::posix
