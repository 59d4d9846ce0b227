// What is stepped once for alike neighbours is what stepping each would have given.
// Covers: B04

#include "directory/page_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "directory/codec.h"

namespace mangrove {
namespace {

constexpr PageId kPage{1000};
constexpr NodeInstance kSelf{NodeId(1), Incarnation(5)};
constexpr NodeInstance kHome{NodeId(2), Incarnation(5)};
constexpr TimeNs kNow = 100;

// --- Entries and effects as text: what is added to one has to be added here -------------------------------------------

void Print(std::ostream& out, const Message& m) {
  out << Name(m.kind) << ' ' << ToString(m.page) << " x" << m.repeat << " count " << m.count << " txn " << m.txn.value
      << " request " << m.request.value << " peer " << m.peer.node.value << '.' << m.peer.incarnation.value
      << " access " << static_cast<int>(m.access) << " holding " << static_cast<int>(m.holding) << " version "
      << ToString(m.version) << " flushed " << ToString(m.flushed) << " epoch " << m.grant_epoch.value << " config "
      << m.config.value << " replicas " << m.replicas << " flags " << m.active << m.have << m.exclusive << m.owner
      << m.retain << m.kept << m.seal << m.complete << m.with_data << m.is_volatile << m.hurry << " code "
      << static_cast<int>(m.code) << ' ' << m.text << " data " << m.data.get() << '\n';
}

std::string Text(const CacheEntry& entry) {
  const auto& [state, open, reported, wanted, exclusive_pins, shared_pins, replicas, version, flushed, grant_epoch,
               config, txn, request, delayed_by, hold_until, pending, retained, deferred] = entry;
  std::ostringstream out;
  out << Name(state) << ' ' << open << reported << static_cast<int>(wanted) << int{exclusive_pins} << shared_pins
      << " replicas " << replicas << " version " << ToString(version) << " flushed " << ToString(flushed) << " epoch "
      << grant_epoch.value << " config " << config.value << " txn " << txn.value << " request " << request.value
      << " delayed " << delayed_by.value << " hold " << hold_until << '\n';
  if (pending) {
    out << "pending " << pending->have_grant << pending->activated << pending->txn.value << '\n';
    Print(out, pending->grant);
  }
  if (retained) {
    const auto& r = *retained;
    out << "retained " << r.txn.value << ' ' << ToString(r.version) << ' ' << ToString(r.flushed) << ' '
        << r.grant_epoch.value << ' ' << r.requester.node.value << ' ' << r.request.value << ' ' << r.owner
        << r.reported << ' ' << r.since << ' ' << r.data.get() << '\n';
    Print(out, r.answer);
  }
  if (deferred) Print(out << "deferred ", *deferred);
  return out.str();
}

std::string Text(const std::vector<CacheEffect>& effects) {
  std::ostringstream out;
  for (const CacheEffect& e : effects) {
    out << static_cast<int>(e.kind) << e.write << " to " << e.to.value << " data " << e.data.get() << ' ';
    Print(out, e.message);
  }
  return out.str();
}

std::string Text(const HomeEntry& entry) {
  const auto& [state, clean, reverting, owner, sharers, boxed] = entry;
  std::ostringstream out;
  out << Name(state) << clean << reverting << " owner " << owner.node.value << '.' << owner.incarnation.value
      << " sharers";
  for (const NodeInstance& node : sharers) out << ' ' << node.node.value << '.' << node.incarnation.value;
  if (!boxed) return out.str();
  const auto& [txn, queue, keepers, registered] = *boxed;
  const auto print = [&out](const HomeRequest& r) {
    out << "\nrequest " << static_cast<int>(r.kind) << ' ' << r.from.node.value << ' ' << r.request.value << ' '
        << static_cast<int>(r.access) << r.have << ' ' << r.at_most.value;
  };
  if (txn) {
    out << "\ntxn " << txn->id.value << ' ' << txn->source.node.value << ' ' << txn->backup.node.value << ' '
        << txn->upgrade << txn->from_disk << txn->active << txn->was_lost << txn->lost << txn->appoints << ' '
        << txn->resend_at << ' ' << txn->resends << " waits";
    for (const NodeInstance& node : txn->waiting) out << ' ' << node.node.value;
    print(txn->request);
    if (txn->grant) Print(out, *txn->grant);
    for (const HolderReport& r : txn->reports) out << "\nreport " << r.node.node.value << static_cast<int>(r.holding);
  }
  for (const HomeRequest& r : queue) print(r);
  for (const Keeper& k : keepers) out << "\nkeeper " << k.node.node.value << ' ' << k.txn.value;
  out << "\nregistered " << registered.size();
  return out.str();
}

std::string Text(const std::vector<HomeEffect>& effects) {
  std::ostringstream out;
  for (const HomeEffect& e : effects) {
    out << static_cast<int>(e.kind) << " to " << e.to.value << ' ' << e.recover << e.version_only << ' '
        << e.request.value << ' ';
    Print(out, e.message);
  }
  return out.str();
}

// --- The cache --------------------------------------------------------------------------------------------------------

class CacheRuns {
 public:
  explicit CacheRuns(uint32_t seed) : random_(seed) {}

