#include "tests/unit/fs/history.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "fs/check.h"
#include "fs/group_page.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr size_t kTraced = 12;
constexpr size_t kListedAtOnce = 5;

template <typename T>
bool Take(absl::StatusOr<T> result, Answer* answer, T* value) {
  answer->error = ErrnoOf(result.status());
  if (result.ok()) *value = *std::move(result);
  return result.ok();
}

Answer OfAttributes(absl::StatusOr<Attributes> result) {
  Answer answer;
  Attributes attributes;
  if (Take(std::move(result), &answer, &attributes)) answer.attributes = attributes;
  return answer;
}
Answer OfBytes(absl::StatusOr<std::string> result) {
  Answer answer;
  Take(std::move(result), &answer, &answer.bytes);
  return answer;
}
Answer OfStatus(const absl::Status& status) { return {.error = ErrnoOf(status)}; }

}  // namespace

History::History(size_t instances) : model_(1'000'000'000'000) {
  pages_.SetNow(now_ns_);
  EXPECT_TRUE(fs::Do(Instance::Make(&pages_, {})).ok());
  OpenInstances(instances);
}

void History::OpenInstances(size_t count) {
  instances_.clear();
  peers_.clear();
  open_.clear();
  for (size_t i = 0; i < count; ++i) {
    peers_.push_back(std::make_unique<PeerPages>(&pages_, &open_, 3 * i));
    auto opened = fs::Do(Instance::Open(peers_.back().get()));
    ASSERT_TRUE(opened.ok()) << opened.status() << Trace();
    instances_.push_back(*std::move(opened));
  }
  const auto root = fs::Do(instances_[0]->GetAttributes(instances_[0]->root()));
  ASSERT_TRUE(root.ok()) << root.status() << Trace();
  numbers_[kRootFile] = {root->inode, root->generation};
}

// --- Operations -------------------------------------------------------------------------------------------------------

Answer History::Names(const Op& op) {
  Instance& fs = *instances_[op.instance];
  const InodeNumber file = Number(op.file);
  const InodeNumber other = Number(op.other);
  switch (op.kind) {
    case OpKind::kMakeNode: return OfAttributes(fs::Do(fs.MakeNode(op.caller, file, op.name, op.mode, op.device)));
    case OpKind::kMakeDirectory: return OfAttributes(fs::Do(fs.MakeDirectory(op.caller, file, op.name, op.mode)));
    case OpKind::kMakeSymlink: return OfAttributes(fs::Do(fs.MakeSymlink(op.caller, file, op.name, op.bytes)));
    case OpKind::kMakeUnnamed:
      return OfAttributes(fs::Do(fs.MakeUnnamed(op.caller, file, op.mode, op.flags != O_EXCL)));
    case OpKind::kLink: return OfAttributes(fs::Do(fs.Link(file, other, op.new_name)));
    case OpKind::kUnlink: return OfStatus(fs::Do(fs.Unlink(file, op.name)));
    case OpKind::kRemoveDirectory: return OfStatus(fs::Do(fs.RemoveDirectory(file, op.name)));
    case OpKind::kRename:
      return OfStatus(fs::Do(fs.Rename(file, op.name, other, op.new_name, static_cast<unsigned>(op.flags))));
    case OpKind::kLookup: return OfAttributes(fs::Do(fs.Lookup(file, op.name)));
    default: return Other(op);
  }
}

