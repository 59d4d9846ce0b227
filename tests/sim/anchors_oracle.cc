#include "tests/sim/anchors_oracle.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace mangrove::sim {

void AnchorsOracle::Fail(const char* rule, int node, const std::string& what) {
  world_->Fail(absl::StrCat(rule, ": the log of node ", node + 1, ": ", what));
}

void AnchorsOracle::OnAnchor(int node, uint64_t life, const Look& look) {
  Seen& seen = seen_[static_cast<size_t>(node)];
  const RaftLog& log = look.log;
  const bool is_same = seen.life == life && seen.role == look.role && seen.term == look.term &&
                       seen.commit == look.commit && seen.first == log.first() && seen.last == log.last() &&
                       seen.last_term == log.last_term();
  if (is_same) return;
  if (seen.life != life) {
    seen = Seen();
    seen.life = life;
  }
  if (look.role == Raft::Role::kLeader) CheckLeader(node, seen, look);
  if (seen.first != log.first()) CheckSnapshot(node, log.snapshot());
  CheckLogMatching(node, seen, log);
  CheckCommitted(node, seen.commit, look);
  seen.role = look.role;
  seen.term = look.term;
  seen.commit = look.commit;
  seen.first = log.first();
  seen.last = log.last();
  seen.last_term = log.last_term();
}

void AnchorsOracle::CheckLeader(int node, const Seen& before, const Look& look) {
  const RaftLog& log = look.log;
  const auto [leader, is_new] = leaders_.try_emplace(look.term, node);
  if (leader->second != node) {
    Fail("R1", node, absl::StrCat("node ", leader->second + 1, " leads term ", look.term.value, ", too"));
  }
  const bool led_before = before.role == Raft::Role::kLeader && before.term == look.term;
  if (led_before) {
    for (const auto& [index, term] : before.terms) {
      if (index < log.first() || (log.Has(index) && log.TermOf(index) == term)) continue;
      Fail("R2", node,
           absl::StrCat("as the leader of term ", look.term.value, " it has changed its entry ", index.value));
    }
  }
  if (!is_new) return;
  for (const auto& [index, committed] : committed_) {
    if (index < log.first() || committed.in >= look.term) continue;
    if (log.Has(index) && log.At(index) == committed.entry) continue;
    Fail("R4", node,
         absl::StrCat("the leader of term ", look.term.value, " has not what is committed at ", index.value));
  }
}

// Where an entry of a place and a term is the same wherever it is, and so is the term of the one before it, logs that have an entry in
// common are the same up to there.
void AnchorsOracle::CheckLogMatching(int node, Seen& seen, const RaftLog& log) {
  seen.terms.erase(seen.terms.begin(), seen.terms.lower_bound(log.snapshot().index));
  seen.terms.erase(seen.terms.upper_bound(log.last()), seen.terms.end());
  for (LogIndex index = log.last(); index >= log.first(); --index.value) {
    const Term term = log.TermOf(index);
    const auto [at, is_news] = seen.terms.try_emplace(index, term);
    if (!is_news && at->second == term) break;
    at->second = term;
    const Term before = log.TermOf(LogIndex(index.value - 1));
    const auto [known, is_first] = entries_.try_emplace({index, term}, Known{log.At(index), before});
    if (is_first || (known->second.entry == log.At(index) && known->second.before == before)) continue;
    Fail("R3", node, absl::StrCat("entry ", index.value, " of term ", term.value, " is not as it is elsewhere"));
  }
}

void AnchorsOracle::CheckSnapshot(int node, const LogSnapshot& snapshot) {
  if (snapshot.index.value == 0) return;
  const auto [known, is_first] = snapshots_.try_emplace(snapshot.index, snapshot);
  if (!is_first && !(known->second == snapshot)) {
    Fail("R5", node, absl::StrCat("all up to ", snapshot.index.value, " comes to something else than elsewhere"));
  }
  const auto committed = committed_.find(snapshot.index);
  if (committed == committed_.end() || committed->second.entry.term == snapshot.term) return;
  Fail("R5", node,
       absl::StrCat("a snapshot up to ", snapshot.index.value, " is of another term than what is committed"));
}

void AnchorsOracle::CheckCommitted(int node, LogIndex from, const Look& look) {
  const RaftLog& log = look.log;
  if (look.commit > log.last())
    Fail("R5", node, absl::StrCat("it has not ", look.commit.value, ", which is committed"));
  for (LogIndex index = std::max(LogIndex(from.value + 1), log.first()); index <= look.commit && log.Has(index);
       ++index.value) {
    const auto [known, is_first] = committed_.try_emplace(index, Committed{log.At(index), look.term});
    if (is_first || known->second.entry == log.At(index)) continue;
    Fail("R5", node, absl::StrCat("another entry is committed elsewhere at ", index.value));
  }
}

}  // namespace mangrove::sim
