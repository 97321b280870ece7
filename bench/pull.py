"""Pull of one large blob: through our agent into its cache; by skopeo into a folder, verified too; by
curl into a file that is synced, which verifies nothing."""

import harness
from push import skopeo_push


def measure():
    model = harness.model_file()
    layout = harness.oci_layout(model)
    with harness.work_folder() as folder:
        with (
            harness.hayloft("registry", folder / "ours", folder) as our_registry,
            harness.docker_registry(folder / "peer", folder) as peer_registry,
        ):
            name = f"{our_registry.address}/bench/noise:1"
            harness.run(harness.HAYLOFT, "push", model, name)
            harness.run(*skopeo_push(layout, peer_registry))
            blob = f"{our_registry.url}/v2/bench/noise/blobs/{harness.file_digest(model)}"
            our_times, peer_times, curl_times = harness.interleaved(
                harness.ROUNDS,
                lambda: our_pull(name, folder / "ours"),
                lambda: peer_pull(peer_registry, folder / "peer"),
                lambda: curl(blob, folder / "ours"),
            )
    figure = "wall clock, empty cache"
    harness.report("pull", figure, "s", our_times, peer_times, "docker-registry + skopeo", goal=3)
    harness.report("pull", figure, "s", our_times, curl_times, "curl and sync", goal=0.9)


def our_pull(name, registry_data):
    with harness.work_folder() as folder:
        with harness.hayloft("agent", folder / "data", folder) as agent:
            harness.warm(registry_data)
            return harness.timed(harness.HAYLOFT, "pull", name, "--agent", agent.url)


def peer_pull(registry, registry_data):
    with harness.work_folder() as folder:
        harness.warm(registry_data)
        return harness.timed(*skopeo_pull(registry, f"dir:{folder / 'model'}"))


def curl(blob, registry_data):
    """From the same registry as ours."""
    with harness.work_folder() as folder:
        harness.warm(registry_data)
        command = 'curl -sf -o "$1" "$2" && sync "$1"'
        return harness.timed("sh", "-c", command, "sh", folder / "model", blob)


def skopeo_pull(registry, target):
    return (
        "skopeo",
        "copy",
        "--quiet",
        "--preserve-digests",
        "--src-tls-verify=false",
        f"docker://{registry.address}/bench/noise:1",
        target,
    )


if __name__ == "__main__":
    harness.main(measure)
