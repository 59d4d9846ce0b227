// A disk that hands out what was not written: the pages come from another core holder, the damage is told, and the node
// lives on; or it ends and says what to do.
// Covers: F01, G11, G17

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/store/little_endian.h"
#include "engine/store/page_entry.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kDamagedSegments = 12;

// What stands in the page at `offset`: of its own, and to be found in a file.
std::string ContentOf(uint64_t offset) {
  const std::string word = absl::StrCat("page of the region at ", offset, ". ");
  std::string content;
  while (content.size() < kPageBytes) content += word;
  content.resize(kPageBytes);
  return content;
}

// The store of a node that was stopped, so that everything is in its tables; written through RocksDB itself, as no store
// would.
class OpenedStore {
 public:
  explicit OpenedStore(const std::string& path) : path_(path) {
    rocksdb::ColumnFamilyOptions options;
    options.compression = rocksdb::kNoCompression;
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : {"default", "pages", "records"}) families.push_back({name, options});
    rocksdb::DB* db = nullptr;
    const auto status = rocksdb::DB::Open({}, path, families, &families_, &db);
    if (!status.ok()) throw std::runtime_error(status.ToString());
    db_.reset(db);
  }
  OpenedStore(const OpenedStore&) = delete;
  OpenedStore& operator=(const OpenedStore&) = delete;
  ~OpenedStore() {
    for (auto* family : families_) db_->DestroyColumnFamilyHandle(family);
  }

  // Changes one bit of what the index has of the page, under a checksum of RocksDB's that is right. False: it is not there.
  bool FlipBit(PageId page) {
    const std::string key(store::View(store::EncodePageKey(page)));
    std::string value;
    if (!db_->Get({}, families_[1], key, &value).ok()) return false;
    value[45] ^= 4;
    return db_->Put({}, families_[1], key, value).ok();
  }

  // As if the node itself had stored this at the beginning of the page. False: it is not there.
  bool Overwrite(PageId page, const std::string& bytes) {
    const std::string key(store::View(store::EncodePageKey(page)));
    std::string value;
    if (!db_->Get({}, families_[1], key, &value).ok()) return false;
    store::PageEntry entry = Take(store::DecodeIndexValue(page, value));
    std::fstream segment(absl::StrFormat("%s/segments/%012d.seg", path_, entry.place.segment),
                         std::ios::binary | std::ios::in | std::ios::out);
    std::string data(kPageBytes, '\0');
    const auto at = static_cast<std::streamoff>(entry.place.block * store::kBlockBytes);
    segment.seekg(at).read(data.data(), static_cast<std::streamsize>(data.size()));
    data.replace(0, bytes.size(), bytes);
    segment.seekp(at).write(data.data(), static_cast<std::streamsize>(data.size()));
    entry.data_sum = store::DataSum(data.data());
    const store::IndexValue changed = store::EncodeIndexValue(entry);
    return segment.good() && db_->Put({}, families_[1], key, {changed.data(), changed.size()}).ok();
  }

 private:
  const std::string path_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
  std::unique_ptr<rocksdb::DB> db_;
};

// Changes one bit wherever `content` stands in files whose names end with `suffix`. Returns how often that was.
int FlipBitsInFiles(const std::string& directory, const std::string& suffix, const std::string& content) {
  int flipped = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (!entry.path().string().ends_with(suffix)) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    std::fstream out(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
    for (size_t at = bytes.find(content); at != std::string::npos; at = bytes.find(content, at + 1)) {
      const size_t inside = at + content.size() / 2;
      out.seekp(static_cast<std::streamoff>(inside));
      out.put(static_cast<char>(bytes[inside] ^ 4));
      ++flipped;
    }
  }
  return flipped;
}

class Damage : public testing::Test {
 protected:
  std::string store(int node) const { return absl::StrCat(cluster_.directory(), "/data-", node, "/store"); }

  // Flushes a page in each segment, and stops the nodes.
  void WriteAndStop() {
    cluster_.StartAll();
    {
      const auto session = cluster_.Attach(2);
      const auto region = MakeRegion(*session, "r", kDamagedSegments * kSegmentBytes);
      address_ = region->info().address;
      for (uint64_t i = 0; i < kDamagedSegments; ++i) {
        const std::string content = ContentOf(i * kSegmentBytes);
        ASSERT_TRUE(region->Write(i * kSegmentBytes, std::as_bytes(std::span(content))).ok());
      }
      const absl::Status flushed = region->Flush(0, region->info().size_bytes);
      ASSERT_TRUE(flushed.ok()) << flushed;
    }
    cluster_.StopAll();
  }

