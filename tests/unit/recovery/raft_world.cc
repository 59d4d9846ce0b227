#include "tests/unit/recovery/raft_world.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr DurationNs kLook = 2 * kMillisecond;
constexpr uint64_t kCompactAfter = 12;  // Entries.

}  // namespace

RaftWorld::RaftWorld(const Options& options)
    : options_(options),
      heartbeat_(options.rough ? 4 * kMillisecond : 50 * kMillisecond),
      election_(10 * heartbeat_),
      random_(options.seed),
      faults_(options.faults) {
  for (int i = 1; i <= 2 * options.anchors; ++i) {
    const NodeId id(static_cast<uint64_t>(i));
    nodes_[id].id = id;
  }
  // All of the first ones have a vote from the beginning on.
  Votes votes;
  for (int i = 1; i <= options.anchors; ++i) votes[NodeId(static_cast<uint64_t>(i))] = 1;
  for (int i = 1; i <= options.anchors; ++i) nodes_[NodeId(static_cast<uint64_t>(i))].disk.snapshot.votes = votes;
  for (auto& [id, node] : nodes_) Start(node);
  At(0, [this] { DoSomething(); });
}

void RaftWorld::At(DurationNs delay, std::function<void()> event) {
  events_.emplace(std::pair(now_ + delay, next_event_++), std::move(event));
}

DurationNs RaftWorld::Spread(DurationNs least, DurationNs most) {
  return least + static_cast<DurationNs>(random_() % static_cast<uint64_t>(most - least + 1));
}

void RaftWorld::Fail(const std::string& what) {
  if (failure_.empty()) failure_ = absl::StrCat("seed ", options_.seed, " at ", now_ / kMicrosecond, " us: ", what);
}

void RaftWorld::RunFor(DurationNs span) {
  const TimeNs until = now_ + span;
  while (failure_.empty() && !events_.empty() && events_.begin()->first.first <= until) {
    auto event = events_.extract(events_.begin());
    now_ = event.key().first;
    event.mapped()();
  }
  now_ = std::max(now_, until);
}

// --- Nodes ------------------------------------------------------------------------------------------------------------

void RaftWorld::Start(Node& node) {
  ++node.life;
  RaftOptions raft_options{.self = node.id, .heartbeat = heartbeat_, .election = election_};
  raft_options.message_bytes = options_.rough ? 64 : 200;
  raft_options.seed = random_();
  raft_options.bugs = options_.bugs;
  node.raft = std::make_unique<Raft>(raft_options, node.disk, now_);
  node.applied = node.disk.snapshot.index;
  node.state = node.disk.snapshot.state;
  node.led = false;
  node.writing = false;
  node.outputs.clear();
  Tick(node);
}

// What it had not written is lost; of the output that was being written, all of it or nothing.
void RaftWorld::Crash(Node& node) {
  if (!node.outputs.empty() && node.outputs.front().writes && Chance(500)) WriteTo(node.disk, node.outputs.front());
  node.raft.reset();
  node.outputs.clear();
}

void RaftWorld::Tick(Node& node) {
  if (node.raft == nullptr) return;
  node.raft->Tick(now_);
  Pump(node);
  At(kLook, [this, &node, life = node.life] {
    if (node.life == life) Tick(node);
  });
}

// Takes what there is to do, until there is nothing.
void RaftWorld::Pump(Node& node) {
  if (node.raft == nullptr) return;
  Check(node);
  if (const std::optional<TimeNs> quorum = node.raft->QuorumAt(now_); quorum && !void_.contains(node.raft->term())) {
    TimeNs& until = promises_[node.raft->term()];
    until = std::max(until, *quorum + election_);
  }
  if (Chance(200)) return;  // With the next event.
  RaftOutput output = node.raft->TakeOutput();
  if (output.is_news) {
    ++snapshots_;
    node.applied = output.snapshot->index;
    node.state = output.snapshot->state;
    const auto digest = digests_.find(node.applied);
    if (digest != digests_.end() && digest->second != node.state) Fail("R5: a snapshot differs from what was applied");
  }
  for (const auto& [index, entry] : output.committed) {
    if (index.value != node.applied.value + 1) Fail("entries are not applied in their order");
    node.applied = index;
    node.state = Digest(node.state, index, entry);
    const auto [first, is_new] = applied_.try_emplace(index, entry);
    if (!is_new && !(first->second == entry)) {
      Fail(absl::StrCat("R5: ", ToString(node.id), " applied another entry at ", index.value));
    }
    digests_.try_emplace(index, node.state);
    applied_in_.try_emplace(index, node.raft->term());
  }
  const bool is_empty = !output.writes && output.messages.empty();
  if (!is_empty || output.writes) node.outputs.push_back(std::move(output));
  Write(node);
  if (node.applied.value - node.raft->log().snapshot().index.value > kCompactAfter && Chance(100)) {
    node.raft->Compact(node.applied, node.state);
  }
}

