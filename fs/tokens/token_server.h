// Who holds which tokens of a fileset, and who waits for them: the server's side, with no I/O and no clock.
//
// What it knows is in memory only. A server that begins asks every member what it holds, and decides nothing until all have said it.
//
// Invariants:
//   T9  What the server has of a client covers what that client believes it holds: it is more from the moment of the grant, and less
//       only by a return that was sent with that grant seen.
//   T10 A request is granted when what its client then holds or wants, in the classes it wants, conflicts with no other
//       holder, no change that is being made, and nothing that came before it. A change begins by the same rule, but one of an operation
//       that uses tokens passes whatever waits for these: all but changes of such operations that need no earlier class (T13).
//   T11 What is lent for a change is left out of the conflicts of that change, and of nothing else.
//   T12 Times merge to the largest, from whoever brings them, if they were last set when those that are stored were: what was touched
//       before they were set is gone. A size is taken only of a write holder, and, also while the server is rebuilt, only if what is stored
//       is not under a newer number: that of the grant it was written under, or of its setting.
//
// Owned by its caller's loop.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "fs/tokens/token_bugs.h"
#include "fs/tokens/token_messages.h"

namespace mangrove::fs {

// Of an object, as its inode has them. `times_set`: when they were last set; `size_grant`: under which grant the size was written, or when
// it was set. These are stored beside them.
struct TokenValues {
  TokenTimes times;
  TokenNumber times_set;
  uint64_t size = 0;
  TokenNumber size_grant;
  friend bool operator==(const TokenValues&, const TokenValues&) = default;
};

// A change that the server makes: for a client, its `number`-th, or of its own (no client).
struct TokenChangeId {
  NodeInstance client;
  TokenObject object;
  uint64_t number = 0;
  friend auto operator<=>(const TokenChangeId&, const TokenChangeId&) = default;
};

class TokenServer {
 public:
  struct Options {
    int64_t resend_ms = 200;
    TokenBug bug = TokenBug::kNone;
  };
  // What is to be done, in this order: values are stored before anything is sent.
  struct Output {
    std::vector<std::pair<TokenObject, TokenValues>> store;
    std::vector<TokenChangeId> begin;  // The change may be made now; then EndChange.
    // A conditional recall has ended; whether it was refused by somebody, or somebody was granted it meanwhile. Who relies on it for longer
    // has a change that needs it begin.
    std::vector<std::pair<TokenObject, bool>> conditional;
    std::vector<TokenSend> send;
  };
  using Members = std::set<NodeInstance>;

  // `stored` says what the inode has; it is asked when an object is first heard of.
  TokenServer(Options options, std::function<TokenValues(const TokenObject&)> stored)
      : options_(options), stored_(std::move(stored)) {}

  // A view is settled, of which the leases of those who are in it no more have ended. The first is that in which the server begins.
  // REQUIRES: a larger number than before.
  void OnView(Epoch view, Members members, int64_t now_ms, Output& out);
  void OnMessage(NodeInstance from, const TokenMessage& message, int64_t now_ms, Output& out);
  void Tick(int64_t now_ms, Output& out);

  // A change of the server's own; `number` is the caller's. Waits its turn as a request does, and until all have registered.
  void BeginChange(const TokenObject& object, uint64_t number, TokenSet need, int64_t now_ms, Output& out);
  // REQUIRES: it was said to begin.
  void EndChange(const TokenChangeId& change, int64_t now_ms, Output& out);
  // What a change has made of them, also smaller. REQUIRES: a change that needs write of what is set has begun.
  void SetValues(const TokenObject& object, std::optional<TokenTimes> times, std::optional<uint64_t> size, Output& out);
  // From all who hold what conflicts with `against` and do not use it. One at a time for an object: a second one takes the first's place.
  void RecallConditionally(const TokenObject& object, TokenSet against, int64_t now_ms, Output& out);

  bool Ready() const { return missing_.empty(); }
  // What the server has of a client.
  TokenSet HeldBy(const TokenObject& object, NodeInstance client) const;
  size_t Waiting() const;
  size_t Objects() const { return objects_.size(); }

