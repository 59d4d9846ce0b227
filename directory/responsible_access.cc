#include "directory/responsible_step.h"

#include <algorithm>
#include <utility>

#include "net/check.h"

namespace mangrove::home {

Message Step::Make(K kind) const {
  Message m;
  m.kind = kind;
  m.page = context_.page;
  if (w_.txn) {
    m.txn = w_.txn->id;
    m.request = w_.txn->request.request;
    m.access = w_.txn->request.access;
    m.peer = w_.txn->request.from;
    m.active = w_.txn->active;
    m.hurry = !w_.queue.empty();
  }
  m.grant_epoch = context_.grant_epoch;
  return m;
}

void Step::Begin(HomeState state, const HomeRequest& request) {
  CHECK(begun_ < kTxnsPerStep);
  e_.state = state;
  w_.txn.emplace();
  w_.txn->id = Txn(context_.next_txn.value + begun_++);
  w_.txn->request = request;
  w_.txn->resend_at = context_.now + context_.resend_after;
  Effect(HomeEffect::Kind::kArmResend);
}

// The transaction is over: the next in the queue.
void Step::End() {
  const bool was_lost = w_.txn && w_.txn->was_lost;
  w_.txn.reset();
  e_.state = e_.owner.node.value != 0 ? S::kOwned : was_lost ? S::kLost : S::kUnowned;
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
      r.at_most = discard_at_most;
  }
  return r;
}

void Step::Enqueue(HomeEvent event) {
  const HomeRequest incoming = Incoming(event);
  const auto same = [&](const HomeRequest& r) {
    return r.kind == incoming.kind && r.from == incoming.from && r.request == incoming.request;
  };
  const auto queued = std::find_if(w_.queue.begin(), w_.queue.end(), same);
  if (queued != w_.queue.end()) queued->have = incoming.have;
  if (queued != w_.queue.end() || (w_.txn && same(w_.txn->request))) {  // H3
    const std::vector<NodeInstance> waits = WaitsFor(e_);
    Message delayed;
    delayed.kind = K::kDelayed;
    delayed.page = context_.page;
    delayed.request = incoming.request;
    if (!waits.empty()) delayed.peer = waits.front();
    if (event == E::kRequest) Send(incoming.from.node, std::move(delayed));
    return;
  }
  w_.queue.push_back(incoming);
}

void Step::Unqueue() {
  EraseIf(w_.queue, [&](const HomeRequest& r) {
    return r.kind == HomeRequest::Kind::kAccess && r.from == from && r.request == message->request;
  });
}

