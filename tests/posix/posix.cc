#include "tests/posix/posix.h"

#include <dirent.h>
#include <grp.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace mangrove::posix {
namespace {

constexpr char kCase[] = "case";

void MakeNames() {
  Make("file", "0123456789");
  Make("other", "other");
  Make("mine", "mine");
  DONE(chown("mine", kUser, kUser));
  for (const char* directory : {"dir", "full", "mydir", "secret", "open", "sticky"}) DONE(mkdir(directory, 0755));
  for (const char* name : {"full/in", "mydir/in", "secret/in"}) Make(name, "in");
  DONE(chown("mydir", kUser, kUser));
  DONE(chown("mydir/in", kUser, kUser));
  DONE(chmod("secret", 0700));
  DONE(chmod("open", 0777));
  DONE(chmod("sticky", 01777));
  Make("sticky/theirs", "theirs", 0666);
  DONE(chown("sticky/theirs", kStranger, kStranger));
  DONE(symlink("file", "link"));
  DONE(symlink("dir", "dirlink"));
  DONE(symlink("none", "dangling"));
  DONE(symlink("loop", "loop"));
  DONE(mkfifo("fifo", 0644));
}

// Everything that is to be seen of the tree, one line for a name. Local filesystems may change times though they refuse.
std::set<std::string> Snapshot() {
  std::set<std::string> seen;
  const std::string root = There("");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    const std::string name = entry.path().string().substr(root.size());
    const struct stat s = Stat(name);
    seen.insert(absl::StrCat(name, ": mode ", s.st_mode, " links ", s.st_nlink, " owner ", s.st_uid, ":", s.st_gid,
                             " size ", s.st_size, " inode ", s.st_ino));
    if (Posix::places.is_fileset) seen.insert(absl::StrCat(name, ": m ", Ns(s.st_mtim), " c ", Ns(s.st_ctim)));
  }
  return seen;
}

std::set<std::string> Without(std::set<std::string> all, const std::set<std::string>& these) {
  for (const std::string& one : these) all.erase(one);
  return all;
}

class RefusalCase final : public Posix {
 public:
  explicit RefusalCase(Refusal refusal) : refusal_(std::move(refusal)) {}
  void TestBody() override {
    const std::set<std::string> before = Snapshot();
    std::vector<std::string> allowed;
    for (const int error : refusal_.errors) allowed.push_back(ErrnoName(error));
    EXPECT_THAT(allowed, testing::Contains(Call()));
    const std::set<std::string> after = Snapshot();
    EXPECT_THAT(Without(before, after), testing::IsEmpty());
    EXPECT_THAT(Without(after, before), testing::IsEmpty());
  }

 private:
  std::string Call() const {
    if (refusal_.user == 0) return Outcome(refusal_.call());
    const As user(refusal_.user);
    return Outcome(refusal_.call());
  }

  const Refusal refusal_;
};

}  // namespace

Places Posix::places;

void Posix::SetUp() {
  umask(022);
  ASSERT_FALSE(places.act.empty());
  ASSERT_EQ(Outcome(chdir(places.act.c_str())), "done") << places.act;
  std::filesystem::remove_all(kCase);
  ASSERT_EQ(Outcome(mkdir(kCase, 0755)), "done");
  ASSERT_EQ(Outcome(chdir(kCase)), "done");
  MakeNames();
}

void Posix::TearDown() {
  umask(022);
  DONE(chdir(places.act.c_str()));
  std::filesystem::remove_all(kCase);
  DONE(chdir("/"));
}

std::string ErrnoName(int error) {
  const char* const name = strerrorname_np(error);
  return name == nullptr ? absl::StrCat("errno ", error) : name;
}

std::string Outcome(int64_t result) { return result >= 0 ? "done" : ErrnoName(errno); }

bool Refuses(const char* suite, const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    testing::RegisterTest(suite, refusal.name, nullptr, nullptr, __FILE__, __LINE__,
                          [refusal]() -> Posix* { return new RefusalCase(refusal); });
  }
  return true;
}

