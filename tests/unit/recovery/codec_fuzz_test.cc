// A fuzz smoke: whatever becomes of an encoding, it is refused, or it is a value that can be encoded.
// Covers: C13

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "recovery/anchor.h"
#include "recovery/anchor_records.h"
#include "recovery/codec.h"
#include "tests/fuzz.h"
#include "tests/unit/recovery/codec_expect.h"

namespace mangrove {
namespace {

template <typename Value>
using DecodeOf = absl::StatusOr<Value> (*)(std::string_view);

template <typename Value, DecodeOf<Value> decode, std::string (*encode)(const Value&)>
bool IsTaken(std::string_view bytes) {
  const absl::StatusOr<Value> decoded = decode(bytes);
  if (!decoded.ok()) {
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
    return false;
  }
  const absl::StatusOr<Value> again = decode(encode(*decoded));
  EXPECT_TRUE(again.ok() && *again == *decoded);
  return true;
}

// Most would be refused for their length alone.
void RepairFrame(std::string& bytes) {
  bytes.resize(bytes.size() / 8 * 8);
  if (bytes.size() < 16) return;
  const uint32_t table[2] = {0, static_cast<uint32_t>(bytes.size() / 8 - 1)};
  std::memcpy(bytes.data(), table, sizeof(table));
}

template <typename Value, DecodeOf<Value> decode, std::string (*encode)(const Value&)>
fuzz::Decoder DecoderOf(const char* name, const std::vector<Value>& values, int mutations = 20'000) {
  fuzz::Decoder decoder{.name = name,
                        .corpus = {},
                        .take = IsTaken<Value, decode, encode>,
                        .repair = RepairFrame,
                        .mutations = mutations};
  for (const Value& value : values) decoder.corpus.push_back(encode(value));
  return decoder;
}

NodeDatabase SomeDatabase() {
  return NodeDatabase({{NodeId(3), {"name", "host:1", 1, Incarnation(9), Epoch(1), false, {5, 6}, 7}},
                       {NodeId(4), {"other", "", 0, {}, {}, false, {}, 8}},
                       {NodeId(5), {"third", "", 0, Incarnation(8), Epoch(2), true, {}, 9}}},
                      {Epoch(2), {{NodeId(3), Incarnation(9)}}, NodeId(3), {{NodeId(3), kBlankDisk}}});
}

std::vector<fuzz::Decoder> Decoders() {
  const Votes votes = {{NodeId(3), 1}, {NodeId(4), 100}, {NodeId(70), 0}};
  const LogEntry entry{Term(5), LogEntry::Kind::kCommand, "a command"};
  const LogEntry votes_entry{Term(6), LogEntry::Kind::kVotes, {}, votes};
  RaftMessage append;
  append.term = Term(7);
  append.index = LogIndex(8);
  append.entries = {{Term(5)}, entry, votes_entry};
  RaftMessage snapshot = append;
  snapshot.kind = RaftMessage::Kind::kSnapshot;
  snapshot.entries = {};
  snapshot.votes = votes;
  snapshot.bytes = "a piece";
  DatabaseCommand set;
  set.node = NodeId(3);
  set.record = {"name", "host:1", 1, {}};
  DatabaseCommand change;
  change.kind = DatabaseCommand::Kind::kChangeView;
  change.view = {Epoch(4), {{NodeId(3), Incarnation(1)}}, {NodeId(4)}, {NodeId(3)}, {NodeId(5)}};
  const NodeDatabase database = SomeDatabase();
  const LogSnapshot log_snapshot{LogIndex(3), Term(2), votes, EncodeDatabase(database)};

  const std::vector<RecoveryMessage> messages = {
      append,
      snapshot,
      Pulse{1, Epoch(2), {NodeId(3), NodeId(4)}, false, true},
      PulseAnswer{1, Epoch(2), NodeId(3), true},
      ViewPart{Epoch(3), 0, true, {{NodeId(3), Incarnation(1), Epoch(2)}, {NodeId(5), {}, Epoch(3)}}, NodeId(3)},
      ViewChange{Epoch(4), {{NodeId(3), Incarnation(1)}}, {NodeId(4), NodeId(5)}, {NodeId(3)}, {NodeId(6)}},
      PulseBatch{{{{NodeId(3), Incarnation(1)}, {1, Epoch(2), {NodeId(5)}}},
                  {{NodeId(4), Incarnation(2)}, {3, Epoch(4), {}}}}},
      AnswerBatch{
          Epoch(1), NodeId(2), {{{NodeId(3), Incarnation(1)}, 4, true}, {{NodeId(5), Incarnation(6)}, 7, false}}},
      NodeRequest{NodeRequest::Kind::kDrain, NodeId(3)},
      NodeRequest{NodeRequest::Kind::kAdd, NodeId(), {"name", "host:1", 1, {}, {}, false, {2, 3}}, 4},
      PartSince(database.nodes(), 0),
      Greeting{true, true}};
  Roster roster{.version = database.roster_version(), .nodes = database.nodes()};
  for (auto& [node, record] : roster.nodes) record.last = Incarnation();
  return {DecoderOf<RecoveryMessage, DecodeText, EncodeMessage>("message", messages, 80'000),
          DecoderOf<DatabaseCommand, DecodeCommand, EncodeCommand>("command", {set, change}),
          DecoderOf<LogEntry, DecodeEntry, EncodeEntry>("entry", {entry, votes_entry}),
          DecoderOf<NodeDatabase, DecodeDatabase, EncodeDatabase>("database", {database}),
          DecoderOf<Roster, DecodeRoster, EncodeRoster>("roster", {roster}),
          DecoderOf<LogSnapshot, DecodeSnapshot, EncodeSnapshot>("snapshot", {log_snapshot}),
          DecoderOf<LogState, DecodeLogState, EncodeLogState>("log state",
                                                              {{Term(1), NodeId(2), Standing::kMayGainVote}}, 5'000)};
}

TEST(RecoveryCodecFuzz, AMutatedEncodingIsRefusedOrCanBeEncodedAgain) { fuzz::RunAll(Decoders()); }

// It would end the node that writes it again.
TEST(RecoveryCodecFuzz, ADatabaseWithAViewIsNoRoster) {
  const auto roster = DecodeRoster(EncodeDatabase(SomeDatabase()));
  EXPECT_EQ(roster.status(), absl::InvalidArgumentError("bad roster: it has view 2, and a roster has none"));
}

// --- Records ----------------------------------------------------------------------------------------------------------

using Records = std::vector<std::pair<std::string, std::string>>;

// As one input: each key and value with a length of one byte in front.
std::string Joined(const Records& records) {
  std::string joined;
  for (const auto& [key, value] : records) {
    for (const std::string& part : {key, value}) {
      joined += static_cast<char>(part.size());
      joined += part;
    }
  }
  return joined;
}

Records Split(std::string_view joined) {
  const auto take = [&joined] {
    const size_t size = joined.empty() ? 0 : std::min<size_t>(static_cast<unsigned char>(joined[0]), joined.size() - 1);
    std::string part(joined.substr(joined.empty() ? 0 : 1, size));
    joined.remove_prefix(joined.empty() ? 0 : size + 1);
    return part;
  };
  Records records;
  while (!joined.empty()) {
    std::string key = take();
    records.emplace_back(std::move(key), take());
  }
  return records;
}

bool IsALog(std::string_view input) {
  AnchorRecords records;
  const auto durable = records.Load(Split(input));
  if (!durable.ok()) {
    EXPECT_EQ(durable.status().code(), absl::StatusCode::kDataLoss);
    return false;
  }
  if (!durable->has_value()) return true;
  // What the anchor asks before it goes on from there.
  if (const absl::Status status = Anchor::Check(**durable); !status.ok()) return false;
  const RaftDurable& log = **durable;
  Records again = {{"anchor/snapshot", EncodeSnapshot(log.snapshot)},
                   {"anchor/state", EncodeLogState({log.term, log.vote, log.standing})}};
  for (size_t i = 0; i < log.entries.size(); ++i) {
    again.emplace_back(absl::StrFormat("anchor/entry/%020d", log.snapshot.index.value + 1 + i),
                       EncodeEntry(log.entries[i]));
  }
  std::sort(again.begin(), again.end());
  EXPECT_TRUE(AnchorRecords().Load(again).ok());
  return true;
}

TEST(RecoveryCodecFuzz, AnAnchorsRecordsAreRefusedOrAreALog) {
  const LogEntry entry{Term(2), LogEntry::Kind::kNothing, {}};
  const Records records = {
      {"anchor/entry/00000000000000000004", EncodeEntry(entry)},
      {"anchor/entry/00000000000000000005", EncodeEntry(entry)},
      {"anchor/snapshot", EncodeSnapshot({LogIndex(3), Term(2), {{NodeId(3), 1}}, EncodeDatabase(NodeDatabase())})},
      {"anchor/state", EncodeLogState({Term(2), NodeId(3), Standing::kFull})}};
  fuzz::Run({.name = "log", .corpus = {Joined(records)}, .take = IsALog, .mutations = 50'000});
}

}  // namespace
}  // namespace mangrove
