#include "tests/sim/kernel_caches.h"

#include <algorithm>
#include <coroutine>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "fs/space.h"
#include "tests/sim/applets.h"
#include "tests/sim/files.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {
namespace {

constexpr uint64_t kFirst = 7'000;  // In the group that each fileset has from the start.
constexpr uint64_t kDirectory = kFirst + 8;
constexpr uint64_t InodeOf(size_t file) { return kFirst + 2 * file; }
constexpr uint64_t BytesOf(size_t file) { return kFirst + 2 * file + 1; }
std::vector<uint64_t> PagesOf(size_t file) { return {InodeOf(file), BytesOf(file)}; }
constexpr DurationNs kForgetTime = 300 * kMicrosecond;
constexpr DurationNs kAgain = 10 * kMillisecond;
constexpr int kMostAttempts = 40;

uint64_t ValueOf(const std::string& page) {
  uint64_t value = 0;
  std::memcpy(&value, page.data(), sizeof(value));
  return value;
}
std::string BytesOfValue(uint64_t value) { return {reinterpret_cast<const char*>(&value), sizeof(value)}; }

// Names are changed for some time, and then left alone for long enough that listings tell them.
constexpr DurationNs kSpell = 700 * kMillisecond;
// K6: an answer is taken in by then.
constexpr DurationNs kTakenIn = 390 * kMillisecond;

// What K1 relies on: a host that stands still as a whole, just between an answer and its being taken in, would keep it for longer.
DurationNs InTime(DurationNs late, DurationNs time) { return late > time ? 0 : time; }

}  // namespace

// Until the kernel has the daemon's answer.
struct KernelCachesWork::Call {
  bool is_over = false;
  TimeNs answered = 0;
  std::coroutine_handle<> waiter;

  void End() {
    is_over = true;
    if (waiter) std::exchange(waiter, {}).resume();
  }
  // co_await: until it has ended.
  static auto Ends(CallPtr call) {
    struct Awaiter {
      CallPtr call;
      bool await_ready() const noexcept { return call->is_over; }
      void await_suspend(std::coroutine_handle<> h) noexcept { call->waiter = h; }
      void await_resume() const noexcept {}
    };
    return Awaiter{std::move(call)};
  }
};

KernelCachesWork::KernelCachesWork(SimCluster* cluster, const KernelCachesOptions& options)
    : cluster_(cluster), world_(&cluster->world()), options_(options) {}

std::vector<PageId> KernelCachesWork::pages() const {
  return {kFilesetRegion.first + InodeOf(0), kFilesetRegion.first + kDirectory};
}

void KernelCachesWork::Prepare() { cluster_->host(0).applets.Run(PrepareAll(&cluster_->host(0))); }

Task<bool> KernelCachesWork::PrepareAll(SimHost* host) {
  const absl::Status status = co_await host->node->AllocateAs({kFilesetRegion.first, fs::kGroupPages}, false,
                                                              host->clock->Now() + kPrepareBound);
  if (!status.ok()) {
    world_->Fail(absl::StrCat("a sound cluster cannot make pages of files: ", status.ToString()));
    co_return false;
  }
  prepared_ = true;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) OnReady(cluster_->host(slot));
  co_return true;
}

