// POSIX ACLs: kept, checked, inherited; in the form that the kernel takes (acl(5), xattr(7)).
// Covers: F04, F06

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include <cstring>

#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

constexpr char kAccess[] = "system.posix_acl_access";
constexpr char kDefault[] = "system.posix_acl_default";

struct Entry {
  uint16_t tag;
  uint16_t permissions;
  uint32_t id = 0xffffffff;
};

// "user::rw-,group::r--,..." by its parts.
std::string Acl(const std::vector<Entry>& entries, uint32_t version = POSIX_ACL_XATTR_VERSION) {
  std::string bytes(sizeof(version) + entries.size() * sizeof(Entry), '\0');
  std::memcpy(bytes.data(), &version, sizeof(version));
  std::memcpy(bytes.data() + sizeof(version), entries.data(), entries.size() * sizeof(Entry));
  return bytes;
}

int64_t Set(const char* path, const char* name, const std::string& value) {
  return setxattr(path, name, value.data(), value.size(), 0);
}

// Where one looks; empty: there is none.
std::string Get(const std::string& path, const char* name) {
  char bytes[1024];
  const ssize_t length = getxattr(There(path).c_str(), name, bytes, sizeof(bytes));
  EXPECT_TRUE(length >= 0 || errno == ENODATA) << ErrnoName(errno);
  return std::string(bytes, static_cast<size_t>(std::max<ssize_t>(length, 0)));
}

// The owner may rw, kUser what is said, others nothing; the mask is as wide as it can be.
std::string ForUser(uint16_t permissions) {
  return Acl({{ACL_USER_OBJ, 6}, {ACL_USER, permissions, kUser}, {ACL_GROUP_OBJ, 0}, {ACL_MASK, 7}, {ACL_OTHER, 0}});
}

const bool refusals = Refuses(
    "AclRefuses",
    {
        {"AnotherVersion",
         {EOPNOTSUPP, EINVAL},
         [] {
           return Set("file", kAccess, Acl({{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 4}, {ACL_OTHER, 4}}, 1));
         }},
        {"APieceOfAnEntry", {EINVAL}, [] { return Set("file", kAccess, ForUser(7).substr(0, 17)); }},
        {"NoOwner",
         {EINVAL},
         [] {
           return Set("file", kAccess, Acl({{ACL_GROUP_OBJ, 4}, {ACL_OTHER, 4}}));
         }},
        {"NoOthers",
         {EINVAL},
         [] {
           return Set("file", kAccess, Acl({{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 4}}));
         }},
        {"AUserWithoutAMask",
         {EINVAL},
         [] {
           return Set("file", kAccess, Acl({{ACL_USER_OBJ, 6}, {ACL_USER, 6, 1}, {ACL_GROUP_OBJ, 4}, {ACL_OTHER, 4}}));
         }},
        {"TheWrongOrder",
         {EINVAL},
         [] {
           return Set("file", kAccess, Acl({{ACL_OTHER, 4}, {ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 4}}));
         }},
        {"UnknownPermissions", {EINVAL}, [] { return Set("file", kAccess, ForUser(8)); }},
        {"AnUnknownTag",
         {EINVAL},
         [] {
           return Set("file", kAccess, Acl({{ACL_USER_OBJ, 6}, {3, 6}, {ACL_GROUP_OBJ, 4}, {ACL_OTHER, 4}}));
         }},
        {"ADefaultOfAFile", {EACCES}, [] { return Set("file", kDefault, ForUser(7)); }},
        {"AFileOfAnother", {EPERM}, [] { return Set("file", kAccess, ForUser(7)); }, kUser},
        {"ADirectoryOfAnother", {EPERM}, [] { return Set("open", kDefault, ForUser(7)); }, kUser},
        {"RemovingThatOfAnother", {EPERM}, [] { return removexattr("file", kAccess); }, kUser},
        {"ALinkItself",
         {EOPNOTSUPP},
         [] { return lsetxattr("link", kAccess, ForUser(7).data(), ForUser(7).size(), 0); }},
        {"WhatIsNotThere",
         {ENODATA},
         [] {
           char b[8];
           return getxattr("file", kAccess, b, 8);
         }},
    });

