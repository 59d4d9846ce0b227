#include "recovery/codec_log.h"

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/check.h"
#include "recovery/codec.h"
#include "recovery/codec_frame.h"

namespace mangrove {
namespace {

namespace wire = recovery_wire;

constexpr auto kKinds = static_cast<unsigned>(RaftMessage::Kind::kTakeOver) + 1;
static_assert(static_cast<unsigned>(wire::Raft::Kind::TAKE_OVER) + 1 == kKinds);
static_assert(static_cast<unsigned>(wire::Raft::Kind::SNAPSHOT) == static_cast<unsigned>(RaftMessage::Kind::kSnapshot));
static_assert(static_cast<unsigned>(wire::Standing::MUST_LOSE_VOTE) == static_cast<unsigned>(Standing::kMustLoseVote));
static_assert(static_cast<unsigned>(wire::Standing::MAY_GAIN_VOTE) == static_cast<unsigned>(Standing::kMayGainVote));

// --- Encoding ---------------------------------------------------------------------------------------------------------

kj::ArrayPtr<const capnp::byte> DataOf(const std::string& bytes) {
  return kj::arrayPtr(reinterpret_cast<const capnp::byte*>(bytes.data()), bytes.size());
}

void Fill(capnp::List<wire::Vote>::Builder out, const Votes& votes) {
  unsigned i = 0;
  for (const auto& [node, count] : votes) {
    wire::Vote::Builder vote = out[i++];
    vote.setNode(node.value);
    vote.setVotes(count);
  }
}

void Fill(wire::Entry::Builder out, const LogEntry& entry) {
  CHECK(entry.kind == LogEntry::Kind::kCommand || entry.command.empty());
  CHECK(entry.kind == LogEntry::Kind::kVotes || entry.votes.empty());
  out.setTerm(entry.term.value);
  switch (entry.kind) {
    case LogEntry::Kind::kNothing: out.setNothing(); return;
    case LogEntry::Kind::kCommand: out.setCommand(DataOf(entry.command)); return;
    case LogEntry::Kind::kVotes: Fill(out.initVotes(SizeOf(entry.votes)), entry.votes); return;
  }
  CHECK(false);
}

void Fill(wire::LogState::Builder out, const LogState& state) {
  out.setTerm(state.term.value);
  out.setVote(state.vote.value);
  out.setStanding(static_cast<wire::Standing>(state.standing));
}

void Fill(wire::Snapshot::Builder out, const LogSnapshot& snapshot) {
  out.setIndex(snapshot.index.value);
  out.setTerm(snapshot.term.value);
  if (!snapshot.votes.empty()) Fill(out.initVotes(SizeOf(snapshot.votes)), snapshot.votes);
  if (!snapshot.state.empty()) out.setState(DataOf(snapshot.state));
}

// --- Decoding ---------------------------------------------------------------------------------------------------------

absl::Status Read(const char* what, capnp::List<wire::Vote>::Reader in, Votes& votes) {
  if (absl::Status s = CheckLength(what, in, Raft::kMaxMembers); !s.ok()) return s;
  NodeId before;
  for (const wire::Vote::Reader vote : in) {
    const NodeId node(vote.getNode());
    if (absl::Status s = CheckWhole(what, vote); !s.ok()) return s;
    if (absl::Status s = CheckFollows(what, before, node); !s.ok()) return s;
    if (absl::Status s = CheckVotes(node, vote.getVotes()); !s.ok()) return s;
    votes.emplace_hint(votes.end(), node, vote.getVotes());
    before = node;
  }
  return {};
}

absl::Status Read(const char* what, wire::Standing in, Standing& standing) {
  if (in > wire::Standing::MAY_GAIN_VOTE) return Bad(what, " has the unknown standing ", static_cast<unsigned>(in));
  standing = static_cast<Standing>(in);
  return {};
}

std::string StringOf(capnp::Data::Reader bytes) { return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()}; }

absl::Status Read(wire::Entry::Reader in, LogEntry& entry) {
  if (absl::Status s = CheckWhole("an entry", in); !s.ok()) return s;
  entry.term = Term(in.getTerm());
  switch (in.which()) {
    case wire::Entry::NOTHING: entry.kind = LogEntry::Kind::kNothing; return {};
    case wire::Entry::COMMAND:
      entry.kind = LogEntry::Kind::kCommand;
      entry.command = StringOf(in.getCommand());
      return {};
    case wire::Entry::VOTES:
      entry.kind = LogEntry::Kind::kVotes;
      return Read("an entry of votes", in.getVotes(), entry.votes);
  }
  return Bad("an entry is of the unknown kind ", static_cast<unsigned>(in.which()));
}

absl::Status Read(wire::LogState::Reader in, LogState& state) {
  if (absl::Status s = CheckWhole("it", in); !s.ok()) return s;
  state.term = Term(in.getTerm());
  state.vote = NodeId(in.getVote());
  return Read("it", in.getStanding(), state.standing);
}

absl::Status Read(wire::Snapshot::Reader in, LogSnapshot& snapshot) {
  if (absl::Status s = CheckWhole("it", in); !s.ok()) return s;
  snapshot.index = LogIndex(in.getIndex());
  snapshot.term = Term(in.getTerm());
  snapshot.state = StringOf(in.getState());
  return Read("its votes", in.getVotes(), snapshot.votes);
}

constexpr Form<wire::LogState, LogState> kLogState{"log state", Fill, Read};
constexpr Form<wire::Entry, LogEntry> kEntry{"entry", Fill, Read};
constexpr Form<wire::Snapshot, LogSnapshot> kSnapshot{"snapshot", Fill, Read};

}  // namespace

