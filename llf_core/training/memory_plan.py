"""Memory forecast of a run's largest step, and the decision about gradient checkpointing."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.name_checks.architecture_properties import indexed_limit
from llf_core.config.registry import stage_of
from llf_core.data import PackedRows
from llf_core.data.example_store import lengths
from llf_core.data.streaming import Stream
from llf_core.estimate.planned_step import largest_patches
from llf_core.models.gradient_checkpointing import CheckpointingChoice, choose_checkpointing, enable_checkpointing
from llf_core.models.step_forecast import forecast_step, free_memory
from llf_core.stages.base.ranks import from_all
from llf_core.training.past_run import patches_of
from llf_core.training.resolved_config import read_resolved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from llf_core.stages.base.context import TrainingContext

logger = logging.getLogger(__name__)

MULTIPLE = 8
"""Rows are padded to a multiple of this, as in the collator."""


def decide_checkpointing(
    context: TrainingContext, beside: Sequence[object] = (), *, resumes: bool
) -> CheckpointingChoice:
    """Enable gradient checkpointing if the config or the memory forecast requires it, and record the reason.

    A resumed run keeps the decision in its `resolved.yaml`, since another one would change its losses in the last
    bit. An event `memory` is written. Auxiliary models that are trained too (`beside`) get the same setting.
    """
    config = context.config
    batch = config.training.per_device_train_batch_size
    kind = stage_of(config).data_kind
    # Each with a mismatched completion; or a pair, whose second answer a stream does not tell the length of.
    twice = kind == "unpaired_preferences" or (kind == "pairs" and isinstance(context.data.train, Stream))
    drawn = stage_of(config).completion_tokens(config, 0)
    flattens = context.flattens and not stage_of(config).pads
    largest = partial(largest_batch, context.data.train, batch, twice=twice, drawn=drawn)
    tokens, longest = largest(flattens=flattens)
    limit = indexed_limit(context.model.config.to_dict())
    if limit is not None and longest > limit:  # computed without padding
        tokens, longest = largest(flattens=True)
    patches = largest_patches(config, patches_of(context))
    both = forecast_step(
        context.model, config, context.plan, tokens=tokens, longest=longest, fast=flattens, patches=patches,
        varies=varies(context.data.train),
    )  # fmt: skip
    plain, checkpointed = both or (None, None)
    available = free_memory(context.plan.device)
    if context.plan.device != "cuda":
        available //= config.launch.num_processes  # which share the memory of the machine
    if plain is not None and context.model.device.type != context.plan.device:  # its share is not there yet
        available -= plain.weights
    available = min(from_all(available))  # a rank that recomputes layers gathers them once more
    chosen = choose_checkpointing(config, context.model, plain, checkpointed, available)
    kept = _kept_choice(context) if resumes else None
    if kept is not None and kept != chosen.on and config.training.gradient_checkpointing is None:
        word = "on" if kept else "off"
        chosen = CheckpointingChoice(kept, f"Gradient checkpointing is {word}, as before the resume.")
    if chosen.on:
        for model in (context.model, *beside):
            enable_checkpointing(model, config)
    needed = checkpointed if chosen.on else plain
    context.writer.event(
        "memory",
        tokens=tokens,
        available=available,
        forecast=None if needed is None else needed.total,
        step=None if needed is None else needed.step,
        gradient_checkpointing=chosen.on,
        reason=chosen.reason,
    )
    logger.info(chosen.reason)
    return chosen


def _kept_choice(context: TrainingContext) -> bool | None:
    kept: bool | None = ((read_resolved(context.folder) or {}).get("gradient_checkpointing") or {}).get("on")
    return kept


def varies(train: Dataset | PackedRows | Stream) -> bool:
    """Whether batches have different numbers of tokens, for each of which a CPU compiles its kernels."""
    if isinstance(train, PackedRows):
        return False
    return isinstance(train, Stream) or len(np.unique(lengths(train))) > 1


def largest_batch(
    train: Dataset | PackedRows | Stream, batch: int, *, flattens: bool, twice: bool = False, drawn: int = 0
) -> tuple[int, int]:
    """Tokens of the largest possible micro-batch, padding included, and of the longest example.

    Args:
        train: examples, or packed rows; for a stream every example may have `cutoff_len` tokens.
        twice: whether each is joined with the completion of another one, which may be as long as the longest.
        drawn: maximum number of tokens sampled after each example.
    """
    if isinstance(train, Stream):
        longest = train.capacity + drawn
        each = longest if flattens else padded(longest)
        return batch * (1 + twice) * each, longest
    if isinstance(train, PackedRows):
        return batch * train.capacity, int(lengths(train.examples).max())
    own = lengths(train)
    longest = int(own.max())
    second = "rejected_ids" if "rejected_ids" in train.column_names else None
    other = lengths(train, second) if second else np.full_like(own, longest) if twice else np.zeros_like(own)
    longest = max(longest, int(other.max())) + drawn
    if flattens:
        return int((np.sort(own + other)[::-1][:batch] + drawn).sum()), longest
    rows = (batch if drawn else min(batch, len(own))) * (1 + bool(other.any()))
    return rows * padded(longest), longest


def padded(tokens: int) -> int:
    """Padded length of an example, a multiple of 8 as in the collator."""
    return -(-tokens // MULTIPLE) * MULTIPLE
