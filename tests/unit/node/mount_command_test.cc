#include "node/mount_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class MountHelperTest : public testing::Test {
 protected:
  int Run(const std::vector<std::string>& arguments) {
    err_.str("");
    asked_.clear();
    const auto inspect = [this](const AttachOptions& options, const std::string& what, const std::string& argument) {
      socket_ = options.socket_path;
      timeout_ms_ = options.limits.call_timeout_ms;
      asked_ = what;
      argument_ = nlohmann::json::parse(argument);
      return answer_;
    };
    return RunMountHelper(arguments, {inspect, nullptr, out_, err_, [] { return false; }});
  }

  absl::StatusOr<std::string> answer_ = std::string(R"({"mounts": []})");
  std::string asked_;
  std::string socket_;
  int64_t timeout_ms_ = 0;
  nlohmann::json argument_;
  std::ostringstream out_;
  std::ostringstream err_;
};

// Covers: F02
TEST_F(MountHelperTest, AsksTheDaemonForTheMountAndSaysNothing) {
  EXPECT_EQ(
      Run({"home", "/home", "-s", "-v", "-o", "rw,_netdev,nofail,socket=/a.sock,timeout=3", "-t", "fuse.mangrove"}), 0);
  EXPECT_EQ(asked_, "fs mount");
  EXPECT_EQ(socket_, "/a.sock");
  EXPECT_EQ(timeout_ms_, 3'000);
  EXPECT_EQ(argument_["fileset"], "home");
  EXPECT_EQ(argument_["directory"], "/home");
  EXPECT_EQ(argument_["options"], (std::vector<std::string>{"rw", "suid", "dev"}));
  EXPECT_THAT(out_.str(), IsEmpty());
  EXPECT_EQ(Run({"home", "/home", "-o", "ro,nosuid,nodev"}), 0);
  EXPECT_EQ(argument_["options"], (std::vector<std::string>{"ro", "nosuid", "nodev"}));
}

// Covers: F02
TEST_F(MountHelperTest, EndsWithTheCodesOfMount) {
  EXPECT_EQ(Run({"home", "/home", "-f"}), 0);
  EXPECT_THAT(asked_, IsEmpty());
  EXPECT_EQ(Run({"home"}), 1);
  EXPECT_EQ(Run({"home", "/home", "-o"}), 1);
  EXPECT_EQ(Run({"home", "/home", "-x"}), 1);
  EXPECT_EQ(Run({"home", "/home", "-o", "ro,unknown"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("unknown mount option \"unknown\""));
  answer_ = absl::NotFoundError("there is no fileset \"home\"");
  EXPECT_EQ(Run({"home", "/home"}), 32);
  EXPECT_THAT(err_.str(), HasSubstr("there is no fileset \"home\""));
}

TEST(MountOptions, WhatIsForOthersIsPassedOver) {
  const auto words =
      ParseMountOptions("defaults,_netdev,x-systemd.automount,comment=mine,user,ro,noexec,config=/c.toml");
  ASSERT_TRUE(words.ok()) << words.status();
  EXPECT_THAT(words->options, ElementsAre("ro", "noexec"));
  EXPECT_EQ(words->config, "/c.toml");
  EXPECT_FALSE(words->remounts);
  EXPECT_TRUE(ParseMountOptions("remount,ro")->remounts);
  EXPECT_TRUE(ParseMountOptions("")->options.empty());
}

}  // namespace
}  // namespace mangrove
