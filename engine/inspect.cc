// What a node says of itself, as JSON documents for the command line and other programs. docs/OPERATIONS.md lists the
// fields.

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/local_operations.h"

namespace mangrove {
namespace {

using nlohmann::json;

json PeersOf(const Transport& transport, const NodeConfig& config) {
  json peers = json::array();
  for (const PeerStatus& peer : transport.Peers()) {
    std::string name;
    for (const MemberConfig& member : config.members) {
      if (member.id == peer.instance.node) name = member.name;
    }
    peers.push_back({{"id", peer.instance.node.value},
                     {"name", name},
                     {"address", peer.address},
                     {"connected", peer.connected},
                     {"incarnation", peer.instance.incarnation.value},
                     {"last_error", peer.last_error}});
  }
  return peers;
}

}  // namespace

std::string LocalOperations::NameOf(NodeId node) const {
  for (const MemberConfig& member : config_->members) {
    if (member.id == node) return member.name;
  }
  return ToString(node);
}

std::string LocalOperations::InspectStatus() const {
  const PageEngineCounters& c = engine_->counters();
  const TransportCounters t = transport_->Counters();
  const StoreUsage usage = store_->Usage();
  const MemberConfig& self = config_->self();
  json waiting = json::array();
  for (NodeId node : engine_->Unregistered()) waiting.push_back(NameOf(node));
  return json{
      {"node",
       {{"id", self.id.value}, {"name", self.name}, {"incarnation", incarnation_.value}, {"address", self.address}}},
      {"cluster", config_->cluster_name},
      {"ready", waiting.empty()},
      {"waiting_for", waiting},
      {"peers", PeersOf(*transport_, *config_)},
      {"cache",
       {{"used_bytes", engine_->cached_pages() * kPageBytes}, {"size_bytes", engine_->cache_pages() * kPageBytes}}},
      {"disk", {{"pages", usage.pages}, {"used_bytes", usage.used_bytes}, {"free_bytes", usage.free_bytes}}},
      {"counters",
       {{"read_requests", c.read_requests},
        {"write_requests", c.write_requests},
        {"pages_received", c.pages_received},
        {"pages_given", c.pages_given},
        {"invalidations", c.invalidations},
        {"evictions", c.evictions},
        {"pages_flushed", c.pages_flushed},
        {"stale_messages", c.stale_messages},
        {"bad_messages", c.bad_messages},
        {"corrupt_pages", engine_->core_holder().corrupt_pages_found()},
        {"resends", c.resends},
        {"messages_sent", t.messages_sent},
        {"messages_received", t.messages_received},
        {"messages_dropped", t.messages_dropped},
        {"peers_refused", t.peers_refused}}}}
      .dump();
}

std::string LocalOperations::InspectNodes() const {
  const MemberConfig& self = config_->self();
  json nodes = PeersOf(*transport_, *config_);
  nodes.push_back({{"id", self.id.value},
                   {"name", self.name},
                   {"address", self.address},
                   {"connected", true},
                   {"incarnation", incarnation_.value},
                   {"last_error", ""}});
  std::sort(nodes.begin(), nodes.end(), [](const json& a, const json& b) { return a["id"] < b["id"]; });
  return nodes.dump();
}

// What this node knows as the page's responsible node, and of its own disk.
std::string LocalOperations::InspectForPeer(PageId page) const {
  constexpr size_t kMaxSharersNamed = 40;
  const PageSummary summary = engine_->Describe(page);
  const StoreUsage usage = store_->Usage();
  json document{{"disk", {{"used_bytes", usage.used_bytes}, {"free_bytes", usage.free_bytes}}}, {"home", nullptr}};
  if (summary.home_known) {
    json sharers = json::array();
    for (const NodeInstance& sharer : summary.sharers) {
      if (sharers.size() < kMaxSharersNamed) sharers.push_back(sharer.node.value);
    }
    document["home"] = {{"state", summary.home_state}, {"owner", summary.owner.node.value}, {"sharers", sharers}};
  }
  const Extent* extent = engine_->core_holder().Find(page);
  document["allocated"] = extent != nullptr;
  document["volatile"] = extent != nullptr && extent->is_volatile;
  document["replicas"] = extent != nullptr ? extent->replicas : 0;
  return document.dump();
}

Task<absl::StatusOr<std::string>> LocalOperations::InspectPage(PageId page, TimeNs deadline) {
  if (page == PageId{} || !(page.value < kSpacePages)) {
    co_return absl::InvalidArgumentError(absl::StrCat("page ", ToString(page), " is not in the address space"));
  }
  const PageSummary summary = engine_->Describe(page);
  const absl::StatusOr<std::string> told = co_await engine_->InspectAt(summary.responsible, page, deadline);
  if (!told.ok()) co_return told.status();
  const json document = json::parse(*told, nullptr, false);
  if (document.is_discarded()) co_return absl::InternalError(NameOf(summary.responsible) + " sent no JSON document");
  json home = document.value("home", json(nullptr));
  if (!home.is_null()) {
    const uint64_t owner = home.value("owner", uint64_t{0});
    home["owner"] = owner == 0 ? json(nullptr) : json(NameOf(NodeId(owner)));
    json sharers = json::array();
    for (const json& sharer : home["sharers"]) sharers.push_back(NameOf(NodeId(sharer.get<uint64_t>())));
    home["sharers"] = sharers;
  }
  json holders = json::array();
  for (NodeId node : engine_->CoreHoldersOf(page, document.value("replicas", uint32_t{0}))) {
    holders.push_back(NameOf(node));
  }
  co_return json{{"address", ToString(page)},
                 {"responsible", NameOf(summary.responsible)},
                 {"core_holders", holders},
                 {"cache_state", summary.cache_state},
                 {"version", ToString(summary.version)},
                 {"dirty", summary.dirty},
                 {"home", home},
                 {"allocated", document.value("allocated", false)},
                 {"volatile", document.value("volatile", false)}}
      .dump();
}

Task<absl::StatusOr<bool>> LocalOperations::IsStillLost(PageId page, TimeNs deadline) {
  const absl::StatusOr<std::string> told =
      co_await engine_->InspectAt(engine_->Describe(page).responsible, page, deadline);
  if (!told.ok()) co_return told.status();
  const json document = json::parse(*told, nullptr, false);
  if (!document.is_object()) co_return absl::InternalError("no JSON document about page " + ToString(page));
  const json home = document.value("home", json(nullptr));
  co_return home.is_object() && home.value("state", "") == Name(HomeState::kLost);
}

// Every member's disk, in bytes of distinct data.
Task<absl::StatusOr<SpaceTotals>> LocalOperations::Space(TimeNs deadline) {
  SpaceTotals totals;
  for (const MemberConfig& member : config_->members) {
    const absl::StatusOr<std::string> told = co_await engine_->InspectAt(member.id, kSuperRootPage, deadline);
    if (!told.ok()) co_return told.status();
    const json document = json::parse(*told, nullptr, false);
    if (document.is_discarded()) co_return absl::InternalError(member.name + " sent no JSON document");
    const json disk = document.value("disk", json::object());
    const uint64_t free_bytes = disk.value("free_bytes", uint64_t{0});
    totals.free_bytes += free_bytes;
    totals.total_bytes += free_bytes + disk.value("used_bytes", uint64_t{0});
  }
  totals.free_bytes /= config_->replicas;
  totals.total_bytes /= config_->replicas;
  totals.cache_bytes = engine_->cache_pages() * kPageBytes;
  totals.cache_used_bytes = engine_->cached_pages() * kPageBytes;
  co_return totals;
}

Task<absl::StatusOr<std::string>> LocalOperations::Inspect(std::string what, std::string argument, TimeNs deadline) {
  if (what == "status") co_return InspectStatus();
  if (what == "nodes") co_return InspectNodes();
  if (what == "page") {
    const absl::StatusOr<GlobalAddress> address = ParseGlobalAddress(argument);
    if (!address.ok()) co_return address.status();
    absl::StatusOr<std::string> page = co_await InspectPage(PageOf(*address), deadline);
    co_return page;
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
                      {"mode", region.mode}});
    }
    co_return list.dump();
  }
  co_return absl::InvalidArgumentError(
      absl::StrCat("\"", what, "\" cannot be inspected: expected status, nodes, regions or page"));
}

}  // namespace mangrove
