#include "engine/store/rocks_counting.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/store/little_endian.h"
#include "engine/store/page_entry.h"

namespace mangrove::store {
namespace {

// Pairs of segment and count, 8 bytes each, little endian.
constexpr const char* kProperty = "mangrove.segments";
constexpr size_t kPairBytes = 16;

class PageCounter final : public rocksdb::TablePropertiesCollector {
 public:
  rocksdb::Status AddUserKey(const rocksdb::Slice&, const rocksdb::Slice& value, rocksdb::EntryType type,
                             rocksdb::SequenceNumber, uint64_t) override {
    ++entries_;
    if (type == rocksdb::kEntryPut) ++pages_[SegmentOf({value.data(), value.size()})];
    if (type == rocksdb::kEntryRangeDeletion) has_deleted_ranges_ = true;
    if (type == rocksdb::kEntryDelete) ++deletions_;
    return rocksdb::Status::OK();
  }
  rocksdb::Status Finish(rocksdb::UserCollectedProperties* properties) override {
    std::string value(pages_.size() * kPairBytes, '\0');
    char* out = value.data();
    for (const auto& [segment, count] : pages_) {
      PutLittleEndian<uint64_t>(segment, out);
      PutLittleEndian<uint64_t>(count, out + sizeof(uint64_t));
      out += kPairBytes;
    }
    properties->emplace(kProperty, std::move(value));
    return rocksdb::Status::OK();
  }
  rocksdb::UserCollectedProperties GetReadableProperties() const override { return {}; }
  const char* Name() const override { return "mangrove.PageCounter"; }
  bool NeedCompact() const override { return has_deleted_ranges_ || deletions_ * 4 > entries_; }

 private:
  PagesBySegment pages_;
  uint64_t entries_ = 0;
  uint64_t deletions_ = 0;
  bool has_deleted_ranges_ = false;
};

class PageCounterFactory final : public rocksdb::TablePropertiesCollectorFactory {
 public:
  rocksdb::TablePropertiesCollector* CreateTablePropertiesCollector(Context) override { return new PageCounter(); }
  const char* Name() const override { return "mangrove.PageCounterFactory"; }
};

class CountListener final : public rocksdb::EventListener {
 public:
  CountListener(std::string family, LivePages* live) : family_(std::move(family)), live_(live) {}

  // Before the table is used.
  void OnTableFileCreated(const rocksdb::TableFileCreationInfo& table) override {
    if (table.cf_name != family_ || !table.status.ok()) return;
    if (const auto counts = CountsOf(table.table_properties)) {
      live_->Add(*counts);
    } else {
      live_->SetUnknown();  // What the table refers to must not be given away.
    }
  }
  void OnFlushCompleted(rocksdb::DB*, const rocksdb::FlushJobInfo&) override { Tell(); }
  void OnCompactionCompleted(rocksdb::DB*, const rocksdb::CompactionJobInfo& job) override {
    if (job.cf_name == family_ && job.status.ok()) {
      for (const std::string& input : job.input_files) {
        const auto table = job.table_properties.find(input);
        // One that is moved to another level as it is comes out again.
        const bool stays = std::count(job.output_files.begin(), job.output_files.end(), input) > 0;
        if (stays || table == job.table_properties.end()) continue;
        if (const auto counts = CountsOf(*table->second)) live_->Remove(*counts);
      }
    }
    Tell();
  }

 private:
  void Tell() const {
    if (live_->on_change) live_->on_change();
  }

  const std::string family_;
  LivePages* const live_;
};

}  // namespace

std::shared_ptr<rocksdb::TablePropertiesCollectorFactory> MakePageCounter() {
  return std::make_shared<PageCounterFactory>();
}

std::shared_ptr<rocksdb::EventListener> MakeCountListener(std::string family, LivePages* live) {
  return std::make_shared<CountListener>(std::move(family), live);
}

std::optional<PagesBySegment> CountsOf(const rocksdb::TableProperties& table) {
  PagesBySegment pages;
  const auto property = table.user_collected_properties.find(kProperty);
  if (property == table.user_collected_properties.end()) return std::nullopt;
  const std::string& value = property->second;
  for (size_t at = 0; at + kPairBytes <= value.size(); at += kPairBytes) {
    pages[GetLittleEndian<uint64_t>(value.data() + at)] =
        GetLittleEndian<uint64_t>(value.data() + at + sizeof(uint64_t));
  }
  return pages;
}

}  // namespace mangrove::store
