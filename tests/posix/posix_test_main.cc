// usage: posix_test [--place=local|mount|peers | --act=DIRECTORY [--look=DIRECTORY]] [GoogleTest's flags]
//
// Runs the cases in a directory under /tmp, on a mount of a fileset in memory, or acting on one such mount and looking at another;
// or on mounts of a fileset that are there already.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "tests/posix/posix.h"
#include "tests/unit/fs/mount_harness.h"

namespace mangrove::posix {
namespace {

class LocalDirectory final : public testing::Environment {
 public:
  void SetUp() override {
    std::string path = "/tmp/mangrove_posix_XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    Posix::places = {path, path, false};
  }
  void TearDown() override { std::filesystem::remove_all(Posix::places.act); }
};

class Mounts final : public testing::Environment, private fs::MountTest {
 public:
  explicit Mounts(bool with_peer) : with_peer_(with_peer) {}
  void SetUp() override {
    MountTest::SetUp();
    if (with_peer_ && fs::CanMount()) MountHere(&second_);
    Posix::places = {first_.point.path(), with_peer_ ? second_.point.path() : first_.point.path(), true};
  }
  void TearDown() override { MountTest::TearDown(); }

 private:
  void TestBody() override {}

  const bool with_peer_;
};

int Main(int argc, char** argv) {
  std::string place = "mount";
  Places given{.is_fileset = true};
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const std::string value(word.substr(std::min(word.size(), word.find('=') + 1)));
    if (word.starts_with("--place=")) {
      place = value;
    } else if (word.starts_with("--act=")) {
      given.act = value;
    } else if (word.starts_with("--look=")) {
      given.look = value;
    } else {
      std::fprintf(stderr, "unknown argument '%s'\n", argv[i]);
      return 2;
    }
  }
  if (!given.act.empty()) {
    if (given.look.empty()) given.look = given.act;
    Posix::places = given;
  } else if (place == "local") {
    testing::AddGlobalTestEnvironment(new LocalDirectory);
  } else if (place == "mount" || place == "peers") {
    testing::AddGlobalTestEnvironment(new Mounts(place == "peers"));
  } else {
    std::fprintf(stderr, "unknown place '%s'; expected local, mount or peers\n", place.c_str());
    return 2;
  }
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace mangrove::posix

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  return mangrove::posix::Main(argc, argv);
}
