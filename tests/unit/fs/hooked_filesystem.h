// A filesystem in front of another one, which a test can have wait, or fail.
//
// Owned by the loop; the counters may be read by anybody.

#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fs/filesystem.h"
#include "net/runtime/clock.h"

namespace mangrove::fs {

class HookedFilesystem final : public Filesystem {
 public:
  HookedFilesystem(Filesystem* below, Clock* clock) : below_(below), clock_(clock) {}

  // Before each operation, by its name; an error is its answer.
  std::function<absl::Status(const std::string& operation)> before;
  // Operations of this name wait until Release.
  void Hold(std::string operation) { held_ = std::move(operation); }
  void Release() {
    held_.reset();
    for (Outcome<bool>& one : std::exchange(waiting_, {})) one.Set(true);
  }
  std::atomic<size_t> waiting = 0;

  InodeNumber root() const override { return below_->root(); }
  Task<absl::StatusOr<Attributes>> Lookup(InodeNumber directory, std::string name) override {
    if (absl::Status s = co_await Pass("lookup"); !s.ok()) co_return s;
    co_return co_await below_->Lookup(directory, std::move(name));
  }
  Task<absl::StatusOr<Attributes>> MakeNode(Caller caller, InodeNumber directory, std::string name, mode_t mode,
                                            dev_t device) override {
    if (absl::Status s = co_await Pass("make node"); !s.ok()) co_return s;
    co_return co_await below_->MakeNode(caller, directory, std::move(name), mode, device);
  }
  Task<absl::StatusOr<Attributes>> MakeDirectory(Caller caller, InodeNumber directory, std::string name,
                                                 mode_t mode) override {
    if (absl::Status s = co_await Pass("make directory"); !s.ok()) co_return s;
    co_return co_await below_->MakeDirectory(caller, directory, std::move(name), mode);
  }
  Task<absl::StatusOr<Attributes>> MakeSymlink(Caller caller, InodeNumber directory, std::string name,
                                               std::string target) override {
    if (absl::Status s = co_await Pass("make symlink"); !s.ok()) co_return s;
    co_return co_await below_->MakeSymlink(caller, directory, std::move(name), std::move(target));
  }
  Task<absl::StatusOr<Attributes>> Link(InodeNumber inode, InodeNumber directory, std::string name) override {
    if (absl::Status s = co_await Pass("link"); !s.ok()) co_return s;
    co_return co_await below_->Link(inode, directory, std::move(name));
  }
  Task<absl::Status> Unlink(InodeNumber directory, std::string name) override {
    if (absl::Status s = co_await Pass("unlink"); !s.ok()) co_return s;
    co_return co_await below_->Unlink(directory, std::move(name));
  }
  Task<absl::Status> RemoveDirectory(InodeNumber directory, std::string name) override {
    if (absl::Status s = co_await Pass("remove directory"); !s.ok()) co_return s;
    co_return co_await below_->RemoveDirectory(directory, std::move(name));
  }
  Task<absl::Status> Rename(InodeNumber from, std::string name, InodeNumber to, std::string new_name,
                            unsigned flags) override {
    if (absl::Status s = co_await Pass("rename"); !s.ok()) co_return s;
    co_return co_await below_->Rename(from, std::move(name), to, std::move(new_name), flags);
  }
  Task<absl::StatusOr<std::string>> ReadLink(InodeNumber inode) override {
    if (absl::Status s = co_await Pass("read link"); !s.ok()) co_return s;
    co_return co_await below_->ReadLink(inode);
  }
  Task<absl::StatusOr<std::vector<DirectoryEntry>>> ReadDirectory(InodeNumber directory, uint64_t cookie,
                                                                  size_t most) override {
    if (absl::Status s = co_await Pass("read directory"); !s.ok()) co_return s;
    co_return co_await below_->ReadDirectory(directory, cookie, most);
  }
  Task<absl::StatusOr<InodeNumber>> Parent(InodeNumber directory) override {
    if (absl::Status s = co_await Pass("parent"); !s.ok()) co_return s;
    co_return co_await below_->Parent(directory);
  }
  Task<absl::StatusOr<Attributes>> GetAttributes(InodeNumber inode) override {
    if (absl::Status s = co_await Pass("get attributes"); !s.ok()) co_return s;
    co_return co_await below_->GetAttributes(inode);
  }
  Task<absl::StatusOr<Attributes>> SetAttributes(InodeNumber inode, AttributesChange change) override {
    if (absl::Status s = co_await Pass("set attributes"); !s.ok()) co_return s;
    co_return co_await below_->SetAttributes(inode, change);
  }
  Task<absl::StatusOr<std::string>> GetXattr(InodeNumber inode, std::string name) override {
    if (absl::Status s = co_await Pass("get xattr"); !s.ok()) co_return s;
    co_return co_await below_->GetXattr(inode, std::move(name));
  }
  Task<absl::Status> SetXattr(InodeNumber inode, std::string name, std::string value, XattrMode mode) override {
    if (absl::Status s = co_await Pass("set xattr"); !s.ok()) co_return s;
    co_return co_await below_->SetXattr(inode, std::move(name), std::move(value), mode);
  }
  Task<absl::Status> RemoveXattr(InodeNumber inode, std::string name) override {
    if (absl::Status s = co_await Pass("remove xattr"); !s.ok()) co_return s;
    co_return co_await below_->RemoveXattr(inode, std::move(name));
  }
  Task<absl::StatusOr<std::vector<std::string>>> ListXattr(InodeNumber inode) override {
    if (absl::Status s = co_await Pass("list xattr"); !s.ok()) co_return s;
    co_return co_await below_->ListXattr(inode);
  }
  Task<absl::Status> Open(InodeNumber inode) override {
    if (absl::Status s = co_await Pass("open"); !s.ok()) co_return s;
    co_return co_await below_->Open(inode);
  }
  Task<absl::Status> Close(InodeNumber inode) override {
    if (absl::Status s = co_await Pass("close"); !s.ok()) co_return s;
    co_return co_await below_->Close(inode);
  }
  Task<absl::StatusOr<std::string>> Read(InodeNumber inode, uint64_t offset, uint64_t length) override {
    if (absl::Status s = co_await Pass("read"); !s.ok()) co_return s;
    co_return co_await below_->Read(inode, offset, length);
  }
  Task<absl::Status> Write(InodeNumber inode, uint64_t offset, std::string bytes, WriteOptions options) override {
    if (absl::Status s = co_await Pass("write"); !s.ok()) co_return s;
    co_return co_await below_->Write(inode, offset, std::move(bytes), options);
  }
  Task<absl::Status> Allocate(InodeNumber inode, int mode, uint64_t offset, uint64_t length) override {
    if (absl::Status s = co_await Pass("allocate"); !s.ok()) co_return s;
    co_return co_await below_->Allocate(inode, mode, offset, length);
  }
  Task<absl::StatusOr<uint64_t>> Seek(InodeNumber inode, uint64_t offset, int whence) override {
    if (absl::Status s = co_await Pass("seek"); !s.ok()) co_return s;
    co_return co_await below_->Seek(inode, offset, whence);
  }
  Task<absl::Status> Sync(InodeNumber inode) override {
    if (absl::Status s = co_await Pass("sync"); !s.ok()) co_return s;
    co_return co_await below_->Sync(inode);
  }
  Task<absl::StatusOr<Space>> GetSpace() override {
    if (absl::Status s = co_await Pass("get space"); !s.ok()) co_return s;
    co_return co_await below_->GetSpace();
  }

 private:
  Task<absl::Status> Pass(std::string operation) {
    if (held_ == operation) {
      Outcome<bool> released(clock_);
      waiting_.push_back(released);
      ++waiting;
      co_await released.Get();
      --waiting;
    }
    if (!before) co_return absl::OkStatus();
    co_return before(operation);
  }

  Filesystem* const below_;
  Clock* const clock_;
  std::optional<std::string> held_;
  std::vector<Outcome<bool>> waiting_;
};

}  // namespace mangrove::fs
