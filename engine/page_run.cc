// Neighbours that are alike (directory/page_run.h) step once: the first page's machine runs, the others' entries get what
// came of it, and what is to be carried out is so for all of them, in as few messages as there were.

#include <algorithm>
#include <utility>

#include "directory/page_run.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

bool IsQuiet(const CachedPage& cached) {
  return !cached.carrying && (cached.work == nullptr || (cached.work->events.empty() && cached.work->effects.empty()));
}

// What of the run is left behind `done`, up to the end of a segment: another has another responsible node.
Message NextPart(const Message& run, uint64_t done) {
  Message part = PartOf(run, done, run.repeat - done);
  const auto to_end = absl::Uint128Low64((SegmentStart(part.page) + kSegmentPages).value - part.page.value);
  part.repeat = static_cast<uint32_t>(std::min<uint64_t>(part.repeat, to_end));
  return part;
}

// Calls each(first, count) for the pages that are left, side by side, `most` at a time.
template <typename Each>
void ForEachPart(const std::vector<bool>& left, uint64_t most, Each each) {
  for (uint64_t first = 0; first < left.size();) {
    uint64_t count = 0;
    while (first + count < left.size() && left[first + count] && count < most) ++count;
    if (count > 0) each(first, count);
    first += std::max<uint64_t>(count, 1);
  }
}

// The pages' retained data, where it is one piece from the first page's on, `count` of them at most.
template <typename Alike>
uint64_t CountInOnePiece(const Alike& alike, uint64_t first, uint64_t count) {
  const auto data_of = [&alike](uint64_t i) -> const PageBuffer* {
    const auto& retained = alike[i]->entry.retained;
    return retained && retained->data != nullptr ? &retained->data : nullptr;
  };
  const PageBuffer* const begin = data_of(first);
  if (begin == nullptr) return 1;
  for (uint64_t i = 1; i < count; ++i) {
    const PageBuffer* const data = data_of(first + i);
    if (data == nullptr || data->get() != begin->get() + i) return i;
    if (data->owner_before(*begin) || begin->owner_before(*data)) return i;
  }
  return count;
}

// Calls each(memory, part) for the parts of the range that lie in one memory.
template <typename MemoryOf, typename Each>
void ForEachMemory(PageRange range, MemoryOf memory_of, Each each) {
  for (PageId page = range.first; page < range.end();) {
    PageMemory* const memory = memory_of(page);
    PageRange part{page, 1};
    while (part.end() < range.end() && memory_of(part.end()) == memory) ++part.count;
    each(memory, part);
    page = part.end();
  }
}

}  // namespace

// --- The cache --------------------------------------------------------------------------------------------------------

void PageEngine::CacheRun(const Message& run, NodeInstance from) {
  Turn turn(this);
  for (uint64_t done = 0; done < run.repeat;) {
    Message part = NextPart(run, done);
    Alike alike;
    if (MayTakeRun(part, from)) alike = AlikeFrom({part.page, part.repeat}, &part);
    part.repeat = static_cast<uint32_t>(std::max<size_t>(alike.size(), 1));
    done += part.repeat;
    part.repeat == 1 ? CacheMessage(part, from) : StepAlike(part, from, alike);
  }
}

// Of others each page's driver changes something.
bool PageEngine::MayTakeRun(const Message& run, NodeInstance from) const {
  if (!MayBeARun(run) || !IsCurrent(from) || IsFixed(run.page)) return false;
  return run.kind != MessageKind::kGrant || run.active;
}

// The first page of `range`, and those behind it that a step with `message`, or of a local event, does the same to. None: it
// has to be stepped by itself.
PageEngine::Alike PageEngine::AlikeFrom(PageRange range, const Message* message) const {
  Alike alike;
  CachedPage* const first = FindCached(range.first);
  if (first == nullptr || !IsQuiet(*first) || !MayBeOfARun(first->entry, message)) return alike;
  alike.push_back(first);
  const TimeNs now = clock_->Now();
  const auto may_differ = [&](const CachedPage& other) {  // By a planted bug.
    if (!options_.bugs || !options_.bugs->step_unlike_copies) return false;
    CacheEntry compared = other.entry;
    compared.version = first->entry.version;
    return AreAlike(first->entry, compared, alike.size(), message, now);
  };
  for (uint64_t i = 1; i < range.count; ++i) {
    CachedPage* const other = FindCached(range.first + i);
    if (other == nullptr || !IsQuiet(*other)) break;
    if (!may_differ(*other) && !AreAlike(first->entry, other->entry, i, message, now)) break;
    alike.push_back(other);
  }
  return alike;
}

