#include "node/daemon_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

using testing::HasSubstr;

absl::StatusOr<DaemonOptions> Parse(const std::vector<std::string>& arguments) { return ParseDaemonOptions(arguments); }

TEST(DaemonOptions, FlagsAreRead) {
  const auto options = Parse({"--config", "c.toml", "--check-config", "--log-level=debug", "--log-file", "l",
                              "--socket", "s", "--drain-timeout", "3"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->config_path, "c.toml");
  EXPECT_TRUE(options->check_config);
  EXPECT_EQ(options->log_level, "debug");
  EXPECT_EQ(options->log_file, "l");
  EXPECT_EQ(options->socket_path, "s");
  EXPECT_EQ(options->drain_timeout_s, 3);
  EXPECT_TRUE(Parse({"--help"}).ok());
  EXPECT_TRUE(Parse({"--version"}).ok());
}

TEST(DaemonOptions, WrongUsageIsNamed) {
  EXPECT_EQ(Parse({}).status().message(), "--config FILE is missing");
  EXPECT_EQ(Parse({"c.toml"}).status().message(), "unexpected argument \"c.toml\"");
  EXPECT_EQ(Parse({"--conf", "c.toml"}).status().message(), "unknown flag --conf");
  EXPECT_EQ(Parse({"--config", "c", "--drain-timeout", "x"}).status().message(),
            "--drain-timeout is \"x\", expected a whole number of seconds from 0 to 3600");
}

class DaemonConfig : public testing::Test {
 protected:
  DaemonConfig() {
    std::string pattern = std::filesystem::temp_directory_path() / "mangrove_daemon_XXXXXX";
    directory_ = mkdtemp(pattern.data());
    options_.config_path = directory_ + "/node.toml";
    std::ofstream(options_.config_path)
        << "[node]\nname = \"a\"\ndata_dir = \"d\"\n[cluster]\nname = \"c\"\nreplicas = 1\n"
           "key_file = \""
        << directory_ << "/key\"\n[[members]]\nid = 1\nname = \"a\"\naddress = \"h:1\"\n";
    std::ofstream(directory_ + "/key") << std::string(64, '0');
    chmod((directory_ + "/key").c_str(), 0600);
  }
  ~DaemonConfig() override { std::filesystem::remove_all(directory_); }

  std::string directory_;
  DaemonOptions options_;
};

TEST_F(DaemonConfig, FlagsComeBeforeTheFile) {
  options_.log_level = "warning";
  options_.log_file = "l";
  options_.socket_path = "s";
  const auto config = ConfigOf(options_);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(LogLevelOf(config->log_level), LogLevel::kWarning);
  EXPECT_EQ(config->log_file, "l");
  EXPECT_EQ(config->socket_path, "s");
}

TEST_F(DaemonConfig, FlagsAreCheckedAsTheFileIs) {
  options_.log_level = "loud";
  EXPECT_EQ(ConfigOf(options_).status().message(),
            "with the flags given: node.log_level is \"loud\", expected one of debug, error, info, off, warning");
}

TEST_F(DaemonConfig, TheKeyIsLookedAt) {
  std::filesystem::remove(directory_ + "/key");
  EXPECT_THAT(std::string(ConfigOf(options_).status().message()), HasSubstr("cannot read the cluster's key"));
}

TEST_F(DaemonConfig, OptionsOfMountsAreLookedAt) {
  const auto with = [&](const std::string& mount_options) {
    std::filesystem::copy_file(options_.config_path, directory_ + "/mounts.toml",
                               std::filesystem::copy_options::overwrite_existing);
    DaemonOptions options = options_;
    options.config_path = directory_ + "/mounts.toml";
    std::ofstream(options.config_path, std::ios::app)
        << "[[mounts]]\nfileset = \"a\"\ndirectory = \"/a\"\n[[mounts]]\nfileset = \"b\"\ndirectory = \"/b\"\noptions "
           "= \""
        << mount_options << "\"\n";
    return std::string(ConfigOf(options).status().message());
  };
  EXPECT_EQ(with("defaults,ro,noexec,allow_other"), "");
  EXPECT_EQ(with(""), "");
  EXPECT_EQ(with("ro,quick"),
            absl::StrCat(directory_, "/mounts.toml: mounts[2].options, of fileset \"b\" at /b, is \"ro,quick\": ",
                         "unknown mount option \"quick\""));
  EXPECT_THAT(with("remount,ro"), HasSubstr("the option \"remount\" is for commands"));
  EXPECT_THAT(with("socket=/s"), HasSubstr("the option \"socket\" is for commands"));
  EXPECT_THAT(with("timeout=3"), HasSubstr("the option \"timeout\" is for commands"));
}

}  // namespace
}  // namespace mangrove
