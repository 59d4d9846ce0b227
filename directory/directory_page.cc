#include "directory/directory_page.h"

#include <cstring>
#include <memory>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove {

namespace {

constexpr char kMagic[] = "MGDIRECT";
constexpr size_t kMagicBytes = 8;
constexpr uint16_t kFormat = 1;

// Where the fields are.
constexpr size_t kFormatAt = 8;
constexpr size_t kLevelAt = 10;
constexpr size_t kZeroAt = 11;
constexpr size_t kCountAt = 12;
constexpr size_t kZero16At = 14;
constexpr size_t kLowAt = 16;
constexpr size_t kHighAt = 32;
constexpr size_t kRightPageAt = 48;
constexpr size_t kRightNodeAt = 64;
constexpr size_t kTxnAt = 72;
constexpr size_t kEpochAt = 80;
constexpr size_t kZero64At = 88;
static_assert(kZero64At + 8 == kDirectoryHeaderBytes);

// In a run.
constexpr size_t kSegmentsAt = 16;
constexpr size_t kTermAt = 20;
constexpr size_t kResponsibleAt = 24;
// In a child.
constexpr size_t kChildPageAt = 16;
constexpr size_t kChildNodeAt = 32;

void PutPage(std::byte* to, PageId page) {
  StoreLittle(to, absl::Uint128Low64(page.value));
  StoreLittle(to + 8, absl::Uint128High64(page.value));
}

PageId GetPage(const std::byte* from) {
  return PageId(absl::MakeUint128(LoadLittle<uint64_t>(from + 8), LoadLittle<uint64_t>(from)));
}

bool IsSegmentStart(PageId page) { return SegmentStart(page) == page; }
bool CanBeRef(const PageRef& ref) {
  return ref.page != PageId(0) && ref.page < kSpaceEnd && ref.responsible.value != 0;
}

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat("not a directory page: ", parts...));
}

bool IsZeroFrom(const PageBytes& page, size_t at) {
  static constexpr PageBytes kZeros{};
  return std::memcmp(page.bytes.data() + at, kZeros.bytes.data(), kPageBytes - at) == 0;
}

absl::Status CheckHeader(const PageBytes& bytes) {
  const std::byte* in = bytes.bytes.data();
  if (std::memcmp(in, kMagic, kMagicBytes) != 0) return Bad("it does not begin with ", kMagic);
  const auto format = LoadLittle<uint16_t>(in + kFormatAt);
  if (format != kFormat) return Bad("its format is ", format, ", not ", kFormat);
  const auto level = LoadLittle<uint8_t>(in + kLevelAt);
  if (level > kMaxDirectoryLevel) return Bad("its level is ", int{level}, ", more than ", int{kMaxDirectoryLevel});
  const auto count = LoadLittle<uint16_t>(in + kCountAt);
  const size_t most = level == 0 ? kMaxDirectoryRuns : kMaxDirectoryChildren;
  if (count > most) return Bad("it has ", count, " entries, more than ", most);
  if (LoadLittle<uint8_t>(in + kZeroAt) != 0 || LoadLittle<uint16_t>(in + kZero16At) != 0 ||
      LoadLittle<uint64_t>(in + kZero64At) != 0) {
    return Bad("a field that must be zero is not");
  }
  return absl::OkStatus();
}

absl::Status CheckKeys(const DirectoryPage& page) {
  if (!(page.keys.first < page.keys.end) || kSpaceEnd < page.keys.end || !IsSegmentStart(page.keys.first) ||
      !IsSegmentStart(page.keys.end)) {
    return Bad("its keys ", ToString(page.keys), " are no interval of whole segments");
  }
  if (page.right == PageRef{}) return absl::OkStatus();
  if (!CanBeRef(page.right)) return Bad("its right link ", ToString(page.right), " is none");
  if (page.keys.end == kSpaceEnd) return Bad("it has a right link at the end of the space");
  return absl::OkStatus();
}