class Acls : public Posix {
 protected:
  static std::string May(const std::string& name) {
    std::string may;
    if (Fd(open(name.c_str(), O_RDONLY)) >= 0) may += 'r';
    if (Fd(open(name.c_str(), O_WRONLY)) >= 0) may += 'w';
    if (access(name.c_str(), X_OK) == 0) may += 'x';
    return may;
  }
};

TEST_F(Acls, AreKeptAsTheyWereGiven) {
  DONE(Set("file", kAccess, ForUser(7)));
  EXPECT_EQ(Get("file", kAccess), ForUser(7));
  DONE(Set("dir", kDefault, ForUser(5)));
  EXPECT_EQ(Get("dir", kDefault), ForUser(5));
  EXPECT_EQ(Get("dir", kAccess), "");
}

TEST_F(Acls, GiveAUserWhatTheModeDoesNot) {
  DONE(Set("file", kAccess, ForUser(7)));
  {
    const As user(kUser);
    EXPECT_EQ(May("file"), "rwx");
  }
  const As stranger(kStranger);
  EXPECT_EQ(May("file"), "");
}

TEST_F(Acls, TakeFromAUserWhatOthersHave) {
  DONE(Set("file", kAccess,
           Acl({{ACL_USER_OBJ, 6}, {ACL_USER, 0, kUser}, {ACL_GROUP_OBJ, 4}, {ACL_MASK, 7}, {ACL_OTHER, 7}})));
  {
    const As user(kUser);
    EXPECT_EQ(May("file"), "");
  }
  const As stranger(kStranger);
  EXPECT_EQ(May("file"), "rwx");
}

TEST_F(Acls, GiveToGroupsAlsoSupplementaryOnes) {
  DONE(Set("file", kAccess,
           Acl({{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 0}, {ACL_GROUP, 6, kGroup}, {ACL_MASK, 7}, {ACL_OTHER, 0}})));
  {
    const As member(kUser, kGroup);
    EXPECT_EQ(May("file"), "rw");
  }
  {
    const As supplementary(kUser, kUser, {1, kGroup});
    EXPECT_EQ(May("file"), "rw");
  }
  const As user(kUser);
  EXPECT_EQ(May("file"), "");
}

TEST_F(Acls, AMemberOfAGroupIsNotOneOfTheOthers) {
  DONE(Set("file", kAccess,
           Acl({{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 0}, {ACL_GROUP, 0, kGroup}, {ACL_MASK, 7}, {ACL_OTHER, 7}})));
  const As member(kUser, kUser, {kGroup});
  EXPECT_EQ(May("file"), "");
}

TEST_F(Acls, TheMaskBoundsUsersAndGroups) {
  DONE(Set("file", kAccess,
           Acl({{ACL_USER_OBJ, 7}, {ACL_USER, 7, kUser}, {ACL_GROUP_OBJ, 7}, {ACL_MASK, 4}, {ACL_OTHER, 7}})));
  EXPECT_EQ(Mode("file"), mode_t{0747});
  {
    const As user(kUser);
    EXPECT_EQ(May("file"), "r");
  }
  const As stranger(kStranger);
  EXPECT_EQ(May("file"), "rwx");
}

TEST_F(Acls, TheModesGroupBitsAreTheMask) {
  DONE(Set("file", kAccess, ForUser(6)));
  EXPECT_EQ(Mode("file"), mode_t{0670});
  DONE(chmod("file", 0640));
  EXPECT_EQ(Get("file", kAccess),
            Acl({{ACL_USER_OBJ, 6}, {ACL_USER, 6, kUser}, {ACL_GROUP_OBJ, 0}, {ACL_MASK, 4}, {ACL_OTHER, 0}}));
  {
    const As user(kUser);
    EXPECT_EQ(May("file"), "r");
  }
  DONE(chmod("file", 0765));
  EXPECT_EQ(Get("file", kAccess),
            Acl({{ACL_USER_OBJ, 7}, {ACL_USER, 6, kUser}, {ACL_GROUP_OBJ, 0}, {ACL_MASK, 6}, {ACL_OTHER, 5}}));
}

TEST_F(Acls, OneThatSaysNoMoreThanAModeIsTheMode) {
  DONE(Set("file", kAccess, Acl({{ACL_USER_OBJ, 7}, {ACL_GROUP_OBJ, 5}, {ACL_OTHER, 1}})));
  EXPECT_EQ(Mode("file"), mode_t{0751});
  EXPECT_EQ(Get("file", kAccess), "");
}

