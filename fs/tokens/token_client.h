// Which tokens of a fileset this node holds, who uses them, and who waits for them: the client's side, with no I/O and no clock.
//
// Invariants:
//   T13 Who waits for an object pins nothing of it. The objects of one operation are pinned in their order, each when all that is wanted
//       of it is there. An operation that uses tokens waits for no more of them but by a change, which needs only what comes after all
//       that it uses: of a later object, or later classes of the same.
//   T14 What is recalled is not pinned again before it was given back. It is given back when nobody uses it, and what it was the right to
//       has left memory: kInvalidate, then Invalidated.
//   T15 A return is sent again until it is acknowledged. One that crossed a grant counts for nothing: the grant is what is held.
//   T16 What is lent is not used until the server gives it back, whatever is granted meanwhile. It may be recalled.
//   T17 After the lease has ended nothing is held, and all waits have ended; operations under way are told that they use nothing.
//
// Owned by its caller's loop. Each step looks at all that wait: it is made for the operations of one node, not for thousands.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "fs/tokens/token_bugs.h"
#include "fs/tokens/token_messages.h"
#include "fs/tokens/token_uses.h"

namespace mangrove::fs {

enum class TokenEventKind : uint8_t {
  // The operation has all that it waited for: it uses it until Release.
  kReady,
  // It waits no more, or uses no more, for `why`.
  kFailed,
  // Drop what `set` is the right to, as WhatToDoBefore says for data; then call Invalidated with `invalidation`.
  kInvalidate,
  // Nothing of this object is held any more: drop everything, store nothing.
  kLost,
  // The change that was asked for has ended; `why` is kNone if it was made. Then what is kept of `set`, which was lent, is changed
  // likewise or dropped; the values that the client keeps are those that the change left.
  kChanged,
};
enum class TokenFailure : uint8_t {
  kNone = 0,
  kTimedOut,     // Its time was over.
  kInterrupted,  // By a new view. Of a change: it may have been made, and what was lent is given back.
  kLeaseEnded,
  kNotMade,  // Of a change: the server took it back before it began.
};

struct TokenEvent {
  TokenEventKind kind = TokenEventKind::kReady;
  uint64_t operation = 0;
  TokenObject object;
  TokenSet set;
  TokenFailure why = TokenFailure::kNone;
  uint64_t invalidation = 0;
};

class TokenClient {
 public:
  using Operation = uint64_t;
  struct Options {
    int64_t resend_ms = 200;
    size_t most_idle = 10'000;  // Objects of which something is held that nobody uses.
    TokenBug bug = TokenBug::kNone;
  };
  struct Output {
    std::vector<TokenEvent> events;
    std::vector<TokenSend> send;
  };
  struct Wanted {
    TokenObject object;
    TokenSet set;
  };

  explicit TokenClient(Options options) : options_(options) {}

  // A view, and who serves in it. All that waits is asked for again; what `interruptible` operations wait for is given up.
  void OnView(Epoch view, NodeInstance server, int64_t now_ms, Output& out);
  void OnMessage(NodeInstance from, const TokenMessage& message, int64_t now_ms, Output& out);
  // Ends the waits whose time is over, sends again, trims.
  void Tick(int64_t now_ms, Output& out);
  void OnLeaseEnd(Output& out);

  // Waits for all of these, each object once, until `deadline_ms` at the latest.
  // REQUIRES: the number is that of no operation; no set is empty; who asks uses no tokens.
  void Acquire(Operation operation, std::vector<Wanted> wanted, int64_t deadline_ms, bool interruptible, int64_t now_ms,
               Output& out);
  // False: it uses nothing, as after the end of the lease.
  bool Release(Operation operation, int64_t now_ms, Output& out);
  // False: it does not wait. A signal, or a forced unmount.
  bool Cancel(Operation operation, int64_t now_ms, Output& out);

  // The server makes a change that needs `need`; meanwhile it is lent what is held here of it and not used. One at a time for an object:
  // false if there is one. REQUIRES: the operation does not wait, and uses nothing that does not come before `need` (T13).
  bool BeginChange(Operation operation, const TokenObject& object, TokenSet need, int64_t now_ms, Output& out);
  // What was not begun is not to be begun. kChanged says which it was.
  void CancelChange(const TokenObject& object, int64_t now_ms, Output& out);

  // What these kInvalidate named is dropped. Those of before the end of a lease count for nothing. What ends together is returned in as few
  // messages as it needs.
  void Invalidated(const std::vector<uint64_t>& invalidations, int64_t now_ms, Output& out);

  // Of what an operation uses. False, or nothing: it uses nothing any more, since the lease has ended, and nothing was changed.
  // REQUIRES: otherwise it uses shared write of the times, or write of the size.
  [[nodiscard]] bool Touch(Operation operation, const TokenObject& object, const TokenTimes& times);
  [[nodiscard]] bool SetSize(Operation operation, const TokenObject& object, uint64_t size);
  // REQUIRES: otherwise it uses read, or write, of it.
  std::optional<TokenTimes> TimesOf(Operation operation, const TokenObject& object) const;
  std::optional<uint64_t> SizeOf(Operation operation, const TokenObject& object) const;

