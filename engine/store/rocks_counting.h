// Makes RocksDB count: each table of the index says of each segment how many of its pages it refers to. Includes RocksDB's
// headers; for rocks_open.cc only.

#pragma once

#include <rocksdb/listener.h>
#include <rocksdb/table_properties.h>

#include <memory>
#include <optional>
#include <string>

#include "engine/store/live_pages.h"

namespace mangrove::store {

// Of the family of the index. Tables with deleted ranges, or with many deletions, ask for being merged, so that what was
// deleted is no longer counted.
std::shared_ptr<rocksdb::TablePropertiesCollectorFactory> MakePageCounter();

// Of the database: keeps `live` at what the tables of `family` have, from when it is opened; those that are there then are
// not counted. A table counts from before it is used until after it is not used any more.
std::shared_ptr<rocksdb::EventListener> MakeCountListener(std::string family, LivePages* live);

// What a table says; nothing, if it was written by another program.
std::optional<PagesBySegment> CountsOf(const rocksdb::TableProperties& table);

}  // namespace mangrove::store
