"""Combines several LoRAs into one, with weights, by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.export.errors import ExportError
from llf_core.models.adapter_folder import adapter_settings
from llf_core.models.adapter_loading import load_beside
from llf_core.models.checksums import DEFAULT_ADAPTER
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peft import PeftModel

    from llf_core.config import RunConfig
    from llf_core.export.request import ExportRequest

COMBINED = "combined"
LEFT_OUT = ("use_dora", "use_rslora", "lora_bias", "modules_to_save", "trainable_token_indices")
"""Options that PEFT's combination ignores."""
SEED = 0
"""Seed of DARE (arXiv 2311.03099), so that an export can be repeated."""


def combine_adapters(
    model: PeftModel, folders: Sequence[Path], weights: Sequence[float], request: ExportRequest, config: RunConfig
) -> PeftModel:
    """Load further adapters beside the first, and activate their weighted combination; the others are removed.

    TIES: arXiv 2306.01708; DARE: arXiv 2311.03099; PEFT's `add_weighted_adapter`.

    Raises:
        ExportError: an adapter is no LoRA or has options that PEFT's combination ignores, or PEFT cannot combine them.
    """
    import torch

    _check(folders)
    names = [DEFAULT_ADAPTER, *(f"adapter_{number}" for number in range(1, len(folders)))]
    weights = list(weights)
    for name, folder in zip(names[1:], folders[1:], strict=True):
        load_beside(model, str(folder), name, config)
    try:
        one = len(names) == 1
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            tuner: Any = model.base_model
            kind = "cat" if one else request.combination
            tuner.add_weighted_adapter(names, weights, COMBINED, combination_type=kind, density=request.density)
        model.set_adapter(COMBINED)
        for name in names:
            model.delete_adapter(name)
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise ExportError(f"PEFT cannot combine these adapters ({request.combination}): {first_line(error)}") from error
    model.requires_grad_(requires_grad=False)
    return model


def _check(folders: Sequence[Path]) -> None:
    """Refuse what PEFT's combination would ignore."""
    for folder in folders:
        settings = adapter_settings(folder)
        kind = settings.peft_type.value
        if kind != "LORA":
            raise ExportError(
                f"{folder} is an adapter of type {kind}. Adapters with weights are combined where all are LoRAs: "
                "convert it with --format adapter --rank R first."
            )
        odd = next((key for key in LEFT_OUT if getattr(settings, key, None)), None)
        if odd is not None:
            raise ExportError(
                f"The adapter {folder} has {odd}, which PEFT's combination of adapters leaves out. Expected plain "
                "LoRAs: export it as merged alone, and combine the others on that model."
            )
        if getattr(settings, "bias", "none") != "none":
            raise ExportError(f"The adapter {folder} has bias: {settings.bias}. Expected plain LoRAs with bias: none.")
