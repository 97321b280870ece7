"""Pull over a line of 200 Mbit/s with 40 ms there and back, and over the same with connections that
break: the time, as a multiple of what the line needs for the bytes alone. curl beside it is started
again where it broke."""

import harness
from link import Link

RATE = 25_000_000
DELAY = 0.04
# Bytes of answers after which a connection breaks, on average.
DROP = 64 * harness.MIB


def measure():
    model = harness.model_file()
    size = model.stat().st_size
    with harness.work_folder() as folder:
        with harness.hayloft("registry", folder / "registry", folder) as registry:
            harness.run(harness.HAYLOFT, "push", model, f"{registry.address}/bench/noise:1")
            blob = f"/v2/bench/noise/blobs/{harness.file_digest(model)}"
            for what, drop in (("clean", None), ("connections break", DROP)):
                ours, peer = harness.interleaved(
                    harness.ROUNDS,
                    lambda: our_time(registry, drop, size),
                    lambda: curl_time(registry, drop, size, blob),
                )
                harness.report(
                    "slow-link",
                    f"200 Mbit/s with 40 ms, {what}: time, times the least that the line allows",
                    "x",
                    ours,
                    peer,
                    "curl and sync",
                    limit=round(1 / 0.95, 3),
                )


def our_time(registry, drop, size):
    with harness.work_folder() as folder, Link(registry.address, RATE, DELAY, drop) as link:
        with harness.hayloft("agent", folder / "data", folder) as agent:
            name = f"{link.address}/bench/noise:1"
            return times(size, harness.HAYLOFT, "pull", name, "--agent", agent.url)


def curl_time(registry, drop, size, blob):
    with harness.work_folder() as folder, Link(registry.address, RATE, DELAY, drop) as link:
        # curl goes on by itself only when it is started again.
        command = 'until curl -sf -C - -o "$1" "$2"; do :; done; sync "$1"'
        url = f"http://{link.address}{blob}"
        return times(size, "sh", "-c", command, "sh", folder / "model", url)


def times(size, *command):
    return harness.timed(*command) * RATE / size


if __name__ == "__main__":
    harness.main(measure)