Answer History::Other(const Op& op) {
  Instance& fs = *instances_[op.instance];
  const InodeNumber file = Number(op.file);
  Answer answer;
  InodeNumber parent;
  switch (op.kind) {
    case OpKind::kReadLink: return OfBytes(fs::Do(fs.ReadLink(file)));
    case OpKind::kParent:
      Take(fs::Do(fs.Parent(file)), &answer, &parent);
      answer.number = parent.value;
      return answer;
    case OpKind::kGetAttributes: return OfAttributes(fs::Do(fs.GetAttributes(file)));
    case OpKind::kSetAttributes: return OfAttributes(fs::Do(fs.SetAttributes(file, op.change)));
    case OpKind::kGetXattr: return OfBytes(fs::Do(fs.GetXattr(file, op.name)));
    case OpKind::kSetXattr: return OfStatus(fs::Do(fs.SetXattr(file, op.name, op.bytes, op.xattr_mode)));
    case OpKind::kRemoveXattr: return OfStatus(fs::Do(fs.RemoveXattr(file, op.name)));
    case OpKind::kListXattr:
      Take(fs::Do(fs.ListXattr(file)), &answer, &answer.names);
      std::sort(answer.names.begin(), answer.names.end());
      return answer;
    case OpKind::kOpen: return OfStatus(fs::Do(fs.Open(file)));
    case OpKind::kClose: return OfStatus(fs::Do(fs.Close(file)));
    case OpKind::kRead: return OfBytes(fs::Do(fs.Read(file, op.offset, op.length)));
    case OpKind::kWrite: return OfStatus(fs::Do(fs.Write(file, op.offset, op.bytes, {.append = op.append})));
    case OpKind::kAllocate: return OfStatus(fs::Do(fs.Allocate(file, op.flags, op.offset, op.length)));
    case OpKind::kSeek: Take(fs::Do(fs.Seek(file, op.offset, op.flags)), &answer, &answer.number); return answer;
    default: return OfStatus(fs::Do(fs.Sync(file)));
  }
}

Answer History::DoReal(const Op& op) {
  now_ns_ += 1'000;
  pages_.SetNow(now_ns_);
  model_.SetNow(now_ns_);
  last_.push_back(absl::StrCat("\n  ", ++count_, " at ", op.instance, ToString(op)));
  if (last_.size() > kTraced) last_.pop_front();
  return Names(op);
}

Answer History::Do(Op op) {
  const Answer found = DoReal(op);
  if (full_allowed_ && (found.error == ENOSPC || found.error == EDQUOT)) {
    OnFull(op);
  } else {
    Compare(op, found);
  }
  return found;
}

std::optional<Answer> History::DoUntilEnd(const Op& op, Answer* last) {
  *last = DoReal(op);
  if (pages_.HasEnded()) return std::nullopt;
  Compare(op, *last);
  return *last;
}

void History::Compare(const Op& op, const Answer& found) {
  const Answer expected = model_.Apply(op);
  Learn(expected, found);
  EXPECT_EQ(DifferenceOf(op, expected, found), "") << Trace();
  EXPECT_EQ(pages_.open_transactions(), 0u) << Trace();
}

// Nothing has happened; but FALLOC_FL_ZERO_RANGE makes a hole first, and fills it then.
void History::OnFull(Op op) {
  const std::string different = Difference(model_);
  if (op.kind == OpKind::kAllocate && (op.flags & FALLOC_FL_ZERO_RANGE) != 0 && !different.empty()) {
    op.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    model_.Apply(op);
    EXPECT_EQ(Difference(model_), "") << "after it was refused" << Trace();
  } else {
    EXPECT_EQ(different, "") << "after it was refused" << Trace();
  }
  if (PosixModel::File* const file = model_.Find(op.file); file != nullptr && file->IsRegular()) {
    Do({.kind = OpKind::kRead, .instance = op.instance, .file = op.file, .length = uint64_t{1} << 24});
  }
  EXPECT_EQ(pages_.open_transactions(), 0u) << Trace();
}

// The number of a file that was made.
void History::Learn(const Answer& model, const Answer& real) {
  if (!model.attributes || !real.attributes) return;
  numbers_.try_emplace(model.attributes->inode.value, Known{real.attributes->inode, real.attributes->generation});
}

std::string History::Trace() const {
  return absl::StrCat("; operations, the last one last:", absl::StrJoin(last_, ""));
}

// --- Comparing --------------------------------------------------------------------------------------------------------

std::string History::DifferenceOf(const Attributes& expected, const Attributes& found) const {
  std::string text;
  const auto compare = [&](absl::string_view what, auto wanted, auto is) {
    if (wanted != is) absl::StrAppend(&text, what, " ", is, ", should be ", wanted, "; ");
  };
  const Known& known = numbers_.at(expected.inode.value);
  compare("inode", known.inode.value, found.inode.value);
  compare("generation", known.generation, found.generation);
  compare("mode", expected.mode, found.mode);
  compare("links", expected.links, found.links);
  compare("uid", expected.uid, found.uid);
  compare("gid", expected.gid, found.gid);
  compare("device", expected.device, found.device);
  compare("size", expected.size_bytes, found.size_bytes);
  compare("accessed", expected.accessed_ns, found.accessed_ns);
  compare("modified", expected.modified_ns, found.modified_ns);
  compare("changed", expected.changed_ns, found.changed_ns);
  compare("born", expected.born_ns, found.born_ns);
  return text;
}

