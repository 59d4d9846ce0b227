// The main job: words counted by processes on different nodes, in one table in mapped memory.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

constexpr uint64_t kWholeBytes = 50'000'000;
constexpr uint64_t kPartBytes = 3'000'000;

// Appends the text files of the machine to `corpus`, in files of some MB, until there are `bytes`; from the beginning
// again where the machine has less.
void WriteCorpus(const std::string& corpus, uint64_t bytes) {
  namespace fs = std::filesystem;
  std::vector<fs::path> sources;
  for (const char* directory : {"/usr/share/common-licenses", "/usr/share/doc", "/usr/share/perl", "/usr/share/perl5",
                                "/usr/lib/python3", "/usr/lib/python3.11", "/usr/include", "/usr/share"}) {
    std::error_code error;
    for (fs::recursive_directory_iterator at(directory, fs::directory_options::skip_permission_denied, error), end;
         !error && at != end; at.increment(error)) {
      std::error_code ignored;
      if (at->is_regular_file(ignored) && !at->is_symlink(ignored) && at->file_size(ignored) < 1'000'000) {
        sources.push_back(at->path());
      }
    }
  }
  fs::create_directory(corpus);
  uint64_t written = 0;
  for (size_t i = 0; written < bytes; ++i) {
    std::ifstream source(sources.at(i % sources.size()), std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(source), {}};
    if (text.find('\0') != std::string::npos) continue;  // No text.
    if (text.size() > bytes - written) text.resize(bytes - written);
    text += '\n';
    std::ofstream(corpus + "/" + std::to_string(written / 9'000'000), std::ios::binary | std::ios::app) << text;
    written += text.size();
  }
}

// The same by the programs that everybody has.
std::string ExpectedWords(const std::string& corpus) {
  const Output expected =
      RunProgram({"/bin/bash", "-c",
                  "export LC_ALL=C; cat \"$1\"/* | tr -cs 'A-Za-z' '\\n' | tr A-Z a-z | sed '/^$/d' | sort | "
                  "uniq -c | awk '{ print $1, $2 }'",
                  "bash", corpus},
                 240);
  EXPECT_EQ(expected.exit_code, 0) << expected.err;
  return expected.out;
}

class WordCount : public testing::Test {
 protected:
  // What the program printed of words and, after it, of its work.
  Output Count(const std::string& corpus) {
    const std::string words = directory_ / "words";
    Output output = RunProgram({"examples/wordcount", "--sockets", cluster_.sockets(), "--output", words, corpus}, 120);
    EXPECT_EQ(output.exit_code, 0) << output.err;
    output.err = output.out;
    std::ifstream file(words, std::ios::binary);
    output.out.assign(std::istreambuf_iterator<char>(file), {});
    return output;
  }
  Output Read(int node) { return RunProgram({"examples/wordcount", "--read", "--sockets", cluster_.socket(node)}); }

  Cluster cluster_{{.cache_size_mib = 256, .fault_timeout_ms = 10'000}};
  const TemporaryDirectory directory_;
};

// Not EXPECT_EQ: nobody wants to read megabytes.
void ExpectSameWords(const std::string& actual, const std::string& expected) {
  EXPECT_GT(expected.size(), 1000u);
  const auto [a, b] = std::mismatch(actual.begin(), actual.end(), expected.begin(), expected.end());
  const auto at = static_cast<size_t>(a - actual.begin());
  const size_t from = at < 40 ? 0 : at - 40;
  EXPECT_TRUE(a == actual.end() && b == expected.end()) << "they differ at byte " << at << ":\n"
                                                        << actual.substr(from, 80) << "\nand\n"
                                                        << expected.substr(from, 80);
}

// Covers: G03, G07, G08, G09
TEST_F(WordCount, OfFiftyMegabytesOnThreeNodesIsThatOfTrSortUniq) {
  const std::string corpus = directory_ / "corpus";
  WriteCorpus(corpus, kWholeBytes);
  cluster_.StartAll();
  const Output counted = Count(corpus);
  std::cout << counted.err;
  ExpectSameWords(counted.out, ExpectedWords(corpus));
  for (int node = 1; node <= 3; ++node) {
    // Each node had a worker that took pages with it.
    const auto counters = cluster_.Ask(node, {"status"})["counters"];
    EXPECT_GT(counters["pages_received"].get<uint64_t>(), 0u) << "node-" << node;
  }
}

// Covers: G17
TEST_F(WordCount, TheTableIsThereAfterAStopAndAStart) {
  const std::string corpus = directory_ / "corpus";
  WriteCorpus(corpus, kPartBytes);
  cluster_.StartAll();
  const std::string counted = Count(corpus).out;
  ExpectSameWords(counted, ExpectedWords(corpus));
  cluster_.StopAll();
  cluster_.StartAll();
  for (int node = 1; node <= 3; ++node) ExpectSameWords(Read(node).out, counted);
}

// Covers: G17
TEST_F(WordCount, TheFlushedTableIsWholeAfterEverythingWasKilled) {
  const std::string corpus = directory_ / "corpus";
  WriteCorpus(corpus, kPartBytes);
  cluster_.StartAll();
  const std::string counted = Count(corpus).out;
  cluster_.KillAll();
  cluster_.StartAll();
  ExpectSameWords(Read(2).out, counted);
  // And the job can be done anew in its place.
  ExpectSameWords(Count(corpus).out, counted);
}

TEST_F(WordCount, ErrorsAreThoseOfTheWorkersAndSayWhatToDo) {
  std::filesystem::create_directory(directory_ / "many");
  std::ofstream many(directory_ / "many/words");
  for (int i = 0; i < 2000; ++i) {
    many << static_cast<char>('a' + i % 26) << static_cast<char>('a' + i / 26 % 26) << static_cast<char>('a' + i / 676)
         << '\n';
  }
  many.close();
  const std::string sockets = cluster_.sockets();
  Output output = RunProgram({"examples/wordcount", "--sockets", sockets, directory_ / "many"});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_NE(output.err.find("no daemon serves"), std::string::npos) << output.err;
  cluster_.StartAll();
  output = RunProgram({"examples/wordcount", "--sockets", sockets, "--slots", "1024", directory_ / "many"});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_NE(output.err.find("the table of 1024 slots is full; give it more with --slots 2048"), std::string::npos)
      << output.err;
  output = RunProgram({"examples/wordcount", "--read", "--sockets", cluster_.socket(1)});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_NE(output.err.find("is of a run that did not finish"), std::string::npos) << output.err;
  output = RunProgram({"examples/wordcount", "--read", "--sockets", cluster_.socket(1), "--region", "none"});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_NE(output.err.find("none"), std::string::npos) << output.err;
  output = RunProgram({"examples/wordcount", "--sockets", sockets, directory_ / "absent"});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_NE(output.err.find("cannot read "), std::string::npos) << output.err;
}

}  // namespace
}  // namespace mangrove::cluster_test
