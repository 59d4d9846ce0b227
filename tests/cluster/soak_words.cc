#include "tests/cluster/soak_words.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace mangrove::cluster_test {
namespace {

constexpr size_t kDifferentWords = 4'000;
constexpr size_t kWordsOfFile = 30'000;
constexpr uint64_t kMostLetters = 20;
constexpr int kEndsWithinS = 120;
constexpr int kHonestError = 1;

std::string CorpusIn(const std::string& directory) { return directory + "/corpus"; }
std::string ExpectedIn(const std::string& directory) { return directory + "/expected"; }

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Nothing: it ended with an error, which `output` has.
std::optional<std::string> Count(const std::string& sockets, const std::string& directory, const std::string& region,
                                 Output* output) {
  const std::string words = directory + "/words";
  *output = RunProgram({"examples/wordcount", "--sockets", sockets, "--region", region, "--arena-mib", "1", "--output",
                        words, CorpusIn(directory)},
                       kEndsWithinS);
  if (output->exit_code != 0) return std::nullopt;
  return ReadWhole(words);
}

// "", or the first line that differs.
std::string Difference(const std::string& counted, const std::string& expected) {
  const auto [a, b] = std::mismatch(counted.begin(), counted.end(), expected.begin(), expected.end());
  if (a == counted.end() && b == expected.end()) return "";
  const auto line_at = [](const std::string& text, std::string::const_iterator at) {
    const auto place = static_cast<size_t>(at - text.begin());
    const size_t begin = place == 0 ? 0 : text.rfind('\n', place - 1) + 1;
    return text.substr(begin, text.find('\n', place) - begin);
  };
  return absl::StrCat("words are miscounted: \"", line_at(counted, a), "\", expected \"", line_at(expected, b), "\"");
}

// A fault in the middle is no reason for these: what is read was flushed, and a worker may end, but not like that.
constexpr const char* kNoFaultsErrors[] = {"was ended by signal", "is damaged", "is not a table of words",
                                           "is of a run that did not finish"};

// "", or why an end with that error is the product's fault, and not that of a fault in the middle.
std::string WhyItMayNotEndSo(const Output& output, bool is_quiet) {
  if (output.exit_code == -1) return absl::StrCat("does not end within ", kEndsWithinS, " s");
  if (output.exit_code > 128) return absl::StrCat("is ended by signal ", output.exit_code - 128);
  if (output.exit_code != kHonestError) return absl::StrCat("ends with ", output.exit_code);
  if (output.err.empty()) return "ends with an error that it does not tell";
  for (const char* const words : kNoFaultsErrors) {
    if (absl::StrContains(output.err, words)) return "ends with an error that no fault explains";
  }
  return is_quiet ? "ends with an error while there is no fault" : "";
}

void KeepError(const std::string& directory, const SoakShared& shared, const Output& output) {
  std::ofstream(SoakWordErrorsIn(directory), std::ios::app)
      << "count " << shared.word_counts + shared.word_counts_cut_short + 1 << ", exit code " << output.exit_code << ": "
      << output.err << (absl::EndsWith(output.err, "\n") ? "" : "\n");
}

}  // namespace

std::string SoakWordErrorsIn(const std::string& directory) { return directory + "/errors"; }

void MakeCorpus(const std::string& directory, int nodes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> different;
  for (size_t i = 0; i < kDifferentWords; ++i) {
    std::string word(1 + random() % kMostLetters, ' ');
    for (char& letter : word) letter = static_cast<char>((random() % 8 == 0 ? 'A' : 'a') + random() % 26);
    different.push_back(word);
  }
  std::filesystem::create_directory(CorpusIn(directory));
  std::map<std::string, uint64_t> counts;
  for (int node = 1; node <= nodes; ++node) {
    std::ofstream file(absl::StrCat(CorpusIn(directory), "/", node));
    for (size_t i = 0; i < kWordsOfFile; ++i) {
      const std::string& word = different[random() % different.size()];
      file << word << (random() % 10 == 0 ? ".\n" : " ");
      ++counts[absl::AsciiStrToLower(word)];
    }
  }
  std::ofstream expected(ExpectedIn(directory));
  for (const auto& [word, count] : counts) expected << count << ' ' << word << '\n';
}

int CountWords(const std::string& sockets, const std::string& directory, SoakShared& shared) {
  const std::string expected = ReadWhole(ExpectedIn(directory));
  for (;;) {
    const uint64_t epoch = shared.epoch.load();
    Output output;
    const std::optional<std::string> counted = Count(sockets, directory, "words", &output);
    const bool is_quiet = epoch % 2 == 0 && shared.epoch.load() == epoch;
    if (!counted.has_value()) {
      KeepError(directory, shared, output);
      const std::string why = WhyItMayNotEndSo(output, is_quiet);
      if (why.empty()) {
        shared.word_counts_cut_short.fetch_add(1);
      } else {
        shared.Fail(absl::StrCat("the counter of words ", why, ": ", output.err));
      }
    } else if (const std::string wrong = Difference(*counted, expected); !wrong.empty()) {
      shared.Fail(wrong);
    } else {
      shared.word_counts.fetch_add(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::string WhatIsWrongWithWords(const std::string& sockets, const std::string& directory, const std::string& region) {
  Output output;
  const std::optional<std::string> counted = Count(sockets, directory, region, &output);
  if (!counted.has_value()) return absl::StrCat("words are not counted: ", output.err);
  return Difference(*counted, ReadWhole(ExpectedIn(directory)));
}

}  // namespace mangrove::cluster_test
