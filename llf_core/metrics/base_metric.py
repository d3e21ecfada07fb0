"""Abstract class of the plug-in kind `metric`."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llf_core.metrics.measure import Measure, mean_statistics, ratio
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from llf_core.config.declaration import MetricDeclaration
    from llf_core.metrics.measure import Numbers


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

        Callers use `llf_core.metrics.score_answers`, which checks the result.

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
