// Keys that are changed and levels that are raised while a cluster works, settings that differ, what a wire shows, and who
// has left the view.
// Covers: B10, C12, C13

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "net/levels.h"
#include "tests/cluster/cluster.h"
#include "tests/wire.h"

namespace mangrove::cluster_test {
namespace {

constexpr int kTrustTimeoutMs = 20'000;

// A program of one node that writes, flushes and reads what the others write, as fast as it can.
class Worker {
 public:
  Worker(Cluster& cluster, int node)
      : node_(node),
        session_(cluster.Attach(node, kTrustTimeoutMs)),
        region_(Take(session_->Open("r", AccessMode::kWrite))) {
    thread_ = std::thread([this] { Run(); });
  }
  // Its first failure, if any.
  absl::Status End() {
    ending_ = true;
    if (thread_.joinable()) thread_.join();
    return failure_;
  }
  ~Worker() { EXPECT_TRUE(End().ok()) << "node-" << node_ << ": " << failure_; }
  uint64_t rounds() const { return rounds_; }

 private:
  void Run() {
    std::map<int, uint64_t> seen;
    while (!ending_ && failure_.ok()) {
      // Nobody else writes it, and it goes up.
      const uint64_t next = ReadWord(node_) + 1;
      Note(region_->Write(OffsetOf(node_), std::as_bytes(std::span(&next, 1))));
      if (next % 16 == 0) Note(region_->Flush(OffsetOf(node_), kPageBytes));
      for (int other = 1; other <= 3; ++other) {
        const uint64_t value = ReadWord(other);
        if (value < seen[other]) Note(absl::DataLossError(absl::StrCat("of node-", other, ": ", value)));
        seen[other] = value;
      }
      ++rounds_;
    }
  }
  uint64_t ReadWord(int node) {
    uint64_t value = 0;
    Note(region_->Read(OffsetOf(node), std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  static uint64_t OffsetOf(int node) { return static_cast<uint64_t>(node) * kPageBytes; }
  void Note(const absl::Status& status) {
    if (failure_.ok()) failure_ = status;
  }

  const int node_;
  const std::shared_ptr<Session> session_;
  const std::shared_ptr<Region> region_;
  absl::Status failure_;  // The thread's, until it has ended.
  std::atomic<uint64_t> rounds_{0};
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

class Trust : public testing::Test {
 protected:
  void StartWorking() {
    {
      const auto session = cluster_.Attach(1);
      MakeRegion(*session, "r", kSegmentPages * kPageBytes, {.replicas = 3});
    }
    for (int node = 1; node <= 3; ++node) Employ(node);
  }
  void Employ(int node) { workers_[node] = std::make_unique<Worker>(cluster_, node); }
  // All of them go on.
  void ExpectProgress() {
    for (auto& [node, worker] : workers_) {
      const uint64_t before = worker->rounds();
      EXPECT_TRUE(Eventually([&, w = worker.get()] { return w->rounds() >= before + 20; })) << "node-" << node;
    }
  }
  void Reload(int node) {
    const size_t before = cluster_.LinesOf(node, "has read its keys anew");
    kill(cluster_.pid(node), SIGHUP);
    EXPECT_TRUE(Eventually([&] { return cluster_.LinesOf(node, "has read its keys anew") > before; }));
  }
  nlohmann::json KeysOf(int node) { return cluster_.Ask(node, {"status"})["security"]["keys"]; }
  bool AllUse(const std::string& key) {
    for (int node = 1; node <= 3; ++node) {
      for (const auto& peer : cluster_.Ask(node, {"status"})["peers"]) {
        if (peer["key"] != key) return false;
      }
    }
    return true;
  }
  void SetSecurity(int node, const std::string& mode) {
    cluster_.WriteConfig(node,
                         absl::StrReplaceAll(cluster_.ConfigText(node),
                                             {{"\nreplicas", absl::StrCat("\nsecurity = \"", mode, "\"\nreplicas")}}));
  }

  Cluster cluster_;
  std::map<int, std::unique_ptr<Worker>> workers_;
};

TEST_F(Trust, KeysAreChangedWhileAllNodesWorkAndNothingFails) {
  const std::string old_key(64, 'a');
  const std::string new_key(64, 'b');
  cluster_.StartAll();
  const std::string old_print = KeysOf(1)[0];
  StartWorking();
  EXPECT_TRUE(AllUse(old_print));

  cluster_.WriteKeys({old_key, new_key});
  for (int node = 1; node <= 3; ++node) Reload(node);
  const std::string new_print = KeysOf(1)[1];
  EXPECT_NE(new_print, old_print);
  EXPECT_TRUE(AllUse(old_print));
  ExpectProgress();

  cluster_.WriteKeys({new_key, old_key});
  for (int node = 1; node <= 3; ++node) {
    Reload(node);
    ExpectProgress();
  }
  EXPECT_TRUE(Eventually([&] { return AllUse(new_print); }));

  cluster_.WriteKeys({new_key});
  for (int node = 1; node <= 3; ++node) Reload(node);
  ExpectProgress();
  EXPECT_TRUE(AllUse(new_print));
  EXPECT_EQ(KeysOf(2), nlohmann::json::array({new_print}));
  // A file that is no good changes nothing.
  cluster_.WriteKeys({"secret"});
  kill(cluster_.pid(1), SIGHUP);
  EXPECT_TRUE(Eventually([&] { return cluster_.LinesOf(1, "the keys are as they were") == 1; }));
  ExpectProgress();
  workers_.clear();
  EXPECT_EQ(cluster_.log(1).find("secret"), std::string::npos);
}

// As where a file was forgotten: the higher node's first key counts.
TEST_F(Trust, AKeyThatTheOthersDoNotHoldYetDisturbsNobody) {
  cluster_.StartAll();
  const std::string old_print = KeysOf(1)[0];
  StartWorking();
  cluster_.WriteKeys({std::string(64, 'b'), std::string(64, 'a')});
  Reload(3);
  EXPECT_TRUE(Eventually([&] { return cluster_.LinesOf(3, "goes on with the key") == 2; })) << cluster_.log(3);
  ExpectProgress();
  EXPECT_TRUE(AllUse(old_print));
  Reload(1);
  Reload(2);
  EXPECT_TRUE(Eventually([&] { return AllUse(KeysOf(1)[0]); }));
  ExpectProgress();
  workers_.clear();
}

TEST_F(Trust, AMixedClusterWorksAndIsUpgradedNodeByNodeUnderLoad) {
  cluster_.Start(1, {"--raise-level", "pages,store"});
  cluster_.Start(2);
  cluster_.Start(3);
  cluster_.AwaitConnected();
  const auto level = [&](int node, int peer) {
    return cluster_.PeerOf(node, absl::StrCat("node-", peer))["levels"]["pages"].get<int>();
  };
  const auto own = [](Subsystem subsystem) { return int{kOwnLevels[static_cast<size_t>(subsystem)].high}; };
  const int pages = own(Subsystem::kPages);
  EXPECT_EQ(level(1, 2), pages);
  StartWorking();
  ExpectProgress();
  for (const int node : {2, 3}) {
    workers_.erase(node);
    EXPECT_EQ(cluster_.Stop(node), 0);
    cluster_.Start(node, {"--raise-level", "pages,store"});
    cluster_.AwaitConnected();
    Employ(node);
    ExpectProgress();
    EXPECT_EQ(level(1, node), pages + 1);
    EXPECT_EQ(level(node, 5 - node), node == 2 ? pages : pages + 1);
  }
  EXPECT_EQ(cluster_.PeerOf(2, "node-3")["levels"], nlohmann::json({{"net", own(Subsystem::kNet)},
                                                                    {"pages", pages + 1},
                                                                    {"membership", own(Subsystem::kMembership)},
                                                                    {"store", own(Subsystem::kStore) + 1}}));
  workers_.clear();
}

TEST_F(Trust, AnotherSecurityIsRefusedAndBothLogsNameBothOnce) {
  SetSecurity(3, "encrypted");
  for (int node = 1; node <= 3; ++node) cluster_.Start(node);
  for (const int node : {1, 2}) {
    EXPECT_TRUE(Eventually(
        [&] { return cluster_.LinesOf(node, "connections are authenticated, the other's encrypted") == 1; }));
  }
  EXPECT_TRUE(
      Eventually([&] { return cluster_.LinesOf(3, "connections are encrypted, the other's authenticated") == 2; }));
  EXPECT_EQ(cluster_.Stop(3), 0);
  SetSecurity(3, "authenticated");
  cluster_.Start(3);
  cluster_.AwaitConnected();
}

// What goes over the wire between node 3 and node 1 while a page goes from the one to the other, some by itself, some
// with many others.
class Listening : public Trust, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Both, Listening, testing::Values("authenticated", "encrypted"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(Listening, PagesCanBeReadOnTheWireUnlessTheyAreEncrypted) {
  const std::string words = "nobody but us shall read this";
  std::mutex mutex;
  uint64_t bytes_seen = 0;
  uint64_t words_seen = 0;
  const Wire wire(cluster_.port(1), [&](int, std::string& bytes) {
    const std::lock_guard lock(mutex);
    bytes_seen += bytes.size();
    for (size_t at = bytes.find(words); at != std::string::npos; at = bytes.find(words, at + 1)) ++words_seen;
    return true;
  });
  for (int node = 1; node <= 3; ++node) SetSecurity(node, GetParam());
  std::string text;
  {
    SetSecurity(3, GetParam());
    text = absl::StrReplaceAll(cluster_.ConfigText(3),
                               {{absl::StrCat("127.0.0.1:", cluster_.port(1)), absl::StrCat("127.0.0.1:", wire.port())},
                                {"\nreplicas", absl::StrCat("\nsecurity = \"", GetParam(), "\"\nreplicas")}});
  }
  cluster_.WriteConfig(3, text);
  cluster_.StartAll();
  EXPECT_EQ(cluster_.Ask(3, {"status"})["security"]["mode"], GetParam());
  const auto writer = cluster_.Attach(3);
  const auto reader = cluster_.Attach(1);
  constexpr uint64_t kPages = 300;
  const auto written = MakeRegion(*writer, "r", 2 * kSegmentPages * kPageBytes, {.replicas = 3});
  std::string page;
  while (page.size() < kPageBytes) page += words + ".  ";
  page.resize(kPageBytes);
  for (uint64_t i = 0; i < kPages; ++i) {
    ASSERT_TRUE(written->Write(i * kPageBytes, std::as_bytes(std::span(page))).ok());
  }
  ASSERT_TRUE(written->Flush(0, kPages * kPageBytes).ok());
  const auto read = Take(reader->Open("r", AccessMode::kRead));
  std::string all(kPages * kPageBytes, '\0');
  ASSERT_TRUE(read->Read(0, std::as_writable_bytes(std::span(all))).ok());
  for (uint64_t i = 0; i < kPages; ++i) ASSERT_EQ(all.compare(i * kPageBytes, kPageBytes, page), 0) << i;
  const std::lock_guard lock(mutex);
  EXPECT_GT(bytes_seen, kPages * kPageBytes);
  if (GetParam() == std::string("encrypted")) {
    EXPECT_EQ(words_seen, 0u);
  } else {
    EXPECT_GT(words_seen, kPages);
  }
}

TEST_F(Trust, AStoppedNodeThatHasLeftTheViewIsCutOffAndLetInAsAnotherIncarnationAlone) {
  cluster_.StartAll();
  const auto incarnation = [&](int node) { return cluster_.PeerOf(node, "node-3")["incarnation"].get<uint64_t>(); };
  const uint64_t before = incarnation(1);
  kill(cluster_.pid(3), SIGSTOP);
  // It leaves the view, or is silent for too long, whatever comes first.
  for (const int node : {1, 2}) {
    EXPECT_TRUE(Eventually([&] {
      return cluster_.LinesOf(node, "lost node-3 (node 3 incarnation") == 1 &&
             cluster_.Ask(node, {"status"})["membership"]["missing"] == nlohmann::json{"node-3"};
    })) << cluster_.log(node);
    EXPECT_EQ(cluster_.PeerOf(node, "node-3")["connected"], false);
  }
  kill(cluster_.pid(3), SIGCONT);
  cluster_.AwaitConnected();
  EXPECT_EQ(cluster_.LinesOf(3, "the view went on without this node"), 1u);
  for (const int node : {1, 2}) EXPECT_GT(incarnation(node), before);
}

}  // namespace
}  // namespace mangrove::cluster_test
