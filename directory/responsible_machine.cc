#include "directory/responsible_machine.h"

#include <algorithm>
#include <utility>

#include "net/check.h"

namespace mangrove {
namespace {

using A = HomeAction;
using E = HomeEvent;
using K = MessageKind;
using S = HomeState;

constexpr A X = A::kImpossible;
constexpr A Ign = A::kIgnore;

template <typename C>
bool Has(const C& nodes, NodeInstance node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

template <typename C>
bool Erase(C& nodes, NodeInstance node) {
  const auto it = std::find(nodes.begin(), nodes.end(), node);
  if (it == nodes.end()) return false;
  nodes.erase(it);
  return true;
}

template <typename C>
void InsertSorted(C& nodes, NodeInstance node) {
  const auto it = std::lower_bound(nodes.begin(), nodes.end(), node);
  if (it == nodes.end() || *it != node) nodes.insert(it, node);
}

bool IsGone(NodeInstance node, NodeInstance alive) {
  return node.node == alive.node && node.incarnation < alive.incarnation;
}

// One step in progress.
class Step {
 public:
  Step(HomeEntry& entry, const HomeContext& context, std::vector<HomeEffect>& effects)
      : e_(entry), context_(context), effects_(effects) {}

  void Run(HomeEvent event);

  // Inputs of the event, as far as it has them.
  const Message* message = nullptr;
  NodeInstance from;  // Sender, or the incarnation that is alive.
  RequestId discard;
  const LoadedPage* loaded = nullptr;
  absl::Status load_status;

 private:
  void RunAnswer(HomeAction action);
  HomeRequest Incoming(HomeEvent event) const;
  void Enqueue(HomeEvent event);
  void Unqueue();
  void Serve();
  void Start(HomeRequest request);
  void StartAccess(HomeRequest request);
  void StartFlush(const HomeRequest& request);
  void StartEvict(const HomeRequest& request);
  void StartDiscard(const HomeRequest& request);
  void Load();
  void Loaded();
  void LoadFailed();
  void Invalidate(bool retain_at_source);
  void Progress();
  void CountAck();
  void Complete();
  void Abort();
  void Evicted();
  void Recover();
  void CountReport();
  const HolderReport& Best() const;
  void Decide();
  void Resolve(Version on_disk);
  void CountResolve();
  void ForgetPeer();
  void ForgetPeerOfGrant();
  void AnswerRetained();
  void SendAgain();
  void Adopt();
  void OwnerIsGone();

  void Begin(HomeState state, const HomeRequest& request);
  void End();
  void FinishDiscard();
  void Send(NodeId to, Message m) {
    effects_.push_back({.kind = HomeEffect::Kind::kSend, .to = to, .message = std::move(m), .request = {}});
  }
  void Effect(HomeEffect::Kind kind, RequestId request = {}) {
    Message m;
    m.page = context_.page;
    effects_.push_back({.kind = kind, .to = {}, .message = std::move(m), .request = request});
  }
  Message Make(K kind) const;
  void SendForward();
  void SendInvalidate(NodeInstance to);
  void SendGrant();
  void SendReport(NodeInstance to);
  void SendResolve(const HolderReport& report);
  void Fail(const HomeRequest& request, const absl::Status& status);
  std::vector<NodeInstance> Candidates() const;
  HomeTransaction& t() { return *e_.txn; }

  HomeEntry& e_;
  const HomeContext& context_;
  std::vector<HomeEffect>& effects_;
  uint64_t begun_ = 0;
};

Message Step::Make(K kind) const {
  Message m;
  m.kind = kind;
  m.page = context_.page;
  if (e_.txn) {
    m.txn = e_.txn->id;
    m.request = e_.txn->request.request;
    m.access = e_.txn->request.access;
    m.peer = e_.txn->request.from;
    m.active = e_.txn->active;
  }
  m.grant_epoch = context_.grant_epoch;
  return m;
}

void Step::Begin(HomeState state, const HomeRequest& request) {
  CHECK(begun_ < kTxnsPerStep);
  e_.state = state;
  e_.txn = std::make_unique<HomeTransaction>();
  e_.txn->id = Txn(context_.next_txn.value + begun_++);
  e_.txn->request = request;
  e_.txn->resend_at = context_.now + context_.resend_after;
  Effect(HomeEffect::Kind::kArmResend);
}

// The transaction is over: the next in the queue.
void Step::End() {
  e_.txn.reset();
  e_.state = e_.owner.node.value != 0 ? S::kOwned : S::kUnowned;
  Serve();
}

HomeRequest Step::Incoming(HomeEvent event) const {
  HomeRequest r;
  r.from = from;
  switch (event) {
    case E::kRequest:
      r.kind = HomeRequest::Kind::kAccess;
      r.request = message->request;
      r.access = message->access;
      r.have = message->have;
      break;
    case E::kFlush:
      r.kind = HomeRequest::Kind::kFlush;
      r.request = message->request;
      break;
    case E::kEvictRequest: r.kind = HomeRequest::Kind::kEvict; break;
    default:
      r.kind = HomeRequest::Kind::kDiscard;
      r.from = context_.self;
      r.request = discard;
  }
  return r;
}

void Step::Enqueue(HomeEvent event) {
  const HomeRequest incoming = Incoming(event);
  const auto same = [&](const HomeRequest& r) {
    return r.kind == incoming.kind && r.from == incoming.from && r.request == incoming.request;
  };
  const auto queued = std::find_if(e_.queue.begin(), e_.queue.end(), same);
  if (queued != e_.queue.end()) queued->have = incoming.have;
  if (queued != e_.queue.end() || (e_.txn && same(e_.txn->request))) {  // H3
    const std::vector<NodeInstance> waits = WaitsFor(e_);
    Message delayed;
    delayed.kind = K::kDelayed;
    delayed.page = context_.page;
    delayed.request = incoming.request;
    if (!waits.empty()) delayed.peer = waits.front();
    if (event == E::kRequest) Send(incoming.from.node, std::move(delayed));
    return;
  }
  e_.queue.push_back(incoming);
}

void Step::Unqueue() {
  std::erase_if(e_.queue, [&](const HomeRequest& r) {
    return r.kind == HomeRequest::Kind::kAccess && r.from == from && r.request == message->request;
  });
}

void Step::Serve() {
  while (context_.ready && !e_.IsBusy() && !e_.queue.empty() && begun_ < kTxnsPerStep) {
    HomeRequest next = e_.queue.front();
    e_.queue.pop_front();
    Start(std::move(next));
  }
}

void Step::Start(HomeRequest request) {
  switch (request.kind) {
    case HomeRequest::Kind::kAccess: StartAccess(std::move(request)); break;
    case HomeRequest::Kind::kFlush: StartFlush(request); break;
    case HomeRequest::Kind::kEvict: StartEvict(request); break;
    case HomeRequest::Kind::kDiscard: StartDiscard(request); break;
  }
}

void Step::StartAccess(HomeRequest request) {
  if (e_.state == S::kLost) {
    Fail(request, absl::DataLossError("page " + ToString(context_.page) + " is lost: no copy of it is left"));
    return;
  }
  const NodeInstance owner = e_.owner;
  const bool write = request.access == Access::kWrite;
  const bool current_copy = request.from == owner || (write && request.have && Has(e_.sharers, request.from));
  Begin(S::kGranting, request);
  t().upgrade = current_copy;
  if (owner.node.value == 0 && !current_copy) {
    Load();
    return;
  }
  if (request.from != owner) t().source = owner;
  const bool sends = !current_copy;  // The owner sends the page.
  if (write) {
    Invalidate(!sends);
  } else {
    t().active = true;
  }
  if (sends) SendForward();
  if (t().active && !sends) SendGrant();
}

void Step::StartFlush(const HomeRequest& request) {
  Message m;
  m.page = context_.page;
  m.request = request.request;
  if (e_.state == S::kLost) {
    m.kind = K::kFlushed;
    m.SetStatus(absl::DataLossError("page " + ToString(context_.page) + " is lost: no copy of it is left"));
    Send(request.from.node, std::move(m));
  } else if (e_.owner.node.value != 0) {
    m.kind = K::kFlush;
    m.peer = request.from;
    Send(e_.owner.node, std::move(m));
  } else if (e_.clean) {
    m.kind = K::kFlushed;
    Send(request.from.node, std::move(m));
  } else {  // What the disks hold may be newer on one than on another: opening completes it everywhere.
    Begin(S::kLoading, request);
    Load();
  }
}

void Step::StartEvict(const HomeRequest& request) {
  if (request.from != e_.owner) return;
  Begin(S::kEvicting, request);
  t().waiting = {e_.owner};
  Send(e_.owner.node, Make(K::kEvictGrant));
}

void Step::StartDiscard(const HomeRequest& request) {
  Begin(S::kDiscarding, request);
  t().waiting.assign(e_.sharers.begin(), e_.sharers.end());
  if (e_.owner.node.value != 0) t().waiting.push_back(e_.owner);
  for (const NodeInstance& node : t().waiting) SendInvalidate(node);
  if (t().waiting.empty()) FinishDiscard();
}

void Step::FinishDiscard() {
  Effect(HomeEffect::Kind::kDiscarded, t().request.request);
  e_.owner = {};
  e_.sharers.clear();
  e_.clean = true;
  e_.reverting = false;
  End();
}

void Step::Load() {
  e_.state = S::kLoading;
  Message m = Make(K::kRequest);
  effects_.push_back({.kind = HomeEffect::Kind::kLoad,
                      .to = {},
                      .message = std::move(m),
                      .recover = !e_.clean,
                      .version_only = !t().reports.empty(),
                      .request = {}});
}

void Step::Loaded() {
  if (!t().reports.empty()) {
    Resolve(loaded->version);
    return;
  }
  if (e_.reverting) Effect(HomeEffect::Kind::kReverted);
  e_.reverting = false;
  e_.clean = true;
  const HomeRequest request = t().request;
  if (request.kind == HomeRequest::Kind::kFlush || request.from.node.value == 0) {  // Or the requester is gone.
    e_.txn.reset();
    e_.state = S::kUnowned;
    if (request.kind == HomeRequest::Kind::kFlush) StartFlush(request);
    Serve();
    return;
  }
  e_.state = S::kGranting;
  t().from_disk = true;
  Message grant = Make(K::kGrant);
  grant.version = loaded->version;
  grant.flushed = loaded->version;
  grant.config = loaded->config;
  grant.replicas = loaded->replicas;
  grant.data = loaded->data;
  grant.owner = true;
  t().grant = std::move(grant);
  if (request.access == Access::kWrite) {
    Invalidate(false);
  } else {
    t().active = true;
  }
  if (t().active) SendGrant();
}

void Step::LoadFailed() {
  if (!t().reports.empty()) {
    if (load_status.code() == absl::StatusCode::kUnavailable) {
      e_.state = S::kReporting;  // Compared again at the next kResend.
    } else {
      Resolve({});
    }
    return;
  }
  const HomeRequest request = t().request;
  e_.txn.reset();
  e_.state = load_status.code() == absl::StatusCode::kDataLoss ? S::kLost : S::kUnowned;
  if (request.from.node.value != 0) Fail(request, load_status);
  if (e_.state == S::kLost) {
    while (!e_.queue.empty()) {
      const HomeRequest next = e_.queue.front();
      e_.queue.pop_front();
      Start(next);
      if (e_.IsBusy()) return;
    }
    return;
  }
  Serve();
}

void Step::Fail(const HomeRequest& request, const absl::Status& status) {
  Message m;
  m.kind = request.kind == HomeRequest::Kind::kFlush ? K::kFlushed : K::kRequestFailed;
  m.page = context_.page;
  m.request = request.request;
  m.SetStatus(status);
  Send(request.from.node, std::move(m));
}

// Sends the invalidations that the write grant waits for.
void Step::Invalidate(bool retain_at_source) {
  for (const NodeInstance& sharer : e_.sharers) {
    if (sharer != t().request.from) t().waiting.push_back(sharer);
  }
  if (context_.bugs && context_.bugs->skip_one_invalidation && !t().waiting.empty()) t().waiting.pop_back();
  if (retain_at_source && t().source.node.value != 0) t().waiting.push_back(t().source);
  for (const NodeInstance& node : t().waiting) SendInvalidate(node);
  t().active = t().waiting.empty() || (context_.bugs && context_.bugs->activate_before_acks);
}

void Step::SendInvalidate(NodeInstance to) {
  Message m = Make(K::kInvalidate);
  m.retain = t().upgrade && to == t().source;
  Send(to.node, std::move(m));
}

void Step::SendForward() { Send(t().source.node, Make(K::kForward)); }

void Step::SendGrant() {
  Message grant = t().from_disk ? t().grant : Make(K::kGrant);
  grant.active = true;
  if (t().from_disk) {
    const size_t others = e_.sharers.size() - (Has(e_.sharers, t().request.from) ? 1 : 0);
    grant.exclusive = t().request.access == Access::kWrite || others == 0;
  }
  Send(t().request.from.node, std::move(grant));
}

// Nobody is waited for any more: the next part of the transaction.
void Step::Progress() {
  if (!t().waiting.empty()) return;
  switch (e_.state) {
    case S::kGranting:
      if (t().active) return;
      t().active = true;
      if (t().upgrade || t().from_disk) {
        SendGrant();
      } else {
        Send(t().request.from.node, Make(K::kActivate));
      }
      break;
    case S::kDiscarding: FinishDiscard(); break;
    case S::kReporting: Decide(); break;
    case S::kResolving: End(); break;
    default: break;
  }
}

void Step::CountAck() {
  Erase(t().waiting, from);
  Erase(e_.sharers, from);
  Progress();
}

void Step::Complete() {
  const NodeInstance requester = t().request.from;
  if (t().request.access == Access::kWrite) {
    if (t().source.node.value != 0) Send(t().source.node, Make(K::kTransferDone));
    e_.owner = requester;
    e_.sharers.clear();
  } else if (e_.owner.node.value == 0) {
    e_.owner = requester;
    Erase(e_.sharers, requester);
  } else if (requester != e_.owner) {
    InsertSorted(e_.sharers, requester);
  }
  End();
}

// The requester will not install the grant. Sharers that acknowledged are gone from the set already.
void Step::Abort() {
  if (t().request.access == Access::kWrite && t().source.node.value != 0) {
    Send(t().source.node, Make(K::kTransferAborted));
  }
  End();
}

void Step::Evicted() {
  if (!message->kept) {
    e_.owner = {};
    e_.clean = true;
  }
  End();
}

std::vector<NodeInstance> Step::Candidates() const {
  std::vector<NodeInstance> nodes;
  const auto add = [&](NodeInstance node) {
    if (node.node.value != 0) InsertSorted(nodes, node);
  };
  add(e_.owner);
  for (const NodeInstance& node : e_.sharers) add(node);
  if (e_.txn) {
    add(e_.txn->source);
    if (e_.txn->request.kind == HomeRequest::Kind::kAccess) add(e_.txn->request.from);
    for (const NodeInstance& node : e_.txn->waiting) add(node);
    for (const HolderReport& report : e_.txn->reports) add(report.node);
  }
  for (const HolderReport& report : e_.registered) add(report.node);
  return nodes;
}

void Step::OwnerIsGone() {
  e_.owner = {};
  e_.sharers.clear();
  e_.clean = false;
  e_.reverting = true;
}

void Step::Recover() {
  std::vector<NodeInstance> candidates = Candidates();
  std::erase_if(candidates, [&](NodeInstance node) { return IsGone(node, from); });
  // An eviction or discard goes on afterwards; a requester asks again under a new number.
  std::optional<HomeRequest> again;
  if (e_.txn && e_.txn->request.kind == HomeRequest::Kind::kDiscard) again = e_.txn->request;
  e_.registered.clear();
  e_.owner = {};
  e_.sharers.clear();
  if (again) e_.queue.push_front(*again);
  if (candidates.empty()) {
    OwnerIsGone();
    End();
    return;
  }
  Begin(S::kReporting, HomeRequest{.kind = HomeRequest::Kind::kEvict, .from = {}, .request = {}});
  t().waiting = std::move(candidates);
  for (const NodeInstance& node : t().waiting) SendReport(node);
}

void Step::SendReport(NodeInstance to) { Send(to.node, Make(K::kReport)); }

void Step::CountReport() {
  Erase(t().waiting, from);
  t().reports.push_back({.node = from, .holding = message->holding, .version = message->version});
  Progress();
}

// The newest version wins; of equal ones the owner's, then a retained one, then a read copy.
const HolderReport& Step::Best() const {
  const auto rank = [](const HolderReport& r) {
    return r.holding == Holding::kOwner ? 2 : r.holding == Holding::kRetained ? 1 : 0;
  };
  const std::vector<HolderReport>& reports = e_.txn->reports;
  return *std::max_element(reports.begin(), reports.end(), [&](const auto& a, const auto& b) {
    if (a.version != b.version) return a.version < b.version;
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    return b.node < a.node;
  });
}

// Every report is in.
void Step::Decide() {
  std::erase_if(t().reports, [](const HolderReport& r) { return r.holding == Holding::kNone; });
  if (t().reports.empty()) {
    OwnerIsGone();
    End();
  } else if (Best().holding == Holding::kOwner) {
    Resolve({});
  } else {
    e_.clean = false;
    Load();  // I6
  }
}

void Step::Resolve(Version on_disk) {
  const HolderReport best = Best();
  std::vector<HolderReport> reports = std::move(t().reports);
  const bool disk_wins = best.holding != Holding::kOwner && best.version < on_disk;
  Begin(S::kResolving, HomeRequest{.kind = HomeRequest::Kind::kEvict, .from = {}, .request = {}});
  e_.owner = disk_wins ? NodeInstance{} : best.node;
  e_.sharers.clear();
  e_.clean = false;
  for (HolderReport& report : reports) {
    const bool same_copy = report.holding == Holding::kShared && report.version == best.version && !disk_wins;
    report.holding = report.node == e_.owner ? Holding::kOwner : same_copy ? Holding::kShared : Holding::kNone;
    report.version = best.holding == Holding::kOwner ? Version{} : Version{context_.grant_epoch, 1};
    if (report.holding == Holding::kShared) InsertSorted(e_.sharers, report.node);
    t().waiting.push_back(report.node);
    SendResolve(report);
  }
  t().reports = std::move(reports);
}

void Step::SendResolve(const HolderReport& report) {
  Message m = Make(K::kResolve);
  m.holding = report.holding;
  m.version = report.version;
  Send(report.node.node, std::move(m));
}

void Step::CountResolve() {
  Erase(t().waiting, from);
  Progress();
}

void Step::ForgetPeer() {
  if (context_.bugs && context_.bugs->forget_incarnation) return;
  const auto gone = [&](NodeInstance node) { return IsGone(node, from); };
  std::erase_if(e_.queue, [&](const HomeRequest& r) { return gone(r.from); });
  e_.sharers.erase(std::remove_if(e_.sharers.begin(), e_.sharers.end(), gone), e_.sharers.end());
  std::erase_if(e_.registered, [&](const HolderReport& r) { return gone(r.node); });
  switch (e_.state) {
    case S::kUnowned:
    case S::kLost: break;
    case S::kLoading:
      if (gone(t().request.from)) t().request.from = {};
      if (std::erase_if(t().reports, [&](const HolderReport& r) { return gone(r.node); }) > 0) Recover();
      break;
    case S::kOwned:
    case S::kEvicting:
      if (gone(e_.owner)) Recover();
      break;
    case S::kGranting: ForgetPeerOfGrant(); break;
    case S::kDiscarding:
      if (gone(e_.owner)) e_.owner = {};
      std::erase_if(t().waiting, gone);
      Progress();
      break;
    case S::kReporting:
      std::erase_if(t().waiting, gone);
      std::erase_if(t().reports, [&](const HolderReport& r) { return gone(r.node); });
      Progress();
      break;
    case S::kResolving:
      if (std::any_of(t().reports.begin(), t().reports.end(), [&](const auto& r) { return gone(r.node); })) Recover();
      break;
  }
}

void Step::ForgetPeerOfGrant() {
  const auto gone = [&](NodeInstance node) { return IsGone(node, from); };
  if (gone(t().source) || gone(e_.owner)) {
    Recover();
  } else if (gone(t().request.from)) {
    const bool may_have_written = t().active && (t().request.access == Access::kWrite || t().from_disk);
    if (may_have_written) {
      Recover();
    } else {
      Abort();
    }
  } else {
    std::erase_if(t().waiting, gone);
    Progress();
  }
}

void Step::AnswerRetained() {
  if (!context_.ready || e_.state == S::kReporting || e_.state == S::kResolving) return;
  if (e_.txn && e_.txn->id == message->txn) return;
  Message answer;
  answer.kind = e_.owner == from ? K::kTransferAborted : K::kTransferDone;
  answer.page = context_.page;
  answer.txn = message->txn;
  Send(from.node, std::move(answer));
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
      for (const NodeInstance& node : t().waiting) SendInvalidate(node);
      break;
    case S::kReporting:
      for (const NodeInstance& node : t().waiting) SendReport(node);
      if (t().waiting.empty()) Decide();
      break;
    case S::kResolving:
      for (const HolderReport& report : t().reports) {
        if (Has(t().waiting, report.node)) SendResolve(report);
      }
      break;
    default: break;
  }
}

void Step::Adopt() {
  if (e_.registered.empty() || e_.IsBusy()) {
    Serve();
    return;
  }
  std::vector<HolderReport> reports = std::move(e_.registered);
  e_.registered.clear();
  const auto owners =
      std::count_if(reports.begin(), reports.end(), [](const HolderReport& r) { return r.holding == Holding::kOwner; });
  const bool retained = std::any_of(reports.begin(), reports.end(),
                                    [](const HolderReport& r) { return r.holding == Holding::kRetained; });
  if (owners != 1 || retained) {
    e_.registered = std::move(reports);
    Recover();
    return;
  }
  for (const HolderReport& report : reports) {
    if (report.holding == Holding::kOwner) e_.owner = report.node;
    if (report.holding == Holding::kShared) InsertSorted(e_.sharers, report.node);
  }
  End();
}

void Step::RunAnswer(HomeAction action) {
  switch (action) {
    case A::kLoaded: Loaded(); break;
    case A::kLoadFailed: LoadFailed(); break;
    case A::kCountAck: CountAck(); break;
    case A::kComplete: Complete(); break;
    case A::kAbort: Abort(); break;
    case A::kRecover: Recover(); break;
    case A::kAnswerRetained: AnswerRetained(); break;
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
    case A::kRefuseLost: Start(Incoming(event)); break;
    default: RunAnswer(action);
  }
}

// H1: whether an answer belongs to the current transaction, and is awaited.
bool IsAwaited(const HomeEntry& e, HomeEvent event, const Message& m, NodeInstance from) {
  if (!e.txn || m.txn != e.txn->id) return false;
  switch (event) {
    case E::kInvalidateAck:
    case E::kEvictAck:
    case E::kReported:
    case E::kResolveAck: return Has(e.txn->waiting, from);
    case E::kGrantAck:
    case E::kGrantRefused: return e.state == S::kGranting && from == e.txn->request.from;
    default:  // kNotHeld
      return from == e.txn->source || Has(e.txn->waiting, from);
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
    case K::kEvictAck: return E::kEvictAck;
    case K::kReported: return E::kReported;
    case K::kResolveAck: return E::kResolveAck;
    default: return std::nullopt;
  }
}

void RunAndCheck(Step& step, HomeEntry& entry, HomeEvent event) {
  step.Run(event);
  CHECK(Consistent(entry));
}

}  // namespace

// clang-format off
const std::array<std::array<HomeAction, kHomeEvents>, kHomeStates> kHomeTable = {{
    // Request, Cancel, Flush, EvictRequest, Discard, Loaded, LoadFailed,
    //   InvalidateAck, GrantAck, GrantRefused, NotHeld, StillRetained, EvictAck, Reported, ResolveAck,
    //   PeerLost, Resend, Ready
    /* Unowned    */ {A::kServe, A::kUnqueue, A::kServe, Ign, A::kServe, X, X,
                      X, X, X, X, A::kAnswerRetained, X, X, X,
                      A::kForgetPeer, X, A::kAdopt},
    /* Owned      */ {A::kServe, A::kUnqueue, A::kServe, A::kServe, A::kServe, X, X,
                      X, X, X, X, A::kAnswerRetained, X, X, X,
                      A::kForgetPeer, X, A::kAdopt},
    /* Loading    */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, A::kLoaded, A::kLoadFailed,
                      X, X, X, X, A::kAnswerRetained, X, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Granting   */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, A::kEnqueue, A::kEnqueue, X, X,
                      A::kCountAck, A::kComplete, A::kAbort, A::kRecover, A::kAnswerRetained, X, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Evicting   */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      X, X, X, A::kRecover, A::kAnswerRetained, A::kEvicted, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Discarding */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      A::kCountAck, X, X, Ign, A::kAnswerRetained, X, X, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Reporting  */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      X, X, X, Ign, A::kAnswerRetained, X, A::kCountReport, X,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Resolving  */ {A::kEnqueue, A::kUnqueue, A::kEnqueue, Ign, A::kEnqueue, X, X,
                      X, X, X, A::kRecover, A::kAnswerRetained, X, X, A::kCountResolve,
                      A::kForgetPeer, A::kSendAgain, X},
    /* Lost       */ {A::kRefuseLost, Ign, A::kRefuseLost, Ign, A::kRefuseLost, X, X,
                      X, X, X, X, A::kAnswerRetained, X, X, X,
                      A::kForgetPeer, X, A::kAdopt},
}};
// clang-format on

std::optional<HomeEvent> StepHomeMessage(HomeEntry& entry, const Message& message, NodeInstance from,
                                         const HomeContext& context, std::vector<HomeEffect>& effects) {
  const std::optional<HomeEvent> event = EventOf(message.kind);
  CHECK(event.has_value());
  switch (*event) {
    case E::kRequest:
    case E::kCancel:
    case E::kFlush:
    case E::kStillRetained: break;
    case E::kEvictRequest:
      if (from != entry.owner) return std::nullopt;
      break;
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
  if (!entry.txn || entry.txn->id != txn || entry.state != S::kLoading) return;
  Step step(entry, context, effects);
  step.loaded = &page;
  RunAndCheck(step, entry, E::kLoaded);
}

void StepHomeLoadFailed(HomeEntry& entry, Txn txn, const absl::Status& status, const HomeContext& context,
                        std::vector<HomeEffect>& effects) {
  if (!entry.txn || entry.txn->id != txn || entry.state != S::kLoading) return;
  Step step(entry, context, effects);
  step.load_status = status;
  RunAndCheck(step, entry, E::kLoadFailed);
}

void StepHomeDiscard(HomeEntry& entry, RequestId request, const HomeContext& context,
                     std::vector<HomeEffect>& effects) {
  Step step(entry, context, effects);
  step.discard = request;
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
  if (!entry.txn || context.now < entry.txn->resend_at) return;
  Step step(entry, context, effects);
  RunAndCheck(step, entry, E::kResend);
}

void StepHomeReady(HomeEntry& entry, const HomeContext& context, std::vector<HomeEffect>& effects) {
  Step step(entry, context, effects);
  RunAndCheck(step, entry, E::kReady);
}

void Register(HomeEntry& entry, const HolderReport& report) {
  std::erase_if(entry.registered, [&](const HolderReport& r) { return r.node.node == report.node.node; });
  entry.registered.push_back(report);
}

std::vector<NodeInstance> WaitsFor(const HomeEntry& entry) {
  if (!entry.txn) return {};
  if (!entry.txn->waiting.empty()) return entry.txn->waiting;
  if (entry.state != S::kGranting) return {};
  if (entry.txn->source.node.value != 0 && !entry.txn->upgrade) return {entry.txn->source};
  return {entry.txn->request.from};
}

bool IsForHome(MessageKind kind) { return EventOf(kind).has_value(); }

bool Consistent(const HomeEntry& e) {
  const bool busy = e.state != S::kUnowned && e.state != S::kOwned && e.state != S::kLost;
  if (busy != e.IsBusy()) return false;                               // I1
  if (e.state == S::kOwned && e.owner.node.value == 0) return false;  // I2
  if ((e.state == S::kUnowned || e.state == S::kLost) && e.owner.node.value != 0) return false;
  return std::is_sorted(e.sharers.begin(), e.sharers.end()) && (e.owner.node.value == 0 || !Has(e.sharers, e.owner));
}

const char* Name(HomeState state) {
  constexpr const char* kNames[kHomeStates] = {"Unowned",    "Owned",     "Loading",   "Granting", "Evicting",
                                               "Discarding", "Reporting", "Resolving", "Lost"};
  return kNames[static_cast<size_t>(state)];
}

const char* Name(HomeEvent event) {
  constexpr const char* kNames[kHomeEvents] = {
      "Request",    "Cancel",        "Flush",      "EvictRequest", "Discard", "Loaded",
      "LoadFailed", "InvalidateAck", "GrantAck",   "GrantRefused", "NotHeld", "StillRetained",
      "EvictAck",   "Reported",      "ResolveAck", "PeerLost",     "Resend",  "Ready"};
  return kNames[static_cast<size_t>(event)];
}

}  // namespace mangrove
