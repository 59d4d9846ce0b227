// The power goes at every durable change. Then the tree is as before or as after the operation that was under way, what was synced is
// there, and nothing is left over.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "fs/quota.h"
#include "tests/sanitizers.h"
#include "tests/unit/fs/history.h"
#include "tests/unit/fs/random_ops.h"

namespace mangrove::fs {
namespace {

class Crashing {
 public:
  explicit Crashing(size_t instances) : history(instances) {}

  // False: the power went, and everything that must hold then was checked.
  bool Do(const Op& op);
  void EndAfter(uint64_t changes) { history.pages().EndAfter(changes); }

  History history;

 private:
  // The contents that a file has had since it was synced.
  using Versions = std::vector<std::string>;

  void Note(const PosixModel& model, FileId id);
  void AfterEnd(const Op& op, const Answer& found);
  std::vector<PosixModel> Possible(const Op& op, const Answer& found);
  void CheckContents();
  void ExpectNothingLeft();
  static bool IsOneOf(const Versions& versions, const std::string& content, uint64_t page);

  std::map<FileId, Versions> versions_;
};

void Crashing::Note(const PosixModel& model, FileId id) {
  const auto it = model.files().find(id);
  if (it == model.files().end() || !it->second.IsRegular()) return;
  Versions& versions = versions_.try_emplace(id, Versions{""}).first->second;
  if (versions.back() != it->second.content) versions.push_back(it->second.content);
}

bool Crashing::Do(const Op& op) {
  Answer last;
  const std::optional<Answer> found = history.DoUntilEnd(op, &last);
  if (!found) {
    AfterEnd(op, last);
    return false;
  }
  Note(history.model(), op.file);
  if (op.kind == OpKind::kSync && found->error == 0) {
    Versions& versions = versions_[op.file];
    if (!versions.empty()) versions.erase(versions.begin(), versions.end() - 1);
  }
  return true;
}

// What is said to have happened has; otherwise it may have. Making zeros of a range makes a hole first.
std::vector<PosixModel> Crashing::Possible(const Op& op, const Answer& found) {
  const PosixModel& before = history.model();
  PosixModel after = before;
  after.Apply(op);
  std::vector<PosixModel> possible{after};
  if (found.error == 0 && op.kind != OpKind::kRead) return possible;
  possible.push_back(before);
  if (op.kind == OpKind::kAllocate && (op.flags & FALLOC_FL_ZERO_RANGE) != 0) {
    Op hole = op;
    hole.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    possible.push_back(before);
    possible.back().Apply(hole);
  }
  return possible;
}

void Crashing::AfterEnd(const Op& op, const Answer& found) {
  const std::vector<PosixModel> possible = Possible(op, found);
  for (const PosixModel& model : possible) Note(model, op.file);
  history.Restart();
  history.Choose(possible, op);
  if (testing::Test::HasFailure()) return;
  CheckContents();
  history.ExpectSound();
  ExpectNothingLeft();
}

// The page, as far as the file goes, with zeros where a version ends.
bool Crashing::IsOneOf(const Versions& versions, const std::string& content, uint64_t page) {
  const std::string_view is = std::string_view(content).substr(page * kPageSize, kPageSize);
  return std::any_of(versions.begin(), versions.end(), [&](const std::string& version) {
    std::string was = version.size() > page * kPageSize ? version.substr(page * kPageSize, is.size()) : "";
    was.resize(is.size());
    return was == is;
  });
}

// Each page is of one of the versions; what it is has been on the disk, so it stays.
void Crashing::CheckContents() {
  std::vector<FileId> regular;
  for (const auto& [id, file] : history.model().files()) {
    if (file.IsRegular()) regular.push_back(id);
  }
  for (const FileId id : regular) {
    const Op read{.kind = OpKind::kRead, .file = id, .length = uint64_t{1} << 24};
    const Answer found = history.DoReal(read);
    PosixModel::File* const file = history.model().Find(id);
    ASSERT_EQ(found.bytes.size(), file->content.size()) << "file " << id << history.Trace();
    for (uint64_t page = 0; page * kPageSize < found.bytes.size(); ++page) {
      EXPECT_TRUE(IsOneOf(versions_[id], found.bytes, page))
          << "file " << id << " has in page " << page << " what it never had" << history.Trace();
    }
    file->content = found.bytes;
    versions_[id] = {found.bytes};
    history.Compare(read, found);
  }
}

void Crashing::ExpectNothingLeft() {
  const auto report = fs::Do(CheckFileset(&history.pages()));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->orphans, 0u) << history.Trace();
  EXPECT_EQ(report->stale_orphans, 0u) << history.Trace();
}

// --- A script of every operation --------------------------------------------------------------------------------------

// An operation, for the tree that is there.
using Step = std::function<Op(const PosixModel&)>;

Step Make(OpKind kind, const std::string& directory, const std::string& name, mode_t mode, size_t target = 0) {
  return [=](const PosixModel& model) {
    return Op{.kind = kind, .file = model.At(directory), .name = name, .mode = mode, .bytes = std::string(target, 't')};
  };
}
Step Entry(OpKind kind, const std::string& directory, const std::string& name) {
  return [=](const PosixModel& model) { return Op{.kind = kind, .file = model.At(directory), .name = name}; };
}
Step Move(const std::string& from, const std::string& name, const std::string& to, const std::string& new_name,
          int flags = 0) {
  return [=](const PosixModel& model) {
    return Op{.kind = OpKind::kRename,
              .file = model.At(from),
              .name = name,
              .other = model.At(to),
              .new_name = new_name,
              .flags = flags};
  };
}
Step LinkTo(const std::string& path, const std::string& name) {
  return [=](const PosixModel& model) { return Op{.kind = OpKind::kLink, .file = model.At(path), .new_name = name}; };
}
// Of the file that was made last.
Step WriteToNewest(uint64_t length) {
  return [=](const PosixModel& model) {
    return Op{.kind = OpKind::kWrite, .file = model.next() - 1, .bytes = std::string(length, 'n')};
  };
}
Step NameNewest(const std::string& name) {
  return [=](const PosixModel& model) { return Op{.kind = OpKind::kLink, .file = model.next() - 1, .new_name = name}; };
}
Step CloseNewest() {
  return [=](const PosixModel& model) { return Op{.kind = OpKind::kClose, .file = model.next() - 1}; };
}
Step OfFile(OpKind kind, const std::string& path) {
  return [=](const PosixModel& model) { return Op{.kind = kind, .file = model.At(path)}; };
}
Step Write(const std::string& path, uint64_t offset, uint64_t length, bool append = false) {
  return [=](const PosixModel& model) {
    const auto byte = static_cast<char>('a' + length % 26);
    return Op{.kind = OpKind::kWrite,
              .file = model.At(path),
              .offset = offset,
              .bytes = std::string(length, byte),
              .append = append};
  };
}
Step Resize(const std::string& path, uint64_t size) {
  return [=](const PosixModel& model) {
    Op op{.kind = OpKind::kSetAttributes, .file = model.At(path)};
    op.change.size_bytes = size;
    return op;
  };
}
Step Chmod(const std::string& path, mode_t mode) {
  return [=](const PosixModel& model) {
    Op op{.kind = OpKind::kSetAttributes, .file = model.At(path)};
    op.change.mode = mode;
    return op;
  };
}
Step Allocate(const std::string& path, int mode, uint64_t offset, uint64_t length) {
  return [=](const PosixModel& model) {
    return Op{.kind = OpKind::kAllocate, .file = model.At(path), .flags = mode, .offset = offset, .length = length};
  };
}
Step SetXattr(const std::string& path, const std::string& name, const std::string& value) {
  return [=](const PosixModel& model) {
    return Op{.kind = OpKind::kSetXattr, .file = model.At(path), .name = name, .bytes = value};
  };
}
Step RemoveXattr(const std::string& path, const std::string& name) {
  return
      [=](const PosixModel& model) { return Op{.kind = OpKind::kRemoveXattr, .file = model.At(path), .name = name}; };
}

constexpr int kHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

std::vector<Step> Script() {
  return {
      Make(OpKind::kMakeDirectory, "", "d", 0755),
      Make(OpKind::kMakeDirectory, "d", "e", 02770),
      SetXattr("d/e", "system.posix_acl_default", AclOf(7, 5, 0, 7)),
      Make(OpKind::kMakeDirectory, "d/e", "f", 0777),
      Make(OpKind::kMakeNode, "d/e", "a", S_IFREG | 0666),
      Make(OpKind::kMakeNode, "", "b", S_IFREG | 0644),
      Make(OpKind::kMakeNode, "", "fifo", S_IFIFO | 0644),
      Make(OpKind::kMakeSymlink, "d", "link", 0, 3'000),
      Write("b", 0, 10'000),
      Write("b", 5'000, 100),
      Write("b", 100'000, 5'000),
      OfFile(OpKind::kSync, "b"),
      Write("b", 0, 3'000, true),
      Write("b", 2'000, 9'000),
      OfFile(OpKind::kRead, "b"),
      Resize("b", 50'001),
      Resize("b", 7'777),
      OfFile(OpKind::kSync, "b"),
      Resize("b", 4'096),
      Resize("b", 60'000),
      Write("b", 30'000, 20'000),
      Allocate("b", kHole, 31'000, 9'000),
      Allocate("b", FALLOC_FL_ZERO_RANGE, 41'000, 30'000),
      Allocate("b", 0, 60'000, 40'000),
      Allocate("b", FALLOC_FL_KEEP_SIZE, 200'000, 10'000),
      Write("d/e/a", 0, 30'000),
      LinkTo("b", "b2"),
      LinkTo("d/e/a", "a2"),
      SetXattr("b", "user.long", std::string(20'000, 'x')),
      SetXattr("b", "user.long", std::string(9'000, 'y')),
      SetXattr("b", "user.short", "z"),
      SetXattr("b", "system.posix_acl_access", AclOf(6, 4, 4, 6)),
      Chmod("b", 0640),
      RemoveXattr("b", "user.long"),
      Entry(OpKind::kUnlink, "", "b2"),
      Move("", "b", "", "c"),
      Move("", "c", "d/e", "b"),
      Move("", "a2", "d/e", "b", RENAME_EXCHANGE),
      Move("", "fifo", "d", "e", RENAME_EXCHANGE),
      Move("", "fifo", "d", "g"),
      Move("d", "e", "", "fifo"),
      Move("", "a2", "", "fifo"),
      Make(OpKind::kMakeUnnamed, "", "", 0640),
      WriteToNewest(9'000),
      CloseNewest(),
      Make(OpKind::kMakeUnnamed, "d", "", 02751),
      WriteToNewest(20'000),
      NameNewest("named"),
      NameNewest("again"),
      CloseNewest(),
      Entry(OpKind::kUnlink, "", "again"),
      Entry(OpKind::kUnlink, "", "named"),
      Make(OpKind::kMakeDirectory, "", "empty", 0755),
      Move("d", "g", "", "empty"),
      OfFile(OpKind::kOpen, "empty/a"),
      Write("empty/a", 100'000, 77),
      Entry(OpKind::kUnlink, "empty", "a"),
      Entry(OpKind::kUnlink, "empty", "b"),
      Entry(OpKind::kRemoveDirectory, "empty", "f"),
      Entry(OpKind::kUnlink, "d", "link"),
      Entry(OpKind::kRemoveDirectory, "", "d"),
      Entry(OpKind::kUnlink, "", "fifo"),
  };
}

// Each step as the power goes at its each change; those before it are done.
TEST(Crash, EveryOperationHappensWholeOrNotAtAll) {
  const std::vector<Step> script = Script();
  bool has_ended = true;
  uint64_t ends = 0;
  for (; has_ended && !HasFailure(); ++ends) {
    SCOPED_TRACE(testing::Message() << "the power goes at change " << ends + 1);
    Crashing crashing(1);
    crashing.EndAfter(ends + 1);
    has_ended = false;
    for (const Step& step : script) {
      has_ended = !crashing.Do(step(crashing.history.model()));
      if (has_ended || HasFailure()) break;
    }
    crashing.history.pages().StayOn();
    if (!has_ended) crashing.history.ExpectSound();
  }
  EXPECT_GT(ends, script.size());
}

// Covers: F15
TEST(Crash, FilesetThatIsBeingMadeIsMadeByWhoeverAsksNext) {
  bool has_ended = true;
  uint64_t end = 1;
  for (; has_ended && !HasFailure(); ++end) {
    MemoryPages pages;
    pages.EndAfter(end);
    has_ended = !fs::Do(Instance::Make(&pages, {})).ok();
    pages.LosePower();
    EXPECT_TRUE(fs::Do(Instance::Make(&pages, {})).ok());
    const auto instance = fs::Do(Instance::Open(&pages));
    ASSERT_TRUE(instance.ok()) << instance.status();
    EXPECT_TRUE(fs::Do((*instance)->MakeDirectory({}, (*instance)->root(), "d", 0755)).ok());
    EXPECT_TRUE(fs::Do(CheckFileset(&pages))->IsSound());
  }
  EXPECT_GT(end, 3u);
}

// --- Files of many extents --------------------------------------------------------------------------------------------

constexpr uint64_t kManyExtents = Stream::kMostExtents + 10;

// It takes more than one transaction.
void ExpectStepIsWhole(const Step& step) {
  bool has_ended = true;
  uint64_t end = 1;
  for (; has_ended && !testing::Test::HasFailure(); ++end) {
    SCOPED_TRACE(testing::Message() << "the power goes at change " << end);
    Crashing crashing(1);
    const auto run = [&](const Step& one) { return crashing.Do(one(crashing.history.model())); };
    run(Make(OpKind::kMakeNode, "", "a", S_IFREG | 0644));
    run(Resize("a", 3 * kManyExtents * kPageSize));
    for (uint64_t i = 0; i < kManyExtents; ++i) run(Allocate("a", 0, 2 * i * kPageSize, 10));
    crashing.EndAfter(end);
    has_ended = !run(step);
  }
  EXPECT_GT(end, 3u);
}

TEST(Crash, ManyExtentsGoInStepsThatAnybodyGoesOnWith) {
  ExpectStepIsWhole(Entry(OpKind::kUnlink, "", "a"));
  ExpectStepIsWhole(Resize("a", 5'000));
  ExpectStepIsWhole(Resize("a", 0));
}

// --- Random histories -------------------------------------------------------------------------------------------------

TEST(Crash, RandomHistoriesGoOnAfterThePowerWasGone) {
  for (uint64_t seed = 1; seed <= Histories(40) && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Crashing crashing(1 + seed % 2);
    RandomOps ops(seed);
    for (int round = 0; round < 12 && !HasFailure(); ++round) {
      crashing.EndAfter(1 + ops.Below(60));
      while (!HasFailure() && crashing.Do(ops.Next(crashing.history))) {
      }
    }
  }
}

// With a quota that counts everything and refuses nothing, set at some time, changed and taken away.
TEST(Crash, WhatAQuotaCountsIsRightAfterThePowerWasGone) {
  for (uint64_t seed = 1; seed <= Histories(40) && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Crashing crashing(1 + seed % 2);
    RandomOps ops(seed);
    for (int round = 0; round < 12 && !HasFailure(); ++round) {
      const uint64_t limit = ops.Below(3) * 1'000'000;
      crashing.EndAfter(1 + ops.Below(60));
      // If the power goes here, the next operation has it.
      Do(SetQuota(&crashing.history.pages(), {.pages = limit, .inodes = limit})).IgnoreError();
      while (!HasFailure() && crashing.Do(ops.Next(crashing.history))) {
      }
    }
  }
}

}  // namespace
}  // namespace mangrove::fs
