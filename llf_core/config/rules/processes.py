"""Rules about runs of several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.dpo import PREFERENCE_LOSSES
from llf_core.config.problem import Fix
from llf_core.config.registry import optimizer_of, quantizer_of
from llf_core.config.rule import Rule
from llf_core.config.strategies import SHARDED_QUANTIZER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config.values import ConfigValues

ONE = (Fix("Train in one process", {"num_processes": 1, "num_nodes": 1}),)


DDP = (Fix("Give each process the whole model", {"strategy": "ddp"}),)
HERE = ("local", "torchrun")
"""Launchers whose runs use this machine."""
SHARDED_STAGES = ("sft", "pt")
SHARDED_METHODS = ("full", "freeze", "lora")
SHARDED_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Optimizers with which FSDP2, the engine of all strategies but ddp, was compared with one process."""


def _several(c: ConfigValues) -> bool:
    return c.launch.ranks > 1


def _here(c: ConfigValues) -> bool:
    return c.launch.launch in HERE


def _shards(c: ConfigValues) -> bool:
    return c.launch.strategy != "ddp" and _several(c)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


PROCESSES = (
    Rule(
        ("num_nodes", "launch"),
        lambda c: c.launch.num_nodes > 1 and c.launch.launch != "torchrun",
        lambda c: (
            f"`num_nodes` is {c.launch.num_nodes}, but `launch: {c.launch.launch}` starts one machine. Expected "
            "`launch: torchrun` with HOST:PORT of the first machine in `launch_target`."
        ),
        (Fix("Train on one machine", {"num_nodes": 1}),),
    ),
    Rule(
        ("num_processes", "num_nodes", "pref_loss"),
        lambda c: _several(c) and c.stage.stage == "dpo" and PREFERENCE_LOSSES[c.get("pref_loss")].batch_dependent,
        lambda c: (
            f"The loss {c.get('pref_loss')} compares the pairs of a micro-batch with each other, and each of the "
            f"{c.launch.ranks} processes has only its share of them. Expected another pref_loss."
        ),
        (*ONE, Fix("Use sigmoid", {"pref_loss": "sigmoid"})),
    ),
    Rule(
        ("num_processes", "num_nodes", "loss_type"),
        lambda c: _several(c) and c.stage.stage == "grpo" and c.get("loss_type") == "bnpo",
        "The loss bnpo is a mean over the tokens of a batch, and each process has only its share of them. Expected "
        "another loss_type, such as dapo.",
        (*ONE, Fix("Use dapo", {"loss_type": "dapo"})),
    ),
    Rule(
        ("num_processes", "num_nodes", "optim"),
        lambda c: _several(c) and (optimizer_of(c).layerwise(c) or optimizer_of(c).one_process(c)),
        lambda c: (
            f"{optimizer_of(c).label} does not train in several processes as configured: they would update "
            "different weights, or update them before their gradients are added up."
        ),
        ONE,
    ),
    Rule(
        ("strategy", "num_processes"),
        lambda c: c.launch.strategy != "ddp" and not _several(c),
        "`strategy` has no effect in one process, which has the whole model. Set num_processes.",
        DDP,
        severity="note",
    ),
    Rule(
        ("strategy", "num_nodes"),
        lambda c: _shards(c) and c.launch.strategy == "hsdp" and c.launch.num_nodes == 1,
        "On one machine `hsdp` is the same as `fsdp2`. Set num_nodes.",
        (Fix("Use fsdp2", {"strategy": "fsdp2"}),),
        severity="note",
    ),
    Rule(
        ("strategy", "stage"),
        lambda c: _shards(c) and c.stage.stage not in SHARDED_STAGES,
        lambda c: f"Stage {c.stage.stage} does not train with FSDP2 so far; {_listed(SHARDED_STAGES)} do.",
        DDP,
    ),
    Rule(
        ("strategy", "use_asft_loss"),
        lambda c: _shards(c) and bool(c.get("use_asft_loss")),
        "The reference model of `use_asft_loss` is not sharded so far: each process would need all of it.",
        (*DDP, Fix("Use the plain loss", {"use_asft_loss": False})),
    ),
    Rule(
        ("strategy", "finetuning_type"),
        lambda c: _shards(c) and c.method.finetuning_type not in SHARDED_METHODS,
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` does not train with FSDP2 so far; "
            f"{_listed(SHARDED_METHODS)} do."
        ),
        DDP,
    ),
    Rule(
        ("strategy", "quantization_bit"),
        lambda c: (
            _shards(c)
            and c.model.quantization_bit is not None
            and (quantizer_of(c).name, c.model.quantization_bit) != SHARDED_QUANTIZER
        ),
        lambda c: (
            f"FSDP2 does not shard weights that {quantizer_of(c).label} quantizes to {c.model.quantization_bit} bits. "
            "Expected 4 bits of bitsandbytes."
        ),
        (*DDP, Fix("Quantize to 4 bits by bitsandbytes", {"quantization_bit": 4, "quantization_method": "bnb"})),
    ),
    Rule(
        ("strategy", "lora_init"),
        lambda c: (
            _shards(c) and c.method.finetuning_type == "lora" and (c.get("lora_init") != "default" or c.get("use_dora"))
        ),
        "FSDP2 trains plain LoRA so far: an adapter that begins with parts of the weights, or that measures "
        "them in each step (use_dora), needs whole weights.",
        (*DDP, Fix("Use plain LoRA", {"lora_init": "default", "use_dora": False})),
    ),
    Rule(
        ("strategy", "optim"),
        lambda c: _shards(c) and optimizer_of(c).name not in SHARDED_OPTIMIZERS,
        lambda c: (
            f"{optimizer_of(c).label} updates whole matrices or has its own kernels, and with FSDP2 each "
            f"process has a part of each matrix. Expected one of {', '.join(SHARDED_OPTIMIZERS)}."
        ),
        (*DDP, Fix("Use adamw_torch_fused", {"optim": "adamw_torch_fused"})),
    ),
    Rule(
        ("strategy", "fp16"),
        lambda c: _shards(c) and c.training.fp16,
        "FSDP2 does not scale losses for float16 so far. Expected bf16 or float32.",
        (*DDP, Fix("Use bfloat16", {"fp16": False, "bf16": True})),
    ),
    Rule(
        ("strategy", "fp8"),
        lambda c: _shards(c) and bool(c.get("fp8")),
        "FSDP2 does not train in FP8 so far. Expected bf16.",
        (*DDP, Fix("Use bfloat16", {"fp8": False, "bf16": True})),
    ),
    Rule(
        ("strategy", "load_best_model_at_end"),
        lambda c: _shards(c) and c.training.load_best_model_at_end,
        "A sharded model cannot load its best checkpoint at the end so far. Branch from that checkpoint instead.",
        (*DDP, Fix("End with the last weights", {"load_best_model_at_end": False})),
    ),
    Rule(
        ("strategy", "measure_forgetting"),
        lambda c: _shards(c) and c.training.measure_forgetting,
        "What a sharded model forgets is not measured so far.",
        (*DDP, Fix("Do not measure it", {"measure_forgetting": False})),
    ),
    Rule(
        ("launch",),
        lambda c: not _here(c),
        "The forecast of memory and time is for this machine, not for the one where the run will run.",
        severity="note",
    ),
)
