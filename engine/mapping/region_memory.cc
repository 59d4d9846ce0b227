#include "engine/mapping/region_memory.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/mapping/frame_files.h"
#include "engine/mapping/page_state.h"
#include "net/check.h"

namespace mangrove {
namespace {

using page_state::IsPinned;
using page_state::kMappedWritable;
using page_state::kRightsMask;
using page_state::kWaitedFor;

// A pin lasts for one ioctl, or one copy; the loop polls about as long before it lets itself be told.
constexpr int kPollsForPins = 64;
// What fences waits until then: such a thread may have lost its processor.
constexpr std::chrono::milliseconds kFencePatience{10};
// 1 MiB of them may be spare in any case. What is more goes while nobody waits: a few at a time, or, where there are far too
// many, as many as take the kernel less than a millisecond.
constexpr uint64_t kFewSpares = 256;
constexpr uint64_t kDroppedAtOnce = 4;
constexpr uint64_t kDroppedAtMost = 256;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Clears the right (I3). True: no pin is left, and the byte is the loop's alone until it gives a right again. False: the
// last Unpin tells.
bool Settle(std::atomic<uint8_t>& state) {
  state.fetch_and(static_cast<uint8_t>(~kRightsMask), std::memory_order_acq_rel);
  for (int i = 0; i < kPollsForPins; ++i) {
    if (!IsPinned(state.load(std::memory_order_acquire))) return true;
    Pause();
  }
  const uint8_t before = state.fetch_or(kWaitedFor, std::memory_order_acq_rel);
  CHECK((before & kWaitedFor) == 0);
  if (IsPinned(before)) return false;
  state.fetch_and(static_cast<uint8_t>(~kWaitedFor), std::memory_order_acq_rel);
  return true;
}

void SetRights(std::atomic<uint8_t>& state, Rights rights) {
  state.store(static_cast<uint8_t>(rights), std::memory_order_release);
}

// Takes the part that lies in the region, which has the first page, off `pages`.
PageRange TakePart(const RegionFrames& region, PageRange& pages) {
  const PageRange part{pages.first, std::min(pages.count, region.pages().end() - pages.first)};
  pages = {part.end(), pages.count - part.count};
  return part;
}

bool IsMappedWritable(const std::atomic<uint8_t>& state) {
  return (state.load(std::memory_order_acquire) & kMappedWritable) != 0;
}

}  // namespace

struct RegionMemory::Implementation : std::enable_shared_from_this<RegionMemory::Implementation> {
  Implementation(Post p, FrameDetacher d, uint64_t frames)
      : post(std::move(p)), detacher(std::move(d)), most_frames(frames) {}

  const std::shared_ptr<RegionFrames>* Find(PageId page) const;
  RegionFrames& RegionOf(PageId page) const;
  void WhenUnpinned(PageId page, absl::AnyInvocable<void()> then);
  void OnUnpinned(PageId page);
  void Replace(RegionFrames& region, PageId page);
  std::shared_ptr<PageBytes> NewPageFor(PageId page);
  void CountInUse(RegionFrames& region, int64_t change);
  uint64_t TooManySpares() const;
  void DropSparesSoon();
  void DropSpares();
  bool Unmap(PageId page);
  void Fence(bool for_good);

