"""The memory forecast against the peak of real trainers: SmolLM2-135M, a few steps, each in a process of its own.

    python benchmarks/memory.py [--only lora …]

Prints the forecast that each run wrote into its events beside the largest resident set that the kernel saw of it
(`ru_maxrss`, file pages of the libraries and of the mapped weights included), and writes `results/memory.json`.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from llf_core import __version__
from llf_core.config import RunConfig
from llf_core.launch.environment import cpu_name, packages, usable_cpus
from llf_core.launch.local_process import computing_environment, trainer_command
from llf_core.runs import RunReader, create_run

HERE = Path(__file__).parent
STEPS = 3
COMMON = {
    "stage": "sft",
    "max_steps": STEPS,
    "use_cpu": True,
    "save_strategy": "no",
    "learning_rate": 1e-5,
    "gradient_accumulation_steps": 2,
}
CASES: dict[str, dict[str, object]] = {
    "lora": {"per_device_train_batch_size": 4},
    "lora, one long row": {"per_device_train_batch_size": 1},
    "lora, checkpointing": {"per_device_train_batch_size": 4, "gradient_checkpointing": True},
    "lora, packed": {"per_device_train_batch_size": 2, "packing": True},
    "lora, 4 bits": {"per_device_train_batch_size": 2, "quantization_bit": 4},
    "full": {"per_device_train_batch_size": 2, "finetuning_type": "full"},
    "full, checkpointing": {
        "per_device_train_batch_size": 2, "finetuning_type": "full", "gradient_checkpointing": True,
    },
    "freeze": {"per_device_train_batch_size": 4, "finetuning_type": "freeze"},
}  # fmt: skip
LENGTH = {"lora, one long row": 2000, "lora, packed": 120}
WORDS = 480  # of an answer, about as many tokens


def rows(path: Path, words: int) -> Path:
    """A data set of equally long examples."""
    text = " ".join(["tree", "house", "river", "stone", "light"] * (words // 5))
    path.write_text(json.dumps([{"instruction": f"Say {n}.", "input": "", "output": text} for n in range(40)]))
    return path


def measure(name: str, home: Path) -> dict[str, Any]:
    """Forecast and peak of one case, in bytes."""
    data = rows(home / "rows.json", LENGTH.get(name, WORDS))
    keys = {**COMMON, "dataset": str(data), **CASES[name]}
    folder = create_run(RunConfig.load(keys).yaml(defaults=True), "memory", home=home)
    environment = computing_environment({**os.environ, "LLF_HOME": str(home)}, usable_cpus())
    with folder.log.open("wb") as log:
        pid = os.posix_spawn(
            sys.executable,
            trainer_command(folder),
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)],
        )
        _, code, usage = os.wait4(pid, 0)
    if code:
        raise SystemExit(f"{name}: the trainer failed.\n{folder.log.read_text()}")
    (said,) = (event for event in RunReader(folder).events() if event["type"] == "memory")
    peak = usage.ru_maxrss * 1024
    return {"tokens": said["tokens"], "forecast": said["forecast"], "peak": peak, "error": said["forecast"] / peak - 1}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--home", type=Path, help="where the embedded model lies, or is downloaded to")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary)
        print(f"{'':24}{'tokens':>8}{'forecast':>12}{'peak':>12}{'error':>8}")
        for name in arguments.only:
            found = results[name] = measure(name, home)
            print(
                f"{name:24}{found['tokens']:8,}{found['forecast'] / 1e9:9.2f} GB{found['peak'] / 1e9:9.2f} GB"
                f"{found['error']:8.0%}",
                flush=True,
            )
    about = {"llf": __version__, "cpu": cpu_name(), "threads": usable_cpus(), "python": platform.python_version()}
    (HERE / "results" / "memory.json").write_text(
        json.dumps({**about, "torch": packages().get("torch"), "runs": results}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
