#include "tests/sim/oracle.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::sim {

namespace {

// How late an operation may end: timers are late, callbacks wait for a pause's backlog.
constexpr DurationNs kSlack = 250 * kMillisecond;

const char* NameOf(Rights rights) {
  return rights == Rights::kNone ? "no rights" : rights == Rights::kRead ? "read" : "write";
}

bool Excludes(LockMode a, LockMode b) { return a == LockMode::kExclusive || b == LockMode::kExclusive; }

}  // namespace

uint32_t Oracle::IndexOf(PageId page) {
  const auto [it, is_new] = index_.try_emplace(page, static_cast<uint32_t>(pages_.size()));
  if (is_new) pages_.emplace_back().id = page;
  return it->second;
}

const Oracle::Page* Oracle::Find(PageId page) const {
  const auto it = index_.find(page);
  return it == index_.end() ? nullptr : &pages_[it->second];
}

template <typename F>
void Oracle::ForEach(const PageRange& range, F&& f) {
  for (uint64_t i = 0; i < range.count; ++i) f(At(range.first + i));
}

void Oracle::Manage(const PageRange& range) {
  ForEach(range, [](Page& page) { page.managed = true; });
}

void Oracle::Touch(uint32_t index) {
  if (pages_[index].touched) return;
  pages_[index].touched = true;
  touched_.push_back(index);
}

bool Oracle::AnyHolder(const Page& page) const {
  for (int node = 0; node < kMaxNodes; ++node) {
    if (page.rights[static_cast<size_t>(node)] != Rights::kNone && !IsSuspended(node)) return true;
  }
  return false;
}

std::string Oracle::Describe(const Page& page) const {
  std::string text = absl::StrCat("page ", ToString(page.id), " (versions 0..", page.versions.size() - 1, ", now ",
                                  page.low, "..", page.high, ", flushed ", page.flushed, ", allocation ",
                                  static_cast<int>(page.allocation), ", holders");
  for (size_t n = 0; n < page.rights.size(); ++n) {
    if (page.rights[n] != Rights::kNone) absl::StrAppend(&text, " ", n + 1, ":", NameOf(page.rights[n]));
  }
  return absl::StrCat(text, ")");
}

void Oracle::Fail(const Page& page, const std::string& what) { world_->Fail(absl::StrCat(what, "; ", Describe(page))); }

// --- Memory -----------------------------------------------------------------------------------------------------------

Stamp Oracle::NextStamp(int node, uint64_t incarnation) {
  return {store_records_.size(), (static_cast<uint64_t>(node + 1) << 32) | incarnation};
}

void Oracle::OnInstall(int node, PageId id, const std::byte* data, Rights rights) {
  const uint32_t index = IndexOf(id);
  Page& page = pages_[index];
  Touch(index);
  world_->Note(0x100 + static_cast<uint64_t>(rights), absl::Uint128Low64(id.value));
  if (page.managed && !IsSuspended(node)) {
    if (page.allocation == Allocation::kFree) {
      Fail(page, absl::StrCat("O7: node ", node + 1, " installs a free page"));
    }
    CheckContent(node, index, data, "an install");
  }
  shown_[static_cast<size_t>(node)].erase(index);
  page.rights[static_cast<size_t>(node)] = rights;
  CheckLocks(page, node, rights);
  world_->Trace("node ", node + 1, ": installs ", id, " for ", NameOf(rights), ", version ", page.high);
}

void Oracle::OnRights(int node, PageId id, Rights rights, bool kept) {
  const uint32_t index = IndexOf(id);
  Page& page = pages_[index];
  Touch(index);
  world_->Note(0x200 + static_cast<uint64_t>(rights), absl::Uint128Low64(id.value));
  CheckLocks(page, node, rights);
  if (rights == Rights::kNone && kept) page.kept_by |= 1u << node;
  page.rights[static_cast<size_t>(node)] = rights;
  if (page.orphaned && rights == Rights::kNone && !kept && !AnyHolder(page)) LoseNewest(page);
  world_->Trace("node ", node + 1, ": has ", NameOf(rights), " on ", id, ", version ", page.high);
}

void Oracle::OnLoad(int node, PageId id, const std::byte* data) {
  ++loads_;
  const uint32_t index = IndexOf(id);
  if (pages_[index].managed) CheckContent(node, index, data, "a load");
}

