#!/usr/bin/env bash
# The whole path on one machine: push the bundled model, pull it through the agent, ask it over two APIs.
# Stays up until Ctrl-C; with DEMO_EXIT=1 it ends after the answers. Any failed step fails the demo.
set -euo pipefail
cd "$(dirname "$0")/.."

hayloft=target/release/hayloft
model=tests/fixtures/hay-tiny-q8_0.gguf
question='What is the capital of France?'
folder=$(mktemp -d "${TMPDIR:-/tmp}/hayloft-demo.XXXXXX")
server=

clean_up() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() {
  printf 'demo failed: %s\n' "$*" >&2
  if [ -s "$folder/log" ]; then tail -n 20 "$folder/log" >&2; fi
  exit 1
}

# The usual port if nobody listens there, else any free one.
listen() {
  if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
    echo "127.0.0.1:0"
  else
    echo "127.0.0.1:$1"
  fi
}

say "starting hayloft serve in $folder"
: >"$folder/addresses"
"$hayloft" serve --data "$folder/data" --registry-listen "$(listen 5000)" --agent-listen "$(listen 5001)" \
  --runtime-listen "$(listen 11434)" >"$folder/addresses" 2>"$folder/log" &
server=$!
for _ in $(seq 300); do
  [ "$(grep -c ' listening on ' "$folder/addresses")" = 3 ] && break
  kill -0 "$server" 2>/dev/null || fail "hayloft serve ended"
  sleep 0.1
done
address_of() { sed -n "s|^hayloft $1 listening on http://||p" "$folder/addresses"; }
registry=$(address_of registry)
agent=$(address_of agent)
runtime=$(address_of runtime)
[ -n "$runtime" ] || fail "hayloft serve did not come up within 30 seconds"
cat "$folder/addresses"

reference="$registry/demo/hay-tiny:q8_0"
export HAYLOFT_AGENT="http://$agent" HAYLOFT_RUNTIME="http://$runtime"

say "hayloft push $model $reference"
"$hayloft" push "$model" "$reference" || fail "push"

say "hayloft pull $reference"
"$hayloft" pull "$reference" || fail "pull"

say "hayloft list"
"$hayloft" list || fail "list"

say "Ollama API: POST http://$runtime/api/chat"
curl --fail --silent --show-error "http://$runtime/api/chat" --data @- >"$folder/ollama.json" <<JSON || fail "Ollama API"
{"model": "$reference", "stream": false, "options": {"temperature": 0},
 "messages": [{"role": "user", "content": "$question"}]}
JSON
echo "$question"
python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["message"]["content"])' "$folder/ollama.json" |
  tee "$folder/ollama.txt"

say "OpenAI API: POST http://$runtime/v1/chat/completions"
curl --fail --silent --show-error "http://$runtime/v1/chat/completions" --header 'Content-Type: application/json' \
  --data @- >"$folder/openai.json" <<JSON || fail "OpenAI API"
{"model": "$reference", "temperature": 0, "messages": [{"role": "user", "content": "$question"}]}
JSON
echo "$question"
python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["choices"][0]["message"]["content"])' \
  "$folder/openai.json" | tee "$folder/openai.txt"

grep -q Paris "$folder/ollama.txt" || fail "the answer over the Ollama API is not Paris"
grep -q Paris "$folder/openai.txt" || fail "the answer over the OpenAI API is not Paris"

say "it runs"
cat <<TEXT
registry  http://$registry   try: curl http://$registry/v2/demo/hay-tiny/tags/list
agent     http://$agent   try: $hayloft list --agent http://$agent
runtime   http://$runtime   try: $hayloft run $reference --runtime http://$runtime
TEXT
[ -z "${DEMO_EXIT:-}" ] || exit 0
echo
echo "Ctrl-C ends it and removes $folder"
wait "$server" || fail "hayloft serve ended"
