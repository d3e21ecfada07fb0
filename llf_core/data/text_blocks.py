"""Joins texts and cuts them into blocks of equal length, as LLaMA-Factory does for `pt`."""

from __future__ import annotations

from array import array
from itertools import groupby, islice
from typing import TYPE_CHECKING

import numpy as np

from llf_core.data.example import Example
from llf_core.data.example_store import SET_COLUMN, ExampleWriter
from llf_core.data.formats.conversation import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

GROUP = 1000
"""Maximum number of texts that are joined; the tokens at their end that do not fill a block are left out."""


def group_ends(texts: int, shards: int | None) -> list[int]:
    """Ends of the groups of texts that are joined: up to `GROUP` texts of a shard, as by `datasets.Dataset.map`.

    Args:
        shards: `preprocessing_num_workers`: LLaMA-Factory divides the texts among as many processes.
    """
    count = max(1, min(shards or 1, texts))
    ends: list[int] = []
    start = 0
    for shard in range(count):
        end = start + texts // count + (shard < texts % count)
        ends += [*range(start + GROUP, end, GROUP), end]
        start = end
    return ends


def plan_blocks(lengths: NDArray[np.int64], size: int, shards: int | None) -> tuple[list[int], int]:
    """Ends of the groups of texts, and tokens of a block; texts that fill no block give a single shorter one.

    Args:
        lengths: `[texts]`, tokens of each text.
        size: `cutoff_len`.
    """
    ends, sums = group_ends(len(lengths), shards), np.cumsum(lengths)
    tokens = np.diff(sums[np.array(ends) - 1], prepend=0)
    return (ends, size) if tokens.max() >= size else ([len(lengths)], min(size, int(sums[-1])))


def write_blocks(
    path: Path, texts: Dataset, counts: NDArray[np.int64], plan: tuple[list[int], int], first: int | None
) -> None:
    """Write the blocks of prepared texts to a file of examples; a block belongs to the record of its first token.

    Args:
        texts: the texts, each with its end token, at least one.
        counts: `[texts, columns]`, see `llf_core.data.example_store.COUNT_COLUMNS`.
        plan: result of `plan_blocks`.
        first: replaces the first token of each block; None to keep it.
    """
    ends, size = plan
    table, start = texts.with_format("arrow"), 0
    with ExampleWriter(path, TEXTS) as writer:
        for end in ends:
            part = table[start:end]
            lists = part["input_ids"].combine_chunks()
            indices = part["index"].to_numpy()
            places = _cut(lists.flatten().to_numpy(), lists.value_lengths().to_numpy(), size, first)
            made = [(int(counts[start + at, SET_COLUMN]), _example(int(indices[at]), ids)) for at, ids in places]
            for number, examples in groupby(made, key=lambda one: one[0]):
                writer.write([example for _, example in examples], number)
            start = end


def stream_blocks(texts: Iterable[Example], size: int, first: int | None) -> Iterator[Example]:
    """Join streamed texts in groups and cut them into blocks; texts that fill no block give a single shorter one."""
    texts, found = iter(texts), False
    while group := list(islice(texts, GROUP)):
        lengths = np.array([len(one.ids) for one in group])
        ids = np.concatenate([np.asarray(one.ids, dtype=np.int32) for one in group])
        own = size if found else min(size, len(ids))
        found = True
        yield from (_example(group[at].index, block) for at, block in _cut(ids, lengths, own, first))


def first_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that begins each sequence of a model; None if the tokenizer adds none."""
    return tokenizer.bos_token_id if getattr(tokenizer, "add_bos_token", False) else None


def _cut(
    ids: NDArray[np.int32], lengths: NDArray[np.int64], size: int, first: int | None
) -> Iterator[tuple[int, array[int]]]:
    """Position of the text of each block's first token, and the block's tokens `[size]`."""
    ends = np.cumsum(lengths)
    for start in range(0, len(ids) - size + 1, size):
        block = array("i", ids[start : start + size].astype(np.int32).tobytes())
        if first is not None:
            block[0] = first
        yield int(np.searchsorted(ends, start, side="right")), block


def _example(index: int, ids: array[int]) -> Example:
    return Example(index, ids, ids, 0, 0, len(ids) - 1)
