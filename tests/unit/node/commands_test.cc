#include "node/commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node/render.h"

namespace mangrove {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr char kStatus[] = R"({
  "node": {"id": 1, "name": "node-1", "incarnation": 7, "address": "127.0.0.1:7101"},
  "cluster": "demo", "ready": true, "waiting_for": [], "replicas": 2, "read_only": null,
  "membership": {"view": 4, "members": ["node-1", "node-2"], "missing": ["node-3"], "joining": [], "behind": ["node-3"],
    "disks": ["node-1", "node-2", "node-3"],
    "next_disks": [], "moved": [], "draining": [], "has_lease": true,
    "lease_left_ms": 700, "leader": "node-1", "anchors": ["node-1", "node-2", "node-3"], "awaited_anchors": [],
    "anchor": null},
  "security": {"mode": "authenticated", "keys": ["0a1b2c3d", "4e5f6071"]},
  "peers": [
    {"id": 2, "name": "node-2", "address": "127.0.0.1:7102", "connected": true, "incarnation": 9, "last_error": "", "key": "4e5f6071",
     "resources": {"cache_room_bytes": 2097152, "disk_free_bytes": 1073741824, "pages_per_second": 12}},
    {"id": 3, "name": "node-3", "address": "127.0.0.1:7103", "connected": false, "incarnation": 0, "last_error": "refused", "key": null,
     "resources": null}],
  "cache": {"used_bytes": 1048576, "size_bytes": 4194304},
  "disk": {"pages": 1, "used_bytes": 4096, "free_bytes": 3221225472, "is_behind": false, "is_moving": false},
  "disk_room": null,
  "counters": {"read_requests": 12, "pages_given": 3}})";

// A command line with a daemon that answers everything with `answer`.
class CommandLine : public testing::Test {
 protected:
  int Run(const std::vector<std::string>& arguments) {
    out_.str("");
    err_.str("");
    const auto inspect = [this](const AttachOptions& options, const std::string& what, const std::string& argument) {
      asked_ = options.socket_path + " " + what + " " + argument;
      timeout_ms_ = options.limits.call_timeout_ms;
      return answer_;
    };
    const auto look_again = [this] { return --looks_ > 0; };
    return RunCommand(arguments, {inspect, environment_socket_, out_, err_, look_again, "--clear--\n"});
  }

