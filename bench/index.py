"""The same operations with the index in sled and in PostgreSQL, on one machine: what several
replicas cost a single one."""

import concurrent.futures
import importlib
import os
import time

import harness

manifest_get = importlib.import_module("manifest-get")
small_pushes = importlib.import_module("small-pushes")
small_pushes.PUSHES = 400
PAGES = 200


def measure():
    with harness.work_folder() as folder:
        with harness.postgres(folder / "postgres") as url:
            address = folder / "index-url"
            address.write_text(url)
            with (
                harness.hayloft("registry", folder / "sled", folder) as sled,
                # A URL may hold a password, so it goes by a file.
                second(folder, "--index-file", address) as postgres,
            ):
                compare(sled, postgres)


def second(folder, *arguments):
    log = folder / "second"
    log.mkdir()
    return harness.hayloft("registry", folder / "data", log, *arguments)


def compare(sled, postgres):
    for figure, unit, operation in (
        ("pushes by 8 clients", "pushes/s", pushes),
        ("manifest GETs by tag over 32 connections", "requests/s", gets),
        ("pages of 100 tags, one client", "pages/s", pages),
    ):
        sides = [lambda server=server: operation(server) for server in (sled, postgres)]
        of_sled, of_postgres = harness.interleaved(harness.ROUNDS, *sides)
        harness.report(
            "index", figure, unit, of_sled, of_postgres, "in PostgreSQL", more_is_better=True
        )


def pushes(server):
    os.sync()
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(small_pushes.CLIENTS) as pool:
        clients = range(small_pushes.CLIENTS)
        shares = [pool.submit(small_pushes.push_share, server, client) for client in clients]
        pushed = sum(share.result() for share in shares)
    return pushed / (time.monotonic() - begin)


def gets(server):
    manifest_get.push(server)
    return manifest_get.rate(f"{server.url}/v2/bench/small/manifests/1")


def pages(server):
    client = harness.Client(server)
    begin = time.monotonic()
    for _ in range(PAGES):
        client.ask("GET", "/v2/bench/small-0/tags/list?n=100", 200)
    return PAGES / (time.monotonic() - begin)


if __name__ == "__main__":
    harness.main(measure)
