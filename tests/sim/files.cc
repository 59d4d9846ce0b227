#include "tests/sim/files.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/page_engine.h"
#include "fs/check.h"
#include "fs/status.h"
#include "net/check.h"

namespace mangrove::sim {
namespace {

using Kind = FileOperation::Kind;

constexpr DurationNs kPause = 20 * kMillisecond;
constexpr uint64_t kMostOffset = 20'000;
constexpr size_t kMostBytes = 6'000;

// The cluster or a disk may be at fault, and the operation may have happened.
bool IsInTheWay(int error) { return error == EAGAIN || error == ETIMEDOUT || error == ENOSPC; }

fs::Caller Nobody() { return {.uid = 1, .gid = 1, .umask = 0}; }

std::string LastOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }
std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace

fs::EnginePagesNode EnginePagesNodeOf(const SimHost& host) {
  fs::EnginePagesNode node;
  node.engine = host.node->engine();
  node.transactions = host.node->transactions();
  node.clock = host.clock.get();
  node.entropy = host.entropy.get();
  node.self = NodeOfSlot(host.slot);
  node.incarnation = host.life;
  node.wall_ns = [clock = host.clock.get()] { return clock->Now(); };
  node.space = [](TimeNs) -> Task<absl::StatusOr<SpaceTotals>> { co_return SpaceTotals{}; };
  return node;
}

FilesWork::FilesWork(SimCluster* cluster, const FilesOptions& options)
    : cluster_(cluster), world_(&cluster->world()), options_(options) {
  for (int slot = 0; slot < cluster->nodes(); ++slot) {
    for (int i = 0; i < options.users_per_node; ++i) {
      const int number = static_cast<int>(users_.size());
      users_.push_back(std::make_unique<User>(
          User{.number = number, .slot = slot, .random = world_->Fork("user", static_cast<uint64_t>(number))}));
    }
  }
}

// --- Nodes ------------------------------------------------------------------------------------------------------------

// Another number than before when a node was lost meanwhile: one that has ended, or that the others go on without, since it stands still.
uint64_t FilesWork::Losses() const {
  const View view = cluster_->NewestView();
  uint64_t losses = 0;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    const SimHost& host = cluster_->host(slot);
    const bool is_there = host.up() && view.Has({NodeOfSlot(slot), Incarnation(host.life)});
    losses += 2 * host.life + (is_there ? 0 : 1);
  }
  return losses;
}

std::unique_ptr<fs::EnginePages> FilesWork::PagesOn(SimHost& host) {
  fs::EnginePagesNode node = EnginePagesNodeOf(host);
  node.allocate = [this, &host](PageRange pages, AllocateOptions options, TimeNs deadline) {
    return Allocate(&host, pages, options, deadline);
  };
  return std::make_unique<fs::EnginePages>(node, kFilesetRegion, ++next_client_);
}

// As the table of regions does it: one at a time, until its node dies; and what is allocated stays so.
Task<absl::Status> FilesWork::Allocate(SimHost* host, PageRange pages, AllocateOptions options, TimeNs deadline) {
  if (!options.persistent) co_return co_await host->node->AllocateAs(pages, /*is_volatile=*/true, deadline);
  Clock* const clock = host->clock.get();
  const auto is_held = [&] {
    const auto holder = allocating_.find(pages.first);
    return holder != allocating_.end() && holder->second.host->up() && holder->second.host->life == holder->second.life;
  };
  while (is_held()) {
    if (clock->Now() >= deadline) co_return absl::UnavailableError("another node allocates it");
    co_await SleepUntil(clock, clock->Now() + kMillisecond);
  }
  if (allocated_.contains(pages.first)) co_return absl::AlreadyExistsError("it is allocated");
  allocating_[pages.first] = {.host = host, .life = host->life};
  const absl::Status status = co_await host->node->AllocateAs(pages, /*is_volatile=*/false, deadline);
  allocating_.erase(pages.first);
  if (status.ok()) allocated_.insert(pages.first);
  co_return status;
}

