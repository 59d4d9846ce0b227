// Claims: what nodes say that they are responsible for, of which lost pages of the directory are made anew.
//
//   C1  Who says that it is responsible itself never gives way to what others say of a third node, whatever the terms. What
//       these say is as old as the last time that they heard of the segment; since then all that was known of it may have been
//       lost, and its terms have begun at 1 again.
//   C2  Among those that say so of themselves, and where there is none, among those that say it of others, the one with the higher
//       term is right.

#pragma once

#include <cstdint>
#include <deque>

#include "absl/status/statusor.h"
#include "directory/directory_page.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

// Two of one kind in one term are possible in a round that another round of a larger interval came between; either will do, since
// nothing is written after such a round.
struct Claims {
  // Sorted, without overlap: the source has decided where claims conflict. No step moves or frees many of them at once.
  std::deque<DirectoryEntry> entries;
  DirectoryOrder order;  // The highest that anybody knows of.
};

// engine/ implements it: asks every member. A round is one question to all members about one interval; a node answers it
// once, and says by that what it claims there.
class ClaimSource {
 public:
  virtual ~ClaimSource() = default;

  // How many rounds this node has answered, its own included.
  virtual uint64_t Rounds() const = 0;
  // How many of them after the first `since` were about `page`. More than there were does no harm but delay. Without
  // knowledge of the intervals: all.
  virtual uint64_t RoundsAbout(PageId /*page*/, uint64_t since) const { return Rounds() - since; }

  // What every member, this one too, is responsible for in the interval: one round. This node's answer counts among its
  // Rounds() before the call returns. Unavailable names who does not answer.
  virtual Task<absl::StatusOr<Claims>> Collect(PageInterval interval, TimeNs deadline) = 0;

  // Whether the node, as whatever the directory may name it, has left the cluster: it is responsible for nothing any more.
  virtual bool IsGone(NodeId /*node*/) const { return false; }
};

// The rounds that a node has answered. The intervals of the last ones are known; older ones were about everything.
class ClaimRounds {
 public:
  // In the very step in which the node says what it claims.
  void Add(PageInterval interval) {
    ++rounds_;
    last_.push_back(interval);
    if (last_.size() > kKept) last_.pop_front();
  }
  uint64_t rounds() const { return rounds_; }
  uint64_t About(PageId page, uint64_t since) const {
    const uint64_t known_from = rounds_ - last_.size();
    uint64_t about = since < known_from ? known_from - since : 0;
    for (uint64_t i = since < known_from ? 0 : since - known_from; i < last_.size(); ++i) {
      about += last_[i].Contains(page) ? 1 : 0;
    }
    return about;
  }

 private:
  static constexpr size_t kKept = 256;
  uint64_t rounds_ = 0;
  std::deque<PageInterval> last_;
};

}  // namespace mangrove
