#include <algorithm>
#include <cerrno>
#include <set>

#include "absl/strings/str_cat.h"
#include "fs/checker.h"
#include "fs/group_page.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr int kMostRounds = 5;
constexpr size_t kMostDepth = 4'000;  // Of directories that one edit looks at.

}  // namespace

Checker::Known* Checker::Find(uint64_t number) {
  const auto it = std::lower_bound(inodes_.begin(), inodes_.end(), number,
                                   [](const Known& known, uint64_t wanted) { return known.number < wanted; });
  return it != inodes_.end() && it->number == number ? &*it : nullptr;
}

// What it says before names are counted.
Task<absl::Status> Checker::LoadInode(uint64_t number) {
  Known known;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    known = {};
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{number}, Intent::kRead);
    if (inode.ok() && IsType(inode->mode() & S_IFMT)) {
      const absl::StatusOr<EditPage*> page = co_await edit.Get(number, PageKind::kInode, Intent::kRead);
      if (!page.ok()) co_return page.status();
      known.number = number;
      known.state = StateOf((*page)->bytes());
      known.parent = inode->parent().value;
      known.links = inode->links();
      known.type = inode->mode() & S_IFMT;
      known.is_shrinking = inode->Has(Inode::kShrinking);
      known.is_stream = inode->Has(Inode::kStream);
      known.is_of_streams = inode->Has(Inode::kStreams);
      known.has_streams = inode->streams() != InodeNumber{} || inode->stream_pages() != 0;
      if (const auto place = inode->orphan_place())
        known.orphan_place = static_cast<uint8_t>(std::min(*place, kNodePlaces) + 1);
      co_return absl::OkStatus();
    }
    if (!inode.ok() && !IsDamage(inode.status())) co_return inode.status();
    const absl::StatusOr<bool> is_marked = co_await IsMarked(&edit, number);
    if (is_marked.ok() && *is_marked) known.number = number;
    co_return is_marked.status();
  };
  const absl::Status status = co_await Look(body);
  if (status.ok() && known.number != 0) inodes_.push_back(known);
  co_return status;
}