// Which pages are holes is the filesystem's business, if what is in them is zeros.
std::string History::DifferenceOfSought(const Op& op, const Answer& found) {
  const std::string& content = model_.Find(op.file)->content;
  const auto data_from = [&](uint64_t at) { return content.find_first_not_of('\0', at); };
  if (found.error == ENXIO && op.flags == SEEK_DATA) {
    return data_from(op.offset) == content.npos ? "" : "ENXIO, and there is data";
  }
  if (found.error != 0) return absl::StrCat("errno ", found.error);
  if (found.number < op.offset || found.number > content.size()) return absl::StrCat("found ", found.number);
  if (op.flags == SEEK_DATA) return data_from(op.offset) >= found.number ? "" : "data was passed by";
  const uint64_t page_end = std::min<uint64_t>(content.size(), (found.number / kPageSize + 1) * kPageSize);
  return data_from(found.number) >= page_end ? "" : "data in a hole";
}

std::string History::DifferenceOf(const Op& op, const Answer& expected, const Answer& found) {
  if (op.kind == OpKind::kSeek && expected.error == 0) return DifferenceOfSought(op, found);
  if (expected.error != found.error) return absl::StrCat("errno ", found.error, ", should be ", expected.error);
  if (expected.error != 0) return "";
  if (expected.attributes.has_value() != found.attributes.has_value()) return "attributes, or not";
  if (expected.attributes) return DifferenceOf(*expected.attributes, *found.attributes);
  if (op.kind == OpKind::kParent && Number(expected.number).value != found.number) return "another parent";
  if (expected.names != found.names) return absl::StrCat("names ", absl::StrJoin(found.names, " "));
  if (expected.bytes == found.bytes) return "";
  const auto at = std::mismatch(expected.bytes.begin(), expected.bytes.end(), found.bytes.begin(), found.bytes.end());
  return absl::StrCat("bytes differ from the ", at.first - expected.bytes.begin(), "th of ", expected.bytes.size(),
                      " on; found ", found.bytes.size());
}

// A file without what is in it: attributes, extended attributes, a directory's parent, a link's target.
std::string History::DifferenceOfFile(PosixModel& model, FileId file) {
  const PosixModel::File& wanted = *model.Find(file);
  const size_t instance = file % instances_.size();
  const auto ask = [&](OpKind kind, const std::string& name) -> std::string {
    const Op op{.kind = kind, .instance = instance, .file = file, .name = name};
    const std::string different = DifferenceOf(op, model.Apply(op), Names(op));
    return different.empty() ? "" : absl::StrCat(ToString(op), ": ", different);
  };
  std::string different = ask(OpKind::kGetAttributes, "");
  if (different.empty()) different = ask(OpKind::kListXattr, "");
  for (const auto& [name, value] : wanted.xattrs) {
    if (different.empty()) different = ask(OpKind::kGetXattr, name);
  }
  if (different.empty() && wanted.IsDirectory()) different = ask(OpKind::kParent, "");
  if (different.empty() && wanted.type() == S_IFLNK) different = ask(OpKind::kReadLink, "");
  return different;
}

std::string History::DifferenceBelow(PosixModel& model, FileId directory) {
  const PosixModel::File& wanted = *model.Find(directory);
  std::map<std::string, Attributes> found;
  for (uint64_t cookie = 0;;) {
    const auto listed = fs::Do(instances_.back()->ReadDirectory(Number(directory), cookie, kListedAtOnce));
    if (!listed.ok()) return absl::StrCat("listing file ", directory, ": ", std::string(listed.status().message()));
    if (listed->empty()) break;
    for (const DirectoryEntry& entry : *listed) {
      if (!found.emplace(entry.name, entry.attributes).second) return absl::StrCat(entry.name, " is listed twice");
      if (entry.cookie <= cookie || entry.cookie >> 63 != 0) return absl::StrCat("cookie ", entry.cookie);
      cookie = entry.cookie;
    }
  }
  if (found.size() != wanted.entries.size()) {
    return absl::StrCat("file ", directory, " has ", found.size(), " entries, should have ", wanted.entries.size());
  }
  for (const auto& [name, file] : wanted.entries) {
    if (!found.contains(name)) return absl::StrCat("file ", directory, " has no ", name);
    std::string different = DifferenceOf(model.Find(file)->attributes, found[name]);
    if (different.empty()) different = DifferenceOfFile(model, file);
    if (!different.empty()) return absl::StrCat("\"", name, "\", file ", file, ": ", different);
  }
  return "";
}

