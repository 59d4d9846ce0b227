// A node is lost while programs work on its mount and on another one: those of the other mount go on as if nothing were, those of the lost one
// end, and what was synced is there.
// Covers: F06, F09, F12

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/cluster/mounted_cluster.h"

namespace mangrove::cluster_test {
namespace {

constexpr int kKillLimitS = 120;
constexpr int kEndLimitS = 10;

struct KilledProgram {
  std::string name;
  // Bash functions, with the mounts' directories and local() in $mounts and $local: make DIRECTORY, once, turn DIRECTORY, which may be called
  // again, and check DIRECTORY, of one that is whole. Turn has the time's count in $count.
  std::string functions;
  // What stands in the directory of the lost mount is checked too.
  bool is_whole_unsynced = false;
};

// The loops of both sides. After the loss there are two more turns.
constexpr char kFrame[] = R"sh(
  local=$4
  sync_all() { find $1 -type f -print0 | xargs -0 -r sync; sync $1; }
  work() {
    make $1
    count=0
    after=0
    while [ $after -lt 2 ]; do
      [ ! -e $local/lost ] || after=$((after + 1))
      count=$((count + 1))
      turn $1
      touch $local/turned-$(basename $1)
    done
  }
)sh";

class KilledPrograms : public MountedCluster, public testing::WithParamInterface<KilledProgram> {
 protected:
  Output Run(const std::string& words, int timeout_s = kKillLimitS) {
    return RunScript(absl::StrCat(kFrame, GetParam().functions, words), timeout_s);
  }
  void ExpectDone(const std::string& words) {
    const Output output = Run(words);
    EXPECT_EQ(output.exit_code, 0) << words << ": " << output.out << output.err;
  }
  bool HasTurned(const std::string& who) const { return std::filesystem::exists(local() + "/turned-" + who); }
};

// Whoever asks for the room in the fileset asks those that are there.
TEST_F(MountedCluster, SaysItsRoomAlsoWithoutANode) {
  StartMounted();
  cluster_.Kill(1);
  const Stopwatch watch;
  struct statvfs room {};
  EXPECT_EQ(statvfs(DirectoryOf(2).c_str(), &room), 0) << strerror(errno);
  EXPECT_GT(room.f_bavail, 0u);
  EXPECT_EQ(statvfs(DirectoryOf(3).c_str(), &room), 0) << strerror(errno);
  EXPECT_LT(watch.Seconds(), kEndLimitS / 2);
}

TEST_P(KilledPrograms, EndOnTheLostMountAndGoOnOnTheOthers) {
  StartMounted();
  ExpectDone("make $1/synced; count=0; turn $1/synced; sync_all $1/synced; check $2/synced");
  Output lost;
  Output other;
  std::thread on_lost([&] { lost = Run("work $1/lost"); });
  std::thread on_other([&] { other = Run("work $2/other"); });
  EXPECT_TRUE(Eventually([&] { return HasTurned("lost") && HasTurned("other"); }, kKillLimitS / 2));
  cluster_.Kill(1);
  const Stopwatch watch;
  struct stat s {};
  EXPECT_EQ(stat((DirectoryOf(1) + "/synced").c_str(), &s) == 0 ? 0 : errno, ENOTCONN);
  EXPECT_LT(watch.Seconds(), 1);
  on_lost.join();
  EXPECT_LT(watch.Seconds(), kEndLimitS);
  std::ofstream(local() + "/lost").close();
  on_other.join();
  EXPECT_NE(lost.exit_code, 0);
  EXPECT_EQ(other.exit_code, 0) << other.out << other.err;
  ExpectDone("check $3/synced; check $3/other");
  if (GetParam().is_whole_unsynced) ExpectDone("check $3/lost");
  ExpectSound(2);
}

const KilledProgram kGit{"Git", R"sh(
  export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_CONFIG_GLOBAL=/dev/null
  make() { git init -q $1; }
  turn() {
    mkdir -p $1/d$count
    for i in $(seq 30); do seq $count $((count + i)) >$1/d$count/f$i; done
    git -C $1 add .
    git -C $1 commit -q -m $count
  }
  check() { git -C $1 fsck --full --strict && test -z "$(git -C $1 status --porcelain)"; }
)sh"};

const KilledProgram kCompiler{"Compiler", R"sh(
  make() {
    mkdir $1
    for i in $(seq 8); do printf 'int f%d(void) { return %d; }\n' $i $i >$1/f$i.c; done
    echo 'int f8(void); int main(void) { return f8() - 8; }' >$1/main.c
    printf 'program: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\t$(CC) -o $@ $^\nclean:\n\trm -f program *.o\n' >$1/Makefile
  }
  turn() { command make -s -C $1 clean && command make -s -C $1 -j2 && $1/program; }
  check() { $1/program && command make -C $1 -q program; }
)sh"};

// With this journal a commit is durable when it is acknowledged. $local/acknowledged has the last one.
const KilledProgram kSqlite{"Sqlite",
                            R"sh(
  make() { mkdir $1; sqlite3 $1/db 'PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, text)' >/dev/null; }
  turn() {
    for i in 1 2 3 4 5; do
      sqlite3 -bail $1/db "PRAGMA synchronous=FULL; INSERT INTO t(text) VALUES(hex(randomblob(3000)))"
      echo x >>$local/acknowledged-$(basename $1)
    done
  }
  check() {
    test "$(sqlite3 $1/db 'PRAGMA integrity_check')" = ok
    test $(sqlite3 $1/db 'SELECT COUNT(*) FROM t') -ge $(wc -l <$local/acknowledged-$(basename $1))
  }
)sh",
                            true};

const KilledProgram kRsync{"Rsync", R"sh(
  make() {
    mkdir $1
    [ ! -e $local/tree ] || return 0
    for i in $(seq 100); do mkdir -p $local/tree/d$((i % 5)) && seq $i $((i * 20)) >$local/tree/d$((i % 5))/f$i; done
    ln $local/tree/d1/f1 $local/tree/d2/hard
  }
  turn() { rm -rf $1/* && rsync --timeout=5 -aHAX $local/tree/ $1/; }
  check() {
    rsync -aHAXn --checksum --delete --itemize-changes $local/tree/ $1/ >$local/differences
    diff /dev/null $local/differences
  }
)sh"};

const KilledProgram kStressNg{"StressNg", R"sh(
  make() { mkdir $1; }
  turn() {
    local words=
    for stressor in chmod hdd rename; do words="$words --$stressor 1 --$stressor-ops 50"; done
    stress-ng --temp-path $1 --verify --timeout 10 --hdd-bytes 1m $words && echo $count >$1/turn
  }
  check() { test "$(ls $1)" = turn && test -s $1/turn; }
)sh"};

const KilledProgram kFio{"Fio", R"sh(
  make() { mkdir $1; }
  run() {
    fio --name=job --directory=$1 --rw=randwrite --bs=4k-64k --size=2m --verify=crc32c --fallocate=none --max_latency=60s \
      --ioengine=psync --end_fsync=1 --output-format=terse $2
  }
  turn() { run $1 --do_verify=1; }
  check() { run $1 --verify_only; }
)sh"};

const KilledProgram kDbench{"Dbench", R"sh(
  make() { mkdir $1; }
  turn() { dbench -D $1 -t 2 2 && echo $count >$1/turn; }
  check() { test -s $1/turn; }
)sh"};

INSTANTIATE_TEST_SUITE_P(All, KilledPrograms,
                         testing::Values(kGit, kCompiler, kSqlite, kRsync, kStressNg, kFio, kDbench),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mangrove::cluster_test
