// What the log of a node's transactions says, as a JSON document. Not what they wrote: that is for those who may read the pages.

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/inspect_json.h"
#include "engine/local_operations.h"
#include "engine/transactions/transactions.h"

namespace mangrove {
namespace {

using nlohmann::json;

constexpr char kConfirmed[] = " confirmed";

json PagesOf(const LogRecord& record) {
  json pages = json::array();
  for (const PageChange& change : record.pages) {
    json writes = json::array();
    for (const ByteChange& write : change.changes) {
      writes.push_back({{"offset", write.offset}, {"bytes", write.bytes.size()}});
    }
    pages.push_back({{"address", ToString(change.page)}, {"sequence", change.sequence}, {"writes", writes}});
  }
  return pages;
}

json DocumentOf(NodeId node, const std::string& name, const LogContent& content) {
  json records = json::array();
  for (const LogRecord& record : content.records) {
    records.push_back({{"transaction", record.transaction}, {"pages", PagesOf(record)}});
  }
  const LogHeader& header = content.header;
  const bool owned = header.owner.node.value != 0;
  return {{"node", node.value},
          {"name", name},
          {"incarnation", owned ? json(header.owner.incarnation.value) : json(nullptr)},
          {"generation", header.generation},
          {"ring_pages", header.ring_pages},
          {"tail", header.tail},
          {"records", records}};
}

}  // namespace

// `argument` is the node's number, or name; also of one that was removed.
absl::StatusOr<NodeId> LocalOperations::NodeOfLog(const std::string& argument) const {
  NodeId node;
  for (const auto& [member, record] : roster().nodes) {
    if (record.name == argument || std::to_string(member.value) == argument) node = member;
  }
  if (node.value == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("no node of the cluster has the number or the name \"", argument, "\""));
  }
  if (transactions_ == nullptr) return absl::UnimplementedError("the node has no transactions");
  return node;
}

Task<absl::StatusOr<std::string>> LocalOperations::InspectLog(std::string argument, TimeNs deadline) {
  const absl::StatusOr<NodeId> node = NodeOfLog(argument);
  if (!node.ok()) co_return node.status();
  const absl::StatusOr<LogContent> content = co_await transactions_->ReadLogOf(*node, deadline);
  if (!content.ok()) co_return content.status();
  co_return DumpJson(DocumentOf(*node, NameOf(*node), *content));
}

// `argument`: the node, and " confirmed" behind it if it is to be done.
Task<absl::StatusOr<std::string>> LocalOperations::GiveUpLog(std::string argument, TimeNs deadline) {
  const bool is_confirmed = absl::EndsWith(argument, kConfirmed);
  if (is_confirmed) argument.resize(argument.size() - (sizeof(kConfirmed) - 1));
  const absl::StatusOr<NodeId> node = NodeOfLog(argument);
  if (!node.ok()) co_return node.status();
  const absl::StatusOr<std::string> lost = co_await transactions_->GiveUpLog(*node, is_confirmed, deadline);
  if (!lost.ok()) co_return lost.status();
  co_return DumpJson({{"node", node->value}, {"name", NameOf(*node)}, {"lost", *lost}, {"is_given_up", is_confirmed}});
}

}  // namespace mangrove
