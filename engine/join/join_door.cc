#include "engine/join/join_door.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/join/join_codec.h"
#include "engine/join/join_token.h"
#include "engine/node_config.h"
#include "net/check.h"
#include "net/session_keys.h"

namespace mangrove {
namespace {

std::string Describe(const JoinRequest& request) { return absl::StrCat(request.name, " at ", request.address); }

}  // namespace

JoinDoor::JoinDoor(JoinDoorOptions options, FabricTransport* transport, Clock* clock, Entropy* entropy, Admit admit)
    : options_(std::move(options)), transport_(transport), clock_(clock), entropy_(entropy), admit_(std::move(admit)) {}

JoinDoor::~JoinDoor() {
  *self_ = nullptr;
  for (const auto& token : tokens_) clock_->Cancel(token->timer);
}

absl::StatusOr<JoinDoor::NewToken> JoinDoor::MakeToken(DurationNs valid) {
  if (valid < kSecond || valid > kMaxValid) {
    return absl::InvalidArgumentError(absl::StrCat("a token cannot be good for ", valid / kSecond,
                                                   " s, expected 1 s to ", kMaxValid / kSecond, " s"));
  }
  const auto is_open = [](const auto& token) { return !token->answer; };
  if (std::count_if(tokens_.begin(), tokens_.end(), is_open) >= static_cast<ptrdiff_t>(kMaxTokens)) {
    return absl::ResourceExhaustedError(absl::StrCat("there are ", kMaxTokens,
                                                     " tokens of this node that are not used, and no more can be; "
                                                     "`mangrove node token --withdraw` makes one void"));
  }
  auto token = std::make_unique<Token>();
  token->key = NewClusterKey(entropy_);
  token->until = clock_->Now() + valid;
  ArmTimer(*token);
  JoinToken text;
  text.cluster_name = options_.cluster_name;
  text.security = options_.security;
  text.node = options_.node;
  text.address = options_.address;
  text.key = token->key;
  // Rounded up: the guest's clock is not to be the stricter one.
  text.expiry =
      absl::Ceil(absl::Now() + absl::Nanoseconds(valid) - absl::UnixEpoch(), absl::Seconds(1)) + absl::UnixEpoch();
  const std::string id = FingerprintOf(token->key);
  LogInfo("made the token ", id, ", which is good for ", valid / kSecond, " s");
  tokens_.push_back(std::move(token));
  OpenToGuests();
  return NewToken{id, EncodeJoinToken(text)};
}

std::vector<JoinDoor::TokenStatus> JoinDoor::Tokens() const {
  std::vector<TokenStatus> all;
  for (const auto& token : tokens_) {
    all.push_back({.id = FingerprintOf(token->key),
                   .left = std::max<DurationNs>(token->until - clock_->Now(), 0),
                   .is_used = token->answer.has_value(),
                   .request = token->request});
  }
  return all;
}

absl::StatusOr<std::vector<std::string>> JoinDoor::Withdraw(const std::string& id) {
  std::vector<std::string> withdrawn;
  std::erase_if(tokens_, [&](const auto& token) {
    const std::string of_token = FingerprintOf(token->key);
    if (id != "all" && id != of_token) return false;
    clock_->Cancel(token->timer);
    LogInfo("the token ", of_token, " was withdrawn", token->answer ? "; it was used before" : "");
    withdrawn.push_back(of_token);
    return true;
  });
  if (withdrawn.empty() && id != "all") {
    return absl::NotFoundError(absl::StrCat("this node has no token \"", id,
                                            "\" whose time is not over; `mangrove node token --list` says which"));
  }
  OpenToGuests();
  return withdrawn;
}

void JoinDoor::OnDelivery(const Delivery& delivery) {
  if (delivery.channel != Channel::kJoin || delivery.from.node != kGuestNode) return;
  // The guest that is connected is the one whose delivery this is.
  const std::optional<ClusterKey> key = transport_->GuestKey();
  Token* token = key ? Find(*key) : nullptr;
  CHECK(token != nullptr);
  const absl::StatusOr<NumberedRequest> request = DecodeJoinRequest(delivery.message);
  if (!request.ok()) {
    const std::string who = absl::StrCat("a guest with the token ", FingerprintOf(token->key));
    log_once_.Log(LogLevel::kWarning, who, absl::StrCat(who, " sent a ", request.status().message()));
    return Reply(*token, {0, request.status()});
  }
  OnRequest(*token, *request);
}

void JoinDoor::OnRequest(Token& token, const NumberedRequest& numbered) {
  if (token.request && *token.request != numbered.request) {
    const char* state = token.answer ? "was used for " : "is being used for ";
    return Reply(token,
                 {numbered.number, absl::FailedPreconditionError(absl::StrCat(
                                       "the token ", state, Describe(*token.request),
                                       ", and each is good once; make another one for ", Describe(numbered.request)))});
  }
  token.number = numbered.number;
  if (token.answer) return Reply(token, {token.number, *token.answer});
  if (token.request) return;  // J4: what is asked for will be for this one.
  token.request = numbered.request;
  LogInfo("a guest with the token ", FingerprintOf(token.key), " wants to join as ", Describe(*token.request));
  Spawn<absl::StatusOr<JoinAnswer>>(admit_(numbered.request),
                                    [self = self_, key = token.key](absl::StatusOr<JoinAnswer> answer) {
                                      if (*self != nullptr) (*self)->OnAdmitted(key, std::move(answer));
                                    });
}

void JoinDoor::OnAdmitted(const ClusterKey& key, absl::StatusOr<JoinAnswer> answer) {
  Token* token = Find(key);
  if (token == nullptr) {
    const std::string what = answer.ok() ? absl::StrCat("; ", ToString(answer->node), " was admitted, and is not told")
                                         : absl::StrCat(": ", answer.status().message());
    return LogWarning("the token ", FingerprintOf(key), " was withdrawn while it was used", what);
  }
  CHECK(token->request && !token->answer);
  if (answer.ok()) {
    // What cannot be said does not count for an answer, although the machine is a member now: it can be told by other means.
    if (absl::Status fits = EncodeJoinReply({token->number, *answer}).status(); !fits.ok()) {
      answer = absl::InternalError(absl::StrCat("it was admitted, but cannot be told so: ", fits.message()));
    }
  }
  if (!answer.ok()) {
    LogWarning("refused ", Describe(*token->request), ", which has the token ", FingerprintOf(key), ": ",
               answer.status().message());
    Reply(*token, {token->number, answer.status()});
    token->request.reset();
    token->until = std::max(token->until, clock_->Now() + kRefusalHeard);
  } else {
    LogInfo("admitted ", Describe(*token->request), " as ", ToString(answer->node), " by the token ",
            FingerprintOf(key));
    token->answer = *std::move(answer);
    token->until = std::max(token->until, clock_->Now() + kAnswerKept);
    Reply(*token, {token->number, *token->answer});
    DropOldUsed(key);
  }
  ArmTimer(*token);
}

void JoinDoor::DropOldUsed(const ClusterKey& newest) {
  const auto is_used = [&](const auto& token) { return token->answer && token->key != newest; };
  if (std::count_if(tokens_.begin(), tokens_.end(), is_used) < static_cast<ptrdiff_t>(kMaxUsedTokens)) return;
  const auto oldest = std::find_if(tokens_.begin(), tokens_.end(), is_used);
  clock_->Cancel((*oldest)->timer);
  tokens_.erase(oldest);
  OpenToGuests();
}

// J3: who was there may have gone, and another one have come. Who comes again asks again.
void JoinDoor::Reply(const Token& token, const NumberedReply& reply) {
  if (transport_->GuestKey() != token.key) return;
  const absl::StatusOr<std::string> bytes = EncodeJoinReply(reply);
  CHECK(bytes.ok());
  transport_->Send(kGuestNode, Channel::kJoin, std::as_bytes(std::span(*bytes)), {});
}

JoinDoor::Token* JoinDoor::Find(const ClusterKey& key) {
  const auto it = std::find_if(tokens_.begin(), tokens_.end(), [&](const auto& token) { return token->key == key; });
  return it == tokens_.end() ? nullptr : it->get();
}

void JoinDoor::ArmTimer(Token& token) {
  clock_->Cancel(token.timer);
  token.timer = clock_->CallAt(token.until, [this, key = token.key] { Expire(key); });
}

void JoinDoor::Expire(const ClusterKey& key) {
  Token* token = Find(key);
  CHECK(token != nullptr);
  token->timer = 0;
  // J2: OnAdmitted arms it again.
  if (token->request && !token->answer) return;
  LogInfo("the time of the token ", FingerprintOf(key), " is over",
          token->answer ? "; it was used" : "; it was not used");
  std::erase_if(tokens_, [&](const auto& one) { return one.get() == token; });
  OpenToGuests();
}

void JoinDoor::OpenToGuests() {
  std::vector<ClusterKey> keys;
  for (const auto& token : tokens_) keys.push_back(token->key);
  transport_->SetGuestKeys(std::move(keys));
}

}  // namespace mangrove
