#include "engine/node_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove {
namespace {

using store_test::TemporaryDirectory;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kGood[] = R"([node]
name = "node-1"
data_dir = "var/data"

[cluster]
name = "demo"
key_file = "var/key"

[[members]]
id = 1
name = "node-1"
address = "127.0.0.1:7101"

[[members]]
id = 2
name = "node-2"
address = "127.0.0.1:7102"
)";

// The good configuration with one piece of it replaced.
std::string With(const std::string& piece, const std::string& other) {
  const std::string text = absl::StrReplaceAll(kGood, {{piece, other}});
  EXPECT_NE(text, kGood) << piece;
  return text;
}

std::string ConfigErrorOf(const std::string& text) {
  const auto config = ParseNodeConfig(text, "x.toml");
  EXPECT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(config.status().message());
}

TEST(NodeConfig, DefaultsAreThoseOfTheHeader) {
  const auto config = ParseNodeConfig(kGood, "x.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "node-1");
  EXPECT_EQ(config->data_dir, "var/data");
  EXPECT_EQ(config->socket_path, "");
  EXPECT_EQ(config->cache_size_bytes, uint64_t{256} << 20);
  EXPECT_EQ(config->fault_timeout_ms, 10'000);
  EXPECT_EQ(config->provider, "tcp");
  EXPECT_EQ(config->log_level, "info");
  EXPECT_EQ(config->disk_reserve_bytes, uint64_t{256} << 20);
  EXPECT_TRUE(config->evict_to_peers);
  EXPECT_TRUE(config->keep_headroom);
  EXPECT_EQ(config->repair_bytes_per_second, 0u);
  EXPECT_EQ(config->cluster_name, "demo");
  EXPECT_EQ(config->key_file, "var/key");
  EXPECT_EQ(config->replicas, 2u);
  ASSERT_EQ(config->members.size(), 2u);
  EXPECT_EQ(config->self().id, NodeId(1));
  EXPECT_EQ(config->members[1].name, "node-2");
  EXPECT_EQ(config->members[1].address, "127.0.0.1:7102");
}

TEST(NodeConfig, EveryKeyIsRead) {
  const auto config = ParseNodeConfig(With("data_dir = \"var/data\"\n", R"(data_dir = "d"
socket = "s"
cache_size_mib = 3
fault_timeout_ms = 1500
spin_us = 0
provider = "verbs"
log_file = "l"
log_level = "debug"
disk_reserve_mib = 0
repair_limit_mib_per_s = 12
evict_to_peers = false
keep_headroom = false
)"),
                                      "x.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->socket_path, "s");
  EXPECT_EQ(config->cache_size_bytes, uint64_t{3} << 20);
  EXPECT_EQ(config->fault_timeout_ms, 1500);
  EXPECT_EQ(config->spin_us, 0);
  EXPECT_EQ(config->provider, "verbs");
  EXPECT_EQ(config->log_file, "l");
  EXPECT_EQ(config->log_level, "debug");
  EXPECT_EQ(config->disk_reserve_bytes, 0u);
  EXPECT_EQ(config->repair_bytes_per_second, uint64_t{12} << 20);
  EXPECT_FALSE(config->evict_to_peers);
  EXPECT_FALSE(config->keep_headroom);
}

TEST(NodeConfig, ConnectionsAreAuthenticatedUnlessTheyAreToBeEncrypted) {
  EXPECT_EQ(SecurityOf(*ParseNodeConfig(kGood, "x.toml")), Security::kAuthenticated);
  const auto with = [](const std::string& mode) {
    return With("key_file", absl::StrCat("security = \"", mode, "\"\nkey_file"));
  };
  EXPECT_EQ(SecurityOf(*ParseNodeConfig(with("authenticated"), "x.toml")), Security::kAuthenticated);
  EXPECT_EQ(SecurityOf(*ParseNodeConfig(with("encrypted"), "x.toml")), Security::kEncrypted);
  EXPECT_EQ(ConfigErrorOf(with("none")),
            "x.toml:7: cluster.security is \"none\", expected \"authenticated\" or \"encrypted\"");
}

TEST(NodeConfig, AnUnknownKeyIsNamedWithItsLineAndTheKeyThatWasMeant) {
  EXPECT_EQ(ConfigErrorOf(With("data_dir", "data_dri")),
            "x.toml:3: node.data_dri is not a known key; did you mean 'data_dir'?");
  EXPECT_EQ(ConfigErrorOf(With("data_dir = \"var/data\"", "data_dir = \"d\"\ncache_size = 3")),
            "x.toml:4: node.cache_size is not a known key; did you mean 'cache_size_mib'?");
  EXPECT_EQ(ConfigErrorOf(With("key_file", "keyfile")),
            "x.toml:7: cluster.keyfile is not a known key; did you mean 'key_file'?");
  EXPECT_EQ(ConfigErrorOf(With("key_file", "colour")),
            "x.toml:7: cluster.colour is not a known key; expected one of name, key_file, security, replicas, "
            "system_replicas, found_before, lease_ms, replace_after_s, reweigh_after_s");
  EXPECT_EQ(ConfigErrorOf(With("[cluster]", "[clusters]")),
            "x.toml:5: clusters is not a known key; did you mean 'cluster'?");
  EXPECT_EQ(ConfigErrorOf(With("address = \"127.0.0.1:7102\"", "adress = \"127.0.0.1:7102\"")),
            "x.toml:17: members[2].adress is not a known key; did you mean 'address'?");
  EXPECT_EQ(ConfigErrorOf(With("key_file", "\"\\u0007\\n\"")),
            "x.toml:7: cluster.\\x07\\n is not a known key; expected one of name, key_file, security, replicas, "
            "system_replicas, found_before, lease_ms, replace_after_s, reweigh_after_s");
}

TEST(NodeConfig, TwoMembersShareNoIdNameOrAddress) {
  EXPECT_EQ(ConfigErrorOf(With("id = 2", "id = 1")),
            "x.toml:15: members[2].id is 1, as that of members[1]; expected one that no other member has");
  EXPECT_EQ(ConfigErrorOf(With("\"node-2\"", "\"node-1\"")),
            "x.toml:16: members[2].name is \"node-1\", as that of members[1]; expected one that no other member has");
  EXPECT_EQ(ConfigErrorOf(With("7102", "7101")),
            "x.toml:17: members[2].address is \"127.0.0.1:7101\", as that of members[1]; expected one that no other "
            "member has");
}

TEST(NodeConfig, AWrongTypeOrANumberOutOfBoundsIsShownWithWhatWasExpected) {
  EXPECT_EQ(ConfigErrorOf(With("\"var/data\"", "7")), "x.toml:3: node.data_dir is 7, expected a string");
  EXPECT_EQ(ConfigErrorOf(With("\"var/data\"", "[\"a\"]")), "x.toml:3: node.data_dir is an array, expected a string");
  EXPECT_EQ(ConfigErrorOf(With("id = 2", "id = \"two\"")),
            "x.toml:15: members[2].id is \"two\", expected a whole number from 1 to 1152921504606846975");
  EXPECT_EQ(ConfigErrorOf(With("data_dir", "cache_size_mib = 2.5\ndata_dir")),
            "x.toml:3: node.cache_size_mib is 2.5, expected a whole number from 1 to 16777216 MiB");
  EXPECT_EQ(ConfigErrorOf(With("data_dir", "cache_size_mib = 0\ndata_dir")),
            "x.toml:3: node.cache_size_mib is 0, expected a whole number from 1 to 16777216 MiB");
  EXPECT_EQ(ConfigErrorOf(With("data_dir", "fault_timeout_ms = -5\ndata_dir")),
            "x.toml:3: node.fault_timeout_ms is -5, expected a whole number from 1 to 3600000 ms");
  EXPECT_EQ(ConfigErrorOf(With("data_dir", "log_level = \"loud\"\ndata_dir")),
            "x.toml:3: node.log_level is \"loud\", expected one of debug, error, info, off, warning");
  EXPECT_EQ(ConfigErrorOf(absl::StrCat("node = 3\n", std::string(kGood).substr(std::string(kGood).find("[cluster]")))),
            "x.toml:1: node is 3, expected a table: [node]");
}

TEST(NodeConfig, WhatIsMissingIsNamedWithItsTable) {
  EXPECT_EQ(ConfigErrorOf(With("data_dir = \"var/data\"\n", "")), "x.toml:1: node.data_dir is missing");
  EXPECT_EQ(ConfigErrorOf(With("id = 2\n", "")), "x.toml:14: members[2].id is missing");
  EXPECT_EQ(ConfigErrorOf(""), "x.toml: node is missing; expected a table [node]");
  const std::string text(kGood);
  EXPECT_EQ(ConfigErrorOf(text.substr(0, text.find("[[members]]"))),
            "x.toml: members has 0 tables, expected 1 to 1024: a [[members]] for each node of the cluster, this one "
            "included");
}

TEST(NodeConfig, TheNodeIsAMember) {
  EXPECT_EQ(ConfigErrorOf(With("name = \"node-1\"\ndata_dir", "name = \"node-3\"\ndata_dir")),
            "x.toml:2: node.name is \"node-3\", expected one of the members: node-1, node-2");
}

// Covers: C02
TEST(NodeConfig, TheTimesOfALossHaveBoundsAndUsualValues) {
  const auto usual = ParseNodeConfig(kGood, "x.toml");
  ASSERT_TRUE(usual.ok()) << usual.status();
  EXPECT_EQ(usual->lease_ms, 1000u);
  EXPECT_EQ(usual->replace_after_s, 600u);
  EXPECT_EQ(usual->reweigh_after_s, 600u);
  const auto set = ParseNodeConfig(
      With("[cluster]", "[cluster]\nlease_ms = 2500\nreplace_after_s = 10\nreweigh_after_s = 0"), "x.toml");
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->lease_ms, 2500u);
  EXPECT_EQ(set->replace_after_s, 10u);
  EXPECT_EQ(set->reweigh_after_s, 0u);
  EXPECT_EQ(TimingOf(*set).reweigh_after, 0);
  const auto again = ParseNodeConfig(FormatNodeConfig(*set), "y.toml");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->lease_ms, 2500u);
  EXPECT_EQ(again->replace_after_s, 10u);
  EXPECT_EQ(again->reweigh_after_s, 0u);
  for (const char* value : {"999", "10001", "1.5", "\"1 s\""}) {
    EXPECT_EQ(ConfigErrorOf(With("[cluster]", absl::StrCat("[cluster]\nlease_ms = ", value))),
              absl::StrCat("x.toml:6: cluster.lease_ms is ", value, ", expected a whole number from 1000 to 10000 ms"));
  }
  EXPECT_EQ(ConfigErrorOf(With("[cluster]", "[cluster]\nreplace_after_s = 9")),
            "x.toml:6: cluster.replace_after_s is 9, expected a whole number from 10 to 2592000 s");
  NodeConfig made = *usual;
  made.lease_ms = 0;
  EXPECT_THAT(ValidateNodeConfig(made).message(), HasSubstr("cluster.lease_ms is 0 ms, expected"));
}

// Covers: C12
TEST(NodeConfig, TheClustersOwnPagesHaveAsManyCopiesAsOthersUnlessItIsSaid) {
  const auto usual = ParseNodeConfig(With("[cluster]", "[cluster]\nreplicas = 3"), "x.toml");
  ASSERT_TRUE(usual.ok()) << usual.status();
  EXPECT_EQ(SystemReplicasOf(*usual), 3u);
  const auto set = ParseNodeConfig(With("[cluster]", "[cluster]\nreplicas = 3\nsystem_replicas = 2"), "x.toml");
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->replicas, 3u);
  EXPECT_EQ(SystemReplicasOf(*set), 2u);
  const auto again = ParseNodeConfig(FormatNodeConfig(*set), "y.toml");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(SystemReplicasOf(*again), 2u);
  for (const char* value : {"0", "256", "1.5"}) {
    EXPECT_EQ(ConfigErrorOf(With("[cluster]", absl::StrCat("[cluster]\nsystem_replicas = ", value))),
              absl::StrCat("x.toml:6: cluster.system_replicas is ", value, ", expected a whole number from 1 to 255"));
  }
  const auto most = ParseNodeConfig(With("[cluster]", "[cluster]\nreplicas = 300"), "x.toml");
  ASSERT_TRUE(most.ok()) << most.status();
  EXPECT_EQ(SystemReplicasOf(*most), 255u);
}

