#include "bench/floors/memory_floor.h"

#include <rocksdb/db.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "bench/floors/bare_fabric.h"
#include "bench/node_worker.h"
#include "bench/worker.h"

namespace mangrove::bench {
namespace {

struct BareNode {
  BareFabric fabric{0};
  std::unique_ptr<rocksdb::DB> database;
};

Verbs MakeVerbs(const std::string& directory) {
  auto node = std::make_shared<BareNode>();
  return {{"listen",
           [node, directory](const Arguments&) {
             rocksdb::Options options;
             options.create_if_missing = true;
             rocksdb::DB* database = nullptr;
             const rocksdb::Status status = rocksdb::DB::Open(options, directory, &database);
             if (!status.ok()) Die(status.ToString());
             node->database.reset(database);
             return node->fabric.Listen();
           }},
          {"accept", [node](const Arguments&) { return node->fabric.Accept(), 0; }},
          {"connect", [node](const Arguments& a) { return node->fabric.Connect(static_cast<uint16_t>(a[0])), 0; }},
          {"resident", [](const Arguments&) { return ResidentMib(0); }}};
}

}  // namespace

double MemoryFloorMib(const std::string& directory, size_t peers) {
  double resident = 0;
  {
    Worker node("bare node", -1, [&] { return MakeVerbs(directory); });
    const auto port = static_cast<uint64_t>(node.Call("listen"));
    std::vector<std::unique_ptr<Worker>> others;
    for (size_t i = 0; i < peers; ++i) {
      others.push_back(std::make_unique<Worker>("bare peer", -1, [&] { return MakeVerbs(directory); }));
      node.Begin("accept");
      others.back()->Call("connect", port);
      node.End();
    }
    resident = node.Call("resident");
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return resident;
}

}  // namespace mangrove::bench
