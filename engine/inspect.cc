// What a node says of itself, as JSON documents for the command line and other programs. docs/OPERATIONS.md lists the
// fields.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/inspect_json.h"
#include "engine/local_operations.h"
#include "engine/region_request.h"
#include "recovery/groups.h"

namespace mangrove {
namespace {

using nlohmann::json;

// As it has told this node of late.
json ResourcesOf(const std::optional<NodeResources>& resources) {
  if (!resources) return nullptr;
  return {{"cache_room_bytes", resources->free_pages * kPageBytes},
          {"disk_free_bytes", resources->free_bytes},
          {"pages_per_second", resources->load}};
}

json LevelsOf(const Levels& levels) {
  json named = json::object();
  for (size_t i = 0; i < kSubsystems; ++i) named[NameOfSubsystem(i)] = levels[i];
  return named;
}

json SecurityOf(const TransportSecurity& security) {
  return {{"mode", Name(security.security)}, {"keys", security.keys}};
}

json PeersOf(const Transport& transport, const PageEngine& engine, const Roster& roster) {
  json peers = json::array();
  for (const PeerStatus& peer : transport.Peers()) {
    if (roster.Find(peer.instance.node) == nullptr) continue;  // It was removed.
    peers.push_back({{"id", peer.instance.node.value},
                     {"name", roster.NameOf(peer.instance.node)},
                     {"address", peer.address},
                     {"connected", peer.connected},
                     {"incarnation", peer.instance.incarnation.value},
                     {"last_error", peer.last_error},
                     {"key", peer.key.empty() ? json(nullptr) : json(peer.key)},
                     {"levels", peer.connected ? LevelsOf(peer.levels) : json(nullptr)},
                     {"resources", ResourcesOf(engine.peer_eviction().Of(peer.instance.node))}});
  }
  return peers;
}

// What an anchor says of its part of the log; null of another node.
json AnchorOf(const Anchor* anchor, const Roster& roster) {
  constexpr const char* kStandings[] = {"full", "must lose its votes", "waits for votes"};
  if (anchor == nullptr) return nullptr;
  const Raft* const raft = anchor->raft();
  if (raft == nullptr) return {{"has_log", false}};
  json votes = json::object();
  for (const auto& [node, count] : raft->log().votes()) votes[roster.NameOf(node)] = count;
  return {{"has_log", true},
          {"leads", anchor->leads()},
          {"term", raft->term().value},
          {"committed", raft->commit().value},
          {"votes", votes},
          {"votes_settled", raft->commit() >= raft->log().votes_at()},
          {"standing", kStandings[static_cast<size_t>(raft->standing())]}};
}

constexpr char kHere[] = "here";
constexpr char kMissing[] = "missing";
constexpr char kJoining[] = "joining";

// Of a node of the cluster, as the view has it.
std::string StateOf(NodeId node, const NodeRecord& record, const View& view) {
  if (record.is_removed) return "removed";
  if (view.members.contains(node)) return kHere;
  if (view.lost.contains(node)) return "lost";
  // Of one that has not come yet the view says nothing, or, of one of the first, that it is to keep pages.
  return view.behind.contains(node) || view.disks.contains(node) ? kMissing : kJoining;
}

// What this node knows of who is there.
// Of disks that have not the full one, by their names.
json WeightsOf(const DiskWeights& weights, const Roster& roster) {
  json all = json::object();
  for (const auto& [node, weight] : weights) all[roster.NameOf(node)] = weight;
  return all;
}

// Of the view's members, those with which this node has no connection.
std::set<NodeId> UnreachableOf(const Transport& transport, const View& view, NodeId self) {
  std::set<NodeId> nodes;
  for (const auto& [node, incarnation] : view.members) {
    if (node != self) nodes.insert(node);
  }
  for (const PeerStatus& peer : transport.Peers()) {
    if (peer.connected) nodes.erase(peer.instance.node);
  }
  return nodes;
}

json MembershipOf(const Membership& membership, const Transport& transport, NodeInstance self) {
  const Roster& roster = membership.roster();
  const auto names_in = [&](const std::set<NodeId>& nodes) {
    json names = json::array();
    for (NodeId node : nodes) names.push_back(roster.NameOf(node));
    return names;
  };
  const Member& member = membership.member();
  const Anchor* const anchor = membership.anchor();
  const std::vector<NodeId> awaited = anchor == nullptr ? std::vector<NodeId>{} : anchor->awaited();
  json members = json::array();
  json missing = json::array();
  json joining = json::array();
  json behind = json::array();
  const View& view = member.view();
  for (const auto& [node, since] : view.behind) behind.push_back(roster.NameOf(node));
  for (const auto& [node, record] : roster.nodes) {
    const std::string state = StateOf(node, record, view);
    if (state == kHere) members.push_back(record.name);
    if (state == kMissing) missing.push_back(record.name);
    if (state == kJoining && view.epoch.value != 0) joining.push_back(record.name);
  }
  const std::set<NodeId> unreachable = UnreachableOf(transport, view, self.node);
  return {{"view", member.view().epoch.value},
          {"is_in_view", view.Has(self)},
          {"hears_leader", membership.HearsLeader()},
          {"unreachable", names_in(unreachable)},
          {"members", members},
          {"missing", missing},
          {"joining", joining},
          {"behind", behind},
          {"disks", names_in(view.disks)},
          {"next_disks", names_in(view.next_disks)},
          {"moved", names_in(view.moved)},
          {"weights", WeightsOf(view.weights, roster)},
          {"next_weights", WeightsOf(view.next_weights, roster)},
          {"draining", names_in(view.draining)},
          {"lost", names_in(view.lost)},
          {"has_lease", membership.LeaseLeft() > 0},
          {"lease_left_ms", membership.LeaseLeft() / kMillisecond},
          {"leader", member.leader().value == 0 ? json(nullptr) : json(roster.NameOf(member.leader()))},
          {"monitor", member.monitor().value == 0 ? json(nullptr) : json(roster.NameOf(member.monitor()))},
          {"anchors", names_in(roster.anchors())},
          {"awaited_anchors", names_in(std::set<NodeId>(awaited.begin(), awaited.end()))},
          {"anchor", AnchorOf(anchor, roster)}};
}

// What this node reads on its own, while it has no lease. Null: it has one, or nothing is to be read without.
json ReadOnlyOf(std::optional<TimeNs> since, TimeNs now, const std::map<PageId, OpenedRegion>& regions) {
  if (!since || regions.empty()) return nullptr;
  json names = json::array();
  for (const auto& [first, region] : regions) names.push_back(region.info.name);
  return {{"regions", names}, {"for_ms", (now - *since) / kMillisecond}};
}

int64_t PulseMs(const NodeConfig& config) { return TimingOf(config).pulse / kMillisecond; }

json DiskRoomOf(DiskWatch* watch) {
  if (watch == nullptr) return nullptr;
  const DiskWatch::Found& found = watch->Look();
  return {{"is_full", found.room.is_full},
          {"is_low", found.room.is_low},
          {"lacks_headroom", found.room.lacks_headroom},
          {"headroom_bytes", found.headroom_bytes},
          {"advice", AdviceOn(found.room, found.usage, found.headroom_bytes)}};
}

DiskRepair DiskRepairOf(const CatchUpProgress& catch_up) {
  DiskRepair repair{.is_behind = catch_up.is_behind,
                    .is_moving = catch_up.is_moving,
                    .done_percent = catch_up.done_percent,
                    .pages_copied = catch_up.pages_copied,
                    .pages_left = {},
                    .compared_pages_per_second = {},
                    .copied_bytes_per_second = {},
                    .seconds_left = {}};
  if (catch_up.rate) {
    repair.compared_pages_per_second = static_cast<uint64_t>(catch_up.rate->compared_per_second);
    repair.copied_bytes_per_second = static_cast<uint64_t>(catch_up.rate->copied_per_second * kPageBytes);
    repair.seconds_left = catch_up.rate->seconds_left;
  }
  // As far as it goes on as in the last seconds: how many pages there are the disk does not know before it has looked at them.
  if (repair.seconds_left) repair.pages_left = *repair.compared_pages_per_second * *repair.seconds_left;
  return repair;
}

json DiskOf(const StoreUsage& usage, const CatchUpProgress& catch_up) {
  json disk{{"pages", usage.pages},
            {"used_bytes", usage.used_bytes},
            {"free_bytes", usage.free_bytes},
            {"is_behind", catch_up.is_behind},
            {"is_moving", catch_up.is_moving},
            {"done_percent", catch_up.done_percent},
            {"pages_trimmed", catch_up.pages_trimmed},
            {"pages_compared", catch_up.pages_compared},
            {"pages_copied", catch_up.pages_copied},
            {"pages_lost", catch_up.pages_lost},
            {"trouble", catch_up.trouble}};
  if (catch_up.rate) {
    disk["compared_pages_per_second"] = static_cast<uint64_t>(catch_up.rate->compared_per_second);
    disk["copied_bytes_per_second"] = static_cast<uint64_t>(catch_up.rate->copied_per_second * kPageBytes);
    if (catch_up.rate->seconds_left) disk["seconds_left"] = *catch_up.rate->seconds_left;
  }
  if (catch_up.limit_bytes_per_second != 0) {
    disk["limit_bytes_per_second"] = catch_up.limit_bytes_per_second;
    disk["is_held_by_limit"] = catch_up.is_held_by_limit;
  }
  return disk;
}

}  // namespace

PageSummary PageEngine::Describe(PageId page) const {
  PageSummary summary;
  summary.page = page;
  summary.responsible = ResponsibleFor(page);
  const CachedPage* cached = FindCached(page);
  summary.cache_state = Name(cached ? cached->entry.state : CacheState::kInvalid);
  if (cached) {
    summary.version = cached->entry.version;
    summary.config = cached->entry.config;
    summary.replicas = cached->entry.replicas;
    summary.dirty = cached->entry.IsDirty();
  }
  const auto home = homes_.find(page);
  if (home != homes_.end()) {
    summary.home_known = true;
    const HomeTransaction* const txn = home->second->txn();
    const bool was_lost = txn != nullptr && txn->was_lost;  // And is until the disks have said otherwise.
    summary.home_state = Name(was_lost ? HomeState::kLost : home->second->state);
    summary.owner = home->second->owner;
    summary.sharers.assign(home->second->sharers.begin(), home->second->sharers.end());
  }
  return summary;
}

Task<absl::StatusOr<std::string>> LocalOperations::InspectStatus(TimeNs deadline) {
  const std::vector<Told> told = co_await AskDisks(deadline);
  const PageEngineCounters& c = engine_->counters();
  const TransportCounters t = transport_->Counters();
  const MemberConfig& self = config_->self();
  json waiting = json::array();
  for (NodeId node : engine_->Unregistered()) waiting.push_back(NameOf(node));
  const CatchUpProgress catch_up = engine_->catch_up();
  for (NodeId node : catch_up.waits_for) waiting.push_back(NameOf(node));
  co_return DumpJson(
      {{"node",
        {{"id", self.id.value}, {"name", self.name}, {"incarnation", incarnation_.value}, {"address", self.address}}},
       {"cluster", config_->cluster_name},
       {"ready", waiting.empty() && membership_->LeaseLeft() > 0},
       {"waiting_for", waiting},
       {"replicas", config_->replicas},
       {"timing",
        {{"lease_ms", config_->lease_ms},
         {"pulse_ms", PulseMs(*config_)},
         {"replace_after_s", config_->replace_after_s},
         {"reweigh_after_s", config_->reweigh_after_s}}},
       {"membership", MembershipOf(*membership_, *transport_, {self.id, incarnation_})},
       {"losses", LossesOf(told)},
       {"repair", RepairOf(told)},
       {"read_only", ReadOnlyOf(engine_->stale_reads().since(), clock_->Now(), read_without_quorum_)},
       {"security", SecurityOf(transport_->SecurityInUse())},
       {"peers", PeersOf(*transport_, *engine_, roster())},
       {"cache",
        {{"used_bytes", engine_->cached_pages() * kPageBytes}, {"size_bytes", engine_->cache_pages() * kPageBytes}}},
       {"disk", DiskOf(store_->Usage(), catch_up)},
       {"disk_room", DiskRoomOf(disk_watch_)},
       {"counters",
        {{"read_requests", c.read_requests},
         {"write_requests", c.write_requests},
         {"pages_received", c.pages_received},
         {"pages_given", c.pages_given},
         {"invalidations", c.invalidations},
         {"evictions", c.evictions},
         {"pages_offered", c.pages_offered},
         {"pages_moved_out", c.pages_moved_out},
         {"pages_taken_in", c.pages_taken_in},
         {"pages_flushed", c.pages_flushed},
         {"messages_taken", c.messages_taken},
         {"stale_messages", c.stale_messages},
         {"bad_messages", c.bad_messages},
         {"corrupt_pages", engine_->core_holder().corrupt_pages_found()},
         {"resends", c.resends},
         {"segments_taken", c.segments_taken},
         {"messages_sent", t.messages_sent},
         {"messages_received", t.messages_received},
         {"messages_dropped", t.messages_dropped},
         {"peers_refused", t.peers_refused}}}});
}

std::string LocalOperations::InspectNodes() const {
  const MemberConfig& self = config_->self();
  json nodes = PeersOf(*transport_, *engine_, roster());
  nodes.push_back({{"id", self.id.value},
                   {"name", self.name},
                   {"address", self.address},
                   {"connected", true},
                   {"incarnation", incarnation_.value},
                   {"last_error", ""},
                   {"key", nullptr},
                   {"levels", nullptr},
                   {"resources", ResourcesOf(engine_->peer_eviction().Own())}});
  const View& view = membership_->member().view();
  for (json& node : nodes) {
    const NodeId id(node["id"].get<uint64_t>());
    const auto found = roster().nodes.find(id);
    const NodeRecord record = found == roster().nodes.end() ? NodeRecord() : found->second;
    node["group"] = GroupOf(id);
    node["votes"] = record.votes;
    node["identity"] = absl::StrFormat("%016x-%016x", record.identity.space, record.identity.time);
    node["state"] = StateOf(id, record, view);
    node["draining"] = view.draining.contains(id);
    const auto weight = view.weights.find(id);
    node["disk_weight"] = !view.disks.contains(id)       ? 0
                          : weight == view.weights.end() ? kFullDiskWeight
                                                         : weight->second;
  }
  std::sort(nodes.begin(), nodes.end(), [](const json& a, const json& b) { return a["id"] < b["id"]; });
  return DumpJson(nodes);
}

// What this node knows as the page's responsible node, and of its own disk.
std::string LocalOperations::InspectForPeer(PageId page) const {
  constexpr size_t kMaxSharersNamed = 40;
  const PageSummary summary = engine_->Describe(page);
  const StoreUsage usage = store_->Usage();
  const uint64_t free = engine_->peer_eviction().Own().free_bytes;
  PeerReport report{.disk_used_bytes = usage.used_bytes,
                    .disk_free_bytes = usage.free_bytes - std::min(usage.free_bytes, config_->disk_reserve_bytes),
                    .disk_kept_bytes = usage.free_bytes - free,
                    .home_known = summary.home_known,
                    .home_state = summary.home_state,
                    .owner = summary.owner.node};
  for (const NodeInstance& sharer : summary.sharers) {
    if (report.sharers.size() < kMaxSharersNamed) report.sharers.push_back(sharer.node);
  }
  if (const Extent* extent = engine_->core_holder().Find(page); extent != nullptr) {
    report.allocated = true;
    report.is_volatile = extent->is_volatile;
    report.replicas = extent->replicas;
    report.is_learned = extent->learned;
  }
  if (page == kSuperRootPage) {
    if (lost_pages_ != nullptr) report.lost = lost_pages_->found();
    report.repair = DiskRepairOf(engine_->catch_up());
  }
  return EncodePeerReport(report);
}

Task<absl::StatusOr<PeerReport>> LocalOperations::AskPeer(NodeId node, PageId page, TimeNs deadline) {
  const absl::StatusOr<std::string> told = co_await engine_->InspectAt(node, page, deadline);
  if (!told.ok()) co_return told.status();
  co_return DecodePeerReport(ToString(node), *told);
}

Task<absl::StatusOr<std::string>> LocalOperations::InspectPage(PageId page, TimeNs deadline) {
  const absl::StatusOr<NodeId> responsible = co_await engine_->FindResponsible(page, deadline);
  if (!responsible.ok()) co_return responsible.status();
  const absl::StatusOr<NodeId> knows = engine_->disks().WhoKnows(page);
  if (!knows.ok()) co_return knows.status();
  const absl::StatusOr<PeerReport> stored = co_await AskPeer(*knows, page, deadline);
  if (!stored.ok()) co_return stored.status();
  json home;
  if (responsible->value != 0) {
    const absl::StatusOr<PeerReport> report = co_await AskPeer(*responsible, page, deadline);
    if (!report.ok()) co_return report.status();
    json sharers = json::array();
    for (NodeId sharer : report->sharers) sharers.push_back(NameOf(sharer));
    if (report->home_known) {
      home = {{"state", report->home_state},
              {"owner", report->owner.value == 0 ? json(nullptr) : json(NameOf(report->owner))},
              {"sharers", sharers}};
    }
  }
  json holders = json::array();
  if (stored->replicas > 0) {
    for (NodeId node : engine_->disks().Holders(page, stored->replicas)) holders.push_back(NameOf(node));
  }
  const PageSummary summary = engine_->Describe(page);
  co_return DumpJson({{"address", ToString(page)},
                      {"responsible", responsible->value == 0 ? json(nullptr) : json(NameOf(*responsible))},
                      {"core_holders", holders},
                      {"cache_state", summary.cache_state},
                      {"version", ToString(summary.version)},
                      {"dirty", summary.dirty},
                      {"home", home},
                      {"allocated", stored->allocated},
                      {"volatile", stored->is_volatile}});
}

Task<absl::StatusOr<bool>> LocalOperations::IsStillLost(PageId page, TimeNs deadline) {
  const absl::StatusOr<NodeId> responsible = co_await engine_->FindResponsible(page, deadline);
  if (!responsible.ok()) co_return responsible.status();
  if (responsible->value == 0) co_return false;
  const absl::StatusOr<PeerReport> report = co_await AskPeer(*responsible, page, deadline);
  if (!report.ok()) co_return report.status();
  co_return report->home_known && report->home_state == Name(HomeState::kLost);
}

// The disk of every node that is there, in bytes of distinct data.
Task<absl::StatusOr<SpaceTotals>> LocalOperations::Space(TimeNs deadline) {
  SpaceTotals totals;
  const std::set<NodeId> disks = engine_->view().disks;
  for (NodeId node : disks) {
    if (!engine_->view().members.contains(node)) continue;
    const absl::StatusOr<PeerReport> report = co_await AskPeer(node, kSuperRootPage, deadline);
    if (!report.ok() && !engine_->view().members.contains(node)) continue;  // It has gone meanwhile.
    if (!report.ok()) co_return report.status();
    totals.free_bytes += report->disk_free_bytes - std::min(report->disk_free_bytes, report->disk_kept_bytes);
    totals.total_bytes += report->disk_free_bytes + report->disk_used_bytes;
  }
  totals.free_bytes /= config_->replicas;
  totals.total_bytes /= config_->replicas;
  totals.cache_bytes = engine_->cache_pages() * kPageBytes;
  totals.cache_used_bytes = engine_->cached_pages() * kPageBytes;
  co_return totals;
}

Task<absl::StatusOr<std::string>> LocalOperations::Inspect(std::string what, std::string argument, TimeNs deadline) {
  if (what == "status") {
    absl::StatusOr<std::string> status = co_await InspectStatus(deadline);
    co_return status;
  }
  if (what == "nodes") co_return InspectNodes();
  if (what == "directory" && argument.empty()) {
    absl::StatusOr<std::string> directory = co_await InspectDirectory(deadline);
    co_return directory;
  }
  if (what == "log") {
    absl::StatusOr<std::string> document = co_await InspectLog(std::move(argument), deadline);
    co_return document;
  }
  if (what == "page" || what == "directory") {
    const absl::StatusOr<GlobalAddress> address = ParseGlobalAddress(argument);
    if (!address.ok()) co_return address.status();
    const PageId page = PageOf(*address);
    if (page == PageId{}) {
      co_return absl::InvalidArgumentError(absl::StrCat("page ", ToString(page), " is not in the address space"));
    }
    if (what == "page") {
      // Aborted: who was asked has left the view; it says who it is now.
      while (true) {
        absl::StatusOr<std::string> document = co_await InspectPage(page, deadline);
        if (!absl::IsAborted(document.status()) || clock_->Now() >= deadline) co_return document;
      }
    }
    absl::StatusOr<std::string> document = co_await InspectDirectoryAt(page, deadline);
    co_return document;
  }
  if (what == "regions") {
    const absl::StatusOr<std::vector<RegionInfo>> regions = co_await ListRegions(deadline);
    if (!regions.ok()) co_return regions.status();
    json list = json::array();
    for (const RegionInfo& region : *regions) {
      list.push_back({{"name", region.name},
                      {"address", ToString(region.address)},
                      {"size_bytes", region.size_bytes},
                      {"allocated_bytes", region.allocated_bytes},
                      {"owner", region.owner},
                      {"group", region.group},
                      {"mode", region.mode},
                      {"without_quorum", Name(region.without_quorum)}});
    }
    co_return DumpJson(list);
  }
  co_return absl::InvalidArgumentError(
      absl::StrCat("\"", what, "\" cannot be inspected: expected status, nodes, regions, page, directory or log"));
}

}  // namespace mangrove
