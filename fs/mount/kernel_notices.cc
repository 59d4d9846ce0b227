#include "fs/mount/kernel_notices.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

// Linux 6.16 and later: names that were found before are looked up again.
constexpr int32_t kIncrementEpoch = 8;
constexpr int64_t kAttributesAlone = -1;

// The error that the kernel answers; 0: it is done.
int Notify(int fd, int32_t code, const void* argument, size_t size) {
  fuse_out_header header{};
  header.len = static_cast<uint32_t>(sizeof(header) + size);
  header.error = code;
  std::array<iovec, 2> parts{{{&header, sizeof(header)}, {const_cast<void*>(argument), size}}};
  while (writev(fd, parts.data(), size == 0 ? 1 : 2) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

int DropInode(int fd, uint64_t number, int64_t from) {
  fuse_notify_inval_inode_out what{};
  what.ino = number;
  what.off = from;
  return Notify(fd, FUSE_NOTIFY_INVAL_INODE, &what, sizeof(what));
}

// Another descriptor of the session; the thread that calls it has no others from then on. Below 0: it cannot be had.
int DescriptorOfItsOwn(int fd) {
  const int own = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (own < 0) return -1;
  auto session = static_cast<uint32_t>(fd);
  if (ioctl(own, FUSE_DEV_IOC_CLONE, &session) != 0 || unshare(CLONE_FILES) != 0) {
    close(own);
    return -1;
  }
  const auto kept = static_cast<unsigned>(own);
  if (kept > 0) close_range(0, kept - 1, 0);
  close_range(kept + 1, ~0U, 0);
  return own;
}

// What came since nobody serves the session.
void AnswerWithErrors(int fd) {
  constexpr size_t kLongestRequest = (1 << 20) + 4096;
  std::vector<char> request(kLongestRequest);
  while (read(fd, request.data(), request.size()) >= static_cast<ssize_t>(sizeof(fuse_in_header))) {
    fuse_in_header in;
    std::memcpy(&in, request.data(), sizeof(in));
    if (in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET || in.opcode == FUSE_INTERRUPT) continue;
    const fuse_out_header out{.len = sizeof(out), .error = -EIO, .unique = in.unique};
    if (write(fd, &out, sizeof(out)) < 0) continue;  // Its caller has gone.
  }
}

}  // namespace

void KernelNotices::Begin(int fd, Loop* loop) {
  fd_ = fd;
  loop_ = loop;
}

void KernelNotices::Stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ends_ = true;
    bytes_.clear();
    wanted_.notify_one();
  }
  while (true) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (has_ended_) break;
    }
    AnswerWithErrors(fd_);
    pollfd waits{.fd = fd_, .events = POLLIN, .revents = 0};
    constexpr int kLookAgainMs = 1;
    poll(&waits, 1, kLookAgainMs);
  }
  thread_.join();
}

bool KernelNotices::DropAttributes(uint64_t number) { return DropInode(fd_, number, kAttributesAlone) != ENOENT; }

bool KernelNotices::DropNames() { return Notify(fd_, kIncrementEpoch, nullptr, 0) == 0; }

void KernelNotices::DropBytes(uint64_t number) { DropInode(fd_, number, 0); }

void KernelNotices::DropBytesBesideReads(uint64_t number, std::function<void()> done) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes_.emplace_back(number, std::move(done));
  loop_->ExpectPosts(1);
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { Run(); });
  } else {
    wanted_.notify_one();
  }
}

void KernelNotices::Run() {
  int own = DescriptorOfItsOwn(fd_);
  if (own < 0) {
    LogWarning("a second descriptor of /dev/fuse cannot be had: ", std::strerror(errno));
    own = fd_;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ends_) {
    if (bytes_.empty()) {
      wanted_.wait(lock);
      continue;
    }
    auto [number, done] = std::move(bytes_.front());
    bytes_.pop_front();
    lock.unlock();
    // ENOENT: it has forgotten the file, bytes and all.
    DropInode(own, number, 0);
    loop_->Post([loop = loop_, done = std::move(done)] {
      loop->ExpectPosts(-1);
      done();
    });
    lock.lock();
  }
  if (own != fd_) close(own);
  has_ended_ = true;
}

}  // namespace mangrove::fs
