"""Looking at 100,000 examples: how long each answer of the data's process takes, and how large it is.

    python -m benchmarks.inspect_view [--rows 100000]

The view in the page gets nothing but these answers, so their sizes bound what it has to draw. Writes
`results/inspect.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.prepare import write_rows
from benchmarks.processes import memory_peaks, our_environment

RESULTS = Path(__file__).parent / "results" / "inspect.json"
ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lengths", {}),
    ("notable", {"kind": "longest", "offset": 0, "limit": 50}),
    ("notable", {"kind": "doubled", "offset": 0, "limit": 50}),
    ("example", {"number": 99_999}),
    ("example", {"number": 50_000}),
    ("search", {"text": "photosynthesis", "start": 0, "limit": 50}),
    ("search", {"text": "no such words anywhere", "start": 0, "limit": 50}),
    ("rows", {"offset": 0, "limit": 20}),
)


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    from llf_core.models import resolve_model

    model = str(resolve_model("smollm2-135m-instruct").path)
    with tempfile.TemporaryDirectory(prefix="llf-inspect-") as scratch:
        work = Path(scratch)
        name = write_rows(work, asked.rows)
        config = {
            "model_name_or_path": model, "dataset": "rows", "dataset_dir": str(work),
            "cutoff_len": 512, "packing": True,
        }  # fmt: skip
        (work / "config.yaml").write_text(json.dumps(config))
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "llf_core.data.inspect", str(work / "config.yaml")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=our_environment(work / "home"),
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if "ready" in (said := json.loads(line)):
                    break
                if "error" in said:
                    raise SystemExit(said["error"])
            found = [{"ask": "open", "seconds": round(time.perf_counter() - began, 3), "bytes": len(line)}]
            for number, (ask, how) in enumerate(ASKED):
                request = {"id": number, "ask": ask, **how}
                if "number" in how:
                    request["number"] = min(how["number"], asked.rows - 1)
                began = time.perf_counter()
                child.stdin.write(json.dumps(request) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
                seconds = time.perf_counter() - began
                if "error" in (said := json.loads(line)):
                    raise SystemExit(said["error"])
                found.append({"ask": f"{ask} {how or ''}", "seconds": round(seconds, 4), "bytes": len(line)})
            peak = sum(memory_peaks(child.pid).values())
        finally:
            child.kill()
            child.wait()
    for one in found:
        print(f"{one['seconds']:9.3f} s {one['bytes']:>10,} bytes  {one['ask']}")
    print(f"peak memory {peak / 1e9:.2f} GB")
    stored = results.circumstances() | {"rows": asked.rows, "data": name, "answers": found, "peak_bytes": peak}
    asked.results.write_text(results.text_of(stored))


if __name__ == "__main__":
    main()
