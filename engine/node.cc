#include "engine/node.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach_server.h"
#include "engine/join/join_door.h"
#include "engine/local_operations.h"
#include "engine/mapping/region_memory.h"
#include "engine/membership.h"
#include "engine/page_engine.h"
#include "engine/store/rocks_store.h"
#include "engine/transactions/transactions.h"
#include "net/channel_switch.h"
#include "net/fabric_transport.h"
#include "net/log.h"
#include "net/runtime/system_entropy.h"

namespace mangrove {
namespace {

constexpr char kIncarnationKey[] = "node/incarnation";
constexpr char kLeaseKey[] = "node/lease_ms";                  // The time of leases with which the node ran last.
constexpr char kSystemReplicasKey[] = "node/system_replicas";  // With which it has taken part in the cluster.
// Programs do it when they run.
constexpr DurationNs kSealPatience = 200 * kMillisecond;

// Runs `start(done)` on the loop and returns what it hands to `done`.
template <typename T>
T RunOnLoop(Loop* loop, absl::FunctionRef<void(absl::AnyInvocable<void(T)>)> start) {
  Completion completion;
  std::optional<T> result;
  loop->RunUntil(
      [&] {
        start([&](T value) {
          result.emplace(std::move(value));
          completion.Set();
        });
      },
      completion);
  return std::move(*result);
}

void RunOnLoop(Loop* loop, absl::FunctionRef<void()> task) {
  Completion completion;
  loop->RunUntil(
      [&] {
        task();
        completion.Set();
      },
      completion);
}

// Without members.
PageEngineOptions EngineOptionsOf(const NodeConfig& config, NodeInstance self) {
  PageEngineOptions options;
  options.self = self;
  options.system_replicas = SystemReplicasOf(config);
  options.replicas = config.replicas;
  options.cache_pages = config.cache_size_bytes / kPageBytes;
  options.evict_to_peers = config.evict_to_peers;
  options.least_free_bytes = config.disk_reserve_bytes + config.disk_reserve_bytes / 4;
  options.keep_headroom = config.keep_headroom;
  options.repair_bytes_per_second = config.repair_bytes_per_second;
  return options;
}

}  // namespace

struct Node::State final : public FaultService, public ViewEvents {
  State(const NodeConfig& c, NodeNews n) : config(c), news(std::move(n)), loop({.spin_ns = c.spin_us * kMicrosecond}) {}
  ~State() override { Stop(); }

  absl::Status Start();
  absl::Status OpenStore();
  absl::StatusOr<Incarnation> NextIncarnation();
  absl::StatusOr<uint64_t> ReadNumber(const std::string& key, uint64_t otherwise);
  absl::Status KeepNumber(const std::string& key, uint64_t number);
  absl::Status WaitForLongerLeases();
  absl::Status CheckSystemReplicas();
  void KeepSystemReplicas();
  absl::Status StartEngine(Incarnation incarnation);
  void WatchDisk();
  absl::Status StartServing();
  void Stop();
  void OnView(const View& view) override {
    engine->OnView(view);
    if (view.Has(instance)) KeepSystemReplicas();
    if (transactions) transactions->OnView();
  }
  void OnRoster(const Roster& roster) override;
  void SetPeers(const Roster& roster);
  void OnLease(TimeNs until) override {
    engine->OnLease(until);
    if (attach_server) attach_server->OnLease();
  }
  void StopServing(const std::string& why);
  void Leave(absl::AnyInvocable<void()> done);
  void OnExpelled() override;
  void OnDismissed(bool is_removed) override;
  absl::Status AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) override;

  const NodeConfig config;
  const NodeNews news;
  Loop loop;
  SystemEntropy entropy;
  std::vector<ClusterKey> keys;
  bool loop_started = false;
  bool transport_started = false;
  bool has_kept_system_replicas = false;
  NodeInstance instance;
  std::unique_ptr<RocksStore> store;
  std::unique_ptr<RegionMemory> memory;
  ChannelSwitch channels;
  std::unique_ptr<FabricTransport> transport;
  std::unique_ptr<Membership> membership;
  std::unique_ptr<PageEngine> engine;
  std::unique_ptr<Transactions> transactions;
  std::unique_ptr<LocalOperations> operations;
  std::unique_ptr<JoinDoor> join_door;
  std::unique_ptr<DiskWatch> disk_watch;
  std::unique_ptr<LostPages> lost_pages;
  std::unique_ptr<MappedClients> mapped_clients;
  std::unique_ptr<AttachServer> attach_server;
};

