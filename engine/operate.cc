// What an operator has the cluster do: requests to whoever leads the anchors, again and again until the view, or the roster, says
// that it is so.

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/local_operations.h"
#include "engine/node_config.h"
#include "net/runtime/task.h"

namespace mangrove {
namespace {

constexpr DurationNs kAdmission = 15 * kSecond;
constexpr int64_t kMostSeconds = int64_t{1} << 32;

constexpr char kToken[] = "token";
constexpr char kFilesystem[] = "fs ";
constexpr char kGiveUpLog[] = "give up log";
// Not "give up": at that an earlier daemon does it at once, where this one says first what would be lost.
constexpr char kGiveUpNode[] = "give up node";
constexpr char kListTokens[] = "list";
constexpr char kWithdraw[] = "withdraw ";
constexpr char kSetRegion[] = "set region";

using Kind = NodeRequest::Kind;

absl::StatusOr<Kind> KindOf(const std::string& what) {
  if (what == "drain") return Kind::kDrain;
  if (what == "undrain") return Kind::kUndrain;
  if (what == kGiveUpNode) return Kind::kGiveUp;
  if (what == "set") return Kind::kSet;
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", what, "\" cannot be done: expected drain, undrain, give up node, set, token, give up log or set region"));
}

}  // namespace

bool NodeOperations::IsOperation(const std::string& what) {
  return what == kToken || what == kGiveUpLog || what == kSetRegion || absl::StartsWith(what, kFilesystem) ||
         KindOf(what).ok();
}

absl::StatusOr<NodeId> LocalOperations::NodeOf(const std::string& name) const {
  const Roster& roster = membership_->roster();
  if (const NodeId node = roster.FindName(name); node.value != 0) return node;
  std::vector<std::string> names;
  for (const auto& [node, record] : roster.nodes) {
    if (!record.is_removed) names.push_back(record.name);
  }
  return absl::NotFoundError(
      absl::StrCat("no node of the cluster is called \"", name, "\"; there are ", absl::StrJoin(names, ", ")));
}

bool LocalOperations::IsDone(const NodeRequest& request) const {
  const View& view = membership_->member().view();
  const Roster& roster = membership_->roster();
  const bool is_gone = roster.Find(request.node) == nullptr;
  switch (request.kind) {
    case Kind::kDrain: return is_gone || view.draining.contains(request.node);
    case Kind::kUndrain: return !is_gone && !view.draining.contains(request.node);
    case Kind::kGiveUp: return is_gone || view.lost.contains(request.node);
    case Kind::kAdd: {
      const NodeRecord* const record = roster.Find(roster.FindName(request.record.name));
      return record != nullptr && record->changed != 0 && record->address == request.record.address;
    }
    case Kind::kSet: {
      const NodeRecord* const record = roster.Find(request.node);
      return record != nullptr && record->address == request.record.address && record->votes == request.record.votes;
    }
  }
  return false;
}

// What the anchors would not take up, with the reason.
absl::Status LocalOperations::CheckRequest(const NodeRequest& request, const std::string& name) const {
  const View& view = membership_->member().view();
  if (request.kind == Kind::kAdd || request.kind == Kind::kSet) {
    if (absl::Status status = CheckRecord(request); !status.ok()) return status;
  }
  const auto stays_anchor = [&](NodeId node) {
    return node != request.node && !view.draining.contains(node) && !view.lost.contains(node);
  };
  const std::set<NodeId> anchors = membership_->roster().anchors();
  const bool is_vote_less = request.kind == Kind::kSet && request.record.votes == 0 && anchors.contains(request.node);
  const bool ends = request.kind == Kind::kDrain || request.kind == Kind::kGiveUp || is_vote_less;
  if (ends && std::none_of(anchors.begin(), anchors.end(), stays_anchor)) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " is the last anchor, and cannot ", is_vote_less ? "lose its votes" : "leave the cluster"));
  }
  const NodeRecord* const known = membership_->roster().Find(request.node);
  if (request.kind == Kind::kSet && known == nullptr) {
    return absl::NotFoundError(absl::StrCat(name, " was taken out of the cluster meanwhile"));
  }
  if (request.kind == Kind::kSet && known->changed != request.record.changed) {
    return absl::AbortedError(absl::StrCat("somebody else has changed ", name, " meanwhile; look at it and try again"));
  }
  if (request.kind == Kind::kGiveUp && view.members.contains(request.node)) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " is here, and not lost; `mangrove node drain ", name, "` takes it out in order"));
  }
  const auto answers = [&](const PeerStatus& peer) { return peer.connected && peer.instance.node == request.node; };
  const std::vector<PeerStatus> peers = transport_->Peers();
  if (request.kind == Kind::kGiveUp && std::any_of(peers.begin(), peers.end(), answers)) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " answers this node, and is not lost: let it come back, or stop its daemon first"));
  }
  if (request.kind == Kind::kDrain && view.lost.contains(request.node)) {
    return absl::FailedPreconditionError(absl::StrCat(name, " was given up already"));
  }
  return absl::OkStatus();
}