absl::Status CheckRuns(const DirectoryPage& page) {
  PageId end = page.keys.first;
  const DirectoryEntry* before = nullptr;
  for (const DirectoryEntry& run : page.runs) {
    if (run.range.count == 0 || !IsSegmentStart(run.range.first)) return Bad(ToString(run), " is no run of segments");
    if (run.range.first < end) return Bad(ToString(run), " begins before ", ToString(end));
    if (!page.keys.Contains(run.range.first) || page.keys.end < run.range.end())
      return Bad(ToString(run), " is outside ", ToString(page.keys));
    if (run.responsible.value == 0) return Bad(ToString(run), " names no node");
    if (run.term == 0) return Bad(ToString(run), " has term 0");
    if (before != nullptr && before->range.end() == run.range.first && before->responsible == run.responsible &&
        before->term == run.term && before->range.count + run.range.count <= kMaxRunPages) {
      return Bad(ToString(run), " is not merged with the run before it");
    }
    end = run.range.end();
    before = &run;
  }
  return absl::OkStatus();
}

absl::Status CheckChildren(const DirectoryPage& page) {
  if (page.children.empty()) return Bad("its level is ", int{page.level}, ", and it has no children");
  if (page.order != DirectoryOrder{}) return Bad("its level is ", int{page.level}, ", and it has an order");
  if (page.children.front().start != page.keys.first) {
    return Bad("its first child starts at ", ToString(page.children.front().start), ", not at its low key");
  }
  const DirectoryChild* before = nullptr;
  for (const DirectoryChild& child : page.children) {
    if (!IsSegmentStart(child.start) || !page.keys.Contains(child.start)) {
      return Bad("a child starts at ", ToString(child.start), ", outside ", ToString(page.keys));
    }
    if (before != nullptr && child.start <= before->start) {
      return Bad("a child starts at ", ToString(child.start), ", not behind the one before it");
    }
    if (!CanBeRef(child.ref)) return Bad("a child is ", ToString(child.ref));
    before = &child;
  }
  return absl::OkStatus();
}

absl::Status CheckContent(const DirectoryPage& page) {
  if (const absl::Status s = CheckKeys(page); !s.ok()) return s;
  return page.level == 0 ? CheckRuns(page) : CheckChildren(page);
}

}  // namespace

PageBuffer SerializeDirectoryPage(const DirectoryPage& page) {
  CHECK(page.level == 0 ? page.children.empty() && page.runs.size() <= kMaxDirectoryRuns
                        : page.runs.empty() && page.children.size() <= kMaxDirectoryChildren);
  CHECK(CheckContent(page).ok());
  std::shared_ptr<PageBytes> out = NewPage();
  std::byte* to = out->bytes.data();
  std::memset(to, 0, kPageBytes);
  std::memcpy(to, kMagic, kMagicBytes);
  StoreLittle(to + kFormatAt, kFormat);
  StoreLittle(to + kLevelAt, page.level);
  StoreLittle(to + kCountAt, static_cast<uint16_t>(page.runs.size() + page.children.size()));
  PutPage(to + kLowAt, page.keys.first);
  PutPage(to + kHighAt, page.keys.end);
  PutPage(to + kRightPageAt, page.right.page);
  StoreLittle(to + kRightNodeAt, page.right.responsible.value);
  StoreLittle(to + kTxnAt, page.order.txn);
  StoreLittle(to + kEpochAt, page.order.epoch);
  to += kDirectoryHeaderBytes;
  for (const DirectoryEntry& run : page.runs) {
    PutPage(to, run.range.first);
    StoreLittle(to + kSegmentsAt, static_cast<uint32_t>(run.range.count / kSegmentPages));
    StoreLittle(to + kTermAt, run.term);
    StoreLittle(to + kResponsibleAt, run.responsible.value);
    to += kDirectoryRunBytes;
  }
  for (const DirectoryChild& child : page.children) {
    PutPage(to, child.start);
    PutPage(to + kChildPageAt, child.ref.page);
    StoreLittle(to + kChildNodeAt, child.ref.responsible.value);
    to += kDirectoryChildBytes;
  }
  return out;
}

