"""Rules about the processes of a run: memory, loading, logs, checkpoints, trust, ranks and copies."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.config import quantizers
from llf_core.config.declarations.stages.dpo import PREFERENCE_LOSSES
from llf_core.config.registry import optimizer_of, quantizer_of
from llf_core.config.rule import Fix, Rule, no_effect
from llf_core.config.rules.conditions import ACCELERATE, ACCUMULATION, CHECKPOINTING, rejected_options
from llf_core.config.sections import SHARDED_QUANTIZER, place_problem
from llf_core.config.training import Training

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config.values import ConfigValues


PACKAGES = {"azure_ml": "azureml", "flyte": "flytekit"}
"""Packages whose names differ from those of their trackers."""

OTHERS = {"tensorboard": ("tensorboardX",)}
"""Alternative packages."""


def _missing_trackers(c: ConfigValues) -> list[str]:
    trackers = [name for name in c.training.report_to if name not in {"none", "all"}]
    packages = [PACKAGES.get(name, name) for name in trackers]
    return [name for name in packages if not any(map(find_spec, (name, *OTHERS.get(name, ()))))]


def _without(options: dict[str, object], name: str) -> dict[str, object] | None:
    return {key: value for key, value in options.items() if key != name} or None


def has_compiler() -> bool:
    """Whether `CXX` or the search path has a C++ compiler, which torch.compile needs on a CPU."""
    names = (os.environ.get("CXX"), "g++", "c++", "clang++", "cl")
    return any(shutil.which(name) for name in names if name)


def lacks_compiler(config: ConfigValues) -> bool:
    """Whether a run computes on the CPU of a machine without a C++ compiler."""
    return (config.training.use_cpu or not quantizers.has_cuda()) and not has_compiler()


def _accelerate_refuses(c: ConfigValues) -> str:
    """The first option that accelerate rejects, as a sentence; empty if it accepts all."""
    given = c.training.accelerator_config or {}
    inner = given.get("gradient_accumulation_kwargs") or {}
    wrong = rejected_options("accelerator_config", given, ACCELERATE, "Accelerate")
    wrong = wrong or rejected_options("accelerator_config", inner, ACCUMULATION, "Gradient accumulation")
    if not wrong and "num_steps" in inner and c.training.gradient_accumulation_steps > 1:
        return "`gradient_accumulation_steps` and `num_steps` in `accelerator_config` are both given. Expected one."
    if not wrong and given.get("use_configured_state"):
        return "`use_configured_state` in `accelerator_config` needs state that LLF does not set up. Remove it."
    return wrong


def _checkpointing_refuses(c: ConfigValues) -> str:
    """The first option that gradient checkpointing rejects, as a sentence; empty if it accepts all."""
    given = c.training.gradient_checkpointing_kwargs or {}
    wrong = rejected_options("gradient_checkpointing_kwargs", given, CHECKPOINTING, "Gradient checkpointing")
    if not wrong and given.get("debug") and given.get("use_reentrant", c.model.use_reentrant_gc):
        return "`debug` in `gradient_checkpointing_kwargs` does not work with `use_reentrant`. Expected one of them."
    return wrong


PROCESS = (
    *(
        no_effect(Training, key, "push_to_hub: true", lambda c: not c.training.push_to_hub)
        for key in ("hub_model_id", "hub_private_repo", "hub_revision")
    ),
    Rule(
        ("accelerator_config", "gradient_accumulation_steps"),
        lambda c: bool(_accelerate_refuses(c)),
        _accelerate_refuses,
        (Fix("Remove the options", {"accelerator_config": None}),),
    ),
    Rule(
        ("gradient_checkpointing_kwargs", "use_reentrant_gc"),
        lambda c: bool(_checkpointing_refuses(c)),
        _checkpointing_refuses,
        (Fix("Remove the options", {"gradient_checkpointing_kwargs": None}),),
    ),
    Rule(
        ("gradient_checkpointing", "disable_gradient_checkpointing"),
        lambda c: c.training.gradient_checkpointing is True and c.model.disable_gradient_checkpointing,
        "`gradient_checkpointing` enables what `disable_gradient_checkpointing` disables. Expected one of them.",
        (
            Fix("Turn it on", {"disable_gradient_checkpointing": False}),
            Fix("Turn it off", {"gradient_checkpointing": None}),
        ),
    ),
    Rule(
        ("dataloader_prefetch_factor", "dataloader_num_workers"),
        lambda c: c.training.dataloader_prefetch_factor is not None and c.training.dataloader_num_workers == 0,
        "`dataloader_prefetch_factor` needs data loader workers, but `dataloader_num_workers` is 0.",
        (
            Fix("Use 1 worker", {"dataloader_num_workers": 1}),
            Fix("Remove it", {"dataloader_prefetch_factor": None}),
        ),
    ),
    Rule(
        ("dataloader_multiprocessing_context", "dataloader_num_workers"),
        lambda c: c.training.dataloader_multiprocessing_context is not None and c.training.dataloader_num_workers == 0,
        "`dataloader_multiprocessing_context` needs data loader workers, but `dataloader_num_workers` is 0.",
        (
            Fix("Use 1 worker", {"dataloader_num_workers": 1}),
            Fix("Remove it", {"dataloader_multiprocessing_context": None}),
        ),
    ),
    Rule(
        ("dataloader_persistent_workers", "dataloader_num_workers"),
        lambda c: c.training.dataloader_persistent_workers and c.training.dataloader_num_workers == 0,
        "`dataloader_persistent_workers` needs data loader workers, but `dataloader_num_workers` is 0.",
        (
            Fix("Use 1 worker", {"dataloader_num_workers": 1}),
            Fix("Remove it", {"dataloader_persistent_workers": False}),
        ),
    ),
    Rule(
        ("accelerator_config",),
        lambda c: bool((c.training.accelerator_config or {}).get("dispatch_batches")),
        "Batches have as many tokens as their examples, so they cannot be cut into equal parts for several processes, "
        "as `dispatch_batches` does. Remove it: each process then loads its own batches.",
        lambda c: (
            Fix(
                "Load in each process",
                {"accelerator_config": _without(c.training.accelerator_config or {}, "dispatch_batches")},
            ),
        ),
    ),
    Rule(
        ("torch_compile", "use_cpu"),
        lambda c: c.training.torch_compile and lacks_compiler(c),
        "This machine has no C++ compiler, which torch.compile needs on a CPU, so the run would fail. Expected g++ or "
        "clang++.",
        (Fix("Train without compiling", {"torch_compile": False}),),
        severity="warning",
    ),
    Rule(
        ("flash_attn", "use_cpu"),
        lambda c: c.model.flash_attn in {"fa2", "fa3"} and c.training.use_cpu,
        lambda c: f"FlashAttention (`flash_attn` {c.model.flash_attn}) needs an NVIDIA GPU, but `use_cpu` is true.",
        (Fix("Set to auto", {"flash_attn": "auto"}),),
    ),
    Rule(
        ("logging_strategy",),
        lambda c: c.training.logging_strategy == "no",
        "No metrics are logged, so the run has no charts.",
        (Fix("Log every step", {"logging_strategy": "steps", "logging_steps": 1}),),
        severity="warning",
    ),
    Rule(
        ("save_strategy",),
        lambda c: c.training.save_strategy == "no",
        "No checkpoint is saved during training: a killed run has to start over. Stop still saves one.",
        (Fix("Save every 500 steps", {"save_strategy": "steps", "save_steps": 500}),),
        severity="note",
    ),
    Rule(
        ("ignore_data_skip",),
        lambda c: c.training.ignore_data_skip,
        "A resumed run repeats some examples, so its losses differ from those of an uninterrupted run.",
        (Fix("Skip the data already seen", {"ignore_data_skip": False}),),
        severity="note",
    ),
    Rule(
        ("report_to",),
        lambda c: len(c.training.report_to) > 1 and bool({"none", "all"}.intersection(c.training.report_to)),
        lambda c: f"The trackers are {','.join(c.training.report_to)}. Expected names, or `none` or `all` alone.",
        (Fix("Switch off trackers", {"report_to": "none"}),),
    ),
    Rule(
        ("report_to",),
        lambda c: bool(_missing_trackers(c)),
        lambda c: (
            f"The tracker's package {_missing_trackers(c)[0]} is not installed, so the run would fail. "
            f"Run: pip install {_missing_trackers(c)[0]}."
        ),
        (Fix("Switch off trackers", {"report_to": "none"}),),
        severity="warning",
    ),
    Rule(
        ("trust_remote_code",),
        lambda c: c.model.trust_remote_code,
        "Code that comes with the model runs with your permissions.",
        (Fix("Do not run it", {"trust_remote_code": False}),),
        severity="note",
    ),
    Rule(
        ("allow_pickle",),
        lambda c: c.model.allow_pickle,
        "A pickle file can run code with your permissions while it loads.",
        (Fix("Do not load pickle files", {"allow_pickle": False}),),
        severity="note",
    ),
)

SYNC = (
    Rule(
        ("sync_to",),
        lambda c: bool(place_problem(c.launch.sync_to or "")),
        lambda c: place_problem(c.launch.sync_to or ""),
        (Fix("Copy nothing", {"sync_to": None}),),
    ),
)
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
