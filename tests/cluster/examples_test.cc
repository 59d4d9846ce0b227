// The examples do what they say, the first time and again, from another node.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

class Examples : public testing::Test {
 protected:
  std::string RunExample(const std::string& name, int node) {
    const Output output = RunProgram({"examples/" + name, "--socket", cluster_.socket(node)});
    EXPECT_EQ(output.exit_code, 0) << name << ": " << output.err;
    return output.out;
  }

  Cluster cluster_;
};

// Covers: G02, G03, G04, G05, G15
TEST_F(Examples, RunOnOneNodeAndAgainOnAnother) {
  cluster_.StartAll();
  EXPECT_THAT(RunExample("attach", 1), HasSubstr("this is run 1, on any node"));
  EXPECT_THAT(RunExample("attach", 2), HasSubstr("this is run 2, on any node"));
  EXPECT_THAT(RunExample("attach", 1), HasSubstr("this is run 3, on any node"));
  for (const int node : {1, 3}) {
    EXPECT_THAT(RunExample("calls", node), HasSubstr("read back: many machines, one memory"));
    EXPECT_THAT(RunExample("locks", node), HasSubstr("the sum of all accounts is 0"));
    EXPECT_THAT(RunExample("accounts", node), HasSubstr("the sum of all accounts is 0"));
    EXPECT_THAT(RunExample("attributes", node),
                HasSubstr("page 0: persistent, 2 core holders, kept in RAM, migratory, marked \"hot\""));
    EXPECT_THAT(RunExample("events", node), HasSubstr("0 pages were reverted"));
  }
  EXPECT_THAT(RunExample("persist", 1), HasSubstr("0 entries were kept"));
  EXPECT_THAT(RunExample("persist", 2), HasSubstr("1 entries were kept"));
}

// Covers: G17
TEST_F(Examples, PersistFindsItsEntriesAfterARestart) {
  cluster_.StartAll();
  RunExample("persist", 1);
  RunExample("persist", 2);
  cluster_.KillAll();
  cluster_.StartAll();
  EXPECT_THAT(RunExample("persist", 3), HasSubstr("2 entries were kept"));
}

// Covers: G03
TEST_F(Examples, EmbedIsANodeOfItsOwn) {
  cluster_.Start(1);
  cluster_.Start(2);
  for (const char* expected : {"node-3 in this process: run 1", "node-3 in this process: run 2"}) {
    const Output output = RunProgram({"examples/embed", "--config", cluster_.config(3)});
    EXPECT_EQ(output.exit_code, 0) << output.err;
    EXPECT_THAT(output.out, HasSubstr(expected));
  }
}

TEST_F(Examples, LocksKeepTheSumWhileProgramsOnAllNodesRun) {
  cluster_.StartAll();
  RunExample("locks", 1);
  std::vector<std::unique_ptr<Child>> children;
  for (int node = 1; node <= 3; ++node) {
    children.push_back(std::make_unique<Child>([this, node](const Child::Tell&) {
      return RunProgram({"examples/locks", "--socket", cluster_.socket(node)}).exit_code;
    }));
  }
  for (const auto& child : children) EXPECT_EQ(child->AwaitEnd(), 0);
}

TEST_F(Examples, WithoutADaemonTheySaySo) {
  for (const char* name : {"attach", "calls", "locks", "accounts", "persist", "attributes", "events"}) {
    const Output output = RunProgram({std::string("examples/") + name, "--socket", cluster_.socket(1)});
    EXPECT_EQ(output.exit_code, 1) << name;
    EXPECT_THAT(output.err, HasSubstr("no daemon serves " + cluster_.socket(1))) << name;
  }
}

}  // namespace
}  // namespace mangrove::cluster_test
