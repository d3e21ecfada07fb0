"""Results of evaluations: one target measured on one set of examples with one set of settings.

A result is a folder `evaluations/<id>/` of a run. Results of models that belong to no run are in
`$LLF_HOME/evaluations/<key of the model>/<id>/`. `EvaluationWriter` writes them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from llf_core.runs.event_fields import is_count
from llf_core.runs.folder import RunFolder, home_folder
from llf_core.runs.jsonl import as_number, records
from llf_core.untrusted import NotPlainError, UnreadableError, json_value, list_folder, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

VERSION = 1
SUMMARY, EXAMPLES, TOKEN_LOSSES = "evaluation.json", "examples.jsonl", "token_losses.jsonl"
RESULT_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
MODEL_KEY = re.compile(r"[0-9a-f]{16}")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class MetricValue:
    """A metric of a target, with its interval over the examples.

    Attributes:
        name: name in the settings and in `ExampleResult.scores`.
        low: lower bound of its 95 % interval; None if there is none.
        high: upper bound of the interval; None if there is none.
        unit: unit for people; empty for none.
        by_source: the value for the examples of each data set.
        standard_error: standard error of the value; None where the interval comes from a bootstrap.
    """

    name: str
    label: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int = 0
    unit: str = ""
    higher_is_better: bool = True
    by_source: Mapping[str, float] = field(default_factory=dict)
    standard_error: float | None = None


@dataclass(frozen=True)
class EvaluatedTarget:
    """What was measured.

    Attributes:
        label: what it is, for people: `base model`, `adapter of step 75`.
        run: id of the run that it belongs to; empty for none.
        step: step of its weights; None for a base model and what is not of a run.
        weights: equal for targets with the same weights and chat template.
    """

    name: str
    label: str = ""
    run: str = ""
    step: int | None = None
    base: str = ""
    weights: str = ""


@dataclass(frozen=True)
class EvaluatedData:
    """What it was measured on.

    Attributes:
        fingerprint: equal for the same examples in the same order.
        unusable: number of records that gave no example.
    """

    names: tuple[str, ...] = ()
    fingerprint: str = ""
    examples: int = 0
    unusable: int = 0


@dataclass(frozen=True)
class EvaluationResult:
    """A result, or a damaged one with the reason.

    Attributes:
        made: time in ISO 8601 with offset.
        seconds: duration of the measurement, without loading the model.
        tokens: number of tokens that the model has read and generated.
        problem: why it cannot be read; empty for a valid result.
    """

    id: str
    made: str
    target: EvaluatedTarget
    data: EvaluatedData
    settings: Mapping[str, Any]
    settings_key: str
    metrics: tuple[MetricValue, ...]
    seconds: float
    tokens: int
    folder: Path
    problem: str = ""

    def metric(self, name: str) -> MetricValue | None:
        """A metric by its name, for tables of several results; None if it was not measured."""
        return next((one for one in self.metrics if one.name == name), None)

    def json(self) -> dict[str, Any]:
        """What `evaluation.json` holds; `read_result` reads it."""
        target, data = _values(self.target), _values(self.data)
        return {
            "version": VERSION,
            "id": self.id,
            "made": self.made,
            "target": target,
            "data": data | {"names": list(self.data.names)},
            "settings": dict(self.settings),
            "settings_key": self.settings_key,
            "metrics": [_values(one) | {"by_source": dict(one.by_source)} for one in self.metrics],
            "seconds": self.seconds,
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class ExampleResult:
    """What was measured of an example.

    Attributes:
        index: number of its record in its data set, counted from 0.
        prompt: the messages before the answer; empty for plain text.
        reference: the expected answer; None if the data has none.
        answer: the model's answer; None if none was generated.
        tokens: number of tokens whose loss was measured.
        nll: sum of their losses in nats (negative log-likelihood); None if it was not measured.
        bytes: number of bytes in UTF-8 of the text of these tokens.
        correct: number of these tokens that are the most likely one.
    """

    index: int
    source: str = ""
    prompt: tuple[dict[str, Any], ...] = ()
    reference: str | None = None
    answer: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    nll: float | None = None
    bytes: int = 0
    correct: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Data set and number of the record, equal for the same example of all targets, by which they are compared."""
        return self.source, self.index

    @property
    def loss(self) -> float:
        """Mean loss of its tokens in nats, so that examples of any length compare.

        NaN if it was not measured, or was measured on no token.
        """
        return math.nan if self.nll is None or not self.tokens else self.nll / self.tokens

    def json(self) -> dict[str, Any]:
        """What a line of `examples.jsonl` holds; `examples_of` reads it."""
        return _values(self) | {"prompt": list(self.prompt), "scores": dict(self.scores)}


