#include "fs/check.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/check_pages.h"
#include "fs/directory.h"
#include "fs/extended.h"
#include "fs/fileset_page.h"
#include "fs/inode.h"
#include "fs/instance.h"
#include "fs/quota.h"
#include "fs/stream.h"

namespace mangrove::fs {
namespace {

bool IsType(mode_t type) {
  return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO || type == S_IFSOCK ||
         type == S_IFCHR || type == S_IFBLK;
}

std::string CopyOf(const TreeRoot& root) { return {root.bytes().begin(), root.bytes().end()}; }

class Checker {
 public:
  explicit Checker(Pages* pages) : checked_(pages, &report_) {}

  Task<absl::StatusOr<CheckReport>> Run();

 private:
  // An inode: what it says, and what was found of it.
  struct Known {
    Attributes attributes;
    uint64_t parent = 0;
    bool is_shrinking = false;
    std::optional<uint64_t> orphan_place;
    bool is_stream = false;
    bool is_of_streams = false;       // Their directory.
    uint64_t streams = 0;             // What it names as its own.
    uint64_t stream_pages = 0;        // That it counts,
    uint64_t found_stream_pages = 0;  // and that its streams have.
    uint32_t names = 0;
    uint32_t subdirectories = 0;
    uint64_t found_in = 0;  // The directory that has its name.
    bool is_orphan = false;
    bool is_reached = false;

    mode_t type() const { return attributes.mode & S_IFMT; }
  };
  struct Roots {
    std::string main;
    std::string xattrs;
  };

  Task<absl::StatusOr<bool>> CheckHead();
  Task<absl::Status> LoadInodes();
  Task<absl::Status> CheckTrees(uint64_t number);
  Task<absl::Status> CheckContent(uint64_t number, std::string root);
  Task<absl::Status> CheckExtents(uint64_t number, std::string root);
  Task<absl::Status> CheckEntries(uint64_t number, std::string root);
  Task<absl::Status> CheckTarget(uint64_t number, std::string root);
  Task<absl::Status> CheckXattrs(uint64_t number, std::string root);
  Task<absl::Status> CheckPlaces();
  void OnEntry(uint64_t directory, uint64_t key, std::string_view record);
  void OnOrphan(uint64_t place, uint64_t number);
  void Reach();
  void CheckStreams();
  void CheckNames();
  void CheckNamesOf(uint64_t number, const Known& known);

