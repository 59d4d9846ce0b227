#include "engine/membership.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "recovery/codec.h"
#include "recovery/stop_patience.h"

namespace mangrove {
namespace {

constexpr DurationNs kWriteAgain = 100 * kMillisecond;
constexpr DurationNs kReadAgain = kSecond;
constexpr size_t kFewToName = 16;  // Of a view, in the log.
constexpr char kRosterKey[] = "roster";

}  // namespace

Membership::Membership(MembershipOptions options, Clock* clock, Transport* transport, PageStore* store,
                       Entropy* entropy)
    : options_(std::move(options)), clock_(clock), transport_(transport), store_(store), entropy_(entropy) {}

Membership::~Membership() {
  Shutdown();
  *alive_ = false;
}

void Membership::Open(absl::AnyInvocable<void(absl::Status)> done) {
  store_->ReadRecords(kRosterKey, [this, done = std::move(done), alive = alive_](auto read) mutable {
    if (!*alive) return;
    if (!read.ok()) return done(read.status());
    Roster roster{.version = 0, .nodes = options_.nodes};
    if (!read->empty()) {
      absl::StatusOr<Roster> stored = DecodeRoster(read->front().second);
      if (!stored.ok()) {
        return done(absl::DataLossError(
            absl::StrCat("what this disk has of the cluster's nodes is damaged: ", stored.status().message())));
      }
      roster = *std::move(stored);
      const NodeId self = options_.self.node;
      roster.nodes.try_emplace(self, options_.nodes.at(self));
    }
    ReadLog([this, roster = std::move(roster), done = std::move(done)](absl::StatusOr<StoredLog> log) mutable {
      if (!log.ok()) return done(log.status());
      if (roster.version == 0 && !log->durable && !options_.may_found) {
        LogWarning(
            "this node's disk knows nothing of its cluster, and it is too late to found one (found_before); if the ",
            "disk was replaced, and no anchor of the configuration is there, give the node up and let it join anew");
      }
      // With a log it takes part, whatever the roster says: the others may need its vote before it can hear of a newer one.
      const bool is_anchor = log->durable.has_value() || roster.anchors().contains(options_.self.node);
      Begin(std::move(roster), is_anchor ? std::optional(*std::move(log)) : std::nullopt);
      done(absl::OkStatus());
    });
  });
}

void Membership::ReadLog(LogDone done) {
  store_->ReadRecords(AnchorRecords::kPrefix, [done = std::move(done), alive = alive_](auto read) mutable {
    if (!*alive) return;
    if (!read.ok()) return done(read.status());
    StoredLog log;
    absl::StatusOr<std::optional<RaftDurable>> durable = log.records.Load(*read);
    if (!durable.ok()) return done(durable.status());
    if (*durable) {
      if (absl::Status status = Anchor::Check(**durable); !status.ok()) return done(status);
    }
    log.durable = *std::move(durable);
    done(std::move(log));
  });
}

void Membership::Begin(Roster roster, std::optional<StoredLog> log) {
  said_roster_ = written_roster_ = roster.version;
  const Member::Options member{
      .self = options_.self, .roster = roster, .timing = options_.timing, .few_nodes = options_.few_nodes};
  std::optional<Anchor::Options> anchor;
  StoredLog stored;
  if (log) {
    anchor = AnchorOptions(roster);
    stored = *std::move(log);
  }
  participant_ = std::make_unique<Participant>(member, std::move(anchor), std::move(stored.records),
                                               std::move(stored.durable), clock_->Now());
  participant_->SetDisk(disk_);
  participant_->SetDiskSize(disk_size_);
  if (events_ != nullptr) events_->OnRoster(roster);
}

Anchor::Options Membership::AnchorOptions(const Roster& roster) {
  Anchor::Options options{.self = options_.self,
                          .nodes = {},
                          .has_joined = roster.version > 0,
                          .may_found = options_.may_found,
                          .timing = options_.timing};
  for (const auto& [node, record] : roster.nodes) {
    if (!record.is_removed) options.nodes[node] = record;
  }
  options.seed = entropy_->Next();
  return options;
}

void Membership::Start() {
  if (!stopped_) Tick();
}

void Membership::Shutdown() {
  stopped_ = true;
  clock_->Cancel(std::exchange(timer_, 0));
  timer_at_ = kForever;
}

void Membership::SetDisk(const DiskState& disk) {
  disk_ = disk;
  if (stopped_ || participant_ == nullptr) return;
  participant_->SetDisk(disk);
  if (timer_ != 0) ArmTimer();  // Otherwise Start will, or what calls this.
}

void Membership::SetDiskSize(const DiskSize& size) {
  disk_size_ = size;
  if (participant_ != nullptr) participant_->SetDiskSize(size);
}

void Membership::Request(const NodeRequest& request) {
  if (stopped_ || participant_ == nullptr) return;
  const TimeNs now = clock_->Now();
  for (NodeId anchor : member().AnchorsToAsk(now)) {
    if (anchor == options_.self.node) {
      participant_->Receive(options_.self, request, now);
    } else {
      Send({{anchor, request}});
    }
  }
  Pump();
}

// --- The end ----------------------------------------------------------------------------------------------------------

void Membership::SetStopping(Stopping stopping) {
  if (stopped_ || participant_ == nullptr) return;
  participant_->SetStopping(stopping, clock_->Now());
  Pump();
}

void Membership::HandOver(absl::AnyInvocable<void()> done) {
  const bool leads = !stopped_ && anchor() != nullptr && anchor()->leads();
  if (!leads || !member().OthersGoOn() || !participant_->HandOver(clock_->Now()).ok()) return done();
  hand_over_ = Awaited{.until = clock_->Now() + HandOverPatience(options_.timing), .done = std::move(done)};
  Pump();
}

// It may have been elected since it handed over, or have found nobody then who took it.
void Membership::Leave(absl::AnyInvocable<void()> done) {
  events_ = nullptr;
  HandOver([this, done = std::move(done)]() mutable { SayThatItLeaves(std::move(done)); });
}

void Membership::SayThatItLeaves(absl::AnyInvocable<void()> done) {
  if (stopped_ || participant_ == nullptr || !member().OthersGoOn()) return done();
  participant_->Leave(clock_->Now());
  leave_ = Awaited{.until = clock_->Now() + LeavePatience(options_.timing), .done = std::move(done)};
  Pump();
}

void Membership::FollowStop() {
  const TimeNs now = clock_->Now();
  const auto leads = [this] { return anchor() != nullptr && anchor()->leads(); };
  if (hand_over_ && (now >= hand_over_->until || !leads())) End(hand_over_);
  // Whoever was to lead may be gone, and this node elected in its place.
  if (leave_ && leads() && !hand_over_) HandOver([] {});
  const bool has_left = (member().is_out() || said_gone_) && !leads();
  if (leave_ && (now >= leave_->until || has_left)) End(leave_);
}

void Membership::End(std::optional<Awaited>& awaited) {
  Awaited ended = *std::exchange(awaited, std::nullopt);
  ended.done();
}

DurationNs Membership::LeaseLeft() const {
  const TimeNs now = clock_->Now();
  return member().HasLease(now) ? member().lease_ends() - now : 0;
}

// --- In ---------------------------------------------------------------------------------------------------------------

void Membership::OnDelivery(const Delivery& delivery) {
  if (stopped_) return;
  const absl::StatusOr<RecoveryMessage> message = DecodeMessage(delivery.message);
  if (!message.ok()) {
    ++bad_messages_;
    said_once_.Log(LogLevel::kError, ToString(delivery.from),
                   absl::StrCat(ToString(delivery.from), " sent what cannot be read: ", message.status().message()));
    return;
  }
  const auto* const answer = std::get_if<PulseAnswer>(&*message);
  if (answer != nullptr && answer->leader == delivery.from.node && answer->to == options_.self.incarnation) {
    heard_leader_at_ = clock_->Now();
  }
  participant_->Receive(delivery.from, *message, clock_->Now());
  Pump();
}

bool Membership::HearsLeader() const {
  if (anchor() != nullptr && anchor()->leads()) return true;
  return heard_leader_at_ != 0 && clock_->Now() - heard_leader_at_ <= options_.timing.silent;
}

void Membership::OnPeerUp(NodeInstance peer) {
  if (stopped_) return;
  participant_->PeerUp(peer.node);
  ArmTimer();
}

void Membership::OnPeerDown(NodeInstance peer, const absl::Status&) {
  if (stopped_) return;
  participant_->PeerDown(peer.node, clock_->Now());
  ArmTimer();
}

// Whoever says it has the view without this incarnation, which no later one has again.
void Membership::OnExpelled(NodeInstance by) {
  if (stopped_) return;
  SayGone(absl::StrCat(ToString(by), " says that "));
  FollowStop();
}

void Membership::Tick() {
  timer_ = 0;
  timer_at_ = kForever;
  if (stopped_) return;
  participant_->Tick(clock_->Now());
  Pump();
}

// --- Out --------------------------------------------------------------------------------------------------------------

// Until there is nothing left to do.
void Membership::Pump() {
  do {
    Send(participant_->TakeMessages());
    for (AnchorOutput output = participant_->TakeOutput(); !output.empty(); output = participant_->TakeOutput()) {
      outputs_.push_back(std::move(output));
    }
  } while (WriteNext());
  FollowRoster();
  FollowView();
  FollowStop();
  ArmTimer();
}

// Outputs go one after the other: what writes before another is durable before that one is sent. Returns whether something was sent:
// more may follow from it.
bool Membership::WriteNext() {
  bool has_sent = false;
  if (clock_->Now() < write_again_at_) return false;
  while (!writing_ && !outputs_.empty()) {
    if (outputs_.front().records.empty()) {
      AnchorOutput output = std::move(outputs_.front());
      outputs_.pop_front();
      participant_->Sent(output.messages, clock_->Now());
      Send(output.messages);
      has_sent = true;
      continue;
    }
    writing_ = true;
    StoreBatch batch;
    for (const AnchorRecords::Record& record : outputs_.front().records) {
      batch.records.push_back({record.key, record.value});
    }
    store_->Commit(std::move(batch), [this, alive = alive_](const absl::Status& status) {
      if (*alive && !stopped_) Written(status);
    });
  }
  return has_sent;
}

void Membership::Written(const absl::Status& status) {
  writing_ = false;
  if (!status.ok()) {
    // A full disk has room again some day; after anything else the store ends this process. What was to be said meanwhile is old by
    // then: the others ask again.
    said_once_.Log(LogLevel::kError, "log", absl::StrCat("the anchors' log cannot be written: ", status.message()));
    for (AnchorOutput& output : outputs_) output.messages.clear();
    std::erase_if(outputs_, [](const AnchorOutput& output) { return output.empty(); });
    write_again_at_ = clock_->Now() + kWriteAgain;
    return ArmTimer();
  }
  AnchorOutput output = std::move(outputs_.front());
  outputs_.pop_front();
  if (output.number != 0) participant_->Persisted(output.number, clock_->Now());
  participant_->Sent(output.messages, clock_->Now());
  Send(output.messages);
  Pump();
}

void Membership::Send(const std::vector<std::pair<NodeId, RecoveryMessage>>& messages) {
  for (const auto& [to, message] : messages) {
    // What nobody there understands would be taken for another pulse, or for nonsense.
    const uint8_t level = NeededLevel(message);
    if (level > 1 && transport_->LevelOf(to, Subsystem::kMembership) < level) continue;
    const std::string bytes = EncodeMessage(message);
    transport_->Send(to, Channel::kMembership, std::as_bytes(std::span(bytes)), {});
  }
}

// Drained, and neither pages nor votes are left here; or given up while it was away.
bool Membership::IsDismissed() const {
  if (member().is_removed()) return true;
  const View& view = member().view();
  const NodeId self = options_.self.node;
  if (!view.draining.contains(self) || view.disks.contains(self) || view.next_disks.contains(self)) return false;
  return anchor() == nullptr || !anchor()->HasVotes(self);
}

void Membership::FollowRoster() {
  if (roster().version != said_roster_) {
    said_roster_ = roster().version;
    if (events_ != nullptr) events_->OnRoster(roster());
  }
  WriteRoster();
  if (anchor() == nullptr && roster().anchors().contains(options_.self.node)) BecomeAnchor();
}

void Membership::WriteRoster() {
  if (writing_roster_ || written_roster_ == roster().version || clock_->Now() < write_again_at_) return;
  writing_roster_ = true;
  StoreBatch batch;
  batch.records.push_back({kRosterKey, EncodeRoster(roster())});
  store_->Commit(std::move(batch), [this, version = roster().version, alive = alive_](const absl::Status& status) {
    if (!*alive || stopped_) return;
    writing_roster_ = false;
    if (status.ok()) {
      written_roster_ = version;
    } else {
      said_once_.Log(LogLevel::kError, kRosterKey,
                     absl::StrCat("which nodes the cluster has cannot be written: ", status.message()));
      write_again_at_ = clock_->Now() + kWriteAgain;
    }
    Pump();
  });
}

// With what its disk has of a log: it may have been one before.
void Membership::BecomeAnchor() {
  if (becoming_anchor_ || clock_->Now() < become_anchor_at_) return;
  becoming_anchor_ = true;
  ReadLog([this](absl::StatusOr<StoredLog> log) {
    if (stopped_) return;
    becoming_anchor_ = false;
    if (!log.ok()) {
      const absl::string_view why = log.status().message();
      said_once_.Log(LogLevel::kError, "anchor",
                     absl::StrCat("this node was made an anchor, and cannot be one yet; it tries again: ", why));
      become_anchor_at_ = clock_->Now() + kReadAgain;  // The next pulse that is due then does it.
      return;
    }
    LogInfo("this node is an anchor now");
    participant_->BecomeAnchor(AnchorOptions(roster()), std::move(log->records), std::move(log->durable),
                               clock_->Now());
    Pump();
  });
}

void Membership::FollowView() {
  const TimeNs now = clock_->Now();
  if (IsDismissed() && !std::exchange(said_dismissed_, true) && events_ != nullptr) {
    events_->OnDismissed(member().is_removed());
  }
  if (member().is_removed()) return;  // That it is gone is no news.
  if (member().is_gone()) SayGone("");
  if (said_gone_) return;
  if (member().view().epoch != said_view_) {
    said_view_ = member().view().epoch;
    LogView();
    if (events_ != nullptr) events_->OnView(member().view());
  }
  const TimeNs lease = member().HasLease(now) ? member().lease_ends() : 0;
  if (lease == said_lease_ || member().leaves()) return;
  if (said_lease_ == 0) LogInfo("this node has a lease on its place in the view");
  if (lease == 0) LogWarning("this node's lease has ended");
  said_lease_ = lease;
  if (events_ != nullptr) events_->OnLease(lease);
}

void Membership::SayGone(const std::string& who) {
  if (std::exchange(said_gone_, true) || member().leaves()) return;
  LogWarning(who, "the view went on without this node, which did not answer for a while: it has to start anew");
  if (events_ != nullptr) events_->OnExpelled();
}

void Membership::LogView() const {
  const View& view = member().view();
  std::string names = absl::StrCat(view.members.size(), " nodes");
  for (const auto& [node, incarnation] : view.members) {
    if (view.members.size() > kFewToName) break;
    absl::StrAppend(&names, node == view.members.begin()->first ? ": " : ", ", roster().NameOf(node));
  }
  LogInfo("view ", view.epoch.value, " of ", names);
}

void Membership::ArmTimer() {
  const TimeNs now = clock_->Now();
  TimeNs at = participant_->next_tick();
  if (hand_over_) at = std::min(at, hand_over_->until);
  if (leave_) at = std::min(at, leave_->until);
  const bool has_to_write = !outputs_.empty() || written_roster_ != roster().version;
  if (has_to_write && write_again_at_ > now) at = std::min(at, write_again_at_);
  if (said_lease_ != 0 && member().lease_ends() > now) at = std::min(at, member().lease_ends());
  if (timer_ != 0 && timer_at_ <= at) return;
  clock_->Cancel(timer_);
  timer_at_ = at;
  timer_ = clock_->CallAt(at, [this, alive = alive_] {
    if (*alive) Tick();
  });
}

}  // namespace mangrove