  TokenSet Held(const TokenObject& object) const;
  // What may be relied on: held, and not lent.
  TokenSet Usable(const TokenObject& object) const;
  TokenSet Pinned(const TokenObject& object) const;
  bool InUse(Operation operation) const { return uses_.contains(operation); }
  size_t Waiting() const { return waiters_.size(); }
  size_t Objects() const { return objects_.size(); }

 private:
  struct Return {
    uint64_t number = 0;
    TokenNumber grant;
    int64_t sent_ms = 0;
  };
  struct Change {
    Operation operation = 0;
    uint64_t number = 0;
    TokenSet need;
    TokenSet lent;
    bool pins = false;
    bool cancelled = false;
    Epoch view;  // In which it was begun.
    int64_t sent_ms = 0;
  };
  struct Object {
    TokenSet held;
    TokenSet leaving;   // Held, and being invalidated.
    TokenSet recalled;  // What conflicts with this is to be given back.
    TokenSet lent;
    TokenSet asked;
    uint64_t asked_number = 0;
    int64_t asked_ms = 0;
    TokenNumber seen;   // The newest grant that was taken, or said to have been made.
    TokenNumber floor;  // Grants up to this are of a time that was forgotten.
    std::map<Operation, TokenSet> pins;
    std::optional<Return> returned;
    std::optional<Change> change;
    TokenTimes times;
    TokenNumber times_set;
    bool times_changed = false;
    uint64_t size = 0;
    bool size_changed = false;
    TokenNumber size_grant;  // Under which it was written here, or what the server said.
    uint64_t used = 0;       // The larger, the later.

    TokenSet Pinned() const;
    // May be pinned now.
    bool Has(TokenSet set) const;
    bool Idle() const { return pins.empty() && asked.Empty() && leaving.Empty() && !change && !returned; }
    bool Nothing() const { return held.Empty() && recalled.Empty() && Idle(); }
  };
  struct Waiter {
    std::vector<Wanted> wanted;  // In the order of the objects.
    size_t pinned = 0;           // So many of them.
    int64_t deadline_ms = 0;
    bool interruptible = false;
  };
  using Letters = std::map<TokenMessageKind, std::vector<TokenEntry>>;

  void OnGrant(const TokenEntry& e, Output& out);
  void OnRecall(const TokenEntry& e, Letters& letters, int64_t now_ms, Output& out);
  void OnAck(const TokenEntry& e, Letters& letters, int64_t now_ms);
  void OnGiveBack(const TokenEntry& e, Output& out);
  void OnRegisterAsk(Output& out);

  // Pins what is there, in the order of the operations, and asks for what is not.
  void Advance(int64_t now_ms, Letters& letters, Output& out);
  bool PinNext(Waiter& waiter, Operation operation);
  void AskFor(const Wanted& wanted, int64_t now_ms, Letters& letters);
  void AskForLess(const TokenObject& id, int64_t now_ms, Letters& letters);
  TokenSet WaitedFor(const TokenObject& id) const;
  void Unpin(const TokenObject& id, Operation operation, int64_t now_ms, Letters& letters, Output& out);
  void GiveUp(Operation operation, int64_t now_ms, Letters& letters, Output& out);
  void GiveBack(const TokenObject& id, TokenSet set, Output& out);
  void AnswerRecall(const TokenObject& id, int64_t now_ms, Letters& letters, Output& out);
  void SendReturn(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters);
  // That all an operation uses comes before that.
  bool ComesAfterUses(Operation operation, const TokenObject& id, TokenSet need) const;
  void SendChange(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters);
  void SendAgain(int64_t now_ms, bool all, Letters& letters);
  // Null if the operation uses nothing. REQUIRES: otherwise it uses `set`.
  const Object* UsedBy(Operation operation, const TokenObject& id, TokenSet set) const;
  void InterruptChanges(Epoch begun_before, Output& out);
  static void TakeValues(Object& object, const TokenEntry& e);
  TokenEntry WithValues(const TokenObject& id, const Object& object) const;
  void Trim(Output& out);
  Object& At(const TokenObject& id);
  void Forget(const TokenObject& id);
  void Send(Letters letters, Output& out) const;

  const Options options_;
  Epoch view_;
  NodeInstance server_;
  std::map<TokenObject, Object> objects_;
  std::map<Operation, Waiter> waiters_;
  std::map<Operation, Waiter> uses_;
  std::map<uint64_t, Wanted> invalidations_;  // Those that are under way.
  uint64_t invalidations_counted_ = 0;
  std::vector<TokenMessage> registration_;  // What was said in this view.
  uint64_t numbers_ = 0;                    // Of requests, returns and changes.
  uint64_t uses_counted_ = 0;
  TokenNumber forgotten_;  // The newest grant of an object of which nothing is known any more.
};

}  // namespace mangrove::fs
