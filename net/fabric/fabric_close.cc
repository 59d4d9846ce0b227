// Connections go, and what must not wait for ever.

#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"

namespace mangrove {

// From here on nothing of the connection is delivered and nothing is sent on it. Reap does the rest.
void FabricCore::Fail(Connection& connection, absl::Status why) {
  if (connection.state == ConnectionState::kFailed) return;
  CHECK(!why.ok());
  if (!connection.connector && connection.state == ConnectionState::kAccepting) {
    --FindPeer(connection.peer)->handshakes;
  }
  connection.state = ConnectionState::kFailed;
  // The other side may have closed before we did.
  connection.failure = connection.verdict.ok() || connection.was_up ? std::move(why) : connection.verdict;
  failed_.push_back(connection.serial);
  if (depth_ == 0 && reap_timer_ == 0) {
    reap_timer_ = loop_->CallAt(loop_->Now(), [this] {
      reap_timer_ = 0;
      Reap();
    });
  }
}

void FabricCore::SetKeys(std::vector<ClusterKey> keys) {
  CHECK(!keys.empty());
  keys_ = std::move(keys);
  CloseUnproved();
  for (auto& peer : peers_) {
    if (peer->dialing == nullptr && IsToBeDialled(*peer)) DialLater(*peer);
  }
}

// What was proved with a key that is not there any more.
void FabricCore::CloseUnproved() {
  for (auto& [serial, connection] : connections_) {
    const std::vector<ClusterKey>& keys = KeysFor(connection->peer);
    if (std::find(keys.begin(), keys.end(), connection->key) != keys.end()) continue;
    Fail(*connection, absl::PermissionDeniedError(absl::StrCat("its key ", FingerprintOf(connection->key),
                                                               " is not among this node's any more")));
  }
}

void FabricCore::Expel(NodeInstance node) {
  if (node.node == config_.self.node || node.node == kGuestNode) return;
  // Who is no member here may become one.
  Peer& peer = PeerOf(node.node);
  if (node.incarnation <= peer.expelled) return;
  peer.expelled = node.incarnation;
  for (auto& [serial, connection] : connections_) {
    if (connection->peer != node.node || connection->state != ConnectionState::kUp) continue;
    if (connection->peer_instance().incarnation > node.incarnation) continue;
    Fail(*connection, absl::PermissionDeniedError(absl::StrCat(ToString(node), " has left the view")));
  }
}

void FabricCore::Reap() {
  if (depth_ != 0) return;
  while (!failed_.empty()) {
    std::vector<uint64_t> serials = std::exchange(failed_, {});
    for (uint64_t serial : serials) {
      Connection* connection = FindConnection(serial);
      CHECK(connection != nullptr);
      Destroy(*connection);
    }
  }
}

void FabricCore::Destroy(Connection& connection) {
  Peer* peer = FindPeer(connection.peer);
  CHECK(peer != nullptr && connection.state == ConnectionState::kFailed);
  auto node = connections_.extract(connection.serial);
  serial_of_.erase(&connection.endpoint->fid);
  if (peer->dialing == &connection) peer->dialing = nullptr;
  if (peer->up == &connection) peer->up = nullptr;
  counters_.messages_dropped += connection.queue.size() + connection.in_flight.size();
  const NodeInstance instance = connection.peer_instance();
  const std::string name = NameOf(*peer, connection);
  const bool was_up = connection.was_up;
  const bool challenged = connection.challenged;
  const absl::Status failure = std::move(connection.failure);
  fi_shutdown(connection.endpoint.get(), 0);
  node = {};  // Endpoint, registrations, memory, in this order.
  if (challenged) return DialSoon(*peer);
  const std::string reason(failure.message());
  const std::string& address = peer->member.address;
  if (was_up) {
    const bool nonsense = absl::IsDataLoss(failure) || absl::IsInvalidArgument(failure);
    // Not by its text, which may name what was read.
    log_once_.Log(nonsense ? LogLevel::kWarning : LogLevel::kInfo,
                  absl::StrCat(peer->member.name, ": lost ", static_cast<int>(failure.code())),
                  absl::StrCat("lost ", name, ": ", reason));
  } else if (peer->up == nullptr) {
    log_once_.Log(
        LogLevel::kWarning, absl::StrCat(peer->member.name, ": down ", reason),
        absl::StrCat("no connection with ", NameOf(*peer), address.empty() ? "" : " at ", address, ": ", reason));
  }
  // Where another connection stands already, this one is history.
  if (peer->up == nullptr) peer->last_error = reason;
  if (IsToBeDialled(*peer)) {
    if (peer->up != nullptr) {
      log_once_.Log(
          LogLevel::kWarning, absl::StrCat(peer->member.name, ": key ", reason),
          absl::StrCat("the connection with ", NameOf(*peer), " goes on with the key ", FingerprintOf(peer->up->key),
                       ", since with ", FingerprintOf(keys_.front()), " there is none: ", reason));
    }
    DialLater(*peer);
  }
  if (was_up && instance.node != kGuestNode) events_->OnPeerDown(instance, failure);
}

void FabricCore::Settle(Connection& connection) {
  connection.settled = true;
  Peer* peer = FindPeer(connection.peer);
  peer->backoff = kFirstBackoff;
  log_once_.Forget(absl::StrCat(peer->member.name, ": "));
  if (!connection.said_up) {
    LogInfo("connected with ", NameOf(*peer, connection), " again");
  }
}

// Not of a peer whose level says that it does not answer.
void FabricCore::MindSilence(Connection& c, TimeNs now, bool stood_still) {
  const uint64_t received = c.next_receive_sequence;
  if (stood_still) return c.silence.Reset(now, received);
  if (c.levels[static_cast<size_t>(Subsystem::kNet)] < kQuestionsLevel) return;
  const DurationNs patience = PatienceOf(std::max(c.own.lease_ms, c.theirs.lease_ms));
  const DurationNs when_idle = AskWhenIdle(patience, members_.size());
  switch (c.silence.Judge(now, received, c.messages_sent != c.sent_when_heard, patience, when_idle)) {
    case Silence::Verdict::kFine: return;
    case Silence::Verdict::kAsk:
      if (SendBare(c, EnvelopeKind::kQuestion) == Outcome::kDone) c.silence.Asked(now);
      return;
    case Silence::Verdict::kGone:
      return Fail(c, absl::DeadlineExceededError(absl::StrCat("nothing has come of it for ",
                                                              (now - c.silence.heard()) / kMillisecond,
                                                              " ms, and it does not answer")));
  }
}

void FabricCore::Tick() {
  const TimeNs now = loop_->Now();
  const bool stood_still = now - std::exchange(last_tick_, now) >= 2 * kTickInterval;
  tick_timer_ = loop_->CallAt(now + kTickInterval, [this] { Tick(); });
  ++depth_;
  for (auto& [serial, connection] : connections_) {
    Connection& c = *connection;
    if (c.state == ConnectionState::kFailed) continue;
    if (c.state != ConnectionState::kUp) {
      if (now >= c.handshake_deadline) Fail(c, absl::DeadlineExceededError("the handshake took longer than 2 s"));
      continue;
    }
    if (!c.settled && now - c.up_since >= kSettledAfter) Settle(c);
    const bool stuck = (!c.in_flight.empty() && now - c.in_flight.front().since > kSendDeadline) ||
                       (!c.queue.empty() && now - c.queue.front()->since > kSendDeadline);
    if (stuck) {
      Fail(c, absl::DeadlineExceededError("the peer took nothing for 5 s"));
      continue;
    }
    MindSilence(c, now, stood_still);
    if (c.state == ConnectionState::kFailed) continue;
    if (!c.queue.empty()) Drain(c);
    ReturnSlots(c);
    // Small messages tell nothing when they are out: now and then something that does follows them.
    if (c.silent_ops > 0 && c.in_flight.empty() && now - c.silent_since > kTickInterval) SendCredit(c);
  }
  --depth_;
  Reap();
}

}  // namespace mangrove
