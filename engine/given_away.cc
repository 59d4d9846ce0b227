#include "engine/given_away.h"

#include "absl/strings/str_cat.h"

namespace mangrove {

void GivenAway::Add(PageId page, ConfigNumber config, const Version& version) {
  if (pages_.size() >= most_ && !pages_.contains(page)) {
    forgetful_ = true;
    return;
  }
  if (pages_.insert_or_assign(page, Left{config, version}).second) noted_(page, true);
}

void GivenAway::Forget(absl::flat_hash_map<PageId, Left>::iterator it) {
  const PageId page = it->first;
  pages_.erase(it);
  noted_(page, false);
}

void GivenAway::Flushed(PageId page, ConfigNumber config, const Version& version) {
  const auto it = pages_.find(page);
  if (it == pages_.end() || config < it->second.config) return;
  if (config == it->second.config && version < it->second.version) return;
  Forget(it);
}

void GivenAway::WentBack(PageId page, ConfigNumber config, const Version& version, Epoch epoch) {
  const auto it = pages_.find(page);
  if (it == pages_.end()) {
    if (forgetful_) lost_[page] = 0;
    return;
  }
  const bool is_another_page = it->second.config < config;  // It was allocated anew.
  const bool is_lost = version < it->second.version && it->second.version.epoch < epoch;
  if (!is_another_page && !is_lost) return;
  if (!is_another_page) lost_[page] = 0;
  Forget(it);
}

std::vector<GivenAway::Part> GivenAway::PartsOf(PageRange range) const {
  std::vector<Part> parts;
  const auto add = [&parts](PageId page, const Left& left) { parts.push_back({page, left.config, left.version}); };
  if (range.count > pages_.size()) {
    for (const auto& [page, left] : pages_) {
      if (range.Contains(page)) add(page, left);
    }
    return parts;
  }
  for (uint64_t i = 0; i < range.count; ++i) {
    const auto it = pages_.find(range.first + i);
    if (it != pages_.end()) add(it->first, it->second);
  }
  return parts;
}

GivenAway::UnderWay GivenAway::BeginFlush(PageRange range) {
  ++under_way_;
  return {range, PartsOf(range), said_};
}

absl::Status GivenAway::EndFlush(const UnderWay& flush, const absl::Status& status, SayLost say) {
  --under_way_;
  PageId first;
  uint64_t count = 0;
  if (status.ok()) {
    for (const Part& part : flush.parts) Flushed(part.page, part.config, part.version);
    for (auto it = lost_.lower_bound(flush.range.first);
         say == SayLost::kYes && it != lost_.end() && flush.range.Contains(it->first); ++it) {
      if (it->second != 0 && it->second <= flush.said) continue;
      if (count++ == 0) first = it->first;
      if (it->second == 0) it->second = ++said_;
    }
  }
  if (under_way_ == 0) std::erase_if(lost_, [](const auto& loss) { return loss.second != 0; });
  if (count == 0) return status;
  return absl::DataLossError(absl::StrCat("page ", ToString(first),
                                          count == 1 ? "" : absl::StrCat(", and ", count - 1, " more of the range,"),
                                          " went to another node before it was flushed, and was lost with a node: what "
                                          "had been written to it is gone; read "
                                          "it, and write it again"));
}

}  // namespace mangrove