@dataclass(frozen=True)
class TokenLosses:
    """The loss of each measured token of an example.

    Attributes:
        index: `ExampleResult.index` of the example.
        tokens: text of each token.
        source: data set of the example.
    """

    index: int
    tokens: tuple[str, ...]
    losses: tuple[float, ...]
    source: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """`ExampleResult.key` of the example, to find its losses."""
        return self.source, self.index

    def json(self) -> dict[str, Any]:
        """What a line of `token_losses.jsonl` holds; `token_losses_of` reads it."""
        return _values(self) | {"tokens": list(self.tokens), "losses": list(self.losses)}


def model_evaluations(key: str, home: Path | str | None = None) -> Path:
    """Folder of the results of a model that belongs to no run, such as the base model of several runs.

    Args:
        key: key of the model, 16 hexadecimal digits in lower case.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        ValueError: `key` is not a key.
    """
    if not MODEL_KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not the key of a model. Expected 16 hexadecimal digits in lower case.")
    return home_folder(home) / "evaluations" / key


def results_of(place: RunFolder | Path) -> list[EvaluationResult]:
    """Read the results of a run or model, for lists. Damaged ones are among them, with the reason in `problem`.

    Args:
        place: a run, or a folder of results (`model_evaluations`).

    Returns:
        The results, newest first; empty if there are none or the folder cannot be listed.
    """
    folder = place.evaluations if isinstance(place, RunFolder) else place
    try:
        names = list_folder(folder)
    except (OSError, ValueError):
        return []
    return [read_result(folder / name) for name in sorted(names, reverse=True) if RESULT_ID.fullmatch(name)]


def find_result(place: RunFolder | Path, weights: str, settings_key: str, fingerprint: str) -> EvaluationResult | None:
    """Find the newest result of the same weights, settings and examples, which need not be measured again.

    Args:
        weights: `EvaluatedTarget.weights`.
        settings_key: `EvaluationResult.settings_key`.
        fingerprint: `EvaluatedData.fingerprint`.

    Returns:
        A valid result, or None.
    """
    wanted = (weights, settings_key, fingerprint)
    for one in results_of(place):
        if not one.problem and (one.target.weights, one.settings_key, one.data.fingerprint) == wanted:
            return one
    return None


def read_result(folder: Path) -> EvaluationResult:
    """Read the summary of a result. One that is damaged has the reason in `problem`, so that it breaks no list."""
    try:
        value = json_value(read_bytes(folder / SUMMARY, root=folder.parent))
        return _result(value, folder)
    except FileNotFoundError:
        problem = f"{SUMMARY} is missing."
    except UnreadableError as error:
        problem = str(error)
    except (NotPlainError, _DamagedError) as error:
        problem = f"{SUMMARY} is not valid: {error}."
    except OSError as error:
        problem = f"{SUMMARY} cannot be read: {error.strerror}."
    empty = EvaluatedTarget(""), EvaluatedData()
    return EvaluationResult(folder.name, "", *empty, {}, "", (), 0.0, 0, folder, problem)


def examples_of(result: EvaluationResult) -> list[ExampleResult]:
    """Read the examples of a result as they were written, to list and compare them; invalid lines are left out."""
    found = (_read_line(line, _example) for line in records(result.folder / EXAMPLES))
    return [one for one in found if one is not None]


