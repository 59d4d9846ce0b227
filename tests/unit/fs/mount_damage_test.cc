// What a program gets that meets damage through a mount: an error, and everything else goes on.

#include <gmock/gmock.h>

#include <filesystem>

#include "fs/bytes.h"
#include "fs/check.h"
#include "fs/fileset_page.h"
#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

using testing::HasSubstr;

class MountDamageTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (HasFatalFailure()) return;
    std::filesystem::create_directory(Path("d"));
    for (int i = 0; i < 400; ++i) WriteFile(absl::StrCat("d/n", i), "");
    WriteFile("file", std::string(10'000, 'f'));
    WriteFile("other", std::string(10'000, 'o'));
  }
  void Flip(uint64_t page, size_t at) {
    OnLoop([&] { pages_.metadata(page)[at] ^= 1; });
  }
  // A page that is sound but for a value.
  template <typename T>
  void Put(uint64_t page, size_t at, T value) {
    OnLoop([&] {
      std::string& bytes = pages_.metadata(page);
      PutLittle({bytes.data(), bytes.size()}, at, value);
      SealPage({bytes.data(), bytes.size()}, page);
    });
  }
  uint64_t NodeOf(const std::string& name, uint16_t child) {
    const uint64_t inode = Stat(name).st_ino;
    uint64_t node = 0;
    OnLoop([&] {
      const NodeView root(std::span<const char>(pages_.metadata(inode)).subspan(192, 2'688));
      ASSERT_GT(root.level(), 0);
      node = root.ChildAt(child);
    });
    return node;
  }
  void ExpectOthersAreFine() {
    EXPECT_EQ(ReadFile("other"), std::string(10'000, 'o'));
    WriteFile("made", "text");
    EXPECT_EQ(ReadFile("made"), "text");
    EXPECT_EQ(unlink(Path("made").c_str()), 0);
  }
  CheckReport Repair() {
    CheckReport report;
    OnLoop([&] {
      report = *Do(CheckFileset(&pages_, {.repair = true}));
      EXPECT_THAT(report.problems, testing::IsEmpty());
      EXPECT_THAT(Do(CheckFileset(&pages_))->problems, testing::IsEmpty());
    });
    return report;
  }
};

// Covers: F12 F17
TEST_F(MountDamageTest, InodeThatIsDamagedIsAnErrorAndItsNameGoesByARepair) {
  Flip(Stat("file").st_ino, 500);
  EXPECT_EQ(StatError("file"), EIO);
  EXPECT_EQ(OpenError("file", O_RDONLY), EIO);
  EXPECT_NE(unlink(Path("file").c_str()), 0);
  ExpectOthersAreFine();
  EXPECT_FALSE(Repair().repairs.empty());
  EXPECT_EQ(StatError("file"), ENOENT);
  ExpectOthersAreFine();
}

TEST_F(MountDamageTest, PageOfADirectoryThatIsDamagedIsAnErrorForTheNamesOnIt) {
  Flip(NodeOf("d", 1), 500);
  int errors = 0;
  for (int i = 0; i < 400; ++i) {
    const int error = StatError(absl::StrCat("d/n", i));
    EXPECT_TRUE(error == 0 || error == EIO) << error;
    errors += error == EIO ? 1 : 0;
  }
  EXPECT_GT(errors, 0);
  EXPECT_LT(errors, 400);
  EXPECT_NE(OpenError("d/n0", O_CREAT | O_EXCL | O_WRONLY), 0);
  ExpectOthersAreFine();
  EXPECT_FALSE(Repair().repairs.empty());
  size_t salvaged = 0;
  for (const auto& entry : std::filesystem::directory_iterator(Path("lost+found"))) salvaged += entry.exists() ? 1 : 0;
  EXPECT_EQ(salvaged, static_cast<size_t>(errors));
  ExpectOthersAreFine();
}

TEST_F(MountDamageTest, ExtentThatIsNoneIsAnErrorOfItsFileAlone) {
  // The first extent's page, in the root of the inode: the last record that is in it.
  const uint64_t inode = Stat("file").st_ino;
  OnLoop([&] {
    std::string& bytes = pages_.metadata(inode);
    const NodeView root(std::span<const char>(bytes).subspan(192, 2'688));
    ASSERT_GT(root.count(), 0);
    const size_t at = static_cast<size_t>(root.ValueAt(0).data() - bytes.data());
    PutLittle({bytes.data(), bytes.size()}, at, uint64_t{77});
    SealPage({bytes.data(), bytes.size()}, inode);
  });
  const Descriptor file = Open("file", O_RDWR);
  char byte = 0;
  EXPECT_EQ(ErrorOf(pread(file, &byte, 1, 0)), EIO);
  ExpectOthersAreFine();
  EXPECT_FALSE(Repair().repairs.empty());
  EXPECT_EQ(pread(file, &byte, 1, 0), 1);
  EXPECT_EQ(byte, 0);
}

TEST_F(MountDamageTest, FilesetOfAnotherFormatIsNotOpened) {
  OnLoop([&] {
    MemoryPages other = pages_;
    std::string& bytes = other.metadata(kFilesetPage);
    PutLittle({bytes.data(), bytes.size()}, 4, static_cast<uint16_t>(kFormatVersion + 2));
    SealPage({bytes.data(), bytes.size()}, kFilesetPage);
    const absl::Status status = Do(Instance::Open(&other)).status();
    EXPECT_EQ(ErrnoOf(status), EIO);
    EXPECT_THAT(std::string(status.message()), HasSubstr("its format is"));
    const CheckReport report = *Do(CheckFileset(&other, {.repair = true}));
    EXPECT_THAT(report.problems, testing::Contains(HasSubstr("its format is")));
    EXPECT_THAT(report.repairs, testing::IsEmpty());
  });
  ExpectOthersAreFine();
}

}  // namespace
}  // namespace mangrove::fs
