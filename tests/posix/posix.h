// What POSIX and the manual pages of Linux promise of a filesystem, call by call.
//
// A case runs in a directory of its own, which is its working directory, and which holds the names below. It acts there by
// plain system calls with relative paths; what came of it is looked at by Stat, Read, Names and the like, which look at the same
// directory, perhaps through another mount (Places). So one case says of a local directory, of a mount, and of two mounts what they
// must do. Where Linux's filesystems differ among each other a case takes what POSIX allows, and says so.
//
//   file       "0123456789", of root, 0644     dir        empty                         link      -> file
//   other      "other"                         full       holds full/in                 dirlink   -> dir
//   mine       "mine", of kUser, 0644          mydir      of kUser, holds mydir/in      dangling  -> none
//   fifo                                       secret     0700, holds secret/in         loop      -> loop
//   open       0777                            sticky     01777, holds sticky/theirs of kStranger, 0666

#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mangrove::posix {

constexpr uid_t kUser = 1000;
constexpr uid_t kStranger = 2000;
constexpr gid_t kGroup = 3000;  // Nobody's, until a case says so.

// Absolute paths of directories that show the same.
struct Places {
  std::string act;
  std::string look;
  bool is_fileset = false;  // Not a local directory: the limits of docs/FILESYSTEM.md hold.
};

class Posix : public testing::Test {
 public:
  static Places places;  // Set before the first case.

 protected:
  void SetUp() override;
  void TearDown() override;
};

// --- Calls and what they say -----------------------------------------------------------------------------------------

// "done", or the name of what a call that gave `result` has failed with.
std::string Outcome(int64_t result);
std::string ErrnoName(int error);

#define DONE(call) EXPECT_EQ(Outcome(call), "done") << #call
#define FAILS(error, call) EXPECT_EQ(Outcome(call), ErrnoName(error)) << #call

// A call that must fail with one of the errors, as the user, and must leave all as it was.
struct Refusal {
  const char* name;
  std::vector<int> errors;
  std::function<int64_t()> call;
  uid_t user = 0;
};

// Makes each of them a case of the suite.
bool Refuses(const char* suite, const std::vector<Refusal>& refusals);

// Of an open file; closed at its end.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& from) noexcept : fd_(std::exchange(from.fd_, -1)) {}
  Fd& operator=(Fd&&) = delete;
  ~Fd() { Close(); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  operator int() const { return fd_; }  // NOLINT: system calls take it.

 private:
  int fd_;
};

// It must be possible.
Fd Open(const std::string& name, int flags = O_RDWR, mode_t mode = 0644);
// A file that holds `bytes`; its mode is not masked.
void Make(const std::string& name, const std::string& bytes = "", mode_t mode = 0644);
int64_t Write(int fd, const std::string& bytes);
int64_t WriteAt(int fd, const std::string& bytes, off_t offset);
std::string ReadAt(int fd, off_t offset, size_t most = 1 << 20);
// An address that is none.
char* NoAddress();

// While it is there this thread is another user, without any capability; the real, effective and filesystem ids are its.
class As {
 public:
  explicit As(uid_t user, gid_t group, const std::vector<gid_t>& groups = {});
  explicit As(uid_t user) : As(user, user) {}
  As(const As&) = delete;
  As& operator=(const As&) = delete;
  ~As();
};

class Umask {
 public:
  explicit Umask(mode_t mask) : before_(umask(mask)) {}
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;
  ~Umask() { umask(before_); }

 private:
  mode_t before_;
};

// --- What is seen where one looks; always as root --------------------------------------------------------------------

// An absolute path.
std::string There(const std::string& name);
struct stat Stat(const std::string& name);  // Of the name itself.
std::string StatOutcome(const std::string& name);
inline bool Exists(const std::string& name) { return StatOutcome(name) == "done"; }
inline off_t Size(const std::string& name) { return Stat(name).st_size; }
inline mode_t Mode(const std::string& name) { return Stat(name).st_mode & 07777; }
inline nlink_t Links(const std::string& name) { return Stat(name).st_nlink; }
std::string Read(const std::string& name);
std::string ReadLink(const std::string& name);
std::set<std::string> Names(const std::string& directory);  // Without the dots.

// --- Times -----------------------------------------------------------------------------------------------------------

inline int64_t Ns(const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; }
// Access and change become a day of long ago, and what happens from here on is later than what happened before.
void Age(const std::string& name);
// Which of the times of the name are other ones after the call, where one looks: a subset of "amc".
std::string Touched(const std::string& name, const std::function<int64_t()>& call);
// Returns when whatever a filesystem notes from here on is later than everything that it has noted.
void AwaitLaterTime();

}  // namespace mangrove::posix
