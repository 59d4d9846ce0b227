#!/usr/bin/env python3
"""Runs mangrove-bench once over everything, briefly, and checks the shape of its report, not the figures.

usage: report_test.py PATH/mangrove-bench
"""
import json
import subprocess
import sys

NAMES = ["cached_load", "cached_read_call", "remote_read_call", "remote_read_call_attached", "remote_fault_clean",
         "remote_fault_dirty", "upgrade_0", "upgrade_1", "upgrade_2", "page_pingpong", "flush_latency_2_holders",
         "flush_rate_1_writer", "flush_rate_8_writers", "memory_empty_node", "memory_per_peer"]
KEYS = ["name", "value", "unit", "floor", "ratio", "repetitions", "spread"]


def main():
    program = sys.argv[1]
    run = subprocess.run([program, "engine", "--json", "--repetitions", "1", "--pages", "16"], capture_output=True, text=True,
                         timeout=110)
    if run.returncode != 0:
        sys.exit(f"mangrove-bench ended with {run.returncode}:\n{run.stderr}")
    report = json.loads(run.stdout)
    names = [row["name"] for row in report]
    expected = [name for name in NAMES if f"{name}: left out" not in run.stderr]
    assert names == expected, f"the names are {names}"
    for row in report:
        assert list(row) == KEYS, f"the keys of {row['name']} are {list(row)}"
        assert row["unit"] in ("ns", "us", "1/s", "MiB"), row
        assert row["repetitions"] == 1 and row["spread"] == 0, row
        assert row["value"] > 0 or row["name"] == "memory_per_peer", row
        assert row["floor"] > 0 or row["name"] == "memory_per_peer", row

    for wrong in (["engine", "--only", "nothing"], ["engine", "--repetitions", "0"], ["engine", "--pages"], []):
        refused = subprocess.run([program, *wrong], capture_output=True, text=True, timeout=10)
        assert refused.returncode == 2 and "usage:" in refused.stderr, f"{wrong}: {refused}"


if __name__ == "__main__":
    main()
