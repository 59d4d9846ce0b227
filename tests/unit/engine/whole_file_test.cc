// Covers: C08

#include "engine/whole_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/unit/engine/store_test_support.h"

namespace mangrove {
namespace {

class WholeFile : public testing::Test {
 protected:
  std::string Content() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t Files() const {
    const std::filesystem::directory_iterator files(directory_.path());
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }
  const store_test::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "file";
};

TEST_F(WholeFile, IsThereWithItsModeAndNothingBesideIt) {
  std::ofstream(path_ + ".new") << "cut sh";  // Of a run that was killed.
  ASSERT_TRUE(WriteWholeFile(path_, 0600, "text", IfThere::kRefuse).ok());
  EXPECT_EQ(Content(), "text");
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(Files(), 1u);
}

TEST_F(WholeFile, ThatIsThereStaysAsItIsUnlessItIsToBeReplaced) {
  ASSERT_TRUE(WriteWholeFile(path_, 0600, "first", IfThere::kRefuse).ok());
  const absl::Status refused = WriteWholeFile(path_, 0600, "second", IfThere::kRefuse);
  EXPECT_EQ(refused, absl::AlreadyExistsError("cannot make " + path_ + ": File exists"));
  EXPECT_EQ(Content(), "first");
  EXPECT_EQ(Files(), 1u);
  ASSERT_TRUE(WriteWholeFile(path_, 0600, "third", IfThere::kReplace).ok());
  EXPECT_EQ(Content(), "third");
  EXPECT_EQ(Files(), 1u);
}

TEST_F(WholeFile, ThatCannotBeWrittenIsNamed) {
  const absl::Status status = WriteWholeFile(directory_ / "none/file", 0600, "text", IfThere::kRefuse);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find("none/file.new"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace mangrove
