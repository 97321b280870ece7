#!/usr/bin/env bash
# Runs the official OCI conformance program against a fresh registry, at version 1.1 and at dev,
# and fails on any failure, error or skip.
#
# CONFORMANCE  the program (default: `conformance` from PATH)
# HAYLOFT      the registry's binary (default: target/release/hayloft)
set -euo pipefail
cd "$(dirname "$0")/.."

program=${CONFORMANCE:-$(command -v conformance || true)}
if [ -z "$program" ] || [ ! -x "$program" ]; then
  cat >&2 <<'TEXT'
No conformance program found. It is not in any package registry; build it from its own repository:

  git clone https://github.com/opencontainers/distribution-spec
  cd distribution-spec/conformance && go build -o conformance .    # Go 1.24 or newer

then run: CONFORMANCE=/path/to/conformance make conformance
TEXT
  exit 2
fi
hayloft=${HAYLOFT:-target/release/hayloft}
if [ ! -x "$hayloft" ]; then
  echo "$hayloft is not there: run cargo build --release first" >&2
  exit 2
fi

work=$(mktemp -d)
server=
stop() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

# One fresh registry per version, so that neither run sees what the other left.
run() {
  local version=$1
  "$hayloft" registry --data "$work/data-$version" --listen 127.0.0.1:0 \
    >"$work/out-$version" 2>"$work/log-$version" &
  server=$!
  local address=
  for _ in $(seq 100); do
    address=$(sed -n 's|^hayloft registry listening on http://||p' "$work/out-$version")
    [ -z "$address" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  if [ -z "$address" ]; then
    echo "the registry did not start:" >&2
    cat "$work/log-$version" >&2
    exit 1
  fi
  local status=0
  OCI_TLS=disabled OCI_REGISTRY=$address OCI_VERSION=$version OCI_RESULTS_DIR="$work/results-$version" \
    "$program" >"$work/report-$version" 2>&1 || status=$?
  if kill "$server"; then wait "$server" || true; fi
  server=
  echo "== OCI_VERSION=$version"
  sed -n '/^OCI Conformance Result/,/^API conformance/p' "$work/report-$version" | sed '/^API conformance/d;/^$/d'
  local report=$work/results-$version/junit.xml
  local attributes failed=0 name count
  attributes=$(grep -m1 -o '<testsuite .*' "$report")
  for name in tests failures errors skipped; do
    count=$(sed -n "s/.* $name=\"\([0-9]*\)\".*/\1/p" <<<"$attributes")
    if [ "$name" = tests ] && [ "${count:-0}" -eq 0 ]; then failed=1; fi
    if [ "$name" != tests ] && [ "${count:-0}" -ne 0 ]; then failed=1; fi
  done
  if [ "$status" -ne 0 ] || [ "$failed" -ne 0 ]; then
    grep -E ': (FAIL|Skip|Error)|^ +- ' "$work/report-$version" | head -100 || true
    return 1
  fi
}

failed=0
run 1.1 || failed=1
run dev || failed=1
if [ "$failed" -ne 0 ]; then
  echo "conformance: not passed" >&2
  exit 1
fi
echo "conformance: both versions passed, nothing failed, nothing skipped"