std::string History::Difference(PosixModel& model) {
  for (const auto& [id, file] : model.files()) {
    std::string different = file.IsDirectory() ? DifferenceBelow(model, id) : "";
    if (different.empty() && (file.attributes.links == 0 || id == kRootFile)) different = DifferenceOfFile(model, id);
    if (!different.empty()) return different;
  }
  return "";
}

void History::ExpectSame() {
  ASSERT_EQ(Difference(model_), "") << Trace();
  std::vector<FileId> regular;
  for (const auto& [id, file] : model_.files()) {
    if (file.IsRegular()) regular.push_back(id);
  }
  for (const FileId id : regular) {
    Do({.kind = OpKind::kRead, .instance = id % instances_.size(), .file = id, .length = uint64_t{1} << 24});
  }
}

// --- Ends and beginnings ----------------------------------------------------------------------------------------------

void History::Restart() {
  pages_.LosePower();
  OpenInstances(instances_.size());
  absl::Status finished = fs::Do(instances_[0]->FinishRemovals());
  if (finished.ok()) finished = fs::Do(FinishQuota(&pages_));
  EXPECT_TRUE(finished.ok()) << finished << Trace();
}

void History::Choose(std::vector<PosixModel> models, const Op& made) {
  std::string differences;
  for (PosixModel& model : models) {
    const FileId last = model.next() - 1;
    if (!numbers_.contains(last)) {
      const auto found = fs::Do(instances_[0]->Lookup(Number(made.file), made.name));
      if (!found.ok()) continue;
      numbers_[last] = {found->inode, found->generation};
    }
    model.CloseAll();
    const std::string different = Difference(model);
    if (different.empty()) {
      model_ = model;
      return;
    }
    absl::StrAppend(&differences, "\n  ", different);
  }
  ADD_FAILURE() << "the tree is none of those that it may be:" << differences << Trace();
}

void History::CloseAll() {
  std::vector<Op> closes;
  for (const auto& [id, file] : model_.files()) {
    for (size_t i = 0; i < kMostInstances; ++i) {
      closes.insert(closes.end(), file.opens[i], Op{.kind = OpKind::kClose, .instance = i, .file = id});
    }
  }
  for (const Op& op : closes) Do(op);
  const absl::Status finished = fs::Do(instances_[0]->FinishRemovals());
  EXPECT_TRUE(finished.ok()) << finished << Trace();
}

void History::ExpectSound() {
  const absl::StatusOr<CheckReport> report = fs::Do(CheckFileset(&pages_));
  ASSERT_TRUE(report.ok()) << report.status() << Trace();
  EXPECT_EQ(absl::StrJoin(report->problems, "\n"), "") << Trace();
  ExpectFreePagesAreZeros();
}

void History::ExpectFreePagesAreZeros() {
  const std::set<uint64_t> pages = pages_.PagesThatAreNotZeros();
  auto look = [&](Edit& edit) -> Task<absl::Status> {
    for (const uint64_t page : pages) {
      const uint64_t within = page % kGroupPages;
      const absl::StatusOr<EditPage*> group = co_await edit.Get(page - within, PageKind::kGroup, Intent::kRead);
      if (!group.ok()) co_return group.status();
      const GroupView view(*group);
      const auto i = static_cast<uint32_t>(within);
      EXPECT_TRUE(view.IsUsed(i) || view.IsMarked(i)) << "page " << page << " is free, and not zeros" << Trace();
    }
    co_return absl::OkStatus();
  };
  const absl::Status status = fs::Do(RunEdit(&pages_, look));
  EXPECT_TRUE(status.ok()) << status << Trace();
}

}  // namespace mangrove::fs
