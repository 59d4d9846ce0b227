#include "directory/cache_machine.h"

#include <algorithm>
#include <utility>

#include "directory/cache_rules.h"
#include "net/check.h"

namespace mangrove {
namespace {

using A = CacheAction;
using E = CacheEvent;
using S = CacheState;

// One step in progress: its inputs, and short ways to say what it does.
class Step {
 public:
  Step(CacheEntry& entry, PageId page, const Message* message, NodeId from, const CacheContext& context,
       std::vector<CacheEffect>& effects)
      : e_(entry), page_(page), m_(message), from_(from), context_(context), effects_(effects) {}

  void Run(CacheEvent event);

 private:
  void RunRevocation(CacheAction action);
  void RunGrant(CacheAction action);
  void RunRecovery(CacheAction action);

  void RequestAccess(Access access);
  void SendCopy();
  void SendAway();
  void MoveAway();
  void GiveUp(bool retain);
  void ResendRetained();
  void Installed(const Message& grant);
  void InstallRead(const Message& grant);
  void InstallMove(const Message& grant);
  void InstallWrite(const Message& grant);
  void KeepPending();
  void ActivatePending();
  void AnswerOther();
  void Evict();
  void RefuseEvict();
  void AckEvicted();
  void EndRequest();
  void TakeBack();
  void AnswerReport();
  void BecomeOwner();
  void DropAll();
  void Renumber();

  void Retain(Message answer);
  void Open();
  Message Answer(MessageKind kind) const;
  Message GrantOf(const Version& version, const Version& flushed) const;
  void Effect(CacheEffect::Kind kind) { effects_.push_back({.kind = kind, .to = {}, .message = {}, .data = {}}); }
  void Send(CacheEffect::Kind kind, NodeId to, Message message) {
    effects_.push_back({.kind = kind, .to = to, .message = std::move(message), .data = {}});
  }
  void Tell(Message message) { Send(CacheEffect::Kind::kSend, context_.responsible, std::move(message)); }
  void TellLate(Message message) { Send(CacheEffect::Kind::kSendLate, context_.responsible, std::move(message)); }
  void Install(PageBuffer data, bool write) {
    effects_.push_back(
        {.kind = CacheEffect::Kind::kInstall, .write = write, .to = {}, .message = {}, .data = std::move(data)});
  }
  void ForgetCopy();  // The state without a copy: Invalid or waiting.

