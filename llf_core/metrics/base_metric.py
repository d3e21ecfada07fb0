"""What scores answers: the abstract class of the plug-in kind `metric`."""

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
    """A metric is unknown or cannot compute its scores. The sentence is for the user."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class ScoredExample:
    """What a metric sees of an example beside the answer.

    Attributes:
        messages: conversation before the answer, `{"role", "content"}` each.
        reference: the expected answer; None if the data set has none.
        row: record of the data set.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    reference: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


class Metric(ABC):
    """Scores answers. A subclass implements `scores`; where the value is no mean, also `statistics` and `total`.

    Attributes:
        declaration: its name, label, unit and traits.
        notes: sentences about how it measured, for the person who reads the values.
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
        """How its value follows from the statistics, for `interval` and `difference`."""
        one = self.declaration
        total = ratio if type(self).total is Metric.total else self.total
        return Measure(one.name, one.label, one.unit, one.higher_is_better, total)

    @abstractmethod
    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> Sequence[float | None]:
        """Score each answer.

        Callers use `llf_core.metrics.score_answers`, which checks the result.

        Args:
            examples: what was asked and expected, one for each answer; each has a reference if the declaration says
                `needs_reference`.

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

        Intervals and comparisons draw examples anew, for which sums of statistics suffice.

        Args:
            scores: what `scores` returned for them.

        Returns:
            Numbers of shape `[answers, statistics]`; here the score and 1, or two zeros where it does not apply.
        """
        return mean_statistics(scores)

    def total(self, sums: Numbers) -> Numbers:
        """The value over several answers.

        Of some measures, such as BLEU, it is no mean of the scores.

        Args:
            sums: sums of `statistics`, of shape `[…, statistics]`.

        Returns:
            Values of shape `[…]`; NaN, or 0 as of BLEU and chrF, where there is nothing to compute one from. Here it is
            the mean of the scores.
        """
        return ratio(sums)


def library(metric: Metric, module: str, package: str) -> ModuleType:
    """Import a library that a metric computes with: only when it is used, since nothing else needs it.

    Args:
        module: module to import, such as `rouge_score.rouge_scorer`.

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
