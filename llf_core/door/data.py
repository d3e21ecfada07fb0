"""JSON of strangers as plain data: no nesting that a later walk over it would not survive."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llf_core.door.files import STATE_BYTES, UnreadableError, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEEPEST = 64
"""Levels of lists and mappings inside each other."""


HALVES = re.compile("[\ud800-\udfff]")
HALF_WRITTEN = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Signs that turn what follows: a name would mirror the words around it."""


class NotPlainError(ValueError):
    """Text that is no plain data within the limits.

    Attributes:
        line: where, counted from 1; None where that is not known.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def json_value(data: bytes | str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a text of JSON; its texts can all be written as UTF-8, see `whole_text`.

    Args:
        data: the text.
        pairs: makes an object of its keys and values, as for `json.loads`.

    Raises:
        NotPlainError: it is no JSON, nested too deeply, or has a number of thousands of digits.
    """
    try:
        value = json.loads(data, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise NotPlainError(f"{error.msg} (line {error.lineno})", error.lineno) from None
    except UnicodeDecodeError:
        raise NotPlainError("it is not text in UTF-8") from None
    except RecursionError:
        raise NotPlainError(f"it is nested more than {DEEPEST} levels deep") from None
    except ValueError as error:  # thousands of digits
        raise NotPlainError(str(error).partition(";")[0]) from None
    opened = data.count(b"[") + data.count(b"{") if isinstance(data, bytes) else data.count("[") + data.count("{")
    if opened > DEEPEST and _too_deep(value):
        raise NotPlainError(f"it is nested more than {DEEPEST} levels deep")
    text = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    return _without_halves(value) if HALF_WRITTEN.search(text) else value


def whole_text(text: str) -> str:
    """The text with a sign in the place of each lone half of a surrogate pair, which no file and terminal takes."""
    return HALVES.sub(REPLACEMENT, text)


def _without_halves(value: Any) -> Any:
    if isinstance(value, dict):
        return {whole_text(key): _without_halves(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_halves(one) for one in value]
    return whole_text(value) if isinstance(value, str) else value


def read_object(path: Path, most: int = STATE_BYTES, root: Path | None = None) -> dict[str, Any]:
    """What a file of JSON holds; empty where there is none, or what it holds is no object.

    Args:
        path: the file.
        most: bytes that it may have.
        root: see `open_file`.

    Raises:
        UnreadableError: it is no regular file, or too large.
    """
    try:
        value = json_value(read_bytes(path, most, root))
    except (FileNotFoundError, NotPlainError):
        return {}
    return value if isinstance(value, dict) else {}


def peek_object(path: Path, most: int = STATE_BYTES, root: Path | None = None) -> dict[str, Any]:
    """The same; empty also where the file cannot be read: for those who only look."""
    try:
        return read_object(path, most, root)
    except UnreadableError:
        return {}


def _too_deep(value: Any) -> bool:
    """Whether lists and mappings are nested too deeply; walks level by level, without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
