#include "tests/unit/engine/mapping_harness.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "tests/nobody.h"

namespace mangrove::mapping_test {
namespace {

constexpr timeval kAnswerTimeout{.tv_sec = 10, .tv_usec = 0};

void SendBytes(int socket, const void* data, size_t size, int fd = -1) {
  iovec part{.iov_base = const_cast<void*>(data), .iov_len = size};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{.msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  CHECK(sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size));
}

// False when the other end is gone or silent.
bool ReceiveBytes(int socket, void* data, size_t size, int* fd = nullptr) {
  iovec part{.iov_base = data, .iov_len = size};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != static_cast<ssize_t>(size)) return false;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (fd != nullptr && header != nullptr) std::memcpy(fd, CMSG_DATA(header), sizeof(int));
  return true;
}

struct Hello {
  uint64_t base = 0;
  uint64_t size_bytes = 0;
};

thread_local sigjmp_buf bus_jump;

void OnBusError(int) { siglongjmp(bus_jump, 1); }

// Not seen by the thread sanitizer, which would hold a lock of its own when SIGBUS ends the access.
__attribute__((no_sanitize("thread"))) uint64_t PlainLoad(const std::byte* at) {
  return *reinterpret_cast<const volatile uint64_t*>(at);
}
__attribute__((no_sanitize("thread"))) void PlainStore(std::byte* at, uint64_t value) {
  *reinterpret_cast<volatile uint64_t*>(at) = value;
}

// The other side of Program, in its own process.
class ProgramSide {
 public:
  ProgramSide(int socket, bool read_only, Program::User user) : socket_(socket), read_only_(read_only), user_(user) {}

  [[noreturn]] void Run() {
    struct sigaction action {};
    action.sa_handler = OnBusError;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGBUS, &action, nullptr);
    signal(SIGSEGV, SIG_DFL);
    if (user_ == Program::User::kNobody) BecomeNobody();
    Hello hello;
    CHECK(ReceiveBytes(socket_, &hello, sizeof(hello), &frames_));
    CHECK(ReceiveBytes(socket_, &hello, sizeof(hello), &states_));
    auto mapping = LocalMapping::Create(frames_, hello.size_bytes, read_only_);
    if (!mapping.ok()) std::fprintf(stderr, "%s\n", mapping.status().ToString().c_str());
    CHECK(mapping.ok());
    mapping_ = *std::move(mapping);
    state_bytes_ = static_cast<std::atomic<uint8_t>*>(
        mmap(nullptr, hello.size_bytes / kPageBytes, PROT_READ, MAP_SHARED, states_, 0));
    UniqueFd userfaultfd = mapping_->ReleaseUserfaultfd();
    hello.base = reinterpret_cast<uint64_t>(mapping_->base());
    SendBytes(socket_, &hello, sizeof(hello), userfaultfd.get());
    userfaultfd.Reset();
    Request request;
    while (ReceiveBytes(socket_, &request, sizeof(request))) {
      const int64_t answer = Do(request);
      SendBytes(socket_, &answer, sizeof(answer));
    }
    _exit(0);
  }

 private:
  std::atomic<uint64_t>& Word(uint64_t offset) {
    return *reinterpret_cast<std::atomic<uint64_t>*>(mapping_->base() + offset);
  }

  int64_t Do(const Request& r) {
    switch (r.op) {
      case Op::kLoad:
        if (sigsetjmp(bus_jump, 1) != 0) return kBusError;
        return static_cast<int64_t>(PlainLoad(mapping_->base() + r.offset));
      case Op::kStore:
        if (sigsetjmp(bus_jump, 1) != 0) return kBusError;
        PlainStore(mapping_->base() + r.offset, r.value);
        return 0;
      case Op::kReadCall: return ReadCall(r);
      case Op::kWriteCall: return WriteCall(r);
      case Op::kHammer:
        for (uint64_t i = 0; i < r.value; ++i) {
          threads_.emplace_back([this, i, r] { Hammer(static_cast<size_t>(i), r); });
        }
        return 0;
      case Op::kStopHammer: return StopHammer();
      case Op::kTouchBoth:
        threads_.emplace_back([this, r] { Word(r.offset).load(); });
        return static_cast<int64_t>(Word(r.value).load());
      case Op::kState: return state_bytes_[r.offset / kPageBytes].load();
      case Op::kHeal: return mapping_->Heal(r.offset, r.value).ok() ? 0 : -1;
      case Op::kTryWrite: return TryWrite();
      case Op::kForkLoad: return ForkLoad(r.offset);
      case Op::kSeal: mapping_->Seal(); return 0;
    }
    return -1;
  }

  int64_t ReadCall(const Request& r) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    std::string text(r.value, 'r');
    CHECK(write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    const ssize_t got = read(ends[0], mapping_->base() + r.offset, r.value);
    const int error = errno;
    close(ends[0]);
    close(ends[1]);
    return got < 0 ? -error : got;
  }

