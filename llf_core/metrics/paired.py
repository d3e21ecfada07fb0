"""Difference of two models on the same examples: paired bootstrap and exchange test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llf_core.metrics.base_metric import MEAN, Measure
from llf_core.metrics.interval import SAMPLES, as_statistics, expanded_percentiles, has_statistics, resampled_sums
from llf_core.runs.formatting import LARGE, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.metrics.base_metric import Numbers

Verdict = Literal["better", "no difference", "worse", "too few examples", "not finite"]
MIN_EXAMPLES = 10
"""Fewer examples give no verdict: their bootstrap interval is not reliable."""
SIGNIFICANT = 0.05
FOUND_BY_80_PERCENT = 2.801585
"""Detectable difference at 80 % power, in standard errors: the sum of the normal quantiles 0.975 and 0.8."""
SIGNS_AT_A_TIME = 4_000_000
ROUNDING = 1e-9
"""Relative difference of two sums of the same numbers in another order."""


@dataclass(frozen=True)
class Difference:
    """Difference of two models on the same examples.

    Attributes:
        base, tuned: values of the first and the second model; NaN without examples.
        mean: the second value minus the first; NaN without examples, and if both are infinite.
        low, high: 95 % interval of this difference; NaN for fewer than two examples, and if a value is not finite.
        p: two-sided p-value: the larger one of the bootstrap's and the exchange test's; NaN as `low`.
        verdict: `better` or `worse` if the interval excludes 0, else `no difference`; `too few examples` below
            `MIN_EXAMPLES`; `not finite` if a value is not, as the perplexity of losses above 709.78 nats.
        count: number of examples that both models have.
        smallest: smallest true difference that 80 of 100 evaluations of this size would find; NaN as `low`, infinite
            if it exceeds a float.
        unit: unit of the values; those of `%` go from 0 to 1.
    """

    base: float
    tuned: float
    mean: float
    low: float
    high: float
    p: float
    verdict: Verdict
    count: int
    smallest: float
    unit: str

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, such as `better: +4.1 points, 95 % interval 1.2 to 7.0, 200 examples`."""
        examples = f"{self.count:,} example{'' if self.count == 1 else 's'}"
        if self.verdict == "too few examples":
            return f"too few examples: {self.count} of at least {MIN_EXAMPLES}"
        if self.verdict == "not finite":
            return f"not finite: {number(self.base)} and {number(self.tuned)} cannot be compared, {examples}"
        bounds = f"95 % interval {self._number(self.low)} to {self._number(self.high)}"
        found = f"{self.verdict}: {self._number(self.mean, '+')}{self._unit}, {bounds}, {examples}"
        if self.verdict == "no difference" and 0 < self.smallest < math.inf:
            found += f". A difference below {self._number(self.smallest)}{self._unit} needs more examples"
        return found

    @property
    def _unit(self) -> str:
        unit = "points" if self.unit == "%" else self.unit
        return f" {unit}" if unit else ""

    def _number(self, value: float, sign: str = "") -> str:
        """One decimal for points, else three significant digits of the widest bound."""
        if self.unit in {"%", "points"}:
            return f"{value * (100 if self.unit == '%' else 1):{sign}.1f}"
        widest = max(abs(self.low), abs(self.high), abs(self.mean))
        if widest >= LARGE:
            return f"{sign if value >= 0 else ''}{number(value)}"
        digits = 2 - math.floor(math.log10(widest)) if widest > 0 else 0
        return f"{value:{sign}.{max(0, min(digits, 12))}f}"


