#include "bench/directory_worker.h"

#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>

#include "bench/timing.h"
#include "engine/node.h"
#include "engine/page_engine.h"
#include "net/log.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kLookups = 200'000;
constexpr int kReadyTimeoutMs = 30'000;

PageId Segment(uint64_t n) { return kFirstReservablePage + 2 * n * kSegmentPages; }

class DirectoryProgram {
 public:
  // Without transactions, whose replay looks segments up too.
  explicit DirectoryProgram(NodeConfig config) : config_(WithoutTransactions(std::move(config))) {}

  void Start() {
    SetLogLevel(LogLevel::kError);
    auto node = Node::Start(config_);
    Must(node.status(), "starting the node");
    node_ = *std::move(node);
    for (int waited_ms = 0; !Status()["ready"].get<bool>(); ++waited_ms) {
      const bool in_time = waited_ms < kReadyTimeoutMs;
      Must(in_time ? absl::OkStatus() : absl::DeadlineExceededError("it is not ready in time"), "starting the node");
      usleep(1'000);
    }
  }

  static NodeConfig WithoutTransactions(NodeConfig config) {
    config.has_transactions = false;
    return config;
  }

  double Root() {
    return On<double>([](PageEngine* engine) -> Task<double> {
      co_return static_cast<double>(engine->ResponsibleFor(kRamDirectoryRootPage).value);
    });
  }

  void Touch(uint64_t count) {
    const absl::Status touched = On<absl::Status>([this, count](PageEngine* engine) -> Task<absl::Status> {
      for (uint64_t i = 0; i < count; ++i) {
        absl::Status located = co_await engine->Locate(Segment(i), Deadline());
        if (!located.ok()) co_return located;
        if (i % 16 == 0) co_await YieldTo(node_->loop());
      }
      co_return absl::OkStatus();
    });
    Must(touched, "touching segments");
  }

  double Lookup(uint64_t n, uint64_t node, uint64_t warmups) {
    if (warmups > 0) WarmUp(node, warmups);
    const int64_t begin = NowNs();
    const absl::Status located =
        On<absl::Status>([this, n](PageEngine* engine) { return engine->Locate(Segment(n), Deadline()); });
    const int64_t end = NowNs();
    Must(located, "looking a segment up");
    return static_cast<double>(end - begin);
  }

  double Depth(uint64_t n) {
    const auto found = On<absl::StatusOr<DirectoryTree::Found>>(
        [this, n](PageEngine* engine) { return engine->directory().Find(Segment(n), Deadline()); });
    Must(found.status(), "looking a segment up");
    if (!found->entry) Die("nobody is responsible for a segment that was touched");
    return found->depth;
  }

  double Sent() { return Status()["counters"]["messages_sent"].get<double>(); }

  double Warm(uint64_t count) {
    const auto see = [](const auto&, const auto&) { return true; };
    Must(On<absl::Status>([&](PageEngine* engine) { return engine->directory().Visit(kWholeSpace, see, Deadline()); }),
         "reading the directory");
    return On<double>([count](PageEngine* engine) -> Task<double> {
      std::mt19937_64 random(1);
      const int64_t begin = NowNs();
      for (uint64_t i = 0; i < kLookups; ++i) {
        const auto found = engine->directory().Peek(Segment(random() % count));
        if (!found || !found->entry) Die("a directory that is here is not read");
      }
      co_return static_cast<double>(NowNs() - begin) / kLookups;
    });
  }

  static double Map(uint64_t count) {
    std::map<absl::uint128, DirectoryEntry> map;
    for (uint64_t i = 0; i < count; ++i) map[Segment(i).value] = {.range = {Segment(i), kSegmentPages}, .term = 1};
    std::mt19937_64 random(1);
    const int64_t begin = NowNs();
    for (uint64_t i = 0; i < kLookups; ++i) {
      const PageId page = Segment(random() % count);
      if (!std::prev(map.upper_bound(page.value))->second.range.Contains(page)) Die("a map that is wrong");
    }
    return static_cast<double>(NowNs() - begin) / kLookups;
  }

 private:
  void WarmUp(uint64_t node, uint64_t count) {
    for (PageId page : {kSuperRootPage, kDiskDirectoryRootPage}) {
      Must(On<absl::Status>([&](PageEngine* engine) {
             return engine->Acquire({page, 1}, Rights::kRead, Deadline());
           }),
           "reading a page that the directory does not name");
    }
    for (uint64_t i = 0; i < count; ++i) {
      const auto told = On<absl::StatusOr<std::string>>(
          [this, node](PageEngine* engine) { return engine->InspectAt(NodeId(node), kSuperRootPage, Deadline()); });
      Must(told.status(), "pinging");
    }
  }

  TimeNs Deadline() { return node_->loop()->Now() + 60 * kSecond; }
  nlohmann::json Status() {
    const auto status =
        Run<absl::StatusOr<std::string>>([this] { return node_->operations()->Inspect("status", "", Deadline()); });
    Must(status.status(), "asking for the status");
    return nlohmann::json::parse(*status);
  }
  // Drives the loop until the task has ended, as a call of a program that embeds a node does.
  template <typename T, typename Make>
  T Run(Make make) {
    Completion completion;
    std::optional<T> result;
    node_->loop()->RunUntil(
        [&] {
          Spawn<T>(make(), [&](T value) {
            result.emplace(std::move(value));
            completion.Set();
          });
        },
        completion);
    return *std::move(result);
  }
  template <typename T, typename Make>
  T On(const Make& make) {
    return Run<T>([&] { return make(node_->engine()); });
  }

  const NodeConfig config_;
  std::unique_ptr<Node> node_;
};

}  // namespace

Verbs MakeDirectoryVerbs(const NodeConfig& config) {
  auto p = std::make_shared<DirectoryProgram>(config);
  return {
      {"start", [p](const Arguments&) { return p->Start(), 0; }},
      {"root", [p](const Arguments&) { return p->Root(); }},
      {"touch", [p](const Arguments& a) { return p->Touch(a[0]), 0; }},
      {"lookup", [p](const Arguments& a) { return p->Lookup(a[0], a[1], a[2]); }},
      {"depth", [p](const Arguments& a) { return p->Depth(a[0]); }},
      {"sent", [p](const Arguments&) { return p->Sent(); }},
      {"warm", [p](const Arguments& a) { return p->Warm(a[0]); }},
      {"map", [](const Arguments& a) { return DirectoryProgram::Map(a[0]); }},
  };
}

}  // namespace mangrove::bench
