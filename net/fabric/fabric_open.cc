// What happens once: configuration, provider, queues, the listener, the members' addresses.

#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"
#include "net/fabric_error.h"

namespace mangrove {
namespace {

// "host:port" or "[address]:port" in its two parts.
absl::StatusOr<std::pair<std::string, std::string>> SplitAddress(const std::string& address, const std::string& whose) {
  const size_t colon = address.rfind(':');
  std::string host = colon == std::string::npos ? "" : address.substr(0, colon);
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const bool number = !port.empty() && port.find_first_not_of("0123456789") == std::string::npos && port.size() <= 5;
  if (host.empty() || !number || std::stoi(port) < 1 || std::stoi(port) > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("the address of ", whose, " is \"", address, "\", expected \"host:port\""));
  }
  return std::make_pair(host, port);
}

// The descriptors in the set of an epoll descriptor of this process; none if it is no such descriptor.
std::vector<int> WatchedBy(int epoll) {
  std::vector<int> watched;
  std::ifstream info(absl::StrCat("/proc/self/fdinfo/", epoll));
  for (std::string word; info >> word;) {
    int descriptor = -1;
    if (word == "tfd:" && info >> descriptor) watched.push_back(descriptor);
  }
  return watched;
}

Info MakeHints(const std::string& provider) {
  Info hints(fi_allocinfo());
  CHECK(hints != nullptr);
  hints->caps = FI_MSG | FI_RMA | FI_SEND | FI_RECV | FI_WRITE | FI_REMOTE_WRITE;
  hints->ep_attr->type = FI_EP_MSG;
  hints->addr_format = FI_SOCKADDR;
  // A send after a write arrives after it: the message tells that its pages are there. Sends stay in order.
  hints->tx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
  hints->rx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
  hints->tx_attr->comp_order = FI_ORDER_STRICT;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  hints->domain_attr->threading = FI_THREAD_DOMAIN;  // One thread at a time: the loop's driver.
  hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
  hints->fabric_attr->prov_name = strdup(provider.c_str());
  return hints;
}

}  // namespace

MappedMemory::MappedMemory(size_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return;
  data_ = static_cast<std::byte*>(mapped);
  size_ = bytes;
}

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

