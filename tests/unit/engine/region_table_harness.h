// A table of regions over pages in memory, and its operations as plain calls.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/region_table.h"
#include "net/check.h"
#include "tests/unit/engine/region_table_fake.h"

namespace mangrove {

constexpr TimeNs kLater = kForever;

inline const Credentials kRoot{.uid = 0, .gid = 0};
inline const Credentials kAlice{.uid = 1001, .gid = 101, .groups = {200}};
inline const Credentials kBob{.uid = 1002, .gid = 102, .groups = {}};

class RegionTableTest : public ::testing::Test {
 protected:
  RegionTableTest() { Restart(); }

  // Nothing is remembered but what is in the pages.
  void Restart() {
    table_ =
        std::make_unique<RegionTable>(&pages_, RegionTableOptions{.members = [] { return 3u; }, .default_replicas = 2});
  }

  template <typename T>
  T Run(Task<T> task) {
    std::optional<T> result;
    Spawn<T>(std::move(task), [&result](T value) { result.emplace(std::move(value)); });
    clock_.RunAll();
    CHECK(result.has_value());
    return *std::move(result);
  }

  absl::StatusOr<OpenedRegion> Reserve(const std::string& name, uint64_t pages = 1024, const Credentials& who = kAlice,
                                       uint16_t mode = 0600) {
    RegionOptions options;
    options.name = name;
    options.size_bytes = pages * kPageBytes;
    options.mode = mode;
    return Run(table_->Reserve(who, options, kLater));
  }
  absl::StatusOr<OpenedRegion> Open(const std::string& name, const Credentials& who = kAlice,
                                    AccessMode mode = AccessMode::kRead) {
    return Run(table_->Open(who, name, mode, kLater));
  }
  absl::Status Free(const std::string& name, const Credentials& who = kAlice) {
    return Run(table_->Free(who, name, kLater));
  }
  absl::Status Allocate(PageRange range, const AllocateOptions& options = {}, const Credentials& who = kAlice) {
    return Run(table_->Allocate(who, range, options, kLater));
  }
  absl::Status Unallocate(PageRange range, const Credentials& who = kAlice) {
    return Run(table_->Unallocate(who, range, kLater));
  }
  absl::Status Check(PageRange range) { return Run(table_->CheckAllocated(range, kLater)); }
  absl::StatusOr<PageAttributes> Attributes(PageId page) { return Run(table_->GetAttributes(page, kLater)); }
  absl::Status Change(PageRange range, const PageAttributesChange& change, const Credentials& who = kAlice) {
    return Run(table_->SetAttributes(who, range, change, kLater));
  }
  RegionList List() {
    auto list = Run(table_->List(kLater));
    EXPECT_TRUE(list.ok()) << list.status();
    return *list;
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const RegionInfo& info : List().regions) names.push_back(info.name);
    return names;
  }
  RegionDescriptor Slot(uint32_t slot) {
    auto region = DecodeRegionDescriptor(slot, pages_.ram[RegionSlotPage(slot).value]);
    EXPECT_TRUE(region.ok()) << region.status();
    return *region;
  }
  RegionTableHeader Header() {
    auto header = DecodeRegionHeader(pages_.ram[kRegionHeaderPage.value]);
    EXPECT_TRUE(header.ok()) << header.status();
    return *header;
  }
  // Makes the region "r" of 64 pages.
  PageId ReserveSmall() {
    const auto region = Reserve("r", 64);
    EXPECT_TRUE(region.ok()) << region.status();
    return region->pages.first;
  }
  static void ExpectError(const absl::Status& status, absl::StatusCode code, const std::string& text) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(text));
  }
  static PageAttributesChange KeepInRam() { return {.keep_in_ram = true}; }

  FakeTableClock clock_;
  FakeTablePages pages_{&clock_};
  std::unique_ptr<RegionTable> table_;
};

}  // namespace mangrove
