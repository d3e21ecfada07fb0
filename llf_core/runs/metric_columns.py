"""Metrics as numpy arrays of steps and values per name, updated as lines are appended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.runs.metric_lines import MAX_NAMES, parse_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from llf_core.runs.metric_lines import Block

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

TIME = "time"


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
        for array, new in ((self._steps, steps), (self._values, values), (self._attempts, attempts)):
            array[self._count : count] = new
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