MappedMemory::MappedMemory(MappedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedMemory& MappedMemory::operator=(MappedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FabricCore::FabricCore(FabricTransportConfig config, Loop* loop, Entropy* entropy)
    : config_(std::move(config)), keys_(config_.keys), loop_(loop), entropy_(entropy) {}

FabricCore::~FabricCore() {
  if (sources_added_) {
    loop_->RemoveSource(&completion_source_);
    loop_->RemoveSource(&event_source_);
  }
  loop_->Cancel(tick_timer_);
  loop_->Cancel(reap_timer_);
  for (auto& peer : peers_) loop_->Cancel(peer->retry);
  for (auto& [serial, connection] : connections_) {
    if (connection->endpoint) fi_shutdown(connection->endpoint.get(), 0);
  }
  connections_.clear();
}

absl::Status FabricCore::Start(TransportEvents* events) {
  CHECK(events_ == nullptr && events != nullptr);
  if (absl::Status status = CheckConfig(); !status.ok()) return status;
  if (absl::Status status = OpenFabric(); !status.ok()) return status;
  if (absl::Status status = ResolveMembers(); !status.ok()) return status;
  if (absl::Status status = OpenQueues(); !status.ok()) return status;
  if (absl::Status status = Listen(); !status.ok()) return status;
  events_ = events;
  loop_->AddSource(&completion_source_);
  loop_->AddSource(&event_source_);
  sources_added_ = true;
  tick_timer_ = loop_->CallAt(loop_->Now() + kTickInterval, [this] { Tick(); });
  for (auto& peer : peers_) {
    if (!peer->we_connect) continue;
    peer->retry = loop_->CallAt(loop_->Now(), [this, raw = peer.get()] { Dial(*raw); });
  }
  return absl::OkStatus();
}

absl::Status FabricCore::CheckConfig() const {
  if (config_.self.node.value == 0 || config_.self.incarnation.value == 0) {
    return absl::InvalidArgumentError(absl::StrCat("a transport cannot be ", ToString(config_.self)));
  }
  if (config_.keys.empty()) return absl::InvalidArgumentError("a transport has no key, expected at least one");
  if (config_.cluster == ClusterId{}) return absl::InvalidArgumentError("the cluster id is 0");
  absl::flat_hash_map<NodeId, std::string> names;
  for (const FabricMember& member : config_.members) {
    if (member.id.value == 0) {
      return absl::InvalidArgumentError(absl::StrCat("the member ", member.name, " has the node id 0"));
    }
    auto [it, added] = names.emplace(member.id, member.name);
    if (!added) {
      return absl::InvalidArgumentError(
          absl::StrCat("the members ", it->second, " and ", member.name, " are both ", ToString(member.id)));
    }
  }
  return absl::OkStatus();
}

absl::Status FabricCore::OpenFabric() {
  auto address = SplitAddress(config_.listen_address, "this node");
  if (!address.ok()) return address.status();
  const auto& [host, port] = *address;
  const Info hints = MakeHints(config_.provider);
  // libfabric would initialize every provider that it finds; some of them take over signals and write files of their own.
  setenv("FI_PROVIDER", config_.provider.c_str(), /*replace=*/0);
  fi_info* found = nullptr;
  int result = fi_getinfo(FI_VERSION(1, 17), host.c_str(), port.c_str(), FI_SOURCE, hints.get(), &found);
  info_.reset(found);
  if (result != 0) {
    return FabricError(result,
                       absl::StrCat("the provider ", config_.provider, " cannot be used at ", config_.listen_address,
                                    " (connection endpoints, RMA, sends ordered after writes)"));
  }
  if (absl::Status status = CheckProvider(); !status.ok()) return status;
  fid_fabric* fabric = nullptr;
  result = fi_fabric(info_->fabric_attr, &fabric, nullptr);
  if (result != 0) return FabricError(result, absl::StrCat("the fabric of ", config_.provider, " cannot be opened"));
  fabric_.reset(fabric);
  fid_domain* domain = nullptr;
  result = fi_domain(fabric_.get(), info_.get(), &domain, nullptr);
  if (result != 0) return FabricError(result, absl::StrCat("the domain of ", config_.provider, " cannot be opened"));
  domain_.reset(domain);
  local_registration_ = config_.force_local_registration || (info_->domain_attr->mr_mode & FI_MR_LOCAL) != 0;
  virtual_addresses_ = (info_->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0;
  inject_bytes_ = info_->tx_attr->inject_size;
  iov_limit_ = std::min(kMaxWriteParts, info_->tx_attr->iov_limit);
  max_ops_ = static_cast<uint32_t>(std::min<size_t>(kMaxOutstandingOps, info_->tx_attr->size));
  return absl::OkStatus();
}

// A provider may answer with less than it was asked for.
absl::Status FabricCore::CheckProvider() const {
  const fi_info& info = *info_;
  if (info.fabric_attr->prov_name == nullptr || config_.provider != info.fabric_attr->prov_name) {
    return absl::FailedPreconditionError(
        absl::StrCat("asked for the provider ", config_.provider, ", got ",
                     info.fabric_attr->prov_name == nullptr ? "none" : info.fabric_attr->prov_name));
  }
  const uint64_t order = info.tx_attr->msg_order & info.rx_attr->msg_order;
  if ((order & FI_ORDER_SAW) == 0 || (order & FI_ORDER_SAS) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the provider ", config_.provider, " does not keep sends behind the writes before them"));
  }
  if (info.tx_attr->comp_order != FI_ORDER_STRICT && (info.tx_attr->comp_order & FI_ORDER_STRICT) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the provider ", config_.provider, " does not report completions in order"));
  }
  if (info.mode != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the provider ", config_.provider, " wants mode bits ", absl::Hex(info.mode)));
  }
  if (info.rx_attr->size < kReceiveBuffers || info.tx_attr->size < 2 * kMaxMessagePages / 4 ||
      info.tx_attr->iov_limit < 1 + kMaxInlinePages) {
    return absl::FailedPreconditionError(
        absl::StrCat("the queues of the provider ", config_.provider, " are too small"));
  }
  return absl::OkStatus();
}

absl::Status FabricCore::OpenQueues() {
  fi_eq_attr event_attr{};
  event_attr.wait_obj = FI_WAIT_FD;
  event_attr.size = 64 + 8 * peers_.size();
  fid_eq* event_queue = nullptr;
  int result = fi_eq_open(fabric_.get(), &event_attr, &event_queue, nullptr);
  if (result != 0) return FabricError(result, "the event queue cannot be opened");
  event_queue_.reset(event_queue);

  fi_cq_attr completion_attr{};
  completion_attr.format = FI_CQ_FORMAT_MSG;
  completion_attr.wait_obj = FI_WAIT_FD;
  completion_attr.size = (kReceiveBuffers + max_ops_) * std::max<size_t>(peers_.size(), 4);
  fid_cq* completion_queue = nullptr;
  result = fi_cq_open(domain_.get(), &completion_attr, &completion_queue, nullptr);
  if (result != 0) return FabricError(result, "the completion queue cannot be opened");
  completion_queue_.reset(completion_queue);

  completion_source_.queue = &completion_queue->fid;
  event_source_.queue = &event_queue->fid;
  result = fi_control(completion_source_.queue, FI_GETWAIT, &completion_source_.fd);
  if (result == 0) result = fi_control(event_source_.queue, FI_GETWAIT, &event_source_.fd);
  if (result != 0) return FabricError(result, "the queues have no descriptors to wait on");
  LeaveSignalUnread();
  return absl::OkStatus();
}

// The provider tcp of libfabric 1.17 signals each completion to the completion queue's own descriptor: a byte into a socket
// pair, whose other end is in the set of descriptors that it looks at, where it finds and reads the byte later. That is 3
// µs for each message. Whoever polls needs no signal, since completions come about only inside of our calls; and fi_trywait,
// before anybody sleeps, looks at the queue itself. Out of the set, the byte is not read but by fi_trywait, and as long as one
// is unread the provider writes no other. The provider signals also when a send leaves something to be sent, which it asks
// the socket for at the next look. So who sends while another thread sleeps on the queue looks at it afterwards: MayHaveQueued.
void FabricCore::LeaveSignalUnread() {
  if (std::string_view(info_->fabric_attr->prov_name) != "tcp" || fi_version() != FI_VERSION(1, 17)) return;
  const std::vector<int> watched = WatchedBy(completion_source_.fd);
  // As yet there is no connection: it is the only one.
  if (watched.size() == 1) epoll_ctl(completion_source_.fd, EPOLL_CTL_DEL, watched[0], nullptr);
}

absl::Status FabricCore::Listen() {
  fid_pep* listener = nullptr;
  int result = fi_passive_ep(fabric_.get(), info_.get(), &listener, nullptr);
  const std::string what = absl::StrCat("cannot listen at ", config_.listen_address);
  if (result != 0) return FabricError(result, what);
  listener_.reset(listener);
  size_t data_bytes = 0;
  size_t length = sizeof(data_bytes);
  result = fi_getopt(&listener->fid, FI_OPT_ENDPOINT, FI_OPT_CM_DATA_SIZE, &data_bytes, &length);
  if (result != 0) return FabricError(result, what);
  static_assert(kAcceptBytes <= kHelloBytes);
  if (data_bytes < kHelloBytes) {
    return absl::FailedPreconditionError(absl::StrCat("the provider ", config_.provider, " carries ", data_bytes,
                                                      " bytes with a connection request, expected at least ",
                                                      kHelloBytes));
  }
  result = fi_pep_bind(listener, &event_queue_->fid, 0);
  if (result == 0) result = fi_listen(listener);
  if (result != 0) return FabricError(result, what);
  return absl::OkStatus();
}

absl::Status FabricCore::ResolveMembers() {
  for (const FabricMember& member : config_.members) {
    if (member.id == config_.self.node) continue;
    auto peer = std::make_unique<Peer>();
    peer->member = member;
    peer->we_connect = config_.self.node > member.id;
    auto split = SplitAddress(member.address, absl::StrCat("the member ", member.name));
    if (!split.ok()) return split.status();
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_family = info_->addr_format == FI_SOCKADDR_IN6 ? AF_INET6 : AF_INET;
    addrinfo* found = nullptr;
    const int result = getaddrinfo(split->first.c_str(), split->second.c_str(), &hints, &found);
    if (result != 0) {
      return absl::InvalidArgumentError(absl::StrCat("the address \"", member.address, "\" of the member ", member.name,
                                                     " cannot be resolved: ", gai_strerror(result)));
    }
    CHECK(found->ai_addrlen <= sizeof(peer->address));
    std::memcpy(&peer->address, found->ai_addr, found->ai_addrlen);
    peer->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    peer_of_[member.id] = peer.get();
    peers_.push_back(std::move(peer));
  }
  return absl::OkStatus();
}

std::vector<PeerStatus> FabricCore::Peers() const {
  std::vector<PeerStatus> all;
  for (const auto& peer : peers_) {
    PeerStatus status;
    status.instance = {peer->member.id, peer->newest};
    status.connected = peer->up != nullptr && peer->up->state == ConnectionState::kUp;
    status.address = peer->member.address;
    status.last_error = peer->last_error;
    if (status.connected) {
      status.key = FingerprintOf(peer->up->key);
      status.levels = peer->up->levels;
    }
    all.push_back(std::move(status));
  }
  return all;
}

TransportSecurity FabricCore::SecurityInUse() const {
  TransportSecurity security{.security = config_.security, .keys = {}};
  for (const ClusterKey& key : keys_) security.keys.push_back(FingerprintOf(key));
  return security;
}

uint8_t FabricCore::LevelOf(NodeId peer, Subsystem subsystem) const {
  const auto it = peer_of_.find(peer);
  if (it == peer_of_.end() || it->second->up == nullptr) return 0;
  return it->second->up->levels[static_cast<size_t>(subsystem)];
}

FabricTransportGauges FabricCore::Gauges() const {
  FabricTransportGauges gauges;
  gauges.connections = connections_.size();
  for (const auto& [serial, connection] : connections_) {
    gauges.queued_messages += connection->queue.size();
    gauges.in_flight_messages += connection->in_flight.size();
  }
  return gauges;
}

Peer* FabricCore::FindPeer(NodeId id) {
  auto it = peer_of_.find(id);
  return it == peer_of_.end() ? nullptr : it->second;
}

Connection* FabricCore::FindConnection(uint64_t serial) {
  auto it = connections_.find(serial);
  return it == connections_.end() ? nullptr : it->second.get();
}

}  // namespace mangrove
