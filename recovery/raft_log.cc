#include "recovery/raft_log.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "net/check.h"

namespace mangrove {
namespace {

constexpr size_t kEntryBytes = 64;  // Of one without content.

}  // namespace

RaftLog::RaftLog(LogSnapshot snapshot, std::vector<LogEntry> entries) : snapshot_(std::move(snapshot)) {
  for (LogEntry& entry : entries) Append(std::move(entry));
}

Term RaftLog::TermOf(LogIndex index) const {
  CHECK(Has(index));
  return index == snapshot_.index ? snapshot_.term : At(index).term;
}

const LogEntry& RaftLog::At(LogIndex index) const {
  CHECK(Has(index) && index != snapshot_.index);
  return entries_[index.value - first().value];
}

std::vector<LogEntry> RaftLog::From(LogIndex index, size_t most_bytes) const {
  std::vector<LogEntry> entries;
  size_t bytes = 0;
  for (; index <= last(); ++index.value) {
    const LogEntry& entry = At(index);
    bytes += kEntryBytes + entry.command.size() + entry.votes.size() * (sizeof(uint64_t) + sizeof(uint32_t));
    if (!entries.empty() && bytes > most_bytes) break;
    entries.push_back(entry);
  }
  return entries;
}

bool RaftLog::IsAsNew(LogIndex index, Term term) const {
  return term > last_term() || (term == last_term() && index >= last());
}

LogIndex RaftLog::MayAgreeAt(LogIndex index, Term term) const {
  LogIndex place = std::min(index, last());
  while (place > snapshot_.index && TermOf(place) > term) --place.value;
  return place;
}

const Votes& RaftLog::votes_before() const {
  return votes_.size() < 2 ? snapshot_.votes : std::next(votes_.rbegin())->second;
}

void RaftLog::Append(LogEntry entry) {
  CHECK(entry.term >= last_term());
  if (entry.kind == LogEntry::Kind::kVotes) votes_[LogIndex(last().value + 1)] = entry.votes;
  entries_.push_back(std::move(entry));
}

void RaftLog::Truncate(LogIndex from) {
  CHECK(from >= first());
  if (from > last()) return;
  entries_.resize(from.value - first().value);
  votes_.erase(votes_.lower_bound(from), votes_.end());
}

void RaftLog::Install(LogSnapshot snapshot) {
  // What follows the same entry is the same.
  if (Has(snapshot.index) && TermOf(snapshot.index) == snapshot.term) {
    return Compact(snapshot.index, std::move(snapshot.state));
  }
  snapshot_ = std::move(snapshot);
  entries_.clear();
  votes_.clear();
}

void RaftLog::Compact(LogIndex index, std::string state) {
  CHECK(Has(index));
  Votes votes = snapshot_.votes;
  for (const auto& [at, written] : votes_) {
    if (at <= index) votes = written;
  }
  const Term term = TermOf(index);
  const auto dropped = static_cast<ptrdiff_t>(index.value - snapshot_.index.value);
  entries_.erase(entries_.begin(), entries_.begin() + dropped);
  votes_.erase(votes_.begin(), votes_.upper_bound(index));
  snapshot_ = {index, term, std::move(votes), std::move(state)};
}

}  // namespace mangrove
