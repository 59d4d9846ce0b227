#include "fs/mount/mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "fs/mount/kernel_channel.h"
#include "fs/mount/session.h"
#include "fs/status.h"
#include "net/check.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

constexpr char kType[] = "fuse.mangrove";
// In one turn of the loop.
constexpr int kMostRequests = 32;
// Less than what a lease is given up before it ends (PageEngine::mapped_until).
constexpr DurationNs kLongTurn = 5 * kMillisecond;

// What /proc says is mounted there: its type. Empty: nothing.
std::string TypeOfMount(const std::string& directory) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  std::string type;
  while (std::getline(mounts, line)) {
    std::istringstream words(line);
    std::string word;
    std::string place;
    for (int i = 0; i < 5; ++i) words >> place;
    place = absl::StrReplaceAll(place, {{"\\040", " "}, {"\\011", "\t"}, {"\\012", "\n"}, {"\\134", "\\"}});
    while (words >> word && word != "-") {
    }
    words >> word;
    if (place == directory) type = word;
  }
  return type;
}

// The one name that the kernel has for it.
absl::StatusOr<std::string> NameOf(const std::string& directory) {
  if (directory.empty() || directory[0] != '/') {
    return PosixError(EINVAL, absl::StrCat("\"", directory, "\" is no absolute path of a directory"));
  }
  char* const name = realpath(directory.c_str(), nullptr);
  if (name == nullptr) {
    const int error = errno;
    return PosixError(error, absl::StrCat(directory, " cannot be opened: ", strerror(error)));
  }
  std::string copy(name);
  std::free(name);
  return copy;
}

absl::Status CheckDirectory(const std::string& directory) {
  const std::string type = TypeOfMount(directory);
  DIR* const opened = opendir(directory.c_str());
  if (opened == nullptr) {
    const int error = errno;
    if (error == ENOTCONN && type == kType) {  // Its process has gone.
      if (umount2(directory.c_str(), MNT_DETACH) != 0) return PosixError(errno, absl::StrCat("unmounting ", directory));
      return CheckDirectory(directory);
    }
    return PosixError(error, absl::StrCat(directory, " cannot be opened: ", strerror(error)));
  }
  bool is_empty = true;
  while (const dirent* entry = readdir(opened)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") is_empty = false;
  }
  closedir(opened);
  if (!type.empty()) return PosixError(EBUSY, absl::StrCat(directory, " has a mount already, of type ", type));
  if (!is_empty) return PosixError(ENOTEMPTY, absl::StrCat(directory, " is not empty"));
  return absl::OkStatus();
}

std::string OptionsText(const MountOptions& options) {
  std::string text = absl::StrCat("default_permissions,allow_other,subtype=mangrove,fsname=",
                                  absl::StrReplaceAll(options.source, {{"\\", "\\\\"}, {",", "\\,"}}));
  for (const std::string& flag : options.flags) absl::StrAppend(&text, ",", flag);
  return text;
}

// libfuse's words are this daemon's: "fuse: ..." and the reason.
__attribute__((format(printf, 2, 0))) void LogFuse(fuse_log_level level, const char* format, va_list arguments) {
  std::array<char, 1024> text;
  if (vsnprintf(text.data(), text.size(), format, arguments) < 0) return;
  const absl::string_view line = absl::StripTrailingAsciiWhitespace(text.data());
  if (line.empty()) return;
  if (level <= FUSE_LOG_ERR) {
    LogError("libfuse: ", line);
  } else if (level <= FUSE_LOG_WARNING) {
    LogWarning("libfuse: ", line);
  } else {
    LogDebug("libfuse: ", line);
  }
}

}  // namespace

bool IsMountOption(std::string_view option) {
  constexpr std::array<std::string_view, 9> kOptions{"ro",   "rw",    "noexec", "exec",   "nosuid",
                                                     "suid", "nodev", "dev",    "noatime"};
  return std::find(kOptions.begin(), kOptions.end(), option) != kOptions.end();
}

Mount::State::~State() {
  if (session != nullptr) fuse_session_destroy(session);
  std::free(buffer.mem);
}

// Nothing more is read. Who still waits for an answer gets one from the kernel.
void Mount::State::End() {
  if (fd < 0) return;
  if (is_read) loop->RemoveFd(fd);
  fd = -1;
  for (LockWait* wait : lock_waits) wait->Cancel();
  cache.Stop();
  notices.End();
  fuse_session_exit(session);
}

void Mount::State::BeginToRead() {
  is_read = true;
  loop->AddFd(fd, EPOLLIN, [this](uint32_t events) { ReadRequests(events); });
}

