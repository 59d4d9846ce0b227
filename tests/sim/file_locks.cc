#include "tests/sim/file_locks.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "fs/space.h"
#include "fs/status.h"
#include "tests/sim/applets.h"
#include "tests/sim/files.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {
namespace {

constexpr uint64_t kFiles = 3;
constexpr uint64_t kBytes = 6;
constexpr DurationNs kKeep = 20 * kMillisecond;
constexpr DurationNs kLongestWait = 2 * kSecond;
// Whoever has what another one waits for gives it back, or waits in a ring, or for kLongestWait, or is told so: ENOLCK, in 5 s.
constexpr DurationNs kBound = 90 * kSecond;

std::string ToString(const fs::FileLock& lock) {
  return absl::StrCat(lock.kind == fs::LockKind::kFile ? "file " : "range ", lock.inode.value, " ", lock.first, "..",
                      lock.last, lock.exclusive ? " exclusive" : " shared", " of owner ", lock.owner.id, " on node ",
                      lock.owner.place);
}

}  // namespace

FileLocksWork::FileLocksWork(SimCluster* cluster, const FileLocksOptions& options)
    : cluster_(cluster), world_(&cluster->world()), options_(options) {}

std::vector<PageId> FileLocksWork::pages() const {
  return {kFilesetRegion.first + fs::LockTable::kPages.first, kFilesetRegion.first + fs::OpenTable::PagesOf(1).first};
}

void FileLocksWork::Prepare() { cluster_->host(0).applets.Run(PrepareAll(&cluster_->host(0))); }

Task<bool> FileLocksWork::PrepareAll(SimHost* host) {
  const absl::Status status = co_await host->node->AllocateAs({kFilesetRegion.first, fs::kGroupPages}, false,
                                                              host->clock->Now() + kPrepareBound);
  if (!status.ok()) {
    world_->Fail(absl::StrCat("a sound cluster cannot make pages for locks: ", status.ToString()));
    co_return false;
  }
  prepared_ = true;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) OnReady(cluster_->host(slot));
  co_return true;
}

