"""Reads the fields of a request's body one by one; a field that was not read is an error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.chat.server.api_error import ApiError, invalid, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_INTEGER = 2**63 - 1
_BELOW, _ABOVE = -MAX_INTEGER - 1, MAX_INTEGER


class Fields:
    """Fields of a JSON object, taken one by one; None if missing or null. Invalid values raise `ApiError`.

    Args:
        where: path of the object in the body, such as `messages[0]`; empty for the body.
    """

    def __init__(self, given: object, where: str = "") -> None:
        if not isinstance(given, dict):
            raise invalid(where or "The body", given, "a JSON object")
        self._given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._where = where

    def path(self, name: str) -> str:
        """Path of a field in the body, for errors."""
        return f"{self._where}.{name}" if self._where else name

    def raw(self, name: str) -> Any:
        """Take a value unchecked."""
        return self._given.pop(name, None)

    def text(self, name: str, expected: str = "text") -> str | None:
        """Take a text."""
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            raise invalid(self.path(name), value, expected)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Take true or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid(self.path(name), value, "true or false")
        return value

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """Take a finite number (JSON as Python reads it also has NaN)."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise invalid(self.path(name), value, _range("a number", low, high))
        if not abs(value) < 1e300:  # noqa: PLR2004 - no NaN, no infinity, and no integer that is too large for a float
            raise invalid(self.path(name), value, _range("a finite number", low, high))
        return float(value)

    def integer(self, name: str, low: int = _BELOW, high: int = _ABOVE) -> int | None:
        """Take an integer, by default of 64 bits."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise invalid(self.path(name), value, _range("an integer", low, high))
        return value

    def choice(self, name: str, options: Collection[str], default: str | None = None) -> str | None:
        """Take one of several texts."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in options:
            raise invalid(self.path(name), value, one_of(options))
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        """Take an object, whose fields another `Fields` reads."""
        value = self.raw(name)
        if value is not None and not isinstance(value, dict):
            raise invalid(self.path(name), value, "a JSON object")
        return value

    def list(self, name: str, most: int, expected: str = "a list") -> list[Any] | None:
        """Take a list of limited length."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise invalid(self.path(name), value, expected)
        if len(value) > most:
            raise ApiError(
                400,
                f"{self.path(name)} has {len(value):,} items. Expected at most {most:,}.",
                param=self.path(name),
                code="invalid_value",
            )
        return value

    def required(self, name: str, value: Any, expected: str) -> Any:
        """Return a field's value; raise `ApiError` if it is missing, empty, 0 or false."""
        if value is None:
            path = self.path(name)
            raise ApiError(400, f"{path} is missing. Expected {expected}.", param=path, code="missing_value")
        if not value:
            raise invalid(self.path(name), value, expected)
        return value

    def finish(self, known: Mapping[str, str] | None = None) -> None:
        """Refuse fields that were not taken; `known` has unsupported ones with a sentence on what to do."""
        for name in self._given:
            path = self.path(name)
            advice = (known or {}).get(name)
            if advice is not None:
                raise ApiError(400, f"{path} is not supported. {advice}", param=path, code="unsupported_parameter")
            raise ApiError(
                400,
                f"The field {shown(path)} is unknown. Remove it; docs/serve.md lists the fields.",
                param=path,
                code="unknown_parameter",
            )


def one_of(options: Collection[str]) -> str:
    """Options as the end of a sentence: `a, b or c`."""
    *rest, last = options or [""]
    return f"{', '.join(rest)} or {last}" if rest else last


def _range(what: str, low: float, high: float) -> str:
    bounded = low not in {-math.inf, _BELOW}, high not in {math.inf, _ABOVE}
    if bounded == (True, True):
        return f"{what} from {low} to {high}"
    if bounded == (True, False):
        return f"{what} of at least {low}"
    return f"{what} of at most {high}" if bounded[1] else what
