#include "fs/upkeep.h"

#include <utility>

#include "net/check.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

constexpr DurationNs kPeriod = kSecond;

}  // namespace

Upkeep::Upkeep(Clock* clock, Chore chore) : clock_(clock), chore_(std::move(chore)) {
  WaitUntil(clock_->Now() + kPeriod);
}

Upkeep::~Upkeep() {
  CHECK(!is_at_work_);
  clock_->Cancel(timer_);
}

void Upkeep::WaitUntil(TimeNs when) {
  timer_ = clock_->CallAt(when, [this] {
    timer_ = 0;
    is_at_work_ = true;
    Spawn<absl::Status>(chore_.run(), [this](const absl::Status& status) { OnDone(status); });
  });
}

void Upkeep::Hurry() {
  if (stopped_) return;
  if (is_at_work_) {
    is_in_a_hurry_ = true;
  } else {
    clock_->Cancel(std::exchange(timer_, 0));
    WaitUntil(clock_->Now());
  }
}

void Upkeep::OnDone(const absl::Status& status) {
  is_at_work_ = false;
  if (!status.ok() && status != last_) LogWarning(chore_.trouble, ": ", status.message());
  last_ = status;
  if (stopped_) return stopped_->Set(true);
  // What has failed would fail again at once.
  const DurationNs in_a_hurry = status.ok() ? 0 : kPeriod / 10;
  WaitUntil(clock_->Now() + (std::exchange(is_in_a_hurry_, false) ? in_a_hurry : kPeriod));
}

Task<bool> Upkeep::Stop() {
  clock_->Cancel(std::exchange(timer_, 0));
  stopped_.emplace(clock_);
  if (!is_at_work_) co_return true;
  if (chore_.end) chore_.end();
  co_return co_await stopped_->Get();
}

}  // namespace mangrove::fs
