#include "engine/store/log_scan.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/store/little_endian.h"

namespace mangrove::store {
namespace {

constexpr size_t kBlockBytes = 32'768;
constexpr size_t kHeaderBytes = 7;

enum RecordType : uint8_t { kWhole = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

struct LogRecord {
  RecordType type;
  size_t bytes;  // With its header.
  bool begins() const { return type == kWhole || type == kFirst; }
  bool ends() const { return type == kWhole || type == kLast; }
};

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t HardwareCrc32c(std::string_view bytes) {
  uint64_t crc = 0xffffffff;
  for (; bytes.size() >= sizeof(uint64_t); bytes.remove_prefix(sizeof(uint64_t))) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), sizeof(word));
    crc = __builtin_ia32_crc32di(crc, word);
  }
  auto rest = static_cast<uint32_t>(crc);
  for (const char c : bytes) rest = __builtin_ia32_crc32qi(rest, static_cast<uint8_t>(c));
  return ~rest;
}
#endif

uint32_t MaskedCrc(std::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

// The record at the beginning of `bytes`, which go up to the end of the block; none if it is not sound.
std::optional<LogRecord> ParseRecord(std::string_view bytes) {
  if (bytes.size() < kHeaderBytes) return std::nullopt;
  const auto type = static_cast<uint8_t>(bytes[6]);
  const size_t length = GetLittleEndian<uint16_t>(bytes.data() + 4);
  if (type < kWhole || type > kLast || kHeaderBytes + length > bytes.size()) return std::nullopt;
  if (MaskedCrc(bytes.substr(6, 1 + length)) != GetLittleEndian<uint32_t>(bytes.data())) return std::nullopt;
  return LogRecord{static_cast<RecordType>(type), kHeaderBytes + length};
}

bool AllZeros(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

// Goes through the blocks of one log.
class Scanner {
 public:
  void Block(uint64_t offset, std::string_view block) {
    size_t at = 0;
    while (at + kHeaderBytes <= block.size() && !scan_.resumes_at) {
      const std::optional<LogRecord> record = ParseRecord(block.substr(at));
      if (!record) {
        Unsound(offset, block, at);
        return;
      }
      Sound(offset + at, *record);
      at += record->bytes;
    }
  }

  LogScan End() {
    // The file ends within a record.
    if (inside_) scan_.garbage = true;
    return scan_;
  }

 private:
  void Sound(uint64_t offset, const LogRecord& record) {
    const bool in_order = record.begins() != inside_;
    if (!ended_ && in_order) {
      inside_ = !record.ends();
      if (!inside_) scan_.sound_end = offset + record.bytes;
      scan_.any |= !inside_;
      return;
    }
    ended_ = true;
    scan_.garbage = true;
    if (record.begins()) scan_.resumes_at = offset;
  }

  // Records may go on within the block, but where?
  void Unsound(uint64_t offset, std::string_view block, size_t at) {
    ended_ = true;
    if (AllZeros(block.substr(at))) return;
    scan_.garbage = true;
    for (++at; at + kHeaderBytes <= block.size(); ++at) {
      const std::optional<LogRecord> record = ParseRecord(block.substr(at));
      if (record && record->begins()) {
        scan_.resumes_at = offset + at;
        return;
      }
    }
  }

  LogScan scan_;
  bool inside_ = false;  // A record of several parts.
  bool ended_ = false;   // Nothing that follows can be replayed.
};

absl::Status CutOff(const std::string& file, uint64_t size) {
  const int fd = open(file.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("store: open of log ", file));
  const bool done = ftruncate(fd, static_cast<off_t>(size)) == 0 && fsync(fd) == 0;
  const int error = errno;
  close(fd);
  return done ? absl::OkStatus() : absl::ErrnoToStatus(error, absl::StrCat("store: cut of log ", file));
}

std::vector<std::string> LogsIn(const std::string& path) {
  std::vector<std::string> logs;
  std::error_code ignored;  // Opening the store will report it.
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    if (entry.path().extension() == ".log") logs.push_back(entry.path().string());
  }
  // Their names are numbers, of at least six digits.
  std::sort(logs.begin(), logs.end(), [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });
  return logs;
}

absl::Status Damaged(const std::string& file, uint64_t offset) {
  return absl::DataLossError(
      absl::StrCat("log ", file, " is damaged at offset ", offset, ", with sound commits behind"));
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return HardwareCrc32c(bytes);
#endif
  uint32_t crc = 0xffffffff;
  for (const char c : bytes) crc = kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

absl::StatusOr<LogScan> ScanLog(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return absl::InternalError(absl::StrCat("store: open of log ", file));
  Scanner scanner;
  std::vector<char> block(kBlockBytes);
  for (uint64_t offset = 0; stream; offset += kBlockBytes) {
    stream.read(block.data(), static_cast<std::streamsize>(block.size()));
    scanner.Block(offset, std::string_view(block.data(), static_cast<size_t>(stream.gcount())));
  }
  if (stream.bad()) return absl::InternalError(absl::StrCat("store: read of log ", file));
  return scanner.End();
}

absl::Status RepairLogs(const std::string& path) {
  struct Tail {
    std::string file;
    uint64_t sound_end;
  };
  std::vector<Tail> unfinished;
  for (const std::string& file : LogsIn(path)) {
    const auto scan = ScanLog(file);
    if (!scan.ok()) return scan.status();
    if (scan->resumes_at) return Damaged(file, scan->sound_end);
    if (scan->any && !unfinished.empty()) return Damaged(unfinished.front().file, unfinished.front().sound_end);
    if (scan->garbage) unfinished.push_back({file, scan->sound_end});
  }
  for (const Tail& tail : unfinished) {
    spdlog::warn("log {}: cut off an unfinished commit at offset {}", tail.file, tail.sound_end);
    if (absl::Status cut = CutOff(tail.file, tail.sound_end); !cut.ok()) return cut;
  }
  return absl::OkStatus();
}

}  // namespace mangrove::store