absl::Status Node::State::Start() {
  if (absl::Status s = ValidateNodeConfig(config); !s.ok()) return s;
  absl::StatusOr<std::vector<ClusterKey>> loaded = LoadClusterKeys(config.key_file);
  if (!loaded.ok()) return loaded.status();
  keys = *std::move(loaded);
  if (absl::Status s = OpenStore(); !s.ok()) return s;
  // Where attached programs may map a region, its spare frames are few: they all go when one does.
  const uint64_t most_frames = config.socket_path.empty() ? config.cache_size_bytes / kPageBytes : 0;
  auto created =
      RegionMemory::Create([this](absl::AnyInvocable<void()> task) { loop.Post(std::move(task)); }, most_frames);
  if (!created.ok()) return created.status();
  memory = std::move(*created);
  // The pages that every cluster has from its start.
  if (absl::Status s = memory->AddRegion({PageId(0), kRegionTablePages.end() - PageId(0)}); !s.ok()) return s;
  if (absl::Status s = loop.Start(); !s.ok()) return s;
  loop_started = true;
  const absl::StatusOr<Incarnation> incarnation = NextIncarnation();
  if (!incarnation.ok()) return incarnation.status();
  if (absl::Status s = WaitForLongerLeases(); !s.ok()) return s;
  if (absl::Status s = CheckSystemReplicas(); !s.ok()) return s;
  if (absl::Status s = StartEngine(*incarnation); !s.ok()) return s;
  mapped_clients = std::make_unique<MappedClients>(this);
  if (absl::Status s = StartServing(); !s.ok()) return s;
  LogInfo("serving as ", ToString(NodeInstance{config.self().id, *incarnation}), " at ", config.self().address);
  return absl::OkStatus();
}

absl::Status Node::State::OpenStore() {
  RocksStoreOptions options;
  options.path = config.data_dir + "/store";
  options.post = [this](absl::AnyInvocable<void()> task) { loop.Post(std::move(task)); };
  options.expect = [this](int change) { loop.ExpectPosts(change); };
  options.cluster = ClusterIdOf(config.cluster_name);
  options.node = config.self().id;
  options.reserve_bytes = config.disk_reserve_bytes;
  auto opened = RocksStore::Open(std::move(options));
  if (!opened.ok()) return opened.status();
  store = std::move(*opened);
  return absl::OkStatus();
}

// Durable before anything is sent under it. At least the minutes since 2024 began: so a node whose disk was lost, and its
// count with it, still gets a newer one than it ever had. (One that starts more often than once a minute is ahead of the
// clock, and stays so.)
absl::StatusOr<Incarnation> Node::State::NextIncarnation() {
  constexpr int64_t kYear2024 = 1'704'067'200;
  const absl::StatusOr<uint64_t> last = ReadNumber(kIncarnationKey, 0);
  if (!last.ok()) return last.status();
  const auto minutes = static_cast<uint64_t>(std::max<int64_t>(1, (std::time(nullptr) - kYear2024) / 60));
  const Incarnation next(std::max<uint64_t>(minutes, *last + 1));
  const absl::Status kept = KeepNumber(kIncarnationKey, next.value);
  if (!kept.ok()) return kept;
  return next;
}

absl::StatusOr<uint64_t> Node::State::ReadNumber(const std::string& key, uint64_t otherwise) {
  using Records = absl::StatusOr<std::vector<std::pair<std::string, std::string>>>;
  const Records records = RunOnLoop<Records>(
      &loop, [&](absl::AnyInvocable<void(Records)> done) { store->ReadRecords(key, std::move(done)); });
  if (!records.ok()) return records.status();
  for (const auto& [name, value] : *records) {
    if (name == key) return std::strtoull(value.c_str(), nullptr, 10);
  }
  return otherwise;
}

absl::Status Node::State::KeepNumber(const std::string& key, uint64_t number) {
  return RunOnLoop<absl::Status>(&loop, [&](absl::AnyInvocable<void(absl::Status)> done) {
    StoreBatch batch;
    batch.records.push_back({key, std::to_string(number)});
    store->Commit(std::move(batch), std::move(done));
  });
}

