// Clients of tokens, a server and a network between them that loses, doubles, reorders and delays, in one thread and with made-up time.
// What nodes keep in memory, and what they write, is modelled beside them; `broken` says the first thing that must not be.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fs/tokens/token_client.h"
#include "fs/tokens/token_server.h"

namespace mangrove::fs {

class TokenCluster {
 public:
  struct Options {
    uint64_t seed = 1;
    int nodes = 4;
    int objects = 3;
    int loss_percent = 10;
    int twice_percent = 10;
    int most_delay_ms = 30;
    bool crashes = true;
    size_t most_idle = 100;
    TokenBug bug = TokenBug::kNone;
  };
  struct Counts {
    int ready = 0, cancelled = 0, changes = 0, crashes = 0, moves = 0, sizes_read = 0, times_read = 0, conditional = 0,
        refused = 0, own_changes = 0, pinning_changes = 0, values_set = 0, leases_ended = 0, timed_out = 0;
  };

  explicit TokenCluster(Options options);
  // Faults and operations for so long.
  void Run(int64_t duration_ms);
  // The network loses nothing any more; true if all that waits has ended within the time.
  bool Heal(int64_t bound_ms);

  const std::string& broken() const { return broken_; }
  const Counts& counts() const { return counts_; }

 private:
  struct Work {
    std::vector<TokenClient::Wanted> wanted;
    bool ready = false;
    bool changing = false;  // It does not end before its change has.
    int64_t end_ms = 0;
  };
  struct Node {
    NodeInstance instance;
    std::unique_ptr<TokenClient> client;
    std::map<uint64_t, Work> works;
    std::map<TokenObject, TokenSet> memory;  // What it keeps, by what it is the right to.
    std::vector<std::pair<int64_t, TokenEvent>> invalidations;
    std::set<TokenObject> changing;
    int64_t view_at_ms = -1;
    bool lease_over = false;  // The next view does without it.
    bool away = false;        // From this view.
  };
  struct Packet {
    NodeInstance from, to;
    std::string bytes;
  };
  // What the values of an object may be.
  struct Truth {
    std::set<uint64_t> sizes{0};
    int64_t times_low = 0, times_high = 0;
  };

  uint64_t Below(uint64_t limit) { return random_() % limit; }
  TokenObject AnyObject() { return {.inode = 1 + Below(uint64_t(options_.objects)), .generation = 1}; }
  TokenSet AnySet();
  void OneMillisecond(bool faults);
  void Deliver(const Packet& packet);
  void Begin(Node& node);
  void Use(Node& node, uint64_t operation, const Work& work);
  void Proceed(Node& node);
  void ChangeOf(Node& node, uint64_t operation);
  void Crash();
  void EndLease();
  // What a node alone knew is lost: what is stored may be what is read.
  void Loosen();
  void EndChange(const TokenChangeId& change, TokenSet made);
  void Serve(bool faults);
  void NewView();
  void Post(NodeInstance from, const std::vector<TokenSend>& sends);
  void Do(Node& node, TokenClient::Output out);
  void Do(TokenServer::Output out);
  void Check();
  void Break(const std::string& what) {
    if (broken_.empty()) broken_ = "at " + std::to_string(now_) + " ms: " + what;
  }

  const Options options_;
  std::mt19937_64 random_;
  int64_t now_ = 0;
  uint64_t view_ = 0;
  bool lossy_ = true;
  std::vector<Node> nodes_;
  NodeInstance server_at_;
  std::unique_ptr<TokenServer> server_;
  int64_t server_view_at_ms_ = -1;
  int64_t next_view_ms_ = -1;
  std::multimap<int64_t, Packet> network_;
  std::map<TokenObject, TokenValues> disk_;
  std::map<TokenObject, Truth> truth_;
  std::map<TokenChangeId, std::pair<int64_t, TokenSet>> changes_;  // Those that are being made, until when.
  std::map<TokenChangeId, TokenSet> needs_;
  uint64_t own_changes_ = 0;
  uint64_t operations_ = 0, written_ = 0, incarnations_ = 0;
  std::string broken_;
  Counts counts_;
};

}  // namespace mangrove::fs
