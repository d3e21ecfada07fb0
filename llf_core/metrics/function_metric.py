"""A metric that a user wrote as a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MetricDeclaration
from llf_core.metrics.base_metric import Metric, MetricError
from llf_core.metrics.decorator import PARAMETERS
from llf_core.user_functions.function_kind import Signature
from llf_core.user_functions.results import number_or_none, raised, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.base_metric import ScoredExample
    from llf_core.user_functions.function_kind import UserFunction


class FunctionMetric(Metric):
    """Calls a function for each answer. Its value is the mean of the scores."""

    def __init__(self, name: str, function: UserFunction, file: str = "", path: str = "") -> None:
        """Inspect the function.

        Args:
            file: source file as named in messages; empty for a function of this process.
            path: file name in Python's tracebacks.
        """
        self._function, self._file, self._path = function, file, path
        self._signature = Signature.of(function, name, PARAMETERS)
        super().__init__(
            MetricDeclaration(
                name=name,
                label=name,
                unit=str(getattr(function, "unit", "")),
                higher_is_better=bool(getattr(function, "higher_is_better", True)),
                needs_reference=not {"reference", "expected"}.isdisjoint(self._signature.required),
            )
        )

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float | None]:
        """Call the function for each answer; None where it does not apply."""
        return [self._score(*pair) for pair in zip(answers, examples, strict=True)]

    def _score(self, answer: str, example: ScoredExample) -> float | None:
        missing = [name for name in self._signature.columns if name not in example.row]
        if missing:
            columns = ", ".join(map(str, example.row)) or "none"
            raise MetricError(
                self.name,
                f"The metric {self.name} has the parameter {missing[0]}, and the data has no such column. Expected one "
                f"of {', '.join(PARAMETERS.single)}, or a column of the data: {columns}.",
            )
        try:
            found = self._function(**self._signature.select(_arguments(answer, example)))
        except Exception as error:
            raise self._error(answer, example, raised(error, self._path, self._file)) from error
        try:
            return number_or_none(found)
        except ValueError as error:
            raise self._error(answer, example, str(error)) from None

    def _error(self, answer: str, example: ScoredExample, what: str) -> MetricError:
        where = f'On the prompt "{shown(_prompt(example))}" and the answer "{shown(answer)}"'
        return MetricError(self.name, f"{where} the metric {self.name} {what}.")


def _arguments(answer: str, example: ScoredExample) -> dict[str, object]:
    """All arguments that a function may take, copied, so that it cannot change the data."""
    ours = {
        "prompt": _prompt(example),
        "answer": answer,
        "reference": example.reference,
        "expected": example.reference,
        "messages": [dict(one) for one in example.messages],
        "row": dict(example.row),
    }
    return {name: value for name, value in example.row.items() if name not in ours} | ours


def _prompt(example: ScoredExample) -> str:
    questions = [one["content"] for one in example.messages if one["role"] == "user"]
    return str(questions[-1]) if questions else ""
