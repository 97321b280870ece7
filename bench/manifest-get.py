"""Manifest GETs per second over 32 connections, by tag and by digest."""

import re
import shutil

import harness

CONNECTIONS = 32
SECONDS = 2
GOAL = 5


def measure():
    if not shutil.which("wrk"):
        raise harness.Failed("wrk is not installed: run scripts/install-deps.sh bench")
    with harness.work_folder() as folder:
        with (
            harness.hayloft("registry", folder / "ours", folder) as ours,
            harness.distribution(folder / "distribution", folder) as distribution,
            harness.docker_registry(folder / "docker-registry", folder) as docker_registry,
        ):
            servers = [ours, distribution, docker_registry]
            digests = {push(server) for server in servers}
            for figure, reference in (("by tag", "1"), ("by digest", digests.pop())):
                path = f"/v2/bench/small/manifests/{reference}"
                sides = [lambda server=server: rate(server.url + path) for server in servers]
                rates = harness.interleaved(harness.ROUNDS, *sides)
                for peer, name, goal in (
                    (1, "distribution", GOAL),
                    (2, "docker-registry", None),
                ):
                    harness.report(
                        "manifest-get",
                        f"{figure}, {CONNECTIONS} connections",
                        "requests/s",
                        rates[0],
                        rates[peer],
                        name,
                        goal=goal,
                        more_is_better=True,
                    )


def push(server):
    """A small model under a tag; gives the digest of its manifest."""
    client = harness.Client(server)
    layer = b"a small layer"
    for content in (harness.EMPTY_CONFIG, layer):
        client.push("bench/small", content, harness.digest_of(content), len(content))
    manifest = harness.manifest_of([layer])
    client.push_manifest("bench/small", "1", manifest)
    return harness.digest_of(manifest)


def rate(url):
    command = ("wrk", "--threads", "1", "--connections", str(CONNECTIONS))
    accept = ("--header", f"Accept: {harness.OCI_MANIFEST}")
    said = harness.run(*command, "--duration", f"{SECONDS}s", *accept, url).stdout
    if failures := re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", said):
        raise harness.Failed(f"{url}: {failures[0]}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


if __name__ == "__main__":
    harness.main(measure)
