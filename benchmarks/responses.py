"""How soon LLF answers while a person types: `llf models`, the form's completion, and `llf estimate` of 70 B.

    python -m benchmarks.responses [--times 9]

Nothing else may run on the machine. Each command is a process of its own, started with the file cache warm, and its
median counts; the processor's seconds beside it depend less on what else runs. The forecast in the form is
measured in a browser by `pytest -s tests/ui/test_fit_strip.py`. Prints a table; the exit code is 1 if a goal is missed
or torch was imported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
"""What the `config.json` of Llama 3.3 70B says of its sizes."""
GOALS = {"llf models qwen 7b": 0.2, "completion of a model's name": 0.05, "llf estimate of 70 B": 1.0}
"""Seconds."""
TYPED = ("q", "qw", "qwe", "qwen", "qwen 7", "qwen 7b", "llama", "gemma 3", "mistral", "7b")
WITHOUT_TORCH = """
import sys
from llf_core.cli import main
try:
    code = main()
except SystemExit as ended:
    code = ended.code
sys.exit(code or int("torch" in sys.modules))
"""
COMMAND = [sys.executable, "-c", WITHOUT_TORCH]
"""The command line; it fails if torch was imported."""


def main() -> int:
    """Measure all answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=9, help="so many times each (default: 9)")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory(prefix="llf-responses-") as folder:
        config = write_config(Path(folder))
        measured = {
            "llf models qwen 7b": median(lambda: command("models", "qwen", "7b"), times),
            "completion of a model's name": completion(times),
            "llf estimate of 70 B": median(lambda: command("estimate", str(config)), times),
        }
    for name, (seconds, processor) in measured.items():
        figures = f"{1000 * seconds:6.0f} ms, processor {1000 * processor:6.0f} ms, goal {1000 * GOALS[name]:5.0f} ms"
        sys.stdout.write(f"{name:32} {figures}\n")
    return int(any(seconds > GOALS[name] for name, (seconds, _) in measured.items()))


def write_config(folder: Path) -> Path:
    """Write a config that trains a model of 70 billion parameters, of which there is only `config.json`."""
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(SIZES))
    config = folder / "config.json"
    config.write_text(json.dumps({"model_name_or_path": str(model), "dataset": "llf_demo", "finetuning_type": "lora"}))
    return config


def command(*words: str) -> None:
    """Run a command of `llf` to its end."""
    subprocess.run([*COMMAND, *words], check=True, env=plain_environment(), stdout=subprocess.DEVNULL)


def median(run: Callable[[], object], times: int) -> tuple[float, float]:
    """Median seconds of a call by the clock and of the processor; the first call warms the caches and is left out."""
    run()
    clock, processor = zip(*(_seconds(run) for _ in range(times)), strict=True)
    return statistics.median(clock), statistics.median(processor)


def completion(times: int, typed: Sequence[str] = TYPED) -> tuple[float, float]:
    """The slowest median over what is typed, see `median`, of the form's suggestions of models."""
    from llf_widgets.forms.suggestions import complete_model

    return max(median(partial(complete_model, text), times) for text in typed)


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    before, started = os.times(), time.perf_counter()
    run()
    took, after = time.perf_counter() - started, os.times()
    return took, sum(after[:4]) - sum(before[:4])


if __name__ == "__main__":
    sys.exit(main())
