#include "fs/upkeep.h"

#include <utility>

#include "net/check.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

constexpr DurationNs kPeriod = kSecond;

}  // namespace

Upkeep::Upkeep(Clock* clock, std::string name, Instance* instance)
    : clock_(clock), name_(std::move(name)), instance_(instance) {
  Wait();
}

Upkeep::~Upkeep() {
  CHECK(!is_at_work_);
  clock_->Cancel(timer_);
}

void Upkeep::Wait() {
  timer_ = clock_->CallAt(clock_->Now() + kPeriod, [this] {
    timer_ = 0;
    is_at_work_ = true;
    Spawn<absl::Status>(instance_->TakeCare(), [this](const absl::Status& status) { OnDone(status); });
  });
}

void Upkeep::OnDone(const absl::Status& status) {
  is_at_work_ = false;
  if (!status.ok() && status != last_) {
    LogWarning("fileset \"", name_, "\": what was removed is not freed yet: ", status.message());
  }
  last_ = status;
  if (!stopped_) return Wait();
  stopped_->Set(true);
}

Task<bool> Upkeep::Stop() {
  clock_->Cancel(std::exchange(timer_, 0));
  stopped_.emplace(clock_);
  if (!is_at_work_) co_return true;
  instance_->StopCare();
  co_return co_await stopped_->Get();
}

}  // namespace mangrove::fs
