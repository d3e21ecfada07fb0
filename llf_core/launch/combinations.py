"""Combinations of the values of a sweep."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_RUNS = 100


def combinations(values: Mapping[str, Sequence[object]]) -> Iterator[dict[str, Any]]:
    """Iterate over all combinations of a sweep; the last key changes fastest.

    Raises:
        ValueError: there are no values, a key has no list of values, or there are more than `MAX_RUNS` combinations.
    """
    lists = {key: _values(key, given) for key, given in values.items()}
    total = math.prod(map(len, lists.values()))
    if not lists or total > MAX_RUNS:
        raise ValueError(f"The sweep has {total if lists else 0} runs. Expected 1 to {MAX_RUNS}.")
    for one in itertools.product(*lists.values()):
        yield dict(zip(lists, one, strict=True))


def _values(key: str, given: object) -> Sequence[object]:
    found = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(found, Sequence) or isinstance(found, str | bytes) or not found:
        raise ValueError(f"{key} has the values {given!r}. Expected a non-empty list.")
    return found


def combination_label(one: Mapping[str, object]) -> str:
    """Format a combination for a run's name: `learning_rate=1e-4 quantization_bit=null`."""
    return " ".join(f"{key}={_word(value)}" for key, value in one.items())


def _word(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return exact(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return (
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, bool | list | tuple | dict)
        else str(value)
    )