void PageEngine::StepAlike(const Message& run, NodeInstance from, const Alike& alike) {
  CachedPage& first = *alike.front();
  LendRoom(first);
  NoteSpeaker(first, PartOf(run, alike.size() - 1, 1), from.node);  // The highest number.
  const CacheEntry before = first.entry;
  const CacheContext context = ContextOf(run.page);
  const auto event = StepCacheMessage(first.entry, PartOf(run, 0, 1), from.node, context, first.work->effects);
  if (!event) counters_.stale_messages += alike.size();
  for (uint64_t i = 1; i < alike.size(); ++i) TakeStep(before, first.entry, i, alike[i]->entry);
  CarryAlike(run.page, alike);
}

void PageEngine::LocalEvents(PageRange range, CacheEvent event) {
  Turn turn(this);
  for (uint64_t done = 0; done < range.count;) {
    const PageId page = range.first + done;
    const Alike alike = AlikeFrom({page, range.count - done}, nullptr);
    alike.size() < 2 || IsFixed(page) ? LocalEvent(page, event) : StepAlike(page, event, alike);
    done += alike.size() < 2 || IsFixed(page) ? 1 : alike.size();
  }
}

void PageEngine::StepAlike(PageId page, CacheEvent event, const Alike& alike) {
  CachedPage& first = *alike.front();
  LendRoom(first);
  const CacheEntry before = first.entry;
  const CacheContext context = ContextOf(page);
  next_request_ += alike.size() - 1;  // The others'.
  StepCacheLocal(first.entry, page, event, context, first.work->effects);
  for (uint64_t i = 1; i < alike.size(); ++i) TakeStep(before, first.entry, i, alike[i]->entry);
  if (!before.IsWaiting() && first.entry.IsWaiting()) {
    for (CachedPage* cached : alike) cached->sent_at = clock_->Now();
    if (first.entry.wanted == Access::kRead) counters_.read_requests += alike.size();
    if (first.entry.wanted == Access::kWrite) counters_.write_requests += alike.size();
  }
  CarryAlike(page, alike);
}

// The effects are the first page's. False for each page where they end in a callback, which carries on.
std::vector<bool> PageEngine::CarryAlike(PageId page, const Alike& alike) {
  std::vector<CacheEffect> effects = std::exchange(alike.front()->work->effects, {});
  for (CachedPage* cached : alike) cached->carrying = true;
  std::vector<bool> left(alike.size(), true);
  for (size_t at = 0; at < effects.size(); ++at) CarryOnAll(page, alike, left, effects, at);
  effects.clear();
  ReturnRoom(std::move(effects));
  for (uint64_t i = 0; i < alike.size(); ++i) {
    if (!left[i]) continue;
    CachedPage& cached = *alike[i];
    cached.carrying = false;
    CHECK(IsQuiet(cached));
    AfterEffects(page + i, cached);
  }
  return left;
}

// A page where it ends in a callback is not left any more: it carries on by itself.
void PageEngine::CarryOnAll(PageId page, const Alike& alike, std::vector<bool>& left, std::vector<CacheEffect>& effects,
                            size_t at) {
  using Kind = CacheEffect::Kind;
  CacheEffect& effect = effects[at];
  const auto post = [&](uint64_t first, uint64_t count) {
    Message message = PartOf(effect.message, first, count);
    if (effect.kind == Kind::kSendFrame) {
      message.data = CopyOf({page + first, count});
      counters_.pages_given += count;
    }
    effect.kind == Kind::kSendLate ? PostLate(effect.to, std::move(message)) : Post(effect.to, std::move(message));
  };
  if (effect.kind == Kind::kSend || effect.kind == Kind::kSendLate || effect.kind == Kind::kSendFrame) {
    return ForEachPart(left, effect.kind == Kind::kSendFrame ? PageRow::kPages : alike.size(), post);
  }
  if (effect.kind == Kind::kSendRetained && !DropsSentFrame(options_.bugs, effect.message)) {
    return ForEachPart(left, PageRow::kPages, [&](uint64_t first, uint64_t count) {
      for (uint64_t done = 0; done < count;) {
        const uint64_t together = CountInOnePiece(alike, first + done, count - done);
        Message message = PartOf(effect.message, first + done, together);
        const auto& retained = alike[first + done]->entry.retained;
        if (retained) message.data = retained->data;
        counters_.pages_given += together;
        Post(effect.to, std::move(message));
        done += together;
      }
    });
  }
  if (effect.kind == Kind::kInstall) {
    const Rights rights = effect.write ? Rights::kWrite : Rights::kRead;
    const auto memory_of = [this](PageId each) { return MemoryOf(each); };
    return ForEachPart(left, alike.size(), [&](uint64_t first, uint64_t count) {
      for (uint64_t i = first; i < first + count; ++i) alike[i]->expected = false;
      const std::byte* const data = effect.data == nullptr ? nullptr : effect.data->bytes.data();
      ForEachMemory({page + first, count}, memory_of, [&](PageMemory* memory, PageRange part) {
        memory->InstallAll(part, data == nullptr ? nullptr : data + (part.first - page) * kPageBytes, rights);
      });
      NoteFetched({page + first, count});
    });
  }
  for (uint64_t i = 0; i < alike.size(); ++i) {
    if (!left[i]) continue;
    CacheEffect own = effect;
    MoveOn(own, i);
    if (CarryOne(page + i, *alike[i], own)) continue;
    left[i] = false;
    PageWork& work = WorkOf(*alike[i]);
    for (size_t next = at + 1; next < effects.size(); ++next) MoveOn(work.effects.emplace_back(effects[next]), i);
    work.next_effect = 0;
  }
}

