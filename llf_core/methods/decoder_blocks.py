"""Transformer blocks of a model and the names of their modules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llf_core.models.architecture import multimodal_parts
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from transformers import PreTrainedModel

BLOCK = re.compile(r"^(?P<stack>(?:\w+\.)*?)(?P<index>\d+)\.(?P<rest>.+)$")


def block_count(model: PreTrainedModel) -> int:
    """Number of transformer blocks, from the model's config; ModelError if it does not have it."""
    text_config = model.config.get_text_config()
    for key in ("num_hidden_layers", "num_layers", "n_layer", "n_layers"):
        count = getattr(text_config, key, None)
        if count:
            return int(count)
    raise ModelError(
        f"{type(model).__name__} does not say how many layers it has, so its layers cannot be frozen one by one. "
        "Train it with finetuning_type lora or full."
    )


def block_list(model: PreTrainedModel) -> nn.ModuleList:
    """The module list of the language model's transformer blocks; ModelError if it is not found."""
    from torch import nn

    depth, encoders = block_count(model), multimodal_parts(model)
    for path, module in model.named_modules():
        listed = isinstance(module, nn.ModuleList) and len(module) == depth and path not in encoders
        if listed and next(module.parameters(), None) is not None:
            assert isinstance(module, nn.ModuleList)  # noqa: S101 - for the type
            return module
    raise ModelError(f"{type(model).__name__} keeps its {depth} layers in no list, so none can be inserted.")


def block_of(parameter: str) -> tuple[int, str] | None:
    """Split `model.layers.3.mlp.up_proj.weight` into `(3, "mlp.up_proj.weight")`; None outside the blocks."""
    found = BLOCK.match(parameter)
    return None if found is None else (int(found["index"]), found["rest"])


def block_modules(parameters: Iterable[str]) -> set[str]:
    """Names of modules in blocks, for `freeze_trainable_modules`."""
    names: set[str] = set()
    for parameter in parameters:
        inside = block_of(parameter)
        if inside is not None:
            names.update(inside[1].split(".")[:-1])
    return {name for name in names if not name.isdigit()}


def outer_modules(parameters: Iterable[str]) -> set[str]:
    """Names of modules with parameters outside the blocks, e.g. `embed_tokens`, `norm`, for `freeze_extra_modules`."""
    return {parameter.split(".")[-2] for parameter in parameters if block_of(parameter) is None and "." in parameter}


def require_known(key: str, requested: Iterable[str], known: set[str]) -> None:
    """Check that the model has all named modules; ModelError lists those that are missing and the possible names."""
    missing = [name for name in requested if name not in known]
    if missing:
        raise ModelError(
            f"{key}: the model has no {', '.join(missing)}. Choose from: {', '.join(sorted(known)) or 'none'}."
        )