absl::StatusOr<DirectoryPage> ParseDirectoryPage(const PageBytes& bytes) {
  if (const absl::Status s = CheckHeader(bytes); !s.ok()) return s;
  const std::optional<DirectoryPageView> view = DirectoryPageView::Of(bytes);
  CHECK(view.has_value());
  DirectoryPage page{.level = view->level(), .keys = view->keys(), .right = view->right(), .order = view->order()};
  const bool leaf = page.level == 0;
  leaf ? page.runs.reserve(view->size()) : page.children.reserve(view->size());
  for (size_t i = 0; i < view->size(); ++i) {
    if (leaf) {
      page.runs.push_back(view->run(i));
    } else {
      page.children.push_back(view->child(i));
    }
  }
  if (absl::Status s = CheckContent(page); !s.ok()) return s;
  const size_t used = kDirectoryHeaderBytes + view->size() * (leaf ? kDirectoryRunBytes : kDirectoryChildBytes);
  if (!IsZeroFrom(bytes, used)) return Bad("it is not zero behind its entries");
  return page;
}

DirectoryPageView::DirectoryPageView(const std::byte* bytes)
    : bytes_(bytes),
      stride_(LoadLittle<uint8_t>(bytes + kLevelAt) == 0 ? kDirectoryRunBytes : kDirectoryChildBytes),
      size_(LoadLittle<uint16_t>(bytes + kCountAt)),
      level_(LoadLittle<uint8_t>(bytes + kLevelAt)) {}

std::optional<DirectoryPageView> DirectoryPageView::Of(const PageBytes& bytes) {
  const std::byte* in = bytes.bytes.data();
  if (std::memcmp(in, kMagic, kMagicBytes) != 0 || LoadLittle<uint16_t>(in + kFormatAt) != kFormat) return std::nullopt;
  const DirectoryPageView view(in);
  if (view.size_ > (view.level_ == 0 ? kMaxDirectoryRuns : kMaxDirectoryChildren)) return std::nullopt;
  return view;
}

PageInterval DirectoryPageView::keys() const { return {GetPage(bytes_ + kLowAt), GetPage(bytes_ + kHighAt)}; }

PageRef DirectoryPageView::right() const {
  return {GetPage(bytes_ + kRightPageAt), NodeId(LoadLittle<uint64_t>(bytes_ + kRightNodeAt))};
}

DirectoryOrder DirectoryPageView::order() const {
  return {.txn = LoadLittle<uint64_t>(bytes_ + kTxnAt), .epoch = LoadLittle<uint64_t>(bytes_ + kEpochAt)};
}

DirectoryEntry DirectoryPageView::run(size_t i) const {
  const std::byte* at = At(i);
  return {.range = {GetPage(at), uint64_t{LoadLittle<uint32_t>(at + kSegmentsAt)} * kSegmentPages},
          .responsible = NodeId(LoadLittle<uint64_t>(at + kResponsibleAt)),
          .term = LoadLittle<uint32_t>(at + kTermAt)};
}

DirectoryChild DirectoryPageView::child(size_t i) const {
  const std::byte* at = At(i);
  return {.start = GetPage(at), .ref = {GetPage(at + kChildPageAt), NodeId(LoadLittle<uint64_t>(at + kChildNodeAt))}};
}

size_t DirectoryPageView::CountUpTo(PageId page) const {
  size_t below = 0;  // All before it begin at `page` or earlier, all from `above` on later.
  size_t above = size_;
  while (below < above) {
    const size_t middle = (below + above) / 2;
    if (GetPage(At(middle)) <= page) {
      below = middle + 1;
    } else {
      above = middle;
    }
  }
  return below;
}

std::string ToString(const PageRef& ref) {
  return absl::StrCat("page ", ToString(ref.page), " of ", ToString(ref.responsible));
}

std::string ToString(const PageInterval& interval) {
  return absl::StrCat("from ", ToString(interval.first), " to ", ToString(interval.end));
}

std::string ToString(const DirectoryEntry& entry) {
  return absl::StrCat("the run ", ToString(entry.range), " of ", ToString(entry.responsible), " in term ", entry.term);
}

}  // namespace mangrove