  // True: an alike neighbour was found, and what came of it was compared.
  bool Try() {
    const CacheEntry entry = AnyEntry();
    const uint64_t pages = 1 + Any(3);
    CacheEntry other = entry;
    if (other.txn.value != 0) other.txn.value += pages;
    if (other.request.value != 0) other.request.value += pages;
    if (other.retained) {
      other.retained->txn.value += pages;
      other.retained->data = {PageBuffer(), pages_ + pages};
    }
    if (Any(2) == 0) Disturb(other);
    if (!Consistent(other)) return false;
    return Any(3) == 0 ? CompareLocal(entry, other, pages) : CompareMessage(entry, other, pages);
  }
  const std::set<std::pair<int, int>>& seen() const { return seen_; }

 private:
  uint64_t Any(uint64_t below) { return random_() % below; }
  bool Maybe() { return Any(2) == 0; }
  Version AnyVersion() { return {Epoch(1 + Any(2)), Any(3)}; }

  CacheEntry AnyEntry() {
    while (true) {
      CacheEntry e;
      e.state = static_cast<CacheState>(Any(kCacheStates));
      e.open = e.state == CacheState::kExclusive && Maybe();
      e.reported = e.HasRead() && Any(4) == 0;
      e.replicas = static_cast<uint32_t>(Any(3));
      e.version = AnyVersion();
      e.flushed = Maybe() ? e.version : AnyVersion();
      e.grant_epoch = Epoch(1 + Any(3));
      e.config = ConfigNumber(Any(2));
      e.txn = Txn(Any(4) == 0 ? 0 : 40 + Any(20));
      const bool waits = e.state == CacheState::kWaitRead || e.state == CacheState::kWaitWrite ||
                         e.state == CacheState::kSharedWait || e.state == CacheState::kOwnedWait;
      if (waits) e.request = RequestId(70 + Any(2));
      e.wanted = e.state == CacheState::kWaitRead || (!waits && Maybe()) ? Access::kRead : Access::kWrite;
      e.hold_until = static_cast<TimeNs>(Any(3) * 75);
      if (Any(3) == 0 && !e.HasRead()) {
        e.retained = CacheEntry::Retained{.txn = Txn(40 + Any(20)),
                                          .owner = Maybe(),
                                          .data = {PageBuffer(), pages_},
                                          .reported = Any(4) == 0,
                                          .answer = {}};
      }
      if (Consistent(e)) return e;
    }
  }

  void Disturb(CacheEntry& e) {
    switch (Any(14)) {
      case 0: e.state = static_cast<CacheState>(Any(kCacheStates)); break;
      case 1: e.open = !e.open; break;
      case 2: e.wanted = Access::kWrite; break;
      case 3: e.reported = !e.reported; break;
      case 4: e.replicas = static_cast<uint32_t>(Any(3)); break;
      case 5: e.version = AnyVersion(); break;
      case 6: e.flushed = AnyVersion(); break;
      case 7: e.grant_epoch = Epoch(1 + Any(3)); break;
      case 8: e.config = ConfigNumber(Any(2)); break;
      case 9: e.txn = Txn(Any(4) == 0 ? 0 : 40 + Any(20)); break;
      case 10: e.hold_until = static_cast<TimeNs>(Any(3) * 75); break;
      case 11: e.shared_pins = 1; break;
      case 12:
        if (e.retained) ++e.retained->txn.value;
        break;
      default: e.request = RequestId(e.request.value == 0 ? 0 : 70 + Any(5));
    }
  }

