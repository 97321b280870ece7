"""Push of one large blob: `hayloft push` to our registry, skopeo to Debian's docker-registry."""

import harness


def measure():
    model = harness.model_file()
    layout = harness.oci_layout(model)

    def ours():
        with harness.work_folder() as folder:
            with harness.hayloft("registry", folder / "data", folder) as registry:
                harness.warm(model)
                return harness.timed(
                    harness.HAYLOFT, "push", model, f"{registry.address}/bench/noise:1"
                )

    def peer():
        with harness.work_folder() as folder:
            with harness.docker_registry(folder / "data", folder) as registry:
                harness.warm(model)
                return harness.timed(*skopeo_push(layout, registry))

    our_times, peer_times = harness.interleaved(harness.ROUNDS, ours, peer)
    harness.report(
        "push", "wall clock, empty registry", "s", our_times, peer_times, "skopeo + docker-registry"
    )


def skopeo_push(layout, registry):
    """Preserving digests keeps skopeo from compressing the layer, which would measure gzip."""
    return (
        "skopeo",
        "copy",
        "--quiet",
        "--preserve-digests",
        "--dest-tls-verify=false",
        f"oci:{layout}:bench",
        f"docker://{registry.address}/bench/noise:1",
    )


if __name__ == "__main__":
    harness.main(measure)
