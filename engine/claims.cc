// What this node claims: the segments that it is responsible for, and those of which it holds pages that it got from another.
// Asked for when a part of the directory is lost, and made anew of what every member claims.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/directory_edit.h"
#include "engine/claim_merge.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

// Of a member, about what it claims. Then the directory can be read again beside what is lost, and whoever waits tries again.
constexpr DurationNs kPatience = 300 * kMillisecond;
constexpr DurationNs kRootTimeout = 60 * kSecond;  // Of all members, about a large directory.

absl::Status AddClaims(const Message& answer, NodeId from, size_t source, ClaimMerge* merge) {
  if (absl::Status status = answer.status(); !status.ok()) return status;
  if (answer.data == nullptr || answer.count > kClaimsPerPage) {
    return absl::InternalError(absl::StrCat(ToString(from), " claims ", answer.count, " runs at once"));
  }
  const absl::StatusOr<std::vector<Claim>> claims = DecodeClaims(*answer.data, answer.count);
  if (!claims.ok()) return claims.status();
  const absl::Status added = merge->Add(source, *claims, answer.page);
  return added.ok() ? added : absl::InternalError(absl::StrCat(ToString(from), " sent ", added.message()));
}

}  // namespace

// In the order of their addresses. More than fit are cut off: `next` is where they go on then, else page 0.
std::vector<Claim> PageEngine::OwnClaims(const PageInterval& interval, PageId* next) const {
  // Of either kind as many as fit, up to where both are complete; then as many of both as fit.
  std::vector<Claim> claims;
  PageId end = interval.end;
  PageId page = SegmentStart(interval.first);
  while (const OwnSegments::Run* run = own_.FirstFrom(page)) {
    page = std::max(page, run->range.first);
    if (interval.end <= page) break;
    if (claims.size() == kClaimsPerPage) {
      end = page;
      break;
    }
    const uint64_t count = std::min<uint64_t>(run->range.end() - page, kMaxRunPages);
    claims.push_back(
        {.entry = {.range = {page, count}, .responsible = options_.self.node, .term = run->term}, .holds = false});
    page = page + count;
  }
  size_t held = 0;
  for (auto it = held_.lower_bound(SegmentStart(interval.first)); it != held_.end() && *it < end; ++it) {
    const Location& location = locations_.at(*it);
    if (location.node.value == 0 || location.node == options_.self.node) continue;
    if (held++ == kClaimsPerPage) {
      end = *it;
      break;
    }
    claims.push_back({.entry = {.range = {*it, kSegmentPages},
                                .responsible = location.node,
                                .term = std::max<uint32_t>(location.term, 1)},
                      .holds = true});
  }
  std::erase_if(claims, [end](const Claim& claim) { return end <= claim.entry.range.first; });
  std::stable_sort(claims.begin(), claims.end(),
                   [](const Claim& a, const Claim& b) { return a.entry.range.first < b.entry.range.first; });
  if (claims.size() > kClaimsPerPage) {
    // Whole claims of one place stay together: the rest begins at a page that no claim before it begins at.
    size_t fit = kClaimsPerPage;
    while (fit > 0 && claims[fit - 1].entry.range.first == claims[fit].entry.range.first) --fit;
    end = claims[fit].entry.range.first;
    claims.resize(fit);
  }
  *next = end == interval.end ? PageId{} : end;
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

// Who may answer all that is asked now. While it cannot be, nobody is kept waiting for a part of the directory.
absl::Status PageEngine::CheckClaimsCanBeHad() const {
  if (!view_.Has(options_.self)) return NoLeaseStatus();  // And perhaps nobody else is in it, either.
  for (const auto& [node, incarnation] : view_.members) {
    if (node == options_.self.node || up_.contains(node)) continue;
    return absl::UnavailableError(absl::StrCat("a part of the directory is lost, and ", ToString(node),
                                               ", which is a member, cannot be reached; try again"));
  }
  return absl::OkStatus();
}

// What nodes claim of the interval changes in one way only before the round has ended, since the directory cannot be read there:
// who has handed a segment over, and hears that it was taken, claims it no longer. Then who took it claims it, or is gone, and
// the round is for nothing. So it is enough to count the round at its begin, and to look at its own claims later, part by part.
// What a node holds can change, as long as those live from whom it gets it, and these claim it themselves: so the round is for
// nothing if the view has changed in it.
Task<absl::StatusOr<Claims>> PageEngine::CollectClaims(PageInterval interval, TimeNs deadline) {
  if (absl::Status status = CheckClaimsCanBeHad(); !status.ok()) co_return status;
  const Epoch view = view_.epoch;
  rounds_of_claims_.Add(interval);
  std::vector<NodeId> members;
  for (const auto& [node, incarnation] : view_.members) members.push_back(node);
  ClaimMerge merge(interval, members.size());
  Claims claims;
  claims.order = {.txn = next_txn_, .epoch = grant_epoch_.value};
  while (!merge.done()) {
    std::vector<std::pair<size_t, Outcome<Message>>> asked;
    {
      Turn turn(this);
      const TimeNs until = std::min(deadline, clock_->Now() + kPatience);
      for (size_t source : merge.Missing()) {
        if (members[source] == options_.self.node) {
          PageId next;
          const std::vector<Claim> own = OwnClaims(merge.Rest(source), &next);
          CHECK(merge.Add(source, own, next).ok());
          continue;
        }
        Message ask;
        ask.kind = MessageKind::kClaimRequest;
        ask.data = EncodeInterval(merge.Rest(source));
        asked.emplace_back(source, StartCall(members[source], std::move(ask), until, options_.resend_after));
      }
    }
    absl::Status status;  // The first that is not OK; the others are awaited nevertheless.
    for (auto& [source, outcome] : asked) {
      const Message answer = co_await outcome.Get();
      absl::Status added = AddClaims(answer, members[source], source, &merge);
      if (status.ok()) status = std::move(added);
      claims.order = Merge(claims.order, {.txn = answer.txn.value, .epoch = answer.grant_epoch.value});
    }
    if (!status.ok()) co_return status;
    if (asked.empty()) co_await YieldTo(clock_);
    if (view != view_.epoch) co_return absl::UnavailableError("the cluster has changed meanwhile; try again");
    for (const DirectoryEntry& entry : merge.Take()) AppendRun(&claims.entries, entry);
    if (stopped_ || clock_->Now() >= deadline) {
      co_return absl::UnavailableError("the claims of all nodes could not be put together in time; try again");
    }
  }
  co_return std::move(claims);
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
  const bool is_one = ref.page == kRamDirectoryRootPage ||
                      (kFirstDirectoryPage <= ref.page && NodeId(NodeOfDirectoryPage(ref.page)) == ref.responsible);
  if (is_one && IsMember(ref.responsible)) return absl::OkStatus();
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
  Post(ResponsibleFor(ref.page), std::move(retire));
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

uint64_t MembersClaims::Rounds() const { return engine_->rounds_of_claims_.rounds(); }

uint64_t MembersClaims::RoundsAbout(PageId page, uint64_t since) const {
  return engine_->rounds_of_claims_.About(page, since);
}

// Who is responsible for a segment was a member once.
bool MembersClaims::IsGone(NodeId node) const { return !engine_->IsHere(node); }

Task<absl::StatusOr<Claims>> MembersClaims::Collect(PageInterval interval, TimeNs deadline) {
  return engine_->CollectClaims(interval, deadline);
}

}  // namespace mangrove
