// Programs that are made to find faults of filesystems.
// Covers: F06, F09, F16

#include <gtest/gtest.h>

#include <string>

#include "tests/cluster/mounted_cluster.h"

namespace mangrove::cluster_test {
namespace {

using Stress = MountedCluster;

constexpr int kStressLimitS = 120;

// Each stressor on one of the mounts, all in one directory and at the same time.
TEST_F(Stress, StressNgFindsNothingOnAnyMount) {
  StartMounted();
  ExpectRuns(R"sh(
    stress() {
      local where=$1/stress out=$2 words=() stressor
      shift 2
      for stressor; do words+=("--$stressor" 1 "--$stressor-ops" 5); done
      stress-ng --temp-path $where --verify --timeout 10 \
        --fallocate-bytes 4m --hdd-bytes 1m --iomix-bytes 4m --readahead-bytes 4m --seek-size 4m --sync-file-bytes 4m \
        --mmap-bytes 2m --msync-bytes 2m --revio-bytes 2m --sendfile-size 1m --chdir-dirs 256 --dentries 128 --dir-dirs 256 \
        --dirdeep-dirs 1 --dirdeep-inodes 100 "${words[@]}" >$out 2>&1
    }
    mkdir $1/stress
    stress $1 $4/1 access chdir chmod chown copy-file dentry dir dirdeep fallocate fcntl file-ioctl filename flock & one=$!
    stress $2 $4/2 dirmany dnotify dup fpunch fstat getdent handle hdd inotify io iomix lease link locka lockf lockofd & two=$!
    stress $3 $4/3 mknod mmap msync open readahead rename revio seek sendfile symlink sync-file touch utime xattr & three=$!
    failed=0
    for job in $one $two $three; do wait $job || failed=1; done
    cat $4/1 $4/2 $4/3
    test $failed = 0
    if grep -qE 'fail|skip' $4/1 $4/2 $4/3; then exit 1; fi
    test -z "$(ls -A $1/stress)"
  )sh",
             kStressLimitS);
  ExpectSound(1);
}

TEST_F(Stress, WhatFioHasWrittenOnOneMountIsRightOnTheOthers) {
  StartMounted();
  ExpectRuns(R"sh(
    cat >$4/jobs.fio <<'END'
[global]
bs=4k-64k
size=4m
verify=crc32c
verify_fatal=1
fallocate=none
[buffered-random]
ioengine=psync
rw=randwrite
[buffered-sequential]
ioengine=psync
rw=write
[direct-random]
ioengine=libaio
iodepth=8
direct=1
rw=randwrite
[direct-sequential]
ioengine=libaio
iodepth=4
direct=1
bs=128k
rw=write
[mapped-random]
ioengine=mmap
rw=randwrite
end_fsync=1
[mapped-sequential]
ioengine=mmap
rw=write
end_fsync=1
END
    mkdir $1/fio
    local=$4
    run() {
      timeout 60 fio --directory=$1/fio --output=$local/fio.out $2 $local/jobs.fio 2>&1 || { cat $local/fio.out; return 1; }
    }
    run $1 --do_verify=0
    run $2 --verify_only
    run $3 --verify_only
    # That it looks: a byte is another one.
    printf x | dd of=$1/fio/direct-random.0.0 bs=1 seek=1234567 conv=notrunc status=none
    if run $2 --verify_only >/dev/null; then echo 'fio does not see a wrong byte'; exit 1; fi
  )sh",
             kStressLimitS);
}

TEST_F(Stress, DbenchMeetsNoError) {
  StartMounted();
  ExpectRuns(R"sh(
    mkdir $1/dbench $1/dbench/one $1/dbench/other
    timeout 60 dbench -D $2/dbench/other -t 3 2 >$4/out & other=$!
    timeout 60 dbench -D $1/dbench/one -t 3 --fsync 2
    wait $other || { cat $4/out; exit 1; }
  )sh",
             kStressLimitS);
}

}  // namespace
}  // namespace mangrove::cluster_test
