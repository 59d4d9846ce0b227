#include "tests/sim/engine_node.h"

#include <utility>

#include "directory/locator.h"
#include "engine/page_engine.h"
#include "net/check.h"

namespace mangrove::sim {

namespace {

class EngineNode final : public SimNode {
 public:
  EngineNode(const NodeDoors& doors, const NodeSetup& setup)
      : transport_(doors.transport),
        replicas_(setup.replicas),
        next_config_(setup.next_config),
        locator_(setup.nodes),
        engine_({.self = setup.self,
                 .members = setup.nodes,
                 .system_replicas = setup.replicas,
                 .cache_pages = setup.cache_pages,
                 .home_entries = 8,  // So that copies are called in, too.
                 .move_after = setup.move_after,
                 .move_stay = setup.move_stay,
                 .evict_to_peers = setup.evict_to_peers,
                 .directory_limits = setup.directory,
                 .bugs = setup.bugs},
                &locator_, doors.clock, doors.transport, doors.store, doors.memory, doors.entropy) {
    engine_.CountFetched({kFirstReservablePage, uint64_t{1} << 40});  // So that it reads ahead.
    if (setup.migratory.count > 0) engine_.SetMigratory(setup.migratory, true);
  }

  // Here nobody sends nonsense: what is refused was sent by a machine that is wrong.
  ~EngineNode() override { CHECK(engine_.counters().bad_messages == 0); }

  void Start(absl::AnyInvocable<void(absl::Status)> ready) override {
    engine_.Open([this, ready = std::move(ready)](absl::Status opened) mutable {
      ready(opened.ok() ? transport_->Start(&engine_) : opened);
    });
  }

  Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline) override {
    return engine_.Acquire(range, rights, deadline);
  }
  Task<absl::StatusOr<uint64_t>> Lock(uint64_t client, PageRange range, LockMode mode, TimeNs deadline) override {
    return engine_.Lock(client, range, mode, deadline);
  }
  absl::Status Unlock(uint64_t client, uint64_t lock_id) override { return engine_.Unlock(client, lock_id); }
  Task<absl::Status> Flush(PageRange range, TimeNs deadline) override { return engine_.Flush(range, deadline); }
  // The numbers of configurations are the region table's to give; one counter stands for it here.
  Task<absl::Status> Allocate(PageRange range, TimeNs deadline) override {
    return engine_.PutExtent(range, ConfigNumber(++*next_config_), replicas_, /*is_volatile=*/false, deadline);
  }
  Task<absl::Status> Unallocate(PageRange range, TimeNs deadline) override {
    return engine_.DropExtent(range, ConfigNumber(*next_config_), deadline);
  }
  void EndClient(uint64_t client) override { engine_.EndClient(client); }
  uint64_t PagesMoved() const override { return engine_.counters().pages_moved_out; }

 private:
  Transport* const transport_;
  const uint32_t replicas_;
  uint64_t* const next_config_;
  const HashLocator locator_;
  PageEngine engine_;
};

}  // namespace

std::unique_ptr<SimNode> MakeEngineNode(const NodeDoors& doors, const NodeSetup& setup) {
  CHECK(setup.next_config != nullptr);
  return std::make_unique<EngineNode>(doors, setup);
}

}  // namespace mangrove::sim