// Outputs go one after the other; what writes takes a while.
void RaftWorld::Write(Node& node) {
  while (!node.writing && !node.outputs.empty()) {
    if (!node.outputs.front().writes) {
      const RaftOutput output = std::move(node.outputs.front());
      node.outputs.erase(node.outputs.begin());
      Finish(node, output);
      continue;
    }
    node.writing = true;
    At(Spread(50 * kMicrosecond, faults_ && Chance(20) ? 300 * kMillisecond : kMillisecond),
       [this, &node, life = node.life] {
         if (node.life != life || node.raft == nullptr) return;
         const RaftOutput output = std::move(node.outputs.front());
         node.outputs.erase(node.outputs.begin());
         node.writing = false;
         WriteTo(node.disk, output);
         node.raft->Persisted(output.number, now_);
         Finish(node, output);
         Pump(node);
       });
  }
}

void RaftWorld::WriteTo(RaftDurable& disk, const RaftOutput& output) {
  disk.term = output.term;
  disk.vote = output.vote;
  disk.standing = output.standing;
  if (output.snapshot) {
    const uint64_t index = output.snapshot->index.value;
    const uint64_t before = disk.snapshot.index.value;
    const uint64_t dropped = index > before ? std::min<uint64_t>(index - before, disk.entries.size()) : 0;
    disk.entries.erase(disk.entries.begin(), disk.entries.begin() + static_cast<ptrdiff_t>(dropped));
    if (output.drops_log || before + dropped < index) disk.entries.clear();
    disk.snapshot = *output.snapshot;
  }
  if (output.entries_at.value == 0) return;
  CHECK(output.entries_at > disk.snapshot.index);
  const uint64_t kept = output.entries_at.value - disk.snapshot.index.value - 1;
  CHECK(kept <= disk.entries.size());
  disk.entries.resize(kept);
  disk.entries.insert(disk.entries.end(), output.entries.begin(), output.entries.end());
}

void RaftWorld::Finish(Node& node, const RaftOutput& output) {
  for (const auto& [to, message] : output.messages) {
    const int copies = faults_ && Chance(30) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      if (faults_ && Chance(options_.rough ? 150 : 30)) continue;
      const DurationNs delay = Spread(20 * kMicrosecond, faults_ && Chance(50) ? 800 * kMillisecond : kMillisecond);
      At(delay, [this, from = node.id, to = to, message = message] { Deliver(from, to, message); });
    }
  }
}

void RaftWorld::Deliver(NodeId from, NodeId to, const RaftMessage& message) {
  Node& node = nodes_.at(to);
  if (node.raft == nullptr || cut_.contains({from, to})) return;
  node.raft->Receive(from, message, now_);
  Pump(node);
}

// --- What happens -----------------------------------------------------------------------------------------------------

void RaftWorld::DoSomething() {
  At(Spread(kMillisecond, 40 * kMillisecond), [this] { DoSomething(); });
  Propose();
  if (replaced_.value != 0 && Chance(100)) RestoreStanding();
  if (!faults_) return;
  // No other changes meanwhile: they could leave the one without its disk with a majority.
  if (options_.changes_votes && replaced_.value == 0 && Chance(60)) ChangeVotes();
  auto some = nodes_.begin();
  std::advance(some, static_cast<ptrdiff_t>(random_() % nodes_.size()));
  if (options_.rough && Chance(300))
    some = std::find_if(nodes_.begin(), nodes_.end(), [](const auto& node) {
      return node.second.raft != nullptr && node.second.raft->role() == Raft::Role::kLeader;
    });
  if (some == nodes_.end()) return;
  Node& node = some->second;
  if (options_.replaces_disks && Chance(20)) ReplaceDisk(node);
  if (node.raft == nullptr) {
    if (Chance(options_.rough ? 600 : 200)) Start(node);
  } else if (Chance(options_.rough ? (node.raft->role() == Raft::Role::kLeader ? 500 : 100) : 25)) {
    Crash(node);
  }
  if (Chance(20)) {
    for (const auto& [other, unused] : nodes_) {
      if (Chance(500)) cut_.insert({node.id, other});
      if (Chance(500)) cut_.insert({other, node.id});
    }
  }
  if (Chance(60)) cut_.clear();
  if (node.raft != nullptr && Chance(20)) {
    auto to = nodes_.begin();
    std::advance(to, static_cast<ptrdiff_t>(random_() % nodes_.size()));
    if (node.raft->HandOver(to->first, now_).ok()) {
      void_.insert(node.raft->term());
      promises_.erase(node.raft->term());
    }
    Pump(node);
  }
}