def token_losses_of(result: EvaluationResult) -> Iterator[TokenLosses]:
    """Read the token losses of a result example by example, since all of them may not fit into memory.

    Yields:
        The losses of an example; invalid lines are left out, and nothing comes of a result without the file.
    """
    for line in records(result.folder / TOKEN_LOSSES):
        if (one := _read_line(line, _token_losses)) is not None:
            yield one


class _DamagedError(ValueError):
    """A value of a result is missing or of another type."""


def _values(one: Any) -> dict[str, Any]:
    return {each.name: getattr(one, each.name) for each in fields(one)}


def _read_line(line: dict[str, object], read: Callable[[dict[str, object]], _Made]) -> _Made | None:
    try:
        return read(line)
    except _DamagedError:
        return None


def _result(value: object, folder: Path) -> EvaluationResult:
    given = _object(value, "the file")
    version = given.get("version")
    if version != VERSION:
        raise _DamagedError(f"version is {version!r}, expected {VERSION}")
    target, data = _object(given.get("target"), "target"), _object(given.get("data"), "data")
    return EvaluationResult(
        folder.name,
        _text(given, "made"),
        EvaluatedTarget(
            _text(target, "name"),
            _text(target, "label"),
            _text(target, "run"),
            _count(target, "step") if target.get("step") is not None else None,
            _text(target, "base"),
            _text(target, "weights"),
        ),
        EvaluatedData(
            tuple(str(name) for name in _list(data, "names")),
            _text(data, "fingerprint"),
            _count(data, "examples"),
            _count(data, "unusable"),
        ),
        _object(given.get("settings"), "settings"),
        _text(given, "settings_key"),
        tuple(_metric(_object(one, "a metric")) for one in _list(given, "metrics")),
        _number(given, "seconds"),
        _count(given, "tokens"),
        folder,
    )


def _metric(given: dict[str, object]) -> MetricValue:
    by_source = _object(given.get("by_source", {}), "by_source")
    return MetricValue(
        _text(given, "name"),
        _text(given, "label"),
        _number(given, "value"),
        as_number(given.get("low")),
        as_number(given.get("high")),
        _count(given, "count"),
        _text(given, "unit"),
        given.get("higher_is_better") is True,
        {name: _number(by_source, name) for name in by_source},
        as_number(given.get("standard_error")),
    )


def _example(given: dict[str, object]) -> ExampleResult:
    scores = _object(given.get("scores", {}), "scores")
    return ExampleResult(
        _count(given, "index"),
        _text(given, "source"),
        tuple(_object(message, "a message") for message in _list(given, "prompt")),
        _text(given, "reference") if given.get("reference") is not None else None,
        _text(given, "answer") if given.get("answer") is not None else None,
        {name: _number(scores, name) for name in scores},
        _count(given, "tokens"),
        as_number(given.get("nll")),
        _count(given, "bytes"),
        _count(given, "correct") if "correct" in given else 0,
    )


def _token_losses(given: dict[str, object]) -> TokenLosses:
    tokens = tuple(str(one) for one in _list(given, "tokens"))
    losses = tuple(as_number(one) for one in _list(given, "losses"))
    if len(tokens) != len(losses) or None in losses:
        raise _DamagedError("tokens and losses differ in number")
    kept = tuple(one for one in losses if one is not None)
    return TokenLosses(_count(given, "index"), tokens, kept, _text(given, "source"))


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _DamagedError(f"{name} is not an object")
    return value


def _list(given: dict[str, object], name: str) -> list[object]:
    value = given.get(name)
    if not isinstance(value, list):
        raise _DamagedError(f"{name} is not a list")
    return value


def _text(given: dict[str, object], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise _DamagedError(f"{name} is not a text")
    return value


def _number(given: dict[str, Any], name: str) -> float:
    value = as_number(given.get(name))
    if value is None:
        raise _DamagedError(f"{name} is not a number")
    return value


def _count(given: dict[str, Any], name: str) -> int:
    value: Any = given.get(name)
    if not is_count(value):
        raise _DamagedError(f"{name} is not a number of at least 0")
    return int(value)
