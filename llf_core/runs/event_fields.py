"""Validation of event fields on reading, so that an invalid field of a damaged or newer file breaks no view."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.runs.jsonl import as_number
from llf_core.runs.plain_text import strip_bidi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LATEST = 2.0**37
"""Upper limit of a timestamp in Unix seconds (the year 6325)."""
LARGEST = 2**53
"""Upper limit of integers, which JavaScript represents exactly below it (`Number.MAX_SAFE_INTEGER` + 1)."""
LARGEST_ATTEMPT = 2**31
"""Upper limit of an attempt, so that arrays hold it in 32 bits."""


def is_timestamp(value: object) -> bool:
    """Whether a value is a time in Unix seconds from 0 to below `LATEST`, from which Python can make a date."""
    number = None if isinstance(value, str) else as_number(value)
    return number is not None and 0 <= number < LATEST


def is_count(value: object) -> bool:
    """Whether a value is an integer from 0 to below 2^53: a count, a step or an attempt number."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def is_finite_number(value: object) -> bool:
    """Whether a value is a finite number."""
    number = None if isinstance(value, str) else as_number(value)
    return number is not None and math.isfinite(number)


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


CHECKS: dict[str, Callable[[object], bool]] = {
    "time": is_timestamp,
    "attempt": is_count,
    "step": is_count,
    "from_step": is_count,
    "parameters": is_count,
    "trainable": is_count,
    "bytes": is_finite_number,
    "largest": is_finite_number,
    "args": _is(dict),
    "changes": _is(dict),
    "values": _is(dict),
    "cancels": _is(list),
    "message": _is(str),
}
"""Validity check by field name, for all types of events."""


def valid_fields(event: Mapping[str, object]) -> dict[str, Any]:
    """Return the event without invalid fields, and its top-level strings without bidirectional controls."""
    good = ((name, value) for name, value in event.items() if name not in CHECKS or CHECKS[name](value))
    return {name: strip_bidi(value) if isinstance(value, str) else value for name, value in good}
