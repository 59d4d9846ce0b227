// What happens when a node starts anew.
//
// When this node starts, every other member tells what it holds of the pages that this node is responsible for; nothing
// of them is served before all have. When another node starts anew, its predecessor is gone for ever: what it held and
// asked for is forgotten, what it owned is recovered; and what it was responsible for is registered with it.

#include <algorithm>
#include <utility>

#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr char kOpenedKey[] = "engine/opened";
// Grant epochs of one incarnation: one is used up with each loss of a node.
constexpr int kGrantEpochBits = 16;

}  // namespace

void PageEngine::Open(absl::AnyInvocable<void(absl::Status)> done) {
  grant_epoch_ = Epoch(options_.self.incarnation.value << kGrantEpochBits);
  auto with_records = [this, done = std::move(done), alive = alive_](auto records) mutable {
    if (!*alive) return;
    if (!records.ok()) return done(records.status());
    disk_was_empty_ = records->empty();
    StoreBatch batch;
    batch.records.push_back({kOpenedKey, std::to_string(options_.self.incarnation.value)});
    store_->Commit(std::move(batch), [this, done = std::move(done), alive](absl::Status status) mutable {
      if (!*alive) return;
      if (!status.ok()) return done(status);
      core_.Open([this, done = std::move(done), alive](absl::Status opened) mutable {
        if (!*alive) return;
        ArmTick();
        done(opened);
      });
    });
  };
  store_->ReadRecords(kOpenedKey, std::move(with_records));
}

// Versions granted from now on beat every earlier one of a page, also those that this node has never heard of: they are
// in a later epoch, and a later incarnation's are later still.
void PageEngine::BumpGrantEpoch() {
  ++grant_epoch_.value;
  CHECK(grant_epoch_.value >> kGrantEpochBits == options_.self.incarnation.value);
}

std::vector<PageId> PageEngine::SortedPages(absl::FunctionRef<bool(PageId)> wanted) const {
  std::vector<PageId> pages;
  for (const auto& [page, cached] : cache_) {
    if (wanted(page)) pages.push_back(page);
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

void PageEngine::OnPeerUp(NodeInstance peer) {
  if (stopped_) return;
  Turn turn(this);
  up_.insert(peer.node);
  ArmTick();
  next_registration_ask_ = 0;
  Incarnation& known = known_[peer.node];
  const Incarnation before = known;
  if (peer.incarnation <= before) return;
  known = peer.incarnation;
  if (before.value == 0) return;
  if (options_.bugs && options_.bugs->forget_incarnation) return;

  BumpGrantEpoch();
  std::vector<PageId> homes;
  for (const auto& [page, entry] : homes_) homes.push_back(page);
  std::sort(homes.begin(), homes.end());
  for (PageId page : homes) {
    std::vector<HomeEffect> effects;
    StepHomePeerLost(Home(page), peer, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
  const auto of_peer = [&](PageId page) { return locator_->Responsible(page) == peer.node; };
  for (PageId page : SortedPages(of_peer)) {
    WithPage(page, [this, page] { ForgetResponsible(Cached(page).entry, ContextOf(page)); });
  }
  if (event_sink_) {
    event_sink_({.kind = RegionEvent::Kind::kMaybeReverted, .range = {PageId{}, 0}});
  }
}

void PageEngine::OnPeerDown(NodeInstance peer, const absl::Status& reason) {
  if (IsCurrent(peer)) up_.erase(peer.node);
  LogInfo(ToString(peer), " is away: ", reason.message());
}

std::vector<NodeId> PageEngine::Unregistered() const {
  std::vector<NodeId> nodes;
  for (const auto& [node, registration] : registering_) nodes.push_back(node);
  return nodes;
}

void PageEngine::AskForRegistrations() {
  const TimeNs now = clock_->Now();
  if (registering_.empty() || now < next_registration_ask_) return;
  next_registration_ask_ = now + 5 * options_.resend_after;
  for (auto& [node, registration] : registering_) {
    if (!up_.contains(node)) continue;
    registration.round = NextRequest();
    registration.reports.clear();
    Message ask;
    ask.kind = MessageKind::kRegisterRequest;
    ask.request = registration.round;
    Post(node, std::move(ask));
  }
}

void PageEngine::SendRegistrations(const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;
  const std::vector<PageId> pages = SortedPages([&](PageId p) { return locator_->Responsible(p) == from.node; });
  // A page whose copy is being taken away is nothing any more for its machine, but may still be read here. Then this is
  // not the moment; the question comes again.
  if (std::any_of(pages.begin(), pages.end(), [&](PageId p) { return FindCached(p)->carrying; })) return;
  Message answer;
  answer.request = message.request;
  answer.kind = MessageKind::kRegister;
  uint64_t count = 0;
  for (PageId page : pages) {
    const CacheEntry& entry = Cached(page).entry;
    answer.holding = HoldingOf(entry);
    if (answer.holding == Holding::kNone) continue;
    answer.page = page;
    answer.version = HeldVersion(entry);
    answer.config = entry.config;
    Post(from.node, answer);
    ++count;
  }
  answer.kind = MessageKind::kRegisterEnd;
  answer.page = {};
  answer.config = {};
  answer.holding = Holding::kNone;
  answer.count = count;
  Post(from.node, std::move(answer));
}

void PageEngine::Registrations(const Message& message, NodeInstance from) {
  const auto it = registering_.find(from.node);
  if (it == registering_.end() || it->second.round != message.request || !IsCurrent(from)) return;
  Registration& registration = it->second;
  if (message.kind == MessageKind::kRegister) {
    if (locator_->Responsible(message.page) != options_.self.node) return;
    registration.reports[message.page] = {
        .node = from, .holding = message.holding, .version = message.version, .config = message.config};
    return;
  }
  if (registration.reports.size() != message.count) return;  // Some are late or lost: asked again.
  for (const auto& [page, report] : registration.reports) Register(Home(page), report);
  registering_.erase(it);
  if (registering_.empty()) BecomeReady();
}

void PageEngine::BecomeReady() {
  std::vector<PageId> pages;
  for (const auto& [page, entry] : homes_) pages.push_back(page);
  std::sort(pages.begin(), pages.end());
  for (PageId page : pages) {
    std::vector<HomeEffect> effects;
    StepHomeReady(Home(page), HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

}  // namespace mangrove
