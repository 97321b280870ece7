"""What chunk maps cost: a push into a registry that computes them, against one that does not; and
how large a map is."""

import json

import harness

CHUNK_MAPS = "application/vnd.hayloft.chunk-maps.v1"
MOST = 1.05


def measure():
    model = harness.model_file()
    sizes = []

    def push(policy):
        with harness.work_folder() as folder:
            data = folder / "data"
            with harness.hayloft("registry", data, folder, "--chunk-maps", policy) as registry:
                harness.warm(model)
                name = f"{registry.address}/bench/noise:1"
                seconds = harness.timed(harness.HAYLOFT, "push", model, name)
                if policy == "models":
                    sizes.append(map_bytes(registry))
                return seconds

    with_maps, without = harness.interleaved(
        harness.ROUNDS, lambda: push("models"), lambda: push("off")
    )
    times = [ours / theirs for ours, theirs in zip(with_maps, without)]
    harness.report("chunk-map", "push, wall clock", "s", with_maps, without, "without chunk maps")
    harness.report(
        "chunk-map", "push, times that without chunk maps", "x", times, None, None, limit=MOST
    )
    per_gib = [size / 1024 * harness.GIB / model.stat().st_size for size in sizes]
    harness.report("chunk-map", "map for each GiB of model", "KiB", per_gib, None, None)


def map_bytes(registry):
    """Bytes of the only map that the registry offers of what was pushed."""
    client = harness.Client(registry)
    accept = {"accept": harness.OCI_MANIFEST}

    def manifest(reference):
        path = f"/v2/bench/noise/manifests/{reference}"
        return client.ask("GET", path, 200, headers=accept)[1]

    subject = harness.digest_of(manifest("1"))
    path = f"/v2/bench/noise/referrers/{subject}?artifactType={CHUNK_MAPS}"
    entries = json.loads(client.ask("GET", path, 200)[1])["manifests"]
    if len(entries) != 1:
        raise harness.Failed(f"{len(entries)} sets of chunk maps where one is due")
    (layer,) = json.loads(manifest(entries[0]["digest"]))["layers"]
    return layer["size"]


if __name__ == "__main__":
    harness.main(measure)