// Window after window: what inodes say, then the names of all directories, then what is different.
Task<absl::Status> Checker::CheckNames() {
  low_ = 0;
  for (uint64_t i = 0; i < counts_[static_cast<size_t>(Zone::kMetadata)];) {
    inodes_.clear();
    const bool is_first = low_ == 0;
    const uint64_t begin = i;
    for (; i < counts_[static_cast<size_t>(Zone::kMetadata)]; ++i) {
      if (i > begin && inodes_.size() + kGroupPages > options_.most_inodes) break;
      const absl::StatusOr<std::vector<uint64_t>> numbers = co_await MarkedInodes(GroupAt(i));
      if (!numbers.ok()) co_return numbers.status();
      for (const uint64_t number : *numbers) {
        const absl::Status status = co_await LoadInode(number);
        if (!status.ok()) co_return status;
      }
    }
    high_ = GroupAt(i - 1).first + kGroupPages;
    for (const Known& known : inodes_) {
      if (known.type == 0 || known.is_of_streams) continue;
      ++(known.is_stream       ? report_.streams
         : S_ISDIR(known.type) ? report_.directories
         : S_ISREG(known.type) ? report_.files
                               : report_.others);
    }
    absl::Status status = co_await SweepPlaces(true);
    for (size_t at = 0; status.ok() && at < inodes_.size(); ++at) {
      if (inodes_[at].has_streams) status = co_await CheckStreams(inodes_[at].number);
    }
    for (int round = 1; status.ok() && !inodes_.empty(); ++round) {
      is_whole_window_ = round == 1;
      status = co_await SweepNames(is_first && round == 1);
      std::vector<uint64_t> again;
      for (size_t at = 0; status.ok() && at < inodes_.size(); ++at) {
        if (IsFine(inodes_[at], root_)) continue;
        absl::StatusOr<bool> judged = false;
        if (round == 1) {
          judged = co_await IsSoundDirectoryOfStreams(inodes_[at]);
        } else {
          judged = co_await Judge(inodes_[at]);
        }
        status = judged.status();
        if (judged.ok() && !*judged) again.push_back(inodes_[at].number);
      }
      for (size_t at = 0; status.ok() && round == 1 && at < inodes_.size(); ++at) {
        status = co_await Reach(inodes_[at].number);
      }
      if (round == kMostRounds) report_.unjudged += again.size();
      inodes_.clear();
      for (const uint64_t number : again) {
        if (status.ok() && round < kMostRounds) status = co_await LoadInode(number);
      }
    }
    if (!status.ok()) co_return status;
    low_ = high_;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Checker::SweepNames(bool is_first) {
  const uint64_t groups = counts_[static_cast<size_t>(Zone::kMetadata)];
  Doing("reads directories", groups);
  for (uint64_t i = 0; i < groups; ++i) {
    const absl::StatusOr<std::vector<uint64_t>> numbers = co_await MarkedInodes(GroupAt(i));
    if (!numbers.ok()) co_return numbers.status();
    for (const uint64_t number : *numbers) {
      const Known* const known = Find(number);
      // It may be a directory by now, of inodes that were looked at later than this one: so nothing is judged in the first round.
      if (is_whole_window_ && known != nullptr && known->type != 0 && !S_ISDIR(known->type)) continue;
      const absl::Status status = co_await SweepEntries(number, is_first);
      if (!status.ok()) co_return status;
    }
    if (options_.progress != nullptr) options_.progress->done = i + 1;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Checker::SweepEntries(uint64_t directory, bool is_first) {
  const std::string whose = absl::StrCat("inode ", directory);
  TreeStep step;
  Above above;
  do {
    const uint64_t from = step.next;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      step = {};
      const absl::Status counted = co_await ReadCounts(&edit);
      if (!counted.ok()) co_return counted;
      const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{directory}, Intent::kRead);
      is_lossy_ = is_lossy_ || absl::IsDataLoss(inode.status());
      if (!inode.ok() || !inode->IsDirectory()) {
        co_return inode.ok() || IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
      }
      const std::function<bool(uint64_t)> may_be_node = [this](uint64_t child) { return HasGroup(child, false); };
      above = {directory, inode->parent().value, inode->Has(Inode::kStreams)};
      CheckedTree tree(&edit, inode->main_root(), &whose, &may_be_node);
      co_return co_await tree.Step(from, options_.records_at_once, &step);
    };
    absl::Status status = co_await Look(body);
    is_lossy_ = is_lossy_ || step.is_lossy;
    for (const TreeRecord& record : step.records) {
      if (CountEntry(above, record, is_first)) continue;
      if (status.ok()) status = co_await CheckEntry(directory, record.key);
    }
    if (!status.ok()) co_return status;
  } while (!step.is_last);
  co_return absl::OkStatus();
}

// False: it does not fit, and is to be looked at again.
bool Checker::CountEntry(Above directory, const TreeRecord& record, bool is_first) {
  const absl::StatusOr<Directory::Entry> entry = Directory::Decode(record);
  if (!entry.ok()) return !is_first;
  bool fits = CheckName(entry->name).ok() && Directory::MayHave(record.key, entry->name);
  const uint64_t number = entry->inode.value;
  if (Known* const known = Find(number); known != nullptr) {
    if (known->names == 0) known->first_in = directory.number;
    known->last_in = directory.number;
    ++known->names;
    fits = fits && known->type == entry->type && known->is_stream == directory.is_of_streams && !known->is_of_streams;
    if (known->is_stream) fits = fits && known->parent == directory.parent;
  } else {
    const bool is_missing = is_whole_window_ && number >= low_ && number < high_;
    fits = fits && !is_missing && (!is_first || HasGroup(number, false));
  }
  if (S_ISDIR(entry->type)) {
    if (Known* const parent = Find(directory.number); parent != nullptr) ++parent->subdirectories;
  }
  return fits;
}

Task<absl::Status> Checker::CheckEntry(uint64_t directory, uint64_t key) {
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::Status counted = co_await ReadCounts(&edit);
    if (!counted.ok()) co_return counted;
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{directory}, intent());
    if (!inode.ok() || !inode->IsDirectory()) {
      co_return inode.ok() || IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
    }
    Tree tree(&edit, &space_, inode->main_root());
    absl::StatusOr<std::optional<std::string>> value = co_await tree.Get(key);
    if (!value.ok()) co_return IsDamage(value.status()) ? absl::OkStatus() : value.status();
    if (!value->has_value()) co_return absl::OkStatus();
    TreeRecord record{key, **std::move(value)};
    co_return co_await CheckEntryIn(&edit, *inode, std::move(record));
  };
  co_return co_await Look(body);
}

