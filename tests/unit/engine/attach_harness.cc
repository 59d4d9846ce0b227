#include "tests/unit/engine/attach_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::attach_test {
namespace {

absl::Status CheckAccess(const Credentials& who, const RegionInfo& info, AccessMode mode) {
  int shift = 0;
  const bool in_group = who.gid == info.group || std::count(who.groups.begin(), who.groups.end(), info.group) > 0;
  if (in_group) shift = 3;
  if (who.uid == info.owner) shift = 6;
  const int needed = mode == AccessMode::kWrite ? 6 : 4;
  if (who.uid == 0 || ((info.mode >> shift) & needed) == needed) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("user ", who.uid, " may not open region '", info.name, "'"));
}

}  // namespace

TestNode::TestNode() {
  auto memory = RegionMemory::Create([this](absl::AnyInvocable<void()> task) { loop_.Post(std::move(task)); }, 0);
  CHECK(memory.ok());
  memory_ = *std::move(memory);
  mapped_clients_ = std::make_unique<MappedClients>(this);
  CHECK(loop_.Start().ok());
}

TestNode::~TestNode() {
  // Applets that wait when the loop ends are freed by nobody.
  ending_ = true;
  CHECK(Eventually([this] { return hanging_ == 0; }));
  mapped_clients_.reset();
  loop_.Stop();
}

void TestNode::OnLoop(const std::function<void()>& task) {
  Completion done;
  const auto start = [&] {
    task();
    done.Set();
  };
  loop_.RunUntil(start, done);
}

void TestNode::MakeFail(uint64_t page) {
  const std::lock_guard lock(mutex_);
  fates_[page] = Fate::kFails;
}
void TestNode::MakeHang(uint64_t page) {
  const std::lock_guard lock(mutex_);
  fates_[page] = Fate::kHangs;
}
void TestNode::MakeServed(uint64_t page) {
  const std::lock_guard lock(mutex_);
  fates_.erase(page);
}

void TestNode::Announce(const Event& event) {
  OnLoop([&] {
    for (auto& [id, sink] : sinks_) sink(event);
  });
}

void TestNode::TakeAway(PageId page) {
  Completion done;
  const auto start = [&] {
    if (memory_->RightsOf(page) == Rights::kNone || !being_taken_.insert(page).second) return done.Set();
    memory_->Take(page, true, [&, page](PageBuffer content) {
      being_taken_.erase(page);
      taken_[page] = std::move(content);
      done.Set();
    });
  };
  loop_.RunUntil(start, done);
}

size_t TestNode::HeldLocks() {
  size_t held = 0;
  OnLoop([&] { held = locks_.size(); });
  return held;
}

TestNode::TableEntry* TestNode::Find(PageId page) {
  for (auto& [name, entry] : regions_) {
    if (entry.pages.Contains(page)) return &entry;
  }
  return nullptr;
}

TestNode::Fate TestNode::FateOf(const PageRange& range) {
  const std::lock_guard lock(mutex_);
  const uint64_t first = range.first - Find(range.first)->pages.first;
  const auto it = fates_.lower_bound(first);
  return it != fates_.end() && it->first < first + range.count ? it->second : Fate::kServed;
}

Task<absl::StatusOr<OpenedRegion>> TestNode::Reserve(Credentials who, RegionOptions options, TimeNs) {
  if (options.name.empty()) co_return absl::InvalidArgumentError("the region's name is empty");
  if (regions_.contains(options.name)) {
    co_return absl::AlreadyExistsError(absl::StrCat("region '", options.name, "' exists"));
  }
  TableEntry entry;
  entry.pages = {next_page_, options.size_bytes >> kPageShift};
  next_page_ = entry.pages.end() + kSegmentPages;
  entry.info = {.name = options.name,
                .address = AddressOf(entry.pages.first),
                .size_bytes = options.size_bytes,
                .owner = options.owner.value_or(who.uid),
                .group = options.group.value_or(who.gid),
                .mode = options.mode,
                .without_quorum = options.without_quorum};
  if (absl::Status s = memory_->AddRegion(entry.pages); !s.ok()) co_return s;
  regions_[options.name] = entry;
  co_return OpenedRegion{entry.info, entry.pages, true, true};
}

