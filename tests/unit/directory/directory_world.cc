#include "tests/unit/directory/directory_world.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/directory_edit.h"

namespace mangrove::directory_test {

namespace {

constexpr DurationNs kPatience = 20 * kMillisecond;
constexpr DirectoryLimits kSmall{.runs = 4, .children = 4};

}  // namespace

// --- A node's life ----------------------------------------------------------------------------------------------------

Life::Life(World* the_world, NodeId the_node)
    : world(the_world),
      node(the_node),
      access(&the_world->space_, the_node),
      tree(FakeSpace::kRoot, &access, this, &the_world->clock_, the_world->bugs_, kSmall) {}

void Life::Answer(PageInterval interval, std::map<PageId, DirectoryEntry>* claims, PageId* in_conflict) {
  rounds_.Add(interval);
  for (const auto& [segment, belief] : beliefs) {
    if (!interval.Contains(segment)) continue;
    DirectoryEntry& claim = (*claims)[segment];
    if (claim.term == belief.term) *in_conflict = segment;
    if (claim.term < belief.term) claim = {{segment, kSegmentPages}, node, belief.term};
  }
}

Task<absl::StatusOr<Claims>> Life::Collect(PageInterval interval, TimeNs deadline) {
  ++(interval == kWholeSpace ? world->counts_.whole_rounds : world->counts_.rounds);
  std::map<PageId, DirectoryEntry> all;
  PageId in_conflict;
  const uint64_t before = Rounds();
  const uint64_t first = world->random_.Below(world->nodes_);
  for (uint64_t i = 0; i < world->nodes_; ++i) {
    const NodeId asked(1 + (first + i) % world->nodes_);
    co_await world->Wait();
    Life* other = world->LifeOf(asked);
    if (!alive || other == nullptr || world->space_.Fails()) {
      co_return absl::UnavailableError(absl::StrCat(ToString(asked), " does not answer"));
    }
    other->Answer(interval, &all, &in_conflict);
    co_await world->Wait();
  }
  if (world->clock_.Now() >= deadline) co_return absl::DeadlineExceededError("collecting claims");
  // Another round in the midst of this one lets segments change hands between two answers; this one is void then.
  if (in_conflict != PageId() && RoundsAbout(in_conflict, before) == 1) {
    world->Fail(absl::StrCat("two claims of one term on ", ToString(in_conflict)));
  }
  Claims claims{.entries = {}, .order = world->order_};
  for (const auto& [segment, claim] : all) AppendRun(&claims.entries, claim);
  co_return claims;
}

// --- Beliefs ----------------------------------------------------------------------------------------------------------

void World::Fail(const std::string& what) {
  if (failure_.empty()) failure_ = absl::StrCat("at ", clock_.Now() - kSecond, " ns: ", what);
}

void World::SetActive(PageId segment, Life* life) {
  ++changes_[segment];
  if (life == nullptr) {
    active_.erase(segment);
    return;
  }
  const auto [at, fresh] = active_.emplace(segment, life);
  if (!fresh) {
    Fail(absl::StrCat("segment ", ToString(segment), " is ", ToString(at->second->node), "'s and ",
                      ToString(life->node), "'s"));
  }
}

void World::OnAppointed(Life* life, const DirectoryEntry& run, const DirectoryOrder& order) {
  if (!life->alive) return;
  for (PageId segment = run.range.first; segment < run.range.end(); segment = segment + kSegmentPages) {
    SetActive(segment, life);
    if (!life->beliefs.emplace(segment, Belief{.term = run.term}).second) Fail("appointed twice");
    if (Merge(order, floors_[segment]) != order) Fail(absl::StrCat("the order at ", ToString(segment), " fell"));
    ++counts_.appointed;
  }
}

void World::OnMoved(Life* life, uint64_t move, const DirectoryEntry& run) {
  if (!life->alive) return;
  const PageId segment = run.range.first;
  if (run.range.count != kSegmentPages) Fail("more than a segment was moved");
  SetActive(segment, life);
  Belief to{.term = run.term, .confirmed = true};
  for (const auto& other : lives_) {
    const auto from = other->beliefs.find(segment);
    if (!other->alive || from == other->beliefs.end()) continue;
    if (from->second.handed_to != move) Fail(absl::StrCat(ToString(other->node), " was not asked"));
    if (from->second.term + 1 != run.term) Fail("a move did not raise the term by one");
    from->second.moved = true;
    to.confirmed = false;
  }
  life->beliefs[segment] = to;
  ++counts_.moved;
  if (!to.confirmed) After(space_.Delay(), [this, segment, move] { Told(segment, move); });
}

// Who handed the segment over learns that the move has come to its good end.
void World::Told(PageId segment, uint64_t move) {
  for (const auto& life : lives_) {
    const auto from = life->beliefs.find(segment);
    if (from != life->beliefs.end() && from->second.handed_to == move && from->second.moved) life->beliefs.erase(from);
  }
  const auto to = moves_.at(move)->beliefs.find(segment);
  if (to != moves_.at(move)->beliefs.end()) to->second.confirmed = true;
}

void World::OnRemoved(Life* life, const DirectoryEntry& run, const DirectoryOrder& order) {
  if (!life->alive) return;
  for (PageId segment = run.range.first; segment < run.range.end(); segment = segment + kSegmentPages) {
    const auto active = active_.find(segment);
    if (active != active_.end() && active->second == life) SetActive(segment, nullptr);
    life->beliefs.erase(segment);
    floors_[segment] = Merge(floors_[segment], order);
    ++counts_.removed;
  }
}

Task<absl::Status> World::HandOver(NodeId from, PageId segment, uint64_t move) {
  co_await Wait();
  Life* life = LifeOf(from);
  if (life == nullptr || space_.Fails()) co_return absl::UnavailableError("no hand-over");
  const auto belief = life->beliefs.find(segment);
  if (belief == life->beliefs.end() || !belief->second.confirmed) co_return absl::UnavailableError("not now");
  if (belief->second.handed_to == 0) {
    belief->second.handed_to = move;
    SetActive(segment, nullptr);
  }
  if (belief->second.handed_to != move) co_return absl::UnavailableError("handed to another");
  co_await Wait();
  if (space_.Fails()) co_return absl::UnavailableError("the answer was lost");
  co_return absl::OkStatus();
}

// Who handed the segment over takes it back, unless it was moved.
void World::EndMove(PageId segment, uint64_t move) {
  for (const auto& life : lives_) {
    const auto from = life->beliefs.find(segment);
    if (!life->alive || from == life->beliefs.end()) continue;
    if (from->second.handed_to != move || from->second.moved) continue;
    from->second.handed_to = 0;
    SetActive(segment, life.get());
  }
}

// --- Nodes ------------------------------------------------------------------------------------------------------------

World::World(uint64_t seed, const PlantedBugs* bugs)
    : bugs_(bugs), space_(&clock_, sim::Mix(seed * 2 + 1)), random_(sim::Mix(seed * 2)) {
  nodes_ = 2 + random_.Below(4);
  segments_ = static_cast<uint64_t>(random_.Between(8, 96));
  space_.longest_delay = random_.Between(2, 20) * kMicrosecond;
  space_.failures_per_mille = random_.PerMille(500) ? 0 : random_.Below(30);
  deaths_left_ = random_.PerMille(300) ? 0 : random_.Below(12);
  operations_left_ = static_cast<int>(random_.Between(40, 300));
  longest_pause_ = random_.Spread(10, 200) * kMicrosecond;
  root_losses_per_mille_ = random_.PerMille(300) ? 1000 : 100;
  space_.on_lost_root = [this] { MakeRoot(); };
}

Life* World::LifeOf(NodeId node) {
  Life* life = now_[node];
  return life != nullptr && life->alive ? life : nullptr;
}

void World::Start(NodeId node) {
  lives_.push_back(std::make_unique<Life>(this, node));
  now_[node] = lives_.back().get();
  Clean(now_[node]);
}

void World::Clean(Life* life) {
  if (!life->alive) return;
  Spawn<absl::Status>(life->tree.Remove(
                          kWholeSpace, life->node, order_, [](const DirectoryEntry&, const DirectoryOrder&) {},
                          clock_.Now() + kPatience),
                      [this, life](const absl::Status& status) {
                        life->clean = Ended(status, life);
                        After(1 + space_.Delay(), [this, life] { life->clean ? Tick(life) : Clean(life); });
                      });
}

void World::Kill(Life* life) {
  ++counts_.deaths;
  life->alive = false;
  life->access.Die();
  ++order_.epoch;
  for (const auto& [segment, belief] : life->beliefs) {
    if (belief.handed_to == 0) SetActive(segment, nullptr);
    // Nobody waits for its word.
    const uint64_t move = belief.handed_to;
    if (move != 0 && belief.moved) moves_.at(move)->beliefs[segment].confirmed = true;
  }
  life->beliefs.clear();
  for (const auto& other : lives_) {
    const std::map<PageId, Belief> beliefs = other->beliefs;
    for (const auto& [segment, belief] : beliefs) {
      if (belief.handed_to == 0 || moves_.at(belief.handed_to) != life) continue;
      belief.moved ? Told(segment, belief.handed_to) : EndMove(segment, belief.handed_to);
    }
  }
  const bool evict = random_.PerMille(500);
  for (auto& [id, page] : space_.pages) {
    if (page.last_writer != life->node || page.lock != 0) continue;
    if (evict) page.cached_by.clear();
    if (!page.cached_by.empty()) continue;
    if (id == FakeSpace::kRoot.page.value && !random_.PerMille(root_losses_per_mille_)) continue;
    page.content = nullptr;
    ++counts_.lost;
  }
  After(random_.Spread(kMicrosecond, 500 * kMicrosecond), [this, node = life->node] { Start(node); });
}

void World::MakeRoot() {
  Life* life = LifeOf(FakeSpace::kRoot.responsible);
  if (making_root_ || life == nullptr) return;
  making_root_ = true;
  Spawn<absl::Status>(TryMakeRoot(life), [this](const absl::Status&) { making_root_ = false; });
}

Task<absl::Status> World::TryMakeRoot(Life* life) {
  const uint64_t rounds = life->Rounds();
  absl::StatusOr<Claims> claims = co_await life->Collect(kWholeSpace, clock_.Now() + kPatience);
  if (!claims.ok()) co_return claims.status();
  const absl::StatusOr<PageBuffer> root = co_await life->tree.BuildRoot(*std::move(claims), clock_.Now() + kPatience);
  if (!root.ok()) co_return root.status();
  if (!life->alive || life->Rounds() != rounds + 1) co_return absl::AbortedError("again");
  space_.pages[FakeSpace::kRoot.page.value] = {.content = *root, .last_writer = life->node};
  ++space_.stores;
  ++counts_.roots;
  co_return absl::OkStatus();
}

// Counts how an operation ended; says whether well.
bool World::Ended(const absl::Status& status, Life* life) {
  if (status.ok()) return true;
  ++counts_.failed;
  const bool expected =
      absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsFailedPrecondition(status);
  if (!expected) Fail(absl::StrCat(ToString(life->node), ": ", status.ToString()));
  return false;
}

void World::Tick(Life* life) {
  if (!life->alive || operations_left_ == 0 || !failure_.empty()) return;
  if (life->under_way < 3) {
    --operations_left_;
    if (deaths_left_ > 0 && random_.PerMille(40)) {
      --deaths_left_;
      Kill(life);
      return;
    }
    StartOperation(life);
  }
  const PageId segment = SegmentAt(random_.Below(segments_));
  if (const auto found = life->tree.Peek(segment)) CheckFound(active_[segment], segment, *found);
  if (active_[segment] == nullptr) active_.erase(segment);
  After(random_.Spread(kMicrosecond, longest_pause_), [this, life] { Tick(life); });
}

void World::StartOperation(Life* life) {
  switch (random_.Below(8)) {
    case 0:
    case 1:
    case 2: return StartAppoint(life);
    case 3:
    case 4: return StartMove(life);
    case 5: return StartRemove(life);
    default: return StartFind(life);
  }
}

void World::StartAppoint(Life* life) {
  const uint64_t first = random_.Below(segments_);
  const uint64_t count =
      std::min<uint64_t>(segments_ - first, 1 + random_.Below(random_.PerMille(800) ? 3 : segments_));
  const PageRange range{SegmentAt(first), count * kSegmentPages};
  ++life->under_way;
  Spawn<absl::StatusOr<std::vector<DirectoryEntry>>>(
      life->tree.Appoint(
          range, life->node,
          [this, life](const DirectoryEntry& run, const DirectoryOrder& order) { OnAppointed(life, run, order); },
          clock_.Now() + kPatience),
      [this, life, range](const absl::StatusOr<std::vector<DirectoryEntry>>& runs) {
        --life->under_way;
        if (!Ended(runs.status(), life)) return;
        PageId at = range.first;
        for (const DirectoryEntry& run : *runs) {
          if (run.range.first != at) Fail("an appointment left a gap");
          at = run.range.end();
        }
        if (at != range.end()) Fail("an appointment stopped early");
      });
}

void World::StartMove(Life* life) {
  const PageId segment = SegmentAt(random_.Below(segments_));
  const auto active = active_.find(segment);
  if (active == active_.end() || active->second == life || life->removing) return StartFind(life);
  const NodeId from = active->second->node;
  const uint64_t move = moves_.size() + 1;
  moves_[move] = life;
  ++life->under_way;
  ++life->moves_under_way;
  Spawn<absl::Status>(
      life->tree.Move(
          segment, from, life->node, [this, from, segment, move] { return HandOver(from, segment, move); },
          [this, life, move](const DirectoryEntry& run, const DirectoryOrder&) { OnMoved(life, move, run); },
          clock_.Now() + kPatience),
      [this, life, segment, move](const absl::Status& status) {
        --life->under_way;
        --life->moves_under_way;
        Ended(status, life);
        // Of one that went well nothing is left to end, unless it was written in vain, by the dead.
        After(space_.Delay(), [this, segment, move] { EndMove(segment, move); });
      });
}

void World::StartRemove(Life* life) {
  // Who gives up what it has from another would leave the claim of that one behind.
  bool confirmed = true;
  for (const auto& [segment, belief] : life->beliefs) confirmed = confirmed && belief.confirmed;
  if (!confirmed || life->moves_under_way > 0 || life->removing) return StartFind(life);
  const uint64_t first = random_.Below(segments_);
  const PageInterval interval{SegmentAt(first), SegmentAt(first + 1 + random_.Below(6))};
  ++order_.txn;
  ++life->under_way;
  life->removing = true;
  Spawn<absl::Status>(life->tree.Remove(
                          interval, life->node, order_,
                          [this, life, asked = order_](const DirectoryEntry& run, const DirectoryOrder& order) {
                            if (Merge(order, asked) != order) Fail("a removal did not raise the order");
                            OnRemoved(life, run, order);
                          },
                          clock_.Now() + kPatience),
                      [this, life](const absl::Status& status) {
                        --life->under_way;
                        life->removing = false;
                        Ended(status, life);
                      });
}

void World::StartFind(Life* life) {
  const PageId segment = SegmentAt(random_.Below(segments_));
  const auto at = active_.find(segment);
  const Life* before = at == active_.end() ? nullptr : at->second;
  ++life->under_way;
  Spawn<absl::StatusOr<DirectoryTree::Found>>(
      life->tree.Find(segment + random_.Below(kSegmentPages), clock_.Now() + kPatience),
      [this, life, segment, before, changes = changes_[segment]](const absl::StatusOr<DirectoryTree::Found>& found) {
        --life->under_way;
        if (!Ended(found.status(), life)) return;
        ++counts_.found;
        if (changes_[segment] == changes) CheckFound(before, segment, *found);
      });
}

// `before`: who has been responsible all the time.
void World::CheckFound(const Life* before, PageId segment, const DirectoryTree::Found& found) {
  if (before == nullptr) return;
  if (!found.entry || !found.entry->range.Contains(segment) || found.entry->responsible != before->node) {
    Fail(absl::StrCat("segment ", ToString(segment), " is ", ToString(before->node), "'s, and found as ",
                      found.entry ? ToString(*found.entry) : "nobody's"));
  }
}

std::string World::Run() {
  for (uint64_t i = 1; i <= nodes_; ++i) Start(NodeId(i));
  const uint64_t sampling = 1 + random_.Below(8);
  while (failure_.empty() && !(operations_left_ == 0 && IsAtRest())) {
    if (++counts_.steps > 1'000'000 || !clock_.Step()) {
      Fail("it does not come to rest");
      break;
    }
    if (space_.stores >= checked_ + sampling) CheckTree();
  }
  if (failure_.empty()) CheckFinally();
  counts_.stores = space_.stores;
  // What still waits ends.
  for (const auto& life : lives_) {
    if (life->alive) {
      life->alive = false;
      life->access.Die();
    }
  }
  while (clock_.Step()) {
  }
  return failure_;
}

bool World::IsAtRest() {
  for (const auto& life : lives_) {
    if (life->under_way > 0 || (life->alive && !life->clean)) return false;
    for (const auto& [segment, belief] : life->beliefs) {
      if (belief.handed_to != 0 || !belief.confirmed) return false;
    }
  }
  for (const auto& [node, life] : now_) {
    if (!life->alive) return false;
  }
  return !making_root_;
}

// --- Pages ------------------------------------------------------------------------------------------------------------

bool World::Look(PageRef child, PageInterval interval, int level, Content* content) {
  PageId start = interval.first;
  for (PageRef at = child; start < interval.end;) {
    const auto page = space_.pages.find(at.page.value);
    if (page == space_.pages.end() || page->second.content == nullptr) {
      content->lost.push_back({start, interval.end});
      return true;
    }
    const auto parsed = ParseDirectoryPage(*page->second.content);
    if (!parsed.ok()) return Fail(parsed.status().ToString()), false;
    ++content->pages;
    if ((level >= 0 && parsed->level != level) || parsed->keys.first != start || interval.end < parsed->keys.end) {
      Fail(absl::StrCat(ToString(at), " is of level ", int{parsed->level}, ", ", ToString(parsed->keys), "; not ",
                        ToString(interval), " from ", ToString(start)));
      return false;
    }
    if (!LookInto(*parsed, content)) return false;
    start = parsed->keys.end;
    at = parsed->right;
  }
  return true;
}

bool World::LookInto(const DirectoryPage& page, Content* content) {
  const bool full = page.runs.size() > kSmall.runs || page.children.size() > kSmall.children;
  if (full && !bugs_->appoint_unchecked) Fail("a page is too full");
  for (const DirectoryEntry& run : page.runs) {
    for (PageId segment = run.range.first; segment < run.range.end(); segment = segment + kSegmentPages) {
      content->segments[segment] = {{segment, kSegmentPages}, run.responsible, run.term};
    }
  }
  for (size_t i = 0; i < page.children.size(); ++i) {
    const PageId end = i + 1 < page.children.size() ? page.children[i + 1].start : page.keys.end;
    if (!Look(page.children[i].ref, {page.children[i].start, end}, page.level - 1, content)) return false;
  }
  return true;
}

void World::CheckTree() {
  checked_ = space_.stores;
  Content content;
  if (!Look(FakeSpace::kRoot, kWholeSpace, -1, &content)) return;
  for (const auto& [segment, life] : active_) {
    const auto lost = std::any_of(content.lost.begin(), content.lost.end(),
                                  [s = segment](const PageInterval& interval) { return interval.Contains(s); });
    if (lost) continue;
    const DirectoryEntry& entry = content.segments[segment];
    if (entry.responsible == life->node && entry.term == life->beliefs.at(segment).term) continue;
    Fail(absl::StrCat("segment ", ToString(segment), " is ", ToString(life->node), "'s in term ",
                      life->beliefs.at(segment).term, ", and the directory has ", ToString(entry)));
  }
}

// Everything is at rest: all that is lost is made anew, and the directory says exactly what the nodes believe.
void World::CheckFinally() {
  space_.failures_per_mille = 0;
  Life* life = LifeOf(NodeId(1));
  bool listed = false;
  Spawn<absl::StatusOr<std::vector<DirectoryEntry>>>(life->tree.List(kWholeSpace, SIZE_MAX, clock_.Now() + kSecond),
                                                     [&](const absl::StatusOr<std::vector<DirectoryEntry>>& runs) {
                                                       if (!runs.ok()) Fail(runs.status().ToString());
                                                       listed = true;
                                                     });
  while (!listed && clock_.Step()) {
  }
  CheckTree();
  Content content;
  if (!Look(FakeSpace::kRoot, kWholeSpace, -1, &content)) return;
  if (!content.lost.empty()) Fail("after a walk over all a page is lost");
  for (const auto& [segment, entry] : content.segments) {
    if (!active_.contains(segment)) Fail(absl::StrCat("nobody believes in ", ToString(entry)));
  }
  for (uint64_t i = 0; i < segments_ && failure_.empty(); ++i) StartFind(LifeOf(NodeId(1 + i % nodes_)));
  while (failure_.empty() && !IsAtRest() && clock_.Step()) {
  }
}

}  // namespace mangrove::directory_test
