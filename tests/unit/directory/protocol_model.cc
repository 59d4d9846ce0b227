#include "tests/unit/directory/protocol_model.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "net/check.h"

namespace mangrove::model {

// A page that holds the number, shared by all who hold it.
PageBuffer Content(int number) {
  static std::map<int, PageBuffer> pages;
  PageBuffer& page = pages[number];
  if (page == nullptr) {
    auto fresh = std::make_shared<PageBytes>();
    std::memcpy(fresh->bytes.data(), &number, sizeof(number));
    page = std::move(fresh);
  }
  return page;
}

int NumberIn(const PageBuffer& page) {
  if (page == nullptr) return 0;  // Zeros.
  int number;
  std::memcpy(&number, page->bytes.data(), sizeof(number));
  return number;
}

namespace {

using K = MessageKind;

const PlantedBugs kNoBugs;

}  // namespace

World::World(const Limits& limits, const PlantedBugs* bugs) : limits_(limits), bugs_(bugs ? bugs : &kNoBugs) {
  nodes_.resize(limits.nodes);
  for (ModelNode& node : nodes_) node.known.fill(Incarnation(1));
}

void World::Break(const std::string& rule) {
  if (broken_.empty()) broken_ = rule;
}

CacheContext World::CacheContextOf(int node) {
  return {.self = Instance(node),
          .responsible = NodeId(1),
          .now = 0,
          .hold = limits_.holds > 0 ? 1 : 0,
          .next_request = RequestId(next_request_),
          .may_move = nodes_[node].offers,
          .bugs = bugs_};
}

HomeContext World::HomeContextOf() {
  return {.self = Instance(0),
          .page = kPage,
          .now = 0,
          .resend_after = 0,
          .grant_epoch = epoch_,
          .next_txn = Txn((nodes_[0].incarnation.value << 40) | next_txn_),
          .ready = ready_,
          .bugs = bugs_};
}

// --- The network ------------------------------------------------------------------------------------------------------

void World::Send(int from, NodeId to_node, Message message) {
  const int to = static_cast<int>(to_node.value) - 1;
  CHECK(0 <= to && to < limits_.nodes);
  if (message.kind == K::kDelayed) return;
  if (to == from) {
    local_.emplace_back(from, std::move(message));
    return;
  }
  if (nodes_[from].known[to] != nodes_[to].incarnation) return;  // To an incarnation that is gone.
  Packet packet{.from = Instance(from), .to = Instance(to), .message = {}, .key = {}, .left = limits_.deliveries};
  packet.key = KeyOf(packet, message);
  const auto at = std::lower_bound(packets_.begin(), packets_.end(), packet,
                                   [](const Packet& a, const Packet& b) { return a.key < b.key; });
  if (at != packets_.end() && at->key == packet.key) {
    at->left = limits_.deliveries;
    return;
  }
  packet.message = std::make_shared<const Message>(std::move(message));
  packets_.insert(at, std::move(packet));
}

void World::Pump() {
  while (!local_.empty()) {
    const auto [node, message] = std::move(local_.front());
    local_.pop_front();
    Dispatch(message, Instance(node), node);
  }
}

void World::Dispatch(const Message& message, NodeInstance from, int to) {
  if (message.kind == K::kStore) return Store(message, from, to);
  if (message.kind == K::kStored) {
    FlushUnderWay& flush = nodes_[to].flush;
    if (!flush.on || message.request != flush.request) return;
    if (message.code != absl::StatusCode::kOk) {
      flush = {};
      return;
    }
    flush.stored |= 1u << (from.node.value - 1);
    if (flush.stored != (1u << Holders()) - 1) return;
    acknowledged_ = std::max(acknowledged_, flush.content);
    NoteFlushed(nodes_[to].cache, flush.version, nodes_[to].cache.config);
    flush = {};
    return;
  }
  if (IsForCache(message.kind)) {
    std::vector<CacheEffect> effects;
    StepCacheMessage(nodes_[to].cache, message, from.node, CacheContextOf(to), effects);
    CarryCache(to, effects);
    return;
  }
  if (to != 0) return;
  std::vector<HomeEffect> effects;
  StepHomeMessage(home_, message, from, HomeContextOf(), effects);
  CarryHome(effects);
}

// --- Effects ----------------------------------------------------------------------------------------------------------

void World::CarryCache(int node, std::vector<CacheEffect>& effects) {
  using Kind = CacheEffect::Kind;
  ModelNode& n = nodes_[node];
  ++next_request_;
  for (CacheEffect& effect : effects) {
    switch (effect.kind) {
      case Kind::kProtect: n.right = std::min(n.right, Right::kRead); break;
      case Kind::kTakeRetain:
        if (n.cache.retained) n.cache.retained->data = Content(n.frame);
        [[fallthrough]];
      case Kind::kTake:
        if (n.frame < 0) Break("a frame is taken that is not there");
        n.frame = -1;
        n.right = Right::kNone;
        break;
      case Kind::kInstall:
        if (n.frame >= 0) Break("a frame is installed over another");
        n.frame = NumberIn(effect.data);
        n.right = effect.write ? Right::kWrite : Right::kRead;
        break;
      case Kind::kRaise:
        if (n.frame < 0) Break("a right is raised where no frame is");
        n.right = Right::kWrite;
        break;
      case Kind::kSend:
      case Kind::kSendLate: Send(node, effect.to, std::move(effect.message)); break;
      case Kind::kSendFrame:
        if (n.frame < 0) Break("a frame is sent that is not there");
        effect.message.data = Content(n.frame);
        Send(node, effect.to, std::move(effect.message));
        break;
      case Kind::kSendRetained:
        if (!n.cache.retained || !n.cache.retained->data) {
          Break("what was retained is sent, and is not there");
          break;
        }
        effect.message.data = n.cache.retained->data;
        Send(node, effect.to, std::move(effect.message));
        if (bugs_->drop_frame_at_send) n.cache.retained.reset();
        if (bugs_->drop_frame_at_move && effect.message.access == Access::kMove) n.cache.retained.reset();
        break;
      case Kind::kWake:
      case Kind::kFail:
      case Kind::kHoldTimer: break;
      case Kind::kRefused: Break("a message is refused, though nobody is confused"); break;
    }
  }
  if (n.cache.hold_until > 0 && limits_.holds > 0 && n.cache.hold_until != 2) {
    n.cache.hold_until = 2;  // Counted.
    --limits_.holds;
  }
}

void World::CarryHome(std::vector<HomeEffect>& effects) {
  uint64_t newest = next_txn_ - 1;
  constexpr uint64_t kCount = (uint64_t{1} << 40) - 1;
  if (home_.IsBusy()) {
    home_.work->txn->resends = 0;
    newest = std::max(newest, home_.txn()->id.value & kCount);
  }
  for (HomeEffect& effect : effects) {
    const bool of_this_incarnation = effect.message.txn.value >> 40 == nodes_[0].incarnation.value;
    if (of_this_incarnation) newest = std::max(newest, effect.message.txn.value & kCount);
    if (effect.kind == HomeEffect::Kind::kSend) Send(0, effect.to, std::move(effect.message));
    if (effect.kind == HomeEffect::Kind::kLoad) {
      load_ = {.on = true,
               .txn = effect.message.txn,
               .recover = effect.recover,
               .version_only = effect.version_only,
               .epoch = epoch_};
    }
  }
  next_txn_ = newest + 1;
}

void World::Local(int node, CacheEvent event) {
  std::vector<CacheEffect> effects;
  StepCacheLocal(nodes_[node].cache, kPage, event, CacheContextOf(node), effects);
  CarryCache(node, effects);
}

void World::Unblock(int node) {
  std::vector<CacheEffect> effects;
  StepCacheUnblocked(nodes_[node].cache, CacheContextOf(node), effects);
  CarryCache(node, effects);
}

// --- Disks ------------------------------------------------------------------------------------------------------------

// As a core holder does: K2 and K3.
void World::Store(const Message& message, NodeInstance from, int to) {
  StoredPage& disk = nodes_[to].disk;
  Message answer;
  answer.kind = K::kStored;
  answer.request = message.request;
  if (message.version.epoch < disk.seal) {
    answer.code = absl::StatusCode::kAborted;
  } else if (disk.version < message.version) {
    disk.version = message.version;
    disk.content = NumberIn(message.data);
  }
  if (nodes_[to].known[from.node.value - 1] == from.incarnation || from.node.value - 1 == static_cast<uint64_t>(to)) {
    Send(to, from.node, std::move(answer));
  }
}

// As engine/flush.cc does: freeze, then store everywhere.
void World::StartFlush(int node) {
  ModelNode& n = nodes_[node];
  if (n.cache.open) {
    n.cache.open = false;
    n.right = Right::kRead;
  }
  n.flush = {
      .on = true, .version = n.cache.version, .content = n.frame, .request = RequestId(next_request_++), .stored = 0};
  Message store;
  store.kind = K::kStore;
  store.request = n.flush.request;
  store.version = n.flush.version;
  store.data = Content(n.frame);
  for (int holder = 0; holder < Holders(); ++holder) Send(node, NodeId(holder + 1), store);
}

// As engine/disk_open.cc does: ask and seal one holder after the other, complete, hand out.
void World::AskDisk() {
  StoredPage& disk = nodes_[load_.asked].disk;
  if (load_.recover && !bugs_->skip_seal) disk.seal = std::max(disk.seal, load_.epoch);
  if (load_.asked == 0 || load_.newest.version < disk.version) load_.newest = disk;
  ++load_.asked;
  if (load_.recover && load_.asked < Holders()) return;
  if (load_.recover && !load_.version_only && !bugs_->skip_completion) {
    for (int holder = 0; holder < Holders(); ++holder) {
      StoredPage& behind = nodes_[holder].disk;
      if (behind.version < load_.newest.version) {
        behind.version = load_.newest.version;
        behind.content = load_.newest.content;
      }
    }
  }
  LoadedPage page{.version = load_.newest.version, .config = {}, .replicas = 2, .data = nullptr};
  if (!load_.version_only && load_.newest.content > 0) page.data = Content(load_.newest.content);
  const Txn txn = load_.txn;
  load_ = {};
  std::vector<HomeEffect> effects;
  StepHomeLoaded(home_, txn, page, HomeContextOf(), effects);
  CarryHome(effects);
}

// --- Crashes ----------------------------------------------------------------------------------------------------------

void World::Crash(int node) {
  ModelNode& n = nodes_[node];
  // Whether what was written last outlives the crash for certain: it is on a disk, or with a survivor that answers for it.
  const NodeInstance source = home_.state == HomeState::kGranting ? home_.txn()->source : NodeInstance{};
  bool survives = false;
  for (int i = 0; i < limits_.nodes; ++i) {
    const ModelNode& other = nodes_[i];
    if (i < Holders() && other.disk.content == last_) survives = true;
    if (i == node) continue;
    if (other.cache.IsOwner() && other.frame == last_) survives = true;
    if (!other.cache.retained) continue;
    const bool superseded =
        n.cache.IsOwner() || (n.cache.retained && n.cache.retained->txn > other.cache.retained->txn);
    const bool answers = !superseded && (node == 0 || home_.owner == Instance(i) || source == Instance(i));
    if (answers && NumberIn(other.cache.retained->data) == last_) survives = true;
  }
  if (!survives) last_known_ = false;
  ++n.incarnation.value;
  n.cache = {};
  n.frame = -1;
  n.right = Right::kNone;
  n.flush = {};
  n.offers = false;
  n.told_before = {};
  n.tells = {};
  n.disk.seal = {};
  for (int i = 0; i < limits_.nodes; ++i) n.known[i] = nodes_[i].incarnation;
  std::erase_if(packets_, [&](const Packet& p) { return p.to.node.value - 1 == static_cast<uint64_t>(node); });
  if (node != 0) return;
  home_ = HomeEntry{};
  load_ = {};
  ++epoch_.value;
  next_txn_ = 1;
  lost_at_ = HomeContextOf().next_txn;
  ready_ = limits_.nodes == 1;
  for (ModelNode& other : nodes_) {
    other.told = false;
    other.tells = {};
  }
  nodes_[0].told = true;
}

void World::HearOf(int node, int peer) {
  nodes_[node].known[peer] = nodes_[peer].incarnation;
  nodes_[node].told_before = nodes_[node].cache.txn;
  const auto of_the_old = [&](const Packet& p) {
    return p.from.node == Instance(peer).node && p.from.incarnation < Instance(peer).incarnation &&
           p.to == Instance(node);
  };
  std::erase_if(packets_, of_the_old);
  if (node == 0) {
    ++epoch_.value;
    lost_at_ = HomeContextOf().next_txn;
    std::vector<HomeEffect> effects;
    StepHomePeerLost(home_, Instance(peer), HomeContextOf(), effects);
    CarryHome(effects);
  }
  if (peer == 0) {
    ForgetResponsible(nodes_[node].cache, CacheContextOf(node));
    ++next_request_;
  }
}

void World::Told(int node) {
  ModelNode& n = nodes_[node];
  n.told = true;
  if (n.tells.holding != Holding::kNone) Register(home_, n.tells);
  n.tells = {};
  ready_ = std::all_of(nodes_.begin(), nodes_.end(), [](const ModelNode& one) { return one.told; });
  if (!ready_) return;
  std::vector<HomeEffect> effects;
  StepHomeReady(home_, HomeContextOf(), effects);
  CarryHome(effects);
}

// --- What may happen --------------------------------------------------------------------------------------------------

bool World::CanSendAgain(int node) const {
  const CacheEntry& e = nodes_[node].cache;
  return e.IsWaiting() || e.retained || e.state == CacheState::kEvicting;
}

// As PageEngine::MayBeLast does: what it was told since the loss, it was told by a responsible node that knew of it. The engine's
// nodes talk within one view alone (V1), so there it is enough that this one knows of the loss.
bool World::MayBeLast(int node) const {
  const ModelNode& n = nodes_[node];
  if (!n.cache.HasRead() || n.cache.IsOwner() || n.told_before.value == 0) return false;
  return n.cache.txn <= n.told_before || n.cache.txn < lost_at_;
}

void World::SendAgain(int node) {
  const CacheEntry& e = nodes_[node].cache;
  if (e.IsWaiting()) Send(node, NodeId(1), OutstandingRequest(e, kPage));
  Message message;
  message.page = kPage;
  if (e.retained) {
    message.kind = K::kStillRetained;
    message.txn = e.retained->txn;
    Send(node, NodeId(1), message);
  }
  if (e.state == CacheState::kEvicting) {
    message.kind = K::kEvictRequest;
    Send(node, NodeId(1), message);
  }
}

std::vector<Action> World::Actions() const {
  std::vector<Action> actions;
  const auto add = [&](Act act, int node = 0, int what = 0) {
    actions.push_back({act, static_cast<uint8_t>(node), static_cast<uint8_t>(what)});
  };
  for (size_t i = 0; i < packets_.size(); ++i) {
    const Packet& p = packets_[i];
    if (nodes_[p.to.node.value - 1].known[p.from.node.value - 1] == p.from.incarnation) {
      add(Act::kDeliver, static_cast<int>(p.to.node.value) - 1, static_cast<int>(i));
    }
  }
  if (load_.on) add(Act::kAskDisk);
  if (home_.IsBusy()) add(Act::kHomeSendAgain);
  for (int i = 0; i < limits_.nodes; ++i) {
    const ModelNode& n = nodes_[i];
    const CacheEntry& e = n.cache;
    if (limits_.wants > 0 && !e.HasRead() && !e.IsWaiting()) add(Act::kWantRead, i);
    if (limits_.wants > 0 && !e.HasWrite() && !e.IsWaiting()) add(Act::kWantWrite, i);
    if (limits_.writes > 0 && n.right == Right::kWrite) add(Act::kWrite, i);
    const bool may_drop = e.HasRead() && !e.IsWaiting() && e.CanDrop() && !e.IsPinned();
    const bool may_evict = limits_.evicts > 0 && may_drop && e.state != CacheState::kEvicting;
    if (may_evict && (limits_.drops_unasked || !MayBeLast(i))) add(Act::kEvict, i);
    if (may_evict && !e.IsOwner()) add(Act::kAskToDrop, i);
    for (int peer = 0; peer < limits_.nodes && limits_.offers > 0 && e.IsOwner(); ++peer) {
      const CacheEntry& other = nodes_[peer].cache;
      if (peer != i && !other.IsOwner() && !other.IsWaiting()) add(Act::kOffer, i, peer);
    }
    if (n.offers) add(Act::kWithdraw, i);
    if (limits_.cancels > 0 && e.IsWaiting()) add(Act::kCancel, i);
    if (limits_.flushes > 0 && e.IsDirty() && !n.flush.on) add(Act::kFlush, i);
    if (limits_.pins > 0 && e.HasRead() && e.exclusive_pins == 0) add(Act::kPinShared, i);
    if (limits_.pins > 0 && e.HasWrite() && !e.IsPinned()) add(Act::kPinExclusive, i);
    if (e.IsPinned()) add(Act::kUnpin, i);
    if (e.hold_until > 0) add(Act::kHoldEnds, i);
    if (CanSendAgain(i)) add(Act::kSendAgain, i);
    if (limits_.crashes > 0) add(Act::kCrash, i);
    for (int peer = 0; peer < limits_.nodes; ++peer) {
      if (n.known[peer] < nodes_[peer].incarnation && peer != i) add(Act::kHearOf, i, peer);
    }
    const bool may_tell =
        !n.told && !ready_ && n.known[0] == nodes_[0].incarnation && nodes_[0].known[i] == n.incarnation;
    if (may_tell) add(n.tells.node.node.value == 0 ? Act::kTell : Act::kTold, i);
  }
  return actions;
}

void World::Apply(const Action& action) {
  const int i = action.node;
  ModelNode& n = nodes_[i];
  switch (action.act) {
    case Act::kDeliver: {
      const Packet packet = packets_[action.what];
      if (--packets_[action.what].left == 0) packets_.erase(packets_.begin() + action.what);
      Dispatch(*packet.message, packet.from, i);
      break;
    }
    case Act::kWantRead:
    case Act::kWantWrite:
      --limits_.wants;
      Local(i, action.act == Act::kWantRead ? CacheEvent::kWantRead : CacheEvent::kWantWrite);
      break;
    case Act::kWrite:
      if (last_known_ && n.frame != last_) Break("a write goes to a page that misses the write before");
      --limits_.writes;
      n.frame = last_ = ++counter_;
      last_known_ = true;
      break;
    case Act::kEvict: {
      const bool may_be_last = MayBeLast(i);
      --limits_.evicts;
      Local(i, CacheEvent::kWantEvict);
      // Before this node has heard of a loss.
      if (!may_be_last && !n.cache.HasRead() && IsAnyLost() && !IsKept()) last_known_ = false;
      break;
    }
    case Act::kAskToDrop: {
      --limits_.evicts;
      Message ask;
      ask.kind = K::kEvictRequest;
      ask.page = kPage;
      Send(i, NodeId(1), ask);
      break;
    }
    case Act::kOffer:
      --limits_.offers;
      n.offers = true;
      Local(action.what, CacheEvent::kWantMove);
      break;
    case Act::kWithdraw: n.offers = false; break;
    case Act::kCancel: {
      --limits_.cancels;
      Message cancel;
      cancel.kind = K::kCancel;
      cancel.page = kPage;
      cancel.request = n.cache.request;
      Send(i, NodeId(1), cancel);
      Local(i, CacheEvent::kCancel);
      break;
    }
    case Act::kFlush:
      --limits_.flushes;
      StartFlush(i);
      break;
    case Act::kSendAgain: SendAgain(i); break;
    case Act::kHomeSendAgain: {
      std::vector<HomeEffect> effects;
      StepHomeResend(home_, HomeContextOf(), effects);
      CarryHome(effects);
      break;
    }
    case Act::kAskDisk: AskDisk(); break;
    case Act::kHoldEnds:
      n.cache.hold_until = 0;
      Unblock(i);
      break;
    case Act::kPinShared:
      --limits_.pins;
      ++n.cache.shared_pins;
      break;
    case Act::kPinExclusive:
      --limits_.pins;
      ++n.cache.exclusive_pins;
      break;
    case Act::kUnpin:
      n.cache.shared_pins > 0 ? --n.cache.shared_pins : --n.cache.exclusive_pins;
      Unblock(i);
      break;
    case Act::kCrash:
      --limits_.crashes;
      Crash(i);
      break;
    case Act::kHearOf: HearOf(i, action.what); break;
    case Act::kTell:
      n.tells = {.node = Instance(i), .holding = HoldingOf(n.cache), .version = HeldVersion(n.cache)};
      break;
    case Act::kTold: Told(i); break;
  }
  Pump();
  Check();
}

}  // namespace mangrove::model
