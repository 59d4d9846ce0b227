// A listing of a directory in which inodes are corrupt, and how much it keeps from others.
// Covers: F12

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "absl/strings/str_cat.h"
#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/peer_pages.h"

namespace mangrove::fs {
namespace {

// Counts what a transaction has locked.
class CountingPages final : public PeerPages {
 public:
  using PeerPages::PeerPages;
  Task<absl::StatusOr<std::string>> Read(uint64_t transaction, uint64_t page, Intent intent) override {
    if (transaction != transaction_) locked_.clear();
    transaction_ = transaction;
    locked_.insert(page);
    most = std::max(most, locked_.size());
    return PeerPages::Read(transaction, page, intent);
  }
  size_t most = 0;

 private:
  uint64_t transaction_ = 0;
  std::set<uint64_t> locked_;
};

class ListingTest : public testing::Test {
 protected:
  ListingTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    instance_ = *Do(Instance::Open(&counted_));
    root_ = instance_->root();
    for (int i = 0; i < 600; ++i) {
      const auto made = Do(instance_->MakeNode({}, root_, absl::StrCat("a", i), S_IFREG | 0644, 0));
      EXPECT_TRUE(made.ok()) << made.status();
      files_.push_back(made->inode);
    }
  }
  std::vector<DirectoryEntry> List(size_t most) {
    std::vector<DirectoryEntry> all;
    for (;;) {
      const auto some = Do(instance_->ReadDirectory(root_, all.empty() ? 0 : all.back().cookie, most));
      EXPECT_TRUE(some.ok()) << some.status();
      if (!some.ok() || some->empty()) return all;
      all.insert(all.end(), some->begin(), some->end());
    }
  }

  MemoryPages pages_;
  OpenFiles open_;
  CountingPages counted_{&pages_, &open_, 0};
  std::unique_ptr<Instance> instance_;
  InodeNumber root_;
  std::vector<InodeNumber> files_;
};

TEST_F(ListingTest, ACorruptInodeKeepsNobodyFromTheOtherNames) {
  pages_.metadata(files_[17].value)[1'000] ^= 1;                                     // Its checksum is wrong.
  pages_.metadata(files_[400].value) = pages_.metadata(root_.value - 1);             // Another page's content.
  pages_.metadata(files_[500].value) = std::string(kMetadataBytes, '\0');            // No page at all.
  EXPECT_TRUE(Do(instance_->MakeNode({}, root_, "later", S_IFIFO | 0644, 0)).ok());  // The directory goes on.
  std::set<std::string> names;
  for (const DirectoryEntry& entry : List(512)) {
    EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
    const bool is_corrupt = entry.name == "a17" || entry.name == "a400" || entry.name == "a500";
    EXPECT_EQ(entry.is_readable, !is_corrupt) << entry.name;
    EXPECT_EQ(entry.attributes.mode & S_IFMT, static_cast<mode_t>(entry.name == "later" ? S_IFIFO : S_IFREG))
        << entry.name;
    if (is_corrupt) {
      EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(root_, entry.name)).status()), EIO) << entry.name;
      EXPECT_EQ(ErrnoOf(Do(instance_->Unlink(root_, entry.name))), EIO) << entry.name;
    } else {
      EXPECT_TRUE(Do(instance_->Lookup(root_, entry.name)).ok()) << entry.name;
    }
  }
  EXPECT_EQ(names.size(), 601U);
}

// A stream's attributes are its owner's.
TEST_F(ListingTest, AStreamWhoseOwnerIsDamagedKeepsNobodyFromTheOtherNames) {
  for (const char* const name : {"a", "b", "c"}) {
    const std::string attribute = absl::StrCat("user.stream.", name);
    ASSERT_TRUE(Do(instance_->SetXattr(files_[0], attribute, "bytes", XattrMode::kAny)).ok());
  }
  const InodeNumber streams = Do(instance_->Lookup(root_, ".mangrove-streams:a0"))->inode;
  const InodeNumber stream = Do(instance_->Lookup(streams, "b"))->inode;
  const auto unreadable = [&] {
    const auto entries = Do(instance_->ReadDirectory(streams, 0, 100));
    EXPECT_TRUE(entries.ok()) << entries.status();
    std::set<std::string> names;
    if (!entries.ok()) return names;
    EXPECT_EQ(entries->size(), 3U);
    for (const DirectoryEntry& entry : *entries) {
      EXPECT_EQ(entry.attributes.mode & S_IFMT, static_cast<mode_t>(S_IFREG)) << entry.name;
      if (!entry.is_readable) names.insert(entry.name);
    }
    return names;
  };
  EXPECT_EQ(unreadable(), std::set<std::string>());
  auto give_away = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, stream, Intent::kWrite);
    if (inode.ok()) inode->set_parent(files_[1]);
    co_return inode.status();
  };
  ASSERT_TRUE(Do(RunEdit(&pages_, give_away)).ok());
  pages_.metadata(files_[1].value)[1'000] ^= 1;
  EXPECT_EQ(unreadable(), std::set<std::string>{"b"});
  pages_.metadata(files_[0].value)[1'000] ^= 1;
  EXPECT_EQ(unreadable(), (std::set<std::string>{"a", "b", "c"}));
}

TEST_F(ListingTest, FewInodesAreLockedAtATime) {
  counted_.most = 0;
  EXPECT_EQ(List(512).size(), 600U);
  EXPECT_LE(counted_.most, 24U);
}

TEST_F(ListingTest, EveryLengthOfItsPartsListsEachNameOnce) {
  for (const size_t most : {1, 15, 16, 17, 100, 600, 1'000}) {
    std::set<std::string> names;
    for (const DirectoryEntry& entry : List(most)) EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
    EXPECT_EQ(names.size(), 600U) << most;
  }
}

}  // namespace
}  // namespace mangrove::fs