Task<absl::StatusOr<FilesWork::HomePtr>> FilesWork::OpenOn(SimHost* host) {
  auto home = std::make_shared<Home>();
  home->host = host;
  home->pages = PagesOn(*host);
  absl::StatusOr<std::unique_ptr<fs::Instance>> instance = co_await fs::Instance::Open(home->pages.get());
  if (!instance.ok()) co_return instance.status();
  home->instance = *std::move(instance);
  absl::Status status = co_await home->instance->BeginUse();
  if (status.ok()) status = co_await home->instance->FinishRemovals();
  if (!status.ok()) co_return status;
  co_return home;
}

void FilesWork::OnReady(SimHost& host) {
  if (stopped_ || !prepared_) return;
  for (const auto& user : users_) {
    if (user->slot == host.slot) user->was_here = false;
  }
  host.applets.Run(RunHost(&host));
}

Task<bool> FilesWork::RunHost(SimHost* host) {
  Clock* const clock = host->clock.get();
  while (!stopped_) {
    const absl::StatusOr<HomePtr> home = co_await OpenOn(host);
    if (home.ok()) {
      for (const auto& user : users_) {
        if (user->slot == host->slot) host->applets.Run(RunUser(*home, user.get()));
      }
      BeginHolding(*home);
      co_return true;
    }
    if (!IsInTheWay(fs::ErrnoOf(home.status()))) {
      world_->Fail(absl::StrCat("node ", host->slot + 1, " cannot open the fileset: ", home.status().ToString()));
      co_return false;
    }
    co_await SleepUntil(clock, clock->Now() + kPause);
  }
  co_return true;
}

// --- Users ------------------------------------------------------------------------------------------------------------

Task<bool> FilesWork::RunUser(HomePtr home, User* user) {
  const Counted counted(&users_running_);
  Clock* const clock = home->host->clock.get();
  bool must_look = true;
  while (!stopped_) {
    co_await SleepUntil(clock, clock->Now() + user->random.Spread(options_.min_think, options_.max_think));
    if (stopped_) break;
    if (must_look || user->losses != Losses()) {
      must_look = !co_await LookAround(home, user);
      continue;
    }
    const bool sure = co_await RunOperation(home, user);
    must_look = !sure;
  }
  co_return true;
}

// Finds out what is there, after something was in the way. False: something is in the way of that, too.
Task<bool> FilesWork::LookAround(HomePtr home, User* user) {
  ModelTree found;
  const uint64_t losses = Losses();
  const absl::StatusOr<fs::InodeNumber> top = co_await TopOf(home, user);
  absl::Status status = top.status();
  if (top.ok()) status = co_await ReadTree(home, *top, "", &found);
  if (IsInTheWay(fs::ErrnoOf(status))) co_return false;
  user->losses = losses;
  if (!status.ok()) {
    world_->Fail(absl::StrCat("user ", user->number, " cannot read its files: ", status.ToString()));
    co_return false;
  }
  const std::string wrong = user->history.Find(found, !user->was_here);
  user->was_here = true;
  if (!wrong.empty()) world_->Fail(absl::StrCat("user ", user->number, " finds ", wrong));
  co_return true;
}

FileOperation FilesWork::NextOperation(User* user) {
  SimRandom& random = user->random;
  const auto path = [&] {
    std::string text(1, static_cast<char>('a' + random.Below(4)));
    if (random.PerMille(500)) text += std::string("/") + static_cast<char>('a' + random.Below(3));
    return text;
  };
  FileOperation operation;
  operation.kind = static_cast<Kind>(random.Below(FileOperation::kKinds));
  operation.path = path();
  if (operation.kind == Kind::kRename) operation.other = path();
  operation.offset = random.PerMille(500) ? random.Below(kMostOffset) : random.Below(3) * 4096;
  operation.bytes = std::string(random.Below(kMostBytes) + 1, static_cast<char>('A' + random.Below(26)));
  if (operation.kind == Kind::kSetAttribute) operation.bytes.resize(operation.bytes.size() % 1500 + 1);
  return operation;
}