// Covers: C06
TEST(NodeConfig, ALimitOfRepairIsAWholeNumberAndNotNothing) {
  const auto limited = [](const std::string& value) {
    return With("data_dir = \"var/data\"", absl::StrCat("data_dir = \"d\"\nrepair_limit_mib_per_s = ", value));
  };
  for (const char* value : {"0", "-1", "1048577", "1.5", "\"fast\"", "true"}) {
    EXPECT_EQ(ConfigErrorOf(limited(value)), absl::StrCat("x.toml:4: node.repair_limit_mib_per_s is ", value,
                                                          ", expected a whole number from 1 to 1048576 MiB/s"));
  }
  for (const uint64_t mib : {uint64_t{1}, uint64_t{1048576}}) {
    const auto config = ParseNodeConfig(limited(absl::StrCat(mib)), "x.toml");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->repair_bytes_per_second, mib << 20);
    const auto again = ParseNodeConfig(FormatNodeConfig(*config), "y.toml");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->repair_bytes_per_second, mib << 20);
  }
  NodeConfig made = *ParseNodeConfig(kGood, "x.toml");
  made.repair_bytes_per_second = 5000;
  EXPECT_THAT(ValidateNodeConfig(made).message(), HasSubstr("node.repair_limit_mib_per_s is 5000 bytes, expected"));
}