  int64_t WriteCall(const Request& r) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    const ssize_t put = write(ends[1], mapping_->base() + r.offset, r.value);
    const int error = errno;
    std::vector<uint8_t> bytes(r.value);
    int64_t sum = put < 0 ? -error : 0;
    if (put >= 0) CHECK(read(ends[0], bytes.data(), bytes.size()) == put);
    for (uint8_t byte : bytes) sum += byte;
    close(ends[0]);
    close(ends[1]);
    return sum;
  }

  // Thread `index` owns word `index` of each page, so that plain stores would be lost one by one.
  void Hammer(size_t index, const Request& r) {
    uint64_t count = 0;
    while (!stop_.load(std::memory_order_relaxed)) {
      std::atomic<uint64_t>& word = Word(r.offset + (count % r.pages) * kPageBytes + index * 8);
      word.store(word.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      ++count;
    }
    increments_.fetch_add(static_cast<int64_t>(count));
  }

  int64_t StopHammer() {
    stop_.store(true);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    stop_.store(false);
    return increments_.exchange(0);
  }

  int64_t TryWrite() {
    int64_t worked = 0;
    const auto attempt = [&](int bit, bool success) { worked |= success ? int64_t{1} << bit : 0; };
    attempt(0, mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, frames_, 0) != MAP_FAILED);
    attempt(1, pwrite(frames_, "x", 1, 0) == 1);
    attempt(2, open(absl::StrCat("/proc/self/fd/", frames_).c_str(), O_RDWR | O_CLOEXEC) >= 0);
    attempt(3, fallocate(frames_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPageBytes) == 0);
    attempt(4, ftruncate(frames_, 0) == 0);
    attempt(5, fchmod(frames_, 0666) == 0);
    attempt(6, mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, states_, 0) != MAP_FAILED);
    attempt(7, open(absl::StrCat("/proc/self/fd/", states_).c_str(), O_RDWR | O_CLOEXEC) >= 0);
    // Allowed, but what it stores stays its own.
    CHECK(mprotect(mapping_->base(), kPageBytes, PROT_READ | PROT_WRITE) == 0);
    Word(0).store(666);
    return worked;
  }

  int64_t ForkLoad(uint64_t offset) {
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGSEGV, SIG_DFL);
      Word(offset).load();
      _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
  }

  const int socket_;
  const bool read_only_;
  const Program::User user_;
  int frames_ = -1;
  int states_ = -1;
  std::unique_ptr<LocalMapping> mapping_;
  const std::atomic<uint8_t>* state_bytes_ = nullptr;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> increments_{0};
  std::vector<std::thread> threads_;
};

}  // namespace

void Event::Happen() {
  std::lock_guard lock(mutex_);
  happened_ = true;
  changed_.notify_all();
}

void Event::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return happened_; });
}

TaskThread::TaskThread() {
  thread_ = std::thread([this] {
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      absl::AnyInvocable<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  });
}

TaskThread::~TaskThread() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void TaskThread::Post(absl::AnyInvocable<void()> task) {
  std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  changed_.notify_all();
}

void TaskThread::Run(std::function<void()> task) {
  Event done;
  Post([&] {
    task();
    done.Happen();
  });
  done.Wait();
}

Node::Node(uint64_t page_count) {
  auto memory = RegionMemory::Create([this](absl::AnyInvocable<void()> task) { loop_.Post(std::move(task)); }, 0);
  if (!memory.ok()) std::fprintf(stderr, "%s\n", memory.status().ToString().c_str());
  CHECK(memory.ok());
  memory_ = *std::move(memory);
  loop_.Run([&] {
    CHECK(memory_->AddRegion({kFirst, page_count}).ok());
    region_ = memory_->FindRegion(kFirst);
  });
  clients_ = std::make_unique<MappedClients>(this);
}

Node::~Node() {
  {
    std::lock_guard lock(mutex_);
    blocked_.clear();
    fenced_ = false;
    changed_.notify_all();
  }
  clients_.reset();
  loop_.Run([&] { memory_->RemoveRegion(region_->pages()); });
}

void Node::Exclusively(PageId page, std::function<void(std::function<void()>)> operation) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !busy_.contains(page); });
    busy_.insert(page);
  }
  Event done;
  loop_.Post([&] { operation([&] { done.Happen(); }); });
  done.Wait();
  std::lock_guard lock(mutex_);
  busy_.erase(page);
  changed_.notify_all();
}

void Node::Give(PageId page, Rights rights) {
  const Rights has = memory_->RightsOf(page);
  if (has >= rights) return;
  if (has == Rights::kRead) {
    memory_->Raise(page);
  } else {
    const PageBuffer content = taken_[page];
    memory_->Install(page, content ? content->bytes.data() : nullptr, rights);
  }
}

absl::Status Node::AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) {
  acquisitions_.fetch_add(1);
  before_long_wait();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !blocked_.contains(page); });
    auto refused = refused_.find(page);
    if (refused != refused_.end() && rights > refused->second) return absl::UnavailableError("refused by the test");
    changed_.wait(lock, [&] { return !fenced_; });
  }
  Exclusively(page, [&](std::function<void()> finish) {
    Give(page, rights);
    finish();
  });
  return absl::OkStatus();
}

