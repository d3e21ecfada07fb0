"""kill -9 of the real trainer with each optimizer, method and modifier: a resume repeats the losses bit by bit.

The trainer dies between two checkpoints: BAdam in the middle of a block, GaLore and APOLLO between two projections.
"""

import signal

import pytest
import torch
from safetensors.torch import load_file

from llf_core.config import RunConfig
from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.quantizers import QUANTIZERS
from llf_core.config.registry import declared, optimizer_of
from llf_core.runs import Checkpoints, status
from tests.core.optimizers.test_training import CASES
from tests.core.training.forked_trainer import losses
from tests.core.training.test_method_matrix import METHODS

KEYS = {
    "gradient_accumulation_steps": 1, "max_steps": 7, "save_steps": 2, "use_cpu": True, "val_size": 0.25,
    "eval_strategy": "steps", "eval_steps": 2,
}  # fmt: skip
FAULT = "metrics.append:5"
"""Step 4 is done, and is the fifth entry of the metrics after three steps and an evaluation."""
FULL = {"finetuning_type": "full"}
OPTIMIZERS = {name: FULL | keys for name, keys in CASES.items()}
NAMED = {optimizer_of(RunConfig.load({"dataset": "llf_demo"} | keys)).name for keys in OPTIMIZERS.values()}
BY_NAME = [
    name for name, one in declared(OptimizerDeclaration).items() if name not in NAMED and "torchao" not in one.packages
]
"""Optimizers that transformers builds; for torchao's see `test_torchao.py`."""
OTHERS = {
    "Mixture-of-Depths": FULL | {"mixture_of_depths": "convert"},
    "lora in 4 bits": {"quantization_bit": 4},
    "lora in 8 bits": {"quantization_bit": 8},
    "LoftQ": {"lora_init": "loftq", "quantization_bit": 4},
    "lora by HQQ": {"quantization_method": "hqq", "quantization_bit": 4},
    "lora by torchao": {"quantization_method": "torchao", "quantization_bit": 8},
}
SLICE = {"badam", "galore layerwise", "schedule_free_adamw", "muon"}
EVERY = {
    **OPTIMIZERS,
    **{name: FULL | {"optim": name} for name in BY_NAME},
    **{f"method {name}": keys for name, keys in METHODS.items()},
    **OTHERS,
}


@pytest.mark.parametrize(
    "name", [name if name in SLICE else pytest.param(name, marks=pytest.mark.long) for name in EVERY]
)
def test_a_killed_run_repeats_the_losses_bit_by_bit(trainer, make_run, name):
    keys = {**KEYS, **EVERY[name]}
    if missing := QUANTIZERS[keys.get("quantization_method", "bnb")].missing_packages():
        pytest.skip(f"{missing} are not installed")
    whole = make_run(**keys)
    assert trainer.run(whole) == 0, whole.log.read_text()[-2000:]

    killed = make_run(**keys)
    assert trainer.run(killed, FAULT) == -signal.SIGKILL, killed.log.read_text()[-2000:]
    assert Checkpoints(killed).list() == [2]
    before = losses(killed)
    assert (sorted(before["loss"]), sorted(before["eval_loss"])) == ([1, 2, 3], [2])

    status.begin_attempt(killed, 2)
    assert trainer.run(killed) == 0, killed.log.read_text()[-2000:]
    assert sorted(losses(whole)["loss"]) == [1, 2, 3, 4, 5, 6, 7]
    assert losses(killed) == losses(whole)
    (file,) = (path.name for path in whole.output.glob("*model.safetensors"))
    first, second = (load_file(run.output / file) for run in (whole, killed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
