// An anchor's log as records of its node's store: what a RaftOutput is to make durable, and what a start finds.
//
//   anchor/state                   term, vote, standing
//   anchor/snapshot                what the entries that are gone have come to
//   anchor/entry/<20 digits>       an entry, by its place
//
// One output is one batch: the store applies it whole or not at all.

#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "recovery/raft.h"

namespace mangrove {

class AnchorRecords {
 public:
  static constexpr char kPrefix[] = "anchor/";
  struct Record {
    std::string key;
    std::optional<std::string> value;  // Empty: delete.
  };

  // `records`: all with kPrefix, in the order of their keys. Nothing: there has never been a log. DataLoss: what is there is no log.
  absl::StatusOr<std::optional<RaftDurable>> Load(const std::vector<std::pair<std::string, std::string>>& records);

  // Of a log that begins with `durable`.
  std::vector<Record> Begin(const RaftDurable& durable);
  // REQUIRES: `output` writes, and follows the one before.
  std::vector<Record> Write(const RaftOutput& output);

 private:
  LogIndex first_{1};  // Of the entries that are there.
  LogIndex last_;
};

}  // namespace mangrove
