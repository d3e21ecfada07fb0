"""Checks of options that several formats share, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import did_you_mean
from llf_core.export.errors import ExportError
from llf_core.export.request import COMBINATIONS, DEVICES, DTYPES

if TYPE_CHECKING:
    from llf_core.export.request import ExportRequest

MIN_SHARD = 1_000_000
"""Smaller shards would make a file of nearly each tensor."""
PRUNING = ("ties", "dare", "magnitude")
"""Prefixes of combinations that need a density."""


def check_reward_model(request: ExportRequest, supported: bool) -> None:
    """Check that a format and its options are for a reward model too."""
    if not supported:
        raise ExportError(
            f"{request.target.name} is a reward model, which the format {request.format} has no place for: its head "
            "maps to a score. Expected the format merged or adapter."
        )
    if len(request.adapters) > 1:
        raise ExportError(
            f"{request.target.name} is a reward model, and {len(request.adapters)} adapters are named. Expected one: "
            "the heads of several have no meaningful sum."
        )
    if request.rank is not None:
        raise ExportError(f"`rank` is {request.rank}, and {request.target.name} is a reward model. Expected none.")


def check_device(request: ExportRequest) -> None:
    """Check that the device is one of `DEVICES`."""
    if request.device not in DEVICES:
        raise ExportError(f"`device` is {request.device!r}. Expected {' or '.join(DEVICES)}.")


def check_quantizations(request: ExportRequest) -> None:
    """Check that no quantizations are named, for the formats that write none or a single one."""
    if request.quantizations:
        raise ExportError(f"`quantizations` is for the format gguf. Expected none for {request.format}.")


def check_dtype(request: ExportRequest) -> None:
    """Check that the dtype of the written weights is one of `DTYPES`."""
    if request.dtype not in DTYPES:
        meant = did_you_mean(request.dtype, DTYPES)
        raise ExportError(f"`dtype` is {request.dtype!r}.{meant} Expected one of {', '.join(DTYPES)}.")


def check_shards(request: ExportRequest) -> None:
    """Check that the maximum size of a weight file is at least `MIN_SHARD`."""
    if request.shard_bytes < MIN_SHARD:
        raise ExportError(f"`shard_size` is {request.shard_bytes} bytes. Expected at least 1 MB, such as 5GB.")


def check_combination(request: ExportRequest) -> None:
    """Check how several adapters are combined: a known combination, with a density where it uses one."""
    if request.combination not in COMBINATIONS:
        meant = did_you_mean(request.combination, COMBINATIONS)
        raise ExportError(
            f"`combination` is {request.combination!r}.{meant} Expected one of {', '.join(COMBINATIONS)}."
        )
    if request.density is not None and not 0 < request.density <= 1:
        raise ExportError(f"`density` is {request.density}. Expected a share above 0 and at most 1.")
    if request.density is not None and not request.combination.startswith(PRUNING):
        raise ExportError(f"`density` is {request.density}, and {request.combination} keeps all values. Expected none.")
    if len(request.adapters) > 1 and request.combination.startswith(PRUNING) and request.density is None:
        raise ExportError(
            f"The combination {request.combination} drops a part of each adapter's values. Expected `density`, the "
            "share that is kept, such as 0.5."
        )
