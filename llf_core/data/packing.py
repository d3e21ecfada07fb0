"""Packs examples into rows of at most `cutoff_len` tokens, or joins texts and cuts them into equal blocks."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING

import numpy as np

from llf_core.data.conversation import TEXTS
from llf_core.data.errors import DataError
from llf_core.data.example_store import SET_COLUMN, Example, ExampleWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import ArrayLike, NDArray
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class PackedRows:
    """A map-style data set whose items are rows of several examples, `{"examples": [example, …]}`.

    The examples of a row never change. The order of the rows, which the Trainer's sampler shuffles each epoch,
    determines everything else, so a resumed run gets the same batches. Examples are read when their row is accessed.

    Attributes:
        members: `[examples]`, positions of examples, row by row.
        ends: `[rows]`, end of each row in `members`.
        capacity: maximum number of tokens of a row.
        tokens: number of tokens of all examples.
    """

    examples: Dataset
    members: NDArray[np.int64]
    ends: NDArray[np.int64]
    capacity: int
    tokens: int

    @classmethod
    def of(cls, examples: Dataset, lengths: NDArray[np.int64], capacity: int, seed: int) -> PackedRows:
        """Pack examples by best-fit decreasing, see `llf_core.data.packing.pack`.

        Args:
            lengths: `[examples]`, int64, tokens.
            capacity: maximum number of tokens of a row, at least that of the longest example.
            seed: shuffles examples of equal length, so that neighbours in a file sorted by subject do not share rows.
        """
        shuffled = np.random.default_rng(seed).permutation(len(lengths))
        rows = pack(lengths[shuffled], capacity)
        # In the order of the file, within a row and among rows: the file is read forward, and rows that are trained in
        # sequence are not sorted by the length of their examples.
        members = sorted((np.sort(shuffled[row]) for row in rows), key=lambda row: int(row[0]))
        ends = np.cumsum([len(row) for row in members], dtype=np.int64)
        return cls(examples, np.concatenate(members), ends, capacity, int(lengths.sum()))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> dict[str, list[dict[str, object]]]:
        """Read the examples of a row."""
        row = range(len(self))[row]
        start = self.ends[row - 1] if row else 0
        columns = self.examples[self.members[start : self.ends[row]].tolist()]
        return {"examples": [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]}

    def __iter__(self) -> Iterator[dict[str, list[dict[str, object]]]]:
        return (self[row] for row in range(len(self)))

    @property
    def filled(self) -> float:
        """Fraction of all rows' capacity that holds tokens, in (0, 1]: the rest of each row is wasted computation."""
        return self.tokens / (len(self) * self.capacity)

    def one_step_warning(self, step: int) -> str | None:
        """Warning if only packing makes a whole epoch a single optimizer step of `step` rows; else None."""
        if not len(self) <= step < len(self.members):
            return None
        return (
            f"With `packing` an epoch is one step: the {len(self.members):,} examples fit into {len(self):,} rows, and "
            f"a step takes {step:,}. Lower `gradient_accumulation_steps` or `per_device_train_batch_size` for more "
            "steps, or remove `packing`."
        )


def check_packing(*, packing: bool, flattens: bool, why: str = "") -> None:
    """Refuse packed rows for a model that takes no flattened batches: the examples of a row would attend to each other.

    Args:
        why: the reason, as a sentence.
    """
    if packing and not flattens:
        raise DataError(
            f"`packing` is true, but with this model the examples of a row would attend to each other. {why}".rstrip()
            + " Expected `packing: false`: each example then has its own row."
        )


BITS = 64  # bits of a word, see `IntegerSet`


class IntegerSet:
    """A set of integers from 0 to `largest`, with a successor query in O(log largest).

    Level 0 has a bit for each number; level k+1 has a bit for each word of level k, set if that word is not 0 (Cormen
    et al., Introduction to Algorithms, 3rd edition, section 20.1). Arguments are not checked.
    """

    def __init__(self, largest: int) -> None:
        """Create an empty set."""
        self._levels: list[list[int]] = []
        size = largest + 1
        while True:
            size = -(-size // BITS)
            self._levels.append([0] * size)
            if size == 1:
                return

    def add(self, number: int) -> None:
        """Add a number."""
        for words in self._levels:
            number, bit = divmod(number, BITS)
            words[number] |= 1 << bit

    def discard(self, number: int) -> None:
        """Remove a number, if it is in the set."""
        for words in self._levels:
            number, bit = divmod(number, BITS)
            words[number] &= ~(1 << bit)
            if words[number]:
                return

    def smallest_from(self, number: int) -> int | None:
        """Find the smallest member that is at least `number`; None if there is none."""
        for level, words in enumerate(self._levels):
            place, bit = divmod(number, BITS)
            if place == len(words):
                return None
            rest = words[place] >> bit
            if rest:
                number += _lowest(rest)
                for lower in reversed(self._levels[:level]):
                    number = number * BITS + _lowest(lower[number])
                return number
            number = place + 1
        return None


def _lowest(word: int) -> int:
    return (word & -word).bit_length() - 1


def pack(lengths: ArrayLike, capacity: int) -> list[list[int]]:
    """Assign each example to a row, so that few rows are needed and none exceeds the capacity.

    Best-fit decreasing (Johnson 1973; for training data arXiv 2404.10830, section 3): from the longest to the shortest,
    each example goes to the row where it leaves the least space, or to a new row. Ties between rows go to the row
    filled last, ties between examples to the first example.

    ```
    lengths [3, 7, 5, 2, 3], capacity 10  ->  [[1, 0], [2, 4, 3]]      7 + 3    5 + 3 + 2
    ```

    Args:
        lengths: `[examples]`, tokens of each, from 1 to `capacity`.

    Returns:
        For each row the positions of its examples, the longest first. The number of rows is at most 11/9 of the optimum
        plus 4 (Johnson et al. 1974, SIAM Journal on Computing 3(4)).
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if not sizes.size:
        return []
    shortest, longest = int(sizes.min()), int(sizes.max())
    if shortest < 1 or longest > capacity:
        wrong = shortest if shortest < 1 else longest
        raise ValueError(f"An example has {wrong} tokens. Expected 1 to {capacity}, the capacity of a row.")

    capacity = min(capacity, int(sizes.sum()))  # a larger row than all examples needs no larger table
    order = np.argsort(-sizes, kind="stable")
    _, starts = np.unique(-sizes[order], return_index=True)
    rows: list[list[int]] = []
    with_space: defaultdict[int, list[int]] = defaultdict(list)
    spaces = IntegerSet(capacity)
    for run in np.split(order, starts[1:]):
        length, members, placed = int(sizes[run[0]]), run.tolist(), 0
        while placed < len(members):
            space = spaces.smallest_from(length)
            if space is None:
                space, row = capacity, len(rows)
                rows.append([])
            else:
                row = with_space[space].pop()
                if not with_space[space]:
                    spaces.discard(space)
            # As long as the next example of this length fits, this row still has the least space for it.
            count = min(space // length, len(members) - placed)
            rows[row] += members[placed : placed + count]
            placed += count
            left = space - count * length
            if left >= shortest:
                with_space[left].append(row)
                spaces.add(left)
    return rows


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
