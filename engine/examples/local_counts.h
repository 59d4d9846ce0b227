// The words of files: pieces of text that cut no word in two, and their counts in a process's own memory.

#pragma once

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/examples/word_table.h"

namespace mangrove::example {

inline bool IsLetter(char c) { return static_cast<unsigned char>((c | 0x20) - 'a') < 26; }

class LocalCounts {
 public:
  // Counts the words of `text`.
  void Count(std::string_view text);
  size_t distinct() const { return short_.size() + long_.size(); }
  uint64_t words() const { return words_; }
  // The entries refer to words in here.
  std::vector<Entry> Entries() const;
  void Clear() {
    short_.clear();
    long_.clear();
  }

 private:
  void Add(std::string_view word);

  absl::flat_hash_map<uint64_t, uint64_t> short_;  // By tag.
  absl::flat_hash_map<std::string, uint64_t> long_;
  uint64_t words_ = 0;
};

inline void LocalCounts::Count(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (!IsLetter(text[at])) {
      ++at;
      continue;
    }
    size_t end = at + 1;
    while (end < text.size() && IsLetter(text[end])) ++end;
    Add(text.substr(at, end - at));
    at = end;
  }
}

inline void LocalCounts::Add(std::string_view word) {
  ++words_;
  if (word.size() <= kShortWordLetters) {
    uint64_t tag = 0;
    for (size_t i = 0; i < word.size(); ++i) tag |= static_cast<uint64_t>(word[i] & 31) << (5 * i);
    ++short_[tag];
    return;
  }
  std::string lower(word);
  for (char& c : lower) c |= 0x20;
  ++long_[lower];
}

inline std::vector<Entry> LocalCounts::Entries() const {
  std::vector<Entry> entries;
  entries.reserve(distinct());
  for (const auto& [tag, count] : short_) entries.push_back({Mix(tag), tag, {}, count});
  for (const auto& [word, count] : long_) entries.push_back({HashOf(word), 0, word, count});
  return entries;
}

// Reads from a file that may be changed meanwhile.
class TextFile {
 public:
  explicit TextFile(const std::string& path) : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;
  ~TextFile() { close(fd_); }

  // Appends what is at [offset, offset + length), less where the file ends. Returns how much that was.
  absl::StatusOr<size_t> Append(uint64_t offset, uint64_t length, std::string* text) const {
    const size_t before = text->size();
    text->resize(before + length);
    size_t got = 0;
    while (got < length) {
      const ssize_t n = pread(fd_, text->data() + before + got, length - got, static_cast<off_t>(offset + got));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return absl::UnavailableError(absl::StrCat("cannot read ", path_, ": ", strerror(errno)));
      if (n == 0) break;
      got += static_cast<size_t>(n);
    }
    text->resize(before + got);
    return got;
  }

 private:
  const std::string path_;
  const int fd_;
};

// The words that begin at [begin, end) of the file: the last one may go on behind it.
inline absl::StatusOr<std::string> ReadChunk(const std::string& path, uint64_t begin, uint64_t end) {
  const TextFile file(path);
  const uint64_t before = begin > 0 ? 1 : 0;  // Tells whether a word of the chunk before goes on in this one.
  std::string text;
  const absl::StatusOr<size_t> got = file.Append(begin - before, end - begin + before, &text);
  if (!got.ok()) return got.status();
  const size_t own = text.size();
  size_t first = 0;
  if (before > 0) {
    while (first < own && IsLetter(text[first])) ++first;
    if (first == own) return std::string();
  }
  size_t last = own;
  if (own > 0 && IsLetter(text[own - 1])) {
    for (uint64_t next = end; last == text.size(); next += 4096) {
      const absl::StatusOr<size_t> more = file.Append(next, 4096, &text);
      if (!more.ok()) return more.status();
      while (last < text.size() && IsLetter(text[last])) ++last;
      if (*more < 4096) break;
    }
  }
  return text.substr(first, last - first);
}

}  // namespace mangrove::example
