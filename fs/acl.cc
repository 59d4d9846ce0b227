#include "fs/acl.h"

#include <sys/xattr.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr uint32_t kVersion = 2;
constexpr size_t kHeadBytes = 4;
constexpr size_t kEntryBytes = 8;
constexpr uint16_t kUserObject = 0x01;
constexpr uint16_t kUser = 0x02;
constexpr uint16_t kGroupObject = 0x04;
constexpr uint16_t kGroup = 0x08;
constexpr uint16_t kMask = 0x10;
constexpr uint16_t kOther = 0x20;

struct Entry {
  uint16_t tag = 0;
  uint16_t permissions = 0;
  uint32_t id = 0;
};
using Entries = std::vector<Entry>;

Entry* Find(Entries& entries, uint16_t tag) {
  for (Entry& entry : entries) {
    if (entry.tag == tag) return &entry;
  }
  return nullptr;
}

absl::Status Wrong(absl::string_view what) { return PosixError(EINVAL, absl::StrCat("an ACL with ", what)); }

absl::StatusOr<Entries> Decode(std::string_view acl) {
  const std::span<const char> bytes(acl);
  if (acl.size() < kHeadBytes || (acl.size() - kHeadBytes) % kEntryBytes != 0) return Wrong("a part of an entry");
  if (GetLittle<uint32_t>(bytes, 0) != kVersion) return Wrong("an unknown version");
  Entries entries;
  for (size_t at = kHeadBytes; at < acl.size(); at += kEntryBytes) {
    const Entry entry{GetLittle<uint16_t>(bytes, at), GetLittle<uint16_t>(bytes, at + 2),
                      GetLittle<uint32_t>(bytes, at + 4)};
    if (entry.permissions > 7) return Wrong("unknown permissions");
    const bool is_named = entry.tag == kUser || entry.tag == kGroup;
    if (!is_named && entry.tag != kUserObject && entry.tag != kGroupObject && entry.tag != kMask &&
        entry.tag != kOther) {
      return Wrong(absl::StrCat("an unknown tag ", entry.tag));
    }
    if (!entries.empty() && (entry.tag < entries.back().tag || (entry.tag == entries.back().tag && !is_named))) {
      return Wrong("entries out of order");
    }
    entries.push_back(entry);
  }
  const bool names = Find(entries, kUser) != nullptr || Find(entries, kGroup) != nullptr;
  if (Find(entries, kUserObject) == nullptr || Find(entries, kGroupObject) == nullptr ||
      Find(entries, kOther) == nullptr || (names && Find(entries, kMask) == nullptr)) {
    return Wrong("an entry missing");
  }
  return entries;
}

std::string Encode(const Entries& entries) {
  std::string acl(kHeadBytes + entries.size() * kEntryBytes, '\0');
  const std::span<char> bytes(acl.data(), acl.size());
  PutLittle(bytes, 0, kVersion);
  size_t at = kHeadBytes;
  for (const Entry& entry : entries) {
    PutLittle(bytes, at, entry.tag);
    PutLittle(bytes, at + 2, entry.permissions);
    PutLittle(bytes, at + 4, entry.id);
    at += kEntryBytes;
  }
  return acl;
}

// What the group's mode bits stand for: the mask where there is one.
Entry& GroupClass(Entries& entries) {
  Entry* const mask = Find(entries, kMask);
  return mask != nullptr ? *mask : *Find(entries, kGroupObject);
}

}  // namespace

absl::Status CheckAcl(std::string_view acl) { return Decode(acl).status(); }

absl::StatusOr<mode_t> ModeOfAcl(std::string_view acl) {
  absl::StatusOr<Entries> entries = Decode(acl);
  if (!entries.ok()) return entries.status();
  return static_cast<mode_t>(Find(*entries, kUserObject)->permissions) << 6 |
         static_cast<mode_t>(GroupClass(*entries).permissions) << 3 | Find(*entries, kOther)->permissions;
}

absl::StatusOr<std::string> WithMode(std::string_view acl, mode_t mode) {
  absl::StatusOr<Entries> entries = Decode(acl);
  if (!entries.ok()) return entries.status();
  Find(*entries, kUserObject)->permissions = mode >> 6 & 7;
  GroupClass(*entries).permissions = mode >> 3 & 7;
  Find(*entries, kOther)->permissions = mode & 7;
  return Encode(*entries);
}

absl::StatusOr<bool> IsMinimal(std::string_view acl) {
  absl::StatusOr<Entries> entries = Decode(acl);
  if (!entries.ok()) return entries.status();
  return entries->size() == 3;
}

absl::StatusOr<std::string> OfStreams(std::string_view acl, bool is_directory, bool only_owner_writes) {
  constexpr uint16_t kRead = 4;
  constexpr uint16_t kWrite = 2;
  constexpr uint16_t kSearch = 1;
  absl::StatusOr<Entries> entries = Decode(acl);
  if (!entries.ok()) return entries.status();
  for (Entry& entry : *entries) {
    entry.permissions &= only_owner_writes && entry.tag != kUserObject ? kRead : kRead | kWrite;
    if (is_directory && entry.permissions != 0) entry.permissions |= kSearch;
  }
  return Encode(*entries);
}

absl::StatusOr<std::string> Inherited(std::string_view default_acl, mode_t mode) {
  const absl::StatusOr<mode_t> allowed = ModeOfAcl(default_acl);
  if (!allowed.ok()) return allowed.status();
  return WithMode(default_acl, *allowed & mode);
}

}  // namespace mangrove::fs