void Mount::State::ReadRequests(uint32_t events) {
  const auto keep = shared_from_this();
  for (int i = 0; i < kMostRequests && fd >= 0 && !has_late_request; ++i) {
    const int bytes = fuse_session_receive_buf(session, &buffer);
    if (bytes == -EAGAIN || bytes == -EINTR) break;
    if (bytes <= 0) {
      End();
      break;
    }
    // The process may have stood still since this turn of the loop began, and its time is of then: others may have gone on without this node.
    if (loop->ExactNow() - loop->Now() > kLongTurn) {
      has_late_request = true;
      loop->CallAt(loop->ExactNow(), [keep] {
        keep->has_late_request = false;
        if (keep->fd >= 0) fuse_session_process_buf(keep->session, &keep->buffer);
      });
      break;
    }
    fuse_session_process_buf(session, &buffer);
  }
  if (fd >= 0 && ((events & EPOLLERR) != 0 || fuse_session_exited(session) != 0)) End();
  if (fd < 0 && ended) std::exchange(ended, {})();
}

Mount::Mount(std::shared_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<Mount>> Mount::Create(MountOptions options) {
  // Nothing is mounted there between the look and this mount.
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  for (const std::string& flag : options.flags) {
    if (!IsMountOption(flag)) return PosixError(EINVAL, absl::StrCat("unknown mount option \"", flag, "\""));
  }
  const absl::StatusOr<std::string> directory = NameOf(options.directory);
  if (!directory.ok()) return directory.status();
  options.directory = *directory;
  if (absl::Status s = CheckDirectory(options.directory); !s.ok()) return s;
  auto state = std::make_shared<State>();
  state->options = std::move(options);
  for (const std::string& flag : state->options.flags) {
    if (flag == "ro" || flag == "noatime") state->keeps_access_times = true;
  }
  fuse_set_log_func(LogFuse);
  std::string words = OptionsText(state->options);
  std::string program = "mangrove";
  std::string flag = "-o";
  std::array<char*, 3> argv{program.data(), flag.data(), words.data()};
  fuse_args args{.argc = argv.size(), .argv = argv.data(), .allocated = 0};
  state->session = fuse_session_new(&args, &FuseOperations(), sizeof(FuseOperations()), state.get());
  fuse_opt_free_args(&args);
  if (state->session == nullptr) return PosixError(EINVAL, absl::StrCat("the mount options ", words, " were refused"));
  if (fuse_session_mount(state->session, state->options.directory.c_str()) != 0) {
    return PosixError(EACCES,
                      absl::StrCat("mounting at ", state->options.directory, " failed: it takes root, and /dev/fuse"));
  }
  if (absl::Status s = state->notices.Prepare(state->options.directory); !s.ok()) {
    fuse_session_unmount(state->session);
    return s;
  }
  const int fd = fuse_session_fd(state->session);
  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
    const int error = errno;
    fuse_session_unmount(state->session);
    return PosixError(error, "making /dev/fuse non-blocking");
  }
  if (absl::Status s = UseKernelChannel(state.get()); !s.ok()) {
    fuse_session_unmount(state->session);
    return s;
  }
  return std::unique_ptr<Mount>(new Mount(std::move(state)));
}

Mount::~Mount() {
  state_->notices.Stop();
  fuse_session_unmount(state_->session);
}

void Mount::Stop() {
  state_->ended = nullptr;
  state_->End();
}

void Mount::Serve(Loop* loop, Filesystem* filesystem, std::function<void()> ended) {
  CHECK(state_->loop == nullptr);
  static std::atomic<uint16_t> last_number = 0;
  state_->number = ++last_number;
  state_->loop = loop;
  state_->filesystem = filesystem;
  state_->known.SetRoot(filesystem->root());
  state_->ended = std::move(ended);
  state_->fd = fuse_session_fd(state_->session);
  state_->notices.Begin(state_->fd, loop);
  const bool is_second = filesystem->copies() != nullptr && filesystem->copies()->HasKeeper();
  state_->cache.Begin(loop, filesystem->copies(), state_->notices.CanDropBytes());
  if (!is_second) return state_->BeginToRead();
  // Names that the kernel keeps of the first mount end before anybody changes them by this one.
  loop->CallAt(loop->ExactNow() + KernelCache::kNamesLast, [weak = std::weak_ptr(state_)] {
    const std::shared_ptr<State> state = weak.lock();
    if (state != nullptr && state->fd >= 0) state->BeginToRead();
  });
}

absl::Status Mount::Unmount(const std::string& directory, bool by_force) {
  // The daemon itself has a file open for some moments, at times (kernel_notices.h).
  constexpr int kTries = 5;
  constexpr int kAgainMs = 20;
  int error = 0;
  for (int i = 0; i < kTries; ++i) {
    if (umount2(directory.c_str(), by_force ? MNT_DETACH : 0) == 0) return absl::OkStatus();
    error = errno;
    if (error != EBUSY) break;
    poll(nullptr, 0, kAgainMs);
  }
  return PosixError(error,
                    absl::StrCat(directory, error == EBUSY ? " is in use: unmount it by force, or end what uses it"
                                                           : absl::StrCat(" cannot be unmounted: ", strerror(error))));
}

const MountOptions& Mount::options() const { return state_->options; }
uint16_t Mount::number() const { return state_->number; }
size_t Mount::under_way() const { return state_->under_way; }
size_t Mount::known_files() const { return state_->known.size(); }

}  // namespace mangrove::fs