// An anchor that is elected takes it that leases of before have ended after the time of one. Those that this node took part in giving
// may be longer than its leases are now: then it says nothing until they have ended. Whoever is elected without it needs anchors that
// all have waited.
absl::Status Node::State::WaitForLongerLeases() {
  const absl::StatusOr<uint64_t> before = ReadNumber(kLeaseKey, kDefaultLeaseMs);
  if (!before.ok()) return before.status();
  if (*before == config.lease_ms) return absl::OkStatus();
  if (*before > config.lease_ms) {
    const uint64_t wait_ms = std::min<uint64_t>(*before, kMostLeaseMs);
    LogInfo("leases were ", *before, " ms long, and are ", config.lease_ms, " ms from now on: waits ", wait_ms, " ms");
    std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
  }
  return KeepNumber(kLeaseKey, config.lease_ms);
}

// Where the cluster's own pages are to be with one number, what was written with another one is not: what is read there would be old.
absl::Status Node::State::CheckSystemReplicas() {
  const uint64_t now = SystemReplicasOf(config);
  const absl::StatusOr<uint64_t> before = ReadNumber(kSystemReplicasKey, 0);
  if (!before.ok()) return before.status();
  has_kept_system_replicas = *before != 0;
  if (*before == 0 || *before == now) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the cluster keeps its own pages on ", *before, " disks, and this node's configuration says ", now,
      ": that cannot be changed. Set system_replicas = ", *before, " in [cluster]; replicas may be another number"));
}

// When it takes part: until then it may have been a mistake that the others refuse.
void Node::State::KeepSystemReplicas() {
  if (has_kept_system_replicas) return;
  has_kept_system_replicas = true;
  StoreBatch batch;
  batch.records.push_back({kSystemReplicasKey, std::to_string(SystemReplicasOf(config))});
  store->Commit(std::move(batch), [this](const absl::Status& status) {
    has_kept_system_replicas = status.ok();  // Or in the next view.
    if (!status.ok()) LogError("the number of the copies of the cluster's own pages is not kept: ", status.message());
  });
}

absl::Status Node::State::StartEngine(Incarnation incarnation) {
  FabricTransportConfig fabric;
  fabric.cluster = ClusterIdOf(config.cluster_name);
  fabric.keys = keys;
  fabric.security = SecurityOf(config);
  fabric.levels = config.levels;
  fabric.lease_ms = config.lease_ms;
  fabric.system_replicas = static_cast<uint8_t>(SystemReplicasOf(config));
  fabric.self = instance = {config.self().id, incarnation};
  fabric.listen_address = config.self().address;
  fabric.provider = config.provider;
  PageEngineOptions options = EngineOptionsOf(config, fabric.self);
  const bool may_found = config.found_before == 0 || std::time(nullptr) < config.found_before;
  MembershipOptions members{.self = fabric.self,
                            .nodes = NodesOf(config),
                            .may_found = may_found,
                            .timing = TimingOf(config),
                            .few_nodes = config.monitors_above};
  for (const auto& [node, record] : members.nodes) {
    fabric.members.push_back({node, record.name, record.address});
    options.members.push_back(node);
  }
  return RunOnLoop<absl::Status>(&loop, [&](absl::AnyInvocable<void(absl::Status)> done) {
    transport = std::make_unique<FabricTransport>(std::move(fabric), &loop, &entropy);
    engine = std::make_unique<PageEngine>(options, &loop, transport.get(), store.get(), memory.get(), &entropy);
    membership = std::make_unique<Membership>(std::move(members), &loop, transport.get(), store.get(), &entropy);
    operations = std::make_unique<LocalOperations>(&config, &loop, engine.get(), membership.get(), transport.get(),
                                                   store.get(), memory.get(), incarnation);
    const TransactionsOptions of_transactions{.self = options.self, .replicas = SystemReplicasOf(config)};
    if (config.has_transactions) {
      transactions = std::make_unique<Transactions>(of_transactions, engine.get(), &loop, &entropy);
    }
    operations->SetTransactions(transactions.get());
    join_door = std::make_unique<JoinDoor>(JoinDoorOptions{.cluster_name = config.cluster_name,
                                                           .security = SecurityOf(config),
                                                           .node = config.self().id,
                                                           .address = config.self().address},
                                           transport.get(), &loop, &entropy, [this](JoinRequest request) {
                                             return operations->Admit(std::move(request), keys);
                                           });
    operations->SetJoinDoor(join_door.get());
    WatchDisk();
    membership->SetEvents(this);
    engine->SetDiskSink([this](const DiskState& disk) { membership->SetDisk(disk); });
    // The engine last: once it is open it sends.
    membership->Open([this, done = std::move(done)](absl::Status opened) mutable {
      if (!opened.ok()) return done(opened);
      engine->Open([this, done = std::move(done)](absl::Status status) mutable {
        if (status.ok()) {
          channels.Set(Channel::kPages, engine.get());
          channels.Set(Channel::kMembership, membership.get());
          channels.Set(Channel::kJoin, join_door.get());
          status = transport->Start(&channels);
        }
        if (status.ok()) {
          transport_started = true;
          SetPeers(membership->roster());
          membership->Start();
        }
        done(status);
      });
    });
  });
}

