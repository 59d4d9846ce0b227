#include "engine/join/join_codec.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "engine/join/join.capnp.h"
#include "net/transport.h"
#include "recovery/codec_frame.h"

namespace mangrove {
namespace {

namespace wire = join_wire;

constexpr auto kMaxErrorCode = static_cast<uint16_t>(absl::StatusCode::kUnauthenticated);

// --- Encoding ---------------------------------------------------------------------------------------------------------

capnp::Text::Reader Text(const std::string& text) { return {text.c_str(), text.size()}; }

void Fill(wire::Request::Builder out, const NumberedRequest& numbered) {
  const auto& [name, address, votes, group] = numbered.request;
  out.setNumber(numbered.number);
  out.setName(Text(name));
  out.setAddress(Text(address));
  out.setVotes(votes);
  out.setGroup(group);
}

void Fill(wire::Member::Builder out, const JoinMember& member) {
  out.setNode(member.id.value);
  out.setName(Text(member.name));
  out.setAddress(Text(member.address));
  out.setVotes(member.votes);
}

void Fill(wire::Answer::Builder out, const std::vector<ClusterKey>& keys) {
  if (keys.empty()) return;
  auto list = out.initKeys(SizeOf(keys));
  for (unsigned i = 0; i < keys.size(); ++i) {
    list.set(i, kj::arrayPtr(reinterpret_cast<const capnp::byte*>(keys[i].data()), keys[i].size()));
  }
}

void Fill(wire::Answer::Builder out, const JoinAnswer& answer) {
  const auto& [node, keys, replicas, members, lease_ms, system_replicas] = answer;
  out.setNode(node.value);
  out.setReplicas(replicas);
  out.setLeaseMs(lease_ms);
  out.setSystemReplicas(system_replicas);
  Fill(out, keys);
  if (members.empty()) return;
  auto list = out.initMembers(SizeOf(members));
  for (unsigned i = 0; i < members.size(); ++i) Fill(list[i], members[i]);
}

void Fill(wire::Reply::Builder out, const NumberedReply& reply) {
  out.setNumber(reply.number);
  if (const auto* answer = std::get_if<JoinAnswer>(&reply.content)) return Fill(out.initAnswer(), *answer);
  const auto& status = std::get<absl::Status>(reply.content);
  auto error = out.initError();
  error.setCode(static_cast<uint16_t>(status.code()));
  error.setMessage(Text(std::string(status.message().substr(0, kMaxJoinErrorBytes))));
}

// --- Decoding ---------------------------------------------------------------------------------------------------------

std::string StringOf(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

absl::Status ReadName(capnp::Text::Reader in, std::string& name) {
  name = StringOf(in);
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  if (!name.empty() && name.size() <= kMaxJoinNameBytes && name.front() != '-' && name.front() != '.' &&
      std::all_of(name.begin(), name.end(), allowed)) {
    return {};
  }
  return Bad("the name of a node has ", name.size(), " bytes, expected 1 to ", kMaxJoinNameBytes,
             " letters, digits, '-', '_' and '.', not beginning with '-' or '.'");
}

absl::Status ReadAddress(capnp::Text::Reader in, std::string& address) {
  address = StringOf(in);
  const auto allowed = [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); };
  if (!address.empty() && address.size() <= kMaxJoinAddressBytes &&
      std::all_of(address.begin(), address.end(), allowed)) {
    return {};
  }
  return Bad("the address of a node has ", address.size(), " bytes, expected \"host:port\" of at most ",
             kMaxJoinAddressBytes, " visible characters");
}

absl::Status CheckNode(NodeId node) {
  if (node.value != 0 && node != kGuestNode) return {};
  return Bad("a node has the id ", node.value, ", which is no node's");
}

absl::Status Read(wire::Request::Reader in, NumberedRequest& numbered) {
  auto& [name, address, votes, group] = numbered.request;
  if (absl::Status s = CheckWhole("it", in); !s.ok()) return s;
  numbered.number = in.getNumber();
  if (absl::Status s = ReadName(in.getName(), name); !s.ok()) return s;
  if (absl::Status s = ReadAddress(in.getAddress(), address); !s.ok()) return s;
  votes = in.getVotes();
  group = in.getGroup();
  return votes <= kMaxJoinVotes ? absl::OkStatus() : Bad("it asks for ", votes, " votes, more than ", kMaxJoinVotes);
}

absl::Status Read(wire::Member::Reader in, JoinMember& member) {
  if (absl::Status s = CheckWhole("a member", in); !s.ok()) return s;
  member.id = NodeId(in.getNode());
  member.votes = in.getVotes();
  if (absl::Status s = CheckNode(member.id); !s.ok()) return s;
  if (absl::Status s = ReadName(in.getName(), member.name); !s.ok()) return s;
  if (absl::Status s = ReadAddress(in.getAddress(), member.address); !s.ok()) return s;
  return CheckVotes(member.id, member.votes);
}

absl::Status ReadKeys(capnp::List<capnp::Data>::Reader in, std::vector<ClusterKey>& keys) {
  if (in.size() == 0) return Bad("it has no key");
  if (absl::Status s = CheckLength("its list of keys", in, kMaxJoinKeys); !s.ok()) return s;
  for (const capnp::Data::Reader bytes : in) {
    if (bytes.size() != kClusterKeyBytes) {
      return Bad("a key has ", bytes.size(), " bytes, expected ", kClusterKeyBytes);
    }
    const auto* start = reinterpret_cast<const std::byte*>(bytes.begin());
    std::copy_n(start, kClusterKeyBytes, keys.emplace_back().begin());
  }
  return {};
}

absl::Status ReadMembers(capnp::List<wire::Member>::Reader in, std::vector<JoinMember>& members) {
  if (absl::Status s = CheckLength("its list of members", in, kMaxJoinMembers); !s.ok()) return s;
  NodeId before;
  for (const wire::Member::Reader member : in) {
    if (absl::Status s = Read(member, members.emplace_back()); !s.ok()) return s;
    if (absl::Status s = CheckFollows("its list of members", before, members.back().id); !s.ok()) return s;
    before = members.back().id;
  }
  return {};
}

absl::Status Read(wire::Answer::Reader in, JoinAnswer& answer) {
  if (absl::Status s = CheckWhole("an answer", in); !s.ok()) return s;
  answer.node = NodeId(in.getNode());
  answer.replicas = in.getReplicas();
  answer.lease_ms = in.getLeaseMs();
  answer.system_replicas = in.getSystemReplicas();
  if (absl::Status s = CheckNode(answer.node); !s.ok()) return s;
  if (answer.replicas == 0) return Bad("an answer has 0 replicas, expected at least 1");
  if (answer.system_replicas > UINT8_MAX) return Bad("an answer has ", answer.system_replicas, " system replicas");
  if (absl::Status s = ReadKeys(in.getKeys(), answer.keys); !s.ok()) return s;
  if (absl::Status s = ReadMembers(in.getMembers(), answer.members); !s.ok()) return s;
  const bool has_own = std::any_of(answer.members.begin(), answer.members.end(),
                                   [&](const JoinMember& member) { return member.id == answer.node; });
  if (!has_own) return Bad("its members are without ", ToString(answer.node), ", which it makes of the guest");
  return {};
}

absl::Status Read(wire::Reply::Reader in, NumberedReply& reply) {
  if (absl::Status s = CheckWhole("it", in); !s.ok()) return s;
  reply.number = in.getNumber();
  switch (in.which()) {
    case wire::Reply::ERROR: {
      const auto error = in.getError();
      const capnp::Text::Reader text = error.getMessage();
      if (error.getCode() == 0 || error.getCode() > kMaxErrorCode) return Bad("it has the error ", error.getCode());
      if (text.size() > kMaxJoinErrorBytes) return Bad("its error has ", text.size(), " bytes");
      reply.content = absl::Status(static_cast<absl::StatusCode>(error.getCode()), StringOf(text));
      return {};
    }
    case wire::Reply::ANSWER: return Read(in.getAnswer(), reply.content.emplace<JoinAnswer>());
  }
  return Bad("it is of the unknown kind ", static_cast<unsigned>(in.which()));
}

// --- Both ways --------------------------------------------------------------------------------------------------------

template <typename Wire, typename Value>
absl::StatusOr<Value> Decode(const char* what, std::string_view bytes) {
  Value value;
  absl::Status status = Unframe(what, bytes, kMaxMessageBytes,
                                [&](capnp::MessageReader& message) { return Read(message.getRoot<Wire>(), value); });
  if (!status.ok()) return status;
  return value;
}

// A pair: nobody is sent what it would refuse.
template <typename Wire, typename Value>
absl::StatusOr<std::string> Encode(const char* what, const Value& value) {
  std::string bytes = Frame([&](capnp::MessageBuilder& message) { Fill(message.initRoot<Wire>(), value); });
  if (absl::Status status = Decode<Wire, Value>(what, bytes).status(); !status.ok()) return status;
  return bytes;
}

std::string_view ViewOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

absl::StatusOr<std::string> EncodeJoinRequest(const NumberedRequest& request) {
  return Encode<wire::Request>("join request", request);
}
absl::StatusOr<NumberedRequest> DecodeJoinRequest(std::span<const std::byte> bytes) {
  return Decode<wire::Request, NumberedRequest>("join request", ViewOf(bytes));
}
absl::StatusOr<std::string> EncodeJoinReply(const NumberedReply& reply) {
  return Encode<wire::Reply>("join reply", reply);
}
absl::StatusOr<NumberedReply> DecodeJoinReply(std::span<const std::byte> bytes) {
  return Decode<wire::Reply, NumberedReply>("join reply", ViewOf(bytes));
}

}  // namespace mangrove
