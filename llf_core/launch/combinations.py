"""The combinations of a sweep's values: a run for each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_RUNS = 100


def combinations(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """What differs from run to run of a sweep: the last key changes fastest.

    Raises:
        ValueError: no values, or more than `MOST_RUNS` runs.
    """
    for key, given in values.items():
        if isinstance(given, str) or not given:
            raise ValueError(f"{key} has the values {given!r}. Expected a list of at least one.")
    total = 1
    for given in values.values():
        total *= len(given)
    if not values or total > MOST_RUNS:
        raise ValueError(f"That would be {total if values else 0} runs. Expected 1 to {MOST_RUNS}.")
    for one in itertools.product(*values.values()):
        yield dict(zip(values, one, strict=True))


def label(one: Mapping[str, Any]) -> str:
    """A combination as runs are called after it: `learning_rate=1e-4 quantization_bit=null`."""
    return " ".join(f"{key}={_word(value)}" for key, value in one.items())


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return exact(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
