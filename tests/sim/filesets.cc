#include "tests/sim/filesets.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/status.h"
#include "tests/sim/applets.h"
#include "tests/sim/files.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {
namespace {

constexpr DurationNs kTryAgain = 20 * kMillisecond;

// The cluster or a disk may be at fault, and the operation may have happened.
bool StandsInTheWay(const absl::Status& status) {
  const int error = fs::ErrnoOf(status);
  return error == EAGAIN || error == ETIMEDOUT || error == ENOSPC;
}

Credentials Root() { return {.uid = 0, .gid = 0, .groups = {}}; }
std::string RegionOf(uint64_t number) { return absl::StrCat("fileset-", number); }

}  // namespace

FilesetsWork::FilesetsWork(SimCluster* cluster, const FilesetsOptions& options)
    : cluster_(cluster), world_(&cluster->world()), options_(options) {
  for (int slot = 0; slot < cluster->nodes(); ++slot) {
    auto one = std::make_unique<Operator>(
        Operator{.slot = slot, .random = world_->Fork("operator", static_cast<uint64_t>(slot)), .filesets = {}});
    for (int i = 0; i < options.names_per_node; ++i) one->filesets[absl::StrCat("f", slot, ".", i)] = {};
    operators_.push_back(std::move(one));
  }
}

fs::EnginePagesNode FilesetsWork::NodeOf(const Home& home) const {
  fs::EnginePagesNode node = EnginePagesNodeOf(*home.host);
  node.bugs = cluster_->options().bugs;
  node.allocate = [regions = home.regions.get()](PageRange pages, AllocateOptions options, TimeNs deadline) {
    return regions->AllocateAhead(Root(), pages, options, deadline);
  };
  return node;
}

FilesetsWork::HomePtr FilesetsWork::HomeOn(SimHost* host) {
  auto home = std::make_shared<Home>();
  home->host = host;
  home->regions =
      std::make_unique<SimRegions>(*host, static_cast<uint32_t>(cluster_->nodes()), cluster_->options().replicas);
  home->filesets =
      std::make_unique<fs::SuperRoot>(NodeOf(*home), home->regions.get(), [this] { return ++next_client_; });
  return home;
}

void FilesetsWork::Fail(const Home& home, const std::string& what) {
  world_->Fail(absl::StrCat("the operator on node ", home.host->slot + 1, ": ", what));
}

void FilesetsWork::OnReady(SimHost& host) {
  if (stopped_ || !prepared_) return;
  host.applets.Run(RunOperator(HomeOn(&host), operators_[static_cast<size_t>(host.slot)].get()));
}

// --- Operators --------------------------------------------------------------------------------------------------------

Task<bool> FilesetsWork::RunOperator(HomePtr home, Operator* one) {
  const Counted counted(&operators_running_);
  Clock* const clock = home->host->clock.get();
  bool is_new_life = true;
  bool must_look = true;
  while (!stopped_) {
    co_await SleepUntil(clock, clock->Now() + one->random.Spread(options_.min_think, options_.max_think));
    if (stopped_) break;
    if (!must_look) {
      must_look = !co_await RunOperation(home, one);
    } else if (co_await LookAround(home, one, is_new_life)) {
      must_look = is_new_life = false;
    }
  }
  co_return true;
}

// Finds out what is there. False: something is in the way.
Task<bool> FilesetsWork::LookAround(HomePtr home, Operator* one, bool is_new_life) {
  const absl::StatusOr<std::vector<fs::FilesetInfo>> infos = co_await home->filesets->List();
  if (StandsInTheWay(infos.status())) co_return false;
  if (!infos.ok()) {
    Fail(*home, absl::StrCat("cannot list filesets: ", infos.status().ToString()));
    co_return false;
  }
  for (auto& [name, known] : one->filesets) {
    fs::FilesetInfo found;
    for (const fs::FilesetInfo& info : *infos) {
      if (info.name == name) found = info;
    }
    if (found.state != known.state && !known.others.contains(found.state)) {
      Fail(*home, absl::StrCat("fileset ", name, " is ", ToString(found.state), ", and was ", ToString(known.state)));
    }
    if (found.state == State::kFree) {
      known.number = 0;
      known.has_mark = false;
    } else if (known.number != 0 && known.number != found.number) {
      Fail(*home, absl::StrCat("fileset ", name, " is number ", found.number, ", and was ", known.number));
    } else {
      known.number = found.number;
    }
    // What others see of a node that is gone stays.
    if (is_new_life) known.others.clear();
    if (!known.others.empty()) known.others.insert(known.state);
    known.state = found.state;
  }
  co_return true;
}

