// What an operator has the cluster do.

#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/local_operations.h"
#include "net/runtime/task.h"

namespace mangrove {
namespace {

constexpr DurationNs kAskAgain = 100 * kMillisecond;

absl::StatusOr<NodeRequest::Kind> KindOf(const std::string& what) {
  if (what == "drain") return NodeRequest::Kind::kDrain;
  if (what == "undrain") return NodeRequest::Kind::kUndrain;
  if (what == "give up") return NodeRequest::Kind::kGiveUp;
  return absl::InvalidArgumentError(absl::StrCat("\"", what, "\" cannot be done: expected drain, undrain or give up"));
}

// Of a node that was removed the view says nothing.
bool IsNamed(const View& view, NodeId node) {
  return view.members.contains(node) || view.behind.contains(node) || view.disks.contains(node) ||
         view.next_disks.contains(node) || view.lost.contains(node);
}

bool IsDone(const View& view, const NodeRequest& request) {
  if (view.epoch.value != 0 && !IsNamed(view, request.node)) return request.kind != NodeRequest::Kind::kUndrain;
  switch (request.kind) {
    case NodeRequest::Kind::kDrain: return view.draining.contains(request.node);
    case NodeRequest::Kind::kUndrain: return !view.draining.contains(request.node);
    case NodeRequest::Kind::kGiveUp: return view.lost.contains(request.node);
  }
  return false;
}

}  // namespace

bool NodeOperations::IsOperation(const std::string& what) { return KindOf(what).ok(); }

absl::StatusOr<NodeId> LocalOperations::NodeOf(const std::string& name) const {
  std::vector<std::string> names;
  for (const MemberConfig& member : config_->members) {
    if (member.name == name) return member.id;
    names.push_back(member.name);
  }
  return absl::NotFoundError(
      absl::StrCat("no node of the cluster is called \"", name, "\"; there are ", absl::StrJoin(names, ", ")));
}

// What the view would not take up, with the reason.
absl::Status LocalOperations::CheckRequest(const NodeRequest& request, const std::string& name) const {
  const View& view = membership_->member().view();
  const auto stays_anchor = [&](NodeId node) {
    return node != request.node && !view.draining.contains(node) && !view.lost.contains(node);
  };
  const std::vector<NodeId> anchors = membership_->anchors();
  const bool ends = request.kind != NodeRequest::Kind::kUndrain;
  if (ends && std::none_of(anchors.begin(), anchors.end(), stays_anchor)) {
    return absl::FailedPreconditionError(absl::StrCat(name, " is the last anchor, and cannot leave the cluster"));
  }
  if (request.kind == NodeRequest::Kind::kGiveUp && view.members.contains(request.node)) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " is here, and not lost; `mangrove node drain ", name, "` takes it out in order"));
  }
  if (request.kind == NodeRequest::Kind::kDrain && view.lost.contains(request.node)) {
    return absl::FailedPreconditionError(absl::StrCat(name, " was given up already"));
  }
  return absl::OkStatus();
}

Task<absl::StatusOr<std::string>> LocalOperations::Operate(Credentials who, std::string what, std::string argument,
                                                           TimeNs deadline) {
  const absl::StatusOr<NodeRequest::Kind> kind = KindOf(what);
  if (!kind.ok()) co_return kind.status();
  if (who.uid != 0 && who.uid != geteuid()) {
    co_return absl::PermissionDeniedError(
        absl::StrCat("user ", who.uid, " may not change the cluster: only root and the daemon's user may"));
  }
  const absl::StatusOr<NodeId> node = NodeOf(argument);
  if (!node.ok()) co_return node.status();
  const NodeRequest request{.kind = *kind, .node = *node};
  while (!IsDone(membership_->member().view(), request)) {
    if (absl::Status status = CheckRequest(request, argument); !status.ok()) co_return status;
    if (clock_->Now() + kAskAgain >= deadline) {
      co_return absl::UnavailableError(
          "the anchors have not taken it up: too few of them answer; `mangrove status` says which");
    }
    membership_->Request(request);
    co_await SleepUntil(clock_, clock_->Now() + kAskAgain);
  }
  co_return InspectStatus();
}

}  // namespace mangrove
