"""What a repository of 100,000 manifests and tags costs against one of 100: the same operations,
and the last page of the list of tags against its first.

The larger one is made by writing its records and rebuilding the index from them, as after a
restore: pushing it would take longer than everything else here together."""

import json
import os
import time

import harness

FEW = 100
MANY = int(os.environ.get("HAYLOFT_BENCH_MANIFESTS", "100000"))
SAMPLES = 30
PAGE = 100
TIME = "2026-01-01T00:00:00Z"
LAYER = b"a small layer"


def measure():
    with harness.work_folder() as folder:
        figures = {}
        for count in (FEW, MANY):
            data = folder / f"data-{count}"
            fill(data / "registry", count)
            begin = time.monotonic()
            harness.run(harness.HAYLOFT, "registry", "reindex", "--data", data)
            figures[count] = {"rebuild of the index": time.monotonic() - begin}
            log = folder / str(count)
            log.mkdir()
            with harness.hayloft("registry", data, log) as server:
                figures[count] |= operations(server, count)
                figures[count]["memory"] = server.peak_memory() / harness.MIB
    report(figures)


def fill(registry, count):
    """The records and contents of one repository with so many manifests, a tag on each."""
    records = registry / "records/bench/grown"
    blobs = registry / "blobs/sha256"
    for folder in (blobs, *(records / kind / "sha256" for kind in ("_manifests", "_blobs"))):
        folder.mkdir(parents=True)
    (records / "_tags").mkdir()
    (records / "_repository").write_text(json.dumps({"created": TIME}))
    named = [harness.digest_of(content) for content in (harness.EMPTY_CONFIG, LAYER)]
    for content, digest in zip((harness.EMPTY_CONFIG, LAYER), named):
        (blobs / digest[7:]).write_bytes(content)
        record = {"size": len(content), "linked": TIME}
        (records / "_blobs/sha256" / digest[7:]).write_text(json.dumps(record))
    for number in range(count):
        manifest = harness.manifest_of([LAYER], number=str(number))
        digest = harness.digest_of(manifest)
        record = {
            "media_type": harness.OCI_MANIFEST,
            "size": len(manifest),
            "pushed": TIME,
            "blobs": named,
        }
        (blobs / digest[7:]).write_bytes(manifest)
        (records / "_manifests/sha256" / digest[7:]).write_text(json.dumps(record))
        tag = {"digest": digest, "updated": TIME}
        (records / "_tags" / tag_name(number)).write_text(json.dumps(tag))


def tag_name(number):
    return f"v{number:06}"


def operations(server, count):
    """Milliseconds of each operation, the median of some."""
    client = harness.Client(server)
    path = "/v2/bench/grown"
    last = tag_name(count - PAGE - 1)

    def push(number):
        client.push_manifest("bench/grown", "new", harness.manifest_of([LAYER], new=str(number)))

    def get(number):
        tag = tag_name(number * 7919 % count)
        client.ask("GET", f"{path}/manifests/{tag}", 200)

    def page(query):
        _, content = client.ask("GET", f"{path}/tags/list?n={PAGE}{query}", 200)
        if len(json.loads(content)["tags"]) != PAGE:
            raise harness.Failed(f"not a whole page of tags: {content[:200]!r}")

    return {
        "GET of a manifest by tag": median(get),
        "first page of tags": median(lambda _: page("")),
        "last page of tags": median(lambda _: page(f"&last={last}")),
        "push of a manifest": median(push),
    }


def median(operation):
    times = []
    for number in range(SAMPLES):
        begin = time.monotonic()
        operation(number)
        times.append((time.monotonic() - begin) * 1000)
    return sorted(times)[SAMPLES // 2]


def report(figures):
    few, many = figures[FEW], figures[MANY]
    for figure, limit in (
        ("GET of a manifest by tag", 3),
        ("first page of tags", 3),
        ("last page of tags", 3),
        ("push of a manifest", 3),
    ):
        print(f"growth: {figure}: {few[figure]:.3g} ms of {FEW}, {many[figure]:.3g} ms of {MANY}")
        ratio = [many[figure] / few[figure]]
        harness.report(
            "growth", f"{figure}, {MANY} against {FEW}", "times", ratio, None, None, limit=limit
        )
    pages = [many["last page of tags"] / many["first page of tags"]]
    harness.report(
        "growth", f"last page against first of {MANY} tags", "times", pages, None, None, limit=2
    )
    rebuild = [many["rebuild of the index"]]
    harness.report("growth", f"rebuild of the index of {MANY} manifests", "s", rebuild, None, None)
    memory = [many["memory"]]
    harness.report("growth", f"peak memory with {MANY} manifests", "MiB", memory, None, None)


if __name__ == "__main__":
    harness.main(measure)
