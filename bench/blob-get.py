"""GET of a 2 GiB blob by one client and by eight, against other registries and against nginx."""

import subprocess
import time

import harness

GOALS = {"docker-registry": 1.2, "distribution": 1.2, "nginx": 1.0}


def measure():
    model = harness.model_file()
    with harness.work_folder() as folder:
        registries = {
            "ours": harness.hayloft("registry", folder / "ours", folder),
            "docker-registry": harness.docker_registry(folder / "docker-registry", folder),
            "distribution": harness.distribution(folder / "distribution", folder),
        }
        with (
            registries["ours"] as ours,
            registries["docker-registry"] as docker_registry,
            registries["distribution"] as distribution,
            harness.nginx(model.parent, folder) as nginx,
        ):
            addresses = {"nginx": f"{nginx.url}/{model.name}"}
            servers = {
                "ours": ours,
                "docker-registry": docker_registry,
                "distribution": distribution,
            }
            for name, server in servers.items():
                path = harness.push_blob(server, "bench/noise", model)
                harness.share(folder / name, model)
                addresses[name] = server.url + path
            for clients in (1, 8):
                compare(model, addresses, clients)


def compare(model, addresses, clients):
    names = list(addresses)
    sides = [lambda url=addresses[name]: seconds(model, url, clients) for name in names]
    times = dict(zip(names, harness.interleaved(harness.ROUNDS, *sides)))
    gigabytes = clients * model.stat().st_size / 1e9
    speeds = {name: [gigabytes / one for one in times[name]] for name in names}
    for peer, goal in GOALS.items():
        harness.report(
            "blob-get",
            f"{clients} client{'s' if clients > 1 else ''}, from the page cache",
            "GB/s",
            speeds["ours"],
            speeds[peer],
            peer,
            goal=goal,
            more_is_better=True,
        )


def seconds(model, url, clients):
    """Wall clock of so many clients that pull the whole blob at once."""
    harness.warm(model)
    command = ("curl", "--silent", "--fail", "--location", "--output", "/dev/null", url)
    start = time.monotonic()
    running = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(clients)]
    codes = [process.wait() for process in running]
    elapsed = time.monotonic() - start
    if any(codes):
        raise harness.Failed(f"{' '.join(command)} exited {max(codes)}")
    return elapsed


if __name__ == "__main__":
    harness.main(measure)
