// Damage to what a closed store has in RocksDB.

#pragma once

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/store/page_entry.h"

namespace mangrove::store_test {

// Writes through RocksDB itself, as no store would.
class Vandal {
 public:
  explicit Vandal(const std::string& path) {
    std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
    for (const char* name : {"default", "pages", "records"}) descriptors.push_back({name, {}});
    rocksdb::DB* raw = nullptr;
    const auto status = rocksdb::DB::Open({}, path, descriptors, &families_, &raw);
    EXPECT_TRUE(status.ok()) << status.ToString();
    db_.reset(raw);
  }
  ~Vandal() {
    for (auto* family : families_) db_->DestroyColumnFamilyHandle(family);
  }
  std::string Get(int family, const std::string& key) {
    std::string value;
    EXPECT_TRUE(db_->Get({}, families_[family], key, &value).ok());
    return value;
  }
  void Put(int family, const std::string& key, const std::string& value) {
    EXPECT_TRUE(db_->Put({}, families_[family], key, value).ok());
  }
  void Delete(int family, const std::string& key) { EXPECT_TRUE(db_->Delete({}, families_[family], key).ok()); }

 private:
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
};

inline std::string KeyOf(PageId page) { return std::string(store::View(store::EncodePageKey(page))); }

}  // namespace mangrove::store_test
