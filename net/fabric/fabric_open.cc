// What happens once: configuration, provider, queues, the listener.

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

// Of a guest it is not asked.
FabricTransportConfig WithSecurity(FabricTransportConfig config) {
  if (config.self.node == kGuestNode) config.security = Security::kEncrypted;
  return config;
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
    : config_(WithSecurity(std::move(config))), keys_(config_.keys), loop_(loop), entropy_(entropy) {}

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
  if (absl::Status status = SetMembers(config_.members); !status.ok()) return status;
  if (absl::Status status = OpenQueues(); !status.ok()) return status;
  if (absl::Status status = IsGuest() ? absl::OkStatus() : Listen(); !status.ok()) return status;
  events_ = events;
  loop_->AddSource(&completion_source_);
  loop_->AddSource(&event_source_);
  sources_added_ = true;
  tick_timer_ = loop_->CallAt(loop_->Now() + kTickInterval, [this] { Tick(); });
  for (auto& peer : peers_) DialSoon(*peer);
  return absl::OkStatus();
}

absl::Status FabricCore::CheckConfig() const {
  if (config_.self.node.value == 0 || config_.self.incarnation.value == 0) {
    return absl::InvalidArgumentError(absl::StrCat("a transport cannot be ", ToString(config_.self)));
  }
  if (config_.keys.empty()) return absl::InvalidArgumentError("a transport has no key, expected at least one");
  if (IsGuest() && (config_.keys.size() != 1 || config_.members.size() != 1)) {
    return absl::InvalidArgumentError(absl::StrCat("a guest has ", config_.keys.size(), " keys and ",
                                                   config_.members.size(), " members, expected one of each"));
  }
  if (config_.cluster == ClusterId{}) return absl::InvalidArgumentError("the cluster id is 0");
  return absl::OkStatus();
}

absl::Status FabricCore::OpenFabric() {
  if (absl::Status sealing = Sealer::CheckWorksHere(); !sealing.ok()) return sealing;
  // A guest listens nowhere: it goes by the address that it connects to.
  const std::string& where = IsGuest() ? config_.members[0].address : config_.listen_address;
  auto address =
      SplitAddress(where, IsGuest() ? absl::StrCat("the member ", config_.members[0].name) : std::string("this node"));
  if (!address.ok()) return address.status();
  const auto& [host, port] = *address;
  const Info hints = MakeHints(config_.provider);
  // libfabric would initialize every provider that it finds; some of them take over signals and write files of their own.
  setenv("FI_PROVIDER", config_.provider.c_str(), /*replace=*/0);
  fi_info* found = nullptr;
  int result =
      fi_getinfo(FI_VERSION(1, 17), host.c_str(), port.c_str(), IsGuest() ? 0 : FI_SOURCE, hints.get(), &found);
  info_.reset(found);
  if (result != 0) {
    return FabricError(result, absl::StrCat("the provider ", config_.provider, " cannot be used at ", where,
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
  // Members that are yet to come count. The provider tcp lets its queues grow, and a short one stays in the processor's cache.
  const size_t peers = std::max<size_t>(members_.size(), config_.provider == "tcp" ? 4 : 64);
  fi_eq_attr event_attr{};
  event_attr.wait_obj = FI_WAIT_FD;
  event_attr.size = 64 + 8 * peers;
  fid_eq* event_queue = nullptr;
  int result = fi_eq_open(fabric_.get(), &event_attr, &event_queue, nullptr);
  if (result != 0) return FabricError(result, "the event queue cannot be opened");
  event_queue_.reset(event_queue);

  fi_cq_attr completion_attr{};
  completion_attr.format = FI_CQ_FORMAT_MSG;
  completion_attr.wait_obj = FI_WAIT_FD;
  completion_attr.size = (kReceiveBuffers + max_ops_) * peers;
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

TransportSecurity FabricCore::SecurityInUse() const {
  TransportSecurity security{.security = config_.security, .keys = {}};
  for (const ClusterKey& key : keys_) security.keys.push_back(FingerprintOf(key));
  return security;
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

Connection* FabricCore::FindConnection(uint64_t serial) {
  auto it = connections_.find(serial);
  return it == connections_.end() ? nullptr : it->second.get();
}

}  // namespace mangrove