Task<absl::Status> Checker::CheckEntryIn(Edit* edit, Inode directory, TreeRecord record) {
  const std::string whose = absl::StrCat("inode ", directory.number().value, ", a directory: ");
  const absl::StatusOr<Directory::Entry> entry = Directory::Decode(record);
  Directory entries(edit, &space_, directory);
  absl::Status wrong = entry.status();
  if (entry.ok()) wrong = CheckName(entry->name);
  if (!wrong.ok()) {
    Found(absl::StrCat(whose, wrong.message()), options_.repair ? "the entry is removed" : "");
    if (!options_.repair) co_return absl::OkStatus();
    co_return co_await entries.Remove(record.key);
  }
  if (Directory::MayHave(record.key, entry->name)) co_return co_await CheckNamed(edit, directory, *entry);
  Found(absl::StrCat("\"", entry->name, "\" in the directory of inode ", directory.number().value, " has key ",
                     record.key, ", where nobody finds it"),
        options_.repair ? "it is where it belongs now" : "");
  if (!options_.repair) co_return absl::OkStatus();
  absl::Status status = co_await entries.Remove(record.key);
  if (!status.ok()) co_return status;
  const absl::StatusOr<std::optional<Directory::Entry>> other = co_await entries.Find(entry->name);
  if (!other.ok() || other->has_value()) co_return other.status();
  co_return co_await entries.Add(entry->name, entry->inode, entry->type);
}

// What the entry is a name of.
Task<absl::Status> Checker::CheckNamed(Edit* edit, Inode directory, Directory::Entry entry) {
  const std::string name = absl::StrCat("\"", entry.name, "\" in the directory of inode ", directory.number().value);
  const uint64_t number = entry.inode.value;
  Directory entries(edit, &space_, directory);
  absl::StatusOr<Inode> inode = PosixError(ESTALE, "it is in no group of metadata");
  if (HasGroup(number, false)) inode = co_await Inode::Get(edit, entry.inode, Intent::kRead);
  if (!inode.ok() && !IsDamage(inode.status())) co_return inode.status();
  if (!inode.ok() || !IsType(inode->mode() & S_IFMT)) {
    // What cannot be read may be read again one day.
    const bool removes = options_.repair && !absl::IsDataLoss(inode.status());
    Found(absl::StrCat(name, " is inode ", number, ", which is nobody's"), removes ? "it is removed" : "");
    if (!removes) co_return absl::OkStatus();
    Inode changed = directory;
    changed.set_changed(pages_->NowNs());
    co_return co_await entries.Remove(entry.key);
  }
  const absl::StatusOr<bool> belongs = co_await BelongsThere(edit, directory, *inode, entry);
  if (!belongs.ok() || !*belongs) co_return belongs.status();
  const mode_t type = inode->mode() & S_IFMT;
  if (type != entry.type) {
    Found(absl::StrCat(name, " has type ", absl::Hex(entry.type), ", inode ", number, " has ", absl::Hex(type)),
          options_.repair ? "it has that type now" : "");
    absl::Status status;
    if (options_.repair) status = co_await entries.Replace(entry, entry.inode, type);
    if (!status.ok()) co_return status;
  }
  const absl::StatusOr<EditPage*> group = co_await edit->Get(FirstOf(number), PageKind::kGroup, intent());
  if (!group.ok()) co_return IsDamage(group.status()) ? absl::OkStatus() : group.status();
  const auto i = static_cast<uint32_t>(number % kGroupPages);
  const GroupView view(*group);
  if (view.IsUsed(i) && view.IsMarked(i)) co_return absl::OkStatus();
  Found(absl::StrCat(name, " is inode ", number, ", and its group does not say that it is one"),
        options_.repair ? "it says so now" : "");
  if (options_.repair) GroupEditor(*group).Set({i, 1}, true, true);
  co_return absl::OkStatus();
}