// There will be, when more have joined.
TEST(NodeConfig, ThereMayBeFewerMembersThanReplicas) {
  const auto config = ParseNodeConfig(With("[cluster]", "[cluster]\nreplicas = 3"), "x.toml");
  EXPECT_TRUE(config.ok()) << config.status();
}

TEST(NodeConfig, NamesPathsAndAddressesAreChecked) {
  EXPECT_THAT(ConfigErrorOf(With("\"demo\"", "\"de mo\"")),
              StartsWith("x.toml:6: cluster.name is \"de mo\", expected 1 to 63"));
  EXPECT_THAT(ConfigErrorOf(With("\"var/key\"", "\"\"")), StartsWith("x.toml:7: cluster.key_file is empty"));
  EXPECT_THAT(ConfigErrorOf(With("data_dir", absl::StrCat("socket = \"", std::string(108, 's'), "\"\ndata_dir"))),
              AllOf(StartsWith("x.toml:3: node.socket is "), HasSubstr("at most 107 bytes; this one has 108")));
  for (const char* address :
       {"127.0.0.1", "127.0.0.1:", ":7102", "127.0.0.1:0", "127.0.0.1:70000", "::1:7102", "h:+71"}) {
    EXPECT_THAT(ConfigErrorOf(With("127.0.0.1:7102", address)),
                AllOf(StartsWith("x.toml:17: members[2].address is \""), HasSubstr("expected \"host:port\"")))
        << address;
  }
  for (const char* address : {"localhost:1", "[::1]:7102", "a.example.org:65535"}) {
    const auto config = ParseNodeConfig(With("127.0.0.1:7102", address), "x.toml");
    EXPECT_TRUE(config.ok()) << config.status();
  }
}

