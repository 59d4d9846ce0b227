// The programs of a soak run: on each node one that moves money between accounts in transactions, and one that writes, flushes and
// reads pages. Each is a process of its own, and attaches again whenever its node is back.
//
// What they check:
//   1. The sum of all accounts is 0 in every transaction that sees them all.
//   2. A page that is read is whole, and is the page that was asked for.
//   3. Its version is at least the last one whose flush was acknowledged before the read began, and at most the last one that its
//      writer had begun to write when the read was over.
//   4. While there is no fault, no program sees the version of a page go back.
//   5. No page is lost.
// Each page has one writer, and no version is written twice. It is written and flushed under an exclusive lock, and read under a
// shared one, so that nobody may see it half written, and none but its writer has the newest version when it is flushed.

#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {

constexpr int kSoakMostNodes = 5;
constexpr uint64_t kSoakPagesOfNode = 16;
constexpr uint64_t kSoakAccounts = 8;
constexpr int kSoakCodes = 17;  // Of absl::StatusCode.

// Between the programs and the run; in memory that they share. Programs and pages are numbered from 0, program i is of node i + 1.
struct SoakShared {
  struct Page {
    std::atomic<uint64_t> begun;    // The last version that was given to Write.
    std::atomic<uint64_t> flushed;  // The last one whose flush was acknowledged.
  };
  struct Program {
    std::atomic<uint64_t> done;  // Operations that succeeded.
    std::atomic<uint64_t> errors[kSoakCodes];
  };
  std::atomic<uint64_t> epoch;  // Odd: a fault is under way.
  std::atomic<int> failed;      // 0, 1: somebody writes the reason, 2: it is there.
  char reason[512];
  Page pages[kSoakMostNodes * kSoakPagesOfNode];
  Program checkers[kSoakMostNodes];
  Program movers[kSoakMostNodes];
  std::atomic<uint64_t> writes, flushes, reads;
  std::atomic<uint64_t> sums;
  std::atomic<uint64_t> word_counts, word_counts_cut_short;  // Of the counter of words.
  std::atomic<int64_t> moves_acknowledged[kSoakMostNodes];   // As the program's own page counts them.
  std::atomic<int64_t> moves_begun[kSoakMostNodes];

  static SoakShared& Make();
  void Fail(const std::string& why);  // The first reason stays.
  std::string failure() const { return failed.load() == 2 ? reason : ""; }
};

// Makes the regions; every page is there in version 1, flushed.
void SetUpSoak(const std::string& socket, int nodes, SoakShared& shared);
// Never return.
int CheckPages(const std::string& socket, int program, int nodes, uint64_t seed, SoakShared& shared);
int MoveMoney(const std::string& socket, int program, uint64_t seed, SoakShared& shared);
// REQUIRES: no program runs. Reads everything by one node: the error, or what is wrong.
absl::Status CheckAtEnd(const std::string& socket, int nodes, SoakShared& shared);

}  // namespace mangrove::cluster_test
