// What a node tells another one, whose disk catches up, of what it has itself.

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/catch_up.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr size_t kVersionsAtOnce = 1024;  // That are looked at; the other lacks some of them.

}  // namespace

void CatchUp::AnswerList(const Message& message, NodeInstance from) {
  if (!engine_->IsCurrent(from)) return;
  Message answer;
  answer.kind = MessageKind::kStoredList;
  answer.request = message.request;
  // It asks again: this disk is behind itself, and the other does not know the view yet that says so.
  if (!engine_->disks_.IsCurrent(engine_->options_.self.node)) return;
  message.with_data ? AnswerVersions(message, std::move(answer), from.node)
                    : AnswerExtents(message, std::move(answer), from.node);
}

void CatchUp::AnswerExtents(const Message& message, Message answer, NodeId to) {
  std::vector<StoredExtent> listed;
  const auto& extents = engine_->core_.extents();
  for (auto it = extents.lower_bound(message.page.value); it != extents.end(); ++it) {
    const Extent& extent = it->second;
    if (TouchesSystemPages(extent.range)) continue;
    if (listed.size() == kExtentsPerList) {
      answer.page = extent.range.first;
      break;
    }
    listed.push_back({.range = extent.range,
                      .config = extent.config,
                      .replicas = extent.replicas,
                      .is_volatile = extent.is_volatile,
                      .is_learned = extent.learned});
  }
  answer.data = EncodeStoredList(listed);
  engine_->Post(to, std::move(answer));
}

// One look into the store, from the first extent on that has pages from there on.
void CatchUp::AnswerVersions(const Message& message, Message answer, NodeId to) {
  const PageId from = FirstKept(message.page);
  if (from == PageId{}) {
    answer.data = EncodeVersionList({}).page;
    return engine_->Post(to, std::move(answer));
  }
  const absl::uint128 rest = kSpacePages - from.value;
  const PageRange range{from, static_cast<uint64_t>(std::min<absl::uint128>(rest, UINT64_MAX))};
  const Epoch view = engine_->view_.epoch;
  const auto what = listed_all_in_ == view ? PageStore::Listed::kNoWait : PageStore::Listed::kAll;
  engine_->store_->ListPages(
      range, kVersionsAtOnce, what,
      [this, answer = std::move(answer), range, to, view, alive = engine_->alive_](auto list) mutable {
        if (!*alive || engine_->stopped_) return;
        if (list.ok()) listed_all_in_ = std::max(listed_all_in_, view);
        PageEngine::Turn turn(engine_);
        if (list.ok()) {
          if (list->next == PageId{}) list->next = FirstKept(range.end());
          answer.data = VersionsFor(to, range.first, *list, &answer.page);
        } else {
          answer.SetStatus(list.status());
        }
        engine_->Post(to, std::move(answer));
      });
}

// The first page from there on that is in an extent; 0: there is none.
PageId CatchUp::FirstKept(PageId from) const {
  const auto& extents = engine_->core_.extents();
  auto it = extents.upper_bound(from.value);
  if (it != extents.begin() && std::prev(it)->second.range.Contains(from)) return from;
  return it == extents.end() ? PageId{} : it->second.range.first;
}

// Of the pages that `to` lacks, and this disk keeps. What it cannot read itself is listed as well.
PageBuffer CatchUp::VersionsFor(NodeId to, PageId from, const PageList& list, PageId* next) const {
  const auto is_for = [&](PageId page, const Extent* extent) {
    return extent != nullptr && !extent->is_volatile && engine_->disks_.Learns(to, page, extent->replicas) &&
           engine_->disks_.Keeps(engine_->options_.self.node, page, extent->replicas);
  };
  std::map<PageId, StoredVersion> listed;
  for (const StoredPage& stored : list.pages) {
    const Extent* const extent = engine_->core_.Find(stored.page);
    if (!is_for(stored.page, extent)) continue;
    const bool is_unreadable = stored.version == Version{} || stored.config != extent->config;
    listed[stored.page] = {.page = stored.page,
                           .version = is_unreadable ? kUnknownVersion : stored.version,
                           .is_unreadable = is_unreadable};
  }
  *next = list.next;
  const auto& lost = engine_->core_.lost();
  for (auto it = lost.lower_bound(from); it != lost.end() && (list.next == PageId{} || it->first < list.next); ++it) {
    const Extent* const extent = engine_->core_.Find(it->first);
    if (!is_for(it->first, extent)) continue;
    listed[it->first] = {.page = it->first, .version = it->second, .is_unreadable = true};
  }
  std::vector<StoredVersion> versions;
  for (const auto& [page, version] : listed) versions.push_back(version);
  EncodedVersions encoded = EncodeVersionList(versions);
  if (encoded.count < versions.size()) *next = versions[encoded.count].page;
  return std::move(encoded.page);
}

}  // namespace mangrove