  absl::StatusOr<std::string> answer_ = std::string(kStatus);
  const char* environment_socket_ = nullptr;
  std::string asked_;
  int64_t timeout_ms_ = 0;
  int looks_ = 0;  // Of a watch.
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(CommandLine, TheSocketIsThatOfTheFlagThenTheEnvironmentThenTheDefault) {
  EXPECT_EQ(Run({"status"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock status ");
  environment_socket_ = "e.sock";
  EXPECT_EQ(Run({"status"}), kExitDone);
  EXPECT_EQ(asked_, "e.sock status ");
  EXPECT_EQ(Run({"--socket", "f.sock", "status"}), kExitDone);
  EXPECT_EQ(asked_, "f.sock status ");
  EXPECT_EQ(Run({"status", "--socket=g.sock", "--timeout", "0.5"}), kExitDone);
  EXPECT_EQ(asked_, "g.sock status ");
  EXPECT_EQ(timeout_ms_, 500);
}

TEST_F(CommandLine, StreamsNeedNoSocketAndMayBeGivenOne) {
  EXPECT_EQ(Run({"--socket", "f.sock", "stream", "list", "/nowhere"}), kExitFailed);
  EXPECT_THAT(err_.str(), testing::HasSubstr("/nowhere"));
  EXPECT_EQ(Run({"--copies", "2", "stream", "list", "/nowhere"}), kExitUsage);
  EXPECT_THAT(err_.str(), testing::HasSubstr("--copies is not for \"stream\""));
  EXPECT_EQ(asked_, "");
}

TEST_F(CommandLine, StatusSaysTheEssentialFirst) {
  EXPECT_EQ(Run({"status"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "node-3 is MISSING; 2 nodes are here; view 4, led by node-1\n"
            "REPAIR: what is flushed has a copy less where it would be on node-3: start it before another one fails\n"
            "node-1 is ready, connected to 1 of 2 peers\n"
            "cluster      demo\n"
            "node         id 1, incarnation 7, at 127.0.0.1:7101\n"
            "connections  authenticated, with key 0a1b2c3d, or 4e5f6071\n"
            "cache        1.0 MiB of 4.0 MiB, 25 %\n"
            "disk         1 page, 4.0 KiB used, 3.0 GiB free\n"
            "\n"
            "peer    id  address         connected  key       incarnation  cache room  disk free  pages/s  last error\n"
            "node-2   2  127.0.0.1:7102  yes        4e5f6071            9     2.0 MiB    1.0 GiB       12\n"
            "node-3   3  127.0.0.1:7103  no                             -           -          -        -  refused\n"
            "\n"
            "since its start\n"
            "pages given     3\n"
            "read requests  12\n");
  const auto first_lines = [this](const std::string& membership, const std::string& read_only = "null",
                                  const std::string& disk_room = "null") {
    answer_ = absl::StrCat(
        R"({"node": {"id": 1, "name": "a", "incarnation": 7, "address": "h:1"}, "cluster": "c",
      "ready": false, "waiting_for": ["b", "c"], "replicas": 2, "read_only": )",
        read_only, R"(, "membership": {)", membership,
        // Where nothing else is said, pages do not move.
        absl::StrContains(membership, "next_disks") ? "" : R"(, "next_disks": [], "moved": [], "draining": [])",
        absl::StrContains(membership, "joining") ? "" : R"(, "joining": [], "disks": ["a", "b"])",
        R"(}, "security": {"mode": "encrypted", "keys": []}, "peers": [], "cache": {"used_bytes": 0, "size_bytes": 0},
      "disk": {"pages": 0, "used_bytes": 0, "free_bytes": 0, "is_behind": false, "is_moving": false}, "disk_room": )",
        disk_room, R"(, "counters": {}})");
    EXPECT_EQ(Run({"status"}), kExitDone) << err_.str();
    return out_.str();
  };
  EXPECT_THAT(
      first_lines(R"("view": 2, "members": ["a", "b"], "missing": [], "behind": [], "has_lease": true, "leader": null,
                             "anchors": ["a"], "awaited_anchors": [])"),
      StartsWith("all 2 nodes are here; view 2, led by nobody just now\n"
                 "a is not ready, alone in its cluster; waiting for b, c\n"));
  EXPECT_THAT(first_lines(R"("view": 3, "members": ["a", "b"], "missing": [], "behind": ["b"], "has_lease": true,
                             "leader": "a", "anchors": ["a"], "awaited_anchors": [])"),
              StartsWith("all 2 nodes are here; view 3, led by a\n"
                         "REPAIR: the disk of b catches up with what it has missed\n"));
  EXPECT_THAT(first_lines(R"("view": 3, "members": ["a"], "missing": ["b"], "behind": ["b", "c"], "has_lease": true,
                             "leader": "a", "anchors": ["a"], "awaited_anchors": [], "joining": [],
                             "disks": ["a", "b", "c"])"),
              AllOf(HasSubstr("PAGES WAIT: the disks of b, c are away or behind, no fewer than a page has copies"),
                    HasSubstr("REPAIR: what is flushed has a copy less where it would be on b")));
  EXPECT_THAT(first_lines(R"("view": 3, "members": ["a"], "missing": ["b"], "behind": ["b", "c"], "has_lease": true,
                             "leader": "a", "anchors": ["a"], "awaited_anchors": [], "joining": [],
                             "disks": ["a", "b", "c"], "lost": ["c"])"),
              AllOf(HasSubstr("PAGES WAIT: the disks of b are away or behind, with those that are given up, no fewer"),
                    HasSubstr("REPAIR: what is flushed has a copy less where it would be on b: start it")));
  EXPECT_THAT(first_lines(R"("view": 3, "members": ["a", "b"], "missing": [], "behind": ["c"], "has_lease": true,
                             "leader": "a", "anchors": ["a"], "awaited_anchors": [], "joining": [],
                             "disks": ["a", "b", "c"], "lost": ["c"], "next_disks": ["a", "b"], "moved": ["b"],
                             "draining": [])"),
              AllOf(HasSubstr("REPAIR: pages move, so that they are kept by a, b: 1 of 2 have theirs\n"),
                    StartsWith("all 2 nodes are here; given up: c; view 3, led by a\n"), Not(HasSubstr("start it")),
                    Not(HasSubstr("PAGES WAIT"))));
  EXPECT_THAT(first_lines(R"("view": 3, "members": ["a", "b"], "missing": [], "behind": [], "has_lease": true,
                             "leader": "a", "anchors": ["a"], "awaited_anchors": [],
                             "next_disks": ["a", "c"], "moved": ["c"], "draining": ["b"])"),
              StartsWith("all 2 nodes are here; view 3, led by a\n"
                         "REPAIR: pages move, so that they are kept by a, c: 1 of 2 have theirs; b may go then\n"));
  EXPECT_THAT(
      first_lines(R"("view": 2, "members": ["a", "b"], "missing": [], "behind": [], "has_lease": false, "leader": null,
                             "anchors": ["a", "b", "c"], "awaited_anchors": [])"),
      StartsWith("NO QUORUM as far as this node knows: it reaches no majority of the anchors a, b, c"));
  EXPECT_THAT(
      first_lines(R"("view": 2, "members": ["a", "b"], "missing": [], "behind": [], "has_lease": false, "leader": null,
                             "anchors": ["a", "b", "c"], "awaited_anchors": [])",
                  R"({"regions": ["r", "s"], "for_ms": 12345})"),
      HasSubstr(
          "network\nREADING ONLY: of regions r, s this node serves what it has, and no stores; it may be 12 s old, "
          "as others may have newer pages\n"));
  EXPECT_THAT(
      first_lines(R"("view": 2, "members": ["a", "b"], "missing": [], "behind": [], "has_lease": true, "leader": null,
                             "anchors": ["a"], "awaited_anchors": [])",
                  "null", R"({"is_full": false, "is_low": true, "advice": "add disks"})"),
      StartsWith("all 2 nodes are here; view 2, led by nobody just now\n"
                 "DISK LOW: add disks\n"));
  EXPECT_THAT(
      first_lines(R"("view": 0, "members": [], "missing": ["a", "b"], "behind": [], "has_lease": false, "leader": null,
                             "anchors": ["a", "b"], "awaited_anchors": ["b"])"),
      StartsWith("THE CLUSTER STARTS: its anchors have to be there once, all of them, and b did not answer"));
  EXPECT_THAT(first_lines(R"("view": 2, "members": ["a"], "missing": [], "behind": [], "has_lease": true, "leader": "a",
                             "anchors": ["a"], "awaited_anchors": [], "joining": ["b"], "disks": ["a"])"),
              StartsWith("1 node is here; b may join: start its daemon; view 2, led by a\n"
                         "TOO FEW NODES: pages are to be on 2 disks, and 1 node keeps pages: "
                         "`mangrove node token` lets another one join\n"));
}

TEST_F(CommandLine, StatusSaysHowFastADiskGetsWhatItLacksAndUntilWhen) {
  const auto line = [this](const std::string& disk) {
    std::string status = kStatus;
    const std::string idle = R"("is_behind": false, "is_moving": false)";
    answer_ = status.replace(status.find(idle), idle.size(),
                             absl::StrCat(disk, R"(, "done_percent": 40, "pages_compared": 9, "pages_copied": 8,
                               "pages_lost": 0)"));
    EXPECT_EQ(Run({"status"}), kExitDone) << err_.str();
    const std::string text = out_.str();
    const size_t begin = text.find("this node's disk");
    return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
  };
  EXPECT_EQ(line(R"("is_behind": false, "is_moving": false, "trouble": "")"), "");
  EXPECT_EQ(line(R"("is_behind": true, "is_moving": false, "trouble": "")"),
            "this node's disk catches up: 40 %, at a rate that is unknown yet, time left: unknown; let it run");
  EXPECT_EQ(
      line(R"("is_behind": true, "is_moving": true, "trouble": "", "compared_pages_per_second": 1200,
                    "copied_bytes_per_second": 3145728, "seconds_left": 119)"),
      "this node's disk catches up: 40 %, 1200 pages/s compared, 3.0 MiB/s copied, time left: about 119 s; let it "
      "run");
  EXPECT_EQ(
      line(R"("is_behind": false, "is_moving": true, "trouble": "no room", "compared_pages_per_second": 1,
                    "copied_bytes_per_second": 0, "seconds_left": 7500)"),
      "this node's disk gets the pages that it is to keep: 40 %, 1 page/s compared, 0 B/s copied, time left: about "
      "2 h 5 min; it tries again: no room");
  EXPECT_THAT(line(R"("is_behind": true, "is_moving": false, "trouble": "", "limit_bytes_per_second": 20971520,
                       "is_held_by_limit": true)"),
              HasSubstr("unknown yet, held at 20.0 MiB/s by repair_limit_mib_per_s, time left"));
  EXPECT_THAT(line(R"("is_behind": true, "is_moving": false, "trouble": "", "limit_bytes_per_second": 20971520,
                       "is_held_by_limit": false)"),
              HasSubstr("unknown yet, with at most 20.0 MiB/s by repair_limit_mib_per_s, time left"));
  EXPECT_THAT(line(R"("is_behind": false, "is_moving": true, "trouble": "", "seconds_left": 120)"),
              HasSubstr("time left: about 2 min;"));
  EXPECT_EQ(Run({"node", "drain", "node-2"}), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("\nthis node's disk gets the pages that it is to keep: 40 %"));
}

TEST_F(CommandLine, AWatchAsksAgainUntilItIsOverAlsoWhenNobodyAnswers) {
  answer_ = R"({"a":1})";
  looks_ = 3;
  EXPECT_EQ(Run({"status", "--json", "--watch"}), kExitDone);
  EXPECT_EQ(out_.str(), "--clear--\n{\"a\":1}\n--clear--\n{\"a\":1}\n--clear--\n{\"a\":1}\n");
  answer_ = absl::UnavailableError("nobody is here");
  looks_ = 2;
  EXPECT_EQ(Run({"status", "--watch"}), kExitFailed);
  EXPECT_EQ(out_.str(), "--clear--\n--clear--\n");
  EXPECT_THAT(err_.str(), HasSubstr("nobody is here"));
  EXPECT_EQ(looks_, 0);
}

TEST_F(CommandLine, JsonIsTheDocumentItself) {
  answer_ = R"({"a":1})";
  EXPECT_EQ(Run({"status", "--json"}), kExitDone);
  EXPECT_EQ(out_.str(), "{\"a\":1}\n");
}

TEST_F(CommandLine, NodesRegionsAndPagesAreTables) {
  answer_ = R"([{"id": 1, "name": "node-1", "address": "h:1", "connected": true, "incarnation": 7, "last_error": "",
                 "group": 0, "votes": 1, "state": "here", "draining": false},
                {"id": 70, "name": "n2", "address": "h:2", "connected": false, "incarnation": 0, "last_error": "x",
                 "group": 1, "votes": 0, "state": "missing", "draining": true}])";
  EXPECT_EQ(Run({"node", "list"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock nodes ");
  EXPECT_EQ(out_.str(),
            "1 of 2 nodes connected\n\n"
            "node    id  group  address  state              votes  connected  incarnation\n"
            "node-1   1      0  h:1      here                   1  yes                  7\n"
            "n2      70      1  h:2      missing, draining      0  no                   -\n");
  EXPECT_EQ(Run({"group", "list"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "group  nodes  anchors  names\n"
            "    0      1        1  node-1\n"
            "    1      1        0  n2\n");
  answer_ = R"([{"name": "t", "address": "0x1_0", "size_bytes": 8192, "allocated_bytes": 4096, "owner": 0, "group": 0,
                 "mode": 416, "without_quorum": "read"}])";
  EXPECT_EQ(Run({"region", "list"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "1 region, 8.0 KiB reserved, 4.0 KiB allocated\n\n"
            "region  address     size  allocated  owner  group  mode       without quorum\n"
            "t       0x1_0    8.0 KiB    4.0 KiB  root   root   rw-r-----  read\n");
  answer_ = "[]";
  EXPECT_EQ(Run({"region", "list"}), kExitDone);
  EXPECT_EQ(out_.str(), "no regions\n");
  answer_ = R"({"address": "0x1_0", "responsible": "a", "core_holders": ["a", "b"], "cache_state": "shared",
                "version": "1.4", "dirty": true, "home": {"state": "shared", "owner": null, "sharers": ["a", "b"]},
                "allocated": true, "volatile": false})";
  EXPECT_EQ(Run({"page", "show", "0x1000"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock page 0x1000");
  EXPECT_EQ(out_.str(),
            "page 0x1_0 is persistent\n\n"
            "responsible node      a\n"
            "core holders          a, b\n"
            "state there           shared\n"
            "owner                 none\n"
            "sharers               a, b\n"
            "in this node's cache  shared, dirty\n"
            "version here          1.4\n");
}

// Covers: G06
TEST_F(CommandLine, TheDirectoryIsShownWholeOrFromTheRootToAnAddress) {
  answer_ = R"({"root": {"address": "0x0_2", "level": 1, "entries": 2, "responsible": "a"}, "pages": [2, 1],
                "segments": 1027, "runs": 3, "nodes": [{"name": "a", "segments": 1025, "runs": 2},
                {"name": "b", "segments": 2, "runs": 1}],
                "first_runs": [{"address": "0x1_0", "segments": 1024, "responsible": "a", "term": 1},
                {"address": "0x2_0", "segments": 2, "responsible": "b", "term": 4}], "stopped": null})";
  EXPECT_EQ(Run({"directory", "show"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock directory ");
  const std::string shown =
      "root     page 0x0_2 of a, level 1, entries 2\n"
      "level 1  1 page\n"
      "level 0  2 pages\n"
      "\n"
      "node  segments  runs\n"
      "a         1025     2\n"
      "b            2     1\n"
      "\n"
      "from   segments  responsible  term\n"
      "0x1_0      1024  a               1\n"
      "0x2_0         2  b               4\n"
      "... 1 more\n";
  EXPECT_EQ(out_.str(), "1027 segments, 2.0 GiB, in 3 runs\n" + shown);
  const size_t null = answer_->rfind("null");
  answer_->replace(null, 4, R"({"address": "0x3_0", "why": "node 3 does not answer"})");
  EXPECT_EQ(Run({"directory", "show"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "1027 segments, 2.0 GiB, in 3 runs\ncounted up to 0x3_0 only: node 3 does not answer\n" + shown);

  answer_ = R"({"address": "0x1_5", "fixed": null, "gap": null,
                "run": {"address": "0x1_0", "segments": 2, "responsible": "b", "term": 4},
                "path": [{"address": "0x0_2", "level": 1, "first": "0x0_0", "end": null, "entries": 2,
                          "responsible": "a", "right": null},
                         {"address": "0x8_1", "level": 0, "first": "0x0_0", "end": "0x9_0", "entries": 63,
                          "responsible": "b", "right": "0x8_2"}]})";
  EXPECT_EQ(Run({"directory", "show", "0x10000000000000005"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock directory 0x10000000000000005");
  const std::string path =
      "\n"
      "from the root to the leaf\n"
      "1  page     0x0_2\n"
      "   of       a\n"
      "   from     0x0_0\n"
      "   to       the end of the space\n"
      "   entries  2\n"
      "   right    none\n"
      "0  page     0x8_1\n"
      "   of       b\n"
      "   from     0x0_0\n"
      "   to       0x9_0\n"
      "   entries  63\n"
      "   right    0x8_2\n";
  EXPECT_EQ(out_.str(),
            "b is responsible for 0x1_5\n"
            "run from  0x1_0\n"
            "length    2 segments, 4.0 MiB\n"
            "term      4\n" +
                path);
}

TEST_F(CommandLine, AnAddressThatNobodyIsResponsibleForIsShownWithItsGap) {
  answer_ = R"({"address": "0x1_5", "fixed": null, "run": null, "gap": {"first": "0x1_0", "end": null}, "path": []})";
  EXPECT_EQ(Run({"directory", "show", "0x1005"}), kExitDone);
  EXPECT_THAT(out_.str(), StartsWith("nobody is responsible for 0x1_5 yet\n"
                                     "nobody from  0x1_0\n"
                                     "to           the end of the space\n"));
  answer_ = R"({"address": "0x0_1000", "fixed": "a", "run": null, "gap": {"first": "0x0_0", "end": "0x1_0"},
                "path": []})";
  EXPECT_EQ(Run({"directory", "show", "0x1000"}), kExitDone);
  EXPECT_THAT(out_.str(), StartsWith("a is responsible for 0x0_1000, by its address, without the directory\n"));
  answer_ = R"({"address": "0x1_0", "responsible": null, "core_holders": [], "cache_state": "invalid",
                "version": "0.0", "dirty": false, "home": null, "allocated": false, "volatile": false})";
  EXPECT_EQ(Run({"page", "show", "0x1000"}), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("responsible node      none yet\n"));
}

TEST_F(CommandLine, WithoutADaemonItSaysSoAndFails) {
  answer_ = absl::UnavailableError("nobody serves x.sock");
  EXPECT_EQ(Run({"--socket", "x.sock", "status"}), kExitFailed);
  EXPECT_EQ(
      err_.str(),
      "mangrove: nobody serves x.sock\n"
      "mangrove: --socket or MANGROVE_SOCKET name the socket of a running mangroved; its configuration says where "
      "it is\n");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(CommandLine, NothingIsNoConfirmation) {
  EXPECT_EQ(Run({"node", "give-up", "b", "--confirm", ""}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--confirm is empty"));
}

TEST_F(CommandLine, WhatADaemonSaysOfOthersIsNotTakenForItsAbsence) {
  answer_ = absl::UnavailableError("the anchors have not taken it up yet");
  EXPECT_EQ(Run({"--socket", "x.sock", "node", "drain", "b"}), kExitFailed);
  EXPECT_EQ(err_.str(), "mangrove: the anchors have not taken it up yet\n");
}

TEST_F(CommandLine, AnAnswerThatIsNotUnderstoodIsAnError) {
  for (const char* answer : {"", "{", "[]", "{}", R"({"node": 3})", R"([{"name": 1}])", "null"}) {
    answer_ = std::string(answer);
    EXPECT_EQ(Run({"status"}), kExitFailed) << answer;
    EXPECT_THAT(err_.str(), HasSubstr("is not understood")) << answer;
    EXPECT_EQ(out_.str(), "");
  }
}

// Covers: G15
TEST_F(CommandLine, LogShowsThePagesOfEachTransaction) {
  const absl::StatusOr<std::string> text = RenderLog(
      R"({"name": "node-2", "node": 2, "incarnation": 7, "generation": 3, "ring_pages": 1023, "tail": 0, "records": [
          {"transaction": 41, "pages": [{"address": "0x1000", "sequence": 5, "writes": [{"offset": 0, "bytes": 8},
                                                                                        {"offset": 16, "bytes": 4}]},
                                        {"address": "0x2000", "sequence": 1, "writes": [{"offset": 0, "bytes": 8}]}]}]})");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text,
            "1 transaction in the log of node-2, incarnation 7\n\n"
            "TRANSACTION  PAGE    SEQUENCE  BYTES\n"
            "         41  0x1000         5     12\n"
            "         41  0x2000         1      8\n");
  EXPECT_THAT(*RenderLog(R"({"name": "node-2", "incarnation": null, "records": []})"), HasSubstr("has been given up"));
  EXPECT_EQ(RenderLog("{}").status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(CommandLine, WrongUsageIsNamed) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{}, "no command is given"},
      {{"stat"}, "unknown command \"stat\""},
      {{"node"}, "unknown command \"node\""},
      {{"node", "lst"}, "unknown command \"node lst\""},
      {{"status", "now"}, "unexpected argument \"now\""},
      {{"page", "show"}, "\"page show\" needs ADDRESS"},
      {{"page", "show", "zero"}, "zero"},
      {{"directory", "show", "zero"}, "zero"},
      {{"directory", "show", "0x1000", "0x2000"}, "unexpected argument \"0x2000\""},
      {{"status", "--jsn"}, "unknown flag --jsn"},
      {{"status", "--json=1"}, "--json takes no value"},
      {{"status", "--socket"}, "--socket needs a value"},
      {{"status", "--json", "--json"}, "--json is given twice"},
      {{"status", "--timeout", "-1"}, "--timeout is \"-1\", expected a number of seconds up to 3600"},
  };
  for (const auto& [arguments, message] : cases) {
    asked_ = "";
    EXPECT_EQ(Run(arguments), kExitUsage) << message;
    EXPECT_THAT(err_.str(), HasSubstr(message));
    EXPECT_THAT(err_.str(), HasSubstr("; see mangrove --help\n"));
    EXPECT_EQ(asked_, "");
  }
}

TEST_F(CommandLine, EveryCommandHasHelp) {
  EXPECT_EQ(Run({"--help"}), kExitDone);
  for (const char* command :
       {"status", "node list", "region list", "page show ADDRESS", "directory show [ADDRESS]", "log show NODE"}) {
    EXPECT_THAT(out_.str(), HasSubstr(std::string("mangrove [--socket PATH] ") + command + " [--json] [--watch]\n"));
  }
  EXPECT_EQ(Run({"page", "show", "--help"}), kExitDone);
  EXPECT_THAT(out_.str(), StartsWith("usage: mangrove [--socket PATH] page show ADDRESS [--json] [--watch]\n"));
  EXPECT_EQ(Run({"--version"}), kExitDone);
  EXPECT_THAT(out_.str(), StartsWith("mangrove "));
}

// --- Nodes that join, and change --------------------------------------------------------------------------------------

TEST_F(CommandLine, ANodeIsSetByItsNameAndWhatChanges) {
  EXPECT_EQ(Run({"node", "set", "node-2", "--votes", "3"}), kExitDone);
  EXPECT_EQ(asked_, R"(/run/mangrove/mangroved.sock set {"node":"node-2","votes":3})");
  EXPECT_EQ(Run({"node", "set", "node-2", "--address", "h:7"}), kExitDone);
  EXPECT_EQ(asked_, R"(/run/mangrove/mangroved.sock set {"address":"h:7","node":"node-2"})");
  EXPECT_EQ(Run({"node", "set", "node-2", "--votes", "101"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--votes is \"101\", expected a whole number from 0 to 100"));
}

// Covers: C07
TEST_F(CommandLine, ARegionIsSetByItsName) {
  answer_ = "[]";
  EXPECT_EQ(Run({"region", "set", "r", "--without-quorum", "read"}), kExitDone);
  EXPECT_EQ(asked_, R"(/run/mangrove/mangroved.sock set region {"region":"r","without_quorum":"read"})");
  EXPECT_EQ(Run({"region", "set", "r"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("\"region set\" needs --without-quorum"));
}

// Covers: G13
TEST_F(CommandLine, DisksThatKeepLessForTheirSizeAreShown) {
  const auto status_with = [this](const std::string& places) {
    nlohmann::json status = nlohmann::json::parse(kStatus);
    status["membership"].merge_patch(nlohmann::json::parse(places));
    answer_ = status.dump();
    EXPECT_EQ(Run({"status"}), kExitDone) << err_.str();
    return out_.str();
  };
  EXPECT_THAT(status_with("{}"), testing::Not(HasSubstr("disk weights")));
  EXPECT_THAT(status_with(R"({"weights": {}, "next_weights": {}})"), testing::Not(HasSubstr("disk weights")));
  EXPECT_THAT(status_with(R"({"weights": {"node-3": 4}, "next_weights": {}})"),
              HasSubstr("disk weights  node-3 4, others 16\n"));
  EXPECT_THAT(status_with(R"({"weights": {}, "next_weights": {"node-2": 8}, "next_disks": ["node-1", "node-2"]})"),
              HasSubstr("disk weights  all 16; when pages have moved: node-2 8, others 16\n"));
  EXPECT_THAT(status_with(R"({"weights": {"node-2": 8}, "next_weights": {}, "next_disks": ["node-1", "node-2"]})"),
              HasSubstr("disk weights  node-2 8, others 16; when pages have moved: all 16\n"));
  answer_ = R"([{"id": 1, "name": "a", "group": 0, "state": "here", "disk_weight": 3},
                {"id": 2, "name": "b", "group": 0, "state": "here", "disk_weight": 16},
                {"id": 3, "name": "c", "group": 0, "state": "here", "disk_weight": 0}])";
  EXPECT_EQ(Run({"group", "show"}), kExitDone);
  EXPECT_EQ(out_.str(), "group 0: 3 nodes, 3 here: a (1, disk weight 3), b (2), c (3)\n");
}

// Covers: C01
TEST_F(CommandLine, GroupsWithinGroupsAreShownAsATree) {
  answer_ =
      R"([{"id": 1, "name": "a", "group": 0, "state": "here"}, {"id": 8512, "name": "b", "group": 133, "state": "here"},
                {"id": 8513, "name": "c", "group": 133, "state": "missing"}, {"id": 8576, "name": "d", "group": 134, "state": "here"}])";
  EXPECT_EQ(Run({"group", "show"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "group 0: 1 node, 1 here\n"
            "  group 0/0: 1 node, 1 here: a (1)\n"
            "group 2: 3 nodes, 2 here\n"
            "  group 2/5: 2 nodes, 1 here: b (8512), c (8513)\n"
            "  group 2/6: 1 node, 1 here: d (8576)\n");
}

TEST_F(CommandLine, AFlagOfAnotherCommandIsRefused) {
  EXPECT_EQ(Run({"node", "drain", "node-2", "--votes", "3"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--votes is not for \"node drain\""));
  EXPECT_EQ(Run({"node", "set", "node-2", "--encrypted"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--encrypted is not for \"node set\""));
}

TEST_F(CommandLine, ATokenIsShownWithWhatToDoWithIt) {
  answer_ = R"({"token": "mgt1.abc", "valid_s": 900, "id": "0a1b2c3d"})";
  EXPECT_EQ(Run({"node", "token"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock token 900");
  EXPECT_THAT(out_.str(), StartsWith("mgt1.abc\n\ngood once, for 15 min, while this node runs"));
  EXPECT_EQ(Run({"node", "token", "--valid", "60"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock token 60");
  EXPECT_EQ(Run({"node", "token", "--valid", "0"}), kExitUsage);
  answer_ = R"({"tokens": [{"id": "0a1b2c3d", "state": "used", "seconds_left": 30, "name": "n4", "address": "h:4"}]})";
  EXPECT_EQ(Run({"node", "token", "--list"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock token list");
  EXPECT_EQ(out_.str(), "token     state  time left  node  address\n0a1b2c3d  used        30 s  n4    h:4\n");
  answer_ = R"({"withdrawn": ["0a1b2c3d"]})";
  EXPECT_EQ(Run({"node", "token", "--withdraw", "0a1b2c3d"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock token withdraw 0a1b2c3d");
  EXPECT_EQ(out_.str(), "withdrawn: 0a1b2c3d\n");
  EXPECT_EQ(Run({"node", "token", "--withdraw", "all", "--list"}), kExitUsage);
}

TEST_F(CommandLine, ALogIsGivenUpWhenItsNodeIsNamedTwice) {
  answer_ = R"({"node": 3, "name": "n3", "lost": "page 7 is lost", "is_given_up": false})";
  EXPECT_EQ(Run({"log", "give-up", "n3"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock give up log n3");
  EXPECT_THAT(out_.str(), HasSubstr("by any disk that counts: page 7 is lost\n\nWhat may be lost: transactions that"));
  EXPECT_THAT(out_.str(), HasSubstr("\n  mangrove log give-up n3 --confirm n3\n"));
  EXPECT_EQ(Run({"log", "give-up", "n3", "--confirm", "n4"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--confirm is \"n4\", expected \"n3\""));
  answer_ = R"({"node": 3, "name": "n3", "lost": "page 7 is lost", "is_given_up": true})";
  EXPECT_EQ(Run({"log", "give-up", "n3", "--confirm", "n3"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock give up log n3 confirmed");
  EXPECT_THAT(out_.str(), HasSubstr("is given up: page 7 is lost\n"));
}

// --- Filesets and mounts ----------------------------------------------------------------------------------------------

TEST_F(CommandLine, AMountNamesItsFilesetAndAnAbsoluteDirectory) {
  answer_ = R"({"mounts": [{"fileset": "default", "directory": "/mnt/x"}]})";
  EXPECT_EQ(Run({"mount", "default", "/mnt/./x/"}), kExitDone);
  EXPECT_EQ(asked_, R"(/run/mangrove/mangroved.sock fs mount {"directory":"/mnt/x","fileset":"default","options":[]})");
  EXPECT_EQ(out_.str(), "fileset  directory\ndefault  /mnt/x\n");
  EXPECT_EQ(Run({"mount", "-o", "ro,noexec", "default", "/mnt/x"}), kExitDone);
  EXPECT_THAT(asked_, HasSubstr(R"("options":["ro","noexec"])"));
  EXPECT_EQ(Run({"mount", "-o", "loop", "default", "/mnt/x"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("unknown mount option \"loop\""));
  EXPECT_EQ(Run({"mount", "default"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("\"mount\" needs DIR"));
  EXPECT_EQ(Run({"mount", "default", "/a", "/b"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("unexpected argument \"/b\""));
  EXPECT_EQ(Run({"unmount", "/mnt/x"}), kExitDone);
  EXPECT_EQ(asked_, R"(/run/mangrove/mangroved.sock fs unmount {"directory":"/mnt/x","force":false})");
  EXPECT_EQ(Run({"unmount", "--force", "/mnt/x"}), kExitDone);
  EXPECT_EQ(asked_, R"(/run/mangrove/mangroved.sock fs unmount {"directory":"/mnt/x","force":true})");
  answer_ = R"({"mounts": []})";
  EXPECT_EQ(Run({"mounts"}), kExitDone);
  EXPECT_EQ(out_.str(), "this node has mounted nothing\n");
}

TEST_F(CommandLine, FilesetsAreListedWithTheirStates) {
  answer_ = R"({"filesets": [{"name": "default", "state": "online", "replicas": 0},
                             {"name": "projects", "state": "offline", "replicas": 3}]})";
  EXPECT_EQ(Run({"fileset", "list"}), kExitDone);
  EXPECT_EQ(asked_, "/run/mangrove/mangroved.sock fs fileset list ");
  EXPECT_EQ(out_.str(),
            "fileset   state      copies\n"
            "default   online   as pages\n"
            "projects  offline         3\n");
  EXPECT_EQ(Run({"fileset", "create", "projects", "--replicas", "3"}), kExitDone);
  EXPECT_EQ(asked_, R"(/run/mangrove/mangroved.sock fs fileset create {"name":"projects","replicas":3})");
  EXPECT_EQ(Run({"fileset", "set", "projects", "--quota-bytes", "10G", "--quota-inodes", "none", "--copies", "2"}),
            kExitDone);
  EXPECT_EQ(asked_,
            "/run/mangrove/mangroved.sock fs fileset set "
            R"({"copies":2,"name":"projects","quota_bytes":10737418240,"quota_inodes":0})");
  EXPECT_EQ(Run({"fileset", "set", "projects"}), kExitUsage);
  for (const char* size : {"", "G", "1X", "-1", "4095", "2048P"}) {
    EXPECT_EQ(Run({"fileset", "set", "projects", "--quota-bytes", size}), kExitUsage) << size;
  }
  EXPECT_EQ(Run({"fileset", "set", "projects", "--quota-inodes", "1K"}), kExitUsage);
  EXPECT_EQ(Run({"fileset", "delete"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("\"fileset delete\" needs NAME"));
}

}  // namespace
}  // namespace mangrove
