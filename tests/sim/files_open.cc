// Files that a node has open while others take their names away, and the tables that say so.

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "fs/open_table.h"
#include "fs/status.h"
#include "tests/sim/files.h"

namespace mangrove::sim {
namespace {

constexpr DurationNs kCare = 300 * kMillisecond;
constexpr DurationNs kShortest = kMillisecond;
constexpr DurationNs kLongest = 2 * kSecond;
constexpr uint64_t kHeldBytes = 5'000;

bool IsInTheWay(int error) { return error == EAGAIN || error == ETIMEDOUT || error == ENOSPC; }

}  // namespace

void FilesWork::BeginHolding(const HomePtr& home) {
  homes_[home->host->slot] = home;
  home->host->applets.Run(TakeCare(home));
  home->host->applets.Run(HoldFiles(home));
  home->host->applets.Run(TakeTables(home));
}

Task<bool> FilesWork::TakeCare(HomePtr home) {
  const Counted counted(&users_running_);
  Clock* const clock = home->host->clock.get();
  while (!stopped_) {
    co_await SleepUntil(clock, clock->Now() + kCare);
    const absl::Status status = co_await home->instance->TakeCare();
    if (!status.ok() && !IsInTheWay(fs::ErrnoOf(status))) {
      world_->Fail(absl::StrCat("node ", home->host->slot + 1, " cannot take care: ", status.ToString()));
    }
  }
  co_return true;
}

// Null: there is none.
FilesWork::HomePtr FilesWork::SomeOtherHome(const Home& home, SimRandom* random) {
  std::vector<HomePtr> others;
  for (const auto& [slot, weak] : homes_) {
    HomePtr other = weak.lock();
    if (slot != home.host->slot && other != nullptr && other->host->up()) others.push_back(std::move(other));
  }
  return others.empty() ? nullptr : others[random->Below(others.size())];
}

Task<absl::Status> FilesWork::MakeHeld(HomePtr home, Held* held) {
  fs::Instance& instance = *home->instance;
  const fs::Caller somebody{.uid = 1, .gid = 1};
  const absl::StatusOr<fs::Attributes> made =
      co_await instance.MakeNode(somebody, instance.root(), held->name, S_IFREG | 0600, 0);
  if (!made.ok()) co_return made.status();
  held->file = made->id();
  absl::Status status = co_await instance.Open(held->file);
  held->is_open = status.ok();
  if (status.ok()) status = co_await instance.Write(held->file, 0, std::string(kHeldBytes, 'h'), {});
  co_return status;
}

Task<bool> FilesWork::HoldFiles(HomePtr home) {
  const Counted counted(&users_running_);
  SimHost* const host = home->host;
  Clock* const clock = host->clock.get();
  SimRandom random = world_->Fork("held", static_cast<uint64_t>(host->slot) * 1'000 + host->life);
  for (uint64_t number = 0; !stopped_; ++number) {
    co_await SleepUntil(clock, clock->Now() + random.Spread(kShortest, kLongest));
    Held held{.name = absl::StrCat("open", host->slot, ".", host->life, ".", number)};
    const absl::Status status = co_await MakeHeld(home, &held);
    if (!status.ok() && !IsInTheWay(fs::ErrnoOf(status))) {
      world_->Fail(absl::StrCat("node ", host->slot + 1, " cannot make ", held.name, ": ", status.ToString()));
    }
    if (!held.is_open) continue;
    const HomePtr other = SomeOtherHome(*home, &random);
    if (other != nullptr) other->host->applets.Run(TakeNameAway(other, held.name));
    host->applets.Run(UseHeld(home, held, random.Fork("use", number)));
  }
  co_return true;
}

// Until it is closed it is there: nobody but this node's own loss ends that.
Task<bool> FilesWork::UseHeld(HomePtr home, Held held, SimRandom random) {
  const Counted counted(&users_running_);
  Clock* const clock = home->host->clock.get();
  const TimeNs until = clock->Now() + random.Spread(kShortest, 2 * kLongest);
  do {
    co_await SleepUntil(clock, clock->Now() + random.Spread(kShortest, kLongest));
    const absl::Status status = (co_await home->instance->Read(held.file, 0, 10)).status();
    if (!status.ok() && !IsInTheWay(fs::ErrnoOf(status))) {
      world_->Fail(absl::StrCat("node ", home->host->slot + 1, " has ", held.name,
                                " open, and cannot read it: ", status.ToString()));
    }
  } while (!stopped_ && clock->Now() < until);
  const absl::Status status = co_await home->instance->Close(held.file);
  if (!status.ok() && !IsInTheWay(fs::ErrnoOf(status))) {
    world_->Fail(absl::StrCat("node ", home->host->slot + 1, " cannot close ", held.name, ": ", status.ToString()));
  }
  co_return true;
}

Task<bool> FilesWork::TakeNameAway(HomePtr home, std::string name) {
  const Counted counted(&users_running_);
  Clock* const clock = home->host->clock.get();
  int error = EAGAIN;
  while (IsInTheWay(error) && !stopped_) {
    error = fs::ErrnoOf(co_await home->instance->Unlink(home->instance->root(), name));
    co_await SleepUntil(clock, clock->Now() + kCare);
  }
  co_return true;
}

// As if the others' caches were full: what they say is here, and nowhere else, until they ask for it.
Task<bool> FilesWork::TakeTables(HomePtr home) {
  const Counted counted(&users_running_);
  SimHost* const host = home->host;
  Clock* const clock = host->clock.get();
  SimRandom random = world_->Fork("tables", static_cast<uint64_t>(host->slot) * 1'000 + host->life);
  while (!stopped_) {
    co_await SleepUntil(clock, clock->Now() + random.Spread(kShortest, kLongest));
    if (stopped_) break;
    const uint64_t node = random.Below(static_cast<uint64_t>(cluster_->nodes())) + 1;
    if (node == static_cast<uint64_t>(host->slot) + 1) continue;
    const uint64_t page = fs::OpenTable::PagesOf(node).first + random.Below(fs::OpenTable::kPages);
    const absl::Status status = co_await host->node->engine()->Acquire({kFilesetRegion.first + page, 1}, Rights::kWrite,
                                                                       clock->Now() + kSecond);
    world_->Trace("node ", host->slot + 1, " has page ", page, " of node ", node, "'s table: ", status.ok());
  }
  co_return true;
}

}  // namespace mangrove::sim