// K7. False: it is among others, and has no name there any more if that was to be repaired.
Task<absl::StatusOr<bool>> Checker::BelongsThere(Edit* edit, Inode directory, Inode inode, Directory::Entry entry) {
  const std::string name = absl::StrCat("\"", entry.name, "\" in the directory of inode ", directory.number().value);
  const uint64_t number = inode.number().value;
  const bool is_stream = inode.Has(Inode::kStream);
  if (is_stream != directory.Has(Inode::kStreams) || inode.Has(Inode::kStreams)) {
    Found(
        absl::StrCat(name, " is inode ", number, ", which belongs ", is_stream ? "among streams" : "not among streams"),
        options_.repair ? "it is removed" : "");
    if (!options_.repair) co_return false;
    directory.set_changed(pages_->NowNs());
    Directory entries(edit, &space_, directory);
    const absl::Status removed = co_await entries.Remove(entry.key);
    if (!removed.ok()) co_return removed;
    co_return false;
  }
  if (!is_stream || inode.parent() == directory.parent()) co_return true;
  Found(absl::StrCat("inode ", number, ", a stream, says that it is of inode ", inode.parent().value,
                     ", and is among the streams of another one, inode ", directory.parent().value),
        options_.repair ? "it says so now" : "");
  if (!options_.repair) co_return true;
  absl::StatusOr<Inode> changed = co_await Inode::Get(edit, inode.number(), Intent::kWrite);
  if (!changed.ok()) co_return changed.status();
  changed->set_parent(directory.parent());
  co_return true;
}

// --- Links ------------------------------------------------------------------------------------------------------------

bool Checker::IsFine(const Known& known, uint64_t root) {
  if (known.type == 0) return false;
  if (known.IsUnfinished() && !known.is_orphan) return false;
  if (known.is_of_streams) return false;  // Its owner is to be asked.
  if (!S_ISDIR(known.type)) return known.links == known.names;
  if (known.links == 0) return known.names == 0 && known.subdirectories == 0;
  if (known.links != 2 + known.subdirectories) return false;
  if (known.number == root) return known.names == 0;
  return known.names == 1 && known.parent == known.last_in;
}

// It has no name that could be counted.
Task<absl::StatusOr<bool>> Checker::IsSoundDirectoryOfStreams(Known known) {
  if (!known.is_of_streams || known.IsUnfinished() || known.names > 0) co_return false;
  bool is_sound = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    is_sound = false;
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{known.number}, Intent::kRead);
    if (!inode.ok()) co_return IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
    if (!inode->Has(Inode::kStreams)) co_return absl::OkStatus();
    const absl::StatusOr<bool> is_named = co_await IsNamedByOwner(&edit, *inode);
    is_sound = is_named.ok() && *is_named;
    co_return is_named.status();
  };
  const absl::Status status = co_await Look(body);
  if (!status.ok()) co_return status;
  co_return is_sound;
}