 private:
  struct Holder {
    TokenSet held;
    TokenNumber grant;
    uint64_t returned = 0;  // The last return that was taken.
    TokenSet recalled;
    int64_t recalled_at = 0;
  };
  // A request, or a change that waits or is being made.
  struct Entry {
    NodeInstance client;
    uint64_t number = 0;
    bool change = false;
    bool begun = false;
    bool passes = false;  // A change of an operation that uses tokens.
    TokenSet wanted;
    TokenSet lent;
    TokenEntry values;  // What its client had written of what it lent.
  };
  // Who came before, and what it then holds.
  struct Earlier {
    TokenSet effective;
    bool begun = false;
    bool passes = false;
  };
  struct Conditional {
    uint64_t number = 0;  // None if zero.
    bool begun = false;   // Not before all have registered.
    TokenSet against;
    std::set<NodeInstance> unanswered;
    bool refused = false;
    int64_t sent_at = 0;
  };
  struct Ended {
    uint64_t number = 0;
    bool made = false;
  };
  struct Object {
    std::map<NodeInstance, Holder> holders;
    std::deque<Entry> queue;
    std::map<NodeInstance, Ended> changed;  // The last change of each client that has ended.
    Conditional conditional;
    TokenValues values;
    bool Idle() const { return holders.empty() && queue.empty() && conditional.number == 0; }
  };
  // What a member has said of what it holds.
  struct Registration {
    uint32_t parts = 0;
    std::set<uint32_t> seen;
  };
  // Entries to be sent, by whom to and kind: grants come before recalls.
  using Letters = std::map<std::pair<NodeInstance, TokenMessageKind>, std::vector<TokenEntry>>;

  Object& At(const TokenObject& object);
  void OnRegister(NodeInstance from, const TokenMessage& message, int64_t now_ms, Output& out);
  // Views and registrations: what the server was told to do itself outlives another failure.
  void KeepOwn();
  void StepAll(int64_t now_ms, Output& out);
  void OnRequest(NodeInstance from, const TokenEntry& e);
  void OnCancel(NodeInstance from, const TokenEntry& e);
  void OnReturn(NodeInstance from, const TokenEntry& e, Letters& letters, Output& out);
  void OnLend(NodeInstance from, const TokenEntry& e, Letters& letters);
  void SendGiveBack(const TokenObject& id, NodeInstance to, Letters& letters) const;
  static void AddValues(const Object& object, TokenSet held, TokenEntry& e);
  void Take(const TokenObject& id, Object& object, const TokenEntry& e, bool take_size, Output& out);
  void EndConditional(const TokenObject& id, Object& object, Output& out);

  TokenSet Effective(const Object& object, const Entry& entry) const;
  bool Conflicting(TokenSet a, TokenSet b) const;
  bool WaitsBehind(const Entry& entry, TokenSet effective, const Earlier& earlier) const;
  // The levels of others, class by class, that are in the way of `entry`; those to be recalled into `recalls`.
  bool HoldersAgree(const Object& object, const Entry& entry, TokenSet effective,
                    std::map<NodeInstance, TokenSet>& recalls) const;
  void Step(const TokenObject& id, int64_t now_ms, Letters& letters, Output& out);
  void Grant(const TokenObject& id, Object& object, const Entry& entry, Letters& letters);
  void SendRecalls(const TokenObject& id, Object& object, const std::map<NodeInstance, TokenSet>& recalls,
                   int64_t now_ms, Letters& letters);
  void BeginConditional(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters);
  void SendConditional(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters);
  void Send(Letters letters, Output& out) const;
  void AskMissing(int64_t now_ms, Output& out);
  void Drop(const NodeInstance& client);
  void Forget(const TokenObject& id);

  const Options options_;
  const std::function<TokenValues(const TokenObject&)> stored_;
  Epoch view_;
  Members members_;
  bool built_ = false;
  Epoch since_;                     // The view in which all have said what they hold.
  std::set<NodeInstance> missing_;  // Who has not said all that it holds.
  std::map<NodeInstance, Registration> registrations_;
  int64_t asked_at_ = 0;
  uint64_t granted_ = 0;
  uint64_t conditionals_ = 0;
  std::map<TokenObject, Object> objects_;
};

}  // namespace mangrove::fs
