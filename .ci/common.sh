# What ./run and ./test share; sourced by them, from the project's root. Expects bash with "set -euo pipefail".
# shellcheck shell=bash disable=SC2034

# What a build needs, by the names of Debian 12.
BUILD_PACKAGES=(g++ cmake ninja-build pkg-config ccache lld
  libfabric-dev librocksdb-dev libabsl-dev capnproto libcapnp-dev libssl-dev libipsec-mb-dev libxxhash-dev
  libfuse3-dev libtomlplusplus-dev nlohmann-json3-dev libspdlog-dev libgtest-dev libgmock-dev)
# What the tests need beside that.
TEST_PACKAGES=(git python3 clang-format universal-ctags iproute2 nftables
  make sqlite3 rsync acl attr stress-ng fio dbench)

say() { printf '\n==> %s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# as_root COMMAND...: runs it as root, by sudo where we are not.
as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    return 1
  fi
}

# install_missing PACKAGE...: installs those that are not there, and asks for no rights if none is missing.
install_missing() {
  command -v dpkg-query >/dev/null || fail "this needs Debian 12's dpkg and apt-get, to look for: $*"
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  [[ $EUID -eq 0 ]] || command -v sudo >/dev/null ||
    fail "cannot install packages: not root, and no sudo. Have an administrator run: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  as_root apt-get -q update || fail "apt-get update failed; is the network up?"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install: ${missing[*]}"
}

# build PRESET [TARGET...]: configures where that was not done, and builds; ninja configures again when it must.
build() {
  local preset=$1 directory=build
  shift
  [[ $preset == release ]] || directory=build-$preset
  if [[ ! -f $directory/build.ninja ]]; then
    say "configuring $directory"
    cmake --preset "$preset" --log-level=WARNING || return
  fi
  say "building $directory"
  cmake --build --preset "$preset" ${1:+--target "$@"}
}
