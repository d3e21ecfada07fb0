"""What a Monitor costs its kernel, and how quickly it opens: prints a table, writes `results/monitor.json`.

Targets: under 2 % of a core at ten records a second; 1,000,000 records open cold in under 2 s, figure included;
`import llf_widgets.monitor` and a first view in about a second.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "monitor.json"
RECORDS = 1_000_000
SECONDS = 30.0
REPEATS = 3


def big_run(home: Path, records: int) -> str:
    """A finished run with `records` lines of metrics; every 50,000th loss is NaN."""
    from llf_core.runs import RunWriter, create_run

    folder = create_run("model_name_or_path: m\n", "big", home)
    values = '{{"loss":{2},"learning_rate":3.1e-05,"grad_norm":{3:.3f},"tokens":{0}}}'
    line = '{{"step":{0},"time":{1:.1f},"attempt":1,"values":' + values + "}}\n"
    with folder.metrics.open("w") as file:
        for step in range(1, records + 1):
            loss = '"NaN"' if step % 50_000 == 0 else f"{1 + 1 / (1 + step / 1e4):.5f}"
            file.write(line.format(step, 1.7e9 + step, loss, 0.5 + step % 97 / 200))
    writer = RunWriter(folder)
    writer.status(step=records, total=records)
    writer.close("finished")
    return folder.id


def in_a_process(code: str, home: Path) -> dict[str, float]:
    """Runs code that prints one JSON object last, in a fresh interpreter."""
    env = os.environ | {"LLF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def open_cold(run_id: str, home: Path) -> dict[str, float]:
    """Imports, then opens a run, in a fresh process."""
    return in_a_process(
        "import json, time\n"
        "a = time.perf_counter()\nimport llf_widgets as llf\nllf.Monitor\nb = time.perf_counter()\n"
        f"cpu = time.process_time()\nview = llf.Monitor({run_id!r})\nc = time.perf_counter()\n"
        "cpu = time.process_time() - cpu\n"
        "points = view._view.charts['points']\n"
        "print(json.dumps({'import_s': b - a, 'open_s': c - b, 'open_cpu_s': cpu, 'points': points}))",
        home,
    )


def live_share(home: Path, before: int) -> dict[str, float]:
    """CPU share of a kernel process that follows a run of ten records a second, after `before` records."""
    writer = (
        "import sys, time\nfrom llf_core.runs import RunWriter, create_run\n"
        f"f = create_run('model_name_or_path: m\\n', 'live', {str(home)!r})\nw = RunWriter(f)\n"
        "w.start_heartbeat()\nw.status(state='running', total=100000)\n"
        "log = f.log.open('a')\n"
        "def record(step):\n"
        "    w.metric(step, {'loss': 1 + 1 / step, 'learning_rate': 1e-4, 'grad_norm': .6, 'tokens': step,\n"
        "                    'trained_tokens': step, 'tokens_per_second': 1000.0, 'memory': 1.6e9})\n"
        "    w.status(step=step)\n    log.write(f'step {step} loss 1.2\\n'); log.flush()\n"
        f"for step in range(1, {before} + 1): record(step)\n"
        "print(f.id, flush=True)\n"
        "while True:\n    step += 1\n    time.sleep(.1)\n    record(step)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        return in_a_process(
            "import json, time\nimport llf_widgets as llf\n"
            f"view = llf.Monitor({run_id!r})\ntime.sleep(3)\n"
            "cpu, wall, steps = time.process_time(), time.perf_counter(), view._view.head['step']\n"
            f"time.sleep({SECONDS})\n"
            "share = (time.process_time() - cpu) / (time.perf_counter() - wall)\n"
            "print(json.dumps({'share': share, 'steps': view._view.head['step'] - steps}))",
            home,
        )
    finally:
        process.kill()
        process.wait()


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    """The median of each column."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    """Measures, prints, writes."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        big, small = big_run(home, RECORDS), big_run(home, 141)
        result: dict[str, Any] = {
            "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.system()},
            "time": time.strftime("%Y-%m-%d"),
            "million": median([open_cold(big, home) for _ in range(REPEATS)]) | {"target_open_s": 2.0},
            "small": median([open_cold(small, home) for _ in range(REPEATS)]),
            "live_100": live_share(home, 100) | {"target_share": 0.02},
            "live_20000": live_share(home, 20_000) | {"target_share": 0.02},
        }
    for name in ("million", "small", "live_100", "live_20000"):
        print(f"{name:<12}", "  ".join(f"{key} {value:.3f}" for key, value in result[name].items()))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
