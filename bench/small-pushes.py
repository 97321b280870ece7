"""1,000 small pushes: a layer of 1 KiB, a config and a manifest under a tag of its own each."""

import concurrent.futures
import os
import time

import harness

PUSHES = int(os.environ.get("HAYLOFT_BENCH_PUSHES", "1000"))
CLIENTS = 8


def measure():
    sides = {
        "ours": lambda data, log: harness.hayloft("registry", data, log),
        "distribution": harness.distribution,
        "docker-registry": harness.docker_registry,
    }
    runs = [lambda start=start: pushes_per_second(start) for start in sides.values()]
    rates = dict(zip(sides, harness.interleaved(min(harness.ROUNDS, 2), *runs)))
    for peer in ("distribution", "docker-registry"):
        harness.report(
            "small-pushes",
            f"{PUSHES} pushes by {CLIENTS} clients",
            "pushes/s",
            rates["ours"],
            rates[peer],
            peer,
            more_is_better=True,
        )


def pushes_per_second(start):
    with harness.work_folder() as folder, start(folder / "data", folder) as server:
        os.sync()
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            done = [pool.submit(push_share, server, number) for number in range(CLIENTS)]
            pushed = sum(one.result() for one in done)
        return pushed / (time.monotonic() - begin)


def push_share(server, number):
    """What one client pushes, over one connection, into a repository of its own."""
    client = harness.Client(server)
    repository = f"bench/small-{number}"
    share = range(number, PUSHES, CLIENTS)
    config = harness.EMPTY_CONFIG
    client.push(repository, config, harness.digest_of(config), len(config))
    for push in share:
        layer = push.to_bytes(4) * 256
        client.push(repository, layer, harness.digest_of(layer), len(layer))
        client.push_manifest(repository, f"t{push}", harness.manifest_of([layer]))
    return len(share)


if __name__ == "__main__":
    harness.main(measure)
