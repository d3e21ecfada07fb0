"""Abstract class of the plug-in kind `metric`, and how values follow from statistics."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from llf_core.config.declaration import MetricDeclaration

    Numbers: TypeAlias = NDArray[np.float64]


class MetricError(UserError):
    """A metric is unknown or cannot compute its scores."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class ScoredExample:
    """An example that a metric scores an answer for.

    Attributes:
        messages: conversation before the answer, `{"role", "content"}` each.
        reference: the expected answer; None if the data set has none.
        row: record of the data set.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    reference: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


class Metric(ABC):
    """Scores answers. A subclass implements `scores`; if its value is not the mean, also `statistics` and `total`.

    Attributes:
        notes: sentences for the user about how it measured.
    """

    def __init__(self, declaration: MetricDeclaration) -> None:
        self.declaration = declaration
        self.notes: list[str] = []

    @property
    def name(self) -> str:
        """Name in the config and in results."""
        return self.declaration.name

    @property
    def measure(self) -> Measure:
        """How the value follows from the statistics, for `interval` and `difference`."""
        one = self.declaration
        total = ratio if type(self).total is Metric.total else self.total
        return Measure(one.name, one.label, one.unit, one.higher_is_better, total)

    @abstractmethod
    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> Sequence[float | None]:
        """Score each answer.

        Callers use `llf_core.metrics.load`, which checks the result.

        Args:
            examples: one for each answer; each has a reference if the declaration has `needs_reference`.

        Returns:
            One finite number for each answer; None where the metric does not apply.
        """

    def statistics(
        self,
        answers: Sequence[str],  # noqa: ARG002 - subclasses use them
        examples: Sequence[ScoredExample],  # noqa: ARG002
        scores: Sequence[float | None],
    ) -> Numbers:
        """Sufficient statistics of each answer: the value over several answers is `total` of their sum.

        Returns:
            Numbers of shape `[answers, statistics]`; by default the score and 1, or two zeros where it does not
                apply.
        """
        return mean_statistics(scores)

    def total(self, sums: Numbers) -> Numbers:
        """The value over several answers; by default the mean of the scores.

        Args:
            sums: sums of `statistics`, of shape `[…, statistics]`.

        Returns:
            Values of shape `[…]`; NaN (0 for BLEU and chrF) where there is nothing to compute one from.
        """
        return ratio(sums)


def library(metric: Metric, module: str, package: str) -> ModuleType:
    """Import a library that a metric computes with, such as `rouge_score.rouge_scorer`.

    Raises:
        MetricError: the package is not installed, or its installation is damaged.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MetricError(
            metric.name,
            f"The metric {metric.name} needs {package}, which cannot be imported: {error}. Run: pip install {package}",
        ) from error


def ratio(sums: Numbers) -> Numbers:
    """The first sum divided by the second, `[…, 2]` to `[…]`; NaN where the second is 0."""
    return divided(sums[..., 0], sums[..., 1], np.nan)


def divided(upper: Numbers, lower: Numbers, otherwise: float) -> Numbers:
    """Quotient of two arrays of shape `[…]`, `otherwise` where the divisor is 0."""
    found: Numbers = np.full(np.broadcast(upper, lower).shape, otherwise, float)
    np.divide(upper, lower, out=found, where=np.asarray(lower) != 0)
    return found


def mean_statistics(scores: Sequence[float | None]) -> Numbers:
    """Sufficient statistics of a mean, of shape `[examples, 2]`: each score and 1, or two zeros for None."""
    return np.array([(0.0, 0.0) if one is None else (one, 1.0) for one in scores], float).reshape(-1, 2)


@dataclass(frozen=True)
class Measure:
    """A value over examples.

    Attributes:
        unit: shown after a value. `%` is for values from 0 to 1, which are shown times 100, and whose differences
            are shown in points.
        total: value from the sum of the sufficient statistics, from shape `[…, statistics]` to `[…]`.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    total: Callable[[Numbers], Numbers] = ratio


MEAN = Measure("mean", "Mean")


def perplexity(sums: Numbers) -> Numbers:
    """Perplexity `[…]` from negative log-likelihood in nats and number of tokens, `[…, 2]`.

    Infinite for a loss above 709.78 nats, NaN without tokens.
    """
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


def bits_per_byte(sums: Numbers) -> Numbers:
    """Bits per byte of UTF-8 `[…]`, from negative log-likelihood in nats and number of bytes, `[…, 2]`.

    Comparable between models with different tokenizers (The Pile, arXiv 2101.00027).
    """
    return ratio(sums) / math.log(2)


LOSS = Measure("loss", "Loss", "nats", higher_is_better=False)

PERPLEXITY = Measure("perplexity", "Perplexity", higher_is_better=False, total=perplexity)
"""Statistics: negative log-likelihood in nats, tokens."""

BITS_PER_BYTE = Measure("bits_per_byte", "Bits per byte", higher_is_better=False, total=bits_per_byte)
"""Statistics: negative log-likelihood in nats, bytes."""

TOKEN_ACCURACY = Measure("token_accuracy", "Token accuracy", "%")
"""Statistics: tokens that have the highest probability, tokens."""
