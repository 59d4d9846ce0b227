#include "fs/quota.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/fileset_page.h"
#include "fs/status.h"
#include "net/check.h"

namespace mangrove::fs {
namespace {

constexpr int64_t kNoLimit = int64_t{1} << 60;  // The sum of some is still a number.
// Of what is left in the fileset's page a node gets a part of so many at a time.
constexpr int64_t kParts = 64;
constexpr uint32_t kGroupsAtOnce = 16;
constexpr int kMostChecks = 5;

enum class State : uint32_t { kNone = 0, kCounting = 1, kExact = 2 };
constexpr Counted kKinds[] = {Counted::kPages, Counted::kInodes};
constexpr Zone kAllZones[] = {Zone::kMetadata, Zone::kData, Zone::kSingleCopy};

constexpr size_t IndexOf(Counted kind) { return static_cast<size_t>(kind); }
constexpr size_t kPlaceQuotaAt = 24;
constexpr size_t kDebtAt = 28;
constexpr size_t kChangesAt = 48;
constexpr size_t AllowanceAt(Counted kind) { return 32 + 8 * IndexOf(kind); }
constexpr size_t LimitAt(Counted kind) { return kind == Counted::kPages ? kPageLimitAt : kInodeLimitAt; }
constexpr size_t LeftAt(Counted kind) { return kind == Counted::kPages ? kPagesLeftAt : kInodesLeftAt; }

// The fileset's page.
class Head {
 public:
  explicit Head(EditPage* page) : page_(page) {}
  State state() const { return static_cast<State>(GetLittle<uint32_t>(page_->bytes(), kQuotaStateAt)); }
  uint32_t number() const { return GetLittle<uint32_t>(page_->bytes(), kQuotaNumberAt); }
  uint64_t limit(Counted kind) const { return GetLittle<uint64_t>(page_->bytes(), LimitAt(kind)); }
  int64_t left(Counted kind) const { return static_cast<int64_t>(GetLittle<uint64_t>(page_->bytes(), LeftAt(kind))); }
  uint32_t groups(Zone zone) const { return GetLittle<uint32_t>(page_->bytes(), GroupCountAt(zone)); }
  void set_state(State state) { PutLittle(page_->mutable_bytes(), kQuotaStateAt, static_cast<uint32_t>(state)); }
  void set_number(uint32_t number) { PutLittle(page_->mutable_bytes(), kQuotaNumberAt, number); }
  void set_limit(Counted kind, uint64_t limit) { PutLittle(page_->mutable_bytes(), LimitAt(kind), limit); }
  void set_left(Counted kind, int64_t left) {
    PutLittle(page_->mutable_bytes(), LeftAt(kind), static_cast<uint64_t>(left));
  }

 private:
  EditPage* page_;
};

int64_t RoomOf(uint64_t limit) { return limit == 0 ? kNoLimit : static_cast<int64_t>(limit); }

class Place {
 public:
  explicit Place(EditPage* page) : page_(page) {}
  uint32_t quota() const { return GetLittle<uint32_t>(page_->bytes(), kPlaceQuotaAt); }
  uint64_t changes() const { return GetLittle<uint64_t>(page_->bytes(), kChangesAt); }
  int64_t allowance(Counted kind) const {
    return static_cast<int64_t>(GetLittle<uint64_t>(page_->bytes(), AllowanceAt(kind)));
  }
  bool IsInDebt(Counted kind) const { return (GetLittle<uint32_t>(page_->bytes(), kDebtAt) >> IndexOf(kind) & 1) != 0; }
  void set_quota(uint32_t number) { PutLittle(page_->mutable_bytes(), kPlaceQuotaAt, number); }
  void set_debt(Counted kind, bool debt) {
    const auto bits = GetLittle<uint32_t>(page_->bytes(), kDebtAt);
    const uint32_t bit = 1U << IndexOf(kind);
    PutLittle(page_->mutable_bytes(), kDebtAt, debt ? bits | bit : bits & ~bit);
  }
  // Q2
  void set_allowance(Counted kind, int64_t allowance) {
    CHECK(allowance >= 0);
    PutLittle(page_->mutable_bytes(), AllowanceAt(kind), static_cast<uint64_t>(allowance));
    PutLittle(page_->mutable_bytes(), kChangesAt, changes() + 1);
  }

