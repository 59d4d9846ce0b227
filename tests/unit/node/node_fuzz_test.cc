// Whatever a daemon answers, the command line shows or refuses; whatever it is given, it takes or refuses.

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "node/commands.h"
#include "node/daemon_options.h"
#include "node/render.h"
#include "tests/fuzz.h"

namespace mangrove {
namespace {

constexpr char kFullStatus[] =
    R"({"node":{"id":1,"name":"n","incarnation":7,"address":"h:1"},"cluster":"c","ready":true,
"waiting_for":["m"],"replicas":2,"membership":{"view":4,"members":["n"],"missing":["m"],"joining":[],"behind":["m","n"],
"disks":["n"],"next_disks":["n"],"moved":[],"draining":["m"],"has_lease":true,"leader":"n","anchors":["n"],"awaited_anchors":[]},
"security":{"mode":"encrypted","keys":["0a1b"]},"peers":[{"id":2,"name":"m","address":"h:2","connected":true,"incarnation":9,
"last_error":"","key":null,"resources":{"cache_room_bytes":20,"disk_free_bytes":10,"pages_per_second":1}}],
"cache":{"used_bytes":1,"size_bytes":4},"disk":{"pages":1,"used_bytes":4,"free_bytes":3,"is_behind":true,"is_moving":false,
"done_percent":4,"pages_compared":2,"pages_copied":1,"pages_lost":0,"compared_pages_per_second":3,"copied_bytes_per_second":4,"seconds_left":5,"trouble":""},
"read_only":{"regions":["r"],"for_ms":3},"disk_room":{"is_full":false,"is_low":true,"advice":"a"},"counters":{"a":1}})";
constexpr char kNodes[] =
    R"([{"id":1,"name":"n","address":"h:1","connected":true,"incarnation":7,"last_error":"","group":0,
"votes":1,"state":"here","draining":true}])";
constexpr char kRegions[] =
    R"([{"name":"t","address":"0x1_0","size_bytes":8192,"allocated_bytes":4096,"owner":0,"group":0,"mode":416,"without_quorum":"read"}])";
constexpr char kPage[] =
    R"({"address":"0x1000","responsible":"n","core_holders":["n"],"cache_state":"S","version":"1.2",
"dirty":true,"home":{"state":"s","owner":"n","sharers":["m"]},"allocated":true,"volatile":false})";
constexpr char kDirectory[] =
    R"({"root":{"address":"0x2","level":1,"entries":2,"responsible":"n"},"pages":[1,1],"segments":5,
"runs":1,"nodes":[{"name":"n","segments":5,"runs":1}],"first_runs":[{"address":"0x1","segments":1,"responsible":"n","term":1}],
"stopped":null})";
constexpr char kLog[] = R"({"node":2,"name":"n","incarnation":7,"generation":3,"ring_pages":1023,"tail":4,"records":[
{"transaction":9,"pages":[{"address":"0x1","sequence":2,"writes":[{"offset":0,"bytes":8}]}]}]})";

fuzz::Decoder Shown(const char* name, std::vector<std::string> documents,
                    absl::StatusOr<std::string> (*render)(const std::string&)) {
  const auto take = [render](std::string_view document) {
    const auto text = render(std::string(document));
    if (!text.ok()) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kDataLoss);
      return false;
    }
    return true;
  };
  return {.name = name, .corpus = std::move(documents), .take = take, .mutations = 4'000, .interesting_bytes = 2'000};
}

TEST(NodeFuzz, EachDocumentIsShownOrNotUnderstood) {
  fuzz::RunAll(
      {Shown("status", {kFullStatus}, RenderStatus), Shown("membership", {kFullStatus}, RenderMembership),
       Shown("nodes", {kNodes}, RenderNodes), Shown("groups", {kNodes}, RenderGroups),
       Shown("token",
             {R"({"token": "mgt1.x", "valid_s": 900, "id": "0a"})", R"({"withdrawn": ["0a"]})",
              R"({"tokens": [{"id": "0a", "state": "used", "seconds_left": 3, "name": "n", "address": "h:4"}]})"},
             RenderToken),
       Shown("regions", {kRegions}, RenderRegions), Shown("page", {kPage}, RenderPage),
       Shown("directory", {kDirectory}, RenderDirectory), Shown("log", {kLog}, RenderLog)});
}

// One in each line.
std::vector<std::string> Words(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == '\n') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

TEST(NodeFuzz, EachCommandLineIsTakenOrRefused) {
  const auto is_of_daemon = [](std::string_view text) {
    const auto options = ParseDaemonOptions(Words(text));
    if (!options.ok()) {
      EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
    }
    return options.ok();
  };
  fuzz::Run({.name = "mangroved",
             .corpus = {"--config\nx\n--log-level=debug", "--config=x\n--recover-anchors\n--confirm\n3.4",
                        "--config\nx\n--drain-timeout\n5"},
             .take = is_of_daemon});
}

}  // namespace
}  // namespace mangrove
