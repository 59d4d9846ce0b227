#include "bench/floors/exchange_floor.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "bench/floors/bare_fabric.h"
#include "bench/timing.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kRequestBytes = 64;
constexpr uint64_t kPage = 4096;

// How a client's request tells the length of the answer; 0 ends the serving.
uint64_t AnswerBytes(const BareFabric::Arrival& arrival) {
  uint64_t bytes = 0;
  std::memcpy(&bytes, arrival.bytes, sizeof(bytes));
  return bytes;
}

void Ask(BareFabric& fabric, size_t connection, uint64_t answer_bytes, uint64_t request_bytes = kRequestBytes) {
  std::memcpy(fabric.send_buffer(), &answer_bytes, sizeof(answer_bytes));
  fabric.Send(connection, request_bytes);
}

Verbs MakeServer(int64_t spin_us) {
  auto fabric = std::make_shared<BareFabric>(spin_us);
  return {{"listen", [fabric](const Arguments&) { return fabric->Listen(); }},
          {"accept", [fabric](const Arguments&) { return fabric->Accept(), 0; }},
          {"serve", [fabric](const Arguments&) {
             while (true) {
               const BareFabric::Arrival arrival = fabric->Receive();
               const uint64_t bytes = AnswerBytes(arrival);
               if (bytes == 0) return 0;
               fabric->Send(arrival.connection, bytes);
             }
           }}};
}

// Verbs: connect(port), exchange(answer bytes, count, request bytes), stop.
Verbs MakeClient(int64_t spin_us) {
  auto fabric = std::make_shared<BareFabric>(spin_us);
  auto connections = std::make_shared<size_t>(0);
  return {{"connect",
           [fabric, connections](const Arguments& a) {
             fabric->Connect(static_cast<uint16_t>(a[0]));
             return static_cast<double>(++*connections);
           }},
          {"exchange",
           [fabric, connections](const Arguments& a) {
             return MedianNs(a[1], [&](uint64_t) {
               for (size_t i = 0; i < *connections; ++i) Ask(*fabric, i, a[0], a[2]);
               for (size_t i = 0; i < *connections; ++i) fabric->Receive();
             });
           }},
          {"stop", [fabric, connections](const Arguments&) {
             for (size_t i = 0; i < *connections; ++i) Ask(*fabric, i, 0);
             return 0;
           }}};
}

void ConnectWorkers(Worker& server, Worker& client) {
  const auto port = static_cast<uint64_t>(server.Call("listen"));
  server.Begin("accept");
  client.Call("connect", port);
  server.End();
}

// --- Passing on -------------------------------------------------------------------------------------------------------

// Asks the process at the other end of `socket`, and copies what that has put into the shared page.
Verbs MakeProgram(int socket, const std::byte* shared) {
  return {{"exchange", [socket, shared](const Arguments& a) {
             std::array<std::byte, kRequestBytes> message{};
             std::array<std::byte, kPage> page;
             return MedianNs(a[0], [&](uint64_t) {
               Must(send(socket, message.data(), message.size(), 0), "send");
               Must(recv(socket, message.data(), message.size(), 0), "recv");
               std::memcpy(page.data(), shared, kPage);
               asm volatile("" : : "r"(page.data()) : "memory");
             });
           }}};
}

Verbs MakeRelay(int64_t spin_us, int socket, std::byte* shared) {
  auto fabric = std::make_shared<BareFabric>(spin_us);
  return {{"connect", [fabric](const Arguments& a) { return fabric->Connect(static_cast<uint16_t>(a[0])), 0; }},
          {"relay",
           [fabric, socket, shared](const Arguments& a) {
             std::array<std::byte, kRequestBytes> message;
             for (uint64_t i = 0; i < a[0]; ++i) {
               Must(recv(socket, message.data(), message.size(), 0), "recv");
               Ask(*fabric, 0, kPage);
               std::memcpy(shared, fabric->Receive().bytes, kPage);
               Must(send(socket, message.data(), message.size(), 0), "send");
             }
             return 0;
           }},
          {"stop", [fabric](const Arguments&) { return Ask(*fabric, 0, 0), 0; }}};
}

}  // namespace

ExchangeFloor::ExchangeFloor(int64_t spin_us, int servers) {
  for (int i = 0; i < servers; ++i) {
    servers_.push_back(
        std::make_unique<Worker>(absl::StrCat("bare server ", i), 1, [=] { return MakeServer(spin_us); }));
  }
  client_ = std::make_unique<Worker>("bare client", 0, [=] { return MakeClient(spin_us); });
  for (auto& server : servers_) ConnectWorkers(*server, *client_);
}

ExchangeFloor::~ExchangeFloor() = default;

double ExchangeFloor::ExchangeNs(uint64_t answer_bytes, uint64_t count, uint64_t request_bytes) {
  for (auto& server : servers_) server->Begin("serve");
  const double result = client_->Call("exchange", answer_bytes, count, request_bytes);
  client_->Call("stop");
  for (auto& server : servers_) server->End();
  return result;
}

RelayFloor::RelayFloor(int64_t spin_us) {
  int ends[2];
  Must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
  void* shared = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) Die("no memory to share");
  auto* page = static_cast<std::byte*>(shared);
  server_ = std::make_unique<Worker>("bare server", 1, [=] { return MakeServer(spin_us); });
  relay_ = std::make_unique<Worker>("bare relay", 0, [=] { return MakeRelay(spin_us, ends[0], page); });
  program_ = std::make_unique<Worker>("bare program", 0, [=] { return MakeProgram(ends[1], page); });
  close(ends[0]);
  close(ends[1]);
  ConnectWorkers(*server_, *relay_);
}

RelayFloor::~RelayFloor() = default;

double RelayFloor::ExchangeNs(uint64_t count) {
  server_->Begin("serve");
  relay_->Begin("relay", count);
  const double result = program_->Call("exchange", count);
  relay_->End();
  relay_->Call("stop");
  server_->End();
  return result;
}

}  // namespace mangrove::bench
