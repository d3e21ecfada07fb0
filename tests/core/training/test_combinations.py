"""Pairs of plug-ins: each trains two steps of a tiny model, or a rule refuses it before the start; none fails later."""

from __future__ import annotations

import json
import random
from itertools import combinations

import pytest
import yaml
from transformers import MixtralForCausalLM

from llf_core.config import RunConfig, validate
from llf_core.config.declaration import (
    MethodDeclaration,
    ModifierDeclaration,
    OptimizerDeclaration,
    StageDeclaration,
)
from llf_core.config.field_specs import field
from llf_core.config.registry import declared
from llf_core.runs import RunReader, create_run, read_status
from llf_core.user_functions.function_source import write_code
from tests.core.models.tiny_configs import tiny_config
from tests.core.training.test_keys import OWN, SHARE, rows

SLICE = 24
"""Pairs of the test that is always run; the long one runs all others."""
SIZES = {"lora_rank": 4, "galore_rank": 8, "apollo_rank": 8, "oft_block_size": 8, "boft_block_size": 8}
"""Sizes that fit a hidden size of 64."""
COMPILED = {"adamw_torch_4bit", "adamw_torch_8bit"}
"""Optimizers that compile their step, which changes the process for good; `test_torchao.py` trains with them."""


def switched_on(key: str) -> dict[str, object]:
    """What sets a switch: true, its first choice, or a number."""
    spec = field(key)
    if spec is None or spec.type == "bool":
        return {key: True}
    return {key: next(iter(spec.choices or ()), 1.0)}


def choices() -> dict[str, dict[str, dict[str, object]]]:
    """By kind and name, the keys that select a plug-in."""
    optimizers = declared(OptimizerDeclaration)
    return {
        "stage": {name: {"stage": name} | OWN.get(name, {}) for name in declared(StageDeclaration)},
        "method": {name: {"finetuning_type": name} for name in declared(MethodDeclaration)},
        "modifier": {name: switched_on(one.switch) for name, one in declared(ModifierDeclaration).items()},
        "optimizer": {name: {"optim": name} for name in optimizers if name not in COMPILED},
        "quantization": {"4": {"quantization_bit": 4}, "8": {"quantization_bit": 8}},
    }


def pairs() -> list[tuple[str, dict[str, object]]]:
    """Every pair of two kinds, in one order, with its name."""
    kinds = choices()
    return [
        (f"{name}+{other}", keys | more)
        for first, second in combinations(kinds, 2)
        for name, keys in kinds[first].items()
        for other, more in kinds[second].items()
    ]


def shuffled() -> list[tuple[str, dict[str, object]]]:
    found = pairs()
    random.Random(16).shuffle(found)
    return found


@pytest.fixture
def experts_dir(tmp_path, tiny_tokenizer):
    """A tiny model with experts, for what needs them."""
    folder = tmp_path / "experts"
    MixtralForCausalLM(tiny_config("mixtral")).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def outcome(tmp_path, tiny_model_dir, experts_dir):
    """`outcome(keys) -> (refused, reason)`: "refused" before the start, "trained", or what went wrong."""
    from llf_core.training.session import run_attempt

    def attempt(keys):
        stage = str(keys.get("stage", "sft"))
        (tmp_path / f"{stage}.json").write_text(json.dumps(rows(stage)))
        asked = {
            "model_name_or_path": str(experts_dir if "moe_aux_loss_coef" in keys else tiny_model_dir),
            "stage": stage,
            "dataset": str(tmp_path / f"{stage}.json"),
            "cutoff_len": 128,
            "per_device_train_batch_size": 2,
            "max_steps": 2,
            "logging_steps": 1,
            "learning_rate": 1e-4,
            **{key: value for key, value in SIZES.items() if field(key) is not None},
            **keys,
        }
        if "teacher_model" in asked:
            asked["teacher_model"] = str(tiny_model_dir)
        report = validate(asked)
        errors = [one for one in report.problems if one.severity == "error"]
        if errors:
            return "refused", errors
        config = RunConfig.load(yaml.safe_dump(asked))
        folder = create_run(
            config.yaml(defaults=True), "pair", home=tmp_path / "home",
            fill=lambda new: write_code(new.code, {"share": SHARE}),
        )  # fmt: skip
        code = run_attempt(folder, 1)
        status = read_status(folder)
        losses = RunReader(folder).metrics().values("loss")
        if code == 0 and status.state == "finished" and len(losses) == 2:
            return "trained", status
        return "failed", status.reason

    return attempt


def check(outcome, cases):
    failed = {}
    counts = {"refused": 0, "trained": 0}
    for name, keys in cases:
        what, why = outcome(keys)
        if what == "failed":
            failed[name] = why
        else:
            counts[what] += 1
            if what == "refused":
                assert all(one.message.strip() for one in why), name
    assert failed == {}
    return counts


def test_pairs_train_or_are_refused(outcome):
    counts = check(outcome, shuffled()[:SLICE])
    assert counts["trained"] > 0


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(16))
def test_all_other_pairs_train_or_are_refused(outcome, part):
    check(outcome, shuffled()[SLICE:][part::16])
