// The claims of all members, for the directory (engine/claims.cc).

#pragma once

#include "directory/directory_tree.h"

namespace mangrove {

class PageEngine;

class MembersClaims final : public ClaimSource {
 public:
  explicit MembersClaims(PageEngine* engine) : engine_(engine) {}
  uint64_t Rounds() const override;
  uint64_t RoundsAbout(PageId page, uint64_t since) const override;
  bool IsGone(NodeId node) const override;
  Task<absl::StatusOr<Claims>> Collect(PageInterval interval, TimeNs deadline) override;

 private:
  PageEngine* const engine_;
};

}  // namespace mangrove
