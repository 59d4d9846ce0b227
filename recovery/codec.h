// Wire form of what nodes tell each other about who is there, and disk form of an anchor's log (recovery/messages.capnp).
// Made by codec.cc, with codec_log.cc for the log, codec_view.cc for views and codec_frame.cc for the frame: the only sources that know the library.
//
// Each Decode is total: any bytes give a value or InvalidArgument that says what is wrong. Each Encode CHECKs that its Decode
// takes what it has made: what a peer, or this anchor after a restart, would refuse is a bug here, to be found here. So it
// REQUIRES what messages.capnp says that a reader refuses not to be there.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "net/ids.h"
#include "recovery/messages.h"
#include "recovery/node_database.h"
#include "recovery/raft.h"
#include "recovery/raft_log.h"
#include "recovery/roster.h"

namespace mangrove {

// One transport message: at most kMaxMessageBytes (net/transport.h), which entries as RaftLog::From counts 8 KiB of them, a piece
// of a snapshot of 8 KiB with the most votes, the longest part of a view, and the largest batches all keep to.
std::string EncodeMessage(const RecoveryMessage& message);
absl::StatusOr<RecoveryMessage> DecodeMessage(std::span<const std::byte> bytes);

// At most RaftOptions().command_bytes. REQUIRES: NodeDatabase::Check does not call it InvalidArgument, and no node is named twice.
// What a command's kind does not name is not encoded, nor is the record's `last`.
std::string EncodeCommand(const DatabaseCommand& command);
absl::StatusOr<DatabaseCommand> DecodeCommand(std::string_view bytes);

// The state of a log's snapshot: up to 2.9 MB, of the most nodes with the longest names.
std::string EncodeDatabase(const NodeDatabase& database);
absl::StatusOr<NodeDatabase> DecodeDatabase(std::string_view bytes);

// What a node keeps of who belongs to the cluster. REQUIRES: `version` is that of the last change.
std::string EncodeRoster(const Roster& roster);
absl::StatusOr<Roster> DecodeRoster(std::string_view bytes);

// What an anchor keeps beside its log.
struct LogState {
  Term term;
  NodeId vote;  // In that term; 0: for nobody.
  Standing standing = Standing::kFull;
  friend bool operator==(const LogState&, const LogState&) = default;
};
std::string EncodeLogState(const LogState& state);
absl::StatusOr<LogState> DecodeLogState(std::string_view bytes);

// REQUIRES: it has a command only if it is one, and votes only if it sets them.
std::string EncodeEntry(const LogEntry& entry);
absl::StatusOr<LogEntry> DecodeEntry(std::string_view bytes);

std::string EncodeSnapshot(const LogSnapshot& snapshot);
absl::StatusOr<LogSnapshot> DecodeSnapshot(std::string_view bytes);

}  // namespace mangrove
