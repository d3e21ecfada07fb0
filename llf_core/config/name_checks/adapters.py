"""Checks that the adapters of a config exist and are of the type that it asks for."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.model_folder import CheckResult, config_of, folder_of
from llf_core.config.peft_tuners import tuner_names
from llf_core.config.registry import declared, method_of
from llf_core.config.rule import Fix, Problem
from llf_core.config.stored_quantization import check_stored_quantization, is_quantized
from llf_core.config.weight_shapes import loaded_shapes, read_shapes, weight_files, weight_shapes
from llf_core.untrusted import MODEL_SETTINGS_BYTES, read_object_or_empty

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig
    from llf_core.config.values import ConfigValues
    from llf_core.config.weight_shapes import Shapes


TOWERS = ("vision_config", "audio_config")
"""Parts of the `config.json` of multimodal models: their towers are not trained, but headers list their weights."""


def check_adapters(config: RunConfig) -> CheckResult:
    """Check the method against a local model's quantization and shapes, and against the adapter that it continues."""
    return _check_quantization(config) + _check_shapes(config) + _check_type(config)


def _check_quantization(config: RunConfig) -> CheckResult:
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    problem = None if folder is None else check_stored_quantization(config, config_of(folder))
    return CheckResult((problem,) if problem else ())


def _check_type(config: RunConfig) -> CheckResult:
    names = config.model.adapter_name_or_path
    if not names or config.method.create_new_adapter or not method_of(config).adapter:
        return CheckResult()
    folder = folder_of(names[-1], config.model.cache_dir)
    path = "" if folder is None else folder / (config.model.adapter_folder or "") / "adapter_config.json"
    stored = read_object_or_empty(Path(os.path.realpath(path)), MODEL_SETTINGS_BYTES) if path else {}
    kind = stored.get("peft_type")
    problem = check_adapter_type(config, names[-1], kind) if isinstance(kind, str) else None
    return CheckResult((problem,) if problem else ())


def _check_shapes(config: RunConfig) -> CheckResult:
    check = method_of(config).check_shapes
    shapes = model_shapes(config) if check is not None else None
    problem = check(config, shapes) if check is not None and shapes else None
    return CheckResult((problem,) if problem else ())


def model_shapes(config: RunConfig) -> Shapes | None:
    """Read the shape of each weight of the config's model, by name; empty if its folder has no safetensors files.

    None if the shapes are not known on this machine, are those of packed integers, or some belong to vision or audio
    towers.
    """
    model = config.model.model_name_or_path
    if model == EMBEDDED:
        return weight_shapes(model)
    folder = folder_of(model, config.model.cache_dir)
    if folder is None or any(key in config_of(folder) for key in TOWERS) or is_quantized(config_of(folder)):
        return None
    return _read(folder, tuple((file.name, file.stat().st_mtime_ns) for file in weight_files(folder)))


@functools.lru_cache(maxsize=4)
def _read(folder: Path, _state: tuple[tuple[str, int], ...]) -> Shapes:
    """Cached until a file changes, since a form asks after every change."""
    return loaded_shapes(read_shapes(folder))


def check_adapter_type(config: ConfigValues, name: str, peft_type: str) -> Problem | None:
    """Check that the config's method continues adapters of a type: PEFT would load others, and train nothing of them.

    Args:
        peft_type: as in `adapter_config.json`.

    Returns:
        An error whose fixes are the methods that continue it, and a new adapter on the merged one.
    """
    method = method_of(config)
    own = method.tuner(config).peft_type if method.tuner else peft_type
    if own == peft_type:
        return None
    fixes = [
        Fix(f"Set finetuning_type: {one.name}", {"finetuning_type": one.name})
        for one in declared(MethodDeclaration).values()
        if one.tuner and one.tuner(config).peft_type == peft_type
    ]
    if not fixes and peft_type in tuner_names():
        fixes.append(
            Fix(
                f"Set finetuning_type: peft, peft_type: {peft_type}",
                {"finetuning_type": "peft", "peft_type": peft_type},
            )
        )
    fixes.append(Fix("Merge it and train a new adapter", {"create_new_adapter": True}))
    what_to_do = fixes[0].label if len(fixes) > 1 else "Set create_new_adapter: true"
    message = (
        f"{name} is an adapter of type {peft_type}, which finetuning_type {method.name} ({own}) cannot continue. "
        f"{what_to_do}."
    )
    keys = ("adapter_name_or_path", "finetuning_type")
    return Problem("violation", "adapter_name_or_path", name, message, tuple(fixes), keys=keys)
