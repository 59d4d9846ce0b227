#!/usr/bin/env python3
"""Runs mangrove-bench once over everything, briefly, and checks the shape of its reports, not the figures.

usage: report_test.py PATH/mangrove-bench engine|store|fs...
"""
import json
import os
import subprocess
import sys
import tempfile

ENGINE = ["cached_load", "cached_read_call", "remote_read_call", "remote_read_call_attached", "remote_fault_clean",
          "remote_fault_dirty", "upgrade_0", "upgrade_1", "upgrade_2", "page_pingpong", "record_pass_migratory",
          "record_pass_invalidate", "evict_to_peer", "flush_latency_2_holders", "flush_rate_1_writer", "flush_rate_8_writers",
          "commit_rate_1", "commit_rate_8", "sequential_read_1gib", "sequential_read_mapped_1gib", "sequential_takeover_1gib", "flush_1gib",
          "memory_empty_node", "memory_per_peer", "lookup_cold_10", "lookup_cold_1000", "lookup_cold_100000",
          "lookup_messages_10", "lookup_messages_1000", "lookup_messages_100000", "lookup_warm_10", "lookup_warm_1000",
          "lookup_warm_100000"]
# Of 100,000 segments it takes as long as all the rest.
BRIEF = [name for name in ENGINE if not name.endswith("_100000")]
STORE = ["commit_latency", "commit_rate_8", "commit_rate_64", "bulk_commits", "bulk_pages", "bulk_two_stores", "page_read",
         "recovery", "write_amplification", "space"]
FS = ["create", "create_1k", "open_read_close", "stat", "stat_warm", "rename", "unlink", "mkdir", "list_1000", "read_4k", "read_4k_warm", "write_4k",
      "write_4k_fsync", "read_1m", "write_1m", "write_1m_fsync", "untar", "git_clone", "git_status", "sqlite_rollback", "sqlite_wal",
      "write_4k_fsync_beside_flush", "read_cold", "read_cold_beside_engine", "list_cold_100000"]
KEYS = ["name", "value", "unit", "floor", "ratio", "repetitions", "spread"]


def check(program, subject, names, *flags):
    run = subprocess.run([program, subject, "--json", "--repetitions", "1", "--pages", "16", *flags], capture_output=True, text=True,
                         timeout=110)
    if run.returncode != 0:
        sys.exit(f"mangrove-bench {subject} ended with {run.returncode}:\n{run.stderr}")
    report = json.loads(run.stdout)
    found = [row["name"] for row in report]
    expected = [name for name in names if f"{name}: left out" not in run.stderr]
    assert found == expected, f"the names are {found}"
    for row in report:
        keys = KEYS + ["local", "ratio_to_local"] if subject == "fs" and "beside" not in row["name"] else KEYS
        assert list(row) == keys, f"the keys of {row['name']} are {list(row)}"
        assert row["unit"] in ("ns", "us", "ms", "1/s", "MiB", "MiB/s", "x", "msgs"), row
        assert row["repetitions"] == 1 and row["spread"] == 0, row
        assert row["value"] > 0 or row["name"] == "memory_per_peer", row
        assert row["floor"] > 0 or row["name"] == "memory_per_peer", row


def check_fs(program):
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("fs: left out, mounts take root, and /dev/fuse")
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        check(program, "fs", FS, "--without-large", "--dir", directory)
        with open("/proc/mounts") as mounts:
            left = [line for line in mounts if directory in line]
        assert not left and not os.listdir(directory), f"left behind: {left}, {os.listdir(directory)}"


def main():
    program, *subjects = sys.argv[1:]
    checks = {"engine": lambda: check(program, "engine", BRIEF, "--only", ",".join(BRIEF)), "store": lambda: check(program, "store", STORE),
              "fs": lambda: check_fs(program)}
    for subject in subjects:
        checks[subject]()
    for wrong in (["engine", "--only", "nothing"], ["store", "--only", "cached_load"], ["engine", "--repetitions", "0"],
                  ["engine", "--pages"], ["engine", "/"], ["fs", "--only", "commit_rate_1"], ["disk"], []):
        refused = subprocess.run([program, *wrong], capture_output=True, text=True, timeout=10)
        assert refused.returncode == 2 and "usage:" in refused.stderr, f"{wrong}: {refused}"


if __name__ == "__main__":
    main()
