"""Makes `losses.json`: what LLaMA-Factory's preference losses are of a model of two words' memory.

    python tests/core/stages/llama_factory/make_loss_goldens.py

Installs LLaMA-Factory into an environment of its own (see `benchmarks/peers.py`) and has its trainers compute their
losses of made-up answers. The model and its reference are tables: row i holds the logits after token i. Hinge, IPO and
paired KTO, which are another loss in LLaMA-Factory, are those of the last TRL that had all three.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
OLDER_TRL = "trl==0.8.6"
WORDS, PROMPT, PAIRS = 7, 2, 5
IGNORED = -100
SETTINGS: tuple[dict[str, Any], ...] = (
    {"pref_loss": "sigmoid"},
    {"pref_loss": "sigmoid", "pref_beta": 0.4, "dpo_label_smoothing": 0.2},
    {"pref_loss": "sigmoid", "pref_beta": 0.4, "ld_alpha": 0.3},
    {"pref_loss": "orpo"},
    {"pref_loss": "orpo", "pref_beta": 0.7},
    {"pref_loss": "simpo"},
    {"pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 1.1},
    {"pref_loss": "simpo", "pref_beta": 2.0, "ld_alpha": 0.3},
    {"pref_loss": "sigmoid", "pref_beta": 0.4, "pref_bco_weight": 0.5},
)
KTO: tuple[dict[str, Any], ...] = (
    {},
    {"pref_beta": 0.4, "kto_chosen_weight": 1.5, "kto_rejected_weight": 0.5},
)
OLDER: tuple[dict[str, Any], ...] = tuple(
    {"pref_loss": name, "pref_beta": beta} for name in ("hinge", "ipo", "kto_pair") for beta in (0.1, 0.4)
)


def table(seed: int) -> list[list[float]]:
    """The logits of a model: of each token after each."""
    import torch

    drawn = torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [[round(value, 3) for value in row] for row in (1.5 * drawn).tolist()]


def answered(seed: int, count: int) -> dict[str, list[list[int]]]:
    """Padded sequences of a prompt and an answer of 1 to 6 tokens."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (count,), generator=generator).tolist()
    width = PROMPT + max(lengths)
    ids, labels = [], []
    for length in lengths:
        tokens = torch.randint(1, WORDS, (PROMPT + length,), generator=generator).tolist()
        padding = width - len(tokens)
        ids.append(tokens + [0] * padding)
        labels.append([IGNORED] * PROMPT + tokens[PROMPT:] + [IGNORED] * padding)
    return {"input_ids": ids, "labels": labels}


def model_of(logits: list[list[float]]) -> Any:
    """What LLaMA-Factory calls as a model."""
    import torch

    rows = torch.tensor(logits, dtype=torch.float64)
    return lambda input_ids, **_: SimpleNamespace(logits=rows[input_ids])


def trainer_of(kind: str, reference: Any, **settings: Any) -> Any:
    """A trainer of LLaMA-Factory's with all that its losses look at, and nothing to train."""
    from accelerate import Accelerator
    from llamafactory.hparams import FinetuningArguments
    from llamafactory.train.dpo.trainer import CustomDPOTrainer
    from llamafactory.train.kto.trainer import CustomKTOTrainer
    from trl.trainer.utils import RunningMoments

    arguments = FinetuningArguments(stage=kind, **settings)
    made = object.__new__(CustomDPOTrainer if kind == "dpo" else CustomKTOTrainer)
    made.finetuning_args, made.accelerator, made.ref_model = arguments, Accelerator(cpu=True), reference
    made.beta, made.ftx_gamma = arguments.pref_beta, arguments.pref_ftx
    made.reference_free, made.f_divergence_type = False, "reverse_kl"
    if kind == "dpo":
        made.loss_type, made.bco_gemma = arguments.pref_loss, arguments.pref_bco_weight
        made.label_smoothing, made.simpo_gamma = arguments.dpo_label_smoothing, arguments.simpo_gamma
        made.ld_alpha, made.running = arguments.ld_alpha, RunningMoments(made.accelerator)
    else:
        made.loss_type, made.calculate_KL = "kto", True
        made.desirable_weight, made.undesirable_weight = arguments.kto_chosen_weight, arguments.kto_rejected_weight
    return made