  Message AnyMessage() {
    Message m;
    do {
      m.kind = static_cast<MessageKind>(Any(kMessageKinds));
      m.access = static_cast<Access>(Any(2));
    } while (!IsForCache(m.kind) || !MayBeARun(m));
    m.page = kPage;
    m.txn = Txn(38 + Any(24));
    m.request = RequestId(69 + Any(4));
    m.peer = {NodeId(3), Incarnation(5)};
    m.version = AnyVersion();
    m.flushed = AnyVersion();
    m.grant_epoch = Epoch(1 + Any(4));
    m.config = ConfigNumber(Any(2));
    m.active = Maybe();
    m.owner = Maybe();
    m.exclusive = m.owner && Maybe();
    m.retain = Maybe();
    m.hurry = Maybe();
    if (m.kind == MessageKind::kGrant && Maybe()) m.data = {PageBuffer(), pages_};
    return m;
  }

  CacheContext ContextAt(uint64_t pages) {
    return {.self = kSelf, .responsible = kHome.node, .now = kNow, .hold = 10, .next_request = RequestId(900 + pages)};
  }

  void Compare(const CacheEntry& before, const CacheEntry& after, std::vector<CacheEffect> effects, uint64_t pages,
               CacheEntry other, const CacheEntry& expected, const std::vector<CacheEffect>& expected_effects) {
    const std::string was = Text(other);
    TakeStep(before, after, pages, other);
    for (CacheEffect& effect : effects) MoveOn(effect, pages);
    // Of most effects the message is empty.
    std::vector<CacheEffect> moved = expected_effects;
    for (size_t i = 0; i < moved.size() && i < effects.size(); ++i) {
      if (moved[i].message.page == PageId{}) moved[i].message.page = effects[i].message.page;
    }
    ASSERT_EQ(Text(other), Text(expected)) << "was " << was << "beside " << Text(before);
    ASSERT_EQ(Text(effects), Text(moved)) << "was " << was << "beside " << Text(before);
  }

  bool CompareMessage(const CacheEntry& entry, const CacheEntry& other, uint64_t pages) {
    const Message message = AnyMessage();
    if (message.kind == MessageKind::kGrant && !message.active) return false;
    if (!AreAlike(entry, other, pages, &message, kNow)) return false;
    const NodeId from = Any(8) == 0 ? NodeId(3) : kHome.node;
    CacheEntry after = entry;
    CacheEntry expected = other;
    std::vector<CacheEffect> effects;
    std::vector<CacheEffect> expected_effects;
    Message moved = message;
    MoveOn(moved, pages);
    const auto event = StepCacheMessage(after, message, from, ContextAt(0), effects);
    EXPECT_EQ(event, StepCacheMessage(expected, moved, from, ContextAt(pages), expected_effects));
    Compare(entry, after, std::move(effects), pages, other, expected, expected_effects);
    if (event) seen_.emplace(static_cast<int>(entry.state), static_cast<int>(*event));
    return true;
  }

  bool CompareLocal(const CacheEntry& entry, const CacheEntry& other, uint64_t pages) {
    const CacheEvent event = Maybe() ? CacheEvent::kWantRead : CacheEvent::kWantWrite;
    if (!AreAlike(entry, other, pages, nullptr, kNow)) return false;
    CacheEntry after = entry;
    CacheEntry expected = other;
    std::vector<CacheEffect> effects;
    std::vector<CacheEffect> expected_effects;
    StepCacheLocal(after, kPage, event, ContextAt(0), effects);
    StepCacheLocal(expected, kPage + pages, event, ContextAt(pages), expected_effects);
    Compare(entry, after, std::move(effects), pages, other, expected, expected_effects);
    seen_.emplace(static_cast<int>(entry.state), static_cast<int>(event));
    return true;
  }

