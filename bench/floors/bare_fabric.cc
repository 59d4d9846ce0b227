#include "bench/floors/bare_fabric.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/fi_errno.h>

#include <cstring>
#include <string>

#include "bench/timing.h"
#include "bench/worker.h"

namespace mangrove::bench {
namespace {

constexpr size_t kBuffersPerConnection = 4;

void Check(ssize_t result, const char* what) {
  if (result < 0) Die(absl::StrCat(what, ": ", fi_strerror(static_cast<int>(-result))));
}

fi_info* FindInfo(uint16_t port, uint64_t flags) {
  fi_info* hints = fi_allocinfo();
  hints->caps = FI_MSG;
  hints->ep_attr->type = FI_EP_MSG;
  hints->addr_format = FI_SOCKADDR_IN;
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->fabric_attr->prov_name = strdup("tcp");
  fi_info* found = nullptr;
  const std::string service = std::to_string(port);
  Check(fi_getinfo(FI_VERSION(1, 17), "127.0.0.1", service.c_str(), flags, hints, &found), "fi_getinfo");
  fi_freeinfo(hints);
  return found;
}

}  // namespace

BareFabric::BareFabric(int64_t spin_us, size_t buffer_bytes)
    : spin_ns_(spin_us * 1000), buffer_bytes_(buffer_bytes), send_buffer_(buffer_bytes) {}

BareFabric::~BareFabric() {
  for (fid_ep* endpoint : endpoints_) fi_close(&endpoint->fid);
  if (listener_ != nullptr) fi_close(&listener_->fid);
  if (queue_ != nullptr) fi_close(&queue_->fid);
  if (domain_ != nullptr) fi_close(&domain_->fid);
  if (event_queue_ != nullptr) fi_close(&event_queue_->fid);
  if (fabric_ != nullptr) fi_close(&fabric_->fid);
  if (info_ != nullptr) fi_freeinfo(info_);
}

void BareFabric::OpenDomain(fi_info* info) {
  if (fabric_ != nullptr) return;
  Check(fi_fabric(info->fabric_attr, &fabric_, nullptr), "fi_fabric");
  Check(fi_domain(fabric_, info, &domain_, nullptr), "fi_domain");
  fi_eq_attr events{};
  events.wait_obj = FI_WAIT_UNSPEC;
  Check(fi_eq_open(fabric_, &events, &event_queue_, nullptr), "fi_eq_open");
  fi_cq_attr completions{};
  completions.format = FI_CQ_FORMAT_MSG;
  completions.wait_obj = FI_WAIT_FD;
  completions.size = 256;
  Check(fi_cq_open(domain_, &completions, &queue_, nullptr), "fi_cq_open");
  Check(fi_control(&queue_->fid, FI_GETWAIT, &queue_fd_), "FI_GETWAIT");
}

uint16_t BareFabric::Listen() {
  info_ = FindInfo(0, FI_SOURCE);
  OpenDomain(info_);
  Check(fi_passive_ep(fabric_, info_, &listener_, nullptr), "fi_passive_ep");
  Check(fi_pep_bind(listener_, &event_queue_->fid, 0), "fi_pep_bind");
  Check(fi_listen(listener_), "fi_listen");
  sockaddr_in address{};
  size_t length = sizeof(address);
  Check(fi_getname(&listener_->fid, &address, &length), "fi_getname");
  return ntohs(address.sin_port);
}

void BareFabric::Accept() {
  fi_eq_cm_entry entry{};
  uint32_t event = 0;
  Check(fi_eq_sread(event_queue_, &event, &entry, sizeof(entry), 10'000, 0), "waiting for a connection");
  if (event != FI_CONNREQ) Die(absl::StrCat("expected a connection request, got event ", event));
  AddEndpoint(entry.info);
  Check(fi_accept(endpoints_.back(), nullptr, 0), "fi_accept");
  fi_freeinfo(entry.info);
  AwaitConnected();
}

void BareFabric::Connect(uint16_t port) {
  fi_info* info = FindInfo(port, 0);
  OpenDomain(info);
  AddEndpoint(info);
  Check(fi_connect(endpoints_.back(), info->dest_addr, nullptr, 0), "fi_connect");
  fi_freeinfo(info);
  AwaitConnected();
}

void BareFabric::AddEndpoint(fi_info* info) {
  fid_ep* endpoint = nullptr;
  Check(fi_endpoint(domain_, info, &endpoint, nullptr), "fi_endpoint");
  Check(fi_ep_bind(endpoint, &event_queue_->fid, 0), "fi_ep_bind");
  Check(fi_ep_bind(endpoint, &queue_->fid, FI_SEND | FI_RECV), "fi_ep_bind");
  Check(fi_enable(endpoint), "fi_enable");
  endpoints_.push_back(endpoint);
  for (size_t i = 0; i < kBuffersPerConnection; ++i) {
    buffers_.push_back({endpoints_.size() - 1, std::vector<std::byte>(buffer_bytes_)});
    Post(&buffers_.back());
  }
}

void BareFabric::AwaitConnected() {
  fi_eq_cm_entry entry{};
  uint32_t event = 0;
  Check(fi_eq_sread(event_queue_, &event, &entry, sizeof(entry), 10'000, 0), "connecting");
  if (event != FI_CONNECTED) Die(absl::StrCat("expected a connection, got event ", event));
}

void BareFabric::Post(Buffer* buffer) {
  Check(fi_recv(endpoints_[buffer->connection], buffer->bytes.data(), buffer_bytes_, nullptr, 0, buffer), "fi_recv");
}

void BareFabric::Send(size_t connection, size_t length) {
  const ssize_t result = fi_send(endpoints_[connection], send_buffer_.data(), length, nullptr, 0, nullptr);
  Check(result, "fi_send");
}

void BareFabric::Stream(size_t connection, uint64_t count) {
  uint64_t started = 0;
  for (uint64_t sent = 0; sent < count;) {
    for (; started < count && started - sent < kBuffersPerConnection; ++started) Send(connection, buffer_bytes_);
    fi_cq_msg_entry entry{};
    const ssize_t read = fi_cq_read(queue_, &entry, 1);
    if (read == 1 && entry.op_context == nullptr) ++sent;
    if (read < 0 && read != -FI_EAGAIN) Check(read, "fi_cq_read");
  }
}

void BareFabric::SleepOnQueue() {
  fid_t fid = &queue_->fid;
  if (fi_trywait(fabric_, &fid, 1) != 0) return;
  pollfd ready{.fd = queue_fd_, .events = POLLIN, .revents = 0};
  poll(&ready, 1, -1);
}

BareFabric::Arrival BareFabric::Receive() {
  if (to_post_ != nullptr) Post(to_post_);
  to_post_ = nullptr;
  int64_t spin_until = NowNs() + spin_ns_;
  while (true) {
    fi_cq_msg_entry entry{};
    const ssize_t count = fi_cq_read(queue_, &entry, 1);
    if (count == 1 && entry.op_context != nullptr) {
      to_post_ = static_cast<Buffer*>(entry.op_context);
      return {to_post_->connection, to_post_->bytes.data(), entry.len};
    }
    if (count == 1) continue;  // Something is sent.
    if (count != -FI_EAGAIN) Check(count, "fi_cq_read");
    if (NowNs() >= spin_until) SleepOnQueue();
  }
}

}  // namespace mangrove::bench
