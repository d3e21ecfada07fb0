"""Splits a batch into smaller ones with the same documents in the same order."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from llf_core.config.ignore_index import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Batch = Mapping[str, Any]

PAD_MULTIPLE = 8  # as the collator pads
PER_GROUP = ("numbers", "reference", "good")
"""Columns with one row for each group of answers to the same question."""
PER_TOKEN = ("old_log_probs", "old_values", "advantages", "returns")
"""Columns with one value for each token of the answers, see `llf_core.stages.ppo.rollout`."""
ANSWER_COLUMNS = ("predictors", "targets", "answers", "ends", "forks", "groups", *PER_GROUP, *PER_TOKEN)
TEXT_COLUMNS = frozenset(
    ("input_ids", "labels", "attention_mask", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q",
     "max_length_k", *ANSWER_COLUMNS)
)  # fmt: skip
"""Columns of a text batch. Image tensors differ in layout between models, so batches with media are not split."""


def has_media(batch: Batch) -> bool:
    """Whether a batch has columns beyond those of text. It cannot be split, since their layout depends on the model."""
    return not batch.keys() <= TEXT_COLUMNS


def document_count(batch: Batch) -> int:
    """Number of documents of a batch; for a batch of answers, number of groups with the same prompt."""
    if "groups" in batch:
        groups: int = batch["groups"]
        return groups
    if "cu_seq_lens_q" in batch:
        return len(batch["cu_seq_lens_q"]) - 1
    return len(batch["input_ids"])


def token_count(batch: Batch) -> Tensor:
    """Number of tokens of a batch without padding, an int64 scalar on its device."""
    if "cu_seq_lens_q" in batch:
        end: Tensor = batch["cu_seq_lens_q"][-1]
        return end.long()
    total: Tensor = batch["attention_mask"].sum()
    return total


def trained_token_count(batch: Batch) -> Tensor:
    """Number of labels of a batch that contribute to the loss, an int64 scalar on its device.

    These are all labels but -100, without the first label of a row. For a batch of answers, they are its `targets`.
    """
    targets: Tensor | None = batch.get("targets")
    if targets is not None:
        return targets.new_tensor(len(targets))
    learned: Tensor = (batch["labels"][..., 1:] != IGNORED).sum()
    return learned


def split_batch(batch: Batch, parts: int) -> list[dict[str, Any]]:
    """Split a batch between documents, or groups of answers; the sum of a loss over all tokens stays the same.

    ```
    flattened [1, 9], cu_seq_lens_q [0, 4, 6, 9], in 2  ->  [1, 4] [0, 4]   and   [1, 5] [0, 2, 5]
    padded [3, 16], lengths 9, 3, 5, in 2               ->  [2, 16]         and   [1, 8]
    ```

    Args:
        batch: flattened (`[1, tokens]`), or padded on the right (`[batch, seq]`); see `llf_core.data.Collator`.

    Returns:
        Batches of the same kind; columns of tokens are views. Flattened batches are balanced by tokens: the largest
        part is as small as possible. Padded batches have the same number of rows or groups (the first ones one more, if
        it does not divide evenly), and are as wide as their longest row, rounded up to a multiple of 8.
    """
    parts = min(parts, document_count(batch))
    if parts <= 1 or has_media(batch):
        return [dict(batch)]
    each = 1
    if "groups" in batch:  # a group is one document, or one document for each of its answers
        each = (len(batch.get("cu_seq_lens_q", batch["input_ids"])) - ("cu_seq_lens_q" in batch)) // batch["groups"]
    if "cu_seq_lens_q" in batch:
        ends = batch["cu_seq_lens_q"][::each].tolist()
        cuts = balanced_cuts([end - start for start, end in pairwise(ends)], parts)
        pieces = [slice(each * first, each * last) for first, last in pairwise(cuts)]
        made = [_documents(batch, piece) for piece in pieces]
        starts = [ends[cut] for cut in cuts[:-1]]
    else:
        rows = len(batch["input_ids"]) // each
        cuts = [0, *accumulate(rows // parts + (part < rows % parts) for part in range(parts))]
        made = [_rows(batch, slice(each * first, each * last)) for first, last in pairwise(cuts)]
        starts = [each * cut * batch["input_ids"].shape[1] for cut in cuts[:-1]]
    if "groups" not in batch:
        return made
    return [
        part | _answers(batch, slice(first, last), start, part["input_ids"].shape[1])
        for part, (first, last), start in zip(made, pairwise(cuts), starts, strict=True)
    ]


def balanced_cuts(lengths: Sequence[int], parts: int) -> list[int]:
    """Partition a sequence into contiguous parts so that the largest sum is as small as possible, by binary search.

    The linear partition problem: Skiena, The Algorithm Design Manual, 2nd edition, section 8.5.

    Args:
        lengths: positive integers.
        parts: number of parts, from 1 to `len(lengths)`; none of them is empty.

    Returns:
        `parts + 1` increasing positions, from 0 to `len(lengths)`.
    """
    low, high = max(lengths), sum(lengths)
    while low < high:
        middle = (low + high) // 2
        if _runs_needed(lengths, middle) <= parts:
            high = middle
        else:
            low = middle + 1
    cuts, filled = [0], 0
    for place, length in enumerate(lengths):
        runs_left = parts - len(cuts)
        if place > cuts[-1] and runs_left and (filled + length > low or len(lengths) - place == runs_left):
            cuts.append(place)
            filled = 0
        filled += length
    return [*cuts, len(lengths)]


def _runs_needed(lengths: Sequence[int], most: int) -> int:
    runs, filled = 1, 0
    for length in lengths:
        if filled + length > most:
            runs, filled = runs + 1, 0
        filled += length
    return runs


def _documents(batch: Batch, documents: slice) -> dict[str, Any]:
    ends = batch["cu_seq_lens_q"][documents.start : documents.stop + 1].tolist()
    tokens = slice(ends[0], ends[-1])
    shape = batch["input_ids"].shape
    cu: Tensor = batch["cu_seq_lens_q"].new_tensor([end - ends[0] for end in ends])
    longest = max(end - start for start, end in pairwise(ends))
    own = {"cu_seq_lens_q": cu, "cu_seq_lens_k": cu, "max_length_q": longest, "max_length_k": longest}
    if "numbers" in batch and "groups" not in batch:
        own["numbers"] = batch["numbers"][documents]
    return {
        key: own[key] if key in own else value[:, tokens] if _shape(value)[:2] == shape else value
        for key, value in batch.items()
    }


def _rows(batch: Batch, rows: slice) -> dict[str, Any]:
    shape = batch["input_ids"].shape
    longest = int(batch["attention_mask"][rows].sum(-1).max())
    columns = slice(-(-longest // PAD_MULTIPLE) * PAD_MULTIPLE)
    return {
        key: value[rows, columns]
        if _shape(value)[:2] == shape
        else value[rows]
        if _shape(value)[:1] == shape[:1] and "groups" not in batch
        else value
        for key, value in batch.items()
    }


def _answers(batch: Batch, groups: slice, start: int, width: int) -> dict[str, Any]:
    """Columns of some groups besides the model's inputs.

    Args:
        start: position of their first token in the batch, counted row by row.
    """
    each = len(batch["ends"]) // batch["groups"]
    first, last = groups.start * each, groups.stop * each
    own = (batch["answers"] >= first) & (batch["answers"] < last)
    padded, whole = "cu_seq_lens_q" not in batch, batch["input_ids"].shape[1]

    def moved(places: Tensor) -> Tensor:
        places = places - start
        return places // whole * width + places % whole if padded else places

    found = {
        "groups": groups.stop - groups.start,
        "predictors": moved(batch["predictors"][own]),
        "targets": batch["targets"][own],
        "answers": batch["answers"][own] - first,
        "ends": moved(batch["ends"][first:last]),
        **({"forks": batch["forks"][groups] - start} if "forks" in batch else {}),
    }
    found |= {name: batch[name][own] for name in PER_TOKEN if name in batch}
    return found | {name: batch[name][groups] for name in PER_GROUP if name in batch}


def _shape(value: object) -> tuple[int, ...]:
    shape: tuple[int, ...] = getattr(value, "shape", ())
    return shape
