"""Who is compared: a settings file each, and how its training is started and read."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.processes import Done, module, our_environment, plain_environment, run
from benchmarks.ratios import MEASURES
from benchmarks.rows import MODEL

if TYPE_CHECKING:
    from llf_core.runs import RunFolder

HERE = Path(__file__).parent
SETTINGS = HERE / "contenders"
RUNNERS = {
    "llamafactory": "llama_factory",
    "trl-dpo": "trl_dpo",
    "trl": "trl_sft",
    "peft": "trainer",
    "trainer": "trainer",
    "unsloth": "unsloth_sft",
}

# The process, when its steps began, the steps (end, tokens, trained tokens, loss), the result, what else is known.
Trained = tuple[Done, float, list[Any], Path, dict[str, Any]]


@dataclass(frozen=True)
class Bench:
    """What all runs of a benchmark share.

    Attributes:
        work: a folder for everything that they write.
        facts: what `benchmarks.rows` wrote down about the rows and the model.
        peer_python: the interpreter that has LLaMA-Factory.
        threads: threads of the other trainers, whose processor time is then reported. None: their own default.
    """

    work: Path
    facts: dict[str, Any]
    peer_python: Path
    threads: int | None = None

    @property
    def rows(self) -> Path:
        """The folder of the rows."""
        return self.work / "rows"

    @property
    def home(self) -> Path:
        """`LLF_HOME` of LLF's own runs: its runs go there, the model is the one that is there already."""
        return self.work / "home"


def settings_file(name: str) -> Path:
    """The file that says what a contender is asked to do."""
    return SETTINGS / f"{name}.yaml"


def settings_hash(name: str) -> str:
    """SHA-256 of that file."""
    return hashlib.sha256(settings_file(name).read_bytes()).hexdigest()


def train(
    name: str,
    bench: Bench,
    changes: dict[str, Any] | None = None,
    data: str = "train",
    timeout: float | None = None,
) -> dict[str, Any]:
    """Trains a contender once.

    Args:
        changes: settings that are other ones this time; with `bf16` false a model is in float32. What is a dict belongs
            to a section of that name, beside the arguments.
        timeout: seconds after which it is ended; None for never.

    Returns:
        `steps` (`[seconds, tokens, trained_tokens, loss]` each), `first_step_s` from the start of the process,
        `wall_s`, `peak_bytes`, `output` (the folder of the result); on a CUDA card `peak_cuda_bytes`; of pairs
        `measures` (the `MEASURES` of each step) and, where a reference was asked before the first step,
        `reference_s`. Of LLF on a card also `forecast_bytes`, and `checkpointing` and `halved` where it computed
        activations again, and where memory ran out in a step.
    """
    settings = yaml.safe_load(settings_file(name).read_text())
    of_arguments = settings.get("arguments", settings)
    for key, value in (changes or {}).items():
        if isinstance(value, dict):
            settings[key] = settings.get(key, {}) | value
        else:
            of_arguments[key] = value
    if "model" in settings and not of_arguments["bf16"]:
        settings["model"]["dtype"] = "float32"
    began = _train_llf if name.startswith("llf") else _train_other
    done, started, steps, output, more = began(name, settings, bench, data, timeout)
    ends = [started, *(step[0] for step in steps)]
    return {
        "first_step_s": round(ends[1] - done.began, 3),
        "wall_s": round(done.seconds, 2),
        "peak_bytes": done.peak_bytes,
        "steps": [
            [round(step[0] - before, 4), *step[1:3], round(step[3], 5)]
            for before, step in zip(ends, steps, strict=False)
        ],
        "output": str(output),
        **{key: value for key, value in more.items() if value},
    }


