// Worlds as strings of bytes, for telling them apart.

#include <string>

#include "tests/unit/directory/protocol_model.h"

namespace mangrove::model {
namespace {

// Appends what tells states apart.
class KeyWriter {
 public:
  explicit KeyWriter(std::string& out) : out_(out) {}
  void Add(uint64_t v) {
    while (v >= 0x80) {
      out_.push_back(static_cast<char>(v | 0x80));
      v >>= 7;
    }
    out_.push_back(static_cast<char>(v));
  }
  void Add(const Version& v) {
    Add(v.epoch.value);
    Add(v.counter);
  }
  void Add(const NodeInstance& n) {
    Add(n.node.value);
    Add(n.incarnation.value);
  }
  void Add(const Message& m) {
    Add(static_cast<uint64_t>(m.kind));
    Add(m.txn.value);
    Add(m.request.value);
    Add(m.peer);
    Add(static_cast<uint64_t>(m.access) << 12 | static_cast<uint64_t>(m.holding) << 2 |
        static_cast<uint64_t>(m.active) << 5 | static_cast<uint64_t>(m.have) << 6 |
        static_cast<uint64_t>(m.exclusive) << 7 | static_cast<uint64_t>(m.owner) << 8 |
        static_cast<uint64_t>(m.retain) << 9 | static_cast<uint64_t>(m.kept) << 10 |
        static_cast<uint64_t>(m.complete) << 11);
    Add(m.version);
    Add(m.flushed);
    Add(m.grant_epoch.value);
    Add(m.data == nullptr ? 0 : 1 + NumberIn(m.data));
    Add(static_cast<uint64_t>(m.code));
  }
  void Add(const CacheEntry& e) {
    Add(static_cast<uint64_t>(e.state) << 2 | static_cast<uint64_t>(e.open) << 1 | static_cast<uint64_t>(e.reported));
    Add(e.version);
    Add(e.flushed);
    Add(e.grant_epoch.value);
    Add(e.txn.value);
    Add(e.request.value);
    Add(static_cast<uint64_t>(e.wanted));
    Add(e.pending ? 1 : 0);
    if (e.pending) {
      if (e.pending->have_grant) Add(e.pending->grant);
      Add(static_cast<uint64_t>(e.pending->activated) << 1 | static_cast<uint64_t>(e.pending->have_grant));
      Add(e.pending->txn.value);
    }
    Add(e.retained ? 1 : 0);
    if (e.retained) {
      Add(e.retained->txn.value);
      Add(e.retained->version);
      Add(e.retained->flushed);
      Add(e.retained->grant_epoch.value);
      Add(e.retained->requester);
      Add(e.retained->request.value);
      Add(static_cast<uint64_t>(e.retained->owner));
      Add(NumberIn(e.retained->data));
      Add(e.retained->answer);
    }
    Add(uint64_t{e.shared_pins} << 1 | e.exclusive_pins);
    Add(e.hold_until);
    Add(e.deferred ? 1 : 0);
    if (e.deferred) Add(*e.deferred);
  }
  void Add(const HomeRequest& r) {
    Add(static_cast<uint64_t>(r.kind) << 3 | static_cast<uint64_t>(r.access) << 1 | static_cast<uint64_t>(r.have));
    Add(r.from);
    Add(r.request.value);
  }
  void Add(const Keeper& k) {
    Add(k.node);
    Add(k.txn.value);
  }
  void Add(const HolderReport& r) {
    Add(r.node);
    Add(static_cast<uint64_t>(r.holding));
    Add(r.version);
  }
  template <typename C>
  void AddAll(const C& all) {
    Add(all.size());
    for (const auto& one : all) Add(one);
  }
  void Add(const HomeEntry& e) {
    Add(static_cast<uint64_t>(e.state) << 2 | static_cast<uint64_t>(e.clean) << 1 | static_cast<uint64_t>(e.reverting));
    Add(e.owner);
    AddAll(e.sharers);
    AddAll(e.Work().keepers);
    AddAll(e.Work().queue);
    AddAll(e.Work().registered);
    if (!e.IsBusy()) return;
    const HomeTransaction& t = *e.txn();
    Add(t.id.value);
    Add(t.request);
    Add(t.source);
    Add(t.backup);
    Add(static_cast<uint64_t>(t.appoints) << 4 | static_cast<uint64_t>(t.lost) << 3 |
        static_cast<uint64_t>(t.upgrade) << 2 | static_cast<uint64_t>(t.from_disk) << 1 |
        static_cast<uint64_t>(t.active));
    AddAll(t.waiting);
    Add(t.grant ? *t.grant : Message{});
    AddAll(t.reports);
  }
  void Add(const StoredPage& p) {
    Add(p.version);
    Add(p.content);
    Add(p.seal.value);
  }

 private:
  std::string& out_;
};

}  // namespace

std::string KeyOf(const Packet& packet, const Message& message) {
  std::string key;
  KeyWriter writer(key);
  writer.Add(packet.from);
  writer.Add(packet.to);
  writer.Add(message);
  return key;
}

std::string World::Key() const {
  std::string key;
  key.reserve(512);
  KeyWriter writer(key);
  const Limits& l = limits_;
  for (int left : {l.wants, l.writes, l.evicts, l.offers, l.flushes, l.cancels, l.pins, l.holds, l.crashes})
    writer.Add(left);
  for (const ModelNode& n : nodes_) {
    writer.Add(n.incarnation.value);
    for (Incarnation known : n.known) writer.Add(known.value);
    writer.Add(n.cache);
    writer.Add(n.offers ? 1 : 0);
    writer.Add(n.told_before.value);
    writer.Add(n.frame + 1);
    writer.Add(n.disk);
    writer.Add(n.flush.on ? 1 + n.flush.stored : 0);
    if (n.flush.on) {
      writer.Add(n.flush.version);
      writer.Add(n.flush.request.value);
    }
    writer.Add(n.told ? 1 : 0);
    writer.Add(n.tells);
  }
  writer.Add(home_);
  writer.Add(static_cast<uint64_t>(ready_) << 1 | static_cast<uint64_t>(last_known_));
  writer.Add(epoch_.value);
  writer.Add(lost_at_.value);
  writer.Add(load_.on ? 1 + load_.asked : 0);
  if (load_.on) {
    writer.Add(load_.txn.value);
    writer.Add(static_cast<uint64_t>(load_.recover) << 1 | static_cast<uint64_t>(load_.version_only));
    writer.Add(load_.epoch.value);
    writer.Add(load_.newest);
  }
  writer.Add(last_);
  writer.Add(acknowledged_);
  for (const Packet& p : packets_) {
    key += p.key;
    key.push_back(static_cast<char>(p.left));
  }
  return key;
}

}  // namespace mangrove::model