  Post post;
  FrameDetacher detacher;
  const uint64_t most_frames;
  uint64_t in_use = 0;
  PageId last_copied;
  PageRow row;  // Copies of neighbours, which leave together.
  std::shared_ptr<std::atomic<uint64_t>> spares = std::make_shared<std::atomic<uint64_t>>(0);
  bool dropping = false;
  bool fenced = false;
  std::map<PageId, std::shared_ptr<RegionFrames>> regions;  // By first page.
  absl::flat_hash_map<PageId, absl::AnyInvocable<void()>> waiting;
  alignas(kPageBytes) PageBytes scratch;
};

const std::shared_ptr<RegionFrames>* RegionMemory::Implementation::Find(PageId page) const {
  auto next = regions.upper_bound(page);
  if (next == regions.begin()) return nullptr;
  const auto& region = std::prev(next)->second;
  return region->pages().Contains(page) ? &region : nullptr;
}

RegionFrames& RegionMemory::Implementation::RegionOf(PageId page) const {
  const std::shared_ptr<RegionFrames>* region = Find(page);
  CHECK(region != nullptr);
  return **region;
}

void RegionMemory::Implementation::WhenUnpinned(PageId page, absl::AnyInvocable<void()> then) {
  const bool inserted = waiting.emplace(page, std::move(then)).second;
  CHECK(inserted);
}

void RegionMemory::Implementation::OnUnpinned(PageId page) {
  auto found = waiting.find(page);
  CHECK(found != waiting.end());
  auto then = std::move(found->second);
  waiting.erase(found);
  std::atomic<uint8_t>& state = RegionOf(page).StateOf(page);
  const uint8_t before = state.fetch_and(static_cast<uint8_t>(~kWaitedFor), std::memory_order_acq_rel);
  CHECK(!IsPinned(before) && page_state::RightsOf(before) == Rights::kNone);
  then();
}

// A copy takes the frame's place; no mapping has it then. REQUIRES: settled.
void RegionMemory::Implementation::Replace(RegionFrames& region, PageId page) {
  const uint64_t offset = region.OffsetOf(page);
  detacher.Detach(region.frames_fd(), offset, scratch.bytes.data());
  WriteFrame(region.frames_fd(), offset, scratch.bytes.data());
  region.ForgetUses(page);
}

// For a copy of `page`.
std::shared_ptr<PageBytes> RegionMemory::Implementation::NewPageFor(PageId page) {
  const PageId before = std::exchange(last_copied, page);
  return page == before + 1 ? row.NewPage() : NewPage();
}

void RegionMemory::Implementation::CountInUse(RegionFrames& region, int64_t change) {
  region.CountInUse(change);
  in_use += static_cast<uint64_t>(change);
  if (TooManySpares() > 0) DropSparesSoon();
}

uint64_t RegionMemory::Implementation::TooManySpares() const {
  const uint64_t allowed = std::max(kFewSpares, most_frames - std::min(most_frames, in_use));
  const uint64_t there = spares->load(std::memory_order_relaxed);
  return there - std::min(there, allowed);
}

// When who waits for the page has been told.
void RegionMemory::Implementation::DropSparesSoon() {
  if (std::exchange(dropping, true)) return;
  post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->DropSpares();
  });
}

void RegionMemory::Implementation::DropSpares() {
  dropping = false;
  const uint64_t excess = TooManySpares();
  uint64_t left = excess <= kFewSpares ? std::min(excess, kDroppedAtOnce) : kDroppedAtMost;
  for (auto region = regions.begin(); left > 0 && region != regions.end(); ++region) {
    left -= region->second->DropSpares(left);
  }
  // Spares of a region that is gone are dropped by whoever holds it last.
  if (TooManySpares() > 0 && TooManySpares() < excess) DropSparesSoon();
}

bool RegionMemory::Implementation::Unmap(PageId page) {
  const std::shared_ptr<RegionFrames>* region = Find(page);
  if (region == nullptr) return false;
  std::atomic<uint8_t>& state = (*region)->StateOf(page);
  uint8_t seen = state.load(std::memory_order_acquire);
  // While the region is fenced, a page that might be stored to is like one that may be read.
  const bool may_replace = seen == static_cast<uint8_t>(Rights::kRead) ||
                           ((*region)->fenced() && page_state::RightsOf(seen) != Rights::kNone && !IsPinned(seen) &&
                            (seen & kWaitedFor) == 0);
  // Without right, pins and waiting, no mapping has the page.
  if (!may_replace || !state.compare_exchange_strong(seen, 0, std::memory_order_acq_rel)) return seen == 0;
  Replace(**region, page);
  SetRights(state, page_state::RightsOf(seen));
  return true;
}

absl::StatusOr<std::unique_ptr<RegionMemory>> RegionMemory::Create(Post post, uint64_t most_frames) {
  auto detacher = FrameDetacher::Create();
  if (!detacher.ok()) return detacher.status();
  auto implementation = std::make_shared<Implementation>(std::move(post), *std::move(detacher), most_frames);
  return std::unique_ptr<RegionMemory>(new RegionMemory(std::move(implementation)));
}

