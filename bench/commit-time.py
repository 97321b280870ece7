"""The last request of a chunked push, which makes the blob visible, at 1, 4 and 16 GiB."""

import hashlib
import os
import time

import harness

SIZES_GIB = tuple(
    float(size) for size in os.environ.get("HAYLOFT_BENCH_COMMIT_GIB", "1,4,16").split(",")
)
# A registry that reads the blob again takes minutes for the largest.
PEER_SIZES_GIB = SIZES_GIB[:2]
CHUNK = 256 * harness.MIB


def measure():
    block = os.urandom(16 * harness.MIB)
    digests = dict(zip(SIZES_GIB, digests_of(block, SIZES_GIB)))
    ours = commits(lambda data, log: harness.hayloft("registry", data, log), block, digests)
    peer = commits(
        harness.distribution, block, {size: digests[size] for size in PEER_SIZES_GIB}
    )
    for size in SIZES_GIB:
        harness.report(
            "commit-time",
            f"last request of a chunked push of {size:g} GiB",
            "ms",
            [ours[size]],
            [peer[size]] if size in peer else None,
            "distribution" if size in peer else None,
        )
    smallest, largest = SIZES_GIB[0], SIZES_GIB[-1]
    harness.report(
        "commit-time",
        f"{largest:g} GiB against {smallest:g} GiB: 1 is flat",
        "times",
        [ours[largest] / ours[smallest]],
        None,
        None,
        # A sync of the folder is part of it, so twice the time is no growth yet.
        limit=5,
    )


def digests_of(block, sizes):
    """Digests of the block repeated up to each size, in one pass."""
    hashed, running = 0, hashlib.sha256()
    for size in sizes:
        while hashed < size * harness.GIB:
            running.update(block)
            hashed += len(block)
        yield f"sha256:{running.copy().hexdigest()}"


def commits(start, block, digests):
    """Milliseconds of the closing request, by size."""
    times = {}
    for size, digest in digests.items():
        with harness.work_folder() as folder, start(folder / "data", folder) as server:
            client = harness.Client(server)
            session = client.begin_upload("bench/large")
            total, sent = int(size * harness.GIB), 0
            while sent < total:
                length = min(CHUNK, total - sent)
                headers = {
                    "content-length": str(length),
                    "content-range": f"{sent}-{sent + length - 1}",
                    "content-type": "application/octet-stream",
                }
                blocks = (block for _ in range(length // len(block)))
                response, _ = client.ask("PATCH", session, 202, blocks, headers)
                session = client.session(response)
                sent += length
            begin = time.monotonic()
            query = "&" if "?" in session else "?"
            client.ask("PUT", f"{session}{query}digest={digest}", 201, b"")
            times[size] = (time.monotonic() - begin) * 1000
    return times


if __name__ == "__main__":
    harness.main(measure)
