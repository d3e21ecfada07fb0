"""Measures what a quantization costs, against the file it was made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.base_metric import perplexity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Probe:
    """Token ids on which files are compared: at least one for each answer, and two for the text."""

    prompts: list[list[int]]
    answers: list[list[int]]
    text: list[int]

    @property
    def sequences(self) -> list[tuple[list[int], int]]:
        """Token ids to compute, each with the first position whose logits count."""
        pairs = zip(self.prompts, self.answers, strict=True)
        return [(prompt + answer[:-1], len(prompt) - 1) for prompt, answer in pairs] + [(self.text[:-1], 0)]

    @property
    def answer_rows(self) -> int:
        """Number of positions that predict an answer's token; they come before the text's."""
        return sum(map(len, self.answers))

    @property
    def rows(self) -> int:
        """Number of positions whose logits count."""
        return self.answer_rows + len(self.text) - 1


@dataclass(frozen=True)
class QualityLoss:
    """Loss of quality of a file.

    Attributes:
        kl: mean KL(base ‖ file) over all positions, in nats.
        changed_greedy: share of the base's answer tokens that are not the most likely ones after the same prefix.
        perplexity: exp of the mean negative log-likelihood, in nats, of the text's tokens after the first; infinite
            above 709.78 nats.
    """

    kl: float
    changed_greedy: float
    perplexity: float


def write_base(probe: Probe, logits: Callable[[Sequence[int], int], NDArray[np.float32]], path: Path) -> int:
    """Write the logits of the base for a probe, float32 `[rows, vocabulary]`, and return the vocabulary's size."""
    width = 0
    with path.open("wb") as file:
        for ids, first in probe.sequences:
            rows = logits(ids, first)
            width = rows.shape[1]
            rows.tofile(file)
    return width


def quality_loss(
    probe: Probe, logits: Callable[[Sequence[int], int], NDArray[np.float32]], base: Path, width: int
) -> QualityLoss:
    """Compare logits with those of the base, position by position.

    Where a logit is not finite, `kl` is infinite or NaN, and `perplexity` may be.

    Args:
        logits: of the compared file, `[tokens - first, vocabulary]`, see `write_base`.
        base: what `write_base` wrote, float32 `[rows, vocabulary]`.
        width: size of the base's vocabulary; further columns of `logits` are ignored.
    """
    stored = np.memmap(base, np.float32, "r", shape=(probe.rows, width))
    tokens = [token for answer in probe.answers for token in answer]
    place, kl, changed, nll = 0, 0.0, 0, 0.0
    for ids, first in probe.sequences:
        for row in logits(ids, first):
            expected, found = log_softmax(stored[place]), log_softmax(row[:width])
            kl += float((np.exp(expected) * (expected - found)).sum())
            if place < len(tokens):
                changed += int(found.argmax()) != tokens[place]
            else:
                nll -= float(found[probe.text[place - len(tokens) + 1]])
            place += 1
    sums = np.array([nll, max(1, len(probe.text) - 1)])
    return QualityLoss(kl / place, changed / max(1, len(tokens)), float(perplexity(sums)))


def log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities `[vocabulary]` of logits `[vocabulary]`, in nats and float64.

    All are NaN if a logit is NaN or +inf, or if all are -inf.
    """
    shifted = row.astype(np.float64) - float(row.max())
    return shifted - math.log(np.exp(shifted).sum())
