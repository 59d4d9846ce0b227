// Pages that were dirty when they left this node, and that it has not flushed since: what became of them.
//
// Whoever gets such a page has its content, and a flush finds it there. It may be lost with that node: then nobody owns the page, the
// disks have an older version, and nothing is left to flush. A flush must not take that for success.
//
//   W1  The responsible node tells each member to which version a page went back, before anybody gets it in that version: all members
//       where it knows that an owner was lost, otherwise those that have said, when they registered, that they have given pages of
//       the segment away. It waits for each answer. So what is not known to be lost here is in the page, or can be found out still.
//   W2  What is lost is said by the next flush of the page that ends well, and by those that had begun by then; not by later ones, since
//       what is read and written from then on is newer. Flushes that no program asked for say nothing, and leave it to the next.
//   W3  When so many are known, of further ones only that there were some: from then on each page that goes back counts as lost. A node
//       says where the segments of those that are known were, if the directory is lost (engine/claims.cc); of the others it does not.

#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "directory/address.h"
#include "directory/version.h"
#include "net/ids.h"

namespace mangrove {

// Whether a flush says what was lost (W2), or leaves that to one of the program that wrote it.
enum class SayLost : bool { kNo, kYes };

class GivenAway {
 public:
  // `noted`: a page is known to have been given away, and is not any more.
  explicit GivenAway(absl::AnyInvocable<void(PageId, bool)> noted, size_t most = size_t{1} << 18)
      : noted_(std::move(noted)), most_(most) {}

  // Another node is given the page, of which the disks may lack `version`, the newest.
  void Add(PageId page, ConfigNumber config, const Version& version);
  // A flush by this node has put the page on the disks in `version`, or in a newer one.
  void Flushed(PageId page, ConfigNumber config, const Version& version);
  // W1: nothing newer than `version` was found of it. What was written under grants of `epoch`, or later ones, came after that.
  void WentBack(PageId page, ConfigNumber config, const Version& version, Epoch epoch);

  // A flush, from its begin on: what of the range had been given away then, and how often losses had been said.
  struct Part {
    PageId page;
    ConfigNumber config;
    Version version;
  };
  struct UnderWay {
    PageRange range;
    std::vector<Part> parts;
    uint64_t said = 0;
  };
  UnderWay BeginFlush(PageRange range);
  // It has ended. After OK what it began with is on the disks, but for what DataLoss names the first page of (W2).
  absl::Status EndFlush(const UnderWay& flush, const absl::Status& status, SayLost say = SayLost::kYes);

  bool AnyOf(PageRange range) const { return forgetful_ || !PartsOf(range).empty(); }
  size_t size() const { return pages_.size(); }

 private:
  struct Left {
    ConfigNumber config;
    Version version;
  };
  std::vector<Part> PartsOf(PageRange range) const;

  void Forget(absl::flat_hash_map<PageId, Left>::iterator it);

  absl::AnyInvocable<void(PageId, bool)> noted_;
  const size_t most_;
  absl::flat_hash_map<PageId, Left> pages_;
  std::map<PageId, uint64_t>
      lost_;  // The number of the saying, while other flushes are under way; 0: it was not said yet.
  uint64_t said_ = 0;
  size_t under_way_ = 0;
  bool forgetful_ = false;  // W3
};

}  // namespace mangrove
