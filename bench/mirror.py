"""A cold blob through a mirror behind a slow line, with 1, 8 and 32 clients; then a warm one; then
what it costs to ask for 100,000 mirrored tags again."""

import os
import pathlib
import subprocess
import threading
import time

import harness
from link import Link

RATE = int(os.environ.get("HAYLOFT_BENCH_LINE", str(50 * 1000 * 1000)))
TAGS = int(os.environ.get("HAYLOFT_BENCH_TAGS", "100000"))
CLIENTS = (1, 8, 32)
# Tags of one push; the client here takes no more than 100 headers in an answer.
TAGS_OF_A_PUSH = 80
REPOSITORY = "bench/noise"


def measure():
    model = harness.model_file()
    with harness.work_folder() as folder:
        with harness.hayloft("registry", folder / "upstream", folder) as upstream:
            path = push(upstream, model)
            cold(folder, upstream, model, path)
            warm(folder, upstream, model, path)
            revalidation(folder, upstream)


def push(upstream, model):
    """The file as the one layer of an image; gives the path of its blob."""
    client = harness.Client(upstream)
    path = harness.push_blob(upstream, REPOSITORY, model)
    config = harness.EMPTY_CONFIG
    client.push(REPOSITORY, config, harness.digest_of(config), len(config))
    digest = path.rsplit("/", 1)[1]
    manifest = harness.manifest_of([])
    manifest = manifest.replace(
        b'"layers": []',
        b'"layers": [{"mediaType": "application/octet-stream", "digest": "%s", "size": %d}]'
        % (digest.encode(), model.stat().st_size),
    )
    client.push_manifest(REPOSITORY, "1", manifest)
    return path


# --- cold -----------------------------------------------------------------------------------


def cold(folder, upstream, model, path):
    size = model.stat().st_size
    with Link(upstream.address, RATE) as link:
        for clients in CLIENTS:
            direct, ours, peer = [], [], []
            for number in range(harness.ROUNDS):
                direct.append(pull(link, f"http://{link.address}{path}", 1))
                ours.append(through_ours(folder, link, path, clients, number))
            # One round: it takes as many times the time as it has clients.
            if os.environ.get("HAYLOFT_BENCH_PEER", "1") == "1":
                peer.append(through_distribution(folder, link, path, clients))
            tell(clients, size, direct, ours, peer)


def tell(clients, size, direct, ours, peer):
    line = f"line of {RATE / 1e6:g} MB/s"
    who = f"{clients} client{'s' if clients > 1 else ''}, cold, {line}"
    harness.report(
        "mirror",
        f"{who}: bytes from upstream, times the blob",
        "x",
        [one["bytes"] / size for one in ours],
        [one["bytes"] / size for one in peer],
        "distribution",
        limit=1.005,
    )
    harness.report(
        "mirror",
        f"{who}: time, times that of one client without a mirror",
        "x",
        [one["seconds"] / other["seconds"] for one, other in zip(ours, direct)],
        [one["seconds"] / direct[-1]["seconds"] for one in peer],
        "distribution",
        limit=1.15,
    )
    harness.report(
        "mirror",
        f"{who}: first byte, the last client's",
        "s",
        [one["first"] for one in ours],
        [one["first"] for one in peer],
        "distribution",
        limit=1,
    )


def through_ours(folder, link, path, clients, number):
    data = folder / f"mirror-{clients}-{number}"
    upstream = f"hub=oci+http://{link.address}"
    with harness.hayloft("registry", data, folder, "--upstream", upstream) as mirror:
        manifest(mirror, f"hub/{REPOSITORY}")
        measured = pull(link, mirror.url + path.replace("/v2/", "/v2/hub/"), clients)
    subprocess.run(["rm", "-rf", data], check=True)
    return measured


def through_distribution(folder, link, path, clients):
    data = folder / f"distribution-{clients}"
    proxy = {"remoteurl": f"http://{link.address}"}
    with harness.distribution(data, folder, proxy=proxy) as mirror:
        manifest(mirror, REPOSITORY)
        measured = pull(link, mirror.url + path, clients)
    subprocess.run(["rm", "-rf", data], check=True)
    return measured


def manifest(mirror, repository):
    headers = {"accept": harness.OCI_MANIFEST}
    harness.Client(mirror).ask("GET", f"/v2/{repository}/manifests/1", 200, headers=headers)


