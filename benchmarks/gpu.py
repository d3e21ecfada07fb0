"""The same comparison on one CUDA card, in one call of under ten minutes: `python -m benchmarks.gpu`.

The contenders' settings and runners are those of `benchmarks.sft`, less `use_cpu`; Liger's kernels (TRL with
`use_liger_kernel`), Unsloth and LLaMA-Factory (in its own environment, see `peers.py`) take part where they are
installed. Writes `results/gpu.json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.contender import Bench, train
from benchmarks.peers import FOLDER, versions
from benchmarks.processes import module, plain_environment, run
from benchmarks.ratios import tokens_per_second

RESULTS = results.RESULTS.with_name("gpu.json")
LIMIT_SECONDS = 540.0
# A name of a settings file, what is changed in it, and the package without which it is left out.
CONTENDERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llf": ("llf", {}, "llf_core"),
    "llf-packed": ("llf-packed", {}, "llf_core"),
    "peft": ("peft", {"use_cpu": False}, "peft"),
    "trl": ("trl", {"use_cpu": False}, "trl"),
    "trl-liger": ("trl", {"use_cpu": False, "use_liger_kernel": True}, "liger_kernel"),
    "unsloth": ("unsloth", {}, "unsloth"),
    "llamafactory-default": ("llamafactory-default", {"use_cpu": False}, "llamafactory"),
    "llamafactory-best": ("llamafactory-best", {"use_cpu": False}, "llamafactory"),
}


def here(package: str) -> bool:
    """Whether a contender can run: its package is installed, LLaMA-Factory's in the environment of its own."""
    if package == "llamafactory":
        return (FOLDER / ".complete").exists()
    return importlib.util.find_spec(package) is not None


def main() -> None:
    """Measures in turns until the rounds or the minutes are over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA card here, and benchmarks.gpu measures on one: run make bench for the CPU.")
    start, runs = time.monotonic(), []
    names = [name for name, (_, _, package) in CONTENDERS.items() if here(package)]
    with tempfile.TemporaryDirectory(prefix="llf-bench-") as scratch:
        work = Path(scratch)
        run(module("benchmarks.rows", work / "rows", asked.rows), plain_environment(), work / "rows.log")
        facts = json.loads((work / "rows" / "facts.json").read_text())
        (work / "home").mkdir()
        (work / "home" / "models").symlink_to(Path(facts["model"]).parent)
        bench, longest = Bench(work, facts, FOLDER / "bin" / "python"), 0.0
        for number in range(asked.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                if time.monotonic() - start + longest > LIMIT_SECONDS:
                    break
                file, changes, _ = CONTENDERS[name]
                found = {"contender": name, "round": number} | train(file, bench, changes)
                found.pop("output")
                longest = max(longest, found["wall_s"])
                runs.append(found)
                print(
                    f"  round {number + 1}  {name:12}{tokens_per_second(found):9.0f} tokens/s  "
                    f"{found['peak_cuda_bytes'] / 1e9:5.2f} GB of the card",
                    flush=True,
                )
    made = results.circumstances() | {
        "card": torch.cuda.get_device_name(), "versions": versions(), "rows": facts | {"model": None}, "runs": runs,
    }  # fmt: skip
    asked.results.write_text(results.text_of(made))


if __name__ == "__main__":
    main()