// False: it was changed since before names were counted.
Task<absl::StatusOr<bool>> Checker::Judge(Known known) {
  if (known.type == 0) {
    absl::Status freed;
    if (options_.repair && known.names == 0) freed = co_await FreeDamagedInode(known.number);
    if (!freed.ok()) co_return freed;
    co_return true;
  }
  bool is_steady = true;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    is_steady = true;
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{known.number}, intent());
    if (!inode.ok()) co_return IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
    const absl::StatusOr<EditPage*> page = co_await edit.Get(known.number, PageKind::kInode, Intent::kRead);
    if (!page.ok()) co_return page.status();
    is_steady = StateOf((*page)->bytes()) == known.state;
    if (!is_steady) co_return absl::OkStatus();
    absl::Status status;
    if (known.IsUnfinished() && !known.is_orphan) {
      status = co_await JudgeOrphan(&edit, *inode, &known);
    }
    if (!status.ok()) co_return status;
    if (known.is_of_streams) {
      const absl::StatusOr<bool> is_named = co_await IsNamedByOwner(&edit, *inode);
      if (!is_named.ok() || *is_named) co_return is_named.status();
    }
    if (S_ISDIR(known.type)) co_return co_await JudgeDirectory(&edit, *inode, &known);
    co_return co_await JudgeFile(&edit, *inode, &known);
  };
  const absl::Status status = co_await Look(body);
  if (!status.ok()) co_return status;
  if (!is_steady || !options_.repair || !S_ISDIR(known.type) || known.is_of_streams) {
    co_return is_steady;
  }
  const bool is_root = known.number == root_;
  if (known.names > (is_root ? 0U : 1U)) {
    const absl::Status dropped = co_await DropSecondName(known);
    if (!dropped.ok()) co_return dropped;
  }
  co_return true;
}

// Whether the place that it names knows it.
Task<absl::StatusOr<bool>> Checker::IsOrphan(Edit* edit, Inode inode) {
  const std::optional<uint64_t> place = inode.orphan_place();
  if (!place || *place >= kNodePlaces) co_return false;
  const absl::StatusOr<EditPage*> page = co_await edit->Get(kFirstPlacePage + *place, PageKind::kPlace, Intent::kRead);
  if (IsDamage(page.status())) co_return true;  // It may be in that one.
  if (!page.ok()) co_return page.status();
  Tree tree(edit, &space_, PlaceRoot(*page));
  const absl::StatusOr<std::optional<std::string>> found = co_await tree.Get(inode.number().value);
  if (IsDamage(found.status())) co_return true;
  if (!found.ok()) co_return found.status();
  co_return found->has_value();
}

Task<absl::Status> Checker::JudgeOrphan(Edit* edit, Inode inode, const Known* known) {
  const absl::StatusOr<bool> is_orphan = co_await IsOrphan(edit, inode);
  if (!is_orphan.ok() || *is_orphan) co_return is_orphan.status();
  const bool is_unfinished = known->links == 0 || known->is_shrinking;
  const char* const done = is_unfinished ? "the next mount goes on with it" : "it does not say so any more";
  Found(absl::StrCat("inode ", known->number,
                     known->links == 0     ? " has no links"
                     : known->is_shrinking ? " is being made shorter"
                                           : " says that it is an orphan",
                     ", and no node's place knows it"),
        options_.repair ? done : "");
  if (!options_.repair) co_return absl::OkStatus();
  if (!is_unfinished) {
    inode.set_orphan_place(std::nullopt);
    co_return absl::OkStatus();
  }
  const uint64_t number = pages_->NodePlace();
  const absl::StatusOr<EditPage*> place =
      co_await edit->Get(kFirstPlacePage + number, PageKind::kPlace, Intent::kWrite);
  if (!place.ok()) co_return place.status();
  inode.set_orphan_place(number);
  Tree orphans(edit, &space_, PlaceRoot(*place));
  co_return co_await orphans.Put(inode.number().value, std::string(1, '\0'));
}