Task<absl::StatusOr<OpenedRegion>> TestNode::Open(Credentials who, std::string name, AccessMode mode, TimeNs) {
  const auto it = regions_.find(name);
  if (it == regions_.end()) co_return absl::NotFoundError(absl::StrCat("no region '", name, "'"));
  const TableEntry& entry = it->second;
  if (absl::Status s = CheckAccess(who, entry.info, mode); !s.ok()) co_return s;
  co_return OpenedRegion{entry.info, entry.pages, mode == AccessMode::kWrite, who.uid == entry.info.owner};
}

Task<absl::Status> TestNode::Free(Credentials who, std::string name, TimeNs) {
  const auto it = regions_.find(name);
  if (it == regions_.end()) co_return absl::NotFoundError(absl::StrCat("no region '", name, "'"));
  if (who.uid != 0 && who.uid != it->second.info.owner) co_return absl::PermissionDeniedError("not the owner");
  if (!it->second.allocated.empty()) co_return absl::FailedPreconditionError("pages are allocated");
  regions_.erase(it);
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::vector<RegionInfo>>> TestNode::ListRegions(TimeNs) {
  std::vector<RegionInfo> infos;
  for (const auto& [name, entry] : regions_) infos.push_back(entry.info);
  co_return infos;
}

Task<absl::StatusOr<SpaceTotals>> TestNode::Space(TimeNs) { co_return SpaceTotals{1000, 900, 100, 50}; }

Task<absl::Status> TestNode::Allocate(Credentials who, PageRange range, AllocateOptions options, TimeNs) {
  TableEntry* const entry = Find(range.first);
  if (entry == nullptr) co_return absl::NotFoundError("no reservation");
  if (who.uid != 0 && who.uid != entry->info.owner) co_return absl::PermissionDeniedError("not the owner");
  entry->attributes.persistent = options.persistent;
  entry->attributes.replicas = options.replicas;
  for (uint64_t i = 0; i < range.count; ++i) entry->allocated.insert(range.first + i - entry->pages.first);
  co_return absl::OkStatus();
}

Task<absl::Status> TestNode::Unallocate(Credentials, PageRange range, TimeNs) {
  TableEntry* const entry = Find(range.first);
  for (uint64_t i = 0; i < range.count; ++i) {
    if (entry->allocated.erase(range.first + i - entry->pages.first) == 0) {
      co_return absl::FailedPreconditionError("not allocated");
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<PageAttributes>> TestNode::GetAttributes(PageId page, TimeNs) { co_return Find(page)->attributes; }

Task<absl::Status> TestNode::SetAttributes(Credentials, PageRange range, PageAttributesChange change, TimeNs) {
  PageAttributes& attributes = Find(range.first)->attributes;
  if (change.replicas) attributes.replicas = *change.replicas;
  if (change.keep_in_ram) attributes.keep_in_ram = *change.keep_in_ram;
  if (change.user) attributes.user = *change.user;
  co_return absl::OkStatus();
}

Task<absl::Status> TestNode::CheckAllocated(PageRange range, TimeNs) {
  const TableEntry* const entry = Find(range.first);
  for (uint64_t i = 0; i < range.count; ++i) {
    if (!entry->allocated.contains(range.first + i - entry->pages.first)) {
      co_return absl::FailedPreconditionError(absl::StrCat("page ", ToString(range.first + i), " is not allocated"));
    }
  }
  co_return absl::OkStatus();
}

Task<absl::Status> TestNode::Acquire(PageRange range, Rights rights, TimeNs deadline) {
  ++acquisitions;
  switch (FateOf(range)) {
    case Fate::kServed: break;
    case Fate::kFails: co_return absl::DataLossError(absl::StrCat("every copy of ", ToString(range), " is lost"));
    case Fate::kHangs:
      ++hanging_;
      while (loop_.Now() < deadline && !ending_) co_await SleepUntil(&loop_, loop_.Now() + kMillisecond);
      --hanging_;
      co_return absl::UnavailableError("node 7 does not answer");
  }
  ++hanging_;
  while (fenced_ && loop_.Now() < deadline && !ending_) co_await SleepUntil(&loop_, loop_.Now() + kMillisecond);
  --hanging_;
  if (fenced_) co_return absl::UnavailableError("fenced");
  for (uint64_t i = 0; i < range.count; ++i) {
    const PageId page = range.first + i;
    while (being_taken_.contains(page)) co_await SleepUntil(&loop_, loop_.Now() + 20 * kMicrosecond);
    const Rights has = memory_->RightsOf(page);
    if (has == Rights::kNone) {
      const auto content = taken_.extract(page);
      memory_->Install(page, content.empty() ? nullptr : content.mapped()->bytes.data(), rights);
    }
    if (has == Rights::kRead && rights == Rights::kWrite) memory_->Raise(page);
  }
  co_return absl::OkStatus();
}

void TestNode::Fence() {
  OnLoop([this] {
    fenced_ = true;
    memory_->Fence();
  });
}

void TestNode::Unfence() {
  OnLoop([this] {
    memory_->Unfence();
    fenced_ = false;
  });
}

bool TestNode::IsFree(const PageRange& range, LockMode mode) const {
  for (const auto& [id, lock] : locks_) {
    const bool both_shared = lock.mode == LockMode::kShared && mode == LockMode::kShared;
    if (lock.range.Overlaps(range) && !both_shared) return false;
  }
  return true;
}

Task<absl::StatusOr<uint64_t>> TestNode::Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) {
  if (!IsFree(range, mode)) ++waiting_locks;
  ++hanging_;
  while (!IsFree(range, mode) && loop_.Now() < deadline && !ended_.contains(client) && !ending_) {
    co_await SleepUntil(&loop_, loop_.Now() + kMillisecond);
  }
  --hanging_;
  if (!IsFree(range, mode)) co_return absl::DeadlineExceededError("locked by another");
  const Rights rights = mode == LockMode::kExclusive ? Rights::kWrite : Rights::kRead;
  if (absl::Status s = co_await Acquire(range, rights, deadline); !s.ok()) co_return s;
  locks_.emplace(next_lock_, HeldLock{client, range, mode});
  co_return next_lock_++;
}

absl::Status TestNode::Unlock(ClientId client, uint64_t lock_id) {
  const auto it = locks_.find(lock_id);
  if (it == locks_.end() || it->second.client != client) {
    return absl::InvalidArgumentError(absl::StrCat("no lock ", lock_id));
  }
  locks_.erase(it);
  return absl::OkStatus();
}

Task<absl::Status> TestNode::Flush(PageRange, TimeNs) {
  ++flushes;
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::string>> TestNode::Operate(Credentials who, std::string what, std::string argument, TimeNs) {
  co_return absl::StrCat("{\"", what, "\": \"", argument, "\", \"by\": ", who.uid, "}");
}

Task<absl::StatusOr<std::string>> TestNode::Inspect(std::string what, std::string argument, TimeNs) {
  if (what == "long") co_return std::string(100'000, 'x');
  if (what != "status") co_return absl::InvalidArgumentError(absl::StrCat("cannot inspect '", what, "'"));
  co_return absl::StrCat("{\"argument\": \"", argument, "\"}");
}

void TestNode::EndClient(ClientId client) {
  CHECK(ended_.insert(client).second);
  std::erase_if(locks_, [client](const auto& entry) { return entry.second.client == client; });
  ++ended_clients;
}

uint64_t TestNode::AddEventSink(EventSink sink) {
  sinks_.emplace(next_sink_, std::move(sink));
  return next_sink_++;
}
void TestNode::RemoveEventSink(uint64_t sink_id) { sinks_.erase(sink_id); }

absl::Status TestNode::AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) {
  Completion done(before_long_wait);
  absl::Status result;
  const auto start = [&] {
    Spawn<absl::Status>(Acquire({page, 1}, rights, loop_.Now() + fault_timeout_ms * kMillisecond), [&](absl::Status s) {
      result = std::move(s);
      done.Set();
    });
  };
  loop_.RunUntil(start, done);
  return result;
}

// --- Daemons ----------------------------------------------------------------------------------------------------------

namespace {

// Removed at the end of the process that made them.
struct Directories {
  ~Directories() {
    for (const std::string& name : names) {
      if (getpid() == process) std::filesystem::remove_all(name);
    }
  }
  const pid_t process = getpid();
  std::vector<std::string> names;
};

}  // namespace

std::string NewSocketPath() {
  static Directories directories;
  std::string directory = "/tmp/mangrove-attach-XXXXXX";
  CHECK(mkdtemp(directory.data()) != nullptr && chmod(directory.c_str(), 0755) == 0);
  directories.names.push_back(directory);
  return directory + "/mangroved.sock";
}

TestDaemon::TestDaemon(const std::string& socket_path, AttachServerOptions options)
    : server_(&node_.loop(), &node_, &node_.mapped_clients(), node_.find_region(), [&] {
        options.socket_path = socket_path;
        options.node_name = "test-node";
        return options;
      }()) {
  node_.OnLoop([this] { started_ = server_.Start(); });
}

TestDaemon::~TestDaemon() {
  node_.OnLoop([this] { server_.Stop(); });
}

ChildDaemon::ChildDaemon(const std::string& socket_path, const std::function<void(TestNode&)>& prepare,
                         AttachServerOptions options) {
  int ready[2];
  CHECK(pipe2(ready, O_CLOEXEC) == 0);
  pid_ = fork();
  CHECK(pid_ >= 0);
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    TestDaemon daemon(socket_path, std::move(options));
    CHECK(daemon.started().ok());
    if (prepare) prepare(daemon.node());
    CHECK(write(ready[1], "r", 1) == 1);
    for (;;) pause();
  }
  close(ready[1]);
  char answer;
  CHECK(read(ready[0], &answer, 1) == 1);
  close(ready[0]);
}

ChildDaemon::~ChildDaemon() { KillAndReap(); }
void ChildDaemon::Signal(int signal) const {
  CHECK(kill(pid_, signal) == 0);
  if (signal == SIGSTOP) CHECK(waitpid(pid_, nullptr, WUNTRACED) == pid_);
}
void ChildDaemon::KillAndReap() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

ChildProgram::ChildProgram(const std::function<int()>& body) : pid_(fork()) {
  CHECK(pid_ >= 0);
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  _exit(body());
}
ChildProgram::~ChildProgram() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  Wait();
}
void ChildProgram::Signal(int signal) const {
  CHECK(kill(pid_, signal) == 0);
  if (signal != SIGSTOP) return;
  siginfo_t stopped;
  CHECK(waitid(P_PID, static_cast<id_t>(pid_), &stopped, WSTOPPED | WNOWAIT) == 0);
}

int ChildProgram::Wait() {
  int status = 0;
  CHECK(waitpid(std::exchange(pid_, -1), &status, 0) > 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

// --- Faults -----------------------------------------------------------------------------------------------------------

namespace {

thread_local sigjmp_buf jump;

void OnSignal(int signal) { siglongjmp(jump, signal); }

void CatchFaults() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_handler = OnSignal;
    sigaction(SIGBUS, &action, nullptr);
    sigaction(SIGSEGV, &action, nullptr);
    return true;
  }();
  CHECK(installed);
}

}  // namespace

int TryLoad(const std::byte* place, uint64_t* value) {
  CatchFaults();
  if (const int signal = sigsetjmp(jump, 1); signal != 0) return signal;
  const uint64_t loaded = *reinterpret_cast<const volatile uint64_t*>(place);
  if (value != nullptr) *value = loaded;
  return 0;
}

int TryStore(std::byte* place, uint64_t value) {
  CatchFaults();
  if (const int signal = sigsetjmp(jump, 1); signal != 0) return signal;
  *reinterpret_cast<volatile uint64_t*>(place) = value;
  return 0;
}

bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace mangrove::attach_test
