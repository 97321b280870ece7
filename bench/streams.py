"""Peak memory of the registry while 100 clients pull at once, slower than it could send: all of
them one whole blob that the page cache holds, or each its own part of one that it does not."""

import os
import selectors
import socket
import subprocess
import time

import harness

STREAMS = 100
LIMIT_MIB = 128
SECONDS = 5
# So little that the server always waits for its clients.
BYTES_PER_TURN = 32 * 1024


def measure():
    model = harness.model_file()
    with harness.work_folder() as folder:
        sides = (
            ("docker-registry", harness.docker_registry),
            ("distribution", harness.distribution),
            ("ours", lambda data, log: harness.hayloft("registry", data, log)),
        )
        for is_warm in (True, False):
            peaks = {}
            for name, start in sides:
                with start(folder / f"{name}-{is_warm}", folder) as server:
                    path = harness.push_blob(server, "bench/noise", model)
                    stored = harness.share(folder / f"{name}-{is_warm}", model)
                    harness.warm(stored) if is_warm else forget(stored)
                    # What the push took is not meant: only what it takes from here on.
                    server.reset_peak_memory()
                    read_slowly(server, path, None if is_warm else stored.stat().st_size)
                    peaks[name] = server.peak_memory() / harness.MIB
            for peer in ("docker-registry", "distribution"):
                harness.report(
                    "streams",
                    f"peak memory, {STREAMS} streams, {'one blob, cached' if is_warm else 'parts, from disk'}",
                    "MiB",
                    [peaks["ours"]],
                    [peaks[peer]],
                    peer,
                    limit=LIMIT_MIB,
                )


def forget(path):
    """Takes a file out of the page cache."""
    os.sync()
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_slowly(server, path, in_parts_of):
    """Reads from all streams for a while; `in_parts_of` is the size when each wants its own part."""
    host, port = server.address.rsplit(":", 1)
    selector = selectors.DefaultSelector()
    for number in range(STREAMS):
        head = f"GET {path} HTTP/1.1\r\nhost: {server.address}\r\n"
        if in_parts_of:
            begin, end = (in_parts_of * place // STREAMS for place in (number, number + 1))
            head += f"range: bytes={begin}-{end - 1}\r\n"
        client = socket.create_connection((host, int(port)))
        client.sendall(f"{head}\r\n".encode())
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    received = dict.fromkeys((key.fd for key in selector.get_map().values()), 0)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for key, _ in selector.select(0.1):
            received[key.fd] += len(key.fileobj.recv(BYTES_PER_TURN))
        time.sleep(0.01)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    starved = sum(1 for count in received.values() if count < harness.MIB)
    if starved:
        raise harness.Failed(f"{starved} of {STREAMS} streams got less than 1 MiB")


if __name__ == "__main__":
    harness.main(measure)
