#include "recovery/anchor_records.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "net/check.h"
#include "recovery/codec.h"

namespace mangrove {
namespace {

constexpr char kStateKey[] = "anchor/state";
constexpr char kSnapshotKey[] = "anchor/snapshot";
constexpr char kEntryPrefix[] = "anchor/entry/";

std::string EntryKey(LogIndex index) { return absl::StrFormat("%s%020d", kEntryPrefix, index.value); }

absl::Status Damaged(const std::string& key, const std::string& why) {
  return absl::DataLossError(absl::StrCat("the anchors' log on this disk is damaged: ", key, ": ", why));
}

}  // namespace

absl::StatusOr<std::optional<RaftDurable>> AnchorRecords::Load(
    const std::vector<std::pair<std::string, std::string>>& records) {
  if (records.empty()) return std::optional<RaftDurable>();
  RaftDurable durable;
  bool has_state = false;
  bool has_snapshot = false;
  for (const auto& [key, value] : records) {  // The snapshot comes behind the entries, in the order of the keys.
    if (key == kStateKey) {
      const absl::StatusOr<LogState> state = DecodeLogState(value);
      if (!state.ok()) return Damaged(key, std::string(state.status().message()));
      durable.term = state->term;
      durable.vote = state->vote;
      durable.standing = state->standing;
      has_state = true;
    } else if (key == kSnapshotKey) {
      absl::StatusOr<LogSnapshot> snapshot = DecodeSnapshot(value);
      if (!snapshot.ok()) return Damaged(key, std::string(snapshot.status().message()));
      durable.snapshot = *std::move(snapshot);
      has_snapshot = true;
    } else if (absl::StartsWith(key, kEntryPrefix)) {
      absl::StatusOr<LogEntry> entry = DecodeEntry(value);
      if (!entry.ok()) return Damaged(key, std::string(entry.status().message()));
      durable.entries.push_back(*std::move(entry));
    } else {
      return Damaged(key, "what this version does not know");
    }
  }
  if (!has_state || !has_snapshot) return Damaged(has_state ? kSnapshotKey : kStateKey, "it is missing");
  if (durable.snapshot.term > durable.term) {
    return Damaged(kSnapshotKey, absl::StrCat("it is of term ", durable.snapshot.term.value));
  }
  first_ = LogIndex(durable.snapshot.index.value + 1);
  last_ = LogIndex(durable.snapshot.index.value + durable.entries.size());
  Term before = durable.snapshot.term;
  LogIndex index = first_;
  for (const auto& [key, value] : records) {
    if (!absl::StartsWith(key, kEntryPrefix)) continue;
    if (key != EntryKey(index)) return Damaged(EntryKey(index), absl::StrCat("it is missing; there is ", key));
    const Term term = durable.entries[index.value - first_.value].term;
    if (term < before || term > durable.term) return Damaged(key, absl::StrCat("it is of term ", term.value));
    before = term;
    ++index.value;
  }
  return std::optional(std::move(durable));
}

std::vector<AnchorRecords::Record> AnchorRecords::Begin(const RaftDurable& durable) {
  CHECK(durable.entries.empty());
  first_ = LogIndex(durable.snapshot.index.value + 1);
  last_ = durable.snapshot.index;
  return {{kStateKey, EncodeLogState({durable.term, durable.vote, durable.standing})},
          {kSnapshotKey, EncodeSnapshot(durable.snapshot)}};
}

std::vector<AnchorRecords::Record> AnchorRecords::Write(const RaftOutput& output) {
  CHECK(output.writes);
  std::vector<Record> records;
  const auto erase = [&](LogIndex from, LogIndex end) {
    for (; from < end; ++from.value) records.push_back({EntryKey(from), std::nullopt});
  };
  records.push_back({kStateKey, EncodeLogState({output.term, output.vote, output.standing})});
  if (output.snapshot) {
    records.push_back({kSnapshotKey, EncodeSnapshot(*output.snapshot)});
    const LogIndex behind(output.snapshot->index.value + 1);
    const LogIndex end(last_.value + 1);
    erase(first_, output.drops_log ? end : std::min(behind, end));
    first_ = behind;
    last_ = output.drops_log ? output.snapshot->index : std::max(last_, output.snapshot->index);
  }
  if (output.entries_at.value == 0) return records;
  CHECK(output.entries_at >= first_ && output.entries_at.value <= last_.value + 1);
  LogIndex at = output.entries_at;
  for (const LogEntry& entry : output.entries) {
    records.push_back({EntryKey(at), EncodeEntry(entry)});
    ++at.value;
  }
  erase(at, LogIndex(last_.value + 1));
  last_ = LogIndex(at.value - 1);
  return records;
}

}  // namespace mangrove