void KernelCachesWork::OnReady(SimHost& host) {
  if (stopped_ || !prepared_) return;
  const PlantedBugs* const bugs = cluster_->options().bugs;
  auto home = std::make_shared<Home>(world_, &host, bugs);
  fs::EnginePagesNode node = EnginePagesNodeOf(host);
  node.bugs = bugs;
  node.allocate = [](PageRange, AllocateOptions, TimeNs) -> Task<absl::Status> { co_return absl::OkStatus(); };
  home->pages = std::make_unique<fs::EnginePages>(node, kFilesetRegion, ++next_client_);
  home->known.SetRoot({kDirectory});
  home->cache.Begin(host.clock.get(), home->pages->copies(), true);
  homes_[host.slot] = home;
  for (int i = 0; i < options_.programs_per_node; ++i) {
    const auto number = static_cast<uint64_t>(host.slot * options_.programs_per_node + i);
    host.applets.Run(RunProgram(home, {.random = world_->Fork("program", number * 1'000 + host.life), .files = {}}));
  }
}

// --- What is so -------------------------------------------------------------------------------------------------------

// What was over by then, and has not been lost since.
uint64_t KernelCachesWork::LeastAt(uint64_t page, TimeNs begun) const {
  const auto it = changes_.find(page);
  if (it == changes_.end()) return 0;
  uint64_t least = 0;
  for (const Committed& one : it->second) {
    if (one.at > begun) continue;
    const bool is_there = cluster_->NewestView().Has({NodeOfSlot(one.slot), Incarnation(one.life)}) &&
                          cluster_->host(one.slot).up() && cluster_->host(one.slot).life == one.life;
    if (one.is_durable || is_there) least = std::max(least, one.value);
  }
  return least;
}

void KernelCachesWork::Check(const Home& home, uint64_t page, TimeNs begun, uint64_t value, const char* what) {
  ++counters_.succeeded;
  const uint64_t least = LeastAt(page, begun);
  if (value >= least) return;
  world_->Fail(absl::StrCat("node ", home.host->slot + 1, " sees ", what, " of change ", value, " of page ",
                            page - kFirst, ", and change ", least, " was over when it began to look"));
}

// --- The daemon -------------------------------------------------------------------------------------------------------

Task<std::optional<uint64_t>> KernelCachesWork::Get(HomePtr home, uint64_t page) {
  if (const auto here = home->pages->Glance(page)) co_return ValueOf(*here);
  co_return co_await GetLocked(home, std::vector<uint64_t>(1, page));
}

// Of the last of them. The others stay as they are all the while.
Task<std::optional<uint64_t>> KernelCachesWork::GetLocked(HomePtr home, std::vector<uint64_t> pages) {
  for (int attempt = 1; attempt <= kMostAttempts; ++attempt) {
    const absl::StatusOr<uint64_t> transaction = co_await home->pages->Begin();
    if (!transaction.ok()) break;
    absl::Status status;
    uint64_t value = 0;
    for (const uint64_t page : pages) {
      const absl::StatusOr<std::string> bytes = co_await home->pages->Read(*transaction, page, fs::Intent::kRead);
      status = bytes.status();
      if (!status.ok()) break;
      value = ValueOf(*bytes);
    }
    if (status.ok()) {
      status = co_await home->pages->Commit(*transaction);
    } else {
      home->pages->Abort(*transaction);
    }
    if (status.ok()) co_return value;
    if (!absl::IsAborted(status)) break;
    const absl::Status again = co_await home->pages->BackOff(attempt);
    if (!again.ok()) break;
  }
  co_return std::nullopt;
}

Task<bool> KernelCachesWork::MakeDurable(HomePtr home, std::vector<uint64_t> pages) {
  const size_t known = changes_[pages.front()].size();
  const absl::Status status = co_await home->pages->SyncTransactions();
  if (!status.ok()) co_return false;
  for (const uint64_t page : pages) {
    for (size_t i = 0; i < std::min(known, changes_[page].size()); ++i) {
      Committed& one = changes_[page][i];
      if (one.slot == home->host->slot && one.life == home->life) one.is_durable = true;
    }
  }
  co_return true;
}

// All of them become one more than the first one.
Task<bool> KernelCachesWork::Raise(HomePtr home, std::vector<uint64_t> pages, uint64_t* raised) {
  for (int attempt = 1; attempt <= kMostAttempts; ++attempt) {
    const absl::StatusOr<uint64_t> transaction = co_await home->pages->Begin();
    if (!transaction.ok()) co_return false;
    absl::Status status;
    uint64_t value = 0;
    for (const uint64_t page : pages) {
      const absl::StatusOr<std::string> bytes = co_await home->pages->Read(*transaction, page, fs::Intent::kWrite);
      status = bytes.status();
      if (!status.ok()) break;
      if (value == 0) value = ValueOf(*bytes) + 1;
      status = co_await home->pages->Write(*transaction, page, 0, BytesOfValue(value));
      if (!status.ok()) break;
    }
    if (status.ok()) {
      status = co_await home->pages->Commit(*transaction);
    } else {
      home->pages->Abort(*transaction);
    }
    if (status.ok()) {
      if (raised != nullptr) *raised = value;
      for (const uint64_t page : pages) {
        changes_[page].push_back({.value = value, .slot = home->host->slot, .life = home->life, .at = world_->now()});
      }
      home->host->applets.Run(MakeDurable(home, std::move(pages)));
      co_return true;
    }
    if (!absl::IsAborted(status)) co_return false;
    const absl::Status again = co_await home->pages->BackOff(attempt);
    if (!again.ok()) co_return false;
  }
  co_return false;
}

// --- Between kernel and daemon ----------------------------------------------------------------------------------------

// `then` happens in the node's kernel, or its program, whether the daemon stands still or not.
void KernelCachesWork::Pass(const HomePtr& home, DurationNs time, std::function<void()> then) {
  world_->After(time, home->host->slot, EventKind::kApplication, std::move(then));
}

Task<bool> KernelCachesWork::Answer(HomePtr home, CallPtr call, Task<bool> task) {
  co_await std::move(task);
  // Whoever waits is woken some time after the answer was written.
  const DurationNs time =
      (world_->events() % 16 == 0 ? 100 : 1) * static_cast<DurationNs>(10 + world_->events() % 90) * kMicrosecond;
  call->answered = world_->now();
  Pass(home, time, [call] { call->End(); });
  co_return true;
}

Task<DurationNs> KernelCachesWork::Ask(HomePtr home, Program* program, Task<bool> task) {
  auto call = std::make_shared<Call>();
  auto shared = std::make_shared<Task<bool>>(std::move(task));
  world_->After(program->random.Spread(5 * kMicrosecond, 50 * kMicrosecond), home->host->slot, EventKind::kClient,
                [this, home, call, shared] { home->host->applets.Run(Answer(home, call, std::move(*shared))); });
  co_await Call::Ends(call);
  co_return world_->now() - call->answered;
}

// --- Programs ---------------------------------------------------------------------------------------------------------

Task<bool> KernelCachesWork::RunProgram(HomePtr home, Program program) {
  const Counted counted(&programs_running_);
  SimRandom& random = program.random;
  while (!stopped_) {
    auto pause = std::make_shared<Call>();
    // Most calls come in a row.
    const DurationNs think = random.PerMille(700) ? random.Spread(kMicrosecond, 200 * kMicrosecond)
                                                  : random.Spread(kMillisecond, options_.max_think);
    Pass(home, think, [pause] { pause->End(); });
    co_await Call::Ends(pause);
    if (stopped_) break;
    ++counters_.ended;
    const size_t file = random.Below(program.files.size());
    Found& found = program.files[file];
    const uint64_t choice = random.Below(1'000);
    if (world_->IsPaused(home->host->slot) && choice < 900) {
      // Mostly what needs no answer of a daemon that stands still.
      if (LookAtNames(home)) continue;
      if (home->kernel.Attributes(found.number)) co_await Stat(home, &program, found.number, InodeOf(file));
      continue;
    }
    const bool in_spell = world_->now() / kSpell % 2 == 0;
    if (choice < 130) {
      co_await List(home, &program);
    } else if (choice < 190) {
      if (in_spell) {
        co_await ChangeNames(home, &program);
      } else {
        LookAtNames(home);
      }
    } else if (choice < 230) {
      co_await Stat(home, &program, fs::KnownFiles::kRoot, kDirectory);
    } else if (found.number == 0) {
      co_await LookUp(home, &program, file);
    } else if (choice < 270) {
      co_await Write(home, &program, file);
    } else if (choice < 500) {
      co_await Stat(home, &program, found.number, InodeOf(file));
    } else if (!found.is_open) {
      if (choice < 520) Forget(home, &found, file);
      if (choice >= 520) co_await Open(home, &program, &found);
    } else if (choice < 540) {
      co_await Close(home, &found);
    } else {
      co_await ReadBytes(home, &program, file);
    }
  }
  for (Found& found : program.files) {
    if (found.is_open) co_await Close(home, &found);
  }
  co_return true;
}

Task<bool> KernelCachesWork::LookUp(HomePtr home, Program* program, size_t file) {
  const uint64_t asked_in = home->kernel.version();
  const TimeNs begun = world_->now();
  struct Answered {
    uint64_t number = 0;
    uint64_t value = 0;
    DurationNs time = 0;
    std::optional<uint64_t> names;
    DurationNs names_time = 0;
  };
  auto found = std::make_shared<Answered>();
  const auto serve = [](HomePtr of, size_t which, std::shared_ptr<Answered> out) -> Task<bool> {
    const fs::KernelCache::Mark mark = of->cache.Now();
    const std::optional<uint64_t> value = co_await Get(of, InodeOf(which));
    if (!value) co_return false;
    out->names = co_await Get(of, kDirectory);
    out->names_time = of->cache.TellNames(fs::KnownFiles::kRoot, mark);
    out->number = of->known.Tell(fs::FoundFile({InodeOf(which)}, 1));
    out->value = *value;
    out->time = of->cache.TellAttributes(out->number, true, mark);
    co_return true;
  };
  const DurationNs late = co_await Ask(home, program, serve(home, file, found));
  if (found->number == 0) co_return false;
  if (found->names && late < kTakenIn) home->kernel.TakeNames(*found->names, found->names_time);
  home->kernel.TakeAttributes(found->number, asked_in, found->value, InTime(late, found->time));
  ++home->looked_up[found->number];
  if (program->files[file].number == 0) ++home->users[file];
  program->files[file].number = found->number;
  Check(*home, InodeOf(file), begun, found->value, "a file that it looks up");
  co_return true;
}

// It is looked up again. With the last program the kernel forgets the file, and says so later.
void KernelCachesWork::Forget(const HomePtr& home, Found* found, size_t file) {
  const uint64_t number = std::exchange(*found, {}).number;
  if (--home->users[file] > 0) return;
  home->kernel.Forget(number);
  world_->After(kForgetTime, home->host->slot, EventKind::kClient,
                [home, number, times = std::exchange(home->looked_up[number], 0)] {
                  if (home->known.Forget(number, times)) home->cache.Forget(number);
                });
}

Task<bool> KernelCachesWork::Stat(HomePtr home, Program* program, uint64_t number, uint64_t page) {
  const TimeNs begun = world_->now();
  if (const auto value = home->kernel.Attributes(number)) {
    ++hits_;
    Check(*home, page, begun, *value, "attributes that its kernel keeps");
    co_return true;
  }
  const uint64_t asked_in = home->kernel.version();
  auto told = std::make_shared<std::pair<std::optional<uint64_t>, DurationNs>>();
  const auto serve = [](HomePtr of, uint64_t n, uint64_t p, decltype(told) out) -> Task<bool> {
    const fs::KernelCache::Mark mark = of->cache.Now();
    out->first = co_await Get(of, p);
    if (out->first) out->second = of->cache.TellAttributes(n, true, mark);
    co_return true;
  };
  const DurationNs late = co_await Ask(home, program, serve(home, number, page, told));
  if (!told->first) co_return false;
  home->kernel.TakeAttributes(number, asked_in, *told->first, InTime(late, told->second));
  Check(*home, page, begun, *told->first, "attributes");
  co_return true;
}

Task<bool> KernelCachesWork::Open(HomePtr home, Program* program, Found* file) {
  const auto serve = [](HomePtr of, Found* out) -> Task<bool> {
    co_await Get(of, kDirectory);  // That it is open others have to know first.
    out->may_keep = of->cache.Open(out->number, false);
    out->is_open = true;
    co_return true;
  };
  co_await Ask(home, program, serve(home, file));
  if (!file->may_keep) home->kernel.OpenWithoutKeeping(file->number);
  co_return true;
}

Task<bool> KernelCachesWork::Close(HomePtr home, Found* file) {
  file->is_open = false;
  world_->After(kMicrosecond, home->host->slot, EventKind::kClient,
                [home, number = file->number, keeps = file->may_keep] { home->cache.Close(number, false, keeps); });
  co_return true;
}

Task<bool> KernelCachesWork::ReadBytes(HomePtr home, Program* program, size_t file) {
  const Found& found = program->files[file];
  const TimeNs begun = world_->now();
  if (found.may_keep && !home->kernel.Attributes(found.number)) {
    const uint64_t asked_in = home->kernel.version();
    auto told = std::make_shared<std::pair<std::optional<uint64_t>, DurationNs>>();
    const auto serve = [](HomePtr of, uint64_t n, uint64_t p, decltype(told) out) -> Task<bool> {
      Outcome<bool> right(of->host->clock.get());
      of->cache.WhenBytesAreRight(n, [right]() mutable { right.Set(true); });
      co_await right.Get();
      const fs::KernelCache::Mark mark = of->cache.Now();
      out->first = co_await Get(of, p);
      if (out->first) out->second = of->cache.TellAttributes(n, true, mark);
      co_return true;
    };
    const DurationNs late = co_await Ask(home, program, serve(home, found.number, InodeOf(file), told));
    if (!told->first) co_return false;
    home->kernel.TakeAttributes(found.number, asked_in, *told->first, InTime(late, told->second));
  }
  const std::optional<uint64_t> kept = found.may_keep ? home->kernel.Bytes(found.number) : std::nullopt;
  if (kept) {
    ++hits_;
    Check(*home, BytesOf(file), begun, *kept, "bytes that its kernel keeps");
    co_return true;
  }
  auto value = std::make_shared<std::optional<uint64_t>>();
  const auto serve = [](HomePtr of, Found f, size_t which, decltype(value) out) -> Task<bool> {
    of->cache.Read(f.number, f.may_keep);
    *out = co_await GetLocked(of, PagesOf(which));
    // The folios are unlocked by whoever writes the answer.
    if (f.may_keep) of->kernel.EndRead(f.number, *out);
    co_return true;
  };
  if (found.may_keep) home->kernel.BeginRead(found.number);
  co_await Ask(home, program, serve(home, found, file, value));
  if (*value) Check(*home, BytesOf(file), begun, **value, "bytes");
  co_return true;
}

// Opens it for that, and closes it.
Task<bool> KernelCachesWork::Write(HomePtr home, Program* program, size_t file) {
  const uint64_t number = program->files[file].number;
  const auto serve = [](KernelCachesWork* work, HomePtr of, uint64_t n, size_t which) -> Task<bool> {
    co_await Get(of, kDirectory);
    of->cache.Open(n, true);
    co_await work->Raise(of, PagesOf(which));
    of->cache.Wrote(n);
    co_return true;
  };
  co_await Ask(home, program, serve(this, home, number, file));
  home->kernel.Wrote(number);
  world_->After(kMicrosecond, home->host->slot, EventKind::kClient,
                [home, number] { home->cache.Close(number, true, false); });
  co_return true;
}

// The files of a listing are found, and told of when all have been.
Task<bool> KernelCachesWork::List(HomePtr home, Program* program) {
  if (home->changes_names) co_return false;
  const Counted lists(&home->listing);
  using Told = std::array<std::pair<uint64_t, DurationNs>, kFiles>;
  const TimeNs begun = world_->now();
  const uint64_t asked_in = home->kernel.version();
  auto told = std::make_shared<std::optional<Told>>();
  auto names = std::make_shared<std::pair<std::optional<uint64_t>, DurationNs>>();
  std::array<uint64_t, kFiles> numbers{};
  for (size_t file = 0; file < kFiles; ++file) numbers[file] = program->files[file].number;
  const auto serve = [](HomePtr of, std::array<uint64_t, kFiles> which, decltype(told) out,
                        decltype(names) out_names) -> Task<bool> {
    const fs::KernelCache::Mark mark = of->cache.Now();
    Told found{};
    for (size_t file = 0; file < kFiles; ++file) {
      const std::optional<uint64_t> value = co_await Get(of, InodeOf(file));
      if (!value) co_return false;
      found[file].first = *value;
    }
    out_names->first = co_await Get(of, kDirectory);
    out_names->second = of->cache.TellNames(fs::KnownFiles::kRoot, mark);
    for (size_t file = 0; file < kFiles; ++file) {
      if (which[file] != 0) found[file].second = of->cache.TellAttributes(which[file], true, mark);
    }
    *out = found;
    co_return true;
  };
  const DurationNs late = co_await Ask(home, program, serve(home, numbers, told, names));
  if (!told->has_value()) co_return false;
  if (names->first && late < kTakenIn) {
    home->kernel.TakeNames(*names->first, names->second);
    Check(*home, kDirectory, begun, *names->first, "names of a listing");
  }
  for (size_t file = 0; file < kFiles; ++file) {
    if (numbers[file] == 0) continue;
    home->kernel.TakeAttributes(numbers[file], asked_in, (**told)[file].first, InTime(late, (**told)[file].second));
    Check(*home, InodeOf(file), begun, (**told)[file].first, "a file of a listing");
  }
  co_return true;
}

Task<bool> KernelCachesWork::ChangeNames(HomePtr home, Program* program) {
  if (home->changes_names || home->listing > 0) co_return false;
  home->changes_names = true;
  auto raised = std::make_shared<uint64_t>(0);
  const auto serve = [](KernelCachesWork* work, HomePtr of, decltype(raised) out) -> Task<bool> {
    std::vector<uint64_t> names(1, kDirectory);
    co_await work->Raise(of, std::move(names), out.get());
    co_return true;
  };
  co_await Ask(home, program, serve(this, home, raised));
  home->kernel.ChangedNames(fs::KnownFiles::kRoot, *raised == 0 ? std::nullopt : std::optional(*raised));
  home->changes_names = false;
  co_return true;
}

bool KernelCachesWork::LookAtNames(const HomePtr& home) {
  const std::optional<uint64_t> kept = home->kernel.Names();
  if (!kept) return false;
  ++name_hits_;
  Check(*home, kDirectory, world_->now(), *kept, "names that its kernel keeps");
  return true;
}

// --- Without faults ---------------------------------------------------------------------------------------------------

void KernelCachesWork::StartProgressCheck(DurationNs bound) {
  for (int slot = 0; slot < cluster_->nodes(); ++slot) StartReadAll(slot, bound);
}

void KernelCachesWork::StartReadAll(int slot, DurationNs bound) {
  ++checks_running_;
  cluster_->host(slot).applets.Run(CheckProgress(&cluster_->host(slot), bound));
}

// Each node changes each file, and sees what the others have done.
Task<bool> KernelCachesWork::CheckProgress(SimHost* host, DurationNs bound) {
  Clock* const clock = host->clock.get();
  const TimeNs deadline = clock->Now() + bound;
  if (!homes_.contains(host->slot) || homes_[host->slot]->life != host->life) {
    stopped_ = false;
    OnReady(*host);
    stopped_ = true;
  }
  const HomePtr home = homes_[host->slot];
  for (size_t file = 0; file < kFiles; ++file) {
    bool is_done = false;
    while (!is_done && clock->Now() < deadline) {
      is_done = co_await Raise(home, PagesOf(file));
      if (!is_done) co_await SleepUntil(clock, clock->Now() + kAgain);
    }
    const std::optional<uint64_t> value = co_await Get(home, InodeOf(file));
    if (!is_done || !value || clock->Now() >= deadline) {
      world_->Fail(absl::StrCat("no progress without faults: node ", host->slot + 1, " cannot change file ", file));
      co_return false;
    }
    Check(*home, InodeOf(file), world_->now(), *value, "a file");
  }
  --checks_running_;
  co_return true;
}

}  // namespace mangrove::sim
