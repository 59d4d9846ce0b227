#include "fs/mount/kernel_notices.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "fs/status.h"
#include "net/check.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

constexpr int64_t kAttributesAlone = -1;
// A read of a node that is away keeps a thread for seconds.
constexpr size_t kMostThreads = 4;
constexpr size_t kLongestRequest = (1 << 20) + 4096;

// The error that the kernel answers; 0: it is done.
int DropInode(int fd, uint64_t number, int64_t from) {
  fuse_notify_inval_inode_out what{};
  what.ino = number;
  what.off = from;
  fuse_out_header header{};
  header.len = sizeof(header) + sizeof(what);
  header.error = FUSE_NOTIFY_INVAL_INODE;
  const std::array<iovec, 2> parts{{{&header, sizeof(header)}, {&what, sizeof(what)}}};
  while (writev(fd, parts.data(), parts.size()) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

// A file of FUSE by its number, in whatever mount `directory` is of. Below 0: errno.
int OpenByNumber(int directory, uint64_t number, uint64_t generation, int flags) {
  constexpr int kFuseHandle = 0x81;  // Of three words.
  struct {
    file_handle head;
    std::array<uint32_t, 3> words;
  } handle{};
  static_assert(offsetof(decltype(handle), words) == sizeof(file_handle));
  handle.head.handle_bytes = sizeof(handle.words);
  handle.head.handle_type = kFuseHandle;
  handle.words = {static_cast<uint32_t>(number >> 32), static_cast<uint32_t>(number),
                  static_cast<uint32_t>(generation)};
  return open_by_handle_at(directory, &handle.head, flags);
}

// Some of what came since nobody serves the session.
void AnswerWithErrors(int fd, std::vector<char>* request) {
  constexpr int kAtATime = 64;
  request->resize(kLongestRequest);
  for (int i = 0; i < kAtATime; ++i) {
    if (read(fd, request->data(), request->size()) < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
    fuse_in_header in;
    std::memcpy(&in, request->data(), sizeof(in));
    if (in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET || in.opcode == FUSE_INTERRUPT) continue;
    const fuse_out_header out{.len = sizeof(out), .error = -EIO, .unique = in.unique};
    if (write(fd, &out, sizeof(out)) < 0) continue;  // Its caller has gone.
  }
}

}  // namespace

KernelNotices::~KernelNotices() {
  Stop();
  if (done_fd_ >= 0) close(done_fd_);
}

absl::Status KernelNotices::Prepare(std::string directory) {
  directory_ = std::move(directory);
  done_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (done_fd_ < 0) return PosixError(errno, "a descriptor for events cannot be had");
  const int place = open(directory_.c_str(), O_PATH | O_CLOEXEC);
  if (place < 0) return PosixError(errno, "the mount cannot be looked at");
  struct statx s {};
  // Nobody serves the mount yet, and nobody is asked.
  if (statx(place, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &s) == 0)
    device_ = makedev(s.stx_dev_major, s.stx_dev_minor);
  close(place);
  // Who may do it is told that there is no such file.
  const int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int opened = root < 0 ? -1 : OpenByNumber(root, 0, 0, O_PATH | O_CLOEXEC);
  can_open_ = opened >= 0 || (errno != EPERM && errno != ENOSYS);
  if (!can_open_) LogWarning(directory_, ": the kernel keeps no bytes of files: CAP_DAC_READ_SEARCH is missing");
  if (opened >= 0) close(opened);
  if (root >= 0) close(root);
  return absl::OkStatus();
}

void KernelNotices::Begin(int fd, Loop* loop) {
  fd_ = fd;
  loop_ = loop;
  loop->AddFd(done_fd_, EPOLLIN, [this](uint32_t) { Finish(); });
}

void KernelNotices::End() {
  loop_->RemoveFd(done_fd_);
  const std::lock_guard<std::mutex> lock(mutex_);
  ends_ = true;
  bytes_.clear();
  wanted_.notify_all();
}

void KernelNotices::Stop() {
  std::vector<char> request;
  const auto go_on = [this] {
    const std::lock_guard<std::mutex> lock(mutex_);
    return running_ > 0;
  };
  while (go_on()) {
    AnswerWithErrors(fd_, &request);
    pollfd waits{.fd = fd_, .events = POLLIN, .revents = 0};
    constexpr int kLookAgainMs = 1;
    // An event of the session's end would come at once, each time.
    if (poll(&waits, 1, kLookAgainMs) > 0 && (waits.revents & POLLERR) != 0) poll(nullptr, 0, kLookAgainMs);
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool KernelNotices::IsOwn(pid_t thread) {
  if (threads_.empty()) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  return ids_.contains(thread);
}

bool KernelNotices::DropAttributes(uint64_t number) { return DropInode(fd_, number, kAttributesAlone) != ENOENT; }

void KernelNotices::DropBytes(uint64_t number) { DropInode(fd_, number, 0); }

void KernelNotices::DropBytesBesideReads(uint64_t number, std::function<void(bool)> done) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (ends_) return;
  bytes_.push_back({.number = number, .generation = known_->Find(number).generation, .done = std::move(done)});
  wanted_.notify_one();
  if (idle_ >= bytes_.size() || threads_.size() == kMostThreads) return;
  ++running_;  // Before it is: what it does first may ask the mount.
  lock.unlock();
  try {
    threads_.emplace_back([this] { Run(); });
  } catch (const std::system_error& error) {
    lock.lock();
    --running_;
    if (!threads_.empty()) return;  // They take turns.
    for (Wanted& wanted : bytes_) done_.emplace_back([end = std::move(wanted.done)] { end(false); });
    bytes_.clear();
    Wake();
  }
}

void KernelNotices::Wake() {
  constexpr uint64_t kOnce = 1;
  CHECK(write(done_fd_, &kOnce, sizeof(kOnce)) == sizeof(kOnce));
}

void KernelNotices::Finish() {
  uint64_t times = 0;
  if (read(done_fd_, &times, sizeof(times)) < 0) return;
  std::vector<std::function<void()>> done;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    done.swap(done_);
  }
  for (auto& one : done) one();
}

// Where the mount is not in the tree any more its files cannot be opened anew.
bool KernelNotices::OpenOnce(const Wanted& wanted) const {
  const int root = open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return false;
  struct statx s {};
  const bool is_it = statx(root, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &s) == 0 &&
                     makedev(s.stx_dev_major, s.stx_dev_minor) == device_;
  const int file = is_it ? OpenByNumber(root, wanted.number, wanted.generation, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
  const bool is_forgotten = is_it && file < 0 && errno == ESTALE;
  if (file >= 0) close(file);
  close(root);
  return file >= 0 || is_forgotten;
}

// To close descriptors of its own table tells the mount, if they are of files there. The session's comes first: if the process is killed
// meanwhile, nobody has it any more.
void KernelNotices::Run() {
  const bool is_alone = unshare(CLONE_FILES) == 0;
  if (is_alone) {
    close(fd_);
    const auto kept = static_cast<unsigned>(done_fd_);
    if (kept > 0) close_range(0, kept - 1, 0);
    close_range(kept + 1, ~0U, 0);
  }
  std::unique_lock<std::mutex> lock(mutex_);
  ids_.insert(gettid());
  while (!ends_) {
    if (bytes_.empty()) {
      ++idle_;
      wanted_.wait(lock);
      --idle_;
      continue;
    }
    Wanted wanted = std::move(bytes_.front());
    bytes_.pop_front();
    lock.unlock();
    const bool is_dropped = is_alone && OpenOnce(wanted);
    lock.lock();
    done_.emplace_back([end = std::move(wanted.done), is_dropped] { end(is_dropped); });
    Wake();
  }
  ids_.erase(gettid());
  --running_;
}

}  // namespace mangrove::fs