  void ExpectEverythingReadable() {
    for (int node = 1; node <= 3; ++node) {
      const auto session = cluster_.Attach(node);
      const auto region = Take(session->Open("r", AccessMode::kRead));
      for (uint64_t i = 0; i < kDamagedSegments; ++i) {
        std::string content(kPageBytes, '\0');
        const absl::Status read = region->Read(i * kSegmentBytes, std::as_writable_bytes(std::span(content)));
        ASSERT_TRUE(read.ok()) << read;
        ASSERT_EQ(content, ContentOf(i * kSegmentBytes)) << "node-" << node;
      }
    }
  }

  uint64_t CorruptPages(int node) {
    return cluster_.Ask(node, {"status"})["counters"]["corrupt_pages"].get<uint64_t>();
  }

  // After `damaged` pages of node-1's store were damaged.
  void ExpectServedToldAndMended(uint64_t damaged) {
    cluster_.StartAll();
    ExpectEverythingReadable();
    EXPECT_EQ(CorruptPages(1), damaged);
    EXPECT_EQ(CorruptPages(2), 0u);
    EXPECT_THAT(cluster_.log(1), AllOf(HasSubstr("the stored record"), HasSubstr("another core holder's copy")));
    // The sound copies have replaced them.
    cluster_.StopAll();
    cluster_.StartAll();
    ExpectEverythingReadable();
    EXPECT_EQ(CorruptPages(1), 0u);
  }

  Cluster cluster_;
  GlobalAddress address_;
};

TEST_F(Damage, ACorruptPageIsReadFromAnotherCoreHolderToldAndMended) {
  WriteAndStop();
  uint64_t damaged = 0;
  {
    OpenedStore opened(store(1));
    for (uint64_t i = 0; i < kDamagedSegments; ++i)
      damaged += opened.FlipBit(PageOf(address_ + i * kSegmentBytes)) ? 1 : 0;
  }
  ASSERT_GE(damaged, 2u);
  ExpectServedToldAndMended(damaged);
}

TEST_F(Damage, ACorruptSegmentCostsThePagesInIt) {
  WriteAndStop();
  uint64_t damaged = 0;
  for (uint64_t i = 0; i < kDamagedSegments; ++i) {
    damaged += FlipBitsInFiles(store(1) + "/segments", ".seg", ContentOf(i * kSegmentBytes)) > 0 ? 1 : 0;
  }
  ASSERT_GE(damaged, 2u);
  ExpectServedToldAndMended(damaged);
}

// Where pages are stands in tables, whose blocks have checksums of RocksDB's.
TEST_F(Damage, ACorruptTableCostsThePagesInIt) {
  WriteAndStop();
  uint64_t damaged = 0;
  for (uint64_t i = 0; i < kDamagedSegments; ++i) {
    char sum[sizeof(uint64_t)];
    store::PutLittleEndian<uint64_t>(store::DataSum(ContentOf(i * kSegmentBytes).data()), sum);
    damaged += FlipBitsInFiles(store(1), ".sst", {sum, sizeof(sum)}) > 0 ? 1 : 0;
  }
  ASSERT_GE(damaged, 2u);
  cluster_.StartAll();
  ExpectEverythingReadable();
  EXPECT_GE(CorruptPages(1), damaged) << "a block has entries of several pages";
  EXPECT_THAT(cluster_.log(1), AllOf(HasSubstr("the stored record"), HasSubstr("another core holder's copy")));
}

TEST_F(Damage, APageThatIsCorruptOnEveryCoreHolderIsAnErrorOfItsOwn) {
  WriteAndStop();
  const PageId page = PageOf(address_);
  for (int node = 1; node <= 3; ++node) OpenedStore(store(node)).FlipBit(page);
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = Take(session->Open("r", AccessMode::kWrite));
  uint64_t value = 0;
  const absl::Status read = region->Read(0, std::as_writable_bytes(std::span(&value, 1)));
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss) << read;
  EXPECT_THAT(std::string(read.message()), HasSubstr(ToString(page)));
  for (uint64_t i = 1; i < kDamagedSegments; ++i) {
    EXPECT_TRUE(region->Read(i * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1))).ok()) << i;
  }
}

// The page by which filesets are found.
class SuperRootDamage : public Damage {
 protected:
  SuperRootDamage() { mkdir(mount_.c_str(), 0755); }
  ~SuperRootDamage() override {
    cluster_.KillAll();
    umount2(mount_.c_str(), MNT_DETACH);
  }

