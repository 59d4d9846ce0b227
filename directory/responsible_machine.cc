#include "directory/responsible_machine.h"

#include <algorithm>
#include <utility>

#include "directory/responsible_step.h"
#include "net/check.h"

namespace mangrove {

const HomeWork& HomeEntry::Work() const {
  static const HomeWork kNone;
  return work ? *work : kNone;
}

HomeWork& HomeEntry::MakeWork() {
  if (!work) work = HomeWork{};
  return *work;
}

namespace home {

HomeWork& Step::TakeWork(HomeEntry& entry, const HomeContext& context) {
  if (!entry.work && context.pool != nullptr && !context.pool->spare.empty()) {
    entry.work = std::move(context.pool->spare.back());
    context.pool->spare.pop_back();
  }
  return entry.MakeWork();
}

void Step::PutWorkAway() {
  if (!w_.IsOver()) return;
  if (context_.pool != nullptr && context_.pool->spare.size() < HomePool::kSpare) {
    context_.pool->spare.push_back(std::move(e_.work));
  }
  e_.work.reset();
}

void Step::AddSharer(NodeInstance node) {
  e_.sharers =
      context_.pool != nullptr ? context_.pool->sharers.With(e_.sharers, node) : SharerTable().With(e_.sharers, node);
}

void Step::DropSharer(NodeInstance node) {
  e_.sharers = context_.pool != nullptr ? context_.pool->sharers.Without(e_.sharers, node)
                                        : SharerTable().Without(e_.sharers, node);
}

void Step::SendAgain() {
  t().resends = std::min(t().resends + 1, 4);
  t().resend_at = context_.now + (context_.resend_after << t().resends);
  Effect(HomeEffect::Kind::kArmResend);
  switch (e_.state) {
    case S::kGranting: {
      for (const NodeInstance& node : t().waiting) SendInvalidate(node);
      const bool sends = t().source.node.value != 0 && !t().upgrade;
      if (sends) SendForward();
      if (t().active && !sends) SendGrant();
      if (t().active && sends && t().request.access == Access::kWrite) {
        Send(t().request.from.node, Make(K::kActivate));
      }
      break;
    }
    case S::kEvicting: Send(e_.owner.node, Make(K::kEvictGrant)); break;
    case S::kDiscarding:
      if (t().request.request == kCallIn) return End();
      for (const NodeInstance& node : t().waiting) SendInvalidate(node);
      break;
    case S::kReporting:
      for (const NodeInstance& node : t().waiting) SendReport(node);
      if (t().waiting.empty()) Decide();
      break;
    case S::kResolving:
      // What was appointed has had nothing to write under, and stays a sharer.
      if (t().appoints && !IsUp(t().waiting.front())) return End();
      for (const HolderReport& report : t().reports) {
        if (Has(t().waiting, report.node)) SendResolve(report);
      }
      break;
    default: break;
  }
}
void Step::RunAnswer(HomeAction action) {
  switch (action) {
    case A::kLoaded: Loaded(); break;
    case A::kLoadFailed: LoadFailed(); break;
    case A::kCountAck: CountAck(); break;
    case A::kComplete: Complete(); break;
    case A::kAbort: Abort(); break;
    case A::kRecover: NotHeld(); break;
    case A::kAnswerRetained: AnswerRetained(); break;
    case A::kForgetKeeper: ForgetKeeper(from, message->txn); break;
    case A::kEvicted: Evicted(); break;
    case A::kCountReport: CountReport(); break;
    case A::kCountResolve: CountResolve(); break;
    case A::kForgetPeer: ForgetPeer(); break;
    case A::kSendAgain: SendAgain(); break;
    case A::kAdopt: Adopt(); break;
    default: CheckFailed(__FILE__, __LINE__, "no such action");
  }
}

void Step::Run(HomeEvent event) {
  const A action = kHomeTable[static_cast<size_t>(e_.state)][static_cast<size_t>(event)];
  switch (action) {
    case A::kImpossible:
      CheckFailed(__FILE__, __LINE__, (std::string("impossible: ") + Name(event) + " in " + Name(e_.state)).c_str());
    case A::kIgnore: break;
    case A::kServe:
      Enqueue(event);
      Serve();
      break;
    case A::kEnqueue: Enqueue(event); break;
    case A::kUnqueue: Unqueue(); break;
    default: RunAnswer(action);
  }
}

std::optional<HomeEvent> EventOf(K kind) {
  switch (kind) {
    case K::kRequest: return E::kRequest;
    case K::kCancel: return E::kCancel;
    case K::kFlush: return E::kFlush;
    case K::kEvictRequest: return E::kEvictRequest;
    case K::kInvalidateAck: return E::kInvalidateAck;
    case K::kGrantAck: return E::kGrantAck;
    case K::kGrantRefused: return E::kGrantRefused;
    case K::kNotHeld: return E::kNotHeld;
    case K::kStillRetained: return E::kStillRetained;
    case K::kTransferDropped: return E::kTransferDropped;
    case K::kEvictAck: return E::kEvictAck;
    case K::kReported: return E::kReported;
    case K::kResolveAck: return E::kResolveAck;
    default: return std::nullopt;
  }
}
}  // namespace home

namespace {

using home::E;
using home::Has;
using home::S;
using home::Step;

// H1: whether an answer belongs to the current transaction, and is awaited.
bool IsAwaited(const HomeEntry& e, HomeEvent event, const Message& m, NodeInstance from) {
  const HomeTransaction* t = e.txn();
  if (t == nullptr || m.txn != t->id) return false;
  switch (event) {
    case E::kInvalidateAck: return (e.state == S::kGranting || e.state == S::kDiscarding) && Has(t->waiting, from);
    case E::kEvictAck: return e.state == S::kEvicting && Has(t->waiting, from);
    case E::kReported: return e.state == S::kReporting && Has(t->waiting, from);
    case E::kResolveAck: return e.state == S::kResolving && Has(t->waiting, from);
    case E::kGrantAck: return e.state == S::kGranting && from == t->request.from;
    case E::kGrantRefused: {
      const bool kept = t->request.access == Access::kMove && from == t->source;
      return e.state == S::kGranting && (kept || from == t->request.from);
    }
    default:  // kNotHeld
      return from == t->source || Has(t->waiting, from);
  }
}
void RunAndCheck(Step& step, HomeEntry& entry, HomeEvent event) {
  step.Run(event);
  step.PutWorkAway();
  CHECK(Consistent(entry));
}

}  // namespace
std::optional<HomeEvent> StepHomeMessage(HomeEntry& entry, const Message& message, NodeInstance from,
                                         const HomeContext& context, std::vector<HomeEffect>& effects) {
  const std::optional<HomeEvent> event = home::EventOf(message.kind);
  CHECK(event.has_value());
  switch (*event) {
    case E::kRequest:
    case E::kCancel:
    case E::kFlush:
    case E::kStillRetained:
    case E::kTransferDropped: break;
    case E::kEvictRequest:
      if (from == entry.owner) break;
      if (context.ready && !entry.IsBusy() && Has(entry.sharers, from)) {
        Step step(entry, context, effects);
        step.from = from;
        step.TakeFromSharer();
        step.PutWorkAway();
        return event;
      }
      return std::nullopt;
    default:
      if (!IsAwaited(entry, *event, message, from)) return std::nullopt;
  }
  Step step(entry, context, effects);
  step.message = &message;
  step.from = from;
  RunAndCheck(step, entry, *event);
  return event;
}

void StepHomeLoaded(HomeEntry& entry, Txn txn, const LoadedPage& page, const HomeContext& context,
                    std::vector<HomeEffect>& effects) {
  if (!entry.txn() || entry.txn()->id != txn || entry.state != S::kLoading) return;
  Step step(entry, context, effects);
  step.loaded = &page;
  RunAndCheck(step, entry, E::kLoaded);
}

void StepHomeLoadFailed(HomeEntry& entry, Txn txn, const absl::Status& status, const HomeContext& context,
                        std::vector<HomeEffect>& effects) {
  if (!entry.txn() || entry.txn()->id != txn || entry.state != S::kLoading) return;
  Step step(entry, context, effects);
  step.load_status = status;
  RunAndCheck(step, entry, E::kLoadFailed);
}

void StepHomeDiscard(HomeEntry& entry, RequestId request, ConfigNumber at_most, const HomeContext& context,
                     std::vector<HomeEffect>& effects) {
  const bool may_call_in = context.ready && entry.state == S::kUnowned && entry.clean && !entry.reverting;
  CHECK(request != kCallIn || may_call_in);
  Step step(entry, context, effects);
  step.discard = request;
  step.discard_at_most = at_most;
  step.from = context.self;
  RunAndCheck(step, entry, E::kDiscard);
}

void StepHomePeerLost(HomeEntry& entry, NodeInstance alive, const HomeContext& context,
                      std::vector<HomeEffect>& effects) {
  Step step(entry, context, effects);
  step.from = alive;
  RunAndCheck(step, entry, E::kPeerLost);
}

void StepHomeResend(HomeEntry& entry, const HomeContext& context, std::vector<HomeEffect>& effects) {
  if (!entry.txn() || context.now < entry.txn()->resend_at) return;
  Step step(entry, context, effects);
  RunAndCheck(step, entry, E::kResend);
}

void StepHomeReady(HomeEntry& entry, const HomeContext& context, std::vector<HomeEffect>& effects) {
  Step step(entry, context, effects);
  RunAndCheck(step, entry, E::kReady);
}

void Register(HomeEntry& entry, const HolderReport& report) {
  std::vector<HolderReport>& registered = entry.MakeWork().registered;
  std::erase_if(registered, [&](const HolderReport& r) { return r.node.node == report.node.node; });
  registered.push_back(report);
}

std::vector<NodeInstance> WaitsFor(const HomeEntry& entry) {
  const HomeTransaction* t = entry.txn();
  if (t == nullptr) return {};
  if (!t->waiting.empty()) return {t->waiting.begin(), t->waiting.end()};
  if (entry.state != S::kGranting) return {};
  // The source may have sent the page, and the requester not have said that it came.
  if (t->source.node.value != 0 && !t->upgrade) return {t->source, t->request.from};
  return {t->request.from};
}

bool IsForHome(MessageKind kind) { return home::EventOf(kind).has_value(); }

bool Consistent(const HomeEntry& e) {
  const bool busy = e.state != S::kUnowned && e.state != S::kOwned && e.state != S::kLost;
  if (busy != e.IsBusy()) return false;                               // I1
  if (e.state == S::kOwned && e.owner.node.value == 0) return false;  // I2
  if ((e.state == S::kUnowned || e.state == S::kLost) && e.owner.node.value != 0) return false;
  if (e.work && e.work->IsOver()) return false;                    // I8
  return e.owner.node.value == 0 || !e.sharers.Contains(e.owner);  // I3
}

}  // namespace mangrove
