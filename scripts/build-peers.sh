#!/usr/bin/env bash
# Builds the pinned Go peers of `make test-peers` into .peers/bin, once: all of them, or those that
# are named: scripts/build-peers.sh [NAME...].
#
# Versions are pinned and checksummed by tests/peers/go.mod, by
# tests/peers/ollama/go.mod (Ollama needs cgo and older dependencies) and by
# tests/peers/versitygw/go.mod (versitygw needs newer ones). A binary that already
# carries its pinned version is left alone: Go records the version in the binary,
# so there is no stamp file that could disagree with it.
set -euo pipefail
cd "$(dirname "$0")/.."

bin="$PWD/.peers/bin"
mkdir -p "$bin"

# install-deps.sh puts a Go into .venv only where the one on PATH is too old or absent.
if [ -x .venv/bin/go ]; then
  go="$PWD/.venv/bin/go"
else
  go=$(command -v go || true)
fi
if [ -z "$go" ]; then
  echo "build-peers: no Go on PATH and none in .venv; run scripts/install-deps.sh peers" >&2
  exit 1
fi

# pinned MODULE_DIR MODULE: the version that go.mod asks for.
pinned() {
  awk -v module="$2" '$1 == module && $2 ~ /^v/ { print $2; exit }' "$1/go.mod"
}

# built NAME: the version of the module that the binary's main package is from.
built() {
  [ -x "$bin/$1" ] || return 0
  "$go" version -m "$bin/$1" 2>/dev/null | awk '$1 == "mod" { print $3; exit }'
}

# build NAME MODULE_DIR MODULE PACKAGE CGO: does nothing when other names were asked for.
wanted=" $* "
build() {
  local name=$1 dir=$2 module=$3 package=$4 cgo=$5 want
  [ "$wanted" = "  " ] || [[ "$wanted" == *" $name "* ]] || return 0
  want=$(pinned "$dir" "$module")
  if [ -z "$want" ]; then
    echo "build-peers: $dir/go.mod does not pin $module" >&2
    exit 1
  fi
  if [ "$(built "$name")" = "$want" ]; then
    echo "build-peers: $name $want is there"
    return
  fi
  echo "build-peers: building $name $want"
  local start=$SECONDS
  (cd "$dir" && CGO_ENABLED=$cgo "$go" build -trimpath -mod=readonly -o "$bin/$name.partial" "$package")
  mv "$bin/$name.partial" "$bin/$name"
  echo "build-peers: built $name $want in $((SECONDS - start)) s"
}

main() {
  local peers=tests/peers
  build crane "$peers" github.com/google/go-containerregistry github.com/google/go-containerregistry/cmd/crane 0
  build regctl "$peers" github.com/regclient/regclient github.com/regclient/regclient/cmd/regctl 0
  build distribution "$peers" github.com/distribution/distribution/v3 github.com/distribution/distribution/v3/cmd/registry 0
  build helm "$peers" helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm 0
  build versitygw "$peers/versitygw" github.com/versity/versitygw github.com/versity/versitygw/cmd/versitygw 0
  build ollama "$peers/ollama" github.com/ollama/ollama github.com/ollama/ollama 1
}

main
