"""Checks what a user's function returned, and describes what it raised."""

from __future__ import annotations

import math
import traceback
from contextlib import suppress

SHOWN = 60
"""Characters of a text or a value that a message shows."""


def number_or_none(value: object) -> float | None:
    """Convert a returned score to a float, which everything that computes with scores expects.

    Args:
        value: what a function returned; an array of numpy or a tensor of torch counts as its value if it has one
            element, `[]`, `[1]` and so on.

    Returns:
        A finite number, 1 and 0 for True and False; None for None.

    Raises:
        ValueError: it is something else; the message goes on after the name of the function: `returned …`.
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
    """Convert a number to a float, for integers too large for one: those become infinite instead of an error."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def raised(error: BaseException, path: str = "", file: str = "") -> str:
    """Describe an exception of a function, to go on after its name: `raised ValueError: … in line 3 of code/f.py`.

    It is part of a sentence: of the message the first line is kept, without full stops at its end. The line is the
    innermost one in the function's file, and is left out if there is none.

    Args:
        path: file name of the function in tracebacks; empty if it has none of its own.
    """
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == path]
    where = f" in line {places[-1]} of {file}" if places else ""
    return f"raised {what.rstrip('.')}{where}"


def shown(text: str) -> str:
    """Put a text on one line of at most `SHOWN` characters, since a message repeats what a function returned."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1].rstrip() + "…"
