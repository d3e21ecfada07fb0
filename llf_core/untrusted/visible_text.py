"""Escapes invisible characters in untrusted text and shortens it, so that terminals and pages display it safely."""

from __future__ import annotations

import re

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