def _train_llf(name: str, settings: dict[str, Any], bench: Bench, data: str, timeout: float | None) -> Trained:
    """By the trainer that `llf train` starts, without the supervisor: its own module in its own environment."""
    from llf_core.config import RunConfig
    from llf_core.launch.local_process import trainer_command
    from llf_core.runs import RunReader, create_run, read_status

    asked = {"model_name_or_path": MODEL, "dataset": data, "dataset_dir": str(bench.rows)} | settings
    if "adapter" in bench.facts:
        asked["adapter_name_or_path"] = bench.facts["adapter"]
    # What a reference has said once, an earlier run's too, is not asked again.
    shutil.rmtree(bench.home / "cache" / "reference", ignore_errors=True)
    folder = create_run(RunConfig.load(asked).yaml(defaults=True), name, bench.home)
    done = run(trainer_command(folder), our_environment(bench.home), folder.log, timeout)
    events = list(RunReader(folder).events())
    (started,) = [event["time"] for event in events if event.get("state") == "running"]
    steps, measures = read_steps(folder)
    device = read_status(folder).device
    asking = re.search(r"Asked the reference about [\d,]+ examples in ([\d.]+) s", folder.log.read_text())
    more = {
        "measures": measures,
        "reference_s": float(asking[1]) if asking else 0,
    }
    if device == "cuda":
        warned = {event.get("key") for event in events if event["type"] == "warning"}
        forecast = [event for event in events if event["type"] == "memory"]
        more |= {
            "peak_cuda_bytes": max(int(values.get("memory", 0)) for _, values in metrics(folder)),
            "forecast_bytes": forecast[-1]["forecast"] if forecast else 0,
            "checkpointing": bool(forecast and forecast[-1]["gradient_checkpointing"]),
            "halved": "per_device_train_batch_size" in warned,
        }
    return done, started, steps, folder.output, more


def metrics(folder: RunFolder) -> list[tuple[float, dict[str, Any]]]:
    """Time and values of each line of a run's metrics."""
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [(record["time"], record["values"]) for record in records]


def read_steps(folder: RunFolder) -> tuple[list[list[float]], list[list[float]]]:
    """The steps of a run of LLF that logs each one: end, tokens, trained tokens, loss; of pairs the `MEASURES` too."""
    steps, measures, before = [], [], (0, 0)
    for time, values in metrics(folder):
        if "loss" not in values:
            continue
        seen = int(values["tokens"]), int(values["trained_tokens"])
        steps.append([time, seen[0] - before[0], seen[1] - before[1], float(values["loss"])])
        before = seen
        if MEASURES[0] in values:
            measures.append([round(float(values[name]), 5) for name in MEASURES])
    return steps, measures


def _train_other(name: str, settings: dict[str, Any], bench: Bench, data: str, timeout: float | None) -> Trained:
    """By the contender's own trainer, in its own environment, with a recorder among its callbacks."""
    kind = name.partition("-")[0]
    output = bench.work / "out" / name
    shutil.rmtree(output, ignore_errors=True)  # LLaMA-Factory trips over the result of another method
    output.mkdir(parents=True)
    file, record, log = (bench.work / f"{name}.{ending}" for ending in ("yaml", "json", "log"))
    if kind == "llamafactory":
        settings |= {"model_name_or_path": bench.facts["model"], "dataset": data, "dataset_dir": str(bench.rows)}
        settings |= {"output_dir": str(output), "overwrite_output_dir": True}
        if "adapter" in bench.facts:
            settings["adapter_name_or_path"] = bench.facts["adapter"]
    else:
        settings |= {"folder": bench.facts["model"], "rows": str(bench.rows / f"{data}.jsonl"), "output": str(output)}
        settings |= {"adapter": bench.facts.get("adapter")}
    file.write_text(yaml.safe_dump(settings))
    record.unlink(missing_ok=True)
    of_peer = kind == "llamafactory" or bool({"galore", "badam"} & settings.keys())  # their packages are there
    python = bench.peer_python if of_peer else Path(sys.executable)
    runner = next(runner for start, runner in RUNNERS.items() if name.startswith(start))
    environment = plain_environment() | ({"OMP_NUM_THREADS": str(bench.threads)} if bench.threads else {})
    done = run(module(f"benchmarks.runners.{runner}", file, record, python=python), environment, log, timeout)
    found = json.loads(record.read_text())
    cpu = ("cpu",) if bench.threads else ()
    more = {key: found.get(key) for key in ("measures", "reference_s", "peak_cuda_bytes", *cpu)}
    return done, found["began"], found["steps"], output, more