void RaftWorld::Propose() {
  for (auto& [id, node] : nodes_) {
    if (node.raft == nullptr || node.raft->role() != Raft::Role::kLeader) continue;
    static_cast<void>(node.raft->Propose(absl::StrCat("command ", ++next_command_), now_));
    Pump(node);
  }
}

void RaftWorld::ChangeVotes() {
  for (auto& [id, node] : nodes_) {
    if (node.raft == nullptr || node.raft->role() != Raft::Role::kLeader) continue;
    auto member = nodes_.begin();
    std::advance(member, static_cast<ptrdiff_t>(random_() % nodes_.size()));
    std::optional<uint32_t> votes = static_cast<uint32_t>(random_() % 4);
    if (Chance(200)) votes.reset();
    if (node.raft->ProposeVotes(member->first, votes, now_).ok()) ++changes_;
    Pump(node);
  }
}

// With all that it has said and promised. What is on its way from it, and to it, still comes.
void RaftWorld::ReplaceDisk(Node& node) {
  if (replaced_.value != 0 || nodes_.size() < 3 || !OthersHaveMajority(node.id)) return;
  if (node.raft != nullptr) Crash(node);
  node.disk = {};
  node.disk.standing = Standing::kMustLoseVote;
  replaced_ = node.id;
  if (Chance(700)) Start(node);
}

// By any log that somebody has, as it may be the one that counts.
bool RaftWorld::OthersHaveMajority(NodeId node) const {
  return std::all_of(nodes_.begin(), nodes_.end(), [&](const auto& other) {
    const RaftLog from_disk(other.second.disk.snapshot, other.second.disk.entries);
    const Votes& votes = other.second.raft == nullptr ? from_disk.votes() : other.second.raft->log().votes();
    uint64_t all = 0;
    for (const auto& [member, count] : votes) all += count;
    const auto own = votes.find(node);
    return all == 0 || own == votes.end() || 2 * own->second < all;
  });
}

// What a leader does about a member whose disk was replaced: takes its votes, and gives it one.
void RaftWorld::RestoreStanding() {
  if (nodes_.at(replaced_).disk.standing == Standing::kFull) {
    ++replaced_disks_;
    replaced_ = NodeId();
    return;
  }
  for (auto& [id, node] : nodes_) {
    if (node.raft == nullptr || node.raft->role() != Raft::Role::kLeader) continue;
    const Votes& votes = node.raft->log().votes();
    const auto member = votes.find(replaced_);
    const uint32_t before = member == votes.end() ? 0 : member->second;
    const bool may_gain = node.raft->StandingOf(replaced_) == Standing::kMayGainVote;
    if (before > 0 && may_gain) continue;  // It has to hear that it has one.
    const uint32_t after = may_gain ? 1 : before > 0 ? before - 1 : 0;
    if (member != votes.end() && after == before) continue;
    if (node.raft->ProposeVotes(replaced_, after, now_).ok()) ++changes_;
    Pump(node);
  }
}

// --- Checks -----------------------------------------------------------------------------------------------------------

std::string RaftWorld::Digest(const std::string& state, LogIndex index, const LogEntry& entry) {
  std::string votes;
  for (const auto& [member, count] : entry.votes) absl::StrAppend(&votes, member.value, "=", count, " ");
  const std::string digest = std::to_string(std::hash<std::string>()(absl::StrCat(
      state, "/", index.value, "/", entry.term.value, "/", static_cast<int>(entry.kind), entry.command, "/", votes)));
  return absl::StrCat(digest, std::string(index.value % 7 * 30, 'x'));  // Of several pieces, as a snapshot.
}

