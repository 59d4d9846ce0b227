#include "tests/sim/sim_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::sim {

SimMemory::SimMemory(SimWorld* world, int node, uint64_t life, const SimMemoryOptions& options,
                     MemoryObserver* observer)
    : world_(world),
      node_(node),
      options_(options),
      observer_(observer),
      random_(world->Fork("memory", life * kMaxNodes + static_cast<uint64_t>(node))) {}

Rights SimMemory::RightsOf(PageId page) const {
  const auto it = frames_.find(page);
  return it == frames_.end() ? Rights::kNone : it->second.rights;
}

void SimMemory::Broken(PageId page, const char* call, const char* what) {
  world_->Fail(absl::StrCat("PageMemory::", call, " of page ", ToString(page), " on node ", node_ + 1, ": ", what));
}

SimMemory::Frame* SimMemory::Require(PageId page, Rights at_least, const char* call) {
  const auto it = frames_.find(page);
  if (it == frames_.end() || it->second.rights < at_least) {
    Broken(page, call, "the page has not the rights that the call requires");
    return nullptr;
  }
  if (it->second.pending) {
    Broken(page, call, "a Protect or Take of the page has not ended");
    return nullptr;
  }
  return &it->second;
}

void SimMemory::Install(PageId page, const std::byte* data, Rights rights) {
  if (dead_) return;
  if (rights == Rights::kNone) return Broken(page, "Install", "gives no rights");
  Frame& frame = frames_[page];
  if (frame.rights != Rights::kNone || frame.pending) return Broken(page, "Install", "the page has rights already");
  frame.rights = rights;
  frame.data = std::make_unique<PageBytes>();
  if (data != nullptr) {
    std::memcpy(frame.data->bytes.data(), data, kPageBytes);
  } else {
    frame.data->bytes.fill(std::byte{0});
  }
  observer_->OnInstall(node_, page, data, rights);
}

void SimMemory::Raise(PageId page) {
  if (dead_) return;
  Frame* frame = Require(page, Rights::kRead, "Raise");
  if (frame == nullptr) return;
  if (frame->rights != Rights::kRead) return Broken(page, "Raise", "the page is writable already");
  frame->rights = Rights::kWrite;
  observer_->OnRights(node_, page, Rights::kWrite, false);
}

void SimMemory::Complete(PageId page, absl::AnyInvocable<void()> change) {
  if (random_.PerMille(options_.inline_per_mille)) {
    change();
    return;
  }
  const DurationNs delay = random_.PerMille(options_.slow_per_mille)
                               ? random_.Spread(options_.max_delay, options_.slow_delay)
                               : random_.Spread(options_.min_delay, options_.max_delay);
  world_->After(delay, node_, EventKind::kMemory, [this, page, change = std::move(change)]() mutable {
    if (last_moment_) last_moment_(page);
    change();
  });
}

void SimMemory::Protect(PageId page, absl::AnyInvocable<void()> done) {
  if (dead_) return;
  Frame* frame = Require(page, Rights::kWrite, "Protect");
  if (frame == nullptr) return;
  frame->pending = true;
  Complete(page, [this, page, done = std::move(done)]() mutable {
    Frame& now = frames_[page];
    now.pending = false;
    now.rights = Rights::kRead;
    observer_->OnRights(node_, page, Rights::kRead, true);
    done();
  });
}

void SimMemory::Take(PageId page, bool keep, absl::AnyInvocable<void(PageBuffer)> done) {
  if (dead_) return;
  Frame* frame = Require(page, Rights::kRead, "Take");
  if (frame == nullptr) return;
  frame->pending = true;
  Complete(page, [this, page, keep, done = std::move(done)]() mutable {
    const auto it = frames_.find(page);
    CHECK(it != frames_.end() && it->second.pending);
    PageBuffer content;
    if (keep) content = std::shared_ptr<const PageBytes>(std::move(it->second.data));
    frames_.erase(it);
    observer_->OnRights(node_, page, Rights::kNone, keep);
    done(std::move(content));
  });
}

PageBuffer SimMemory::Copy(PageId page) {
  const Frame* frame = dead_ ? nullptr : Require(page, Rights::kRead, "Copy");
  if (frame == nullptr) return std::make_shared<PageBytes>();
  if (frame->rights != Rights::kRead) Broken(page, "Copy", "the page is writable: the copy is not of one moment");
  return std::make_shared<const PageBytes>(*frame->data);
}

void SimMemory::Load(PageId page, size_t offset, std::span<std::byte> out) {
  const Frame* frame = dead_ ? nullptr : Require(page, Rights::kRead, "Load");
  if (frame == nullptr) return;
  CHECK(offset + out.size() <= kPageBytes);
  std::memcpy(out.data(), frame->data->bytes.data() + offset, out.size());
}

void SimMemory::Store(PageId page, size_t offset, std::span<const std::byte> bytes) {
  Frame* frame = dead_ ? nullptr : Require(page, Rights::kWrite, "Store");
  if (frame == nullptr) return;
  CHECK(offset + bytes.size() <= kPageBytes);
  std::memcpy(frame->data->bytes.data() + offset, bytes.data(), bytes.size());
}

void SimMemory::Fence() {
  if (!std::exchange(fenced_, true)) served_ = readable_;
}

void SimMemory::Unfence() {
  fenced_ = false;
  served_ = {};
}

void SimMemory::ServeUntil(TimeNs until) {
  if (dead_) return;
  world_->Cancel(std::exchange(lease_end_, 0));
  if (until <= world_->now()) {
    if (!std::exchange(suspended_, true)) observer_->OnSuspended(node_);
    return;
  }
  lease_end_ = world_->At(until, kNoNode, EventKind::kCheck, [this] {
    lease_end_ = 0;
    // A daemon that stands still cannot.
    if (!fenced_ && !world_->IsPaused(node_)) Broken({}, "Fence", "the lease has ended, and nobody has called it");
    if (!std::exchange(suspended_, true)) observer_->OnSuspended(node_);
  });
  if (!std::exchange(suspended_, false)) return;
  observer_->OnResumed(node_);
  std::vector<PageId> pages;
  for (const auto& [page, frame] : frames_) pages.push_back(page);
  std::sort(pages.begin(), pages.end());
  for (PageId page : pages) {
    const Frame& frame = frames_.at(page);
    if (frame.data != nullptr) observer_->OnInstall(node_, page, frame.data->bytes.data(), frame.rights);
  }
}

void SimMemory::ApplicationLoad(PageId page) {
  const auto it = frames_.find(page);
  CHECK(it != frames_.end() && it->second.rights != Rights::kNone);
  const std::byte* const data = it->second.data->bytes.data();
  suspended_ ? observer_->OnStaleLoad(node_, page, data) : observer_->OnLoad(node_, page, data);
}

void SimMemory::ApplicationStore(PageId page, const Stamp& stamp) {
  const auto it = frames_.find(page);
  CHECK(it != frames_.end() && it->second.rights == Rights::kWrite);
  FillPage(page, stamp, it->second.data->bytes.data());
  observer_->OnStore(node_, page, stamp);
}

}  // namespace mangrove::sim