// False: nobody knows whether it has happened.
Task<bool> FilesWork::RunOperation(HomePtr home, User* user) {
  const FileOperation operation = NextOperation(user);
  ModelTree after = user->history.now();
  const int expected = Apply(operation, ++user->last_id, &after);
  user->history.Begin(std::move(after));
  const int error = co_await Carry(home, user, &operation);
  world_->Trace("node ", home->host->slot + 1, " user ", user->number, ": ", ToString(operation), " ends: ", error);
  ++counters_.ended;
  if (IsInTheWay(error)) co_return false;
  // What was written was lost with a node that had been given its pages: O10 is about when that may be.
  if (operation.kind == Kind::kSync && error == EIO) {
    user->history.DidNotHappen();
    co_return true;
  }
  if (error != expected) {
    world_->Fail(absl::StrCat("user ", user->number, " on node ", home->host->slot + 1, ": ", ToString(operation),
                              " ends with errno ", error, ", expected ", expected));
    co_return false;
  }
  ++counters_.succeeded;
  if (expected != 0) {
    user->history.DidNotHappen();
    co_return true;
  }
  user->history.Happened();
  if (operation.kind == Kind::kSync) user->history.Synced(user->history.now().at(operation.path).id);
  co_return true;
}

Task<absl::StatusOr<fs::InodeNumber>> FilesWork::TopOf(HomePtr home, const User* user) {
  return Walk(home, home->instance->root(), absl::StrCat("u", user->number));
}

// From there down; "" is where it begins.
Task<absl::StatusOr<fs::InodeNumber>> FilesWork::Walk(HomePtr home, fs::InodeNumber from, std::string path) {
  while (!path.empty()) {
    const size_t slash = path.find('/');
    const absl::StatusOr<fs::Attributes> found = co_await home->instance->Lookup(from, path.substr(0, slash));
    if (!found.ok()) co_return found.status();
    from = found->inode;
    path = slash == std::string::npos ? "" : path.substr(slash + 1);
  }
  co_return from;
}

Task<absl::StatusOr<fs::InodeNumber>> FilesWork::WalkToDirectory(HomePtr home, fs::InodeNumber from, std::string path) {
  const absl::StatusOr<fs::InodeNumber> inode = co_await Walk(home, from, std::move(path));
  if (!inode.ok()) co_return inode.status();
  const absl::StatusOr<fs::Attributes> attributes = co_await home->instance->GetAttributes(*inode);
  if (!attributes.ok()) co_return attributes.status();
  if (!S_ISDIR(attributes->mode)) co_return fs::PosixError(ENOTDIR, "no directory");
  co_return *inode;
}

Task<int> FilesWork::Carry(HomePtr home, User* user, const FileOperation* operation) {
  const absl::StatusOr<fs::InodeNumber> top = co_await TopOf(home, user);
  if (!top.ok()) co_return fs::ErrnoOf(top.status());
  if (operation->kind <= Kind::kRename) co_return co_await CarryNames(home, *top, operation);
  const absl::StatusOr<fs::InodeNumber> inode = co_await Walk(home, *top, operation->path);
  if (!inode.ok()) co_return fs::ErrnoOf(inode.status());
  co_return co_await CarryFile(home, user, *inode, operation);
}

