#include "node/recover.h"

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/recover_anchors.h"
#include "node/text.h"

namespace mangrove {
namespace {

std::string NameOf(const NodeDatabase& database, NodeId node) {
  const NodeRecord* const record = database.Find(node);
  return record == nullptr ? ToString(node) : absl::StrCat(record->name, " (id ", node.value, ")");
}

std::string AnchorsText(const NodeConfig& config, const RecoveredLog& log) {
  std::vector<std::string> anchors;
  for (const auto& [node, votes] : log.votes) {
    const char* const self = node == config.self().id ? ", this node" : "";
    anchors.push_back(absl::StrCat(NameOf(log.database, node), " with ", CountText(votes, "vote"), self));
  }
  return absl::StrJoin(anchors, "; ");
}

std::string NodesText(const RecoveredLog& log) {
  std::vector<std::string> nodes;
  for (const auto& [node, record] : log.database.nodes()) {
    if (!record.is_removed) nodes.push_back(NameOf(log.database, node));
  }
  return absl::StrJoin(nodes, ", ");
}

std::string MembersText(const RecoveredLog& log) {
  std::vector<std::string> members;
  for (const auto& [node, incarnation] : log.database.view().members) members.push_back(NameOf(log.database, node));
  return members.empty() ? "nobody" : absl::StrJoin(members, ", ");
}

}  // namespace

std::string DescribeRecovery(const NodeConfig& config, const std::string& config_path, const RecoveredLog& log) {
  return absl::StrCat(
      "The anchors' log on the disk of ", config.name, ", in ", config.data_dir, ":\n", "  its end          ",
      log.Position(), "  (term.index of its last entry)\n", "  entries          ", log.entries,
      " behind the last snapshot, ", log.passed_over, " of which do not fit and are passed over\n",
      "  anchors          ", AnchorsText(config, log), "\n", "  nodes            ", NodesText(log), "\n",
      "  view             ", log.database.view().epoch.value, " with ", MembersText(log), "\n\n",
      "What would be done:\n", "  1. A new cluster key becomes the only one in ", config.key_file,
      "; the old file is kept beside it as\n     ", config.key_file,
      ".before-recovery (with a number behind it, if that is there).\n",
      "  2. The log is begun anew from this one, with ", config.name, " as the only anchor, in term ",
      log.new_term.value, " at index ", log.new_last.value, ",\n     with view ", log.new_epoch.value, ".\n\n",
      "What may be lost: whatever the other anchors have agreed on behind the end of this log. That may be nodes that\n"
      "were added or taken out, and views: a disk that fell behind in one of them is taken for current, and what was\n"
      "flushed while this node was away may be lost with it. An anchor that was cut off long ago has an old log: run\n"
      "this on every survivor, and go on with the one whose end has the highest term, or, of one term, the highest\n"
      "index. On one alone.\n\n"
      "If most of the anchors can be started again, now or later, start them instead: then nothing is lost. After\n"
      "this the other anchors must never be started with their old disks and the old key: they would be a cluster of\n"
      "their own, with the same pages.\n\n"
      "If this is what you want:\n",
      "  mangroved --config ", config_path, " --recover-anchors --confirm ", log.Position(), "\n");
}

absl::StatusOr<std::string> RecoverAnchors(const NodeConfig& config, const std::string& config_path,
                                           const std::string& confirm) {
  const absl::StatusOr<std::unique_ptr<AnchorRecovery>> recovery = AnchorRecovery::Open(config);
  if (!recovery.ok()) return recovery.status();
  const RecoveredLog& log = (*recovery)->log();
  if (confirm.empty()) return DescribeRecovery(config, config_path, log);
  const absl::StatusOr<std::string> old = (*recovery)->Run(confirm);
  if (!old.ok()) return old.status();
  return absl::StrCat("The log of ", config.name, " is begun anew at ", log.new_term.value, ".", log.new_last.value,
                      ", with ", config.name, " as the only anchor.\nThe new key is in ", config.key_file,
                      ", the old one in ", *old, ".\nCopy ", config.key_file,
                      " to every node that is to go on, start them, and give up those that are lost: "
                      "mangrove node give-up NODE\n");
}

}  // namespace mangrove
