"""Peak resident memory of registry and agent while one large blob goes in and out."""

import os
import subprocess

import harness
from pull import skopeo_pull
from push import skopeo_push

LIMIT_MIB = 64


def measure():
    model = harness.model_file()
    layout = harness.oci_layout(model)
    with harness.work_folder() as folder:
        with (
            harness.hayloft("registry", folder / "registry", folder) as registry,
            harness.hayloft("agent", folder / "agent", folder) as agent,
        ):
            name = f"{registry.address}/bench/noise:1"
            harness.run(harness.HAYLOFT, "push", model, name)
            harness.run(harness.HAYLOFT, "pull", name, "--agent", agent.url)
            our_registry = registry.peak_memory()
            our_agent = agent.peak_memory()
    with harness.work_folder() as folder:
        with harness.docker_registry(folder / "registry", folder) as registry:
            harness.run(*skopeo_push(layout, registry))
            skopeo = peak_memory_of(skopeo_pull(registry, f"dir:{folder / 'model'}"))
            peer_registry = registry.peak_memory()
    for figure, ours, peer, peer_name in (
        ("peak of the registry", our_registry, peer_registry, "docker-registry"),
        ("peak of the agent", our_agent, skopeo, "skopeo"),
    ):
        harness.report(
            "memory",
            figure,
            "MiB",
            [ours / harness.MIB],
            [peer / harness.MIB],
            peer_name,
            limit=LIMIT_MIB,
        )


def peak_memory_of(command):
    """Peak resident memory, in bytes, of a client that runs to its end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise harness.Failed(f"{' '.join(command)} exited {process.returncode}")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    harness.main(measure)