  Output Do(int node, const std::vector<std::string>& words) {
    std::vector<std::string> command{"mangrove", "--socket", cluster_.socket(node)};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }
  // The filesets are there, and what `damage` does happens to every store that has the page, while the nodes are away.
  void DamageSuperRoot(const std::function<bool(OpenedStore&)>& damage) {
    WriteAndStop();
    cluster_.StartAll();
    EXPECT_EQ(Do(1, {"mount", "default", mount_}).exit_code, 0);
    std::ofstream(mount_ + "/a") << "bytes";
    cluster_.StopAll();
    int damaged = 0;
    for (int node = 1; node <= 3; ++node) {
      OpenedStore opened(store(node));
      damaged += damage(opened) ? 1 : 0;
    }
    ASSERT_GE(damaged, 2);
    cluster_.StartAll();
  }
  void ExpectToldByEverything(const std::string& words) {
    const std::vector<std::vector<std::string>> commands{{"fileset", "list"},
                                                         {"fileset", "show", "default"},
                                                         {"fileset", "create", "another"},
                                                         {"mount", "default", mount_},
                                                         {"fsck", "default"}};
    for (int node = 1; node <= 2; ++node) {
      for (const auto& command : commands) {
        const Output output = Do(node, command);
        EXPECT_EQ(output.exit_code, command[0] == "fsck" ? 8 : 1) << command[0];
        EXPECT_THAT(output.err, AllOf(HasSubstr("the super root, page "), HasSubstr(words))) << command[0];
      }
    }
    ExpectEverythingReadable();
  }

  const TemporaryDirectory directory_;
  const std::string mount_ = directory_ / "mount";
};

TEST_F(SuperRootDamage, OneThatCannotBeReadIsAnErrorOfFilesetsAlone) {
  DamageSuperRoot([](OpenedStore& opened) { return opened.FlipBit(kSuperRootPage); });
  if (!HasFatalFailure()) ExpectToldByEverything("cannot be read: page ");
}

TEST_F(SuperRootDamage, OneThatWasOverwrittenIsWrittenAnewByARepair) {
  DamageSuperRoot([](OpenedStore& opened) { return opened.Overwrite(kSuperRootPage, "something else"); });
  if (HasFatalFailure()) return;
  ExpectToldByEverything("something has overwritten it");
  const Output repaired = Do(1, {"fsck", "default", "--repair"});
  EXPECT_EQ(repaired.exit_code, 1) << repaired.err;
  EXPECT_THAT(repaired.out, HasSubstr("the super root had been overwritten"));
  for (int node = 2; node >= 1; --node) EXPECT_EQ(Do(node, {"fsck", "default"}).exit_code, 0);
  EXPECT_EQ(Do(2, {"mount", "default", mount_}).exit_code, 0);
  std::string text;
  std::ifstream(mount_ + "/a") >> text;
  EXPECT_EQ(text, "bytes");
}

// Pages that nobody has in RAM any more.
TEST(DamageWhileRunning, ADiskThatGoesBadCostsNothingButIsTold) {
  Cluster cluster({.cache_size_mib = 4});
  cluster.StartAll();
  constexpr uint64_t kSize = uint64_t{24} << 20;
  constexpr uint64_t kStep = uint64_t{1} << 19;
  const auto session = cluster.Attach(1, 20'000);
  const auto region = MakeRegion(*session, "r", kSize);
  for (uint64_t at = 0; at < kSize; at += kPageBytes) {
    const std::string content = ContentOf(at);
    ASSERT_TRUE(region->Write(at, std::as_bytes(std::span(content))).ok());
  }
  const absl::Status flushed = region->Flush(0, kSize);
  ASSERT_TRUE(flushed.ok()) << flushed;
  int damaged = 0;
  for (uint64_t at = 0; at < kSize; at += kStep) {
    damaged += FlipBitsInFiles(cluster.directory() + "/data-1/store/segments", ".seg", ContentOf(at));
  }
  ASSERT_GT(damaged, 0);
  for (uint64_t at = 0; at < kSize; at += kStep) {
    std::string content(kPageBytes, '\0');
    const absl::Status read = region->Read(at, std::as_writable_bytes(std::span(content)));
    ASSERT_TRUE(read.ok()) << read;
    ASSERT_EQ(content, ContentOf(at));
  }
  EXPECT_GT(cluster.Ask(1, {"status"})["counters"]["corrupt_pages"].get<uint64_t>(), 0u);
  EXPECT_GT(cluster.LinesOf(1, "it is read from another core holder"), 0u);
}

// What the node keeps of itself is on no other node.
TEST_F(Damage, ACorruptRecordKeepsANodeFromStartingAndItSaysWhatToDo) {
  WriteAndStop();
  // A key stands there without what it shares with the one before.
  ASSERT_GT(FlipBitsInFiles(store(1), ".sst", "xtent/0"), 0);
  const Output output = RunProgram({"mangroved", "--config", cluster_.config(1)});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, AllOf(HasSubstr("cannot start"), HasSubstr("record \"node/"),
                                HasSubstr(absl::StrCat("move the directory ", store(1), " away"))));
  // And that helps. (With the disk its incarnation is gone, and may be the same again.)
  std::filesystem::rename(store(1), store(1) + ".damaged");
  cluster_.StartAll();
  ExpectEverythingReadable();
}

}  // namespace
}  // namespace mangrove::cluster_test
