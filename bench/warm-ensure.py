"""`ensure` of a model that is cached already, with 1, 100 and 10,000 models in the cache."""

import hashlib
import http.client
import json
import os
import pathlib
import time

import harness

COUNTS = [int(n) for n in os.environ.get("HAYLOFT_BENCH_MODELS", "1,100,10000").split(",")]
ASKED = 500
START_SECONDS = 1200
# Whatever the disk of this machine holds beside them, the models stay.
UNLIMITED = ("--high-watermark", "100", "--low-watermark", "100", "--min-free", "0")
LIMIT_MS = 5
ENSURE = "/agent/v1/models/ensure"


def measure():
    with harness.work_folder() as folder:
        with harness.hayloft("registry", folder / "registry", folder) as registry:
            for count in COUNTS:
                measure_with(count, registry, folder)


def measure_with(count, registry, folder):
    data = folder / f"node-{count}"
    name = f"{registry.address}/bench/model-0:1"
    with harness.hayloft("agent", data, folder, *UNLIMITED) as agent:
        model = tiny_model(folder)
        harness.run(harness.HAYLOFT, "push", model, name)
        harness.run(harness.HAYLOFT, "pull", name, "--agent", agent.url)
    digest = multiply(data / "cache", registry.address, count)
    # The first start makes what the views lack; the second one only looks.
    first = start(data, folder)
    second = start(data, folder)
    with harness.hayloft("agent", data, folder, *UNLIMITED) as agent:
        ready(agent)
        client = harness.Client(agent)
        listed = json.loads(client.ask("GET", "/agent/v1/models", 200)[1])["models"]
        if len(listed) != count:
            raise harness.Failed(f"the agent has {len(listed)} models, not {count}")
        by_digest = ask(client, f"{name}@{digest}")
        by_tag = ask(client, name)
        head = heads(registry)
    file = data / "cache/blobs/sha256" / digest.removeprefix("sha256:")
    stat = [milliseconds(lambda: os.stat(file)) for _ in range(ASKED)]
    models = f"{count} models" if count > 1 else "1 model"
    for figure, times, floor, floor_name in (
        ("by digest", by_digest, stat, "stat of a blob"),
        ("by tag", by_tag, head, "HEAD of the tag at the registry"),
    ):
        for share, at in (("p50", 0.5), ("p99", 0.99)):
            harness.report(
                "warm-ensure",
                f"{figure}, {models}, {share}",
                "ms",
                [quantile(times, at)],
                [quantile(floor, at)],
                floor_name,
                limit=LIMIT_MS,
            )
    for figure, seconds in (("first start", first), ("start", second)):
        harness.report("warm-ensure", f"{figure} with {models}", "s", [seconds], None, None)


def start(data, folder):
    """Seconds until an agent on this cache is ready."""
    began = time.perf_counter()
    with harness.hayloft("agent", data, folder, *UNLIMITED) as agent:
        ready(agent)
        return time.perf_counter() - began


def ready(agent):
    """Waits: an agent listens before it has looked at its cache, and answers after."""
    host, port = agent.address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=START_SECONDS)
    connection.request("GET", "/readyz")
    if connection.getresponse().status != 200:
        raise harness.Failed("the agent is not ready")


def tiny_model(folder):
    path = folder / "tiny.gguf"
    header = harness.gguf_header(1, 4096)
    path.write_bytes(header + bytes(4 * 4096))
    return path


def multiply(cache, host, count):
    """Copies the cache's one model under other names, each with a manifest of its own, as an agent
    would have written them; gives the digest of the first one's manifest."""
    blobs = cache / "blobs/sha256"
    names = cache / "views/plain" / host / "bench"
    first = names / "model-0" / "1"
    links = {link.name: os.readlink(link) for link in first.iterdir() if link.is_symlink()}
    own = pathlib.PurePath(links["manifest.json"])
    manifest = json.loads((blobs / own.name).read_text())
    for number in range(1, count):
        manifest["annotations"] = {"bench.number": str(number)}
        text = json.dumps(manifest).encode()
        digest = hashlib.sha256(text).hexdigest()
        (blobs / digest).write_bytes(text)
        folder = names / f"model-{number}" / "1"
        folder.mkdir(parents=True)
        for link, target in links.items():
            os.symlink(own.with_name(digest) if link == "manifest.json" else target, folder / link)
    return f"sha256:{own.name}"


def ask(client, reference):
    """Milliseconds of each of many requests over one connection."""
    body = json.dumps({"reference": reference})
    headers = {"content-type": "application/json"}

    def once():
        _, events = client.ask("POST", ENSURE, 200, body, headers)
        if b'"event":"ready"' not in events:
            raise harness.Failed(f"ensure answered {events[:300]!r}")

    once()
    return [milliseconds(once) for _ in range(ASKED)]


def heads(registry):
    client = harness.Client(registry)
    headers = {"accept": harness.OCI_MANIFEST}
    path = "/v2/bench/model-0/manifests/1"
    return [milliseconds(lambda: client.ask("HEAD", path, 200, None, headers)) for _ in range(ASKED)]


def milliseconds(action):
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def quantile(times, at):
    return sorted(times)[min(len(times) - 1, int(len(times) * at))]


if __name__ == "__main__":
    harness.main(measure)
