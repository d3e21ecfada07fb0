"""Start to first logged loss: `llf train` against `llamafactory-cli train`, same model, rows and settings.

    python benchmarks/startup.py [--pairs 5] [--peer-env FOLDER]
    python benchmarks/startup.py --before CHECKOUT [--pairs 12]

LLaMA-Factory is installed in an environment of its own (`--peer-env`, made on first use; see `peers.py`). With
`--before` the other side is `llf` of an older checkout of this project, in this environment; that figure is printed
and kept nowhere. Runs are interleaved; the first pair warms the file cache and is left out.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peers import FOLDER, LLAMA_FACTORY, peer_environment
from benchmarks.processes import plain_environment

HERE = Path(__file__).parent
ROWS = 64


def settings(model: str, data: Path) -> dict[str, object]:
    """What both sides are given."""
    return {
        "model_name_or_path": model,
        "stage": "sft",
        "finetuning_type": "lora",
        "lora_target": "all",
        "dataset": "rows",
        "dataset_dir": str(data),
        "template": "chatml",
        "cutoff_len": 512,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 42,
    }


def write_data(folder: Path) -> None:
    """The shipped demo set as Alpaca rows, which both read."""
    from llf_core.data.sources import DEMO_FILE

    rows = []
    for line in DEMO_FILE.read_text().splitlines()[:ROWS]:
        record = json.loads(line)
        user, assistant = (
            next(m["content"] for m in record["messages"] if m["role"] == r) for r in ("user", "assistant")
        )
        rows.append({"instruction": user, "input": "", "output": assistant})
    folder.mkdir(parents=True)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))


def seconds_to(command: list[str], env: dict[str, str], found: Callable[[], bool]) -> float:
    """Seconds from the start of a command until `found()`; the command is then waited for."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        while not found():
            if process.poll() is not None and not found():
                log.seek(0)
                raise RuntimeError(log.read().decode()[-2000:])
            time.sleep(0.01)
        took = time.perf_counter() - start
        process.wait()
    return took


def has_loss(pattern: str, folder: Path) -> bool:
    return any('"loss"' in file.read_text() for file in folder.glob(pattern))


def ours(config: Path, home: Path, checkout: Path = HERE.parent) -> float:
    shutil.rmtree(home / "runs", ignore_errors=True)
    shutil.rmtree(home / "cache" / "data", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("llf")), "train", str(config)]
    env = {**plain_environment(), "LLF_HOME": str(home), "PYTHONPATH": str(checkout)}
    return seconds_to(command, env, lambda: has_loss("runs/*/metrics.jsonl", home))


def theirs(cli: Path, config: Path, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    return seconds_to([str(cli), "train", str(config)], plain_environment(), lambda: has_loss("trainer_log.jsonl", out))


def measure(pairs: int, cli: Path | None = None, before: Path | None = None) -> list[tuple[float, float]]:
    """Pairs of seconds to the first logged loss, LLF's first, after one pair that is left out.

    Args:
        cli: LLaMA-Factory's command, the other side.
        before: an older checkout of LLF, the other side in its place.
    """
    other = "llamafactory" if cli is not None else "before"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        home, out = work / "home", work / "out"
        from llf_core.models import resolve_model

        name = "smollm2-135m-instruct"
        model = resolve_model(name)
        home.mkdir()
        (home / "models").symlink_to(model.path.parent)
        write_data(work / "data")
        for who, more in {
            "ours": {},
            "theirs": {
                "do_train": True, "use_cpu": True, "bf16": True, "output_dir": str(out), "report_to": "none",
                "overwrite_output_dir": True, "overwrite_cache": True,
            },
        }.items():  # fmt: skip
            chosen = settings(name if who == "ours" else str(model.path), work / "data") | more
            (work / f"{who}.yaml").write_text(yaml.safe_dump(chosen))
        ours_yaml, theirs_yaml = work / "ours.yaml", work / "theirs.yaml"
        sides = {
            "llf": partial(ours, ours_yaml, home),
            other: partial(ours, ours_yaml, home, before or HERE.parent)
            if cli is None
            else partial(theirs, cli, theirs_yaml, out),
        }
        found = []
        for number in range(pairs + 1):
            took = {who: sides[who]() for who in sorted(sides, reverse=number % 2 == 0)}
            pair = (took["llf"], took[other])
            print(
                f"{'warm-up' if number == 0 else f'pair {number}'}: llf {pair[0]:.2f} s, {other} {pair[1]:.2f} s",
                flush=True,
            )
            found += [pair] if number else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peer-env", type=Path, default=FOLDER)
    parser.add_argument("--before", type=Path, help="an older checkout of LLF to compare with")
    asked = parser.parse_args()
    if asked.before:
        pairs = measure(asked.pairs, before=asked.before.resolve())
        ratios = [a / b for a, b in pairs]
        print(f"llf / before: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        return
    pairs = measure(asked.pairs, cli=peer_environment(asked.peer_env))
    ratios = [a / b for a, b in pairs]
    result: dict[str, Any] = {
        "what": "seconds from the command to the first logged loss",
        "llf": [round(a, 3) for a, _ in pairs],
        "llamafactory": [round(b, 3) for _, b in pairs],
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("llf", "torch", "transformers")},
        "peer": LLAMA_FACTORY,
    }
    (HERE / "results" / "startup.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"llf / llamafactory: median {result['ratio']['median']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
