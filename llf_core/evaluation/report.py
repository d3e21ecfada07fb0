"""Results side by side. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llf_core.config.number_format import with_unit
from llf_core.evaluation.comparison import comparable, difference_of, pairs_of
from llf_core.evaluation.judge.win_rate import win_rates_of
from llf_core.runs.evaluations import examples_of
from llf_core.runs.formatting import amount_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.evaluation.comparison import ExamplePair
    from llf_core.evaluation.judge.win_rate import JudgedWinRate
    from llf_core.metrics.paired import Difference
    from llf_core.runs.evaluations import EvaluationResult, MetricValue


HALF_PRECISION = frozenset({"bfloat16", "float16"})
FEW_EXAMPLES = 100
"""Examples below which half precision rounds a loss visibly: 0.445 to 0.457 on 48 tokens, 0.454 in float32."""


def data_text(result: EvaluationResult, name: str) -> str:
    """What was measured on, and the half precision if any: `200 examples of a.jsonl. Computed in bfloat16`."""
    data, dtype = result.data, result.settings.get("dtype")
    measured = f"{with_unit(data.examples, 'example')} of {name}"
    if data.unusable:
        measured += f"; {with_unit(data.unusable, 'other record')} cannot be used"
    if dtype not in HALF_PRECISION:
        return measured
    rounded = ", whose rounding can change a loss of few examples by 2 %" if data.examples < FEW_EXAMPLES else ""
    return f"{measured}. Computed in {dtype}{rounded}."


@dataclass(frozen=True)
class ComparedResult:
    """A result beside the first one, without differences and pairs if both are of other examples."""

    result: EvaluationResult
    differences: dict[str, Difference]
    pairs: tuple[ExamplePair, ...]
    judged: tuple[JudgedWinRate, ...] = ()

    def json(self) -> list[dict[str, object]]:
        """Plain values, for `llf eval --json`: names, the attributes of `Difference` and its `sentence`."""
        return [
            {"target": self.result.target.name, "metric": name, **asdict(one), "sentence": one.sentence}
            for name, one in self.differences.items()
        ]


def by_task(results: Sequence[EvaluationResult]) -> list[list[EvaluationResult]]:
    """Group results by task, or data: each group is a table."""
    found: dict[str, list[EvaluationResult]] = {}
    for one in results:
        found.setdefault(repr(one.settings.get("task")), []).append(one)  # a file may hold a list
    return list(found.values())


def compare_with_first(results: Sequence[EvaluationResult]) -> list[ComparedResult]:
    """Compare each result with the first one, by the paired bootstrap over the examples that both have.

    Entries have no pairs and differences where two results cannot be compared or have no example in common.
    """
    first = results[0]
    base = examples_of(first) if len(results) > 1 else []
    found = []
    for result in results[1:]:
        pairs = pairs_of(base, examples_of(result)) if comparable(first, result) else []
        shared = [one for one in result.metrics if first.metric(one.name) is not None] if pairs else []
        differences = {one.name: difference_of(one, pairs) for one in shared}
        found.append(ComparedResult(result, differences, tuple(pairs), tuple(win_rates_of(result, pairs).values())))
    return found


def value_text(value: MetricValue) -> str:
    """Format a value with its interval, if it has one: `5.93 (5.80 to 6.05)`."""
    shown = amount_text(value.value, value.unit)
    if value.low is None or value.high is None:
        return shown
    return f"{shown} ({amount_text(value.low, value.unit)} to {amount_text(value.high, value.unit)})"


def label_text(value: MetricValue) -> str:
    """The label with its unit, as in `Loss (nats)`; `%` stands beside the number instead."""
    return value.label if value.unit in {"", "%"} else f"{value.label} ({value.unit})"
