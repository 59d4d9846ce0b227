// Text for people: tables, sizes, names of users.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace mangrove {

enum class Align : uint8_t { kLeft, kRight };

// Rows in columns of equal width, two spaces between them; nothing behind the last.
class TextTable {
 public:
  explicit TextTable(std::vector<Align> columns) : columns_(std::move(columns)) {}
  // REQUIRES: a cell for each column.
  void AddRow(std::vector<std::string> cells);
  std::string ToString() const;

 private:
  std::vector<Align> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "512 B", "4.0 KiB", "1.5 GiB".
std::string BytesText(uint64_t bytes);
// "1 page", "2 pages".
std::string CountText(uint64_t count, const std::string& what);
// "90 s", "15 min", "2 h 5 min".
std::string TimeLeftText(uint64_t seconds);
// "rw-r-----" as of a file's mode; regions have no executable bits.
std::string ModeText(unsigned mode);
// The names that this host has for them, or the numbers.
std::string UserText(uid_t user);
std::string GroupText(gid_t group);

}  // namespace mangrove