 private:
  EditPage* page_;
};

Task<absl::StatusOr<Head>> GetHead(Edit* edit, Intent intent) {
  const absl::StatusOr<EditPage*> page = co_await edit->Get(kFilesetPage, PageKind::kFileset, intent);
  if (!page.ok()) co_return page.status();
  co_return Head(*page);
}

Task<absl::StatusOr<Place>> GetPlace(Edit* edit, uint64_t place, Intent intent) {
  const absl::StatusOr<EditPage*> page = co_await edit->Get(kFirstPlacePage + place, PageKind::kPlace, intent);
  if (!page.ok()) co_return page.status();
  co_return Place(*page);
}

Task<absl::StatusOr<Place>> GetOwnPlace(Edit* edit) {
  return GetPlace(edit, edit->pages()->NodePlace(), Intent::kWrite);
}

// Of these kinds, what all places have.
using Allowances = std::array<int64_t, kCountedKinds>;

struct AllPlaces {
  Allowances allowances{};
  uint64_t changes = 0;
};

Task<absl::StatusOr<AllPlaces>> ReadPlaces(Edit* edit, uint32_t number) {
  AllPlaces all;
  for (uint64_t i = 0; i < kNodePlaces; ++i) {
    const absl::StatusOr<Place> place = co_await GetPlace(edit, i, Intent::kRead);
    if (!place.ok()) co_return place.status();
    all.changes += place->changes();
    if (place->quota() != number) continue;
    for (const Counted kind : kKinds) all.allowances[IndexOf(kind)] += place->allowance(kind);
  }
  co_return all;
}

// All allowances go to the fileset's page; every place is of this quota, and in debt if it must be. Q2
Task<absl::Status> Settle(Edit* edit, Head* head) {
  std::vector<Place> places;
  for (uint64_t i = 0; i < kNodePlaces; ++i) {
    const absl::StatusOr<Place> place = co_await GetPlace(edit, i, Intent::kWrite);
    if (!place.ok()) co_return place.status();
    places.push_back(*place);
  }
  const bool is_on = head->state() != State::kNone;
  for (const Counted kind : kKinds) {
    for (const Place& place : places) {
      if (place.quota() == head->number()) head->set_left(kind, head->left(kind) + place.allowance(kind));
    }
    for (Place& place : places) {
      place.set_allowance(kind, 0);
      place.set_debt(kind, is_on && head->left(kind) < 0);
    }
  }
  for (Place& place : places) place.set_quota(is_on ? head->number() : 0);
  co_return absl::OkStatus();
}

absl::Status UsedUp(Counted kind, const Head& head) {
  return PosixError(EDQUOT, absl::StrCat("the fileset may use ", head.limit(kind),
                                         kind == Counted::kPages ? " pages of data" : " inodes", ", and does"));
}

// What the places but this node's have, as much as is missing.
Task<absl::StatusOr<int64_t>> TakeBack(Edit* edit, uint32_t number, Counted kind, int64_t missing) {
  int64_t taken = 0;
  for (uint64_t i = 0; i < kNodePlaces && taken < missing; ++i) {
    if (i == edit->pages()->NodePlace()) continue;
    absl::StatusOr<Place> place = co_await GetPlace(edit, i, Intent::kRead);
    if (!place.ok()) co_return place.status();
    if (place->quota() != number || place->allowance(kind) == 0) continue;
    place = co_await GetPlace(edit, i, Intent::kWrite);
    if (!place.ok()) co_return place.status();
    taken += place->allowance(kind);
    place->set_allowance(kind, 0);
  }
  co_return taken;
}

// The place has 1 to `want` of them at least when it returns. EDQUOT: there are none.
Task<absl::Status> FillUp(Edit* edit, Place* place, Counted kind, int64_t want) {
  absl::StatusOr<Head> head = co_await GetHead(edit, Intent::kWrite);
  if (!head.ok()) co_return head.status();
  int64_t left = head->left(kind) + place->allowance(kind);
  if (left < want) {
    const absl::StatusOr<int64_t> others = co_await TakeBack(edit, head->number(), kind, want - left);
    if (!others.ok()) co_return others.status();
    left += *others;
  }
  if (left <= 0) co_return UsedUp(kind, *head);
  const int64_t granted = std::min(left, std::max(want, left / kParts));
  place->set_allowance(kind, granted);
  place->set_debt(kind, false);
  head->set_left(kind, left - granted);
  co_return absl::OkStatus();
}

Counted KindOf(Zone zone) { return zone == Zone::kMetadata ? Counted::kInodes : Counted::kPages; }

// The group's own page is nobody's.
uint64_t CountIn(const GroupView& group, Zone zone) {
  return zone == Zone::kMetadata ? group.inodes() : group.used() - 1;
}

// Has `look(edit, zone, group)`, a Task<absl::Status>, see every group, some in an edit. `look` is called once for each try.
template <typename Look>
Task<absl::Status> WalkGroups(Pages* pages, Intent intent, Look& look) {
  for (const Zone zone : kAllZones) {
    uint32_t next = 0;
    bool is_done = false;
    while (!is_done) {
      uint32_t end = 0;
      auto body = [&](Edit& edit) -> Task<absl::Status> {
        const absl::StatusOr<Head> head = co_await GetHead(&edit, intent);
        if (!head.ok()) co_return head.status();
        end = std::min(head->groups(zone), next + kGroupsAtOnce);
        is_done = end == head->groups(zone);
        std::vector<GroupEditor> groups;
        for (uint32_t i = next; i < end; ++i) {
          const uint64_t first = PagesOf(zone).first + i * kGroupPages;
          const absl::StatusOr<EditPage*> page = co_await edit.Get(first, PageKind::kGroup, intent);
          if (!page.ok()) co_return page.status();
          groups.emplace_back(*page);
          if (absl::Status s = groups.back().Check(first, zone); !s.ok()) co_return s;
        }
        co_return look(*head, zone, &groups);
      };
      const absl::Status status = co_await RunEdit(pages, body);
      if (!status.ok()) co_return status;
      next = end;
    }
  }
  co_return absl::OkStatus();
}

}  // namespace

uint32_t QuotaOf(const EditPage& page) {
  const auto state = static_cast<State>(GetLittle<uint32_t>(page.bytes(), kQuotaStateAt));
  return state == State::kNone ? 0 : GetLittle<uint32_t>(page.bytes(), kQuotaNumberAt);
}

// --- Setting ----------------------------------------------------------------------------------------------------------

Task<absl::Status> SetQuota(Pages* pages, QuotaChange change) {
  for (const uint64_t limit : {change.pages.value_or(0), change.inodes.value_or(0)}) {
    if (limit >= uint64_t{kNoLimit}) co_return PosixError(EINVAL, absl::StrCat("a limit of ", limit));
  }
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Head> head = co_await GetHead(&edit, Intent::kWrite);
    if (!head.ok()) co_return head.status();
    const bool was_on = head->state() != State::kNone;
    bool is_on = false;
    const std::array<std::optional<uint64_t>, kCountedKinds> wanted{change.pages, change.inodes};
    for (const Counted kind : kKinds) {
      const int64_t before = was_on ? RoomOf(head->limit(kind)) : 0;
      head->set_limit(kind, wanted[IndexOf(kind)].value_or(head->limit(kind)));
      head->set_left(kind, (was_on ? head->left(kind) : 0) + RoomOf(head->limit(kind)) - before);
      is_on = is_on || head->limit(kind) != 0;
    }
    if (was_on == is_on && !was_on) co_return absl::OkStatus();
    if (!was_on) head->set_number(head->number() + 1);
    if (was_on != is_on) head->set_state(is_on ? State::kCounting : State::kNone);
    co_return co_await Settle(&edit, &*head);
  };
  const absl::Status status = co_await RunEdit(pages, body);
  if (!status.ok()) co_return status;
  co_return co_await FinishQuota(pages);
}

