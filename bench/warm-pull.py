"""Pull of a model that is cached already: its time, and what still crosses the network."""

import re
import socket
import threading

import harness
from pull import skopeo_pull
from push import skopeo_push

WARM_PULLS = 21
BLOB_REQUEST = re.compile(rb"GET /v2/\S+/blobs/\S+ HTTP/")


class CountingProxy:
    """Forwards connections to a registry; counts the bytes of its answers and the blob requests."""

    def __init__(self, target):
        self.target = target
        self.answered = 0
        self.blob_requests = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            host, port = self.target.rsplit(":", 1)
            server = socket.create_connection((host, int(port)))
            for source, sink, count in (
                (client, server, self.count_requests),
                (server, client, self.count_answers),
            ):
                threading.Thread(target=forward, args=(source, sink, count), daemon=True).start()

    def count_requests(self, data):
        with self.lock:
            self.blob_requests += len(BLOB_REQUEST.findall(data))

    def count_answers(self, data):
        with self.lock:
            self.answered += len(data)

    def reset(self):
        with self.lock:
            self.answered = self.blob_requests = 0


def forward(source, sink, count):
    try:
        while data := source.recv(1 << 18):
            count(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def measure():
    model = harness.model_file()
    layout = harness.oci_layout(model)
    with harness.work_folder() as folder:
        with (
            harness.hayloft("registry", folder / "ours", folder) as our_registry,
            harness.hayloft("agent", folder / "cache", folder) as agent,
            harness.docker_registry(folder / "peer", folder) as peer_registry,
        ):
            proxy = CountingProxy(our_registry.address)
            name = f"{proxy.address}/bench/noise:1"
            harness.run(harness.HAYLOFT, "push", model, f"{our_registry.address}/bench/noise:1")
            harness.run(*skopeo_push(layout, peer_registry))
            ours = (harness.HAYLOFT, "pull", name, "--agent", agent.url)
            # skopeo, too, leaves a blob alone that the layout has.
            peer = skopeo_pull(peer_registry, f"oci:{folder / 'layout'}:bench")
            harness.run(*ours)
            harness.run(*peer)
            if proxy.blob_requests == 0 or proxy.answered < model.stat().st_size:
                raise harness.Failed("the first pull did not come through the counting proxy")
            proxy.reset()
            our_times, peer_times = harness.interleaved(
                WARM_PULLS, lambda: harness.timed(*ours), lambda: harness.timed(*peer)
            )
    to_milliseconds = 1000
    harness.report(
        "warm-pull",
        "wall clock, model cached",
        "ms",
        [seconds * to_milliseconds for seconds in our_times],
        [seconds * to_milliseconds for seconds in peer_times],
        "skopeo to an oci: layout that has it",
        limit=50,
    )
    harness.report(
        "warm-pull",
        "blob requests per pull",
        "requests",
        [proxy.blob_requests / WARM_PULLS],
        None,
        None,
        limit=0,
    )
    harness.report(
        "warm-pull",
        "bytes from the registry per pull, headers and manifest included",
        "bytes",
        [proxy.answered / WARM_PULLS],
        None,
        None,
    )


if __name__ == "__main__":
    harness.main(measure)