// False: nobody knows whether it has happened.
Task<bool> FilesetsWork::RunOperation(HomePtr home, Operator* one) {
  auto it = one->filesets.begin();
  std::advance(it, one->random.Below(one->filesets.size()));
  const std::string name = it->first;
  Known* const known = &it->second;
  const bool often = one->random.PerMille(600);
  ++counters_.ended;
  absl::Status status;
  if (known->state == State::kOnline && often) {
    const bool had_mark = known->has_mark;
    status = co_await Use(home, known, had_mark);
    if (status.ok()) known->has_mark = true;
  } else {
    State to = State::kOnline;  // Also of one that is being made, or offline.
    if (known->state == State::kOnline) to = State::kOffline;
    if (known->state == State::kDeleting || (known->state == State::kOffline && often)) to = State::kFree;
    status = co_await Carry(home, name, known, to);
  }
  if (StandsInTheWay(status)) co_return false;
  if (!status.ok()) {
    Fail(*home, absl::StrCat("fileset ", name, ", which is ", ToString(known->state), ": ", status.ToString()));
    co_return false;
  }
  ++counters_.succeeded;
  co_return true;
}

Task<absl::Status> FilesetsWork::Carry(HomePtr home, std::string name, Known* known, State to) {
  const State from = known->state;
  world_->Trace("node ", home->host->slot + 1, ": fileset ", name, " is ", ToString(from), " and is to be ",
                ToString(to));
  known->others.insert(to);
  if (from == State::kFree) known->others.insert(State::kMaking);
  if (to == State::kFree) known->others.insert(State::kDeleting);
  absl::Status status;
  if (from == State::kFree || from == State::kMaking) {
    const absl::StatusOr<fs::FilesetInfo> made = co_await home->filesets->Create(name, {});
    status = made.status();
    if (status.ok() && known->number != 0 && made->number != known->number) {
      Fail(*home, absl::StrCat("fileset ", name, " was being made as number ", known->number, ", and is number ",
                               made->number));
    }
    if (status.ok()) known->number = made->number;
    if (status.ok() && !numbers_.insert(made->number).second) {
      Fail(*home, absl::StrCat("number ", made->number, " of fileset ", name, " was another's before"));
    }
  } else if (to == State::kFree) {
    status = co_await home->filesets->Delete(name);
    if (status.ok()) known->number = 0;
    if (status.ok()) known->has_mark = false;
  } else {
    status = co_await home->filesets->SetOnline(name, to == State::kOnline);
  }
  world_->Trace("node ", home->host->slot + 1, ": fileset ", name, ": ", status.ToString());
  if (!status.ok()) co_return status;
  known->state = to;
  known->others.clear();
  co_return status;
}

// It says what its number is, from the first time on.
Task<absl::Status> FilesetsWork::Use(HomePtr home, const Known* known, bool must_be_there) {
  const std::string mark = absl::StrCat(known->number);
  const TimeNs deadline = home->host->clock->Now() + 30 * kSecond;
  const absl::StatusOr<OpenedRegion> region =
      co_await home->regions->Open(Root(), RegionOf(known->number), AccessMode::kWrite, deadline);
  if (!region.ok()) co_return region.status();
  fs::EnginePages pages(NodeOf(*home), region->pages, ++next_client_);
  const absl::StatusOr<std::unique_ptr<fs::Instance>> instance = co_await fs::Instance::Open(&pages);
  if (!instance.ok()) co_return instance.status();
  const absl::StatusOr<std::vector<fs::DirectoryEntry>> entries =
      co_await (*instance)->ReadDirectory((*instance)->root(), 0, 10);
  if (!entries.ok()) co_return entries.status();
  for (const fs::DirectoryEntry& entry : *entries) {
    if (entry.name == mark) co_return absl::OkStatus();
    if (entry.name != "." && entry.name != "..") co_return absl::DataLossError("it has what another one had");
  }
  if (must_be_there) co_return absl::DataLossError("it has lost what was in it");
  const absl::Status made =
      (co_await (*instance)->MakeDirectory({.uid = 0, .gid = 0, .umask = 0}, (*instance)->root(), mark, 0755)).status();
  if (!made.ok()) co_return made;
  co_return co_await pages.SyncTransactions();
}

