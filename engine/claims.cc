// What this node claims: the segments that it is responsible for, and those of which it holds pages that it got from another.
// Asked for when a part of the directory is lost, and made anew of what every member claims.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr DurationNs kRootTimeout = 300 * kMillisecond;  // Then it is tried again, for as long as somebody waits.

std::vector<DirectoryEntry> CutTo(std::vector<DirectoryEntry> entries, const PageInterval& interval) {
  for (DirectoryEntry& entry : entries) {
    const PageInterval part = Intersect(IntervalOf(entry.range), interval);
    entry.range = {part.first, part.empty() ? 0 : part.end - part.first};
  }
  std::erase_if(entries, [](const DirectoryEntry& entry) { return entry.range.count == 0; });
  return entries;
}

}  // namespace

// In the order of their addresses. More than fit are cut off: `next` is where they go on then, else page 0.
std::vector<Claim> PageEngine::OwnClaims(const PageInterval& interval, PageId* next) const {
  std::vector<Claim> claims;
  own_.ForEach(interval.first, interval.end, [&](const OwnSegments::Run& run) {
    PageId first = run.range.first;
    while (first < run.range.end()) {
      const uint64_t count = std::min<uint64_t>(run.range.end() - first, kMaxRunPages);
      claims.push_back(
          {.entry = {.range = {first, count}, .responsible = options_.self.node, .term = run.term}, .holds = false});
      first = first + count;
    }
  });
  for (const auto& [first, location] : locations_) {
    const bool holds = location.pages > 0 && location.node.value != 0 && location.node != options_.self.node;
    if (!holds || first < SegmentStart(interval.first) || interval.end <= first) continue;
    claims.push_back({.entry = {.range = {first, kSegmentPages},
                                .responsible = location.node,
                                .term = std::max<uint32_t>(location.term, 1)},
                      .holds = true});
  }
  std::stable_sort(claims.begin(), claims.end(),
                   [](const Claim& a, const Claim& b) { return a.entry.range.first < b.entry.range.first; });
  *next = PageId{};
  if (claims.size() > kClaimsPerPage) {
    // Whole claims of one place stay together: the rest begins at a page that no claim before it begins at.
    size_t end = kClaimsPerPage;
    while (end > 0 && claims[end - 1].entry.range.first == claims[end].entry.range.first) --end;
    *next = claims[end].entry.range.first;
    claims.resize(end);
  }
  return claims;
}

void PageEngine::AnswerClaims(const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;
  const absl::StatusOr<PageInterval> interval =
      message.data == nullptr ? absl::InvalidArgumentError("no interval") : DecodeInterval(*message.data);
  if (!interval.ok()) return RefuseMessage(message, from.node);
  rounds_of_claims_.Add(*interval);
  Message answer;
  answer.kind = MessageKind::kClaims;
  answer.request = message.request;
  const std::vector<Claim> claims = OwnClaims(*interval, &answer.page);
  answer.count = claims.size();
  answer.data = EncodeClaims(claims);
  answer.txn = Txn(next_txn_);
  answer.grant_epoch = grant_epoch_;
  Post(from.node, std::move(answer));
}

Task<absl::StatusOr<Claims>> PageEngine::CollectClaims(PageInterval interval, TimeNs deadline) {
  rounds_of_claims_.Add(interval);
  std::vector<Claim> all;
  for (PageInterval part = interval; !part.empty();) {
    PageId next;
    const std::vector<Claim> claims = OwnClaims(part, &next);
    all.insert(all.end(), claims.begin(), claims.end());
    part.first = next == PageId{} ? part.end : next;
  }
  DirectoryOrder order{.txn = next_txn_, .epoch = grant_epoch_.value};
  for (NodeId node : options_.members) {
    PageInterval part = interval;
    while (node != options_.self.node && !part.empty()) {
      Message ask;
      ask.kind = MessageKind::kClaimRequest;
      ask.data = EncodeInterval(part);
      const Message answer = co_await StartCall(node, std::move(ask), deadline, options_.resend_after).Get();
      if (absl::Status status = answer.status(); !status.ok()) co_return status;
      if (answer.data == nullptr || answer.count > kClaimsPerPage) {
        co_return absl::InternalError(absl::StrCat(ToString(node), " claims ", answer.count, " runs at once"));
      }
      const absl::StatusOr<std::vector<Claim>> claims = DecodeClaims(*answer.data, answer.count);
      if (!claims.ok()) co_return claims.status();
      all.insert(all.end(), claims->begin(), claims->end());
      order = Merge(order, {.txn = answer.txn.value, .epoch = answer.grant_epoch.value});
      part.first = answer.page == PageId{} ? part.end : answer.page;
    }
  }
  co_return Claims{.entries = CutTo(ResolveClaims(std::move(all)), interval), .order = order};
}