  std::mt19937 random_;
  PageBytes pages_[4];
  std::set<std::pair<int, int>> seen_;
};

TEST(PageRun, ACacheStepsAlikeNeighboursAsItStepsEach) {
  std::set<std::pair<int, int>> seen;
  int compared = 0;
  for (uint32_t seed = 0; seed < 400 && !testing::Test::HasFailure(); ++seed) {
    CacheRuns runs(seed);
    for (int i = 0; i < 500 && !testing::Test::HasFailure(); ++i) compared += runs.Try() ? 1 : 0;
    seen.insert(runs.seen().begin(), runs.seen().end());
  }
  EXPECT_GT(compared, 20'000);
  for (const auto& [state, event] :
       std::vector<std::pair<CacheState, CacheEvent>>{{CacheState::kInvalid, CacheEvent::kWantRead},
                                                      {CacheState::kInvalid, CacheEvent::kWantWrite},
                                                      {CacheState::kWaitRead, CacheEvent::kGrantRead},
                                                      {CacheState::kWaitWrite, CacheEvent::kGrantWrite},
                                                      {CacheState::kSharedWait, CacheEvent::kGrantWrite},
                                                      {CacheState::kExclusive, CacheEvent::kForwardRead},
                                                      {CacheState::kOwned, CacheEvent::kForwardRead},
                                                      {CacheState::kExclusive, CacheEvent::kForwardWrite},
                                                      {CacheState::kShared, CacheEvent::kInvalidate},
                                                      {CacheState::kExclusive, CacheEvent::kBlocked},
                                                      {CacheState::kInvalid, CacheEvent::kGrantOther},
                                                      {CacheState::kInvalid, CacheEvent::kTransferDone},
                                                      {CacheState::kInvalid, CacheEvent::kDoneBefore}}) {
    EXPECT_TRUE(seen.contains({static_cast<int>(state), static_cast<int>(event)})) << Name(state) << ' ' << Name(event);
  }
}

// --- The responsible node ---------------------------------------------------------------------------------------------

// An entry that came to be as it is by what nodes sent, and a neighbour.
class HomeRuns {
 public:
  explicit HomeRuns(uint32_t seed) : random_(seed) {}

  void Walk(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      if (MayBeOfARun(entry_)) Try();
      Step();
    }
  }
  int compared() const { return compared_; }
  const std::set<std::pair<int, int>>& seen() const { return seen_; }

 private:
  uint64_t Any(uint64_t below) { return random_() % below; }
  NodeInstance AnyNode() { return {NodeId(1 + Any(3)), Incarnation(5)}; }

  Message AnyMessage(bool of_a_run) {
    Message m;
    do {
      m.kind = static_cast<MessageKind>(Any(kMessageKinds));
      m.access = static_cast<Access>(Any(of_a_run ? 2 : 3));
    } while (!IsForHome(m.kind) || (of_a_run && !MayBeARun(m)));
    m.page = kPage;
    m.txn = entry_.txn() && Any(8) > 0 ? entry_.txn()->id : Txn(next_txn_ - 10 * Any(3));
    m.request = RequestId(20 * (1 + Any(4)));
    if (m.kind == MessageKind::kRequest) m.txn = {};
    m.have = Any(2) == 0;
    m.kept = Any(2) == 0;
    m.complete = Any(2) == 0;
    return m;
  }

  HomeContext ContextAt(uint64_t pages) {
    return {.self = kSelf,
            .page = kPage + pages,
            .now = kNow,
            .grant_epoch = Epoch(3),
            .next_txn = Txn(next_txn_ + pages),
            .ready = true,
            .pool = &pool_};
  }

  void Step() {
    std::vector<HomeEffect> effects;
    if (entry_.state == HomeState::kLoading && Any(2) == 0) {
      const HomeContext context = ContextAt(0);
      if (Any(4) == 0) {
        StepHomeLoadFailed(entry_, entry_.txn()->id, absl::DataLossError("gone"), context, effects);
      } else {
        StepHomeLoaded(entry_, entry_.txn()->id, LoadedPage{.data = nullptr}, context, effects);
      }
    } else if (entry_.txn() != nullptr && Any(2) == 0) {
      Message answer = AnyMessage(false);
      answer.kind = entry_.state == HomeState::kEvicting ? MessageKind::kEvictAck : MessageKind::kGrantAck;
      const auto& waiting = entry_.txn()->waiting;
      if (!waiting.empty()) answer.kind = MessageKind::kInvalidateAck;
      answer.txn = entry_.txn()->id;
      const NodeInstance from = waiting.empty() ? entry_.txn()->request.from : waiting.front();
      StepHomeMessage(entry_, answer, from, ContextAt(0), effects);
    } else {
      StepHomeMessage(entry_, AnyMessage(false), AnyNode(), ContextAt(0), effects);
    }
    next_txn_ += 10 * kTxnsPerStep;
  }

  void Disturb(HomeEntry& e) {
    HomeWork* const work = e.work ? &*e.work : nullptr;
    switch (Any(8)) {
      case 0: e.clean = !e.clean; break;
      case 1: e.sharers = SharerTable().With(e.sharers, AnyNode()); break;
      case 2: e.owner = e.owner == NodeInstance{} ? e.owner : AnyNode(); break;
      case 3:
        if (work != nullptr && work->txn) ++work->txn->id.value;
        break;
      case 4:
        if (work != nullptr && work->txn) ++work->txn->request.request.value;
        break;
      case 5:
        if (work != nullptr && work->txn) work->txn->active = !work->txn->active;
        break;
      case 6:
        if (work != nullptr && !work->keepers.empty()) ++work->keepers.front().txn.value;
        break;
      default: e.reverting = !e.reverting;
    }
  }

  void Try() {
    const uint64_t pages = 1 + Any(3);
    HomeEntry other;
    TakeStep(entry_, pages, pool_, other);
    if (Any(2) == 0) Disturb(other);
    const Message message = AnyMessage(true);
    if (!Consistent(other) || !AreAlike(entry_, other, pages)) return;
    const NodeInstance from = AnyNode();
    HomeEntry after = entry_;
    HomeEntry expected = other;
    std::vector<HomeEffect> effects;
    std::vector<HomeEffect> expected_effects;
    Message moved = message;
    MoveOn(moved, pages);
    const auto event = StepHomeMessage(after, message, from, ContextAt(0), effects);
    ASSERT_EQ(event, StepHomeMessage(expected, moved, from, ContextAt(pages), expected_effects));
    const std::string was = Text(other);
    TakeStep(after, pages, pool_, other);
    for (HomeEffect& effect : effects) MoveOn(effect.message, pages);
    ASSERT_EQ(Text(other), Text(expected)) << "was " << was;
    ASSERT_EQ(Text(effects), Text(expected_effects)) << "was " << was;
    ++compared_;
    if (event) seen_.emplace(static_cast<int>(entry_.state), static_cast<int>(*event));
  }

  std::mt19937 random_;
  HomePool pool_;
  HomeEntry entry_;
  uint64_t next_txn_ = 1000;
  int compared_ = 0;
  std::set<std::pair<int, int>> seen_;
};

TEST(PageRun, AResponsibleNodeStepsAlikeNeighboursAsItStepsEach) {
  std::set<std::pair<int, int>> seen;
  int compared = 0;
  for (uint32_t seed = 0; seed < 500 && !testing::Test::HasFailure(); ++seed) {
    HomeRuns runs(seed);
    runs.Walk(100);
    compared += runs.compared();
    seen.insert(runs.seen().begin(), runs.seen().end());
  }
  EXPECT_GT(compared, 5'000);
  for (const auto& [state, event] :
       std::vector<std::pair<HomeState, HomeEvent>>{{HomeState::kUnowned, HomeEvent::kRequest},
                                                    {HomeState::kOwned, HomeEvent::kRequest},
                                                    {HomeState::kGranting, HomeEvent::kRequest},
                                                    {HomeState::kGranting, HomeEvent::kGrantAck}}) {
    EXPECT_TRUE(seen.contains({static_cast<int>(state), static_cast<int>(event)})) << Name(state) << ' ' << Name(event);
  }
}

// --- Messages ---------------------------------------------------------------------------------------------------------

TEST(PageRun, TravelsAsOneEntryAndComesAsOneOrTakenApart) {
  Message grant;
  grant.kind = MessageKind::kGrant;
  grant.page = kPage;
  grant.txn = Txn(7);
  grant.request = RequestId(9);
  grant.active = true;
  grant.repeat = 5;
  PageRow row;
  const auto pages = row.NewPages(5);
  for (size_t i = 0; i < 5; ++i) pages.get()[i].bytes.fill(static_cast<std::byte>(i + 1));
  grant.data = pages;
  Message ack;
  ack.kind = MessageKind::kGrantAck;
  ack.page = kPage;
  ack.txn = Txn(3);
  ack.repeat = 200;
  const std::vector<Message> sent{grant, ack};
  int packets = 0;
  Encode(sent, [&](const Packet& packet) {
    ++packets;
    ASSERT_EQ(packet.pages.size(), 5u);
    std::vector<const std::byte*> bytes;
    for (const PageBuffer& page : packet.pages) bytes.push_back(page->bytes.data());
    std::vector<Message> runs;
    ASSERT_TRUE(DecodeEach(packet.bytes, bytes, [&](const Message& m) { runs.push_back(m); }).ok());
    ASSERT_EQ(runs.size(), 2u);
    EXPECT_EQ(runs[0].repeat, 5u);
    EXPECT_EQ(DataOf(runs[0], 4)->bytes[0], std::byte{5});
    EXPECT_EQ(runs[1].repeat, 200u);
    const auto apart = Decode(packet.bytes, bytes);
    ASSERT_TRUE(apart.ok()) << apart.status();
    ASSERT_EQ(apart->size(), 205u);
    EXPECT_EQ((*apart)[4].page, kPage + 4);
    EXPECT_EQ((*apart)[4].txn, Txn(11));
    EXPECT_EQ((*apart)[4].request, RequestId(13));
    EXPECT_EQ((*apart)[4].data->bytes[0], std::byte{5});
    EXPECT_EQ((*apart)[204].txn, Txn(202));
    EXPECT_EQ((*apart)[204].request, RequestId{});
    // Where the pages do not lie in one piece, as at the end of a ring, it comes in parts.
    std::rotate(bytes.begin(), bytes.begin() + 3, bytes.end());
    runs.clear();
    ASSERT_TRUE(DecodeEach(packet.bytes, bytes, [&](const Message& m) { runs.push_back(m); }).ok());
    ASSERT_EQ(runs.size(), 3u);
    EXPECT_EQ(runs[0].repeat, 2u);
    EXPECT_EQ(runs[0].data->bytes[0], std::byte{4});
    EXPECT_EQ(runs[1].repeat, 3u);
    EXPECT_EQ(runs[1].page, kPage + 2);
    EXPECT_EQ(runs[1].txn, Txn(9));
    EXPECT_EQ(runs[1].request, RequestId(11));
    EXPECT_EQ(DataOf(runs[1], 2)->bytes[0], std::byte{3});
    EXPECT_EQ(runs[2].txn, Txn(3));
    // Where they cannot be lent, they are copied, into one piece.
    std::vector<std::byte> odd(5 * kPageBytes + 1);
    for (size_t i = 0; i < 5; ++i) {
      std::memcpy(&odd[1 + i * kPageBytes], packet.pages[i]->bytes.data(), kPageBytes);
      bytes[i] = &odd[1 + i * kPageBytes];
    }
    runs.clear();
    ASSERT_TRUE(DecodeEach(packet.bytes, bytes, [&](const Message& m) { runs.push_back(m); }).ok());
    ASSERT_EQ(runs.size(), 2u);
    EXPECT_EQ(runs[0].repeat, 5u);
    EXPECT_EQ(DataOf(runs[0], 4)->bytes[0], std::byte{5});
  });
  EXPECT_EQ(packets, 1);
}

// Another segment has another responsible node.
TEST(PageRun, EndsWhereTheSegmentEnds) {
  std::vector<Message> sent(4);
  for (uint64_t i = 0; i < 4; ++i) {
    sent[i].kind = MessageKind::kInvalidate;
    sent[i].page = PageId(8 * kSegmentPages - 2 + i);
    sent[i].txn = Txn(70 + i);
  }
  Encode(sent, [&](const Packet& packet) {
    std::vector<uint32_t> runs;
    ASSERT_TRUE(DecodeEach(packet.bytes, {}, [&](const Message& m) { runs.push_back(m.repeat); }).ok());
    EXPECT_EQ(runs, (std::vector<uint32_t>{2, 2}));
  });
}

// 2,048 messages are the most of a packet, 64 pages the most that travel with it.
TEST(PageRun, RunsThatAreTooMuchForOnePacketTakeSeveral) {
  std::vector<Message> sent;
  for (uint64_t i = 0; i < 20; ++i) {
    Message ack;
    ack.kind = MessageKind::kGrantAck;
    ack.page = kPage + 1000 * i;
    ack.txn = Txn(3);
    ack.repeat = 256;
    sent.push_back(ack);
  }
  uint64_t messages = 0;
  int packets = 0;
  Encode(sent, [&](const Packet& packet) {
    const auto apart = Decode(packet.bytes, {});
    ASSERT_TRUE(apart.ok()) << apart.status();
    messages += apart->size();
    ++packets;
  });
  EXPECT_EQ(messages, 20u * 256);
  EXPECT_EQ(packets, 3);
}

}  // namespace
}  // namespace mangrove
