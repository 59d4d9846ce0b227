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
  FileLocks* locks() override { return below_->locks(); }
  PageCopies* copies() override { return below_->copies(); }
  Task<absl::StatusOr<Attributes>> Lookup(FoundFile directory, std::string name) override {
    if (absl::Status s = co_await Pass("lookup"); !s.ok()) co_return s;
    co_return co_await below_->Lookup(directory, std::move(name));
  }
  Task<absl::StatusOr<Attributes>> MakeNode(Caller caller, FoundFile directory, std::string name, mode_t mode,
                                            dev_t device) override {
    if (absl::Status s = co_await Pass("make node"); !s.ok()) co_return s;
    co_return co_await below_->MakeNode(caller, directory, std::move(name), mode, device);
  }
  Task<absl::StatusOr<Attributes>> MakeDirectory(Caller caller, FoundFile directory, std::string name,
                                                 mode_t mode) override {
    if (absl::Status s = co_await Pass("make directory"); !s.ok()) co_return s;
    co_return co_await below_->MakeDirectory(caller, directory, std::move(name), mode);
  }
  Task<absl::StatusOr<Attributes>> MakeSymlink(Caller caller, FoundFile directory, std::string name,
                                               std::string target) override {
    if (absl::Status s = co_await Pass("make symlink"); !s.ok()) co_return s;
    co_return co_await below_->MakeSymlink(caller, directory, std::move(name), std::move(target));
  }
  Task<absl::StatusOr<Attributes>> MakeUnnamed(Caller caller, FoundFile directory, mode_t mode,
                                               bool may_be_named) override {
    if (absl::Status s = co_await Pass("make unnamed"); !s.ok()) co_return s;
    co_return co_await below_->MakeUnnamed(caller, directory, mode, may_be_named);
  }
  Task<absl::StatusOr<Attributes>> Link(FoundFile file, FoundFile directory, std::string name) override {
    if (absl::Status s = co_await Pass("link"); !s.ok()) co_return s;
    co_return co_await below_->Link(file, directory, std::move(name));
  }
  Task<absl::Status> Unlink(FoundFile directory, std::string name) override {
    if (absl::Status s = co_await Pass("unlink"); !s.ok()) co_return s;
    co_return co_await below_->Unlink(directory, std::move(name));
  }
  Task<absl::Status> RemoveDirectory(FoundFile directory, std::string name) override {
    if (absl::Status s = co_await Pass("remove directory"); !s.ok()) co_return s;
    co_return co_await below_->RemoveDirectory(directory, std::move(name));
  }
  Task<absl::Status> Rename(FoundFile from, std::string name, FoundFile to, std::string new_name,
                            unsigned flags) override {
    if (absl::Status s = co_await Pass("rename"); !s.ok()) co_return s;
    co_return co_await below_->Rename(from, std::move(name), to, std::move(new_name), flags);
  }
  Task<absl::StatusOr<std::string>> ReadLink(FoundFile file) override {
    if (absl::Status s = co_await Pass("read link"); !s.ok()) co_return s;
    co_return co_await below_->ReadLink(file);
  }
  Task<absl::StatusOr<std::vector<DirectoryEntry>>> ReadDirectory(FoundFile directory, uint64_t cookie,
                                                                  size_t most) override {
    if (absl::Status s = co_await Pass("read directory"); !s.ok()) co_return s;
    co_return co_await below_->ReadDirectory(directory, cookie, most);
  }
  Task<absl::StatusOr<InodeNumber>> Parent(FoundFile directory) override {
    if (absl::Status s = co_await Pass("parent"); !s.ok()) co_return s;
    co_return co_await below_->Parent(directory);
  }
  Task<absl::StatusOr<Attributes>> GetAttributes(FoundFile file) override {
    if (absl::Status s = co_await Pass("get attributes"); !s.ok()) co_return s;
    co_return co_await below_->GetAttributes(file);
  }
  Task<absl::StatusOr<Attributes>> SetAttributes(FoundFile file, AttributesChange change) override {
    if (absl::Status s = co_await Pass("set attributes"); !s.ok()) co_return s;
    co_return co_await below_->SetAttributes(file, change);
  }
  Task<absl::StatusOr<std::string>> GetXattr(FoundFile file, std::string name) override {
    if (absl::Status s = co_await Pass("get xattr"); !s.ok()) co_return s;
    co_return co_await below_->GetXattr(file, std::move(name));
  }
  Task<absl::Status> SetXattr(FoundFile file, std::string name, std::string value, XattrOptions options) override {
    if (absl::Status s = co_await Pass("set xattr"); !s.ok()) co_return s;
    co_return co_await below_->SetXattr(file, std::move(name), std::move(value), options);
  }
  Task<absl::Status> RemoveXattr(FoundFile file, std::string name) override {
    if (absl::Status s = co_await Pass("remove xattr"); !s.ok()) co_return s;
    co_return co_await below_->RemoveXattr(file, std::move(name));
  }
  Task<absl::StatusOr<std::vector<std::string>>> ListXattr(FoundFile file) override {
    if (absl::Status s = co_await Pass("list xattr"); !s.ok()) co_return s;
    co_return co_await below_->ListXattr(file);
  }
  Task<absl::Status> Open(FoundFile file) override {
    if (absl::Status s = co_await Pass("open"); !s.ok()) co_return s;
    co_return co_await below_->Open(file);
  }
  Task<absl::Status> Close(FoundFile file) override {
    if (absl::Status s = co_await Pass("close"); !s.ok()) co_return s;
    co_return co_await below_->Close(file);
  }
  Task<absl::StatusOr<std::string>> ReadUnnoticed(FoundFile file, uint64_t offset, uint64_t length) override {
    if (absl::Status s = co_await Pass("read unnoticed"); !s.ok()) co_return s;
    co_return co_await below_->ReadUnnoticed(file, offset, length);
  }
  Task<absl::StatusOr<std::string>> Read(FoundFile file, uint64_t offset, uint64_t length) override {
    if (absl::Status s = co_await Pass("read"); !s.ok()) co_return s;
    co_return co_await below_->Read(file, offset, length);
  }
  Task<absl::Status> Write(FoundFile file, uint64_t offset, std::string bytes, WriteOptions options) override {
    if (absl::Status s = co_await Pass("write"); !s.ok()) co_return s;
    co_return co_await below_->Write(file, offset, std::move(bytes), options);
  }
  Task<absl::Status> Allocate(FoundFile file, int mode, uint64_t offset, uint64_t length) override {
    if (absl::Status s = co_await Pass("allocate"); !s.ok()) co_return s;
    co_return co_await below_->Allocate(file, mode, offset, length);
  }
  Task<absl::StatusOr<uint64_t>> Seek(FoundFile file, uint64_t offset, int whence) override {
    if (absl::Status s = co_await Pass("seek"); !s.ok()) co_return s;
    co_return co_await below_->Seek(file, offset, whence);
  }
  Task<absl::Status> Sync(FoundFile file) override {
    if (absl::Status s = co_await Pass("sync"); !s.ok()) co_return s;
    co_return co_await below_->Sync(file);
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
