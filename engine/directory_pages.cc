#include "engine/directory_pages.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/store/little_endian.h"
#include "net/check.h"

namespace mangrove {
namespace {

// No program's.
constexpr ClientId kDirectoryClient{UINT64_MAX};

using store::GetLittleEndian;
using store::PutLittleEndian;

void PutPage(PageId page, char* out) {
  PutLittleEndian(absl::Uint128Low64(page.value), out);
  PutLittleEndian(absl::Uint128High64(page.value), out + 8);
}

PageId GetPage(const char* in) {
  return PageId(absl::MakeUint128(GetLittleEndian<uint64_t>(in + 8), GetLittleEndian<uint64_t>(in)));
}

// --- Claims as they travel: first page, 16 bytes; segments, 4; term, 4; responsible node, 8; 1 if it is held only, 8.
constexpr size_t kClaimBytes = 40;
static_assert(kClaimsPerPage * kClaimBytes <= kPageBytes);

}  // namespace

PageBuffer DirectoryPages::Peek(PageRef ref) {
  if (engine_->RightsOf(ref.page) == Rights::kNone) return nullptr;
  return memory_->Copy(ref.page);
}

Task<absl::StatusOr<PageBuffer>> DirectoryPages::Read(PageRef ref, TimeNs deadline) {
  absl::Status status = engine_->CheckDirectoryPage(ref);
  // It may have been taken away again before this goes on.
  while (status.ok() && engine_->RightsOf(ref.page) == Rights::kNone) {
    status = co_await engine_->Acquire({ref.page, 1}, Rights::kRead, deadline);
  }
  if (!status.ok()) co_return status;
  co_return memory_->Copy(ref.page);
}

Task<absl::StatusOr<uint64_t>> DirectoryPages::Lock(PageRef ref, TimeNs deadline) {
  if (absl::Status status = engine_->CheckDirectoryPage(ref); !status.ok()) co_return status;
  absl::StatusOr<uint64_t> lock =
      co_await engine_->Lock(kDirectoryClient, {ref.page, 1}, LockMode::kExclusive, deadline);
  if (lock.ok()) locked_[*lock] = ref.page;
  co_return lock;
}

PageBuffer DirectoryPages::LoadLocked(uint64_t lock) { return memory_->Copy(locked_.at(lock)); }

void DirectoryPages::StoreLocked(uint64_t lock, const PageBytes& content) {
  engine_->Store(locked_.at(lock), 0, content.bytes);
}

void DirectoryPages::Unlock(uint64_t lock) {
  locked_.erase(lock);
  engine_->Unlock(kDirectoryClient, lock).IgnoreError();  // It ends with the node at the latest.
}

Task<absl::StatusOr<PageRef>> DirectoryPages::Create(const PageBytes& content, TimeNs deadline) {
  const PageId page = engine_->NewDirectoryPage();
  const absl::StatusOr<uint64_t> lock =
      co_await engine_->Lock(kDirectoryClient, {page, 1}, LockMode::kExclusive, deadline);
  if (!lock.ok()) co_return lock.status();
  engine_->Store(page, 0, content.bytes);
  engine_->Unlock(kDirectoryClient, *lock).IgnoreError();
  co_return PageRef{.page = page, .responsible = NodeId(NodeOfDirectoryPage(page))};
}

void DirectoryPages::Retire(PageRef ref) { engine_->RetireDirectoryPage(ref); }

// --- Claims -----------------------------------------------------------------------------------------------------------

std::vector<DirectoryEntry> ResolveClaims(std::vector<Claim> claims) {
  // At last the order is only that there be one.
  const auto beats = [](const Claim& a, const Claim& b) {
    if (a.holds != b.holds) return b.holds;
    if (a.entry.term != b.entry.term) return a.entry.term > b.entry.term;
    return a.entry.responsible < b.entry.responsible;
  };
  std::stable_sort(claims.begin(), claims.end(), beats);
  // Each takes what none before it has taken.
  std::map<absl::uint128, DirectoryEntry> taken;
  for (const Claim& claim : claims) {
    PageId page = claim.entry.range.first;
    const PageId end = claim.entry.range.end();
    while (page < end) {
      auto next = taken.upper_bound(page.value);
      if (next != taken.begin() && std::prev(next)->second.range.Contains(page)) {
        page = std::prev(next)->second.range.end();
        continue;
      }
      const PageId until = next == taken.end() ? end : std::min(end, next->second.range.first);
      DirectoryEntry part = claim.entry;
      part.range = {page, until - page};
      taken[page.value] = part;
      page = until;
    }
  }
  std::vector<DirectoryEntry> entries;
  for (const auto& [first, entry] : taken) {
    const bool goes_on = !entries.empty() && entries.back().range.end() == entry.range.first &&
                         entries.back().responsible == entry.responsible && entries.back().term == entry.term &&
                         entries.back().range.count + entry.range.count <= kMaxRunPages;
    if (goes_on) {
      entries.back().range.count += entry.range.count;
    } else {
      entries.push_back(entry);
    }
  }
  return entries;
}

PageBuffer EncodeClaims(const std::vector<Claim>& claims) {
  CHECK(claims.size() <= kClaimsPerPage);
  auto page = std::make_shared<PageBytes>();
  page->bytes.fill(std::byte{0});
  char* out = reinterpret_cast<char*>(page->bytes.data());
  for (const Claim& claim : claims) {
    PutPage(claim.entry.range.first, out);
    PutLittleEndian(static_cast<uint32_t>(claim.entry.range.count / kSegmentPages), out + 16);
    PutLittleEndian(claim.entry.term, out + 20);
    PutLittleEndian(claim.entry.responsible.value, out + 24);
    PutLittleEndian(uint64_t{claim.holds}, out + 32);
    out += kClaimBytes;
  }
  return page;
}

absl::StatusOr<std::vector<Claim>> DecodeClaims(const PageBytes& bytes, uint64_t count) {
  CHECK(count <= kClaimsPerPage);
  std::vector<Claim> claims(count);
  const char* in = reinterpret_cast<const char*>(bytes.bytes.data());
  for (Claim& claim : claims) {
    const PageId first = GetPage(in);
    const uint64_t segments = GetLittleEndian<uint32_t>(in + 16);
    claim.entry.term = GetLittleEndian<uint32_t>(in + 20);
    claim.entry.responsible = NodeId(GetLittleEndian<uint64_t>(in + 24));
    const auto holds = GetLittleEndian<uint64_t>(in + 32);
    claim.holds = holds == 1;
    const bool is_run = segments > 0 && SegmentStart(first) == first && first < kFirstDirectoryPage &&
                        absl::uint128(segments) * kSegmentPages <= kFirstDirectoryPage.value - first.value;
    if (!is_run) {
      return absl::InvalidArgumentError(
          absl::StrCat("a claim of ", segments, " segments from ", ToString(first), " on, which are none"));
    }
    if (claim.entry.responsible.value == 0 || claim.entry.term == 0 || holds > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a claim of ", ToString(first), " for ", ToString(claim.entry.responsible), " in term ", claim.entry.term,
          ", and ", holds, " for what it holds; expected a node and a term ", "from 1 on, and 0 or 1"));
    }
    claim.entry.range = {first, segments * kSegmentPages};
    in += kClaimBytes;
  }
  return claims;
}

PageBuffer EncodeInterval(const PageInterval& interval) {
  auto page = std::make_shared<PageBytes>();
  page->bytes.fill(std::byte{0});
  PutPage(interval.first, reinterpret_cast<char*>(page->bytes.data()));
  PutPage(interval.end, reinterpret_cast<char*>(page->bytes.data()) + 16);
  return page;
}

absl::StatusOr<PageInterval> DecodeInterval(const PageBytes& bytes) {
  const char* in = reinterpret_cast<const char*>(bytes.bytes.data());
  const PageInterval interval{GetPage(in), GetPage(in + 16)};
  if (interval.empty() || kSpaceEnd < interval.end) {
    return absl::InvalidArgumentError(absl::StrCat(ToString(interval), " is no interval of the space"));
  }
  return interval;
}

}  // namespace mangrove
