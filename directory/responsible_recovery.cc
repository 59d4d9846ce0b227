#include "directory/responsible_step.h"

#include <algorithm>
#include <utility>

#include "net/check.h"

namespace mangrove::home {

std::vector<NodeInstance> Step::Candidates() const {
  std::vector<NodeInstance> nodes;
  const auto add = [&](NodeInstance node) {
    if (node.node.value != 0) nodes.push_back(node);
  };
  add(e_.owner);
  for (const NodeInstance& node : e_.sharers) add(node);
  for (const Keeper& keeper : w_.keepers) add(keeper.node);
  if (w_.txn) {
    add(w_.txn->source);
    add(w_.txn->backup);
    if (w_.txn->request.kind == HomeRequest::Kind::kAccess) add(w_.txn->request.from);
    for (const NodeInstance& node : w_.txn->waiting) add(node);
    for (const HolderReport& report : w_.txn->reports) add(report.node);
  }
  for (const HolderReport& report : w_.registered) add(report.node);
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

void Step::OwnerIsGone() {
  e_.owner = {};
  e_.sharers = {};
  e_.clean = false;
  e_.reverting = true;
}

// The owner does not have the page; or a sharer, which was to be the owner, has dropped its copy.
void Step::NotHeld() {
  if (!t().appoints) return Recover(false);
  DropSharer(from);
  End();
}

// `lost`: a node is gone that may have written the page.
void Step::Recover(bool lost) {
  std::vector<NodeInstance> candidates = Candidates();
  std::erase_if(candidates, [&](NodeInstance node) { return IsGone(node, from); });
  // An eviction or discard goes on afterwards; a requester asks again under a new number.
  lost = lost || (w_.txn && w_.txn->lost);
  std::optional<HomeRequest> again;
  if (w_.txn && w_.txn->request.kind == HomeRequest::Kind::kDiscard) again = w_.txn->request;
  w_.registered.clear();
  e_.owner = {};
  e_.sharers = {};
  w_.keepers.clear();
  if (again) w_.queue.insert(w_.queue.begin(), *again);
  if (candidates.empty()) {
    OwnerIsGone();
    End();
    return;
  }
  Begin(S::kReporting, HomeRequest{.kind = HomeRequest::Kind::kEvict, .from = {}, .request = {}});
  t().lost = lost;
  t().waiting.assign(candidates.begin(), candidates.end());
  for (const NodeInstance& node : t().waiting) SendReport(node);
}

void Step::SendReport(NodeInstance to) { Send(to.node, Make(K::kReport)); }

void Step::CountReport() {
  Erase(t().waiting, from);
  t().reports.push_back(
      {.node = from, .holding = message->holding, .version = message->version, .config = message->config});
  Progress();
}

// The newest version wins; of equal ones the owner's, then a retained one, then a read copy.
const HolderReport& Step::Best() const {
  const auto rank = [](const HolderReport& r) {
    return r.holding == Holding::kOwner ? 2 : r.holding == Holding::kRetained ? 1 : 0;
  };
  const std::vector<HolderReport>& reports = w_.txn->reports;
  return *std::max_element(reports.begin(), reports.end(), [&](const auto& a, const auto& b) {
    if (a.config != b.config) return a.config < b.config;
    if (a.version != b.version) return a.version < b.version;
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    return b.node < a.node;
  });
}

// What was given up may have been written to since, unless somebody still has a read copy of it.
bool Step::MayBeOld(const HolderReport& best) const {
  return best.holding == Holding::kRetained &&
         std::none_of(w_.txn->reports.begin(), w_.txn->reports.end(), [&](const HolderReport& r) {
           return r.holding == Holding::kShared && r.version == best.version && r.config == best.config;
         });
}

// Every report is in.
void Step::Decide() {
  std::erase_if(t().reports, [](const HolderReport& r) { return r.holding == Holding::kNone; });
  if (t().reports.empty()) {
    if (!t().was_lost) OwnerIsGone();
    End();
  } else if (Best().holding == Holding::kOwner) {
    Resolve(nullptr);
  } else if (context_.never_older && MayBeOld(Best())) {
    const LoadedPage newer{.config = ConfigNumber(UINT64_MAX), .data = nullptr};
    Resolve(&newer);
  } else {
    e_.clean = false;
    Load();  // I6
  }
}

// `rival`: what the disks have, unless the best copy needs no comparison. A copy from before the page was allocated anew
// is a copy of another page.
void Step::Resolve(const LoadedPage* rival) {
  const HolderReport best = Best();
  std::vector<HolderReport> reports = std::move(t().reports);
  const bool lost = t().lost;
  const bool disk_wins = rival != nullptr && (best.version < rival->version || best.config < rival->config);
  // Newer than whatever the lost owner wrote, and than what survived: a flush of an older number would store nothing.
  const Version renumbered = best.version.epoch < context_.grant_epoch
                                 ? Version{context_.grant_epoch, 1}
                                 : Version{best.version.epoch, best.version.counter + 1};
  Begin(S::kResolving, HomeRequest{.kind = HomeRequest::Kind::kEvict, .from = {}, .request = {}});
  t().lost = lost;
  // Whoever was lost had been given the page since, or was writing to it.
  e_.reverting = lost && disk_wins;
  if (lost && !disk_wins && best.holding == Holding::kRetained) Effect(HomeEffect::Kind::kReverted);
  e_.owner = disk_wins ? NodeInstance{} : best.node;
  e_.sharers = {};
  e_.clean = false;
  for (HolderReport& report : reports) {
    const bool same_copy = report.holding == Holding::kShared && report.version == best.version &&
                           report.config == best.config && !disk_wins;
    report.holding = report.node == e_.owner ? Holding::kOwner : same_copy ? Holding::kShared : Holding::kNone;
    report.version = best.holding == Holding::kOwner ? Version{} : renumbered;
    if (report.holding == Holding::kShared) AddSharer(report.node);
    t().waiting.push_back(report.node);
    SendResolve(report);
  }
  t().reports = std::move(reports);
}

void Step::SendResolve(const HolderReport& report) {
  Message m = Make(K::kResolve);
  m.holding = report.holding;
  m.version = report.version;
  m.complete = t().appoints && e_.clean;
  Send(report.node.node, std::move(m));
}

void Step::CountResolve() {
  Erase(t().waiting, from);
  if (t().appoints) {
    e_.owner = from;
    DropSharer(from);
  }
  Progress();
}

void Step::ForgetPeer() {
  if (context_.bugs && context_.bugs->forget_incarnation) return;
  const auto gone = [&](NodeInstance node) { return IsGone(node, from); };
  EraseIf(w_.queue, [&](const HomeRequest& r) { return gone(r.from); });
  for (const NodeInstance& sharer : Sharers(e_.sharers)) {
    if (gone(sharer)) DropSharer(sharer);
  }
  EraseIf(w_.keepers, [&](const Keeper& k) { return gone(k.node); });
  const auto lost_owner = [&](const HolderReport& r) { return gone(r.node) && r.holding == Holding::kOwner; };
  if (std::any_of(w_.registered.begin(), w_.registered.end(), lost_owner)) e_.reverting = true;
  std::erase_if(w_.registered, [&](const HolderReport& r) { return gone(r.node); });
  switch (e_.state) {
    case S::kUnowned:
    case S::kLost: break;
    case S::kLoading:
      if (gone(t().request.from)) t().request.from = {};
      if (std::erase_if(t().reports, [&](const HolderReport& r) { return gone(r.node); }) > 0) Recover(true);
      break;
    case S::kOwned:
    case S::kEvicting:
      if (gone(e_.owner)) Recover(true);
      break;
    case S::kGranting: ForgetPeerOfGrant(); break;
    case S::kDiscarding:
      if (gone(e_.owner)) e_.owner = {};
      EraseIf(t().waiting, gone);
      Progress();
      break;
    case S::kReporting: {
      const auto lost =
          EraseIf(t().waiting, gone) + std::erase_if(t().reports, [&](const HolderReport& r) { return gone(r.node); });
      t().lost = t().lost || lost > 0;
      Progress();
      break;
    }
    case S::kResolving:
      if (std::any_of(t().reports.begin(), t().reports.end(), [&](const auto& r) { return gone(r.node); })) {
        t().appoints ? End() : Recover(true);  // What was appointed has had nothing to write under.
      }
      break;
  }
}

void Step::ForgetPeerOfGrant() {
  const auto gone = [&](NodeInstance node) { return IsGone(node, from); };
  if (gone(t().source) || gone(e_.owner)) {
    Recover(true);
  } else if (gone(t().request.from)) {
    const bool may_have_written = t().active && (t().request.access != Access::kRead || t().from_disk);
    if (may_have_written) {
      Recover(true);
    } else {
      Abort();
    }
  } else {
    if (gone(t().backup)) t().backup = {};
    EraseIf(t().waiting, gone);
    Progress();
  }
}

void Step::AnswerRetained() {
  const bool recovering =
      e_.state == S::kReporting || e_.state == S::kResolving || (e_.state == S::kLoading && !w_.txn->reports.empty());
  if (!context_.ready || recovering) return;
  if (w_.txn && w_.txn->id == message->txn) return;
  Message answer;
  answer.kind = e_.owner == from || Has(e_.sharers, from) ? K::kTransferAborted : K::kTransferDone;
  answer.page = context_.page;
  answer.txn = message->txn;
  Send(from.node, std::move(answer));
}

void Step::ForgetKeeper(NodeInstance node, Txn txn) {
  EraseIf(w_.keepers, [&](const Keeper& k) { return k.node == node && k.txn <= txn; });
}

void Step::Adopt() {
  if (w_.registered.empty() || w_.txn) {
    Serve();
    return;
  }
  std::vector<HolderReport> reports = std::move(w_.registered);
  w_.registered.clear();
  const auto owners =
      std::count_if(reports.begin(), reports.end(), [](const HolderReport& r) { return r.holding == Holding::kOwner; });
  const bool retained = std::any_of(reports.begin(), reports.end(),
                                    [](const HolderReport& r) { return r.holding == Holding::kRetained; });
  if (owners != 1 || retained) {
    w_.registered = std::move(reports);
    Recover(e_.reverting);
    return;
  }
  e_.reverting = false;
  for (const HolderReport& report : reports) {
    if (report.holding == Holding::kOwner) e_.owner = report.node;
    if (report.holding == Holding::kShared) AddSharer(report.node);
  }
  End();
}

}  // namespace mangrove::home
