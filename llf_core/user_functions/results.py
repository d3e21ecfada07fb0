"""Checks what a user's function returned, and describes what it raised."""

from __future__ import annotations

import math
import traceback
from contextlib import suppress

SHOWN = 60
"""Maximum length of a value in a message."""


def number_or_none(value: object) -> float | None:
    """Convert a returned score to a finite float or None, also from an array or tensor of one element (`[]`, `[1]`).

    Raises:
        ValueError: it is something else; the message continues the name of the function: `returned …`.
    """
    if value is None:
        return None
    if hasattr(value, "item"):  # a scalar of numpy or torch
        with suppress(ValueError, RuntimeError, TypeError):  # several values: reported below
            value = value.item()
    if not isinstance(value, int | float):
        raise ValueError(f"returned {shown(repr(value))}. Expected a number, or None")  # noqa: TRY004 - for a message
    number = as_float(value)
    if not math.isfinite(number):
        raise ValueError(f"returned {number}. Expected a finite number, or None")
    return number


def as_float(value: float) -> float:
    """Convert a number to a float; integers too large for one become infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def raised(error: BaseException, path: str = "", file: str = "") -> str:
    """Describe an exception, to continue a function's name: `raised ValueError: … in line 3 of code/f.py`.

    Of the message the first line is kept, without its final full stop. The line is the innermost one in the function's
    file, named `path` in tracebacks.
    """
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == path]
    where = f" in line {places[-1]} of {file}" if places else ""
    return f"raised {what.rstrip('.')}{where}"


def shown(text: str) -> str:
    """Put a text on one line of at most `SHOWN` characters."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1].rstrip() + "…"
