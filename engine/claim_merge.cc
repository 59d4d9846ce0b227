#include "engine/claim_merge.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr size_t kClaimsAtOnce = 2000;

bool BeginsBefore(const Claim& claim, PageId page) { return claim.entry.range.first < page; }

// False: nothing is left of it.
bool CutTo(Claim* claim, PageInterval interval) {
  const PageInterval part = Intersect(IntervalOf(claim->entry.range), interval);
  if (part.empty()) return false;
  claim->entry.range = {part.first, part.end - part.first};
  return true;
}

}  // namespace

ClaimMerge::ClaimMerge(PageInterval interval, size_t sources)
    : at_(interval.first), end_(interval.end), sources_(sources, Source{.claims = {}, .next = interval.first}) {
  CHECK(sources > 0 && !interval.empty());
}

std::vector<size_t> ClaimMerge::Missing() const {
  std::vector<size_t> missing;
  for (size_t i = 0; i < sources_.size() && !done(); ++i) {
    if (sources_[i].next == at_) missing.push_back(i);
  }
  return missing;
}

absl::Status ClaimMerge::Add(size_t source, const std::vector<Claim>& claims, PageId next) {
  Source& from = sources_[source];
  const PageInterval said{from.next, next == PageId{} ? end_ : next};
  if (said.empty() || end_ < said.end) {
    return absl::InternalError(absl::StrCat("claims of what follows ", ToString(said.first), ", up to ",
                                            ToString(said.end), ", which is no part of it"));
  }
  PageId before = said.first;
  for (Claim claim : claims) {
    if (!CutTo(&claim, said)) continue;
    if (BeginsBefore(claim, before)) {
      return absl::InternalError(
          absl::StrCat("claims that are not sorted: ", ToString(claim.entry), " comes after ", ToString(before)));
    }
    before = claim.entry.range.first;
    from.claims.push_back(claim);
  }
  from.next = said.end;
  return absl::OkStatus();
}

// Up to where everybody has said what they claim, but not so far that there is too much.
PageId ClaimMerge::PickCut() const {
  PageId cut = end_;
  for (const Source& source : sources_) cut = std::min(cut, source.next);
  while (true) {
    size_t total = 0;
    size_t most = 0;
    PageId middle;  // Of the source that has most.
    for (const Source& source : sources_) {
      const auto behind = std::partition_point(source.claims.begin(), source.claims.end(),
                                               [&](const Claim& claim) { return BeginsBefore(claim, cut); });
      const auto count = static_cast<size_t>(behind - source.claims.begin());
      total += count;
      if (count <= most) continue;
      most = count;
      middle = source.claims[count / 2].entry.range.first;
    }
    if (total <= kClaimsAtOnce || middle == at_ || most < 2) return cut;
    cut = middle;
  }
}

std::vector<DirectoryEntry> ClaimMerge::Take() {
  const PageId cut = PickCut();
  CHECK(at_ < cut);
  std::vector<Claim> taken;
  for (Source& source : sources_) {
    std::vector<Claim> left;
    size_t i = 0;
    for (; i < source.claims.size() && BeginsBefore(source.claims[i], cut); ++i) {
      Claim part = source.claims[i];
      CutTo(&part, {at_, cut});
      taken.push_back(part);
      if (CutTo(&source.claims[i], {cut, end_})) left.push_back(source.claims[i]);
    }
    if (i == 0) continue;
    left.insert(left.end(), source.claims.begin() + static_cast<std::ptrdiff_t>(i), source.claims.end());
    source.claims = std::move(left);
  }
  at_ = cut;
  return ResolveClaims(std::move(taken));
}

}  // namespace mangrove
