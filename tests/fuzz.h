// The fuzz harness: what a decoder of bytes from elsewhere makes of mutations of what is really sent, or written. The corpus is made in
// code, the mutations come from a seed, so each run is the same.
//
//  Z1  A decoder gets each input in memory of exactly its size, so that sanitizers see what is read beyond.
//  Z2  What it takes is encoded again, and taken again as the same: `Decoder::take` checks that.
//  Z3  Both happen: some mutations are taken, and some are refused. Otherwise it has tested nothing.
//
// MANGROVE_FUZZ_ROUNDS multiplies the mutations, MANGROVE_FUZZ_SEED takes others: for a search that takes longer than a test may.

#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"

namespace mangrove::fuzz {

struct Decoder {
  std::string name;
  std::vector<std::string> corpus;
  // Whether the bytes are taken; fails the test where that breaks Z2.
  std::function<bool(std::string_view)> take;
  // Makes checksums and lengths right again, so that what is behind them is reached; done to every other mutation.
  std::function<void(std::string&)> repair = {};
  int mutations = 20'000;
  // Where most changes are made: what follows is content that no decoder looks at.
  size_t interesting_bytes = 512;
};

inline uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

inline std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::span<const std::byte> AsBytes(std::string_view text) { return std::as_bytes(std::span(text)); }

class Mutator {
 public:
  explicit Mutator(const Decoder& decoder) : decoder_(decoder), random_(FromEnvironment("MANGROVE_FUZZ_SEED", 1)) {}

  std::string Next() {
    std::string bytes = Any();
    for (size_t changes = Below(4); changes-- > 0;) Change(bytes);
    if (decoder_.repair && Below(2) == 0) decoder_.repair(bytes);
    return bytes;
  }

 private:
  size_t Below(size_t limit) { return random_() % limit; }
  const std::string& Any() { return decoder_.corpus[Below(decoder_.corpus.size())]; }
  size_t Place(const std::string& bytes) {
    return Below(Below(8) == 0 ? bytes.size() : std::min(bytes.size(), decoder_.interesting_bytes));
  }
  // Mostly between two words, as most formats have them.
  size_t Cut(const std::string& bytes) {
    const size_t place = Below(bytes.size() + 1);
    return Below(4) > 0 ? place / 8 * 8 : place;
  }

  void Change(std::string& bytes) {
    if (bytes.empty()) return bytes.push_back(static_cast<char>(random_()));
    const size_t at = Place(bytes);
    switch (Below(8)) {
      case 0:
      case 1: bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8))); break;
      case 2: bytes[at] = static_cast<char>(random_()); break;
      case 3: PutInteger(bytes, at); break;
      case 4: bytes.resize(Cut(bytes)); break;
      case 5: bytes.insert(at, bytes.substr(Place(bytes), Below(64))); break;
      case 6: bytes.erase(at, 1 + Below(16)); break;
      default: {
        const std::string& other = Any();
        bytes = bytes.substr(0, Cut(bytes)) + other.substr(Cut(other));
      }
    }
  }

  // Those at which sums and sizes go wrong.
  void PutInteger(std::string& bytes, size_t at) {
    static constexpr uint64_t kEdges[] = {0,          1,          0x7F,       0x80,           0xFF,
                                          0xFFFF,     0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,     uint64_t{1} << 63,
                                          UINT64_MAX, 4096,       8,          INT64_MAX - 1u, UINT64_MAX - 7};
    const uint64_t value = kEdges[Below(std::size(kEdges))];
    const size_t size = std::min(bytes.size() - at, size_t{1} << Below(4));
    std::memcpy(bytes.data() + at, &value, size);
  }

  const Decoder& decoder_;
  std::mt19937_64 random_;
};

// What is being tried: an end of the process says what it was about.
inline const Decoder* decoder_now = nullptr;
inline const std::string* input_now = nullptr;

inline void SayWhatIsTried(int signal) {
  if (decoder_now != nullptr && input_now != nullptr) {
    std::fprintf(stderr, "signal %d in decoder '%s', input: %s\n", signal, decoder_now->name.c_str(),
                 absl::BytesToHexString(*input_now).c_str());
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// One input, as Z1 has it.
inline bool Take(const Decoder& decoder, const std::string& input) {
  decoder_now = &decoder;
  input_now = &input;
  const std::unique_ptr<char[]> exact(new char[input.size()]);
  std::memcpy(exact.get(), input.data(), input.size());
  return decoder.take(std::string_view(exact.get(), input.size()));
}

// Every member of the corpus is taken, and nothing that becomes of it does harm.
inline void Run(const Decoder& decoder) {
  SCOPED_TRACE(decoder.name);
  std::signal(SIGABRT, SayWhatIsTried);
  for (size_t i = 0; i < decoder.corpus.size(); ++i) {
    ASSERT_TRUE(Take(decoder, decoder.corpus[i])) << "number " << i << " of the corpus";
  }
  Mutator mutator(decoder);
  const uint64_t rounds = FromEnvironment("MANGROVE_FUZZ_ROUNDS", 1) * static_cast<uint64_t>(decoder.mutations);
  uint64_t taken = 0;
  for (uint64_t i = 0; i < rounds; ++i) {
    const std::string input = mutator.Next();
    taken += Take(decoder, input) ? 1 : 0;
    ASSERT_FALSE(::testing::Test::HasFailure()) << "input: " << absl::BytesToHexString(input);
  }
  std::signal(SIGABRT, SIG_DFL);
  EXPECT_GT(taken, 0u);
  EXPECT_LT(taken, rounds);
}

inline void RunAll(const std::vector<Decoder>& decoders) {
  for (const Decoder& decoder : decoders) {
    Run(decoder);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace mangrove::fuzz