void FillRaft(wire::Raft::Builder out, const RaftMessage& m) {
  // All by name: with a field that is not known here this does not compile, where it would be lost on its way otherwise.
  const auto& [kind, term, index, index_term, commit, entries, votes, offset, bytes, is_last, pre_vote, hand_over, yes,
               sent_at, standing, mark] = m;
  out.setKind(static_cast<wire::Raft::Kind>(kind));
  out.setTerm(term.value);
  out.setIndex(index.value);
  out.setIndexTerm(index_term.value);
  out.setCommit(commit.value);
  if (!entries.empty()) {
    auto list = out.initEntries(SizeOf(entries));
    for (unsigned i = 0; i < entries.size(); ++i) Fill(list[i], entries[i]);
  }
  if (!votes.empty()) Fill(out.initVotes(SizeOf(votes)), votes);
  out.setOffset(offset);
  if (!bytes.empty()) out.setBytes(DataOf(bytes));
  out.setIsLast(is_last);
  out.setPreVote(pre_vote);
  out.setHandOver(hand_over);
  out.setYes(yes);
  out.setSentAtNs(sent_at);
  out.setStanding(static_cast<wire::Standing>(standing));
  out.setMark(mark);
}

absl::Status ReadRaft(wire::Raft::Reader in, RaftMessage& m) {
  if (absl::Status s = CheckWhole("Raft", in); !s.ok()) return s;
  const auto kind = static_cast<unsigned>(in.getKind());
  if (kind >= kKinds) return Bad("Raft is of the unknown kind ", kind);
  m.kind = static_cast<RaftMessage::Kind>(kind);
  m.term = Term(in.getTerm());
  m.index = LogIndex(in.getIndex());
  m.index_term = Term(in.getIndexTerm());
  m.commit = LogIndex(in.getCommit());
  for (const wire::Entry::Reader entry : in.getEntries()) {
    if (absl::Status s = Read(entry, m.entries.emplace_back()); !s.ok()) return s;
  }
  if (absl::Status s = Read("Raft's votes", in.getVotes(), m.votes); !s.ok()) return s;
  m.offset = in.getOffset();
  m.bytes = StringOf(in.getBytes());
  m.is_last = in.getIsLast();
  m.pre_vote = in.getPreVote();
  m.hand_over = in.getHandOver();
  m.yes = in.getYes();
  m.sent_at = in.getSentAtNs();
  m.mark = in.getMark();
  if (absl::Status s = CheckTime("Raft", m.sent_at); !s.ok()) return s;
  return Read("Raft", in.getStanding(), m.standing);
}

std::string EncodeLogState(const LogState& state) { return kLogState.Encode(state); }

absl::StatusOr<LogState> DecodeLogState(std::string_view bytes) { return kLogState.Decode(bytes); }

std::string EncodeEntry(const LogEntry& entry) { return kEntry.Encode(entry); }

absl::StatusOr<LogEntry> DecodeEntry(std::string_view bytes) { return kEntry.Decode(bytes); }

std::string EncodeSnapshot(const LogSnapshot& snapshot) { return kSnapshot.Encode(snapshot); }

absl::StatusOr<LogSnapshot> DecodeSnapshot(std::string_view bytes) { return kSnapshot.Decode(bytes); }

}  // namespace mangrove