// A page of the RAM directory that nobody has. Its root is made of what all claim; another one is lost, unless it is just being
// made.
Task<absl::StatusOr<LoadedPage>> PageEngine::OpenDirectoryPage(PageId page, bool version_only) {
  if (version_only) co_return absl::DataLossError("no disk has pages of the directory");
  LoadedPage loaded{.config = ConfigNumber(1), .data = nullptr};
  if (making_.erase(page) > 0) co_return loaded;
  if (page != kRamDirectoryRootPage) {
    co_return absl::DataLossError(
        absl::StrCat("page ", ToString(page), " of the directory is lost: the node that held it is gone"));
  }
  const TimeNs deadline = clock_->Now() + kRootTimeout;
  const uint64_t rounds = rounds_of_claims_.rounds();
  absl::StatusOr<Claims> claims = co_await CollectClaims(kWholeSpace, deadline);
  if (!claims.ok()) co_return claims.status();
  absl::StatusOr<PageBuffer> root = co_await tree_.BuildRoot(*std::move(claims), deadline);
  if (!root.ok()) co_return root.status();
  if (rounds_of_claims_.rounds() != rounds + 1) {
    co_return absl::UnavailableError("the directory is being made anew by several nodes; try again");
  }
  loaded.version = {grant_epoch_, 0};
  loaded.data = *std::move(root);
  co_return loaded;
}

PageId PageEngine::NewDirectoryPage() {
  const PageId page = RamDirectoryPage(options_.self.node.value, options_.self.incarnation.value & kIncarnationMask,
                                       ++directory_pages_);
  making_.insert(page);
  return page;
}

absl::Status PageEngine::CheckDirectoryPage(PageRef ref) const {
  const std::vector<NodeId>& members = options_.members;
  const bool is_member = std::find(members.begin(), members.end(), ref.responsible) != members.end();
  if (IsRamDirectoryPage(ref.page) && is_member && ResponsibleFor(ref.page) == ref.responsible) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the directory names page ", ToString(ref.page), " of ",
                                          ToString(ref.responsible), ", which is no page of it"));
}

// Its responsible node forgets it, and takes it from whoever has it.
void PageEngine::RetireDirectoryPage(PageRef ref) {
  if (!CheckDirectoryPage(ref).ok() || ref.page == kRamDirectoryRootPage) return;
  Turn turn(this);
  Message retire;
  retire.kind = MessageKind::kRetire;
  retire.page = ref.page;
  Post(ref.responsible, std::move(retire));
}

void PageEngine::Retire(const Message& message) {
  const PageId page = message.page;
  if (page < kFirstDirectoryPage || ResponsibleFor(page) != options_.self.node || !IsServed(page)) return;
  const auto it = homes_.find(page);
  if (it == homes_.end() || it->second->IsBusy() || it->second->state == HomeState::kLost) return;
  const RequestId token = NextRequest();
  discards_[token] = {.left = 1, .done = [] {}};
  std::vector<HomeEffect> effects;
  StepHomeDiscard(*it->second, token, kAnyConfig, HomeContextOf(page), effects);
  CarryHome(page, effects);
}

}  // namespace mangrove