def preference_losses(policy: Any, reference: Any, pairs: dict[str, Any]) -> list[dict[str, Any]]:
    """The mean loss of two micro-batches one after the other, by each setting."""
    import torch

    found = []
    for settings in SETTINGS:
        trainer = trainer_of("dpo", reference, **settings)
        losses = []
        for numbers in (range(3), range(3, PAIRS)):
            chosen_first = [*numbers, *(PAIRS + number for number in numbers)]
            batch = {key: torch.tensor(value)[chosen_first] for key, value in pairs.items()}
            losses.append(trainer.get_batch_loss_metrics(policy, batch)[0].item())
        found.append({"settings": settings, "losses": losses})
    return found


def kto_losses(policy: Any, reference: Any, judged: dict[str, Any]) -> list[dict[str, Any]]:
    """The mean loss and the estimate of the divergence, by each setting."""
    import torch

    batch = {key: torch.tensor(value) for key, value in judged.items()}
    for prefix in ("", "kl_"):
        batch[f"{prefix}attention_mask"] = torch.ones_like(batch[f"{prefix}input_ids"])
    found = []
    for settings in KTO:
        loss, metrics = trainer_of("kto", reference, **settings).get_batch_loss_metrics(policy, dict(batch))
        found.append({"settings": settings, "loss": loss.item(), "kl": metrics["kl"]})
    return found


def older_losses(folder: Path, policy: Any, reference: Any, pairs: dict[str, Any]) -> list[dict[str, Any]]:
    """The costs by the method of TRL's older trainer, taken out of its source, which needs libraries of its day."""
    import typing

    import torch
    from torch.nn import functional

    tree = ast.parse((folder / "trl" / "trainer" / "dpo_trainer.py").read_text())
    method = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "dpo_loss")
    names: dict[str, Any] = {"torch": torch, "F": functional, "Tuple": typing.Tuple}  # noqa: UP006 - as that source has it
    exec(compile(ast.Module([method], []), "dpo_loss", "exec"), names)

    from llamafactory.train.trainer_utils import get_batch_logps

    ids, labels = (torch.tensor(pairs[key]) for key in ("input_ids", "labels"))
    sums, counts = zip(*(get_batch_logps(model(ids).logits, labels) for model in (policy, reference)), strict=True)
    found = []
    for settings in OLDER:
        name, beta = settings["pref_loss"], settings["pref_beta"]
        given = [one / count if name == "ipo" else one for one, count in zip(sums, counts, strict=True)]
        trainer = SimpleNamespace(
            accelerator=SimpleNamespace(device="cpu"),
            reference_free=False,
            loss_type=name,
            beta=beta,
            label_smoothing=0,
        )
        costs = names["dpo_loss"](trainer, *(half for one in given for half in one.split(PAIRS)))[0]
        found.append({"settings": settings, "costs": costs.tolist()})
    return found


def inside(older: Path) -> None:
    """Runs in LLaMA-Factory's environment."""
    policy, reference = table(0), table(1)
    pairs, judged = answered(2, 2 * PAIRS), answered(3, 6)
    mismatched = {f"kl_{key}": value for key, value in answered(20, 6).items()}
    judged_all = {**judged, **mismatched, "kto_tags": [True, False, False, True, True, False]}
    models = model_of(policy), model_of(reference)
    goldens = {
        "policy": policy,
        "reference": reference,
        "pairs": pairs,
        "judged": judged_all,
        "preference": preference_losses(*models, pairs),
        "kto": kto_losses(*models, judged_all),
        "older_trl": older_losses(older, *models, pairs),
    }
    text = ",\n".join(f"{json.dumps(key)}: {lines(value)}" for key, value in goldens.items())
    (HERE / "losses.json").write_text("{\n" + text + "\n}\n")


def lines(value: Any) -> str:
    """JSON with one entry of the outermost object or list a line."""
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items()) + "\n}"
    return "[\n" + ",\n".join(f" {json.dumps(one)}" for one in value) + "\n]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", metavar="OLDER_TRL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        inside(Path(asked.inside))
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers import FOLDER, peer_environment
    from benchmarks.processes import plain_environment

    peer_environment(FOLDER)
    with tempfile.TemporaryDirectory() as older:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", older, OLDER_TRL]
        subprocess.run(pip, check=True)
        command = [str(FOLDER / "bin" / "python"), __file__, "--inside", older]
        subprocess.run(command, check=True, env=plain_environment())


if __name__ == "__main__":
    main()