Task<int> FilesWork::CarryNames(HomePtr home, fs::InodeNumber top, const FileOperation* operation) {
  fs::Instance& instance = *home->instance;
  const std::string name = LastOf(operation->path);
  const absl::StatusOr<fs::InodeNumber> parent = co_await WalkToDirectory(home, top, ParentOf(operation->path));
  if (!parent.ok()) co_return fs::ErrnoOf(parent.status());
  absl::Status status;
  switch (operation->kind) {
    case Kind::kMake: status = (co_await instance.MakeNode(Nobody(), *parent, name, S_IFREG | 0644, 0)).status(); break;
    case Kind::kMakeDirectory:
      status = (co_await instance.MakeDirectory(Nobody(), *parent, name, 0755)).status();
      break;
    case Kind::kUnlink: status = co_await instance.Unlink(*parent, name); break;
    case Kind::kRemoveDirectory: status = co_await instance.RemoveDirectory(*parent, name); break;
    default: {
      const absl::StatusOr<fs::InodeNumber> to = co_await WalkToDirectory(home, top, ParentOf(operation->other));
      if (!to.ok()) co_return fs::ErrnoOf(to.status());
      status = co_await instance.Rename(*parent, name, *to, LastOf(operation->other), 0);
    }
  }
  co_return fs::ErrnoOf(status);
}

Task<int> FilesWork::CarryFile(HomePtr home, User* user, fs::InodeNumber inode, const FileOperation* operation) {
  fs::Instance& instance = *home->instance;
  absl::Status status;
  const fs::WriteOptions options{.append = operation->kind == Kind::kAppend};
  switch (operation->kind) {
    case Kind::kWrite:
    case Kind::kAppend: status = co_await instance.Write(inode, operation->offset, operation->bytes, options); break;
    case Kind::kTruncate: {
      fs::AttributesChange change;
      change.size_bytes = operation->offset;
      status = (co_await instance.SetAttributes(inode, change)).status();
      break;
    }
    case Kind::kRead: {
      const absl::StatusOr<std::string> bytes = co_await instance.Read(inode, 0, 1 << 20);
      status = bytes.status();
      if (status.ok() && user->losses != Losses()) co_return EAGAIN;  // It looks around first.
      if (status.ok() && *bytes != user->history.now().at(operation->path).content) {
        world_->Fail(absl::StrCat("user ", user->number, " reads other bytes than it wrote: ", operation->path));
      }
      break;
    }
    case Kind::kList: {
      std::vector<std::string> names;
      const absl::StatusOr<std::vector<fs::DirectoryEntry>> entries = co_await instance.ReadDirectory(inode, 0, 1000);
      status = entries.status();
      if (!status.ok()) break;
      for (const fs::DirectoryEntry& entry : *entries) names.push_back(entry.name);
      std::sort(names.begin(), names.end());
      if (names != NamesIn(user->history.now(), operation->path)) {
        world_->Fail(absl::StrCat("user ", user->number, " lists other names than it made: ", operation->path));
      }
      break;
    }
    case Kind::kSetAttribute:
      status = co_await instance.SetXattr(inode, "user.a", operation->bytes, fs::XattrMode::kAny);
      break;
    default: {
      status = co_await instance.Sync(inode);
      // What was written is lost with another node, and it says so.
      if (fs::ErrnoOf(status) == EIO && user->losses != Losses()) co_return EAGAIN;
    }
  }
  co_return fs::ErrnoOf(status);
}

