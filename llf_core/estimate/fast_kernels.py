"""Finds fast kernels of a model that are not installed."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config import Fix, Problem
from llf_core.config.name_checks.model_folder import config_of, folder_of
from llf_core.estimate.devices import device_of, find_devices
from llf_core.model_catalog import find_model

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.devices import Device

FILE = Path(__file__).with_name("fast_kernels.toml")
KEY = "model_name_or_path"
FLASH = {
    "fa2": ("flash_attn", "Run: pip install flash-attn --no-build-isolation"),
    "fa3": ("flash_attn_interface", "Build it from the folder hopper of github.com/Dao-AILab/flash-attention"),
}
"""Module that each value of `flash_attn` needs, and its installation."""


@dataclass(frozen=True)
class Kernels:
    """A package with fast kernels; `types` are the values of `model_type` that use it."""

    module: str
    package: str
    layers: str
    command: str
    types: frozenset[str]


@cache
def fast_kernels() -> tuple[Kernels, ...]:
    """All packages of the table."""
    with FILE.open("rb") as file:
        return tuple(Kernels(**(one | {"types": frozenset(one["types"])})) for one in tomllib.load(file)["kernels"])


def kernel_problems(config: RunConfig, devices: tuple[Device, ...] | None = None) -> tuple[Problem, ...]:
    """Find the fast kernels for NVIDIA GPUs that a run would use and that are not installed.

    Without them transformers computes the same in PyTorch, several times slower: a warning beside the model, or an
    error beside `flash_attn` if its package is missing. Nothing for an unknown model.
    """
    if device_of(config, find_devices() if devices is None else devices).kind != "cuda":
        return ()
    kinds = _types(config)
    missing = [one for one in fast_kernels() if one.types & kinds and find_spec(one.module) is None]
    return (*_slow(config, missing), *_flash_attention(config))


def _types(config: RunConfig) -> set[str]:
    """`model_type` of the model and of its language model."""
    name, cache_dir = config.model.model_name_or_path, config.model.cache_dir
    folder = folder_of(name, cache_dir)
    if folder is None:
        known = find_model(name)
        return set() if known is None else {known.type}
    settings = config_of(folder)
    parts = (settings, settings.get("text_config"))
    return {str(part.get("model_type")) for part in parts if isinstance(part, dict)}


def _slow(config: RunConfig, missing: list[Kernels]) -> tuple[Problem, ...]:
    if not missing:
        return ()
    packages = " and ".join(one.package for one in missing)
    layers = " and ".join(one.layers for one in missing)
    message = (
        f"{packages} {'is' if len(missing) == 1 else 'are'} not installed: this model's layers of {layers} run in "
        "plain PyTorch. The results are the same; training takes several times as long and more memory. Run: "
        f"{' && '.join(one.command for one in missing)}."
    )
    return (Problem("violation", KEY, config.get(KEY), message, (), "warning", keys=(KEY,)),)


def _flash_attention(config: RunConfig) -> tuple[Problem, ...]:
    chosen = config.model.flash_attn
    module, command = FLASH.get(chosen, ("", ""))
    if not module or find_spec(module) is not None or find_spec("kernels") is not None:  # it downloads them
        return ()
    message = (
        f"`flash_attn` {chosen} needs FlashAttention, which is not installed. {command}; or set `auto`: LLF's own "
        "attention needs no package."
    )
    fix = Fix("Set to auto", {"flash_attn": "auto"})
    return (Problem("violation", "flash_attn", chosen, message, (fix,), "error", keys=("flash_attn",)),)