// Once there are operations.
void Node::State::WatchDisk() {
  disk_watch = std::make_unique<DiskWatch>(&loop, store.get(), [this] {
    return DiskWatch::Spread{engine->view().disks.size(), config.replicas, config.disk_reserve_bytes};
  });
  disk_watch->SetSink([this](const DiskWatch::Found& found) { membership->SetDiskSize(DiskSizeOf(found.usage)); });
  disk_watch
      ->Look();  // The first pulse says it already: a disk has its weight from the moment on that it is to keep pages.
  operations->SetDiskWatch(disk_watch.get());
  lost_pages =
      std::make_unique<LostPages>(config.self().id, &loop, engine.get(), store.get(),
                                  [this](NodeId node, PageId page) { return operations->IsLearnedAt(node, page); });
  operations->SetLostPages(lost_pages.get());
}

absl::Status Node::State::StartServing() {
  if (config.socket_path.empty()) return absl::OkStatus();
  AttachServerOptions options;
  options.socket_path = config.socket_path;
  options.node_name = config.name;
  options.pages_fetched = [this](PageRange pages) { return engine->Fetched(pages.first); };
  options.serves_until = [this] { return engine->mapped_until(); };
  absl::Status status;
  RunOnLoop(&loop, [&] {
    attach_server = std::make_unique<AttachServer>(
        &loop, operations.get(), mapped_clients.get(), [this](PageId page) { return memory->FindRegion(page); },
        std::move(options));
    status = attach_server->Start();
  });
  return status;
}

absl::Status Node::State::AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) {
  Completion completion(before_long_wait);
  absl::Status result;
  const auto start = [&] {
    const TimeNs deadline = loop.Now() + config.fault_timeout_ms * kMillisecond;
    Spawn<absl::Status>(engine->Acquire({page, 1}, rights, deadline), [&](absl::Status status) {
      result = std::move(status);
      completion.Set();
    });
  };
  loop.RunUntil(start, completion);
  return result;
}

void Node::State::OnRoster(const Roster& roster) {
  std::vector<NodeId> members;
  for (const auto& [node, record] : roster.nodes) members.push_back(node);
  engine->SetMembers(members);
  if (transport_started) SetPeers(roster);
}

void Node::State::SetPeers(const Roster& roster) {
  std::vector<FabricMember> peers;
  for (NodeId node : roster.peers()) {
    const NodeRecord& record = roster.nodes.at(node);
    peers.push_back({node, record.name, record.address});
  }
  if (absl::Status status = transport->SetMembers(peers); !status.ok()) LogError(status.message());
  const NodeRecord* const self = roster.Find(config.self().id);
  if (self != nullptr && self->address != config.self().address) {
    LogWarning("this node listens at ", config.self().address, ", where the others look for it at ", self->address,
               "; `mangrove node set ", config.name, " --address ", config.self().address, "` tells them");
  }
}

// What is here may be old by now, or soon: nothing of it is used any more.
void Node::State::StopServing(const std::string& why) {
  engine->OnLease(0);
  if (transactions) transactions->Shutdown();
  engine->Shutdown(absl::UnavailableError(why));
  memory->FenceForGood();
}

void Node::State::Leave(absl::AnyInvocable<void()> done) {
  StopServing(absl::StrCat(config.name, " stops"));
  // The lease is given up when programs have nothing mapped any more; until then nobody is told.
  const auto leave = [this](absl::AnyInvocable<void()> then, bool all_have) {
    if (all_have) return membership->Leave(std::move(then));
    LogWarning("a program does not give up what it has mapped: the others wait until this node's lease has ended");
    then();
  };
  if (!attach_server) return leave(std::move(done), true);
  attach_server->CutOff(kSealPatience,
                        [leave, done = std::move(done)](bool all_have) mutable { leave(std::move(done), all_have); });
}

