#!/usr/bin/env python3
"""Shows that each check of tidy.py sees what it is for: plants one offence in an otherwise clean tree, and looks for it."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).with_name("tidy.py")
CLEAN = {
    "CMakeLists.txt": "",
    "net/transport.h": "#pragma once\n",
    "directory/cache.h": '#pragma once\n#include "net/transport.h"\n',
    "tests/unit/net/transport_test.cc": "TEST(Transport, Sends) { EXPECT_TRUE(Sends()); }\n",
}


def tidy(files, *checks):
    """Runs tidy.py over a tree of `files`; returns its exit status and its findings."""
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = pathlib.Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        subprocess.run(["git", "init", "-q", root], check=True)
        run = subprocess.run([sys.executable, TIDY, root, *checks], capture_output=True, text=True)
        return run.returncode, run.stdout.splitlines()[:-1]


class Tidy(unittest.TestCase):
    def expect_found(self, check, offence, *parts):
        status, findings = tidy({**CLEAN, **offence}, check)
        self.assertEqual((status, len(findings)), (1, 1), findings)
        for part in parts:
            self.assertIn(part, findings[0])

    def test_clean_tree_has_no_findings(self):
        self.assertEqual(tidy(CLEAN, "includes", "sizes", "layout", "purity", "tests", "features"), (0, []))

    def test_include_upward(self):
        self.expect_found("includes", {"net/a.cc": '\n#include "directory/cache.h"\n'}, "net/a.cc:2:", "directory/cache.h")

    def test_include_of_a_test(self):
        self.expect_found("includes", {"net/a.cc": '#include "tests/sim/world.h"\n'}, "net/a.cc:1:")

    def test_second_user_of_a_schema(self):
        line = '#include "net/messages.capnp.h"\n'
        self.expect_found("includes", {"net/codec.cc": line, "net/server.cc": line}, "net/server.cc:1:", "net/codec.cc:1")

    def test_long_file(self):
        self.expect_found("sizes", {"net/a.cc": "\n" * 601}, "net/a.cc:1:", "601")

    def test_stray_top_level_entry(self):
        self.expect_found("layout", {"scripts/a.sh": ""}, "scripts:1:")

    def test_header_without_guard(self):
        self.expect_found("layout", {"net/a.h": "int a;\n"}, "net/a.h:1:")

    def test_name_that_hides_a_headers(self):
        header = "#pragma once\nnamespace m {\ninline int Word(long at) { return 0; }\n}\n"
        source = "namespace m {\nnamespace {\nint Word(int at) { return 1; }\n}\n}\n"
        files = {"tests/cluster/words.h": header, "tests/cluster/a_test.cc": source}
        self.expect_found("names", files, "tests/cluster/a_test.cc:3:", "Word", "tests/cluster/words.h")

    def test_name_that_is_another_overload(self):
        source = "namespace m {\nnamespace {\nint Word(%s at) { return 1; }\n}\n}\n"
        files = {"tests/cluster/a_test.cc": source % "int", "tests/cluster/b_test.cc": source % "long"}
        self.expect_found("names", files, "_test.cc:3:", "Word")

    def test_clock_in_a_protocol_folder(self):
        self.expect_found("purity", {"directory/a.cc": "auto now = absl::Now();\n"}, "directory/a.cc:1:", "absl::Now")

    def test_thread_in_a_protocol_folder(self):
        self.expect_found("purity", {"recovery/a.cc": "#include <thread>\n"}, "recovery/a.cc:1:")

    def test_comments_may_speak_of_clocks(self):
        self.assertEqual(tidy({**CLEAN, "directory/a.cc": "// unlike absl::Now\n"}, "purity"), (0, []))

    def test_disabled_test(self):
        self.expect_found("tests", {"tests/unit/net/a_test.cc": "TEST(A, DISABLED_B) {}\n"}, "tests/unit/net/a_test.cc:1:")

    def test_row_that_works_without_a_test(self):
        self.expect_found("features", {"docs/FEATURES.md": "| G01 | Addresses. | works | |\n"}, "docs/FEATURES.md:1:", "G01")

    def test_row_whose_test_does_not_name_it(self):
        row = "| G01 | Addresses. | works | tests/unit/net/transport_test.cc |\n"
        self.expect_found("features", {"docs/FEATURES.md": row}, "docs/FEATURES.md:1:", "Covers: G01")

    def test_row_whose_test_names_it(self):
        row = "| G01 | Addresses. | works | tests/cluster/a_test.cc |\n"
        files = {**CLEAN, "docs/FEATURES.md": row, "tests/cluster/a_test.cc": "// Covers: G01\n"}
        self.assertEqual(tidy(files, "features"), (0, []))


if __name__ == "__main__":
    unittest.main()
