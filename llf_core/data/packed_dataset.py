"""A data set of packed rows, for the trainer's data loader where `packing` is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
