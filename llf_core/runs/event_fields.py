"""The fields of events, checked where they are read: an odd one, of a torn file or a newer program, spoils no view."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.runs.jsonl import as_number
from llf_core.runs.plain_text import one_way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LATEST = 2.0**37
"""Seconds since 1970 that a calendar knows (the year 6325), everywhere."""
LARGEST = 2**53
"""Whole numbers from here on are none in JavaScript."""


def is_moment(value: Any) -> bool:
    """Whether a value is a time in Unix seconds."""
    number = None if isinstance(value, str) else as_number(value)
    return number is not None and 0 <= number < LATEST


def is_whole(value: Any) -> bool:
    """Whether a value is a count, a step or the number of an attempt."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def is_amount(value: Any) -> bool:
    """Whether a value is a finite number."""
    number = None if isinstance(value, str) else as_number(value)
    return number is not None and math.isfinite(number)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


CHECKS: dict[str, Callable[[Any], bool]] = {
    "time": is_moment,
    "attempt": is_whole,
    "step": is_whole,
    "from_step": is_whole,
    "parameters": is_whole,
    "trainable": is_whole,
    "bytes": is_amount,
    "largest": is_amount,
    "args": _is(dict),
    "changes": _is(dict),
    "values": _is(dict),
    "cancels": _is(list),
    "message": _is(str),
}
"""What the fields hold that views reckon with, whatever the type of the event."""


def checked(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event without the fields that do not hold what they should: they count as not written.

    Its texts are as they are shown, see `one_way`.
    """
    good = ((name, value) for name, value in event.items() if name not in CHECKS or CHECKS[name](value))
    return {name: one_way(value) if isinstance(value, str) else value for name, value in good}
