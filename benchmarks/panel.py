"""What a sidebar asks of the server with many runs, and a run with many records: times of the code behind the routes.

    python -m benchmarks.panel [--runs 10000] [--records 1000000]

Writes `results/panel.json`: seconds of the first page of all runs, of the same page once more with nothing changed (the
median of many), of a first search through all of them and of the next one, and of opening a run of many records.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import results

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "panel.json"
POLLS = 200
CONFIG = "model_name_or_path: org/model-{0}\ndataset: data-{1}\nstage: sft\nfinetuning_type: lora\n"


def make_runs(home: Path, count: int) -> None:
    """Run folders as trainers leave them, with the files that a list reads."""
    from llf_core.runs.status import first_status

    status = first_status(1764000000.0) | {"state": "finished", "step": 141, "total": 141, "step_seconds": 4.1}
    for number in range(count):
        folder = home / "runs" / f"20261124-{number // 3600:02d}{number // 60 % 60:02d}{number % 60:02d}-run-{number}"
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps(status))
        (folder / "config.yaml").write_text(CONFIG.format(number % 7, number % 11))
        (folder / "meta.json").write_text(json.dumps({"revision": 1, "name": f"run {number}", "tags": [], "note": ""}))
        write_records(folder / "metrics.jsonl", 60)


def write_records(path: Path, count: int) -> None:
    """Metrics of a run."""
    with path.open("w") as file:
        for step in range(1, count + 1):
            values = {"loss": 1 + 1 / step, "learning_rate": 1e-4, "grad_norm": 0.6, "tokens": 1000.0 * step}
            record = {"step": step, "time": 1764000000.0 + step, "attempt": 1, "values": values}
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def seconds(doing: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    doing()
    return time.perf_counter() - began


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    from llf_core.runs import RunFolder, RunReader
    from llf_core.runs.run_index import RunIndex
    from llf_widgets.server.runs import RunDetails

    with tempfile.TemporaryDirectory(prefix="llf-panel-") as scratch:
        home = Path(scratch)
        make_runs(home, asked.runs)
        index = RunIndex(home)
        long = RunFolder(home / "runs" / f"20261123-000000-{'long'}")
        long.path.mkdir()
        first = next(iter((home / "runs").glob("20261124-*")))
        for name in ("status.json", "config.yaml", "meta.json"):
            (long.path / name).write_bytes((first / name).read_bytes())
        write_records(long.metrics, asked.records)

        def page() -> str:
            return json.dumps(index.page().json())

        def search() -> str:
            return json.dumps(index.page(query="model-3 data-5").json())

        found = {
            "first_page_s": seconds(page),
            "poll_s": statistics.median(seconds(page) for _ in range(POLLS)),
            "first_search_s": seconds(search),
            "search_s": seconds(search),
            "read_long_run_s": seconds(lambda: RunReader(long).metrics()),
            "open_long_run_s": seconds(lambda: json.dumps(RunDetails(long).read())),
        }
    for name, value in found.items():
        print(f"{name:20} {1000 * value:10.2f} ms")
    stored = results.circumstances() | {"runs": asked.runs, "records": asked.records, "seconds": found}
    asked.results.write_text(results.text_of(stored))


if __name__ == "__main__":
    main()
