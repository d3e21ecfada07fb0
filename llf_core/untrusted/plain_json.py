"""Untrusted JSON as plain data, with limits on nesting and size, and untrusted text made visible."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llf_core.untrusted.files import STATE_BYTES, UnreadableError, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_DEPTH = 64
CONTAINERS = (dict, list, tuple, Mapping)

SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
"""Types of most values. Asking whether a value is a `Mapping` takes ten times as long."""
LONE_SURROGATES = re.compile("[\ud800-\udfff]")
ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Unicode bidirectional control characters. In a name they would change the order of the text around it."""


class NotPlainError(ValueError):
    """Text that is not valid JSON or YAML within the limits, with the line, counted from 1, if known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def json_value(data: bytes | str, pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """Parse untrusted JSON. Nesting is limited, and every string can be encoded as UTF-8, see `replace_surrogates`.

    `NaN` and `Infinity` are accepted, as by Python's `json`. Of a duplicate key the last value counts.

    Args:
        data: the JSON text; as bytes in UTF-8, UTF-16 or UTF-32.
        pairs: `object_pairs_hook` of `json.loads`. Its `ValueError` becomes a `NotPlainError`.

    Raises:
        NotPlainError: the text is not valid JSON, is nested deeper than `MAX_DEPTH`, or contains an integer with
            thousands of digits.
    """
    try:
        value = json.loads(data, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise NotPlainError(f"{error.msg.removesuffix(' at')} (line {error.lineno})", error.lineno) from None
    except UnicodeDecodeError:
        raise NotPlainError("it is not text in UTF-8") from None
    except RecursionError:
        raise NotPlainError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # thousands of digits
        raise NotPlainError(str(error).partition(";")[0]) from None
    opened = data.count(b"[") + data.count(b"{") if isinstance(data, bytes) else data.count("[") + data.count("{")
    if opened > MAX_DEPTH and too_deep(value):
        raise NotPlainError(f"it is nested more than {MAX_DEPTH} levels deep")
    text = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    wide = b"\0" in text  # UTF-16 or UTF-32, whose escapes the pattern does not find
    may_have = b"\\u" in text or b"\xed" in text  # a tenth of the time of the pattern
    return _replace_surrogates_in(value) if wide or (may_have and ESCAPED_SURROGATE.search(text)) else value


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates with U+FFFD, since files and terminals cannot encode them."""
    return LONE_SURROGATES.sub(REPLACEMENT, text)


def _replace_surrogates_in(value: object) -> object:
    if isinstance(value, dict):
        return {replace_surrogates(key): _replace_surrogates_in(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_replace_surrogates_in(one) for one in value]
    return replace_surrogates(value) if isinstance(value, str) else value


def read_object(path: Path, max_bytes: int = STATE_BYTES, root: Path | None = None) -> dict[str, Any]:
    """Read a JSON object from a file of a run; an empty dict if the file is missing or contains anything else."""
    try:
        value = json_value(read_bytes(path, max_bytes, root))
    except (FileNotFoundError, NotPlainError):
        return {}
    return value if isinstance(value, dict) else {}


def read_object_or_empty(path: Path, max_bytes: int = STATE_BYTES, root: Path | None = None) -> dict[str, Any]:
    """Read a JSON object like `read_object`; an empty dict for unreadable files too."""
    try:
        return read_object(path, max_bytes, root)
    except UnreadableError:
        return {}


def too_deep(value: object, limit: int = MAX_DEPTH) -> bool:
    """Whether mappings, lists and tuples are nested deeper than a limit, as in a value that contains itself.

    It goes level by level without recursion and visits what occurs several times in a level once.
    """
    level = [value] if isinstance(value, CONTAINERS) else []
    for _ in range(limit):
        inner = {
            id(one): one
            for outer in level
            for one in (outer if isinstance(outer, (list, tuple)) else outer.values())
            if type(one) not in SCALARS and isinstance(one, CONTAINERS)
        }
        level = [*inner.values()]
        if not level:
            return False
    return True


MAX_WORD_CHARACTERS = 400
"""Maximum length of a word in a message; longer words are shortened in the middle."""
MAX_MESSAGE_CHARACTERS = 4000
_BEGIN, _END = 0.6, 0.2  # shares of the limit kept before and after the cut

# Control characters except line breaks and tabs, bidirectional controls, hidden characters, lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Escape invisible characters by their code, `\x1b` or `\u202e`, so that no text controls a terminal.

    Invisible are control characters (except `\n` and `\t`; a carriage return becomes `\x0d`), bidirectional controls,
    characters that hide text, and lone surrogates. Text without any is returned unchanged (the same object).
    """
    return text if text.isprintable() else _INVISIBLE.sub(_escaped, text)


def visible_json(text: str) -> str:
    r"""Escape invisible characters in text of `json.dumps` as `\u001b`, so that it stays the same JSON.

    They are those of `visible`. Text without any is returned unchanged (the same object).
    """
    return text if text.isprintable() else _INVISIBLE.sub(_json_escaped, text)


def brief(text: str) -> str:
    """Shorten a message for display: `visible`, with long words and long messages cut in the middle (`…`)."""
    text = visible(text)
    if len(text) > MAX_WORD_CHARACTERS:
        text = re.sub(
            rf"(?<!\S)\S{{{MAX_WORD_CHARACTERS + 1},}}", lambda found: _cut(found[0], MAX_WORD_CHARACTERS), text
        )
    return _cut(text, MAX_MESSAGE_CHARACTERS)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: int(limit * _BEGIN)]}…{text[-int(limit * _END) :]}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def _json_escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