// Side by side. REQUIRES: at most PageRow::kPages.
PageBuffer PageEngine::CopyOf(PageRange range) {
  std::shared_ptr<PageBytes> pages = row_.NewPages(range.count);
  const auto memory_of = [this](PageId page) { return MemoryOf(page); };
  ForEachMemory(range, memory_of, [&](PageMemory* memory, PageRange part) {
    memory->CopyAll(part, pages.get()[part.first - range.first].bytes.data());
  });
  return pages;
}

// --- The responsible node ---------------------------------------------------------------------------------------------

// Segments that are being handed over, or learned of, look at each page.
void PageEngine::HomeRun(const Message& run, NodeInstance from) {
  Turn turn(this);
  for (uint64_t done = 0; done < run.repeat;) {
    Message part = NextPart(run, done);
    const bool may = MayBeARun(part) && IsCurrent(from) && leaving_.empty() && IsResponsibleFor(part.page) &&
                     IsServed(part.page) && !IsFixed(part.page);
    part.repeat = may ? static_cast<uint32_t>(CountAlikeHomes(part)) : 1;
    done += part.repeat;
    part.repeat == 1 ? Dispatch(part, from) : StepAlikeHomes(part, from);
  }
}

uint64_t PageEngine::CountAlikeHomes(const Message& run) {
  const bool makes = run.kind == MessageKind::kRequest;  // An entry, where there is none.
  const auto find = [&](PageId page) { return makes ? &Home(page) : homes_.find(page)->second; };
  const HomeEntry* const first = find(run.page);
  if (first == nullptr || !MayBeOfARun(*first)) return 1;
  uint64_t count = 1;
  for (; count < run.repeat; ++count) {
    const HomeEntry* const other = find(run.page + count);
    if (other == nullptr || !AreAlike(*first, *other, count)) break;
  }
  return count;
}

void PageEngine::StepAlikeHomes(const Message& run, NodeInstance from) {
  if (run.kind == MessageKind::kRequest) CountUse(run.page, from.node);
  std::vector<HomeEffect> effects = std::exchange(spare_home_effects_, {});
  HomeEntry& first = Home(run.page);
  if (!StepHomeMessage(first, PartOf(run, 0, 1), from, HomeContextOf(run.page), effects)) {
    counters_.stale_messages += run.repeat;
  }
  for (uint64_t i = 1; i < run.repeat; ++i) TakeStep(first, i, home_pool_, Home(run.page + i));
  CarryAlikeHomes({run.page, run.repeat}, effects);
  effects.clear();
  spare_home_effects_ = std::move(effects);
}

// One transaction at most has begun of each page, with the numbers that follow the first one's.
void PageEngine::CarryAlikeHomes(PageRange range, std::vector<HomeEffect>& effects) {
  using Kind = HomeEffect::Kind;
  const auto begun = std::count_if(effects.begin(), effects.end(),
                                   [](const HomeEffect& effect) { return effect.kind == Kind::kArmResend; });
  CHECK(begun <= 1);
  std::vector<HomeEffect> own;
  for (HomeEffect& effect : effects) {
    Message& message = effect.message;
    if (effect.kind == Kind::kSend && message.code == absl::StatusCode::kOk && message.kind != MessageKind::kDelayed) {
      message.repeat = static_cast<uint32_t>(range.count);
      Post(effect.to, std::move(message));
    } else {
      for (uint64_t i = 0; i < range.count; ++i) {
        own = {effect};
        MoveOn(own.front().message, i);
        CarryHome(range.first + i, own);
      }
    }
  }
  for (uint64_t i = 0; i < range.count; ++i) ForgetIfIdle(range.first + i);
}

}  // namespace mangrove