TEST(NodeConfig, VotesAreThoseOfTheFileOrOneEachForTheFirstMembers) {
  using Votes = std::map<NodeId, uint32_t>;
  const auto votes_of = [](const std::string& text) {
    const auto config = ParseNodeConfig(text, "x.toml");
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? VotesOf(*config) : Votes();
  };
  EXPECT_EQ(votes_of(kGood), (Votes{{NodeId(1), 1}, {NodeId(2), 0}}));
  std::string four = kGood;
  for (int id : {4, 3}) {
    absl::StrAppend(&four, "[[members]]\nid = ", id, "\nname = \"n", id, "\"\naddress = \"h:", id, "\"\n");
  }
  EXPECT_EQ(votes_of(four), (Votes{{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}, {NodeId(4), 0}}));
  // One that is named is all that are named.
  EXPECT_EQ(votes_of(With("id = 2\n", "id = 2\nvotes = 3\n")), (Votes{{NodeId(1), 0}, {NodeId(2), 3}}));
  EXPECT_EQ(ConfigErrorOf(With("id = 2\n", "id = 2\nvotes = 101\n")),
            "x.toml:16: members[2].votes is 101, expected a whole number from 0 to 100");
  EXPECT_THAT(ConfigErrorOf(With("id = 2\n", "id = 2\nvotes = 0\n")),
              HasSubstr("members has 0 tables with votes above 0, expected 1 to 64"));
}

