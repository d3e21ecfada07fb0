"""Statistics of the rewards of sampled completions, before a run trains on them. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

BINS = 12
EQUAL = 1e-8
"""Maximum standard deviation of equal rewards in a group, as in TRL's `frac_reward_zero_std`."""


@dataclass(frozen=True)
class RewardedCompletion:
    """A completion that the untrained policy has sampled, with its rewards.

    Attributes:
        group: number of its prompt, from 0.
        tokens: length of the completion in tokens.
        truncated: whether it reached the maximum length without an end token.
        reward: the weighted sum or score; None if no function applies.
        rewards: by the name of each reward function, None where one does not apply; empty for a reward model.
    """

    group: int
    prompt: str
    text: str
    tokens: int
    truncated: bool
    reward: float | None
    rewards: Mapping[str, float | None]


@dataclass(frozen=True)
class RewardStatistics:
    """Distribution of one reward over sampled completions.

    Attributes:
        name: name of the function, or `reward` for the sum that is trained on.
        mean: NaN if it applies to none, as the four numbers that follow.
        length_correlation: Spearman's rank correlation with the length in tokens, -1 to 1; NaN if either is
            constant.
        counts: completions in each bin of the histogram; empty if it applies to none.
        edges: bounds of the bins, one more than `counts`.
    """

    name: str
    scored: int
    skipped: int
    mean: float
    std: float
    low: float
    high: float
    length_correlation: float
    counts: tuple[int, ...]
    edges: tuple[float, ...]


def reward_statistics(name: str, values: Sequence[float | None], tokens: Sequence[int]) -> RewardStatistics:
    """Distribution of a reward (`reward` for the sum); `tokens` are the lengths of the completions."""
    kept = [(value, length) for value, length in zip(values, tokens, strict=True) if value is not None]
    if not kept:
        nan = math.nan
        return RewardStatistics(name, 0, len(values), nan, nan, nan, nan, nan, (), ())
    found = np.array([value for value, _ in kept], dtype=np.float64)
    counts, edges = np.histogram(found, bins=BINS, range=_range(float(found.min()), float(found.max())))
    return RewardStatistics(
        name,
        len(kept),
        len(values) - len(kept),
        float(found.mean()),
        float(found.std()),
        float(found.min()),
        float(found.max()),
        rank_correlation(found, np.array([length for _, length in kept], dtype=np.float64)),
        tuple(counts.tolist()),
        tuple(edges.tolist()),
    )


def _range(low: float, high: float) -> tuple[float, float]:
    """Range of a histogram; wider if the values differ by rounding alone, too little for distinct bins."""
    largest = max(abs(low), abs(high))
    if high - low > 2 * BINS * np.spacing(largest):
        return low, high
    margin = max(0.5, 1e-6 * largest)
    return low - margin, high + margin


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's rank correlation of two arrays `[n]`, with mean ranks for ties; NaN if either is constant or empty."""
    one, other = _ranks(first), _ranks(second)
    if not len(one) or one.std() == 0 or other.std() == 0:
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return means


def groups_without_variance(completions: Iterable[RewardedCompletion]) -> tuple[int, int]:
    """Count the groups with equal rewards, from which GRPO and RLOO learn nothing, and groups with two rewards or more.

    Completions without a reward are ignored.
    """
    groups: dict[int, list[float]] = {}
    for one in completions:
        if one.reward is not None:
            groups.setdefault(one.group, []).append(one.reward)
    compared = [values for values in groups.values() if len(values) > 1]
    # Less the first one, so that equal rewards have no spread by rounding.
    spreads = [float(np.std(np.subtract(values, values[0]), ddof=1)) for values in compared]
    return sum(one <= EQUAL for one in spreads), len(compared)