void Oracle::OnStaleLoad(int node, PageId id, const std::byte* data) {
  ++stale_loads_;
  const uint32_t index = IndexOf(id);
  const Page& page = pages_[index];
  if (!page.managed) return;
  const std::string who = absl::StrCat("O9: a load on node ", node + 1, ", which has no lease, gives ");
  const ParsedPage found = ParsePage(page.id, data);
  if (found.content == PageContent::kTorn) return Fail(page, absl::StrCat(who, "a torn page"));
  const uint64_t op = found.content == PageContent::kZeros ? 0 : found.stamp.op;
  if (op >= store_records_.size()) return Fail(page, absl::StrCat(who, "what was never written"));
  if (op != 0 && store_records_[op].page != index) return Fail(page, absl::StrCat(who, "what was written elsewhere"));
  const auto [shown, is_new] = shown_[static_cast<size_t>(node)].try_emplace(index, op);
  if (shown->second == op) return;
  Fail(page, absl::StrCat(who, "store ", op, " after store ", shown->second));
}

void Oracle::OnStore(int node, PageId id, const Stamp& stamp) {
  ++stores_;
  const uint32_t index = IndexOf(id);
  Page& page = pages_[index];
  CHECK(stamp.op == store_records_.size());
  page.versions.push_back(stamp.op);
  page.low = page.high = static_cast<uint32_t>(page.versions.size() - 1);
  page.kept_by = 0;
  page.orphaned = false;
  page.own[static_cast<size_t>(node)] = stamp.op;
  store_records_.push_back({index, page.generation, page.high, stamp.writer});
  world_->Note(0x300 + static_cast<uint64_t>(node), stamp.op);
  world_->Trace("node ", node + 1, ": stores ", id, ", version ", page.high);
}

void Oracle::CheckContent(int node, uint32_t index, const std::byte* data, const char* how) {
  Page& page = pages_[index];
  const ParsedPage found = ParsePage(page.id, data);
  if (found.content == PageContent::kStamped && page.low == page.high && page.versions[page.high] == found.stamp.op) {
    return;  // The usual case.
  }
  const std::string who = absl::StrCat("O2: ", how, " on node ", node + 1, " gives ");
  if (found.content == PageContent::kZeros) {
    if (page.is_void) return;
    if (page.low == 0) return Decide(page, 0);
    return Fail(page, absl::StrCat(page.flushed > 0 ? "O4, " : "", who, "zeros"));
  }
  if (found.content == PageContent::kTorn) {
    return Fail(page, absl::StrCat(who, "a torn page, beginning with store ", found.stamp.op));
  }
  if (found.stamp.op >= store_records_.size()) return Fail(page, absl::StrCat(who, "what was never written"));
  const StoreRecord& record = store_records_[found.stamp.op];
  if (record.page != index || record.writer != found.stamp.writer) {
    return Fail(page, absl::StrCat(who, "what was written elsewhere"));
  }
  if (record.generation != page.generation) {
    return Fail(page, absl::StrCat(who, "what was written before the page was allocated anew"));
  }
  if (page.is_void) return;
  if (record.version >= page.versions.size() || page.versions[record.version] != found.stamp.op) {
    return Fail(page, absl::StrCat(who, "version ", record.version, ", which died with its node"));
  }
  if (record.version < page.low || record.version > page.high) {
    return Fail(page, absl::StrCat(record.version < page.flushed ? "O4, " : "", who, "version ", record.version));
  }
  Decide(page, record.version);
}

void Oracle::Decide(Page& page, uint32_t version) {
  if (page.low == page.high) return;
  if (version < page.high) {
    ++reverts_;
    world_->Trace(page.id, " goes back from version ", page.high, " to ", version);
  }
  for (size_t lost = version + 1; lost < page.versions.size(); ++lost) {
    const uint64_t writer = store_records_[page.versions[lost]].writer;
    const auto node = static_cast<size_t>((writer >> 32) - 1);
    const bool lives = page.own[node] != 0 && store_records_[page.own[node]].writer == writer;
    if (lives) page.lost[node] = page.versions[lost];
  }
  page.versions.resize(version + 1);
  page.low = page.high = version;
  if (EveryLifeBeganAfter(page.lost_at)) page.flushed = std::max(page.flushed, version);  // O5
  page.kept_by = 0;
}

bool Oracle::EveryLifeBeganAfter(uint64_t event) const {
  return std::all_of(born_.begin(), born_.end(), [event](uint64_t born) { return born == 0 || born > event; });
}

void Oracle::StartGeneration(Page& page) {
  ++page.generation;
  page.versions.assign(1, 0);
  page.low = page.high = page.flushed = 0;
  page.own.fill(0);
  page.told.fill(0);
  page.lost.fill(0);
  page.kept_by = 0;
  page.orphaned = false;
  page.is_void = false;
}

