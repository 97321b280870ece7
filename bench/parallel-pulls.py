"""Peak resident memory of the agent while 32 models are pulled at once, and how long that takes."""

import concurrent.futures
import json
import os
import time

import harness

PULLS = 32
MODEL_MIB = int(os.environ.get("HAYLOFT_BENCH_PARALLEL_MIB", "256"))
LIMIT_MIB = 96
# Whatever the disk of this machine holds beside them, the models stay.
UNLIMITED = ("--high-watermark", "100", "--low-watermark", "100", "--min-free", "0")


def measure():
    with harness.work_folder() as folder:
        with (
            harness.hayloft("registry", folder / "registry", folder) as registry,
            harness.hayloft("agent", folder / "agent", folder, *UNLIMITED) as agent,
        ):
            names = [f"{registry.address}/bench/model-{number}:1" for number in range(PULLS)]
            for name in names:
                push(name, folder / "model.gguf")
            began = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(PULLS) as pool:
                list(pool.map(lambda name: pull(agent, name), names))
            took = time.perf_counter() - began
            peak = agent.peak_memory()
    harness.report(
        "parallel-pulls",
        f"peak of the agent, {PULLS} pulls of {MODEL_MIB} MiB",
        "MiB",
        [peak / harness.MIB],
        None,
        None,
        limit=LIMIT_MIB,
    )
    rate = PULLS * MODEL_MIB / took
    harness.report("parallel-pulls", "all of them together", "MiB/s", [rate], None, None)


def push(name, path):
    """A model that shares no chunk with the others."""
    columns = 4096
    rows = MODEL_MIB * harness.MIB // 4 // columns
    with open(path, "wb") as file:
        file.write(harness.gguf_header(rows, columns))
        for _ in range(MODEL_MIB):
            file.write(os.urandom(harness.MIB))
    harness.run(harness.HAYLOFT, "push", path, name)
    path.unlink()


def pull(agent, name):
    body = json.dumps({"reference": name})
    headers = {"content-type": "application/json"}
    client = harness.Client(agent)
    _, events = client.ask("POST", "/agent/v1/models/ensure", 200, body, headers)
    last = events.splitlines()[-1]
    if b'"event":"ready"' not in last:
        raise harness.Failed(f"{name}: {last[:300]!r}")


if __name__ == "__main__":
    harness.main(measure)
