// Extended attributes of all namespaces (xattr(7)).
// Covers: F06

#include <linux/capability.h>
#include <sys/xattr.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

int64_t Set(const char* path, const std::string& name, const std::string& value, int flags = 0) {
  return setxattr(path, name.c_str(), value.data(), value.size(), flags);
}

int64_t Probe(const char* path, const std::string& name) { return getxattr(path, name.c_str(), nullptr, 0); }

const std::string kLongName = "user." + std::string(251, 'n');  // One byte too long.

const bool refusals = Refuses(
    "XattrRefuses",
    {
        {"ReadingWhatIsNotThere", {ENODATA}, [] { return Probe("file", "user.none"); }},
        {"RemovingWhatIsNotThere", {ENODATA}, [] { return removexattr("file", "user.none"); }},
        {"ReplacingWhatIsNotThere", {ENODATA}, [] { return Set("file", "user.none", "x", XATTR_REPLACE); }},
        {"OfNothing", {ENOENT}, [] { return Set("none", "user.a", "x"); }},
        {"ListingNothing", {ENOENT}, [] { return listxattr("none", nullptr, 0); }},
        {"ThroughAFile", {ENOTDIR}, [] { return Set("file/x", "user.a", "x"); }},
        {"ALoop", {ELOOP}, [] { return Set("loop", "user.a", "x"); }},
        {"NoNamespace", {EOPNOTSUPP}, [] { return Set("file", "a", "x"); }},
        {"AnUnknownNamespace", {EOPNOTSUPP}, [] { return Set("file", "mangrove-unknown.a", "x"); }},
        {"ReadingAnUnknownNamespace", {EOPNOTSUPP, ENODATA}, [] { return Probe("file", "mangrove-unknown.a"); }},
        {"NoNameInTheNamespace", {EINVAL, EOPNOTSUPP}, [] { return Set("file", "user.", "x"); }},
        {"TheEmptyName", {ERANGE, EOPNOTSUPP}, [] { return Set("file", "", "x"); }},
        {"ALongName", {ERANGE}, [] { return Set("file", kLongName, "x"); }},
        {"ReadingALongName", {ERANGE}, [] { return Probe("file", kLongName); }},
        {"ALargeValue", {E2BIG, ENOSPC}, [] { return Set("file", "user.a", std::string(65'537, 'x')); }},
        {"UnknownFlags", {EINVAL}, [] { return Set("file", "user.a", "x", 8); }},
        {"ABadAddress", {EFAULT}, [] { return setxattr("file", "user.a", NoAddress(), 4, 0); }},
        {"WhatIsNotOpen", {EBADF}, [] { return fsetxattr(987, "user.a", "x", 1, 0); }},
        {"AUsersOfALink", {EPERM}, [] { return lsetxattr("link", "user.a", "x", 1, 0); }},
        {"AUsersOfAFifo", {EPERM}, [] { return Set("fifo", "user.a", "x"); }},
        {"WritingThatOfAnothers", {EACCES}, [] { return Set("file", "user.a", "x"); }, kUser},
        {"RemovingThatOfAnothers", {EACCES}, [] { return removexattr("file", "user.a"); }, kUser},
        {"OfAStickyDirectoryOfAnothers", {EPERM}, [] { return Set("sticky", "user.a", "x"); }, kUser},
        {"TrustedByAUser", {EPERM}, [] { return Set("mine", "trusted.a", "x"); }, kUser},
        {"ReadingTrustedByAUser", {ENODATA, EPERM}, [] { return Probe("mine", "trusted.a"); }, kUser},
        {"SecurityByAUser", {EPERM}, [] { return Set("mine", "security.a", "x"); }, kUser},
        {"BehindAClosedDirectory", {EACCES}, [] { return Probe("secret/in", "user.a"); }, kUser},
    });

class Xattrs : public Posix {
 protected:
  static std::string Get(const std::string& path, const std::string& name) {
    std::string value(65'536, '\0');
    const ssize_t length = lgetxattr(There(path).c_str(), name.c_str(), value.data(), value.size());
    if (length < 0) return ErrnoName(errno);
    value.resize(static_cast<size_t>(length));
    return value;
  }
  // Without what the system itself adds.
  static std::set<std::string> List(const std::string& path) {
    std::string list(65'536, '\0');
    const ssize_t length = llistxattr(There(path).c_str(), list.data(), list.size());
    DONE(length);
    std::set<std::string> names;
    for (size_t at = 0; at < static_cast<size_t>(std::max<ssize_t>(length, 0)); at += std::strlen(&list[at]) + 1) {
      if (!std::string_view(&list[at]).starts_with("security.selinux")) names.insert(&list[at]);
    }
    return names;
  }
};

TEST_F(Xattrs, AreReadAsTheyWereWritten) {
  DONE(Set("file", "user.a", "hello"));
  EXPECT_EQ(Get("file", "user.a"), "hello");
  const std::string bytes("\0\xff\n\0", 4);
  DONE(Set("file", "user.a", bytes));
  EXPECT_EQ(Get("file", "user.a"), bytes);
  DONE(Set("file", "user.a", ""));
  EXPECT_EQ(Get("file", "user.a"), "");
  EXPECT_EQ(Probe("file", "user.a"), 0);
}

TEST_F(Xattrs, AreRemoved) {
  DONE(Set("file", "user.a", "x"));
  DONE(removexattr("file", "user.a"));
  EXPECT_EQ(Get("file", "user.a"), "ENODATA");
  EXPECT_EQ(List("file"), std::set<std::string>());
  FAILS(ENODATA, removexattr("file", "user.a"));
}

TEST_F(Xattrs, AreMadeOrReplacedAsAsked) {
  DONE(Set("file", "user.a", "x", XATTR_CREATE));
  FAILS(EEXIST, Set("file", "user.a", "y", XATTR_CREATE));
  EXPECT_EQ(Get("file", "user.a"), "x");
  DONE(Set("file", "user.a", "longer than that", XATTR_REPLACE));
  EXPECT_EQ(Get("file", "user.a"), "longer than that");
}

TEST_F(Xattrs, SayTheirLength) {
  DONE(Set("file", "user.a", "hello"));
  EXPECT_EQ(Probe("file", "user.a"), 5);
  char bytes[8];
  FAILS(ERANGE, getxattr("file", "user.a", bytes, 4));
  EXPECT_EQ(getxattr("file", "user.a", bytes, 5), 5);
}

TEST_F(Xattrs, AreListed) {
  DONE(Set("file", "user.a", "x"));
  DONE(Set("file", "user.b", "y"));
  DONE(Set("file", "trusted.c", "z"));
  EXPECT_EQ(List("file"), (std::set<std::string>{"user.a", "user.b", "trusted.c"}));
  char bytes[8];
  FAILS(ERANGE, listxattr("file", bytes, 8));
  EXPECT_GT(listxattr("file", nullptr, 0), 8);
}

TEST_F(Xattrs, OfAllNamespaces) {
  for (const std::string name : {"user.a", "trusted.a", "security.a"}) {
    DONE(Set("file", name, name));
    EXPECT_EQ(Get("file", name), name);
    DONE(Set("dir", name, name));
    EXPECT_EQ(Get("dir", name), name);
  }
}

TEST_F(Xattrs, OfLinksAndFifosAreTrustedOnes) {
  DONE(lsetxattr("link", "trusted.a", "x", 1, 0));
  EXPECT_EQ(Get("link", "trusted.a"), "x");
  EXPECT_EQ(Get("file", "trusted.a"), "ENODATA");
  DONE(Set("link", "trusted.a", "y"));
  EXPECT_EQ(Get("file", "trusted.a"), "y");
  DONE(Set("fifo", "trusted.a", "z"));
  EXPECT_EQ(Get("fifo", "trusted.a"), "z");
  DONE(lremovexattr("link", "trusted.a"));
  EXPECT_EQ(List("link"), std::set<std::string>());
}

TEST_F(Xattrs, OfDescriptors) {
  const Fd fd = Open("file", O_RDONLY);
  DONE(fsetxattr(fd, "user.a", "x", 1, 0));
  EXPECT_EQ(Get("file", "user.a"), "x");
  DONE(unlink("file"));
  char byte = 0;
  EXPECT_EQ(fgetxattr(fd, "user.a", &byte, 1), 1);
  DONE(fsetxattr(fd, "user.b", "y", 1, 0));
  EXPECT_EQ(flistxattr(fd, nullptr, 0), 14);
  DONE(fremovexattr(fd, "user.a"));
}

TEST_F(Xattrs, FollowTheMode) {
  DONE(Set("mine", "user.a", "x"));
  char byte = 0;
  const As user(kUser);
  DONE(chmod("mine", 0200));
  FAILS(EACCES, getxattr("mine", "user.a", &byte, 1));
  DONE(Set("mine", "user.a", "y"));
  DONE(chmod("mine", 0400));
  FAILS(EACCES, Set("mine", "user.a", "z"));
  EXPECT_EQ(getxattr("mine", "user.a", &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
}

TEST_F(Xattrs, BelongToTheFileAndNotToTheName) {
  DONE(Set("file", "user.a", "x"));
  DONE(link("file", "b"));
  EXPECT_EQ(Get("b", "user.a"), "x");
  DONE(rename("file", "dir/c"));
  EXPECT_EQ(Get("dir/c", "user.a"), "x");
  Make("file");
  EXPECT_EQ(Get("file", "user.a"), "ENODATA");
}

TEST_F(Xattrs, NamesAreAsLongAs255Bytes) {
  const std::string name = kLongName.substr(0, 255);
  DONE(Set("file", name, "x"));
  EXPECT_EQ(List("file"), std::set<std::string>{name});
  EXPECT_EQ(Get("file", name), "x");
  DONE(removexattr("file", name.c_str()));
}

TEST_F(Xattrs, ManyAreKept) {
  for (int i = 0; i < 30; ++i) DONE(Set("file", absl::StrCat("user.", i), std::string(static_cast<size_t>(i), 'x')));
  for (int i = 0; i < 30; i += 3) DONE(removexattr("file", absl::StrCat("user.", i).c_str()));
  EXPECT_EQ(List("file").size(), 20u);
  EXPECT_EQ(Get("file", "user.29"), std::string(29, 'x'));
  EXPECT_EQ(Get("file", "user.27"), "ENODATA");
}

// Others have less room: ext4 a block.
TEST_F(Xattrs, AFilesetTakesValuesOf64KiB) {
  DONE(Set("file", "user.a", std::string(2'000, 'a')));
  EXPECT_EQ(Get("file", "user.a"), std::string(2'000, 'a'));
  if (!places.is_fileset) return;
  DONE(Set("file", "user.a", std::string(65'536, 'b')));
  EXPECT_EQ(Get("file", "user.a"), std::string(65'536, 'b'));
  EXPECT_EQ(Probe("file", "user.a"), 65'536);
}

TEST_F(Xattrs, CapabilitiesOfAProgramGoWithAChangeOfItsBytesOrOwner) {
  vfs_cap_data capabilities{};
  capabilities.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE;
  capabilities.data[0].permitted = 1;
  const std::string value(reinterpret_cast<const char*>(&capabilities), XATTR_CAPS_SZ_2);
  const std::vector<std::function<int64_t()>> changes{
      [] { return WriteAt(Open("file"), "x", 0); },      [] { return truncate("file", 5); },
      [] { return Open("file", O_WRONLY | O_TRUNC); },   [] { return chown("file", kUser, kUser); },
      [] { return fallocate(Open("file"), 0, 0, 100); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    DONE(Set("file", "security.capability", value));
    EXPECT_EQ(Get("file", "security.capability"), value);
    DONE(changes[i]());
    EXPECT_EQ(Get("file", "security.capability"), "ENODATA") << i;
  }
  DONE(Set("file", "security.capability", value));
  DONE(chmod("file", 0700));
  EXPECT_EQ(Get("file", "security.capability"), value);
}

}  // namespace
}  // namespace mangrove::posix
