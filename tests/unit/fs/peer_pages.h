// The pages of one of several peers over the same pages in memory: it has a place of its own, and the peers see what each has open.

#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {

// Who has what open: places by inode.
using OpenFiles = std::map<uint64_t, std::multiset<uint64_t>>;

class PeerPages : public Pages {
 public:
  // Both outlive it.
  PeerPages(MemoryPages* below, OpenFiles* open, uint64_t place) : below_(below), open_(open), place_(place) {}

  // Before each transaction, once others have had their turn.
  void SetOthers(std::function<void()> others) { others_ = std::move(others); }

  Task<absl::StatusOr<uint64_t>> Begin() override {
    if (others_) others_();
    return below_->Begin();
  }
  Task<absl::StatusOr<std::string>> Read(uint64_t transaction, uint64_t page, Intent intent) override {
    return below_->Read(transaction, page, intent);
  }
  std::optional<std::string> Glance(uint64_t page) override { return below_->Glance(page); }
  Task<absl::Status> Write(uint64_t transaction, uint64_t page, uint32_t offset, std::string bytes) override {
    return below_->Write(transaction, page, offset, std::move(bytes));
  }
  Task<absl::Status> Commit(uint64_t transaction) override { return below_->Commit(transaction); }
  Task<absl::Status> SyncTransactions() override { return below_->SyncTransactions(); }
  void Abort(uint64_t transaction) override { below_->Abort(transaction); }
  Task<absl::Status> ReadData(uint64_t offset, std::span<std::byte> out) override {
    return below_->ReadData(offset, out);
  }
  Task<absl::Status> WriteData(uint64_t transaction, uint64_t offset, std::span<const std::byte> bytes) override {
    return below_->WriteData(transaction, offset, bytes);
  }
  Task<absl::Status> Flush(PageSpan pages) override { return below_->Flush(pages); }
  Task<absl::Status> Allocate(PageSpan pages, uint32_t replicas) override { return below_->Allocate(pages, replicas); }
  bool HasRoom(uint64_t page) const override { return below_->HasRoom(page); }
  Task<absl::StatusOr<Space>> GetSpace() override { return below_->GetSpace(); }
  Task<absl::Status> PublishOpen(InodeNumber inode, bool open) override {
    std::multiset<uint64_t>& places = (*open_)[inode.value];
    open ? (void)places.insert(place_) : (void)places.erase(places.find(place_));
    return below_->PublishOpen(inode, open);
  }
  Task<absl::StatusOr<bool>> RenewOpens() override { return below_->RenewOpens(); }
  Task<absl::Status> EndOpens() override { return below_->EndOpens(); }
  Task<absl::StatusOr<bool>> IsOpenElsewhere(InodeNumber inode) override {
    const std::multiset<uint64_t>& places = (*open_)[inode.value];
    co_return places.size() > places.count(place_);
  }
  FileLocks* locks() override { return below_->locks(); }
  Task<absl::Status> BackOff(int attempt) override { return below_->BackOff(attempt); }
  uint64_t NodePlace() const override { return place_; }
  uint64_t Incarnation() const override { return below_->Incarnation(); }
  int64_t NowNs() const override { return below_->NowNs(); }
  uint64_t Random() override { return below_->Random(); }

 private:
  MemoryPages* const below_;
  OpenFiles* const open_;
  const uint64_t place_;
  std::function<void()> others_;
};

}  // namespace mangrove::fs
