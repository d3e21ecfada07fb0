"""Makes `runs.json`: what LLaMA-Factory 0.9.5 logs of each step of the runs in `runs.py`.

    python tests/core/stages/llama_factory/make_run_goldens.py

Installs LLaMA-Factory into an environment of its own (see `benchmarks/peers.py`). Where its demo files lie in
`../shared/data/llama_factory`, the rows are copied from them first: short ones, and one of several turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
DEMO = ROOT.parent / "shared" / "data" / "llama_factory"
ROWS = {
    "dpo_en_demo": (21, 23, 32, 43, 80, 102, 104, 133, 136, 171, 177, 180, 235, 255, 268, 292),
    "kto_en_demo": (6, 12, 26, 33, 39, 40, 41, 49, 52, 75, 97, 115, 119, 147, 161, 222),
}
# The answers of another set, as plain texts.
TEXTS = {"file_name": "../../../data/llama_factory/rows/alpaca.json", "columns": {"prompt": "output"}}
KEPT = (
    "loss", "grad_norm", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
    "logps/chosen", "logps/rejected", "sft_loss", "odds_ratio_loss",
)  # fmt: skip


def copy_rows() -> None:
    """The rows, and how LLaMA-Factory describes them."""
    described = json.loads((DEMO / "dataset_info.json").read_text())
    for name, places in ROWS.items():
        rows = json.loads((DEMO / f"{name}.json").read_text())
        write(HERE / "rows" / f"{name}.json", [rows[place] for place in places])
    write(HERE / "rows" / "dataset_info.json", {name: described[name] for name in ROWS} | {"texts": TEXTS})


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def inside() -> None:
    """Runs in LLaMA-Factory's environment."""
    from llamafactory.train.tuner import run_exp

    from tests.core.stages.llama_factory.runs import RUNS, settings
    from tests.core.stages.llama_factory.same_model import save_model

    found = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as work:
            model, adapter, out = (Path(work) / part for part in ("model", "adapter", "out"))
            save_model(model)
            own = {"output_dir": str(out), "overwrite_cache": True, "report_to": "none"}
            run_exp(settings(name, model, adapter) | own)
            history = json.loads((out / "trainer_state.json").read_text())["log_history"]
        steps: dict[int, dict[str, float]] = {}
        for entry in history:
            # An evaluation of KTO logs its estimate of the divergence by the name that the training has for its own.
            prefix = "eval_" if "eval_loss" in entry else ""
            kept = {f"{prefix}{key}": entry[f"{prefix}{key}"] for key in KEPT if f"{prefix}{key}" in entry}
            steps.setdefault(entry["step"], {}).update(kept)
        found[name] = steps
    text = ",\n".join(f"{json.dumps(name)}: {lines(steps)}" for name, steps in found.items())
    (HERE / "runs.json").write_text("{\n" + text + "\n}\n")


def lines(steps: dict[int, dict[str, float]]) -> str:
    """JSON with one step a line."""
    return "{\n" + ",\n".join(f' "{step}": {json.dumps(one)}' for step, one in steps.items()) + "\n}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().inside:
        inside()
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers import FOLDER, peer_environment
    from benchmarks.processes import plain_environment

    if DEMO.is_dir():
        copy_rows()
    peer_environment(FOLDER)
    command = [str(FOLDER / "bin" / "python"), __file__, "--inside"]
    subprocess.run(command, check=True, env=plain_environment())


if __name__ == "__main__":
    main()
