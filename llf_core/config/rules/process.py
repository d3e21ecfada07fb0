"""Rules about the process: memory, loading, logs, checkpoints, trust."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.config import quantizers
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule, no_effect
from llf_core.config.rules.mappings import ACCELERATE, ACCUMULATION, CHECKPOINTING, rejected_options
from llf_core.config.training import Training

if TYPE_CHECKING:
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
