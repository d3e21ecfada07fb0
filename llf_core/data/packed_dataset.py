"""Examples as packed rows: what a trainer's data loader draws from where `packing` is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.data.errors import DataError
from llf_core.data.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PackedRows:
    """A map-style data set whose items are rows of several examples, `{"examples": [example, …]}`.

    Which examples share a row never changes, so that the order of the rows (the Trainer's sampler shuffles them
    each epoch) is the order of everything, and a resumed run meets the same batches. Examples are read when their
    row is asked for.

    Attributes:
        examples: `input_ids`, `labels`, `index`.
        members: `[examples]`, their numbers, row after row.
        ends: `[rows]`, where each row ends in `members`.
        capacity: tokens that a row has room for.
        tokens: of all examples.
    """

    examples: Dataset
    members: NDArray[np.int64]
    ends: NDArray[np.int64]
    capacity: int
    tokens: int

    @classmethod
    def of(cls, examples: Dataset, lengths: NDArray[np.int64], capacity: int, seed: int) -> PackedRows:
        """Packs examples by best-fit decreasing.

        Args:
            examples: to pack.
            lengths: `[examples]`, tokens of each.
            capacity: tokens that a row has room for, at least those of the longest example.
            seed: decides among examples of equal length, so that neighbours of a file that is sorted by subject
                do not share rows.
        """
        shuffled = np.random.default_rng(seed).permutation(len(lengths))
        rows = pack(lengths[shuffled], capacity)
        # In the order of the file, within a row and among rows: it is best read forward, and rows that are trained in
        # sequence must not go from long examples to short ones.
        members = sorted((np.sort(shuffled[row]) for row in rows), key=lambda row: int(row[0]))
        ends = np.cumsum([len(row) for row in members], dtype=np.int64)
        return cls(examples, np.concatenate(members), ends, capacity, int(lengths.sum()))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> dict[str, list[dict[str, Any]]]:
        """The examples of a row; a negative number counts from the last one."""
        row = range(len(self))[row]
        start = self.ends[row - 1] if row else 0
        columns = self.examples[self.members[start : self.ends[row]].tolist()]
        return {"examples": [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]}

    def __iter__(self) -> Iterator[dict[str, list[dict[str, Any]]]]:
        return (self[row] for row in range(len(self)))

    @property
    def filled(self) -> float:
        """Share of all rows' room that holds tokens, from above 0 to 1."""
        return self.tokens / (len(self) * self.capacity)

    def few(self, step: int) -> str | None:
        """A sentence for a warning where a whole epoch is one optimizer step because of the packing; else None.

        Args:
            step: rows that an optimizer step takes.
        """
        if not len(self) <= step < len(self.members):
            return None
        return (
            f"With `packing` an epoch is one step: the {len(self.members):,} examples fit into {len(self):,} rows, and "
            f"a step takes {step:,}. Lower `gradient_accumulation_steps` or `per_device_train_batch_size` for more "
            "steps, or take `packing` out."
        )


def check_packing(*, packing: bool, flattens: bool, why: str = "") -> None:
    """Refuses packed rows for a model that would let the examples of a row see each other.

    Args:
        packing: whether the config asks for packed rows.
        flattens: whether the model takes flattened batches; known once it is loaded.
        why: the reason where it does not, as a sentence.

    Raises:
        DataError: packed rows are asked for, and the model does not take them.
    """
    if packing and not flattens:
        raise DataError(
            f"`packing` is true, but with this model the examples of a row would see each other. {why}".rstrip()
            + " Expected `packing: false`: the same examples are learned from, each in a row of its own."
        )