Task<absl::Status> CountQuotaAnew(Pages* pages) {
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Head> head = co_await GetHead(&edit, Intent::kWrite);
    if (!head.ok()) co_return head.status();
    if (head->state() == State::kNone) co_return absl::OkStatus();
    head->set_number(head->number() + 1);
    for (const Counted kind : kKinds) head->set_left(kind, RoomOf(head->limit(kind)));
    head->set_state(State::kCounting);
    co_return co_await Settle(&edit, &*head);
  };
  const absl::Status status = co_await RunEdit(pages, body);
  if (!status.ok()) co_return status;
  co_return co_await FinishQuota(pages);
}

Task<absl::Status> FinishQuota(Pages* pages) {
  uint32_t number = 0;
  bool is_done = false;
  auto look = [&](Head head, Zone zone, std::vector<GroupEditor>* groups) {
    if (number == 0) number = head.number();
    is_done = head.state() != State::kCounting || head.number() != number;
    if (is_done) return absl::OkStatus();
    const Counted kind = KindOf(zone);
    for (GroupEditor& group : *groups) {
      if (group.quota() == number) continue;
      head.set_left(kind, head.left(kind) - static_cast<int64_t>(CountIn(group, zone)));
      group.SetQuota(number);
    }
    return absl::OkStatus();
  };
  auto end = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Head> head = co_await GetHead(&edit, Intent::kWrite);
    if (!head.ok()) co_return head.status();
    is_done = head->state() != State::kCounting;
    if (is_done || head->number() != number) co_return absl::OkStatus();  // Another one has been set.
    head->set_state(State::kExact);
    co_return co_await Settle(&edit, &*head);
  };
  auto is_counting = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Head> head = co_await GetHead(&edit, Intent::kRead);
    if (head.ok()) is_done = head->state() != State::kCounting;
    co_return head.status();
  };
  absl::Status status = co_await RunEdit(pages, is_counting);
  while (status.ok() && !is_done) {
    number = 0;
    status = co_await WalkGroups(pages, Intent::kWrite, look);
    if (status.ok()) status = co_await RunEdit(pages, end);
    if (status.ok() && !is_done) status = co_await RunEdit(pages, is_counting);
  }
  co_return status;
}

