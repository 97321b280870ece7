#!/usr/bin/env bash
# Fetches real GGUF headers and chat templates for the tests: 19 vocabulary-only GGUF files into
# .peers/ggufs and the Jinja templates into .peers/templates, out of the source archive of PyPI's
# llama-cpp-python. Does nothing where they are already there.
set -euo pipefail

version=0.3.36
checksum=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

cd "$(dirname "$0")/.."
stamp=.peers/ggufs/.version
if [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
    echo "GGUF files of llama-cpp-python $version: already in .peers/ggufs"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "fetching the source of llama-cpp-python $version (77 MB)"
# Its build back end has to be there for pip to look at a source archive; nothing is built.
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scikit-build-core==1.1.2
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --dest "$work" \
    --no-deps --no-binary :all: --no-build-isolation "llama-cpp-python==$version"

archive=$(find "$work" -maxdepth 1 -name 'llama_cpp_python-*.tar.gz')
echo "$checksum  $archive" | sha256sum --check --quiet
tar -xzf "$archive" -C "$work" --wildcards '*/vendor/llama.cpp/models/*.gguf' \
    '*/vendor/llama.cpp/models/templates/*.jinja'
models=$(find "$work" -path '*/vendor/llama.cpp/models' -type d)

# Moved into place whole and stamped last: a fetch that was cut short is done again.
rm -rf .peers/ggufs .peers/templates
mkdir -p .peers/ggufs .peers/templates
mv "$models"/*.gguf .peers/ggufs/
mv "$models"/templates/*.jinja .peers/templates/
echo "$version" >"$stamp"
echo "fetched $(find .peers/ggufs -name '*.gguf' | wc -l) GGUF files" \
    "and $(find .peers/templates -name '*.jinja' | wc -l) templates"