Fd Open(const std::string& name, int flags, mode_t mode) {
  Fd fd(open(name.c_str(), flags, mode));
  EXPECT_EQ(Outcome(fd), "done") << "open " << name;
  return fd;
}

void Make(const std::string& name, const std::string& bytes, mode_t mode) {
  const Fd fd = Open(name, O_WRONLY | O_CREAT | O_TRUNC);
  EXPECT_EQ(Write(fd, bytes), static_cast<int64_t>(bytes.size()));
  DONE(fchmod(fd, mode));
}

int64_t Write(int fd, const std::string& bytes) { return write(fd, bytes.data(), bytes.size()); }

int64_t WriteAt(int fd, const std::string& bytes, off_t offset) {
  return pwrite(fd, bytes.data(), bytes.size(), offset);
}

std::string ReadAt(int fd, off_t offset, size_t most) {
  std::string bytes(most, '\0');
  const ssize_t length = pread(fd, bytes.data(), bytes.size(), offset);
  DONE(length);
  bytes.resize(static_cast<size_t>(std::max<ssize_t>(length, 0)));
  return bytes;
}

char* NoAddress() {
  static volatile uintptr_t address = 8;
  return reinterpret_cast<char*>(address);
}

// The calls of the C library would change all threads, and the daemon may be one of them.
As::As(uid_t user, gid_t group, const std::vector<gid_t>& groups) {
  EXPECT_EQ(syscall(SYS_setgroups, groups.size(), groups.data()), 0);
  EXPECT_EQ(syscall(SYS_setresgid, group, group, 0), 0);
  EXPECT_EQ(syscall(SYS_setresuid, user, user, 0), 0);
}

As::~As() {
  EXPECT_EQ(syscall(SYS_setresuid, 0, 0, 0), 0);
  EXPECT_EQ(syscall(SYS_setresgid, 0, 0, 0), 0);
  EXPECT_EQ(syscall(SYS_setgroups, 0, nullptr), 0);
}

std::string There(const std::string& name) { return absl::StrCat(Posix::places.look, "/", kCase, "/", name); }

struct stat Stat(const std::string& name) {
  struct stat s {};
  EXPECT_EQ(Outcome(lstat(There(name).c_str(), &s)), "done") << name;
  return s;
}

std::string StatOutcome(const std::string& name) {
  struct stat s {};
  return Outcome(lstat(There(name).c_str(), &s));
}

std::string Read(const std::string& name) {
  std::ifstream in(There(name), std::ios::binary);
  EXPECT_TRUE(in.good()) << name;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string ReadLink(const std::string& name) {
  std::string target(8192, '\0');
  const ssize_t length = readlink(There(name).c_str(), target.data(), target.size());
  DONE(length);
  target.resize(static_cast<size_t>(std::max<ssize_t>(length, 0)));
  return target;
}

std::set<std::string> Names(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(There(directory))) {
    EXPECT_TRUE(names.insert(entry.path().filename()).second) << entry.path() << " is there twice";
  }
  return names;
}

void AwaitLaterTime() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  timespec coarse{};
  // The kernel's filesystems note the time of its last tick.
  do {
    clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
  } while (Ns(coarse) <= Ns(now));
}

void Age(const std::string& name) {
  const timespec times[2] = {{1'000'000'000, 0}, {1'100'000'000, 0}};
  DONE(utimensat(AT_FDCWD, name.c_str(), times, AT_SYMLINK_NOFOLLOW));
  AwaitLaterTime();
}

std::string Touched(const std::string& name, const std::function<int64_t()>& call) {
  Age(name);
  const struct stat before = Stat(name);
  DONE(call());
  const struct stat after = Stat(name);
  std::string touched;
  if (Ns(after.st_atim) != Ns(before.st_atim)) touched += 'a';
  if (Ns(after.st_mtim) != Ns(before.st_mtim)) touched += 'm';
  if (Ns(after.st_ctim) != Ns(before.st_ctim)) touched += 'c';
  return touched;
}

}  // namespace mangrove::posix