// --- Looking ----------------------------------------------------------------------------------------------------------

namespace {

// What the quota says, and what tells whether it has changed.
struct Said {
  Usage usage;
  State state = State::kNone;
  uint32_t number = 0;
  uint64_t changes = 0;
  Allowances used{};  // As the quota has it: not a number of anything if it is wrong.
};

Task<absl::StatusOr<Said>> ReadQuota(Pages* pages) {
  Said said;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Head> head = co_await GetHead(&edit, Intent::kRead);
    if (!head.ok()) co_return head.status();
    said = {.state = head->state(), .number = head->number()};
    const absl::StatusOr<AllPlaces> places = co_await ReadPlaces(&edit, head->number());
    if (!places.ok()) co_return places.status();
    said.changes = places->changes;
    if (said.state == State::kNone) co_return absl::OkStatus();
    for (const Counted kind : kKinds) {
      const size_t i = IndexOf(kind);
      said.usage.limits[i] = head->limit(kind);
      said.used[i] = RoomOf(head->limit(kind)) - head->left(kind) - places->allowances[i];
      said.usage.used[i] = static_cast<uint64_t>(std::max<int64_t>(0, said.used[i]));
    }
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(pages, body);
  if (!status.ok()) co_return status;
  co_return said;
}

// What the groups have. `number`: those that this quota counts; 0: all.
Task<absl::StatusOr<Allowances>> CountGroups(Pages* pages, uint32_t number) {
  std::array<std::vector<uint64_t>, kZones> counts;  // By groups: an edit that is tried again counts them again.
  auto look = [&](const Head&, Zone zone, std::vector<GroupEditor>* groups) {
    for (const GroupEditor& group : *groups) {
      std::vector<uint64_t>& of_zone = counts[static_cast<size_t>(zone)];
      const uint64_t i = (group.first() - PagesOf(zone).first) / kGroupPages;
      of_zone.resize(std::max<size_t>(of_zone.size(), i + 1));
      of_zone[i] = number == 0 || group.quota() == number ? CountIn(group, zone) : 0;
    }
    return absl::OkStatus();
  };
  const absl::Status status = co_await WalkGroups(pages, Intent::kRead, look);
  if (!status.ok()) co_return status;
  Allowances sums{};
  for (const Zone zone : kAllZones) {
    for (const uint64_t count : counts[static_cast<size_t>(zone)]) {
      sums[IndexOf(KindOf(zone))] += static_cast<int64_t>(count);
    }
  }
  co_return sums;
}

}  // namespace