Task<absl::Status> Checker::JudgeFile(Edit* edit, Inode inode, const Known* known) {
  if (known->links == known->names) co_return absl::OkStatus();
  const std::string problem =
      absl::StrCat("inode ", known->number, " has ", known->links, " links and ", known->names, " names");
  if (!options_.repair || is_lossy_) {
    Found(problem);
    co_return absl::OkStatus();
  }
  inode.set_changed(pages_->NowNs());
  if (known->names > 0) {
    inode.set_links(known->names);
    Found(problem, "its links are its names now");
    co_return absl::OkStatus();
  }
  inode.set_links(1);
  const absl::StatusOr<std::string> name = co_await PutIntoLostAndFound(edit, inode);
  if (name.ok()) Found(problem, absl::StrCat("it is ", *name, " now"));
  co_return name.status();
}

Task<absl::Status> Checker::JudgeDirectory(Edit* edit, Inode inode, const Known* known) {
  const std::string whose = absl::StrCat("inode ", known->number, ", a directory, ");
  const bool is_root = known->number == root_;
  const bool is_nobodys = known->links == 0 && known->names == 0 && known->subdirectories == 0;
  if (is_nobodys) co_return absl::OkStatus();
  if (is_root && known->names > 0) {
    if (!options_.repair) Found(absl::StrCat("inode ", root_, ", the root, has a name in inode ", known->last_in));
  } else if (!is_root && known->names == 0) {
    std::string done;
    if (options_.repair && !is_lossy_) {
      const absl::StatusOr<std::string> name = co_await PutIntoLostAndFound(edit, inode);
      if (!name.ok()) co_return name.status();
      done = absl::StrCat("it is ", *name, " now");
    }
    Found(absl::StrCat(whose, "has 0 names"), done);
  } else if (!is_root && known->names > 1) {
    if (!options_.repair) Found(absl::StrCat(whose, "has ", known->names, " names"));
  } else if (!is_root && known->parent != known->last_in) {
    Found(absl::StrCat(whose, "says that it is in inode ", known->parent, ", and is in ", known->last_in),
          options_.repair ? "it says so now" : "");
    if (options_.repair) inode.set_parent({known->last_in});
  }
  if (known->links != 2 + known->subdirectories) {
    Found(absl::StrCat(whose, "has ", known->links, " links and ", known->subdirectories, " subdirectories"),
          options_.repair && !is_lossy_ ? "it counts them now" : "");
    if (options_.repair && !is_lossy_) inode.set_links(2 + known->subdirectories);
  }
  co_return absl::OkStatus();
}

// Of a directory: a name that is not where it says that it is.
Task<absl::Status> Checker::DropSecondName(Known known) {
  const bool first_stays = known.first_in == known.parent && known.number != root_;
  const uint64_t directory = first_stays ? known.last_in : known.first_in;
  const absl::StatusOr<uint64_t> key = co_await FindName(directory, known.number);
  if (!key.ok() || *key == 0) co_return key.status();
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<bool> removed = co_await RemoveName(&edit, directory, *key, known.number);
    if (!removed.ok() || !*removed) co_return removed.status();
    Found(absl::StrCat("inode ", known.number, ", a directory, has ", known.names, " names"),
          absl::StrCat("the one in inode ", directory, " is removed"));
    co_return absl::OkStatus();
  };
  co_return co_await Look(body);
}

// Nothing names it any more.
Task<absl::Status> Checker::FreeDamagedInode(uint64_t number) {
  if (is_lossy_) co_return absl::OkStatus();  // What cannot be read may name it.
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{number}, Intent::kWrite);
    const bool is_file = inode.ok() && IsType(inode->mode() & S_IFMT);
    if (is_file || absl::IsDataLoss(inode.status())) co_return absl::OkStatus();
    if (!inode.ok() && !IsDamage(inode.status())) co_return inode.status();
    const absl::StatusOr<EditPage*> group = co_await edit.Get(FirstOf(number), PageKind::kGroup, Intent::kWrite);
    if (!group.ok()) co_return group.status();
    const auto i = static_cast<uint32_t>(number % kGroupPages);
    if (!GroupView(*group).IsMarked(i)) co_return absl::OkStatus();
    GroupEditor(*group).Set({i, 1}, false, false);
    if (inode.ok()) inode->set_mode(0);
    Found(absl::StrCat("inode ", number, " is damaged"), "it is free now; what it had is lost");
    co_return absl::OkStatus();
  };
  co_return co_await Look(body);
}

