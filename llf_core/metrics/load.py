"""Metrics by name: loads them with a user's functions, scores answers, and validates the result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.declaration import MetricDeclaration
from llf_core.config.did_you_mean import did_you_mean
from llf_core.config.evaluation_keys import declarations_of, function_name, is_in_file, known_names
from llf_core.config.paths import expanded
from llf_core.config.rule import ConfigError, Problem
from llf_core.metrics.base_metric import Metric, MetricError
from llf_core.metrics.decorator import METRICS, PARAMETERS, TRAITS
from llf_core.user_functions.function_kind import Signature, number_or_none, raised, shown
from llf_core.user_functions.function_source import (
    StoredFunctionError,
    function_sources,
    load_stored_function,
    run_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from llf_core.metrics.base_metric import Numbers, ScoredExample
    from llf_core.user_functions.function_kind import UserFunction


def load_metrics(names: Iterable[str], code: Path | None = None) -> list[Metric]:
    """Load metrics by name, each once; missing libraries are found here.

    The files in `code` that belong to the names are executed.

    Args:
        names: built-in metrics, plug-ins, groups such as `rouge` (all of its metrics), or functions stored in
            `code`.
        code: folder with the source of the user's functions, a run's `code/`; None if there is none.
    """
    found: dict[str, Metric] = {}
    for name in names:
        own = declarations_of(name)
        for one in own:
            if one.name not in found:
                found[one.name] = one.load(Metric)(one)
        if not own and function_name(name) not in found:
            found[function_name(name)] = _stored(name, code)
    return list(found.values())


def _stored(name: str, code: Path | None) -> Metric:
    called = function_name(name)
    if code is None or not called.isidentifier():
        raise MetricError(name, unknown_metric(name))
    path = code / f"{called}.py"
    try:
        return FunctionMetric(called, load_stored_function(path), f"{code.name}/{path.name}", str(path))
    except StoredFunctionError as error:
        raise MetricError(name, unknown_metric(name) if error.missing else f"{error}.") from error
    except TypeError as error:
        raise MetricError(name, str(error)) from error


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


def metric_sources(names: Iterable[str], given: Mapping[str, UserFunction | None] | None = None) -> dict[str, str]:
    """Extract the source of all metrics that are functions, for a `code/` that `load_metrics` reads.

    A file that a name points to (`file.py:f`) is executed in this process.

    Args:
        names: names in `metrics`; relative paths start from the working directory.
        given: functions passed by the caller, by name; others are looked up in the registry.

    Raises:
        ConfigError: a metric is unknown or cannot be stored, its file cannot be run, or two functions have the same
            name.
    """
    functions: dict[str, UserFunction] = {}
    for name in dict.fromkeys(names):
        if declarations_of(name):
            continue
        called = function_name(name)
        function = (given or {}).get(name) or _in_file(name) or METRICS.registered.get(name)
        if function is None:
            raise ConfigError((_problem(name, unknown_metric(name)),))
        if functions.get(called, function) is not function:
            raise ConfigError((_problem(name, f"Two metrics are named {called}. Expected different names."),))
        functions[called] = function
    sources = function_sources(functions, METRICS)
    return {name: text + _traits(name, functions[name]) for name, text in sources.items()}


def unknown_metric(name: str) -> str:
    """Error message for an unknown metric name."""
    known = [*known_names(), *METRICS.registered]
    return (
        f"Unknown metric {name!r}. Expected one of {', '.join(known)}, a function written in a cell under @llf.metric, "
        f"or one in a file: FILE.py:FUNCTION.{did_you_mean(name, known)}"
    )


def _in_file(name: str) -> UserFunction | None:
    """The function that `file.py:f` names; None if the name has another form."""
    if not is_in_file(name):
        return None
    path = expanded(name.rpartition(":")[0])
    try:
        module = run_file(path, METRICS)
        function = getattr(module, function_name(name), None)
        if function is None or isinstance(function, str):  # a text would count as a name of a function
            raise ConfigError((_problem(name, f"{path} has no function {function_name(name)}."),))
        METRICS.by_name([function])
    except (TypeError, ValueError) as error:
        raise ConfigError((_problem(name, str(error)),)) from error
    return function  # type: ignore[no-any-return]  # `by_name` has checked it


def _traits(name: str, function: UserFunction) -> str:
    """Lines that set the attributes of the decorator on a copied function."""
    own = {trait: getattr(function, trait) for trait in TRAITS if hasattr(function, trait)}
    lines = [f"{name}.{trait} = {value!r}\n" for trait, value in own.items() if isinstance(value, str | bool)]
    return "".join(["\n\n", *lines]) if lines else ""


def _problem(name: str, message: str) -> Problem:
    return Problem("invalid", METRICS.key, name, message)


@dataclass(frozen=True)
class MetricScores:
    """Scores of answers by one metric (None where it does not apply), and statistics `[answers, statistics]`."""

    scores: tuple[float | None, ...]
    statistics: Numbers
    value: float | None
    count: int


def score_answers(metric: Metric, answers: Sequence[str], examples: Sequence[ScoredExample]) -> MetricScores:
    """Score answers and check the result. A metric that needs a reference skips examples without one.

    Raises:
        MetricError: the metric raised an error, or returned NaN, another type or shape, or another number of scores.
        ValueError: the numbers of answers and examples differ.
    """
    if len(answers) != len(examples):
        raise ValueError(f"There are {len(answers)} answers and {len(examples)} examples. Expected as many.")
    needs = metric.declaration.needs_reference
    places = [place for place, one in enumerate(examples) if one.reference is not None or not needs]
    own_answers, own_examples = [answers[place] for place in places], [examples[place] for place in places]
    try:
        found = metric.scores(own_answers, own_examples) if places else []
    except MetricError:
        raise
    except Exception as error:
        raise _error(metric, raised(error)) from error
    scores = _checked(metric, found, own_answers)
    try:
        statistics = np.asarray(metric.statistics(own_answers, own_examples, scores), float)
        value = float(metric.total(statistics.sum(axis=0))) if places else math.nan
    except MetricError:
        raise
    except Exception as error:
        raise _error(metric, f"{raised(error)} in statistics or total") from error
    if statistics.ndim != 2 or len(statistics) != len(places) or not np.isfinite(statistics).all():  # noqa: PLR2004
        raise _error(
            metric,
            f"returned statistics of shape {list(statistics.shape)} for {len(places)} answers. Expected one row of "
            "finite numbers for each",
        )
    count = sum(one is not None for one in scores)
    if count and not math.isfinite(value):
        raise _error(metric, f"has the value {value} over {count} scores. Expected a finite number")
    every: list[float | None] = [None] * len(answers)
    rows = np.zeros((len(answers), statistics.shape[1]))
    for place, score, row in zip(places, scores, statistics, strict=True):
        every[place], rows[place] = score, row
    return MetricScores(tuple(every), rows, value if count else None, count)


def _checked(metric: Metric, found: object, answers: Sequence[str]) -> list[float | None]:
    found = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(found, list | tuple) or len(found) != len(answers):
        what = f"{len(found)} values" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
        raise _error(metric, f"returned {what} for {len(answers)} answers. Expected one score for each")
    return [_number(metric, value, answer) for value, answer in zip(found, answers, strict=True)]


def _number(metric: Metric, value: object, answer: str) -> float | None:
    try:
        return number_or_none(value)
    except ValueError as error:
        raise _error(metric, f'{error}, on the answer "{shown(answer)}"') from None


def _error(metric: Metric, what: str) -> MetricError:
    return MetricError(metric.name, f"The metric {metric.name} {what}.")