Task<absl::Status> FilesWork::ReadTree(HomePtr home, fs::InodeNumber directory, std::string path, ModelTree* tree) {
  fs::Instance& instance = *home->instance;
  const absl::StatusOr<std::vector<fs::DirectoryEntry>> entries = co_await instance.ReadDirectory(directory, 0, 1000);
  if (!entries.ok()) co_return entries.status();
  for (const fs::DirectoryEntry& entry : *entries) {
    const std::string below = path.empty() ? entry.name : absl::StrCat(path, "/", entry.name);
    ModelFile& file = (*tree)[below];
    file.is_directory = S_ISDIR(entry.attributes.mode);
    absl::StatusOr<std::string> value = co_await instance.GetXattr(entry.attributes.inode, "user.a");
    if (value.ok()) file.attributes["user.a"] = *std::move(value);
    absl::Status status = fs::ErrnoOf(value.status()) == ENODATA ? absl::OkStatus() : value.status();
    if (status.ok() && file.is_directory) {
      status = co_await ReadTree(home, entry.attributes.inode, below, tree);
    } else if (status.ok()) {
      absl::StatusOr<std::string> bytes = co_await instance.Read(entry.attributes.inode, 0, 1 << 20);
      if (bytes.ok()) file.content = *std::move(bytes);
      status = bytes.status();
    }
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// --- Before and after -------------------------------------------------------------------------------------------------

void FilesWork::Prepare() {
  SimHost& host = cluster_->host(0);
  host.applets.Run(PrepareAll(&host));
}

Task<bool> FilesWork::PrepareAll(SimHost* host) {
  auto pages = PagesOn(*host);
  absl::Status status = co_await fs::Instance::Make(pages.get(), {});
  if (status.ok()) {
    const absl::StatusOr<std::unique_ptr<fs::Instance>> instance = co_await fs::Instance::Open(pages.get());
    status = instance.status();
    for (size_t i = 0; i < users_.size() && status.ok(); ++i) {
      const std::string name = absl::StrCat("u", i);
      status = (co_await (*instance)->MakeDirectory(Nobody(), (*instance)->root(), name, 0755)).status();
    }
  }
  if (status.ok()) status = co_await pages->SyncTransactions();
  if (!status.ok()) {
    world_->Fail(absl::StrCat("a sound cluster cannot make a fileset: ", status.ToString()));
    co_return false;
  }
  prepared_ = true;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) OnReady(cluster_->host(slot));
  co_return true;
}

void FilesWork::StartProgressCheck(DurationNs bound) {
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    ++checks_running_;
    SimHost& host = cluster_->host(slot);
    host.applets.Run(CheckProgress(&host, bound, /*writes=*/true));
  }
}

void FilesWork::StartReadAll(int slot, DurationNs bound) {
  ++checks_running_;
  SimHost& host = cluster_->host(slot);
  host.applets.Run(CheckProgress(&host, bound, /*writes=*/false));
}

Task<absl::Status> FilesWork::TryAll(SimHost* host, bool writes) {
  const absl::StatusOr<HomePtr> home = co_await OpenOn(host);
  if (!home.ok()) co_return home.status();
  ModelTree tree;
  absl::Status status = co_await ReadTree(*home, (*home)->instance->root(), "", &tree);
  if (!status.ok()) co_return status;
  if (!writes) {
    const absl::StatusOr<fs::CheckReport> report = co_await fs::CheckFileset((*home)->pages.get());
    if (report.ok() && !report->problems.empty()) {
      world_->Fail(absl::StrCat("the check finds: ", absl::StrJoin(report->problems, "; ")));
    }
    co_return report.status();
  }
  const std::string name = absl::StrCat("check", host->slot, ".", host->life);
  const absl::StatusOr<fs::Attributes> made =
      co_await (*home)->instance->MakeNode(Nobody(), (*home)->instance->root(), name, S_IFREG | 0600, 0);
  if (!made.ok()) co_return fs::ErrnoOf(made.status()) == EEXIST ? absl::OkStatus() : made.status();
  status = co_await (*home)->instance->Write(made->inode, 0, name, {});
  if (status.ok()) status = co_await (*home)->instance->Sync(made->inode);
  co_return status;
}

Task<bool> FilesWork::CheckProgress(SimHost* host, DurationNs bound, bool writes) {
  Clock* const clock = host->clock.get();
  const TimeNs deadline = clock->Now() + bound;
  absl::Status status;
  do {
    status = co_await TryAll(host, writes);
    if (!status.ok()) co_await SleepUntil(clock, clock->Now() + kPause);
  } while (IsInTheWay(fs::ErrnoOf(status)) && clock->Now() < deadline);
  if (!status.ok()) {
    world_->Fail(absl::StrCat("no progress without faults: node ", host->slot + 1,
                              " cannot use the fileset: ", status.ToString()));
    co_return false;
  }
  --checks_running_;
  co_return true;
}

}  // namespace mangrove::sim
