from __future__ import annotations

from operator import index

from llf_core.user_error import BAD_CONFIG, UserError


class EvaluationError(UserError, ValueError):
    """An evaluation is not possible as requested. The message says what was expected."""

    exit_code = BAD_CONFIG


def check_whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Check that a number that a caller or a file gave is an integer in a range.

    Raises:
        EvaluationError: it is no integer, or out of range.
    """
    try:
        number = None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]  # others raise an error
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        expected = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most:,}"
        raise EvaluationError(f"{name} is {repr(value)[:80]}. Expected {expected}.")
    return number