  CacheEntry& e_;
  const PageId page_;
  const Message* const m_;
  const NodeId from_;
  const CacheContext& context_;
  std::vector<CacheEffect>& effects_;
};

Version NextVersion(const Version& version, Epoch grant_epoch) {
  if (grant_epoch > version.epoch) return {grant_epoch, 1};
  return {version.epoch, version.counter + 1};
}

Message Step::Answer(MessageKind kind) const {
  Message answer;
  answer.kind = kind;
  answer.page = page_;
  if (m_ != nullptr) answer.txn = m_->txn;
  return answer;
}

Message Step::GrantOf(const Version& version, const Version& flushed) const {
  Message grant = Answer(MessageKind::kGrant);
  grant.request = m_->request;
  grant.access = m_->access;
  grant.version = version;
  grant.flushed = flushed;
  grant.grant_epoch = m_->grant_epoch;
  grant.config = e_.config;
  grant.replicas = e_.replicas;
  grant.active = m_->active;
  grant.hurry = m_->hurry;
  if (m_->access == Access::kMove) grant.exclusive = m_->exclusive;
  return grant;
}

void Step::ForgetCopy() {
  e_.open = false;
  e_.reported = false;
  e_.state = !e_.IsWaiting() ? S::kInvalid : e_.wanted == Access::kWrite ? S::kWaitWrite : S::kWaitRead;
}

void Step::Retain(Message answer) {
  e_.retained = CacheEntry::Retained{.txn = m_->txn,
                                     .version = e_.version,
                                     .flushed = e_.flushed,
                                     .grant_epoch = e_.grant_epoch,
                                     .requester = m_->peer,
                                     .request = m_->request,
                                     .owner = e_.IsOwner(),
                                     .data = nullptr,
                                     .since = context_.now,
                                     .answer = std::move(answer)};
}

void Step::Open() {
  e_.version = NextVersion(e_.version, e_.grant_epoch);
  e_.open = true;
}

void Step::RequestAccess(Access access) {
  e_.request = context_.next_request;
  e_.wanted = access;
  e_.delayed_by = {};
  Tell(OutstandingRequest(e_, page_));
  if (e_.state == S::kInvalid) {
    e_.state = access == Access::kWrite ? S::kWaitWrite : S::kWaitRead;
  } else {
    e_.state = e_.state == S::kShared ? S::kSharedWait : S::kOwnedWait;
  }
}

void Step::SendCopy() {
  e_.txn = m_->txn;
  if (e_.open && !(context_.bugs && context_.bugs->keep_rights_on_forward)) {
    Effect(CacheEffect::Kind::kProtect);
    e_.open = false;
  }
  if (e_.state == S::kExclusive && !e_.open) e_.state = S::kOwned;
  Send(CacheEffect::Kind::kSendFrame, m_->peer.node, GrantOf(e_.version, e_.flushed));
}

void Step::SendAway() {
  e_.txn = m_->txn;
  Message grant = GrantOf(e_.version, e_.flushed);
  Retain(grant);
  Effect(CacheEffect::Kind::kTakeRetain);
  Send(CacheEffect::Kind::kSendRetained, m_->peer.node, std::move(grant));
  ForgetCopy();
}

// Refused once, it is refused for good: the requester may have been told so, and ask for it again.
void Step::MoveAway() {
  const bool refused = m_->txn == e_.txn && !(context_.bugs && context_.bugs->move_after_refusal);
  const bool used = e_.IsPinned() || e_.IsWaiting() || e_.reported || context_.now < e_.hold_until;
  if (!refused && !used && context_.may_move) return SendAway();
  e_.txn = m_->txn;
  Tell(Answer(MessageKind::kGrantRefused));
}

void Step::GiveUp(bool retain) {
  e_.txn = m_->txn;
  Message ack = Answer(MessageKind::kInvalidateAck);
  ack.flushed = e_.flushed;
  if (retain) Retain(ack);
  Effect(retain ? CacheEffect::Kind::kTakeRetain : CacheEffect::Kind::kTake);
  Tell(std::move(ack));
  ForgetCopy();
}

// The responsible node names us as the owner by what it asks: a transfer that was retained under an earlier
// transaction was aborted.
void Step::ResendRetained() {
  CacheEntry::Retained& r = *e_.retained;
  e_.txn = std::max(e_.txn, m_->txn);
  const bool forward = m_->kind == MessageKind::kForward;
  if (forward && !r.owner) {
    Tell(Answer(MessageKind::kNotHeld));
    return;
  }
  if (forward && m_->access == Access::kRead) {
    TakeBack();
    SendCopy();
    return;
  }
  if (!forward && !m_->retain) {
    e_.retained.reset();
    Tell(Answer(MessageKind::kInvalidateAck));
    return;
  }
  if (m_->txn > r.txn) {
    r.txn = m_->txn;
    r.requester = m_->peer;
    r.request = m_->request;
    if (forward) {
      r.answer = GrantOf(r.version, r.flushed);
    } else {
      r.answer = Answer(MessageKind::kInvalidateAck);
      r.answer.flushed = r.flushed;
    }
  }
  r.since = context_.now;
  if (r.answer.kind == MessageKind::kGrant) {
    r.answer.active = r.answer.active || m_->active;
    Send(CacheEffect::Kind::kSendRetained, r.requester.node, r.answer);
  } else {
    Tell(r.answer);
  }
}

void Step::EndRequest() {
  e_.request = {};
  e_.pending.reset();
  switch (e_.state) {
    case S::kWaitRead:
    case S::kWaitWrite: e_.state = S::kInvalid; break;
    case S::kSharedWait: e_.state = S::kShared; break;
    case S::kOwnedWait: e_.state = S::kOwned; break;
    default: break;
  }
}

// Who waits for its acknowledgement meets the hold time anyway, unless there are others already.
void Step::Installed(const Message& grant) {
  e_.txn = grant.txn;
  e_.hold_until = context_.now + context_.hold;
  Message ack = Answer(MessageKind::kGrantAck);
  ack.txn = grant.txn;
  grant.hurry ? Tell(std::move(ack)) : TellLate(std::move(ack));
  Effect(CacheEffect::Kind::kWake);
}

void Step::InstallRead(const Message& grant) {
  if (e_.retained && !CarriesContent(grant)) {  // The owner is still us.
    TakeBack();
  } else {
    e_.retained.reset();
    e_.version = grant.version;
    e_.flushed = grant.flushed;
    e_.grant_epoch = grant.grant_epoch;
    e_.config = grant.config;
    e_.replicas = grant.replicas;
    Install(grant.data, false);
    e_.request = {};
    e_.state = grant.exclusive ? S::kExclusive : grant.owner ? S::kOwned : S::kShared;
  }
  Installed(grant);
}

// The owner's copy, with all that is known of it. A read copy that is here already is the same.
void Step::InstallMove(const Message& grant) {
  if (e_.retained && !CarriesContent(grant)) {  // The owner is still us.
    TakeBack();
  } else {
    const bool had_copy = e_.HasRead();
    e_.retained.reset();
    if (CarriesContent(grant)) {
      e_.version = grant.version;
      e_.flushed = grant.flushed;
      e_.grant_epoch = grant.grant_epoch;
      e_.config = grant.config;
      e_.replicas = grant.replicas;
    }
    if (!had_copy) Install(grant.data, false);
    e_.request = {};
    e_.reported = false;
    e_.state = grant.exclusive ? S::kExclusive : S::kOwned;
  }
  Installed(grant);
}

void Step::InstallWrite(const Message& grant) {
  if (e_.retained && !CarriesContent(grant)) TakeBack();
  const bool had_copy = e_.HasRead();
  e_.retained.reset();
  if (!had_copy) {
    e_.version = grant.version;
    e_.config = grant.config;
    e_.replicas = grant.replicas;
  }
  e_.flushed = grant.flushed;
  e_.grant_epoch = grant.grant_epoch;
  Open();
  if (had_copy) {
    Effect(CacheEffect::Kind::kRaise);
  } else {
    Install(grant.data, true);
  }
  e_.request = {};
  e_.pending.reset();
  e_.reported = false;
  e_.state = S::kExclusive;
  Installed(grant);
}

void Step::KeepPending() {
  if (!e_.pending || e_.pending->txn < m_->txn) e_.pending = CacheEntry::Pending{.grant = {}, .txn = m_->txn};
  if (e_.pending->txn != m_->txn) return;
  e_.pending->grant = *m_;
  e_.pending->have_grant = true;
  if (e_.pending->activated) InstallWrite(Message(e_.pending->grant));
}

void Step::ActivatePending() {
  if (!e_.pending || e_.pending->txn < m_->txn) e_.pending = CacheEntry::Pending{.grant = {}, .txn = m_->txn};
  if (e_.pending->txn != m_->txn) return;
  e_.pending->activated = true;
  if (e_.pending->have_grant) InstallWrite(Message(e_.pending->grant));
}

void Step::AnswerOther() {
  const bool installed = e_.txn == m_->txn && e_.HasRead();
  if (!installed && context_.bugs && context_.bugs->accept_stale_grant && m_->kind == MessageKind::kGrant &&
      m_->data != nullptr && m_->access == Access::kRead && e_.state == S::kInvalid && !e_.retained) {
    InstallRead(*m_);
    return;
  }
  Tell(Answer(installed ? MessageKind::kGrantAck : MessageKind::kGrantRefused));
}

void Step::TakeBack() {
  CacheEntry::Retained r = std::move(*e_.retained);
  e_.retained.reset();
  e_.version = r.version;
  e_.flushed = r.flushed;
  e_.grant_epoch = r.grant_epoch;
  Install(r.data, false);
  if (e_.state == S::kWaitWrite) {
    e_.state = r.owner ? S::kOwnedWait : S::kSharedWait;
  } else {
    e_.request = {};
    e_.pending.reset();
    e_.state = r.owner ? S::kOwned : S::kShared;
  }
  Effect(CacheEffect::Kind::kWake);
}

void Step::AnswerReport() {
  e_.txn = m_->txn;
  e_.deferred.reset();
  e_.pending.reset();
  if (e_.state == S::kEvicting) e_.state = S::kOwned;
  Message report = Answer(MessageKind::kReported);
  report.holding = HoldingOf(e_);
  report.version = HeldVersion(e_);
  report.flushed = e_.retained ? e_.retained->flushed : e_.flushed;
  report.config = e_.config;
  e_.reported = e_.HasRead();
  if (e_.retained) e_.retained->reported = true;
  Tell(std::move(report));
  if (e_.IsWaiting()) {
    e_.request = context_.next_request;
    Tell(OutstandingRequest(e_, page_));
  }
}

void Step::BecomeOwner() {
  const bool shared = e_.state == S::kShared || e_.state == S::kSharedWait;
  if (e_.retained) {
    e_.retained->owner = true;
    TakeBack();
    Renumber();
  } else if (shared) {
    e_.flushed = m_->complete ? e_.version : Version{};
    Renumber();
    e_.state = e_.state == S::kShared ? S::kOwned : S::kOwnedWait;
  } else if (!e_.IsOwner()) {
    Tell(Answer(MessageKind::kNotHeld));
    return;
  }
  e_.reported = false;
  e_.txn = m_->txn;
  e_.grant_epoch = std::max(e_.grant_epoch, m_->grant_epoch);
  Tell(Answer(MessageKind::kResolveAck));
}

// The surviving content gets a number that is newer than any that the lost owner may have given.
void Step::Renumber() {
  if (m_->version.epoch.value == 0 || m_->version == e_.version) return;
  e_.version = m_->version;
}

void Step::DropAll() {
  e_.txn = m_->txn;
  if (e_.HasRead()) Effect(CacheEffect::Kind::kTake);
  e_.retained.reset();
  ForgetCopy();
  Tell(Answer(MessageKind::kResolveAck));
}

// A pin that came after the asking keeps the copy here; so does an earlier refusal, of which this is an echo.
void Step::Evict() {
  const bool refused = m_->txn == e_.txn;
  if (e_.IsPinned()) e_.state = S::kOwned;
  if (refused || e_.IsPinned()) {
    RefuseEvict();
    return;
  }
  e_.txn = m_->txn;
  Effect(CacheEffect::Kind::kTake);
  ForgetCopy();
  Tell(Answer(MessageKind::kEvictAck));
}

void Step::RefuseEvict() {
  e_.txn = m_->txn;
  Message ack = Answer(MessageKind::kEvictAck);
  ack.kept = true;
  Tell(std::move(ack));
}

// The responsible node names us as the owner: what was retained is ours again, and may be dirty.
void Step::AckEvicted() {
  if (e_.retained && e_.retained->owner && m_->txn > e_.retained->txn) {
    TakeBack();
    RefuseEvict();
    return;
  }
  e_.txn = m_->txn;
  Tell(Answer(MessageKind::kEvictAck));
}

void Step::RunRevocation(CacheAction action) {
  switch (action) {
    case A::kDefer:
      if (!e_.deferred || e_.deferred->txn <= m_->txn) e_.deferred = *m_;
      if (context_.now < e_.hold_until) Effect(CacheEffect::Kind::kHoldTimer);
      break;
    case A::kSendCopy: SendCopy(); break;
    case A::kSendAway: SendAway(); break;
    case A::kMoveAway: MoveAway(); break;
    case A::kGiveUp: GiveUp(false); break;
    case A::kGiveUpRetain: GiveUp(true); break;
    case A::kAckInvalid:
      e_.txn = std::max(e_.txn, m_->txn);
      Tell(Answer(MessageKind::kInvalidateAck));
      break;
    case A::kNotHeld: Tell(Answer(MessageKind::kNotHeld)); break;
    case A::kResendRetained: ResendRetained(); break;
    case A::kEvict: Evict(); break;
    case A::kAckEvicted: AckEvicted(); break;
    case A::kRefuseEvict: RefuseEvict(); break;
    default: RunGrant(action);
  }
}

void Step::RunGrant(CacheAction action) {
  switch (action) {
    case A::kInstallRead: InstallRead(*m_); break;
    case A::kInstallMove: InstallMove(*m_); break;
    case A::kInstallWrite: InstallWrite(*m_); break;
    case A::kKeepPending: KeepPending(); break;
    case A::kActivatePending: ActivatePending(); break;
    case A::kAnswerOther: AnswerOther(); break;
    case A::kFailWaiters:
      EndRequest();
      Send(CacheEffect::Kind::kFail, {}, *m_);
      break;
    case A::kForgetRequest: EndRequest(); break;
    default: RunRecovery(action);
  }
}

void Step::RunRecovery(CacheAction action) {
  switch (action) {
    case A::kDropRetained:
      e_.retained.reset();
      TellLate(Answer(MessageKind::kTransferDropped));
      break;
    case A::kSayDropped: TellLate(Answer(MessageKind::kTransferDropped)); break;
    case A::kTakeBack: TakeBack(); break;
    case A::kAnswerReport: AnswerReport(); break;
    case A::kBecomeOwner: BecomeOwner(); break;
    case A::kStayShared:
      e_.txn = m_->txn;
      e_.reported = false;
      Renumber();
      Tell(Answer(MessageKind::kResolveAck));
      break;
    case A::kDropAll: DropAll(); break;
    default: CheckFailed(__FILE__, __LINE__, "no such action");
  }
}

void Step::Run(CacheEvent event) {
  const A action = kCacheTable[static_cast<size_t>(e_.state)][static_cast<size_t>(event)];
  switch (action) {
    case A::kImpossible:
      CheckFailed(__FILE__, __LINE__, (std::string("impossible: ") + Name(event) + " in " + Name(e_.state)).c_str());
      break;
    case A::kIgnore: break;
    case A::kRefuse: Send(CacheEffect::Kind::kRefused, {}, *m_); break;
    case A::kWake: Effect(CacheEffect::Kind::kWake); break;
    case A::kRequestRead: RequestAccess(Access::kRead); break;
    case A::kRequestWrite: RequestAccess(Access::kWrite); break;
    case A::kRequestMove: RequestAccess(Access::kMove); break;
    case A::kOpen:
      if (!e_.open) {
        Open();
        Effect(CacheEffect::Kind::kRaise);
      }
      Effect(CacheEffect::Kind::kWake);
      break;
    case A::kDropSilently:
      if (e_.reported || e_.shared_pins > 0) break;
      Effect(CacheEffect::Kind::kTake);
      ForgetCopy();
      break;
    case A::kAskEvict:
      CHECK(e_.CanDrop());
      e_.state = S::kEvicting;
      Tell(Answer(MessageKind::kEvictRequest));
      break;
    default: RunRevocation(action);
  }
}

}  // namespace

void StepCacheLocal(CacheEntry& entry, PageId page, CacheEvent event, const CacheContext& context,
                    std::vector<CacheEffect>& effects) {
  CHECK(event == E::kWantRead || event == E::kWantWrite || event == E::kWantMove || event == E::kWantEvict ||
        event == E::kCancel);
  Step(entry, page, nullptr, context.self.node, context, effects).Run(event);
  CHECK(Consistent(entry));
}

std::optional<CacheEvent> StepCacheMessage(CacheEntry& entry, const Message& message, NodeId from,
                                           const CacheContext& context, std::vector<CacheEffect>& effects) {
  const std::optional<CacheEvent> event = Classify(entry, message, from, context);
  if (!event) return event;
  Step(entry, message.page, &message, from, context, effects).Run(*event);
  CHECK(Consistent(entry));
  return event;
}

void StepCacheUnblocked(CacheEntry& entry, const CacheContext& context, std::vector<CacheEffect>& effects) {
  if (!entry.deferred) return;
  if (IsBlocked(entry, *entry.deferred, context.now)) {
    if (context.now < entry.hold_until) {
      effects.push_back({.kind = CacheEffect::Kind::kHoldTimer, .to = {}, .message = {}, .data = {}});
    }
    return;
  }
  const Message message = std::move(*entry.deferred);
  entry.deferred.reset();
  StepCacheMessage(entry, message, context.responsible, context, effects);
}

void ForgetResponsible(CacheEntry& entry, const CacheContext& context) {
  entry.txn = {};
  entry.deferred.reset();
  entry.pending.reset();
  entry.delayed_by = {};
  if (entry.state == S::kEvicting) entry.state = S::kOwned;
  entry.reported = false;
  if (entry.retained) entry.retained->reported = false;
  if (entry.IsWaiting()) entry.request = context.next_request;
}

}  // namespace mangrove
