// A transaction of the filesystem: metadata pages, read and changed in memory, and written together at its commit.
//
//   E1  A page that it has read stays as it is for others to the end of the transaction.
//   E2  A page that was changed gets its checksum, and the bytes that differ go into the transaction, at the commit and not before.
//   E3  Every page is checked when it comes (CheckPage), so what is changed was whole before.
//   E4  One that glances reads what is here, without a transaction: nothing is locked. Its pages are of one moment, for it never waits.
//
// Aborted, of every call: nothing has happened; RunEdit tries it again.

#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/format.h"
#include "fs/pages.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

// A page in an edit. It stays where it is until the edit ends.
class EditPage {
 public:
  uint64_t number() const { return number_; }
  std::span<const char> bytes() const { return bytes_; }
  // REQUIRES: obtained with Intent::kWrite, or made.
  std::span<char> mutable_bytes();

 private:
  friend class Edit;
  uint64_t number_ = 0;
  Intent intent_ = Intent::kRead;
  bool changed_ = false;
  std::string before_;
  std::string bytes_;
};

enum class EditMode : uint8_t { kTransaction, kGlance };  // E4

class Edit {
 public:
  // `pages` outlives it.
  explicit Edit(Pages* pages, EditMode mode = EditMode::kTransaction)
      : pages_(pages), glances_(mode == EditMode::kGlance) {}
  Edit(const Edit&) = delete;
  Edit& operator=(const Edit&) = delete;
  ~Edit();  // Aborts, unless it was committed.

  Task<absl::Status> Begin();
  // EIO: it is no sound page of this kind.
  Task<absl::StatusOr<EditPage*>> Get(uint64_t page, PageKind kind, Intent intent);
  // Whatever it held: it becomes an empty page of this kind. REQUIRES: free until now.
  Task<absl::StatusOr<EditPage*>> Make(uint64_t page, PageKind kind);
  // The page as it is, whatever it is: for what may never have been written.
  Task<absl::StatusOr<std::string>> GetRaw(uint64_t page);
  Task<absl::Status> Commit();
  // What it holds of the page is not what is committed.
  bool HasChanged(uint64_t page) const;

  // Pages::WriteData, under what the edit holds.
  Task<absl::Status> WriteData(uint64_t offset, std::span<const std::byte> bytes) {
    return pages_->WriteData(transaction_, offset, bytes);
  }

  Pages* pages() const { return pages_; }

  // It adds to what is there, so it takes no page of which the disk is full, of a tree either (fs/space.cc).
  void SetGrows() { grows_ = true; }
  bool grows() const { return grows_; }
  bool glances() const { return glances_; }

 private:
  Pages* const pages_;
  const bool glances_;
  uint64_t transaction_ = 0;
  bool open_ = false;
  bool grows_ = false;
  std::map<uint64_t, EditPage> held_;
};

// Has `body(edit)`, a Task<absl::Status>, do its work in an edit, and commits; what is aborted is tried again. `body` is called once for each
// try, so it begins by clearing what it gives to the outside.
template <typename Body>
Task<absl::Status> RunEdit(Pages* pages, Body& body) {
  for (int attempt = 1;; ++attempt) {
    absl::Status status;
    {
      Edit edit(pages);
      status = co_await edit.Begin();
      if (status.ok()) status = co_await body(edit);
      if (status.ok()) status = co_await edit.Commit();
    }
    if (!absl::IsAborted(status)) co_return status;
    status = co_await pages->BackOff(attempt);
    if (!status.ok()) co_return status;
  }
}

// RunEdit, of a `body` that only gets pages to read: without a transaction where all of them are here. E4
// REQUIRES: whoever changes these pages does not rely on locks that keep `body` out until its commit, as who removes a file does (remove.cc).
template <typename Body>
Task<absl::Status> RunLook(Pages* pages, Body& body) {
  {
    Edit glance(pages, EditMode::kGlance);
    const absl::Status status = co_await body(glance);
    if (!absl::IsAborted(status)) co_return status;
  }
  co_return co_await RunEdit(pages, body);
}

}  // namespace mangrove::fs