def difference(
    base: Sequence[float | None] | Numbers,
    tuned: Sequence[float | None] | Numbers,
    measure: Measure = MEAN,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> Difference:
    """Compare two models on the same examples by the paired bootstrap.

    Each sample draws the same examples for both models, so that how hard an example is does not count as noise. An
    example without a score of one model is left out.

    The interval also holds 0 where the exchange test does not reject that both models are the same. For models that
    answer alike, this test errs in at most 5 % of evaluations of any size, the bootstrap of 20 examples in up to 7 %
    (`python -m benchmarks.interval_coverage`).

    Args:
        base: scores of the first model, one for each example or None; or sufficient statistics `[examples,
            statistics]`, zeros where there are none.
        tuned: of the second model on the same examples, in the same order.
        measure: how the value follows from the statistics and which values are better, such as `Metric.measure`.
        samples: number of bootstrap samples, at least 1.

    Raises:
        ValueError: a value is not finite, or the models have other numbers of examples or statistics.

    Source:
        P. Koehn, Statistical significance tests for machine translation evaluation, EMNLP 2004, W04-3250.
    """
    first, second = as_statistics(base), as_statistics(tuned)
    if first.shape != second.shape:
        raise ValueError(
            f"The statistics have the shapes {list(first.shape)} and {list(second.shape)}. Expected the same examples "
            "for both models."
        )
    both = has_statistics(first) & has_statistics(second)
    first, second, count = first[both], second[both], int(both.sum())
    ours, theirs = (float(measure.total(one.sum(axis=0))) if count else math.nan for one in (first, second))
    low = high = p = smallest = math.nan
    finite = math.isfinite(ours) and math.isfinite(theirs)
    if count > 1 and finite:
        width = first.shape[1]
        sums = resampled_sums(np.hstack([first, second]), seed, samples)
        with np.errstate(invalid="ignore"):  # a perplexity of a sample may be infinite
            found = measure.total(sums[:, width:]) - measure.total(sums[:, :width])
        found = found[np.isfinite(found)]
        low, high = expanded_percentiles(found, count)
        chance = exchange_p_value(first, second, measure.total, seed=seed, samples=samples)
        if chance > SIGNIFICANT:
            low, high = min(low, 0.0), max(high, 0.0)
        with np.errstate(over="ignore"):
            smallest = FOUND_BY_80_PERCENT * float(found.std()) if len(found) else math.nan
        p = max(chance, _p_value(found))
    verdict: Verdict = "no difference"
    if count < MIN_EXAMPLES:
        verdict = "too few examples"
    elif not finite:
        verdict = "not finite"
    elif low > 0 or high < 0:
        verdict = "better" if (low > 0) == measure.higher_is_better else "worse"
    return Difference(ours, theirs, theirs - ours, low, high, p, verdict, count, smallest, measure.unit)


def _p_value(found: Numbers) -> float:
    """Twice the share of samples on the rarer side of 0 (0 included), with one more sample on it."""
    rarer = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(found) + 1))


def exchange_p_value(
    first: Numbers, second: Numbers, total: Callable[[Numbers], Numbers], *, seed: int, samples: int
) -> float:
    """How often a difference at least as large comes from exchanging the two models at random in each example.

    If both models answer alike, each exchange is equally probable, so the test holds its level for any number of
    examples and any measure. Approximate randomization: E. Noreen, Computer-intensive methods for testing hypotheses
    (1989); S. Riezler and J. Maxwell, On some pitfalls in automatic evaluation, ACL Workshop 2005, W05-0908.

    Args:
        first, second: statistics of the models, of shape `[examples, statistics]`.
        total: value from the sum of the statistics.

    Returns:
        The two-sided p-value, at least 1 / (samples + 1); 1 if the difference is not finite, as without examples.
    """
    half, middle = (second - first) / 2, (second + first).sum(axis=0) / 2
    half = half[(half != 0).any(axis=1)]  # equal statistics stay equal
    measured = abs(float(total(middle + half.sum(axis=0)) - total(middle - half.sum(axis=0))))
    if not np.isfinite(measured):
        return 1.0
    draw, larger = np.random.default_rng(seed), 0
    rows = max(1, SIGNS_AT_A_TIME // max(len(half), 1))
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        signs = draw.integers(0, 2, (size, len(half)), dtype=np.int8) * 2 - 1
        moved = signs.astype(float) @ half
        with np.errstate(invalid="ignore"):  # two infinite perplexities
            found = np.abs(total(middle + moved) - total(middle - moved))
        larger += int((~(found < measured * (1 - ROUNDING))).sum())
    return (larger + 1) / (samples + 1)
