"""Lengths of training examples for a forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.config import RunConfig

QUANTILES = 201
PACKED_FILL = 0.97
"""Share of packed rows that examples fill, by best-fit decreasing."""


@dataclass(frozen=True)
class ExampleLengths:
    """Lengths of a data set's examples.

    Attributes:
        lengths: `[n]` int64, ascending, tokens before truncation, at least one; all examples, or quantiles of them.
        examples: number of training examples, without those that are held out for evaluation; None if unknown.
        exact: whether they were counted by the tokenizer.
        patches: maximum of the patches of images and videos of an example, which are the positions of an encoder.
    """

    lengths: NDArray[np.int64]
    examples: int | None
    basis: str
    exact: bool = False
    patches: int = 0

    def varies(self, cutoff: int) -> bool:
        """Whether examples, and with them the shapes of batches, differ in length up to `cutoff` tokens."""
        return bool(min(self.lengths[0], cutoff) != min(self.lengths[-1], cutoff))

    def mean(self, cutoff: int) -> float:
        """Mean tokens of an example after truncation to `cutoff` tokens."""
        return float(np.minimum(self.lengths, cutoff).mean())

    def longest(self, cutoff: int) -> int:
        """Tokens of the longest example after truncation to `cutoff` tokens."""
        return int(min(self.lengths[-1], cutoff))

    def padding(self, batch: int, cutoff: int) -> float:
        """Tokens of a padded batch divided by those of its examples, on average over shuffled batches.

        By the expected maximum of `batch` independent draws (David and Nagaraja, Order Statistics, section 2.1).
        """
        lengths = np.minimum(self.lengths, cutoff)
        below = np.arange(len(lengths) + 1) / len(lengths)
        return float((lengths * np.diff(below**batch)).sum() / lengths.mean())

    def rows(self, batch: int) -> int:
        """Examples of a micro-batch: `batch`, or all examples if there are fewer."""
        return batch if self.examples is None else min(batch, max(1, self.examples))

    def largest_batch(self, batch: int, cutoff: int) -> int:
        """Tokens of the `batch` longest examples after truncation, or of all if there are fewer."""
        batch = self.rows(batch)
        each = max(1.0, (self.examples or len(self.lengths)) / len(self.lengths))
        places = len(self.lengths) - 1 - (np.arange(min(batch, 100_000)) / each).astype(np.int64)
        chosen = np.minimum(self.lengths[np.maximum(places, 0)], cutoff)
        return int(chosen.sum() * (batch / len(chosen)))


def of_lengths(
    lengths: NDArray[np.int64], examples: int | None = None, *, basis: str, exact: bool, patches: int = 0
) -> ExampleLengths:
    """Describe the lengths `[n]` int64 of a data set, in tokens before truncation, by at most 201 quantiles.

    Raises:
        ValueError: `lengths` is empty.
    """
    if not len(lengths):
        raise ValueError("There is no example.")
    ordered = np.sort(lengths)
    if len(ordered) > QUANTILES:
        places = np.linspace(0, len(ordered) - 1, QUANTILES).round().astype(np.int64)
        ordered = ordered[places]
    return ExampleLengths(ordered, len(lengths) if examples is None else examples, basis, exact, patches)


def full_length(config: RunConfig) -> ExampleLengths:
    """Examples as long as `cutoff_len`, which is assumed where nothing of the data is known."""
    return ExampleLengths(
        np.array([config.data.cutoff_len]),
        None,
        f"Nothing is known of the data: every example is assumed to have {config.data.cutoff_len:,} tokens.",
    )