def pull(link, url, clients):
    """So many clients that pull a blob at once: seconds in all, seconds until the last of them had
    its first byte, and bytes that came over the line."""
    os.sync()
    before = link.down
    form = "%{time_starttransfer} %{size_download}\n"
    command = ("curl", "--silent", "--fail", "--output", "/dev/null", "--write-out", form, url)
    begin = time.monotonic()
    running = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        for _ in range(clients)
    ]
    said = [process.communicate()[0] for process in running]
    seconds = time.monotonic() - begin
    if codes := [process.returncode for process in running if process.returncode]:
        raise harness.Failed(f"{' '.join(command)} exited {codes[0]}")
    first = max(float(line.split()[0]) for line in said)
    return {"seconds": seconds, "first": first, "bytes": link.down - before}


# --- warm -----------------------------------------------------------------------------------


def warm(folder, upstream, model, path):
    """What is in the mirror already against a blob that was pushed."""
    source = f"hub=oci+{upstream.url}"
    with harness.hayloft("registry", folder / "warm", folder, "--upstream", source) as mirror:
        manifest(mirror, f"hub/{REPOSITORY}")
        mirrored = mirror.url + path.replace("/v2/", "/v2/hub/")
        fetch(mirrored)
        wait_until_filled(folder / "warm/registry", model.stat().st_size)
        # The same pages of the page cache for both.
        harness.share(folder / "warm/registry/blobs", model)
        harness.share(folder / "upstream/registry/blobs", model)
        sides = [lambda url=url: speed(model, url) for url in (mirrored, upstream.url + path)]
        ours, local = harness.interleaved(max(harness.ROUNDS, 5), *sides)
        harness.report(
            "mirror", "warm, 1 client", "GB/s", ours, local, "a blob that was pushed",
            goal=0.95, more_is_better=True,
        )


def fetch(url):
    harness.run("curl", "--silent", "--fail", "--output", "/dev/null", url)


def wait_until_filled(data, size):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        files = (data / "blobs").rglob("*")
        if any(file.is_file() and file.stat().st_size == size for file in files):
            return
        time.sleep(0.1)
    raise harness.Failed("the mirror did not fill the blob")


def speed(model, url):
    harness.warm(model)
    begin = time.monotonic()
    fetch(url)
    return model.stat().st_size / 1e9 / (time.monotonic() - begin)


# --- tags -----------------------------------------------------------------------------------


def revalidation(folder, upstream):
    """Each tag asked for once more, as if its time were over."""
    client = harness.Client(upstream)
    content = harness.EMPTY_CONFIG
    client.push("bench/tags", content, harness.digest_of(content), len(content))
    manifest = harness.manifest_of([])
    for start in range(0, TAGS, TAGS_OF_A_PUSH):
        tags = "&".join(f"tag=t{number}" for number in range(start, min(start + TAGS_OF_A_PUSH, TAGS)))
        reference = f"{harness.digest_of(manifest)}?{tags}"
        client.push_manifest("bench/tags", reference, manifest)
    with Link(upstream.address, 10**12) as link:
        source = f"hub=oci+http://{link.address}"
        arguments = ("--upstream", source, "--tag-ttl", "0s")
        with harness.hayloft("registry", folder / "tags", folder, *arguments) as mirror:
            ask_for_all(mirror)
            before, bytes_before = cpu_seconds(mirror), link.down
            seconds = ask_for_all(mirror)
            cost = cpu_seconds(mirror) - before
            came = link.down - bytes_before
            memory = mirror.peak_memory() / harness.MIB
    per_tag = 100_000 / TAGS
    for figure, unit, value in (
        ("100,000 mirrored tags asked for again: wall clock", "s", seconds * per_tag),
        ("100,000 mirrored tags asked for again: processor time of the mirror", "s", cost * per_tag),
        ("100,000 mirrored tags asked for again: bytes from upstream", "MB", came * per_tag / 1e6),
        ("memory after that", "MiB", memory),
    ):
        harness.report("mirror", figure, unit, [value], [], None)


def ask_for_all(mirror, connections=8):
    """A HEAD for every tag; the seconds that took."""
    failures = []

    def work(first):
        try:
            client = harness.Client(mirror)
            headers = {"accept": harness.OCI_MANIFEST}
            for number in range(first, TAGS, connections):
                path = f"/v2/hub/bench/tags/manifests/t{number}"
                client.ask("HEAD", path, 200, headers=headers)
        except Exception as failure:  # told below, in the one thread that can end the run
            failures.append(failure)

    begin = time.monotonic()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise harness.Failed(str(failures[0]))
    return time.monotonic() - begin


def cpu_seconds(server):
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    harness.main(measure)