void Oracle::OnNodeUp(int node) { born_[static_cast<size_t>(node)] = world_->events() + 1; }

void Oracle::OnNodeDown(int node) {
  any_was_lost_ = true;
  born_[static_cast<size_t>(node)] = 0;
  for (auto it = operations_.begin(); it != operations_.end();) {
    it = it->second.node == node ? operations_.erase(it) : std::next(it);
  }
  const bool was_suspended = std::exchange(suspended_[static_cast<size_t>(node)], true);
  for (Page& page : pages_) {
    std::erase_if(page.locks, [node](const Held& held) { return held.node == node; });
    if (!was_suspended) LoseHolder(page, node);
    page.rights[static_cast<size_t>(node)] = Rights::kNone;
    for (auto* of : {&page.own, &page.told, &page.lost}) (*of)[static_cast<size_t>(node)] = 0;
    page.kept_by &= ~(1u << node);
  }
  suspended_[static_cast<size_t>(node)] = false;
  shown_[static_cast<size_t>(node)].clear();
}

void Oracle::OnSuspended(int node) {
  any_was_lost_ = true;
  world_->Trace("node ", node + 1, ": its lease has ended");
  suspended_[static_cast<size_t>(node)] = true;
  for (uint32_t index = 0; index < pages_.size(); ++index) {
    const Page& page = pages_[index];
    const bool is_here = page.rights[static_cast<size_t>(node)] != Rights::kNone;
    if (is_here && page.managed && !page.is_void && page.low == page.high) {
      shown_[static_cast<size_t>(node)][index] = page.versions[page.high];
    }
  }
  for (Page& page : pages_) LoseHolder(page, node);
}

void Oracle::OnResumed(int node) {
  world_->Trace("node ", node + 1, ": has a lease again");
  suspended_[static_cast<size_t>(node)] = false;
  shown_[static_cast<size_t>(node)].clear();
}

// REQUIRES: the node counts as suspended.
void Oracle::LoseHolder(Page& page, int node) {
  const bool kept = (page.kept_by & (1u << node)) != 0;
  if (page.rights[static_cast<size_t>(node)] == Rights::kNone && !kept) return;
  page.orphaned = true;
  if (!AnyHolder(page)) LoseNewest(page);
}

void Oracle::LoseNewest(Page& page) {
  if (page.flushed == page.high) return;
  ++page.crashes;
  page.lost_at = world_->events() + 1;
  page.low = page.flushed;
}

// --- Flushes ----------------------------------------------------------------------------------------------------------

FlushTicket Oracle::BeginFlush(int node, const PageRange& range) {
  FlushTicket ticket{node, range, {}};
  for (uint64_t i = 0; i < range.count; ++i) {
    const uint32_t index = IndexOf(range.first + i);
    const Page& page = pages_[index];
    const auto n = static_cast<size_t>(node);
    ticket.pages.push_back({index, page.generation, page.crashes, page.low, page.own[n], page.told[n]});
  }
  return ticket;
}

void Oracle::EndFlush(const FlushTicket& ticket, const absl::Status& status) {
  const auto node = static_cast<size_t>(ticket.node);
  for (const FlushTicket::Page& began : ticket.pages) {
    if (!absl::IsDataLoss(status)) continue;
    Page& page = pages_[began.page];
    page.told[node] = page.own[node];
  }
  if (!status.ok()) return;
  for (const FlushTicket::Page& began : ticket.pages) {
    Page& page = pages_[began.page];
    if (page.generation == began.generation) CheckOwn(page, ticket.node, began);
    if (page.generation != began.generation || page.crashes != began.crashes) continue;
    page.flushed = std::max(page.flushed, began.version);
    if (page.low < page.flushed) page.low = page.flushed;
  }
}

// O10. The flush has ended with OK.
void Oracle::CheckOwn(Page& page, int node, const FlushTicket::Page& began) {
  if (began.own <= began.told || !page.managed || page.is_void || page.may_be_lost) return;
  const uint64_t lost = page.lost[static_cast<size_t>(node)];
  if (lost > began.told && lost <= began.own) {
    return Fail(page, absl::StrCat("O10: a flush on node ", node + 1, " is OK, and store ", lost,
                                   ", which the node made before, was lost"));
  }
  const uint32_t version = store_records_[began.own].version;
  if (version >= page.versions.size() || page.versions[version] != began.own) return;
  page.flushed = std::max(page.flushed, version);
  page.low = std::max(page.low, page.flushed);
}

