"""Memory forecast of a run's largest step, checkpointing of gradients, and what to change after out of memory."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.name_checks.architecture_properties import indexed_limit
from llf_core.config.number_format import with_unit
from llf_core.config.registry import stage_of
from llf_core.data import PackedRows
from llf_core.data.collate import document_count, token_count
from llf_core.data.example_store import lengths
from llf_core.data.streaming import Stream
from llf_core.estimate.planned_step import largest_patches
from llf_core.models.gradient_checkpointing import CheckpointingChoice, choose_checkpointing, enable_checkpointing
from llf_core.models.step_forecast import forecast_step, free_memory
from llf_core.stages.base.loop import DoesNotFitError
from llf_core.stages.base.ranks import from_all, rank, world_size
from llf_core.training.past_run import patches_of
from llf_core.training.resolved_config import read_resolved

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from datasets import Dataset

    from llf_core.stages.base.context import TrainingContext

    Batch = Mapping[str, Any]

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


def training_retry_message(  # noqa: PLR0913 - the values in the message
    part: Batch, count: int, *, step: int, size: int, accumulation: int, batch_dependent: bool
) -> str:
    """Message for a training step that is repeated in smaller parts, with the settings that avoid it next time.

    Args:
        part: the batch that did not fit, `[1, tokens]` or `[batch, seq]`.
        size, accumulation: `per_device_train_batch_size` and `gradient_accumulation_steps` in the config.
    """
    smaller = smaller_size(size, count)
    remedy = (
        f"per_device_train_batch_size {smaller} with gradient_accumulation_steps {accumulation * count} avoids this."
        if size > 1
        else "A lower cutoff_len or gradient_checkpointing needs less memory."
    )
    return (
        f"Out of memory on {_amount(part)} at once in step {step}{_rank()}. This step is repeated, and every "
        f"one after it, with each batch in {count} parts: {_examples(size)} at a time become {_examples(smaller)}, "
        f"accumulation of {accumulation} becomes {accumulation * count}, "
        f"{_and_the_result(batch_dependent=batch_dependent)}. {remedy}"
    )


def evaluation_retry_message(part: Batch, count: int, *, size: int, batch_dependent: bool) -> str:
    """Message for an evaluation that continues in smaller parts after a batch `[1, tokens]` or `[batch, seq]`."""
    smaller = smaller_size(size, count)
    remedy = f" per_device_eval_batch_size {smaller} avoids this." if size > 1 else ""
    return (
        f"Out of memory when evaluating {_amount(part)} at once. Evaluation continues in parts, {count} a "
        f"batch from here on, {_and_the_result(batch_dependent=batch_dependent)}.{remedy}"
    )


def _and_the_result(*, batch_dependent: bool) -> str:
    if batch_dependent:
        return "and since the loss compares the examples of a part with each other, the result differs slightly"
    return "and the result is the same"


def smaller_size(size: int, count: int) -> int:
    """Number of examples per part, rounded up: the batch size that messages and checkpoints name after a retry."""
    return math.ceil(size / count)


def _reduce_token_memory(*, checkpointed: bool) -> str:
    on = "" if checkpointed else "turn gradient_checkpointing on, "
    return f"Lower cutoff_len, {on}or use a smaller model."


def single_example_error(part: Batch, dataset: Iterable[Mapping[str, Any]], *, checkpointed: bool) -> DoesNotFitError:
    """Error for an example that does not fit even alone; an iterator `dataset` is used up by the search for it."""
    tokens = int(token_count(part))
    example = _example_of(part, dataset) or {}
    name = f"Example {example['index'] + 1}" if "index" in example else "One example"
    longest = max((len(example[key]) for key in example if key.endswith("_ids")), default=tokens)
    return DoesNotFitError(
        f"{name} of {tokens:,} tokens does not fit in memory, even alone{_rank()}.",
        f"{_reduce_token_memory(checkpointed=checkpointed)} A cutoff_len below {longest} truncates it.",
    )


def media_batch_error(part: Batch, *, size: int, accumulation: int, checkpointed: bool) -> DoesNotFitError:
    """Error for a batch `[1, tokens]` or `[batch, seq]` with images, which cannot be split."""
    remedy = _smaller_batches(size, accumulation, checkpointed=checkpointed)
    return DoesNotFitError(f"Out of memory on {_amount(part)} with their images, which cannot be split.", remedy)


def multi_process_error(
    part: Batch, *, size: int, accumulation: int, checkpointed: bool, batch_dependent: bool
) -> DoesNotFitError:
    """Error of a run with several processes, of which one ran out of memory on a batch `[1, tokens]` or `[batch, seq]`.

    It cannot repeat its step while the others wait for its gradients or shards.
    """
    remedy = _smaller_batches(size, accumulation, checkpointed=checkpointed, batch_dependent=batch_dependent)
    return DoesNotFitError(
        f"Out of memory on {_amount(part)}{_rank()}, and its step cannot be repeated in smaller parts while the others "
        "wait for its sums.",
        remedy,
    )


def layerwise_error(part: Batch, *, step: int, size: int, checkpointed: bool) -> DoesNotFitError:
    """Error for a step that updates in the backward pass, so that it cannot be repeated."""
    remedy = _reduce_token_memory(checkpointed=checkpointed)
    return DoesNotFitError(
        f"Out of memory on {_amount(part)} in step {step}, and with layer-wise updates a step cannot be repeated in "
        "smaller parts: some layers may be updated already.",
        remedy if size == 1 else f"Set per_device_train_batch_size to {smaller_size(size, 2)}. {remedy}",
    )


def _smaller_batches(size: int, accumulation: int, *, checkpointed: bool, batch_dependent: bool = False) -> str:
    """Advice to use smaller parts; for batches of one example, on the memory per token."""
    if size == 1:
        return _reduce_token_memory(checkpointed=checkpointed)
    return (
        f"Train with per_device_train_batch_size {smaller_size(size, 2)} and gradient_accumulation_steps "
        f"{accumulation * 2}{'' if batch_dependent else ': the result is the same'}."
    )


def _rank() -> str:
    return f", in process {rank()} of {world_size()} (counted from 0)" if world_size() > 1 else ""


def _amount(part: Batch) -> str:
    return f"{_examples(document_count(part))} ({token_count(part):,} tokens)"


def _examples(count: int) -> str:
    return with_unit(count, "example")


def _example_of(part: Batch, dataset: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The example in a batch of one, also within packed rows."""
    numbers, ids = part.get("numbers"), part["input_ids"][0]
    number = None if numbers is None or len(numbers) != 1 else int(numbers[0])
    if "attention_mask" in part:
        ids = ids[part["attention_mask"][0].bool()]
    wanted = ids.tolist()
    for row in dataset:
        for example in row.get("examples", [row]):
            known = number is not None and "number" in example
            if example["number"] == number if known else list(example.get("input_ids", ())) == wanted:
                return dict(example)
    return None
