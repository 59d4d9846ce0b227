#include "fs/directory.h"

#include <xxhash.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kSameHash = 256;
constexpr size_t kTypeAt = 8;
constexpr size_t kNameAt = 16;
constexpr int kTypeShift = 12;

// The first key of names of this hash.
uint64_t KeyOf(std::string_view name) {
  const uint64_t hash = XXH3_64bits(name.data(), name.size()) >> 9;
  return (hash == 0 ? 1 : hash) * kSameHash;
}

std::string Encode(std::string_view name, InodeNumber inode, mode_t type) {
  std::string value(kNameAt, '\0');
  const std::span<char> bytes(value.data(), value.size());
  PutLittle(bytes, 0, inode.value);
  value[kTypeAt] = static_cast<char>(type >> kTypeShift);
  value.append(name);
  return value;
}

}  // namespace

absl::StatusOr<Directory::Entry> Directory::Decode(const TreeRecord& record) {
  if (record.value.size() <= kNameAt || record.value.size() > kNameAt + kMostNameBytes) {
    return PosixError(EIO, absl::StrCat("a directory's entry of ", record.value.size(), " bytes"));
  }
  const std::span<const char> bytes(record.value);
  return Directory::Entry{.key = record.key,
                          .inode = {GetLittle<uint64_t>(bytes, 0)},
                          .type = static_cast<mode_t>(static_cast<unsigned char>(record.value[kTypeAt])) << kTypeShift,
                          .name = record.value.substr(kNameAt)};
}

bool Directory::MayHave(uint64_t key, std::string_view name) {
  return key >= KeyOf(name) && key - KeyOf(name) < kSameHash;
}

absl::Status CheckName(std::string_view name) {
  if (name.size() > kMostNameBytes) {
    return PosixError(ENAMETOOLONG, absl::StrCat("a name of ", name.size(), " bytes; at most ", kMostNameBytes));
  }
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos || name.find('\0') != name.npos) {
    return PosixError(EINVAL, absl::StrCat("\"", std::string(name), "\" is no name of a file"));
  }
  if (name.starts_with(kStreamsPrefix)) {
    return PosixError(EPERM, absl::StrCat("\"", std::string(name), "\" is a name of streams, and no file's"));
  }
  return absl::OkStatus();
}

Task<absl::StatusOr<std::optional<Directory::Entry>>> Directory::Find(std::string name) {
  const uint64_t first = KeyOf(name);
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree_.Scan(first, first + kSameHash - 1, kSameHash);
  if (!records.ok()) co_return records.status();
  for (const TreeRecord& record : *records) {
    absl::StatusOr<Entry> entry = Decode(record);
    if (!entry.ok()) co_return entry.status();
    if (entry->name == name) co_return std::optional<Entry>(*std::move(entry));
  }
  co_return std::nullopt;
}

Task<absl::StatusOr<std::vector<Directory::Entry>>> Directory::List(uint64_t key, size_t most) {
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree_.Scan(key + 1, ~uint64_t{0}, most);
  if (!records.ok()) co_return records.status();
  std::vector<Entry> entries;
  for (const TreeRecord& record : *records) {
    absl::StatusOr<Entry> entry = Decode(record);
    if (!entry.ok()) co_return entry.status();
    entries.push_back(*std::move(entry));
  }
  co_return entries;
}

Task<absl::Status> Directory::Add(std::string name, InodeNumber inode, mode_t type) {
  const uint64_t first = KeyOf(name);
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree_.Scan(first, first + kSameHash - 1, kSameHash);
  if (!records.ok()) co_return records.status();
  uint64_t key = first;
  for (const TreeRecord& record : *records) {
    if (record.key != key) break;
    ++key;
  }
  if (key == first + kSameHash) {
    co_return PosixError(ENOSPC, absl::StrCat(kSameHash, " names of the directory have the same hash"));
  }
  co_return co_await tree_.Put(key, Encode(name, inode, type));
}

Task<absl::Status> Directory::Replace(Entry entry, InodeNumber inode, mode_t type) {
  return tree_.Put(entry.key, Encode(entry.name, inode, type));
}

}  // namespace mangrove::fs
