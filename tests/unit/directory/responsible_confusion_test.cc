// What nodes that do not keep to the protocol can do to the responsible node: nothing that ends its process.

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "directory/responsible_machine.h"
#include "tests/sanitizers.h"

namespace mangrove {
namespace {

constexpr NodeInstance kSelf{NodeId(1), Incarnation(5)};
constexpr PageId kPage{77};

class Confusion {
 public:
  explicit Confusion(uint32_t seed) : random_(seed) {}

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      std::vector<HomeEffect> effects;
      Step(effects);
      for (const HomeEffect& effect : effects) next_txn_ += effect.kind == HomeEffect::Kind::kArmResend ? 1 : 0;
    }
  }

 private:
  uint64_t Any(uint64_t below) { return random_() % below; }
  NodeInstance AnyNode() { return {NodeId(1 + Any(4)), Incarnation(5)}; }

  Message AnyMessage() {
    Message m;
    do {
      m.kind = static_cast<MessageKind>(Any(kMessageKinds));
    } while (!IsForHome(m.kind));
    m.page = kPage;
    m.txn = entry_.txn() && Any(8) > 0 ? entry_.txn()->id : Txn(next_txn_ - Any(3));
    m.request = RequestId(1 + Any(4));
    m.access = static_cast<Access>(Any(3));
    m.holding = static_cast<Holding>(Any(4));
    m.version = {Epoch(Any(3)), Any(4)};
    m.config = ConfigNumber(Any(2));
    m.have = Any(2) == 0;
    m.kept = Any(2) == 0;
    return m;
  }

  // Its own events are in order; what comes from others is anything.
  void Step(std::vector<HomeEffect>& effects) {
    const HomeContext context{
        .self = kSelf, .page = kPage, .grant_epoch = Epoch(3), .next_txn = Txn(next_txn_), .ready = true};
    const bool loading = entry_.state == HomeState::kLoading;
    switch (Any(12)) {
      case 0: StepHomeDiscard(entry_, RequestId(90 + Any(2)), kAnyConfig, context, effects); return;
      case 1: StepHomePeerLost(entry_, {NodeId(1 + Any(4)), Incarnation(5 + Any(2))}, context, effects); return;
      case 2:
        if (entry_.IsBusy()) StepHomeResend(entry_, context, effects);
        return;
      case 3:
      case 4:
        if (loading) StepHomeLoaded(entry_, entry_.txn()->id, LoadedPage{.data = nullptr}, context, effects);
        return;
      case 5:
        if (loading) StepHomeLoadFailed(entry_, entry_.txn()->id, absl::UnavailableError("away"), context, effects);
        return;
      default: StepHomeMessage(entry_, AnyMessage(), AnyNode(), context, effects);
    }
  }

  std::mt19937 random_;
  HomeEntry entry_;
  uint64_t next_txn_ = 100;
};

TEST(ResponsibleNode, NothingThatConfusedNodesSendEndsTheProcess) {
  for (uint32_t seed = 0; seed < Histories(2000); ++seed) Confusion(seed).Run(200);
}

}  // namespace
}  // namespace mangrove
