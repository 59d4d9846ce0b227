#include "engine/join/join_cluster.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/join/join_codec.h"
#include "engine/node_config.h"
#include "net/fabric_transport.h"
#include "net/runtime/loop.h"
#include "net/runtime/system_entropy.h"

namespace mangrove {
namespace {

constexpr DurationNs kLookInterval = 10 * kMillisecond;

class Joiner final : public TransportEvents {
 public:
  Joiner(const JoinToken& token, DurationNs patience, const std::string& provider)
      : token_(token), patience_(patience), loop_(LoopOptions()) {
    FabricTransportConfig config;
    config.cluster = ClusterIdOf(token.cluster_name);
    config.keys = {token.key};
    config.self = {kGuestNode, Incarnation(entropy_.Next() | 1)};
    config.members = {{token.node, "the host", token.address}};
    config.provider = provider;
    transport_.emplace(std::move(config), &loop_, &entropy_);
  }
  ~Joiner() override {
    loop_.Stop();
    transport_.reset();
  }

  absl::StatusOr<JoinAnswer> Run(const JoinRequest& request) {
    const absl::StatusOr<std::string> bytes = EncodeJoinRequest({number_, request});
    if (!bytes.ok()) return bytes.status();
    request_ = *bytes;
    if (absl::Status status = loop_.Start(); !status.ok()) return status;
    loop_.RunUntil([this] { Begin(); }, completion_);
    return *std::move(result_);
  }

  // On each connection: what was said on the one before may be lost.
  void OnPeerUp(NodeInstance /*peer*/) override {
    was_up_ = true;
    transport_->Send(token_.node, Channel::kJoin, std::as_bytes(std::span(request_)), {});
  }
  void OnPeerDown(NodeInstance /*peer*/, const absl::Status& /*reason*/) override {}
  void OnDelivery(const Delivery& delivery) override {
    absl::StatusOr<NumberedReply> reply = DecodeJoinReply(delivery.message);
    if (!reply.ok())
      return Finish(Wrong(absl::StrCat("answered what this build cannot read: ", reply.status().message())));
    const auto* error = std::get_if<absl::Status>(&reply->content);
    if (reply->number == 0 && error != nullptr) {
      return Finish(Wrong(absl::StrCat("could not read the request: ", error->message())));
    }
    // Of a request that somebody made with this token before.
    if (reply->number != number_) return;
    if (error != nullptr) return Finish(*error);
    Finish(std::get<JoinAnswer>(std::move(reply->content)));
  }

 private:
  void Begin() {
    if (absl::Status status = transport_->Start(this); !status.ok()) return Finish(std::move(status));
    loop_.CallAt(loop_.Now() + patience_, [this] { OnDeadline(); });
    Look();
  }

  // A refusal may be final. Nobody tells of it.
  void Look() {
    if (result_) return;
    loop_.CallAt(loop_.Now() + kLookInterval, [this] { Look(); });
    const std::optional<RefusalReason> reason = transport_->RefusedBy(token_.node);
    if (!reason) return;
    switch (*reason) {
      case RefusalReason::kBusy:
      case RefusalReason::kRepeated:
      case RefusalReason::kChallenge:
      case RefusalReason::kOldIncarnation: return;  // Not the next time.
      case RefusalReason::kToken:
        return Finish(absl::PermissionDeniedError(
            absl::StrCat("the token is void: its time is over, or ", Host(),
                         ", which made it, was started anew since; make another one there")));
      case RefusalReason::kNonsense:
      case RefusalReason::kVersion:
      case RefusalReason::kCluster:
      case RefusalReason::kUnknownNode:
      case RefusalReason::kKey:
      case RefusalReason::kDirection: break;
    }
    Finish(Wrong(absl::StrCat("does not let this machine in: ", LastError())));
  }

  void OnDeadline() {
    // A process that had to wait for the processor may not have heard yet of what has happened.
    if (!was_up_ && LastError().empty() && !std::exchange(looked_again_, true)) {
      loop_.CallAt(loop_.Now() + kLookInterval, [this] { OnDeadline(); });
      return;
    }
    const std::string within = absl::StrCat(" within ", patience_ / kMillisecond, " ms");
    if (was_up_) {
      return Finish(absl::DeadlineExceededError(absl::StrCat(
          Host(), " has the request, but did not answer", within,
          "; the machine may have been admitted: ask again for the same, with the same token, as long as it is good")));
    }
    const std::string error = LastError();
    Finish(
        absl::DeadlineExceededError(absl::StrCat(Host(), " could not be reached", within, error.empty() ? "" : ": ",
                                                 error, "; is it running, and can its address be reached from here?")));
  }

  void Finish(absl::StatusOr<JoinAnswer> result) {
    if (result_) return;
    result_ = std::move(result);
    completion_.Set();
  }

  absl::Status Wrong(const std::string& what) const {
    return absl::FailedPreconditionError(absl::StrCat(Host(), " ", what));
  }
  std::string Host() const { return absl::StrCat(ToString(token_.node), " at ", token_.address); }
  std::string LastError() const { return transport_->Peers().at(0).last_error; }

  const JoinToken token_;
  const DurationNs patience_;
  SystemEntropy entropy_;
  const uint64_t number_ = entropy_.Next() | 1;
  std::string request_;
  bool was_up_ = false;
  bool looked_again_ = false;
  std::optional<absl::StatusOr<JoinAnswer>> result_;
  Completion completion_;
  Loop loop_;
  std::optional<FabricTransport> transport_;
};

}  // namespace

absl::StatusOr<JoinAnswer> JoinCluster(const JoinToken& token, const JoinRequest& request, DurationNs patience,
                                       const std::string& provider) {
  return Joiner(token, patience, provider).Run(request);
}

}  // namespace mangrove
