#include "engine/mapping/mapped_clients.h"

#include <fcntl.h>

#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/mapping/fault_workers.h"
#include "engine/mapping/userfaultfd.h"
#include "net/page_buffer.h"

namespace mangrove {
namespace {

absl::Status Validate(const MappedClientOptions& options) {
  if (options.region == nullptr) return absl::InvalidArgumentError("no region given");
  if (options.base == 0 || options.base % kPageBytes != 0 ||
      options.base + options.region->size_bytes() < options.base) {
    return absl::InvalidArgumentError(absl::StrCat("mapping at 0x", absl::Hex(options.base),
                                                   ": a page's address that leaves room for ",
                                                   options.region->size_bytes(), " bytes is expected"));
  }
  if (options.max_workers < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_workers is ", options.max_workers, "; at least 1 is expected"));
  }
  if (!IsUserfaultfd(options.userfaultfd.get())) {
    return absl::InvalidArgumentError(absl::StrCat("descriptor ", options.userfaultfd.get(), " is not a userfaultfd"));
  }
  return absl::OkStatus();
}

}  // namespace

struct MappedClients::Shared {
  FaultService* service = nullptr;
  mutable std::mutex mutex;  // Guards what follows.
  MappingId last_id = 0;
  absl::flat_hash_map<MappingId, std::unique_ptr<FaultWorkers>> clients;
  std::vector<std::unique_ptr<FaultWorkers>> retired;  // Removed; their threads are ending.

  absl::StatusOr<FaultResolver*> Find(MappingId id) const {
    auto found = clients.find(id);
    if (found == clients.end()) return absl::NotFoundError(absl::StrCat("no mapping has the id ", id));
    return &found->second->resolver();
  }
  void Reap() {
    std::erase_if(retired, [](const std::unique_ptr<FaultWorkers>& workers) { return workers->Ended(); });
  }
};

MappedClients::MappedClients(FaultService* service) : shared_(std::make_shared<Shared>()) {
  shared_->service = service;
}

MappedClients::~MappedClients() {
  std::vector<std::unique_ptr<FaultWorkers>> ending;
  {
    std::lock_guard lock(shared_->mutex);
    ending = std::move(shared_->retired);
    for (auto& [id, workers] : shared_->clients) ending.push_back(std::move(workers));
    shared_->clients.clear();
  }
  for (auto& workers : ending) workers->Stop();
}

absl::StatusOr<MappingId> MappedClients::Add(MappedClientOptions options) {
  if (absl::Status valid = Validate(options); !valid.ok()) return valid;
  // Whatever its program did to it: no worker may block in a read.
  const int flags = fcntl(options.userfaultfd.get(), F_GETFL);
  if (flags < 0 || fcntl(options.userfaultfd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return absl::ErrnoToStatus(errno, "O_NONBLOCK on a userfaultfd");
  }
  std::lock_guard lock(shared_->mutex);
  shared_->Reap();
  const MappingId id = ++shared_->last_id;
  std::function<void()> on_gone;
  if (options.on_gone) on_gone = [id, callback = options.on_gone] { callback(id); };
  auto workers = FaultWorkers::Start(std::move(options), shared_->service, std::move(on_gone));
  if (!workers.ok()) return workers.status();
  shared_->clients.emplace(id, *std::move(workers));
  return id;
}

void MappedClients::Remove(MappingId id) {
  std::lock_guard lock(shared_->mutex);
  auto found = shared_->clients.find(id);
  if (found == shared_->clients.end()) return;
  found->second->Stop();
  shared_->retired.push_back(std::move(found->second));
  shared_->clients.erase(found);
  shared_->Reap();
}

absl::StatusOr<MappingCounters> MappedClients::Counters(MappingId id) const {
  std::lock_guard lock(shared_->mutex);
  auto resolver = shared_->Find(id);
  if (!resolver.ok()) return resolver.status();
  return (*resolver)->Counters();
}

absl::StatusOr<std::vector<PageRange>> MappedClients::Poisoned(MappingId id) const {
  std::lock_guard lock(shared_->mutex);
  auto resolver = shared_->Find(id);
  if (!resolver.ok()) return resolver.status();
  return (*resolver)->poisoned().List();
}

absl::StatusOr<std::vector<PageRange>> MappedClients::Heal(MappingId id, PageRange range) {
  std::lock_guard lock(shared_->mutex);
  auto resolver = shared_->Find(id);
  if (!resolver.ok()) return resolver.status();
  return (*resolver)->poisoned().Forget(range);
}

}  // namespace mangrove