TEST_F(Acls, RemovedLeavesTheMode) {
  DONE(Set("file", kAccess, ForUser(6)));
  DONE(removexattr("file", kAccess));
  EXPECT_EQ(Get("file", kAccess), "");
  EXPECT_EQ(Mode("file"), mode_t{0670});
  const As user(kUser);
  EXPECT_EQ(May("file"), "");
}

TEST_F(Acls, TheDefaultCanBeRemoved) {
  DONE(Set("dir", kDefault, ForUser(6)));
  DONE(removexattr("dir", kDefault));
  EXPECT_EQ(Get("dir", kDefault), "");
  Make("dir/a");
  EXPECT_EQ(Get("dir/a", kAccess), "");
}

TEST_F(Acls, OfADirectoryDecideWhoEntersAndWrites) {
  DONE(Set("secret", kAccess,
           Acl({{ACL_USER_OBJ, 7}, {ACL_USER, 7, kUser}, {ACL_GROUP_OBJ, 0}, {ACL_MASK, 7}, {ACL_OTHER, 0}})));
  {
    const As user(kUser);
    EXPECT_EQ(ReadAt(Open("secret/in", O_RDONLY), 0), "in");
    DONE(mkdir("secret/d", 0755));
  }
  const As stranger(kStranger);
  FAILS(EACCES, open("secret/in", O_RDONLY));
}

TEST_F(Acls, ADefaultIsInheritedInsteadOfTheMask) {
  const Umask mask(077);
  DONE(Set("dir", kDefault,
           Acl({{ACL_USER_OBJ, 7}, {ACL_USER, 6, kUser}, {ACL_GROUP_OBJ, 5}, {ACL_MASK, 7}, {ACL_OTHER, 4}})));
  DONE(Open("dir/a", O_RDWR | O_CREAT, 0666));
  EXPECT_EQ(Mode("dir/a"), mode_t{0664});
  EXPECT_EQ(Get("dir/a", kAccess),
            Acl({{ACL_USER_OBJ, 6}, {ACL_USER, 6, kUser}, {ACL_GROUP_OBJ, 5}, {ACL_MASK, 6}, {ACL_OTHER, 4}}));
  EXPECT_EQ(Get("dir/a", kDefault), "");
  const As user(kUser);
  EXPECT_EQ(May("dir/a"), "rw");
}

TEST_F(Acls, ADefaultIsInheritedByDirectoriesAsBoth) {
  const std::string acl = ForUser(7);
  DONE(Set("dir", kDefault, acl));
  DONE(mkdir("dir/d", 0777));
  EXPECT_EQ(Get("dir/d", kDefault), acl);
  EXPECT_EQ(Get("dir/d", kAccess), acl);
  DONE(mkdir("dir/d/e", 0700));
  EXPECT_EQ(Get("dir/d/e", kDefault), acl);
  EXPECT_EQ(Mode("dir/d/e"), mode_t{0600});
}

TEST_F(Acls, ADefaultOfAModesWorthGivesAMode) {
  const Umask mask(077);
  DONE(Set("dir", kDefault, Acl({{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 4}, {ACL_OTHER, 0}})));
  DONE(Open("dir/a", O_RDWR | O_CREAT, 0777));
  EXPECT_EQ(Mode("dir/a"), mode_t{0640});
  EXPECT_EQ(Get("dir/a", kAccess), "");
}

TEST_F(Acls, FifosInheritAndLinksDoNot) {
  DONE(Set("dir", kDefault, ForUser(6)));
  DONE(mkfifo("dir/f", 0666));
  DONE(symlink("x", "dir/s"));
  EXPECT_EQ(Mode("dir/f"), mode_t{0660});
  EXPECT_EQ(Mode("dir/s"), mode_t{0777});
}

TEST_F(Acls, RenamesAndLinksInheritNothing) {
  DONE(Set("dir", kDefault, ForUser(7)));
  DONE(rename("file", "dir/a"));
  DONE(link("other", "dir/b"));
  EXPECT_EQ(Get("dir/a", kAccess), "");
  EXPECT_EQ(Mode("dir/b"), mode_t{0644});
}