void RaftWorld::Check(Node& node) {
  const Raft& raft = *node.raft;
  const RaftLog& log = raft.log();
  const std::tuple look(raft.role(), raft.term(), log.first(), log.last(), log.last_term());
  if (node.look == look) return;
  node.look = look;
  if (raft.role() == Raft::Role::kLeader) {
    const auto [leader, is_new] = leaders_.try_emplace(raft.term(), node.id);
    if (leader->second != node.id) {
      Fail(absl::StrCat("R1: term ", raft.term().value, " has two leaders"));
    }
    if (is_new) {
      // Whoever counted on its quorum, dead by now or not, was not to be replaced yet.
      for (const auto& [term, until] : promises_) {
        if (term < raft.term() && until > now_ && leaders_.at(term) != node.id) {
          Fail(
              absl::StrCat(ToString(node.id), " was elected while the leader of term ", term.value, " had its quorum"));
        }
      }
      for (const auto& [index, entry] : applied_) {  // R4
        if (index <= log.snapshot().index || applied_in_.at(index) >= raft.term()) continue;
        if (!log.Has(index) || !(log.At(index) == entry)) {
          Fail(
              absl::StrCat("R4: the leader of term ", raft.term().value, " has not what was applied at ", index.value));
        }
      }
    }
    if (node.led) {  // R2
      for (size_t i = 0; i < node.seen.size(); ++i) {
        const LogIndex index(node.seen_from.value + i);
        if (index <= log.snapshot().index) continue;
        if (!log.Has(index) || !(log.At(index) == node.seen[i])) {
          Fail(absl::StrCat("R2: the leader of term ", raft.term().value, " changed its entry ", index.value));
        }
      }
    }
  }
  node.led = raft.role() == Raft::Role::kLeader;
  node.seen_from = log.first();
  node.seen = log.From(log.first(), SIZE_MAX);
  for (const auto& [id, other] : nodes_) {  // R3: from the last entry of one term on.
    if (other.raft == nullptr || id == node.id) continue;
    const RaftLog& theirs = other.raft->log();
    const LogIndex from = std::max(log.first(), theirs.first());
    bool same = false;
    for (LogIndex index = std::min(log.last(), theirs.last()); index >= from; --index.value) {
      if (!same && log.TermOf(index) == theirs.TermOf(index)) same = true;
      if (same && !(log.At(index) == theirs.At(index))) Fail(absl::StrCat("R3: two logs differ at ", index.value));
    }
  }
}

std::string RaftWorld::Describe() const {
  constexpr const char* kRoles[] = {"follower", "pre-candidate", "candidate", "leader"};
  std::string text;
  for (const auto& [id, node] : nodes_) {
    if (node.raft == nullptr) {
      absl::StrAppend(&text, ToString(id), ": down\n");
      continue;
    }
    const RaftLog& log = node.raft->log();
    absl::StrAppend(&text, ToString(id), ": ", kRoles[static_cast<int>(node.raft->role())], " of term ",
                    node.raft->term().value, ", log ", log.first().value, " to ", log.last().value, " of term ",
                    log.last_term().value, ", committed ", node.raft->commit().value, ", votes at ",
                    log.votes_at().value, ", standing ", static_cast<int>(node.raft->standing()), ":");
    for (const auto& [member, votes] : log.votes()) absl::StrAppend(&text, " ", member.value, "=", votes);
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string RaftWorld::Settle() {
  faults_ = false;
  cut_.clear();
  for (auto& [id, node] : nodes_) {
    if (node.raft == nullptr) Start(node);
  }
  RunFor(10 * kSecond);
  const uint64_t before = applied_.size();
  RunFor(5 * kSecond);
  if (failure_.empty() && applied_.size() < before + 10) Fail("nothing is agreed on any more");
  LogIndex last;
  Votes votes;
  for (auto& [id, node] : nodes_) {
    if (node.raft->role() == Raft::Role::kLeader) votes = node.raft->log().votes();
    last = std::max(last, node.applied);
  }
  if (failure_.empty() && votes.empty()) Fail("there is no leader");
  if (failure_.empty() && replaced_.value != 0)
    Fail(absl::StrCat(ToString(replaced_), " is not of full standing again"));
  for (auto& [id, node] : nodes_) {
    if (votes.contains(id) && node.applied.value + 20 < last.value)
      Fail(absl::StrCat(ToString(id), " is not up to date"));
  }
  return failure_;
}

}  // namespace mangrove
