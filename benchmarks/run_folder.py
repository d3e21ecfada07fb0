"""What the run folder costs: a logged step of a trainer, a cold open and a poll of a view, a list of runs.

Run with `python benchmarks/run_folder.py`; prints a table and writes `benchmarks/results/run_folder.json`.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "run_folder.json"
STEPS = 20_000
RECORDS = 1_000_000
RUNS = 1_000
COLD_OPEN = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
from llf_core.runs import RunFolder, RunReader, decimate
reader = RunReader(RunFolder(Path(sys.argv[1])))
columns = reader.metrics()
arrays = {name: (columns.steps(name), columns.values(name)) for name in columns.names}
opened = time.perf_counter()
curves = {name: decimate(*pair) for name, pair in arrays.items()}
drawn = time.perf_counter()
print(json.dumps({"open_s": opened - began, "decimate_s": drawn - opened, "names": len(arrays),
                  "records": len(columns), "most_points": max(len(x) for x, _ in curves.values())}))
"""


def values_of(step: int) -> dict[str, float]:
    """What the trainer logs in a step: eleven numbers."""
    return {
        "loss": float("nan") if step % 10_007 == 0 else 2.0 / (1 + step / 1000) + 0.01 * (step % 7),
        "learning_rate": 1e-4 * (1 - step / RECORDS),
        "grad_norm": 1.0 + (step % 13) / 10,
        "epoch": step / 1000,
        "tokens": step * 2048,
        "trained_tokens": step * 512,
        "tokens_per_second": 1234.5 + step % 100,
        "step_seconds": 0.1234,
        "memory": 1_234_567_890,
    }


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median, p99 and worst in milliseconds."""
    ordered = sorted(seconds)
    return {
        "median_ms": 1e3 * statistics.median(ordered),
        "p99_ms": 1e3 * ordered[int(0.99 * len(ordered))],
        "worst_ms": 1e3 * ordered[-1],
    }


def logged_step() -> dict[str, float]:
    """The writer's part of a logged step: metrics, status, a look at the requests; heartbeat beside it."""
    from llf_core.runs import Inbox, RunWriter, create_run

    folder = create_run("stage: sft\n", "benchmark")
    writer = RunWriter(folder, 1)
    writer.start_heartbeat(0.2)  # ten times as often as a trainer's
    inbox = Inbox(folder)
    took = []
    for step in range(1, STEPS + 1):
        values = values_of(step)
        began = time.perf_counter()
        inbox.scan()
        writer.metric(step, values)
        writer.status(step=step, step_seconds=0.1)
        took.append(time.perf_counter() - began)
        if step % 100 == 0:
            time.sleep(0.01)  # lets the heartbeat in, as a real step does
    writer.close("finished")
    return quantiles(took)


def cold_opens(folder_path: Path, times: int = 5) -> list[dict[str, float]]:
    """New processes open a run of a million records and thin every curve."""
    command = [sys.executable, "-c", COLD_OPEN, str(folder_path)]
    done = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(times)]
    return [json.loads(one.stdout) for one in done]


def write_long_run() -> Path:
    """A run folder with a million records."""
    from llf_core.runs import create_run
    from llf_core.runs.jsonl import encode

    folder = create_run("stage: sft\n", "long")
    with folder.metrics.open("wb") as file:
        for step in range(1, RECORDS + 1):
            file.write(encode({"step": step, "time": 1.7e9 + step, "attempt": 1, "values": values_of(step)}))
    return folder.path


def polling() -> dict[str, float]:
    """CPU share of a view that takes in ten new records a second of a long run, looking twice a second."""
    from llf_core.runs import RunReader, RunWriter, create_run, decimate

    folder = create_run("stage: sft\n", "poll")
    writer = RunWriter(folder, 1)
    for step in range(1, 100_001):
        writer.metric(step, values_of(step))
    reader = RunReader(folder)
    reader.metrics()
    spent = []
    for look in range(40):
        for step in range(100_001 + 5 * look, 100_006 + 5 * look):
            writer.metric(step, values_of(step))
        began = time.process_time()
        columns = reader.metrics()
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory"):
            decimate(columns.steps(name), columns.values(name))
        reader.status()
        spent.append(time.process_time() - began)
    per_second = 2 * float(np.mean(spent))
    return {"cpu_percent": 100 * per_second, "look_ms": 1e3 * float(np.mean(spent))}


def listing() -> dict[str, float]:
    """Lists a thousand runs: one page, and a search that must read them all."""
    from llf_core.runs import create_run, list_runs

    for number in range(RUNS):
        create_run("model_name_or_path: smollm2-135m-instruct\nstage: sft\n", f"run {number}")
    took = {}
    for name, query in (("page_ms", None), ("search_ms", "run 77")):
        began = time.perf_counter()
        list_runs(query=query)
        took[name] = 1e3 * (time.perf_counter() - began)
    return took


def main() -> None:
    """Measures, prints and writes."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["LLF_HOME"] = home
        results: dict[str, Any] = {
            "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": sys.version},
            "logged_step": logged_step(),
            "cold_open": cold_opens(write_long_run()),
            "polling": polling(),
            "listing": listing(),
        }
        results["peak_children_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    step, poll, runs = results["logged_step"], results["polling"], results["listing"]
    opens = [one["open_s"] for one in results["cold_open"]]
    print(f"{'what':52} {'measured':>12} {'target':>10}")
    print(f"{'logged step, p99 (metrics, status, control scan)':52} {step['p99_ms']:>9.3f} ms {'1 ms':>10}")
    print(f"{'logged step, median':52} {step['median_ms']:>9.3f} ms {'':>10}")
    cold = f"cold open of {RECORDS:,} records, new process"
    print(f"{cold:52} {statistics.median(opens):>10.2f} s {'2 s':>10}")
    print(f"{'most points of a thinned curve':52} {results['cold_open'][0]['most_points']:>12} {'2000':>10}")
    print(f"{'view at ten records a second, of one core':52} {poll['cpu_percent']:>10.2f} % {'2 %':>10}")
    print(f"{f'list of {RUNS:,} runs, one page':52} {runs['page_ms']:>9.1f} ms {'':>10}")
    print(f"{f'list of {RUNS:,} runs, search':52} {runs['search_ms']:>9.1f} ms {'':>10}")


if __name__ == "__main__":
    main()