  CheckReport report_;
  CheckedPages checked_;
  uint64_t root_ = 0;
  std::map<uint64_t, Known> inodes_;
  std::map<uint64_t, std::vector<uint64_t>> below_;  // Directories in a directory.
};

std::string InodeName(uint64_t number) { return absl::StrCat("inode ", number); }

Task<absl::StatusOr<CheckReport>> Checker::Run() {
  const absl::StatusOr<bool> has_head = co_await CheckHead();
  if (!has_head.ok()) co_return has_head.status();
  if (!*has_head) co_return std::move(report_);
  absl::Status status = co_await LoadInodes();
  if (!status.ok()) co_return status;
  for (const auto& [number, known] : inodes_) {
    status = co_await CheckTrees(number);
    if (!status.ok()) co_return status;
  }
  status = co_await CheckPlaces();
  if (!status.ok()) co_return status;
  Reach();
  CheckStreams();
  CheckNames();
  checked_.ReportLeaks();
  co_return std::move(report_);
}

// The first page, and the groups that it counts.
Task<absl::StatusOr<bool>> Checker::CheckHead() {
  std::array<uint64_t, kZones> groups{};
  auto copy = [&](EditPage* page) {
    root_ = GetLittle<uint64_t>(page->bytes(), kRootDirectoryAt);
    for (const Zone zone : {Zone::kMetadata, Zone::kData, Zone::kSingleCopy}) {
      groups[static_cast<size_t>(zone)] = GetLittle<uint32_t>(page->bytes(), GroupCountAt(zone));
    }
  };
  const absl::StatusOr<bool> sound = co_await checked_.With(kFilesetPage, PageKind::kFileset, "the fileset", copy);
  if (!sound.ok() || !*sound) co_return sound;
  for (const Zone zone : {Zone::kMetadata, Zone::kData, Zone::kSingleCopy}) {
    const uint64_t count = groups[static_cast<size_t>(zone)];
    if (count > PagesOf(zone).count / kGroupPages) {
      checked_.Problem(absl::StrCat("page ", kFilesetPage, " counts ", count, " groups of zone ",
                                    static_cast<int>(zone), ", more than there can be"));
      co_return false;
    }
    const absl::Status status = co_await checked_.LoadGroups(zone, count);
    if (!status.ok()) co_return status;
  }
  co_return true;
}

Task<absl::Status> Checker::LoadInodes() {
  for (const uint64_t number : checked_.MarkedInodes()) {
    Known known;
    auto copy = [&](EditPage* page) {
      const Inode inode(page);
      known = {.attributes = inode.attributes(),
               .parent = inode.parent().value,
               .is_shrinking = inode.Has(Inode::kShrinking),
               .orphan_place = inode.orphan_place(),
               .is_stream = inode.Has(Inode::kStream),
               .is_of_streams = inode.Has(Inode::kStreams),
               .streams = inode.streams().value,
               .stream_pages = inode.stream_pages()};
      known.attributes.pages = inode.pages();
    };
    const absl::StatusOr<bool> sound = co_await checked_.With(number, PageKind::kInode, InodeName(number), copy);
    if (!sound.ok()) co_return sound.status();
    checked_.Claim({number, 1}, false, InodeName(number));
    if (!*sound) continue;
    if (!IsType(known.type())) {
      checked_.Problem(
          absl::StrCat("inode ", number, " has mode ", absl::Hex(known.attributes.mode), ", which is no file's"));
      continue;
    }
    if (known.is_stream) {
      ++report_.streams;
    } else if (!known.is_of_streams) {
      ++(S_ISDIR(known.type()) ? report_.directories : S_ISREG(known.type()) ? report_.files : report_.others);
    }
    inodes_[number] = known;
  }
  co_return absl::OkStatus();
}

// --- What inodes have -------------------------------------------------------------------------------------------------

Task<absl::Status> Checker::CheckTrees(uint64_t number) {
  Roots roots;
  auto copy = [&](EditPage* page) {
    const Inode inode(page);
    roots = {CopyOf(inode.main_root()), CopyOf(inode.xattr_root())};
  };
  const absl::StatusOr<bool> sound = co_await checked_.With(number, PageKind::kInode, InodeName(number), copy);
  if (!sound.ok() || !*sound) co_return sound.status();
  const absl::Status status = co_await CheckContent(number, std::move(roots.main));
  if (!status.ok()) co_return status;
  co_return co_await CheckXattrs(number, std::move(roots.xattrs));
}

Task<absl::Status> Checker::CheckContent(uint64_t number, std::string root) {
  switch (inodes_[number].type()) {
    case S_IFREG: return CheckExtents(number, std::move(root));
    case S_IFDIR: return CheckEntries(number, std::move(root));
    default: return CheckTarget(number, std::move(root));
  }
}

Task<absl::Status> Checker::CheckExtents(uint64_t number, std::string root) {
  std::vector<Extent> extents;
  CheckedPages::Record record = [&](uint64_t key, std::string_view value) {
    const absl::StatusOr<Extent> extent = DecodeExtent({key, std::string(value)});
    if (extent.ok()) {
      extents.push_back(*extent);
    } else {
      checked_.Problem(absl::StrCat("inode ", number, ": ", extent.status().message()));
    }
  };
  const absl::Status walked = co_await checked_.Walk(std::move(root), InodeName(number), &record);
  if (!walked.ok()) co_return walked;
  uint64_t end = 0;
  uint64_t pages = 0;
  for (const Extent& extent : extents) {
    if (extent.stream_page < end) {
      checked_.Problem(absl::StrCat("inode ", number, " has two pages for its page ", extent.stream_page,
                                    ", one is page ", extent.page));
    }
    end = extent.end();
    pages += extent.count;
    checked_.Claim({extent.page, extent.count}, true, InodeName(number));
  }
  if (pages != inodes_[number].attributes.pages) {
    checked_.Problem(
        absl::StrCat("inode ", number, " counts ", inodes_[number].attributes.pages, " pages, and has ", pages));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Checker::CheckEntries(uint64_t number, std::string root) {
  CheckedPages::Record record = [&](uint64_t key, std::string_view value) { OnEntry(number, key, value); };
  co_return co_await checked_.Walk(std::move(root), InodeName(number), &record);
}

void Checker::OnEntry(uint64_t directory, uint64_t key, std::string_view record) {
  const absl::StatusOr<Directory::Entry> entry = Directory::Decode({key, std::string(record)});
  if (!entry.ok()) {
    checked_.Problem(absl::StrCat("inode ", directory, ", a directory: ", entry.status().message()));
    return;
  }
  const std::string name = absl::StrCat("\"", entry->name, "\" in the directory of inode ", directory);
  if (absl::Status s = CheckName(entry->name); !s.ok()) {
    checked_.Problem(absl::StrCat("inode ", directory, ", a directory: ", s.message()));
  } else if (!Directory::MayHave(key, entry->name)) {
    checked_.Problem(absl::StrCat(name, " has key ", key, ", where nobody finds it"));
  }
  const auto it = inodes_.find(entry->inode.value);
  if (it == inodes_.end()) {
    checked_.Problem(absl::StrCat(name, " is inode ", entry->inode.value, ", which is nobody's"));
    return;
  }
  Known& known = it->second;
  ++known.names;
  known.found_in = directory;
  if (entry->type != known.type()) {
    checked_.Problem(absl::StrCat(name, " has type ", absl::Hex(entry->type), ", inode ", it->first, " has ",
                                  absl::Hex(known.type())));
  }
  if (known.is_stream != inodes_[directory].is_of_streams || known.is_of_streams) {
    checked_.Problem(absl::StrCat(name, " is inode ", it->first, ", which belongs ",
                                  known.is_stream ? "among streams" : "not among streams"));
    return;
  }
  if (!S_ISDIR(known.type())) return;
  ++inodes_[directory].subdirectories;
  below_[directory].push_back(it->first);
}

// A symbolic link's target; others have nothing.
Task<absl::Status> Checker::CheckTarget(uint64_t number, std::string root) {
  uint64_t bytes = 0;
  CheckedPages::Record record = [&](uint64_t, std::string_view value) { bytes += value.size(); };
  const absl::Status status = co_await checked_.Walk(std::move(root), InodeName(number), &record);
  if (status.ok() && bytes != inodes_[number].attributes.size_bytes) {
    checked_.Problem(absl::StrCat("inode ", number, " has ", bytes, " bytes in its tree, and says that they are ",
                                  inodes_[number].attributes.size_bytes));
  }
  co_return status;
}

Task<absl::Status> Checker::CheckXattrs(uint64_t number, std::string root) {
  std::vector<TreeRecord> records;
  CheckedPages::Record record = [&](uint64_t key, std::string_view value) {
    records.push_back({key, std::string(value)});
  };
  const absl::Status status = co_await checked_.Walk(std::move(root), InodeName(number), &record);
  if (!status.ok()) co_return status;
  if (absl::Status s = fs::CheckXattrs(records); !s.ok()) {
    checked_.Problem(absl::StrCat("inode ", number, ": ", s.message()));
  }
  co_return absl::OkStatus();
}

// --- Orphans ----------------------------------------------------------------------------------------------------------

Task<absl::Status> Checker::CheckPlaces() {
  for (uint64_t place = 0; place < kNodePlaces; ++place) {
    const std::string whose = absl::StrCat("place ", place);
    std::string root;
    auto copy = [&](EditPage* page) { root = CopyOf(PlaceRoot(page)); };
    const absl::StatusOr<bool> sound = co_await checked_.With(kFirstPlacePage + place, PageKind::kPlace, whose, copy);
    if (!sound.ok()) co_return sound.status();
    if (!*sound) continue;
    CheckedPages::Record record = [&](uint64_t key, std::string_view) { OnOrphan(place, key); };
    const absl::Status status = co_await checked_.Walk(std::move(root), whose, &record);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// Others may have finished what the place had to: then its number is nobody's, or another file's.
void Checker::OnOrphan(uint64_t place, uint64_t number) {
  const PageSpan zone = PagesOf(Zone::kMetadata);
  if (number < zone.first || number >= zone.first + zone.count) {
    checked_.Problem(absl::StrCat("place ", place, " has an orphan ", number, ", which is no inode's number"));
    return;
  }
  const auto it = inodes_.find(number);
  if (it == inodes_.end() || it->second.orphan_place != place) {
    ++report_.stale_orphans;
    return;
  }
  if (!it->second.is_orphan) ++report_.orphans;
  it->second.is_orphan = true;
}

// --- Names ------------------------------------------------------------------------------------------------------------

// Which directories are found from the root.
void Checker::Reach() {
  std::vector<uint64_t> next{root_};
  while (!next.empty()) {
    const uint64_t directory = next.back();
    next.pop_back();
    const auto it = inodes_.find(directory);
    if (it == inodes_.end() || std::exchange(it->second.is_reached, true)) continue;
    next.insert(next.end(), below_[directory].begin(), below_[directory].end());
  }
}

// Their directories have no names: their owners are found instead. K7
void Checker::CheckStreams() {
  for (auto& [number, known] : inodes_) {
    if (known.streams != 0) {
      const auto streams = inodes_.find(known.streams);
      if (streams == inodes_.end() || !streams->second.is_of_streams) {
        checked_.Problem(absl::StrCat("inode ", number, " has its streams in inode ", known.streams,
                                      ", which is no directory of streams"));
      } else {
        ++streams->second.names;
        streams->second.found_in = number;
        streams->second.is_reached = true;
      }
    }
    if (!known.is_stream || known.names == 0) continue;
    const auto owner = inodes_.find(known.parent);
    if (owner == inodes_.end() || owner->second.streams != known.found_in) {
      checked_.Problem(absl::StrCat("inode ", number, ", a stream, says that it is of inode ", known.parent,
                                    ", and is among the streams of another one"));
    } else {
      owner->second.found_stream_pages += known.attributes.pages;
    }
  }
}

void Checker::CheckNames() {
  const auto root = inodes_.find(root_);
  if (root == inodes_.end() || !S_ISDIR(root->second.type())) {
    checked_.Problem(
        absl::StrCat("page ", kFilesetPage, " says that the root is inode ", root_, ", which is no directory"));
  } else {
    // It has a name of its own: "/".
    if (root->second.names > 0)
      checked_.Problem(absl::StrCat("inode ", root_, ", the root, has a name in inode ", root->second.found_in));
    root->second.names = 1;
    root->second.found_in = root_;
  }
  for (const auto& [number, known] : inodes_) CheckNamesOf(number, known);
}

void Checker::CheckNamesOf(uint64_t number, const Known& known) {
  const uint32_t links = known.attributes.links;
  if ((links == 0 || known.is_shrinking || known.orphan_place) && !known.is_orphan) {
    checked_.Problem(absl::StrCat("inode ", number,
                                  links == 0           ? " has no links"
                                  : known.is_shrinking ? " is being made shorter"
                                                       : " says that it is an orphan",
                                  ", and no node's place knows it"));
  }
  if (known.stream_pages != known.found_stream_pages) {
    checked_.Problem(absl::StrCat("inode ", number, " counts ", known.stream_pages,
                                  " pages of its streams, which have ", known.found_stream_pages));
  }
  if (!S_ISDIR(known.type())) {
    if (links != known.names) {
      checked_.Problem(absl::StrCat("inode ", number, " has ", links, " links and ", known.names, " names"));
    }
    return;
  }
  if (links == 0 && known.names == 0 && known.subdirectories == 0) return;
  if (known.names != 1) {
    checked_.Problem(absl::StrCat("inode ", number, ", a directory, has ", known.names, " names"));
  }
  if (known.names > 0 && known.parent != known.found_in) {
    checked_.Problem(absl::StrCat("inode ", number, ", a directory, says that it is in inode ", known.parent,
                                  ", and is in ", known.found_in));
  }
  if (links != 2 + known.subdirectories) {
    checked_.Problem(absl::StrCat("inode ", number, ", a directory, has ", links, " links and ", known.subdirectories,
                                  " subdirectories"));
  }
  if (known.names > 0 && !known.is_reached) {
    checked_.Problem(absl::StrCat("inode ", number, ", a directory, is not found from the root"));
  }
}

}  // namespace

Task<absl::StatusOr<CheckReport>> CheckFileset(Pages* pages) {
  Checker checker(pages);
  absl::StatusOr<CheckReport> report = co_await checker.Run();
  if (!report.ok() || !report->IsSound()) co_return report;
  absl::StatusOr<std::vector<std::string>> wrong = co_await CheckQuota(pages);
  if (!wrong.ok()) co_return wrong.status();
  report->problems = *std::move(wrong);
  co_return report;
}

}  // namespace mangrove::fs
