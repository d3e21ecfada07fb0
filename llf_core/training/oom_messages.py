"""Messages after out of memory: what did not fit, how the run continues, what to change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.data.batch_split import document_count, token_count
from llf_core.stages.base.oom_retry import DoesNotFitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Batch = Mapping[str, Any]


def training_goes_on(  # noqa: PLR0913 - what the sentence says
    part: Batch, count: int, *, step: int, size: int, accumulation: int, batch_dependent: bool
) -> str:
    """The sentence of a training step that is made again in smaller parts.

    Args:
        part: what did not fit.
        count: parts of a batch from here on.
        step: the step, counted from 1.
        size: `per_device_train_batch_size` of the config.
        accumulation: `gradient_accumulation_steps` of the config.
        batch_dependent: whether the stage's loss compares the examples of a micro-batch with each other.
    """
    smaller = smaller_size(size, count)
    remedy = (
        f"per_device_train_batch_size {smaller} with gradient_accumulation_steps {accumulation * count} "
        "does so from the start."
        if size > 1
        else "A lower cutoff_len or gradient_checkpointing needs less memory from the start."
    )
    return (
        f"Out of memory on {_amount(part)} at once in step {step}. The step is made again, and every "
        f"one after it, with each batch in {count} parts: {_examples(size)} at a time become {_examples(smaller)}, "
        f"accumulation of {accumulation} becomes {accumulation * count}, "
        f"{_and_the_result(batch_dependent=batch_dependent)}. {remedy}"
    )


def evaluation_goes_on(part: Batch, count: int, *, size: int, batch_dependent: bool) -> str:
    """The same for an evaluation, where `size` is `per_device_eval_batch_size`."""
    smaller = smaller_size(size, count)
    remedy = f" per_device_eval_batch_size {smaller} does so from the start." if size > 1 else ""
    return (
        f"Out of memory when evaluating {_amount(part)} at once. They are evaluated in parts, {count} a "
        f"batch from here on, {_and_the_result(batch_dependent=batch_dependent)}.{remedy}"
    )


def _and_the_result(*, batch_dependent: bool) -> str:
    if batch_dependent:
        return "and since the loss compares the examples of a part with each other, the result is not quite the same"
    return "and the result stays the same"


def smaller_size(size: int, count: int) -> int:
    """Examples of a batch of `size` that are computed at a time when it is split into `count` parts."""
    return math.ceil(size / count)


def less_a_token(*, checkpointed: bool) -> str:
    """What lowers the memory that a token costs."""
    on = "" if checkpointed else "turn gradient_checkpointing on, "
    return f"Lower cutoff_len, {on}or take a smaller model."


def one_example(part: Batch, dataset: Iterable[Mapping[str, Any]], *, checkpointed: bool) -> DoesNotFitError:
    """The error of an example that is too large even alone.

    Args:
        part: a batch of this example only.
        dataset: where it comes from, to find its number.
        checkpointed: whether gradient checkpointing is on.
    """
    tokens = int(token_count(part))
    example = _example_of(part, dataset) or {}
    name = f"Example {example['index'] + 1}" if "index" in example else "One example"
    longest = max((len(example[key]) for key in example if key.endswith("_ids")), default=tokens)
    return DoesNotFitError(
        f"{name} of {tokens:,} tokens does not fit into the memory even alone.",
        f"{less_a_token(checkpointed=checkpointed)} A cutoff_len below {longest} cuts it.",
    )


def with_media(part: Batch, *, size: int, accumulation: int, checkpointed: bool) -> DoesNotFitError:
    """The error of a batch with pictures, which is not taken apart."""
    remedy = _smaller_batches(size, accumulation, checkpointed=checkpointed)
    return DoesNotFitError(f"Out of memory on {_amount(part)} with their pictures, which are not taken apart.", remedy)


def several_processes(
    part: Batch, *, size: int, accumulation: int, checkpointed: bool, batch_dependent: bool
) -> DoesNotFitError:
    """The error of a run of several processes, in which one alone cannot make a step again: the others wait for it."""
    remedy = _smaller_batches(size, accumulation, checkpointed=checkpointed, batch_dependent=batch_dependent)
    return DoesNotFitError(
        f"One process ran out of memory on {_amount(part)}, and a step of several processes is not "
        "made again in smaller parts.",
        remedy,
    )


def _smaller_batches(size: int, accumulation: int, *, checkpointed: bool, batch_dependent: bool = False) -> str:
    """What makes a step again in smaller parts by hand; for batches of one example, what lowers a token's memory."""
    if size == 1:
        return less_a_token(checkpointed=checkpointed)
    return (
        f"Train with per_device_train_batch_size {smaller_size(size, 2)} and gradient_accumulation_steps "
        f"{accumulation * 2}{'' if batch_dependent else ': the result is the same'}."
    )


def _amount(part: Batch) -> str:
    return f"{_examples(document_count(part))} ({token_count(part):,} tokens)"


def _examples(count: int) -> str:
    return "1 example" if count == 1 else f"{count} examples"


def _example_of(part: Batch, dataset: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The example that a batch of one is made of; rows of packed examples are looked into."""
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
