#!/usr/bin/env python3
"""Checks of the source tree that no compiler makes.

usage: tidy.py PROJECT_ROOT [CHECK...]

Runs the named checks, or all of them, prints each finding as "path:line: what is wrong", and exits with 1 if there was any,
with 77 if the one check that was asked for needs a program that is not installed.
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys

SKIPPED = 77

# Lowest first: a folder includes what stands before it, nothing else.
FOLDERS = ["net", "directory", "recovery", "engine", "fs", "node"]
TOP_LEVEL = set(FOLDERS) | {"tests", "bench", "docs", "CMakeLists.txt", "README.md", "LICENSE", "run", "test"}
TOP_LEVEL_BESIDE = {"CMakePresets.json"}
# Protocol cores are given the time and their chances; they reach for neither.
PURE_FOLDERS = {"directory", "recovery"}
IMPURE = re.compile(
    r"\b(steady_clock|system_clock|high_resolution_clock|absl::Now|GetCurrentTimeNanos|clock_gettime|gettimeofday"
    r"|std::j?thread|std::async|pthread_create|sleep_for|sleep_until|absl::SleepFor|usleep|nanosleep"
    r"|random_device|mt19937|absl::BitGen|absl::InsecureBitGen|getrandom|s?rand\(\))"
    r"|#\s*include\s*[<\"](thread|random|absl/random/|sys/socket|sys/epoll)")
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
CODE_SUFFIXES = {".cc", ".h"}


class Tree:
    """The files of a checkout: those that git tracks or would track, or all of them where there is no git."""

    def __init__(self, root):
        self.root = root
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
        if listed.returncode == 0:
            names = listed.stdout.splitlines()
        else:
            names = [str(p.relative_to(root)) for p in root.rglob("*") if not str(p.relative_to(root)).startswith(("build", "var", "."))]
        self.files = sorted(pathlib.PurePosixPath(name) for name in names if (root / name).is_file())
        self.code = [f for f in self.files if f.suffix in CODE_SUFFIXES]

    def lines(self, file):
        return (self.root / file).read_text(errors="replace").splitlines()


def is_test(file):
    return file.parts[0] in ("tests", "bench")


def check_includes(tree):
    """An include goes down in the order of FOLDERS; a schema's generated header is known to one source, the codec."""
    users = {}
    for file in tree.code:
        top = file.parts[0]
        for number, line in enumerate(tree.lines(file), 1):
            match = re.match(r'\s*#\s*include\s+["<]((\w+)/[^">]+)[">]', line)
            if not match:
                continue
            path, folder = match.groups()
            if folder in FOLDERS and top in FOLDERS and FOLDERS.index(folder) > FOLDERS.index(top):
                yield f'{file}:{number}: {top}/ includes "{path}", which is above it'
            if folder in ("tests", "bench") and top in FOLDERS:
                yield f'{file}:{number}: {top}/ includes "{path}", which is not part of the product'
            if path.endswith(".capnp.h") and not is_test(file):
                users.setdefault(path, []).append(f"{file}:{number}")
    for path, places in users.items():
        for place in places[1:]:
            yield f'{place}: includes "{path}", as {places[0]} does; only one source, the codec, knows the library'


def check_sizes(tree):
    """A file past 600 lines or a function past 70 is asking to be two things."""
    for file in tree.code:
        count = len(tree.lines(file))
        if count > MAX_FILE_LINES:
            yield f"{file}:1: has {count} lines, more than {MAX_FILE_LINES}"
    for line, end, name, file in functions(tree):
        if end - line + 1 > MAX_FUNCTION_LINES:
            yield f"{file}:{line}: {name} has {end - line + 1} lines, more than {MAX_FUNCTION_LINES}"


def functions(tree):
    ctags = next(filter(None, map(shutil.which, ("ctags-universal", "ctags"))), None)
    sources = [str(f) for f in tree.code if not is_test(f)]
    if not ctags or not sources or "Universal Ctags" not in subprocess.run(
            [ctags, "--version"], capture_output=True, text=True).stdout:
        return
    tags = subprocess.run([ctags, "-x", "--kinds-C++=f", "--_xformat=%{line} %{end} %{name} %F", "-L", "-"],
                          input="\n".join(sources), capture_output=True, text=True, cwd=tree.root, check=True)
    for tag in tags.stdout.splitlines():
        match = re.fullmatch(r"(\d+) (\d+) (.+) (\S+)", tag)
        if match:
            yield int(match[1]), int(match[2]), match[3], match[4]


def check_layout(tree):
    """The top level holds the settled folders and files."""
    for top in sorted({f.parts[0] for f in tree.files}):
        if top not in TOP_LEVEL | TOP_LEVEL_BESIDE and not top.startswith("."):
            yield f"{top}:1: does not belong at the top level"
    for file in tree.code:
        if file.suffix == ".h" and "#pragma once" not in tree.lines(file):
            yield f"{file}:1: has no #pragma once"


