// Where a node lets machines into its cluster that have nothing but a token of it. It knows tokens, not who may join: that says
// whoever it asks.
//
//  J1  A token is good once. With its first success it belongs to what was asked for then, and everything else is refused. Who asks for
//      the same again, until its time is over, gets the same answer: the first one may have been lost.
//  J2  A token is void when its time is over; and when this node ends, since tokens are kept in memory alone. One that is asked
//      with just then is good for that.
//  J3  An answer, in which are the cluster's keys, goes to the guest that holds the key of the token that it was asked with, and
//      to no other one.
//      An operator may withdraw it, whatever has become of it: then who is being admitted by it is so, and is not told.
//  J4  Of one token one request is asked for at a time.

#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/join/join_messages.h"
#include "net/fabric_transport.h"
#include "net/log.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"
#include "net/runtime/task.h"
#include "net/transport.h"

namespace mangrove {

// Of the node, as a token says it.
struct JoinDoorOptions {
  std::string cluster_name;
  Security security = Security::kAuthenticated;  // Of the cluster.
  NodeId node;
  std::string address;  // Where guests reach it.
};

// Owned by the loop.
class JoinDoor final : public TransportEvents {
 public:
  static constexpr size_t kMaxTokens = 16;      // That can still be used.
  static constexpr size_t kMaxUsedTokens = 16;  // Of which the answer is kept; past it the oldest is void.
  static constexpr DurationNs kMaxValid = 7 * 24 * 3600 * kSecond;
  // So long at least an answer may be asked for again.
  static constexpr DurationNs kAnswerKept = 30 * kSecond;
  // So long at least a refusal has to arrive, before a token whose time is over meanwhile takes the guest's connection with it.
  static constexpr DurationNs kRefusalHeard = kSecond;

  // Has the machine admitted, or says why not. It may take its time, which must end.
  using Admit = std::function<Task<absl::StatusOr<JoinAnswer>>(JoinRequest)>;

  // `clock` must outlive this object; `transport`, which is that of the node, may end before. It has no guests but by this object's
  // tokens.
  JoinDoor(JoinDoorOptions options, FabricTransport* transport, Clock* clock, Entropy* entropy, Admit admit);
  // What `admit` comes to later goes nowhere.
  ~JoinDoor() override;

  struct NewToken {
    std::string id;    // Of which nothing can be made.
    std::string text;  // A secret.
  };
  // InvalidArgument: `valid` is not a second to kMaxValid. ResourceExhausted: there are kMaxTokens that can still be used.
  absl::StatusOr<NewToken> MakeToken(DurationNs valid);

  struct TokenStatus {
    std::string id;
    DurationNs left = 0;  // Of its time.
    bool is_used = false;
    std::optional<JoinRequest> request;  // What it was used for, or is being used for.
  };
  // Those whose time is not over, in the order in which they were made.
  std::vector<TokenStatus> Tokens() const;
  // Makes the token with that id void, or with "all" each. Returns their ids. NotFound: there is none.
  absl::StatusOr<std::vector<std::string>> Withdraw(const std::string& id);

  // Those whose time is not over, used or not.
  size_t tokens() const { return tokens_.size(); }

  // TransportEvents, of Channel::kJoin.
  void OnDelivery(const Delivery& delivery) override;
  void OnPeerUp(NodeInstance /*peer*/) override {}
  void OnPeerDown(NodeInstance /*peer*/, const absl::Status& /*reason*/) override {}

 private:
  struct Token {
    ClusterKey key{};
    TimeNs until = 0;
    Clock::TimerId timer = 0;
    uint64_t number = 0;                 // Of the newest request.
    std::optional<JoinRequest> request;  // That is asked for, or was with success.
    std::optional<JoinAnswer> answer;
  };

  void OnRequest(Token& token, const NumberedRequest& numbered);
  void OnAdmitted(const ClusterKey& key, absl::StatusOr<JoinAnswer> answer);
  void Reply(const Token& token, const NumberedReply& reply);
  Token* Find(const ClusterKey& key);
  void Expire(const ClusterKey& key);
  void ArmTimer(Token& token);
  void OpenToGuests();
  void DropOldUsed(const ClusterKey& newest);

  const JoinDoorOptions options_;
  FabricTransport* const transport_;
  Clock* const clock_;
  Entropy* const entropy_;
  const Admit admit_;
  std::vector<std::unique_ptr<Token>> tokens_;
  LogOnce log_once_;
  // What is under way when this object ends finds it gone.
  const std::shared_ptr<JoinDoor*> self_ = std::make_shared<JoinDoor*>(this);
};

}  // namespace mangrove