// --- The tree ---------------------------------------------------------------------------------------------------------

// Whether a directory is found from the root: those above it are.
Task<absl::Status> Checker::Reach(uint64_t number) {
  const Known* known = Find(number);
  if (known == nullptr || !S_ISDIR(known->type) || known->links == 0 || known->is_reached) co_return absl::OkStatus();
  std::set<uint64_t> way;
  uint64_t at = number;
  bool is_circle = false;
  while (at != root_) {
    is_circle = !way.insert(at).second;
    if (is_circle) break;
    uint64_t parent = 0;
    if (const Known* const here = Find(at); here != nullptr) {
      if (here->is_reached) break;
      parent = S_ISDIR(here->type) ? here->parent : 0;
    } else if (HasGroup(at, false)) {
      auto body = [&](Edit& edit) -> Task<absl::Status> {
        const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{at}, Intent::kRead);
        if (inode.ok() && inode->IsDirectory()) parent = inode->parent().value;
        co_return inode.ok() || IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
      };
      const absl::Status status = co_await Look(body);
      if (!status.ok()) co_return status;
    }
    if (parent == 0) break;  // Said elsewhere: it has no name, or its name's directory is nobody's.
    at = parent;
  }
  for (const uint64_t one : way) {
    if (Known* const here = Find(one); here != nullptr) here->is_reached = true;
  }
  if (is_circle) co_return co_await CheckCircle(at);
  co_return absl::OkStatus();
}

// Directories that are in each other; all of them are read in one edit. The first of them goes to lost+found.
Task<absl::Status> Checker::CheckCircle(uint64_t number) {
  uint64_t key = 0;
  uint64_t above = 0;
  auto look = [&](Edit& edit) -> Task<absl::Status> {
    std::vector<uint64_t> circle;
    uint64_t at = number;
    do {
      const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{at}, intent());
      if (!inode.ok() || !inode->IsDirectory() || at == root_ || circle.size() == kMostDepth) {
        co_return inode.ok() || IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
      }
      circle.push_back(at);
      at = inode->parent().value;
    } while (at != number && HasGroup(at, false));
    if (at != number) co_return absl::OkStatus();
    if (!options_.repair) {
      for (const uint64_t one : circle) Found(absl::StrCat("inode ", one, ", a directory, is not found from the root"));
      co_return absl::OkStatus();
    }
    const absl::StatusOr<Inode> first = co_await Inode::Get(&edit, InodeNumber{number}, Intent::kWrite);
    if (!first.ok()) co_return first.status();
    above = first->parent().value;
    if (key == 0) co_return absl::OkStatus();
    const absl::StatusOr<bool> removed = co_await RemoveName(&edit, above, key, number);
    if (!removed.ok() || !*removed) co_return removed.status();
    const absl::StatusOr<std::string> name = co_await PutIntoLostAndFound(&edit, *first);
    if (name.ok()) {
      Found(absl::StrCat("inode ", number, ", a directory, is not found from the root"),
            absl::StrCat("it is ", *name, " now"));
    }
    co_return name.status();
  };
  absl::Status status = co_await Look(look);
  if (!status.ok() || above == 0) co_return status;
  const absl::StatusOr<uint64_t> found = co_await FindName(above, number);
  if (!found.ok() || *found == 0) co_return found.status();
  key = *found;
  co_return co_await Look(look);
}

}  // namespace mangrove::fs