RegionMemory::RegionMemory(std::shared_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

// Another process may go on reading frames until it hears that its node is gone. The node's next life may serve newer ones by
// then: these must not be read after them.
RegionMemory::~RegionMemory() {
  for (const auto& [first, region] : implementation_->regions) {
    if (region->stays_readable()) region->PunchAll();
  }
}

absl::Status RegionMemory::AddRegion(PageRange pages) {
  auto& regions = implementation_->regions;
  auto next = regions.lower_bound(pages.first);
  const bool overlaps = (next != regions.end() && next->second->pages().Overlaps(pages)) ||
                        (next != regions.begin() && std::prev(next)->second->pages().Overlaps(pages));
  if (overlaps) {
    return absl::AlreadyExistsError(absl::StrCat("region ", ToString(pages), " overlaps one that is mapped here"));
  }
  // What is posted may run after this object's end.
  std::weak_ptr<Implementation> weak = implementation_;
  const auto on_loop = [weak, post = implementation_->post](absl::AnyInvocable<void(Implementation&)> task) {
    post([weak, task = std::move(task)]() mutable {
      if (auto self = weak.lock()) task(*self);
    });
  };
  FrameRequests requests;
  requests.on_last_unpin = [on_loop](PageId page) { on_loop([page](Implementation& self) { self.OnUnpinned(page); }); };
  requests.unmap = [on_loop](PageId page, absl::AnyInvocable<void(bool)> done) {
    on_loop([page, done = std::move(done)](Implementation& self) mutable { done(self.Unmap(page)); });
  };
  auto region = RegionFrames::Create(pages, std::move(requests), implementation_->spares);
  if (!region.ok()) return region.status();
  (*region)->SetFence(implementation_->fenced ? FrameFence::kClosed : FrameFence::kOpen);
  regions.emplace(pages.first, *std::move(region));
  return absl::OkStatus();
}

void RegionMemory::RemoveRegion(PageRange pages) {
  auto found = implementation_->regions.find(pages.first);
  CHECK(found != implementation_->regions.end() && found->second->pages() == pages);
  for (const auto& [page, then] : implementation_->waiting) CHECK(!pages.Contains(page));
  implementation_->in_use -= found->second->in_use();
  implementation_->regions.erase(found);
}

std::shared_ptr<RegionFrames> RegionMemory::FindRegion(PageId page) const {
  const std::shared_ptr<RegionFrames>* region = implementation_->Find(page);
  return region == nullptr ? nullptr : *region;
}

bool RegionMemory::Knows(PageId page) const { return implementation_->Find(page) != nullptr; }

void RegionMemory::Expect(PageId page) {
  RegionFrames& region = implementation_->RegionOf(page);
  CHECK(page_state::RightsOf(region.StateOf(page).load(std::memory_order_acquire)) == Rights::kNone);
  region.MakeReady(page);
}

void RegionMemory::Unexpect(PageId page) {
  RegionFrames& region = implementation_->RegionOf(page);
  CHECK(page_state::RightsOf(region.StateOf(page).load(std::memory_order_acquire)) == Rights::kNone);
  region.NotReady(page);
}

void RegionMemory::Install(PageId page, const std::byte* data, Rights rights) { InstallAll({page, 1}, data, rights); }

void RegionMemory::InstallAll(PageRange pages, const std::byte* data, Rights rights) {
  CHECK(rights != Rights::kNone);
  while (pages.count > 0) {
    RegionFrames& region = implementation_->RegionOf(pages.first);
    const PageRange part = TakePart(region, pages);
    for (uint64_t i = 0; i < part.count; ++i) {
      CHECK(region.StateOf(part.first + i).load(std::memory_order_acquire) == 0);
    }
    region.UseReady(part);
    region.Fill(part, data);
    if (data != nullptr) data += part.count * kPageBytes;
    for (uint64_t i = 0; i < part.count; ++i) SetRights(region.StateOf(part.first + i), rights);
    implementation_->CountInUse(region, static_cast<int64_t>(part.count));
  }
}

void RegionMemory::Raise(PageId page) {
  std::atomic<uint8_t>& state = implementation_->RegionOf(page).StateOf(page);
  constexpr auto kDifference = static_cast<uint8_t>(Rights::kWrite) ^ static_cast<uint8_t>(Rights::kRead);
  const uint8_t before = state.fetch_xor(kDifference, std::memory_order_acq_rel);
  CHECK(page_state::RightsOf(before) == Rights::kRead && (before & kMappedWritable) == 0);
}

void RegionMemory::Protect(PageId page, absl::AnyInvocable<void()> done) {
  RegionFrames& region = implementation_->RegionOf(page);
  std::atomic<uint8_t>& state = region.StateOf(page);
  uint8_t seen = state.load(std::memory_order_acquire);
  CHECK(page_state::RightsOf(seen) == Rights::kWrite);
  while ((seen & (kMappedWritable | page_state::kPinsMask)) == 0) {
    const auto lowered = static_cast<uint8_t>((seen & ~kRightsMask) | static_cast<uint8_t>(Rights::kRead));
    if (state.compare_exchange_weak(seen, lowered, std::memory_order_acq_rel)) return done();
  }
  auto protect = [self = implementation_.get(), page] {
    RegionFrames& r = self->RegionOf(page);
    if (IsMappedWritable(r.StateOf(page)) && !r.WriteProtect(page)) self->Replace(r, page);
    SetRights(r.StateOf(page), Rights::kRead);
  };
  if (Settle(state)) {
    protect();
    return done();
  }
  implementation_->WhenUnpinned(page, [protect, done = std::move(done)]() mutable {
    protect();
    done();
  });
}

void RegionMemory::Take(PageId page, bool keep, absl::AnyInvocable<void(PageBuffer)> done) {
  RegionFrames& region = implementation_->RegionOf(page);
  std::atomic<uint8_t>& state = region.StateOf(page);
  CHECK(page_state::RightsOf(state.load(std::memory_order_acquire)) != Rights::kNone);
  auto remove = [self = implementation_.get(), page, keep]() -> PageBuffer {
    RegionFrames& r = self->RegionOf(page);
    const uint64_t offset = r.OffsetOf(page);
    std::shared_ptr<PageBytes> content;
    if (keep) content = self->NewPageFor(page);
    if (r.TakeAway(page)) {
      if (keep) r.CopyOut({page, 1}, content->bytes.data());
    } else if (keep && IsMappedWritable(r.StateOf(page)) && !r.WriteProtect(page)) {
      self->detacher.Detach(r.frames_fd(), offset, content->bytes.data());
      r.ForgetUses(page);
    } else {
      if (keep) r.CopyOut({page, 1}, content->bytes.data());
      PunchFrame(r.frames_fd(), offset);
      r.ForgetUses(page);
    }
    SetRights(r.StateOf(page), Rights::kNone);
    self->CountInUse(r, -1);
    return content;
  };
  if (Settle(state)) return done(remove());
  implementation_->WhenUnpinned(page, [remove, done = std::move(done)]() mutable { done(remove()); });
}

PageBuffer RegionMemory::Copy(PageId page) {
  const auto content = implementation_->NewPageFor(page);
  CopyAll({page, 1}, content->bytes.data());
  return content;
}

void RegionMemory::CopyAll(PageRange pages, std::byte* out) {
  while (pages.count > 0) {
    RegionFrames& region = implementation_->RegionOf(pages.first);
    const PageRange part = TakePart(region, pages);
    for (uint64_t i = 0; i < part.count; ++i) CHECK(HasRights(region.StateOf(part.first + i), Rights::kRead));
    region.CopyOut(part, out);
    out += part.count * kPageBytes;
  }
}

void RegionMemory::Load(PageId page, size_t offset, std::span<std::byte> out) {
  CHECK(offset + out.size() <= kPageBytes);
  RegionFrames& region = implementation_->RegionOf(page);
  CHECK(HasRights(region.StateOf(page), Rights::kRead));
  region.ReadFrame(page, offset, out);
}

void RegionMemory::Store(PageId page, size_t offset, std::span<const std::byte> bytes) {
  CHECK(offset + bytes.size() <= kPageBytes);
  RegionFrames& region = implementation_->RegionOf(page);
  CHECK(HasRights(region.StateOf(page), Rights::kWrite));
  region.WriteFrame(page, offset, bytes);
}

void RegionMemory::Fence() { implementation_->Fence(/*for_good=*/false); }

void RegionMemory::FenceForGood() { implementation_->Fence(true); }

void RegionMemory::Implementation::Fence(bool for_good) {
  fenced = true;
  for (const auto& [first, region] : regions) {
    const bool stays_readable = region->stays_readable() && !for_good;
    region->SetFence(stays_readable ? FrameFence::kLoadsOnly : FrameFence::kClosed);
  }
  const auto patience_ends = std::chrono::steady_clock::now() + kFencePatience;
  for (const auto& [first, region] : regions) region->AwaitPins(patience_ends);
  for (const auto& [first, region] : regions) region->DropEntries(region->pages());
}

void RegionMemory::Unfence() {
  implementation_->fenced = false;
  for (const auto& [first, region] : implementation_->regions) region->SetFence(FrameFence::kOpen);
}

void RegionMemory::SetStaysReadable(PageRange region, bool stays) {
  implementation_->RegionOf(region.first).SetStaysReadable(stays);
}

Rights RegionMemory::RightsOf(PageId page) const {
  return page_state::RightsOf(implementation_->RegionOf(page).StateOf(page).load(std::memory_order_acquire));
}

}  // namespace mangrove