TEST_F(Acls, TheOwnerNeedsNoEntryOfHisOwn) {
  {
    const As user(kUser);
    DONE(Set("mine", kAccess,
             Acl({{ACL_USER_OBJ, 4}, {ACL_USER, 7, kUser}, {ACL_GROUP_OBJ, 7}, {ACL_MASK, 7}, {ACL_OTHER, 7}})));
    EXPECT_EQ(May("mine"), "r");
  }
  EXPECT_EQ(Mode("mine"), mode_t{0477});
}

// --- The set-group-id bit ---------------------------------------------------------------------------------------------

// Everything to the owner, read and search to his group and others; and something for kStranger.
std::string ForStranger() {
  return Acl({{ACL_USER_OBJ, 7}, {ACL_USER, 7, kStranger}, {ACL_GROUP_OBJ, 5}, {ACL_MASK, 7}, {ACL_OTHER, 5}});
}
std::string OfMode755() { return Acl({{ACL_USER_OBJ, 7}, {ACL_GROUP_OBJ, 5}, {ACL_OTHER, 5}}); }

class SetGidAcls : public Acls {
 protected:
  void SetUp() override {
    Acls::SetUp();
    for (const char* name : {"mine", "mydir"}) {
      DONE(chown(name, kUser, kGroup));
      DONE(chmod(name, 02755));
    }
  }
};

TEST_F(SetGidAcls, SettingOneDropsTheBitForSomebodyOutsideOfTheGroup) {
  for (const char* name : {"mine", "mydir"}) {
    {
      const As user(kUser);
      DONE(Set(name, kAccess, ForStranger()));
    }
    EXPECT_EQ(Mode(name), mode_t{0775}) << name;
  }
}

TEST_F(SetGidAcls, SettingOneThatIsAModeDropsItToo) {
  {
    const As user(kUser);
    DONE(Set("mine", kAccess, OfMode755()));
  }
  EXPECT_EQ(Mode("mine"), mode_t{0755});
  EXPECT_EQ(Get("mine", kAccess), "");
}

TEST_F(SetGidAcls, SettingOneKeepsTheBitForMembersAndRoot) {
  {
    const As member(kUser, kUser, {kGroup});
    DONE(Set("mine", kAccess, ForStranger()));
  }
  EXPECT_EQ(Mode("mine"), mode_t{02775});
  DONE(Set("mine", kAccess, OfMode755()));
  EXPECT_EQ(Mode("mine"), mode_t{02755});
  {
    const As member(kUser, kGroup);
    DONE(Set("mydir", kAccess, ForStranger()));
  }
  EXPECT_EQ(Mode("mydir"), mode_t{02775});
}

TEST_F(SetGidAcls, TheOtherSetIdBitsStay) {
  DONE(chmod("mine", 07755));
  {
    const As user(kUser);
    DONE(Set("mine", kAccess, ForStranger()));
  }
  EXPECT_EQ(Mode("mine"), mode_t{05775});
}

TEST_F(SetGidAcls, ADefaultOneAndARemovalLeaveTheBit) {
  DONE(Set("mine", kAccess, ForStranger()));
  {
    const As user(kUser);
    DONE(Set("mydir", kDefault, ForStranger()));
    DONE(removexattr("mydir", kDefault));
    DONE(removexattr("mine", kAccess));
  }
  EXPECT_EQ(Mode("mydir"), mode_t{02755});
  EXPECT_EQ(Mode("mine"), mode_t{02775});
}

TEST_F(SetGidAcls, OtherAttributesLeaveTheBit) {
  {
    const As user(kUser);
    const int64_t outcome = setxattr("mine", "user.a", "b", 1, 0);
    if (outcome != 0) {
      FAILS(EOPNOTSUPP, outcome);  // Not every local filesystem has them.
    }
  }
  EXPECT_EQ(Mode("mine"), mode_t{02755});
}

TEST_F(SetGidAcls, ChmodDropsTheBitForSomebodyOutsideOfTheGroupAlsoWithAnAcl) {
  DONE(Set("mine", kAccess, ForStranger()));
  DONE(Set("mydir", kAccess, ForStranger()));
  for (const char* name : {"mine", "mydir"}) {
    {
      const As user(kUser);
      DONE(chmod(name, 02751));
    }
    EXPECT_EQ(Mode(name), mode_t{0751}) << name;
  }
}

