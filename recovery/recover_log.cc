#include "recovery/recover_log.h"

#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "recovery/anchor.h"
#include "recovery/codec.h"
#include "recovery/raft.h"

namespace mangrove {
namespace {

absl::Status CheckIsLost(NodeId self, const Votes& votes) {
  uint64_t all = 0;
  for (const auto& [node, count] : votes) all += count;
  const auto own = votes.find(self);
  const uint64_t has = own == votes.end() ? 0 : own->second;
  if (2 * has <= all) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(ToString(self), " has ", has, " of the anchors' ", all,
                                                    " votes, which are most of them: nothing is lost; just start it"));
}

absl::Status CheckHasNotLeft(NodeId self, const NodeDatabase& database) {
  const View& view = database.view();
  const NodeRecord* const record = database.Find(self);
  const bool is_drained = view.draining.contains(self) && !view.disks.contains(self) && !view.next_disks.contains(self);
  if (!view.lost.contains(self) && !is_drained && (record == nullptr || !record->is_removed)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the log says that ", ToString(self), " has left the cluster for good; expected an anchor's that has not"));
}

// Applies the entries to what the snapshot has.
absl::StatusOr<NodeDatabase> DatabaseOf(const RaftDurable& durable, size_t& passed_over) {
  if (absl::Status status = Anchor::Check(durable); !status.ok()) return status;
  NodeDatabase database;
  if (!durable.snapshot.state.empty()) {
    absl::StatusOr<NodeDatabase> decoded = DecodeDatabase(durable.snapshot.state);
    if (!decoded.ok()) return decoded.status();
    database = *std::move(decoded);
  }
  for (const LogEntry& entry : durable.entries) {
    if (entry.kind != LogEntry::Kind::kCommand) continue;
    const absl::StatusOr<DatabaseCommand> command = DecodeCommand(entry.command);
    if (!command.ok()) return command.status();
    if (!database.Apply(*command).ok()) ++passed_over;
  }
  return database;
}

// As the new log has it: nobody else is an anchor.
NodeDatabase Begun(NodeId self, const NodeDatabase& database, Epoch epoch) {
  std::map<NodeId, NodeRecord> nodes = database.nodes();
  uint64_t changed = database.roster_version() + kRecoveryEpochs;
  for (auto& [node, record] : nodes) {
    record.votes = node == self ? 1 : 0;
    record.changed = ++changed;
  }
  View view = database.view();
  view.epoch = epoch;
  return NodeDatabase(std::move(nodes), std::move(view));
}

}  // namespace

std::string RecoveredLog::Position() const { return absl::StrCat(term.value, ".", last.value); }

absl::StatusOr<RecoveredLog> RecoverLog(NodeId self, const std::vector<std::pair<std::string, std::string>>& records) {
  AnchorRecords old;
  absl::StatusOr<std::optional<RaftDurable>> loaded = old.Load(records);
  if (!loaded.ok()) return loaded.status();
  if (!*loaded) return absl::NotFoundError("there is no anchors' log on this disk; expected the disk of an anchor");
  const RaftDurable& durable = **loaded;
  RecoveredLog recovered;
  absl::StatusOr<NodeDatabase> database = DatabaseOf(durable, recovered.passed_over);
  if (!database.ok()) return database.status();
  const RaftLog log(durable.snapshot, durable.entries);
  if (database->view().epoch.value == 0) {
    return absl::NotFoundError(absl::StrCat("the anchors' log on this disk has ", durable.entries.size(),
                                            " entries and no view: nothing can be made of it; expected the disk of an "
                                            "anchor that has worked"));
  }
  if (absl::Status status = CheckIsLost(self, log.votes()); !status.ok()) return status;
  if (absl::Status status = CheckHasNotLeft(self, *database); !status.ok()) return status;
  recovered.votes = log.votes();
  recovered.term = log.last_term();
  recovered.last = log.last();
  recovered.entries = durable.entries.size();
  recovered.new_term = Term(durable.term.value + kRecoveryStep);
  recovered.new_last = LogIndex(log.last().value + kRecoveryStep);
  recovered.new_epoch = Epoch(database->view().epoch.value + kRecoveryEpochs);
  if (recovered.new_epoch > kMostRecoveredEpoch) {
    return absl::OutOfRangeError(absl::StrCat("the view's epoch is ", database->view().epoch.value,
                                              "; expected at most ", kMostRecoveredEpoch.value - kRecoveryEpochs));
  }
  RaftDurable begun;
  begun.term = recovered.new_term;
  begun.snapshot = {.index = recovered.new_last,
                    .term = recovered.new_term,
                    .votes = {{self, 1}},
                    .state = EncodeDatabase(Begun(self, *database, recovered.new_epoch))};
  recovered.database = *std::move(database);
  recovered.records = AnchorRecords().Begin(begun);
  std::map<std::string, std::optional<std::string>> batch;
  for (const auto& [key, value] : records) batch[key] = std::nullopt;
  for (AnchorRecords::Record& record : recovered.records) batch[record.key] = std::move(record.value);
  recovered.records.clear();
  for (auto& [key, value] : batch) recovered.records.push_back({key, std::move(value)});
  return recovered;
}

}  // namespace mangrove