Task<absl::StatusOr<Usage>> GetQuota(Pages* pages) {
  const absl::StatusOr<Said> said = co_await ReadQuota(pages);
  if (!said.ok()) co_return said.status();
  Usage usage = said->usage;
  usage.is_counted = said->state == State::kExact;
  co_return usage;
}

Task<absl::StatusOr<Usage>> GetUsage(Pages* pages) {
  absl::StatusOr<Usage> usage = co_await GetQuota(pages);
  if (!usage.ok() || usage->is_counted) co_return usage;
  const absl::StatusOr<Allowances> counted = co_await CountGroups(pages, 0);
  if (!counted.ok()) co_return counted.status();
  for (size_t i = 0; i < kCountedKinds; ++i) usage->used[i] = static_cast<uint64_t>((*counted)[i]);
  co_return usage;
}

Task<absl::StatusOr<std::vector<std::string>>> CheckQuota(Pages* pages) {
  std::vector<std::string> problems;
  for (int i = 0; i < kMostChecks; ++i) {
    const absl::StatusOr<Said> said = co_await ReadQuota(pages);
    if (!said.ok()) co_return said.status();
    if (said->state == State::kNone) co_return problems;
    const absl::StatusOr<Allowances> counted = co_await CountGroups(pages, said->number);
    if (!counted.ok()) co_return counted.status();
    const absl::StatusOr<Said> after = co_await ReadQuota(pages);
    if (!after.ok()) co_return after.status();
    const bool is_same = after->number == said->number && after->state == said->state &&
                         after->changes == said->changes && after->used == said->used;
    if (!is_same) continue;
    for (const Counted kind : kKinds) {
      const size_t at = IndexOf(kind);
      if ((*counted)[at] == said->used[at]) continue;
      problems.push_back(absl::StrCat("the quota says that ", said->used[at],
                                      kind == Counted::kPages ? " pages of data" : " inodes", " are used, the groups ",
                                      (*counted)[at]));
    }
    co_return problems;
  }
  co_return problems;
}

// --- Taking and freeing -----------------------------------------------------------------------------------------------

Task<absl::StatusOr<uint64_t>> Allow(Edit* edit, GroupEditor* group, Counted kind, uint64_t want) {
  if (group->quota() == 0) co_return want;
  absl::StatusOr<Place> place = co_await GetOwnPlace(edit);
  if (!place.ok()) co_return place.status();
  if (place->quota() != group->quota()) {  // Q3
    group->SetQuota(0);
    co_return want;
  }
  if (place->IsInDebt(kind) || static_cast<uint64_t>(place->allowance(kind)) < want) {
    const absl::Status status = co_await FillUp(edit, &*place, kind, static_cast<int64_t>(want));
    if (!status.ok()) co_return status;
  }
  co_return std::min(want, static_cast<uint64_t>(place->allowance(kind)));
}

Task<absl::Status> Charge(Edit* edit, GroupEditor* group, Counted kind, uint64_t count) {
  if (group->quota() == 0) co_return absl::OkStatus();
  absl::StatusOr<Place> place = co_await GetOwnPlace(edit);
  if (place.ok()) place->set_allowance(kind, place->allowance(kind) - static_cast<int64_t>(count));
  co_return place.status();
}

Task<absl::Status> Credit(Edit* edit, GroupEditor* group, Counted kind, uint64_t count) {
  if (group->quota() == 0 || count == 0) co_return absl::OkStatus();
  absl::StatusOr<Place> place = co_await GetOwnPlace(edit);
  if (!place.ok()) co_return place.status();
  if (place->quota() != group->quota()) {  // Q3
    group->SetQuota(0);
  } else {
    place->set_allowance(kind, place->allowance(kind) + static_cast<int64_t>(count));
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove::fs