void Node::Install(uint64_t page, uint8_t fill, Rights rights) {
  Exclusively(kFirst + page, [&](std::function<void()> finish) {
    PageBytes content;
    content.bytes.fill(std::byte{fill});
    memory_->Install(kFirst + page, content.bytes.data(), rights);
    finish();
  });
}

void Node::Raise(uint64_t page) {
  Exclusively(kFirst + page, [&](std::function<void()> finish) {
    if (memory_->RightsOf(kFirst + page) == Rights::kRead) memory_->Raise(kFirst + page);
    finish();
  });
}

void Node::Protect(uint64_t page) {
  Exclusively(kFirst + page, [&](std::function<void()> finish) {
    if (memory_->RightsOf(kFirst + page) != Rights::kWrite) return finish();
    memory_->Protect(kFirst + page, finish);
  });
}

void Node::Take(uint64_t page) {
  Exclusively(kFirst + page, [&](std::function<void()> finish) {
    if (memory_->RightsOf(kFirst + page) == Rights::kNone) return finish();
    memory_->Take(kFirst + page, true, [this, page, finish](PageBuffer content) {
      taken_[kFirst + page] = std::move(content);
      finish();
    });
  });
}

std::vector<std::byte> Node::Content(uint64_t page) {
  std::vector<std::byte> bytes(kPageBytes);
  Exclusively(kFirst + page, [&](std::function<void()> finish) {
    PageBuffer content =
        memory_->RightsOf(kFirst + page) == Rights::kNone ? taken_[kFirst + page] : memory_->Copy(kFirst + page);
    if (content) std::copy(content->bytes.begin(), content->bytes.end(), bytes.begin());
    finish();
  });
  return bytes;
}

Rights Node::RightsOf(uint64_t page) { return page_state::RightsOf(region_->StateOf(kFirst + page).load()); }

void Node::Refuse(uint64_t page, Rights up_to) {
  std::lock_guard lock(mutex_);
  refused_[kFirst + page] = up_to;
}

void Node::Admit(uint64_t page) {
  std::lock_guard lock(mutex_);
  refused_.erase(kFirst + page);
  blocked_.erase(kFirst + page);
  changed_.notify_all();
}

void Node::Block(uint64_t page) {
  std::lock_guard lock(mutex_);
  blocked_.insert(kFirst + page);
}

bool Node::Fence() {
  {
    std::lock_guard lock(mutex_);
    fenced_ = true;
  }
  bool unpinned = true;
  loop_.Run([&] {
    memory_->Fence();
    for (uint64_t i = 0; i < region_->pages().count; ++i) {
      if (page_state::IsPinned(region_->StateOf(kFirst + i).load())) unpinned = false;
    }
  });
  return unpinned;
}

void Node::StayReadable(bool stays) {
  loop_.Run([&] { memory_->SetStaysReadable(region_->pages(), stays); });
}

void Node::Unfence() {
  loop_.Run([&] { memory_->Unfence(); });
  std::lock_guard lock(mutex_);
  fenced_ = false;
  changed_.notify_all();
}

Program::Program(bool read_only, User user) : read_only_(read_only) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  pid_ = fork();
  CHECK(pid_ >= 0);
  if (pid_ == 0) {
    close(ends[0]);
    ProgramSide(ends[1], read_only, user).Run();
  }
  close(ends[1]);
  socket_ = ends[0];
  CHECK(setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof(kAnswerTimeout)) == 0);
}

Program::~Program() {
  Kill();
  close(socket_);
}

void Program::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  CHECK(waitpid(pid_, nullptr, 0) == pid_);
  pid_ = -1;
}

void Program::Attach(Node& node, MappedClientOptions options) {
  Attach(node.clients(), node.shared_region(), std::move(options));
}

void Program::Attach(MappedClients& clients, std::shared_ptr<RegionFrames> region, MappedClientOptions options) {
  auto frames = read_only_ ? region->OpenFramesReadOnly() : region->OpenFrames();
  auto states = region->OpenStates();
  CHECK(frames.ok() && states.ok());
  Hello hello{.base = 0, .size_bytes = region->size_bytes()};
  SendBytes(socket_, &hello, sizeof(hello), frames->get());
  SendBytes(socket_, &hello, sizeof(hello), states->get());
  int userfaultfd = -1;
  CHECK(ReceiveBytes(socket_, &hello, sizeof(hello), &userfaultfd));
  options.userfaultfd.Reset(userfaultfd);
  options.base = hello.base;
  options.region = std::move(region);
  options.read_only = read_only_;
  auto id = clients.Add(std::move(options));
  CHECK(id.ok());
  id_ = *id;
}

void Program::Send(const Request& request) const { SendBytes(socket_, &request, sizeof(request)); }

int64_t Program::Receive() const {
  int64_t answer = 0;
  return ReceiveBytes(socket_, &answer, sizeof(answer)) ? answer : kNoAnswer;
}

int64_t Program::Call(const Request& request) const {
  Send(request);
  return Receive();
}

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace mangrove::mapping_test
