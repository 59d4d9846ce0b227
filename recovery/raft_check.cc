// Which messages an anchor can have sent that keeps to the rules: what others say must not stop this one.

#include <algorithm>

#include "recovery/raft.h"

namespace mangrove {
namespace {

// No cluster comes so far.
constexpr uint64_t kMost = uint64_t{1} << 62;
constexpr size_t kMostBytes = size_t{16} << 10;
constexpr uint64_t kMostSnapshotBytes = uint64_t{64} << 20;

bool AreVotes(const Votes& votes) {
  const auto is_sound = [](const auto& member) { return member.first.value != 0 && member.second <= Raft::kMaxVotes; };
  const auto votes_at_all = [](const auto& member) { return member.second > 0; };
  return votes.size() <= Raft::kMaxMembers && std::all_of(votes.begin(), votes.end(), is_sound) &&
         std::any_of(votes.begin(), votes.end(), votes_at_all);
}

bool AreEntries(const RaftMessage& message) {
  Term before = message.index_term;
  for (const LogEntry& entry : message.entries) {
    if (entry.term < before || entry.term > message.term || entry.term.value == 0) return false;
    if (entry.kind == LogEntry::Kind::kVotes ? !AreVotes(entry.votes) : !entry.votes.empty()) return false;
    before = entry.term;
  }
  return true;
}

}  // namespace

bool Raft::IsSound(const RaftMessage& message) {
  const bool is_snapshot = message.kind == RaftMessage::Kind::kSnapshot;
  if (message.term.value == 0 || message.term.value > kMost || message.index_term > message.term) return false;
  if (message.index.value > kMost || message.commit.value > kMost || message.entries.size() > kMostBytes) return false;
  if (message.standing > Standing::kMayGainVote) return false;
  if (message.offset > kMostSnapshotBytes || message.bytes.size() > kMostBytes) return false;
  const bool is_answer =
      message.kind == RaftMessage::Kind::kAppended || message.kind == RaftMessage::Kind::kSnapshotTaken;
  if (!is_answer && (message.index.value == 0) != (message.index_term.value == 0)) return false;
  if (is_snapshot && (message.index.value == 0 || !AreVotes(message.votes))) return false;
  return AreEntries(message);
}

}  // namespace mangrove
