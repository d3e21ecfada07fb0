"""LLF beside its peers on one CUDA card, within so many minutes: `python -m benchmarks.gpu --minutes 8`.

    python -m benchmarks.gpu --list                     what is measured, the most valuable first
    python -m benchmarks.gpu --only sft-7b              only the cells whose names begin so
    python -m benchmarks.gpu --add results/gpu.json     goes on with what was measured of the same code on the same card
    python -m benchmarks.gpu --rehearse                 one cell of each kind on the CPU, with the smallest models

Every run is a process of its own with a limit of time; contenders take turns, and their order rotates with the rounds.
`results/gpu.json` is written anew after each run, and `gpu.md` beside it has the tables: a kill loses the run under way
and nothing else. Models have random weights; Liger's kernels, Unsloth and LLaMA-Factory (in its own environment, see
`peers.py`) take part where they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import gpu_cells, report_gpu, results
from benchmarks.contender import Bench, train
from benchmarks.gpu_cells import CELLS, FILES, NEW_TOKENS, SECONDS, SHAPES, STEPS, TINY, Cell, Place
from benchmarks.models import random_model
from benchmarks.peers import FOLDER, versions
from benchmarks.processes import module, our_environment, plain_environment, run

RESULTS = results.ROOT / "results" / "gpu.json"
SAME = ("commit", "changed_files", "card", "versions", "rehearsal")
LONGEST, LONGEST_REHEARSAL = 150.0, 900.0  # seconds of one run
ROUNDS = 5
DISK = {"7b": 20e9}  # what its weights and a spare need


class Bounds:
    """How long it may take.

    Args:
        longest: seconds that one process may take.
    """

    def __init__(self, minutes: float, longest: float) -> None:
        self.end, self.longest = time.monotonic() + 60 * minutes, longest

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    @property
    def timeout(self) -> float:
        """What one process gets."""
        return max(1.0, min(self.longest, self.left))


class Benchmark:
    """What is measured, and what came of it."""

    def __init__(self, asked: argparse.Namespace, *, card: bool) -> None:
        self.asked, self.card, self.work = asked, card, Path(asked.work)
        self.device = "cuda" if card else "cpu"
        self.bounds = Bounds(asked.minutes, LONGEST if card else LONGEST_REHEARSAL)
        self.steps = STEPS if card else 4
        self.seen: dict[tuple[str, str], float] = {}
        self.broken: dict[str, str] = {}
        self.result: dict[str, Any] = results.circumstances() | {
            "format": 2, "rehearsal": not card, "versions": versions(), "absent": gpu_cells.absent(card=card),
            "cells": {}, "runs": [], "not_run": [],
        }  # fmt: skip
        self.result["commit"] = self.result["commit"] or os.environ.get("LLF_KIT_COMMIT", "")

    def store(self) -> None:
        """Writes what there is, whole or not at all."""
        file: Path = self.asked.results
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (file, results.text_of(self.result)),
            (file.with_suffix(".md"), report_gpu.text(self.result)),
        ):
            new = path.with_name(f".{path.name}")
            new.write_text(text)
            new.replace(path)

    def measure_peak(self) -> None:
        """The card, and how fast its bare products are."""
        out = self.work / "peak.json"
        command = module("benchmarks.runners.peak", self.device, out)
        run(command, plain_environment(), self.work / "peak.log", self.bounds.timeout)
        self.result |= json.loads(out.read_text())
        print(f"{self.result['card']['name']}: bfloat16 products at {self.result['tflops']:.1f} TFLOP/s", flush=True)

    def go_on(self, file: Path) -> None:
        """Takes over what was measured before."""
        before = json.loads(file.read_text())
        if other := [key for key in SAME if before.get(key) != self.result.get(key)]:
            raise SystemExit(f"{file} was measured of another {' and '.join(other)}: leave --add out.")
        self.result |= {"cells": before["cells"], "runs": before["runs"]}

    def model(self, size: str) -> Path:
        """A model of random numbers, made where it is not there yet."""
        folder = self.work / "models" / (size if self.card else "tiny")
        if not folder.exists():
            if shutil.disk_usage(self.work).free < DISK.get(size, 0):
                raise RuntimeError(f"There is no room for the weights of {size} in {self.work}.")
            shape = SHAPES[size] if self.card else TINY
            random_model(folder, self.asked.model, shape, self.device, self.bounds.timeout)
        return folder

    def rows(self, cell: Cell, model: Path) -> Path:
        """The cell's examples; those of another size are as good."""
        words = (cell.kind, cell.length, cell.tokens, self.steps, int(cell.packed))
        folder = self.work / "rows" / "-".join(map(str, words))
        if not (folder / "facts.json").exists():
            folder.parent.mkdir(exist_ok=True)
            command = module("benchmarks.gpu_rows", folder, model, *words)
            run(command, our_environment(self.work / "home"), folder.with_suffix(".log"), self.bounds.timeout)
        return folder

    def once(self, cell: Cell, contender: str) -> dict[str, Any]:
        """One run of a contender in a cell."""
        model = self.model(cell.size)
        described = asdict(cell) | {"shape": SHAPES[cell.size] if self.card else TINY}
        if cell.kind == "decode":
            self.result["cells"].setdefault(cell.name, described)
            out, ours = self.work / "decode.json", contender == "llf"
            words = (contender, model, cell.length, NEW_TOKENS if self.card else 8, self.device, out)
            environment = our_environment(self.work / "home") if ours else plain_environment()
            command = module("benchmarks.runners.decode_speed", *words)
            done = run(command, environment, self.work / "decode.log", self.bounds.timeout)
            return {"wall_s": round(done.seconds, 2), "peak_bytes": done.peak_bytes} | json.loads(out.read_text())
        folder = self.rows(cell, model)
        facts = json.loads((folder / "facts.json").read_text())
        self.result["cells"].setdefault(cell.name, described | {"rows": facts | {"model": None}})
        changed = gpu_cells.changes(contender, cell, Place(model, facts, self.card, self.steps))
        link = self.work / "here" / "rows"  # where contenders look for rows
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        (link.parent / "home").mkdir(exist_ok=True)
        bench = Bench(link.parent, {"model": str(model)}, FOLDER / "bin" / "python")
        found = train(FILES[contender][0], bench, changed, timeout=self.bounds.timeout)
        shutil.rmtree(found.pop("output"), ignore_errors=True)  # a disk holds few of them
        shutil.rmtree(link.parent / "home" / "runs", ignore_errors=True)
        return found

    def expected(self, cell: Cell, contender: str) -> float:
        """Seconds that a run may take, from those that were seen."""
        alike = [seconds for (size, _), seconds in self.seen.items() if size == cell.size]
        usual = max(alike, default=SECONDS[cell.size] if self.card else 8)
        known = self.seen.get((cell.size, contender), usual)
        ready = (self.work / "models" / cell.size).exists() or not self.card
        return known + (0 if ready else gpu_cells.MODEL_SECONDS[cell.size])

    def turn(self, cell: Cell, number: int) -> None:
        """One round of a cell; what does not fit in the time that is left is noted."""
        names = [name for name in gpu_cells.contenders(cell) if name not in self.result["absent"]]
        before = {(one["cell"], one["contender"], one["round"]) for one in self.result["runs"]}
        failed = {(one["cell"], one["contender"]) for one in self.result["runs"] if "error" in one}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if (cell.name, name, number) in before or (cell.name, name) in failed:
                continue
            if self.bounds.left < self.expected(cell, name):
                self.result["not_run"].append([cell.name, name, number])
                continue
            start = time.monotonic()
            found: dict[str, Any] = {"contender": name, "cell": cell.name, "round": number}
            try:
                found |= self.once(cell, name)
                self.seen[cell.size, name] = max(time.monotonic() - start, self.seen.get((cell.size, name), 0))
                told = f"{report_gpu.speed(asdict(cell), found):10,.0f} tokens/s  {report_gpu.gigabytes([found])} GB"
            except TimeoutError as error:
                if self.bounds.left <= 0:  # it was not slow, but late
                    self.result["not_run"].append([cell.name, name, number])
                    continue
                found |= {"error": str(error), "wall_s": round(time.monotonic() - start, 1)}
                told = str(error)
            except Exception as error:  # noqa: BLE001 - a contender that fails keeps nobody from the next
                found |= {"error": reason(error), "wall_s": round(time.monotonic() - start, 1)}
                told = found["error"].splitlines()[-1][:100]
            self.result["runs"].append(found)
            self.store()
            print(f"  {cell.name:34}round {number + 1}  {name:12}{told}", flush=True)

    def all(self, cells: list[Cell]) -> None:
        """Everything that there is time for."""
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "home").mkdir(exist_ok=True)
        self.measure_peak()
        if self.asked.add:
            self.go_on(self.asked.add)
        self.store()
        for cell, number in gpu_cells.schedule(cells, self.asked.rounds):
            self.turn(cell, number)
        self.store()


