#include "bench/floors/bulk_floor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "bench/floors/bare_fabric.h"
#include "bench/timing.h"

namespace mangrove::bench {
namespace {

constexpr size_t kMib = size_t{1} << 20;

double MibPerSecondSince(int64_t begin, uint64_t mib) {
  return static_cast<double>(mib) * 1e9 / static_cast<double>(NowNs() - begin);
}

Verbs MakeServer(int64_t spin_us) {
  auto fabric = std::make_shared<BareFabric>(spin_us, kMib);
  return {{"listen", [=](const Arguments&) { return fabric->Listen(); }},
          {"accept", [=](const Arguments&) { return fabric->Accept(), 0; }},
          {"stream", [=](const Arguments& a) {
             fabric->Receive();
             fabric->Stream(0, a[0]);
             return 0;
           }}};
}

// The memory is touched before.
Verbs MakeClient(int64_t spin_us) {
  auto fabric = std::make_shared<BareFabric>(spin_us, kMib);
  auto memory = std::make_shared<std::vector<std::byte>>();
  return {{"connect", [=](const Arguments& a) { return fabric->Connect(static_cast<uint16_t>(a[0])), 0; }},
          {"receive", [=](const Arguments& a) {
             memory->resize(a[0] * kMib);
             const int64_t begin = NowNs();
             fabric->Send(0, 64);
             for (uint64_t i = 0; i < a[0]; ++i) {
               std::memcpy(memory->data() + i * kMib, fabric->Receive().bytes, kMib);
             }
             return MibPerSecondSince(begin, a[0]);
           }}};
}

Verbs MakeWriter(const std::string& path) {
  return {{"write", [=](const Arguments& a) {
             const int file = static_cast<int>(Must(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), path));
             const std::vector<std::byte> bytes(kMib, std::byte{7});
             const int64_t begin = NowNs();
             for (uint64_t i = 0; i < a[0]; ++i) Must(write(file, bytes.data(), kMib), path);
             Must(fdatasync(file), path);
             const double rate = MibPerSecondSince(begin, a[0]);
             close(file);
             return rate;
           }}};
}

}  // namespace

BulkFloor::BulkFloor(int64_t spin_us) {
  server_ = std::make_unique<Worker>("bare server", 1, [=] { return MakeServer(spin_us); });
  client_ = std::make_unique<Worker>("bare client", 0, [=] { return MakeClient(spin_us); });
  const auto port = static_cast<uint64_t>(server_->Call("listen"));
  server_->Begin("accept");
  client_->Call("connect", port);
  server_->End();
}

BulkFloor::~BulkFloor() = default;

double BulkFloor::MibPerSecond(uint64_t mib) {
  server_->Begin("stream", mib);
  const double rate = client_->Call("receive", mib);
  server_->End();
  return rate;
}

PlainWriteFloor::PlainWriteFloor(const std::string& directory) {
  one_ = std::make_unique<Worker>("bare writer", -1, [=] { return MakeWriter(directory + "/plain-1"); });
  other_ = std::make_unique<Worker>("bare writer", -1, [=] { return MakeWriter(directory + "/plain-2"); });
}

PlainWriteFloor::~PlainWriteFloor() = default;

double PlainWriteFloor::MibPerSecond(uint64_t mib) {
  other_->Begin("write", mib);
  const double one = one_->Call("write", mib);
  return std::min(one, other_->End());
}

}  // namespace mangrove::bench
