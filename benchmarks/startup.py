"""Start to first logged loss: `llf train` against `llamafactory-cli train`, same model, rows and settings.

    python benchmarks/startup.py [--pairs 5] [--peer-env FOLDER]

LLaMA-Factory is installed in an environment of its own (`--peer-env`, made on first use): 0.9.5 without its
dependencies, then those less torchaudio, whose CUDA build cannot load beside a CPU build of torch; a stub module of
that name stands in, since LLaMA-Factory imports it whether or not there is audio. Runs are interleaved; the first
pair warms the file cache and is left out.
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
from pathlib import Path

import yaml

HERE = Path(__file__).parent
PEER = "llamafactory==0.9.5"
ROWS = 64


def peer_environment(folder: Path) -> Path:
    """The peer's `llamafactory-cli`, installed where it is not there yet."""
    command = folder / "bin" / "llamafactory-cli"
    if command.exists():
        return command
    print(f"Installing {PEER} into {folder} …", flush=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([*pip, "--no-deps", PEER], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (metadata,) = site.glob("llamafactory-*.dist-info/METADATA")
    needs = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.read_text().splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line and "torchaudio" not in line
    ]
    subprocess.run([*pip, *needs], check=True)
    for name, text in {
        "torchaudio/__init__.py": '__version__ = "2.11.0"\n',
        "torchaudio-2.11.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\n",
    }.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    return command


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


def ours(config: Path, home: Path) -> float:
    shutil.rmtree(home / "runs", ignore_errors=True)
    shutil.rmtree(home / "cache" / "data", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("llf")), "train", str(config)]
    return seconds_to(command, {**os.environ, "LLF_HOME": str(home)}, lambda: has_loss("runs/*/metrics.jsonl", home))


def theirs(cli: Path, config: Path, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    return seconds_to([str(cli), "train", str(config)], {**os.environ}, lambda: has_loss("trainer_log.jsonl", out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peer-env", type=Path, default=Path.home() / ".cache" / "llf-peers" / "llamafactory")
    asked = parser.parse_args()
    cli = peer_environment(asked.peer_env)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        home, out = work / "home", work / "out"
        os.environ["LLF_HOME"] = str(home)
        from llf_core.config import RunConfig
        from llf_core.models import resolve_model

        name = "smollm2-135m-instruct"
        model = resolve_model(name, RunConfig.load({"model_name_or_path": name, "dataset": "llf_demo"}))
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
        pairs = []
        for number in range(asked.pairs + 1):
            pair = (ours(work / "ours.yaml", home), theirs(cli, work / "theirs.yaml", out))
            print(
                f"{'warm-up' if number == 0 else f'pair {number}'}: llf {pair[0]:.2f} s, llamafactory {pair[1]:.2f} s"
            )
            pairs += [pair] if number else []
    ratios = [a / b for a, b in pairs]
    result = {
        "what": "seconds from the command to the first logged loss",
        "llf": [round(a, 3) for a, _ in pairs],
        "llamafactory": [round(b, 3) for _, b in pairs],
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("llf", "torch", "transformers")},
        "peer": PEER,
    }
    (HERE / "results" / "startup.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"llf / llamafactory: median {result['ratio']['median']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
