#include "tests/unit/fs/random_ops.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <cstdio>
#include <set>
#include <vector>

namespace mangrove::fs {
namespace {

constexpr uint64_t kMostPlace = 40'000;
const std::string kAclNames[] = {"system.posix_acl_access", "system.posix_acl_default"};

}  // namespace

std::string AclOf(int user, int group, int other, int mask) {
  std::string acl("\2\0\0\0", 4);
  const auto add = [&](int tag, int permissions, uint32_t id) {
    acl += {static_cast<char>(tag), 0, static_cast<char>(permissions), 0};
    acl.append(reinterpret_cast<const char*>(&id), sizeof(id));
  };
  add(1, user, ~0U);
  if (mask >= 0) add(2, 5, 1000);
  add(4, group, ~0U);
  if (mask >= 0) add(16, mask, ~0U);
  add(32, other, ~0U);
  return acl;
}

// Now and then one that is gone, as long as no other file has its number.
FileId RandomOps::AnyFile(History& history, mode_t type) {
  PosixModel& model = history.model();
  if (OneIn(50)) {
    std::set<InodeNumber> used;
    for (const auto& [id, file] : model.files()) used.insert(history.Number(id));
    const FileId id = kRootFile + Below(model.next() - kRootFile);
    if (!used.contains(history.Number(id))) return id;
  }
  std::vector<FileId> fitting;
  for (const auto& [id, file] : model.files()) {
    if (type == 0 || file.type() == type) fitting.push_back(id);
  }
  return fitting.empty() ? kRootFile : fitting[Below(fitting.size())];
}

FileId RandomOps::AnyDirectory(History& history) { return AnyFile(history, OneIn(40) ? 0 : S_IFDIR); }

std::string RandomOps::AnyName() {
  if (OneIn(100)) return OneIn(2) ? std::string(256, 'n') : "..";
  if (OneIn(10)) return std::string(1 + Below(255), static_cast<char>('a' + Below(3)));
  return {static_cast<char>('a' + Below(6))};
}

// Mostly of one that is there.
std::string RandomOps::AnyEntry(History& history, FileId directory) {
  const PosixModel::File* const file = history.model().Find(directory);
  if (file == nullptr || file->entries.empty() || OneIn(6)) return AnyName();
  auto it = file->entries.begin();
  std::advance(it, Below(file->entries.size()));
  return it->first;
}

std::string RandomOps::AnyBytes() {
  const uint64_t length = OneIn(4) ? Below(20'000) : 1 + Below(300);
  std::string bytes(length, static_cast<char>('A' + Below(26)));
  for (size_t at = 0; at < length; at += 1 + Below(500)) bytes[at] = static_cast<char>(Below(256));
  return bytes;
}

uint64_t RandomOps::AnyPlace() {
  const uint64_t place = Below(kMostPlace);
  return OneIn(3) ? place / kPageSize * kPageSize : place;
}

void RandomOps::OfMaking(Op* op) {
  static constexpr mode_t kTypes[] = {S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
  op->name = AnyName();
  op->caller = {static_cast<uid_t>(Below(3)), static_cast<gid_t>(Below(3)), OneIn(2) ? mode_t{022} : mode_t{0}};
  op->mode = static_cast<mode_t>(Below(010000));
  op->device = Below(1'000);
  if (op->kind == OpKind::kMakeNode) op->mode |= kTypes[Below(std::size(kTypes))];
  if (op->kind == OpKind::kMakeSymlink) op->bytes = std::string(OneIn(4) ? Below(4'100) : Below(60), 't');
}

void RandomOps::OfRename(History& history, Op* op) {
  static constexpr int kFlags[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE, 8};
  op->name = AnyEntry(history, op->file);
  op->other = OneIn(2) ? op->file : AnyFile(history, S_IFDIR);
  op->new_name = OneIn(2) ? AnyEntry(history, op->other) : AnyName();
  op->flags = kFlags[Below(std::size(kFlags))];
  // Which of two wrong directories is named first is not fixed.
  const PosixModel::File* const from = history.model().Find(op->file);
  if (from == nullptr || !from->IsDirectory()) op->other = kRootFile;
}

void RandomOps::OfName(History& history, Op* op) {
  op->file = AnyDirectory(history);
  switch (op->kind) {
    case OpKind::kMakeNode:
    case OpKind::kMakeDirectory:
    case OpKind::kMakeSymlink: OfMaking(op); break;
    case OpKind::kMakeUnnamed:
      OfMaking(op);
      op->flags = OneIn(4) ? O_EXCL : 0;
      break;
    case OpKind::kRename: OfRename(history, op); break;
    default: op->name = AnyEntry(history, op->file); break;
  }
}

void RandomOps::OfAttributes(Op* op) {
  AttributesChange& change = op->change;
  if (OneIn(2)) change.size_bytes = AnyPlace();
  if (OneIn(4)) change.mode = static_cast<mode_t>(Below(010000));
  if (OneIn(6)) change.uid = Below(3);
  if (OneIn(6)) change.gid = Below(3);
  if (OneIn(6)) change.accessed_ns = static_cast<int64_t>(Below(2'000'000'000'000));
  if (OneIn(6)) change.modified_ns = static_cast<int64_t>(Below(2'000'000'000'000));
}

void RandomOps::OfXattr(Op* op) {
  op->name = OneIn(3) ? kAclNames[Below(2)] : "user." + std::to_string(Below(4));
  op->xattr_mode = static_cast<XattrMode>(Below(3));
  op->bytes = std::string(OneIn(5) ? Below(3'000) : Below(60), static_cast<char>('v' + Below(3)));
  if (op->kind != OpKind::kSetXattr || op->name[0] != 's' || OneIn(8)) return;
  op->xattr_mode = XattrMode::kAny;
  const auto any = [&] { return static_cast<int>(Below(8)); };
  op->bytes = AclOf(any(), any(), any(), OneIn(3) ? -1 : any());
}

void RandomOps::OfData(History& history, Op* op) {
  static constexpr int kModes[] = {0,
                                   FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_ZERO_RANGE,
                                   FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_PUNCH_HOLE};
  op->file = AnyFile(history, OneIn(40) ? 0 : S_IFREG);
  op->offset = AnyPlace();
  op->length = OneIn(40) ? 0 : OneIn(3) ? (1 + Below(5)) * kPageSize : 1 + Below(9'000);
  if (op->kind == OpKind::kAllocate) op->flags = kModes[Below(std::size(kModes))];
  if (op->kind == OpKind::kSeek) op->flags = OneIn(2) ? SEEK_DATA : SEEK_HOLE;
  if (op->kind != OpKind::kWrite) return;
  op->bytes = AnyBytes();
  op->append = OneIn(3);
}

Op RandomOps::Next(History& history) {
  static constexpr std::pair<OpKind, int> kWeights[] = {
      {OpKind::kLookup, 2},         {OpKind::kMakeNode, 12}, {OpKind::kMakeDirectory, 8}, {OpKind::kMakeSymlink, 3},
      {OpKind::kMakeUnnamed, 3},    {OpKind::kLink, 6},      {OpKind::kUnlink, 8},        {OpKind::kRemoveDirectory, 4},
      {OpKind::kRename, 16},        {OpKind::kReadLink, 1},  {OpKind::kParent, 1},        {OpKind::kGetAttributes, 2},
      {OpKind::kSetAttributes, 12}, {OpKind::kGetXattr, 2},  {OpKind::kSetXattr, 10},     {OpKind::kRemoveXattr, 3},
      {OpKind::kListXattr, 1},      {OpKind::kOpen, 6},      {OpKind::kClose, 5},         {OpKind::kRead, 4},
      {OpKind::kWrite, 20},         {OpKind::kAllocate, 8},  {OpKind::kSeek, 3},          {OpKind::kSync, 2}};
  int all = 0;
  for (const auto& [kind, weight] : kWeights) all += weight;
  auto at = static_cast<int>(Below(static_cast<uint64_t>(all)));
  const auto* chosen = std::begin(kWeights);
  while (at >= chosen->second) at -= (chosen++)->second;
  Op op{.kind = chosen->first, .instance = Below(history.instances())};
  switch (op.kind) {
    case OpKind::kLookup:
    case OpKind::kMakeNode:
    case OpKind::kMakeDirectory:
    case OpKind::kMakeSymlink:
    case OpKind::kMakeUnnamed:
    case OpKind::kUnlink:
    case OpKind::kRemoveDirectory:
    case OpKind::kRename: OfName(history, &op); break;
    case OpKind::kLink:
      op.file = AnyFile(history, OneIn(10) ? 0 : S_IFREG);
      op.other = AnyDirectory(history);
      op.new_name = AnyName();
      break;
    case OpKind::kOpen:
    case OpKind::kClose: op.file = AnyFile(history, S_IFREG); break;
    case OpKind::kRead:
    case OpKind::kWrite:
    case OpKind::kAllocate:
    case OpKind::kSeek: OfData(history, &op); break;
    case OpKind::kReadLink: op.file = AnyFile(history, OneIn(3) ? 0 : S_IFLNK); break;
    default:
      op.file = AnyFile(history, OneIn(2) ? S_IFREG : 0);
      if (op.kind == OpKind::kSetAttributes) OfAttributes(&op);
      OfXattr(&op);
  }
  return op;
}

}  // namespace mangrove::fs
