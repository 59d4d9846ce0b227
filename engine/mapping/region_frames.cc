#include "engine/mapping/region_frames.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/mapping/frame_files.h"
#include "engine/mapping/local_mapping.h"
#include "engine/mapping/userfaultfd.h"
#include "net/check.h"

namespace mangrove {
namespace {

// Among which it is not looked for those that are over.
constexpr size_t kFewSpares = 64;
// A page is crowded for as long as it takes to copy it.
constexpr int kMaxYields = 64;
// Who waits for a pin looks so often before it lets others run.
constexpr int kPollsForPin = 64;

absl::Status Errno(int error, const std::string& what) { return absl::ErrnoToStatus(error, what); }

// A memfd that nobody but this user may reopen, and whose size is fixed.
absl::StatusOr<UniqueFd> MakeFile(const char* name, uint64_t size_bytes) {
  UniqueFd file(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.ok()) return Errno(errno, absl::StrCat("memfd_create ", name));
  if (fchmod(file.get(), 0600) != 0) return Errno(errno, absl::StrCat("fchmod of memfd ", name));
  if (ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0) {
    return Errno(errno, absl::StrCat("ftruncate of memfd ", name, " to ", size_bytes, " bytes"));
  }
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return Errno(errno, absl::StrCat("sealing memfd ", name));
  }
  return file;
}

// Memory of the program that is not there yet comes before the pin is taken.
void Touch(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  static_cast<void>(*static_cast<const volatile std::byte*>(&bytes.front()));
  static_cast<void>(*static_cast<const volatile std::byte*>(&bytes.back()));
}
void TouchToWrite(std::span<std::byte> bytes) {
  if (bytes.empty()) return;
  for (std::byte* byte : {&bytes.front(), &bytes.back()}) {
    *static_cast<volatile std::byte*>(byte) = *static_cast<volatile std::byte*>(byte);
  }
}

// With flags of its own (O_APPEND), which who has it may set.
absl::StatusOr<UniqueFd> Reopen(int fd, int access) {
  UniqueFd reopened(open(absl::StrCat("/proc/self/fd/", fd).c_str(), access | O_CLOEXEC));
  if (!reopened.ok()) return Errno(errno, "reopening a memfd through /proc/self/fd");
  return reopened;
}

}  // namespace