bool Oracle::WasFlushed(PageId id, const std::byte* data) const {
  const Page* page = Find(id);
  const ParsedPage found = ParsePage(id, data);
  if (page == nullptr || found.content != PageContent::kStamped || found.stamp.op >= store_records_.size())
    return false;
  const StoreRecord& record = store_records_[found.stamp.op];
  return record.generation == page->generation && record.version <= page->flushed &&
         page->versions[record.version] == found.stamp.op;
}

// --- Allocation -------------------------------------------------------------------------------------------------------

void Oracle::SetAllocation(Page& page, Allocation allocation) {
  page.allocation = allocation;
  ++page.allocation_changes;
}

void Oracle::BeginAllocate(const PageRange& range) {
  ForEach(range, [this](Page& page) {
    CHECK(page.managed && page.allocation == Allocation::kFree);
    StartGeneration(page);
    SetAllocation(page, Allocation::kAllocating);
  });
}

void Oracle::EndAllocate(const PageRange& range, const absl::Status& status) {
  ForEach(range, [this, &status](Page& page) {
    CHECK(page.allocation == Allocation::kAllocating);
    SetAllocation(page, status.ok() ? Allocation::kAllocated : Allocation::kUnknown);
    if (absl::IsAlreadyExists(status)) Fail(page, "O7: a free page is said to be allocated");
  });
}

void Oracle::BeginUnallocate(const PageRange& range) {
  ForEach(range, [this](Page& page) {
    CHECK(page.managed && (page.allocation == Allocation::kAllocated || page.allocation == Allocation::kUnknown));
    page.was_allocated = page.allocation == Allocation::kAllocated;
    page.is_void = true;
    SetAllocation(page, Allocation::kFreeing);
  });
}

void Oracle::EndUnallocate(const PageRange& range, const absl::Status& status) {
  ForEach(range, [this, &status](Page& page) {
    CHECK(page.allocation == Allocation::kFreeing);
    const bool was_not_allocated = absl::IsFailedPrecondition(status);
    if (was_not_allocated && page.was_allocated) Fail(page, "O7: an allocated page is said to be free");
    const bool is_free = status.ok() || was_not_allocated;
    SetAllocation(page, is_free ? Allocation::kFree : Allocation::kUnknown);
    if (!is_free) return;
    if (AnyHolder(page)) Fail(page, "O7: a page is free, and somebody can still use it");
    StartGeneration(page);
  });
}

bool Oracle::IsAllocated(PageId id) const {
  const Page* page = Find(id);
  return page != nullptr && page->allocation == Allocation::kAllocated;
}

bool Oracle::IsFree(PageId id) const {
  const Page* page = Find(id);
  return page == nullptr || page->allocation == Allocation::kFree;
}

// --- Locks ------------------------------------------------------------------------------------------------------------

void Oracle::OnLocked(int node, uint64_t client, const PageRange& range, LockMode mode) {
  ForEach(range, [this, node, client, mode](Page& page) {
    if (page.rights[static_cast<size_t>(node)] == Rights::kNone) {
      Fail(page, absl::StrCat("O6: node ", node + 1, " has a lock without the page"));
    }
    for (const Held& other : page.locks) {
      if (Excludes(mode, other.mode) && !IsSuspended(node) && !IsSuspended(other.node)) {
        Fail(page, absl::StrCat("O6: client ", client, " of node ", node + 1, " has a lock that client ", other.client,
                                " of node ", other.node + 1, " excludes"));
      }
    }
    page.locks.push_back({node, client, mode});
    for (int other = 0; other < kMaxNodes; ++other) CheckLocks(page, other, page.rights[static_cast<size_t>(other)]);
  });
}

void Oracle::OnUnlocked(int node, uint64_t client, const PageRange& range, LockMode mode) {
  ForEach(range, [node, client, mode](Page& page) {
    const auto it = std::find_if(page.locks.begin(), page.locks.end(), [&](const Held& held) {
      return held.node == node && held.client == client && held.mode == mode;
    });
    CHECK(it != page.locks.end());
    page.locks.erase(it);
  });
}

// The holder's own write right may be away for a moment, while what it wrote is copied for a flush.
void Oracle::CheckLocks(const Page& page, int node, Rights rights) {
  if (IsSuspended(node)) return;
  for (const Held& held : page.locks) {
    if (IsSuspended(held.node)) continue;
    if (held.node == node && rights == Rights::kNone) {
      Fail(page, absl::StrCat("O6: a page is taken from node ", node + 1, ", whose client ", held.client, " locks it"));
    }
    const Rights allowed = held.mode == LockMode::kExclusive ? Rights::kNone : Rights::kRead;
    if (held.node != node && rights > allowed) {
      Fail(page, absl::StrCat("O6: node ", node + 1, " gets ", NameOf(rights), " on a page that client ", held.client,
                              " of node ", held.node + 1, " locks"));
    }
  }
}

