#include "tests/sim/stamp.h"

#include <array>
#include <cstring>

#include "net/check.h"
#include "tests/sim/sim_random.h"

namespace mangrove::sim {

namespace {

constexpr size_t kWords = kPageBytes / sizeof(uint64_t);
constexpr uint64_t kStride = 0x9e3779b97f4a7c15u;

uint64_t Checksum(PageId page, const Stamp& stamp) {
  const uint64_t place = Mix(absl::Uint128Low64(page.value) ^ Mix(absl::Uint128High64(page.value) + 1));
  return Mix(stamp.op ^ Mix(stamp.writer ^ place)) | 1;
}

}  // namespace

void FillPage(PageId page, const Stamp& stamp, std::byte* out) {
  CHECK(stamp.op != 0);
  std::array<uint64_t, kWords> words;
  words[0] = stamp.op;
  words[1] = stamp.writer;
  words[2] = Checksum(page, stamp);
  for (size_t i = 3; i < kWords; ++i) words[i] = words[2] + i * kStride;
  std::memcpy(out, words.data(), kPageBytes);
}

ParsedPage ParsePage(PageId page, const std::byte* data) {
  if (data == nullptr) return {};
  std::array<uint64_t, kWords> words;
  std::memcpy(words.data(), data, kPageBytes);
  const Stamp stamp{words[0], words[1]};
  uint64_t different = words[2] ^ Checksum(page, stamp);
  for (size_t i = 3; i < kWords; ++i) different |= words[i] ^ (words[2] + i * kStride);
  if (stamp.op != 0 && different == 0) return {PageContent::kStamped, stamp};
  uint64_t any = 0;
  for (const uint64_t word : words) any |= word;
  return {any == 0 ? PageContent::kZeros : PageContent::kTorn, stamp};
}

}  // namespace mangrove::sim
