"""Speed and memory of this machine's past runs, which correct forecasts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.name_checks.data_sets import INFO_FILE, locate
from llf_core.estimate.example_lengths import ExampleLengths
from llf_core.runs import home
from llf_core.runs.files import json_bytes, locked, replace_file
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from llf_core.config import RunConfig

FORMAT = 2
"""Format of the table and of its forecasts' arithmetic. Others count as empty."""
MOST_RUNS = 200
MAX_BYTES = 4_000_000
MOST, LATEST = 1e15, 1e11
"""Largest plausible number of a run, and latest time in Unix seconds (year 5138)."""
LARGEST_RATIO = 100.0
"""Measurements that differ from their forecast by a larger factor are ignored."""


@dataclass(frozen=True)
class PastRun:
    """Speed and memory of a run on this machine.

    Attributes:
        method: `finetuning_type`, the quantization if there was one, and `optim`.
        uncorrected_seconds: forecast of a step's seconds without this table, of its true number of tokens.
        seconds: mean seconds of a step, without pauses.
        uncorrected_memory: forecast of the peak memory without this table, bytes; 0 if unknown.
        memory: measured peak, bytes; 0 if unknown.
        data: key of the data set as it was read, see `data_key`.
        quantiles: lengths of the examples before truncation, ascending, tokens.
        measured: whether it was a measurement of a few steps, not a whole run.
    """

    time: float
    device: str
    method: str
    stage: str
    parameters: int
    tokens: float
    checkpointing: bool
    uncorrected_seconds: float
    seconds: float
    uncorrected_memory: int = 0
    memory: int = 0
    data: str = ""
    examples: int = 0
    quantiles: tuple[int, ...] = ()
    measured: bool = False
    patches: int = 0

    @property
    def time_ratio(self) -> float:
        """Measured seconds divided by forecast seconds."""
        return self.seconds / self.uncorrected_seconds


@dataclass(frozen=True)
class Correction:
    """Factor by which a forecast is multiplied.

    Attributes:
        spread: factor of uncertainty: the truth is expected between the forecast divided by it and times it.
        runs: number of runs it is from.
    """

    factor: float
    spread: float
    runs: int


def table_file() -> Path:
    """`LLF_HOME/past_runs.json`."""
    return home() / "past_runs.json"


def past_runs() -> tuple[PastRun, ...]:
    """Read the runs in `LLF_HOME/past_runs.json`, oldest first.

    A file that is missing, too large, not regular, not JSON or of another `FORMAT` counts as empty. Damaged runs in it
    are left out.
    """
    path = table_file()
    try:
        stat = path.stat()
    except OSError:
        return ()
    return _read(path, stat.st_mtime_ns, stat.st_size)


def add_past_run(run: PastRun) -> None:
    """Add a run to the table, which is replaced as a whole under a lock."""
    path = table_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(".past_runs.lock")):
        kept = [*past_runs(), run][-MOST_RUNS:]
        replace_file(path, json_bytes({"format": FORMAT, "runs": [dataclasses.asdict(one) for one in kept]}))


@functools.lru_cache(maxsize=4)
def _read(path: Path, _changed: int, _size: int) -> tuple[PastRun, ...]:
    """Cached until the file changes."""
    value = read_object_or_empty(path, MAX_BYTES)
    runs = value.get("runs") if value.get("format") == FORMAT else None
    found = [_run(one) for one in runs if isinstance(one, dict)] if isinstance(runs, list) else []
    return tuple(one for one in found if one is not None)[-MOST_RUNS:]


_TYPES: dict[str, type | tuple[type, ...]] = {
    "time": (int, float), "device": str, "method": str, "stage": str, "parameters": int, "tokens": (int, float),
    "checkpointing": bool, "uncorrected_seconds": (int, float), "seconds": (int, float), "uncorrected_memory": int,
    "memory": int, "data": str, "examples": int, "quantiles": list, "measured": bool, "patches": int,
}  # fmt: skip


def _run(value: dict[str, Any]) -> PastRun | None:
    """An entry of the file; None if a field is missing, of another type or implausible."""
    value = {"patches": 0} | value  # runs of text before it was kept
    if set(value) != set(_TYPES) or any(not isinstance(value[name], kind) for name, kind in _TYPES.items()):
        return None
    numbers = (value["parameters"], value["tokens"], value["uncorrected_seconds"], value["seconds"])
    if not all(0 < number <= MOST for number in numbers):
        return None
    others = (value[name] for name in ("uncorrected_memory", "memory", "examples", "patches"))
    if not all(0 <= number <= MOST for number in others) or not 0 <= value["time"] <= LATEST:
        return None
    quantiles = value["quantiles"]
    if not all(isinstance(one, int) and 0 < one < 1 << 40 for one in quantiles):
        return None
    return PastRun(**{**value, "quantiles": tuple(sorted(quantiles))})


