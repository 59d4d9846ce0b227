#include "tests/sim/sim_regions.h"

#include <utility>

#include "engine/page_engine.h"

namespace mangrove::sim {

// As LocalOperations::Pages. Pages that are lost are not allocated anew here.
class SimRegions::Pages final : public TablePages {
 public:
  explicit Pages(PageEngine* engine) : engine_(engine) {}

  Task<absl::StatusOr<uint64_t>> Lock(PageRange range, LockMode mode, TimeNs deadline) override {
    return engine_->Lock(kClient, range, mode, deadline);
  }
  void Unlock(uint64_t lock_id) override { engine_->Unlock(kClient, lock_id).IgnoreError(); }
  void Load(PageId page, std::span<std::byte, kPageBytes> out) override { engine_->Load(page, 0, out); }
  void Store(PageId page, std::span<const std::byte, kPageBytes> bytes) override { engine_->Store(page, 0, bytes); }
  Task<absl::Status> Flush(PageRange range, TimeNs deadline) override {
    return engine_->Flush(range, deadline, SayLost::kNo);
  }
  Task<absl::Status> PutExtent(PageRange range, ConfigNumber config, uint32_t replicas, bool is_volatile,
                               TimeNs deadline) override {
    return engine_->PutExtent(range, config, replicas, is_volatile, deadline);
  }
  Task<absl::Status> DropExtent(PageRange range, ConfigNumber config, uint32_t replicas, TimeNs deadline) override {
    return engine_->DropExtent(range, config, replicas, deadline);
  }
  Task<absl::StatusOr<bool>> AreLost(PageRange, TimeNs) override { co_return false; }

 private:
  static constexpr ClientId kClient = 0;

  PageEngine* const engine_;
};

SimRegions::SimRegions(const SimHost& host, uint32_t nodes, uint32_t replicas)
    : engine_(host.node->engine()),
      pages_(std::make_unique<Pages>(engine_)),
      table_(pages_.get(), {.members = [nodes] { return nodes; }, .default_replicas = replicas}) {}

SimRegions::~SimRegions() = default;

Task<absl::StatusOr<std::vector<RegionInfo>>> SimRegions::ListRegions(TimeNs deadline) {
  absl::StatusOr<RegionList> list = co_await table_.List(deadline);
  if (!list.ok()) co_return list.status();
  if (!list->damaged.empty()) co_return list->damaged.front();
  co_return std::move(list->regions);
}

Task<absl::Status> SimRegions::Acquire(PageRange range, Rights rights, TimeNs deadline) {
  return engine_->Acquire(range, rights, deadline);
}
Task<absl::StatusOr<uint64_t>> SimRegions::Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) {
  return engine_->Lock(client, range, mode, deadline);
}
absl::Status SimRegions::Unlock(ClientId client, uint64_t lock_id) { return engine_->Unlock(client, lock_id); }
Task<absl::Status> SimRegions::Flush(PageRange range, TimeNs deadline) { return engine_->Flush(range, deadline); }
void SimRegions::EndClient(ClientId client) { engine_->EndClient(client); }

Task<absl::StatusOr<SpaceTotals>> SimRegions::Space(TimeNs) { co_return SpaceTotals{}; }
Task<absl::StatusOr<std::string>> SimRegions::Inspect(std::string, std::string, TimeNs) {
  co_return absl::UnimplementedError("a simulated node says nothing of itself");
}
Task<absl::StatusOr<std::string>> SimRegions::Operate(Credentials, std::string, std::string, TimeNs) {
  co_return absl::UnimplementedError("a simulated node has no operator");
}

}  // namespace mangrove::sim
