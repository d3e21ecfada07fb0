"""Messages after out of memory: what did not fit, how the run continues, what to change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.data.collate import document_count, token_count
from llf_core.stages.base.loop import DoesNotFitError
from llf_core.stages.base.ranks import rank, world_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Batch = Mapping[str, Any]


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