TEST_F(SetGidAcls, ChownDropsTheBitOfProgramsAndKeepsThatOfDirectories) {
  DONE(Set("mine", kAccess, ForStranger()));
  DONE(Set("mydir", kAccess, ForStranger()));
  DONE(chown("mine", kUser, kUser));
  DONE(chown("mydir", kUser, kUser));
  EXPECT_EQ(Mode("mine"), mode_t{0775});
  EXPECT_EQ(Mode("mydir"), mode_t{02775});
  EXPECT_EQ(Get("mine", kAccess), ForStranger());
}

TEST_F(SetGidAcls, ADirectoryHandsDownGroupBitAndDefault) {
  DONE(Set("mydir", kDefault, ForStranger()));
  const Umask mask(077);
  {
    const As user(kUser);
    DONE(mkdir("mydir/d", 0777));
    DONE(mkdir("mydir/d/e", 0700));
    DONE(Open("mydir/a", O_RDWR | O_CREAT, 0666));
    DONE(mkfifo("mydir/f", 0666));
  }
  for (const char* name : {"mydir/d", "mydir/d/e", "mydir/a", "mydir/f"}) EXPECT_EQ(Stat(name).st_gid, kGroup) << name;
  EXPECT_EQ(Mode("mydir/d"), mode_t{02775});
  EXPECT_EQ(Mode("mydir/d/e"), mode_t{02700});
  EXPECT_EQ(Mode("mydir/a"), mode_t{0664});
  EXPECT_EQ(Mode("mydir/f"), mode_t{0664});
  EXPECT_EQ(Get("mydir/d/e", kDefault), ForStranger());
}

// Of the group's permissions that the file gets in the end nothing is known when the bit is asked for: the mode that is asked for counts.
TEST_F(SetGidAcls, WhatIsMadeWithTheBitInADirectoryWithADefaultHasItForMembersAlone) {
  DONE(chmod("mydir", 02777));
  DONE(Set("mydir", kDefault, ForStranger()));
  {
    const As stranger(kStranger);
    DONE(Open("mydir/a", O_RDWR | O_CREAT, 02755));
    DONE(Open("mydir/b", O_RDWR | O_CREAT, 02745));
  }
  EXPECT_EQ(Mode("mydir/a"), mode_t{0755});
  EXPECT_EQ(Mode("mydir/b"), mode_t{02745});
  {
    const As member(kStranger, kStranger, {kGroup});
    DONE(Open("mydir/c", O_RDWR | O_CREAT, 02755));
  }
  EXPECT_EQ(Mode("mydir/c"), mode_t{02755});
}

TEST_F(SetGidAcls, AWriteDropsTheBitOfAProgramWithAnAcl) {
  DONE(Set("mine", kAccess, ForStranger()));
  {
    const As stranger(kStranger);
    EXPECT_EQ(Write(Open("mine", O_WRONLY), "x"), 1);
  }
  EXPECT_EQ(Mode("mine"), mode_t{0775});
}

TEST_F(Acls, AreAmongTheListedAttributes) {
  DONE(Set("dir", kAccess, ForUser(7)));
  DONE(Set("dir", kDefault, ForUser(7)));
  char names[256];
  const ssize_t length = listxattr(There("dir").c_str(), names, sizeof(names));
  const std::string listed(names, static_cast<size_t>(std::max<ssize_t>(length, 0)));
  EXPECT_NE(listed.find(std::string(kAccess) + '\0'), std::string::npos);
  EXPECT_NE(listed.find(std::string(kDefault) + '\0'), std::string::npos);
}

TEST_F(Acls, OfManyEntries) {
  std::vector<Entry> entries{{ACL_USER_OBJ, 6}};
  for (uint32_t id = 1; id <= 60; ++id) entries.push_back({ACL_USER, 4, 10'000 + id});
  for (const Entry& entry : {Entry{ACL_GROUP_OBJ, 0}, Entry{ACL_MASK, 7}, Entry{ACL_OTHER, 0}})
    entries.push_back(entry);
  DONE(Set("file", kAccess, Acl(entries)));
  EXPECT_EQ(Get("file", kAccess), Acl(entries));
  const As user(10'060);
  EXPECT_EQ(May("file"), "r");
}

}  // namespace
}  // namespace mangrove::posix
