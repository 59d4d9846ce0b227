// What must hold in every state of the model, and how it comes to rest.

#include <algorithm>
#include <sstream>
#include <utility>
#include <vector>

#include "tests/unit/directory/protocol_model.h"

namespace mangrove::model {
namespace {

bool IsRecovering(const HomeEntry& home) {
  return home.state == HomeState::kReporting || home.state == HomeState::kResolving ||
         (home.txn() && !home.txn()->reports.empty());
}

std::string Name(Act act) {
  constexpr const char* kNames[] = {
      "deliver",  "want read", "want write", "write",         "evict",      "ask to drop",
      "offer",    "withdraw",  "cancel",     "flush",         "send again", "home sends again",
      "ask disk", "hold ends", "pin shared", "pin exclusive", "unpin",      "crash",
      "hear of",  "tell",      "told"};
  return kNames[static_cast<size_t>(act)];
}

std::string Text(const Message& m) {
  std::ostringstream out;
  out << mangrove::Name(m.kind) << " txn " << (m.txn.value >> 40) << "." << (m.txn.value & 0xffffffffff) << " request "
      << m.request.value
      << (m.access == Access::kWrite  ? " write"
          : m.access == Access::kMove ? " move"
                                      : " read")
      << (m.active ? " active" : "") << (m.retain ? " retain" : "") << (m.have ? " have" : "")
      << (m.exclusive ? " exclusive" : "") << (m.owner ? " owner" : "") << " holding " << static_cast<int>(m.holding)
      << " version " << ToString(m.version);
  if (m.data) out << " data " << NumberIn(m.data);
  return out.str();
}

}  // namespace

void World::CheckMemory(int node) {
  const ModelNode& n = nodes_[node];
  const Right right = n.cache.HasWrite() ? Right::kWrite : n.cache.HasRead() ? Right::kRead : Right::kNone;
  if (n.right != right && !bugs_->keep_rights_on_forward) Break("the memory's right is not the machine's");
  if ((n.frame >= 0) != (n.right != Right::kNone)) Break("a right without a frame, or a frame without a right");
}

bool World::IsAnyLost() const {
  return std::any_of(nodes_.begin(), nodes_.end(), [](const ModelNode& n) { return n.incarnation > Incarnation(1); });
}

// Who has what was written last: after a loss a reader may be all that has it.
bool World::IsKept() const {
  for (int i = 0; i < limits_.nodes; ++i) {
    const ModelNode& n = nodes_[i];
    const bool has_copy = IsAnyLost() ? n.cache.HasRead() : n.cache.IsOwner();
    if ((has_copy && n.frame == last_) || (i < Holders() && n.disk.content == last_)) return true;
    if (n.cache.retained && NumberIn(n.cache.retained->data) == last_) return true;
  }
  return false;
}

// Single writer; every read returns the last write; what was flushed is there; what was written is kept by someone.
void World::CheckContents() {
  int writers = 0;
  int readers = 0;
  int seen = -1;
  for (int i = 0; i < limits_.nodes; ++i) {
    const ModelNode& n = nodes_[i];
    writers += n.right == Right::kWrite ? 1 : 0;
    readers += n.right == Right::kRead ? 1 : 0;
    if (n.right == Right::kNone) continue;
    if (last_known_ && n.frame != last_) Break("a read returns what is not the last write");
    if (n.frame < acknowledged_) Break("an acknowledged flush is lost");
    if (seen >= 0 && seen != n.frame) Break("two copies differ");
    seen = n.frame;
  }
  if (writers > 1 || (writers == 1 && readers > 0)) Break("a writable copy beside another");
  if (last_known_ && !IsKept()) Break("nobody answers for what was written last");
}

// I3 of the responsible node.
void World::CheckKnown() {
  if (!ready_ || IsRecovering(home_)) return;
  for (int i = 0; i < limits_.nodes; ++i) {
    if (!nodes_[i].cache.HasRead() || nodes_[i].known[0] != nodes_[0].incarnation) continue;
    const NodeInstance self = Instance(i);
    if (nodes_[0].known[i] != self.incarnation) continue;
    const bool known = home_.owner == self ||
                       std::find(home_.sharers.begin(), home_.sharers.end(), self) != home_.sharers.end() ||
                       (home_.txn() && home_.txn()->request.from == self);
    if (!known) Break("a copy that the responsible node does not know of");
  }
}

bool World::HaveAllHeard() const {
  return std::all_of(nodes_.begin(), nodes_.end(), [this](const ModelNode& n) {
    for (int peer = 0; peer < limits_.nodes; ++peer) {
      if (n.known[peer] != nodes_[peer].incarnation) return false;
    }
    return true;
  });
}

// After a crash: a reader has it still, and from now on does not drop it unasked.
void World::FindLast() {
  if (last_known_ || !ready_ || !HaveAllHeard()) return;
  last_known_ = std::any_of(nodes_.begin(), nodes_.end(),
                            [this](const ModelNode& n) { return n.cache.HasRead() && n.frame == last_; });
}

// After a crash: once everyone has heard of it and the page has an owner again, what the owner has is what was written.
void World::LearnLast() {
  if (last_known_ || !ready_ || home_.state != HomeState::kOwned || !HaveAllHeard()) return;
  const ModelNode& owner = nodes_[home_.owner.node.value - 1];
  if (owner.frame < 0) return;
  last_ = owner.frame;
  last_known_ = true;
}

void World::Check() {
  FindLast();
  LearnLast();
  for (int i = 0; i < limits_.nodes; ++i) {
    CheckMemory(i);
    if (!Consistent(nodes_[i].cache)) Break("an inconsistent cache entry");
  }
  CheckContents();
  CheckKnown();
  const bool unowned = home_.state == HomeState::kUnowned && !home_.sharers.empty();
  if (unowned && (!home_.clean || home_.reverting)) Break("readers of a page without an owner that the disks lack");
  if (!IsAnyLost() && home_.state == HomeState::kReporting) Break("a recovery without a loss");
}

// --- Coming to rest ---------------------------------------------------------------------------------------------------

bool World::AtRest() const {
  if (!ready_ || home_.IsBusy() || !home_.Work().queue.empty() || load_.on || !packets_.empty()) return false;
  return std::none_of(nodes_.begin(), nodes_.end(), [](const ModelNode& n) {
    return n.cache.IsWaiting() || n.cache.retained || n.cache.deferred || n.cache.reported ||
           n.cache.state == CacheState::kEvicting;
  });
}

void World::DeliverAll() {
  for (int step = 0; step < 500 && broken_.empty(); ++step) {
    const std::vector<Action> actions = Actions();
    const auto next = std::find_if(actions.begin(), actions.end(), [](const Action& a) {
      return a.act != Act::kSendAgain && a.act != Act::kHomeSendAgain;
    });
    if (next == actions.end()) return;
    Apply(*next);
  }
  Break("messages go to and fro for ever");
}

void World::Rest() {
  for (int round = 0; round < 50 && broken_.empty(); ++round) {
    DeliverAll();
    if (AtRest() || !broken_.empty()) return;
    for (int i = 0; i < limits_.nodes; ++i) {
      if (nodes_[i].cache.deferred) Unblock(i);
      if (CanSendAgain(i)) Apply({Act::kSendAgain, static_cast<uint8_t>(i), 0});
    }
    if (home_.IsBusy()) Apply({Act::kHomeSendAgain, 0, 0});
  }
  Break("it does not come to rest");
}

void World::CheckAgreement() {
  if (home_.state == HomeState::kLost) Break("the page is lost");
  for (int i = 0; i < limits_.nodes; ++i) {
    const bool owner = home_.owner == Instance(i);
    if (owner != nodes_[i].cache.IsOwner()) Break("owner and responsible node do not agree");
    if (nodes_[i].cache.state != CacheState::kExclusive) continue;
    for (int other = 0; other < limits_.nodes; ++other) {
      if (other != i && nodes_[other].cache.HasRead()) Break("an exclusive copy beside another");
    }
  }
}

void World::ReadEverywhere() {
  for (int i = 0; i < limits_.nodes && broken_.empty(); ++i) {
    if (!nodes_[i].cache.HasRead()) Local(i, CacheEvent::kWantRead);
    Pump();
    Rest();
    if (!nodes_[i].cache.HasRead()) Break("a read that waits for ever");
  }
}

void World::Settle(bool lose) {
  limits_ = Limits{.nodes = limits_.nodes, .deliveries = 1, .wants = 0, .writes = 0};
  for (Packet& packet : packets_) packet.left = 1;
  if (lose) packets_.clear();
  for (ModelNode& node : nodes_) node.flush = {};
  Rest();
  if (broken_.empty()) CheckAgreement();
  ReadEverywhere();
  for (int i = 0; i < limits_.nodes && broken_.empty(); ++i) {
    const CacheEntry& e = nodes_[i].cache;
    if (!e.HasRead() || !e.CanDrop()) continue;
    Local(i, CacheEvent::kWantEvict);
    Pump();
    Rest();
  }
  ReadEverywhere();
  for (int i = limits_.nodes - 1; i >= 0 && broken_.empty(); i -= limits_.nodes - 1) {
    if (!nodes_[i].cache.HasWrite()) Local(i, CacheEvent::kWantWrite);
    Pump();
    Rest();
    if (nodes_[i].right != Right::kWrite) Break("a write that waits for ever");
    if (broken_.empty()) {
      limits_.writes = 1;
      Apply({Act::kWrite, static_cast<uint8_t>(i), 0});
    }
  }
  if (broken_.empty()) CheckAgreement();
}

// --- For people -------------------------------------------------------------------------------------------------------

std::string World::Describe(const Action& action) const {
  std::ostringstream out;
  if (action.act == Act::kDeliver) {
    const Packet& p = packets_.at(action.what);
    out << p.from.node.value - 1 << "'" << p.from.incarnation.value << " -> " << p.to.node.value - 1 << ": "
        << Text(*p.message);
  } else {
    out << static_cast<int>(action.node) << " " << Name(action.act);
    if (action.act == Act::kHearOf || action.act == Act::kOffer) out << " " << static_cast<int>(action.what);
  }
  return out.str();
}

std::string World::Describe() const {
  std::ostringstream out;
  out << "  home " << mangrove::Name(home_.state) << " owner " << static_cast<int>(home_.owner.node.value) - 1
      << " sharers";
  for (const NodeInstance& s : home_.sharers) out << " " << s.node.value - 1;
  out << (ready_ ? "" : " not ready") << (home_.clean ? " clean" : "") << ", queue " << home_.Work().queue.size();
  if (home_.IsBusy()) {
    out << ", txn " << (home_.txn()->id.value & 0xffffffffff) << " for " << home_.txn()->request.from.node.value - 1
        << " waits for";
    for (const NodeInstance& w : home_.txn()->waiting) out << " " << w.node.value - 1;
  }
  out << (load_.on ? ", loads" : "") << ", last " << last_ << (last_known_ ? "" : "?") << "\n";
  for (int i = 0; i < limits_.nodes; ++i) {
    const CacheEntry& e = nodes_[i].cache;
    out << "  " << i << "'" << nodes_[i].incarnation.value << " " << mangrove::Name(e.state) << (e.open ? " open" : "")
        << " version " << ToString(e.version) << " flushed " << ToString(e.flushed) << " txn "
        << (e.txn.value & 0xffffffffff) << " frame " << nodes_[i].frame;
    if (e.request.value) out << " request " << e.request.value;
    if (e.pending) out << " pending " << e.pending->have_grant << e.pending->activated;
    if (e.retained)
      out << " retained " << ToString(e.retained->version) << " txn " << (e.retained->txn.value & 0xffffffffff);
    if (e.deferred) out << " deferred " << Text(*e.deferred);
    if (e.reported) out << " reported";
    if (e.IsPinned()) out << " pinned";
    out << ", disk " << ToString(nodes_[i].disk.version) << "=" << nodes_[i].disk.content << "\n";
  }
  for (const Packet& p : packets_) {
    out << "    " << p.from.node.value - 1 << "'" << p.from.incarnation.value << " -> " << p.to.node.value - 1 << ": "
        << Text(*p.message) << " x" << p.left << "\n";
  }
  return out.str();
}

}  // namespace mangrove::model