void Node::State::OnExpelled() {
  StopServing(absl::StrCat(
      config.name,
      " did not answer for a while, and the cluster has gone on without it: the node has to be started anew"));
  if (news.expelled) news.expelled();
}

void Node::State::OnDismissed(bool is_removed) {
  if (is_removed) {
    const std::string why = absl::StrCat(
        config.name,
        " was taken out of the cluster, and does not come back under this identity; to use the machine again, "
        "make it a new node, with another id and an empty data_dir");
    LogError(why);
    StopServing(why);
    if (news.removed) news.removed();
    return;
  }
  LogInfo(config.name, " is drained: nothing is kept on its disk any more, and it may go");
  if (news.drained) news.drained();
}

// Whoever waits is told first; then, from the outside in, what serves goes before what it uses.
void Node::State::Stop() {
  if (loop_started) {
    RunOnLoop(&loop, [&] {
      if (attach_server) attach_server->Stop();
      if (transactions) transactions->Shutdown();
      if (engine) engine->Shutdown();
      if (membership) membership->Shutdown();
    });
    mapped_clients.reset();
    RunOnLoop(&loop, [&] {
      lost_pages.reset();
      disk_watch.reset();
      join_door.reset();
      transport.reset();
    });
    loop.Stop();
    loop_started = false;
  }
  attach_server.reset();
  operations.reset();
  membership.reset();
  transactions.reset();
  engine.reset();
  memory.reset();
  store.reset();
}

absl::StatusOr<std::unique_ptr<Node>> Node::Start(const NodeConfig& config, NodeNews news) {
  auto state = std::make_unique<State>(config, std::move(news));
  if (absl::Status s = state->Start(); !s.ok()) return s;
  return std::unique_ptr<Node>(new Node(std::move(state)));
}

Node::Node(std::unique_ptr<State> state) : state_(std::move(state)) {}
Node::~Node() = default;

absl::Status Node::Drain(DurationNs timeout) {
  State& s = *state_;
  return RunOnLoop<absl::Status>(&s.loop, [&](absl::AnyInvocable<void(absl::Status)> done) {
    Spawn<absl::Status>(s.engine->FlushAll(s.loop.Now() + timeout), std::move(done));
  });
}

void Node::SetStopping(bool flushes) {
  RunOnLoop(&state_->loop, [&] { state_->membership->SetStopping({.flushes = flushes}); });
}

bool Node::OthersFlush() {
  bool flush = false;
  RunOnLoop(&state_->loop, [&] { flush = state_->membership->member().OthersFlush(state_->loop.Now()); });
  return flush;
}

void Node::HandOver() {
  Completion completion;
  state_->loop.RunUntil([&] { state_->membership->HandOver([&] { completion.Set(); }); }, completion);
}

void Node::Leave() {
  Completion completion;
  state_->loop.RunUntil([&] { state_->Leave([&] { completion.Set(); }); }, completion);
}

absl::StatusOr<std::vector<std::string>> Node::ReloadKeys() {
  absl::StatusOr<std::vector<ClusterKey>> keys = LoadClusterKeys(state_->config.key_file);
  if (!keys.ok()) return keys.status();
  std::vector<std::string> fingerprints;
  RunOnLoop(&state_->loop, [&] {
    state_->keys = *keys;
    state_->transport->SetKeys(*std::move(keys));
    fingerprints = state_->transport->SecurityInUse().keys;
  });
  return fingerprints;
}

Loop* Node::loop() { return &state_->loop; }
void Node::SetFilesystemOperations(FilesystemOperations operations) {
  RunOnLoop(&state_->loop, [&] { state_->operations->SetFilesystemOperations(std::move(operations)); });
}

NodeOperations* Node::operations() { return state_->operations.get(); }
PageEngine* Node::engine() { return state_->engine.get(); }
RegionMemory* Node::memory() { return state_->memory.get(); }
uint64_t Node::PagesFetched(PageRange pages) const { return state_->engine->Fetched(pages.first); }
MappedClients* Node::mapped_clients() { return state_->mapped_clients.get(); }
FaultService* Node::fault_service() { return state_.get(); }
const NodeConfig& Node::config() const { return state_->config; }

}  // namespace mangrove