def check_purity(tree):
    """No clock, thread or randomness in the protocol folders."""
    for file in tree.code:
        if file.parts[0] not in PURE_FOLDERS:
            continue
        for number, line in enumerate(tree.lines(file), 1):
            match = IMPURE.search(line.split("//")[0])
            if match:
                yield f"{file}:{number}: uses {match[0].strip()}; time, threads and chance come in from outside"


def names_of(tree, names, is_hidden):
    """(namespace, name, file, line, kind) of what these files declare at the level of namespaces; `is_hidden`: in unnamed ones."""
    if not names:
        return
    fields = ["--output-format=json", "--fields=+nKsS", "--kinds-c++=+p"]
    listed = subprocess.run(["ctags", *fields, "-f", "-", *names], cwd=tree.root, capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        tag = json.loads(line)
        scope = tag.get("scope", "")
        if tag["kind"] not in {"function", "prototype", "variable"} or tag.get("scopeKind", "namespace") != "namespace":
            continue
        if ("__anon" in scope) == is_hidden and not re.match("TEST|INSTANTIATE|MATCHER", tag["name"]):
            yield re.sub("::__anon[0-9a-f]*", "", scope), tag["name"], tag["path"], tag["line"], tag["kind"]


def check_names(tree):
    """Of sources that are compiled as one none hides from the others what a header names so, nor gives them another overload."""
    if shutil.which("ctags") is None:
        print("ctags is not installed")
        sys.exit(SKIPPED)
    for folder in ("tests/cluster/", "tests/unit/engine/", "tests/unit/fs/"):
        files = [name for name in map(str, tree.files) if name.startswith(folder)]
        sources = [f for f in files if f.endswith("_test.cc")]
        known = {(scope, name): path for scope, name, path, _, _ in names_of(tree, [f for f in files if f.endswith(".h")], False)}
        for scope, name, path, line, kind in names_of(tree, sources, True):
            other = known.get((scope, name))
            if other not in {None, path}:
                yield f"{path}:{line}: {name} is also a name of {other}: of sources that are compiled together one would be taken for the other"
            if kind == "function":
                known[(scope, name)] = path


def check_tests(tree):
    """No test is switched off, and no assertion is empty."""
    for file in tree.code:
        if not is_test(file):
            continue
        for number, line in enumerate(tree.lines(file), 1):
            match = re.search(r"GTEST_SKIP|\bDISABLED_|(EXPECT|ASSERT)_TRUE\(true\)|SUCCEED\(\)", line)
            if match:
                yield f"{file}:{number}: {match[0]} is a test that tests nothing"


def check_features(tree):
    """A row of docs/FEATURES.md that works, or works in part, names tests, and they name the row."""
    document = pathlib.PurePosixPath("docs/FEATURES.md")
    if document not in tree.files:
        return
    for number, line in enumerate(tree.lines(document), 1):
        match = re.match(r"\|\s*([A-Z]\d\d)\s*\|", line)
        if not match:
            continue
        row, where = match[1], f"{document}:{number}"
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 4 or cells[2] not in ("works", "in part", "not yet"):
            yield f"{where}: {row} is not of the form | row | capability | works, in part or not yet | tests |"
            continue
        tests = re.findall(r"tests/[\w/.-]+", cells[3])
        if (cells[2] == "not yet") != (not tests):
            yield f"{where}: {row} is said to be '{cells[2]}' but names {len(tests)} tests"
        for test in tests:
            covered = re.compile(rf"Covers:[^\n]*\b{row}\b")
            if not (tree.root / test).is_file() or not covered.search((tree.root / test).read_text(errors="replace")):
                yield f'{where}: {test} does not say "Covers: {row}"'


def check_format(tree):
    """Every source is as clang-format leaves it."""
    clang_format = shutil.which("clang-format-14") or shutil.which("clang-format")
    if not clang_format:
        print("clang-format is not installed")
        sys.exit(SKIPPED)
    if not tree.code:
        return
    run = subprocess.run([clang_format, "--dry-run", *map(str, tree.code)], capture_output=True, text=True, cwd=tree.root)
    bad = sorted(set(re.findall(r"^([^\s:]+):\d+:\d+: warning: code should be clang-formatted", run.stderr, re.M)))
    for file in bad:
        yield f"{file}:1: is not formatted; run: clang-format -i {file}"
    if run.returncode != 0:
        yield f".clang-format:1: {run.stderr.strip()}"


CHECKS = {name[len("check_"):]: function for name, function in globals().copy().items() if name.startswith("check_")}


def main():
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(CHECKS):
        sys.exit(f"usage: {sys.argv[0]} PROJECT_ROOT [{'|'.join(CHECKS)}...]")
    tree = Tree(pathlib.Path(sys.argv[1]).resolve())
    names = sys.argv[2:] or list(CHECKS)
    found = 0
    for name in names:
        for finding in CHECKS[name](tree):
            found += 1
            print(finding)
    print(f"{len(tree.code)} sources looked at for {', '.join(names)}: {found} to mend")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