// Names and addresses are of one node each.
absl::Status LocalOperations::CheckRecord(const NodeRequest& request) const {
  const NodeRecord& wanted = request.record;
  if (absl::Status status = CheckNodeRecord(wanted.name, wanted.address, wanted.votes); !status.ok()) return status;
  for (const auto& [node, record] : membership_->roster().nodes) {
    if (record.is_removed || node == request.node) continue;
    if (record.name == wanted.name) {
      return absl::AlreadyExistsError(
          absl::StrCat("there is a node called ", wanted.name, " already, at ", record.address));
    }
    if (record.address == wanted.address) {
      return absl::AlreadyExistsError(absl::StrCat(record.name, " is at ", wanted.address, " already"));
    }
  }
  return absl::OkStatus();
}

// What was said to an anchor may be in its log: then it is done when enough of them answer.
absl::Status LocalOperations::NotTakenUp(const NodeRequest& request, const std::string& name) {
  std::string how;
  switch (request.kind) {
    case Kind::kDrain: how = absl::StrCat("as draining, and `mangrove node undrain ", name, "` calls it off"); break;
    case Kind::kUndrain: how = "as not draining any more"; break;
    case Kind::kGiveUp: how = "as lost, or not at all, and that cannot be called off"; break;
    case Kind::kAdd: how = absl::StrCat("as joining, and `mangrove node give-up ", name, "` takes it off"); break;
    case Kind::kSet: how = "with its new votes and address"; break;
  }
  return absl::UnavailableError(absl::StrCat(
      "the anchors have not taken it up yet: too few of them answer, or without this one none would have a vote that "
      "counts; `mangrove status` says which are here. It is not asked for any more, but may still be done, when they "
      "answer: then `mangrove node list` shows ",
      name, " ", how));
}

Task<absl::Status> LocalOperations::Ask(NodeRequest request, std::string name, TimeNs deadline) {
  while (!IsDone(request)) {
    if (absl::Status status = CheckRequest(request, name); !status.ok()) co_return status;
    if (clock_->Now() + kAskAgain >= deadline) co_return NotTakenUp(request, name);
    membership_->Request(request);
    co_await SleepUntil(clock_, clock_->Now() + kAskAgain);
  }
  co_return absl::OkStatus();
}

// `argument`: {"node": its name, "votes": a number, "address": a text}, the last two as they are where they are not given.
absl::StatusOr<NodeRequest> LocalOperations::SetRequest(const std::string& argument) const {
  const nlohmann::json wanted = nlohmann::json::parse(argument, nullptr, /*allow_exceptions=*/false);
  const auto is_text = [&](const char* key) { return wanted.contains(key) && wanted[key].is_string(); };
  if (!wanted.is_object() || !is_text("node")) {
    return absl::InvalidArgumentError("set takes an object with node, votes and address");
  }
  const absl::StatusOr<NodeId> node = NodeOf(wanted["node"].get<std::string>());
  if (!node.ok()) return node.status();
  NodeRequest request{.kind = Kind::kSet, .node = *node, .record = *membership_->roster().Find(*node)};
  if (is_text("address")) request.record.address = wanted["address"].get<std::string>();
  if (wanted.contains("votes")) {
    if (!wanted["votes"].is_number_unsigned() || wanted["votes"].get<uint64_t>() > kMaxVotes) {
      return absl::InvalidArgumentError(
          absl::StrCat("votes is ", wanted["votes"].dump(), ", expected a number from 0 to ", kMaxVotes));
    }
    request.record.votes = wanted["votes"].get<uint32_t>();
  }
  return request;
}