void Step::Serve() {
  while (context_.ready && !w_.txn && !w_.queue.empty() && begun_ < kTxnsPerStep) {
    HomeRequest next = w_.queue.front();
    w_.queue.erase(w_.queue.begin());
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
  const NodeInstance owner = e_.owner;
  const bool write = request.access == Access::kWrite;
  if (request.access == Access::kMove && owner.node.value == 0) {
    Fail(request, absl::AbortedError("page " + ToString(context_.page) + " has no owner that offers it"));
    return;
  }
  if (e_.state == S::kLost) return FindAgain(request);
  const bool current_copy = request.from == owner || (write && request.have && Has(e_.sharers, request.from));
  if (owner.node.value == 0 && !current_copy && Appoint(request)) return;
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

// The disks say each time whether a lost page is lost still: whoever was allocating it may have told them since that it is zeros.
// A sharer that was away when the page was lost has a current copy, if it has one: nobody was given the page since, and what has left
// the view is no sharer. Its copy is taken as after a loss, in a new number, since the disks may refuse the one that it has (I6).
void Step::FindAgain(const HomeRequest& request) {
  if (std::any_of(e_.sharers.begin(), e_.sharers.end(), [&](NodeInstance node) { return IsUp(node); })) {
    w_.queue.insert(w_.queue.begin(), request);
    Recover(false);
    t().was_lost = true;
    return;
  }
  Begin(S::kLoading, request);
  t().was_lost = true;
  Load();
}

// Nobody owns the page, and every disk has it: so does each sharer that has not dropped its copy. One that has answers for
// the page before the request is served. One that is away is left in peace, since there are the disks.
bool Step::Appoint(const HomeRequest& request) {
  if (!e_.clean || e_.reverting) return false;
  const auto sharer = std::find_if(e_.sharers.begin(), e_.sharers.end(),
                                   [&](NodeInstance node) { return node != request.from && IsUp(node); });
  if (sharer == e_.sharers.end()) return false;
  const HolderReport appointed{.node = *sharer, .holding = Holding::kOwner};
  w_.queue.insert(w_.queue.begin(), request);
  Begin(S::kResolving, HomeRequest{.kind = HomeRequest::Kind::kEvict, .from = {}, .request = {}});
  t().appoints = true;
  t().waiting = {appointed.node};
  t().reports = {appointed};
  SendResolve(appointed);
  return true;
}

// The copy of a sharer, which wants to drop it. If it may be the newest, it is found out first who has what.
void Step::TakeFromSharer() {
  const bool is_elsewhere = e_.owner.node.value != 0 || (e_.state == S::kUnowned && e_.clean && !e_.reverting);
  if (!is_elsewhere) {
    const bool was_lost = e_.state == S::kLost;
    Recover(false);
    t().was_lost = was_lost;
    return;
  }
  Message m = Make(K::kInvalidate);
  m.txn = Txn(context_.next_txn.value + begun_++);
  Effect(HomeEffect::Kind::kArmResend);  // The number is used.
  Send(from.node, std::move(m));
}

void Step::StartFlush(const HomeRequest& request) {
  Message m;
  m.page = context_.page;
  m.request = request.request;
  if (e_.state == S::kLost) {
    FindAgain(request);
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
  if (request.at_most < context_.config) {  // Allocated anew since it was asked for.
    Effect(HomeEffect::Kind::kDiscarded, request.request);
    return;
  }
  Begin(S::kDiscarding, request);
  t().waiting.assign(e_.sharers.begin(), e_.sharers.end());
  if (e_.owner.node.value != 0) t().waiting.push_back(e_.owner);
  for (const NodeInstance& node : t().waiting) SendInvalidate(node);
  if (t().waiting.empty()) FinishDiscard();
}

void Step::FinishDiscard() {
  Effect(HomeEffect::Kind::kDiscarded, t().request.request);
  e_.owner = {};
  e_.sharers = {};
  e_.clean = true;
  e_.reverting = false;
  End();
}

void Step::Load() {
  e_.state = S::kLoading;
  Message m = Make(K::kRequest);
  const bool compares = !t().reports.empty();
  if (compares) m.version = Best().version;
  if (compares) m.config = Best().config;
  effects_.push_back({.kind = HomeEffect::Kind::kLoad,
                      .to = {},
                      .message = std::move(m),
                      .recover = !e_.clean,
                      .version_only = compares,
                      .reverting = e_.reverting || t().lost,
                      .request = {}});
}

void Step::Loaded() {
  if (!t().reports.empty()) {
    Resolve(loaded);
    return;
  }
  if (e_.reverting) Effect(HomeEffect::Kind::kReverted);
  e_.reverting = false;
  e_.clean = true;
  t().was_lost = false;
  const HomeRequest request = t().request;
  if (request.kind == HomeRequest::Kind::kFlush || request.from.node.value == 0) {  // Or the requester is gone.
    w_.txn.reset();
    e_.state = S::kUnowned;
    if (request.from.node.value != 0) StartFlush(request);
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
    } else if (load_status.code() == absl::StatusCode::kFailedPrecondition) {
      const LoadedPage unallocated{.version = {}, .config = ConfigNumber(UINT64_MAX), .data = nullptr};
      Resolve(&unallocated);  // Not allocated: no copy counts.
    } else {
      Resolve(nullptr);  // No disk has it any more.
    }
    return;
  }
  const HomeRequest request = t().request;
  const bool was_lost = t().was_lost;
  w_.txn.reset();
  const bool stays_lost = was_lost && load_status.code() == absl::StatusCode::kUnavailable;
  e_.state = stays_lost || load_status.code() == absl::StatusCode::kDataLoss ? S::kLost : S::kUnowned;
  if (request.from.node.value != 0) Fail(request, load_status);
  if (e_.state == S::kLost) {
    if (!was_lost) Effect(HomeEffect::Kind::kLost);
    const auto reads = [](const HomeRequest& r) {
      return r.kind == HomeRequest::Kind::kAccess || r.kind == HomeRequest::Kind::kFlush;
    };
    while (!w_.queue.empty() && reads(w_.queue.front())) {  // It is so for all that wait.
      Fail(w_.queue.front(), load_status);
      w_.queue.erase(w_.queue.begin());
    }
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
  const bool data_moves = t().source.node.value != 0 && !t().upgrade;
  if (data_moves && !t().waiting.empty()) t().backup = t().waiting.back();
  if (retain_at_source && t().source.node.value != 0) t().waiting.push_back(t().source);
  for (const NodeInstance& node : t().waiting) SendInvalidate(node);
  t().active = t().waiting.empty() || (context_.bugs && context_.bugs->activate_before_acks);
}

void Step::SendInvalidate(NodeInstance to) {
  Message m = Make(K::kInvalidate);
  m.retain = (t().upgrade && to == t().source) || to == t().backup;
  Send(to.node, std::move(m));
}

void Step::SendForward() {
  Message m = Make(K::kForward);
  const size_t others = e_.sharers.size() - (Has(e_.sharers, t().request.from) ? 1 : 0);
  m.exclusive = m.access == Access::kMove && others == 0;
  Send(t().source.node, std::move(m));
}

void Step::SendGrant() {
  Message grant = t().from_disk ? *t().grant : Make(K::kGrant);
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
  DropSharer(from);
  Progress();
}

void Step::Complete() {
  const NodeInstance requester = t().request.from;
  ForgetKeeper(requester, t().id);  // Its copy has taken the place of what it kept.
  if (t().request.access != Access::kRead) {
    for (const NodeInstance& keeper : {t().source, t().backup}) {
      if (keeper.node.value == 0) continue;
      Send(keeper.node, Make(K::kTransferDone));
      ForgetKeeper(keeper, t().id);
      w_.keepers.push_back({keeper, t().id});
    }
    e_.owner = requester;
    if (t().request.access == Access::kWrite) e_.sharers = {};
    DropSharer(requester);
  } else if (e_.owner.node.value == 0) {
    e_.owner = requester;
    DropSharer(requester);
  } else if (requester != e_.owner) {
    AddSharer(requester);
  }
  End();
}

// The requester will not install the grant. Sharers that acknowledged are gone from the set already,
// but for the one that kept its frame. Or the owner keeps a page that was to be moved, which it has offered before.
void Step::Abort() {
  if (from == t().source) {
    Fail(t().request, absl::AbortedError("page " + ToString(context_.page) + " is used by its owner again"));
  } else if (t().request.access != Access::kRead && t().source.node.value != 0) {
    Send(t().source.node, Make(K::kTransferAborted));
  }
  if (t().backup.node.value != 0) {
    Send(t().backup.node, Make(K::kTransferAborted));
    AddSharer(t().backup);
  }
  End();
}

void Step::Evicted() {
  if (!message->kept) {
    e_.owner = {};
    e_.clean = true;  // I9
  }
  End();
}

}  // namespace mangrove::home
