"""What the measurements share: inputs, servers on free ports, timing, the record of results."""

import contextlib
import datetime
import hashlib
import http.client
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

    def reset_peak_memory(self):
        """Lets the peak begin anew, at what is resident now."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

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
def hayloft(role, data, log_folder, *arguments):
    """One Hayloft role on a free port, with its data in `data`."""
    if not HAYLOFT.exists():
        raise Failed(f"{HAYLOFT} is not built: run make build")
    log = log_folder / f"{role}.log"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [HAYLOFT, role, "--data", data, "--listen", "127.0.0.1:0", *arguments],
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
    """Debian's docker-registry (distribution 2.8) on a free port, with its data in `data`."""
    program = shutil.which("docker-registry")
    if not program:
        raise Failed("docker-registry is not installed: run scripts/install-deps.sh bench")
    with go_registry(program, data, log_folder) as server:
        yield server


@contextlib.contextmanager
def distribution(data, log_folder, proxy=None):
    """distribution 3, the reference registry, on a free port, with its data in `data`; `proxy` is
    what makes it a pull-through cache."""
    program = ROOT / ".peers/bin/distribution"
    if not program.exists():
        raise Failed(f"{program} is not built: run scripts/build-peers.sh distribution")
    with go_registry(program, data, log_folder, proxy) as server:
        yield server


@contextlib.contextmanager
def go_registry(program, data, log_folder, proxy=None):
    """Either version of distribution, with deletes allowed and as quiet as it can be."""
    address = free_address()
    name = pathlib.Path(program).name
    config = log_folder / f"{name}.json"
    config.write_text(  # its YAML reader takes JSON
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(data)},
                    "delete": {"enabled": True},
                },
                "http": {"addr": address},
            }
            | ({"proxy": proxy} if proxy else {})
        )
    )
    command = [program, "serve", config]
    environment = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
    with process_on(address, command, log_folder / f"{name}.log", environment) as server:
        yield server


@contextlib.contextmanager
def nginx(root, log_folder):
    """nginx on a free port, serving the files below `root` with sendfile, as Debian sets it up."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if not program:
        raise Failed("nginx is not installed: run scripts/install-deps.sh bench")
    address = free_address()
    config = log_folder / "nginx.conf"
    folders = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{name}_temp_path {log_folder}/{name};" for name in folders)
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        f"daemon off; {user} worker_processes auto; pid {log_folder}/nginx.pid;"
        "events { worker_connections 768; }"
        "http { sendfile on; tcp_nopush on; access_log off;"
        f"{temporary} server {{ listen {address}; root {root}; }} }}"
    )
    command = [program, "-e", "stderr", "-c", config]
    with process_on(address, command, log_folder / "nginx.log", os.environ) as server:
        yield server


@contextlib.contextmanager
def postgres(folder):
    """A PostgreSQL of its own with durable commits, in `folder`, reached by a socket there; its
    URL. It refuses to run as root, so root lends the folder to the user `postgres`."""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise Failed("PostgreSQL is not installed: run scripts/install-deps.sh bench")
    folder.mkdir()
    as_user = ()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ("runuser", "-u", "postgres", "--")
        for parent in folder.parents:
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    data = folder / "data"
    run(
        *as_user,
        *(programs[-1] / "initdb", "--pgdata", data, "--username=hayloft", "--auth=trust"),
        *("--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
    )
    with open(folder.parent / "postgres.log", "w") as log:
        process = subprocess.Popen(
            (*as_user, programs[-1] / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_for_socket(folder / ".s.PGSQL.5432", process)
            yield f"postgres://hayloft@localhost/postgres?host={folder}"
        finally:
            process.terminate()
            process.wait()


def wait_for_socket(path, process):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        time.sleep(0.02)
    raise Failed(f"no server came up on {path}")


@contextlib.contextmanager
def process_on(address, command, log_path, environment):
    with open(log_path, "w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        server = Server(process, address)
        try:
            wait_for_port(address, process)
            yield server
        finally:
            server.stop()


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


def wait_for_port(address, process):
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.02)
    raise Failed(f"no server came up on {address}")


# --- a small client, the same for every registry ----------------------------------------------


class Client:
    """One connection to a registry. Raises `Failed` for an answer that was not expected."""

    def __init__(self, server):
        host, port = server.address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(
            host, int(port), timeout=120, blocksize=MIB
        )
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, expected, body=None, headers=None):
        """The headers and the body of an answer that has the status `expected`."""
        self.connection.request(method, path, body=body, headers=headers or {})
        response = self.connection.getresponse()
        content = response.read()
        if response.status != expected:
            raise Failed(f"{method} {path}: {response.status} {content[:300]!r}")
        return response, content

    def begin_upload(self, repository):
        """Opens an upload session; gives its path and query."""
        response, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/", 202)
        return self.session(response)

    @staticmethod
    def session(response):
        location = response.headers["location"]
        return location if location.startswith("/") else "/" + location.split("/", 3)[3]

    def push(self, repository, body, digest, length):
        """Pushes content in two requests, as most clients do; gives the path of the blob."""
        session = self.begin_upload(repository)
        query = "&" if "?" in session else "?"
        headers = {"content-length": str(length), "content-type": "application/octet-stream"}
        path = f"{session}{query}digest={digest}"
        self.ask("PUT", path, 201, body, headers)
        return f"/v2/{repository}/blobs/{digest}"

    def push_manifest(self, repository, reference, content):
        headers = {"content-type": OCI_MANIFEST}
        self.ask("PUT", f"/v2/{repository}/manifests/{reference}", 201, content, headers)


OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY_CONFIG = b"{}"


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest_of(layers, **annotations):
    """A manifest with an empty config and these layers, given as contents."""

    def descriptor(media_type, content):
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.empty.v1+json", EMPTY_CONFIG),
            "layers": [descriptor("application/octet-stream", layer) for layer in layers],
            "annotations": annotations,
        }
    ).encode()


def file_digest(path):
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def push_blob(server, repository, path):
    """Pushes a file; gives the path of the blob."""
    with open(path, "rb") as file:
        size = path.stat().st_size
        return Client(server).push(repository, file, file_digest(path), size)


def share(data, path):
    """Puts a link to `path` where a registry keeps its copy of it: then all servers send the same
    pages of the page cache, and none is the lucky one. Gives where it lies."""
    size = path.stat().st_size
    for file in data.rglob("*"):
        if file.is_file() and file.stat().st_size == size:
            file.unlink()
            os.link(path, file)
            return file
    raise Failed(f"no file of {size} bytes in {data}")


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


def report(
    benchmark, figure, unit, ours, peer, peer_name, limit=None, goal=None, more_is_better=False
):
    """Prints one figure and appends it to the record. `ours` and `peer` are lists of samples.

    The ratio says how many times better ours is; `goal` is the least it should be, `limit` the
    most that ours may be.
    """
    our_median = statistics.median(ours)
    peer_median = statistics.median(peer) if peer else None
    ratio = None
    if peer and our_median and peer_median:
        better = our_median / peer_median if more_is_better else peer_median / our_median
        ratio = round(better, 2)
    line = f"{benchmark}: {figure}: ours {our_median:.4g} {unit}"
    if peer:
        line += f", {peer_name} {peer_median:.4g} {unit}, ratio {ratio}"
    if limit is not None:
        line += f" (limit {limit:g} {unit}: {'met' if our_median <= limit else 'MISSED'})"
    if goal is not None and ratio is not None:
        line += f" (goal {goal:g}: {'met' if ratio >= goal else 'MISSED'})"
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
        "goal": goal,
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
