"""Metrics as numpy arrays of steps and values, parsed from lines as they are appended, and losses of single examples.

The loss decreases during training, so an example is compared with its neighbors in time.
"""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llf_core.runs.jsonl import LARGEST, LARGEST_ATTEMPT, Tail, as_number, is_count, parse
from llf_core.untrusted import json_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from llf_core.runs.folder import RunFolder

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Rows = slice | NDArray[np.intp]

MIN_ARROW_BYTES = 64 * 1024  # below this size, parsing line by line is faster than importing pyarrow
BLOCK = 2 * 1024 * 1024  # bytes per thread and block

MAX_NAMES = 1000
"""Maximum number of metrics per run; further names are ignored."""
TIME = "time"
NAME = re.compile(rb'"[^"]*"\s*:')
SEARCHED = 256 * 1024  # bytes searched for names at a time
MANY = 1000  # from this number of words, replacing all at once is faster


class Placeholder(NamedTuple):
    """A number that replaces a string before parsing, since pyarrow reads no NaN and no mixed columns."""

    word: bytes
    letter: int  # position of the word's rare letter
    number: bytes
    meant: float


PLACEHOLDERS = (
    Placeholder(b'"NaN"', 1, b"1.7976931348621e+308", np.nan),
    Placeholder(b'"Infinity"', 1, b"1.7976931348622e+308", np.inf),
    Placeholder(b'"-Infinity"', 2, b"-1.7976931348622e+308", -np.inf),
)


@dataclass
class Block:
    """Records in line order.

    Attributes:
        steps: `[rows]`, int64.
        times: `[rows]`, float64, Unix seconds; NaN if missing.
        attempts: `[rows]`, int32.
        values: for each metric the rows that have it, and their values as float64.
    """

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    attempts: NDArray[np.int32]
    values: dict[str, tuple[Rows, NDArray[np.float64]]] = field(default_factory=dict)