TEST(NodeConfig, FilesetsAreMountedAtDirectoriesOfTheirOwn) {
  const std::string mount = "[[mounts]]\nfileset = \"default\"\ndirectory = \"/mnt\"\n";
  const auto config = ParseNodeConfig(kGood + mount, "x.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->mounts.size(), 1u);
  EXPECT_EQ(config->mounts[0].fileset, "default");
  EXPECT_EQ(config->mounts[0].directory, "/mnt");
  const auto again = ParseNodeConfig(FormatNodeConfig(*config), "x.toml");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->mounts.size(), 1u);
  EXPECT_EQ(again->mounts[0].options, "");
  const auto with_options = ParseNodeConfig(kGood + mount + "options = \"ro,nosuid\"\n", "x.toml");
  ASSERT_TRUE(with_options.ok()) << with_options.status();
  EXPECT_EQ(ParseNodeConfig(FormatNodeConfig(*with_options), "x.toml")->mounts[0].options, "ro,nosuid");
  EXPECT_EQ(ConfigErrorOf(kGood + mount + "options = true\n"),
            "x.toml:21: mounts[1].options is true, expected a string");
  EXPECT_EQ(ConfigErrorOf(kGood + mount + mount),
            "x.toml:23: mounts[2].directory is \"/mnt\", expected one that no other mount has");
  EXPECT_EQ(ConfigErrorOf(kGood + absl::StrReplaceAll(mount, {{"/mnt", "mnt"}})),
            "x.toml:20: mounts[1].directory is \"mnt\", expected an absolute path");
  EXPECT_EQ(ConfigErrorOf(kGood + absl::StrReplaceAll(mount, {{"default", ""}})),
            "x.toml:19: mounts[1].fileset is empty, expected the name of a fileset");
  EXPECT_EQ(ConfigErrorOf(kGood + std::string("[[mounts]]\nfileset = \"default\"\n")),
            "x.toml:18: mounts[1].directory is missing");
  EXPECT_EQ(ConfigErrorOf(absl::StrCat("mounts = 3\n", kGood)),
            "x.toml:1: mounts is 3, expected a [[mounts]] for each fileset that is mounted");
}

TEST(NodeConfig, WhatIsNotTomlIsNamedWithItsLine) {
  EXPECT_THAT(ConfigErrorOf(With("name = \"demo\"", "name = demo")), StartsWith("x.toml:6: "));
  EXPECT_THAT(ConfigErrorOf(With("name = \"demo\"", "name = \"demo\"\nname = \"demo\"")), StartsWith("x.toml:7: "));
  EXPECT_THAT(ConfigErrorOf(std::string("\xff\0\x01", 3)), StartsWith("x.toml:1: "));
}

TEST(NodeConfig, ConfigurationsMadeInCodeAreCheckedToo) {
  auto config = ParseNodeConfig(kGood, "x.toml");
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(ValidateNodeConfig(*config).ok());
  config->cache_size_bytes = 5000;
  EXPECT_EQ(ValidateNodeConfig(*config).message(),
            "node.cache_size_mib is 5000 bytes, expected a whole number from 1 to 16777216 MiB");
  config->cache_size_bytes = 1 << 20;
  config->fault_timeout_ms = -1;
  EXPECT_FALSE(ValidateNodeConfig(*config).ok());
}

