#include "bench/file_work.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/timing.h"
#include "bench/worker.h"

namespace mangrove::bench {
namespace {

constexpr size_t kSmallBytes = 1024;
constexpr size_t kPage = 4096;
constexpr size_t kMib = 1 << 20;
constexpr uint64_t kWarmRounds = 100;
constexpr uint64_t kFilePages = 4096;  // Where pages are read and written at random.
constexpr char kFile[] = "file";
constexpr mode_t kFileMode = 0644;

std::string NameOf(uint64_t i) { return absl::StrCat("f", i); }

// Operations per second.
template <typename Operation>
double Rate(uint64_t count, Operation operation) {
  const int64_t begin = NowNs();
  for (uint64_t i = 0; i < count; ++i) operation(i);
  return static_cast<double>(count) * 1e9 / static_cast<double>(NowNs() - begin);
}

std::vector<uint64_t> Shuffled(uint64_t count) {
  std::vector<uint64_t> order(count);
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  return order;
}

class OpenFile {
 public:
  OpenFile(int directory, const std::string& name, int flags)
      : fd_(static_cast<int>(Must(openat(directory, name.c_str(), flags | O_CLOEXEC, kFileMode), "opening " + name))) {}
  ~OpenFile() { close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  void Write(std::span<const char> bytes, uint64_t offset) const {
    if (Must(pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)), "writing") !=
        static_cast<ssize_t>(bytes.size())) {
      Die("a write was cut short");
    }
  }
  void Read(std::span<char> bytes, uint64_t offset) const {
    if (Must(pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)), "reading") !=
        static_cast<ssize_t>(bytes.size())) {
      Die("a read was cut short");
    }
  }
  void Sync() const { Must(fsync(fd_), "fsync"); }

 private:
  const int fd_;
};

void MakeFile(int directory, const std::string& name, size_t bytes) {
  const OpenFile file(directory, name, O_CREAT | O_EXCL | O_WRONLY);
  if (bytes > 0) file.Write(std::vector<char>(bytes, 'x'), 0);
}

void MakeSmallFiles(int directory, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) MakeFile(directory, NameOf(i), kSmallBytes);
}

// A file of `mib` MiB, written in order.
void Fill(const OpenFile& file, uint64_t mib, char with) {
  const std::vector<char> bytes(kMib, with);
  for (uint64_t i = 0; i < mib; ++i) file.Write(bytes, i * kMib);
}

// Calls operation(file, offset) of random pages of a file that is written already.
template <typename Operation>
auto OfRandomPages(const std::string& parent, Operation operation) {
  const WorkDirectory work(parent);
  const OpenFile file(work.fd(), kFile, O_CREAT | O_EXCL | O_RDWR);
  Fill(file, kFilePages * kPage / kMib, 'a');
  file.Sync();
  std::mt19937_64 random(1);
  return operation([&](auto page) { page(file, random() % kFilePages * kPage); });
}

}  // namespace

WorkDirectory::WorkDirectory(const std::string& parent) : path_(parent + "/work-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) Die("cannot make " + path_);
  fd_ = static_cast<int>(Must(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), path_));
}

WorkDirectory::WorkDirectory(const std::string& parent, const WorkDirectory& other)
    : path_(absl::StrCat(parent, "/", std::filesystem::path(other.path_).filename().string())), is_ours_(false) {
  fd_ = static_cast<int>(Must(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), path_));
}

WorkDirectory::~WorkDirectory() {
  close(fd_);
  if (!is_ours_) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

// --- Names ------------------------------------------------------------------------------------------------------------

double CreateRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  return Rate(count, [&](uint64_t i) { MakeFile(work.fd(), NameOf(i), 0); });
}

double CreateSmallRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  return Rate(count, [&](uint64_t i) { MakeFile(work.fd(), NameOf(i), kSmallBytes); });
}

double OpenReadCloseRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  MakeSmallFiles(work.fd(), count);
  std::array<char, kSmallBytes> bytes;
  return Rate(count, [&](uint64_t i) { OpenFile(work.fd(), NameOf(i), O_RDONLY).Read(bytes, 0); });
}

double StatRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  MakeFiles(work.fd(), count);
  const std::vector<uint64_t> order = Shuffled(count);
  struct stat s;
  return Rate(count,
              [&](uint64_t i) { Must(fstatat(work.fd(), NameOf(order[i]).c_str(), &s, AT_SYMLINK_NOFOLLOW), "stat"); });
}

double StatWarmRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  MakeFiles(work.fd(), count);
  const std::vector<uint64_t> order = Shuffled(count);
  struct stat s;
  const auto look = [&](uint64_t i) {
    Must(fstatat(work.fd(), NameOf(order[i % count]).c_str(), &s, AT_SYMLINK_NOFOLLOW), "stat");
  };
  for (uint64_t i = 0; i < count; ++i) look(i);
  return Rate(kWarmRounds * count, look);
}

double RenameRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  MakeFiles(work.fd(), count);
  return Rate(count, [&](uint64_t i) {
    Must(renameat(work.fd(), NameOf(i).c_str(), work.fd(), ("g" + NameOf(i)).c_str()), "rename");
  });
}

double UnlinkRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  MakeFiles(work.fd(), count);
  return Rate(count, [&](uint64_t i) { Must(unlinkat(work.fd(), NameOf(i).c_str(), 0), "unlink"); });
}

double MakeDirectoryRate(const std::string& parent, uint64_t count) {
  const WorkDirectory work(parent);
  return Rate(count, [&](uint64_t i) { Must(mkdirat(work.fd(), NameOf(i).c_str(), 0755), "mkdir"); });
}

void MakeFiles(int directory, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) MakeFile(directory, NameOf(i), 0);
}

double ListMs(int directory, uint64_t expected) {
  const int64_t begin = NowNs();
  DIR* const listing = fdopendir(static_cast<int>(Must(openat(directory, ".", O_RDONLY | O_CLOEXEC), "opening")));
  if (listing == nullptr) Die("a directory cannot be listed");
  uint64_t names = 0;
  struct stat s;
  while (const dirent* entry = readdir(listing)) {
    if (entry->d_name[0] == '.') continue;
    Must(fstatat(directory, entry->d_name, &s, AT_SYMLINK_NOFOLLOW), "stat");
    ++names;
  }
  closedir(listing);
  const double ms = static_cast<double>(NowNs() - begin) / 1e6;
  if (names != expected) Die(absl::StrCat(names, " names were listed, expected ", expected));
  return ms;
}

// --- Bytes ------------------------------------------------------------------------------------------------------------

double ReadPageRate(const std::string& parent, uint64_t count) {
  return OfRandomPages(parent, [&](auto next) {
    std::array<char, kPage> bytes;
    return Rate(count, [&](uint64_t) { next([&](const OpenFile& file, uint64_t at) { file.Read(bytes, at); }); });
  });
}

double ReadPageWarmRate(const std::string& parent, uint64_t count) {
  constexpr uint64_t kLargeMib = 16;
  const WorkDirectory work(parent);
  WriteLarge(work.fd(), kLargeMib);
  ReadLargeRate(work.fd(), kLargeMib);
  const OpenFile file(work.fd(), kFile, O_RDONLY);
  const std::vector<uint64_t> order = Shuffled(kLargeMib * kMib / kPage);
  std::array<char, kPage> bytes;
  return Rate(kWarmRounds * count, [&](uint64_t i) { file.Read(bytes, order[i % order.size()] * kPage); });
}

double WritePageRate(const std::string& parent, uint64_t count) {
  return OfRandomPages(parent, [&](auto next) {
    const std::vector<char> bytes(kPage, 'b');
    return Rate(count, [&](uint64_t) { next([&](const OpenFile& file, uint64_t at) { file.Write(bytes, at); }); });
  });
}

double WritePageAndSyncUs(const std::string& parent, uint64_t count) {
  return OfRandomPages(parent, [&](auto next) {
    const std::vector<char> bytes(kPage, 'b');
    return MedianNs(count,
                    [&](uint64_t) {
                      next([&](const OpenFile& file, uint64_t at) {
                        file.Write(bytes, at);
                        file.Sync();
                      });
                    }) /
           1e3;
  });
}

double ReadMibRate(const std::string& parent, uint64_t mib) {
  const WorkDirectory work(parent);
  WriteLarge(work.fd(), mib);
  return ReadLargeRate(work.fd(), mib);
}

double WriteMibRate(const std::string& parent, uint64_t mib) {
  const WorkDirectory work(parent);
  WriteLarge(work.fd(), mib);
  const OpenFile file(work.fd(), kFile, O_WRONLY);
  const std::vector<char> bytes(kMib, 'b');
  return Rate(mib, [&](uint64_t i) { file.Write(bytes, i * kMib); });
}

double WriteMibAndSyncRate(const std::string& parent, uint64_t mib) {
  const WorkDirectory work(parent);
  WriteLarge(work.fd(), mib);
  const OpenFile file(work.fd(), kFile, O_WRONLY);
  const std::vector<char> bytes(kMib, 'b');
  return Rate(mib, [&](uint64_t i) {
    file.Write(bytes, i * kMib);
    file.Sync();
  });
}

void WriteLarge(int directory, uint64_t mib) {
  const OpenFile file(directory, kFile, O_CREAT | O_WRONLY);
  Fill(file, mib, 'a');
  file.Sync();
}

double ReadLargeRate(int directory, uint64_t mib) {
  const OpenFile file(directory, kFile, O_RDONLY);
  std::vector<char> bytes(kMib);
  return Rate(mib, [&](uint64_t i) { file.Read(bytes, i * kMib); });
}

}  // namespace mangrove::bench
