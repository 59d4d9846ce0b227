#include "fs/instance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "fs/status.h"
#include "tests/unit/fs/peer_pages.h"

namespace mangrove::fs {
namespace {

class InstanceTest : public testing::Test {
 protected:
  InstanceTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    auto opened = Do(Instance::Open(&pages_));
    EXPECT_TRUE(opened.ok()) << opened.status();
    instance_ = *std::move(opened);
    root_ = instance_->root();
  }
  InodeNumber Make(const std::string& name) {
    const auto made = Do(instance_->MakeNode({}, root_, name, S_IFREG | 0644, 0));
    EXPECT_TRUE(made.ok()) << made.status();
    return made->inode;
  }
  std::string ReadAll(InodeNumber inode) {
    auto bytes = Do(instance_->Read(inode, 0, 1 << 22));
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return *std::move(bytes);
  }

  MemoryPages pages_;
  std::unique_ptr<Instance> instance_;
  InodeNumber root_;
};

// Covers: F03
TEST_F(InstanceTest, WhatWasWrittenIsRead) {
  const InodeNumber file = Make("a");
  EXPECT_TRUE(Do(instance_->Write(file, 10'000, "hello", {})).ok());
  EXPECT_TRUE(Do(instance_->Write(file, 0, "begin", {})).ok());
  EXPECT_TRUE(Do(instance_->Write(file, 0, "end", {.append = true})).ok());
  EXPECT_EQ(ReadAll(file), "begin" + std::string(9'995, '\0') + "helloend");
  AttributesChange change;
  change.size_bytes = 3;
  ASSERT_TRUE(Do(instance_->SetAttributes(file, change)).ok());
  change.size_bytes = 6;
  ASSERT_TRUE(Do(instance_->SetAttributes(file, change)).ok());
  EXPECT_EQ(ReadAll(file), std::string("beg\0\0\0", 6));
}

TEST_F(InstanceTest, ManyNamesAreListedOnce) {
  for (int i = 0; i < 2'000; ++i) Make("name" + std::to_string(i));
  std::set<std::string> names;
  for (uint64_t cookie = 0;;) {
    const auto part = Do(instance_->ReadDirectory(root_, cookie, 100));
    ASSERT_TRUE(part.ok()) << part.status();
    if (part->empty()) break;
    for (const DirectoryEntry& entry : *part) EXPECT_TRUE(names.insert(entry.name).second);
    cookie = part->back().cookie;
  }
  EXPECT_EQ(names.size(), 2'000u);
  for (int i = 0; i < 2'000; ++i) EXPECT_TRUE(Do(instance_->Unlink(root_, "name" + std::to_string(i))).ok()) << i;
  EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(root_, "name7")).status()), ENOENT);
}

// Covers: F14
TEST_F(InstanceTest, NodesTakeInodesFromGroupsOfTheirOwn) {
  OpenFiles open;
  PeerPages others(&pages_, &open, 9);
  const auto peer = *Do(Instance::Open(&others));
  std::set<uint64_t> groups;
  std::set<uint64_t> others_groups;
  for (int i = 0; i < 20; ++i) {
    groups.insert(Make(absl::StrCat("mine", i)).value / kGroupPages);
    const auto made = Do(peer->MakeNode({}, root_, absl::StrCat("theirs", i), S_IFREG | 0644, 0));
    ASSERT_TRUE(made.ok()) << made.status();
    others_groups.insert(made->inode.value / kGroupPages);
  }
  EXPECT_EQ(groups.size(), 1u);
  EXPECT_EQ(others_groups.size(), 1u);
  EXPECT_NE(*groups.begin(), *others_groups.begin());
}

}  // namespace
}  // namespace mangrove::fs
