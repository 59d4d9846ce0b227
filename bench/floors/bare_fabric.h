// libfabric used in the plainest way: connection endpoints, one queue, messages in buffers of their own. It waits as the
// node's loop does: polls for a bounded time after the last completion, then sleeps on the queue's descriptor.

#pragma once

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace mangrove::bench {

// Errors end the process. Not thread-safe.
class BareFabric {
 public:
  struct Arrival {
    size_t connection = 0;
    const std::byte* bytes = nullptr;  // Valid until the next Receive.
    size_t length = 0;
  };

  explicit BareFabric(int64_t spin_us, size_t buffer_bytes = 8192);
  ~BareFabric();
  BareFabric(const BareFabric&) = delete;
  BareFabric& operator=(const BareFabric&) = delete;

  uint16_t Listen();  // On a free port of 127.0.0.1.
  void Accept();      // The next connection; they are numbered from 0.
  void Connect(uint16_t port);
  // Sends the first bytes of send_buffer(), which may be changed once the answer is there.
  void Send(size_t connection, size_t length);
  Arrival Receive();
  // Sends the whole of send_buffer() so many times, a few at a time.
  void Stream(size_t connection, uint64_t count);
  std::byte* send_buffer() { return send_buffer_.data(); }

 private:
  struct Buffer {
    size_t connection = 0;
    std::vector<std::byte> bytes;
  };
  void OpenDomain(fi_info* info);
  void AddEndpoint(fi_info* info);
  void AwaitConnected();
  void Post(Buffer* buffer);
  void SleepOnQueue();

  const int64_t spin_ns_;
  const size_t buffer_bytes_;
  fi_info* info_ = nullptr;
  fid_fabric* fabric_ = nullptr;
  fid_domain* domain_ = nullptr;
  fid_eq* event_queue_ = nullptr;
  fid_cq* queue_ = nullptr;
  fid_pep* listener_ = nullptr;
  int queue_fd_ = -1;
  std::vector<fid_ep*> endpoints_;
  std::deque<Buffer> buffers_;
  Buffer* to_post_ = nullptr;
  std::vector<std::byte> send_buffer_;
};

}  // namespace mangrove::bench
