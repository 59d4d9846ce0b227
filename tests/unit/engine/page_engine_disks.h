// What tests of disks that are behind share: nodes that come back, lists and answers that are late, and what only one disk has.

#pragma once

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/engine/page_engine_views.h"

namespace mangrove {

class DisksTest : public PageEngineViewsTest {
 protected:
  // "Soon": nobody waits for a timeout of a node that is gone.
  static constexpr DurationNs kSoon = 300 * kMillisecond;

  explicit DisksTest(int nodes, std::function<void(PageEngineOptions&)> change = {})
      : cluster_(nodes, std::move(change)) {}
  ~DisksTest() override { cluster_.lost = nullptr; }

  // --- Nodes ----------------------------------------------------------------------------------------------------------

  // Another life of it, in the place of the one before if that is still in the view.
  void Back(uint64_t node) { cluster_.Start({NodeId(node), Incarnation(++lives_)}); }
  void BackWithAnEmptyDisk(uint64_t node) { cluster_.StartWithAnEmptyDisk({NodeId(node), Incarnation(++lives_)}); }
  // In one view.
  void LeaveTogether(const std::vector<uint64_t>& nodes) {
    ViewChange change;
    for (const uint64_t node : nodes) {
      cluster_.Stop(NodeId(node));
      change.leaves.push_back(NodeId(node));
    }
    cluster_.ChangeView(std::move(change));
  }
  bool IsCurrent(uint64_t node) const {
    const View& view = cluster_.view();
    return view.members.contains(NodeId(node)) && !view.behind.contains(NodeId(node));
  }
  std::vector<NodeId> WaitsFor(uint64_t node) { return cluster_.engine(node).catch_up().waits_for; }

  // The first page of a segment that is allocated here and kept by these two.
  PageId PageOn(const std::set<uint64_t>& nodes) {
    for (PageId page = SegmentStart(kBase + 64 * kSegmentPages);; page = page + kSegmentPages) {
      std::set<uint64_t> on;
      for (const NodeId holder : cluster_.locator().CoreHolders(page, 2)) on.insert(holder.value);
      if (on != nodes || cluster_.engine(1).core_holder().Find(page) != nullptr) continue;
      CHECK(Put({page, kSegmentPages}, 1, 2).ok());
      return page;
    }
  }

  // --- Operations -----------------------------------------------------------------------------------------------------

  absl::Status WriteAndFlush(uint64_t node, PageId page, uint8_t value) {
    absl::Status status = cluster_.Write(node, page, value);
    return status.ok() ? Flush(cluster_, node, page) : status;
  }
  Pending BeginFlush(uint64_t node, PageId page, DurationNs wait = 30 * kSecond) {
    return Begin(cluster_.engine(node).Flush({page, 1}, cluster_.In(wait)));
  }
  Pending BeginPut(PageRange range, uint64_t config, DurationNs wait = 30 * kSecond) {
    return Begin(cluster_.engine(1).PutExtent(range, ConfigNumber(config), 2, false, cluster_.In(wait)));
  }
  absl::Status Put(PageRange range, uint64_t config, uint32_t replicas) {
    return cluster_.Wait(
        cluster_.engine(1).PutExtent(range, ConfigNumber(config), replicas, false, cluster_.In(5 * kSecond)));
  }
  absl::Status Drop(PageRange range, uint64_t config = 1) {
    return cluster_.Wait(cluster_.engine(1).DropExtent(range, ConfigNumber(config), 2, cluster_.In(5 * kSecond)));
  }
  void StepUntil(const std::function<bool()>& condition) {
    const TimeNs limit = cluster_.In(10 * kSecond);
    while (!condition()) ASSERT_TRUE(cluster_.Step(limit)) << "it does not come";
  }

  // --- Messages that are late ------------------------------------------------------------------------------------------

  // From now on these are kept back.
  void Hold(MessageKind kind) {
    cluster_.lost = [this, kind](const Message& m) {
      if (m.kind == kind) held_.push_back(m);
      return m.kind == kind;
    };
  }
  // Those lists that are of pages, or of extents.
  void HoldLists(bool pages) {
    cluster_.lost = [this, pages](const Message& m) {
      if (m.kind == MessageKind::kListStored && m.with_data == pages) asked_.insert(m.request.value);
      const bool is_held = m.kind == MessageKind::kStoredList && asked_.contains(m.request.value);
      if (is_held) held_.push_back(m);
      return is_held;
    };
  }
  void StepUntilHeld() {
    StepUntil([this] { return !held_.empty(); });
  }
  // The first of them arrives, and nothing is late any more.
  void Release(uint64_t to, uint64_t from) {
    cluster_.lost = nullptr;
    ASSERT_FALSE(held_.empty());
    cluster_.Inject(to, from, held_.front());
  }

  // --- Disks ----------------------------------------------------------------------------------------------------------

  // The first byte of the page's record; -1: there is none.
  int ByteOnDisk(uint64_t node, PageId page) {
    const auto& pages = cluster_.host(node).store.durable.pages;
    const auto found = pages.find(page.value);
    if (found == pages.end()) return -1;
    return found->second.data == nullptr ? 0 : static_cast<int>(found->second.data->bytes[0]);
  }
  Version VersionOnDisk(uint64_t node, PageId page) {
    return cluster_.host(node).store.durable.pages.at(page.value).version;
  }
  // Something that nobody was told of. It is there when the node starts again.
  void Plant(uint64_t node, PageId page, int value) {
    auto data = std::make_shared<PageBytes>();
    data->bytes.fill(static_cast<std::byte>(value));
    cluster_.host(node).store.durable.pages[page.value] = {.page = page,
                                                           .version = {Epoch(uint64_t{1} << 50), 1},
                                                           .config = ConfigNumber(1),
                                                           .handle = {},
                                                           .data = std::move(data)};
  }
  // The mark of a page of which no disk could read that version.
  void PlantLost(uint64_t node, PageId page, Version version) {
    cluster_.host(node).store.durable.records[LostKey(page)] = EncodeLost(page, version);
  }
  const Extent* ExtentAt(uint64_t node, PageId page) { return cluster_.engine(node).core_holder().Find(page); }

  // The others that keep it are gone, and nobody has anything in RAM.
  void LeaveOnlyTheDiskOf(uint64_t node, PageId page, uint32_t replicas = 2) {
    for (const NodeId holder : cluster_.locator().CoreHolders(page, replicas)) {
      if (holder != NodeId(node) && cluster_.view().members.contains(holder)) cluster_.Leave(holder.value);
    }
    for (const uint64_t other : cluster_.running()) Back(other);
    cluster_.RunFor(kSecond);
  }
  void ExpectFromDisk(uint64_t node, PageId page, int value, uint32_t replicas = 2) {
    LeaveOnlyTheDiskOf(node, page, replicas);
    const absl::StatusOr<int> read = cluster_.Read(cluster_.running().back(), page);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, value);
  }

  std::vector<Message> held_;
  std::set<uint64_t> asked_;
  uint64_t lives_ = 1;
  EngineCluster cluster_;
};

}  // namespace mangrove