// --- Operations -------------------------------------------------------------------------------------------------------

Oracle::RangeState Oracle::StateOf(const PageRange& range) const {
  RangeState state;
  for (uint64_t i = 0; i < range.count; ++i) {
    const Page* page = Find(range.first + i);
    CHECK(page != nullptr);
    state.all_allocated = state.all_allocated && page->allocation == Allocation::kAllocated;
    state.any_free = state.any_free || page->allocation == Allocation::kFree;
    state.any_open =
        state.any_open || (page->allocation != Allocation::kFree && page->allocation != Allocation::kAllocated);
    state.changes += page->allocation_changes;
    state.may_be_lost = state.may_be_lost || page->may_be_lost;
  }
  return state;
}

void Oracle::AllowLoss(PageId page) {
  const auto it = index_.find(page);
  if (it != index_.end()) pages_[it->second].may_be_lost = true;
}

bool Oracle::MayBeLost(PageId page) const {
  const Page* known = Find(page);
  return known != nullptr && known->may_be_lost;
}

void Oracle::CheckAnswer(const char* operation, int node, const PageRange& range, const RangeState& before,
                         const absl::Status& status) {
  const auto fail = [&](const char* what) {
    world_->Fail(absl::StrCat(what, ": ", operation, " of ", ToString(range), " on node ", node + 1, " ends with \"",
                              status.ToString(), "\""));
  };
  const bool unchanged = StateOf(range).changes == before.changes;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      // A free page has nothing to flush: whether that is an error is for the layers above to say.
      if (before.any_free && unchanged && std::string_view(operation) != "flush") fail("O7: a page of it is free");
      return;
    case absl::StatusCode::kFailedPrecondition:
      if (before.all_allocated && unchanged) fail("O7: all of it is allocated");
      ForEach(range, [&](Page& page) {
        const bool is_open = page.allocation == Allocation::kAllocating || page.allocation == Allocation::kUnknown;
        page.is_void = page.is_void || is_open;
      });
      return;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted: return;
    case absl::StatusCode::kDataLoss:
      // A flush says so of a page that went to another node meanwhile, and may have been lost with it.
      if (any_was_lost_ && std::string_view(operation) == "flush") return;
      if (!before.any_open && unchanged && !StateOf(range).may_be_lost) fail("unexpected answer");
      return;
    default: fail("unexpected answer");
  }
}

uint64_t Oracle::BeginOperation(int node, TimeNs deadline, const char* what, const PageRange& range) {
  const uint64_t id = ++next_operation_;
  operations_[id] = {node, deadline, world_->PausedFor(node), what, range};
  world_->At(deadline + kSlack, kNoNode, EventKind::kCheck, [this, id] { CheckDeadline(id); });
  return id;
}

void Oracle::EndOperation(uint64_t id) { operations_.erase(id); }

void Oracle::CheckDeadline(uint64_t id) {
  const auto it = operations_.find(id);
  if (it == operations_.end()) return;
  const Operation& operation = it->second;
  // A pause puts everything off, and leaves a backlog.
  const DurationNs paused = world_->PausedFor(operation.node) - operation.paused_before;
  const TimeNs allowed = operation.deadline + paused + (world_->IsPaused(operation.node) ? kSlack : 0);
  if (world_->now() < allowed + kSlack) {
    world_->At(allowed + kSlack, kNoNode, EventKind::kCheck, [this, id] { CheckDeadline(id); });
    return;
  }
  world_->Fail(absl::StrCat("O8: ", operation.what, " of ", ToString(operation.range), " on node ", operation.node + 1,
                            " has not ended by its deadline"));
}

void Oracle::AfterEvent() {
  for (const uint32_t index : touched_) {
    pages_[index].touched = false;
    CheckWriters(pages_[index]);
  }
  touched_.clear();
}

void Oracle::CheckWriters(const Page& page) {
  int readers = 0;
  int writers = 0;
  for (int node = 0; node < kMaxNodes; ++node) {
    if (IsSuspended(node)) continue;
    readers += page.rights[static_cast<size_t>(node)] == Rights::kRead;
    writers += page.rights[static_cast<size_t>(node)] == Rights::kWrite;
  }
  if (writers > 1 || (writers == 1 && readers > 0)) Fail(page, "O1: a writer is not alone");
}

}  // namespace mangrove::sim