def parse_lines(data: bytes) -> Iterator[Block]:
    """Parse complete lines of `metrics.jsonl` into arrays; invalid lines are skipped.

    More than `MIN_ARROW_BYTES` are parsed by pyarrow, which is much faster since it makes no Python object of each
    number. Data with an irregular line is halved until only its neighbors are parsed line by line.
    """
    if len(data) > MIN_ARROW_BYTES:
        block = _parse_with_pyarrow(data) if _few_names(data) else None
        if block is not None:
            yield block
            return
        middle = data.rfind(b"\n", 0, len(data) // 2) + 1
        if middle > 0:
            # Parse each half separately, so that one invalid line slows only its neighbors.
            yield from parse_lines(data[:middle])
            yield from parse_lines(data[middle:])
            return
    yield _parse_line_by_line(data)


def _parse_line_by_line(data: bytes) -> Block:
    steps: list[int] = []
    times: list[float] = []
    attempts: list[int] = []
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for line in data.splitlines():
        record = parse(line)
        if record is None or not is_count(record.get("step")) or not isinstance(record.get("values"), dict):
            continue
        attempt = record.get("attempt", 1)
        for name, value in record["values"].items():
            number = as_number(value)
            if number is not None and (name in columns or len(columns) < MAX_NAMES):
                rows, values = columns.setdefault(name, ([], []))
                rows.append(len(steps))
                values.append(number)
        steps.append(record["step"])
        written = as_number(record.get("time"))
        times.append(np.nan if written is None else written)
        attempts.append(attempt if is_count(attempt) and attempt < LARGEST_ATTEMPT else 1)
    return Block(
        np.array(steps, np.int64),
        np.array(times, np.float64),
        np.array(attempts, np.int32),
        {name: (np.array(rows, np.intp), np.array(values)) for name, (rows, values) in columns.items()},
    )


def _few_names(data: bytes) -> bool:
    """Whether the lines hold at most `MAX_NAMES` names; pyarrow allocates a full column for each."""
    if b"\\" in data:  # an escape in a name hides where it ends
        return False
    names: set[bytes] = set()
    for start in range(0, len(data), SEARCHED):
        names.update(NAME.findall(data, start, start + SEARCHED))
        if len(names) > MAX_NAMES:
            return False
    return True


def _parse_with_pyarrow(data: bytes) -> Block | None:
    """Parse many lines at once; None if a line differs from the others in structure."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    if not _all_objects(data):
        return None
    numbers = _with_placeholders(data)
    options = arrow_json.ReadOptions(block_size=BLOCK)
    try:
        table = arrow_json.read_json(pa.BufferReader(numbers), read_options=options)
    except pa.ArrowInvalid:
        return None
    if not _has_form(table):
        return None
    block = Block(_numpy(table["step"]), _times(table, spelled=numbers is not data), _attempts(table))
    if block.steps.min() < 0 or block.steps.max() >= LARGEST:
        return None
    for column, field_ in zip(table["values"].flatten(), table.schema.field("values").type, strict=True):
        if not pa.types.is_null(column.type):
            block.values[field_.name] = _values(column, spelled=numbers is not data)
    return block


def _all_objects(data: bytes) -> bool:
    """Whether every line starts with an object and contains at most one nested object and no list.

    A line `null`, or one nested thousands of levels deep, would crash pyarrow 26.0 and this process.
    """
    letters = np.frombuffer(data, np.uint8)
    begins = np.append(0, np.flatnonzero(letters[:-1] == ord("\n")) + 1)
    if not (letters[begins] == ord("{")).all() or b"[" in data:
        return False
    opened = np.flatnonzero(letters == ord("{"))
    return bool(np.diff(np.searchsorted(opened, np.append(begins, len(letters)))).max() <= 2)  # noqa: PLR2004


def _with_placeholders(data: bytes) -> bytes:
    """Replace the three strings for non-finite numbers; returns the same object if there are none."""
    for one in PLACEHOLDERS:
        data = _replaced(data, one)
    return data


def _replaced(data: bytes, one: Placeholder) -> bytes:
    """`data.replace(one.word, one.number)`, ten times faster for rare words by searching for the word's rare letter."""
    letter = one.word[one.letter : one.letter + 1]
    pieces: list[bytes] = []
    start, at = 0, data.find(letter)
    while at >= 0:
        first = at - one.letter
        if data.startswith(one.word, max(first, 0)):
            pieces += [data[start:first], one.number]
            start = first + len(one.word)
            if len(pieces) > MANY:
                return b"".join(pieces) + data[start:].replace(one.word, one.number)
        at = data.find(letter, at + 1)
    return b"".join([*pieces, data[start:]]) if pieces else data


def _has_form(table: pa.Table) -> bool:
    """Whether every record has an integer step and only numbers in `values`."""
    import pyarrow as pa

    kinds = {column: table.schema.field(column).type for column in ("step", "values") if column in table.column_names}
    if kinds.get("step") != pa.int64() or not pa.types.is_struct(kinds.get("values", pa.null())):
        return False
    if not table.num_rows or table["step"].null_count or table["values"].null_count:
        return False
    return all(_is_number(field_.type) or pa.types.is_null(field_.type) for field_ in kinds["values"])


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """A number column without nulls as numpy. Avoids `to_numpy`, which imports pandas."""
    return np.from_dlpack(column.combine_chunks())


def _times(table: pa.Table, *, spelled: bool) -> NDArray[np.float64]:
    if "time" not in table.column_names or not _is_number(table["time"].type):
        return np.full(table.num_rows, np.nan)
    return _filled(table["time"], np.nan, spelled=spelled)


def _attempts(table: pa.Table) -> NDArray[np.int32]:
    import pyarrow as pa

    if "attempt" not in table.column_names or not pa.types.is_integer(table["attempt"].type):
        return np.ones(table.num_rows, np.int32)
    attempts = _filled(table["attempt"], 1, spelled=False)
    return np.where((attempts >= 0) & (attempts < LARGEST_ATTEMPT), attempts, 1).astype(np.int32)


def _filled(column: pa.ChunkedArray, default: float, *, spelled: bool) -> NDArray[np.float64]:
    """A column as float64, nulls replaced by `default`. Avoids `fill_null`, which imports pandas."""
    filled = np.full(len(column), default)
    rows, numbers = _values(column, spelled=spelled)
    filled[rows] = numbers
    return filled


def _values(column: pa.ChunkedArray, *, spelled: bool) -> tuple[Rows, NDArray[np.float64]]:
    import pyarrow as pa

    rows: Rows = slice(None)
    if column.null_count:
        rows = np.flatnonzero(_numpy(column.is_valid().cast(pa.uint8())))
        column = column.drop_null()
    numbers = np.array(_numpy(column), np.float64)
    if spelled:
        for one in PLACEHOLDERS:
            numbers[numbers == float(one.number)] = one.meant
    return rows, numbers


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


class Columns:
    """The metrics of a run. For one step and name the highest attempt wins, then the later line.

    Values of an earlier attempt beyond the first step that a later one logged do not count, since those steps were
    repeated. Returned arrays are read-only or copies, and later lines never change them. Of more than `MAX_NAMES`
    names, the first ones are kept.
    """

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}
        self._first: dict[int, int] = {}  # first logged step by attempt

    @property
    def names(self) -> list[str]:
        """Names with a value, in order of first appearance."""
        return [name for name, series in self._series.items() if name != TIME and len(series.steps)]

    def steps(self, name: str = "loss") -> Ints:
        """Steps with a value of this metric, ascending: `[n]`, int64."""
        return self._of(name).steps

    def values(self, name: str = "loss") -> Floats:
        """Values of this metric, one per step in `steps(name)`: `[n]`, float64, as logged, with NaN and infinities."""
        return self._of(name).values

    def times(self, attempt: int | None = None) -> tuple[Ints, Floats]:
        """Steps `[n]`, int64, and their Unix seconds `[n]`, float64; NaN where a record has no time."""
        series = self._of(TIME)
        if attempt is None:
            return series.steps, series.values
        own = series.attempts == attempt
        return series.steps[own], series.values[own]

    def last(self, name: str) -> float | None:
        """The value of a metric at its highest step; None if there is none."""
        values = self.values(name)
        return float(values[-1]) if len(values) else None

    def __contains__(self, name: str) -> bool:
        return len(self._of(name).steps) > 0

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self._of(TIME).steps)

    def add(self, data: bytes) -> bool:
        """Add complete lines of `metrics.jsonl`; invalid ones are skipped. True if there were records."""
        found = False
        for block in parse_lines(data):
            found = found or len(block.steps) > 0
            self._add(block)
        return found

    def _add(self, block: Block) -> None:
        if not len(block.steps):
            return
        if self._note_attempts(block):
            for series in self._series.values():
                series.keep(self._holds)
        everything = slice(None)
        for name, (rows, logged) in {**block.values, TIME: (everything, block.times)}.items():
            steps, values, attempts = block.steps[rows], logged, block.attempts[rows]
            if len(self._first) > 1:
                held = self._holds(steps, attempts)
                steps, values, attempts = steps[held], values[held], attempts[held]
            if len(steps) and (name in self._series or len(self._series) <= MAX_NAMES):  # plus one for the time
                self._series.setdefault(name, _Series()).append(steps, values, attempts)

    def _note_attempts(self, block: Block) -> bool:
        """Record the first step of each attempt. Returns whether earlier lines may have become invalid."""
        before = dict(self._first)
        for attempt in np.unique(block.attempts).tolist():
            first = int(block.steps[block.attempts == attempt].min())
            self._first[attempt] = min(first, self._first.get(attempt, first))
        return len(self._first) > 1 and self._first != before

    def _holds(self, steps: Ints, attempts: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Mask `[n]` of the records that no later attempt has replaced."""
        held = np.ones(len(steps), np.bool_)
        for attempt, first in self._first.items():
            held &= (attempts >= attempt) | (steps <= first)
        return held

    def _of(self, name: str) -> _Series:
        return self._series.get(name) or _Series()


class _Series:
    """Steps, values and attempts of one metric, in arrays with spare capacity."""

    def __init__(self) -> None:
        self._steps = np.empty(0, np.int64)
        self._values = np.empty(0, np.float64)
        self._attempts = np.empty(0, np.int32)
        self._count = 0

    @property
    def steps(self) -> Ints:
        return self._view(self._steps)

    @property
    def values(self) -> Floats:
        return self._view(self._values)

    @property
    def attempts(self) -> NDArray[np.int32]:
        return self._view(self._attempts)

    def _view(self, array: NDArray) -> NDArray:  # type: ignore[type-arg]
        view = array[: self._count]
        view.flags.writeable = False
        return view

    def keep(self, holds: Callable[[Ints, NDArray[np.int32]], NDArray[np.bool_]]) -> None:
        held = holds(self._steps[: self._count], self._attempts[: self._count])
        if not held.all():
            for name in ("_steps", "_values", "_attempts"):
                setattr(self, name, getattr(self, name)[: self._count][held])
            self._count = int(held.sum())

    def append(self, steps: Ints, values: Floats, attempts: NDArray[np.int32]) -> None:
        """Append `[n]` steps, values and attempts in line order."""
        rising = len(steps) == 1 or bool((steps[1:] > steps[:-1]).all())
        if rising and (self._count == 0 or steps[0] > self._steps[self._count - 1]):
            self._extend(steps, values, attempts)
        else:
            self._merge(steps, values, attempts)

    def _extend(self, steps: Ints, values: Floats, attempts: NDArray[np.int32]) -> None:
        count = self._count + len(steps)
        if count > len(self._steps):
            room = max(count, 2 * len(self._steps)) if self._count else count
            for name in ("_steps", "_values", "_attempts"):
                old = getattr(self, name)
                new = np.empty(room, old.dtype)
                new[: self._count] = old[: self._count]
                setattr(self, name, new)
        for column, new in ((self._steps, steps), (self._values, values), (self._attempts, attempts)):
            column[self._count : count] = new
        self._count = count

    def _merge(self, steps: Ints, values: Floats, attempts: NDArray[np.int32]) -> None:
        all_steps = np.concatenate([self._steps[: self._count], steps])
        all_values = np.concatenate([self._values[: self._count], values])
        all_attempts = np.concatenate([self._attempts[: self._count], attempts])
        order = np.lexsort((all_attempts, all_steps))  # stable: among equals the later line comes last
        ordered = all_steps[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        chosen = order[last]
        self._steps = all_steps[chosen]
        self._values = all_values[chosen]
        self._attempts = all_attempts[chosen]
        self._count = len(chosen)


NEIGHBOR_STEPS = 10
"""Number of steps before and after the center of a comparison window."""

OUTLIER_DEVIATIONS = 3.5
"""Threshold for outliers, in scaled median absolute deviations (1.4826 MAD)."""
MAD_SCALE = 1.4826

EASY_SHARE = 0.25
"""An unseen example with less than this share of the median loss is suspiciously easy."""

UNLEARNED_SHARE = 0.97
"""An example that keeps at least this share of its first loss was not learned."""
OUTLIER_KINDS = ("hardest", "unlearned", "easy", "odd")


@dataclass(frozen=True)
class ExampleLoss:
    """A training example and its losses, each a mean over its trained tokens.

    Attributes:
        number: position in the prepared training set.
        first: loss when it was first trained on, in nats per token; may be NaN or infinite, as the next two.
        last: loss when it was last trained on, in nats per token.
        excess: mean over all visits of its loss minus the median of its neighbors, in nats per token; NaN where no
            neighbor has a finite loss.
        tokens: number of trained tokens.
    """

    number: int
    first: float
    last: float
    excess: float
    seen: int
    tokens: int
    step: int

    def json(self) -> dict[str, Any]:
        """A JSON object, with null for values that are not finite."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


class ExampleLosses:
    """Reads `examples.jsonl` incrementally. For a repeated step the last attempt counts."""

    def __init__(self, folder: RunFolder) -> None:
        self._tail = Tail(folder.examples)
        self._clear()

    def _clear(self) -> None:
        # Attempt and slice of each record; examples of all records are concatenated in arrays.
        self._records: dict[int, tuple[int, int, int]] = {}  # step -> attempt, first, end
        self._number, self._loss, self._tokens = array("q"), array("d"), array("q")

    def refresh(self) -> bool:
        """Read new records, or all if the file was replaced; True if there were new lines, also invalid ones."""
        found = False
        for data, again in self._tail.pieces():
            if again:
                self._clear()
            found = found or bool(data)
            for line in data.splitlines():
                self._take(line)
        return found

    def _take(self, line: bytes) -> None:
        try:
            record = json_value(line)
            step, attempt = int(record["step"]), int(record["attempt"])
            numbers, losses, tokens = (record[name] for name in ("number", "loss", "tokens"))
            read = array("q", numbers), array("d", map(_loss, losses)), array("q", tokens)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return  # an incomplete line, or one of a newer version
        known = self._records.get(step)
        if len({len(part) for part in read}) > 1 or (known is not None and known[0] > attempt):
            return
        first = len(self._number)
        self._number.extend(read[0])
        self._loss.extend(read[1])
        self._tokens.extend(read[2])
        self._records[step] = (attempt, first, len(self._number))

    def __len__(self) -> int:
        return len(self._records)

    def at(self, step: int) -> list[ExampleLoss]:
        """Examples of a step with losses over all visits, sorted by their loss at this step, NaN or highest first."""
        if step not in self._records:
            return []
        _, first, end = self._records[step]
        then = dict(zip(self._number[first:end], self._loss[first:end], strict=True))
        return sorted(self.all(set(then)), key=lambda one: _sort_key(then[one.number]), reverse=True)

    def all(self, only: set[int] | None = None) -> list[ExampleLoss]:
        """All examples, by number, with losses over all their visits."""
        if not self._records:
            return []
        order = sorted(self._records)
        bounds = np.array([self._records[step][1:] for step in order], np.int64)
        lengths = bounds[:, 1] - bounds[:, 0]
        ends = np.cumsum(lengths)
        # Array positions of the examples in step order; for repeated steps only those of the last attempt.
        places = np.repeat(bounds[:, 0] - (ends - lengths), lengths) + np.arange(int(ends[-1]))
        number, loss, tokens = (np.array(part)[places] for part in (self._number, self._loss, self._tokens))
        steps = np.repeat(np.array(order), lengths)
        excess = loss - np.repeat(_neighbor_medians(loss, ends, lengths), lengths)
        if only is not None:
            kept = np.isin(number, list(only))
            number, loss, tokens, steps, excess = (part[kept] for part in (number, loss, tokens, steps, excess))
        if not len(number):
            return []
        by_number = np.argsort(number, kind="stable")  # visits of one example, in order
        firsts = np.flatnonzero(np.diff(number[by_number], prepend=number.min() - 1))
        return [
            ExampleLoss(
                number=int(number[group[0]]),
                first=float(loss[group[0]]),
                last=float(loss[group[-1]]),
                excess=float(np.mean(excess[group])),
                seen=len(group),
                tokens=int(tokens[group[-1]]),
                step=int(steps[group[-1]]),
            )
            for group in np.split(by_number, firsts[1:])
        ]

    def outliers(self, kind: str) -> list[ExampleLoss]:
        """Examples with unusual losses, most unusual first; without those whose excess loss is not finite.

        Args:
            kind: `hardest` (all examples, by excess loss), `unlearned` (visited again without progress, and with a
                positive excess loss), `easy` (low loss at the first visit), `odd` (loss so high that it is not chance:
                a wrong answer, another language, garbage; a modified z-score above 3.5, as Iglewicz and Hoaglin, How to
                Detect and Handle Outliers, 1993, recommend). The bounds of `unlearned` and `easy`, `UNLEARNED_SHARE`
                and `EASY_SHARE`, are choices of this project.

        Raises:
            ValueError: the kind is unknown.
        """
        if kind not in OUTLIER_KINDS:
            raise ValueError(f"Unknown kind {kind!r}. Expected one of {', '.join(OUTLIER_KINDS)}.")
        everything = [one for one in self.all() if np.isfinite(one.excess)]
        if not everything:
            return []
        by_excess = sorted(everything, key=lambda one: -one.excess)
        if kind == "hardest":
            return by_excess
        if kind == "unlearned":
            return [
                one for one in by_excess if one.seen > 1 and one.last >= UNLEARNED_SHARE * one.first and one.excess > 0
            ]
        if kind == "easy":
            usual = float(np.median([one.first for one in everything]))
            return sorted((one for one in everything if one.first < EASY_SHARE * usual), key=lambda one: one.first)
        excess = np.array([one.excess for one in everything])
        middle = float(np.median(excess))
        spread = MAD_SCALE * float(np.median(np.abs(excess - middle)))
        return [one for one in by_excess if one.excess > middle + OUTLIER_DEVIATIONS * max(spread, 1e-9)]


def _neighbor_medians(
    loss: NDArray[np.float64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Median loss of the examples in each window of neighboring steps, `[steps]`."""
    usual = np.empty(len(ends))
    groups = max(1, len(ends) // (2 * NEIGHBOR_STEPS + 1))
    for steps in np.array_split(np.arange(len(ends)), groups):
        first = int(ends[steps[0]] - lengths[steps[0]])
        part = loss[first : int(ends[steps[-1]])]
        usual[steps] = np.median(part[np.isfinite(part)]) if np.isfinite(part).any() else np.nan
    return usual


def _loss(value: object) -> float:
    number = as_number(value)
    if number is None:
        raise TypeError(value)
    return number


def _sort_key(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
