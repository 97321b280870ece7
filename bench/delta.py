"""Pull of a version of a model whose chat template changed, on a node that has the version before:
time and bytes, beside a pull of all of it."""

import os
import struct

import harness

TEXT, ARRAY, UINT32, FLOAT32 = 8, 9, 4, 6
TOKENS = 128_000
TENSORS = 64
COLUMNS = 4096


def measure():
    models = [version(template) for template in ("{{ messages }}", "{{ messages[-1] }} fixed")]
    size = models[1].stat().st_size
    with harness.work_folder() as folder:
        with harness.hayloft("registry", folder / "registry", folder) as registry:
            names = [f"{registry.address}/bench/model:{number}" for number in (1, 2)]
            for model, name in zip(models, names):
                harness.run(harness.HAYLOFT, "push", model, name)
            wait_for_maps(registry)
            shares, deltas, fulls = [], [], []
            for _ in range(harness.ROUNDS):
                seconds, fetched = second_version(folder, names)
                deltas.append(seconds)
                shares.append(100 * fetched / size)
                fulls.append(whole(folder, names[1]))
    what = "a changed chat template"
    harness.report("delta", f"{what}: bytes fetched", "%", shares, [100.0], "all of it", limit=1)
    harness.report("delta", f"{what}: wall clock", "s", deltas, fulls, "pull of all of it")


def version(template):
    """A GGUF with a vocabulary as large as those of today, and tensors of random bytes that are the
    same in every version."""
    noise = harness.model_file()
    path = harness.WORK / f"version-{len(template)}-{harness.SIZE}.gguf"
    rows = harness.SIZE // 4 // COLUMNS // TENSORS
    length = rows * COLUMNS * 4
    if path.exists():
        return path
    pairs = [
        ("general.architecture", TEXT, harness.gguf_string("llama")),
        ("general.alignment", UINT32, struct.pack("<I", 32)),
        ("llama.block_count", UINT32, struct.pack("<I", TENSORS)),
        ("llama.context_length", UINT32, struct.pack("<I", 4096)),
        ("llama.embedding_length", UINT32, struct.pack("<I", COLUMNS)),
        ("llama.feed_forward_length", UINT32, struct.pack("<I", COLUMNS)),
        ("llama.attention.head_count", UINT32, struct.pack("<I", 32)),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        ("tokenizer.ggml.model", TEXT, harness.gguf_string("gpt2")),
        ("tokenizer.ggml.tokens", ARRAY, strings(f"token-{n:x}" for n in range(TOKENS))),
        ("tokenizer.ggml.merges", ARRAY, strings(f"{n:x} {n + 1:x}" for n in range(TOKENS))),
        ("tokenizer.chat_template", TEXT, harness.gguf_string(template)),
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, TENSORS, len(pairs))
    for key, kind, value in pairs:
        header += harness.gguf_string(key) + struct.pack("<I", kind) + value
    for number in range(TENSORS):
        header += harness.gguf_string(f"blk.{number}.weight")
        header += struct.pack("<IQQIQ", 2, COLUMNS, rows, 0, number * length)
    header += b"\0" * (-len(header) % 32)
    partial = path.with_suffix(".partial")
    with open(noise, "rb") as source, open(partial, "wb") as file:
        file.write(header)
        source.seek(-TENSORS * length, os.SEEK_END)
        while piece := source.read(16 * harness.MIB):
            file.write(piece)
    partial.rename(path)
    return path


def strings(texts):
    texts = list(texts)
    return struct.pack("<IQ", TEXT, len(texts)) + b"".join(map(harness.gguf_string, texts))


def wait_for_maps(registry):
    """The maps are kept while a push is stored; the first question publishes them."""
    for tag in (1, 2):
        response, _ = harness.Client(registry).ask(
            "HEAD", f"/v2/bench/model/manifests/{tag}", 200, headers={"accept": harness.OCI_MANIFEST}
        )
        digest = response.headers["docker-content-digest"]
        _, index = harness.Client(registry).ask("GET", f"/v2/bench/model/referrers/{digest}", 200)
        if b"chunk-maps" not in index:
            raise harness.Failed(f"the registry offers no chunk map of tag {tag}")


def second_version(folder, names):
    """Seconds, and bytes over the network, of the second version after the first."""
    with harness.work_folder() as node:
        with harness.hayloft("agent", node / "data", node) as agent:
            harness.run(harness.HAYLOFT, "pull", names[0], "--agent", agent.url)
            before = fetched(agent)
            seconds = harness.timed(harness.HAYLOFT, "pull", names[1], "--agent", agent.url)
            return seconds, fetched(agent) - before


def whole(folder, name):
    with harness.work_folder() as node:
        with harness.hayloft("agent", node / "data", node) as agent:
            return harness.timed(harness.HAYLOFT, "pull", name, "--agent", agent.url)


def fetched(agent):
    _, text = harness.Client(agent).ask("GET", "/metrics", 200)
    name = b'hayloft_agent_fetched_bytes_total{source="origin"} '
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.removeprefix(name))
    return 0


if __name__ == "__main__":
    harness.main(measure)