absl::StatusOr<std::shared_ptr<RegionFrames>> RegionFrames::Create(PageRange pages, FrameRequests requests,
                                                                   std::shared_ptr<std::atomic<uint64_t>> all_spares) {
  CHECK(pages.count > 0);
  std::shared_ptr<RegionFrames> region(new RegionFrames());
  region->pages_ = pages;
  region->requests_ = std::move(requests);
  region->all_spares_ = std::move(all_spares);
  auto frames = MakeFile("mangrove-frames", region->size_bytes());
  if (!frames.ok()) return frames.status();
  region->frames_ = *std::move(frames);
  if (fcntl(region->frames_.get(), F_ADD_SEALS, F_SEAL_SEAL) != 0) return Errno(errno, "sealing memfd");
  auto windows = FrameWindows::Create(region->frames_.get(), region->size_bytes());
  if (!windows.ok()) return windows.status();
  region->windows_ = *std::move(windows);

  void* ready = mmap(nullptr, pages.count * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (ready == MAP_FAILED) return Errno(errno, absl::StrCat("mapping what is ready of ", pages.count, " pages"));
  region->ready_ = static_cast<uint64_t*>(ready);
  madvise(ready, pages.count * sizeof(uint64_t), MADV_DONTDUMP);
  madvise(ready, pages.count * sizeof(uint64_t), MADV_NOHUGEPAGE);

  void* uses = mmap(nullptr, pages.count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (uses == MAP_FAILED) return Errno(errno, absl::StrCat("mapping the uses of ", pages.count, " pages"));
  region->uses_ = static_cast<std::atomic<uint8_t>*>(uses);
  madvise(uses, pages.count, MADV_DONTDUMP);
  madvise(uses, pages.count, MADV_NOHUGEPAGE);

  auto states = MakeFile("mangrove-states", pages.count);
  if (!states.ok()) return states.status();
  void* mapped = mmap(nullptr, pages.count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, states->get(), 0);
  if (mapped == MAP_FAILED) return Errno(errno, absl::StrCat("mapping the states of ", pages.count, " pages"));
  region->states_ = static_cast<std::atomic<uint8_t>*>(mapped);
  region->states_fd_ = *std::move(states);
  // From now on this mapping is the only way to write them.
  if (fcntl(region->states_fd_.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0) {
    return Errno(errno, "sealing the memfd of page states");
  }
  return region;
}

RegionFrames::~RegionFrames() {
  CountSpares(-static_cast<int64_t>(spare_count_));
  if (states_ != nullptr) munmap(states_, pages_.count);
  if (uses_ != nullptr) munmap(uses_, pages_.count);
  if (ready_ != nullptr) munmap(ready_, pages_.count * sizeof(uint64_t));
}

absl::StatusOr<UniqueFd> RegionFrames::OpenFrames() const { return Reopen(frames_.get(), O_RDWR); }

absl::StatusOr<UniqueFd> RegionFrames::OpenFramesReadOnly() const { return Reopen(frames_.get(), O_RDONLY); }

absl::StatusOr<UniqueFd> RegionFrames::OpenStates() const { return Reopen(states_fd_.get(), O_RDONLY); }

PinOutcome RegionFrames::Pin(PageId page, Rights wanted, bool may_map_writable, Rights* granted) {
  CHECK(pages_.Contains(page));
  // Before too, so that whoever fences does not wait for those that try again and again.
  const FrameFence before = fence();
  if (!Admits(before, wanted)) return PinOutcome::kInsufficient;
  const PinOutcome outcome = TryPin(StateOf(page), wanted, may_map_writable && before == FrameFence::kOpen, granted);
  if (outcome != PinOutcome::kPinned) return outcome;
  const FrameFence after = fence();
  if (!Admits(after, wanted)) {
    Unpin(page);
    return PinOutcome::kInsufficient;
  }
  if (before != FrameFence::kOpen || after != FrameFence::kOpen) *granted = Rights::kRead;
  return outcome;
}

void RegionFrames::Unpin(PageId page) {
  CHECK(page_state::IsPinned(StateOf(page).load(std::memory_order_relaxed)));
  if (mangrove::Unpin(StateOf(page))) requests_.on_last_unpin(page);
}

template <typename Copy>
bool RegionFrames::CopyPinned(PageId page, Rights rights, Copy copy) {
  Rights granted;
  PinOutcome pinned = Pin(page, rights, /*may_map_writable=*/false, &granted);
  for (int tries = 0; pinned == PinOutcome::kCrowded && tries < kMaxYields; ++tries) {
    sched_yield();
    pinned = Pin(page, rights, false, &granted);
  }
  if (pinned != PinOutcome::kPinned) return false;
  const absl::Cleanup unpin = [this, page] { Unpin(page); };
  copy();
  return Admits(fence(), rights);
}

// --- Content ----------------------------------------------------------------------------------------------------------

// Whether the frame is to be used as it is mapped. A small piece costs a system call as much as a page, and a mapping next to nothing.
bool RegionFrames::CountUse(PageId page, size_t bytes) {
  std::atomic<uint8_t>& counter = UsesOf(page);
  const uint8_t uses = counter.load(std::memory_order_relaxed);
  if (uses == kMapped || foreign_mappings_.load(std::memory_order_relaxed)) return true;
  const int more = uses + (bytes < kPageBytes / 2 ? 4 : 1);
  counter.store(more <= kFewUses ? static_cast<uint8_t>(more) : kMapped, std::memory_order_relaxed);
  return more > kFewUses;
}

template <typename Each>
void RegionFrames::ForEachKind(PageRange pages, Each each) {
  PageRange part{pages.first, 0};
  bool kind = false;
  bool is_new = false;
  const auto end_part = [&] {
    // Half of what the faults would cost.
    if (is_new && part.count > 1) {
      std::byte* const frames = FrameOf(part.first);
      if (frames != nullptr) madvise(frames, part.count << kPageShift, MADV_POPULATE_WRITE);
    }
    if (part.count > 0) each(part, kind);
    is_new = false;
  };
  for (PageId page = pages.first; page < pages.end(); page = page + 1) {
    const bool was_mapped = UsesOf(page).load(std::memory_order_relaxed) == kMapped;
    const bool is_mapped = was_mapped || CountUse(page, kPageBytes);
    if (part.count > 0 && (is_mapped != kind || OffsetOf(page) % FrameWindows::kBytes == 0)) {
      end_part();
      part = {page, 0};
    }
    kind = is_mapped;
    is_new = is_new || (is_mapped && !was_mapped);
    ++part.count;
  }
  end_part();
}

void RegionFrames::Fill(PageRange pages, const std::byte* from) {
  ForEachKind(pages, [&](PageRange part, bool is_mapped) {
    const std::byte* const data = from == nullptr ? nullptr : from + ((part.first - pages.first) << kPageShift);
    std::byte* const frame = is_mapped ? FrameOf(part.first) : nullptr;
    if (frame == nullptr) {
      WriteFrames(frames_.get(), OffsetOf(part.first), data, part.count);
    } else if (data != nullptr) {
      std::memcpy(frame, data, part.count << kPageShift);
    } else {
      std::memset(frame, 0, part.count << kPageShift);
    }
  });
}

void RegionFrames::CopyOut(PageRange pages, std::byte* out) {
  ForEachKind(pages, [&](PageRange part, bool is_mapped) {
    const std::span<std::byte> to(out + ((part.first - pages.first) << kPageShift), part.count << kPageShift);
    const std::byte* const frame = is_mapped ? FrameOf(part.first) : nullptr;
    if (frame != nullptr) {
      std::memcpy(to.data(), frame, to.size());
    } else {
      CHECK(ReadBytes(frames_.get(), OffsetOf(part.first), to));
    }
  });
}

void RegionFrames::ReadFrame(PageId page, size_t offset, std::span<std::byte> out) {
  std::byte* frame = CountUse(page, out.size()) ? FrameOf(page) : nullptr;
  if (frame == nullptr && ReadBytes(frames_.get(), OffsetOf(page) + offset, out)) return;
  // Where the bytes are to go the kernel cannot write to: a program's own affair, which a copy meets as well.
  if (frame == nullptr) frame = FrameOf(page);
  CHECK(frame != nullptr);
  std::memcpy(out.data(), frame + offset, out.size());
}

void RegionFrames::WriteFrame(PageId page, size_t offset, std::span<const std::byte> bytes) {
  std::byte* const frame = CountUse(page, bytes.size()) ? FrameOf(page) : nullptr;
  if (frame != nullptr) {
    std::memcpy(frame + offset, bytes.data(), bytes.size());
  } else {
    WriteBytes(frames_.get(), OffsetOf(page) + offset, bytes);
  }
}

bool RegionFrames::ReadPage(PageId page, size_t offset, std::span<std::byte> out) {
  CHECK(offset + out.size() <= kPageBytes);
  if (!LocalMapping::MayReach(out.data(), out.size())) {
    TouchToWrite(out);
    return CopyPinned(page, Rights::kRead, [&] { ReadFrame(page, offset, out); });
  }
  // Where `out` lies, an access may wait for a page whose taking waits for this pin.
  PageBytes between;
  const std::span<std::byte> there(between.bytes.data(), out.size());
  const bool read = CopyPinned(page, Rights::kRead, [&] { ReadFrame(page, offset, there); });
  if (read) std::memcpy(out.data(), between.bytes.data(), out.size());
  return read;
}

void RegionFrames::CopyToProgram(PageRange pages, std::byte* out) {
  ForEachKind(pages, [&](PageRange part, bool is_mapped) {
    const std::span<std::byte> to(out + ((part.first - pages.first) << kPageShift), part.count << kPageShift);
    const std::byte* frame = is_mapped ? FrameOf(part.first) : nullptr;
    if (frame == nullptr && ReadBytes(frames_.get(), OffsetOf(part.first), to)) return;
    // As in ReadFrame.
    if (frame == nullptr) frame = FrameOf(part.first);
    CHECK(frame != nullptr);
    std::memcpy(to.data(), frame, to.size());
  });
}

uint64_t RegionFrames::ReadPages(PageRange pages, std::span<std::byte> out) {
  CHECK(out.size() >= pages.count << kPageShift);
  const uint64_t most = LocalMapping::MayReach(out.data(), out.size()) ? 1 : std::min(pages.count, kMostPinned);
  if (most <= 1) return ReadPage(pages.first, 0, out.first(kPageBytes)) ? 1 : 0;
  for (uint64_t i = 0; i < most; ++i) TouchToWrite(out.subspan(i << kPageShift, kPageBytes));
  PageRange pinned{pages.first, 0};
  Rights granted;
  while (pinned.count < most &&
         Pin(pinned.end(), Rights::kRead, /*may_map_writable=*/false, &granted) == PinOutcome::kPinned) {
    ++pinned.count;
  }
  const absl::Cleanup unpin = [this, &pinned] {
    for (uint64_t i = 0; i < pinned.count; ++i) Unpin(pinned.first + i);
  };
  if (pinned.count == 0) return ReadPage(pages.first, 0, out.first(kPageBytes)) ? 1 : 0;  // With patience.
  if (!Admits(fence(), Rights::kRead)) return 0;
  CopyToProgram(pinned, out.data());
  return Admits(fence(), Rights::kRead) ? pinned.count : 0;
}

bool RegionFrames::WritePage(PageId page, size_t offset, std::span<const std::byte> bytes) {
  CHECK(offset + bytes.size() <= kPageBytes);
  PageBytes between;
  const std::byte* from = bytes.data();
  if (LocalMapping::MayReach(from, bytes.size())) {
    std::memcpy(between.bytes.data(), from, bytes.size());  // As above.
    from = between.bytes.data();
  } else {
    Touch(bytes);
  }
  return CopyPinned(page, Rights::kWrite, [&] {
    std::byte* const frame = FrameOf(page);
    if (frame == nullptr) return WriteBytes(frames_.get(), OffsetOf(page) + offset, {from, bytes.size()});
    UsesOf(page).store(kMapped, std::memory_order_relaxed);
    std::memcpy(frame + offset, from, bytes.size());
  });
}

void RegionFrames::AddMapping(int userfaultfd, uint64_t base, bool own_process, bool writable) {
  std::lock_guard lock(mappings_mutex_);
  if (own_process) {
    own_mappings_.push_back({userfaultfd, base, writable, false});
    return;
  }
  foreign_mappings_ = true;  // For good: a program may keep its mapping when it no longer serves faults for it.
  PunchReady();
  spares_.clear();
  CountSpares(-static_cast<int64_t>(spare_count_));
}

void RegionFrames::RemoveMapping(int userfaultfd) {
  std::lock_guard lock(mappings_mutex_);
  std::erase_if(own_mappings_, [userfaultfd](const OwnMapping& own) { return own.userfaultfd == userfaultfd; });
}

void RegionFrames::SetMapped(uint64_t base, bool mapped) {
  std::lock_guard lock(mappings_mutex_);
  for (OwnMapping& own : own_mappings_) {
    if (own.base == base) own.mapped = mapped;
  }
}

bool RegionFrames::WriteProtect(PageId page) {
  std::lock_guard lock(mappings_mutex_);
  if (foreign_mappings_) return false;
  return std::all_of(own_mappings_.begin(), own_mappings_.end(), [&](const OwnMapping& own) {
    if (!own.writable) return true;
    const FaultCall done = ForbidStores(own.userfaultfd, own.base + OffsetOf(page), kPageBytes);
    return done == FaultCall::kDone || done == FaultCall::kNotMapped;
  });
}

// --- The fence --------------------------------------------------------------------------------------------------------

void RegionFrames::AwaitPins(std::chrono::steady_clock::time_point patience_ends) const {
  // Bytes that nobody has looked at are no part of the file yet.
  for (off_t at = 0; (at = lseek(states_fd_.get(), at, SEEK_DATA)) >= 0;) {
    const off_t end = lseek(states_fd_.get(), at, SEEK_HOLE);
    CHECK(end > at);
    for (; at < end; ++at) {
      for (int polls = 0; page_state::IsPinned(states_[at].load(std::memory_order_seq_cst)); ++polls) {
        if (polls < kPollsForPin) continue;
        if (std::chrono::steady_clock::now() >= patience_ends) return;
        sched_yield();
      }
    }
  }
}

void RegionFrames::PunchAll() { PunchFrames(frames_.get(), 0, pages_.count); }

void RegionFrames::DropEntries(PageRange pages) {
  std::lock_guard lock(mappings_mutex_);
  for (const OwnMapping& own : own_mappings_) {
    if (!own.mapped) continue;
    void* const address = reinterpret_cast<void*>(own.base + OffsetOf(pages.first));
    // Also where the program has locked its memory; what it has unmapped itself is passed over.
    CHECK(madvise(address, pages.count << kPageShift, MADV_DONTNEED_LOCKED) == 0 || errno == ENOMEM);
  }
}

// --- Frames that are ready --------------------------------------------------------------------------------------------

void RegionFrames::Punch(PageRange pages) {
  PunchFrames(frames_.get(), OffsetOf(pages.first), pages.count);
  for (uint64_t i = 0; i < pages.count; ++i) UsesOf(pages.first + i).store(0, std::memory_order_relaxed);
}

// All of them: they are among the frames that there are.
void RegionFrames::PunchReady() {
  for (off_t at = 0; (at = lseek(frames_.get(), at, SEEK_DATA)) >= 0;) {
    const off_t end = lseek(frames_.get(), at, SEEK_HOLE);
    CHECK(end > at);
    for (; at < end; at += static_cast<off_t>(kPageBytes)) {
      const PageId page = pages_.first + (static_cast<uint64_t>(at) >> kPageShift);
      if (std::exchange(ReadyOf(page), kNotReady) != kNotReady) Punch({page, 1});
    }
  }
}

void RegionFrames::CountSpares(int64_t change) {
  spare_count_ += static_cast<uint64_t>(change);
  all_spares_->fetch_add(static_cast<uint64_t>(change), std::memory_order_relaxed);
}

void RegionFrames::ForgetReady(PageId page) {
  if (std::exchange(ReadyOf(page), kNotReady) > kOnItsWay) CountSpares(-1);
}

void RegionFrames::UseReady(PageRange pages) {
  const std::lock_guard lock(mappings_mutex_);
  for (uint64_t i = 0; i < pages.count; ++i) ForgetReady(pages.first + i);
}

void RegionFrames::MakeReady(PageId page) {
  std::lock_guard lock(mappings_mutex_);
  if (foreign_mappings_) return;
  // The store makes the frame, and the entry for it, unless they are there.
  std::byte* const frame = FrameOf(page);
  if (frame == nullptr) return;
  *static_cast<volatile std::byte*>(frame) = std::byte{0};
  UsesOf(page).store(kMapped, std::memory_order_relaxed);
  if (std::exchange(ReadyOf(page), kOnItsWay) > kOnItsWay) CountSpares(-1);
}

void RegionFrames::NotReady(PageId page) {
  std::lock_guard lock(mappings_mutex_);
  ForgetReady(page);
  Punch({page, 1});
}

bool RegionFrames::TakeAway(PageId page) {
  std::lock_guard lock(mappings_mutex_);
  if (foreign_mappings_) return false;
  for (const OwnMapping& own : own_mappings_) {
    if (!own.mapped) return false;
    void* const address = reinterpret_cast<void*>(own.base + OffsetOf(page));
    // Fails where the program has locked its memory.
    if (madvise(address, kPageBytes, MADV_DONTNEED) != 0) return false;
  }
  spares_.push_back({page, ++last_spare_});
  ReadyOf(page) = last_spare_;
  CountSpares(1);
  if (spares_.size() > kFewSpares && spares_.size() > 2 * spare_count_) {
    std::erase_if(spares_, [this](const Spare& spare) { return !IsSpare(spare); });
  }
  return true;
}

uint64_t RegionFrames::DropSpares(uint64_t count) {
  std::lock_guard lock(mappings_mutex_);
  uint64_t dropped = 0;
  PageRange run;  // Of neighbours, which one call removes.
  while (dropped < count && !spares_.empty()) {
    const Spare oldest = spares_.front();
    spares_.pop_front();
    if (!IsSpare(oldest)) continue;  // In use again, or since.
    ForgetReady(oldest.page);
    ++dropped;
    if (run.count > 0 && oldest.page == run.end()) {
      ++run.count;
      continue;
    }
    if (run.count > 0) Punch(run);
    run = {oldest.page, 1};
  }
  if (run.count > 0) Punch(run);
  return dropped;
}

}  // namespace mangrove