Task<absl::StatusOr<std::string>> LocalOperations::Operate(Credentials who, std::string what, std::string argument,
                                                           TimeNs deadline) {
  if (absl::StartsWith(what, kFilesystem)) {
    if (!filesystem_) co_return absl::UnimplementedError("this node serves no filesystem");
    co_return co_await filesystem_(std::move(who), std::move(what), std::move(argument));
  }
  if (what == kSetRegion) {  // Its owner may, whoever that is.
    absl::StatusOr<std::string> regions = co_await SetRegion(std::move(who), std::move(argument), deadline);
    co_return regions;
  }
  const absl::StatusOr<Kind> kind = KindOf(what);
  if (!IsOperation(what)) co_return kind.status();
  if (who.uid != 0 && who.uid != geteuid()) {
    co_return absl::PermissionDeniedError(
        absl::StrCat("user ", who.uid, " may not change the cluster: only root and the daemon's user may"));
  }
  if (what == kToken) co_return OperateToken(argument);
  if (what == kGiveUpLog) {
    absl::StatusOr<std::string> document = co_await GiveUpLog(std::move(argument), deadline);
    co_return document;
  }
  if (*kind == Kind::kGiveUp) {
    absl::StatusOr<std::string> document = co_await GiveUpNode(std::move(argument), deadline);
    co_return document;
  }
  NodeRequest request{.kind = *kind};
  if (*kind == Kind::kSet) {
    absl::StatusOr<NodeRequest> set = SetRequest(argument);
    if (!set.ok()) co_return set.status();
    request = *std::move(set);
  } else {
    const absl::StatusOr<NodeId> node = NodeOf(argument);
    if (!node.ok()) co_return node.status();
    request.node = *node;
  }
  const std::string name = NameOf(request.node);
  const absl::Status status = co_await Ask(std::move(request), name, deadline);
  if (!status.ok()) co_return status;
  absl::StatusOr<std::string> document = co_await InspectStatus(deadline);
  co_return document;
}

// Of a node that has never been here the view says nothing.
bool LocalOperations::IsNamed(NodeId node) const {
  const View& view = membership_->member().view();
  return view.members.contains(node) || view.behind.contains(node) || view.disks.contains(node);
}

// --- Nodes that join --------------------------------------------------------------------------------------------------

// `argument`: for how many seconds a new one is to be good; or "list"; or "withdraw", and which.
absl::StatusOr<std::string> LocalOperations::OperateToken(const std::string& argument) {
  if (join_door_ == nullptr) return absl::UnimplementedError("the node lets nobody join");
  if (argument == kListTokens) return ListTokens();
  if (absl::StartsWith(argument, kWithdraw)) {
    const auto withdrawn = join_door_->Withdraw(argument.substr(sizeof(kWithdraw) - 1));
    if (!withdrawn.ok()) return withdrawn.status();
    return nlohmann::json{{"withdrawn", *withdrawn}}.dump(2) + "\n";
  }
  int64_t valid_s = 0;
  if (!absl::SimpleAtoi(argument, &valid_s) || valid_s < 0 || valid_s > kMostSeconds) {
    return absl::InvalidArgumentError(absl::StrCat("\"", argument, "\" is no number of seconds"));
  }
  const absl::StatusOr<JoinDoor::NewToken> token = join_door_->MakeToken(valid_s * kSecond);
  if (!token.ok()) return token.status();
  return nlohmann::json{{"token", token->text}, {"valid_s", valid_s}, {"id", token->id}}.dump(2) + "\n";
}

std::string LocalOperations::ListTokens() const {
  nlohmann::json tokens = nlohmann::json::array();
  for (const JoinDoor::TokenStatus& token : join_door_->Tokens()) {
    const char* const state = token.is_used ? "used" : token.request ? "being used" : "open";
    const JoinRequest request = token.request.value_or(JoinRequest());
    tokens.push_back({{"id", token.id},
                      {"state", state},
                      {"seconds_left", token.left / kSecond},
                      {"name", request.name},
                      {"address", request.address}});
  }
  return nlohmann::json{{"tokens", tokens}}.dump(2) + "\n";
}

Task<absl::StatusOr<JoinAnswer>> LocalOperations::Admit(JoinRequest request, std::vector<ClusterKey> keys) {
  const NodeRequest add{.kind = Kind::kAdd,
                        .record = {.name = request.name,
                                   .address = request.address,
                                   .votes = request.votes,
                                   .identity = NewIdentity(request.address)},
                        .group = request.group};
  // Who was admitted, and did not hear of it, may ask again with another token; not who has been here.
  if (const NodeId known = roster().FindName(request.name); known.value != 0 && IsNamed(known)) {
    co_return absl::AlreadyExistsError(
        absl::StrCat("there is a node called ", request.name, " already, at ", roster().Find(known)->address));
  }
  const absl::Status added = co_await Ask(add, request.name, clock_->Now() + kAdmission);
  if (!added.ok()) co_return added;
  const NodeId node = roster().FindName(request.name);
  JoinAnswer answer{.node = node,
                    .keys = std::move(keys),
                    .replicas = config_->replicas,
                    .members = {},
                    .lease_ms = config_->lease_ms,
                    .system_replicas = SystemReplicasOf(*config_)};
  for (const auto& [id, record] : roster().nodes) {
    // An anchor has its votes when it is there: until it has heard of that it founds nothing.
    const uint32_t votes = id == node ? 0 : record.votes;
    if (record.is_removed || (votes == 0 && id != node)) continue;
    if (answer.members.size() + 1 == kMaxJoinMembers && id != node) continue;
    answer.members.push_back({.id = id, .name = record.name, .address = record.address, .votes = votes});
  }
  co_return answer;
}

}  // namespace mangrove