TEST(NodeConfigFile, ErrorsNameTheFile) {
  const TemporaryDirectory directory;
  const std::string path = directory / "node.toml";
  auto config = LoadNodeConfig(path);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(config.status().message(),
            absl::StrCat("cannot read the configuration ", path, ": No such file or directory"));
  EXPECT_EQ(LoadNodeConfig(directory.path()).status().message(),
            absl::StrCat(directory.path(), " is not a file; expected the configuration there"));
  std::ofstream(path) << kGood;
  config = LoadNodeConfig(path);
  EXPECT_TRUE(config.ok()) << config.status();
  std::ofstream(path) << "[node]\nnam = 1\n";
  EXPECT_EQ(LoadNodeConfig(path).status().message(),
            absl::StrCat(path, ":2: node.nam is not a known key; did you mean 'name'?"));
}

class ClusterKeyFile : public testing::Test {
 protected:
  void Write(const std::string& text, mode_t mode = 0600) {
    std::ofstream(path_) << text;
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
  }
  std::string Error() { return std::string(LoadClusterKeys(path_).status().message()); }

  const TemporaryDirectory directory_;
  const std::string path_ = directory_ / "key";
  const std::string digits_ = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
};

TEST_F(ClusterKeyFile, DigitsAreBytesAndSpaceBetweenThemIsSkipped) {
  for (const std::string& text : {digits_, digits_ + "\n", " " + digits_.substr(0, 32) + "\n " + digits_.substr(32)}) {
    Write(text);
    const auto keys = LoadClusterKeys(path_);
    ASSERT_TRUE(keys.ok()) << keys.status();
    ASSERT_EQ(keys->size(), 1u);
    for (size_t i = 0; i < kClusterKeyBytes; ++i) EXPECT_EQ(keys->front()[i], static_cast<std::byte>(i));
  }
}

TEST_F(ClusterKeyFile, SeveralKeysStandInTheirOrder) {
  const std::string second(64, 'b');
  for (const std::string& text :
       {digits_ + "\n" + second, "\n" + digits_.substr(0, 32) + "\n" + digits_.substr(32) + "\n\n" + second + "\n"}) {
    Write(text);
    const auto keys = LoadClusterKeys(path_);
    ASSERT_TRUE(keys.ok()) << keys.status();
    ASSERT_EQ(keys->size(), 2u);
    EXPECT_EQ((*keys)[0][1], std::byte{1});
    EXPECT_EQ((*keys)[1][1], std::byte{0xbb});
  }
  // A digit that is missing does not shift what follows.
  Write(digits_.substr(1) + "\n" + second + "0\n");
  EXPECT_THAT(Error(), HasSubstr("has more digits in the line of key 1"));
  Write(digits_ + "\n" + second.substr(1));
  EXPECT_THAT(Error(), HasSubstr("has 63 digits in key 2"));
  std::string many;
  for (int i = 0; i < 9; ++i) many += digits_ + "\n";
  Write(many);
  EXPECT_THAT(Error(), HasSubstr("has more than 8 keys"));
}

TEST_F(ClusterKeyFile, OthersMayNotReadIt) {
  Write(digits_, 0640);
  EXPECT_EQ(LoadClusterKeys(path_).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Error(), absl::StrCat("the cluster's key ", path_,
                                  " has mode 0640, so others can use it; expected 0600 or "
                                  "0400: run chmod 600 ",
                                  path_));
  Write(digits_, 0400);
  EXPECT_TRUE(LoadClusterKeys(path_).ok());
}

TEST_F(ClusterKeyFile, WhatIsWrongIsSaidAndNothingOfItShown) {
  const std::string expected =
      "; expected keys of 64 hexadecimal digits, each on lines of its own, as from: od -An -v -tx1 -N32 /dev/urandom";
  EXPECT_THAT(Error(), StartsWith("cannot read the cluster's key "));
  Write("");
  EXPECT_EQ(Error(), absl::StrCat("the cluster's key ", path_, " has 0 digits", expected));
  Write(digits_ + "00");
  EXPECT_EQ(Error(), absl::StrCat("the cluster's key ", path_, " has more digits in the line of key 1", expected));
  Write("secret" + digits_);
  EXPECT_EQ(Error(),
            absl::StrCat("the cluster's key ", path_, " has something else than a digit as its byte 1", expected));
  Write(std::string(5000, '0'));
  EXPECT_THAT(Error(), HasSubstr("has 5000 bytes; expected at most 4096"));
}

}  // namespace
}  // namespace mangrove
