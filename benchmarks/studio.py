"""Time until the form stands: `import llf_widgets` and `Studio()` in a fresh interpreter, and the time of one edit.

`mistake` is the kernel's part of the time from a wrong value to the sentence beside its field, for the slowest of five
mistakes (goal, with the page's part: 0.3 s). `complete` is the kernel's part of one completion of a model's name,
over all names.

python benchmarks/studio.py [--runs 7]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMIT_SECONDS = 1.5
HEAVY = ("torch", "transformers", "datasets", "pandas", "plotly")
MISTAKES = {
    "model_name_or_path": "smollm2-135m-instrct", "dataset": "llf_dmo", "lora_target": "q_prj,v_proj",
    "learning_rate": "50", "cutoff_len": "4",
}  # fmt: skip
CODE = f"""
import json, sys, time
began, started = time.perf_counter(), time.process_time()
import llf_widgets as llf
llf.Studio
imported = time.perf_counter()
studio = llf.Studio()
opened, cpu = time.perf_counter(), time.process_time() - started
for rank in range(1, 51):
    studio.set(lora_rank=rank)
edited = time.perf_counter()
mistakes = []
for key, value in {MISTAKES!r}.items():
    before, begun = studio.state.value(key), time.perf_counter()
    studio.set(**{{key: value}})
    mistakes.append(time.perf_counter() - begun)
    assert any(one.fixes for one in studio.state.problems(key)), key
    studio.set(**{{key: before}})
from llf_widgets.forms.suggestions import complete_model
texts = ("q", "qwen", "qwen 7b", "llama 3 8b instruct", "no such model")
complete_model("")
begun = time.perf_counter()
for text in texts * 10:
    complete_model(text)
completed = time.perf_counter()
print(json.dumps({{
    "import": imported - began, "studio": opened - imported, "together": opened - began, "processor": cpu,
    "edit": (edited - opened) / 50, "mistake": max(mistakes), "complete": (completed - begun) / (10 * len(texts)),
    "heavy": [name for name in {HEAVY!r} if name in sys.modules],
}}))
"""


def measure() -> dict[str, Any]:
    """One fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    cold, *warm = [measure() for _ in range(runs + 1)]
    rows = {}
    for name in ("import", "studio", "together", "processor", "edit", "mistake", "complete"):
        values = [float(one[name]) for one in warm]
        rows[name] = {"median": statistics.median(values), "slowest": max(values), "first": cold[name]}
    print(f"{'seconds':10} {'median':>8} {'slowest':>8} {'first':>8}")
    for name, row in rows.items():
        print(f"{name:10} {row['median']:8.4f} {row['slowest']:8.4f} {row['first']:8.4f}")
    heavy = sorted({module for one in (cold, *warm) for module in one["heavy"]})
    print(f"large libraries imported: {', '.join(heavy) or 'none'}; limit {LIMIT_SECONDS} s together")
    result = {
        "seconds": rows,
        "heavy": heavy,
        "limit": LIMIT_SECONDS,
        "runs": runs,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "studio.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
