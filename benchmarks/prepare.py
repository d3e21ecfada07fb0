"""Preparing 100,000 rows of Alpaca's size: LLF beside LLaMA-Factory, two processes each, nothing kept from before.

    python -m benchmarks.prepare [--rows 100000] [--rounds 5]

Rows are those of `alpaca_en_demo` (else the shipped set), each with its number and an invented word in the question and
another in the answer: no two are equal, and words that nobody met keep coming, as they do in text that people write
(two in a hundred). Runs are interleaved.
Writes `results/prepare.json`: seconds of the preparation itself and of the whole process, peak memory of all its
processes, and `ratios`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import string
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.peers import FOLDER, LLAMA_FACTORY, peer_environment, versions
from benchmarks.processes import module, our_environment, plain_environment, run
from benchmarks.rows import source

RESULTS = Path(__file__).parent / "results" / "prepare.json"
WORKERS = 2


def write_rows(folder: Path, count: int) -> str:
    """Writes the rows and their `dataset_info.json`; returns the set's name."""
    name, rows = source()
    chance = random.Random(0)

    def invented() -> str:
        return "".join(chance.choices(string.ascii_lowercase, k=chance.randint(4, 10)))

    made = [
        row
        | {"instruction": f"{row['instruction']} ({number}, {invented()})", "output": f"{row['output']} {invented()}."}
        for number, row in zip(range(count), cycle(rows), strict=False)
    ]
    (folder / "rows.json").write_text(json.dumps(made))
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    return name


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-env", type=Path, default=FOLDER)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    peer_environment(asked.peer_env)
    from llf_core.models import resolve_model

    model = str(resolve_model("smollm2-135m-instruct").path)
    pythons = {"llf": None, "llamafactory": asked.peer_env / "bin" / "python"}
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="llf-prepare-") as scratch:
        work = Path(scratch)
        name = write_rows(work, asked.rows)
        settings = {
            "model_name_or_path": model, "dataset": "rows", "dataset_dir": str(work), "template": "chatml",
            "cutoff_len": 1024, "preprocessing_num_workers": WORKERS,
        }  # fmt: skip
        (work / "settings.json").write_text(json.dumps(settings))
        for number in range(asked.rounds):
            for who in sorted(pythons, reverse=number % 2 == 1):
                home = work / f"{who}-{number}"
                home.mkdir()
                environment = our_environment(home) if who == "llf" else plain_environment()
                environment.pop("TOKENIZERS_PARALLELISM")  # as a user has it: unset
                environment |= {"HF_HOME": str(home), "HF_DATASETS_CACHE": str(home / "datasets")}
                command = module("benchmarks.runners.prepare", who, work / "settings.json", work / "out.json")
                command[0] = str(pythons[who] or command[0])
                done = run(command, environment, work / "log.txt")
                found = json.loads((work / "out.json").read_text())
                shutil.rmtree(home)
                runs.append(
                    {"contender": who, "round": number, "wall_s": round(done.seconds, 2), "peak_bytes": done.peak_bytes}
                    | found
                )
                print(
                    f"  round {number + 1}  {who:14}{found['seconds']:8.1f} s  {done.peak_bytes / 1e9:5.2f} GB",
                    flush=True,
                )
    pairs = [
        [
            next(one for one in runs if one["contender"] == who and one["round"] == number)
            for who in ("llf", "llamafactory")
        ]
        for number in range(asked.rounds)
    ]
    ratios = {
        "prepare_vs_llamafactory": round(statistics.median(b["seconds"] / a["seconds"] for a, b in pairs), 3),
        "prepare_memory_vs_llamafactory": round(
            statistics.median(a["peak_bytes"] / b["peak_bytes"] for a, b in pairs), 3
        ),
    }
    stored = results.circumstances() | {
        "rows": asked.rows, "data": name, "workers": WORKERS,
        "versions": {"llf": versions(), "llamafactory": versions(pythons["llamafactory"])},
        "ratios": ratios, "runs": runs,
    }  # fmt: skip
    asked.results.write_text(results.text_of(stored))
    print(f"{LLAMA_FACTORY}: {ratios}")


if __name__ == "__main__":
    main()
