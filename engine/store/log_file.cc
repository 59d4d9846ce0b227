#include "engine/store/log_file.h"

#include <fcntl.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace mangrove::store {
namespace {

using rocksdb::FileOptions;
using rocksdb::FileSystem;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr uint64_t kZerosAheadBytes = uint64_t{1} << 20;
// Larger writes than this grow the file by themselves: their sync takes so long that the journal's share is small, and
// the zeros would double them.
constexpr uint64_t kLargeWriteBytes = uint64_t{128} << 10;

IOStatus Failed(const std::string& file, const char* what, int error) {
  const std::string context = std::string("log file ") + what + ": " + file;
  return error == ENOSPC ? IOStatus::NoSpace(context, std::strerror(error))
                         : IOStatus::IOError(context, std::strerror(error));
}

// Owned by RocksDB, which calls one function of a file at a time, Sync excepted.
class PrewrittenLogFile final : public FSWritableFile {
 public:
  PrewrittenLogFile(std::string file, int fd, const FileOptions& options)
      : FSWritableFile(options), file_(std::move(file)), fd_(fd) {}
  ~PrewrittenLogFile() override {
    if (fd_ >= 0) close(fd_);
  }

  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    if (end_ + data.size() > prewritten_end_ && data.size() <= kLargeWriteBytes) {
      if (IOStatus status = WriteZerosAhead(); !status.ok()) return status;
    }
    if (IOStatus status = WriteAt(data.data(), data.size(), end_); !status.ok()) return status;
    end_ += data.size();
    return IOStatus::OK();
  }

  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    return fdatasync(fd_) == 0 ? IOStatus::OK() : Failed(file_, "sync", errno);
  }
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    return fsync(fd_) == 0 ? IOStatus::OK() : Failed(file_, "sync", errno);
  }
  bool IsSyncThreadSafe() const override { return true; }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return end_; }

  IOStatus Truncate(uint64_t size, const IOOptions&, IODebugContext*) override {
    if (ftruncate(fd_, static_cast<off_t>(size)) != 0) return Failed(file_, "truncate", errno);
    end_ = size;
    prewritten_end_ = size;
    return IOStatus::OK();
  }
  // Gives back what was not used.
  IOStatus Close(const IOOptions& options, IODebugContext* context) override {
    if (fd_ < 0) return IOStatus::OK();
    IOStatus status = prewritten_end_ > end_ ? Truncate(end_, options, context) : IOStatus::OK();
    if (close(std::exchange(fd_, -1)) != 0 && status.ok()) status = Failed(file_, "close", errno);
    return status;
  }

  // The zeros are what others reserve space for.
  void PrepareWrite(size_t, size_t, const IOOptions&, IODebugContext*) override {}
  IOStatus Allocate(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus RangeSync(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  IOStatus WriteZerosAhead() {
    static const std::vector<char> zeros(kZerosAheadBytes);
    const uint64_t begin = std::max(end_, prewritten_end_);
    const IOStatus status = WriteAt(zeros.data(), zeros.size(), begin);
    // A full disk may still have space for the data.
    if (status.IsNoSpace()) return IOStatus::OK();
    if (status.ok()) prewritten_end_ = begin + zeros.size();
    return status;
  }

  IOStatus WriteAt(const char* data, size_t bytes, uint64_t offset) {
    while (bytes > 0) {
      const ssize_t written = pwrite(fd_, data, bytes, static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return Failed(file_, "write", errno);
      data += written;
      bytes -= static_cast<size_t>(written);
      offset += static_cast<uint64_t>(written);
    }
    return IOStatus::OK();
  }

  const std::string file_;
  int fd_;
  uint64_t end_ = 0;             // Of what was appended.
  uint64_t prewritten_end_ = 0;  // Zeros are written up to here.
};

class PrewrittenLogFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit PrewrittenLogFileSystem(const std::shared_ptr<FileSystem>& target) : FileSystemWrapper(target) {}

  const char* Name() const override { return "MangrovePrewrittenLog"; }

  IOStatus NewWritableFile(const std::string& file, const FileOptions& options, std::unique_ptr<FSWritableFile>* result,
                           IODebugContext* context) override {
    if (!file.ends_with(".log")) return target()->NewWritableFile(file, options, result, context);
    const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return Failed(file, "open", errno);
    *result = std::make_unique<PrewrittenLogFile>(file, fd, options);
    return IOStatus::OK();
  }
};

}  // namespace

std::unique_ptr<rocksdb::Env> MakePrewrittenLogEnv() {
  return rocksdb::NewCompositeEnv(std::make_shared<PrewrittenLogFileSystem>(FileSystem::Default()));
}

}  // namespace mangrove::store
