// The key that takes the place of the others when most anchors are lost for ever, and what is no disk to recover from.
// Covers: C15

#include "engine/recover_anchors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove {
namespace {

using store_test::TemporaryDirectory;
using testing::HasSubstr;

class RecoverAnchorsTest : public testing::Test {
 protected:
  RecoverAnchorsTest() : key_(directory_.path() + "/key") {
    WriteKeys(absl::StrCat(Old(), "\n", std::string(64, '1'), "\n"));
  }

  static std::string Old() { return std::string(64, '0'); }
  void WriteKeys(const std::string& text) {
    std::ofstream(key_) << text;
    chmod(key_.c_str(), 0600);
  }
  static std::string TextOf(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static mode_t ModeOf(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }
  NodeConfig Config() const {
    NodeConfig config;
    config.name = "a";
    config.data_dir = directory_.path();
    config.cluster_name = "c";
    config.key_file = key_;
    config.replicas = 1;
    config.members = {{.id = NodeId(1), .name = "a", .address = "h:1"}};
    return config;
  }

  TemporaryDirectory directory_;
  const std::string key_;
};

TEST_F(RecoverAnchorsTest, TheNewKeyIsTheOnlyOneAndTheOldFileIsKept) {
  const std::string before = TextOf(key_);
  const auto old = ReplaceClusterKeys(key_);
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_EQ(*old, key_ + ".before-recovery");
  EXPECT_EQ(TextOf(*old), before);
  EXPECT_EQ(ModeOf(*old), 0600u);
  EXPECT_EQ(ModeOf(key_), 0600u);
  const auto before_keys = LoadClusterKeys(*old);
  const auto keys = LoadClusterKeys(key_);
  ASSERT_TRUE(keys.ok() && before_keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 1u);
  for (const ClusterKey& other : *before_keys) EXPECT_NE(keys->front(), other);
  EXPECT_FALSE(std::filesystem::exists(key_ + ".new"));
}

TEST_F(RecoverAnchorsTest, ARunThatIsRepeatedKeepsTheFirstOldFile) {
  const std::string before = TextOf(key_);
  ASSERT_TRUE(ReplaceClusterKeys(key_).ok());
  const std::string first = TextOf(key_);
  std::ofstream(key_ + ".new") << "cut sh";  // Of a run that was killed.
  const auto old = ReplaceClusterKeys(key_);
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_EQ(*old, key_ + ".before-recovery-2");
  EXPECT_EQ(TextOf(*old), first);
  EXPECT_EQ(TextOf(key_ + ".before-recovery"), before);
  EXPECT_NE(TextOf(key_), first);
  EXPECT_TRUE(LoadClusterKeys(key_).ok());
}

TEST_F(RecoverAnchorsTest, AKeyFileThatCannotBeReplacedIsNamed) {
  const auto old = ReplaceClusterKeys(directory_.path() + "/nowhere/key");
  EXPECT_EQ(old.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(old.status().message(), HasSubstr("/nowhere/key"));
}

TEST_F(RecoverAnchorsTest, WhereThereIsNoStoreNoneIsMade) {
  const auto recovery = AnchorRecovery::Open(Config());
  ASSERT_EQ(recovery.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(recovery.status().message(), HasSubstr(directory_.path() + "/store"));
  EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/store"));
}

TEST_F(RecoverAnchorsTest, AStoreWithoutALogIsRefused) {
  std::filesystem::create_directory(directory_.path() + "/store");
  const auto recovery = AnchorRecovery::Open(Config());
  ASSERT_EQ(recovery.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(recovery.status().message(), HasSubstr("there is no anchors' log on this disk"));
}

}  // namespace
}  // namespace mangrove
