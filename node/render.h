// What the daemon says of its node (NodeOperations::Inspect), for people. The first line says the essential.
//
// Pure. Each takes the JSON document of its name; DataLoss if it is not of the form that docs/OPERATIONS.md describes.

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace mangrove {

absl::StatusOr<std::string> RenderStatus(const std::string& document);
// Of a status, who is there and what happens to the disks.
absl::StatusOr<std::string> RenderMembership(const std::string& document);
// What would be lost with a node that is to be given up; or, when that is done, the former.
absl::StatusOr<std::string> RenderGiveUpNode(const std::string& document);
// Why a document is the answer to something that was not done; empty: that was done.
std::string RefusalOf(const std::string& document);
absl::StatusOr<std::string> RenderNodes(const std::string& document);
absl::StatusOr<std::string> RenderGroups(const std::string& document);  // Of the nodes, and this too.
absl::StatusOr<std::string> RenderGroupTree(const std::string& document);
absl::StatusOr<std::string> RenderToken(const std::string& document);
absl::StatusOr<std::string> RenderRegions(const std::string& document);
absl::StatusOr<std::string> RenderPage(const std::string& document);
// Of the whole directory, or of what it says about an address.
absl::StatusOr<std::string> RenderDirectory(const std::string& document);
// Of a node's transactions.
absl::StatusOr<std::string> RenderLog(const std::string& document);
absl::StatusOr<std::string> RenderFilesets(const std::string& document);
absl::StatusOr<std::string> RenderCheck(const std::string& document);
absl::StatusOr<std::string> RenderMounts(const std::string& document);
// What of it is lost, and whether it was given up.
absl::StatusOr<std::string> RenderGiveUpLog(const std::string& document);

}  // namespace mangrove
