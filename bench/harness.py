"""What the measurements share: inputs, servers on free ports, timing, the record of results."""

import contextlib
import datetime
import json
import os
import pathlib
import re
import selectors
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HAYLOFT = pathlib.Path(os.environ.get("HAYLOFT_BIN", ROOT / "target/release/hayloft"))
RESULTS = ROOT / "bench/results.jsonl"
# Inputs and the servers' data lie on one disk, so that both sides pay the same for it.
WORK = pathlib.Path(os.environ.get("HAYLOFT_BENCH_DIR", ROOT / "target/bench"))

GIB = 1 << 30
MIB = 1 << 20
ROUNDS = int(os.environ.get("HAYLOFT_BENCH_ROUNDS", "3"))
SIZE = int(os.environ.get("HAYLOFT_BENCH_BYTES", str(2 * GIB)))
START_SECONDS = 30


class Failed(Exception):
    """A measurement could not be made; the text says why."""


# --- inputs ---------------------------------------------------------------------------------


def gguf_string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_header(rows, columns):
    """A GGUF v3 header of one F32 tensor, padded to the data's alignment."""
    text, uint32 = 8, 4
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    header += gguf_string("general.architecture") + struct.pack("<I", text) + gguf_string("llama")
    header += gguf_string("general.name") + struct.pack("<I", text) + gguf_string("noise")
    header += gguf_string("general.alignment") + struct.pack("<II", uint32, 32)
    header += gguf_string("noise.weight") + struct.pack("<IQQIQ", 2, columns, rows, 0, 0)
    return header + b"\0" * (-len(header) % 32)


def model_file():
    """A valid GGUF whose one tensor is SIZE random bytes; made once, kept."""
    columns = 4096
    rows = SIZE // 4 // columns
    header = gguf_header(rows, columns)
    length = rows * columns * 4
    path = WORK / f"noise-{length}.gguf"
    if path.exists() and path.stat().st_size == len(header) + length:
        return path
    WORK.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.write(header)
        left = length
        while left:
            piece = os.urandom(min(left, 16 * MIB))
            file.write(piece)
            left -= len(piece)
    partial.rename(path)
    return path


def oci_layout(model):
    """The same file as an OCI layout's one uncompressed layer, hard-linked, for skopeo."""
    layout = WORK / f"{model.stem}.oci"
    if (layout / "index.json").exists():
        return layout
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def store(data):
        digest = subprocess.run(
            ["sha256sum"], input=data, capture_output=True, check=True
        ).stdout.split()[0].decode()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    hexadecimal = subprocess.run(
        ["sha256sum", model], capture_output=True, check=True, text=True
    ).stdout.split()[0]
    os.link(model, blobs / hexadecimal)
    config = store(
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hexadecimal}"]},
            }
        ).encode()
    )
    manifest = store(
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config | {"mediaType": "application/vnd.oci.image.config.v1+json"},
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": f"sha256:{hexadecimal}",
                        "size": model.stat().st_size,
                    }
                ],
            }
        ).encode()
    )
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    return layout


def warm(path):
    """Reads a file, or every file below a folder, into the page cache."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with open(file, "rb", buffering=0) as source:
            while source.read(8 * MIB):
                pass


# --- servers --------------------------------------------------------------------------------


class Server:
    """A process that listens; stopped by SIGTERM, killed if it will not go."""

    def __init__(self, process, address):
        self.process = process
        self.address = address

    @property
    def url(self):
        return f"http://{self.address}"

    def peak_memory(self):
        """Peak resident memory so far, in bytes (VmHWM)."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1]) * 1024

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def listening_address(process, log):
    """The address that a role prints when it is ready."""
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    deadline = time.monotonic() + START_SECONDS
    while (left := deadline - time.monotonic()) > 0 and selector.select(left):
        line = process.stdout.readline()
        if not line:
            break
        if found := re.search(r"listening on http://(\S+)", line):
            return found[1]
    process.kill()
    raise Failed(f"the server did not say where it listens; its log is {log}")


@contextlib.contextmanager
def hayloft(role, data, log_folder):
    """One Hayloft role on a free port, with its data in `data`."""
    if not HAYLOFT.exists():
        raise Failed(f"{HAYLOFT} is not built: run make build")
    log = log_folder / f"{role}.log"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [HAYLOFT, role, "--data", data, "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        server = Server(process, listening_address(process, log))
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def docker_registry(data, log_folder):
    """Debian's docker-registry on a free port, with its data in `data`."""
    program = shutil.which("docker-registry")
    if not program:
        raise Failed("docker-registry is not installed: run scripts/install-deps.sh bench")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    config = log_folder / "docker-registry.json"
    config.write_text(  # its YAML reader takes JSON
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(data)}},
                "http": {"addr": address},
            }
        )
    )
    with open(log_folder / "docker-registry.log", "w") as log:
        process = subprocess.Popen(
            [program, "serve", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        server = Server(process, address)
        try:
            wait_for_port(address, process)
            yield server
        finally:
            server.stop()


def wait_for_port(address, process):
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.02)
    raise Failed(f"no server came up on {address}")


# --- running and recording ------------------------------------------------------------------


@contextlib.contextmanager
def work_folder():
    """A private folder on the measured disk, removed afterwards."""
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="run-") as folder:
        yield pathlib.Path(folder)


def run(*command):
    """Runs a client to its end; its text is shown only when it fails."""
    outcome = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if outcome.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise Failed(f"{words}\nexited {outcome.returncode}:\n{outcome.stdout}{outcome.stderr}")
    return outcome


def timed(*command):
    """Seconds of wall clock that a client took, from a disk with nothing left to write."""
    os.sync()
    start = time.monotonic()
    run(*command)
    return time.monotonic() - start


def interleaved(rounds, *sides):
    """Runs each side once per round, turning the order every round; times by side."""
    times = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            times[side].append(sides[side]())
    return times


def machine():
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1])
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / MIB, 1),
        # Above the number of cores: something else was running, and only the ratio says much.
        "load": round(os.getloadavg()[0], 1),
    }


def commit():
    outcome = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return outcome.stdout.strip() or None


def report(benchmark, figure, unit, ours, peer, peer_name, limit=None):
    """Prints one figure and appends it to the record. `ours` and `peer` are lists of samples.

    The ratio is peer over ours: how many times better ours is.
    """
    our_median = statistics.median(ours)
    peer_median = statistics.median(peer) if peer else None
    ratio = round(peer_median / our_median, 2) if peer and our_median else None
    line = f"{benchmark}: {figure}: ours {our_median:.4g} {unit}"
    if peer:
        line += f", {peer_name} {peer_median:.4g} {unit}, ratio {ratio}"
    if limit is not None:
        line += f" (limit {limit:g} {unit}: {'met' if our_median <= limit else 'MISSED'})"
    print(line, flush=True)
    record = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "benchmark": benchmark,
        "figure": figure,
        "unit": unit,
        "ours": round(our_median, 4),
        "peer": None if peer_median is None else round(peer_median, 4),
        "peer_name": peer_name,
        "ratio": ratio,
        "ours_samples": [round(sample, 4) for sample in ours],
        "peer_samples": [round(sample, 4) for sample in peer or []],
        "bytes": SIZE,
        "commit": commit(),
    } | machine()
    with open(RESULTS, "a") as results:
        results.write(json.dumps(record) + "\n")


def main(measure):
    """Runs a measurement; a failure is one text and exit code 1."""
    try:
        measure()
    except Failed as failure:
        raise SystemExit(f"bench: {failure}") from None
