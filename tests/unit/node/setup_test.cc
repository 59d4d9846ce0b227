// The files that a node's first start finds.

#include "node/setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "engine/node_config.h"

namespace mangrove {
namespace {

using testing::HasSubstr;

class Setup : public testing::Test {
 protected:
  Setup() {
    std::string pattern = testing::TempDir() + "mangrove_setup_XXXXXX";
    options_.directory = std::string(mkdtemp(pattern.data())) + "/deep/er";
    options_.cluster = "demo";
    options_.name = "first";
    options_.address = "[::1]:7001";
  }
  ~Setup() override { std::filesystem::remove_all(std::filesystem::path(options_.directory) / "../.."); }

  SetupOptions options_;
};

TEST_F(Setup, AClustersFirstNodeIsItsAnchorAndItsFilesAreGood) {
  options_.is_encrypted = true;
  options_.replicas = 3;
  const auto said = SetUpCluster(options_);
  ASSERT_TRUE(said.ok()) << said.status();
  EXPECT_THAT(*said, HasSubstr("mangroved --config " + options_.directory + "/mangroved.toml"));
  const auto config = LoadNodeConfig(options_.directory + "/mangroved.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(ValidateNodeConfig(*config).ok());
  EXPECT_EQ(config->cluster_name, "demo");
  EXPECT_EQ(config->security, "encrypted");
  EXPECT_EQ(config->replicas, 3u);
  EXPECT_EQ(config->self().address, "[::1]:7001");
  EXPECT_EQ(VotesOf(*config), (std::map<NodeId, uint32_t>{{NodeId(1), 1}}));
  const auto keys = LoadClusterKeys(config->key_file);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->size(), 1u);
}

TEST_F(Setup, EachClusterHasAKeyOfItsOwn) {
  ASSERT_TRUE(SetUpCluster(options_).ok());
  SetupOptions other = options_;
  other.directory += "/other";
  ASSERT_TRUE(SetUpCluster(other).ok());
  EXPECT_NE(*LoadClusterKeys(options_.directory + "/cluster.key"), *LoadClusterKeys(other.directory + "/cluster.key"));
}

TEST_F(Setup, WhatIsThereIsNotWrittenOver) {
  ASSERT_TRUE(SetUpCluster(options_).ok());
  const auto keys = LoadClusterKeys(options_.directory + "/cluster.key");
  EXPECT_EQ(SetUpCluster(options_).status().code(), absl::StatusCode::kAlreadyExists);
  // Nor is a part of it, left by somebody.
  std::filesystem::remove(options_.directory + "/mangroved.toml");
  EXPECT_EQ(SetUpCluster(options_).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_FALSE(std::filesystem::exists(options_.directory + "/mangroved.toml"));
  EXPECT_EQ(*LoadClusterKeys(options_.directory + "/cluster.key"), *keys);
}

TEST_F(Setup, WhatCannotBeIsRefusedAndNothingIsMade) {
  SetupOptions bad = options_;
  bad.name.clear();
  EXPECT_THAT(SetUpCluster(bad).status().message(), HasSubstr("the node's name is \"\", expected"));
  bad = options_;
  bad.address = "nowhere";
  EXPECT_THAT(SetUpCluster(bad).status().message(), HasSubstr("the node's address is \"nowhere\", expected"));
  bad = options_;
  bad.cluster = "a b";
  EXPECT_THAT(SetUpCluster(bad).status().message(), HasSubstr("cluster.name is \"a b\""));
  EXPECT_FALSE(SetUpJoin("mgt1.rubbish", options_).ok());
  EXPECT_FALSE(std::filesystem::exists(options_.directory));
}

// Those of a run that was cut short.
TEST_F(Setup, HalfWrittenFilesAreInNobodysWay) {
  std::filesystem::create_directories(options_.directory);
  for (const char* const file : {"/cluster.key.new", "/mangroved.toml.new"}) {
    std::ofstream(options_.directory + file) << "cut sh";
  }
  ASSERT_TRUE(SetUpCluster(options_).ok());
  EXPECT_TRUE(LoadNodeConfig(options_.directory + "/mangroved.toml").ok());
  EXPECT_TRUE(LoadClusterKeys(options_.directory + "/cluster.key").ok());
  EXPECT_FALSE(std::filesystem::exists(options_.directory + "/cluster.key.new"));
}

// A path with what the file's form gives a meaning to.
TEST_F(Setup, PathsAreWrittenSoThatTheyAreReadBack) {
  options_.directory += "/a \"quoted\" \\ one";
  ASSERT_TRUE(SetUpCluster(options_).ok());
  const auto config = LoadNodeConfig(options_.directory + "/mangroved.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->data_dir, options_.directory + "/data");
}

}  // namespace
}  // namespace mangrove