def distance(run: PastRun, like: PastRun) -> float | None:
    """Distance of the settings of a past run from those of another one; None on another device.

    0 for the same settings; 1 for another method, 0.7 for another stage, 0.5 for twice the parameters, 0.4 for twice
    the tokens of a step and for other checkpointing, added up. The weights are chosen by hand.
    """
    if run.device != like.device:
        return None
    apart = abs(math.log2(run.parameters / like.parameters)) * 0.5 + abs(math.log2(run.tokens / like.tokens)) * 0.4
    apart += 1.0 * (run.method != like.method) + 0.7 * (run.stage != like.stage)
    return apart + 0.4 * (run.checkpointing != like.checkpointing)


NEAR, FIRST_SPREAD, LEAST_SPREAD = 0.25, 1.8, 1.1
"""Distance below which runs count as the same; spreads with no run, and with the same run. Chosen by hand."""


def correct_seconds(like: PastRun, runs: tuple[PastRun, ...] | None = None) -> Correction:
    """Factor on a step's computed seconds, by the past runs that are most like it.

    The geometric mean of measured over computed seconds, weighted by `exp(-3 distance)` and by a half for each newer
    run within `NEAR`, since a machine changes; both are chosen by hand. Runs before a measurement within `NEAR` do not
    count. The spread is `LEAST_SPREAD` within a distance of `NEAR`, and grows to `FIRST_SPREAD` at 2 beyond it. Kernel
    regression (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, equation 6.2) of the
    logarithm of the ratio; distance and kernel are LLF's own.
    """
    weighted: list[tuple[float, float, float]] = []
    age = 0
    for run in reversed(past_runs() if runs is None else runs):
        apart = distance(run, like)
        if apart is None or not 1 / LARGEST_RATIO < run.time_ratio < LARGEST_RATIO:
            continue
        weight = math.exp(-3 * apart) * 0.5**age
        age += apart < NEAR
        weighted.append((weight, apart, math.log(run.time_ratio)))
        if run.measured and apart < NEAR:
            break
    if not weighted:
        return Correction(1.0, FIRST_SPREAD, 0)
    total = sum(weight for weight, _, _ in weighted)
    factor = math.exp(sum(weight * ratio for weight, _, ratio in weighted) / total)
    nearest = min(apart for _, apart, _ in weighted)
    growth = (FIRST_SPREAD - LEAST_SPREAD) * min(1.0, max(0.0, nearest - NEAR) / 2)
    return Correction(factor, LEAST_SPREAD + growth, len(weighted))


def correct_memory(like: PastRun, runs: tuple[PastRun, ...] | None = None) -> Correction:
    """Measured over forecast peak memory of the newest past run within a distance of `NEAR`; 1 if there is none.

    A measurement of a few steps is a lower bound, so it never lowers a forecast.
    """
    for run in reversed(past_runs() if runs is None else runs):
        apart = distance(run, like)
        ratio = run.memory / run.uncorrected_memory if run.uncorrected_memory else 0.0
        if apart is not None and apart < NEAR and 1 / LARGEST_RATIO < ratio < LARGEST_RATIO:
            return Correction(max(1.0, ratio) if run.measured else ratio, LEAST_SPREAD, 1)
    return Correction(1.0, FIRST_SPREAD, 0)


def data_key(config: RunConfig) -> str:
    """Key of a config's training examples before truncation: its files, and all settings by which they are read.

    Files count by size and time of change, also those of a folder; a data set of a hub by its name alone.
    """
    data = config.data.model_dump(mode="json")
    for name in ("dataset", "cutoff_len", "packing", "eval_dataset", "preprocessing_num_workers", "overwrite_cache"):
        data.pop(name, None)
    data["dataset_dir"] = str(Path(config.data.dataset_dir).absolute())
    folder = Path(config.data.dataset_dir)
    named = read_object_or_empty(folder / INFO_FILE)
    files: list[object] = []
    for name in config.data.dataset or ():
        entry = named.get(name)
        file = entry.get("file_name") if isinstance(entry, dict) else None
        place = folder / file if isinstance(file, str) else locate(name, folder, named).path
        files.append([name, entry, [] if place is None else _state(place)])
    told = [data, files, config.model.model_name_or_path, config.stage.stage]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _state(place: Path) -> list[list[str | int]]:
    """Name, size and time of change of a file, or of each file of a folder, if there."""
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        stats = [(str(file.absolute()), file.stat()) for file in files]
    except (OSError, ValueError):
        return []
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def known_lengths(config: RunConfig, runs: tuple[PastRun, ...] | None = None) -> ExampleLengths | None:
    """Lengths of a config's examples as the last run with the same data counted them; None before the first one."""
    key = data_key(config)
    for run in reversed(past_runs() if runs is None else runs):
        if run.data == key and run.quantiles and run.examples:
            told = time.strftime("%Y-%m-%d", time.localtime(run.time))
            basis = f"Lengths of the examples as a run of {told} counted them."
            return ExampleLengths(np.array(run.quantiles), run.examples, basis, exact=True, patches=run.patches)
    return None