def reason(error: Exception) -> str:
    """The end of what went wrong, where the reason stands."""
    text = str(error).strip() or repr(error)
    if "out of memory" in text.lower():
        return "out of memory"
    return text[-1500:]


def main() -> None:
    """Measures until the rounds or the minutes are over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, help=f"at most; else {ROUNDS}, in a rehearsal 1")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--model", type=Path, help="a folder with the tokenizer; else the embedded model's")
    parser.add_argument("--work", type=Path, help="a folder for models and rows, which are kept there")
    parser.add_argument("--only", default="", help="beginnings of the cells' names, separated by commas")
    parser.add_argument("--add", type=Path, help="results of the same code and card, to which this adds")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with the smallest models")
    parser.add_argument("--list", action="store_true", help="say what is measured, and end")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.rehearse else ROUNDS)
    cells = [cell for cell in CELLS if cell.name.startswith(tuple(asked.only.split(",")))]
    cells = gpu_cells.rehearsal(cells) if asked.rehearse else cells
    if asked.list:
        for cell, _ in gpu_cells.schedule(cells, 1):
            print(f"{cell.name:34}{', '.join(gpu_cells.contenders(cell))}")
        return
    import torch

    if not (torch.cuda.is_available() or asked.rehearse):
        raise SystemExit(
            "There is no CUDA card here, and benchmarks.gpu measures on one: run make bench for the CPU, or "
            "python -m benchmarks.gpu --rehearse to see whether all of this runs."
        )
    if asked.model is None:
        from llf_core.models import resolve_model
        from llf_core.models.embedded_model import EMBEDDED

        asked.model = resolve_model(EMBEDDED).path
    with tempfile.TemporaryDirectory(prefix="llf-bench-") as scratch:
        asked.work = asked.work or Path(scratch)
        benchmark = Benchmark(asked, card=not asked.rehearse)
        benchmark.all(cells)
    print(report_gpu.text(benchmark.result))


if __name__ == "__main__":
    main()