void FileLocksWork::OnReady(SimHost& host) {
  if (stopped_ || !prepared_) return;
  auto home = std::make_shared<Home>();
  home->host = &host;
  home->life = host.life;
  fs::EnginePagesNode node = EnginePagesNodeOf(host);
  node.bugs = cluster_->options().bugs;
  node.allocate = [](PageRange, AllocateOptions, TimeNs) -> Task<absl::Status> { co_return absl::OkStatus(); };
  home->pages = std::make_unique<fs::EnginePages>(node, kFilesetRegion, ++next_client_);
  home->pages->lock_table().SetNews([of = home.get()] { of->has_news = true; });
  homes_[host.slot] = home;
  host.applets.Run(Keep(home));
  for (int i = 0; i < options_.owners_per_node; ++i) {
    const auto number = static_cast<uint64_t>(host.slot * options_.owners_per_node + i);
    host.applets.Run(RunOwner(home, {.number = number, .random = world_->Fork("owner", number * 1'000 + host.life)}));
  }
}

Task<bool> FileLocksWork::Keep(HomePtr home) {
  Clock* const clock = home->host->clock.get();
  TimeNs next = 0;
  while (true) {
    co_await SleepUntil(clock, clock->Now() + kKeep);
    if (!home->has_news && clock->Now() < next) continue;
    home->has_news = false;
    const absl::Status status = co_await home->pages->lock_table().Renew();
    if (!status.ok() && fs::ErrnoOf(status) == EIO && !absl::IsFailedPrecondition(status)) {
      world_->Fail(absl::StrCat("node ", home->host->slot + 1, " cannot put its locks in: ", status.ToString()));
    }
    next = clock->Now() + kSecond;
  }
}

// --- What is so -------------------------------------------------------------------------------------------------------

bool FileLocksWork::IsThere(uint64_t place, uint64_t life) const {
  return cluster_->NewestView().Has({NodeId(place), Incarnation(life)});
}

void FileLocksWork::DropTheGone() {
  std::erase_if(lives_, [this](const auto& one) { return !IsThere(one.first, one.second); });
  held_.EraseIf([this](const fs::FileLock& lock) { return !lives_.contains(lock.owner.place); });
}

void FileLocksWork::NoteSet(const Home& home, fs::FileLock lock) {
  DropTheGone();
  if (!IsThere(lock.owner.place, home.life)) return;
  if (const fs::FileLock* const other = held_.FindConflict(lock)) {
    world_->Fail(absl::StrCat(ToString(lock), " is given, and there is ", ToString(*other)));
  }
  lives_[lock.owner.place] = home.life;
  lock.handle = ++handles_;
  held_.Set(lock);
}

bool FileLocksWork::StillHas(const fs::FileLock& lock) const {
  const auto& all = held_.locks();
  return std::find(all.begin(), all.end(), lock) != all.end();
}

// --- Owners -----------------------------------------------------------------------------------------------------------

fs::FileLock FileLocksWork::SomeLock(const Home& home, Owner* owner) const {
  SimRandom& random = owner->random;
  fs::FileLock lock;
  lock.inode = {fs::kGroupPages + 1 + random.Below(kFiles)};
  lock.owner = {.place = static_cast<uint8_t>(home.host->slot + 1), .mount = 1, .id = owner->number};
  lock.exclusive = random.PerMille(600);
  if (random.PerMille(300)) {
    lock.kind = fs::LockKind::kFile;
  } else {
    lock.first = random.Below(kBytes);
    lock.last = random.PerMille(100) ? fs::FileLock::kEnd : lock.first + random.Below(3);
  }
  return lock;
}

Task<bool> FileLocksWork::RunOwner(HomePtr home, Owner owner) {
  const Counted counted(&owners_running_);
  Clock* const clock = home->host->clock.get();
  absl::Status open = absl::UnavailableError("not yet");
  while (!open.ok() && !stopped_) {
    open = co_await home->pages->PublishOpen({fs::kGroupPages + 1}, true);
    co_await SleepUntil(clock, clock->Now() + kKeep);
  }
  while (!stopped_) {
    co_await SleepUntil(clock, clock->Now() + owner.random.Spread(options_.min_think, options_.max_think));
    if (stopped_) break;
    const fs::FileLock lock = SomeLock(*home, &owner);
    const uint64_t choice = owner.random.Below(1'000);
    ++counters_.ended;
    if (choice < 250) {
      held_.Clear(lock);
      const absl::Status status = co_await home->pages->locks()->Clear(lock);
      // Of one that would become two; then it is as it was.
      if (!status.ok() && fs::ErrnoOf(status) != ENOLCK)
        world_->Fail(absl::StrCat(ToString(lock), " cannot be given back: ", status.ToString()));
      ++counters_.succeeded;
    } else if (choice < 350) {
      co_await FindOne(home, lock);
    } else if (choice < 390) {
      co_await ClearAll(home, owner.number);
    } else if (choice < 395 &&
               home->setting == 0) {  // As if it had been unmounted by force, when nothing is under way.
      held_.EraseIf([&](const fs::FileLock& other) { return other.owner.place == lock.owner.place; });
      co_await home->pages->locks()->ClearMount(lock.owner.mount);
    } else {
      co_await SetOne(home, &owner, lock);
    }
  }
  co_await ClearAll(home, owner.number);
  co_return true;
}

Task<bool> FileLocksWork::ClearAll(HomePtr home, uint64_t owner) {
  for (uint64_t file = 0; file < kFiles; ++file) {
    for (const fs::LockKind kind : {fs::LockKind::kRange, fs::LockKind::kFile}) {
      fs::FileLock lock{.inode = {fs::kGroupPages + 1 + file}, .kind = kind};
      lock.owner = {.place = static_cast<uint8_t>(home->host->slot + 1), .mount = 1, .id = owner};
      held_.Clear(lock);
      (co_await home->pages->locks()->Clear(lock)).IgnoreError();
    }
  }
  co_return true;
}

Task<bool> FileLocksWork::CancelIn(SimHost* host, std::shared_ptr<fs::LockWait> wait, DurationNs in) {
  co_await SleepUntil(host->clock.get(), host->clock->Now() + in);
  wait->Cancel();
  co_return true;
}

// That somebody else waited since then, or that it was not known yet that he did not. Of a node that is dead that is known with the view.
bool FileLocksWork::OthersWaited(uint64_t call, TimeNs since) {
  constexpr DurationNs kToTell = 2 * kSecond;
  std::erase_if(waits_, [&](const auto& one) {
    const Wait& wait = one.second;
    return wait.ended != 0 ? wait.ended + kBound < since : !IsThere(wait.place, wait.life);
  });
  return std::any_of(waits_.begin(), waits_.end(), [&](const auto& one) {
    return one.first != call && (one.second.ended == 0 || one.second.ended + kToTell >= since);
  });
}

Task<bool> FileLocksWork::SetOne(HomePtr home, Owner* owner, fs::FileLock lock) {
  SimHost* const host = home->host;
  std::shared_ptr<fs::LockWait> wait;
  if (owner->random.PerMille(500)) {
    wait = std::make_shared<fs::LockWait>(host->clock.get());
    const bool is_cancelled = lock.kind == fs::LockKind::kFile || owner->random.PerMille(200);
    const DurationNs in = is_cancelled ? owner->random.Spread(kMillisecond, kLongestWait) : kBound;
    host->applets.Run(CancelIn(host, wait, in));
  }
  held_.Clear(lock);  // Less than what was there it may be from now on.
  const TimeNs begun = world_->now();
  const uint64_t number = ++calls_;
  if (wait != nullptr) waits_[number] = {.place = lock.owner.place, .life = home->life};
  world_->Trace("node ", host->slot + 1, ": ", wait ? "waits for " : "tries ", ToString(lock));
  ++home->setting;
  const absl::Status status = co_await home->pages->locks()->Set(lock, wait);
  --home->setting;
  const int error = fs::ErrnoOf(status);
  if (wait != nullptr) waits_[number].ended = world_->now();
  world_->Trace("node ", host->slot + 1, ": ", ToString(lock), " ends: ", error, " ", status.message());
  if (world_->now() - begun >= kBound) {
    world_->Fail(absl::StrCat("nobody lets somebody have ", ToString(lock), " for long: ", error));
  }
  if (error == 0) {
    ++counters_.succeeded;
    NoteSet(*home, lock);
  } else if (error == EDEADLK) {
    if (!OthersWaited(number, begun)) {
      world_->Fail(absl::StrCat(ToString(lock), " is in a ring of those who wait, and nobody else waits"));
    }
    co_await ClearAll(home, owner->number);
  } else if (error != EAGAIN && error != ENOLCK && error != EINTR) {
    world_->Fail(absl::StrCat(ToString(lock), " ends with errno ", error, ": ", status.message()));
  }
  co_return true;
}

Task<bool> FileLocksWork::FindOne(HomePtr home, fs::FileLock lock) {
  DropTheGone();
  const fs::FileLock* const there = held_.FindConflict(lock);
  const fs::FileLock before = there == nullptr ? fs::FileLock() : *there;
  const bool was_there = there != nullptr;
  const absl::StatusOr<std::optional<fs::FileLock>> found = co_await home->pages->locks()->Find(lock);
  DropTheGone();
  if (!found.ok()) co_return false;
  ++counters_.succeeded;
  if (!found->has_value() && was_there && StillHas(before) && IsThere(lock.owner.place, home->life)) {
    world_->Fail(absl::StrCat("nothing is in the way of ", ToString(lock), ", and there is ", ToString(before)));
  }
  co_return true;
}

// --- Without faults ---------------------------------------------------------------------------------------------------

void FileLocksWork::StartProgressCheck(DurationNs bound) {
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    ++checks_running_;
    cluster_->host(slot).applets.Run(CheckProgress(&cluster_->host(slot), bound));
  }
}

void FileLocksWork::StartReadAll(int slot, DurationNs bound) {
  ++checks_running_;
  cluster_->host(slot).applets.Run(CheckProgress(&cluster_->host(slot), bound));
}

// Each node has each file for itself in its turn.
Task<bool> FileLocksWork::CheckProgress(SimHost* host, DurationNs bound) {
  Clock* const clock = host->clock.get();
  const TimeNs deadline = clock->Now() + bound;
  stopped_ = false;
  if (!homes_.contains(host->slot) || homes_[host->slot]->life != host->life) OnReady(*host);
  stopped_ = true;
  const HomePtr home = homes_[host->slot];
  absl::Status status = co_await home->pages->PublishOpen({fs::kGroupPages + 1}, true);
  for (uint64_t file = 0; file < kFiles; ++file) {
    fs::FileLock lock{.inode = {fs::kGroupPages + 1 + file}, .exclusive = true};
    lock.owner = {.place = static_cast<uint8_t>(host->slot + 1), .mount = 2, .id = 1};
    do {
      auto wait = std::make_shared<fs::LockWait>(clock);
      status = co_await home->pages->locks()->Set(lock, wait);
      if (!status.ok()) co_await SleepUntil(clock, clock->Now() + kKeep);
    } while (!status.ok() && clock->Now() < deadline);
    if (!status.ok() || clock->Now() >= deadline) {
      world_->Fail(absl::StrCat("no progress without faults: node ", host->slot + 1, " cannot have ", ToString(lock),
                                ": ", status.ToString()));
      co_return false;
    }
    NoteSet(*home, lock);
    co_await SleepUntil(clock, clock->Now() + kMillisecond);
    held_.Clear(lock);
    (co_await home->pages->locks()->Clear(lock)).IgnoreError();
  }
  --checks_running_;
  co_return true;
}

}  // namespace mangrove::sim