// --- Before and after -------------------------------------------------------------------------------------------------

void FilesetsWork::Prepare() { cluster_->host(0).applets.Run(PrepareAll(&cluster_->host(0))); }

Task<bool> FilesetsWork::PrepareAll(SimHost* host) {
  const HomePtr home = HomeOn(host);
  const absl::Status status = (co_await home->filesets->List()).status();
  if (!status.ok()) {
    world_->Fail(absl::StrCat("a sound cluster cannot list its filesets: ", status.ToString()));
    co_return false;
  }
  prepared_ = true;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (cluster_->host(slot).ready) OnReady(cluster_->host(slot));
  }
  co_return true;
}

// Each fileset has a region, and each region of that kind a fileset.
Task<absl::Status> FilesetsWork::CheckRegions(HomePtr home) {
  const absl::StatusOr<std::vector<fs::FilesetInfo>> infos = co_await home->filesets->List();
  if (!infos.ok()) co_return infos.status();
  const TimeNs deadline = home->host->clock->Now() + 30 * kSecond;
  const absl::StatusOr<std::vector<RegionInfo>> regions = co_await home->regions->ListRegions(deadline);
  if (!regions.ok()) co_return regions.status();
  std::set<std::string> names;
  for (const RegionInfo& region : *regions) names.insert(region.name);
  for (const fs::FilesetInfo& info : *infos) {
    const bool is_there = names.erase(RegionOf(info.number)) > 0;
    if (is_there || (info.state != State::kOnline && info.state != State::kOffline)) continue;
    Fail(*home, absl::StrCat("fileset ", info.name, ", number ", info.number, ", has no region"));
  }
  names.erase("filesets");
  for (const std::string& name : names) Fail(*home, absl::StrCat("region ", name, " is of no fileset"));
  co_return absl::OkStatus();
}

void FilesetsWork::StartProgressCheck(DurationNs bound) {
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    ++checks_running_;
    SimHost& host = cluster_->host(slot);
    host.applets.Run(CheckProgress(&host, bound, /*writes=*/true));
  }
}

void FilesetsWork::StartReadAll(int slot, DurationNs bound) {
  ++checks_running_;
  SimHost& host = cluster_->host(slot);
  host.applets.Run(CheckProgress(&host, bound, /*writes=*/false));
}

// What was interrupted is gone on with; then everything is used.
Task<absl::Status> FilesetsWork::TryAll(HomePtr home, bool writes) {
  Operator* const one = operators_[static_cast<size_t>(home->host->slot)].get();
  if (!writes) co_return co_await CheckRegions(home);
  const bool seen = co_await LookAround(home, one, /*is_new_life=*/false);
  if (!seen) co_return fs::PosixError(EAGAIN, "the list cannot be read");
  for (auto& [name, known] : one->filesets) {
    absl::Status status;
    if (known.state == State::kMaking) status = co_await Carry(home, name, &known, State::kOnline);
    if (known.state == State::kDeleting) status = co_await Carry(home, name, &known, State::kFree);
    if (status.ok() && known.state == State::kOnline) status = co_await Use(home, &known, known.has_mark);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

Task<bool> FilesetsWork::CheckProgress(SimHost* host, DurationNs bound, bool writes) {
  Clock* const clock = host->clock.get();
  const HomePtr home = HomeOn(host);
  const TimeNs deadline = clock->Now() + bound;
  absl::Status status;
  do {
    status = co_await TryAll(home, writes);
    if (!status.ok()) co_await SleepUntil(clock, clock->Now() + kTryAgain);
  } while (StandsInTheWay(status) && clock->Now() < deadline);
  if (!status.ok()) {
    Fail(*home, absl::StrCat("no progress without faults: ", status.ToString()));
    co_return false;
  }
  --checks_running_;
  co_return true;
}

}  // namespace mangrove::sim
