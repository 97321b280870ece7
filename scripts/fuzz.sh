#!/usr/bin/env bash
# Fuzzes every parser of hostile input: scripts/fuzz.sh [SECONDS for each target, default 60].
# Stops with the first crash; the input that did it then lies in fuzz/artifacts/TARGET/.
set -euo pipefail

seconds=${1:-60}
version=0.13.2

cd "$(dirname "$0")/.."
tools=$PWD/fuzz/target/tools
export CARGO_TARGET_DIR=$PWD/fuzz/target
# cargo-fuzz needs compiler flags that only nightly takes; the pinned stable takes them with this.
export RUSTC_BOOTSTRAP=1
export PATH=$tools/bin:$PATH

if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    echo "installing cargo-fuzz $version into fuzz/target/tools"
    cargo install --quiet --locked --root "$tools" --target-dir "$tools/build" "cargo-fuzz@$version"
    rm -rf "$tools/build"
fi

corpus=fuzz/corpus
mkdir -p $corpus/gguf_header $corpus/modelfile $corpus/reference $corpus/manifest $corpus/chunk_map
# The header of a real model, without its weights: it is found once they are past.
head -c 65536 tests/fixtures/hay-tiny-q8_0.gguf >$corpus/gguf_header/hay-tiny-header

for target in gguf_header modelfile reference manifest chunk_map; do
    most=4096
    [ $target = gguf_header ] && most=65536
    echo "== fuzzing $target for $seconds s"
    cargo fuzz run $target $corpus/$target fuzz/seeds/$target -- \
        -max_total_time="$seconds" -max_len=$most -timeout=10 -rss_limit_mb=2048 \
        -dict="fuzz/dictionaries/$target.dict" -print_final_stats=1 2>&1 |
        grep --line-buffered -E '^(Done|stat::|==|SUMMARY|thread|artifact_prefix|Test unit)|ERROR|panicked|error'
done
echo "== no crash in any target"
