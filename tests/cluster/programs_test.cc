// Programs as users have them, on three mounts of one fileset: what they do on one is there for the others.
// Covers: F06, F09

#include <gtest/gtest.h>

#include <string>

#include "tests/cluster/mounted_cluster.h"

namespace mangrove::cluster_test {
namespace {

using Programs = MountedCluster;

constexpr int kLimitS = 120;

TEST_F(Programs, GitHasOneRepositoryOnAllMounts) {
  StartMounted();
  ExpectRuns(R"sh(
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_CONFIG_GLOBAL=/dev/null
    is_clean() { test -z "$(git -C $1 status --porcelain)"; }
    commits() { git -C $1 rev-list --count HEAD; }
    git init -q $4/origin
    cd $4/origin
    for i in $(seq 2000); do mkdir -p d$((i % 40)); seq $i $((i + 30)) >d$((i % 40))/f$i; done
    ln -s d1/f1 link
    chmod +x d2/f2
    git add .
    git commit -q -m one
    git clone -q --no-local $4/origin $1/repository
    is_clean $2/repository
    test $(commits $2/repository) = 1
    cd $1/repository
    for i in $(seq 50); do echo more >>d$((i % 40))/f$i; done
    git mv d3 moved
    git rm -q -r -f d4
    git commit -q -a -m two
    is_clean $3/repository
    test $(commits $3/repository) = 2
    git -C $3/repository gc -q --prune=now
    git -C $2/repository fsck --strict --full
    is_clean $2/repository
    git -C $2/repository checkout -q -b side HEAD~1
    is_clean $1/repository
    git -C $1/repository checkout -q -
    git -C $3/repository worktree add -q $3/tree side
    diff -r --exclude=.git --no-dereference $4/origin $1/tree
    rm -rf $1/tree $2/repository
    test -z "$(ls -A $3)"
  )sh",
             kLimitS);
  ExpectSound(3);
}

TEST_F(Programs, WhatIsCompiledOnOneMountRunsOnAnother) {
  StartMounted();
  ExpectRuns(R"sh(
    mkdir -p $1/project/src
    cd $1/project
    for i in $(seq 40); do
      echo "int f$i(int);" >>src/all.h
      echo "int f$i(int x) { return x + $i; }" >src/f$i.c
      calls="$calls x = f$i(x);"
    done
    printf '#include <stdio.h>\n#include "all.h"\nint main(void) { int x = 0;%s printf("%%d", x); return 0; }\n' "$calls" >src/main.c
    cat >Makefile <<'END'
OBJECTS := $(patsubst src/%.c,out/%.o,$(wildcard src/*.c))
program: libf.a out/main.o
	$(CC) -o $@ out/main.o -L. -lf
libf.a: $(filter-out out/main.o,$(OBJECTS))
	$(AR) rcs $@ $^
out/%.o: src/%.c src/all.h | out
	$(CC) -O1 -g -MD -c -o $@ $<
out:
	mkdir $@
-include out/*.d
END
    make -s -j2
    test $($2/project/program) = 820
    test "$(make -C $3/project --no-print-directory)" = "make: 'program' is up to date."
    sed -i 's/+ 7;/+ 8;/' $3/project/src/f7.c
    cd $2/project
    make -s -j2
    test $($1/project/program) = 821
    rm -rf $3/project
    test -z "$(ls -A $1)"
  )sh",
             kLimitS);
  ExpectSound(3);
}

// Two programs on one host, since locks hold there alone.
TEST_F(Programs, DatabasesOfSqliteAreSoundWithAnyJournal) {
  StartMounted();
  ExpectRuns(R"sh(
    rows='WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20) SELECT x FROM c'
    work() {
      for i in $(seq 25); do
        echo "BEGIN IMMEDIATE; INSERT INTO t(text) SELECT hex(randomblob(50)) FROM ($rows); COMMIT;"
      done | sqlite3 -batch -bail -cmd '.timeout 60000' $1
    }
    for mode in delete truncate persist wal; do
      database=$1/$mode.db
      test $(sqlite3 $database "PRAGMA journal_mode=$mode") = $mode
      sqlite3 $database 'CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX i ON t(text)'
      work $database & one=$!
      work $database & two=$!
      wait $one
      wait $two
      sqlite3 -bail $database 'DELETE FROM t WHERE id % 3 = 0; UPDATE t SET text = text || id WHERE id % 5 = 0; VACUUM;'
      sqlite3 $database 'PRAGMA wal_checkpoint(TRUNCATE)' >$4/out
      test $(sqlite3 $2/$mode.db 'PRAGMA integrity_check') = ok
      test $(sqlite3 $3/$mode.db 'SELECT COUNT(*) FROM t') = 667
    done
  )sh",
             kLimitS);
  ExpectSound(3);
}

// A tree with everything that a tree can have, as a local directory, and what a program says of a tree.
constexpr char kTree[] = R"sh(
    mkdir $4/tree
    cd $4/tree
    for i in $(seq 200); do mkdir -p d$((i % 7))/e$((i % 3)); seq $i $((i * 7)) >d$((i % 7))/e$((i % 3))/f$i; done
    for i in 1 2 3; do ln d1/e1/f1 d2/hard$i; done
    ln -s ../d1 d2/soft
    ln -s /nowhere dangling
    mkfifo fifo
    mknod null c 1 3
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
    for i in 1 2 3 4; do
      truncate -s $((i * 3000001)) sparse$i
      echo end >>sparse$i
      printf middle | dd of=sparse$i bs=1 seek=$((i * 500000)) conv=notrunc status=none
    done
    setfattr -n user.one -v 1 d1/e1/f1
    setfattr -n user.long -v $(printf '%03000d' 0) d3
    setfattr -n trusted.two -v 0x00ff00 d4
    setfacl -m u:7:rw,g:8:r,m:rwx d1/e2/f8
    setfacl -d -m u:7:rwx,o:- d5
    setfacl -m u:9:rx d5
    chmod 4755 d0/e0/f21
    chmod 2755 d0
    chmod 1777 d6
    chmod 0 d2/e2/f2
    chown 1000:1001 d1/e1/f22
    chown -h 5:6 dangling
    : >$(printf '%0255d' 0)
    : >"$(printf 'odd name\n\377\t*')"
    find . -exec touch -h -d '2001-01-01 00:00:00.5' {} +
    touch -d '1999-12-31 23:59:59.123456789' d1/e1/f1 d5
    cat >$4/list.py <<'END'
import hashlib, os, stat, sys
root = sys.argv[1].encode()
for path in sorted([root] + [os.path.join(d, n) for d, ds, fs in os.walk(root) for n in ds + fs]):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    print(path[len(root):], oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev, s.st_mtime_ns,
          (s.st_nlink, s.st_size) if kind != stat.S_IFDIR else '',
          os.readlink(path) if kind == stat.S_IFLNK else '',
          hashlib.sha256(open(path, 'rb').read()).hexdigest() if kind == stat.S_IFREG else '',
          sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False)))
END
    lister=$4/list.py
    list() { python3 $lister $1; }
    list $4/tree >$4/expected
    grep -v '^b./socket' $4/expected >$4/expected-of-tar
)sh";

TEST_F(Programs, CopiesHaveEverythingThatTheirSourcesHave) {
  StartMounted();
  ExpectRuns(std::string(kTree) + R"sh(
    rsync -aHAX --sparse $4/tree/ $1/rsync
    rsync -aHAXn --modify-window=-1 --checksum --delete --itemize-changes $4/tree/ $2/rsync >$4/differences
    diff /dev/null $4/differences
    list $3/rsync | diff $4/expected -
    echo changed >>$3/rsync/d1/e1/f22
    rm $3/rsync/d2/hard2
    setfattr -x user.one $3/rsync/d1/e1/f1
    test $(rsync -aHAXn --modify-window=-1 --checksum --delete --itemize-changes $4/tree/ $2/rsync | wc -l) -ge 3
    rsync -aHAX --delete --inplace --checksum $4/tree/ $2/rsync
    list $3/rsync | diff $4/expected -

    tar -C $1/rsync --acls --xattrs '--xattrs-include=*' --sparse -cf $2/a.tar .
    mkdir $3/tar
    tar -C $3/tar --acls --xattrs '--xattrs-include=*' --sparse -xpf $1/a.tar
    list $1/tar | diff $4/expected-of-tar -
    diff -r --no-dereference --exclude=null --exclude=fifo --exclude=socket $2/rsync $1/tar

    cp -a --sparse=always $2/tar $1/cp
    list $3/cp | diff $4/expected-of-tar -
    test $(du -k $3/cp/sparse4 | cut -f1) -lt 100
    cp -a $1/cp $4/back
    list $4/back | diff $4/expected-of-tar -
    test $(du -k $4/back/sparse4 | cut -f1) -lt 200
    rm -rf $1/rsync $2/tar $3/cp $1/a.tar
    test -z "$(ls -A $1)"
  )sh",
             kLimitS);
  ExpectSound(3);
}

}  // namespace
}  // namespace mangrove::cluster_test
