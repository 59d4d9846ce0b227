// Three simulated nodes, two of which have an instance of a fileset.

#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "directory/planted_bugs.h"
#include "engine/page_engine.h"
#include "fs/engine_pages.h"
#include "fs/instance.h"
#include "net/log.h"
#include "tests/sim/engine_node.h"
#include "tests/sim/files.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {

constexpr DurationNs kFilesetBound = 60 * kSecond;

inline ClusterOptions ThreeNodes() {
  ClusterOptions options;
  options.cache_pages = 256;
  options.log_pages = 64;
  options.bugs = &kNoPlantedBugs;
  return options;
}

class FilesetTest : public testing::Test {
 protected:
  struct Home {
    std::unique_ptr<fs::EnginePages> pages;
    std::unique_ptr<fs::Instance> instance;
  };

  void SetUp() override {
    SetLogLevel(LogLevel::kOff);
    world_.SetAfterEvent([this] { oracle_.AfterEvent(); });
    for (int slot = 0; slot < cluster_.nodes(); ++slot) cluster_.Start(slot);
    RunUntil([&] { return cluster_.AllReady(); });
    auto pages = PagesOn(0);
    ASSERT_TRUE(On(0, fs::Instance::Make(pages.get(), {})).ok());
    for (int slot = 0; slot < 2; ++slot) Open(slot);
  }
  void TearDown() override {
    EXPECT_FALSE(world_.failed()) << world_.failure();
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      if (cluster_.host(slot).up()) cluster_.Crash(slot);
    }
    homes_.clear();
  }

  template <typename Condition>
  void RunUntil(Condition condition) {
    const TimeNs limit = world_.now() + kFilesetBound;
    while (!world_.failed() && !condition() && world_.now() < limit) ASSERT_TRUE(world_.Step());
    ASSERT_TRUE(condition()) << world_.failure();
  }
  template <typename T>
  static Task<bool> Into(Task<T> task, std::optional<T>* result) {
    result->emplace(co_await std::move(task));
    co_return true;
  }
  // What it ends with on that node.
  template <typename T>
  T On(int slot, Task<T> task) {
    std::optional<T> result;
    cluster_.host(slot).applets.Run(Into(std::move(task), &result));
    RunUntil([&] { return result.has_value(); });
    return *std::move(result);
  }

  std::unique_ptr<fs::EnginePages> PagesOn(int slot) {
    SimHost& host = cluster_.host(slot);
    fs::EnginePagesNode node = EnginePagesNodeOf(host);
    node.allocate = [this, &host](PageRange pages, AllocateOptions, TimeNs deadline) -> Task<absl::Status> {
      if (!allocated_.insert(pages.first).second) co_return absl::AlreadyExistsError("it is allocated");
      co_return co_await host.node->AllocateAs(pages, false, deadline);
    };
    return std::make_unique<fs::EnginePages>(node, kFilesetRegion, ++clients_);
  }
  void Open(int slot) {
    Home& home = homes_[slot];
    home.pages = PagesOn(slot);
    auto instance = On(slot, fs::Instance::Open(home.pages.get()));
    ASSERT_TRUE(instance.ok()) << instance.status();
    home.instance = *std::move(instance);
    ASSERT_TRUE(On(slot, home.instance->BeginUse()).ok());
  }
  fs::Instance& At(int slot) { return *homes_[slot].instance; }

  fs::FoundFile MakeOpen(int slot, const std::string& name) {
    const auto made = On(slot, At(slot).MakeNode({}, At(slot).root(), name, S_IFREG | 0644, 0));
    EXPECT_TRUE(made.ok()) << made.status();
    EXPECT_TRUE(On(slot, At(slot).Open(made->id())).ok());
    return made->id();
  }
  // The node has these pages of the fileset, and nobody else has.
  void TakePages(int slot, fs::PageSpan span) {
    const PageRange pages{kFilesetRegion.first + span.first, span.count};
    PageEngine* const engine = cluster_.host(slot).node->engine();
    ASSERT_TRUE(On(slot, engine->Acquire(pages, Rights::kWrite, world_.now() + kSecond)).ok());
    world_.RunUntil(world_.now() + kSecond / 10);  // The other knows it, and drops what it has.
  }
  void Lose(int slot) {
    homes_.erase(slot);
    cluster_.Crash(slot);
    RunUntil([&] { return !cluster_.NewestView().members.contains(NodeId(static_cast<uint64_t>(slot) + 1)); });
  }

  SimWorld world_{20'261};
  Oracle oracle_{&world_};
  SimCluster cluster_{&world_, &oracle_, ThreeNodes(), NodeFactory(MakeEngineNode)};
  std::map<int, Home> homes_;
  std::set<PageId> allocated_;
  uint64_t clients_ = 0;
};

}  // namespace mangrove::sim
