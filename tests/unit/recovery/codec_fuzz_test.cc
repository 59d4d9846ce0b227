// A fuzz smoke: whatever becomes of an encoding, it is refused, or it is a value that can be encoded.

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "recovery/codec.h"
#include "tests/unit/recovery/codec_expect.h"

namespace mangrove {
namespace {

struct Sample {
  std::string bytes;
  bool (*is_taken)(std::string_view);  // Fails the test where it is, and is not the same when it is encoded again.
};

template <typename Value>
using Decoder = absl::StatusOr<Value> (*)(std::string_view);

template <typename Value, Decoder<Value> decode, std::string (*encode)(const Value&)>
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

std::vector<Sample> Samples() {
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
  const NodeDatabase database(
      {{NodeId(3), {"name", "host:1", 1, Incarnation(9), Epoch(1)}},
       {NodeId(4), {"other", "", 0, {}, {}}},
       {NodeId(5), {"third", "", 0, Incarnation(8), Epoch(2)}}},
      {Epoch(2), {{NodeId(3), Incarnation(9)}}, NodeId(3), {{NodeId(3), kBlankDisk}, {NodeId(5), Epoch(2)}}});
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
      Greeting{true, true}};
  std::vector<Sample> samples;
  for (const RecoveryMessage& message : messages) {
    samples.push_back({EncodeMessage(message), IsTaken<RecoveryMessage, DecodeText, EncodeMessage>});
  }
  for (const DatabaseCommand& command : {set, change}) {
    samples.push_back({EncodeCommand(command), IsTaken<DatabaseCommand, DecodeCommand, EncodeCommand>});
  }
  for (const LogEntry& e : {entry, votes_entry}) {
    samples.push_back({EncodeEntry(e), IsTaken<LogEntry, DecodeEntry, EncodeEntry>});
  }
  samples.push_back({EncodeDatabase(database), IsTaken<NodeDatabase, DecodeDatabase, EncodeDatabase>});
  samples.push_back({EncodeSnapshot(log_snapshot), IsTaken<LogSnapshot, DecodeSnapshot, EncodeSnapshot>});
  samples.push_back({EncodeLogState({Term(1), NodeId(2), Standing::kMayGainVote}),
                     IsTaken<LogState, DecodeLogState, EncodeLogState>});
  return samples;
}

class Mutator {
 public:
  explicit Mutator(std::vector<Sample> samples) : samples_(std::move(samples)) {}

  const Sample& Any() { return samples_[Below(samples_.size())]; }

  std::string Mutate(std::string bytes) {
    switch (Below(4)) {
      case 0:
      case 1:
        for (size_t flips = 1 + Below(3); flips > 0; --flips) {
          bytes[Below(bytes.size())] ^= static_cast<char>(1u << Below(8));
        }
        return bytes;
      case 2: bytes.resize(Cut(bytes)); break;
      default: {
        const std::string& other = Any().bytes;
        bytes = bytes.substr(0, Cut(bytes)) + other.substr(Cut(other));
      }
    }
    // Most would be refused for their length alone.
    if (bytes.size() >= 8 && Below(4) > 0) {
      const auto words = static_cast<uint32_t>(bytes.size() / 8 - 1);
      std::memcpy(bytes.data() + 4, &words, sizeof(words));
    }
    return bytes;
  }

 private:
  size_t Below(size_t limit) { return random_() % limit; }
  size_t Cut(const std::string& bytes) {
    const size_t place = Below(bytes.size() + 1);
    return Below(4) > 0 ? place / 8 * 8 : place;
  }

  std::mt19937_64 random_{20240517};
  const std::vector<Sample> samples_;
};

TEST(RecoveryCodecFuzz, AMutatedEncodingIsRefusedOrCanBeEncodedAgain) {
  Mutator mutator(Samples());
  int taken = 0;
  for (int i = 0; i < 100'000 && !::testing::Test::HasFailure(); ++i) {
    const Sample& sample = mutator.Any();
    taken += sample.is_taken(mutator.Mutate(sample.bytes)) ? 1 : 0;
  }
  // Neither way is rare.
  EXPECT_GT(taken, 10'000);
  EXPECT_LT(taken, 90'000);
}

}  // namespace
}  // namespace mangrove
